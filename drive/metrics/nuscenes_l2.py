"""nuScenes' open-loop L2 of UniAD and of ST-P3: two averages of one error, often printed under one name.

Both: six waypoints at 0.5 s, in the LIDAR_TOP frame of the present (x right, y forward); where the lidar will be, not the rear axle.
Source: UniAD 532fc33, planning_metrics.py and nuscenes_e2e_dataset.py; ST-P3 6b11e13, metrics.py. UniAD takes the value at 1, 2, 3 s, with
0 where the log has no future (and the sample stays in the denominator); ST-P3 the mean of all steps up to then, over samples that
have the whole future.
"""

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError

Array = NDArray[np.float64]
STEPS = 6  # of 0.5 s
SECONDS = (1, 2, 3)


def lidar_positions(poses_ego: Array, lidar_from_ego: Array) -> Array:
    """(..., T, 2) of the lidar in its present frame, of rear-axle poses (..., T, 3) in the present ego frame.

    lidar_from_ego (4, 4) is the calibration; the car drives on a plane.
    """
    ego_from_lidar = np.linalg.inv(lidar_from_ego)
    x, y, z = ego_from_lidar[:3, 3]
    c, s = np.cos(poses_ego[..., 2]), np.sin(poses_ego[..., 2])
    there = np.stack([poses_ego[..., 0] + c * x - s * y, poses_ego[..., 1] + s * x + c * y, np.full(c.shape, z)], axis=-1)
    return there @ lidar_from_ego[:2, :3].T + lidar_from_ego[:2, 3]


def _distances(plans: Array, truth: Array, known: NDArray[np.bool_]) -> Array:
    plans, truth = np.asarray(plans, np.float64), np.asarray(truth, np.float64)
    if plans.shape[-2:] != (STEPS, 2) or truth.shape[-2:] != (STEPS, 2) or known.shape != truth.shape[:-1]:
        raise DataError(f"L2 takes plans and truth (…, {STEPS}, 2) with known (…, {STEPS}), got {plans.shape}, {truth.shape}, {known.shape}")
    gap = np.where(known[..., None], plans - np.where(known[..., None], truth, 0.0), 0.0)
    if not np.isfinite(gap).all():
        raise DataError("L2 takes finite plans and known truth, got NaN or infinity")
    return np.hypot(gap[..., 0], gap[..., 1])


def l2_uniad(plans: Array, truth: Array, known: NDArray[np.bool_]) -> Array:
    """L2 (..., 3) in m at 1, 2 and 3 s, 0 where the truth is not `known` (..., 6); lidar positions (..., 6, 2)."""
    return _distances(plans, truth, known)[..., [2 * second - 1 for second in SECONDS]]


def l2_stp3(plans: Array, truth: Array) -> Array:
    """L2 (..., 3) in m, mean over all steps up to 1, 2 and 3 s; lidar positions (..., 6, 2)."""
    gap = _distances(plans, truth, np.ones(np.shape(truth)[:-1], bool))
    return np.stack([gap[..., : 2 * second].mean(axis=-1) for second in SECONDS], axis=-1)
