"""Which point of which lane is nearest: the height of the ground and the speed limit, for many places in one compiled call."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.roadmap import RoadMap

Array = NDArray[np.float64]
CELL = 4.0  # m
SPACING = 1.0  # m between points
X, Y, Z, YAW, SLOPE, LIMIT = range(6)


@njit(cache=True)
def _nearest(x, y, z, points, start, order, origin, shape):
    """(N,) row of the nearest point in the 3 x 3 cells around each place, -1 where they are empty; a NaN height counts for nothing."""
    found = np.full(len(x), -1, np.int64)
    for i in range(len(x)):
        cx, cy = int(np.floor((x[i] - origin[0]) / CELL)), int(np.floor((y[i] - origin[1]) / CELL))
        best = np.inf
        for row in range(max(cx - 1, 0), min(cx + 2, shape[0])):
            for column in range(max(cy - 1, 0), min(cy + 2, shape[1])):
                cell = row * shape[1] + column
                for k in order[start[cell] : start[cell + 1]]:
                    away = (points[k, 0] - x[i]) ** 2 + (points[k, 1] - y[i]) ** 2
                    if not np.isnan(z[i]):
                        away += (points[k, 2] - z[i]) ** 2  # one road may pass over another
                    if away < best:
                        best, found[i] = away, k
    return found


@njit(cache=True)
def _planes(x, y, points, near):
    """(N,) height at x, y of the slopes through the points of rows `near`, level from SPACING m away on."""
    height = np.empty(len(near))
    for i in range(len(near)):
        p = points[near[i]]
        along = (x[i] - p[X]) * np.cos(p[YAW]) + (y[i] - p[Y]) * np.sin(p[YAW])
        height[i] = p[Z] + p[SLOPE] * min(max(along, -SPACING), SPACING)
    return height


class LaneGrid:
    """Points of all lanes, CARLA's frame: x, y, z m, yaw rad, slope along yaw, speed limit km/h."""

    def __init__(self, points: Array, lanes: NDArray[np.int64]) -> None:
        """`points` (P, 6); `lanes` (P,) number of each point's lane, in the order of the RoadMap."""
        self.points, self.lanes = np.ascontiguousarray(points), lanes
        self.flat = not points[:, [Z, SLOPE]].any()
        self._origin = points[:, :2].min(0)
        cells = np.floor((points[:, :2] - self._origin) / CELL).astype(np.int64)
        self._shape = cells.max(0) + 1
        number = cells[:, 0] * self._shape[1] + cells[:, 1]
        self._order = np.argsort(number, kind="stable")
        self._start = np.searchsorted(number[self._order], np.arange(self._shape.prod() + 1))

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.points[:, :2])

    def nearest(self, x: Array, y: Array, z: Array | None = None) -> NDArray[np.int64]:
        """(N,) row of the nearest point; `z` (N,) m tells the levels of a bridge apart, NaN or None where unknown."""
        level = np.full(len(x), np.nan) if z is None else np.asarray(z, float)
        found = _nearest(x, y, level, self.points, self._start, self._order, self._origin, self._shape)
        if (found < 0).any():
            far = found < 0
            place = np.column_stack([x[far], y[far]])
            found[far] = self._tree.query(np.where(np.isfinite(place), place, 0.0))[1]
        return found

    def height(self, x: Array, y: Array, z: Array | None = None) -> Array:
        """(N,) m; lanes go on sidewards, and between two points, as planes."""
        if self.flat:
            return np.zeros(np.shape(x))
        return _planes(x, y, self.points, self.nearest(x, y, z))

    def height_on(self, lane: int, x: float, y: float) -> float:
        """m of lane number `lane` at x, y."""
        if self.flat:
            return 0.0
        rows = np.flatnonzero(self.lanes == lane)
        if not len(rows):
            return float(self.height(np.array([x]), np.array([y]))[0])
        return float(self.points[rows[np.argmin(np.hypot(self.points[rows, X] - x, self.points[rows, Y] - y))], Z])

    def limit(self, lane: int, line: Array, s: Array, limits: list[tuple[float, float]]) -> None:
        """Set the speed limits of a lane whose centreline is `line` (N, 2+), CARLA's frame, `s` (N,) m: (from m on, km/h) in order."""
        rows = np.flatnonzero(self.lanes == lane)
        along = s[KDTree(line[:, :2]).query(self.points[rows, :2])[1]]
        for first, value in limits:
            self.points[rows[along >= first], LIMIT] = value


def flat_grid(road_map: RoadMap) -> LaneGrid:
    """Of a town without hills: the points of the centrelines."""
    rows, owner = [], []
    for number, lane in enumerate(road_map.lanes.values()):
        line = lane.centerline
        flat = np.zeros(len(line))
        rows.append(np.column_stack([line[:, 0], -line[:, 1], flat, -line[:, 2], flat, flat + lane.speed_limit * 3.6]))
        owner.append(np.full(len(line), number))
    return LaneGrid(np.concatenate(rows), np.concatenate(owner))


def hilly_grid(world: Any, road_map: RoadMap) -> LaneGrid:
    """Of a town with hills: carla.Map's waypoints on the RoadMap's lanes."""
    number = {key: k for k, key in enumerate(road_map.lanes)}
    limits = [lane.speed_limit * 3.6 for lane in road_map.lanes.values()]
    rows, owner = [], []
    for waypoint in world.generate_waypoints(SPACING):
        lane = number.get(f"{waypoint.road_id}_{waypoint.section_id}_{waypoint.lane_id}")
        if lane is None:
            continue
        at, turn = waypoint.transform.location, waypoint.transform.rotation
        rows.append((at.x, at.y, at.z, np.radians(turn.yaw), np.tan(np.radians(turn.pitch)), limits[lane]))
        owner.append(lane)
    return LaneGrid(np.array(rows), np.array(owner))
