"""Cameras of an Argoverse 2 sensor log: calibration, and the image of each frame.

Argoverse's vehicle frame stands at the centre of the rear axle, AXLE_HEIGHT above the ground (measured against the lane boundaries of three
logs: 0.31 to 0.33 m); ours stands on the ground. Ring cameras run at 20 Hz, twice the rate of the boxes; a frame takes the last image not
after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import transform
from drive.core.types import Camera
from drive.datasets.logs import ImageRef

INTRINSICS, EXTRINSICS = "calibration/intrinsics.feather", "calibration/egovehicle_SE3_sensor.feather"
AXLE_HEIGHT = 0.32  # m
OLDEST = 60_000_000  # ns between a frame and its image
LENS = ("fx_px", "fy_px", "cx_px", "cy_px", "height_px", "width_px")
POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")

Columns = Callable[[Path, Sequence[str]], dict[str, Any]]


def calibration(folder: Path, channels: Sequence[str], columns: Columns) -> tuple[Camera, ...]:
    """The chosen cameras; `columns` reads a feather file. Raises DataError, naming the file, on an unknown one, and on cameras of several sizes."""
    lens, poses = columns(folder / INTRINSICS, ("sensor_name", *LENS)), columns(folder / EXTRINSICS, ("sensor_name", *POSE))
    cameras = []
    for channel in channels:
        at, placed = (list(table["sensor_name"]).index(channel) if channel in table["sensor_name"] else -1 for table in (lens, poses))
        if min(at, placed) < 0:
            raise DataError(f"{folder / INTRINSICS}: no camera {channel}; it has {', '.join(lens['sensor_name'])}")
        fx, fy, cx, cy, height, width = (float(lens[name][at]) for name in LENS)
        pose = transform(np.array([poses[name][placed] for name in POSE[:4]]), np.array([poses[name][placed] for name in POSE[4:]]))
        pose[2, 3] += AXLE_HEIGHT
        cameras.append(Camera(channel, int(width), int(height), np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), pose))
    if len({(camera.width, camera.height) for camera in cameras}) > 1:
        raise DataError(f"{folder / INTRINSICS}: {', '.join(channels)} are not of one size: choose cameras that are")
    return tuple(cameras)


def images(folder: Path, channels: Sequence[str], stamps: NDArray[np.int64]) -> tuple[tuple[ImageRef | None, ...], ...]:
    """Of each camera its image at each frame, stamps (S,) in ns; None where there is none. Raises DataError on a camera without any."""
    return tuple(_images(folder / "sensors" / "cameras" / channel, stamps) for channel in channels)


def _images(folder: Path, stamps: NDArray[np.int64]) -> tuple[ImageRef | None, ...]:
    taken = {int(path.stem): path for path in folder.glob("*.jpg") if path.stem.isdigit()}
    if not taken:
        raise DataError(f"{folder} holds no image: fetch them, or let dataset.cameras=[] render")
    times = np.array(sorted(taken), np.int64)
    last = np.searchsorted(times, stamps, side="right") - 1
    return tuple(
        ImageRef(taken[int(times[k])]) if k >= 0 and stamp - times[k] <= OLDEST else None for k, stamp in zip(last.tolist(), stamps.tolist())
    )
