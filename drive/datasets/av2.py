"""Scenarios from Argoverse 2 sensor logs (Wilson et al. 2021): annotated boxes, ego poses and vector map, at 10 Hz.

A log gives one Scenario every 0.5 s: 1.5 s of history, the present, 5 s of future. The ego pose is Argoverse's vehicle frame, the rear
axle. Boxes come in that frame and are carried over to the city's; the ego's own box, which some logs hold, is left out. Cameras are
rendered from map and boxes. A log belongs to the split (train, val, test) that a folder above it is named after, and to test where none is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera, Scenario, Tracks
from drive.datasets.av2_map import build_road_map, read_map
from drive.datasets.scenarionet import FUTURE, HISTORY, RenderedLog, window
from drive.datasets.scenarionet_log import DT, LogRecord, central_velocity, ego_motion
from drive.datasets.splits import fingerprint

Array = NDArray[np.float64]
SPLITS = ("train", "val", "test")
EGO_SIZE = (4.877, 1.852, 1.476)  # m, Ford Fusion, Argoverse's car
EGO = "EGO_VEHICLE"
POSES, BOXES = "city_SE3_egovehicle.feather", "annotations*.feather"
TOLERANCE = 0.02  # s, of a step of 0.1 s
TEXTS = ("track_uuid", "category")  # the other columns are numbers
QUATERNION, POSITION, SIZE = ("qw", "qx", "qy", "qz"), ("tx_m", "ty_m", "tz_m"), ("length_m", "width_m", "height_m")
KINDS = {
    **dict.fromkeys(("PEDESTRIAN", "STROLLER", "WHEELCHAIR", "OFFICIAL_SIGNALER"), AgentType.PEDESTRIAN),
    **dict.fromkeys(("BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"), AgentType.BICYCLE),
    **dict.fromkeys(("BUS", "ARTICULATED_BUS", "SCHOOL_BUS", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "LARGE_VEHICLE"), AgentType.VEHICLE),
    **dict.fromkeys(("REGULAR_VEHICLE", "RAILED_VEHICLE", "VEHICULAR_TRAILER", "MESSAGE_BOARD_TRAILER"), AgentType.VEHICLE),
    "TRAFFIC_LIGHT_TRAILER": AgentType.VEHICLE,
    "CONSTRUCTION_CONE": AgentType.TRAFFIC_CONE,
    "CONSTRUCTION_BARREL": AgentType.BARRIER,
}


def _columns(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The columns of a feather file as arrays. Raises DataError, naming the file, where it cannot be read or lacks one, or one has NaN."""
    try:
        from pyarrow import ArrowException, feather  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("Argoverse 2 logs are Arrow files: pip install 'drive-vla[av2]'") from None
    try:
        table = feather.read_table(path, columns=list(wanted))
    except (ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    found = {name: table[name].to_numpy() for name in wanted}
    for name, values in found.items():
        if (name in TEXTS) != (values.dtype.kind == "O") or (name == "timestamp_ns" and values.dtype.kind != "i"):
            raise DataError(f"{path}: column {name} is of type {table.schema.field(name).type}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{path}: {name} of row {int(np.flatnonzero(~np.isfinite(values))[0])} is NaN or infinite")
    if set(QUATERNION) <= set(found) and (still := ~_stacked(found, QUATERNION).any(axis=1)).any():
        raise DataError(f"{path}: the quaternion of row {int(still.argmax())} is 0")
    return found


def _stacked(columns: dict[str, Any], names: Sequence[str]) -> Array:
    return np.column_stack([np.asarray(columns[name], np.float64) for name in names])


def find_logs(root: str | Path) -> list[Path]:
    """Folders below `root` with any file of a sensor log, sorted; links to folders are followed. Raises DataError if it is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the folder that holds the Argoverse 2 logs")
    found, seen = [], set()
    for name, folders, files in os.walk(root, followlinks=True):
        if os.path.realpath(name) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(os.path.realpath(name))
        if POSES in files or any(fnmatch(file, BOXES) for file in files):
            found.append(Path(name))
            folders.clear()
    return sorted(found)


def split_of(log: Path) -> str:
    """The split that a folder above the log is named after; test where none is."""
    return next((name for name in reversed(log.parts) if name in SPLITS), "test")


def read_log(folder: Path) -> LogRecord:
    """The log in one folder. Raises DataError, naming file and row, where one of its files is at fault."""
    boxes = sorted(folder.glob(BOXES))
    if len(boxes) != 1:
        raise DataError(f"{folder} holds {len(boxes)} files {BOXES}, want one")
    rows = _columns(boxes[0], ("timestamp_ns", "track_uuid", "category", *SIZE, *QUATERNION, *POSITION))
    stamps = np.unique(rows["timestamp_ns"])
    steps = np.diff(stamps) * 1e-9
    if len(stamps) < 2 or (np.abs(steps - DT) > TOLERANCE).any():
        at = int(np.argmax(np.abs(steps - DT))) if len(steps) else 0
        raise DataError(f"{boxes[0]}: frames are not 0.1 s apart ({steps[at] if len(steps) else 0.0:.3f} s after frame {at})")
    turn, place = _ego_at(folder / POSES, stamps)
    poses = np.column_stack([place[:, :2], heading(turn)])
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    agents = _agents(boxes[0], rows, stamps, turn, place, origin)
    return LogRecord(
        log_id=folder.name,
        path=folder,
        dataset="av2",
        ego=ego_motion(poses),
        ego_size=EGO_SIZE,
        agents=agents,
        map_features={},
        origin=origin,
        recorded_steps=len(stamps),
        trimmed_steps=0,
        dropped_tracks=(),
        never_valid=0,
    )


def _ego_at(path: Path, stamps: NDArray[np.int64]) -> tuple[Array, Array]:
    """Rotation (S, 3, 3) and place (S, 3) of the ego in the city at the frames: the logged pose of that very time, or the nearest one."""
    rows = _columns(path, ("timestamp_ns", *QUATERNION, *POSITION))
    order = np.argsort(rows["timestamp_ns"])
    times = np.asarray(rows["timestamp_ns"])[order]
    if not len(times):
        raise DataError(f"{path} holds no pose")
    after = np.clip(np.searchsorted(times, stamps), 1, max(len(times) - 1, 1))
    near = np.where(np.abs(times[after - 1] - stamps) <= np.abs(times[np.minimum(after, len(times) - 1)] - stamps), after - 1, np.minimum(after, len(times) - 1))
    gap = np.abs(times[near] - stamps) * 1e-9
    if gap.max() > TOLERANCE:
        raise DataError(f"{path} has no pose within {TOLERANCE} s of the frame at {stamps[int(gap.argmax())]} ns")
    return rotation_matrix(_stacked(rows, QUATERNION)[order][near]), _stacked(rows, POSITION)[order][near]


def _agents(path: Path, rows: dict[str, Any], stamps: NDArray[np.int64], turn: Array, place: Array, origin: Array) -> Tracks:
    keep = np.asarray(rows["category"]) != EGO
    step = np.searchsorted(stamps, np.asarray(rows["timestamp_ns"])[keep])
    tokens, row = np.unique(np.asarray(rows["track_uuid"], str)[keep], return_inverse=True)
    size = _stacked(rows, SIZE)[keep]
    if (size <= 0.0).any():
        raise DataError(f"{path}: row {int(np.flatnonzero((_stacked(rows, SIZE) <= 0.0).any(axis=1))[0])} is a box without a size")
    centre = np.einsum("nij,nj->ni", turn[step], _stacked(rows, POSITION)[keep]) + place[step]
    facing = heading(turn[step] @ rotation_matrix(_stacked(rows, QUATERNION)[keep]))
    poses, valid = np.zeros((len(tokens), len(stamps), 3)), np.zeros((len(tokens), len(stamps)), bool)
    poses[row, step] = np.column_stack([centre[:, :2] - origin, facing])
    valid[row, step] = True
    kinds = np.asarray(rows["category"], str)[keep]
    first = np.unique(row, return_index=True)[1]
    types = np.array([KINDS.get(str(kinds[i]), AgentType.GENERIC_OBJECT) for i in first], np.int64)
    sizes = np.stack([np.median(size[row == k], axis=0) for k in range(len(tokens))]) if len(tokens) else np.zeros((0, 3))
    return Tracks(tuple(str(t) for t in tokens), types, sizes, poses, central_velocity(poses[..., :2], valid), valid)


class Av2Log(RenderedLog):
    """A log with its own kind of map."""

    @cached_property
    def road_map(self) -> RoadMap:
        """The map in the log's shifted frame. Raises DataError, naming the file, on a faulty map."""
        return build_road_map(self.record.log_id, read_map(_map_file(self.record.path)), self.record.origin, _map_file(self.record.path))


def _map_file(folder: Path) -> Path:
    found = sorted((folder / "map").glob("log_map_archive_*.json"))
    if len(found) != 1:
        raise DataError(f"{folder / 'map'} holds {len(found)} files log_map_archive_*.json, want one")
    return found[0]


class Av2Dataset(Sequence[Scenario]):
    """Scenarios of one split of the logs below a folder, in order of log and time."""

    def __init__(self, root: str | Path, split: str, stride: int = 5, cameras: tuple[Camera, ...] | None = None, cache_images: int = 512) -> None:
        """Reads every log of `split` with its map; `stride` is in steps of 0.1 s.

        A log that cannot be read is kept in `faults`, which name its file, and counts in `expected` as many scenarios as the
        readable ones hold on average. Raises DataError on a split without a readable log.
        """
        if stride < 1:
            raise DataError(f"the stride between scenarios must be at least 1 step, got {stride}")
        if split not in SPLITS:
            raise DataError(f"Argoverse 2 has no split {split!r}: choose from {', '.join(SPLITS)}")
        self.root, self.split = Path(root), split
        self.logs: dict[str, Av2Log] = {}
        self.faults: list[str] = []
        folders = [folder for folder in find_logs(root) if split_of(folder.absolute()) == split]
        for folder in folders:
            try:
                log = Av2Log(read_log(folder), cameras or (Camera.front(),), cache_images)
                _ = log.route  # reads the map now, so that a faulty one is a fault of its log
            except DataError as error:
                self.faults.append(str(error))
                continue
            if log.record.log_id in self.logs:
                self.faults.append(f"{folder}: log {log.record.log_id} is there twice")
                continue
            self.logs[log.record.log_id] = log
        if not self.logs:
            others = sorted({split_of(folder.absolute()) for folder in find_logs(root)})
            there = f"its logs are of {', '.join(others)}" if others else f"none of its folders holds {POSES}"
            raise DataError(f"{root} has no readable log of the split {split!r}: {'; '.join(self.faults[:3]) or there}")
        self._windows = [(key, at) for key, log in sorted(self.logs.items()) for at in range(HISTORY, log.record.steps - FUTURE, stride)]
        self.expected = len(self._windows) + len(self.faults) * max(-(-len(self._windows) // len(self.logs)), 1)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the files that this split is read from."""
        folders = [log.record.path for log in self.logs.values()]
        files = [path for folder in folders for path in (folder / POSES, *folder.glob(BOXES), _map_file(folder))]
        return fingerprint(self.root, files)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`."""
        log_id, present = self._windows[index]
        return window(self.logs[log_id], present, self.split, "av2")

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))
