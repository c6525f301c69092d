"""The protocols by which rooms meet: a planner never imports a simulator, nor the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drive.core.types import Observation, Plan, Privileged, Scenario

Array = NDArray[np.float64]


@runtime_checkable
class Planner(Protocol):
    """Plans from what the ego may see."""

    name: str

    def reset(self) -> None:
        """Forget the last scene."""
        ...

    def plan(self, observations: Sequence[Observation]) -> list[Plan]:
        """One Plan per Observation; independent scenes, batched."""
        ...


@runtime_checkable
class PrivilegedPlanner(Protocol):
    """Plans from the ground truth: teachers and baselines, never the thing under test."""

    name: str

    def reset(self) -> None:
        """Forget the last scene."""
        ...

    def plan_privileged(self, scenes: Sequence[Privileged]) -> list[Plan]:
        """One Plan per scene."""
        ...


class ActionTokenizer(Protocol):
    """Trajectory to action tokens and back."""

    dt: float

    @property
    def vocab_size(self) -> int:
        """Number of action tokens."""
        ...

    def encode(self, poses_ego: Array) -> NDArray[np.int64]:
        """Poses (N, T, 3), ego frame, `dt` apart, to tokens (N, T)."""
        ...

    def decode(self, tokens: NDArray[np.int64]) -> Array:
        """Tokens (N, T) to poses (N, T, 3), ego frame. Raises TokenizerError on a token that does not exist."""
        ...


class Simulator(Protocol):
    """A world that a planner drives in closed loop."""

    def reset(self, seed: int) -> Observation:
        """Start a new scenario."""
        ...

    def step(self, plan: Plan) -> tuple[Observation, bool]:
        """Drive the plan for one planning interval; the new observation and whether the drive is over."""
        ...

    def privileged(self) -> Privileged:
        """The ground truth of the present instant."""
        ...


class Metric(Protocol):
    """Scores plans against a scenario."""

    name: str
    unit: str
    higher_is_better: bool

    def score(self, scenario: Scenario, poses_ego: Array) -> Array:
        """Poses (N, T, 3) of N proposals to values (N,)."""
        ...
