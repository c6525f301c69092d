"""The route of a log that records none: the lanes under the whole driven path, as a navigation system would have given them.

A car knows its route before it drives, so the lanes are those of the whole log; nothing finer of the drive may reach the student.
The command is therefore read from the route's lanes and the present pose alone: another future on the same lanes gives the same
command (a test holds this). The teacher, the rewards and the metrics may see all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import arc_length, polyline_with_heading, project, wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.core.types import Command

Array = NDArray[np.float64]
REACH = 5.0  # m from the driven point to a lane's centreline
MAX_ANGLE = np.radians(45.0)
SAMPLE = 2.0  # m of driving between matched poses
ANGLE_COST = 3.0  # m per rad
FOLLOW, SKIP, CHANGE, JUMP = 0.5, 1.0, 3.0, 20.0  # m: to a successor, over a short lane, to a neighbour, to anything else
EXTENSION = 60.0  # m
AHEAD = 40.0  # m ahead in which a junction makes the command
MIN_BRANCH = 10.0  # m driven on a last connector, below which its branch cannot be told from the others
MIN_MATCHED = 0.5  # share of the driven poses that need a lane for the route to be taken from lanes
TURNS = {"left": Command.LEFT, "right": Command.RIGHT, "straight": Command.STRAIGHT}


@dataclass(frozen=True)
class Route:
    """Lanes in driving order and the path through them."""

    lane_ids: tuple[str, ...]
    centerline: Array  # (N, 3) world, about 1 m apart, EXTENSION m straight beyond either end
    maneuvers: tuple[tuple[float, float, Command], ...]  # (begin, end, command) of the junctions, m along the centreline
    matched: float  # share of the driven poses with a lane

    def command(self, pose: Array) -> Command:
        """The command at `pose` (3,): the turn of the first junction not yet left and at most AHEAD m away, else LANEFOLLOW."""
        at, _ = project(self.centerline, pose[:2])
        return next((c for begin, end, c in self.maneuvers if end > at and begin < at + AHEAD), Command.LANEFOLLOW)


def find_route(road_map: RoadMap, poses: Array) -> Route:
    """The route of driven poses (S, 3). If under half of them have a lane: the driven path, and no commands."""
    lane_ids, matched = match_lanes(road_map, poses)
    if matched < MIN_MATCHED:
        return Route(lane_ids, extended(_driven(poses)), (), matched)
    centerline = extended(through(road_map, lane_ids))
    return Route(lane_ids, centerline, _maneuvers(road_map, lane_ids, centerline), matched)


def recorded_route(road_map: RoadMap, lane_ids: tuple[str, ...], poses: Array) -> Route:
    """The route of lanes that a source records, those unknown to the map left out; that of the driven `poses` (S, 3) if none is known."""
    known = tuple(key for key in lane_ids if key in road_map.lanes)
    if not known:
        return find_route(road_map, poses)
    centerline = extended(through(road_map, known))
    return Route(known, centerline, _maneuvers(road_map, known, centerline), len(known) / len(lane_ids))


def match_lanes(road_map: RoadMap, poses: Array) -> tuple[tuple[str, ...], float]:
    """The most likely lanes under driven poses (S, 3), by Viterbi's algorithm, and the share of poses with any lane near.

    A pose costs its distance and angle to the lane; a step costs nothing on one lane and more the less the two lanes are linked.
    """
    samples = _sampled(poses)
    costs: list[dict[str, float]] = []
    origin: list[dict[str, str]] = []
    for pose in samples:
        near = _candidates(road_map, pose)
        if not near:
            continue
        total, came = dict(near), {}
        if costs:
            for key in near:
                steps = {
                    old: cost + _step_cost(road_map.lanes[old], road_map.lanes[key], road_map) for old, cost in costs[-1].items()
                }
                came[key] = min(steps, key=lambda old: (steps[old], old))
                total[key] += steps[came[key]]
        costs.append(total)
        origin.append(came)
    if not costs:
        return (), 0.0
    path = [min(costs[-1], key=lambda key: (costs[-1][key], key))]
    for came in reversed(origin[1:]):
        path.append(came[path[-1]])
    path = path[::-1]
    tail = path.count(path[-1])
    if road_map.lanes[path[-1]].is_connector and tail < len(path) and tail * SAMPLE < MIN_BRANCH:
        path = path[:-tail]
    return _completed(road_map, path), len(costs) / len(samples)


def _sampled(poses: Array) -> Array:
    """Every SAMPLE metres of the drive, and both its ends."""
    step = np.floor(arc_length(poses) / SAMPLE)
    keep = np.concatenate([[True], np.diff(step) > 0])
    keep[-1] = True
    return poses[keep]


def _candidates(road_map: RoadMap, pose: Array) -> dict[str, float]:
    """Cost in metres of each lane near `pose` and in its direction."""
    out = {}
    for key in road_map.lanes_near(pose, REACH):
        line = road_map.lanes[key].centerline
        gap = np.hypot(line[:, 0] - pose[0], line[:, 1] - pose[1])
        nearest = int(np.argmin(gap))
        angle = abs(float(wrap_angle(line[nearest, 2] - pose[2])))
        if angle < MAX_ANGLE:
            out[key] = float(gap[nearest]) + ANGLE_COST * angle
    return out


def _step_cost(old: Lane, new: Lane, road_map: RoadMap) -> float:
    if old.id == new.id:
        return 0.0
    if new.id in old.successors:
        return FOLLOW
    if any(new.id in road_map.lanes[key].successors for key in old.successors):
        return SKIP
    return CHANGE if new.id in (old.left_neighbor, old.right_neighbor) else JUMP


def _completed(road_map: RoadMap, path: list[str]) -> tuple[str, ...]:
    """The path without repeats, with the lane between where one was stepped over."""
    out = path[:1]
    for key in path[1:]:
        last = road_map.lanes[out[-1]]
        if key == last.id:
            continue
        if key not in last.successors:
            between = [mid for mid in last.successors if key in road_map.lanes[mid].successors]
            out += between[:1]
        out.append(key)
    return tuple(out)


def through(road_map: RoadMap, lane_ids: tuple[str, ...]) -> Array:
    """(N, 2) centreline through consecutive lanes. A change to a neighbour takes 10 m in the middle of their common length."""
    parts = [road_map.lanes[lane_ids[0]].centerline[:, :2]]
    for old, new in pairwise(lane_ids):
        line = road_map.lanes[new].centerline[:, :2]
        if new in road_map.lanes[old].successors:
            parts.append(line)
            continue
        last = parts[-1]
        begin, end = project(last, line[0])[0], project(last, line[-1])[0]
        change = new in (road_map.lanes[old].left_neighbor, road_map.lanes[old].right_neighbor)
        leave = max((begin + end) / 2.0, 1.0) if change and end > begin else float(arc_length(last)[-1])
        at = np.array([np.interp(leave, arc_length(last), last[:, i]) for i in (0, 1)])
        parts[-1] = last[arc_length(last) <= leave]
        enter = project(line, at)[0] + (10.0 if change else 0.0)
        parts.append(line[min(int(np.searchsorted(arc_length(line), enter)), len(line) - 2) :])
    return np.concatenate(parts)


def _driven(poses: Array) -> Array:
    """(N, 2) the driven path; a car that stands gets a metre of its heading."""
    if arc_length(poses)[-1] < 1.0:
        return np.stack([poses[0, :2], poses[0, :2] + np.array([np.cos(poses[0, 2]), np.sin(poses[0, 2])])])
    return _sampled(poses)[:, :2]


def extended(points: Array) -> Array:
    """(N, 3) a polyline (N, 2) with EXTENSION m straight at both ends, resampled to about 1 m, with headings."""
    points = points[np.concatenate([[True], np.hypot(*np.diff(points, axis=0).T) > 0.05])]
    ends = []
    for end, inner in ((points[0], points[1]), (points[-1], points[-2])):
        away = (end - inner) / np.hypot(*(end - inner))
        ends.append(end + EXTENSION * away)
    points = np.concatenate([ends[:1], points, ends[1:]])
    s = arc_length(points)
    at = np.linspace(0.0, s[-1], int(np.ceil(s[-1])) + 1)
    return polyline_with_heading(np.column_stack([np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])]))


def _maneuvers(road_map: RoadMap, lane_ids: tuple[str, ...], centerline: Array) -> tuple[tuple[float, float, Command], ...]:
    """Where the route passes a junction, and how."""
    out = []
    for key in lane_ids:
        lane = road_map.lanes[key]
        if lane.is_connector and lane.junction:
            begin, end = (project(centerline, lane.centerline[i, :2])[0] for i in (0, -1))
            out.append((begin, end, TURNS[lane.turn]))
    return tuple(out)
