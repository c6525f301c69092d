"""The route that CARLA's evaluators hand to an agent: dense points with RoadOptions, in the world and as latitude and longitude.

Facts: leaderboard 2.x, `AutonomousAgent.set_global_plan` and `route_manipulation.py` (points 1 m apart; its latitudes and longitudes are a
Mercator projection with the map's origin and y negated). CARLA 0.9.15's GNSS uses the same projection, 0.9.16's another: a spherical
transverse Mercator, y not negated, so that there route and GNSS disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.core.types import Command
from drive.simulators.routes import ANNOUNCE, BLEND, BLEND_ANNOUNCE, COMMANDS, SPACING, Route

Array = NDArray[np.float64]
RADIUS, SCALE = 6378137.0, 0.9996  # m, of the globe; of 0.9.16's projection
TURNS = (Command.LEFT, Command.RIGHT, Command.STRAIGHT)
CHANGES = (Command.CHANGELANELEFT, Command.CHANGELANERIGHT)
HALF_WIDTH = 1.75  # m of the lane that stands for the route where the map is not known
LIMIT = 30.0 / 3.6  # m/s there
KEYPOINT_EVERY = 10.0  # m between points that are looked up in a known map


@dataclass(frozen=True)
class GlobalPlan:
    """N points in driving order."""

    points: Array  # (N, 4) x, y, z m and yaw degrees, CARLA's frame
    commands: tuple[Command, ...]  # (N,) as the evaluator's planner labels them: a junction's word inside the junction alone
    gps: Array  # (N, 2) latitude, longitude, degrees

    @staticmethod
    def read(gps: Sequence[Any], world: Sequence[Any]) -> GlobalPlan:
        """From the two arguments of set_global_plan. Raises DataError where they do not hold a route."""
        try:
            places = [(t.location.x, t.location.y, t.location.z, t.rotation.yaw) for t, _ in world]
            points = np.array(places, float).reshape(-1, 4)
            degrees = np.array([(place["lat"], place["lon"]) for place, _ in gps], float).reshape(-1, 2)
            names = [getattr(option, "name", str(option)) for _, option in world]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"the evaluator's global plan cannot be read ({error}): drive knows that of leaderboard 2.x") from error
        if len(points) < 2 or len(points) != len(degrees) or not (np.isfinite(points).all() and np.isfinite(degrees).all()):
            raise DataError(f"the evaluator's global plan has {len(points)} places and {len(degrees)} latitudes: at least two of each, finite, make a route")
        known = Command.__members__
        return GlobalPlan(points, tuple(known.get(name, Command.LANEFOLLOW) for name in names), degrees)

    @property
    def start(self) -> Array:
        """(3,) of drive's world: where the evaluators put the middle of the car."""
        x, y, _, yaw = self.points[0]
        return np.array([x, -y, -math.radians(yaw)])

    def keypoints(self) -> tuple[Array, Array]:
        """Points (K, 3) and yaw (K,) about KEYPOINT_EVERY apart, for plan_route on a known map."""
        gone = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.points[:, :2], axis=0).T))])
        kept = np.unique([*np.searchsorted(gone, np.arange(0.0, gone[-1], KEYPOINT_EVERY)), len(gone) - 1])
        return self.points[kept, :3], self.points[kept, 3]

    def route(self) -> tuple[RoadMap, Route]:
        """The plan as a route of its own: one lane along it, for those who may not read the map."""
        poses = np.column_stack([self.points[:, 0], -self.points[:, 1], -np.radians(self.points[:, 3])])
        far = np.concatenate([[True], np.hypot(*np.diff(poses[:, :2], axis=0).T) > 1e-2])
        poses, words = poses[far], [word for word, kept in zip(self.commands, far) if kept]
        if len(poses) < 2:
            raise DataError("the evaluator's global plan stays in one place")
        s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(poses[:, :2], axis=0).T))])
        grid = np.linspace(0.0, s[-1], max(round(s[-1] / SPACING), 1) + 1)
        path = interpolate_poses(s, poses, grid)
        count = len(grid)
        side = HALF_WIDTH * np.column_stack([-np.sin(path[:, 2]), np.cos(path[:, 2])])
        lane = Lane("route", path, path[:, :2] + side, path[:, :2] - side, LIMIT)
        nearest = np.clip(np.searchsorted((s[1:] + s[:-1]) / 2.0, grid), 0, len(s) - 1)
        inside = np.array([words[i] in TURNS for i in nearest])
        route = Route(("route",), path, np.full(count, LIMIT), spoken(words, s, grid), np.zeros(count, np.int64), inside)
        return RoadMap("global-plan", {"route": lane}, Polygons.from_rings([])), route

    @property
    def origin(self) -> tuple[float, float]:
        """Latitude and longitude, rad, of the map's x = y = 0, solved from the first point."""
        x, y = self.points[0, :2]
        latitude, longitude = np.radians(self.gps[0])
        north, origin = _isometric(latitude), latitude
        for _ in range(20):  # contracts by about y / RADIUS a turn
            origin = 2.0 * math.atan(math.exp(north + y / (RADIUS * math.cos(origin)))) - math.pi / 2.0
        return origin, longitude - x / (RADIUS * math.cos(origin))

    def places(self, latitude: float, longitude: float, origin: tuple[float, float]) -> Array:
        """(2, 2) x, y m of drive's world that a GNSS reading in degrees stands for: by 0.9.15's projection, and by 0.9.16's."""
        lat, lon = math.radians(latitude), math.radians(longitude)
        scale = RADIUS * math.cos(origin[0])
        mercator = scale * (lon - origin[1]), scale * (_isometric(lat) - _isometric(origin[0]))
        east = math.atanh(math.cos(lat) * math.sin(lon - origin[1]))
        north = math.atan2(math.tan(lat), math.cos(lon - origin[1])) - origin[0]
        return np.array([mercator, (SCALE * RADIUS * east, -SCALE * RADIUS * north)])


def spoken(words: Sequence[Command], s: Array, grid: Array) -> NDArray[np.int8]:
    """(N,) indices into COMMANDS at `grid` m, as a Route speaks them: the word of a junction from ANNOUNCE m before it, the nearest one last
    written, and a lane change around the place where the plan has it. `words` stand at `s` m."""
    command = np.full(len(grid), COMMANDS.index(Command.LANEFOLLOW), np.int8)
    starts = [i for i in range(len(words)) if i == 0 or words[i] != words[i - 1]]
    runs = [(words[a], s[a], s[b - 1]) for a, b in zip(starts, [*starts[1:], len(words)])]
    for word, first, last in reversed(runs):
        if word in TURNS:
            command[(grid >= first - ANNOUNCE) & (grid <= last)] = COMMANDS.index(word)
    for word, first, last in runs:
        if word in CHANGES:
            command[(grid >= first - BLEND / 2.0 - BLEND_ANNOUNCE) & (grid <= last + BLEND / 2.0)] = COMMANDS.index(word)
    return command


def _isometric(latitude: float) -> float:
    return math.log(math.tan(math.pi / 4.0 + latitude / 2.0))
