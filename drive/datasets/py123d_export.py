"""Logs written in py123d's Arrow layout (py123d_layout), which its SceneAPI reads; the other way of `drive.datasets.py123d`.

Carried: the times of frames, ego poses and motion, the car's size, boxes with class, size and velocity, lights by lane, cameras with their images, and the
map (`py123d_map`). Not carried, as the layout has no word for it or drive does not know it: heights and tilt (everything stands on a plane at
height 0, boxes on half their height), language, route commands and lanes, the steps that a protocol predicts from, notes, step notes and
faults, what a lane is beyond its group (a connector of no junction is read as a lane), and numbers of lidar points. The wheel base and the centre
of the car are in proportion to NAVSIM's car, as a Log does not tell them. An image's time is its frame's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from drive.core.errors import DataError
from drive.core.files import atomic_write_text
from drive.core.types import AgentType, Camera, Lights, LightState
from drive.core.vehicle import PACIFICA
from drive.datasets import py123d_layout as layout
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logged import Reader
from drive.datasets.logs import ImageRef, Log, LogScenes
from drive.datasets.py123d import OURS
from drive.datasets.py123d_arrow import pyarrow, write_table
from drive.datasets.py123d_map import numbered, write_road_map

Array = NDArray[np.float64]
CARD = "drive_export.json"  # in `out`: what its logs were exported from
IMAGES_EACH = 16  # images of a record batch
SIDE_FRONT, SIDE_BACK = np.radians(22.5), np.radians(157.5)  # heading beyond which a camera looks to the side, or back


@dataclass(frozen=True)
class Export:
    """What an export did."""

    written: int
    kept: int  # logs that were there before
    faults: tuple[str, ...] = ()  # logs that could not be read
    partly: tuple[str, ...] = ()  # records that could not, of logs that were written


def export(reader: Reader, root: Path, out: Path, split: str | None = None, settings: Mapping[str, Any] | None = None) -> Export:
    """Write the logs of `reader` below `root`, those of `split` or all, below `out`; a log that is there whole is left as it is.

    `settings` are those of the reader. A log that cannot be read is a fault, told with file and record, and so is a second one of one id. Raises
    DataError where `out` is no folder or holds logs of another source, root or settings, and where no log is of `split`.
    """
    card = json.loads(json.dumps({"version": layout.VERSION, "source": reader.name, "root": str(root.absolute()), "settings": dict(settings or {})}))
    _check_card(out, card)
    entries = [entry for entry in reader.find(root) if split is None or entry.split in ("", split)]
    if not entries:
        raise DataError(f"{root} has no log of {reader.name}{f' of the split {split!r}' if split else ''}")
    atomic_write_text(out / CARD, json.dumps(card))
    written, kept, faults, partly = 0, 0, [], []
    seen: set[Path] = set()
    for entry in entries:
        try:
            log = None
            folder = folder_of(out, reader.name, entry.split, entry.log_id) if entry.split and entry.log_id else None
            if folder is None or not _whole(folder):
                log = reader.read(entry)
                if split is not None and log.split != split:
                    continue
                folder = folder_of(out, log.source, log.split, log.log_id)  # a cache's logs are of other sources
            if folder in seen:
                raise DataError(f"{entry.path}: log {folder.name} is there twice: remove one of them")
            seen.add(folder)
            if log is None or _whole(folder):
                kept += 1
                continue
            write_log(log, out)
        except DataError as error:
            faults.append(str(error))
            continue
        written += 1
        partly += log.faults
    return Export(written, kept, tuple(faults), tuple(partly))


def _check_card(out: Path, card: Mapping[str, Any]) -> None:
    """Raises DataError where `out` is no folder, or holds logs that are not of `card`: they would be taken for those that are asked for."""
    if file := next((path for path in (out, *out.absolute().parents) if path.exists() and not path.is_dir()), None):
        raise DataError(f"{file} is a file: give a folder as out=")
    path = out / CARD
    if not path.is_file():
        if next(out.glob(f"logs/*/*/{layout.SYNC}.arrow"), None):
            raise DataError(f"{out} holds logs, and no {CARD} that tells what they were exported from: give another out=")
        return
    try:
        there = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no card of an export ({error}): give another out=") from error
    if other := [f"{key} {there.get(key)}, not {value}" for key, value in card.items() if there.get(key) != value]:
        raise DataError(f"{out} holds exported logs of another source, folder or settings ({'; '.join(other)}): give another out=")


def _whole(folder: Path) -> bool:
    return (folder / f"{layout.SYNC}.arrow").is_file()


def folder_of(out: Path, source: str, split: str, log_id: str) -> Path:
    """The folder of a log below `out`. Raises DataError where one of the names cannot be part of a folder's name."""
    for what, name in (("name", log_id), ("source", source), *([("split", split)] if split else [])):
        if not name or name.startswith(".") or set(name) & set("/\\\0"):
            raise DataError(f"log {log_id!r} cannot be exported: its {what} {name!r} becomes a folder, and is no name of one")
    return out / "logs" / f"{_dataset(source)}_{split}" / log_id


def _dataset(source: str) -> str:
    return source.replace("_", "-")  # py123d takes what stands before the first underscore of a split for the data set


def write_log(log: Log, out: Path) -> Path:
    """Write a log with its map, and return its folder; sync.arrow comes last, so that a log which has one is whole.

    Raises DataError where an image cannot be read, or the log's name, source or split is no name of a folder.
    """
    folder = folder_of(out, log.source, log.split, log.log_id)
    stamps = np.round([log.time(step) * 1e6 for step in range(log.steps)]).astype(np.int64)
    about = {"dataset": _dataset(log.source), "split": folder.parent.name, "log_name": log.log_id, "location": None, "version": layout.VERSION}
    rows = {layout.EGO: np.arange(log.steps), layout.BOXES: np.arange(log.steps)}
    _write_ego(folder, log, stamps)
    _write_boxes(folder, log, stamps)
    chart, number = None, None
    if log.make_map is not None:
        road_map = LogScenes(log).road_map
        chart = {**about, "map_has_z": False, "map_is_per_log": True}
        write_road_map(folder / f"{layout.MAP}.arrow", road_map, log.origin, chart)
        number = numbered(road_map.lanes)
    if log.lights is not None:
        _write_lights(folder, log.lights, stamps, number or numbered(log.lights.lane_ids))
        rows[layout.LIGHTS] = np.arange(log.steps)
    for name, camera, images in zip(camera_names(log.cameras), log.cameras, log.images):
        there = np.array([ref is not None for ref in images])
        _write_camera(folder, log, name, camera, images, stamps)
        rows[f"camera.{name}"] = np.where(there, np.cumsum(there) - 1, -1)
    _write_sync(folder, log, stamps, rows, {**about, "map_metadata": chart})
    return folder


def _fixed(values: Array) -> Any:
    """(N, width) as an Arrow array of fixed-size lists."""
    pa = pyarrow()
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values, np.float64).reshape(-1)), values.shape[1])


def _quaternions(yaw: Array) -> Array:
    """(N, 4) w, x, y, z of turns about z."""
    return np.column_stack([np.cos(yaw / 2.0), np.zeros((len(yaw), 2)), np.sin(yaw / 2.0)])


def _se3(matrix: Array) -> list[float]:
    """x, y, z, qw, qx, qy, qz of a (4, 4)."""
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return [*matrix[:3, 3].tolist(), float(w), float(x), float(y), float(z)]


def _write_ego(folder: Path, log: Log, stamps: NDArray[np.int64]) -> None:
    pa, ego, zero = pyarrow(), log.ego, np.zeros(log.steps)
    length, width, height = log.ego_size
    poses = np.column_stack([ego.poses_world[:, :2] + log.origin, zero, _quaternions(ego.poses_world[:, 2])])
    state = np.column_stack([ego.velocity_ego, zero, ego.acceleration_ego, zero, zero, zero, ego.yaw_rate])
    scale = length / PACIFICA.length
    car = {
        "vehicle_name": f"{log.source} car", "width": float(width), "length": float(length), "height": float(height), "wheel_base": PACIFICA.wheel_base * scale,
        "center_to_imu_se3": [PACIFICA.rear_to_center * scale, 0.0, height / 2.0, 1.0, 0.0, 0.0, 0.0],
        "rear_axle_to_imu_se3": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    }  # fmt: skip
    columns = {"timestamp_us": pa.array(stamps), "imu_se3": _fixed(poses), "dynamic_state_se3": _fixed(state)}
    _write(folder, layout.EGO, car, [columns], {OURS: b"motion from past poses, or as recorded"})


def _write(folder: Path, key: str, description: dict[str, Any], batches: Any, extra: dict[bytes, bytes] | None = None) -> None:
    """Write a file of columns, whose names get its key in front; the first batch tells their types."""
    pa, waiting = pyarrow(), iter(batches)
    first = next(waiting)
    schema = pa.schema([(f"{key}.{name}", values.type) for name, values in first.items()])
    named = ({f"{key}.{name}": values for name, values in batch.items()} for batch in (b for part in ([first], waiting) for b in part))
    write_table(folder / f"{key}.arrow", schema, description, named, extra)


def _write_boxes(folder: Path, log: Log, stamps: NDArray[np.int64]) -> None:
    pa = pyarrow()
    boxes = log.agents if isinstance(log.agents, BoxTracks) else BoxTracks.of(log.agents)
    size = boxes.size[boxes.row]
    place = np.column_stack([boxes.poses_world[:, :2] + log.origin, size[:, 2] / 2.0, _quaternions(boxes.poses_world[:, 2]), size])
    ends = pa.array(np.searchsorted(boxes.step, np.arange(log.steps + 1)), pa.int32())
    labels = np.array([layout.LABEL[AgentType(int(kind))] for kind in boxes.types], np.uint16)[boxes.row]
    columns = {
        "timestamp_us": pa.array(stamps),
        "bounding_box_se3": pa.ListArray.from_arrays(ends, _fixed(place)),
        "track_token": pa.ListArray.from_arrays(ends, pa.array([boxes.ids[k] for k in boxes.row.tolist()], pa.string())),
        "label": pa.ListArray.from_arrays(ends, pa.array(labels, pa.uint16())),
        "velocity_3d": pa.ListArray.from_arrays(ends, _fixed(np.column_stack([boxes.velocity_world, np.zeros(len(boxes.row))]))),
        "num_lidar_points": pa.ListArray.from_arrays(ends, pa.nulls(len(boxes.row), pa.int32())),
    }
    _write(folder, layout.BOXES, {"box_detection_label_class": layout.LABEL_CLASS}, [columns])


def _write_lights(folder: Path, lights: Lights, stamps: NDArray[np.int64], number: dict[str, int]) -> None:
    """The lights of lanes that the map knows, at every frame."""
    pa = pyarrow()
    known = [k for k, lane in enumerate(lights.lane_ids) if lane in number]
    ids = [number[lights.lane_ids[k]] for k in known]
    states = [[layout.STATUS[LightState(int(lights.states[k, step]))] for k in known] for step in range(len(stamps))]
    columns = {
        "timestamp_us": pa.array(stamps),
        "lane_id": pa.array([ids] * len(stamps), pa.list_(pa.int32())),
        "status": pa.array(states, pa.list_(pa.uint8())),
    }
    _write(folder, layout.LIGHTS, {}, [columns])


def camera_names(cameras: Sequence[Camera]) -> list[str]:
    """The names that py123d has for pinhole cameras: front, back, and the sides from front to back. Raises DataError where they do not suffice."""
    ways = [float(np.arctan2(camera.ego_from_camera[1, 2], camera.ego_from_camera[0, 2])) for camera in cameras]
    free, found = list(layout.CAMERAS), [""] * len(cameras)
    for k in sorted(range(len(cameras)), key=lambda k: abs(ways[k])):
        side = "f" if abs(ways[k]) <= SIDE_FRONT else "b" if abs(ways[k]) >= SIDE_BACK else "l" if ways[k] > 0.0 else "r"
        name = next((name for name in free if name.startswith(f"pcam_{side}")), next(iter(free), None))
        if name is None:
            raise DataError(f"{len(cameras)} cameras cannot be exported: py123d has names for {len(layout.CAMERAS)}")
        free.remove(name)
        found[k] = name
    return found


def _write_camera(folder: Path, log: Log, name: str, camera: Camera, images: Sequence[ImageRef | None], stamps: NDArray[np.int64]) -> None:
    k = camera.intrinsics
    bent = (log.notes.get("camera_distortion") or {}).get(camera.name)
    description = {
        "camera_model": "pinhole", "camera_name": camera.name, "camera_id": layout.CAMERAS[name],
        "intrinsics": [float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2], k[0, 1])],
        "distortion": [float(v) for v in bent] if bent is not None and len(bent) == 5 else None,
        "width": int(camera.width), "height": int(camera.height), "camera_to_imu_se3": _se3(camera.ego_from_camera), "is_undistorted": False,
    }  # fmt: skip
    _write(folder, f"camera.{name}", description, _image_batches(log, camera, images, stamps))


def _image_batches(log: Log, camera: Camera, images: Sequence[ImageRef | None], stamps: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """The camera's images, a few at a time; one batch without any where there are none."""
    pa = pyarrow()
    there = [step for step, ref in enumerate(images) if ref is not None]
    for begin in range(0, max(len(there), 1), IMAGES_EACH):
        steps = there[begin : begin + IMAGES_EACH]
        place = np.array([_se3(_ego_matrix(log, step) @ camera.ego_from_camera) for step in steps]).reshape(-1, 7)
        yield {
            "timestamp_us": pa.array(stamps[steps]),
            "data": pa.array([_encoded(ref) for step in steps if (ref := images[step]) is not None], pa.binary()),
            "camera_to_global_se3": _fixed(place),
            "exposure_factor": pa.nulls(len(steps), pa.float32()),
        }


def _ego_matrix(log: Log, step: int) -> Array:
    x, y, yaw = log.ego.poses_world[step] + [*log.origin, 0.0]
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]], (x, y)
    return matrix


def _encoded(ref: ImageRef) -> bytes:
    """The bytes of an image: its own where they are a JPEG or a PNG of the right size, else a PNG of it. Raises DataError where there is none."""
    image = ref.read()
    with ref.path.open("rb") as file:
        file.seek(ref.offset)
        data = file.read(ref.length)
    with Image.open(BytesIO(data)) as picture:
        if picture.format in ("JPEG", "PNG") and (picture.width, picture.height) == image.shape[1::-1]:
            return data
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _write_sync(folder: Path, log: Log, stamps: NDArray[np.int64], rows: dict[str, Any], description: dict[str, Any]) -> None:
    pa = pyarrow()
    ids = [uuid.uuid5(layout.NAMESPACE, f"{description['split']}:{log.log_id}:{stamp}").bytes for stamp in stamps.tolist()]
    binary = pa.array(ids, pa.binary(16))
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), binary) if hasattr(pa, "uuid") else binary  # from pyarrow 18 on, as py123d does
    columns = {"sync.uuid": uuids, "sync.timestamp_us": pa.array(stamps)}
    columns |= {key: pa.array(values, pa.int64(), mask=np.asarray(values) < 0) for key, values in rows.items()}
    schema = pa.schema([(name, values.type) for name, values in columns.items()])
    write_table(folder / f"{layout.SYNC}.arrow", schema, description, [columns])
