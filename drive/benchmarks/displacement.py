"""Benchmarks ade_av2_5s and waymo_motion: how near the ego's plan comes to its log, by Argoverse 2's and by Waymo's definitions.

They measure likeness to one drive of many possible ones. The score is of the planner's own choice; best-of-k parts take its
alternatives (`Plan.alternatives`, in its order, six at most) and are labelled as an oracle's choice in every table. Positions are the
rear axle's. Beside them: comfort, leaving the road and overlap of the planned trajectory (`drive.metrics.open_loop_safety`). A plan
that fails counts 50 m, and 100 % in the rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.results import SceneRow, Style
from drive.core.errors import DataError
from drive.core.geometry import compose, relative
from drive.core.types import PLAN_DT, PLAN_STEPS, Scenario, Trajectory
from drive.metrics import waymo_motion
from drive.metrics.displacement import ade, fde, heading_error, min_ade, min_fde, missed
from drive.metrics.open_loop_safety import logged_boxes, off_road, overlaps, uncomfortable
from drive.metrics.pdms_areas import pack_areas
from drive.metrics.pdms_scene import MAP_RADIUS

WORST = 50.0  # m
CANDIDATES = 6  # of both benchmarks' leaderboards
SAFETY = ("uncomfortable %", "off-road %", "overlap %")
AV2 = ("ade", "fde", "heading rad", "miss %")
AV2_ORACLE = ("minADE", "minFDE", "miss_k %")
WAYMO_AT = (3, 5, 8)
WAYMO = tuple(f"{name} {second} s{unit}" for second in WAYMO_AT for name, unit in (("ade", ""), ("fde", ""), ("miss", " %")))
WAYMO_ORACLE = tuple(f"{name} {second} s{unit}" for second in WAYMO_AT for name, unit in (("minADE", ""), ("minFDE", ""), ("miss_k", " %")))


def _style(name: str, own: tuple[str, ...], oracle: tuple[str, ...], shown: tuple[str, ...], note: str) -> Style:
    parts = (*own, *oracle, *SAFETY)
    rates = {part: 100.0 for part in parts if part.endswith("%")}
    return Style(
        name, parts, shown, scale="m and %, less is better", factor=1.0, digits=2, less_is_better=True, worst=WORST,
        note=f"{note}; our box is NAVSIM's Pacifica; failed plans count {WORST:g} m and 100 %", worst_parts=rates, oracle=oracle,
    )  # fmt: skip


def poses_at(trajectory: Trajectory, steps: int = PLAN_STEPS) -> np.ndarray:
    """(at most `steps`, 3) poses of a plan every 0.5 s. Raises DataError where it has none at those times."""
    stride = round(PLAN_DT / trajectory.dt) if trajectory.dt > 0.0 else 0
    if stride < 1 or abs(stride * trajectory.dt - PLAN_DT) > 1e-6:
        raise DataError(f"a plan needs poses every {PLAN_DT:g} s, got one every {trajectory.dt:g} s")
    return trajectory.poses[stride - 1 :: stride][:steps]


def five_seconds(trajectory: Trajectory) -> np.ndarray:
    """(10, 3) poses every 0.5 s up to 5 s. Raises DataError on a shorter plan."""
    poses = poses_at(trajectory)
    if len(poses) < PLAN_STEPS:
        raise DataError(f"a plan of {PLAN_STEPS * PLAN_DT:g} s is measured, this one ends after {len(poses) * PLAN_DT:g} s")
    return poses


def safety_parts(scenario: Scenario, poses: np.ndarray) -> dict[str, float]:
    """The parts of SAFETY, 0 or 100, of poses (T, 3) every 0.5 s, ego frame; off-road is NaN where there is no map."""
    here = scenario.ego.poses_world[scenario.present]
    world = compose(here, poses)[None]
    boxes, valid = logged_boxes(scenario, len(poses), PLAN_DT)
    found = {
        SAFETY[0]: uncomfortable(poses[None], PLAN_DT, float(scenario.ego.velocity_ego[scenario.present, 0]))[0],
        SAFETY[2]: overlaps(world, boxes, valid, scenario.agents.size)[0],
    }
    parts = {name: 100.0 * float(value) for name, value in found.items()}
    if not has_map(scenario):
        return {**parts, SAFETY[1]: float("nan")}
    polygons = scenario.road_map.polygons.near(here[:2], MAP_RADIUS)
    return {**parts, SAFETY[1]: 100.0 * float(off_road(world, pack_areas(polygons, np.zeros(len(polygons), np.bool_)))[0])}


def has_map(scenario: Scenario) -> bool:
    """Whether the scenario's road is a real one, no corridor around what was driven."""
    return scenario.notes.get("map") != "corridor" and len(scenario.road_map.polygons) > 0


class _Displacement:
    needs_map = False
    most_candidates = CANDIDATES
    style: Style

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the log has the 5 s of future that plans are measured over."""
        return len(scenario.ego.poses_world) - 1 - scenario.present >= round(PLAN_STEPS * PLAN_DT / scenario.dt)

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows; what cannot be judged without a map does not count against a failed plan either."""
        lost = [row.poses_ego is None and not has_map(scenario) for row, scenario in zip(rows, scenarios)]
        return [replace(row, parts={**row.parts, SAFETY[1]: float("nan")}) if off else row for row, off in zip(rows, lost)]


class AdeAv2(_Displacement):
    """Argoverse 2's ADE, FDE and miss (over 2 m at the end), over our plans' 5 s at 2 Hz; the heading error is ours."""

    shown = ("fde", "miss %", "minADE", "minFDE", "miss_k %", *SAFETY)
    style = _style("ade_av2_5s", AV2, AV2_ORACLE, shown, "Argoverse 2's definitions over 5 s at 2 Hz, not its 6 s at 10 Hz; of the ego")

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """ADE in m of the planner's own plan, and its parts. Raises DataError on a short plan."""
        poses, truth = five_seconds(trajectory), scenario.logged_future(PLAN_STEPS, PLAN_DT).poses
        own = (ade(poses, truth), fde(poses, truth), heading_error(poses, truth), 100.0 * missed(poses[None], truth, 1))
        return Scored(float(own[0]), {**dict(zip(AV2, map(float, own))), **safety_parts(scenario, poses)})

    def best_of(self, scenario: Scenario, candidates: Sequence[Trajectory], index: int) -> dict[str, float]:
        """Least ADE, least FDE (each by its own candidate) and whether all miss."""
        poses, truth = np.stack([five_seconds(item) for item in candidates]), scenario.logged_future(PLAN_STEPS, PLAN_DT).poses
        k = len(candidates)
        return dict(zip(AV2_ORACLE, (float(min_ade(poses, truth, k)), float(min_fde(poses, truth, k)), 100.0 * float(missed(poses, truth, k)))))


class WaymoMotion(_Displacement):
    """Waymo Open Motion's minADE, minFDE and miss rate at 3, 5 and 8 s, of the ego; NaN at 8 s where plan or log ends before."""

    shown = ("ade 3 s", "fde 5 s", "miss 5 s %", "minADE 3 s", "minADE 5 s", "minFDE 5 s", "miss_k 5 s %", *SAFETY)
    style = _style("waymo_motion", WAYMO, WAYMO_ORACLE, shown, "ADE at 5 s of the ego alone, rear axle; Waymo averages objects and 3, 5, 8 s")

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """ADE at 5 s in m of the planner's own plan, and its parts. Raises DataError on a plan of less than 5 s."""
        values = self._values(scenario, [trajectory])
        parts = dict(zip(WAYMO, values))
        return Scored(parts["ade 5 s"], {**parts, **safety_parts(scenario, five_seconds(trajectory))})

    def best_of(self, scenario: Scenario, candidates: Sequence[Trajectory], index: int) -> dict[str, float]:
        """The same of the best candidate for each number."""
        return dict(zip(WAYMO_ORACLE, self._values(scenario, candidates)))

    @staticmethod
    def _values(scenario: Scenario, candidates: Sequence[Trajectory]) -> list[float]:
        """minADE, minFDE, missed (%) at 3, 5, 8 s."""
        now, points = scenario.present, waymo_motion.POINTS
        plans, ends = np.zeros((len(candidates), points, 2)), []
        for plan, item in zip(plans, candidates):
            five_seconds(item)
            poses = poses_at(item, points)
            plan[: len(poses)] = poses[:, :2]
            ends.append(len(poses))
        driven = relative(scenario.ego.poses_world[now], scenario.ego.poses_world[now :: round(PLAN_DT / scenario.dt)][1 : points + 1])
        truth, valid = np.zeros((points, 3)), np.arange(points) < min(len(driven), *ends)
        truth[: len(driven)] = driven
        speed, k, found = np.array(scenario.ego.state(now).speed), len(candidates), []
        for second in WAYMO_AT:
            at_end = valid[waymo_motion.MEASURED[second]]
            nearest = waymo_motion.min_ade(plans, truth, valid, second, k) if at_end else np.nan
            miss = waymo_motion.missed(plans, truth, valid, speed, second, k)
            found += [float(nearest), float(waymo_motion.min_fde(plans, truth, valid, second, k)), 100.0 * float(miss)]
        return found
