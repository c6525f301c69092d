"""Radar and obstacle detector, as CARLA's ARadar and AObstacleDetectionSensor look ahead."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.seeds import numpy_rng
from drive.simulators.carla_server.layouts import Actor, ServerError, Stream
from drive.simulators.carla_server.sensor import RaySensor, Sensor, packed
from drive.simulators.carla_server.sensor_rays import NOTHING, SCENERY_NAMES, Targets, shoot, targets

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
MOST_POINTS = 500_000  # of one measurement
TOUCH = 1e-4  # m at which a sphere has reached a box


class Radar(RaySensor):
    """Velocity towards (negative) or away, azimuth, altitude and distance of points within an elliptic cone."""

    stream = Stream.RADAR

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        across, up = actor.number("horizontal_fov", 30.0), actor.number("vertical_fov", 30.0)
        self._range, self._rate = actor.number("range", 100.0), actor.number("points_per_second", 1500)
        if not (0.0 < across < 180.0 and 0.0 < up < 180.0 and self._range > 0.0 and self._rate >= 0.0):
            raise ServerError("sensor.other.radar: fields of view are 0 to 180 degrees, range and points_per_second positive")
        self._spread = np.tan(np.radians([across, up]) / 2.0)
        self._rng = numpy_rng(episode.seed, "radar")
        self._before: Array | None = None

    def measure(self) -> Iterable[bytes]:
        """One message: the points of the time since the last one."""
        gone = self.gone()
        origin, turn = self.place()
        here = self.episode.pose(self.actor.id)[:3]
        own = (here - self._before) / gone if self._before is not None else self.episode.velocity(self.actor.id)
        self._before = here
        count = min(int(self._rate * gone), MOST_POINTS)
        radius, angle = self._rng.random(count), self._rng.random(count) * 2.0 * np.pi
        across, up = self._spread[:, None] * radius * (np.cos(angle), np.sin(angle))
        local = np.column_stack([np.ones(count), across, up])
        length = np.linalg.norm(local, axis=1)
        local = local / length[:, None]
        found = targets(self.episode)
        ways = local @ turn.T
        hits = shoot(found, origin, ways, self._range * length)
        met = np.flatnonzero(hits.what != NOTHING)
        velocity = np.where(hits.what[met, None] >= 0, found.velocity[hits.what[met]] if len(found.ids) else 0.0, 0.0)
        records = np.empty((len(met), 4), "<f4")
        records[:, 0] = ((velocity - own) * ways[met]).sum(1)
        records[:, 1], records[:, 2] = np.arctan2(local[met, 1], local[met, 0]), np.arcsin(local[met, 2])
        records[:, 3] = hits.distance[met]
        yield records.tobytes()


@njit(cache=True)
def sweep(origin, way, reach, radius, boxes):
    """Metres that a sphere can go along `way` until it touches one of `boxes` (M, 7), and its row; -1 where none within `reach`."""
    best, row = reach, -1
    for k in range(len(boxes)):
        c, s = math.cos(boxes[k, 3]), math.sin(boxes[k, 3])
        gone = 0.0
        for _ in range(200):  # towards a convex body, each step gets at most as near as it is
            dx, dy = origin[0] + gone * way[0] - boxes[k, 0], origin[1] + gone * way[1] - boxes[k, 1]
            x = max(abs(c * dx + s * dy) - boxes[k, 4], 0.0)
            y = max(abs(-s * dx + c * dy) - boxes[k, 5], 0.0)
            z = max(abs(origin[2] + gone * way[2] - boxes[k, 2]) - boxes[k, 6], 0.0)
            left = math.sqrt(x * x + y * y + z * z) - radius
            if left < TOUCH or gone > best:
                break
            gone += left
        if left < TOUCH and gone < best:
            best, row = gone, k
    return best, row


class Obstacle(Sensor):
    """Tells what stands within `distance` ahead of a sphere of `hit_radius`. The ground is no obstacle."""

    stream = Stream.OBSTACLE

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._distance, self._radius = actor.number("distance", 5.0), actor.number("hit_radius", 0.5)
        self._dynamic = actor.values.get("only_dynamics", "false").lower() in ("true", "1")
        if self._distance <= 0.0 or self._radius < 0.0:
            raise ServerError("sensor.other.obstacle: distance is positive, hit_radius not negative")

    def measure(self) -> Iterable[bytes]:
        """One message if anything is there: the actor that bears the sensor, the other one, m between sphere and it."""
        episode, parent = self.episode, self.actor.parent
        found = targets(episode)
        keep = found.dynamic if self._dynamic else np.ones(len(found.ids), bool)
        keep = keep & ((found.ids != parent) | (found.ids == 0))
        origin, way = self._ray()
        reach = self._distance + self._radius
        keep &= np.hypot(*(found.boxes[:, :2] - origin[:2]).T) - np.hypot(*found.boxes[:, 4:6].T) < reach
        rows = np.flatnonzero(keep)
        gone, row = sweep(origin, way, self._distance, self._radius, np.ascontiguousarray(found.boxes[rows]))
        if row < 0:
            return
        mine = episode.actors.get(parent, self.actor)
        yield packed([mine.message(0), self._other(found, int(rows[row])), gone])

    def _ray(self) -> tuple[Array, Array]:
        pose = self.episode.pose(self.actor.id)
        pitch, yaw = np.radians(pose[3]), np.radians(pose[4])
        height = pose[2] - self.episode.height_at(pose[0], pose[1], pose[2])
        way = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
        return np.array([pose[0], pose[1], height]), way

    def _other(self, found: Targets, row: int) -> list:
        other = self.episode.actors.get(int(found.ids[row]))
        if other is not None:
            return other.message(0)
        name = SCENERY_NAMES.get(int(found.tags[row]), "static.unknown")
        return [0, 0, [0, name, []], [[0.0] * 3, [0.0] * 3, [0.0] * 3, 0], b"", b""]
