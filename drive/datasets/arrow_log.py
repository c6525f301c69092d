"""A Log as one Arrow IPC file: a row of list columns, so that a reader maps it into memory and copies nothing.

Layout (format 2): `meta` is JSON of all that is text; every other column is the flattened array that it is named after, its shape following
from the counts in `meta`. Images stay where they are: path (relative to the images' root), offset and length of each are kept.
The file is named after the sha256 of its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.roadmap import Lane, Polygons, RoadMap
from drive.core.types import PLAN_STEPS, Camera, Command, EgoTrack, Lights, Question
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logs import ImageRef, Log, LogScenes
from drive.datasets.route import Route

Array = NDArray[np.float64]
FORMAT = 2
SUFFIX = ".arrow"
LANE_TEXT = ("id", "speed_limit", "is_connector", "turn", "roadblock", "junction", "successors", "predecessors", "left_neighbor", "right_neighbor")


def _pyarrow() -> Any:
    try:
        import pyarrow  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("converted logs are Arrow files: pip install 'drive-vla[cache]'") from None
    return pyarrow


def _plain(value: Any) -> Any:
    """What JSON cannot write, as what it can."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be kept in a converted log")


def pack(log: Log, images_root: Path) -> bytes:
    """The file of a log with its map; images are named relative to `images_root`. Raises DataError on a faulty map, or notes that are no plain data."""
    pa = _pyarrow()
    scenes = LogScenes(log)
    route = scenes.route
    road_map = None if log.make_map is None else scenes.road_map
    agents = log.agents if isinstance(log.agents, BoxTracks) else BoxTracks.of(log.agents)
    columns: dict[str, Any] = {
        "ego_poses": log.ego.poses_world,
        "ego_velocity": log.ego.velocity_ego,
        "ego_acceleration": log.ego.acceleration_ego,
        "ego_yaw_rate": log.ego.yaw_rate,
        "agent_types": agents.types,
        "agent_size": agents.size,
        "box_step": agents.step,
        "box_row": agents.row,
        "box_poses": agents.poses_world,
        "box_velocity": agents.velocity_world,
        "times": np.array([log.time(step) for step in range(log.steps)]),
        "light_states": log.lights.states if log.lights else np.zeros(0, np.int64),
        "camera_matrices": np.concatenate([np.zeros(0), *(np.concatenate([c.intrinsics.ravel(), c.ego_from_camera.ravel()]) for c in log.cameras)]),
        "route_centerline": route.centerline,
        **_image_columns(log, images_root),
        **(_map_columns(road_map) if road_map is not None else {}),
        **({"teachers": log.teachers} if log.teachers is not None else {}),
    }
    meta = {
        "format": FORMAT,
        "log_id": log.log_id,
        "source": log.source,
        "split": log.split,
        "dt": log.dt,
        "steps": log.steps,
        "ego_size": log.ego_size,
        "origin": log.origin,
        "agents": agents.ids,
        "lights": None if log.lights is None else log.lights.lane_ids,
        "cameras": [[camera.name, camera.width, camera.height] for camera in log.cameras],
        "language": {step: [[q.question, q.answer, q.topic] for q in asked] for step, asked in log.language.items()},
        "commands": [command.value for command in log.commands],
        "route": {"lane_ids": route.lane_ids, "maneuvers": [[a, b, command.value] for a, b, command in route.maneuvers], "matched": route.matched},
        "presents": log.presents,
        "breaks": log.breaks,
        "group": log.group,
        "faults": log.faults,
        "cut": log.cut,
        "notes": log.notes,
        "step_notes": log.step_notes,
        "map": None if road_map is None else _map_meta(road_map),
    }
    try:
        text = json.dumps(meta, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(f"{log.files[0]}: log {log.log_id} cannot be converted ({error})") from error
    batch = {"meta": pa.array([text])}
    for name, values in columns.items():
        flat = values if isinstance(values, list) else np.ascontiguousarray(values).reshape(-1)
        batch[name] = pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), pa.array(flat, *([pa.string()] if isinstance(flat, list) else [])))
    table = pa.RecordBatch.from_pydict(batch)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    return sink.getvalue()


def _image_columns(log: Log, root: Path) -> dict[str, Any]:
    refs = [ref for camera in log.images for ref in camera]
    paths = ["" if ref is None else _relative(ref.path, root) for ref in refs]
    spans = np.array([[0] * 6 if ref is None else [ref.offset, ref.length, *ref.inner, *ref.outer] for ref in refs], np.int64).reshape(-1, 6)
    return {"image_paths": paths, "image_spans": spans}


def _relative(path: Path, root: Path) -> str:
    path, root = path.absolute(), root.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _map_columns(road_map: RoadMap) -> dict[str, Any]:
    rows = [np.hstack([lane.centerline, lane.left, lane.right]) for lane in road_map.lanes.values()]
    polygons = road_map.polygons
    return {
        "lane_points": np.concatenate([np.zeros((0, 7)), *rows]),
        "polygon_layers": polygons.layers.astype(np.int64),
        "polygon_vertices": polygons.vertices,
        "polygon_offsets": polygons.offsets,
    }


def _map_meta(road_map: RoadMap) -> dict[str, Any]:
    lanes = [[len(lane.centerline), *(getattr(lane, name) for name in LANE_TEXT)] for lane in road_map.lanes.values()]
    return {"name": road_map.name, "lanes": lanes, "tokens": road_map.polygons.tokens}


def digest(content: bytes) -> str:
    """The name of a file with this content, without its suffix."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path, images_root: Path) -> Log:
    """The Log of a file that `pack` made; its arrays lie in the mapped file. Raises DataError, naming it, where it is not what its name says."""
    pa = _pyarrow()
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else digest(file.read())
        if found != path.stem:
            raise DataError(f"{path} is damaged: its content is not what it is named after; convert the log again")
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        meta = json.loads(batch.column("meta")[0].as_py())
        if meta["format"] != FORMAT:
            raise DataError(f"{path} is of format {meta['format']}, this drive reads {FORMAT}: convert the log again")
        return _log(path, meta, {name: batch.column(name)[0].values for name in batch.schema.names if name != "meta"}, images_root)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as a converted log ({str(error).splitlines()[0]}): convert it again") from error


def _log(path: Path, meta: Mapping[str, Any], columns: Mapping[str, Any], images_root: Path) -> Log:
    def array(name: str, *shape: int) -> Any:
        return columns[name].to_numpy(zero_copy_only=True).reshape(shape)

    steps, count = meta["steps"], len(meta["agents"])
    ego = EgoTrack(array("ego_poses", steps, 3), array("ego_velocity", steps, 2), array("ego_acceleration", steps, 2), array("ego_yaw_rate", steps))
    agents = BoxTracks(
        tuple(meta["agents"]),
        array("agent_types", count),
        array("agent_size", count, 3),
        array("box_step", -1),
        array("box_row", -1),
        array("box_poses", -1, 3),
        array("box_velocity", -1, 2),
    )
    matrices = array("camera_matrices", len(meta["cameras"]), 25)
    lights = None if meta["lights"] is None else Lights(tuple(meta["lights"]), array("light_states", len(meta["lights"]), steps))
    return Log(
        log_id=meta["log_id"],
        source=meta["source"],
        split=meta["split"],
        files=(path,),
        dt=meta["dt"],
        ego=ego,
        ego_size=tuple(meta["ego_size"]),
        agents=agents,
        origin=np.array(meta["origin"]),
        make_map=None if meta["map"] is None else partial(_road_map, meta["map"], columns),
        times=array("times", steps),
        lights=lights,
        cameras=tuple(
            Camera(name, width, height, row[:9].reshape(3, 3), row[9:].reshape(4, 4)) for (name, width, height), row in zip(meta["cameras"], matrices)
        ),
        images=_images(columns, len(meta["cameras"]), steps, images_root),
        language={int(step): tuple(Question(*words) for words in asked) for step, asked in meta["language"].items()},
        commands=tuple(map(Command, meta["commands"])),
        route=Route(
            tuple(meta["route"]["lane_ids"]),
            array("route_centerline", -1, 3),
            tuple((a, b, Command(name)) for a, b, name in meta["route"]["maneuvers"]),
            meta["route"]["matched"],
        ),
        presents=None if meta["presents"] is None else tuple(meta["presents"]),
        breaks=tuple(meta["breaks"]),
        group=meta["group"],
        faults=tuple(meta["faults"]),
        cut=meta.get("cut", False),
        sound=True,  # the file is what its name says
        notes=meta["notes"],
        step_notes=meta["step_notes"],
        teachers=array("teachers", steps, PLAN_STEPS, 3) if "teachers" in columns else None,
    )


def _images(columns: Mapping[str, Any], cameras: int, steps: int, root: Path) -> tuple[tuple[ImageRef | None, ...], ...]:
    paths = columns["image_paths"].to_pylist()
    spans = columns["image_spans"].to_numpy(zero_copy_only=True).reshape(-1, 6).tolist()
    refs = [ImageRef(root / name, span[0], span[1], (span[2], span[3]), (span[4], span[5])) if name else None for name, span in zip(paths, spans)]
    return tuple(tuple(refs[c * steps : (c + 1) * steps]) for c in range(cameras))


def _road_map(meta: Mapping[str, Any], columns: Mapping[str, Any]) -> RoadMap:
    def array(name: str, width: int) -> Any:
        flat = columns[name].to_numpy(zero_copy_only=True)
        return flat if width == 1 else flat.reshape(-1, width)

    rows, lanes, at = array("lane_points", 7), {}, 0
    for count, *words in meta["lanes"]:
        part, at = rows[at : at + count], at + count
        text: dict[str, Any] = {name: tuple(word) if isinstance(word, list) else word for name, word in zip(LANE_TEXT, words)}
        lanes[text["id"]] = Lane(centerline=part[:, :3], left=part[:, 3:5], right=part[:, 5:7], **text)
    polygons = Polygons(tuple(meta["tokens"]), array("polygon_layers", 1).astype(np.int8), array("polygon_vertices", 2), array("polygon_offsets", 1))
    return RoadMap(meta["name"], lanes, polygons)
