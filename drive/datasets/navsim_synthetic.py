"""Second-stage scenes of NAVSIM v2 (`synthetic_scene_pickles/*.pkl`): four frames at 2 Hz of a world that was rendered where a plan might have led.

Source: NAVSIM v2.2, Scene.save_to_disk and load_from_disk, NavSimScenario. A file is a dict of `scene_metadata`, `frames` and what goes on
around the ego after them, half a second apart: `extended_detections_tracks` and `extended_traffic_light_data`, objects of nuPlan's classes, of
which the names alone are admitted and no code is run. There is no ego after the last frame, so nothing here was driven. Frames come back with
the keys of a log pickle. Nothing tells how the ego is tilted: places are flat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import relative
from drive.core.roadmap import RoadMap
from drive.datasets.unpickle import Record, load_plain_bytes, record_kinds

Array = NDArray[np.float64]
FOLDER = "synthetic_scene_pickles"
SENSORS = ("synthetic_sensor_blobs", "sensor_blobs")  # beside FOLDER, one of them
NAMES = ("vehicle", "pedestrian", "bicycle", "traffic_cone", "barrier", "czone_sign", "generic_object", "ego")  # by nuPlan's TrackedObjectType
RED = 2  # of nuPlan's TrafficLightStatusType
_STATE = "nuplan.common.actor_state."
RECORDS = record_kinds(
    {
        "nuplan.planning.simulation.observation.observation_type": ("DetectionsTracks",),
        f"{_STATE}tracked_objects": ("TrackedObjects",),
        f"{_STATE}agent": ("Agent",),
        f"{_STATE}static_object": ("StaticObject",),
        f"{_STATE}scene_object": ("SceneObject", "SceneObjectMetadata"),
        f"{_STATE}oriented_box": ("OrientedBox", "OrientedBoxPointType", "Dimension"),
        f"{_STATE}state_representation": ("Point2D", "StateSE2", "StateVector2D", "TimePoint", "TimeDuration"),
        f"{_STATE}tracked_objects_types": ("TrackedObjectType",),
        f"{_STATE}waypoint": ("Waypoint",),
        "nuplan.planning.simulation.trajectory.predicted_trajectory": ("PredictedTrajectory",),
        "nuplan.common.maps.maps_datatypes": ("TrafficLightStatuses", "TrafficLightStatusData", "TrafficLightStatusType"),
        "shapely.io": ("from_wkb",),  # boxes keep the outline that was once asked of them
        "pathlib": ("PosixPath", "PurePosixPath"),
    }
)


@dataclass(frozen=True)
class SyntheticScene:
    """One file."""

    token: str  # of its present frame: what split files name it by
    log_name: str  # of the drive that it was made from
    city: str
    original: str  # token of the logged frame at the same time
    history: int  # frames up to the present
    frames: tuple[Mapping[str, Any], ...]  # with the keys of a log pickle
    later: tuple[Mapping[str, Any], ...]  # what stands around the last frame's ego 0.5, 1.0 ... s after it: anns and traffic_lights
    digest: str  # sha256 of the file


def read_synthetic(path: Path) -> SyntheticScene:
    """One scene. Raises DataError, naming file and frame, on what is none, or asks for other classes than nuPlan's data."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    scene = load_plain_bytes(content, str(path), RECORDS)
    try:
        meta, history = scene["scene_metadata"], int(scene["scene_metadata"]["num_history_frames"])
        named = {key: str(meta[key]) for key in ("initial_token", "log_name", "map_name")}
        frames = tuple(_frame(path, k, frame, named) for k, frame in enumerate(scene["frames"]))
        tracks, lights = (list(scene[key] or ()) for key in ("extended_detections_tracks", "extended_traffic_light_data"))
        original = str(meta.get("corresponding_original_scene") or "")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no second-stage scene of NAVSIM ({error!r})") from error
    if not 1 <= history <= len(frames):
        raise DataError(f"{path} has {len(frames)} frames, and names {history} of them its history")
    frames[history - 1]["token"] = named["initial_token"]
    later = tuple(_later(path, k, frames[-1], tracks[k : k + 1], lights[k : k + 1]) for k in range(max(len(tracks), len(lights))))
    return SyntheticScene(
        named["initial_token"], named["log_name"], named["map_name"], original, history, frames, later, hashlib.sha256(content).hexdigest()
    )


def _frame(path: Path, k: int, frame: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """A frame as a log pickle has it."""
    ego = frame["ego_status"]
    if not ego["in_global_frame"]:
        raise DataError(f"{path}: the ego of frame {k} is not given in the map's frame")
    x, y, turn = (float(value) for value in ego["ego_pose"])
    boxes = frame["annotations"]
    return {
        "token": str(frame["token"]), "timestamp": int(np.int64(int(frame["timestamp"]))), "log_name": named["log_name"], "map_location": named["map_name"],
        "roadblock_ids": [str(block) for block in frame["roadblock_ids"]], "traffic_lights": list(frame["traffic_lights"]),
        "ego2global_translation": [x, y, 0.0], "ego2global_rotation": [np.cos(turn / 2.0), 0.0, 0.0, np.sin(turn / 2.0)],
        "ego_dynamic_state": [*map(float, ego["ego_velocity"]), *map(float, ego["ego_acceleration"])],
        "driving_command": ego["driving_command"],
        "anns": {"gt_boxes": boxes["boxes"], "gt_names": boxes["names"], "gt_velocity_3d": boxes["velocity_3d"], "track_tokens": boxes["track_tokens"]},
        "cams": {name.upper(): {**camera, "data_path": _text(camera["data_path"])} for name, camera in frame["camera_dict"].items() if camera},
    }  # fmt: skip


def _text(name: Any) -> str:
    return "/".join(map(str, name.args)) if isinstance(name, Record) else str(name)


def _later(path: Path, k: int, last: Mapping[str, Any], tracks: Sequence[Any], lights: Sequence[Any]) -> dict[str, Any]:
    """What stands around after the last frame, as a log pickle would have it in that frame's ego frame."""
    try:
        objects = [found for track in tracks for found in track.fields["tracked_objects"].fields["tracked_objects"]]
        seen = [found for found in objects if _kind(found) != "ego"]
        world = np.array([_box(found) for found in seen], np.float64).reshape(-1, 8)
        signals = [signal.fields for statuses in lights for signal in statuses.fields["traffic_lights"]]
        red = [(str(signal["lane_connector_id"]), int(signal["status"].args[0]) == RED) for signal in signals]
        tokens, kinds = [str(found.fields["_metadata"].fields["track_token"]) for found in seen], [_kind(found) for found in seen]
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{path}: what is seen {(k + 1) / 2:g} s after the last frame wants nuPlan's tracked objects and lights ({error!r})") from error
    turn = 2.0 * np.arctan2(last["ego2global_rotation"][3], last["ego2global_rotation"][0])
    ego = np.array([*last["ego2global_translation"][:2], turn])
    local = relative(ego, world[:, :3]).reshape(-1, 3)
    c, s = np.cos(turn), np.sin(turn)
    speed = world[:, 6:] @ np.array([[c, -s], [s, c]])
    flat = np.zeros(len(seen))
    return {
        "traffic_lights": red,
        "anns": {
            "gt_boxes": np.column_stack([local[:, :2], flat, world[:, 3:6], local[:, 2]]), "gt_names": kinds,
            "gt_velocity_3d": np.column_stack([speed, flat]), "track_tokens": tokens,
        },
    }  # fmt: skip


def _kind(found: Record) -> str:
    kind = int(found.fields["_tracked_object_type"].args[0])
    if kind < 0:
        raise IndexError(f"TrackedObjectType {kind}")
    return NAMES[kind]


def _box(found: Record) -> list[float]:
    """x, y, heading, length, width, height, velocity of a tracked object, in the map's frame."""
    box, speed = found.fields["_box"].fields, found.fields.get("_velocity")  # static objects have none
    centre, moving = box["_center"].fields, speed.fields if isinstance(speed, Record) else {"_x": 0.0, "_y": 0.0}
    values = [centre["x"], centre["y"], centre["heading"], box["_length"], box["_width"], box["_height"], moving["_x"], moving["_y"]]
    return [float(value) for value in values]


def planned_lanes(road_map: RoadMap, roadblocks: Sequence[str], pose: Array) -> tuple[str, ...]:
    """The fewest lanes from the one at `pose` (3,) to the farthest of the route's roadblocks that they lead to; empty where the map has none of it.

    A scene that was not driven on has no lanes under its drive.
    """
    order = {block: index for index, block in enumerate(dict.fromkeys(roadblocks))}
    inside = tuple(key for key, lane in road_map.lanes.items() if lane.roadblock in order)
    if not inside:
        return ()
    start = road_map.nearest_lane(pose, among=inside)
    came: dict[str, str] = {start: ""}
    queue = [start]
    for key in queue:
        for other in road_map.lanes[key].successors:
            if other in road_map.lanes and road_map.lanes[other].roadblock in order and other not in came:
                came[other] = key
                queue.append(other)
    path = [max(queue, key=lambda key: (order[road_map.lanes[key].roadblock], -queue.index(key)))]
    while came[path[-1]]:
        path.append(came[path[-1]])
    return tuple(reversed(path))
