"""Uniform bins: each of forward, left and heading change of a step is one of 256 equal bins between its 1 % and 99 % quantiles.

After RT-2 (arXiv 2307.15818) and OpenVLA (arXiv 2406.09246, section 3.2: bins over the quantiles, so that outliers do not widen
them); as there, one set of 256 tokens serves all dimensions. Differences, on purpose: a step is a motion in the frame of the step
before (both papers bin end-effector deltas), and it is taken from where the bins so far have led, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from drive.core.geometry import compose, relative
from drive.core.types import PLAN_DT
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.feasibility import Bounds
from drive.tokenizers.interface import (
    Array,
    CardTokenizer,
    PlanRecord,
    Sources,
    Tokens,
    chain,
    checked_plans,
    motions_of,
    plans_to_fit,
    rows_of,
)

QUANTILES = (0.01, 0.99)
NARROWEST = (0.5, 0.1, 0.02)  # m, m, rad: the least width of the bounds, for data that never turns or never moves
FEATURE_SPAN = 10.0  # m that the bins span where a model wants neighbouring tokens to start alike


@dataclass(frozen=True, eq=False)
class UniformBins(CardTokenizer):
    """Three tokens a step: forward, left, heading change."""

    low: Sequence[float]  # (3,) m, m, rad
    high: Sequence[float]  # (3,)
    bins: int

    name: ClassVar[str] = "uniform_bins"
    motion_tokens: ClassVar[int] = 3

    @classmethod
    def fit(
        cls,
        plans: Array,
        bins: int = 256,
        tolerance: float = 0.05,
        dt: float = PLAN_DT,
        bounds: Bounds | None = None,
        sources: Sources = "",
    ) -> UniformBins:
        """The bins of the motions in plans (N, T, 3), rear axle, ego frame, `dt` apart. Raises DataError on no plans or NaN."""
        motions = motions_of(plans_to_fit(plans)).reshape(-1, 3)
        low, high = np.quantile(motions, QUANTILES, axis=0)
        short = np.maximum(np.array(NARROWEST) - (high - low), 0.0) / 2.0
        record = PlanRecord(len(plans), sources)
        return cls(dt, tolerance, bounds or Bounds(), record, (low - short).tolist(), (high + short).tolist(), bins)

    def settings(self) -> dict[str, Any]:
        return {"low": list(self.low), "high": list(self.high), "bins": self.bins}

    @property
    def vocab_size(self) -> int:
        return self.bins

    @property
    def speed_cap(self) -> float:
        return float(max(abs(self.low[0]), abs(self.high[0])) / self.dt)

    @property
    def token_places(self) -> Array:
        return np.linspace(0.0, FEATURE_SPAN, self.bins)[:, None] * np.array([1.0, 0.0, 0.0])

    def automaton(self, steps: int) -> Automaton:
        return Automaton.free(3 * steps, self.bins)

    def encode(self, poses_ego: Array) -> Tokens:
        """Poses (N, T, 3) to tokens (N, 3 T): forward, left and heading change of each step in turn. A motion beyond the bounds
        takes the outermost bin, and the next steps make up for it where they can."""
        plans = checked_plans(poses_ego, "poses to encode")
        tokens = np.empty((*plans.shape[:2], 3), np.int64)
        pose = np.zeros((len(plans), 3))
        for t in range(plans.shape[1]):
            tokens[:, t] = self.encode_motions(relative(pose, plans[:, t]))
            pose = compose(pose, self._centres(tokens[:, t]))
        return tokens.reshape(len(plans), -1)

    def encode_motions(self, deltas: Array) -> Tokens:
        low, high = np.array(self.low), np.array(self.high)
        return np.clip(np.floor((deltas - low) / (high - low) * self.bins), 0, self.bins - 1).astype(np.int64)

    def _centres(self, tokens: Tokens) -> Array:
        low, high = np.array(self.low), np.array(self.high)
        return low + (tokens + 0.5) / self.bins * (high - low)

    def decode(self, tokens: Any) -> Array:
        rows = rows_of(tokens, self.bins, 3, "uniform bins")
        return chain(self._centres(rows.reshape(len(rows), -1, 3)))
