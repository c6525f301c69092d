"""Arrow files as py123d (0.7) writes them: one IPC file a modality, whose schema carries its description as MessagePack under `metadata`.

MessagePack (github.com/msgpack/msgpack/blob/master/spec.md) is read and written here, without its extension types, so that nothing has to be
installed but pyarrow: py123d itself brings 1.6 GB. A map's features hold numpy arrays as py123d writes them: a map of the byte strings
`__ndarray__`, `dtype`, `shape` and `data` (py123d, common/utils/msgpack_utils.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drive.core.errors import DataError
from drive.core.files import PARTIAL, disk_errors

METADATA = b"metadata"
DEPTH = 32  # of nested lists and maps, at most
NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
SIZES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}


def pyarrow() -> Any:
    """The package. Raises DataError where it is not installed."""
    try:
        import pyarrow  # type: ignore[import-not-found]
        import pyarrow.compute  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("py123d logs are Arrow files: pip install 'drive-vla[py123d]'") from None
    return pyarrow


def pack(value: Any) -> bytes:
    """MessagePack of None, bool, int, float, text, bytes, lists, maps and numpy arrays. Raises TypeError on anything else."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int | np.integer):
        value = int(value)
        return struct.pack(">b", value) if -32 <= value < 128 else struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, np.ndarray):
        return pack({b"__ndarray__": True, b"dtype": value.dtype.str, b"shape": list(value.shape), b"data": value.tobytes()})
    if isinstance(value, list | tuple):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    if isinstance(value, Mapping):
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())
    raise TypeError(f"{type(value).__name__} cannot be packed")


def unpack(data: bytes, where: str) -> Any:
    """The value that `data` holds; arrays are read-only. Raises DataError, naming `where`, where it is no MessagePack or goes on behind it."""
    try:
        value, stop = _value(data, 0, 0)
        if stop != len(data):
            raise ValueError(f"{len(data) - stop} bytes behind the end")
    except (ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        raise DataError(f"{where} is no MessagePack as py123d writes it ({error}): write the log again") from error
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value at byte `at`, and the byte behind it."""
    if depth > DEPTH:
        raise ValueError("nested too deep")
    kind, at = data[at], at + 1
    if kind < 0x80 or kind >= 0xE0:
        return kind - (256 if kind >= 0xE0 else 0), at
    if kind in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[kind], at
    if kind in NUMBERS:
        form = NUMBERS[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    if kind in SIZES:
        count, at = struct.unpack_from(SIZES[kind], data, at)[0], at + struct.calcsize(SIZES[kind])
    elif kind < 0xC0:
        count = kind & (0x1F if kind >= 0xA0 else 0x0F)
    else:
        raise ValueError(f"type {kind:#x} is not read")
    if count > len(data) - at:
        raise ValueError("cut off")
    if kind in (0xC4, 0xC5, 0xC6):
        return data[at : at + count], at + count
    if kind in (0xD9, 0xDA, 0xDB) or 0xA0 <= kind < 0xC0:
        return data[at : at + count].decode(), at + count
    if kind in (0xDC, 0xDD) or 0x90 <= kind < 0xA0:
        items = []
        for _ in range(count):
            item, at = _value(data, at, depth + 1)
            items.append(item)
        return items, at
    found = {}
    for _ in range(count):
        key, at = _value(data, at, depth + 1)
        found[key], at = _value(data, at, depth + 1)
    return (_array(found) if b"__ndarray__" in found else found), at


def _array(found: Mapping[Any, Any]) -> Any:
    if not re.fullmatch(r"[<>|=]?[biuf]\d", found[b"dtype"]):
        raise ValueError(f"an array of {found[b'dtype']}")
    return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])


def open_table(path: Path, wanted: Sequence[str] = ()) -> tuple[Any, dict[str, Any]]:
    """The pyarrow Table of a file, in memory, and its description. Raises DataError, naming the file, where it cannot be read or lacks a column."""
    pa = pyarrow()
    try:
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            schema = file.schema
            missing = [name for name in wanted if name not in schema.names]
            table = file.read_all()
            table.validate(full=True)  # damaged offsets would otherwise be followed
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Arrow ({str(error).splitlines()[0][:200]}): fetch or write it again") from error
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    return table, describe(path, schema)


def describe(path: Path, schema: Any) -> dict[str, Any]:
    """What a file's schema says of it. Raises DataError, naming the file, where it says nothing."""
    packed = (schema.metadata or {}).get(METADATA)
    found = unpack(packed, f"{path}: its description") if packed is not None else None
    if not isinstance(found, dict):
        raise DataError(f"{path} is no file of py123d: its schema has no description")
    return found


def write_table(path: Path, schema: Any, description: Mapping[str, Any], batches: Iterable[Mapping[str, Any]], extra: Mapping[bytes, bytes] | None = None) -> None:
    """Write an IPC file of `batches` (columns of one record batch each) with its description and `extra` schema entries, by rename."""
    pa = pyarrow()
    schema = schema.with_metadata({METADATA: pack(description), **(extra or {})})
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for batch in batches:
                    writer.write_batch(pa.record_batch(dict(batch), schema=schema))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
