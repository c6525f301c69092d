"""Waymo's rater feedback score (`rfs`) of the end-to-end driving challenge: how near a plan comes to trajectories that people rated.

Source: waymo-open-dataset 99a4cb3, metrics/python/rater_feedback_utils.py. The best reference is taken at 3 s and at 5 s by itself,
and the score is the mean of the two; outside every reference's bounds it does not fall below 4. Frame: rear axle at the present,
x forward, y left.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.metrics.waymo_motion import speed_scale

Array = NDArray[np.float64]
RATE = 4  # Hz of the challenge's waypoints, 0.25 s to 5 s
JUDGED = (3, 5)  # s
LATERAL = np.array([1.0, 1.8])  # m at 3 s and 5 s
LONGITUDINAL = 4.0 * LATERAL
DECAY = 0.1  # score left one threshold beyond the bounds
FLOOR = 4.0  # of a plan inside no reference's bounds


def _directions(reference: Array) -> Array:
    """Unit direction (T, 2) of each step of a reference (T, 2); a step of no length keeps the one before, ahead at first."""
    steps = np.diff(reference, axis=0, prepend=np.zeros((1, 2)))
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    out, last = np.empty_like(steps), np.array([1.0, 0.0])
    for t in range(len(steps)):
        if lengths[t] > 0.0:
            last = steps[t] / lengths[t]
        out[t] = last
    return out


def _to_length(waypoints: Array, steps: int) -> Array:
    """(steps, 2) waypoints cut, or prolonged by the last one."""
    waypoints = np.asarray(waypoints, np.float64)[:steps, :2]
    return np.concatenate([waypoints, np.repeat(waypoints[-1:], steps - len(waypoints), axis=0)])


def rater_feedback_score(plans: Array, references: Sequence[Array], ratings: Sequence[float], speed: float, rate: int = RATE) -> Array:
    """RFS (N,), 0..10, of plans (N, T, 2+) over 5 s or more against rated `references` (T', 2+), from the present's `speed` in m/s.

    Waypoints come at `rate` Hz (the challenge: 4), the first one a step ahead. References of another length are cut, or
    prolonged by their last waypoint. Raises DataError on shorter plans, NaN, no reference, and ratings outside 0..10 (-1 marks a
    frame that nobody rated: leave it out, and count it).
    """
    plans, steps = np.asarray(plans, np.float64), JUDGED[-1] * rate
    if plans.ndim != 3 or plans.shape[1] < steps or plans.shape[2] < 2:
        raise DataError(f"rfs takes plans (N, {steps} or more, 2+), 5 s at {rate} Hz, got {plans.shape}")
    if not len(references) or len(references) != len(ratings):
        raise DataError(f"rfs takes one rating per reference and at least one, got {len(references)} and {len(ratings)}")
    if not all(0.0 <= rating <= 10.0 for rating in ratings):
        raise DataError(f"ratings lie in 0..10, got {list(ratings)}: a frame that nobody rated (-1) has no score")
    if any(np.ndim(reference) != 2 or not len(reference) for reference in references):
        raise DataError("a reference has waypoints (T, 2+), and at least one")
    known = np.stack([_to_length(reference, steps) for reference in references])  # (P, T, 2)
    if not (np.isfinite(plans).all() and np.isfinite(known).all() and np.isfinite(speed)):
        raise DataError("rfs takes finite plans, references and speed, got NaN or infinity")
    at = [seconds * rate - 1 for seconds in JUDGED]
    along = np.stack([_directions(reference) for reference in known])[:, at]  # (P, 2, 2)
    gap = plans[:, None, at, :2] - known[None, :, at]  # (N, P, 2, 2)
    longitudinal = np.abs((gap * along).sum(axis=-1))
    lateral = np.abs(gap[..., 1] * along[..., 0] - gap[..., 0] * along[..., 1])
    scale = speed_scale(speed)
    excess = np.maximum(longitudinal / (LONGITUDINAL * scale), lateral / (LATERAL * scale))  # (N, P, 2), 1 at the bound
    earned = np.asarray(ratings, np.float64)[:, None] * DECAY ** np.maximum(excess - 1.0, 0.0)
    score = earned.max(axis=1).mean(axis=1)
    inside = excess.max(axis=2).min(axis=1) <= 1.0
    return np.where(inside, score, np.maximum(score, FLOOR))
