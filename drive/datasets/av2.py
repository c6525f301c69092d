"""Scenarios from Argoverse 2 sensor logs (Wilson et al. 2021): annotated boxes, ego poses and vector map, at 10 Hz.

The ego pose is Argoverse's vehicle frame, the rear axle. Boxes come in that frame and are carried over to the city's; the ego's own box, which
some logs hold, is left out. Cameras are recorded ones (`av2_cameras`) or rendered from map and boxes. A log belongs to the split (train, val, test) that a folder above it is named after, and to test where none is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType
from drive.datasets import sanity
from drive.datasets.av2_cameras import EXTRINSICS, INTRINSICS, calibration, images
from drive.datasets.av2_map import build_road_map, read_map
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logged import Entry, Inspection, split_of_path, walk
from drive.datasets.logs import Log
from drive.datasets.motion import DT, driven, ego_motion

Array = NDArray[np.float64]
EGO_SIZE = (4.877, 1.852, 1.476)  # m, Ford Fusion, Argoverse's car
EGO = "EGO_VEHICLE"
POSES, BOXES = "city_SE3_egovehicle.feather", "annotations*.feather"
TOLERANCE = 0.02  # s, of a step of 0.1 s
TEXTS = ("track_uuid", "category", "sensor_name")  # the other columns are numbers
QUATERNION, POSITION, SIZE = ("qw", "qx", "qy", "qz"), ("tx_m", "ty_m", "tz_m"), ("length_m", "width_m", "height_m")
KINDS = {
    **dict.fromkeys(("PEDESTRIAN", "STROLLER", "WHEELCHAIR", "OFFICIAL_SIGNALER"), AgentType.PEDESTRIAN),
    **dict.fromkeys(("BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_DEVICE", "WHEELED_RIDER"), AgentType.BICYCLE),
    **dict.fromkeys(("BUS", "ARTICULATED_BUS", "SCHOOL_BUS", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "LARGE_VEHICLE"), AgentType.VEHICLE),
    **dict.fromkeys(("REGULAR_VEHICLE", "RAILED_VEHICLE", "VEHICULAR_TRAILER", "MESSAGE_BOARD_TRAILER"), AgentType.VEHICLE),
    "TRAFFIC_LIGHT_TRAILER": AgentType.VEHICLE,
    "CONSTRUCTION_CONE": AgentType.TRAFFIC_CONE,
    "CONSTRUCTION_BARREL": AgentType.BARRIER,
    **dict.fromkeys(("ANIMAL", "DOG", "BOLLARD", "SIGN", "STOP_SIGN", "MOBILE_PEDESTRIAN_CROSSING_SIGN"), AgentType.GENERIC_OBJECT),
}  # all thirty


def arrays_of(path: Path, wanted: Sequence[str], read: Callable[[], Any], fault: type[Exception]) -> tuple[Any, dict[str, Any]]:
    """The Arrow table that `read` gives of a file, and its columns as arrays, where some damage shows first: pyarrow raises a `fault` then.

    Raises DataError, naming the file, where it cannot be read or lacks one of `wanted`.
    """
    try:
        table = read()
        missing = [name for name in wanted if name not in table.column_names]
        found = {} if missing else {name: table[name].to_numpy() for name in wanted}
    except (fault, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0][:200].rstrip()}") from error
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    return table, found


def read_columns(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The columns of a feather file as arrays. Raises DataError, naming the file, where it cannot be read or lacks one, or one has NaN."""
    try:
        from pyarrow import ArrowException, feather  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("Argoverse 2 logs are Arrow files: pip install 'drive-vla[av2]'") from None
    table, found = arrays_of(path, wanted, lambda: feather.read_table(path, columns=list(wanted)), ArrowException)
    for name, values in found.items():
        if (name in TEXTS) != (values.dtype.kind == "O") or (name == "timestamp_ns" and values.dtype.kind != "i"):
            raise DataError(f"{path}: column {name} is of type {table.schema.field(name).type}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{path}: {name} of row {int(np.flatnonzero(~np.isfinite(values))[0])} is NaN or infinite")
    if set(QUATERNION) <= set(found) and (still := ~_stacked(found, QUATERNION).any(axis=1)).any():
        raise DataError(f"{path}: the quaternion of row {int(still.argmax())} is 0")
    if set(QUATERNION) <= set(found) and (at := sanity.not_unit(_stacked(found, QUATERNION))) >= 0:
        raise DataError(f"{path}: the quaternion of row {at} is not of length 1: the file is damaged, fetch it again")
    return found


def _stacked(columns: dict[str, Any], names: Sequence[str]) -> Array:
    return np.column_stack([np.asarray(columns[name], np.float64) for name in names])


def find_logs(root: str | Path) -> list[Path]:
    """Folders below `root` with any file of a sensor log, sorted; links to folders are followed. Raises DataError if it is no folder."""
    return sorted({path.parent for path in walk(root, lambda name: name == POSES or fnmatch(name, BOXES))})


def read_log(folder: Path, split: str, channels: Sequence[str] = ()) -> Log:
    """The log in one folder; `channels` are cameras to read, none renders a front camera. Raises DataError, naming file and row, where one of its files is at fault."""
    boxes = sorted(folder.glob(BOXES))
    if len(boxes) != 1:
        raise DataError(f"{folder} holds {len(boxes)} files {BOXES}, want one")
    rows = read_columns(boxes[0], ("timestamp_ns", "track_uuid", "category", *SIZE, *QUATERNION, *POSITION))
    stamps = np.unique(rows["timestamp_ns"])
    steps = np.diff(stamps) * 1e-9
    if len(stamps) < 2 or (np.abs(steps - DT) > TOLERANCE).any():
        at = int(np.argmax(np.abs(steps - DT))) if len(steps) else 0
        raise DataError(f"{boxes[0]}: frames are not 0.1 s apart ({steps[at] if len(steps) else 0.0:.3f} s after frame {at})")
    turn, place = _ego_at(folder / POSES, stamps)
    poses = np.column_stack([place[:, :2], heading(turn)])
    sanity.check_drive(folder / POSES, poses, (stamps - stamps[0]) * 1e-9)
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    agents = _agents(boxes[0], rows, stamps, turn, place, origin)
    archive = _map_file(folder)
    return Log(
        log_id=folder.name,
        source="av2",
        split=split,
        files=(boxes[0], folder / POSES, *((folder / INTRINSICS, folder / EXTRINSICS) if channels else ()), archive),
        absent=tuple(folder / "sensors" / "cameras" / channel for channel in channels),  # folders: one changes when an image comes
        dt=DT,
        ego=ego_motion(poses),
        ego_size=EGO_SIZE,
        agents=agents,
        origin=origin,
        make_map=partial(_map, folder.name, archive, origin),
        cameras=calibration(folder, channels, read_columns) if channels else (),
        images=images(folder, channels, stamps),
    )


def _map(name: str, archive: Path, origin: Array) -> RoadMap:
    return build_road_map(name, read_map(archive), origin, archive)


def _ego_at(path: Path, stamps: NDArray[np.int64]) -> tuple[Array, Array]:
    """Rotation (S, 3, 3) and place (S, 3) of the ego in the city at the frames: the logged pose of that very time, or the nearest one."""
    rows = read_columns(path, ("timestamp_ns", *QUATERNION, *POSITION))
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


def _agents(path: Path, rows: dict[str, Any], stamps: NDArray[np.int64], turn: Array, place: Array, origin: Array) -> BoxTracks:
    keep = np.asarray(rows["category"]) != EGO
    step = np.searchsorted(stamps, np.asarray(rows["timestamp_ns"])[keep])
    names = [str(name) for name in rows["track_uuid"][keep]]
    tokens = {name: index for index, name in enumerate(sorted(set(names)))}
    row = np.array([tokens[name] for name in names], np.int64)
    size = _stacked(rows, SIZE)[keep]
    if (size <= 0.0).any():
        raise DataError(f"{path}: row {int(np.flatnonzero((_stacked(rows, SIZE) <= 0.0).any(axis=1))[0])} is a box without a size")
    turns = turn[step]
    centre = np.einsum("nij,nj->ni", turns, _stacked(rows, POSITION)[keep]) + place[step]
    poses = np.column_stack([centre[:, :2] - origin, heading(turns @ rotation_matrix(_stacked(rows, QUATERNION)[keep]))])
    kinds = np.asarray(rows["category"], str)[keep]
    if strange := set(kinds.tolist()) - KINDS.keys():
        raise DataError(f"{path}: {min(strange)!r} is no category of Argoverse 2: the file is damaged, fetch it again")
    order = np.lexsort((step, row))  # size and kind are those of the first box: what is drawn must not come from later ones
    first = order[np.unique(row[order], return_index=True)[1]]
    types = np.array([KINDS[str(kinds[i])] for i in first], np.int64)
    last = len(row) - 1 - np.unique((row * len(stamps) + step)[::-1], return_index=True)[1]  # of two boxes of one track in one frame
    return BoxTracks.moving(tuple(tokens), types, size[first], step[last], row[last], poses[last], DT)


def _map_file(folder: Path) -> Path:
    found = sorted((folder / "map").glob("log_map_archive_*.json"))
    if len(found) != 1:
        raise DataError(f"{folder / 'map'} holds {len(found)} files log_map_archive_*.json, want one")
    return found[0]


class Av2Reader:
    """Sensor logs below a folder. A `Reader`."""

    name = "av2"

    def __init__(self, cameras: Sequence[str] = ()) -> None:
        """`cameras`: names of the cameras whose images are read, such as ring_front_left; none renders a front camera."""
        self.cameras = tuple(cameras)

    def find(self, root: Path) -> list[Entry]:
        """The logs, in order of id; the split is that of the folder above, test where none is named so."""
        return [Entry(folder.name, folder, split_of_path(folder, "test")) for folder in find_logs(root)]

    def read(self, entry: Entry) -> Log:
        """One log with its map. Raises DataError, naming file and row."""
        return read_log(entry.path, entry.split, self.cameras)


def inspect(path: Path) -> Inspection:
    """Counts of one log's folder. Raises DataError, naming file and row."""
    log = read_log(path, split_of_path(path, "test"))
    layers = {name.replace("_", " "): len(records) for name, records in read_map(_map_file(path)).items()}
    poses = len(read_columns(path / POSES, ("timestamp_ns",))["timestamp_ns"])
    counts = {"frames": log.steps, "tracks": len(log.agents), "ego poses": poses, "driven (m)": driven(log.ego), **layers}
    return Inspection("Argoverse 2 sensor log", path, counts)
