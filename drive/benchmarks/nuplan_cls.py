"""Benchmark nuplan_cls_4s: the metrics of nuPlan's closed-loop score on one plan, rolled out for 4 s through the replayed log.

It is not nuPlan's closed loop, and its numbers do not compare with a leaderboard's: nuPlan plans again every 0.1 s over 15 s, here the first plan
is tracked to its end by the same LQR and bicycle, as NAVSIM does it, while everybody else follows the log (non-reactive). A Scenario
holds 5 s of future, and cameras far off the log's path would have to be drawn. A plan that ends within 4 s stands still at its last
pose. The expert is the log's own drive, or where a scene holds none, what its progress is measured against.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.pdms import SECONDS, has_horizon
from drive.benchmarks.results import SceneRow, Style
from drive.core.geometry import Array, interpolate_poses
from drive.core.roadmap import RoadMap
from drive.core.types import Scenario, Tracks, Trajectory
from drive.core.vehicle import simulate, targets_from_plan
from drive.metrics.nuplan_map import nuplan_closed_loop
from drive.metrics.nuplan_route import LaneIndex
from drive.metrics.pdms_scene import DT, HORIZON, PdmScene

PARTS = ("nc", "dac", "mp", "ddc", "ep", "ttc", "sl", "comfort")
KEPT = 8  # indices of maps: scenes come log by log, and every log may have a map of its own


class NuplanCls:
    """The benchmark."""

    style = Style("nuplan_cls_4s", PARTS, PARTS, note="one plan rolled out for 4 s, the log replayed: not nuPlan's closed loop of 15 s")
    needs_map = True

    def __init__(self) -> None:
        self._indices: OrderedDict[int, tuple[RoadMap, LaneIndex]] = OrderedDict()  # of maps that scenes share, by identity; used last, last

    def _index(self, road_map: RoadMap) -> LaneIndex:
        if id(road_map) not in self._indices:
            self._indices[id(road_map)] = road_map, LaneIndex(road_map)
            if len(self._indices) > KEPT:
                self._indices.popitem(last=False)
        self._indices.move_to_end(id(road_map))
        return self._indices[id(road_map)][1]

    def accepts(self, scenario: Scenario) -> bool:
        """Scenarios that go on for the 4 s that are simulated. Raises DataError on a map without polygons of its lanes."""
        return has_horizon(scenario) and bool(self._index(scenario.road_map))

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """CLS and its parts. Raises DataError on a plan that cannot be simulated."""
        scene = PdmScene.from_scenario(scenario)
        targets = targets_from_plan(trajectory.poses[None], trajectory.dt, scene.initial[:3], HORIZON)
        states = simulate(scene.initial[None], targets)[0]
        cut = slice(HORIZON + 1)
        tracks = Tracks(
            scenario.agents.ids, scene.agent_types, scene.agent_size, scene.agent_pose[:, cut], scene.agent_velocity[:, cut], scene.agent_valid[:, cut]
        )
        parts = nuplan_closed_loop(self._index(scenario.road_map), states, tracks, expert_poses(scenario), DT)
        return Scored(parts.pop("score"), parts)

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows as they are: every scenario counts by itself, a failed one as 0, which nuPlan would leave out."""
        return rows


def expert_poses(scenario: Scenario) -> Array:
    """(41, 3) rear axles of the expert at 10 Hz from the present of a scenario that `has_horizon`, world."""
    driven = scenario.ego.poses_world[scenario.present :]
    if (len(driven) - 1) * scenario.dt >= SECONDS - 1e-6:
        return interpolate_poses(scenario.dt * np.arange(len(driven)), driven, DT * np.arange(HORIZON + 1))
    assert scenario.reference_world is not None  # has_horizon
    return scenario.reference_world[: HORIZON + 1]
