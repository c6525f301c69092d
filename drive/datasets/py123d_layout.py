"""Names and numbers of py123d's data format, version 0.7.0 (Apache-2.0, github.com/autonomousvision/py123d), as its package has them.

A data root holds `logs/SPLIT/LOG/*.arrow`, SPLIT being DATASET_train, DATASET_val or DATASET_test, and `maps/DATASET/DATASET_LOCATION.arrow`
where a map serves several logs (a log's own is its `map.arrow`). `sync.arrow` has a row for each frame: its time, and the row of every other file
that belongs to it. Poses are x, y, z, qw, qx, qy, qz in metres in a global frame with z up; the vehicle's frame is forward, left, up.
"""

from __future__ import annotations

import uuid

from drive.core.types import AgentType, LightState

VERSION = "0.7.0"
SYNC, EGO, BOXES, LIGHTS, MAP = "sync", "ego_state_se3", "box_detections_se3", "traffic_light_detections", "map"
NAMESPACE = uuid.UUID("123D123D-123D-123D-123D-123D123D123D")  # of the uuid of a frame (common/utils/uuid_utils.py)

# Layers of a map (datatypes/map_objects/map_layer_types.py)
LANE, LANE_GROUP, INTERSECTION, CROSSWALK, WALKWAY, CARPARK, GENERIC_DRIVABLE, STOP_ZONE, ROAD_EDGE, ROAD_LINE, SPEED_BUMP = range(11)
LAYERS = ("lanes", "lane groups", "intersections", "crosswalks", "walkways", "carparks", "drivable areas", "stop zones", "road edges", "road lines", "speed bumps")
UNDEFINED_LANE, BIKE_LANE = 0, 3  # of a lane's type
DEFAULT_INTERSECTION = 0

# TrafficLightStatus (datatypes/detections/traffic_light_detections.py); OFF says nothing that a LightState has a word for
STATES = (LightState.GREEN, LightState.YELLOW, LightState.RED, LightState.UNKNOWN, LightState.UNKNOWN)
STATUS = {LightState.GREEN: 0, LightState.YELLOW: 1, LightState.RED: 2, LightState.UNKNOWN: 4}

# Labels of boxes: each data set has its own, and they carry over to common ones (to_default in parser/registry.py), which carry over to AgentType:
# trains are vehicles; animals, signs, lights and the rest are objects; a box of the ego is none.
LETTERS = {
    "v": AgentType.VEHICLE, "p": AgentType.PEDESTRIAN, "b": AgentType.BICYCLE, "c": AgentType.TRAFFIC_CONE, "r": AgentType.BARRIER, "g": AgentType.GENERIC_OBJECT,
}  # fmt: skip
EGO_LETTER = "e"
LABELS = {  # class: a letter for each label, from 0 on
    "DefaultBoxDetectionLabel": "evvbpggcgrgg",
    "AV2SensorBoxDetectionLabel": "gvbprvvccgvvgbpppvvvgggvvvvggp",
    "KITTI360BoxDetectionLabel": "bgvvvgbpgpggggvvgvg",
    "NuPlanBoxDetectionLabel": "vbpcrgg",
    "NureasoningBoxDetectionLabel": "vbpcgggvvbbpc",
    "NuScenesBoxDetectionLabel": "vvvvvvvvbbpppppppcrgggg",
    "PandasetBoxDetectionLabel": "ggbvvcgvvbbvvvppgvcrgvgrvvv",
    "WODPerceptionBoxDetectionLabel": "gvpgb",
    "WODMotionBoxDetectionLabel": "gvpbg",
    "PhysicalAIAVBoxDetectionLabel": "vpvvvgbgvgvv",
    "GriffinBoxDetectionLabel": "pvvvbb",
    "TruckDriveBoxDetectionLabel": "bvprvvvgv",
}
LABEL_CLASS = "py123d.datatypes.detections.box_detection_label.DefaultBoxDetectionLabel"  # that is written
LABEL = {
    AgentType.VEHICLE: 1, AgentType.BICYCLE: 3, AgentType.PEDESTRIAN: 4, AgentType.TRAFFIC_CONE: 7, AgentType.BARRIER: 9, AgentType.GENERIC_OBJECT: 10,
}  # fmt: skip

# CameraID of pinhole cameras (datatypes/sensors/base_camera.py)
CAMERAS = {
    "pcam_f0": 0, "pcam_b0": 1, "pcam_l0": 2, "pcam_l1": 3, "pcam_l2": 4, "pcam_r0": 5, "pcam_r1": 6, "pcam_r2": 7, "pcam_stereo_l": 8, "pcam_stereo_r": 9, "pcam_d0": 19,
}  # fmt: skip
