"""The protocols by which rooms meet: a planner never imports a simulator, nor the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from drive.core.types import Observation, Plan, Privileged


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
