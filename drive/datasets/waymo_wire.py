"""Protocol Buffers' wire format, as much of it as Waymo's records need (protobuf.dev/programming-guides/encoding).

Why not the `protobuf` package: a second copy of Waymo's messages in one process clashes with the first, reading 75,000 scalars of a motion
scenario through Python attributes is slow, and it does not tell at which byte a JPEG stands. Here a message is a span of bytes, its fields are
found by number, and whole tables of repeated sub-messages are read by one compiled loop. Field numbers stand in the readers, each
with the name that it has in Waymo's .proto files (waymo-research/waymo-open-dataset, src/waymo_open_dataset).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@njit(cache=True, nogil=True)
def _varint(data, at, stop):  # pragma: no cover - compiled
    """(value, byte behind it); (0, -1) where it is cut off or too long."""
    value = np.int64(0)
    for k in range(10):
        if at + k >= stop:
            return np.int64(0), -1
        byte = np.int64(data[at + k])
        value |= (byte & 127) << np.int64(7 * k)
        if byte < 128:
            return value, at + k + 1
    return np.int64(0), -1


@njit(cache=True, nogil=True)
def _scan(data, start, stop):  # pragma: no cover - compiled
    """Fields (N, 4): number, wire type, value or first byte, byte behind; and the byte at which the message is broken, or -1."""
    rows, count, at = np.empty((16, 4), np.int64), 0, start
    while at < stop:
        begin = at
        tag, at = _varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        if at < 0 or number <= 0 or number > 536870911:
            return rows[:count], begin
        value, end = np.int64(at), np.int64(at)
        if kind == 0:
            value, at = _varint(data, at, stop)
            end = np.int64(at)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            size, at = _varint(data, at, stop)
            if at < 0 or size < 0 or size > stop - at:
                return rows[:count], begin
            value = np.int64(at)
            at += size
        else:
            return rows[:count], begin
        if at < 0 or at > stop:
            return rows[:count], begin
        end = np.int64(at)
        if count == len(rows):
            more = np.empty((2 * count, 4), np.int64)
            more[:count] = rows
            rows = more
        rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3] = number, kind, value, end
        count += 1
    return rows[:count], -1


@njit(cache=True, nogil=True)
def _table(data, spans, numbers):  # pragma: no cover - compiled
    """(N, K) scalar fields `numbers` of the messages in spans (N, 2), NaN where absent; and where one is broken, or -1."""
    out = np.full((len(spans), len(numbers)), np.nan)
    eight, four = np.empty(8, np.uint8), np.empty(4, np.uint8)
    for i in range(len(spans)):
        rows, broken = _scan(data, spans[i, 0], spans[i, 1])
        if broken >= 0:
            return out, broken
        for r in range(len(rows)):
            for k in range(len(numbers)):
                if rows[r, 0] != numbers[k]:
                    continue
                if rows[r, 1] == 0:
                    out[i, k] = rows[r, 2]
                elif rows[r, 1] == 1:
                    eight[:] = data[rows[r, 2] : rows[r, 2] + 8]
                    out[i, k] = eight.view(np.float64)[0]
                elif rows[r, 1] == 5:
                    four[:] = data[rows[r, 2] : rows[r, 2] + 4]
                    out[i, k] = four.view(np.float32)[0]
    return out, -1


@njit(cache=True, nogil=True)
def _varints(data, start, stop):  # pragma: no cover - compiled
    """Packed varints, and whether they are whole."""
    out, count, at = np.empty(stop - start, np.int64), 0, start
    while at < stop:
        out[count], at = _varint(data, at, stop)
        if at < 0:
            return out[:count], False
        count += 1
    return out[:count], True


class Message:
    """A span of bytes read as a message. Absent fields give defaults; a broken span, or a field of another kind, raises DataError."""

    def __init__(self, data: NDArray[np.uint8], where: str, start: int = 0, stop: int = -1) -> None:
        """`where` names file and record in errors; `start`, `stop` are bytes of `data`, -1 its end."""
        if data.flags.writeable:  # one kind of array, or every kernel is compiled twice
            data = data.view()
            data.setflags(write=False)
        self.data, self.where = data, where
        self.start, self.stop = start, len(data) if stop < 0 else stop

    @cached_property
    def rows(self) -> Ints:
        """(N, 4) of all fields: number, wire type, value or first byte, byte behind."""
        rows, broken = _scan(self.data, self.start, self.stop)
        if broken >= 0:
            raise DataError(f"{self.where}: no such message, its field at byte {broken} of the record is broken")
        return rows

    @cached_property
    def kinds(self) -> dict[int, int]:
        """Wire type by field number."""
        return {int(row[0]): int(row[1]) for row in self.rows}

    def _of(self, number: int, *kinds: int) -> Ints:
        rows = self.rows[self.rows[:, 0] == number]
        if not set(rows[:, 1].tolist()) <= set(kinds):
            raise DataError(f"{self.where}: field {number} at byte {int(rows[0, 2])} of the record is of wire type {int(rows[0, 1])}, not {kinds[0]}")
        return rows

    def spans(self, number: int) -> list[tuple[int, int]]:
        """First byte and byte behind of each field `number`, strings, bytes or messages."""
        return [(int(row[2]), int(row[3])) for row in self._of(number, BYTES)]

    def messages(self, number: int) -> list[Message]:
        """Repeated messages."""
        return [Message(self.data, self.where, *span) for span in self.spans(number)]

    def message(self, number: int) -> Message:
        """One message, an empty one if absent."""
        spans = self.spans(number)
        return Message(self.data, self.where, *spans[-1]) if spans else Message(self.data, self.where, 0, 0)

    def texts(self, number: int) -> list[str]:
        """Repeated strings."""
        return [self.data[begin:end].tobytes().decode("utf-8", "replace") for begin, end in self.spans(number)]

    def text(self, number: int) -> str:
        """A string, empty if absent."""
        return next(reversed(self.texts(number)), "")

    def integer(self, number: int, default: int = 0) -> int:
        """An int, enum or bool."""
        rows = self._of(number, VARINT)
        return int(rows[-1, 2]) if len(rows) else default

    def real(self, number: int, default: float = np.nan) -> float:
        """A float or double."""
        rows = self._of(number, FIXED32, FIXED64)
        if not len(rows):
            return default
        _, kind, begin, end = (int(v) for v in rows[-1])
        return float(self.data[begin:end].view("<f8" if kind == FIXED64 else "<f4")[0])

    def integers(self, number: int) -> Ints:
        """Repeated ints, packed or not."""
        parts = []
        for _, kind, begin, end in self._of(number, VARINT, BYTES).tolist():
            values, whole = _varints(self.data, begin, end) if kind == BYTES else (np.array([begin]), True)
            if not whole:
                raise DataError(f"{self.where}: the numbers of field {number} at byte {begin} of the record are cut off")
            parts.append(values)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def reals(self, number: int, bytes_each: int = 4) -> Array:
        """Repeated floats (4 bytes each) or doubles (8), packed or not."""
        parts = []
        for _, kind, begin, end in self._of(number, BYTES, FIXED32, FIXED64).tolist():
            size = {BYTES: bytes_each, FIXED32: 4, FIXED64: 8}[kind]
            if (end - begin) % size:
                raise DataError(f"{self.where}: field {number} at byte {begin} of the record holds {end - begin} bytes, no multiple of {size}")
            parts.append(self.data[begin:end].view(f"<f{size}").astype(np.float64))
        return np.concatenate(parts) if parts else np.zeros(0)

    def table(self, number: int, columns: Sequence[int]) -> Array:
        """(N, K) scalar fields `columns` of the repeated messages `number`, NaN where absent."""
        spans = self._of(number, BYTES)[:, 2:].copy()
        out, broken = _table(self.data, spans, np.array(columns, np.int64))
        if broken >= 0:
            raise DataError(f"{self.where}: no such message, its field at byte {broken} of the record is broken")
        return out
