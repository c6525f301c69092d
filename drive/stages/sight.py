"""The first part of pretraining: a vision tower learns where things are, by dense targets, before it is spoken to.

From one frame and the route command two things are asked of the tower's tokens: which cells of the ground ahead are drivable and
which are under a vehicle, and where the route runs (bird's-eye supervision, as in TransFuser, arXiv 2205.15997, section 3.3); where a car
is to be driven among others also how near the next hazards of each kind are. Answers in words alone teach a small tower next to nothing in
a laptop's time: a few digits in some hundred tokens depend on the picture. The head is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional
from tqdm import tqdm

from drive.core.runs import RunFolder
from drive.core.types import Command, Scenario
from drive.datasets.ground import CELLS, HAZARDS, PLANES, ROUTE_AT, ground_planes, hazards_ahead, route_offsets
from drive.planners.vla.checkpoint import read_state
from drive.planners.vla.encode import PromptEncoder
from drive.simulators.birdseye import BirdsEye
from drive.stages.loop import StageConfig, apply_gradients, batch_indices, mixed, optimizer_at, run_loop

HEAD_WIDTH = 320
ROUTE_SCALE = 4.0  # m; brings the offsets to the size of the other outputs
HAZARD_SCALE = 0.2  # of nearness, likewise
HEAD = "sight_head.safetensors"  # beside the weights of a checkpoint
COMMANDS = list(Command)


class Seen(NamedTuple):
    """What a head reads off B states."""

    planes: torch.Tensor  # (B, planes, CELLS, CELLS) logits
    route: torch.Tensor  # (B, len(ROUTE_AT)) m
    hazards: torch.Tensor | None  # (B, len(HAZARDS)) nearness, where they are asked


class SightHead(torch.nn.Module):
    """Logits of the planes, offsets of the route in m and, with `hazards`, their nearness, from what was seen and a command (B,).

    What was seen: the tokens of a frame (B, tokens * hidden), or a state of the language model (B, hidden).
    """

    def __init__(self, inputs: int, hazards: bool = False) -> None:
        super().__init__()
        self.tokens = torch.nn.Linear(inputs, HEAD_WIDTH)
        self.command = torch.nn.Embedding(len(COMMANDS), HEAD_WIDTH)
        self.planes = torch.nn.Linear(HEAD_WIDTH, len(PLANES) * CELLS * CELLS)
        self.route = torch.nn.Linear(HEAD_WIDTH, len(ROUTE_AT))
        self.hazards = torch.nn.Linear(HEAD_WIDTH, len(HAZARDS)) if hazards else None

    def forward(self, tokens: torch.Tensor, command: torch.Tensor) -> Seen:
        """What `tokens` (B, inputs) tell under `command` (B,)."""
        hidden = functional.gelu(self.tokens(tokens) + self.command(command))
        planes = self.planes(hidden).view(-1, len(PLANES), CELLS, CELLS)
        return Seen(planes, ROUTE_SCALE * self.route(hidden), self.hazards(hidden) if self.hazards is not None else None)


class GroundData:
    """What lies before every scene, in memory: 1.5 kB a scene."""

    def __init__(self, dataset: Sequence[Scenario], count: int) -> None:
        planes, routes, hazards, commands = [], [], [], []
        for i in tqdm(range(count), desc="ground", dynamic_ncols=True):
            scenario = dataset[i]
            scene = scenario.privileged()
            planes.append(np.round(255 * ground_planes(scene, BirdsEye(scene.road_map))).astype(np.uint8))
            routes.append(route_offsets(scene))
            hazards.append(hazards_ahead(scene))
            commands.append(COMMANDS.index(scene.command))
            self._note(scenario)
        self.planes = torch.from_numpy(np.stack(planes))
        self.routes = torch.from_numpy(np.stack(routes))
        self.hazards = torch.from_numpy(np.stack(hazards))
        self.commands = torch.tensor(commands)

    def __len__(self) -> int:
        return len(self.commands)

    def _note(self, scenario: Scenario) -> None:
        """What else is kept of a scene."""


class SightData(GroundData):
    """The first camera's present frame of every scene too: 40 kB a scene."""

    def __init__(self, dataset: Sequence[Scenario], count: int) -> None:
        self._frames: list[NDArray[np.uint8]] = []
        super().__init__(dataset, count)
        self.images: NDArray[np.uint8] = np.stack(self._frames)  # (N, H, W, 3)
        self._frames.clear()

    def _note(self, scenario: Scenario) -> None:
        self._frames.append(scenario.observation().images[0, -1])


class SightTerms(NamedTuple):
    """Losses of one batch, and the errors of route and hazards."""

    planes: torch.Tensor  # cross-entropy
    route: torch.Tensor  # smooth L1 in units of ROUTE_SCALE
    hazards: torch.Tensor  # smooth L1 in units of HAZARD_SCALE; 0 where they are not asked
    error: torch.Tensor  # (B, len(ROUTE_AT)) m, absolute
    hazard_error: torch.Tensor | None  # (B, len(HAZARDS)) absolute, of the nearness

    @property
    def loss(self) -> torch.Tensor:
        """What is minimised."""
        return self.planes + self.route + self.hazards


def sight_terms(seen: Seen, data: GroundData, index: NDArray[np.int64]) -> SightTerms:
    """The terms of a head's answers about the scenes `index`."""
    device = seen.route.device
    planes_loss = functional.binary_cross_entropy_with_logits(seen.planes, data.planes[index].to(device).float() / 255.0)
    wanted = data.routes[index].to(device)
    route_loss = functional.smooth_l1_loss(seen.route / ROUTE_SCALE, wanted / ROUTE_SCALE, beta=0.25)
    hazard_loss, hazard_error = torch.zeros((), device=device), None
    if seen.hazards is not None:
        near = data.hazards[index].to(device)
        hazard_loss = functional.smooth_l1_loss(seen.hazards / HAZARD_SCALE, near / HAZARD_SCALE, beta=0.25)
        hazard_error = (seen.hazards - near).detach().abs()
    return SightTerms(planes_loss, route_loss, hazard_loss, (seen.route - wanted).detach().abs(), hazard_error)


class SightTrainer:
    """The tower of `model` in training, with a head that is thrown away."""

    def __init__(self, model, processor, frame: tuple[int, int], hazards: bool = False) -> None:
        """frame: height and width of the frames, as they come."""
        self.model, self.encoder = model, PromptEncoder(processor)
        tokens = processor.image_tokens(processor.fit(np.zeros((1, *frame, 3), np.uint8)).shape[1:3])
        self.head = SightHead(tokens * model.config.vision_config.out_hidden_size, hazards).to(model.device)

    def terms(self, data: GroundData, images: NDArray[np.uint8], index: NDArray[np.int64]) -> SightTerms:
        """Losses and errors of the frames `index` of `images` (N, H, W, 3)."""
        device = self.model.device
        frames = self.encoder.processor.fit(images[index])
        inputs = self.encoder.processor.image_inputs(list(frames[:, None]), torch.zeros(1, 1, dtype=torch.long))
        tokens = self.model.get_image_features(inputs["pixel_values"].to(device), inputs["image_grid_thw"].to(device)).pooler_output
        seen = self.head(torch.stack(list(tokens)).flatten(1), data.commands[index].to(device))
        return sight_terms(Seen(*(None if part is None else part.float() for part in seen)), data, index)  # type: ignore[arg-type]

    def step(self, data: GroundData, images: NDArray[np.uint8], index: NDArray[np.int64], config: StageConfig) -> dict[str, float]:
        """Gradients of one batch; what to log."""
        clock = time.perf_counter()
        self.model.train()
        with mixed(self.model, config):
            terms = self.terms(data, images, index)
        terms.loss.backward()
        took = time.perf_counter() - clock
        logs = {"planes_loss": float(terms.planes.detach()), "route_loss": float(terms.route.detach()), "route_error_m": float(terms.error.mean())}
        if terms.hazard_error is not None:
            logs["hazard_error"] = float(terms.hazard_error.mean())
        return {**logs, "time/samples_per_s": len(index) / took}

    @torch.no_grad()
    def validate(self, data: SightData) -> dict[str, float]:
        """Losses on held-out scenes, the mean error of the route at 20 and 44 m, and that of each hazard's nearness."""
        self.model.eval()
        parts = [self.terms(data, data.images, np.arange(at, min(at + 64, len(data)))) for at in range(0, len(data), 64)]
        error = torch.cat([part.error for part in parts]).mean(0)
        logs = {
            "planes_loss": float(torch.stack([part.planes for part in parts]).mean()),
            "route_error_20_m": float(error[ROUTE_AT.index(20)]),
            "route_error_44_m": float(error[ROUTE_AT.index(44)]),
        }
        errors = [part.hazard_error for part in parts if part.hazard_error is not None]
        return logs | {f"{name}_error": float(value) for name, value in zip(HAZARDS, torch.cat(errors).mean(0))} if errors else logs


def learn_to_see(
    run: RunFolder,
    model,
    trainer: SightTrainer,
    data: GroundData,
    images: NDArray[np.uint8],
    val: Sequence[Scenario] | None,
    config: StageConfig,
    steps: tuple[int, int],
    save: Callable[[Path], None],
    resume_from: tuple[int, Path] | None,
) -> None:
    """Steps 0..steps[0]-1 of a stage, of steps[1] of the frames `images` (N, H, W, 3) each: the vision tower and the trainer's head. `save` writes the model."""
    held_out = SightData(val, min(len(val), config.validate_scenes)) if val is not None and config.validate_scenes else None
    learning = torch.nn.ModuleDict({"tower": model.model.visual, "head": trainer.head})
    learns = {p: p.requires_grad for p in learning.parameters()}
    learning.requires_grad_(True)
    if resume_from is not None:
        trainer.head.load_state_dict(read_state(resume_from[1] / HEAD))
    optimizer, start = optimizer_at(learning, config.optim, resume_from)

    def step_fn(step: int) -> dict[str, float]:
        logs = trainer.step(data, images, batch_indices(len(data), steps[1], step, config.seed), config)
        return {**logs, "gradient_norm": apply_gradients(list(learning.parameters()), optimizer, config.optim.clip_norm)}

    def save_both(folder: Path) -> None:
        save(folder)
        save_file(trainer.head.state_dict(), folder / HEAD)

    run_loop(run, save_both, optimizer, config, start, step_fn, partial(trainer.validate, held_out) if held_out else None, (0, steps[0]))
    for parameter, learnt in learns.items():
        parameter.requires_grad_(learnt)
