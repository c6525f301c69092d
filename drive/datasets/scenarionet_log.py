"""One ScenarioNet file as a log: the ego's motion and the agents' tracks, with the faults of real recordings dealt with openly.

Frame. Everything is shifted by the ego's first position, rounded down to whole metres (`LogRecord.origin`), so that maps in
large national coordinates keep their precision; directions are unchanged.

Reference point of the ego. In the nuScenes logs `position` is the rear axle, as nuScenes defines its ego pose. Measured: where
the car turns faster than 0.1 rad/s (scenes 0061 and 0916, 196 steps), the lateral velocity of the logged point is explained by
a lever arm of -0.09 m and +0.01 m ahead of the rear axle; for a box centre it would be about 1.4 m. Other sources are taken to
log the box centre, as ScenarioNet describes its tracks; it is moved back by REAR_TO_CENTER of the length. The ego's `length`
and `width` are swapped in the nuScenes logs (1.73, 4.08): the longer one is taken for the length.

Motion. `velocity` of the file is not used: it is the difference of neighbouring positions, with the last one zero, and
positions are not evenly spaced in time. Against the cars' 50 Hz CAN records, some steps of nominally 0.1 s last 0.12 s or
more, as a sweep between was lost; and in four of the seven logs the clock jumps back by up to 0.2 s within the last four
steps. Such a jump, a backward step amid forward motion, ends the log (`trimmed_steps`). Speed, acceleration and yaw rate are
robust line fits (Theil-Sen) to the last 0.9 s of step velocities, which never read a later pose: what the ego knows of its own
motion must not come from the future. Measured against CAN over the six moving scenes: speed 0.18 m/s RMS, acceleration
0.39 m/s^2, yaw rate 0.011 rad/s. Central differences, which do read the future, reach 0.25 m/s and 1.4 m/s^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.types import AgentType, EgoTrack, Tracks
from drive.datasets.motion import DT, central_velocity, ego_motion, steps_ego
from drive.datasets.unpickle import load_plain_pickle

Array = NDArray[np.float64]
REAR_TO_CENTER = 0.28  # of the length: 1.461 m of the 5.176 m car that NAVSIM scores with
BACKWARD, FORWARD = -0.05, 0.05  # m per step: a clock that jumps back, a car that drives
AGENT_TYPES = {
    "VEHICLE": AgentType.VEHICLE,
    "PEDESTRIAN": AgentType.PEDESTRIAN,
    "CYCLIST": AgentType.BICYCLE,
    "TRAFFIC_CONE": AgentType.TRAFFIC_CONE,
    "TRAFFIC_BARRIER": AgentType.BARRIER,
}


@dataclass(frozen=True)
class LogRecord:
    """One log, before it is cut into windows."""

    log_id: str
    path: Path
    dataset: str  # "nuscenes", ...
    ego: EgoTrack  # S usable steps
    ego_size: tuple[float, float, float]  # m, length, width, height
    agents: Tracks  # S steps, without the ego
    map_features: Mapping[str, Mapping[str, Any]]  # as recorded, world m
    origin: Array  # (2,) m, world position of our origin
    recorded_steps: int
    trimmed_steps: int  # at the end, after a jump of the clock
    dropped_tracks: tuple[str, ...]  # agents with NaN states
    never_valid: int  # agents without a valid step

    @property
    def steps(self) -> int:
        """Usable steps S."""
        return len(self.ego.poses_world)


def read_log(path: str | Path) -> LogRecord:
    """The log in one ScenarioNet pickle. Raises DataError naming the file, and the track and step where one is at fault."""
    path = Path(path)
    record = load_plain_pickle(path)
    if not isinstance(record, Mapping) or not {"tracks", "map_features", "metadata"} <= set(record):
        raise DataError(
            f"{path}: no ScenarioNet record, it lacks tracks, map_features or metadata: leave the file out of the folder"
        )
    meta, tracks = record["metadata"], record["tracks"]
    ego_id = str(meta.get("sdc_id", ""))
    if ego_id not in tracks:
        raise DataError(f"{path}: the ego track {ego_id!r} (metadata sdc_id) is not among the {len(tracks)} tracks")
    _check_clock(path, meta)
    dataset = str(meta.get("dataset", ""))
    poses, size = _ego_poses(path, ego_id, tracks[ego_id], dataset)
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    usable = _usable_steps(poses)
    agents, dropped, unseen = _agents(path, tracks, ego_id, origin, len(poses))
    return LogRecord(
        log_id=str(meta.get("scenario_id") or record.get("id") or path.stem),
        path=path,
        dataset=dataset,
        ego=ego_motion(poses[:usable]),
        ego_size=size,
        agents=agents.steps(0, usable),
        map_features=record["map_features"],
        origin=origin,
        recorded_steps=len(poses),
        trimmed_steps=len(poses) - usable,
        dropped_tracks=dropped,
        never_valid=unseen,
    )


def _check_clock(path: Path, meta: Mapping[str, Any]) -> None:
    times = np.asarray(meta.get("ts", ()), float)
    if len(times) < 2 or not np.allclose(np.diff(times), DT, atol=0.02):
        rate = f"{np.median(np.diff(times)):.3f} s" if len(times) > 1 else "unknown"
        raise DataError(f"{path}: steps of 0.1 s are read, these are {rate} (metadata ts): convert the log at 10 Hz")


def _state(path: Path, track_id: str, track: Mapping[str, Any], key: str, columns: int) -> Array:
    """(S, columns) of one state of a track, or (S,) for one column."""
    try:
        values = np.asarray(track["state"][key], float)
        values = values.reshape(len(values), -1)[:, :columns]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: track {track_id} has no usable state {key!r} ({type(error).__name__}: {error})") from error
    return values[:, 0] if columns == 1 else values


def _ego_poses(path: Path, ego_id: str, track: Mapping[str, Any], dataset: str) -> tuple[Array, tuple[float, float, float]]:
    """Rear-axle poses (S, 3) and the box's length, width, height."""
    poses = np.column_stack([_state(path, ego_id, track, "position", 2), _state(path, ego_id, track, "heading", 1)])
    valid = _state(path, ego_id, track, "valid", 1) > 0
    bad = np.flatnonzero(~np.isfinite(poses).all(1) | ~valid)
    if len(bad):
        raise DataError(
            f"{path}: ego track {ego_id} has no finite pose at step {bad[0]} ({len(bad)} such steps): cut or repair the log"
        )
    a, b, height = (float(np.median(_state(path, ego_id, track, key, 1))) for key in ("length", "width", "height"))
    length, width = max(a, b), min(a, b)
    if dataset != "nuscenes":
        poses = compose(poses, np.array([-REAR_TO_CENTER * length, 0.0, 0.0]))
    return poses, (length, width, height)


def _usable_steps(poses: Array) -> int:
    """Steps before the clock first jumps back: a backward step where the steps before it drive forward."""
    forward = steps_ego(poses)[:, 0]
    for k in range(5, len(forward)):
        if forward[k] < BACKWARD and np.median(forward[k - 5 : k]) > FORWARD:
            return k + 1
    return len(poses)


def lever_arm(poses: Array) -> float:
    """Metres by which the logged point (S, 3) lies ahead of the rear axle, by least squares of lateral velocity on yaw rate.

    A rear axle does not slip sideways: a point l ahead of it moves left at l times the yaw rate. NaN if the car hardly turns.
    """
    _, left, turn = steps_ego(poses).T
    turning = np.abs(turn) > 0.1 * DT
    return float((left[turning] @ turn[turning]) / (turn[turning] @ turn[turning])) if turning.sum() >= 10 else float("nan")


def _agents(path: Path, tracks: Mapping[str, Any], ego_id: str, origin: Array, steps: int) -> tuple[Tracks, tuple[str, ...], int]:
    """Tracks of all agents but the ego; ids of those dropped for NaN states; how many have no valid step.

    The size is that of the first valid step, as what is drawn must not come from later ones. Velocities are central differences of the positions over valid steps.
    """
    ids, types, sizes, poses, valids, dropped, unseen = [], [], [], [], [], [], 0
    for key, track in tracks.items():
        if str(key) == ego_id:
            continue
        pose = np.column_stack(
            [_state(path, str(key), track, "position", 2) - origin, _state(path, str(key), track, "heading", 1)]
        )
        size = np.column_stack([_state(path, str(key), track, name, 1) for name in ("length", "width", "height")])
        valid = _state(path, str(key), track, "valid", 1) > 0
        if len(pose) != steps:
            raise DataError(f"{path}: track {key} has {len(pose)} steps, the ego has {steps}")
        if not valid.any():
            unseen += 1
        elif not np.isfinite(np.column_stack([pose, size])[valid]).all():
            dropped.append(str(key))
        else:
            ids.append(str(key))
            types.append(AGENT_TYPES.get(str(track.get("type")), AgentType.GENERIC_OBJECT))
            sizes.append(size[valid][0])
            poses.append(np.where(valid[:, None], pose, 0.0))
            valids.append(valid)
    if not ids:
        return Tracks.empty(steps), tuple(dropped), unseen
    poses, valid = np.stack(poses), np.stack(valids)
    velocity = central_velocity(poses[..., :2], valid)
    return Tracks(tuple(ids), np.array(types, np.int64), np.stack(sizes), poses, velocity, valid), tuple(dropped), unseen
