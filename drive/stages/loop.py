"""What every training stage shares: optimiser, schedule, batches that depend on seed and step alone, checkpoints, resuming.

A batch, a dropout mask and a roll-out at step k are functions of (seed, k). So a run that was killed and resumed goes on with
the same numbers as one that was not.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tqdm import tqdm

from drive.core.checks import above, at_least, refuse, share
from drive.core.errors import CheckpointError
from drive.core.runs import RunFolder
from drive.core.seeds import numpy_rng, stream
from drive.planners.vla.checkpoint import read_state


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine down to `final_lr_share` of the rate."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    final_lr_share: float = 0.1
    clip_norm: float = 1.0  # of the gradient over all weights
    embedding_lr_share: float = 1.0  # of the rate, for the embedding rows: their starting geometry is worth keeping

    def __post_init__(self) -> None:
        low = at_least(0, self, "weight_decay", "warmup_steps", "embedding_lr_share")
        refuse(above(0.0, self, "learning_rate", "clip_norm") + low + share(self, "final_lr_share"))


PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class StageConfig:
    """What every stage is told: how long, on how much, how often what is written."""

    steps: int = 1500
    seed: int = 0
    log_every: int = 10
    validate_every: int = 300
    validate_scenes: int = 64  # 0 does without validation
    checkpoint_every: int = 300
    max_scenes: int = 0  # 0 takes all
    mixed_precision: str = "no"  # or bf16: weights and their updates stay as they are, matrix products are in bfloat16
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> list[str]:
        every = at_least(1, self, "steps", "log_every", "validate_every", "checkpoint_every")
        precision = [] if self.mixed_precision in PRECISIONS else [f"mixed_precision={self.mixed_precision} is none of {', '.join(PRECISIONS)}"]
        return every + at_least(0, self, "validate_scenes", "max_scenes") + precision


@contextmanager
def mixed(model: torch.nn.Module, config: StageConfig) -> Iterator[None]:
    """Forward passes of `model` in the precision that `config` asks for."""
    device, reduced = next(model.parameters()).device.type, config.mixed_precision == "bf16"
    before = getattr(model.config, "_attn_implementation", None)
    if reduced and device == "cpu":
        model.set_attn_implementation("eager")  # type: ignore[operator] # the fused kernel's gradient is three times slower in bfloat16 than in float32
    try:
        with torch.autocast(device, torch.bfloat16, enabled=reduced):
            yield
    finally:
        if reduced and device == "cpu":
            model.set_attn_implementation(before)  # type: ignore[operator]


KEPT = 2  # checkpoints of a run, the newest ones


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The rate at `step` of `steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    share = config.final_lr_share + (1.0 - config.final_lr_share) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return config.learning_rate * share


def make_optimizer(model: torch.nn.Module, config: OptimConfig, beside: torch.nn.Module | None = None) -> torch.optim.AdamW:
    """AdamW over the weights that are trained; no weight decay on vectors (norms, biases) and embeddings. `beside` learns with the model, at the whole rate."""
    whole = hasattr(model, "get_input_embeddings")  # a part of a model, or a model with a head, is looked through
    tables = [model.get_input_embeddings()] if whole else [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]  # type: ignore[operator]
    embeddings = {id(p) for table in tables for p in table.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = [p for p in trained if id(p) in embeddings]
    matrices = [p for p in trained if id(p) not in embeddings and p.ndim >= 2]
    vectors = [p for p in trained if id(p) not in embeddings and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "share": 1.0},
        {"params": vectors, "weight_decay": 0.0, "share": 1.0},
        {"params": rows, "weight_decay": 0.0, "share": config.embedding_lr_share},
        {"params": list(beside.parameters()) if beside is not None else [], "weight_decay": 0.0, "share": 1.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.learning_rate, betas=(0.9, 0.95))


def batch_indices(count: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """(batch,) indexes of step `step`: shuffled epochs laid end to end, so every sample is seen once an epoch."""
    start, out = step * batch, []
    while len(out) < batch:
        epoch, at = divmod(start + len(out), count)
        order = numpy_rng(seed, "order", epoch).permutation(count)
        out.extend(order[at : at + batch - len(out)].tolist())
    return np.array(out, np.int64)


Save = Callable[[Path], None]


def save_training(run: RunFolder, step: int, save: Save, optimizer: torch.optim.Optimizer) -> None:
    """A checkpoint (`save` writes the model into a folder) with the optimiser's state, whole or not at all; only the newest KEPT stay."""
    with run.checkpoint_dir(step) as folder:
        save(folder)
        tensors = {
            f"{i}.{name}": value.contiguous() if torch.is_tensor(value) else torch.tensor(value)
            for i, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        save_file(tensors, folder / "optimizer.safetensors")
    for old in list(run.checkpoints().values())[:-KEPT]:
        shutil.rmtree(old)


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Put the state that `save_training` wrote back."""
    state = optimizer.state_dict()
    restored: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in read_state(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        restored.setdefault(int(index), {})[name] = value
    wanted = sum(len(g["params"]) for g in state["param_groups"])
    if restored and max(restored) >= wanted:
        raise CheckpointError(f"{folder}: the optimiser's state is of another model ({max(restored) + 1} tensors, {wanted} wanted)")
    state["state"] = restored
    optimizer.load_state_dict(state)


def optimizer_at(
    model: torch.nn.Module, config: OptimConfig, resume_from: tuple[int, Path] | None, beside: torch.nn.Module | None = None
) -> tuple[torch.optim.AdamW, int]:
    """(optimiser, first step) of a run that begins, or that goes on from the checkpoint (step, folder)."""
    optimizer = make_optimizer(model, config, beside)
    if resume_from is None:
        return optimizer, 0
    load_optimizer(optimizer, resume_from[1])
    return optimizer, resume_from[0]


Step = Callable[[int], dict[str, float]]


def run_loop(
    run: RunFolder,
    save: Save,
    optimizer: torch.optim.Optimizer,
    config: StageConfig,
    start: int,
    step_fn: Step,
    validate: Callable[[], dict[str, float]] | None = None,
    span: tuple[int, int] | None = None,
) -> None:
    """Run steps start..end-1; `step_fn` moves the weights and gives metrics. Only `time/...` metrics depend on the clock.

    span: (first, end) of the schedule of the learning rate; (0, config.steps) unless a stage has several parts.
    """
    first, end = span or (0, config.steps)
    bar = tqdm(range(start, end), initial=start, total=end, desc=run.stage, dynamic_ncols=True)
    for step in bar:
        # dropout of adapters is the only thing that draws from the global generator
        torch.manual_seed(stream(config.seed, "step", step))
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(config.optim, step - first, end - first)
        metrics = step_fn(step)
        last = step + 1 == end
        if (step + 1) % config.log_every == 0 or last:
            run.log(step + 1, {**metrics, "learning_rate": optimizer.param_groups[0]["lr"]})
            bar.set_postfix({k: f"{v:.3g}" for k, v in list(metrics.items())[:4]})
        if validate is not None and ((step + 1) % config.validate_every == 0 or last):
            run.log(step + 1, {f"val/{k}": v for k, v in validate().items()})
        if (step + 1) % config.checkpoint_every == 0 or last:
            save_training(run, step + 1, save, optimizer)


def apply_gradients(policy_parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, clip_norm: float) -> float:
    """Clip by the global norm and step; the norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(policy_parameters, clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)

