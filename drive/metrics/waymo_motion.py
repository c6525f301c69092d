"""Waymo Open Motion: minADE, minFDE and miss rate of predicted futures, by Waymo's definitions.

Source: waymo-open-dataset 99a4cb3, metrics/motion_metrics.cc and motion_metrics.proto. Predictions have 16 points at 2 Hz, the
first at 0.5 s; ground truth at 10 Hz is taken at the same instants. Measured at 3, 5 and 8 s. The first K candidates count, in
the order given, not the K most confident ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError

Array = NDArray[np.float64]
POINTS = 16  # at 2 Hz
MEASURED = {3: 5, 5: 9, 8: 15}  # seconds: index of the point
LATERAL = {3: 1.0, 5: 1.8, 8: 3.0}  # m, at full scale
LONGITUDINAL = {3: 2.0, 5: 3.6, 8: 6.0}
LOW_SPEED, HIGH_SPEED = 1.4, 11.0  # m/s


def subsample(track: Array) -> Array:
    """(..., 16, D) at 2 Hz of a future (..., 80, D) at 10 Hz whose first sample is 0.1 s ahead."""
    if track.shape[-2] != 80:
        raise DataError(f"a Waymo future has 80 samples at 10 Hz, got {track.shape[-2]}")
    return track[..., 4::5, :]


def _checked(candidates: Array, truth: Array, valid: NDArray[np.bool_]) -> tuple[Array, Array]:
    candidates, truth = np.asarray(candidates, np.float64), np.asarray(truth, np.float64)
    shapes = candidates.shape[-2:] == (POINTS, 2) and truth.shape[-2] == POINTS and valid.shape[-1] == POINTS and candidates.shape[-3]
    if not shapes:
        raise DataError(f"candidates (…, K, {POINTS}, 2), truth (…, {POINTS}, 2+) and valid (…, {POINTS}) at 2 Hz, got "
                        f"{candidates.shape}, {truth.shape}, {valid.shape}")  # fmt: skip
    if not np.isfinite(candidates).all() or not np.isfinite(truth[valid]).all():
        raise DataError("candidates and valid truth are finite, got NaN or infinity")
    return candidates, truth


def min_ade(candidates: Array, truth: Array, valid: NDArray[np.bool_], seconds: int, k: int = 6) -> Array:
    """minADE (...) in m over the valid points up to `seconds`, of candidates (..., K, 16, 2); NaN where no point is valid."""
    candidates, truth = _checked(candidates, truth, valid)
    upto = MEASURED[seconds] + 1
    gap = _gaps(candidates[..., :k, :upto, :], truth[..., None, :upto, :2], valid[..., None, :upto])
    count = valid[..., :upto].sum(axis=-1)
    return np.where(count > 0, gap.sum(axis=-1).min(axis=-1) / np.maximum(count, 1), np.nan)


def min_fde(candidates: Array, truth: Array, valid: NDArray[np.bool_], seconds: int, k: int = 6) -> Array:
    """minFDE (...) in m at `seconds`; NaN where that point is not valid."""
    candidates, truth = _checked(candidates, truth, valid)
    at = MEASURED[seconds]
    gap = _gaps(candidates[..., :k, at, :], truth[..., None, at, :2], valid[..., None, at])
    return np.where(valid[..., at], gap.min(axis=-1), np.nan)


def _gaps(candidates: Array, truth: Array, valid: NDArray[np.bool_]) -> Array:
    """Distances in m, 0 where not valid."""
    return np.where(valid, np.hypot(*np.moveaxis(candidates - np.where(valid[..., None], truth, 0.0), -1, 0)), 0.0)


def speed_scale(speed: Array | float) -> Array:
    """Factor 0.5..1 of the miss thresholds: 0.5 below 1.4 m/s, 1 above 11 m/s, linear between."""
    return np.clip(0.5 + 0.5 * (np.asarray(speed, np.float64) - LOW_SPEED) / (HIGH_SPEED - LOW_SPEED), 0.5, 1.0)


def missed(candidates: Array, truth: Array, valid: NDArray[np.bool_], speed: Array, seconds: int, k: int = 6) -> Array:
    """1 where every one of the first `k` candidates misses at `seconds`, else 0; NaN where that point is not valid.

    truth (..., 16, 3) has headings: displacement is split along and across the heading at that point. speed (...) m/s is the
    object's at the present.
    """
    candidates, truth = _checked(candidates, truth, valid)
    if truth.shape[-1] < 3:
        raise DataError("a miss is measured along and across the true heading: give truth (…, 16, 3)")
    if not np.isfinite(speed).all():
        raise DataError("a miss depends on the object's speed, got NaN or infinity")
    at = MEASURED[seconds]
    here = np.where(valid[..., at, None], truth[..., at, :3], 0.0)
    gap = candidates[..., :k, at, :] - here[..., None, :2]
    c, s = np.cos(here[..., None, 2]), np.sin(here[..., None, 2])
    scale = speed_scale(speed)[..., None]
    beyond = np.abs(c * gap[..., 0] + s * gap[..., 1]) > LONGITUDINAL[seconds] * scale
    beyond |= np.abs(c * gap[..., 1] - s * gap[..., 0]) > LATERAL[seconds] * scale
    return np.where(valid[..., at], beyond.all(axis=-1).astype(np.float64), np.nan)
