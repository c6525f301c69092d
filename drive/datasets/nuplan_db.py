"""nuPlan's SQLite files: opened read-only, checked for tables and columns, and a log's records as arrays.

Tables and columns are those of nuplan-devkit's docs/nuplan_schema.md; tokens are BLOBs. The devkit builds its ego from the rear axle
with a record of `ego_pose` (nuplan_scenario_queries.py), whose velocity, acceleration and angular rate are those of the body.
SQLite keeps NaN as NULL: a missing number and NaN are one fault here.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix
from drive.datasets import sanity

Array = NDArray[np.float64]
MAGIC = b"SQLite format 3\0"
POSE = ("x", "y", "qw", "qx", "qy", "qz", "vx", "vy", "acceleration_x", "acceleration_y", "angular_rate_z")
BOX = ("x", "y", "yaw", "length", "width", "height", "vx", "vy")
BOXES_AT_ONCE = 100_000
STEP_HZ = {20: 2, 10: 1}  # lidar sweeps per second: how many of them make a step of 0.1 s


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Raises DataError, naming the file, where it is no SQLite file, and for any error of SQLite's inside."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error
    if header[: len(MAGIC)] != MAGIC or len(header) < 100:
        raise DataError(f"{path} is no SQLite file, or its first page is damaged: fetch it again")
    page, count = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")  # www.sqlite.org/fileformat.html, 1.3
    size = path.stat().st_size
    if header[24:28] == header[92:96] and size != (65536 if page == 1 else page) * count:  # else the count is none that can be trusted
        raise DataError(f"{path} cannot be read: it has {size} bytes, its header tells {count} pages of {page}; it is cut off or damaged, fetch it again")
    connection = None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        yield connection
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read ({error}): it is cut off or damaged, fetch it again") from error
    finally:
        if connection is not None:
            connection.close()


def column_names(connection: sqlite3.Connection, table: str) -> set[str]:
    """Columns of a table; none where it is not there."""
    return {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}


def select(connection: sqlite3.Connection, path: Path, table: str, columns: Sequence[str]) -> sqlite3.Cursor:
    """The columns of every row, in the order of the file. Raises DataError, naming what is missing, without the table or one of them."""
    there = column_names(connection, table)
    if not there:
        raise DataError(f"{path} lacks the table {table}")
    missing = [name for name in columns if name not in there]
    if missing:
        raise DataError(f"{path}: table {table} lacks the columns {', '.join(missing)}")
    names = ", ".join(f'"{name}"' for name in columns)
    return connection.execute(f'SELECT {names} FROM "{table}"')


def numbers(
    path: Path, what: str, rows: Sequence[Sequence[object]], columns: Sequence[str], may_miss: Sequence[str] = ()
) -> Array:
    """(N, len(columns)) of rows. Raises DataError, naming row and column, on text, and on NaN or NULL but in `may_miss`."""
    try:
        values = np.array(rows, np.float64).reshape(len(rows), len(columns))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {what} holds something that is no number ({error})") from error
    for index, name in enumerate(columns):
        bad = ~np.isfinite(values[:, index])
        if name not in may_miss and bad.any():
            raise DataError(f"{path}: {name} of {what} {int(bad.argmax())} is missing, NaN or infinite")
    return values


@dataclass(frozen=True)
class Frames:
    """The lidar sweeps that make the steps of a log, S of them, in order of time."""

    stamps: NDArray[np.int64]  # (S,) microseconds
    tokens: tuple[bytes, ...]
    scenes: tuple[bytes, ...]
    step_of: dict[bytes, int]  # of every sweep: the step that it is, or -1 where it lies between two
    before: dict[bytes, int]  # of every sweep: the last step not after it
    poses: Array  # (S, 3) rear axle, the map's frame
    velocity: Array  # (S, 2) body
    acceleration: Array  # (S, 2) body
    yaw_rate: Array  # (S,)


def read_frames(connection: sqlite3.Connection, path: Path) -> Frames:
    """Every second sweep of a 20 Hz log (every one at 10 Hz), with the ego pose that it names.

    Raises DataError, naming the record, on another rate, on a pose that is missing or NaN, and on fewer than two steps.
    """
    rows = sorted(
        select(connection, path, "lidar_pc", ("timestamp", "token", "ego_pose_token", "scene_token")),
        key=lambda row: (row[0] is None, row[0]),
    )
    if len(rows) < 4:
        raise DataError(f"{path}: lidar_pc holds {len(rows)} sweeps, want four or more")
    stamps = numbers(path, "lidar_pc", [row[:1] for row in rows], ("timestamp",))[:, 0].astype(np.int64)
    rate = 1e6 / max(float(np.median(np.diff(stamps))), 1.0)
    stride = next((s for hertz, s in STEP_HZ.items() if abs(rate / hertz - 1.0) < 0.1), 0)
    if not stride:
        raise DataError(f"{path}: lidar_pc has {rate:.1f} sweeps per second, want {' or '.join(map(str, STEP_HZ))}")
    kept = rows[::stride]
    wanted = {row[2] for row in kept}
    poses = {row[0]: row[1:] for row in select(connection, path, "ego_pose", ("token", *POSE)) if row[0] in wanted}
    for stamp, _, token, _ in kept:
        if token not in poses:
            raise DataError(f"{path}: the sweep at {stamp} us names an ego_pose that is not there")
    values = numbers(path, "the ego pose of step", [poses[row[2]] for row in kept], POSE)
    if (still := ~values[:, 2:6].any(axis=1)).any():
        raise DataError(f"{path}: the quaternion of the ego pose of step {int(still.argmax())} is 0")
    if (at := sanity.not_unit(values[:, 2:6])) >= 0:
        raise DataError(f"{path}: the quaternion of the ego pose of step {at} is not of length 1: the file is damaged, fetch it again")
    return Frames(
        stamps=stamps[::stride],
        tokens=tuple(row[1] for row in kept),
        scenes=tuple(row[3] for row in kept),
        step_of={row[1]: -1 if index % stride else index // stride for index, row in enumerate(rows)},
        before={row[1]: index // stride for index, row in enumerate(rows)},
        poses=np.column_stack([values[:, :2], heading(rotation_matrix(values[:, 2:6]))]),
        velocity=values[:, 6:8],
        acceleration=values[:, 8:10],
        yaw_rate=values[:, 10],
    )


@dataclass(frozen=True)
class Boxes:
    """The annotated boxes of the steps, N of them."""

    row: NDArray[np.int64]  # (N,) which track
    step: NDArray[np.int64]  # (N,)
    values: Array  # (N, 8) in the order of BOX; velocities may be NaN
    tracks: tuple[str, ...]  # tokens in hexadecimal
    categories: tuple[str, ...]  # of the tracks


def read_boxes(connection: sqlite3.Connection, path: Path, step_of: dict[bytes, int]) -> Boxes:
    """Boxes of the sweeps that are steps. Raises DataError, naming the record, on NaN, a box without size, a track or category that is not there."""
    names = dict(select(connection, path, "category", ("token", "name")))
    category_of = dict(select(connection, path, "track", ("token", "category_token")))
    rows: dict[bytes, int] = {}
    row, step, parts = array("q"), array("q"), []
    values: list[list[object]] = []
    for sweep, track, *box in select(connection, path, "lidar_box", ("lidar_pc_token", "track_token", *BOX)):
        at = step_of.get(sweep)
        if at is None:
            raise DataError(f"{path}: lidar_box {len(row)} belongs to no sweep of lidar_pc")
        if at < 0:
            continue
        if track not in rows:
            if category_of.get(track) not in names:
                raise DataError(f"{path}: lidar_box {len(row)} is of a track without a record in track and category")
            rows[track] = len(rows)
        row.append(rows[track])
        step.append(at)
        values.append(box)
        if len(values) == BOXES_AT_ONCE:  # rows of Python take ten times the memory
            parts.append(numbers(path, "lidar_box", values, BOX, may_miss=("vx", "vy")))
            values = []
    found = np.concatenate([*parts, numbers(path, "lidar_box", values, BOX, may_miss=("vx", "vy"))])
    if (empty := (found[:, 3:6] <= 0.0).any(axis=1)).any():
        raise DataError(f"{path}: lidar_box {int(empty.argmax())} has no size")
    return Boxes(
        np.frombuffer(row, np.int64), np.frombuffer(step, np.int64), found,
        tuple(token.hex() for token in rows), tuple(str(names[category_of[token]]) for token in rows),
    )  # fmt: skip
