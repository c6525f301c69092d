"""Scenarios from the Waymo Open Dataset's perception segments (Sun et al. 2020): a .tfrecord of `Frame` messages at 10 Hz is one log.

The ego pose is Waymo's vehicle frame, whose origin is the middle of the rear axle, on the ground (waymo-research/waymo-open-dataset, issues 165
and 597): nothing is moved. 3D boxes come in the vehicle frame of their frame and are carried over to the world; signs, which stand at the
roadside or hang above it, are no agents, and notes count them. Newer files hold map features in their first frame, which are read as those of the
motion scenarios are; `map_pose_offset`, which aligns a frame with the map, is then added to its pose.

A frame that cannot be read leaves a hole: up to MAX_GAP, the ego's pose is interpolated, nobody is seen and no camera has an image
at that step, and `lost_frames` in notes names the steps. A longer hole is a fault of the whole log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.quaternion import heading
from drive.core.types import Tracks
from drive.datasets import tfrecord, waymo_map
from drive.datasets.logged import Entry
from drive.datasets.logs import Log
from drive.datasets.motion import DT, ego_motion
from drive.datasets.waymo_frames import (
    CONTEXT,
    FEATURES,
    LABELS,
    LASERS,
    MAP_OFFSET,
    POSE,
    TIMESTAMP,
    image_spans,
    read_rig,
    transform,
)
from drive.datasets.waymo_motion import MAP_NOTE, agent_tracks, peeked, split_of, tfrecords_of
from drive.datasets.waymo_wire import Message

Array = NDArray[np.float64]
EGO_SIZE = (5.286, 2.332, 2.33)  # m, of the same fleet's own box in the motion dataset
TOLERANCE = 0.03  # s, of a step of 0.1 s
MAX_GAP = 5  # frames in a row
BOX = (1, 2, 3, 5, 4, 6, 7)  # of Label.Box: centre, length, width, height, heading
SIGN = 3
TYPES = {0: 0, 1: 1, 2: 2, 4: 3}  # Label.type to Track.object_type of the motion dataset


@dataclass(frozen=True)
class Seen:
    """What a log takes of one frame."""

    time: float  # s
    pose: Array  # (4, 4) world from vehicle
    ids: tuple[str, ...]
    types: tuple[int, ...]  # Label.type
    boxes: Array  # (N, 7) in the vehicle frame
    images: dict[str, tuple[int, int]]  # bytes of the file
    lasers: int


def read_frame(frame: Message, record: tfrecord.Record) -> Seen:
    """One frame without its point clouds. Raises DataError where its pose, time or a box is faulty."""
    if not {TIMESTAMP, POSE} <= set(frame.kinds):
        raise DataError(f"{frame.where} is no perception frame: it lacks timestamp_micros or pose")
    pose = transform(frame.message(POSE))
    pose[:3, 3] += np.nan_to_num([frame.message(MAP_OFFSET).real(k, 0.0) for k in (1, 2, 3)])
    labels = frame.messages(LABELS)
    boxes = np.concatenate([label.table(1, BOX)[-1:] if 1 in label.kinds else np.full((1, 7), np.nan) for label in labels] or [np.zeros((0, 7))])
    names, kinds = tuple(label.text(4) for label in labels), tuple(label.integer(3) for label in labels)
    return Seen(frame.integer(TIMESTAMP) * 1e-6, pose, names, kinds, boxes, image_spans(frame, record), len(frame.messages(LASERS)))


def steps_of(path: Path, times: Array) -> NDArray[np.int64]:
    """The step of each frame, 0.1 s apart, frames that are missing between counted. Raises DataError on a clock that jumps."""
    steps = np.diff(times) / DT
    whole = np.round(steps)
    bad = np.flatnonzero((whole < 1) | (whole > MAX_GAP + 1) | (np.abs(steps - whole) * DT > TOLERANCE * np.maximum(whole, 1)))
    if len(bad):
        raise DataError(f"{path}: frames are not 0.1 s apart, and at most {MAX_GAP} may be missing in a row ({steps[bad[0]] * DT:.3f} s after frame {bad[0]})")
    return np.concatenate([[0], np.cumsum(whole)]).astype(np.int64)


def _agents(frames: Sequence[Seen], steps: NDArray[np.int64], origin: Array) -> tuple[Tracks, dict[str, int]]:
    ids: dict[str, int] = {}
    types: list[int] = []
    rows = []
    for seen, step in zip(frames, steps, strict=True):
        world = seen.boxes[:, :3] @ seen.pose[:3, :3].T + seen.pose[:3, 3]
        facing = np.stack([np.cos(seen.boxes[:, 6]), np.sin(seen.boxes[:, 6]), np.zeros(len(seen.boxes))], axis=-1) @ seen.pose[:3, :3].T
        angle = np.arctan2(facing[:, 1], facing[:, 0])
        for k, (name, kind) in enumerate(zip(seen.ids, seen.types, strict=True)):
            if kind != SIGN:
                if name not in ids:
                    ids[name] = len(ids)
                    types.append(TYPES.get(kind, 0))
                rows.append((ids[name], int(step), *(world[k, :2] - origin), angle[k], *seen.boxes[k, 3:6]))
    count, length = len(ids), int(steps[-1]) + 1
    poses, size, valid = np.zeros((count, length, 3)), np.zeros((count, length, 3)), np.zeros((count, length), bool)
    if rows:
        table = np.array(rows)
        at = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        poses[at], size[at], valid[at] = table[:, 2:5], table[:, 5:8], True
    tracks, lost = agent_tracks(list(ids), types, poses, size, valid)
    signs = {name for seen in frames for name, kind in zip(seen.ids, seen.types, strict=True) if kind == SIGN}
    return tracks, {**lost, "signs": len(signs)}


def segment_log(path: Path, split: str, cameras: Sequence[str] = ()) -> Log:
    """The Log of one segment; `cameras` are those to take, all if empty. Raises DataError where no frame is readable or too many in a row are not."""
    frames, faults, first = [], [], None
    whole: list[bool] = []  # of each record
    for record in tfrecord.records(path):
        try:
            message = Message(tfrecord.read(record), record.where)
            frames.append(read_frame(message, record))
            if first is None or (FEATURES in message.kinds and FEATURES not in first.kinds):
                first = message
            whole.append(True)
        except DataError as error:
            faults.append(str(error))
            whole.append(False)
    if first is None:
        raise DataError(faults[0] if faults else f"{path} holds no record")
    name = first.message(CONTEXT).text(1) or path.name.split(".tfrecord")[0]
    steps = steps_of(path, np.array([seen.time for seen in frames]))
    length = int(steps[-1]) + 1
    turn, place = np.stack([seen.pose[:3, :3] for seen in frames]), np.stack([seen.pose[:3, 3] for seen in frames])
    poses = interpolate_poses(steps, np.column_stack([place[:, :2], heading(turn)]), np.arange(length))
    poses[:, 2] = np.arctan2(np.sin(poses[:, 2]), np.cos(poses[:, 2]))
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    agents, lost = _agents(frames, steps, origin)
    rig = read_rig(first, cameras)
    at = dict(zip(steps.tolist(), frames, strict=True))

    def images(camera: int) -> tuple[Any, ...]:
        spans = [at[step].images.get(rig.cameras[camera].name) if step in at else None for step in range(length)]
        return tuple(None if span is None else rig.ref(camera, path, span) for span in spans)

    features = waymo_map.read_features(first.messages(FEATURES))
    has_lanes = bool(waymo_map.lane_ids(features))
    holes = [step for step in range(length) if step not in at]
    notes = {
        "distortion": rig.distortion,
        "lost_frames": holes,
        **lost,
        **({"map": MAP_NOTE} if has_lanes else {}),
    }
    return Log(
        log_id=name,
        source="waymo_perception",
        split=split,
        files=(path,),
        faults=tuple(faults),
        cut=not (whole[0] and whole[-1]),  # holes between are breaks
        breaks=tuple(sorted({at for step in holes for at in (step, step + 1)})),
        dt=DT,
        ego=ego_motion(poses),
        ego_size=EGO_SIZE,
        agents=agents,
        origin=origin,
        make_map=partial(waymo_map.build, name, features, origin) if has_lanes else None,
        times=np.interp(np.arange(length), steps, [seen.time for seen in frames]),
        cameras=rig.cameras,
        images=tuple(images(k) for k in range(len(rig.cameras))),
        notes=notes,
    )


class WaymoPerceptionReader:
    """Perception segments below a folder. A `Reader`."""

    name = "waymo_perception"

    def __init__(self, cameras: Sequence[str] = ()) -> None:
        """`cameras`: the names to take, such as FRONT_LEFT; all if empty."""
        self.cameras = tuple(cameras)

    def find(self, root: Path) -> list[Entry]:
        """One entry per file, named after its first readable frame; the split is that of the folder or file name, test where none is named so."""
        found = []
        for path in tfrecords_of(root, "PERCEPTION"):
            name = ""
            for _, message in peeked(path, 1):
                try:
                    name = message.message(CONTEXT).text(1) if message is not None else ""
                except DataError:
                    name = ""  # reading it tells the fault
            found.append(Entry(name or path.name.split(".tfrecord")[0], path, split_of(path)))
        return found

    def read(self, entry: Entry) -> Log:
        """One segment. Raises DataError, naming file, record and byte."""
        return segment_log(entry.path, entry.split, self.cameras)


def frame_counts(path: Path) -> tuple[Counter[str], list[str]]:
    """Counts over all readable frames of a segment, and the faults of the others."""
    found: Counter[str] = Counter()
    faults = []
    for record in tfrecord.records(path):
        try:
            seen = read_frame(Message(tfrecord.read(record), record.where), record)
        except DataError as error:
            faults.append(str(error))
            continue
        found.update({"frames": 1, "ego poses": 1, "camera images": len(seen.images), "3D boxes": len(seen.boxes), "lidar sweeps": seen.lasers})
    return found, faults
