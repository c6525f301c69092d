"""Where the agents go: vehicles keep their speed along their lane, everything else its velocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.types import AgentType, Tracks
from drive.planners.lane_index import LaneIndex, frame_at, lane_pose, nearest_point, wrap

Array = NDArray[np.float64]
MAX_TILT = np.radians(40.0)  # a vehicle more askew than this does not follow the lane below it
DRIFT_S = 1.5  # s, time constant with which a lateral speed dies out: a lane change ends, a swerve is not extrapolated for ever
STANDING = 0.3  # m/s; slower agents stay where they are


@dataclass(frozen=True)
class Forecast:
    """A agents over T steps from the present; box centres."""

    poses_world: Array  # (A, T, 3)
    speed: Array  # (A,) m/s, kept
    dt: float  # s


def present_agents(agents: Tracks, ego_xy: Array, radius: float) -> Tracks:
    """The agents that exist at step 0 within `radius` metres of `ego_xy` (2,), cut to that one step."""
    now = agents.steps(0, 1)
    gap = now.poses_world[:, 0, :2] - ego_xy[:2]
    return now.subset(now.valid[:, 0] & (np.hypot(gap[:, 0], gap[:, 1]) <= radius))


def forecast(agents: Tracks, index: LaneIndex, steps: int, dt: float) -> Forecast:
    """Forecast of `agents` (their step 0) over `steps` steps, the first one the present itself."""
    follows = np.isin(agents.types, (AgentType.VEHICLE, AgentType.BICYCLE))
    pose, velocity = agents.poses_world[:, 0].copy(), agents.velocity_world[:, 0].copy()
    arrays = (index.points, index.along, index.owner, index.start, index.next_lane, index.half_width)
    poses = _forecast(pose, velocity, follows, *arrays, steps, dt)
    return Forecast(poses, np.hypot(velocity[:, 0], velocity[:, 1]), dt)


@njit(cache=True)
def _forecast(pose, velocity, follows, points, along, owner, start, next_lane, half_width, steps, dt):
    out = np.empty((len(pose), steps, 3))
    for a in range(len(pose)):
        x, y, heading = pose[a, 0], pose[a, 1], pose[a, 2]
        speed = np.hypot(velocity[a, 0], velocity[a, 1])
        if speed < STANDING:
            out[a] = pose[a]
            continue
        i = -1
        if follows[a]:
            i, _ = nearest_point(points, 0, len(points), x, y, heading)
        if i >= 0:
            lane = owner[i]
            ahead, across = frame_at(points, i, x, y)
            tilt = wrap(heading - points[i, 2])
            if abs(tilt) > MAX_TILT or abs(across) > half_width[lane] + 0.7 or abs(ahead) > 3.0:
                i = -1
        if i < 0:
            for k in range(steps):
                out[a, k, 0], out[a, k, 1], out[a, k, 2] = x + velocity[a, 0] * dt * k, y + velocity[a, 1] * dt * k, heading
            continue
        sideways = -np.sin(points[i, 2]) * velocity[a, 0] + np.cos(points[i, 2]) * velocity[a, 1]
        for k in range(steps):
            decay = np.exp(-k * dt / DRIFT_S)
            px, py, ph = lane_pose(points, along, start, next_lane, lane, along[i] + ahead + speed * dt * k)
            d = across + sideways * DRIFT_S * (1.0 - decay)
            out[a, k, 0], out[a, k, 1], out[a, k, 2] = px - np.sin(ph) * d, py + np.cos(ph) * d, ph + tilt * decay
    return out
