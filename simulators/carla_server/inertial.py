"""GNSS and IMU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from drive.simulators.carla_server.layouts import Actor, Stream
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.sensor import Sensor, packed

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

GRAVITY = 9.81


class Imu(Sensor):
    """Acceleration with gravity, angular velocity and compass, in the sensor's frame; from the velocities of the last two frames."""

    stream = Stream.IMU

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._before: tuple[float, np.ndarray, np.ndarray] | None = None  # s, velocity, pose

    def measure(self) -> Iterable[bytes]:
        """One message a frame."""
        episode = self.episode
        pose, velocity = episode.pose(self.actor.id), episode.velocity(self.actor.id)
        acceleration, spin = np.zeros(3), np.zeros(3)
        if self._before is not None and episode.elapsed > self._before[0]:
            gone = episode.elapsed - self._before[0]
            acceleration = (velocity - self._before[1]) / gone
            spin = np.radians((pose[[5, 3, 4]] - self._before[2][[5, 3, 4]] + 180.0) % 360.0 - 180.0) / gone
        self._before = episode.elapsed, velocity, pose
        turn = matrix(pose)[:3, :3]
        felt = turn.T @ (acceleration + (0.0, 0.0, GRAVITY))
        compass = (math.radians(pose[4]) + math.pi / 2.0) % (2.0 * math.pi)
        yield packed([felt.tolist(), spin.tolist(), compass])


class Gnss(Sensor):
    """Latitude, longitude and height, as carla.Map.transform_to_geolocation of 0.9.16 gives them, or by the projection of 0.9.15."""

    stream = Stream.GNSS

    def measure(self) -> Iterable[bytes]:
        """One message a frame."""
        x, y, z = self.episode.pose(self.actor.id)[:3]
        project = geolocation if self.episode.gnss == "0.9.16" else mercator
        latitude, longitude = project(x, y, *self.episode.town.origin)
        yield packed([latitude, longitude, float(z)])


RADIUS, SCALE = 6378137.0, 0.9996  # m; of the spherical transverse Mercator projection


def geolocation(x: float, y: float, latitude: float, longitude: float) -> tuple[float, float]:
    """Degrees of a place x, y m of CARLA 0.9.16's frame on a map with its origin at `latitude`, `longitude`; y is not negated."""
    d, e = x / (SCALE * RADIUS), y / (SCALE * RADIUS) + math.radians(latitude)
    return (
        math.degrees(math.asin(math.sin(e) / math.cosh(d))),
        longitude + math.degrees(math.atan2(math.sinh(d), math.cos(e))),
    )


def mercator(x: float, y: float, latitude: float, longitude: float) -> tuple[float, float]:
    """Degrees by CARLA 0.9.15's Mercator projection, in which y is negated."""
    scale = math.cos(math.radians(latitude))
    east = scale * math.radians(longitude) * RADIUS + x
    north = scale * RADIUS * math.log(math.tan(math.radians(90.0 + latitude) / 2.0)) - y
    return 2.0 * math.degrees(math.atan(math.exp(north / (RADIUS * scale)))) - 90.0, math.degrees(east / (RADIUS * scale))
