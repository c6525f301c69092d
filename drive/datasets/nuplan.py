"""nuPlan logs (Caesar et al. 2021): one `.db` is one log, 20 Hz lidar sweeps taken at 10 Hz, with the map of its city.

The ego pose is that of the rear axle, its motion is the recorded one; agents' velocities are recorded too ("estimated by a neural
network", docs/nuplan_schema.md), those of static objects are zero, as the devkit has none. The route are the lanes under the drive within the
scenes' roadblocks. Categories are those of the PDM score; a czone_sign counts as a generic object. Scenarios of a log without a map stand on a
corridor; without cameras they are rendered.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix, transform
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera, EgoTrack, Lights, LightState
from drive.core.vehicle import PACIFICA
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logged import Entry, Inspection, split_of_path, walk
from drive.datasets.logs import ImageRef, Log
from drive.datasets.motion import DT, central_velocity, driven
from drive.datasets.nuplan_db import Boxes, Frames, column_names, numbers, opened, read_boxes, read_frames, select
from drive.datasets.nuplan_map import map_file, read_road_map, route_lanes
from drive.datasets.unpickle import load_plain_bytes

Array = NDArray[np.float64]
EGO_SIZE = (PACIFICA.length, PACIFICA.width, PACIFICA.height)
KINDS = {
    "vehicle": AgentType.VEHICLE,
    "pedestrian": AgentType.PEDESTRIAN,
    "bicycle": AgentType.BICYCLE,
    "traffic_cone": AgentType.TRAFFIC_CONE,
    "barrier": AgentType.BARRIER,
    **dict.fromkeys(("czone_sign", "generic_object"), AgentType.GENERIC_OBJECT),
}  # all seven
LIGHTS = {"green": LightState.GREEN, "yellow": LightState.YELLOW, "red": LightState.RED}
GAP = 0.3  # of a step, beyond which a frame is missing
IMAGE_REACH = 110_000  # us from an image to its step, at most; cameras run at 10 Hz
TABLES = ("lidar_pc", "lidar_box", "track", "ego_pose", "scene", "image", "traffic_light_status", "scenario_tag")


def make_tracks(
    tokens: Sequence[str], names: Sequence[str], row: NDArray, step: NDArray, box: Array, velocity: Array, steps: int, dt: float
) -> BoxTracks:
    """Tracks of N boxes: `row` (N,) into tokens and category `names`, `box` (N, 6) x, y, heading, length, width, height, `velocity` (N, 2) world.

    Sizes are those of the first boxes, as what is drawn must not come from later ones. Velocities that are not finite are taken from the positions; static objects have none.
    """
    types = np.array([KINDS[name] for name in names], np.int64)
    order = np.lexsort((step, row))
    size = box[order[np.unique(row[order], return_index=True)[1]], 3:]
    speed = velocity.copy()
    for lost in np.unique(row[~np.isfinite(velocity).all(axis=1)]):
        mine = np.flatnonzero(row == lost)
        places, valid = np.zeros((1, steps, 2)), np.zeros((1, steps), bool)
        places[0, step[mine]], valid[0, step[mine]] = box[mine, :2], True
        speed[mine] = np.where(np.isfinite(speed[mine]), speed[mine], central_velocity(places, valid, dt)[0, step[mine]])
    speed[types[row] >= AgentType.TRAFFIC_CONE] = 0.0
    return BoxTracks.sorted(tuple(tokens), types, size, step, row, box[:, :3], speed)


def refuse_unknown(path: Path, names: Sequence[str]) -> None:
    """Raises DataError where one of `names` is no category of nuPlan."""
    if strange := set(names) - KINDS.keys():
        raise DataError(f"{path}: {min(strange)!r} is no category of nuPlan: the file is damaged, fetch it again")


def breaks_of(stamps: NDArray[np.int64], dt: float) -> tuple[int, ...]:
    """Steps before which frames are missing, of stamps (S,) in microseconds that should be `dt` s apart."""
    return tuple((np.flatnonzero(np.abs(np.diff(stamps) * 1e-6 - dt) > GAP * dt) + 1).tolist())


def _tracks(boxes: Boxes, steps: int, origin: Array) -> BoxTracks:
    box = boxes.values[:, :6].copy()
    box[:, :2] -= origin
    return make_tracks(boxes.tracks, boxes.categories, boxes.row, boxes.step, box, boxes.values[:, 6:], steps, DT)


def _lights(connection: sqlite3.Connection, path: Path, step_of: Mapping[bytes, int], steps: int) -> Lights:
    found = [
        (str(lane), step_of[sweep], LIGHTS.get(str(status).lower(), LightState.UNKNOWN))
        for sweep, lane, status in select(
            connection, path, "traffic_light_status", ("lidar_pc_token", "lane_connector_id", "status")
        )
        if step_of.get(sweep, -1) >= 0
    ]
    lanes = {lane: index for index, lane in enumerate(sorted({lane for lane, _, _ in found}))}
    states = np.zeros((len(lanes), steps), np.int64)
    for lane, step, state in found:
        states[lanes[lane], step] = state
    return Lights(tuple(lanes), states)


def _scenes(connection: sqlite3.Connection, path: Path, frames: Frames, origin: Array) -> tuple[list[str], dict[str, list[Any]]]:
    """The roadblocks of all scenes in order of time, and notes by step: token, scene, mission goal (x, y, heading), scenario tags."""
    columns = ("token", "name", "goal_ego_pose_token", "roadblock_ids")
    scenes = {row[0]: row[1:] for row in select(connection, path, "scene", columns)}
    goals = {scenes[token][1] for token in set(frames.scenes) if token in scenes}
    columns = ("token", "x", "y", "qw", "qx", "qy", "qz")
    stored = {row[0]: row[1:] for row in select(connection, path, "ego_pose", columns) if row[0] in goals}
    values = numbers(path, "the goal pose", list(stored.values()), columns[1:])
    turns = heading(rotation_matrix(values[:, 2:])) if len(values) else np.zeros(0)
    goal_of = {token: [*(value[:2] - origin).tolist(), float(turn)] for token, value, turn in zip(stored, values, turns)}
    blocks: list[str] = []
    for token in dict.fromkeys(frames.scenes):
        text = scenes[token][2] if token in scenes else None
        blocks += [block for block in re.split(r"[\s,]+", str(text or "")) if block]
    tags: list[list[str]] = [[] for _ in frames.tokens]
    if column_names(connection, "scenario_tag"):
        for sweep, kind in select(connection, path, "scenario_tag", ("lidar_pc_token", "type")):
            if sweep in frames.before:
                tags[frames.before[sweep]].append(str(kind))
    named = [scenes.get(token, ("", None, None)) for token in frames.scenes]
    return blocks, {
        "token": [token.hex() for token in frames.tokens],
        "scene": [str(name) for name, _, _ in named],
        "goal_world": [goal_of.get(goal) for _, goal, _ in named],
        "scenario_tags": [sorted(kinds) for kinds in tags],
    }


def _unpickled(path: Path, channel: str, column: str, blob: Any, shape: tuple[int, ...]) -> Array:
    """The array in a pickled column. Raises DataError, naming camera and column, where it is none, or asks for a class."""
    try:
        values = np.array(load_plain_bytes(blob if isinstance(blob, bytes) else b"", f"{path}: {column} of camera {channel}"), np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {column} of camera {channel}: {error}") from error
    if (shape and values.shape != shape) or not np.isfinite(values).all():
        raise DataError(f"{path}: {column} of camera {channel} has shape {values.shape}, want {shape}, all finite")
    return values


def blob_path(root: Path, name: Any, path: Path) -> Path:
    """The image file `name` below `root`. Raises DataError, naming the log `path`, for a name that leads elsewhere."""
    part = Path(str(name))
    if part.is_absolute() or ".." in part.parts:
        raise DataError(f"{path}: the image {name} lies outside of the folder of sensor data")
    return root / part


def _cameras(
    connection: sqlite3.Connection, path: Path, sensors: Path, channels: Sequence[str], frames: Frames
) -> tuple[tuple[Camera, ...], tuple[tuple[ImageRef | None, ...], ...], dict[str, list[float]]]:
    """The chosen cameras, the last image not after each step, and their lens distortion (k1, k2, p1, p2, k3), which is not undone."""
    columns = ("channel", "token", "translation", "rotation", "intrinsic", "distortion", "width", "height")
    records = {row[0]: row[1:] for row in select(connection, path, "camera", columns)}
    missing = [channel for channel in channels if channel not in records]
    if missing:
        raise DataError(f"{path}: no camera {', '.join(missing)}; it has {', '.join(sorted(records)) or 'none'}")
    taken: dict[bytes, list[tuple[int, str]]] = {}
    for token, name, stamp in select(connection, path, "image", ("camera_token", "filename_jpg", "timestamp")):
        if isinstance(stamp, int | float):
            taken.setdefault(token, []).append((int(stamp), name))
    cameras, images, distortions = [], [], {}
    for channel in channels:
        token, translation, rotation, intrinsic, distortion, width, height = records[channel]
        pose = transform(
            _unpickled(path, channel, "rotation", rotation, (4,)), _unpickled(path, channel, "translation", translation, (3,))
        )
        cameras.append(Camera(channel, int(width), int(height), _unpickled(path, channel, "intrinsic", intrinsic, (3, 3)), pose))
        distortions[channel] = _unpickled(path, channel, "distortion", distortion, ()).ravel().tolist()
        images.append(_last_before(sorted(taken.get(token, ())), frames.stamps, sensors, path))
    return tuple(cameras), tuple(images), distortions


def _last_before(taken: list[tuple[int, str]], stamps: NDArray[np.int64], sensors: Path, path: Path) -> tuple[ImageRef | None, ...]:
    if not taken:
        return (None,) * len(stamps)
    times = np.array([stamp for stamp, _ in taken], np.int64)
    last = np.searchsorted(times, stamps, side="right") - 1
    return tuple(
        ImageRef(blob_path(sensors, taken[index][1], path)) if index >= 0 and stamp - times[index] <= IMAGE_REACH else None
        for index, stamp in zip(last.tolist(), stamps.tolist())
    )


class NuPlanReader:
    """`.db` logs below a folder. A `Reader`."""

    name = "nuplan"

    def __init__(
        self,
        maps: Path | None = None,
        sensors: Path | None = None,
        cameras: Sequence[str] = (),
    ) -> None:
        """`maps`: nuPlan's folder of maps, None for none. `sensors`: the folder sensor_blobs, from which the channels `cameras` are read.

        A log is of the split that a folder above it is named after, of train in a folder trainval, else of test. Raises DataError on cameras
        without their folder.
        """
        if sensors is not None and not cameras:
            raise DataError(f"sensors={sensors} is read where cameras are named, as in dataset.cameras=[CAM_F0]: name some, or leave sensors out")
        if cameras and (sensors is None or not sensors.is_dir()):
            raise DataError(f"cameras {', '.join(cameras)} need the folder of sensor data, sensor_blobs: {sensors or 'none is given'}")
        self.maps, self.sensors, self.cameras = maps, sensors, tuple(cameras)

    def find(self, root: Path) -> list[Entry]:
        """The logs, in order of path."""
        paths = walk(root, lambda name: name.endswith(".db"))
        return [Entry(path.stem, path, split_of_path(path, "test")) for path in paths]

    def read(self, entry: Entry) -> Log:
        """One log, with its map where there are maps. Raises DataError, naming file and record."""
        path = entry.path
        with opened(path) as connection:
            record = next(iter(select(connection, path, "log", ("map_version", "location", "logfile", "vehicle_name"))), None)
            if record is None:
                raise DataError(f"{path}: table log is empty")
            frames = read_frames(connection, path)
            boxes = read_boxes(connection, path, frames.step_of)
            refuse_unknown(path, boxes.categories)
            origin = np.floor(frames.poses[0, :2])
            blocks, step_notes = _scenes(connection, path, frames, origin)
            lights = _lights(connection, path, frames.step_of, len(frames.tokens))
            cameras, images, distortion = (), (), {}
            if self.cameras and self.sensors is not None:
                cameras, images, distortion = _cameras(connection, path, self.sensors, self.cameras, frames)
        poses = frames.poses - [*origin, 0.0]
        road_map, archive = self._map(entry.log_id, str(record[0]), frames.poses, origin)
        return Log(
            log_id=entry.log_id,
            source=self.name,
            split=entry.split,
            files=(path,) if archive is None else (path, archive),
            dt=DT,
            ego=EgoTrack(poses, frames.velocity, frames.acceleration, frames.yaw_rate),
            ego_size=EGO_SIZE,
            agents=_tracks(boxes, len(poses), origin),
            origin=origin,
            make_map=None if road_map is None else lambda: road_map,
            times=(frames.stamps - frames.stamps[0]) * 1e-6,
            lights=lights,
            cameras=cameras,
            images=images,
            route_lane_ids=() if road_map is None else route_lanes(road_map, blocks, poses),
            breaks=breaks_of(frames.stamps, DT),
            notes={
                "map_name": str(record[0]), "location": str(record[1]), "vehicle_name": str(record[3]), "start_us": int(frames.stamps[0]),
                "route_roadblocks": blocks, **({"camera_distortion": distortion} if distortion else {}),
            },
            step_notes=step_notes,
        )  # fmt: skip

    def _map(self, name: str, city: str, drive: Array, origin: Array) -> tuple[RoadMap | None, Path | None]:
        if self.maps is None:
            return None, None
        archive = map_file(self.maps, city)
        return read_road_map(name, archive, drive, origin), archive


def inspect(path: Path) -> Inspection:
    """Counts of one `.db`. Raises DataError, naming file and record."""
    log = NuPlanReader().read(Entry(path.stem, path, "test"))
    counts: dict[str, int | float | str] = {
        "steps at 10 Hz": log.steps, "tracks": len(log.agents), "driven (m)": driven(log.ego),
        "traffic lights": len(log.lights.lane_ids) if log.lights else 0, "map": log.notes["map_name"],
    }  # fmt: skip
    with opened(path) as connection:
        for table in TABLES:
            if column_names(connection, table):
                counts[table.replace("_", " ") + " rows"] = connection.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0]
    return Inspection("nuPlan log", path, counts)
