"""Benchmarks l2_uniad, l2_stp3 and l2_vad: nuScenes' open-loop L2 in m and collision rates in %, under the three protocols that papers mix.

They measure likeness to the log, not driving: constant velocity does well. A plan that fails, and a sample that cannot be read, counts
as far off as the protocols' grid reaches, and as a collision at every step. "col" is of the box (obj_box_col), "point col" of the
waypoint (obj_col), not shown. Where notes["hidden"] (steps of the log, by agent) says which boxes have nuScenes' lowest visibility, ST-P3's input
frames leave them out, as it does, and where notes["unscanned"] says which hold no lidar point, VAD does; a reader that does not know
leaves obstacles more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.results import SceneRow, Style
from drive.core.errors import DataError
from drive.core.geometry import relative
from drive.core.types import PLAN_DT, AgentType, Scenario, Trajectory
from drive.metrics.nuscenes_collision import (
    Grids,
    at_seconds,
    collisions,
    next_annotations,
    stp3_occupancy,
    uniad_occupancy,
    up_to_seconds,
    vad_collisions,
    vad_occupancy,
    vad_range,
)
from drive.metrics.nuscenes_l2 import STEPS, l2_stp3, l2_uniad, lidar_positions

L2 = ("1 s", "2 s", "3 s")
BOX = ("col 1 s %", "col 2 s %", "col 3 s %", "col %")
POINT = tuple(f"point {name}" for name in BOX)
WHEELS = (AgentType.VEHICLE, AgentType.BICYCLE)  # the seven vehicle classes; the reader does not tell emergency cars apart, UniAD leaves them out
GRID = 50.0  # m, half the side of the protocols' bird's-eye grid
PAST = 2  # key frames before the present in ST-P3's windows


def _style(name: str, note: str) -> Style:
    return Style(
        name,
        (*L2, *BOX, *POINT),
        (*L2, *BOX),
        scale="m and % of collisions, less is better",
        factor=1.0,
        digits=2,
        less_is_better=True,
        worst=GRID,
        note=f"{note}; failed plans count {GRID:g} m and 100 %",
        worst_parts=dict.fromkeys((*BOX, *POINT), 100.0),
    )


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


def future_boxes(scenario: Scenario, first: int = 1, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Box centres (A, steps, 3) in the world and their validity (A, steps), from `first` steps after the present; none beyond the log."""
    poses, valid = np.zeros((len(scenario.agents), steps, 3)), np.zeros((len(scenario.agents), steps), bool)
    cut = slice(scenario.present + first, scenario.present + first + steps)
    there = scenario.agents.valid[:, cut]
    poses[:, : there.shape[1]], valid[:, : there.shape[1]] = scenario.agents.poses_world[:, cut], there
    return poses, valid


def uniad_grids(scenario: Scenario) -> Grids:
    """UniAD's grids (6, 200, 200) of a sample."""
    poses, valid = future_boxes(scenario)
    valid &= np.isin(scenario.agents.types, WHEELS)[:, None]
    here = scenario.ego.poses_world[scenario.present]
    return uniad_occupancy(relative(here, poses), scenario.agents.size, valid, np.array(scenario.notes["lidar_from_ego"], float))


def stp3_grids(scenario: Scenario) -> Grids:
    """ST-P3's grids (6, 200, 200) of a sample with two key frames before it and six after."""
    poses, valid = future_boxes(scenario)
    _, seen = future_boxes(scenario, -PAST, PAST + 1)
    for row, agent in enumerate(scenario.agents.ids):
        for step in scenario.notes.get("hidden", {}).get(agent, ()):  # of the log
            if 0 <= (k := step - scenario.notes["log_step"] + PAST) <= PAST:
                seen[row, k] = False
    valid &= (seen.any(axis=1) & np.isin(scenario.agents.types, (*WHEELS, AgentType.PEDESTRIAN)))[:, None]
    ego = scenario.ego.poses_world[scenario.present :]
    return stp3_occupancy(poses, scenario.agents.size, valid, ego[1 : STEPS + 1], ego[0])


def vad_grids(scenario: Scenario) -> Grids:
    """VAD's grids (6, 200, 200) of a sample with six key frames after it."""
    now, here = scenario.present, scenario.ego.poses_world[scenario.present]
    matrix = np.array(scenario.notes["lidar_from_ego"], float)
    agents = scenario.agents
    unscanned = scenario.notes.get("unscanned", {})
    kept = agents.valid[:, now] & np.isin(agents.types, (*WHEELS, AgentType.PEDESTRIAN))
    kept &= np.array([scenario.notes["log_step"] not in unscanned.get(agent, ()) for agent in agents.ids], bool)
    kept &= vad_range(relative(here, agents.poses_world[:, now]), matrix)
    poses, valid = next_annotations(agents.poses_world[kept, now + 1 :], agents.valid[kept, now + 1 :])
    return vad_occupancy(relative(here, poses), agents.size[kept], valid, matrix)


def _parts(l2: np.ndarray, box: np.ndarray, point: np.ndarray) -> dict[str, float]:
    """Parts of values (3,) at the three seconds; the last rate is the mean of the three, as the papers' last column."""
    rates = [100.0 * value for share in (box, point) for value in (*share, share.mean())]
    return dict(zip((*L2, *BOX, *POINT), [*l2.tolist(), *map(float, rates)]))


class L2Uniad(_L2):
    """UniAD: the value at 1, 2, 3 s; every sample, those without a future with 0."""

    style = _style("l2_uniad", "at the second, all samples, 0 where the log has no future")

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """L2 at the three seconds and their mean, m; collisions. Raises DataError on a short plan."""
        plan, truth, known = positions(scenario, trajectory)
        values = l2_uniad(plan, truth, known)
        hits = collisions(plan, truth, known, uniad_grids(scenario))
        return Scored(float(values.mean()), _parts(values, at_seconds(hits["box"]), at_seconds(hits["point"])))


class L2Stp3(_L2):
    """ST-P3: the mean up to 1, 2, 3 s; samples with two key frames before them and 3 s after."""

    style = _style("l2_stp3", "mean up to the second, samples with 1 s of past and 3 s of future")

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the sample has the protocol's window within its scene."""
        past = scenario.present - scenario.notes.get("prolonged_frames", 0)
        return super().accepts(scenario) and past >= PAST and len(scenario.ego.poses_world) - scenario.present > STEPS

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """L2 up to the three seconds and their mean, m; collisions. Raises DataError on a short plan."""
        plan, truth, known = positions(scenario, trajectory)
        values = l2_stp3(plan, truth)
        hits = collisions(plan, truth, known, stp3_grids(scenario), columns_to_left=True)
        return Scored(float(values.mean()), _parts(values, up_to_seconds(hits["box"]), up_to_seconds(hits["point"])))


class L2Vad(_L2):
    """VAD: the mean up to 1, 2, 3 s; samples with 3 s of future."""

    style = _style("l2_vad", "mean up to the second, samples with 3 s of future")

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the sample's scene goes on for 3 s."""
        return super().accepts(scenario) and len(scenario.ego.poses_world) - scenario.present > STEPS

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """L2 up to the three seconds and their mean, m; collisions. Raises DataError on a short plan."""
        plan, truth, _ = positions(scenario, trajectory)
        values = l2_stp3(plan, truth)
        hits = vad_collisions(plan, truth, vad_grids(scenario))
        return Scored(float(values.mean()), _parts(values, up_to_seconds(hits["box"]), up_to_seconds(hits["point"])))
