"""LiDARs: rays that turn, as CARLA's ARayCastSemanticLidar and ARayCastLidar shoot them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drive.core.seeds import numpy_rng
from drive.simulators.carla_server.layouts import Actor, ServerError, Stream
from drive.simulators.carla_server.sensor import RaySensor
from drive.simulators.carla_server.sensor_rays import GROUND, NOTHING, Hits, Targets, ground_labels, shoot, targets

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
MOST_CHANNELS, MOST_POINTS = 1024, 2_000_000  # of one LiDAR; of one measurement
POINT = np.dtype([("point", "<f4", 3), ("intensity", "<f4")])
LABELLED = np.dtype([("point", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("tag", "<u4")])


class SemanticLidar(RaySensor):
    """x, y, z, cosine of the angle of incidence, actor and label of every point."""

    stream = Stream.SEMANTIC_LIDAR

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._channels, self._range = int(actor.number("channels", 32)), actor.number("range", 10.0)
        self._rate, self._turns = actor.number("points_per_second", 56000), actor.number("rotation_frequency", 10.0)
        upper, lower = actor.number("upper_fov", 10.0), actor.number("lower_fov", -30.0)
        self._sweep = actor.number("horizontal_fov", 360.0)
        sane = 1 <= self._channels <= MOST_CHANNELS and 0.0 < self._sweep <= 360.0
        if not sane or self._range <= 0.0 or self._rate < 0.0:
            raise ServerError(
                f"{actor.type_id}: channels are 1 to {MOST_CHANNELS}, range and horizontal_fov positive (at most 360 degrees), "
                "points_per_second not negative"
            )
        self._angles = np.radians(np.linspace(upper, lower, self._channels))
        self._angle = 0.0  # deg, where the next measurement begins

    def measure(self) -> Iterable[bytes]:
        """The part of a turn since the last measurement; nothing where that is less than a point per channel."""
        gone = self.gone()
        count = int(self._rate * gone / self._channels + 0.5)
        if count * self._channels > MOST_POINTS:
            count = MOST_POINTS // self._channels
        if count <= 0:
            return
        step = self._turns * self._sweep * gone
        across = np.radians(np.fmod(self._angle + step / count * np.arange(count), self._sweep) - self._sweep / 2.0)
        self._angle = float(np.fmod(self._angle + step, self._sweep))
        local = np.empty((self._channels, count, 3))
        local[..., 0] = np.cos(self._angles)[:, None] * np.cos(across)
        local[..., 1] = np.cos(self._angles)[:, None] * np.sin(across)
        local[..., 2] = np.sin(self._angles)[:, None]
        channel = np.repeat(np.arange(self._channels), count)
        local, channel = self._shot(local.reshape(-1, 3), channel)
        origin, turn = self.place()
        found = targets(self.episode)
        hits = shoot(found, origin, local @ turn.T, np.full(len(local), self._range))
        met = np.flatnonzero(hits.what != NOTHING)
        points = local[met] * hits.distance[met, None]
        keep, body = self._records(
            points, Hits(hits.distance[met], hits.what[met], hits.cosine[met]), found, origin + points @ turn.T
        )
        counts = np.bincount(channel[met][keep], minlength=self._channels).astype("<u4")
        yield struct.pack("<fI", np.radians(self._angle), self._channels) + counts.tobytes() + body

    def _shot(self, local: Array, channel: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        """The rays that are shot at all."""
        return local, channel

    def _records(self, points: Array, hits: Hits, found: Targets, world: Array) -> tuple[NDArray[np.int64], bytes]:
        """Which points are sent, and their bytes."""
        records = np.zeros(len(points), LABELLED)
        records["point"], records["cosine"] = points, hits.cosine
        solid = hits.what != GROUND
        records["actor"][solid], records["tag"][solid] = found.ids[hits.what[solid]], found.tags[hits.what[solid]]
        records["tag"][~solid] = ground_labels(self.episode.town.road_map, *world[~solid, :2].T)
        return np.arange(len(points)), records.tobytes()


class Lidar(SemanticLidar):
    """x, y, z and intensity exp(-a d); points are lost at random, and the more so the weaker they are."""

    stream = Stream.LIDAR

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._attenuation = actor.number("atmosphere_attenuation_rate", 0.004)
        self._lost, self._limit = actor.number("dropoff_general_rate", 0.45), actor.number("dropoff_intensity_limit", 0.8)
        self._zero, self._noise = actor.number("dropoff_zero_intensity", 0.4), actor.number("noise_stddev", 0.0)
        if self._noise < 0.0 or self._limit <= 0.0:
            raise ServerError(f"{actor.type_id}: noise_stddev is not negative, dropoff_intensity_limit positive")
        self._rng = numpy_rng(episode.seed, "lidar", int(actor.number("noise_seed", 0)))

    def _shot(self, local: Array, channel: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        if self._lost <= 0.0:
            return local, channel
        kept = self._rng.random(len(local)) >= self._lost
        return local[kept], channel[kept]

    def _records(self, points: Array, hits: Hits, found: Targets, world: Array) -> tuple[NDArray[np.int64], bytes]:
        intensity = np.exp(-self._attenuation * hits.distance)
        if self._noise > 0.0:  # along the ray
            points = points * (1.0 + self._rng.normal(0.0, self._noise, len(points)) / np.maximum(hits.distance, 1e-9))[:, None]
        chance = self._zero / self._limit * intensity + 1.0 - self._zero
        keep = np.flatnonzero((intensity > self._limit) | (self._rng.random(len(points)) < chance))
        records = np.empty(len(keep), POINT)
        records["point"], records["intensity"] = points[keep], intensity[keep]
        return keep, records.tobytes()
