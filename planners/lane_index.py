"""A RoadMap as flat arrays, so that compiled kernels can look up lanes, follow them and measure along them."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import wrap_angle
from drive.core.roadmap import RoadMap

Array = NDArray[np.float64]
HEADING_COST = 5.0  # m that one radian of heading error counts, as RoadMap.nearest_lane


@dataclass(frozen=True)
class LaneIndex:
    """M lanes with V centreline points in all; lane i owns points start[i]:start[i + 1]."""

    ids: tuple[str, ...]
    points: Array  # (V, 3) world x, y, heading
    along: Array  # (V,) m, arc length within the lane
    owner: NDArray[np.int64]  # (V,) lane of each point
    start: NDArray[np.int64]  # (M + 1,)
    limit: Array  # (M,) m/s
    next_lane: NDArray[np.int64]  # (M,) straightest successor, -1 if none
    left: NDArray[np.int64]  # (M,) same-direction neighbour, -1 if none
    right: NDArray[np.int64]  # (M,)
    half_width: Array  # (M,) m, from the borders
    junction: NDArray[np.bool_]  # (M,) the lane is a connector

    def numbers(self, lane_ids: tuple[str, ...]) -> NDArray[np.int64]:
        """Lane numbers (L,) of those ids that the map has."""
        lookup = _numbers(self)
        return np.array([lookup[k] for k in lane_ids if k in lookup], np.int64)


_INDICES: WeakKeyDictionary[RoadMap, LaneIndex] = WeakKeyDictionary()


def _numbers(index: LaneIndex) -> dict[str, int]:
    if "_lookup" not in index.__dict__:
        object.__setattr__(index, "_lookup", {k: i for i, k in enumerate(index.ids)})
    return index.__dict__["_lookup"]


def lane_index(road_map: RoadMap) -> LaneIndex:
    """The LaneIndex of a map, built at the first call and kept as long as the map lives."""
    found = _INDICES.get(road_map)
    if found is None:
        found = _INDICES[road_map] = _build(road_map)
    return found


def _build(road_map: RoadMap) -> LaneIndex:
    ids = tuple(road_map.lanes)
    number = {k: i for i, k in enumerate(ids)}
    lanes = list(road_map.lanes.values())

    def straightest(lane) -> int:
        options = [number[k] for k in lane.successors if k in number]
        turn = [abs(float(wrap_angle(lanes[i].centerline[-1, 2] - lane.centerline[-1, 2]))) for i in options]
        return options[int(np.argmin(turn))] if options else -1

    sizes = [len(lane.centerline) for lane in lanes]
    return LaneIndex(
        ids=ids,
        points=np.concatenate([lane.centerline for lane in lanes]).astype(float) if lanes else np.zeros((0, 3)),
        along=np.concatenate([lane.s for lane in lanes]) if lanes else np.zeros(0),
        owner=np.repeat(np.arange(len(lanes)), sizes).astype(np.int64),
        start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        limit=np.array([lane.speed_limit for lane in lanes], float),
        next_lane=np.array([straightest(lane) for lane in lanes], np.int64),
        left=np.array([number.get(lane.left_neighbor, -1) for lane in lanes], np.int64),
        right=np.array([number.get(lane.right_neighbor, -1) for lane in lanes], np.int64),
        half_width=np.array([_half_width(lane.left, lane.right) for lane in lanes], float),
        junction=np.array([lane.is_connector for lane in lanes], bool),
    )


def _half_width(left: Array, right: Array) -> float:
    return float(np.median(np.hypot(*(left - right).T)) / 2.0) if len(left) == len(right) and len(left) else 1.75


@njit(cache=True)
def wrap(angle):
    """Scalar angle to [-pi, pi)."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


@njit(cache=True)
def nearest_point(points, first, last, x, y, heading):
    """Index in points[first:last] (V, 3) closest to a pose in position and heading, and its cost in m; -1 if none."""
    best, cost = -1, np.inf
    for i in range(first, last):
        dx, dy = points[i, 0] - x, points[i, 1] - y
        square = dx * dx + dy * dy
        if square < cost * cost:
            total = np.sqrt(square) + HEADING_COST * abs(wrap(points[i, 2] - heading))
            if total < cost:
                best, cost = i, total
    return best, cost


@njit(cache=True)
def frame_at(points, i, x, y):
    """(along, across) of (x, y) in the frame of points[i] (3,): m past the point, m to its left."""
    c, s = np.cos(points[i, 2]), np.sin(points[i, 2])
    dx, dy = x - points[i, 0], y - points[i, 1]
    return c * dx + s * dy, -s * dx + c * dy


@njit(cache=True)
def lane_pose(points, along, start, next_lane, lane, s):
    """Pose (x, y, heading) `s` metres along `lane`, running on into the straightest successors; straight on at a dead end."""
    for _ in range(64):
        length = along[start[lane + 1] - 1]
        if s <= length or next_lane[lane] < 0:
            break
        s -= length
        lane = next_lane[lane]
    first, last = start[lane], start[lane + 1] - 1
    i = first + np.searchsorted(along[first : last + 1], s) - 1
    i = min(max(i, first), last - 1)
    span = max(along[i + 1] - along[i], 1e-9)
    t = (s - along[i]) / span
    heading = points[i, 2] + min(max(t, 0.0), 1.0) * wrap(points[i + 1, 2] - points[i, 2])
    return points[i, 0] + t * (points[i + 1, 0] - points[i, 0]), points[i, 1] + t * (points[i + 1, 1] - points[i, 1]), heading
