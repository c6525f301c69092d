"""The blind baselines: straight ahead at the present speed (NAVSIM's), or at the present acceleration until standstill."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from drive.core.types import PLAN_DT, PLAN_STEPS, Observation, Plan, Trajectory

TIMES = PLAN_DT * np.arange(1, PLAN_STEPS + 1)


class ConstantVelocity:
    """Keeps speed and heading; sees nothing but the ego's own speed."""

    name = "constant_velocity"

    def reset(self) -> None:
        """Nothing to forget."""

    def plan(self, observations: Sequence[Observation]) -> list[Plan]:
        """One Plan of 10 poses, 0.5 s apart, per observation."""
        start = perf_counter()
        paths = [np.column_stack([self.distance(o), np.zeros((PLAN_STEPS, 2))]) for o in observations]
        share = (perf_counter() - start) / max(len(paths), 1)
        return [Plan(Trajectory(np.asarray(path, np.float64)), latency_s=share) for path in paths]

    def distance(self, observation: Observation) -> NDArray[np.float64]:
        """(10,) metres driven by TIMES."""
        return observation.speed * TIMES


class ConstantAcceleration(ConstantVelocity):
    """Keeps acceleration and heading, and stops where the speed reaches 0; sees nothing but the ego's own motion."""

    name = "constant_acceleration"

    def distance(self, observation: Observation) -> NDArray[np.float64]:
        """(10,) metres driven by TIMES."""
        speed, rate = observation.speed, observation.acceleration
        times = np.minimum(TIMES, -speed / rate) if rate < 0.0 else TIMES
        return speed * times + 0.5 * rate * times**2
