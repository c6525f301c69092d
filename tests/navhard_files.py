"""Second-stage scenes of NAVSIM v2 as Scene.save_to_disk writes them, with stand-ins of nuPlan's classes that pickle under the published names."""

import hashlib
import math
import pickle
import sys
from contextlib import contextmanager
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import ModuleType

import numpy as np
import yaml

from drive.core.geometry import wrap_angle

STATE = "nuplan.common.actor_state."


class Point2D:
    __slots__ = "x", "y"

    def __init__(self, x, y):
        self.x, self.y = x, y


class StateSE2(Point2D):
    __slots__ = ("heading",)

    def __init__(self, x, y, heading):
        super().__init__(x, y)
        self.heading = heading


class StateVector2D:
    __slots__ = "_array", "_x", "_y"

    def __init__(self, x, y):
        self._x, self._y, self._array = x, y, np.array([x, y])


class TimePoint:
    __slots__ = ("time_us",)

    def __init__(self, time_us):
        self.time_us = time_us


class OrientedBox:
    def __init__(self, center, length, width, height):
        self._center, self._length, self._width, self._height = center, length, width, height


class TrackedObjectType(Enum):
    VEHICLE, PEDESTRIAN, BICYCLE, TRAFFIC_CONE, BARRIER, CZONE_SIGN, GENERIC_OBJECT, EGO = range(8)


class SceneObjectMetadata:
    def __init__(self, timestamp_us, token, track_id, track_token):
        self.timestamp_us, self.token, self.track_id, self.track_token, self.category_name = timestamp_us, token, track_id, track_token, None


class StaticObject:
    def __init__(self, kind, box, metadata):
        self._metadata, self.instance_token, self._tracked_object_type, self._box = metadata, None, kind, box
        self.predictions, self.past_trajectory, self.velocity = None, None, StateVector2D(0.0, 0.0)


class Agent:
    def __init__(self, kind, box, velocity, metadata):
        self._metadata, self.instance_token, self._tracked_object_type, self._box = metadata, None, kind, box
        self._velocity, self._angular_velocity, self._initial_time_stamp, self._predictions = velocity, None, TimePoint(0), []


class TrackedObjects:
    def __init__(self, tracked_objects):
        self.tracked_objects = tracked_objects
        self._ranges_per_type = {TrackedObjectType.VEHICLE: (0, len(tracked_objects))}


class DetectionsTracks:
    def __init__(self, tracked_objects):
        self.tracked_objects = tracked_objects


class TrafficLightStatusType(IntEnum):
    GREEN, YELLOW, RED, UNKNOWN = range(4)


class TrafficLightStatusData:
    def __init__(self, status, lane_connector_id, timestamp):
        self.status, self.lane_connector_id, self.timestamp = status, lane_connector_id, timestamp


class TrafficLightStatuses:
    def __init__(self, traffic_lights):
        self.traffic_lights = traffic_lights


HOMES = {
    f"{STATE}state_representation": (Point2D, StateSE2, StateVector2D, TimePoint), f"{STATE}oriented_box": (OrientedBox,),
    f"{STATE}tracked_objects_types": (TrackedObjectType,), f"{STATE}scene_object": (SceneObjectMetadata,), f"{STATE}static_object": (StaticObject,),
    f"{STATE}agent": (Agent,), f"{STATE}tracked_objects": (TrackedObjects,),
    "nuplan.planning.simulation.observation.observation_type": (DetectionsTracks,),
    "nuplan.common.maps.maps_datatypes": (TrafficLightStatusType, TrafficLightStatusData, TrafficLightStatuses),
}  # fmt: skip


@contextmanager
def nuplan():
    """nuPlan's modules, for as long as something is pickled."""
    before = dict(sys.modules)
    for home, kinds in HOMES.items():
        for depth in range(1, home.count(".") + 2):
            name = ".".join(home.split(".")[:depth])
            sys.modules.setdefault(name, ModuleType(name))
        for kind in kinds:
            kind.__module__ = home
            setattr(sys.modules[home], kind.__name__, kind)
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            if name.startswith("nuplan"):
                del sys.modules[name]


def tracked(token, kind, pose, size, velocity=(0.0, 0.0)):
    """An object in the map's frame, as extended_detections_tracks hold it."""
    box, metadata = OrientedBox(StateSE2(*map(float, pose)), *map(float, size)), SceneObjectMetadata(0, f"{token}-x", None, token)
    if kind in (TrackedObjectType.VEHICLE, TrackedObjectType.PEDESTRIAN, TrackedObjectType.BICYCLE, TrackedObjectType.EGO):
        return Agent(kind, box, StateVector2D(*map(float, velocity)), metadata)
    return StaticObject(kind, box, metadata)


def seen_in(frame):
    """The boxes of a log's frame as tracked objects of the map's frame."""
    q, place = frame["ego2global_rotation"], np.asarray(frame["ego2global_translation"])
    turn = 2.0 * math.atan2(q[3], q[0])
    c, s = math.cos(turn), math.sin(turn)
    rotation, out = np.array([[c, -s], [s, c]]), []
    anns = frame["anns"]
    for box, name, speed, token in zip(anns["gt_boxes"], anns["gt_names"], anns["gt_velocity_3d"], anns["track_tokens"]):
        pose = [*(rotation @ box[:2] + place[:2]), wrap_angle(box[6] + turn)]
        out.append(tracked(token, TrackedObjectType[str(name).upper()], pose, box[3:6], rotation @ speed[:2]))
    return out


def synthetic(frames, token, later=(), lights=(), left=0.0, camera=True, history=4):
    """A scene of a log's frames, the last one the present, moved `left` m; `later` are lists of tracked objects, `lights` of (connector, status)."""
    out = []
    for frame in frames:
        q = frame["ego2global_rotation"]
        turn = 2.0 * math.atan2(q[3], q[0])
        x, y = np.asarray(frame["ego2global_translation"])[:2] + left * np.array([-math.sin(turn), math.cos(turn)])
        anns, boxes = frame["anns"], np.array(frame["anns"]["gt_boxes"], np.float32)
        boxes[:, 1] -= left
        path = PurePosixPath(frame["cams"]["CAM_F0"]["data_path"]) if camera else None
        out.append({
            "token": f"{frame['token']}+", "timestamp": frame["timestamp"], "roadblock_ids": frame["roadblock_ids"], "traffic_lights": frame["traffic_lights"],
            "annotations": {
                "boxes": boxes, "names": list(map(str, anns["gt_names"])), "velocity_3d": np.array(anns["gt_velocity_3d"], np.float32),
                "instance_tokens": list(anns["instance_tokens"]), "track_tokens": list(anns["track_tokens"]),
            },
            "ego_status": {
                "ego_pose": np.array([x, y, turn]), "ego_velocity": np.array(frame["ego_dynamic_state"][:2], np.float32),
                "ego_acceleration": np.array(frame["ego_dynamic_state"][2:], np.float32), "driving_command": frame["driving_command"], "in_global_frame": True,
            },
            "lidar_path": None, "camera_dict": {"cam_f0": {**frame["cams"]["CAM_F0"], "data_path": path} if camera else {}, "cam_b0": {}},
        })  # fmt: skip
    tracks = [DetectionsTracks(TrackedObjects(list(objects))) for objects in later]
    signals = [TrafficLightStatuses([TrafficLightStatusData(TrafficLightStatusType[s], lane, TimePoint(0)) for lane, s in step]) for step in lights]
    return {
        "scene_metadata": {
            "log_name": frames[0]["log_name"], "scene_token": hashlib.md5(token.encode()).hexdigest()[:17], "map_name": frames[0]["map_location"], "initial_token": token,
            "num_history_frames": history, "num_future_frames": 0, "corresponding_original_scene": frames[-1]["token"],
            "corresponding_original_initial_token": frames[0]["token"],
        },
        "frames": out, "extended_traffic_light_data": signals or None, "extended_detections_tracks": tracks or None,
    }  # fmt: skip


def write_synthetic(folder, scene):
    """The file as NAVSIM names it: by scene_token, which no split file knows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scene['scene_metadata']['scene_token']}.pkl"
    with nuplan():
        path.write_bytes(pickle.dumps(scene, protocol=5))
    return path


def write_split(folder, name, log_names, tokens, groups):
    """A filter and its mapping where NAVSIM keeps them; gives the filter."""
    (folder / "scene_filter").mkdir(parents=True, exist_ok=True)
    second = [token for _, _, pairs in groups for pair in pairs for token in pair]
    content = {"num_history_frames": 4, "num_future_frames": 8, "has_route": True, "include_synthetic_scenes": True, "log_names": list(log_names)}
    path = folder / "scene_filter" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**content, "tokens": list(tokens), "reactive_synthetic_initial_tokens": second}))
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"data_split": "test", "reactive_all_mapping": [[a, b, [list(pair) for pair in pairs]] for a, b, pairs in groups]}))
    return path
