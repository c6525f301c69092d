"""Waymo's `Frame` message (dataset.proto), which perception segments and end-to-end frames share: cameras and where their JPEGs stand.

Waymo's camera frame looks along its x axis, z up; ours is the optical one, z ahead and y down. The cameras of one car differ in size (1920 x 1280
ahead, 1920 x 886 at the sides), and an Observation has one: images are filled with black rows and columns below and to the right, which changes
no calibration. A Camera is a pinhole, Waymo's lenses are not quite: `distortion` in notes holds k1, k2, p1, p2, k3 as OpenCV has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.types import Camera
from drive.datasets.logs import ImageRef
from drive.datasets.tfrecord import Record
from drive.datasets.waymo_wire import Message

Array = NDArray[np.float64]
CONTEXT, TIMESTAMP, POSE, IMAGES, LASERS, LABELS, FEATURES, MAP_OFFSET = 1, 2, 3, 4, 5, 6, 10, 11  # fields of Frame
NAMES = {1: "FRONT", 2: "FRONT_LEFT", 3: "FRONT_RIGHT", 4: "SIDE_LEFT", 5: "SIDE_RIGHT", 6: "REAR_LEFT", 7: "REAR", 8: "REAR_RIGHT"}
CAMERA_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
MAX_SIDE = 8192  # pixels


@dataclass(frozen=True)
class Rig:
    """The calibrated cameras of one car, brought to one size."""

    cameras: tuple[Camera, ...]
    sizes: tuple[tuple[int, int], ...]  # recorded width and height of each
    distortion: dict[str, list[float]]

    def ref(self, camera: int, path: Path, span: tuple[int, int]) -> ImageRef:
        """The image of `camera` at bytes `span` of the file."""
        whole = self.cameras[camera]
        return ImageRef(path, span[0], span[1] - span[0], self.sizes[camera], (whole.width, whole.height))


def transform(message: Message) -> Array:
    """(4, 4) of a Transform, 16 doubles in row order. Raises DataError on another count, NaN, and what is no rigid motion."""
    values = message.reals(1, 8)
    if values.size != 16 or not np.isfinite(values).all():
        raise DataError(f"{message.where}: a transform has {values.size} finite numbers, want 16" if values.size != 16 else f"{message.where}: a transform has NaN")
    matrix = values.reshape(4, 4)
    if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-2):
        raise DataError(f"{message.where}: a transform is no rotation and translation")
    return matrix


def read_rig(frame: Message, wanted: Sequence[str] = ()) -> Rig:
    """The cameras of a Frame, those `wanted` alone in their order, all if empty. Raises DataError where one is absent or faulty."""
    found: dict[str, tuple[Camera, tuple[int, int], list[float]]] = {}
    for item in frame.message(CONTEXT).messages(2):
        name = NAMES.get(item.integer(1), f"CAMERA_{item.integer(1)}")
        lens, size = item.reals(2, 8), (item.integer(4), item.integer(5))
        if lens.size < 4 or not np.isfinite(lens).all() or not all(0 < side <= MAX_SIDE for side in size):
            raise DataError(f"{frame.where}: the calibration of camera {name} is incomplete ({lens.size} intrinsics, {size[0]} x {size[1]} pixels)")
        intrinsics = np.array([[lens[0], 0.0, lens[2]], [0.0, lens[1], lens[3]], [0.0, 0.0, 1.0]])
        pose = transform(item.message(3)) @ CAMERA_FROM_OPTICAL
        found[name] = Camera(name, *size, intrinsics, pose), size, lens[4:].tolist()
    names = tuple(wanted) or tuple(name for name in NAMES.values() if name in found)
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{frame.where} has no calibration of camera {', '.join(missing)}: it has {', '.join(found) or 'none'}")
    sizes = tuple(found[name][1] for name in names)
    width, height = (max((size[k] for size in sizes), default=0) for k in (0, 1))
    cameras = tuple(replace(found[name][0], width=width, height=height) for name in names)
    return Rig(cameras, sizes, {name: found[name][2] for name in names})


def image_spans(frame: Message, record: Record, data_start: int = 0) -> dict[str, tuple[int, int]]:
    """Bytes of the file at which the JPEG of each camera stands; the record's data begins at byte `data_start` of `frame.data`."""
    shift = record.data_offset - data_start
    spans = {}
    for item in frame.messages(IMAGES):
        for begin, end in item.spans(2)[-1:]:
            if end > begin:
                spans[NAMES.get(item.integer(1), f"CAMERA_{item.integer(1)}")] = (begin + shift, end + shift)
    return spans
