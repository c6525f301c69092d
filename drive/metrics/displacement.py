"""Open-loop displacement: ADE, FDE, their best-of-k forms, miss rate and heading error.

Metres and radians, over all samples of the plan; batched over any leading axes. These measure likeness to a log, not driving: a
table that uses them should say so. Definitions follow Argoverse 2 motion forecasting (av2 0.3.6, metrics.py) where it has one.
"""

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.core.types import Array

MISS_THRESHOLD = 2.0  # m of final displacement beyond which a plan misses


def displacement(poses: Array, truth: Array) -> Array:
    """Distance (..., T) in m between poses (..., T, 2+) and the truth (..., T, 2+), both in one frame; leading axes broadcast.

    Raises DataError on other shapes, and on NaN: a sample without truth is left out by the caller, who counts it.
    """
    poses, truth = np.asarray(poses, np.float64), np.asarray(truth, np.float64)
    if min(poses.ndim, truth.ndim) < 2 or poses.shape[-2] != truth.shape[-2] or not poses.shape[-2]:
        raise DataError(f"displacement takes poses and truth of one length (..., T, 2 or 3), got {poses.shape} and {truth.shape}")
    gap = poses[..., :2] - truth[..., :2]
    if not np.isfinite(gap).all():
        raise DataError("displacement takes finite poses and truth, got NaN or infinity: leave such samples out, and count them")
    return np.hypot(gap[..., 0], gap[..., 1])


def ade(poses: Array, truth: Array) -> Array:
    """Average displacement error (...) in m of poses (..., T, 2+); mean over the T samples, the present not among them."""
    return displacement(poses, truth).mean(axis=-1)


def fde(poses: Array, truth: Array) -> Array:
    """Final displacement error (...) in m of poses (..., T, 2+)."""
    return displacement(poses, truth)[..., -1]


def _best(values: Array, k: int) -> Array:
    if not 1 <= k <= values.shape[-1]:
        raise DataError(f"the best of {k} was asked for among {values.shape[-1]} candidates: sample more, or ask for fewer")
    return values[..., :k].min(axis=-1)


def min_ade(poses: Array, truth: Array, k: int) -> Array:
    """Least ADE (...) in m among the first k of K candidates (..., K, T, 2+), truth (..., T, 2+).

    Some Argoverse tables take the ADE of the candidate with the least FDE instead: say which. Candidates count in the order
    given, so sort by probability first where there is one.
    """
    return _best(ade(poses, np.asarray(truth)[..., None, :, :]), k)


def min_fde(poses: Array, truth: Array, k: int) -> Array:
    """Least FDE (...) in m among the first k of K candidates (..., K, T, 2+), truth (..., T, 2+)."""
    return _best(fde(poses, np.asarray(truth)[..., None, :, :]), k)


def missed(poses: Array, truth: Array, k: int, threshold: float = MISS_THRESHOLD) -> NDArray[np.bool_]:
    """Whether (...) none of the first k of K candidates (..., K, T, 2+) ends within `threshold` m of the truth (..., T, 2+).

    The mean is the miss rate; exactly at the threshold is no miss.
    """
    return min_fde(poses, truth, k) > threshold


def heading_error(poses: Array, truth: Array) -> Array:
    """Mean absolute heading error (...) in rad of poses (..., T, 3) against the truth (..., T, 3), the short way round."""
    poses, truth = np.asarray(poses, np.float64), np.asarray(truth, np.float64)
    if poses.shape[-1:] != (3,) or truth.shape[-1:] != (3,):
        raise DataError(f"heading_error takes poses (..., T, 3) with a heading, got {poses.shape} and {truth.shape}")
    displacement(poses, truth)
    gap = np.abs(wrap_angle(poses[..., 2] - truth[..., 2]))
    if not np.isfinite(gap).all():
        raise DataError("heading_error takes finite headings, got NaN or infinity")
    return gap.mean(axis=-1)
