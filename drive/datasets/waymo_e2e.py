"""Scenarios from the Waymo End-to-End driving dataset (Xu et al. 2025): `E2EDFrame` records, eight cameras, no map and no other agents.

A record is one instant: 4 s of past states and 5 s of future positions at 4 Hz, the driving intent, and, for one frame of most validation
sequences, three trajectories that people scored. It becomes a log of its own, `notes["sequence"]` names the drive that it comes from; neighbours
of one drive are not independent.

- Positions are of Waymo's vehicle frame, the rear axle: its eight cameras lie ahead of the origin, not around it (issue 957 of
  waymo-research/waymo-open-dataset). Headings are not recorded. A rear axle moves where it points, so that they are those of the path, held where the
  car moves less than STILL; those of the past come from the past alone.
- The present's velocity and acceleration are the recorded ones. The frame of the earlier ones is not documented: they are made from positions.
- A record holds the images of its present. Earlier ones are those of the same drive's records 5, 10 and 15 frames (of 10 Hz) before, wherever below
  the root they stand, as the records of a drive are spread over all files (issue 921); where one is not at hand the next later one is
  shown again, and `notes["repeated_frames"]` counts how often.
- A drive is called UUID-frame. Of every drive the frames are taken whose number is a multiple of the stride, and all that people scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.core.types import Command, EgoTrack, Tracks
from drive.datasets import tfrecord
from drive.datasets.logged import Entry
from drive.datasets.logs import FRAMES_S, ImageRef, Log
from drive.datasets.motion import ego_motion
from drive.datasets.waymo_frames import CONTEXT, Rig, image_spans, read_rig
from drive.datasets.waymo_motion import entry_of, named, open_entry, peeked, tfrecords_of
from drive.datasets.waymo_perception import EGO_SIZE
from drive.datasets.waymo_wire import Message

Array = NDArray[np.float64]
DT, CAMERA_HZ = 0.25, 10
STILL = 0.2  # m over two steps
AT_ORIGIN = 0.5  # m, between the last past position and the origin
FRAME, FUTURE, PAST, INTENT, RATED = 1, 5, 6, 7, 8  # fields of E2EDFrame
POSITION, VELOCITY, ACCELERATION, SCORE = (1, 2), (4, 5), (6, 7), 8  # fields of EgoTrajectoryStates
COMMANDS = {1: Command.STRAIGHT, 2: Command.LEFT, 3: Command.RIGHT}  # EgoIntent.Intent; 0, unknown, follows the lane


def frame_name(message: Message) -> str:
    """UUID-frame of a record, empty if there is none."""
    return message.message(FRAME).message(CONTEXT).text(1)


def drive_of(name: str) -> tuple[str, int]:
    """The drive of a frame's name and its number in it; -1 where the name has none."""
    drive, _, number = name.rpartition("-")
    return (drive, int(number)) if drive and number.isdecimal() else (name, -1)


def _columns(states: Message, what: str, fields: tuple[int, int]) -> Array:
    """(T, 2) of two repeated floats. Raises DataError where they differ in length or are not finite."""
    x, y = (states.reals(number) for number in fields)
    if len(x) != len(y):
        raise DataError(f"{states.where}: {what} have {len(x)} x and {len(y)} y")
    both = np.column_stack([x, y])
    if not np.isfinite(both).all():
        raise DataError(f"{states.where}: {what} have NaN at step {int(np.argmax(~np.isfinite(both).all(axis=1)))}")
    return both


def path_headings(xy: Array, present: int) -> Array:
    """(S,) rad: where a path (S, 2) leads at each step, 0 at the present; one that backs up keeps pointing ahead."""
    out = np.zeros(len(xy))
    backward, forward = range(present - 1, -1, -1), range(present + 1, len(xy))
    for steps, before in ((backward, 1), (forward, -1)):
        for k in steps:
            # a step of the past is read off the past alone: k + 1 is the present at most
            step = xy[min(k + 1, len(xy) - 1)] - xy[max(k - 1, 0)]
            out[k] = out[k + before]
            if np.hypot(*step) >= STILL:
                turn = float(wrap_angle(np.arctan2(step[1], step[0]) - out[k]))
                out[k] += turn if abs(turn) <= np.pi / 2.0 else float(wrap_angle(turn + np.pi))
    return np.asarray(wrap_angle(out))


def ego_of(message: Message) -> tuple[EgoTrack, int]:
    """The ego over past and future, 0.25 s apart, and the present's step. Raises DataError where positions are missing or faulty."""
    past, future = message.message(PAST), message.message(FUTURE)
    before, after = _columns(past, "past positions", POSITION), _columns(future, "future positions", POSITION)
    if len(before) < 2:
        raise DataError(f"{message.where}: {len(before)} past positions, want at least two")
    if np.hypot(*before[-1]) > AT_ORIGIN:
        raise DataError(f"{message.where}: the last past position lies {np.hypot(*before[-1]):.2f} m from the origin, where the present is to be")
    xy, present = np.concatenate([before, after]), len(before) - 1
    track = ego_motion(np.column_stack([xy, path_headings(xy, present)]), DT)
    for field, known in ((_columns(past, "past velocities", VELOCITY), track.velocity_ego), (_columns(past, "past accelerations", ACCELERATION), track.acceleration_ego)):
        if len(field):
            known[present] = field[-1]
    return track, present


def rated_of(message: Message) -> tuple[list[dict[str, Any]], int]:
    """Trajectories with a score in 0..10, as {"poses": (T, 2) m in the present's ego frame, "score"}, and how many have none (-1)."""
    every = message.messages(RATED)
    scored = [item for item in every if item.real(SCORE, -1.0) >= 0.0]
    rated = [{"poses": _columns(item, "rated positions", POSITION).tolist(), "score": item.real(SCORE)} for item in scored]
    if any(not item["poses"] for item in rated):
        raise DataError(f"{message.where}: a scored trajectory has no positions")
    return rated, len(every) - len(rated)


def frame_log(message: Message, record: tfrecord.Record, split: str, rig: Rig, earlier: Mapping[int, Mapping[str, ImageRef]]) -> Log:
    """The Log of one record; `earlier` are images by step before the present (-6, -4, -2) and camera. Raises DataError where it is incomplete."""
    name = frame_name(message)
    if not name or PAST not in message.kinds:
        raise DataError(f"{record.where} is no E2EDFrame: it lacks {'past_states' if name else 'frame.context.name'}")
    ego, present = ego_of(message)
    rated, unrated = rated_of(message)
    steps = len(ego.poses_world)
    own = image_spans(message.message(FRAME), record)
    wanted = sorted(round(second / DT) for second in FRAMES_S)
    repeated = 0
    images: list[list[ImageRef | None]] = [[None] * steps for _ in rig.cameras]
    for k, camera in enumerate(rig.cameras):
        shown = rig.ref(k, record.path, own[camera.name]) if camera.name in own else None
        for step in reversed(wanted):
            found = earlier.get(step, {}).get(camera.name) if step else shown
            repeated += found is None
            shown = found or shown
            if present + step >= 0:
                images[k][present + step] = shown
    drive, number = drive_of(name)
    return Log(
        log_id=name,
        source="waymo_e2e",
        split=split,
        files=(record.path,),
        dt=DT,
        ego=ego,
        ego_size=EGO_SIZE,
        agents=Tracks.empty(steps),
        origin=np.zeros(2),
        cameras=rig.cameras,
        images=tuple(tuple(row) for row in images),
        commands=(COMMANDS.get(message.integer(INTENT), Command.LANEFOLLOW),) * steps,
        presents=(present,),
        group=drive,
        notes={
            "sequence": drive,
            "frame": number,
            "rater_trajectories": rated,
            "unrated_trajectories": unrated,
            "repeated_frames": repeated,
            "distortion": rig.distortion,
        },
    )


class WaymoE2EReader:
    """End-to-end records below a folder. A `Reader`; `find` also notes where earlier images stand, so call it before `read`."""

    name = "waymo_e2e"

    def __init__(self, cameras: Sequence[str] = (), stride_s: float = 0.5) -> None:
        """`cameras`: the names to take, such as FRONT_LEFT, all if empty; `stride_s` s between the frames of a drive, scored ones apart."""
        self.cameras, self.every = tuple(cameras), max(round(stride_s * CAMERA_HZ), 1)
        self._records: dict[str, dict[int, tfrecord.Record]] = {}  # by drive and frame

    def find(self, root: Path) -> list[Entry]:
        """One entry per chosen frame, in order of file, the broken ones among them; the split is that of the folder or file name, else test."""
        found = []
        for path in tfrecords_of(root, "E2E"):
            for record, message in peeked(path):
                name, chosen = "", True
                if message is not None:
                    try:
                        name = frame_name(message)
                        chosen = max(drive_of(name)[1], 0) % self.every == 0 or bool(rated_of(message)[0])
                    except DataError:
                        chosen = True  # reading it tells the fault
                if name:
                    drive, number = drive_of(name)
                    self._records.setdefault(drive, {}).setdefault(number, record)
                if chosen:
                    found.append(replace(entry_of(record, named(record, name)), group=drive_of(name)[0] if name else ""))
        return found

    def read(self, entry: Entry) -> Log:
        """One record. Raises DataError, naming file, record and byte."""
        record, message = open_entry(entry)
        rig = read_rig(message.message(FRAME), self.cameras)
        drive, number = drive_of(frame_name(message))
        earlier = {}
        for second in FRAMES_S[:-1]:
            before = self._records.get(drive, {}).get(number + round(second * CAMERA_HZ)) if number >= 0 else None
            if before is not None and not before.fault:
                earlier[round(second / DT)] = self._images(before, rig)
        log = frame_log(message, record, entry.split, rig, earlier)
        others = {ref.path for frame in earlier.values() for ref in frame.values()} - {record.path}
        return replace(log, files=(*log.files, *sorted(others)))

    @staticmethod
    def _images(record: tfrecord.Record, rig: Rig) -> dict[str, ImageRef]:
        """The images of another record of the same drive, whose other bytes are not read; none where it is broken."""
        data = np.memmap(record.path, np.uint8, "r")
        message = Message(data, record.where, record.data_offset, record.data_offset + record.length)
        try:
            spans = image_spans(message.message(FRAME), record, record.data_offset)
        except DataError:
            return {}  # its own entry tells the fault
        return {camera.name: rig.ref(k, record.path, spans[camera.name]) for k, camera in enumerate(rig.cameras) if camera.name in spans}
