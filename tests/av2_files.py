"""A small Argoverse 2 log of known content, on a straight road; needs pyarrow."""

import json
import math

import numpy as np

STEPS, SPEED, START = 100, 6.0, 10**18
HEADING, X, Y = 0.3, 2000.0, 500.0  # of the road and where it starts


def turned(angle):
    return {"qw": math.cos(angle / 2), "qx": 0.0, "qy": 0.0, "qz": math.sin(angle / 2)}


def at(s, left=0.0):
    """City position `s` m along the road and `left` m beside it."""
    c, n = math.cos(HEADING), math.sin(HEADING)
    return X + c * s - n * left, Y + n * s + c * left


def points(s_values, left):
    return [dict(zip("xyz", (*at(s, left), 0.0))) for s in s_values]


def lane(token, s0, s1, left, **changes):
    s = np.linspace(s0, s1, 5)
    record = {
        "id": token, "is_intersection": False, "lane_type": "VEHICLE", "left_lane_boundary": points(s, left + 1.75), "right_lane_boundary": points(s, left - 1.75),
        "left_lane_mark_type": "DASHED_WHITE", "right_lane_mark_type": "DASHED_WHITE", "successors": [], "predecessors": [],
        "left_neighbor_id": None, "right_neighbor_id": None,
    }  # fmt: skip
    return {**record, **changes}


def archive():
    lanes = [
        lane(1, -50, 40, 0.0, successors=[2], left_neighbor_id=3),
        lane(2, 40, 60, 0.0, is_intersection=True, successors=[4, 99], predecessors=[1]),
        lane(3, -50, 40, 3.5, right_neighbor_id=1, right_lane_mark_type="SOLID_WHITE"),
        lane(4, 60, 150, 0.0, predecessors=[2]),
        lane(5, -50, 150, -4.0, lane_type="BIKE"),
    ]
    area = points((-60, 160), 6.0) + points((160, -60), -6.0)
    return {"lane_segments": {str(r["id"]): r for r in lanes}, "drivable_areas": {"7": {"id": 7, "area_boundary": area}}, "pedestrian_crossings": {}}


def write(folder, tilt=0.0):
    """A log: the ego drives at SPEED; a car 20 m ahead keeps pace; a cone stands; the ego's own box is among them."""
    import pyarrow as pa
    from pyarrow import feather

    (folder / "map").mkdir(parents=True)
    (folder / "map" / f"log_map_archive_{folder.name}____PIT_city_1.json").write_text(json.dumps(archive()))
    fine = [START + 5_000_000 * k for k in range(20 * STEPS + 40)]  # 200 Hz
    poses = []
    for stamp in fine:
        x, y = at(SPEED * (stamp - START) * 1e-9)
        poses.append({"timestamp_ns": stamp, **turned(HEADING), "tx_m": x, "ty_m": y, "tz_m": 5.0})
    boxes = []
    for k in range(STEPS):
        stamp, own = START + 100_000_000 * k, SPEED * 0.1 * k
        seen = [("car", "REGULAR_VEHICLE", 20.0, 0.0, 4.5), ("cone", "CONSTRUCTION_CONE", 30.0 - own, 3.0, 0.4), ("ego", "EGO_VEHICLE", 1.4, 0.0, 4.8)]
        for token, kind, ahead, left, length in seen:
            size = {"length_m": length, "width_m": 0.4 * length, "height_m": 1.0}
            boxes.append({"timestamp_ns": stamp, "track_uuid": token, "category": kind, **size, **turned(tilt), "tx_m": ahead, "ty_m": left, "tz_m": 0.5})
    feather.write_feather(pa.Table.from_pylist(poses), folder / "city_SE3_egovehicle.feather")
    feather.write_feather(pa.Table.from_pylist(boxes), folder / "annotations.feather")
    return folder
