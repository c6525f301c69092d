"""Motion from logged positions: what the ego knows of itself, from past poses alone, and what teachers know of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import wrap_angle
from drive.core.types import EgoTrack

Array = NDArray[np.float64]
DT = 0.1  # s, of most logs
FIT_STEPS = 9  # step velocities in a motion fit


def steps_ego(poses: Array) -> Array:
    """(S - 1, 3) forward, left and turn of each step, in the frame midway between its two headings; m and rad."""
    turn = wrap_angle(np.diff(poses[:, 2]))
    heading, step = poses[:-1, 2] + turn / 2.0, np.diff(poses[:, :2], axis=0)
    c, s = np.cos(heading), np.sin(heading)
    return np.column_stack([c * step[:, 0] + s * step[:, 1], -s * step[:, 0] + c * step[:, 1], turn])


def theil_sen(values: Array, dt: float) -> tuple[float, float]:
    """(value, slope) of a robust line through `values` (N,), midpoints of steps of `dt` s, read half a step after the last.

    The slope is the median of the slopes of all pairs, the value the median of the residuals (Theil 1950, Sen 1968).
    """
    times = (np.arange(len(values)) - len(values) + 0.5) * dt
    i, j = np.triu_indices(len(values), 1)
    slope = float(np.median((values[j] - values[i]) / (times[j] - times[i]))) if len(i) else 0.0
    return float(np.median(values - slope * times)), slope


def ego_motion(poses: Array, dt: float = DT) -> EgoTrack:
    """The ego track of rear-axle poses (S, 3), `dt` s apart; the motion at step k comes from steps k - 9 ... k alone.

    Acceleration is that of the body: the derivative of the velocity in the ego frame plus yaw rate x velocity.
    Step 0, which has no step before it, takes the motion of step 1.
    """
    rates = steps_ego(poses) / dt
    count = len(poses)
    motion = np.zeros((count, 3, 2))  # forward, left, turn x value, slope
    for k in range(1, count):
        window = rates[max(k - FIT_STEPS, 0) : k]
        motion[k] = [theil_sen(window[:, column], dt) for column in range(3)]
    motion[0] = motion[min(1, count - 1)]
    velocity, yaw_rate = motion[:, :2, 0], motion[:, 2, 0]
    turning = yaw_rate[:, None] * np.column_stack([-velocity[:, 1], velocity[:, 0]])
    return EgoTrack(poses, velocity, motion[:, :2, 1] + turning, yaw_rate)


def central_velocity(positions: Array, valid: NDArray[np.bool_], dt: float = DT) -> Array:
    """(A, S, 2) m/s from positions (A, S, 2), `dt` s apart: over both neighbours where valid, else over the one that is, else zero."""
    index = np.arange(valid.shape[1])
    before, after = np.maximum(index - 1, 0), np.minimum(index + 1, valid.shape[1] - 1)
    low = np.where(valid[:, before], before, index)
    high = np.where(valid[:, after], after, index)
    rows = np.arange(len(valid))[:, None]
    span = np.maximum(high - low, 1) * dt
    velocity = (positions[rows, high] - positions[rows, low]) / span[..., None]
    return np.where(valid[..., None], velocity, 0.0)


def driven(ego: EgoTrack) -> float:
    """Metres driven, to a tenth."""
    return round(float(np.hypot(*np.diff(ego.poses_world[:, :2], axis=0).T).sum()), 1)
