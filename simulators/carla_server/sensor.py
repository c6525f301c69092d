"""What every sensor has in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgpack

from drive.simulators.carla_server.layouts import Actor, ServerError, Stream

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




def packed(value: Any) -> bytes:
    """msgpack of `value`."""
    return bytes(msgpack.packb(value) or b"")
