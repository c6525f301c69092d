"""The streaming port: a client sends the number of a stream once, and then reads its messages."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from drive.simulators.carla_server.layouts import LENGTH

WORLD_STREAM = 1
PATIENCE = 0.25  # s that a tick waits for a client that asked for a stream and has not come for it
BACKLOG = 256 << 20  # bytes that a client may leave unread before it is sent away


class StreamConnection(asyncio.Protocol):
    """One subscription. A stream that does not exist is kept open in silence: closed, the client would come back at once, for ever."""

    def __init__(self, streams: Streams) -> None:
        self._streams, self._head = streams, b""
        self.stream = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._streams.open.add(self)

    def data_received(self, data: bytes) -> None:
        """The number of the stream, 4 bytes; anything after it means nothing."""
        if self.stream or len(self._head) >= 4:
            return
        self._head += data[: 4 - len(self._head)]
        if len(self._head) == 4:
            self.stream = int.from_bytes(self._head, "little")
            self._streams.subscribed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._streams.gone(self)
        self.transport = None


class Streams:
    """Who listens to what."""

    def __init__(self) -> None:
        self.open: set[StreamConnection] = set()
        self._listeners: dict[int, list[StreamConnection]] = defaultdict(list)
        self._expected: dict[int, list[float]] = defaultdict(list)  # stream: times until which its clients are awaited

    def expect(self, stream: int) -> None:
        """A client was told where `stream` is."""
        self._expected[stream].append(time.monotonic() + PATIENCE)

    def ready(self) -> bool:
        """Whether every client that was told of a stream has come for it, or has had its time."""
        if not self._expected:
            return True
        now = time.monotonic()
        self._expected = defaultdict(list, {k: left for k, until in self._expected.items() if (left := [t for t in until if t > now])})
        return not self._expected

    def subscribed(self, connection: StreamConnection) -> None:
        """`connection` has named its stream."""
        self._listeners[connection.stream].append(connection)
        awaited = self._expected.get(connection.stream)
        if awaited:
            awaited.pop(0)
            if not awaited:
                del self._expected[connection.stream]

    def gone(self, connection: StreamConnection) -> None:
        """`connection` was closed."""
        self.open.discard(connection)
        listeners = self._listeners.get(connection.stream)
        if listeners and connection in listeners:
            listeners.remove(connection)
            if not listeners:
                del self._listeners[connection.stream]

    def wanted(self, stream: int) -> bool:
        """Whether anybody listens."""
        return stream in self._listeners

    def send(self, stream: int, *parts: bytes) -> None:
        """One message, the same to all listeners."""
        listeners = self._listeners.get(stream)
        if not listeners:
            return
        message = b"".join((LENGTH.pack(sum(map(len, parts))), *parts))
        for listener in tuple(listeners):
            transport = listener.transport
            if transport is None or transport.is_closing():
                continue
            if transport.get_write_buffer_size() > BACKLOG:
                transport.abort()  # it has stopped reading: memory is not for keeping what nobody takes
            else:
                transport.write(message)

    def close(self) -> None:
        """Send everybody away."""
        for connection in tuple(self.open):
            if connection.transport is not None:
                connection.transport.abort()
