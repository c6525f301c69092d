"""TFRecord files without TensorFlow: framing, checksums, and what can still be read of a damaged file.

A record is `<Q length> <I masked crc of the length> data <I masked crc of the data>`, little endian; the checksum is CRC-32C (RFC 3720,
B.4) and masked as in TensorFlow's core/lib/hash/crc32c.h: rotated right by 15 bits, plus 0xa282ead8. The framing itself is described in
TensorFlow's core/lib/io/record_writer.h.

`records` walks the headers alone and reads no data, so that a file of any size is listed in little memory; `read` reads one record. A length
is believed only if its checksum is right, or if it leads to another sound header or to the end of the file, and it never asks for more
bytes than the file has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError

Bytes = NDArray[np.uint8]
HEADER = struct.Struct("<QI")  # length and its masked checksum
FOOTER = struct.Struct("<I")
POLYNOMIAL, MASK_DELTA = 0x82F63B78, 0xA282EAD8


def _tables() -> NDArray[np.uint32]:
    """(8, 256): row k is the checksum of a byte followed by k zero bytes."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1).astype(np.uint32)
    rows = [table]
    for _ in range(7):
        rows.append((table[rows[-1] & 0xFF] ^ (rows[-1] >> 8)).astype(np.uint32))
    return np.stack(rows)


TABLES = _tables()


@njit(cache=True, nogil=True)
def _crc(data: Bytes, t: NDArray[np.uint32]) -> np.uint32:  # pragma: no cover - compiled
    crc = np.uint32(0xFFFFFFFF)
    whole = len(data) - len(data) % 8
    for i in range(0, whole, 8):  # eight bytes at once ("slicing by 8", Kounavis and Berry 2005)
        low = crc ^ (np.uint32(data[i]) | np.uint32(data[i + 1]) << 8 | np.uint32(data[i + 2]) << 16 | np.uint32(data[i + 3]) << 24)
        crc = np.uint32(
            t[7, low & 0xFF]
            ^ t[6, (low >> 8) & 0xFF]
            ^ t[5, (low >> 16) & 0xFF]
            ^ t[4, (low >> 24) & 0xFF]
            ^ t[3, data[i + 4]]
            ^ t[2, data[i + 5]]
            ^ t[1, data[i + 6]]
            ^ t[0, data[i + 7]]
        )
    for i in range(whole, len(data)):
        crc = np.uint32(t[0, (crc ^ data[i]) & 0xFF] ^ (crc >> 8))
    return np.uint32(crc ^ np.uint32(0xFFFFFFFF))


def crc32c(data: bytes | Bytes) -> int:
    """CRC-32C of bytes."""
    return int(_crc(np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data, TABLES))


def masked(data: bytes | Bytes) -> int:
    """The checksum of bytes as a TFRecord holds it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)  # a dataset has a million
class Record:
    """One record of a file, found and not read."""

    path: Path
    number: int  # from 0
    offset: int  # bytes, of its header
    length: int = 0  # bytes of its data
    fault: str = ""  # why it cannot be read, or empty

    @property
    def data_offset(self) -> int:
        """Byte of the file at which its data begins."""
        return self.offset + HEADER.size

    @property
    def end(self) -> int:
        """Byte of the file behind it."""
        return self.data_offset + self.length + FOOTER.size

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"{self.path}: record {self.number} at byte {self.offset}"


def _sound(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether a header with the right checksum stands at `offset`, or the file of `size` bytes ends there."""
    file.seek(offset)
    header = file.read(HEADER.size)
    return offset == size or (len(header) == HEADER.size and masked(header[:8]) == HEADER.unpack(header)[1])


def _record(file: BinaryIO, path: Path, number: int, offset: int, size: int) -> tuple[Record, bool]:
    """The record whose header stands at `offset`, and whether its length can be believed."""
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return Record(path, number, offset, 0, f"the file ends within its header ({len(header)} of {HEADER.size} bytes)"), False
    length, crc = HEADER.unpack(header)
    record = Record(path, number, offset, length)
    if masked(header[:8]) != crc:
        known = record.end <= size and _sound(file, record.end, size)
        lost = "" if known else f"; the {size - offset} bytes from there on are lost"
        return Record(path, number, offset, length if known else 0, f"the checksum of its length is wrong{lost}"), known
    if record.end > size:
        return Record(path, number, offset, 0, f"the file ends within its data ({size - record.data_offset} of {length + FOOTER.size} bytes)"), False
    return record, True


def records(path: Path) -> Iterator[Record]:
    """The records of a file in order, faulty ones too; after one whose length is unknown there are no more.

    Raises DataError where the file cannot be opened.
    """
    try:
        with path.open("rb") as file:
            size, offset, number = path.stat().st_size, 0, 0
            while offset < size:
                record, known = _record(file, path, number, offset, size)
                yield record
                if not known:
                    return
                offset, number = record.end, number + 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def record_at(path: Path, number: int, offset: int) -> Record:
    """The record `number` of `records`, whose header stands at `offset`. Raises DataError where the file cannot be opened."""
    try:
        with path.open("rb") as file:
            return _record(file, path, number, offset, path.stat().st_size)[0]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read(record: Record) -> Bytes:
    """The data of a record. Raises DataError, naming file, record and byte, where it is damaged."""
    if record.fault:
        raise DataError(f"{record.where}: {record.fault}: fetch the file again")
    try:
        with record.path.open("rb") as file:
            file.seek(record.data_offset)
            data = np.frombuffer(file.read(record.length + FOOTER.size), np.uint8)
    except OSError as error:
        raise DataError(f"{record.where} cannot be read: {error}") from error
    if len(data) < record.length + FOOTER.size:
        raise DataError(f"{record.where}: the file ends within its data: fetch the file again")
    data, crc = data[: record.length], FOOTER.unpack(data[record.length :].tobytes())[0]
    if masked(data) != crc:
        raise DataError(f"{record.where}: the checksum of its data is wrong: fetch the file again")
    return data
