"""Where the agents go: vehicles keep their lane and everything else its course, at the present speed; who brakes goes on braking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.types import AgentType, Privileged, Tracks
from drive.planners.lane_index import LaneIndex, frame_at, lane_pose, nearest_point, wrap

Array = NDArray[np.float64]
MAX_TILT = np.radians(40.0)  # a vehicle more askew than this does not follow the lane below it
DRIFT_S = 1.5  # s, time constant with which a lateral speed dies out: a lane change ends, a swerve is not extrapolated for ever
BRAKING = (-6.0, -0.4)  # m/s^2; a deceleration in between is taken to last until the agent stands
STANDING = 0.3  # m/s; slower agents stay where they are


@dataclass(frozen=True)
class Forecast:
    """A agents over T steps from the present; box centres."""

    poses_world: Array  # (A, T, 3)
    speed: Array  # (A, T) m/s
    dt: float  # s


def present_agents(scene: Privileged, radius: float) -> tuple[Tracks, Array]:
    """The agents that exist at step 0 within `radius` metres of the ego, cut to that one step, and their acceleration (A,) m/s^2.

    Raises DataError where the scene's accelerations are not its agents'.
    """
    now = scene.agents.steps(0, 1)
    gap = now.poses_world[:, 0, :2] - scene.ego.pose_world[:2]
    keep = now.valid[:, 0] & (np.hypot(gap[:, 0], gap[:, 1]) <= radius)
    known = scene.agent_acceleration
    if known is not None and len(known) != len(keep):
        raise DataError(f"a scene of {len(keep)} agents has {len(known)} accelerations: replace both together, or give None")
    return now.subset(keep), np.zeros(int(keep.sum())) if known is None else known[keep]


def forecast(agents: Tracks, acceleration: Array, index: LaneIndex, steps: int, dt: float) -> Forecast:
    """Forecast of `agents` (their step 0) with `acceleration` (A,) over `steps` steps, the first one the present itself."""
    follows = np.isin(agents.types, (AgentType.VEHICLE, AgentType.BICYCLE))
    pose, velocity = agents.poses_world[:, 0].copy(), agents.velocity_world[:, 0].copy()
    start = np.hypot(velocity[:, 0], velocity[:, 1])
    braking = np.where(acceleration < BRAKING[1], np.maximum(acceleration, BRAKING[0]), 0.0)
    speed = np.maximum(start[:, None] + braking[:, None] * dt * np.arange(steps), 0.0)
    travelled = np.concatenate([np.zeros((len(pose), 1)), np.cumsum(0.5 * dt * (speed[:, 1:] + speed[:, :-1]), axis=1)], axis=1)
    arrays = (index.points, index.along, index.owner, index.start, index.next_lane, index.half_width)
    return Forecast(_forecast(pose, velocity, travelled, follows, *arrays, dt), speed, dt)


@njit(cache=True)
def _forecast(pose, velocity, travelled, follows, points, along, owner, start, next_lane, half_width, dt):
    steps = travelled.shape[1]
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
                share = travelled[a, k] / speed
                out[a, k, 0], out[a, k, 1], out[a, k, 2] = x + velocity[a, 0] * share, y + velocity[a, 1] * share, heading
            continue
        sideways = -np.sin(points[i, 2]) * velocity[a, 0] + np.cos(points[i, 2]) * velocity[a, 1]
        for k in range(steps):
            decay = np.exp(-k * dt / DRIFT_S)
            px, py, ph = lane_pose(points, along, start, next_lane, lane, along[i] + ahead + travelled[a, k])
            d = across + sideways * DRIFT_S * (1.0 - decay)
            out[a, k, 0], out[a, k, 1], out[a, k, 2] = px - np.sin(ph) * d, py + np.cos(ph) * d, ph + tilt * decay
    return out
