"""What no recorded drive can hold, so that damage to formats without checksums is told where it shows: applied to every Log that is built.

The bounds tell damage of files. What our own recorder was given, and what is read under a checksum (`Log.sound`), may hold a teleport, an agent
at the other end of a town or a camera on a tower: of it only what no reader can work with is refused, NaN and times that do not ascend.

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
SIDE, MOUNT = 20_000, 100.0  # pixels of an image's side, m from the rear axle to a camera: simulators look on from above
DAMAGED, GIVEN = "the file is damaged, fetch it again", "mend what gave it"  # the way out, of what was read and of what was not
BOXES_AT_ONCE = 100_000  # of a long log, whose boxes are looked at part by part


def check_log(log: Log) -> None:
    """Raises DataError, naming the log's first file and the record, where a Log holds what no drive can."""
    where = f"{log.files[0] if log.files else log.source}: log {log.log_id}"
    cure = DAMAGED if log.files else GIVEN
    times = np.array([log.time(step) for step in range(log.steps)])
    if log.sound:
        return _check_steps(where, log.ego.poses_world, times, cure)
    check_drive(where, log.ego.poses_world, times, cure)
    _check_motion(where, log.ego, cure)
    if not all(0.0 < side <= LARGE for side in log.ego_size):
        raise DataError(f"{where}: the ego is {' x '.join(f'{side:g}' for side in log.ego_size)} m large: {cure}")
    _check_agents(where, log.agents, log.ego.poses_world, cure)
    for camera in log.cameras:
        _check_camera(where, camera, cure)


def _first(bad: Any) -> int:
    """The first True of (N,), -1 where there is none."""
    return int(bad.argmax()) if bad.any() else -1


def _check_steps(where: str | Path, poses: Array, times: Array, cure: str) -> None:
    """Raises DataError on NaN, and on times that do not ascend."""
    if (at := _first(~np.isfinite(poses).all(axis=1))) >= 0:
        raise DataError(f"{where}: the ego pose of step {at} is NaN or infinite: {cure}")
    if (at := _first(~(np.diff(times) > 0.0))) >= 0:
        raise DataError(f"{where}: step {at + 1} is not later than the one before: {cure}")


def check_drive(where: str | Path, poses: Array, times: Array, cure: str = DAMAGED) -> None:
    """Raises DataError on NaN, times that do not ascend, and jumps, in poses (S, 3) at `times` (S,) s; `where` names file and log."""
    _check_steps(where, poses, times, cure)
    far, spun, metres, turn = _jumps(poses, times)
    spans = np.diff(times)
    if (at := _first(far)) >= 0:
        raise DataError(f"{where}: the ego jumps {metres[at]:.4g} m in {spans[at]:.3g} s before step {at + 1}: {cure}")
    if (at := _first(spun)) >= 0:
        raise DataError(f"{where}: the ego turns by {turn[at]:.2f} rad in {spans[at]:.3g} s before step {at + 1}: {cure}")


def jumps(poses: Array, times: Array) -> NDArray[np.int64]:
    """The steps before which the ego moves or turns as no car can, in poses (S, 3) at `times` (S,) s."""
    far, spun, _, _ = _jumps(poses, times)
    return np.flatnonzero(far | spun) + 1


def _jumps(poses: Array, times: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Array, Array]:
    """Where the ego moves too far and turns too much from one step to the next, and the metres and rad, (S - 1,) each."""
    spans = np.diff(times)
    metres = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    turn = np.diff(poses[:, 2])
    turn = np.abs(np.arctan2(np.sin(turn), np.cos(turn)))
    return ~(metres <= SPEED * spans), ~(turn <= TURN * spans), metres, turn


def _check_motion(where: str, ego: EgoTrack, cure: str) -> None:
    for name, values, most in zip(("velocity", "acceleration", "yaw rate"), (ego.velocity_ego, ego.acceleration_ego, ego.yaw_rate), MOTION):
        size = np.abs(np.reshape(values, (len(ego.poses_world), -1))).max(axis=1)
        if (at := _first(~(size <= most))) >= 0:
            raise DataError(f"{where}: the ego's {name} of step {at} is {size[at]:.4g}: {cure}")


def _check_agents(where: str, agents: Tracks | BoxTracks, ego: Array, cure: str) -> None:
    if len(agents) and (at := _first(~((agents.size > 0.0) & (agents.size <= LARGE)).all(axis=1))) >= 0:
        size = " x ".join(f"{side:.4g}" for side in agents.size[at])
        raise DataError(f"{where}: agent {agents.ids[at]} is {size} m large: {cure}")
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
            how = f"{away[at]:.4g} m away, {speed[at]:.4g} m/s fast and heads {poses[start + at, 2]:.4g} rad"
            raise DataError(f"{where}: agent {name} at step {when} is {how}: {cure}")


def _check_camera(where: str, camera: Camera, cure: str) -> None:
    lens, pose = camera.intrinsics, camera.ego_from_camera
    sound = np.isfinite(lens).all() and min(lens[0, 0], lens[1, 1]) > 0.0 and np.abs(lens).max() <= 10 * SIDE
    placed = np.isfinite(pose).all() and np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-2) and np.abs(pose[:3, 3]).max() <= MOUNT
    if not (sound and placed and all(0 < side <= SIDE for side in (camera.width, camera.height))):
        raise DataError(f"{where}: the calibration of camera {camera.name} is none that a camera of a car can have: {cure}")


def check_map(where: str | Path, road_map: RoadMap, drive: Array, cure: str = DAMAGED, reach: float = MAP_REACH) -> None:
    """Raises DataError where a point of the map is NaN or lies more than `reach` m from all of the drive (S, 2+), both in one frame."""
    low, high = drive[:, :2].min(axis=0) - reach, drive[:, :2].max(axis=0) + reach
    what = f"a point at NaN, or more than {reach / 1000.0:g} km from the drive" if np.isfinite(reach) else "a point at NaN or infinity"

    def strange(points: Array) -> int:
        return _first(~(np.isfinite(points) & (points >= low) & (points <= high)).all(axis=1))

    for key, lane in road_map.lanes.items():
        if strange(np.concatenate([lane.centerline[:, :2], lane.left, lane.right])) >= 0:
            raise DataError(f"{where}: lane {key} has {what}: {cure}")
    if (at := strange(road_map.polygons.vertices)) >= 0:
        polygon = int(np.searchsorted(road_map.polygons.offsets, at, side="right")) - 1
        raise DataError(f"{where}: the area {road_map.polygons.tokens[polygon]} has {what}: {cure}")


def not_unit(quaternions: ArrayLike) -> int:
    """The first of quaternions (N, 4) whose length is not 1, -1 where all are sound."""
    return _first(~(np.abs(np.linalg.norm(np.asarray(quaternions, np.float64), axis=-1) - 1.0) <= UNIT))
