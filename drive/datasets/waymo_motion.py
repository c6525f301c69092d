"""Scenarios from the Waymo Open Motion Dataset (Ettinger et al. 2021), as `Scenario` records and as tf.Example (`waymo_example`).

A record is a log of 91 steps at 10 Hz, of which step 10 is the present that the dataset predicts from; there are no cameras. In the test
folders only the steps up to the present are there.

Reference point of the ego. Waymo logs its own car like any other track, by the centre of its box (5.286 x 2.332 x 2.33 m). Measured on the
public test example, a turn by 90 degrees at 6 to 8 m/s: the lateral velocity of the logged point is explained by a lever arm of
1.463 m and a slip of -0.006 s^2/m times speed squared. That is the 1.461 m that nuPlan gives for the same car, a Chrysler Pacifica, so the rear
axle lies REAR_TO_CENTER behind the centre.

Velocities are not taken from the file but made as everywhere in `motion`. A state that is marked valid and is NaN, or has no size,
counts as not seen, and notes tell how many (`broken_states`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.types import AgentType, EgoTrack, Tracks
from drive.datasets import tfrecord, waymo_map
from drive.datasets.logged import FOLDER_SPLITS, Entry, walk
from drive.datasets.logs import Log
from drive.datasets.motion import DT, central_velocity, ego_motion
from drive.datasets.waymo_wire import BYTES, Message

Array = NDArray[np.float64]
REAR_TO_CENTER = 1.461  # m
TOLERANCE = 0.02  # s, of a step of 0.1 s
TYPES = {1: AgentType.VEHICLE, 2: AgentType.PEDESTRIAN, 3: AgentType.BICYCLE}  # Track.object_type; 4, other, is a generic object
# fields of Scenario
TIMESTAMPS, TRACKS, OF_INTEREST, SCENARIO_ID, SDC, SIGNALS, FEATURES, CURRENT, TO_PREDICT = 1, 2, 4, 5, 6, 7, 8, 10, 11
STATE = (2, 3, 8, 5, 6, 7, 11)  # of ObjectState: x, y, heading, length, width, height, valid
MAP_NOTE = "lanes as wide as their boundaries; drivable area approximated from lanes, road edges and driveways"


def split_of(path: Path, default: str = "test") -> str:
    """The split that the file, or the nearest folder above it, is named after: "training_20s", "val_2025.tfrecord-00000-of-00093"."""
    words = (re.split(r"[_.\-]", part.lower())[0] for part in reversed(path.absolute().parts))
    return next((FOLDER_SPLITS[word] for word in words if word in FOLDER_SPLITS), default)


def tfrecords(root: str | Path) -> list[Path]:
    """Files below `root` with .tfrecord in their name, sorted. Raises DataError if it is no folder."""
    return walk(root, lambda name: ".tfrecord" in name)


def tfrecords_of(root: str | Path, *wanted: str) -> list[Path]:
    """The files below `root` whose records are of one of the kinds `wanted` (names of `waymo.Kind`), and those that tell no kind, whose fault
    reading them tells; a folder may hold several of Waymo's datasets."""
    from drive.datasets.waymo import kind_of

    found = []
    for path in tfrecords(root):
        try:
            if kind_of(path).name not in wanted:
                continue
        except DataError:
            pass
        found.append(path)
    return found


def is_example(message: Message) -> bool:
    """Whether a record is a tf.Example, a message with one field, `features`."""
    return message.kinds == {1: BYTES}


def entry_of(record: tfrecord.Record, log_id: str) -> Entry:
    """The entry of one record; a faulty one too, which `open_entry` then reports."""
    return Entry(log_id, record.path, split_of(record.path), f"{record.number}:{record.offset}")


def open_entry(entry: Entry) -> tuple[tfrecord.Record, Message]:
    """The record of an entry of `entry_of`, its checksums checked. Raises DataError, naming file, record and byte."""
    number, offset = (int(part) for part in entry.key.split(":"))
    record = tfrecord.record_at(entry.path, number, offset)
    return record, Message(tfrecord.read(record), record.where)


def peeked(path: Path, count: int | None = None) -> Iterator[tuple[tfrecord.Record, Message | None]]:
    """The first `count` records of a file, as messages of which no more is loaded than is asked for; None for faulty ones, and for the one that an
    empty file stands for, so that its loss is told.

    Each is mapped on its own: the pages of a whole shard would stay in memory.
    """
    if not path.stat().st_size:
        yield tfrecord.Record(path, 0, 0, 0, "the file is empty"), None
    for record in islice(tfrecord.records(path), count):
        mapped = not record.fault and record.length
        data = np.memmap(path, np.uint8, "r", record.data_offset, record.length) if mapped else np.zeros(0, np.uint8)
        yield record, None if record.fault else Message(data, record.where)


def named(record: tfrecord.Record, log_id: str) -> str:
    """`log_id`, or a name for a record that has none, so that it is found and its fault told."""
    return log_id or f"{record.path.name}#{record.number}"


def agent_tracks(ids: Sequence[str], types: Sequence[int], poses: Array, size: Array, valid: NDArray[np.bool_]) -> tuple[Tracks, dict[str, int]]:
    """Tracks of agents' poses (A, S, 3) in the log's frame and sizes (A, S, 3), and what was lost: broken states, tracks never seen."""
    sound = np.isfinite(poses).all(axis=2) & np.isfinite(size).all(axis=2) & (np.nan_to_num(size) > 0.0).all(axis=2)
    lost = {"broken_states": int((valid & ~sound).sum())}
    valid = valid & sound
    keep = np.flatnonzero(valid.any(axis=1))
    lost["unseen_tracks"] = len(ids) - len(keep)
    poses, valid = np.where(valid[..., None], poses, 0.0)[keep], valid[keep]
    if not len(keep):
        return Tracks.empty(valid.shape[1]), lost
    sizes = size[keep, valid.argmax(axis=1)]  # of the first step seen: what is drawn must not come from later ones
    kinds = np.array([TYPES.get(int(types[k]), AgentType.GENERIC_OBJECT) for k in keep.tolist()], np.int64)
    tracks = Tracks(tuple(str(ids[int(k)]) for k in keep), kinds, sizes, poses, central_velocity(poses[..., :2], valid), valid)
    return tracks, lost


def own_size(boxes: Array) -> tuple[float, float, float]:
    """The median length, width and height of (S, 3)."""
    length, width, height = np.median(boxes, axis=0).tolist()
    return length, width, height


def ego_track(where: str, centre: Array, valid: NDArray[np.bool_]) -> tuple[EgoTrack, Array]:
    """The ego's track in the log's frame, and its origin, from box centres (S, 3). Raises DataError on an unseen or NaN step."""
    bad = np.flatnonzero(~valid | ~np.isfinite(centre).all(axis=1))
    if len(bad):
        raise DataError(f"{where}: Waymo's own car has no finite pose at step {bad[0]} ({len(bad)} such steps): leave the record out")
    poses = compose(centre, np.array([-REAR_TO_CENTER, 0.0, 0.0]))
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    return ego_motion(poses), origin


def check_clock(where: str, times: Array, present: int) -> None:
    """Raises DataError where `times` (S,) s are not 0.1 s apart, or `present` is none of the steps."""
    steps = np.diff(times)
    bad = np.flatnonzero(~(np.abs(steps - DT) <= TOLERANCE))
    if len(times) < 2 or len(bad):
        found = f"{steps[bad[0]]:.3f} s after step {bad[0]}" if len(bad) else f"{len(times)} steps"
        raise DataError(f"{where}: its steps are not 0.1 s apart ({found})")
    if not 0 <= present < len(times):
        raise DataError(f"{where}: its present is step {present} of {len(times)}")


def scenario_log(message: Message, path: Path, split: str) -> Log:
    """The Log of a `Scenario` message. Raises DataError, naming the record and the track, where it is incomplete."""
    where, name = message.where, message.text(SCENARIO_ID)
    times, tracks = message.reals(TIMESTAMPS, 8), message.messages(TRACKS)
    present, sdc = message.integer(CURRENT, -1), message.integer(SDC, -1)
    if not name or not 0 <= sdc < len(tracks):
        raise DataError(f"{where} is no Scenario of the motion dataset: it lacks {'scenario_id' if not name else 'the track of sdc_track_index'}")
    check_clock(where, times, present)
    states = [track.table(3, STATE) for track in tracks]
    ids = [str(track.integer(1)) for track in tracks]
    wrong = next((i for i, state in enumerate(states) if len(state) != len(times)), -1)
    if wrong >= 0:
        raise DataError(f"{where}: track {ids[wrong]} has {len(states[wrong])} states for {len(times)} steps")
    table = np.stack(states)
    valid = table[..., 6] == 1.0
    ego, origin = ego_track(where, table[sdc, :, :3], valid[sdc])
    others = np.arange(len(tracks)) != sdc
    poses = table[others, :, :3] - np.array([*origin, 0.0])
    agents, lost = agent_tracks(
        [i for i, other in zip(ids, others, strict=True) if other],
        [track.integer(2) for track, other in zip(tracks, others, strict=True) if other],
        poses,
        table[others, :, 3:6],
        valid[others],
    )
    features = waymo_map.read_features(message.messages(FEATURES))
    signals = [signal.messages(1) for signal in message.messages(SIGNALS)[: len(times)]]
    seen = [(step, light.integer(1), light.integer(2)) for step, lights in enumerate(signals) for light in lights]
    lights, lost["lights_off_map"] = waymo_map.read_lights(seen, len(times), waymo_map.lane_ids(features))
    wanted = [(row.integer(1), row.integer(2)) for row in message.messages(TO_PREDICT)]
    notes: dict[str, Any] = {
        "scenario_id": name,
        "sdc_id": ids[sdc],
        "tracks_to_predict": [ids[i] for i, _ in wanted if 0 <= i < len(ids)],
        "difficulties": [level for i, level in wanted if 0 <= i < len(ids)],
        "objects_of_interest": [str(i) for i in message.integers(OF_INTEREST)],
        **lost,
    }
    ruled = {str(lane) for step, lane, _ in seen if step <= present}  # which lanes are drawn as connectors must not come from later lights
    return Log(
        log_id=name,
        source="waymo_motion",
        split=split,
        files=(path,),
        dt=DT,
        ego=ego,
        ego_size=own_size(table[sdc, :, 3:6]),
        agents=agents,
        origin=origin,
        make_map=partial(waymo_map.build, name, features, origin, ruled) if waymo_map.lane_ids(features) else None,
        times=times,
        lights=lights,
        presents=(present,),
        notes={**notes, "map": MAP_NOTE} if waymo_map.lane_ids(features) else notes,
    )


class WaymoMotionReader:
    """Records of the motion dataset below a folder, `Scenario` and tf.Example alike. A `Reader`."""

    name = "waymo_motion"

    def find(self, root: Path) -> list[Entry]:
        """One entry per record, in order of file; the split is that of the folder or file name, test where none is named so."""
        from drive.datasets.waymo_example import example_id

        found = []
        for path in tfrecords_of(root, "SCENARIO", "EXAMPLE"):
            for record, message in peeked(path):
                log_id = ""
                if message is not None:
                    try:
                        log_id = example_id(message) if is_example(message) else message.text(SCENARIO_ID)
                    except DataError:
                        log_id = ""  # reading it tells the fault
                found.append(entry_of(record, named(record, log_id)))
        return found

    def read(self, entry: Entry) -> Log:
        """One record with its map. Raises DataError, naming file, record and byte."""
        from drive.datasets.waymo_example import example_log

        _, message = open_entry(entry)
        return (example_log if is_example(message) else scenario_log)(message, entry.path, entry.split)
