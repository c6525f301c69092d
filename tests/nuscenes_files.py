"""Small nuScenes tables of known content: a car that drives along x at 5 m/s, another one 20 m ahead at the same speed."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

VERSION = "v1.0-mini"
SPEED, SAMPLES = 5.0, 14
LIDAR_TURN = [math.sqrt(0.5), 0.0, 0.0, -math.sqrt(0.5)]  # the lidar's y axis points ahead
CAMERA_TURN = [0.5, -0.5, 0.5, -0.5]  # optical axis ahead


def quaternion(heading: float) -> list[float]:
    return [math.cos(heading / 2), 0.0, 0.0, math.sin(heading / 2)]


def tables(scenes=("scene-0103", "scene-0916"), heading: float = 0.3) -> dict[str, list[dict]]:
    """All tables; scene i starts at (1000 i, 500) m."""
    out: dict[str, list[dict]] = {
        "sensor": [{"token": "s-lidar", "channel": "LIDAR_TOP"}, {"token": "s-cam", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [
            {"token": "c-lidar", "sensor_token": "s-lidar", "translation": [1.0, 0.0, 1.8], "rotation": LIDAR_TURN, "camera_intrinsic": []},
            {
                "token": "c-cam", "sensor_token": "s-cam", "translation": [1.7, 0.0, 1.5], "rotation": CAMERA_TURN,
                "camera_intrinsic": [[40.0, 0.0, 32.0], [0.0, 40.0, 18.0], [0.0, 0.0, 1.0]],
            },
        ],
        "category": [{"token": "k-car", "name": "vehicle.car"}, {"token": "k-ped", "name": "human.pedestrian.adult"}],
        "log": [{"token": "log", "logfile": "n000", "location": "boston-seaport"}],
        "scene": [], "sample": [], "sample_data": [], "ego_pose": [], "sample_annotation": [], "instance": [],
    }  # fmt: skip
    for i, name in enumerate(scenes):
        out["scene"].append(
            {"token": f"{name}", "name": name, "log_token": "log", "nbr_samples": SAMPLES, "first_sample_token": f"{name}-0", "last_sample_token": ""}
        )
        for kind in ("car", "ped"):
            out["instance"].append({"token": f"{name}-{kind}", "category_token": f"k-{kind}", "nbr_annotations": SAMPLES})
        for k in range(SAMPLES):
            s, stamp = SPEED * 0.5 * k, 1_500_000_000_000_000 + i * 10**9 + 500_000 * k
            x, y = 1000.0 * i + 0.25 + s * math.cos(heading), 500.5 + s * math.sin(heading)
            token = f"{name}-{k}"
            out["sample"].append({"token": token, "timestamp": stamp, "next": f"{name}-{k + 1}" if k + 1 < SAMPLES else "", "scene_token": name})
            out["ego_pose"].append({"token": f"e-{token}", "timestamp": stamp, "rotation": quaternion(heading), "translation": [x, y, 0.0]})
            for channel, calibrated, file in (("lidar", "c-lidar", "bin"), ("cam", "c-cam", "jpg")):
                out["sample_data"].append(
                    {
                        "token": f"{channel}-{token}", "sample_token": token, "ego_pose_token": f"e-{token}", "calibrated_sensor_token": calibrated,
                        "is_key_frame": True, "filename": f"samples/{channel}-{token}.{file}", "height": 36, "width": 64, "timestamp": stamp,
                    }
                )
            ahead = [x + 20.0 * math.cos(heading), y + 20.0 * math.sin(heading), 0.8]
            for kind, place, size in (("car", ahead, [1.9, 4.6, 1.6]), ("ped", [1000.0 * i, 510.0, 0.9], [0.6, 0.5, 1.8])):
                out["sample_annotation"].append(
                    {
                        "token": f"a-{kind}-{token}", "sample_token": token, "instance_token": f"{name}-{kind}", "translation": place, "size": size,
                        "rotation": quaternion(heading), "num_lidar_pts": 5, "visibility_token": "4", "attribute_tokens": [], "prev": "", "next": "",
                    }
                )
    return out


def write(root: Path, content: dict[str, list[dict]], can_bus: bool = False, images: bool = False, steady: bool = False) -> Path:
    """The dataset folder. can_bus: with messages that grow faster and turn; steady: with messages that tell the true motion."""
    (root / VERSION).mkdir(parents=True, exist_ok=True)
    for name, records in content.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(records))
    if images:
        (root / "samples").mkdir(exist_ok=True)
        for k, record in enumerate(r for r in content["sample_data"] if r["filename"].endswith("jpg")):
            Image.fromarray(np.full((36, 64, 3), 10 + k, np.uint8)).save(root / record["filename"])
    if can_bus or steady:
        (root / "can_bus").mkdir(exist_ok=True)
        for i, scene in enumerate(content["scene"]):
            start = 1_500_000_000_000_000 + i * 10**9
            messages = [
                {
                    "utime": start + 20_000 * m,
                    "vel": [SPEED + (0.0 if steady else 0.01 * m), 0.0, 0.0],
                    "accel": [0.0 if steady else 0.5, 0.0, 9.8],
                    "rotation_rate": [0.0, 0.0, 0.0 if steady else 0.02],
                }
                for m in range(-10, 400)
            ]
            (root / "can_bus" / f"{scene['name']}_pose.json").write_text(json.dumps(messages))
    return root
