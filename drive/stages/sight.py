"""The first part of pretraining: a vision tower learns where things are, by dense targets, before it is spoken to.

From one frame and the route command two things are asked of the tower's tokens: which cells of the ground ahead are drivable and
which are under a vehicle, and where the route runs (bird's-eye supervision, as in TransFuser, arXiv 2205.15997, section 3.3). Answers
in words alone teach a small tower next to nothing in a laptop's time: a few digits in some hundred tokens depend on the picture.
The head is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from tqdm import tqdm

from drive.core.types import Command, Scenario
from drive.datasets.ground import CELLS, PLANES, ROUTE_AT, ground_planes, route_offsets
from drive.planners.vla.encode import PromptEncoder
from drive.planners.vla.tiny import IMAGE_PIXELS
from drive.simulators.birdseye import BirdsEye

HEAD_WIDTH = 320
ROUTE_SCALE = 4.0  # m; brings the offsets to the size of the other outputs
COMMANDS = list(Command)


class SightHead(torch.nn.Module):
    """Logits of the planes and offsets of the route in m, from what was seen and a command (B,).

    What was seen: the tokens of a frame (B, tokens * hidden), or a state of the language model (B, hidden).
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.tokens = torch.nn.Linear(inputs, HEAD_WIDTH)
        self.command = torch.nn.Embedding(len(COMMANDS), HEAD_WIDTH)
        self.planes = torch.nn.Linear(HEAD_WIDTH, len(PLANES) * CELLS * CELLS)
        self.route = torch.nn.Linear(HEAD_WIDTH, len(ROUTE_AT))

    def forward(self, tokens: torch.Tensor, command: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """((B, planes, CELLS, CELLS), (B, len(ROUTE_AT)))."""
        hidden = functional.gelu(self.tokens(tokens) + self.command(command))
        return self.planes(hidden).view(-1, len(PLANES), CELLS, CELLS), ROUTE_SCALE * self.route(hidden)


class GroundData:
    """What lies before every scene, in memory: 1.5 kB a scene."""

    def __init__(self, dataset: Sequence[Scenario], count: int) -> None:
        planes, routes, commands = [], [], []
        for i in tqdm(range(count), desc="ground", dynamic_ncols=True):
            scenario = dataset[i]
            scene = scenario.privileged()
            planes.append(np.round(255 * ground_planes(scene, BirdsEye(scene.road_map))).astype(np.uint8))
            routes.append(route_offsets(scene))
            commands.append(COMMANDS.index(scene.command))
            self._note(scenario)
        self.planes = torch.from_numpy(np.stack(planes))
        self.routes = torch.from_numpy(np.stack(routes))
        self.commands = torch.tensor(commands)

    def __len__(self) -> int:
        return len(self.commands)

    def _note(self, scenario: Scenario) -> None:
        """What else is kept of a scene."""


class SightData(GroundData):
    """The present frame of every scene too: 40 kB a scene."""

    def __init__(self, dataset: Sequence[Scenario], count: int) -> None:
        self._frames: list[NDArray[np.uint8]] = []
        super().__init__(dataset, count)
        self.images: NDArray[np.uint8] = np.stack(self._frames)  # (N, C, H, W, 3)
        self._frames.clear()

    def _note(self, scenario: Scenario) -> None:
        self._frames.append(scenario.observation().images[:, -1])


class SightTerms(NamedTuple):
    """Losses of one batch, and the error of the route."""

    planes: torch.Tensor  # cross-entropy
    route: torch.Tensor  # smooth L1 in units of ROUTE_SCALE
    error: torch.Tensor  # (B, len(ROUTE_AT)) m, absolute

    @property
    def loss(self) -> torch.Tensor:
        """What is minimised."""
        return self.planes + self.route


def sight_terms(planes: torch.Tensor, route: torch.Tensor, data: GroundData, index: NDArray[np.int64]) -> SightTerms:
    """The terms of a head's answers about the scenes `index`."""
    planes_loss = functional.binary_cross_entropy_with_logits(planes, data.planes[index].to(planes.device).float() / 255.0)
    wanted = data.routes[index].to(route.device)
    route_loss = functional.smooth_l1_loss(route / ROUTE_SCALE, wanted / ROUTE_SCALE, beta=0.25)
    return SightTerms(planes_loss, route_loss, (route - wanted).detach().abs())


class SightTrainer:
    """The tower of `model` in training, with a head that is thrown away."""

    def __init__(self, model, processor) -> None:
        self.model, self.encoder = model, PromptEncoder(processor)
        tokens = processor.image_tokens((IMAGE_PIXELS, IMAGE_PIXELS))
        self.head = SightHead(tokens * model.config.vision_config.out_hidden_size).to(model.device)

    def terms(self, data: SightData, index: NDArray[np.int64]) -> SightTerms:
        """Losses and errors of the frames `index`."""
        device = self.model.device
        frames = self.encoder.processor.fit(data.images[index, 0])
        inputs = self.encoder.processor.image_inputs(list(frames[:, None]), torch.zeros(1, 1, dtype=torch.long))
        tokens = self.model.get_image_features(inputs["pixel_values"].to(device), inputs["image_grid_thw"].to(device)).pooler_output
        planes, route = self.head(torch.stack(list(tokens)).flatten(1), data.commands[index].to(device))
        return sight_terms(planes, route, data, index)

    def step(self, data: SightData, index: NDArray[np.int64]) -> dict[str, float]:
        """Gradients of one batch; what to log."""
        clock = time.perf_counter()
        self.model.train()
        terms = self.terms(data, index)
        terms.loss.backward()
        took = time.perf_counter() - clock
        logs = {"planes_loss": float(terms.planes.detach()), "route_loss": float(terms.route.detach()), "route_error_m": float(terms.error.mean())}
        return {**logs, "time/samples_per_s": len(index) / took}

    @torch.no_grad()
    def validate(self, data: SightData) -> dict[str, float]:
        """Losses on held-out scenes, and the mean error of the route at 20 and 44 m."""
        self.model.eval()
        parts = [self.terms(data, np.arange(at, min(at + 64, len(data)))) for at in range(0, len(data), 64)]
        error = torch.cat([part.error for part in parts]).mean(0)
        return {
            "planes_loss": float(torch.stack([part.planes for part in parts]).mean()),
            "route_error_20_m": float(error[ROUTE_AT.index(20)]),
            "route_error_44_m": float(error[ROUTE_AT.index(44)]),
        }
