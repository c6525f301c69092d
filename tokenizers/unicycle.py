"""Acceleration and curvature bins of a unicycle: a plan is its first speed, then an acceleration and a curvature for each step.

After the control tokens of driving VLAs (Alpamayo-R1, arXiv 2511.00088: unicycle controls recovered from positions and integrated
back). The motion model, chosen so that it inverts without ringing: over step t the car moves at v_t = max(v_{t-1} + a_t dt, 0)
along an arc of curvature k_t. Controls are found step by step from where the controls so far have led, so that errors do not add
up. Difference, on purpose: the speed before the plan is a token of the plan, so that tokens decode without any other knowledge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from drive.core.errors import TokenizerError
from drive.core.geometry import compose, relative, wrap_angle
from drive.core.types import PLAN_DT
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.feasibility import Bounds, arc_motion
from drive.tokenizers.interface import (
    Array,
    CardTokenizer,
    PlanRecord,
    Sources,
    Tokens,
    checked_plans,
    motions_of,
    nearest_index,
    plans_to_fit,
    rows_of,
)

OUTLIERS = 0.001  # share of the accelerations and curvatures that the bins need not hold
MOVING = 0.5  # m in a step below which a curvature is noise
LEVER = 2.5  # m by which a heading error counts against a position error: about where the corners of a car lie
FEATURE_SPAN = 10.0  # as in uniform_bins


@dataclass(frozen=True, eq=False)
class Unicycle(CardTokenizer):
    """1 + 2 T tokens a plan: speed, then acceleration and curvature of each step. Each has `bins` tokens of its own, 0 among
    them."""

    top_speed: float  # m/s of the first speed
    acceleration: float  # m/s^2, either way
    curvature: float  # 1/m, either way
    bins: int  # odd, so that zero is one of them

    name: ClassVar[str] = "unicycle"
    motion_tokens: ClassVar[int] = 2

    @classmethod
    def fit(
        cls,
        plans: Array,
        bins: int = 129,
        tolerance: float = 0.05,
        dt: float = PLAN_DT,
        bounds: Bounds | None = None,
        sources: Sources = "",
    ) -> Unicycle:
        """Bins that hold what plans (N, T, 3), rear axle, ego frame, `dt` apart, do within `bounds`. Raises DataError on no plans
        or NaN."""
        if bins < 3 or bins % 2 == 0:
            raise TokenizerError(f"unicycle bins must be odd and at least 3, so that one is zero; got {bins}")
        bounds = bounds or Bounds()
        motions = motions_of(plans_to_fit(plans))
        length = arc_motion(motions.reshape(-1, 3))[0].reshape(motions.shape[:2])
        gains = np.abs(np.diff(length / dt, axis=1) / dt)
        moving = length > MOVING
        bends = np.abs(motions[..., 2][moving] / length[moving])
        hardest = max(bounds.max_acceleration, bounds.max_deceleration)
        acceleration = min(max(float(np.quantile(gains, 1.0 - OUTLIERS)) if gains.size else 0.0, 1.0), hardest)
        curvature = min(max(float(np.quantile(bends, 1.0 - OUTLIERS)) if bends.size else 0.0, 0.02), bounds.max_curvature)
        return cls(dt, tolerance, bounds, PlanRecord(len(plans), sources), bounds.max_speed, acceleration, curvature, bins)

    def settings(self) -> dict[str, Any]:
        return {"top_speed": self.top_speed, "acceleration": self.acceleration, "curvature": self.curvature, "bins": self.bins}

    @cached_property
    def _grids(self) -> tuple[Array, Array, Array]:
        """(speeds, accelerations, curvatures), each (bins,) ascending."""
        across = np.linspace(-1.0, 1.0, self.bins)
        return np.linspace(0.0, self.top_speed, self.bins), self.acceleration * across, self.curvature * across

    @property
    def vocab_size(self) -> int:
        return 3 * self.bins

    @property
    def token_places(self) -> Array:
        """Each kind of token on a line of its own."""
        along = np.tile(np.linspace(0.0, FEATURE_SPAN, self.bins), 3)
        return np.stack([along, np.repeat([0.0, FEATURE_SPAN, 2.0 * FEATURE_SPAN], self.bins), np.zeros(len(along))], axis=-1)

    def automaton(self, steps: int) -> Automaton:
        kind = np.arange(self.vocab_size) // self.bins
        return Automaton.by_place([kind == 0] + [kind == 1, kind == 2] * steps)

    def encode(self, poses_ego: Array) -> Tokens:
        """Poses (N, T, 3) to tokens (N, 1 + 2 T). The first speed is the one from which an even acceleration leads through the
        first two steps; then each acceleration meets the length of the step, and each curvature its end in position and
        heading."""
        plans = checked_plans(poses_ego, "poses to encode")
        speeds, accelerations, curvatures = self._grids
        mean = arc_motion(motions_of(plans).reshape(-1, 3))[0].reshape(plans.shape[:2]) / self.dt
        before = 2.0 * mean[:, 0] - mean[:, 1] if plans.shape[1] > 1 else mean[:, 0]
        columns = [nearest_index(before, speeds)]
        pose, speed = np.zeros((len(plans), 3)), speeds[columns[0]]
        for t in range(plans.shape[1]):
            gap = relative(pose, plans[:, t])
            gain = (arc_motion(gap)[0] / self.dt - speed) / self.dt
            columns.append(nearest_index(gain, accelerations))
            speed = np.maximum(speed + accelerations[columns[-1]] * self.dt, 0.0)
            ends = _arc(speed[:, None] * self.dt, curvatures)  # (N, bins, 3)
            error = np.hypot(*np.moveaxis(ends[..., :2] - gap[:, None, :2], -1, 0)) ** 2
            error += (LEVER * wrap_angle(ends[..., 2] - gap[:, None, 2])) ** 2
            error += 1e-9 * np.abs(curvatures)  # at a standstill all are alike: straight
            columns.append(error.argmin(1))
            pose = compose(pose, ends[np.arange(len(plans)), columns[-1]])
        kinds = np.array([0] + [1, 2] * plans.shape[1])
        return np.stack(columns, axis=1) + kinds * self.bins

    def encode_motions(self, deltas: Array) -> Tokens:
        """(N, 2): the speed, and the curvature, of each motion."""
        length = arc_motion(deltas)[0]
        bend = np.where(length > MOVING, deltas[:, 2] / np.maximum(length, MOVING), 0.0)
        return np.stack(
            [nearest_index(length / self.dt, self._grids[0]), 2 * self.bins + nearest_index(bend, self._grids[2])], axis=1
        )

    def decode(self, tokens: Any) -> Array:
        rows = rows_of(tokens, self.vocab_size, 2, "the unicycle", head=1)
        kinds = np.array([0] + [1, 2] * (rows.shape[1] // 2))
        wrong = rows // self.bins != kinds
        if wrong.any():
            row, place = np.argwhere(wrong)[0]
            names = ("a speed", "an acceleration", "a curvature")
            raise TokenizerError(
                f"token {rows[row, place]} at place {place} of sequence {row} is {names[rows[row, place] // self.bins]}, want {names[kinds[place]]}"
            )
        index = rows % self.bins
        speed, pose = self._grids[0][index[:, 0]], np.zeros((len(rows), 3))
        poses = []
        for t in range(1, rows.shape[1], 2):
            speed = np.maximum(speed + self._grids[1][index[:, t]] * self.dt, 0.0)
            pose = compose(pose, _arc(speed * self.dt, self._grids[2][index[:, t + 1]]))
            poses.append(pose)
        return np.stack(poses, axis=1)


def _arc(length: Array, curvature: Array) -> Array:
    """Motions (..., 3) along arcs of `length` m and `curvature` 1/m, broadcast against each other."""
    turn = length * curvature
    chord = length * np.sinc(turn / 2.0 / np.pi)
    return np.stack([chord * np.cos(turn / 2.0), chord * np.sin(turn / 2.0), turn], axis=-1)
