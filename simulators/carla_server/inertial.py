"""GNSS and IMU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from drive.core.seeds import numpy_rng
from drive.simulators.carla_server.layouts import Actor, ServerError, Stream
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.sensor import Sensor, packed

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

GRAVITY = 9.81


def _spreads(actor: Actor, *names: str) -> np.ndarray:
    """Standard deviations from the attributes. Raises ServerError where one is negative."""
    found = np.array([actor.number(name, 0.0) for name in names])
    if (found < 0.0).any():
        raise ServerError(f"{actor.type_id}: a standard deviation is negative; give 0 for no noise")
    return found


class Imu(Sensor):
    """Acceleration with gravity, angular velocity and compass, in the sensor's frame; mean values since the last measurement."""

    stream = Stream.IMU

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._accel, self._gyro = (
            _spreads(actor, *(f"noise_{name}_stddev_{axis}" for axis in "xyz")) for name in ("accel", "gyro")
        )
        self._bias = np.array([actor.number(f"noise_gyro_bias_{axis}", 0.0) for axis in "xyz"])
        self._rng = numpy_rng(episode.seed, "imu", int(actor.number("noise_seed", 0)))
        self._before: tuple[float, np.ndarray, np.ndarray] | None = None  # s, velocity, axes in the world

    def measure(self) -> Iterable[bytes]:
        """One message a frame."""
        episode = self.episode
        pose = episode.pose(self.actor.id)
        turn, velocity = matrix(pose)[:3, :3], self._velocity(pose)
        acceleration, spin = np.zeros(3), np.zeros(3)
        if self._before is not None and episode.elapsed > self._before[0]:
            gone = episode.elapsed - self._before[0]
            acceleration = (velocity - self._before[1]) / gone
            spin = rotation_vector(self._before[2].T @ turn) / gone
        self._before = episode.elapsed, velocity, turn
        felt = turn.T @ (acceleration + (0.0, 0.0, GRAVITY)) + self._accel * self._rng.standard_normal(3)
        spin = spin + self._bias + self._gyro * self._rng.standard_normal(3)
        compass = (math.atan2(turn[1, 0], turn[0, 0]) + math.pi / 2.0) % (2.0 * math.pi)
        yield packed([felt.tolist(), spin.tolist(), compass])

    def _velocity(self, pose: np.ndarray) -> np.ndarray:
        """(3,) m/s of the sensor itself, which a turning vehicle swings round."""
        episode, parent = self.episode, self.actor.parent
        velocity = episode.velocity(self.actor.id)
        if parent not in episode.vehicles.row:
            return velocity
        record = episode.vehicles.records[episode.vehicles.row[parent]]
        return velocity + np.cross(np.radians(record["angular"].astype(float)), pose[:3] - record["pose"][:3])


def rotation_vector(turn: np.ndarray) -> np.ndarray:
    """(3,) axis times angle, rad, of a rotation matrix (3, 3) of less than half a turn."""
    skew = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2.0
    sine = float(np.linalg.norm(skew))
    angle = math.atan2(sine, (float(np.trace(turn)) - 1.0) / 2.0)
    return skew * (angle / sine if sine > 1e-12 else 1.0)


class Gnss(Sensor):
    """Latitude, longitude and height, as carla.Map.transform_to_geolocation of 0.9.16 gives them, or by the projection of 0.9.15."""

    stream = Stream.GNSS

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._spread = _spreads(actor, "noise_lat_stddev", "noise_lon_stddev", "noise_alt_stddev")
        self._bias = np.array([actor.number(f"noise_{name}_bias", 0.0) for name in ("lat", "lon", "alt")])
        self._rng = numpy_rng(episode.seed, "gnss", int(actor.number("noise_seed", 0)))

    def measure(self) -> Iterable[bytes]:
        """One message a frame."""
        x, y, z = self.episode.pose(self.actor.id)[:3]
        project = geolocation if self.episode.gnss == "0.9.16" else mercator
        latitude, longitude = project(x, y, *self.episode.town.origin)
        noise = self._bias + self._spread * self._rng.standard_normal(3)
        yield packed([float(value) for value in noise + (latitude, longitude, z)])


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
