"""nuPlan's open-loop score (OLS): how near plans stay to the expert's drive, at 1 Hz over 3, 5 and 8 s.

    OLS = MissRate * (ADE + FDE + 2 AHE + 2 FHE) / 6,   each max(0, 1 - mean error / threshold)

Source: nuplan-devkit v1.2, planner_expert_*.py, planner_miss_rate_within_bound.py, open_loop_boxes_weighted_average.yaml. Poses are
those of the box centre. Errors are averaged over frames and then over the three horizons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle

Array = NDArray[np.float64]
HORIZONS = (3, 5, 8)  # s, and poses at 1 Hz
MAX_DISPLACEMENT = 8.0  # m, of the average and of the final error
MAX_HEADING = 0.8  # rad
MISS_DISPLACEMENT = np.array([6.0, 8.0, 16.0])  # m, at any pose up to each horizon
MAX_MISS_RATE = 0.3


@dataclass(frozen=True)
class OpenLoopErrors:
    """Errors of F frames at each of the three horizons, (3, F)."""

    ade: Array  # m
    fde: Array  # m
    ahe: Array  # rad
    fhe: Array  # rad
    max_displacement: Array  # m

    @property
    def miss_rate(self) -> Array:
        """(3,) share of frames with a displacement beyond the horizon's limit."""
        return (self.max_displacement > MISS_DISPLACEMENT[:, None]).mean(axis=1)

    @property
    def parts(self) -> dict[str, float]:
        """The factors of the score, 0..1: "miss_rate" is 1 if it is at most 0.3 at every horizon."""
        limits = {"ade": MAX_DISPLACEMENT, "fde": MAX_DISPLACEMENT, "ahe": MAX_HEADING, "fhe": MAX_HEADING}
        bounded = {name: max(0.0, 1.0 - float(getattr(self, name).mean(axis=1).mean()) / limit) for name, limit in limits.items()}
        return {**bounded, "miss_rate": float((self.miss_rate <= MAX_MISS_RATE).all())}

    @property
    def score(self) -> float:
        """OLS, 0..1."""
        part = self.parts
        return part["miss_rate"] * (part["ade"] + part["fde"] + 2.0 * part["ahe"] + 2.0 * part["fhe"]) / 6.0


def open_loop_errors(plans: Array, expert: Array) -> OpenLoopErrors:
    """Errors of plans (F, 8, 3) against the expert's poses (F, 8, 3): box centres at 1 Hz, the first 1 s ahead, both in one frame.

    Raises DataError on other shapes and NaN: a frame whose expert ends within 8 s is left out by the caller, who counts it.
    """
    plans, expert = np.asarray(plans, np.float64), np.asarray(expert, np.float64)
    if plans.ndim != 3 or plans.shape[1:] != (HORIZONS[-1], 3) or plans.shape != expert.shape or not len(plans):
        raise DataError(f"open-loop errors take plans and expert of one shape (F, {HORIZONS[-1]}, 3), got {plans.shape} and {expert.shape}")
    if not (np.isfinite(plans).all() and np.isfinite(expert).all()):
        raise DataError("open-loop errors take finite poses, got NaN or infinity")
    gap = np.hypot(*np.moveaxis(plans[..., :2] - expert[..., :2], -1, 0))
    turn = np.abs(wrap_angle(plans[..., 2] - expert[..., 2]))
    return OpenLoopErrors(
        ade=np.stack([gap[:, :h].mean(axis=1) for h in HORIZONS]),
        fde=np.stack([gap[:, h - 1] for h in HORIZONS]),
        ahe=np.stack([turn[:, :h].mean(axis=1) for h in HORIZONS]),
        fhe=np.stack([turn[:, h - 1] for h in HORIZONS]),
        max_displacement=np.stack([gap[:, :h].max(axis=1) for h in HORIZONS]),
    )


def expert_errors(poses: Array, expert: Array, heading_weight: float = 0.0) -> Array:
    """Distance (T,) in m of driven poses (T, 3) from the expert's at the same times, plus `heading_weight` m/rad of heading error.

    nuPlan's ego_expert_l2_error (weight 0) and ego_expert_l2_error_with_yaw (weight 2.5). Raises DataError on other shapes.
    """
    poses, expert = np.asarray(poses, np.float64), np.asarray(expert, np.float64)
    if poses.shape != expert.shape or poses.ndim != 2 or poses.shape[1] != 3:
        raise DataError(f"expert errors take poses and expert of one shape (T, 3), got {poses.shape} and {expert.shape}")
    gap = np.hypot(*(poses[:, :2] - expert[:, :2]).T)
    return gap + heading_weight * np.abs(wrap_angle(poses[:, 2] - expert[:, 2]))
