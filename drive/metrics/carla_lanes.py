"""The lanes under a car as CARLA's map tells them, and the way outside the lanes of the route.

Source: scenario_runner atomic_criteria.py, OutsideRouteLanesTest, as leaderboard 2.x and Bench2Drive use it. `LaneIndex` answers what
carla.Map.get_waypoint does, on a RoadMap: the nearest point of any centreline. It is flat: where one road lies over another, either may be
the nearest, which carla.Map tells apart by height.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses, wrap_angle
from drive.core.roadmap import Lane

Array = NDArray[np.float64]
ALLOWED_OUT = 0.5  # m beyond the border of a lane
WRONG_WAY, TURNED = np.radians(120.0), np.radians(150.0)
NEIGHBOURS = 16  # centreline points looked at, about 1 m apart
SECTION = re.compile(r"(-?\d+)_\d+_(-?\d+)")  # ids of lanes read from OpenDRIVE: road, section, lane


@dataclass(frozen=True)
class Nearest:
    """The nearest lane points of N places."""

    lane: NDArray[np.int64]  # (N,) number of the lane in the index
    road_lane: NDArray[np.int64]  # (N,) the same for all sections of one lane of a road
    s: Array  # (N,) m along the lane
    points: Array  # (N, 2) on the centreline
    heading: Array  # (N,) of the lane there, rad
    width: Array  # (N,) of the lane there, m
    distance: Array  # (N,) m to the centreline
    is_junction: NDArray[np.bool_]  # (N,)


class LaneIndex:
    """Nearest-point search among lanes."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        """Lanes of two or more points each. Raises DataError without any."""
        self.lanes = tuple(lanes)
        if not self.lanes:
            raise DataError("a search for lanes takes at least one lane")
        self._number = {lane.id: i for i, lane in enumerate(self.lanes)}
        names = ["_".join(m.groups()) if (m := SECTION.fullmatch(lane.id)) else lane.id for lane in self.lanes]
        self._road_lane = np.unique(names, return_inverse=True)[1]
        self._junction = np.array([lane.is_connector for lane in self.lanes])
        self._owner = np.concatenate([np.full(len(lane.centerline), i) for i, lane in enumerate(self.lanes)])
        self._rows = np.concatenate([lane.centerline for lane in self.lanes])
        self._widths = np.concatenate([np.hypot(*(lane.left - lane.right).T) for lane in self.lanes])
        self._s = np.concatenate([lane.s for lane in self.lanes])
        self._tree = KDTree(self._rows[:, :2])

    def nearest(self, points: Array) -> Nearest:
        """The nearest centreline points of `points` (N, 2 or more)."""
        xy = np.asarray(points, float)[:, :2]
        count = min(NEIGHBOURS, len(self._rows))
        near = np.asarray(self._tree.query(xy, k=count)[1]).reshape(len(xy), count)
        first = np.concatenate([near, np.maximum(near - 1, 0)], axis=1)  # segments that begin and that end at those points
        second = np.minimum(first + 1, len(self._rows) - 1)
        joined = self._owner[first] == self._owner[second]
        step = np.where(joined[..., None], self._rows[second, :2] - self._rows[first, :2], 0.0)
        offset = xy[:, None] - self._rows[first, :2]
        share = np.clip((offset * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12), 0.0, 1.0)
        gap = np.hypot(*np.moveaxis(offset - share[..., None] * step, -1, 0))
        best = np.argmin(gap, axis=1)
        row = np.arange(len(xy))
        a, b, t = first[row, best], second[row, best], share[row, best]
        b = np.where(joined[row, best], b, a)
        lane = self._owner[a]
        turn = wrap_angle(self._rows[b, 2] - self._rows[a, 2])
        return Nearest(
            lane, self._road_lane[lane], self._s[a] + t * (self._s[b] - self._s[a]),
            self._rows[a, :2] + t[:, None] * (self._rows[b, :2] - self._rows[a, :2]), wrap_angle(self._rows[a, 2] + t * turn),
            self._widths[a] + t * (self._widths[b] - self._widths[a]), gap[row, best], self._junction[lane],
        )  # fmt: skip

    def ahead(self, lane: int, s: float, step: float, count: int) -> Array:
        """(1 + up to count, 2) points from `s` m on lane number `lane`, `step` m apart, on into its first successors."""
        found = []
        current = self.lanes[lane]
        for i in range(count + 1):
            at = s + i * step
            while at > current.length and current.successors and current.successors[0] in self._number:
                s, at = s - current.length, at - current.length
                current = self.lanes[self._number[current.successors[0]]]
            if at > current.length + 1e-9:
                break
            found.append([np.interp(at, current.s, current.centerline[:, k]) for k in (0, 1)])
        return np.array(found)


    def before_junction(self, lane: int, s: float) -> Array:
        """(3,) pose of the last point before a junction on the way from `s` m on lane number `lane`, always on into the first successor.

        The point itself where it lies in a junction; the end of the road where there is none.
        """
        current, seen = self.lanes[lane], {lane}
        if current.is_connector:
            return interpolate_poses(current.s, current.centerline, np.array([s]))[0]
        while current.successors and current.successors[0] in self._number:
            following = self._number[current.successors[0]]
            if self._junction[following] or following in seen:
                break
            seen.add(following)
            current = self.lanes[following]
        return current.centerline[-1]


def outside_lanes(positions: Array, driving: LaneIndex, parking: LaneIndex | None) -> NDArray[np.bool_]:
    """(T,) whether the car's centre (T, 2 or more) is more than half a lane's width and 0.5 m from the centreline of the nearest lane.

    `parking` holds the parking lanes, None where the town has none; of driving and parking lanes the nearer centreline rules.
    """
    near = driving.nearest(positions)
    distance, width = near.distance, near.width
    if parking is not None:
        beside = parking.nearest(positions)
        parked = distance >= beside.distance
        distance, width = np.where(parked, beside.distance, distance), np.where(parked, beside.width, width)
    return distance > width / 2.0 + ALLOWED_OUT


def wrong_lane(poses: Array, driving: LaneIndex) -> NDArray[np.bool_]:
    """(T,) whether the car (T, 3) drives in a lane against its direction, as far as it is noticed.

    Looked at where the lane changes, outside junctions: behind a junction the car's heading against the lane's (120 degrees and more), else
    a jump between the headings of the lanes by more than 150 degrees, which toggles it: out of the lane, or back into it. Never in junctions.
    """
    near = driving.nearest(poses)
    wrong, active = np.zeros(len(poses), bool), False
    for t in range(len(poses)):
        before = max(t - 1, 0)
        if near.is_junction[t]:
            active = False
        elif t == 0 or near.road_lane[t] != near.road_lane[before]:
            if near.is_junction[before]:
                active = bool(abs(wrap_angle(near.heading[t] - poses[t, 2])) >= WRONG_WAY)
            elif abs(wrap_angle(near.heading[before] - near.heading[t])) > TURNED:
                active = not active
        wrong[t] = active
    return wrong
