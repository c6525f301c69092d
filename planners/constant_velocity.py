"""NAVSIM's constant-velocity baseline: straight ahead at the present speed."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from drive.core.types import PLAN_DT, PLAN_STEPS, Observation, Plan, Trajectory


class ConstantVelocity:
    """Keeps speed and heading; sees nothing but the ego's own speed."""

    name = "constant_velocity"

    def reset(self) -> None:
        """Nothing to forget."""

    def plan(self, observations: Sequence[Observation]) -> list[Plan]:
        """One Plan of 10 poses, 0.5 s apart, per observation."""
        start = perf_counter()
        times = PLAN_DT * np.arange(1, PLAN_STEPS + 1)
        paths = [np.column_stack([o.speed * times, np.zeros((PLAN_STEPS, 2))]) for o in observations]
        share = (perf_counter() - start) / max(len(paths), 1)
        return [Plan(Trajectory(np.asarray(path, np.float64)), latency_s=share) for path in paths]
