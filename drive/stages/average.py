"""The mean of the weights over the steps of a run, step t weighing t.

Few noisy policy gradients move the weights about more than forward; their mean keeps what the steps agree on. It needs no horizon:
polynomial-decay averaging with eta = 1 (Shamir and Zhang, arXiv 1212.1824, section 4). Adapters are averaged factor by factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from drive.core.errors import CheckpointError
from drive.planners.vla.checkpoint import read_state

STATE = "average.safetensors"


class WeightAverage:
    """What is trained and its running mean; `parameters` themselves go on as the optimiser leaves them."""

    def __init__(self, parameters: list[torch.nn.Parameter], resume_from: Path | None = None) -> None:
        """resume_from: a checkpoint folder that `save` wrote into; puts both the weights and their mean back."""
        self.parameters = parameters
        self.mean = [p.detach().float().clone() for p in parameters]
        if resume_from is not None:
            self._restore(resume_from)

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, counted from 1; the first one replaces the mean."""
        for mean, parameter in zip(self.mean, self.parameters):
            mean.lerp_(parameter.detach().float(), 2.0 / (step + 1))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters hold their mean."""
        live = [p.detach().clone() for p in self.parameters]
        _copy(self.mean, self.parameters)
        try:
            yield
        finally:
            _copy(live, self.parameters)

    def finish(self) -> None:
        """Leave the parameters at their mean."""
        _copy(self.mean, self.parameters)

    def save(self, folder: Path) -> None:
        """Write what a resumed run needs beside the model."""
        live = {f"live.{i}": p.detach().contiguous() for i, p in enumerate(self.parameters)}
        save_file(live | {f"mean.{i}": mean.contiguous() for i, mean in enumerate(self.mean)}, folder / STATE)

    def _restore(self, folder: Path) -> None:
        state = read_state(folder / STATE)
        shapes = [tuple(p.shape) for p in self.parameters]
        live, mean = ([state.get(f"{kind}.{i}") for i in range(len(shapes))] for kind in ("live", "mean"))
        if len(state) != 2 * len(shapes) or any(t is None or tuple(t.shape) != s for t, s in zip(live + mean, shapes * 2)):
            raise CheckpointError(f"{folder / STATE}: the weights' mean is of another model")
        _copy(live, self.parameters)
        _copy(mean, self.mean)


@torch.no_grad()
def _copy(source, target) -> None:
    for to, value in zip(target, source):
        to.copy_(value)
