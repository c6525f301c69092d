"""Reads pickles of plain data without running any code of theirs.

A pickle is a program: it may name any importable object and call it. This reader resolves only what numpy needs to rebuild
its arrays and scalars, and the builtin containers; every other name is refused before it is imported.
"""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from drive.core.errors import DataError

try:  # numpy 2 renamed numpy.core; files of either age are read by either numpy
    from numpy._core import multiarray as _multiarray
except ImportError:  # numpy 1.26
    from numpy.core import multiarray as _multiarray

_CONTAINERS = ("bytearray", "complex", "dict", "frozenset", "list", "set", "tuple")


class _FromBuffer:
    """numpy's in-band array builder of pickle protocol 5, as a callable whose state no pickle can rewrite."""

    __slots__ = ()

    def __call__(self, buffer: Any, dtype: np.dtype, shape: tuple[int, ...], order: str, axis_order: Any = None) -> np.ndarray:
        array = np.frombuffer(buffer, dtype=dtype)
        if order == "K" and axis_order is not None:
            return array.reshape(shape).transpose(axis_order)
        return array.reshape(shape, order="F" if order == "F" else "C")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a pickle may not change how arrays are built")


def _admitted() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {("builtins", name): getattr(builtins, name) for name in _CONTAINERS}
    names |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        names |= {(f"{core}.multiarray", name): getattr(_multiarray, name) for name in ("_reconstruct", "scalar")}
        names[(f"{core}.numeric", "_frombuffer")] = _FromBuffer()
    return names


_ADMITTED = _admitted()


class _Refused(pickle.UnpicklingError):
    """The pickle asked for a name that is not admitted."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """The admitted object of this name; nothing is ever imported for a pickle."""
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise _Refused(f"{module_name}.{global_name}") from None


def load_plain_pickle(path: str | Path) -> Any:
    """The object in the pickle file `path`, made of numpy arrays and builtins alone.

    Raises DataError naming the file: where it cannot be read, is no complete pickle, or asks for any other class.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except _Refused as error:
        raise DataError(
            f"{path}: refused, the pickle asks for {error}, and loading it could run code. Only numpy arrays and plain "
            "containers are read: save the record again as dicts, lists and arrays, on a machine that trusts the file"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a broken pickle may fail with almost any exception: the file is the fault, whatever it raised
        raise DataError(
            f"{path}: not a complete pickle ({type(error).__name__}: {error}). Copy or download the file again"
        ) from error
