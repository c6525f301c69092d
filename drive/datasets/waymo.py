"""What a Waymo file is and what it holds: TFRecords of all three datasets, `vehicle_pose` tables of the v2 format, simulated-agents submissions."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from pathlib import Path

import numpy as np

from drive.core.errors import DataError
from drive.datasets import tfrecord, waymo_map
from drive.datasets.logged import Inspection
from drive.datasets.waymo_e2e import FRAME, ego_of, frame_name, rated_of
from drive.datasets.waymo_example import Example, example_id, example_log
from drive.datasets.waymo_frames import CONTEXT, image_spans
from drive.datasets.waymo_motion import FEATURES, SIGNALS, TIMESTAMPS, TRACKS, is_example, scenario_log, split_of
from drive.datasets.waymo_perception import frame_counts
from drive.datasets.waymo_wire import BYTES, VARINT, Message

TRACK_NAMES = {1: "vehicles", 2: "pedestrians", 3: "cyclists", 4: "other tracks"}  # Track.object_type
CONTEXT_COLUMN, POSE_COLUMN = "key.segment_context_name", "[VehiclePoseComponent].world_from_vehicle.transform"


class Kind(str, Enum):
    """What the records of a TFRecord file are."""

    SCENARIO = "Waymo Open Motion scenarios"
    EXAMPLE = "Waymo Open Motion tf.Examples"
    PERCEPTION = "Waymo perception segment"
    E2E = "Waymo End-to-End frames"


def _kind(message: Message) -> Kind | None:
    kinds = message.kinds
    if is_example(message):
        return Kind.EXAMPLE if example_id(message) else None
    if kinds.get(2) == BYTES and kinds.get(5) == BYTES:  # tracks, scenario_id
        return Kind.SCENARIO
    if kinds.get(1) == BYTES and kinds.get(2) == VARINT and kinds.get(3) == BYTES:  # context, timestamp_micros, pose
        return Kind.PERCEPTION
    if kinds.get(1) == BYTES and kinds.get(6) == BYTES and 2 not in kinds and frame_name(message):  # frame, past_states
        return Kind.E2E
    return None


def kind_of(path: Path) -> Kind:
    """What a .tfrecord holds, by its first readable record. Raises DataError where none is readable, or it is of none of these kinds."""
    fault = f"{path} holds no record"
    for record in tfrecord.records(path):
        try:
            kind = _kind(Message(tfrecord.read(record), record.where))
        except DataError as error:
            fault = str(error)
            continue
        if kind is None:
            raise DataError(f"{record.where} is no Scenario, tf.Example, Frame or E2EDFrame of Waymo's datasets")
        return kind
    raise DataError(fault)


def inspect(path: Path) -> Inspection:
    """Counts of a .tfrecord, a vehicle_pose .parquet, or a .binproto of simulated agents. Raises DataError where it is none of them.

    Broken records are `faults`; the counts are over the others.
    """
    if path.suffix == ".parquet":
        return inspect_poses(path)
    if path.suffix == ".binproto":
        return inspect_sim_agents(path)
    kind = kind_of(path)
    if kind is Kind.PERCEPTION:
        counts, faults = frame_counts(path)
        return Inspection(kind.value, path, dict(counts), tuple(faults))
    found: Counter[str] = Counter()
    faults, one = [], {}
    for record in tfrecord.records(path):
        try:
            message = Message(tfrecord.read(record), record.where)
            one = {Kind.SCENARIO: _scenario, Kind.EXAMPLE: _example, Kind.E2E: _frame}[kind](message, record)
        except DataError as error:
            faults.append(str(error))
            continue
        found.update({"records": 1, **{key: value for key, value in one.items() if not isinstance(value, str)}})
    alone = one if found["records"] == 1 else {}  # of one record, also what cannot be added up
    return Inspection(kind.value, path, {**found, **alone}, tuple(faults))


def _scenario(message: Message, record: tfrecord.Record) -> dict[str, int | str]:
    log = scenario_log(message, record.path, split_of(record.path))
    kinds = Counter(TRACK_NAMES.get(track.integer(2), "other tracks") for track in message.messages(TRACKS))
    features = message.messages(FEATURES)
    return {
        "scenario": log.log_id,
        "current step": str(log.presents[0] if log.presents else ""),
        "steps": len(message.reals(TIMESTAMPS, 8)),
        "tracks": len(message.messages(TRACKS)),
        **kinds,
        "tracks to predict": len(log.notes["tracks_to_predict"]),
        "signal states": len(message.messages(SIGNALS)),
        "map features": len(features),
        **waymo_map.counts(features),
    }


def _example(message: Message, record: tfrecord.Record) -> dict[str, int | str]:
    log, example = example_log(message, record.path, split_of(record.path)), Example(message)
    points = example.integers("roadgraph_samples/valid", -1)
    return {
        "scenario": log.log_id,
        "current step": str(log.presents[0] if log.presents else ""),
        "steps": log.steps,
        "tracks": len(log.agents) + 1,
        "tracks to predict": len(log.notes["tracks_to_predict"]),
        "road points": int((points == 1).sum()),
        "road features": len(np.unique(example.integers("roadgraph_samples/id", -1)[points == 1])),
    }


def _frame(message: Message, record: tfrecord.Record) -> dict[str, int | str]:
    ego, present = ego_of(message)
    rated, unrated = rated_of(message)
    return {
        "frame": frame_name(message),
        "camera images": len(image_spans(message.message(FRAME), record)),
        "camera calibrations": len(message.message(FRAME).message(CONTEXT).spans(2)),
        "past states": present + 1,
        "future states": len(ego.poses_world) - present - 1,
        "rated trajectories": len(rated),
        "unrated trajectories": unrated,
    }


def inspect_sim_agents(path: Path) -> Inspection:
    """Counts of a SimAgentsChallengeSubmission. Raises DataError where the file is none."""
    try:
        message = Message(np.frombuffer(path.read_bytes(), np.uint8), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    scenarios = message.messages(1)
    rollouts = [scene for scenario in scenarios for scene in scenario.messages(2)]
    names = [scenario.text(1) for scenario in scenarios]
    if not rollouts or not all(names):
        raise DataError(f"{path} is no SimAgentsChallengeSubmission: it has no rollouts of a named scenario")
    tracks = [track for scene in rollouts for track in scene.messages(1)]
    steps = {len(track.reals(field)) for track in tracks for field in (2, 3, 4, 5)}
    counts: dict[str, int | float | str] = {
        "scenarios": len(scenarios),
        "first scenario": names[0],
        "rollouts": len(rollouts),
        "objects": len({track.integer(6) for track in tracks}),
        "simulated trajectories": len(tracks),
        "steps": ", ".join(str(n) for n in sorted(steps)),
    }
    return Inspection("Waymo simulated-agents submission", path, counts)


def inspect_poses(path: Path) -> Inspection:
    """Counts of a vehicle_pose table of the perception dataset's v2 format. Raises DataError where it is another table."""
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("Waymo's v2 tables are Parquet files: pip install 'drive-vla[waymo]'") from None
    try:
        table = parquet.read_table(path, columns=[CONTEXT_COLUMN, POSE_COLUMN])
    except (ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if set(table.column_names) != {CONTEXT_COLUMN, POSE_COLUMN}:
        raise DataError(f"{path} is no vehicle_pose table of Waymo's v2 format: it lacks {CONTEXT_COLUMN} or {POSE_COLUMN}")
    rows = table[POSE_COLUMN].to_pylist()
    wrong = next((i for i, row in enumerate(rows) if row is None or len(row) != 16 or not np.isfinite(row).all()), -1)
    if wrong >= 0:
        raise DataError(f"{path}: the transform of row {wrong} is no list of 16 finite numbers")
    names = table[CONTEXT_COLUMN].to_pylist()
    poses = np.array(rows, np.float64).reshape(-1, 4, 4)
    gaps = [np.hypot(*(poses[i, :2, 3] - poses[i - 1, :2, 3])) for i in range(1, len(poses)) if names[i] == names[i - 1]]
    counts: dict[str, int | float | str] = {"ego poses": len(poses), "segments": len(set(names)), "driven (m)": round(float(sum(gaps)), 1)}
    return Inspection("Waymo v2 vehicle poses", path, counts)
