"""What every sensor has in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import Actor, ServerError, Stream
from drive.simulators.carla_server.poses import matrix

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode


class Sensor:
    """One sensor of one episode. `measure` is asked only while somebody listens and its time has come."""

    stream = Stream.WORLD

    def __init__(self, actor: Actor, episode: Episode) -> None:
        self.actor, self.episode = actor, episode
        self.tick = actor.number("sensor_tick", 0.0)
        self._last: float | None = None
        if self.tick < 0.0:
            raise ServerError(f"{actor.type_id}: sensor_tick is {self.tick:g} s; give 0 for every tick, or more")

    def due(self, elapsed: float, delta: float) -> bool:
        """Whether `sensor_tick` seconds have gone since the last measurement, to half a tick."""
        if self._last is not None and elapsed - self._last < self.tick - 0.5 * delta:
            return False
        self._last = elapsed
        return True

    def measure(self) -> Iterable[bytes]:
        """The payloads of this frame: none, one or several."""
        raise NotImplementedError


class RaySensor(Sensor):
    """A sensor that shoots rays, as many as its rate and the time since the last ones allow."""

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self._shot_at: float | None = None

    def gone(self) -> float:
        """s since the last measurement; those during which nobody listened do not count."""
        now, usual = self.episode.elapsed, max(self.tick, self.episode.delta)
        before, self._shot_at = self._shot_at, now
        if before is None or now - before > 1.5 * usual or abs(now - before - usual) < 1e-6:
            return usual  # exactly, so that every turn has as many points
        return now - before

    def place(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where it is (3,), z above the ground, and its axes in the world as columns (3, 3); CARLA's frame."""
        m = matrix(self.episode.pose(self.actor.id))
        return m[:3, 3] - (0.0, 0.0, self.episode.height_at(m[0, 3], m[1, 3], m[2, 3])), m[:3, :3]


def packed(value: Any) -> bytes:
    """msgpack of `value`."""
    return bytes(msgpack.packb(value) or b"")
