"""The RPC port: msgpack requests, answered one after the other on each connection. Whatever arrives, the server lives on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgpack

from drive.simulators.carla_server.layouts import ServerError

LOG = logging.getLogger("drive.carla_server")
MESSAGE = 128 << 20  # bytes of the longest message: OpenDRIVE files are uploaded whole
PLAIN = 4 << 20  # bytes of the longest that is not one long text: an empty array has 1 byte on the wire and 64 in memory
TEXT = (0xC5, 0xC6, 0xDA, 0xDB)  # first bytes of a long text
MOST_PARAMETERS = 16
LONGEST_TEXT = 1000  # of an error: it may quote what the client sent
SHAPE_ERRORS = (TypeError, IndexError, ValueError, KeyError, OverflowError, AttributeError)  # of arguments that are not what they should be
Handler = Callable[..., Any]


class Bare:
    """A result that is not a Response."""

    def __init__(self, value: Any) -> None:
        self.value = value


class RpcConnection(asyncio.Protocol):
    """One client. A tick may have to wait for others (`ready`); what this client sent after it waits as well."""

    def __init__(self, methods: dict[str, Handler], ready: Callable[[], bool], unknown: set[str], open_: set[RpcConnection]) -> None:
        self._methods, self._ready, self._unknown, self._open = methods, ready, unknown, open_
        self._ends = msgpack.Unpacker(max_buffer_size=MESSAGE)  # finds the ends of messages and makes nothing of them
        self._buffer, self._taken = bytearray(), 0  # what has come of messages that are not answered; bytes of those that are
        self._packer = msgpack.Packer(use_bin_type=True)
        self._held: list | None = None
        self._full = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone, with whatever it waited for."""
        self._open.discard(self)
        self._transport, self._held = None, None

    def data_received(self, data: bytes) -> None:
        """Part of a message, or several."""
        try:
            self._ends.feed(data)
        except (msgpack.exceptions.UnpackException, ValueError) as error:
            self._refuse(f"not msgpack: {error or type(error).__name__}")
            return
        self._buffer += data
        self._go_on()

    def pause_writing(self) -> None:
        """The client does not read its answers: nothing more is read from it, so that they do not fill the memory."""
        self._full = True
        self._pause()

    def resume_writing(self) -> None:
        """It has read them."""
        self._full = False
        self._go_on()

    def close(self) -> None:
        """Send the client away."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, why: str) -> None:
        LOG.warning("a client was sent away (%s)", why)
        self.close()

    def _pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _message(self) -> Any:
        """The next message. Memory is taken for what has come, not for what is announced: an array may announce billions of items.

        Raises msgpack.OutOfData where it is not whole, ValueError or UnpackException where it is none.
        """
        self._ends.skip()
        end = self._ends.tell() - self._taken
        self._taken += end
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        if end > PLAIN and not _is_text(whole):
            raise ValueError(f"{end} bytes, and no text that is as long")
        return msgpack.unpackb(whole, raw=False, strict_map_key=False, unicode_errors="replace")

    def _go_on(self) -> None:
        """Answer what has come, until this client has to wait or has sent no more."""
        while self._held is None and not self._full and self._transport is not None:
            try:
                message = self._message()
            except msgpack.OutOfData:
                if len(self._buffer) > MESSAGE:
                    self._refuse(f"a message of more than {MESSAGE} bytes")
                else:
                    self._transport.resume_reading()
                return
            except (msgpack.exceptions.UnpackException, ValueError, TypeError, RecursionError) as error:  # TypeError: a map whose key is a list
                self._refuse(f"not msgpack: {error or type(error).__name__}")
                return
            if not _is_request(message):
                self._refuse("not a request")
                return
            if message[2] == "tick_cue" and not self._ready():
                self._held = message
                self._pause()
                asyncio.get_running_loop().call_later(0.001, self._retry)
                return
            self._answer(message)

    def _retry(self) -> None:
        if self._held is None or self._transport is None:
            return
        if not self._ready():
            asyncio.get_running_loop().call_later(0.001, self._retry)
            return
        message, self._held = self._held, None
        self._answer(message)
        self._go_on()

    def _answer(self, message: list) -> None:
        _, number, name, params = message
        error, result = self._call(name, params[1:])
        if self._transport is not None:
            self._transport.write(bytes(self._packer.pack([1, number, error, result]) or b""))

    def _call(self, name: str, arguments: list) -> tuple[Any, Any]:
        """(error, result) as they go on the wire."""
        handler = self._methods.get(name)
        if handler is None:
            name = name[:80]
            if name not in self._unknown and len(self._unknown) < 1000:
                self._unknown.add(name)
                LOG.warning("clients ask for %r, which this server does not have", name)
            return f"unknown method {name}", None
        try:
            value = handler(*arguments)
        except ServerError as error:
            return None, [[0, [str(error)[:LONGEST_TEXT]]]]
        except SHAPE_ERRORS as error:
            LOG.warning("%s was called with arguments of a wrong shape (%s: %s)", name, type(error).__name__, str(error)[:LONGEST_TEXT])
            return f"{name}: arguments of a wrong shape", None
        except Exception:  # a fault of this server: it is told, and the other clients go on
            LOG.exception("%s failed", name)
            return f"{name}: the server failed", None
        if isinstance(value, Bare):
            return None, value.value
        return None, [[False]] if value is None else [[1, value]]


def _is_text(message: bytes) -> bool:
    """Whether a long request is so for its long texts: no other of its parameters has more than PLAIN bytes."""
    parts = msgpack.Unpacker(max_buffer_size=len(message))
    parts.feed(message)
    if parts.read_array_header() != 4:
        return False
    for _ in range(3):
        parts.skip()
    count = parts.read_array_header()
    for _ in range(min(count, MOST_PARAMETERS)):
        start = parts.tell()
        parts.skip()
        if parts.tell() - start > PLAIN and message[start] not in TEXT:
            return False
    return count <= MOST_PARAMETERS


def _is_request(message: Any) -> bool:
    return (
        isinstance(message, list)
        and len(message) == 4
        and message[0] == 0
        and isinstance(message[1], int)
        and isinstance(message[2], str)
        and isinstance(message[3], list)
        and len(message[3]) >= 1
    )
