"""Scenarios from logs in py123d's Arrow layout (py123d_layout), whatever data set they were converted from; py123d itself is not needed.

The frames are those of `sync.arrow`; their spacing has to divide half a second, frames that are missing are breaks. Ego poses are carried over to the rear
axle, and to the ground where cameras are concerned. The ego's motion comes from past poses (`ego_motion`), not from the recorded state: py123d's
conversions infer that from the poses before and after, a step of the future. Files that drive has exported say so, and give theirs back. Agents'
velocities are the recorded ones, else from positions; size and class are those of the first box, as what is drawn must not come from later
ones. A camera's image at a frame is the last one that was taken at most LEAD s after it. Lens distortion is not undone.

A log belongs to the split that a folder above it, below the data root, ends in (nuplan_train), and to test where none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix, transform
from drive.core.types import AgentType, Camera, EgoTrack, Lights, LightState
from drive.datasets import py123d_layout as layout
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logged import FOLDER_SPLITS, Entry, Inspection, walk
from drive.datasets.logs import ImageRef, Log
from drive.datasets.motion import central_velocity, driven, ego_motion
from drive.datasets.nuplan import blob_path, breaks_of
from drive.datasets.py123d_arrow import describe, open_table, pyarrow
from drive.datasets.py123d_map import counts as map_counts
from drive.datasets.py123d_map import read_road_map

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
OURS = b"drive"  # entry of the schema of ego states whose motion knows no future
LEAD, OLDEST = 0.05, 1.2  # of an image: s after its frame, and steps before it, at most
TOLERANCE = 0.1  # of the spacing of frames


@dataclass(frozen=True)
class _Frames:
    """Of S frames: their stamps (S,) in us, their spacing in s, and the row of each file, -1 where there is none."""

    folder: Path
    stamps: Ints
    dt: float
    rows: Mapping[str, Ints]
    description: Mapping[str, Any]


def _frames(folder: Path) -> _Frames:
    path = folder / f"{layout.SYNC}.arrow"
    table, description = open_table(path, ("sync.timestamp_us", layout.EGO))
    stamps = _integers(table, "sync.timestamp_us", path)
    if len(stamps) < 2 or (np.diff(stamps) <= 0).any():
        raise DataError(f"{path} has {len(stamps)} frames, or their times do not grow")
    spacing = float(np.median(np.diff(stamps))) * 1e-6
    dt = 0.5 / max(round(0.5 / spacing), 1)
    if abs(spacing - dt) > TOLERANCE * dt:
        raise DataError(f"{path}: frames are {spacing:.3f} s apart, of which half a second is no whole multiple")
    rows = {name: _integers(table, name, path) for name in table.column_names if not name.startswith("sync.")}
    return _Frames(folder, stamps, dt, rows, description)


def _integers(table: Any, name: str, path: Path) -> Ints:
    """A column of integers, -1 for null."""
    try:
        return np.asarray(pyarrow().compute.fill_null(table[name], -1).to_numpy()).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError, pyarrow().ArrowException) as error:
        raise DataError(f"{path}: column {name} is of type {table[name].type}, not integer") from error


def _fixed(array: Any, width: int, where: str) -> Array:
    """(N, width) of an array of fixed-size lists, NaN where it is null. Raises DataError where it is of another type."""
    pa = pyarrow()
    kind = array.type
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != width or not pa.types.is_floating(kind.value_type):
        raise DataError(f"{where} is of type {kind}, not lists of {width} numbers")
    values = np.asarray(array.values, np.float64)[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)
    return np.where(np.asarray(array.is_null())[:, None], np.nan, values)


def _one(column: Any) -> Any:
    """A chunked column as one array."""
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pyarrow().ChunkedArray) else joined


def _at(frames: _Frames, key: str, total: int, path: Path) -> Ints:
    """The rows of the frames in a file of `total` rows, -1 where there is none."""
    rows = frames.rows[key]
    bad = (rows >= total) | (rows < -1)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{frames.folder / 'sync.arrow'}: frame {at} names row {int(rows[at])} of {path.name}, which has {total}")
    return rows


def _ego(frames: _Frames) -> tuple[Array, EgoTrack | None, dict[str, Any]]:
    """Rear-axle poses (S, 3) in the global frame, the motion where drive wrote it, and the car's description."""
    path = frames.folder / f"{layout.EGO}.arrow"
    names = [f"{layout.EGO}.{name}" for name in ("timestamp_us", "imu_se3", "dynamic_state_se3")]
    table, car = open_table(path, names)
    rows = _at(frames, layout.EGO, len(table), path)
    if (rows < 0).any():
        raise DataError(f"{frames.folder / 'sync.arrow'}: frame {int(np.argmax(rows < 0))} has no ego state")
    late = np.abs(_integers(table, names[0], path)[rows] - frames.stamps) * 1e-6
    if late.max() > frames.dt / 2:
        raise DataError(f"{path}: the ego state of frame {int(late.argmax())} is {late.max():.3f} s away from it")
    imu = _fixed(_one(table[names[1]]), 7, f"{path}: {names[1]}")[rows]
    if not (bad := np.isfinite(imu).all(axis=1) & imu[:, 3:].any(axis=1)).all():
        raise DataError(f"{path}: the pose of row {int(rows[np.argmin(bad)])} has NaN, or a rotation of 0")
    axle = _pose(car, "rear_axle_to_imu_se3", path)
    turn = rotation_matrix(imu[:, 3:])
    place = imu[:, :3] + turn @ axle[:3, 3]
    poses = np.column_stack([place[:, :2], heading(turn @ axle[:3, :3])])
    if OURS not in (table.schema.metadata or {}):
        return poses, None, car
    state = _fixed(_one(table[names[2]]), 9, f"{path}: {names[2]}")[rows]
    if not np.isfinite(state).all():
        raise DataError(f"{path}: dynamic_state_se3 of row {int(rows[np.argmin(np.isfinite(state).all(axis=1))])} has NaN")
    return poses, EgoTrack(poses, state[:, :2], state[:, 3:5], state[:, 8]), car


def _pose(description: Mapping[str, Any], key: str, path: Path) -> Array:
    """(4, 4) of a pose in a file's description."""
    try:
        values = np.array(description[key], np.float64)
        if values.shape != (7,) or not np.isfinite(values).all() or not values[3:].any():
            raise ValueError("no pose of 7 numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its description has no usable {key} ({error!r})") from error
    return transform(values[3:], values[:3])


def _numbers(description: Mapping[str, Any], names: Sequence[str], path: Path) -> list[float]:
    try:
        found = [float(description[name]) for name in names]
        if not all(np.isfinite(found)) or min(found) <= 0.0:
            raise ValueError("not above 0")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its description has no usable {', '.join(names)} ({error!r})") from error
    return found


def _agents(frames: _Frames, origin: Array, faults: list[str]) -> BoxTracks:
    path = frames.folder / f"{layout.BOXES}.arrow"
    steps = len(frames.stamps)
    if layout.BOXES not in frames.rows:
        return BoxTracks((), np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 2)))
    names = {name: f"{layout.BOXES}.{name}" for name in ("bounding_box_se3", "track_token", "label", "velocity_3d")}
    table, description = open_table(path, tuple(names.values()))
    rows = _at(frames, layout.BOXES, len(table), path)
    if missing := int((rows < 0).sum()):
        faults.append(f"{path}: {missing} of {steps} frames have no record of boxes, as if there were none")
    pa = pyarrow()
    try:
        table = table.take(pa.array(rows[rows >= 0]))
        lists = {name: _one(table[column]) for name, column in names.items()}
        count = np.asarray(pa.compute.fill_null(pa.compute.list_value_length(lists["track_token"]), 0), np.int64)
        flat = {name: pa.compute.list_flatten(values) for name, values in lists.items()}
        tokens, label = np.array(flat["track_token"].to_pylist(), object).astype(str), np.asarray(flat["label"], np.int64)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{path}: a column holds no lists of its kind ({str(error).splitlines()[0]})") from error
    if len({count.sum(), *(len(values) for values in flat.values())}) > 1:
        raise DataError(f"{path}: a frame has lists of different lengths")
    box, speed = _fixed(flat["bounding_box_se3"], 10, f"{path}: bounding_box_se3"), _fixed(flat["velocity_3d"], 3, f"{path}: velocity_3d")
    step = np.repeat(np.flatnonzero(rows >= 0), count)
    faulty = ~np.isfinite(box).all(axis=1) | (box[:, 7:] <= 0.0).any(axis=1) | ~box[:, 3:7].any(axis=1)
    if faulty.any():
        first = int(faulty.argmax())
        raise DataError(f"{path}: the box of {tokens[first]} at frame {int(step[first])} has NaN, no size, or a rotation of 0")
    return _tracks(path, _types(label, description, path), tokens, step, box, speed[:, :2], origin, frames)


def _types(label: Ints, description: Mapping[str, Any], path: Path) -> Ints:
    """(B,) AgentType of labels, -1 of a box of the ego."""
    name = str(description.get("box_detection_label_class", "")).rsplit(".", 1)[-1]
    letters = layout.LABELS.get(name)
    if letters is None:
        raise DataError(f"{path}: its labels are of the class {name!r}; known are {', '.join(layout.LABELS)}")
    if len(label) and not 0 <= label.min() <= label.max() < len(letters):
        raise DataError(f"{path}: the label {int(label.max())} is none of {name}")
    return np.array([-1 if letter == layout.EGO_LETTER else layout.LETTERS[letter] for letter in letters], np.int64)[label]


def _tracks(path: Path, kinds: Ints, names: Any, step: Ints, box: Array, speed: Array, origin: Array, frames: _Frames) -> BoxTracks:
    keep = kinds >= 0
    kinds, names, step, box, speed = kinds[keep], names[keep], step[keep], box[keep], speed[keep]
    tokens, row = np.unique(names, return_inverse=True)
    if len(np.unique(row * len(frames.stamps) + step)) != len(row):
        raise DataError(f"{path}: a track has two boxes in one frame")
    poses = np.column_stack([box[:, :2] - origin, heading(rotation_matrix(box[:, 3:7]))])
    order = np.lexsort((step, row))
    first = order[np.unique(row[order], return_index=True)[1]]
    speed = speed.copy()
    for lost in np.unique(row[~np.isfinite(speed).all(axis=1)]):
        mine = np.flatnonzero(row == lost)
        places, valid = np.zeros((1, len(frames.stamps), 2)), np.zeros((1, len(frames.stamps)), bool)
        places[0, step[mine]], valid[0, step[mine]] = poses[mine, :2], True
        speed[mine] = np.where(np.isfinite(speed[mine]), speed[mine], central_velocity(places, valid, frames.dt)[0, step[mine]])
    return BoxTracks.sorted(tuple(tokens.tolist()), kinds[first], box[first, 7:], step, row, poses, speed)


def _lights(frames: _Frames) -> Lights | None:
    """The state of each lane's light, UNKNOWN where a frame does not tell."""
    if layout.LIGHTS not in frames.rows:
        return None
    path = frames.folder / f"{layout.LIGHTS}.arrow"
    names = (f"{layout.LIGHTS}.lane_id", f"{layout.LIGHTS}.status")
    table, _ = open_table(path, names)
    rows = _at(frames, layout.LIGHTS, len(table), path)
    lanes, states = (table[name].to_pylist() for name in names)
    found: dict[int, NDArray[np.int64]] = {}
    for step, row in enumerate(rows.tolist()):
        for lane, state in zip(lanes[row] or (), states[row] or (), strict=False) if row >= 0 else ():
            if not isinstance(lane, int) or not isinstance(state, int) or not 0 <= state < len(layout.STATES):
                raise DataError(f"{path}: row {row} has the state {state!r} of lane {lane!r}")
            found.setdefault(lane, np.full(len(rows), LightState.UNKNOWN, np.int64))[step] = layout.STATES[state]
    order = sorted(found)
    return Lights(tuple(map(str, order)), np.array([found[lane] for lane in order], np.int64).reshape(len(order), len(rows)))


def _camera(frames: _Frames, name: str, axle: Array, height: float, sensors: Path | None) -> tuple[Camera, tuple[ImageRef | None, ...], list[float]]:
    """A camera, its image at each frame, and its distortion. Raises DataError where there is none, or it is not read."""
    path = frames.folder / f"camera.{name}.arrow"
    if not path.is_file():
        there = sorted(p.stem.partition(".")[2] for p in frames.folder.glob("camera.*.arrow"))
        raise DataError(f"{frames.folder} has no camera {name}; it has {', '.join(there) or 'none'}")
    columns = (f"camera.{name}.timestamp_us", f"camera.{name}.data")
    table, description = open_table(path, columns)
    if description.get("camera_model") != "pinhole":
        raise DataError(f"{path} is of a camera of the model {description.get('camera_model')}: only pinhole cameras are read")
    width, high = (int(v) for v in _numbers(description, ("width", "height"), path))
    try:
        fx, fy, cx, cy, skew = (float(v) for v in description["intrinsics"])
        distortion = [float(v) for v in description.get("distortion") or ()]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its description has no usable intrinsics ({error!r})") from error
    pose = np.linalg.inv(axle) @ _pose(description, "camera_to_imu_se3", path)
    pose[2, 3] += height
    camera = Camera(str(description.get("camera_name") or name), width, high, np.array([[fx, skew, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), pose)
    refs = _embedded(path, columns[1], (width, high)) if pyarrow().types.is_binary(table[columns[1]].type) else _named(path, table[columns[1]], sensors, (width, high))
    taken = _integers(table, columns[0], path)
    if table[columns[0]].null_count or (np.diff(taken) < 0).any():
        raise DataError(f"{path}: a time of its images is missing, or they are not in order of time: which one a frame saw cannot be told")
    last = np.searchsorted(taken, frames.stamps + round(LEAD * 1e6), side="right") - 1
    old = round(OLDEST * frames.dt * 1e6)
    return camera, tuple(refs[k] if k >= 0 and stamp - taken[k] <= old else None for k, stamp in zip(last.tolist(), frames.stamps.tolist())), distortion


def _named(path: Path, column: Any, sensors: Path | None, size: tuple[int, int]) -> list[ImageRef | None]:
    if not pyarrow().types.is_string(column.type):
        raise DataError(f"{path}: its images are of type {column.type} (frames of a film?): only JPEG, PNG and names of files are read")
    if sensors is None:
        raise DataError(f"{path} names files of images: give the folder that they are in as dataset.sensors=")
    return [None if name is None else ImageRef(blob_path(sensors, name, path), inner=size) for name in column.to_pylist()]


def _embedded(path: Path, name: str, size: tuple[int, int]) -> list[ImageRef | None]:
    """Where in the file each image stands. Raises DataError where it is compressed, as then it stands nowhere."""
    pa = pyarrow()
    refs: list[ImageRef | None] = []
    with pa.memory_map(str(path)) as source:
        base, total = source.read_buffer(1).address, source.size()
        file = pa.ipc.open_file(source)
        for k in range(file.num_record_batches):
            values = file.get_batch(k).column(name)
            _, ends, data = values.buffers()
            begin = 0 if data is None else data.address - base
            if not 0 <= begin <= total:
                raise DataError(f"{path} is compressed, so that its images cannot be read one by one: write it without ipc_compression")
            offsets = begin + np.frombuffer(ends, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
            there = np.asarray(values.is_valid())
            refs += [ImageRef(path, int(a), int(b - a), inner=size) if ok else None for a, b, ok in zip(offsets, offsets[1:], there)]
    return refs


def _map_file(folder: Path, description: Mapping[str, Any]) -> tuple[Path | None, tuple[Path, ...]]:
    """The map of a log, its own or one that serves others too, and the files that would be taken before it, were they there."""
    places = [folder / f"{layout.MAP}.arrow"]
    dataset, location = (str(description.get(key) or "") for key in ("dataset", "location"))
    if dataset and location and all(Path(part).name == part for part in (dataset, location)):
        places += [above / "maps" / dataset / f"{dataset}_{location}.arrow" for above in list(folder.absolute().parents)[:6]]
    at = next((k for k, place in enumerate(places) if place.is_file()), len(places))
    return (places[at] if at < len(places) else None), tuple(places[:at])


def split_of(folder: Path, root: Path | None = None) -> str:
    """The split that the nearest folder between `root` and a log's folder ends in, as nuplan_train does; test where none does.

    The folder right above counts even where it is `root`, or no root is given; those above `root` say nothing of the data.
    """
    parts = folder.absolute().parts
    start = len(parts) - 2 if root is None else min(len(root.absolute().parts), len(parts) - 2)
    ends = (part.rsplit("_", 1)[-1].lower() for part in reversed(parts[start:-1]))
    return next((FOLDER_SPLITS[end] for end in ends if end in FOLDER_SPLITS), "test")


class Py123dReader:
    """Logs below a data root of py123d, or below its folder logs. A `Reader`."""

    name = "py123d"

    def __init__(self, cameras: Sequence[str] = (), sensors: Path | None = None) -> None:
        """`cameras`: names as in the files, such as pcam_f0; none renders a front camera. `sensors`: the folder that names of images start from."""
        self.cameras, self.sensors = tuple(cameras), sensors

    def find(self, root: Path) -> list[Entry]:
        """The folders with a sync.arrow, in order of path."""
        return [Entry(path.parent.name, path.parent, split_of(path.parent, root)) for path in walk(root, lambda name: name == "sync.arrow")]

    def read(self, entry: Entry) -> Log:
        """One log with its map. Raises DataError, naming file and record."""
        folder, faults = entry.path, []
        frames = _frames(folder)
        poses, motion, car = _ego(frames)
        origin = np.floor(poses[0, :2])
        local = poses - [*origin, 0.0]
        path = folder / f"{layout.EGO}.arrow"
        length, width, height = _numbers(car, ("length", "width", "height"), path)
        axle = _pose(car, "rear_axle_to_imu_se3", path)
        ground = height / 2.0 - (np.linalg.inv(axle) @ _pose(car, "center_to_imu_se3", path))[2, 3]  # m from the ground up to the axle's frame
        cameras = [_camera(frames, name, axle, ground, self.sensors) for name in self.cameras]
        archive, absent = _map_file(folder, frames.description)
        agents, lights = _agents(frames, origin, faults), _lights(frames)
        named = [folder / f"{key}.arrow" for key in (layout.SYNC, layout.EGO, layout.BOXES, layout.LIGHTS) if key == layout.SYNC or key in frames.rows]
        return Log(
            log_id=entry.log_id,
            source=self.name,
            split=entry.split,
            files=(*named, *(folder / f"camera.{name}.arrow" for name in self.cameras), *(() if archive is None else (archive,))),
            absent=absent,
            faults=tuple(faults),
            dt=frames.dt,
            ego=ego_motion(local, frames.dt) if motion is None else EgoTrack(local, motion.velocity_ego, motion.acceleration_ego, motion.yaw_rate),
            ego_size=(length, width, height),
            agents=agents,
            origin=origin,
            make_map=None if archive is None else partial(read_road_map, entry.log_id, archive, origin, poses if absent else None),
            times=(frames.stamps - frames.stamps[0]) * 1e-6,
            lights=lights,
            cameras=tuple(camera for camera, _, _ in cameras),
            images=tuple(images for _, images, _ in cameras),
            breaks=breaks_of(frames.stamps, frames.dt),
            notes={
                **{key: frames.description.get(key) for key in ("dataset", "location", "log_name")},
                "start_us": int(frames.stamps[0]),
                **({"camera_distortion": {camera.name: bent for camera, _, bent in cameras if bent}} if any(bent for _, _, bent in cameras) else {}),
            },
        )


def inspect(path: Path) -> Inspection:
    """Counts of one log's folder. Raises DataError, naming file and record."""
    log = Py123dReader().read(Entry(path.name, path, split_of(path)))
    kinds = np.bincount(log.agents.types, minlength=len(AgentType))
    found: dict[str, int | float | str] = {
        "data set": str(log.notes["dataset"]), "split": log.split, "frames": log.steps, "spacing (s)": log.dt, "driven (m)": driven(log.ego),
        **{f"tracks: {kind.name.lower()}": int(kinds[kind]) for kind in AgentType if kinds[kind]},
        "lanes with a light": len(log.lights.lane_ids) if log.lights else 0,
    }  # fmt: skip
    for camera in sorted(path.glob("camera.*.arrow")):
        table, _ = open_table(camera)
        found[f"images of {camera.stem.partition('.')[2]}"] = len(table)
    archive, absent = _map_file(path, describe_log(path))
    if archive is not None and not absent:
        found.update({f"map: {name}": count for name, count in map_counts(archive).items()})
    unread = sorted(p.stem for p in path.glob("*.arrow") if p.stem.partition(".")[0] in ("lidar", "radar", "imu", "gnss", "barometer", "magnetometer", "custom"))
    return Inspection("py123d log", path, {**found, **({"not read": ", ".join(unread)} if unread else {})}, log.faults)


def describe_log(folder: Path) -> dict[str, Any]:
    """What sync.arrow says of its log. Raises DataError where it cannot be read."""
    path = folder / f"{layout.SYNC}.arrow"
    table, _ = open_table(path)
    return describe(path, table.schema)
