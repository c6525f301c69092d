"""Reads pickles of plain data without running any code of theirs.

A pickle is a program: it may name any importable object and call it. This reader resolves only what numpy needs to rebuild
its arrays and scalars, and the builtin containers; every other name is refused before it is imported. A reader may admit the names of
further classes: their objects come back as inert `Record`s of what the pickle says of them, and the classes are never looked for.
"""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from drive.core.errors import DataError

try:  # numpy 2 renamed numpy.core; files of either age are read by either numpy
    from numpy._core import multiarray as _multiarray
except ImportError:  # numpy 1.26
    from numpy.core import multiarray as _multiarray

_CONTAINERS = ("bytearray", "complex", "dict", "frozenset", "list", "set", "tuple")


_KINDS = frozenset("biufcSUO?")  # no structured, void or time types: their state may carry anything


class _Dtype:
    """A dtype as a pickle describes it; the state that a pickle gives a real one can make it lie about what lies in memory."""

    def __init__(self, text: Any, align: Any = False, copy: Any = False) -> None:
        self.dtype = np.dtype(text if isinstance(text, str) else _refuse(f"a dtype of {type(text).__name__}"))
        if self.dtype.kind not in _KINDS:
            _refuse(f"the dtype {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        order, *compound = state[1:5]
        if any(part is not None for part in compound):
            _refuse("a compound dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array whose state is checked before numpy takes it."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, _plain(dtype), fortran, data))


def _refuse(what: str) -> Any:
    raise pickle.UnpicklingError(f"{what} is not read")


def _plain(dtype: Any) -> np.dtype:
    return dtype.dtype if isinstance(dtype, _Dtype) else _refuse("an array without a dtype of its own")


class _Builder:
    """A callable whose state no pickle can rewrite."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle may not change how arrays are built")


class _Ndarray(_Builder):
    """Stands for the class numpy.ndarray, which array builders are handed; it builds nothing itself."""

    __slots__ = ()


class _Reconstruct(_Builder):
    """numpy's maker of the empty array that a state then fills."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        return np.ndarray.__new__(_Array, (0,))


class _Scalar(_Builder):
    """numpy's builder of its scalars."""

    __slots__ = ()

    def __call__(self, dtype: Any, data: Any = None) -> Any:
        if _plain(dtype).hasobject:
            _refuse("a scalar of objects")
        return _multiarray.scalar(_plain(dtype), data)  # type: ignore[attr-defined]


class _FromBuffer(_Builder):
    """numpy's in-band array builder of pickle protocol 5."""

    __slots__ = ()

    def __call__(self, buffer: Any, dtype: Any, shape: tuple[int, ...], order: str, axis_order: Any = None) -> np.ndarray:
        array = np.frombuffer(buffer, dtype=_plain(dtype))
        if order == "K" and axis_order is not None:
            return array.reshape(shape).transpose(axis_order)
        return array.reshape(shape, order="F" if order == "F" else "C")


class _Latin1(_Builder):
    """Python 2's way to write bytes, which protocol 2 pickles of numpy data still take: a text and its encoding."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        return text.encode("latin1") if isinstance(text, str) and encoding == "latin1" else _refuse(f"bytes encoded as {encoding!r}")


def _admitted() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {("builtins", name): getattr(builtins, name) for name in _CONTAINERS}
    names |= {("numpy", "ndarray"): _Ndarray(), ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _Latin1()}
    for core in ("numpy.core", "numpy._core"):
        names |= {(f"{core}.multiarray", "_reconstruct"): _Reconstruct(), (f"{core}.multiarray", "scalar"): _Scalar()}
        names[(f"{core}.numeric", "_frombuffer")] = _FromBuffer()
    # nuPlan wraps the lists of its camera table in subclasses of list
    names |= {("nuplan.database.common.data_types", name): list for name in ("Translation", "Rotation", "CameraIntrinsic")}
    return names


_ADMITTED = _admitted()


class Record:
    """What a pickle says of an object of a class that the reader admits: inert."""

    __slots__ = ("args", "fields")
    kind = ""  # name of the class

    def __init__(self, *args: Any) -> None:
        self.args: tuple[Any, ...] = args  # that it was made with
        self.fields: dict[str, Any] = {}

    def __new__(cls, *args: Any) -> Record:
        made = object.__new__(cls)
        made.args, made.fields = args, {}
        return made

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # a class with slots gives two
            if part is not None and not isinstance(part, dict):
                _refuse(f"a state of {type(part).__name__}")
            self.fields.update(part or {})


def record_kinds(names: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, str], Any]:
    """What `load_plain_bytes` admits beside plain data: the classes (names) of modules (keys)."""
    return {(module, name): type(name, (Record,), {"__slots__": (), "kind": name}) for module, found in names.items() for name in found}


def _bare(value: Any, seen: set[int]) -> Any:
    """`value` with every array below it as numpy's own class."""
    if isinstance(value, _Array):
        value = value.view(np.ndarray)
        if value.dtype.hasobject:
            for index in np.ndindex(value.shape):
                value[index] = _bare(value[index], seen)
        return value
    if isinstance(value, tuple):
        return tuple(_bare(item, seen) for item in value)
    if isinstance(value, Record) and id(value) not in seen:
        seen.add(id(value))
        value.args = _bare(value.args, seen)
        _bare(value.fields, seen)
    if isinstance(value, (dict, list)) and id(value) not in seen:
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            value[key] = _bare(item, seen)
    return value


class _Refused(pickle.UnpicklingError):
    """The pickle asked for a name that is not admitted."""


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, records: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._known = {**records, **_ADMITTED}

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The admitted object of this name; nothing is ever imported for a pickle."""
        try:
            return self._known[module_name, global_name]
        except KeyError:
            raise _Refused(f"{module_name}.{global_name}") from None


def load_plain_pickle(path: str | Path) -> Any:
    """The object in the pickle file `path`, made of numpy arrays and builtins alone.

    Raises DataError naming the file: where it cannot be read, is no complete pickle, or asks for any other class.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _load(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def load_plain_bytes(content: bytes, where: str, records: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """As `load_plain_pickle`, of a pickle that lies within a file; `where` names it in errors, `records` are of `record_kinds`."""
    return _load(BytesIO(content), where, records)


def _load(file: BinaryIO, where: str, records: Mapping[tuple[str, str], Any] | None = None) -> Any:
    try:
        return _bare(_PlainUnpickler(file, records or {}).load(), set())
    except _Refused as error:
        raise DataError(
            f"{where}: refused, the pickle asks for {error}, and loading it could run code. Only numpy arrays and plain "
            "containers are read: save the record again as dicts, lists and arrays, on a machine that trusts the file"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a broken pickle may fail with almost any exception: the file is the fault, whatever it raised
        raise DataError(f"{where}: not a complete pickle ({type(error).__name__}: {error}). Copy or download the file again") from error
