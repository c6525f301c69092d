"""The restricted unpickler: plain data survives a round trip, and no name outside the list is ever resolved."""

import builtins
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.datasets.unpickle import _multiarray, load_plain_pickle


class Calls:
    """Pickles into a call of `function(*args)` at load time."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def write(tmp_path, data: bytes):
    path = tmp_path / "record.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_survives_the_round_trip(tmp_path, protocol):
    if protocol == 2:  # protocol 2 writes bytes through _codecs.encode, which is not admitted
        record = {"a": [1, 2.5, "x", None, True], "b": (1, (2,))}
    else:
        record = {
            "matrix": np.arange(12.0).reshape(3, 4),
            "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "mask": np.array([True, False]),
            "words": np.array(["a", "bc"]),
            "scalar": np.float64(3.5),
            "objects": np.array([None, "x"], dtype=object),
            "big_endian": np.arange(3, dtype=">i4"),
            "empty": np.zeros((0, 3), np.float32),
            "set": {1, 2},
            "nested": [(1.0, 2.0), {"k": frozenset({3})}],
        }
    back = load_plain_pickle(write(tmp_path, pickle.dumps(record, protocol=protocol)))
    assert list(back) == list(record)
    for key, value in record.items():
        assert type(back[key]) is type(value)
        if isinstance(value, np.ndarray):
            assert back[key].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")  # numpy may swap to its own order
            np.testing.assert_array_equal(back[key], value)
        else:
            assert back[key] == value


def test_files_of_old_numpy_are_read(tmp_path):
    data = pickle.dumps(np.arange(3.0), protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in data
    np.testing.assert_array_equal(load_plain_pickle(write(tmp_path, data)), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {marker}",), "system"),
        (builtins.eval, ("open({marker!r}, 'w')",), "builtins.eval"),
        (builtins.exec, ("open({marker!r}, 'w')",), "builtins.exec"),
        (builtins.getattr, ("x", "upper"), "builtins.getattr"),
        (builtins.open, ("{marker}", "w"), "open"),
        (np.load, ("{marker}",), "load"),
        (builtins.__import__, ("os",), "builtins.__import__"),
    ],
)
def test_no_other_call_is_made(tmp_path, function, args, name):
    marker = tmp_path / "marker"
    args = tuple(a.replace("{marker!r}", repr(str(marker))).replace("{marker}", str(marker)) for a in args)
    path = write(tmp_path, pickle.dumps({"x": Calls(function, *args)}))
    with pytest.raises(DataError, match=name) as caught:
        load_plain_pickle(path)
    assert str(path) in str(caught.value) and "save the record again" in str(caught.value)
    assert not marker.exists()


def test_dotted_names_do_not_reach_through_an_admitted_class(tmp_path):
    with pytest.raises(DataError, match=r"builtins\.dict\.__init__"):  # protocol 4 resolves dots itself
        load_plain_pickle(write(tmp_path, b"\x80\x04\x8c\x08builtins\x8c\x0ddict.__init__\x93."))


def test_a_pickle_cannot_rewrite_the_array_builder(tmp_path):
    attack = b"\x80\x04\x8c\x13numpy._core.numeric\x8c\x0b_frombuffer\x93}\x8c\x01a\x8c\x01bsb."
    with pytest.raises(DataError, match="may not change"):
        load_plain_pickle(write(tmp_path, attack))
    array = np.arange(4.0)
    np.testing.assert_array_equal(load_plain_pickle(write(tmp_path, pickle.dumps(array, protocol=5))), array)


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"a": np.arange(100)})[:-40], b"\x80\x04)\x81."])
def test_broken_files_are_named(tmp_path, data):
    path = write(tmp_path, data)
    with pytest.raises(DataError, match="not a complete pickle") as caught:
        load_plain_pickle(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.pkl"):
        load_plain_pickle(tmp_path / "absent.pkl")


def test_a_persistent_id_is_refused(tmp_path):
    with pytest.raises(DataError):
        load_plain_pickle(write(tmp_path, b"\x80\x04\x8c\x01xQ."))


class State:
    """Pickles into `kind` called with `args`, then given `state`."""

    def __init__(self, kind, args, state):
        self.parts = (kind, args, state)

    def __reduce__(self):
        return self.parts


def reconstruct(dtype, data, shape=(1,)):
    """An array as numpy pickles it, with a dtype of our choice."""
    return State(_multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, data))


@pytest.mark.parametrize(
    "dtype",
    [
        State(np.dtype, ("V8", False, True), (3, "|", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0)),  # objects, flags cleared
        State(np.dtype, ("V8", False, True), (3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0)),
        State(np.dtype, ("f8", False, True), (3, "<", None, ("x",), {"x": (np.dtype("O"), 0)}, 8, 1, 0)),
        State(np.dtype, ("i4,O", False, True), (3, "|", None, None, None, -1, -1, 0)),
        State(np.dtype, (np.ndarray,), (3, "|", None, None, None, -1, -1, 0)),
        None,
    ],
)
def test_a_dtype_that_could_make_numbers_into_pointers_is_refused(tmp_path, dtype):
    path = write(tmp_path, pickle.dumps({"x": reconstruct(dtype, b"\x10" * 8)}, protocol=4))
    code = f"from drive.datasets.unpickle import load_plain_pickle\nprint(repr(load_plain_pickle({str(path)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)  # a crash would take the suite along
    assert ran.returncode == 1 and "DataError" in ran.stderr and str(path) in ran.stderr, (ran.returncode, ran.stdout, ran.stderr)


def test_objects_are_not_built_from_bytes(tmp_path):
    objects = State(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 63))
    for broken in (reconstruct(objects, b"\x10" * 8), Calls(_multiarray.scalar, objects, b"\x10" * 8)):
        with pytest.raises(DataError):
            load_plain_pickle(write(tmp_path, pickle.dumps(broken, protocol=4)))


def test_arrays_inside_lists_tuples_dicts_and_objects_are_plain(tmp_path):
    inner = np.empty(1, object)
    inner[0] = [np.arange(2)]
    loop: list = [np.arange(3)]
    loop.append(loop)
    back = load_plain_pickle(write(tmp_path, pickle.dumps({"t": (np.arange(1), 2), "o": inner, "loop": loop}, protocol=4)))
    assert all(type(x) is np.ndarray for x in (back["t"][0], back["o"], back["o"][0][0], back["loop"][0]))
    assert back["loop"][1] is back["loop"]
