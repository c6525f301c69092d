"""What no recorded drive can hold, so that damage to formats without checksums is told where it shows: applied to every Log that is built.

The bounds lie far outside of what real logs hold (measured on the public ones: ego 17 m/s and 0.6 rad/s, agents 222 m away and 42 m/s
fast, boxes of 24.5 m), because a bound that a real log breaks costs more than a flipped byte that none of them tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.types import Camera, EgoTrack, Tracks
from drive.datasets.box_tracks import BoxTracks

if TYPE_CHECKING:
    from drive.datasets.logs import Log

Array = NDArray[np.float64]
SPEED, TURN = 100.0, 7.0  # m/s and rad/s of the ego from one pose to the next
MOTION = (200.0, 1000.0, 50.0)  # m/s, m/s^2, rad/s that the ego is said to have
FAR, AGENT_SPEED, LARGE, HEADING = 1000.0, 300.0, 100.0, 100.0  # m from the ego, m/s, m and rad of an agent's box; some count turns
MAP_REACH = 10_000.0  # m from the drive to any point of its map
UNIT = 1e-3  # by which the length of a quaternion may be off 1
SIDE, MOUNT = 20_000, 20.0  # pixels of an image's side, m from the rear axle to a camera
BOXES_AT_ONCE = 100_000  # of a long log, whose boxes are looked at part by part


def check_log(log: Log) -> None:
    """Raises DataError, naming the log's first file and the record, where a Log holds what no drive can."""
    where = f"{log.files[0] if log.files else log.source}: log {log.log_id}"
    times = np.array([log.time(step) for step in range(log.steps)])
    check_drive(where, log.ego.poses_world, times)
    _check_motion(where, log.ego)
    if not all(0.0 < side <= LARGE for side in log.ego_size):
        raise DataError(f"{where}: the ego is {' x '.join(f'{side:g}' for side in log.ego_size)} m large")
    _check_agents(where, log.agents, log.ego.poses_world)
    for camera in log.cameras:
        _check_camera(where, camera)


def _first(bad: Any) -> int:
    """The first True of (N,), -1 where there is none."""
    return int(bad.argmax()) if bad.any() else -1


def check_drive(where: str | Path, poses: Array, times: Array) -> None:
    """Raises DataError on NaN, times that do not ascend, and jumps, in poses (S, 3) at `times` (S,) s; `where` names file and log."""
    if (at := _first(~np.isfinite(poses).all(axis=1))) >= 0:
        raise DataError(f"{where}: the ego pose of step {at} is NaN or infinite: the file is damaged, fetch it again")
    spans = np.diff(times)
    if (at := _first(~(spans > 0.0))) >= 0:
        raise DataError(f"{where}: step {at + 1} is not later than the one before: the file is damaged, fetch it again")
    metres = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    if (at := _first(~(metres <= SPEED * spans))) >= 0:
        raise DataError(f"{where}: the ego jumps {metres[at]:.4g} m in {spans[at]:.3g} s before step {at + 1}: the file is damaged, fetch it again")
    turn = np.diff(poses[:, 2])
    turn = np.abs(np.arctan2(np.sin(turn), np.cos(turn)))
    if (at := _first(~(turn <= TURN * spans))) >= 0:
        raise DataError(f"{where}: the ego turns by {turn[at]:.2f} rad in {spans[at]:.3g} s before step {at + 1}: the file is damaged, fetch it again")


def _check_motion(where: str, ego: EgoTrack) -> None:
    for name, values, most in zip(("velocity", "acceleration", "yaw rate"), (ego.velocity_ego, ego.acceleration_ego, ego.yaw_rate), MOTION):
        size = np.abs(np.reshape(values, (len(ego.poses_world), -1))).max(axis=1)
        if (at := _first(~(size <= most))) >= 0:
            raise DataError(f"{where}: the ego's {name} of step {at} is {size[at]:.4g}: the file is damaged, fetch it again")


def _check_agents(where: str, agents: Tracks | BoxTracks, ego: Array) -> None:
    if len(agents) and (at := _first(~((agents.size > 0.0) & (agents.size <= LARGE)).all(axis=1))) >= 0:
        size = " x ".join(f"{side:.4g}" for side in agents.size[at])
        raise DataError(f"{where}: agent {agents.ids[at]} is {size} m large: the file is damaged, fetch it again")
    if isinstance(agents, BoxTracks):
        row, step, poses, velocity = agents.row, agents.step, agents.poses_world, agents.velocity_world
    else:
        row, step = np.nonzero(agents.valid)
        poses, velocity = agents.poses_world[row, step], agents.velocity_world[row, step]
    for start in range(0, len(row), BOXES_AT_ONCE):
        cut = slice(start, start + BOXES_AT_ONCE)
        away = np.hypot(*(poses[cut, :2] - ego[np.minimum(step[cut], len(ego) - 1), :2]).T)  # agents may be told after the ego's last step
        speed = np.hypot(*velocity[cut].T)
        sound = (away <= FAR) & (speed <= AGENT_SPEED) & (np.abs(poses[cut, 2]) <= HEADING)
        if (at := _first(~sound)) >= 0:
            name, when = agents.ids[int(row[start + at])], int(step[start + at])
            raise DataError(
                f"{where}: agent {name} at step {when} is {away[at]:.4g} m away, {speed[at]:.4g} m/s fast and heads {poses[start + at, 2]:.4g} rad: "
                "the file is damaged, fetch it again"
            )


def _check_camera(where: str, camera: Camera) -> None:
    lens, pose = camera.intrinsics, camera.ego_from_camera
    sound = np.isfinite(lens).all() and min(lens[0, 0], lens[1, 1]) > 0.0 and np.abs(lens).max() <= 10 * SIDE
    placed = np.isfinite(pose).all() and np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-2) and np.abs(pose[:3, 3]).max() <= MOUNT
    if not (sound and placed and all(0 < side <= SIDE for side in (camera.width, camera.height))):
        raise DataError(f"{where}: the calibration of camera {camera.name} is none that a camera of a car can have: the file is damaged, fetch it again")


def check_map(where: str | Path, road_map: RoadMap, drive: Array) -> None:
    """Raises DataError where a point of the map is NaN or lies more than MAP_REACH from all of the drive (S, 2+), both in one frame."""
    low, high = drive[:, :2].min(axis=0) - MAP_REACH, drive[:, :2].max(axis=0) + MAP_REACH
    for key, lane in road_map.lanes.items():
        points = np.concatenate([lane.centerline[:, :2], lane.left, lane.right])
        if not ((points >= low) & (points <= high)).all():
            raise DataError(f"{where}: lane {key} has a point at NaN, or more than {MAP_REACH / 1000.0:g} km from the drive: the file is damaged, fetch it again")
    points = road_map.polygons.vertices
    if (at := _first(~((points >= low) & (points <= high)).all(axis=1))) >= 0:
        polygon = int(np.searchsorted(road_map.polygons.offsets, at, side="right")) - 1
        raise DataError(
            f"{where}: the area {road_map.polygons.tokens[polygon]} has a point at NaN, or more than {MAP_REACH / 1000.0:g} km from the drive: "
            "the file is damaged, fetch it again"
        )


def not_unit(quaternions: ArrayLike) -> int:
    """The first of quaternions (N, 4) whose length is not 1, -1 where all are sound."""
    return _first(~(np.abs(np.linalg.norm(np.asarray(quaternions, np.float64), axis=-1) - 1.0) <= UNIT))
