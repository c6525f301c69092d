"""A bird's-eye grid of log-spaced cells: each waypoint is the cell that it falls into, heading is recovered from the path.

Cells are fine near the car and coarse far away: along each axis they stand at `fine` sinh(k step), linear within about `fine`
metres and logarithmic beyond. A waypoint takes two tokens, its place ahead and its place to the left, as location tokens do in
vision-language models (PaliGemma, arXiv 2407.07726). Waypoints are absolute: errors do not add up along the plan, and single
motions are rough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from drive.core.errors import TokenizerError
from drive.core.geometry import wrap_angle
from drive.core.types import PLAN_DT
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.feasibility import Bounds
from drive.tokenizers.interface import (
    Array,
    CardTokenizer,
    PlanRecord,
    Sources,
    Tokens,
    checked_plans,
    nearest_index,
    plans_to_fit,
    rows_of,
)

MARGIN = 1.1  # of the farthest waypoint seen
STILL = 0.5  # m between two waypoints below which they tell no heading
FEATURE_SPAN = 10.0  # as in uniform_bins


@dataclass(frozen=True, eq=False)
class BevGrid(CardTokenizer):
    """2 T tokens a plan: the place ahead, then the place to the left, of each waypoint; each axis has tokens of its own."""

    ahead: float  # m, the last cell
    behind: float  # m, positive
    aside: float  # m, either way
    fine: float  # m within which cells are about even
    cells: int  # of each axis; one more to the side where it is even, so that 0 is a cell

    name: ClassVar[str] = "bev_grid"
    motion_tokens: ClassVar[int] = 2

    @classmethod
    def fit(
        cls,
        plans: Array,
        cells: int = 256,
        fine: float = 2.0,
        tolerance: float = 0.05,
        dt: float = PLAN_DT,
        bounds: Bounds | None = None,
        sources: Sources = "",
    ) -> BevGrid:
        """A grid that holds the waypoints of plans (N, T, 3), rear axle, ego frame. Raises DataError on no plans or NaN."""
        if cells < 3 or fine <= 0.0:
            raise TokenizerError(f"a bird's-eye grid wants cells >= 3 and fine > 0, got cells={cells}, fine={fine}")
        points = plans_to_fit(plans)[..., :2]
        ahead, behind = max(float(points[..., 0].max()), 10.0), max(float(-points[..., 0].min()), 0.5)
        aside = max(float(np.abs(points[..., 1]).max()), 5.0)
        return cls(
            dt,
            tolerance,
            bounds or Bounds(),
            PlanRecord(len(plans), sources),
            MARGIN * ahead,
            MARGIN * behind,
            MARGIN * aside,
            fine,
            cells,
        )

    def settings(self) -> dict[str, Any]:
        return {"ahead": self.ahead, "behind": self.behind, "aside": self.aside, "fine": self.fine, "cells": self.cells}

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        """(places ahead (cells,), places to the left (odd,)), ascending, 0 among both."""
        forth, back, side = (np.arcsinh(reach / self.fine) for reach in (self.ahead, self.behind, self.aside))
        step = (forth + back) / (self.cells - 1)
        first = -int(np.ceil(back / step))
        half = self.cells // 2
        return self.fine * np.sinh(step * (first + np.arange(self.cells))), self.fine * np.sinh(
            side / half * np.arange(-half, half + 1)
        )

    @property
    def vocab_size(self) -> int:
        return sum(map(len, self._axes))

    @property
    def token_places(self) -> Array:
        """Each axis on a line of its own, its cells evenly spaced."""
        x, y = self._axes
        along = np.concatenate([np.linspace(0.0, FEATURE_SPAN, len(x)), np.linspace(0.0, FEATURE_SPAN, len(y))])
        return np.stack([along, np.repeat([0.0, FEATURE_SPAN], [len(x), len(y)]), np.zeros(len(along))], axis=-1)

    def automaton(self, steps: int) -> Automaton:
        is_x = np.arange(self.vocab_size) < len(self._axes[0])
        return Automaton.by_place([is_x, ~is_x] * steps)

    def encode(self, poses_ego: Array) -> Tokens:
        """Poses (N, T, 3) to tokens (N, 2 T); a waypoint outside the grid takes its outermost cell, the heading is left out."""
        plans = checked_plans(poses_ego, "poses to encode")
        x, y = self._axes
        return np.stack([nearest_index(plans[..., 0], x), len(x) + nearest_index(plans[..., 1], y)], axis=-1).reshape(
            len(plans), -1
        )

    def encode_motions(self, deltas: Array) -> Tokens:
        """(N, 2): where each motion ends."""
        return self.encode(deltas[:, None])

    def decode(self, tokens: Any) -> Array:
        rows = rows_of(tokens, self.vocab_size, 2, "the bird's-eye grid")
        x, y = self._axes
        ahead, left = rows[:, 0::2], rows[:, 1::2] - len(x)
        wrong = (ahead >= len(x)) | (left < 0)
        if wrong.any():
            row, step = np.argwhere(wrong)[0]
            raise TokenizerError(
                f"waypoint {step} of sequence {row} is not a place ahead followed by a place to the left: its generation failed"
            )
        points = np.stack([x[ahead], y[left]], axis=-1)
        return np.concatenate([points, headings_of_path(points)[..., None]], axis=-1)


def headings_of_path(points: Array) -> Array:
    """Headings (N, T) rad of a car that drives from the origin, heading 0, through points (N, T, 2).

    The direction from the point before to the point after (of the last step: of that step); the heading before where the car
    hardly moves; turned round where it backs up.
    """
    path = np.concatenate([np.zeros_like(points[:, :1]), points], axis=1)
    after = np.concatenate([path[:, 2:], path[:, -1:]], axis=1)
    step = after - path[:, :-1]
    before, headings = np.zeros(len(points)), []
    for t in range(points.shape[1]):
        direction = np.arctan2(step[:, t, 1], step[:, t, 0])
        backs = np.abs(wrap_angle(direction - before)) > np.pi / 2.0
        direction = wrap_angle(np.where(backs, direction + np.pi, direction))
        before = np.where(np.hypot(step[:, t, 0], step[:, t, 1]) > STILL, direction, before)
        headings.append(before)
    return np.stack(headings, axis=1)
