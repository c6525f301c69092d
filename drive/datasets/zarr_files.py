"""One-dimensional zarr v2 arrays of records, read in slices: a folder with `.zarray` and one file a chunk.

Format: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html. What L5Kit writes is read, and no more: C order, no filters, Blosc
or no compression. A codec is a program of the file's choosing (numcodecs knows one that unpickles), so no other is ever looked up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError

CHUNK_BYTES = 1 << 28  # of a decoded chunk, at most
KINDS = frozenset("biufU")  # of a record's fields; no objects


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object: fetch it again")
    return content


def attributes(group: Path) -> dict[str, Any]:
    """The `.zattrs` of a group, empty where there is none. Raises DataError on a faulty one."""
    return _json(group / ".zattrs") if (group / ".zattrs").is_file() else {}


def _dtype(path: Path, fields: Any) -> np.dtype:
    try:
        dtype = np.dtype([(str(name), str(kind), *(tuple(map(int, s)) for s in shape)) for name, kind, *shape in fields])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the dtype is no list of record fields ({error})") from error
    kinds = {dtype[name].base.kind for name in dtype.names or ()}
    if not kinds or not kinds <= KINDS:
        raise DataError(f"{path}: records of the kinds {', '.join(sorted(kinds))} are not read")
    return dtype


class Records:
    """The records of one array. Raises DataError, naming the file, where its description is faulty or a wanted field is absent."""

    def __init__(self, folder: Path, wanted: Sequence[str]) -> None:
        self.folder, path = folder, folder / ".zarray"
        meta = _json(path)
        try:
            (self.count,), (self.chunk,) = (int(n) for n in meta["shape"]), (int(n) for n in meta["chunks"])
            version, order, filters, codec = meta["zarr_format"], meta["order"], meta["filters"], meta["compressor"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} describes no array of one dimension ({error!r})") from error
        self.dtype = _dtype(path, meta.get("dtype"))
        if version != 2 or order != "C" or filters or self.count < 0 or self.chunk < 1 or self.chunk * self.dtype.itemsize > CHUNK_BYTES:
            raise DataError(f"{path}: zarr v2 in C order without filters is read, in chunks of at most {CHUNK_BYTES >> 20} MiB")
        if codec is not None and (not isinstance(codec, dict) or codec.get("id") != "blosc"):
            raise DataError(f"{path}: chunks are compressed by {codec.get('id') if isinstance(codec, dict) else codec!r}, only Blosc and none are read")
        missing = [name for name in wanted if name not in (self.dtype.names or ())]
        if missing:
            raise DataError(f"{path} lacks the fields {', '.join(missing)}")
        self._decode = _plain if codec is None else _blosc
        self._chunk = lru_cache(maxsize=2)(self._read)

    @property
    def chunks(self) -> int:
        """How many chunk files there are."""
        return math.ceil(self.count / self.chunk)

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Records start..stop-1; only their chunks are read. Raises DataError, naming the chunk's file, where one is missing or torn."""
        if not 0 <= start <= stop <= self.count:
            raise DataError(f"{self.folder} has the records 0 to {self.count - 1}, not {start} to {stop - 1}")
        touched = range(start // self.chunk, math.ceil(stop / self.chunk))
        parts = [self._chunk(k)[max(start - k * self.chunk, 0) : stop - k * self.chunk] for k in touched]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype)

    def _read(self, index: int) -> NDArray[Any]:
        path = self.folder / str(index)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the chunk of the records from {index * self.chunk} on cannot be read ({error.strerror}): fetch it again") from error
        return self._decode(path, data, self.chunk * self.dtype.itemsize).view(self.dtype)


def _plain(path: Path, data: bytes, size: int) -> NDArray[np.uint8]:
    if len(data) != size:
        raise DataError(f"{path} is torn: {len(data)} bytes of {size}; fetch it again")
    return np.frombuffer(data, np.uint8)


def _blosc(path: Path, data: bytes, size: int) -> NDArray[np.uint8]:
    try:
        from numcodecs.blosc import Blosc  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("L5Kit's zarr files are compressed by Blosc: pip install 'drive-vla[l5kit]'") from None
    # a Blosc chunk opens with 16 bytes; 4 to 8 and 12 to 16 are its sizes, decoded and encoded, checked before memory is taken for them
    sizes = np.frombuffer(data[:16], "<u4") if len(data) >= 16 else np.zeros(4, np.uint32)
    if (int(sizes[1]), int(sizes[3])) != (size, len(data)):
        raise DataError(f"{path} is torn or no Blosc chunk of {size} bytes: fetch it again")
    try:
        return np.frombuffer(Blosc().decode(data), np.uint8)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be decompressed ({error}): fetch it again") from error
