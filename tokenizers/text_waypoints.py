"""Waypoints as plain text: "3.21,0.05,0.01;6.48,0.11,0.02;...": metres ahead, metres to the left and radians, two decimals.

After EMMA (arXiv 2410.23262, section 2: waypoints as floating-point numbers in plain text, no special tokens). A token is one
character, which every text tokenizer has already, so nothing is added to a model's vocabulary. EMMA gives positions alone; the
heading stands beside them here, because the metrics place a box.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError, TokenizerError
from drive.core.geometry import wrap_angle
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
    checked_rows,
    plans_to_fit,
    ragged,
)

CHARACTERS = "0123456789.,-;"
DIGITS, POINT, COMMA, MINUS, NEXT = range(10), 10, 11, 12, 13
FARTHEST = 999.99  # m: three digits before the point
_NUMBER = r"-?\d{1,3}\.\d\d"
_PLAN = re.compile(rf"{_NUMBER},{_NUMBER},{_NUMBER}(;{_NUMBER},{_NUMBER},{_NUMBER})*")


@dataclass(frozen=True, eq=False)
class TextWaypoints(CardTokenizer):
    """As many tokens as the plan has characters. Nothing is fitted."""

    name: ClassVar[str] = "text_waypoints"
    motion_tokens: ClassVar[int] = 5
    in_text: ClassVar[bool] = True

    @classmethod
    def fit(
        cls, plans: Array, tolerance: float = 0.05, dt: float = PLAN_DT, bounds: Bounds | None = None, sources: Sources = ""
    ) -> TextWaypoints:
        """The plans are only counted. Raises DataError on no plans or NaN."""
        return cls(dt, tolerance, bounds or Bounds(), PlanRecord(len(plans_to_fit(plans)), sources, "text has nothing to fit"))

    def settings(self) -> dict[str, Any]:
        return {}

    @property
    def vocab_size(self) -> int:
        return len(CHARACTERS)

    @property
    def token_names(self) -> list[str]:
        return list(CHARACTERS)

    def automaton(self, steps: int) -> Automaton:
        """Seven states a number: before it, after its sign, after one, two, three digits, after the point, after the first
        decimal. What follows the second decimal is a comma or a semicolon, which leads to the next number."""
        numbers = 3 * steps
        table = np.full((8 * numbers, len(CHARACTERS)), -1)
        for number in range(numbers):
            start = 8 * number
            sign, one, two, three, point, tenth, whole = range(start + 1, start + 8)
            for state, digit in ((start, one), (sign, one), (one, two), (two, three), (point, tenth), (tenth, whole)):
                table[state, DIGITS] = digit
            table[start, MINUS] = sign
            table[[one, two, three], POINT] = point
            if number < numbers - 1:
                table[whole, NEXT if number % 3 == 2 else COMMA] = whole + 1
        return Automaton(table)

    def write(self, plan: Array) -> str:
        """The text of one plan (T, 3)."""
        return ";".join(
            ",".join(f"{value:.2f}" for value in pose) for pose in np.round(plan, 2) + 0.0
        )  # + 0.0 turns -0.0 into 0.0

    def encode(self, poses_ego: Array) -> NDArray[Any]:
        """Poses (N, T, 3) to N rows of characters. Raises DataError on a pose beyond 999.99 m."""
        plans = checked_plans(poses_ego, "poses to encode")
        if plans.size and np.abs(plans[..., :2]).max() > FARTHEST:
            raise DataError(
                f"a pose lies {np.abs(plans[..., :2]).max():.0f} m away, text waypoints reach {FARTHEST} m: check frame and units"
            )
        return ragged([_tokens(self.write(plan)) for plan in plans])

    def encode_motions(self, deltas: Array) -> Tokens:
        """(N, 5): the length of each motion in metres, as in 04.21."""
        return np.stack([_tokens(f"{length:05.2f}") for length in np.clip(np.abs(arc_motion(deltas)[0]), 0.0, 99.99)])

    def decode(self, tokens: Any) -> Array:
        plans = []
        for i, row in enumerate(checked_rows(tokens, self.vocab_size, "text waypoints")):
            text = "".join(CHARACTERS[token] for token in row)
            if not _PLAN.fullmatch(text):
                raise TokenizerError(
                    f"sequence {i} is no plan but {text[:60]!r}: want waypoints such as 3.21,0.05,0.01 with ; between them"
                )
            plans.append(np.array([[float(word) for word in pose.split(",")] for pose in text.split(";")]))
            if len(plans[i]) != len(plans[0]):
                raise TokenizerError(
                    f"sequence {i} has {len(plans[i])} waypoints, sequence 0 has {len(plans[0])}: decode them apart"
                )
        poses = np.stack(plans) if plans else np.zeros((0, 1, 3))
        poses[..., 2] = wrap_angle(poses[..., 2])
        return poses


def _tokens(text: str) -> Tokens:
    return np.array([CHARACTERS.index(character) for character in text], np.int64)
