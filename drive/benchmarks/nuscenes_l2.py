"""Benchmarks l2_uniad and l2_stp3: nuScenes' open-loop L2 in m under the two protocols that papers mix.

They measure likeness to the log, not driving: constant velocity does well. A plan that fails, and a sample that cannot be read, counts
as far off as the protocols' grid reaches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.results import SceneRow, Style
from drive.core.errors import DataError
from drive.core.geometry import relative
from drive.core.types import PLAN_DT, Scenario, Trajectory
from drive.metrics.nuscenes_l2 import STEPS, l2_stp3, l2_uniad, lidar_positions

PARTS = ("1 s", "2 s", "3 s")
GRID = 50.0  # m, half the side of the protocols' bird's-eye grid
PAST = 2  # key frames before the present in ST-P3's windows


def _style(name: str, note: str) -> Style:
    return Style(name, PARTS, PARTS, scale="m, less is better", factor=1.0, digits=2, less_is_better=True, worst=GRID, note=f"{note}; failed plans count {GRID:g} m")


class _L2:
    needs_map = False
    style: Style

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the sample belongs to the protocol's set."""
        if "lidar_from_ego" not in scenario.notes:
            raise DataError(f"{self.style.name} measures in the LIDAR_TOP frame, which {scenario.source} scenes do not know: dataset=nuscenes has it")
        return True

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows as they are: every sample counts by itself."""
        return rows


def positions(scenario: Scenario, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lidar positions of the plan and of the log, each (6, 2), and which of the log's are known (6,). Raises DataError on a short plan."""
    wanted = PLAN_DT * np.arange(1, STEPS + 1)
    at = np.round(wanted / trajectory.dt).astype(int) - 1
    if not np.allclose((at + 1) * trajectory.dt, wanted, atol=1e-6) or at[-1] >= len(trajectory.poses):
        raise DataError(f"a plan needs poses every {PLAN_DT:g} s up to 3 s, got {len(trajectory.poses)} every {trajectory.dt:g} s")
    matrix = np.array(scenario.notes["lidar_from_ego"], float)
    driven = relative(scenario.ego.poses_world[scenario.present], scenario.ego.poses_world[scenario.present + 1 :][:STEPS])
    truth, known = np.zeros((STEPS, 2)), np.arange(STEPS) < len(driven)
    truth[: len(driven)] = lidar_positions(driven, matrix)
    return lidar_positions(trajectory.poses[at], matrix), truth, known


class L2Uniad(_L2):
    """UniAD: the value at 1, 2, 3 s; every sample, those without a future with 0."""

    style = _style("l2_uniad", "at the second, all samples, 0 where the log has no future")

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """L2 at the three seconds and their mean, m. Raises DataError on a short plan."""
        values = l2_uniad(*positions(scenario, trajectory))
        return Scored(float(values.mean()), dict(zip(PARTS, values.tolist())))


class L2Stp3(_L2):
    """ST-P3: the mean up to 1, 2, 3 s; samples with two key frames before them and 3 s after."""

    style = _style("l2_stp3", "mean up to the second, samples with 1 s of past and 3 s of future")

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the sample has the protocol's window within its scene."""
        past = scenario.present - scenario.notes.get("prolonged_frames", 0)
        return super().accepts(scenario) and past >= PAST and len(scenario.ego.poses_world) - scenario.present > STEPS

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """L2 up to the three seconds and their mean, m. Raises DataError on a short plan."""
        plan, truth, _ = positions(scenario, trajectory)
        values = l2_stp3(plan, truth)
        return Scored(float(values.mean()), dict(zip(PARTS, values.tolist())))
