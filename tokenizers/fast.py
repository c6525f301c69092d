"""FAST: the discrete cosine transform of a plan's motions, rounded, and byte-pair encoding of the integers (arXiv 2501.09747).

Section 5: each dimension is scaled so that its 1 % and 99 % quantiles become -1 and 1, transformed by the orthonormal DCT over
the steps of the plan, multiplied by `scale` and rounded; the integers are written low frequencies first, all dimensions of one
frequency together, and merged by byte-pair encoding into tokens. Here the dimensions are forward, left and heading change of each
step. A plan has T poses, as the ones that it was fitted on; its number of tokens varies. Tokens that do not spell exactly 3 T
integers are refused (the published code gives a plan of zeros). The scale: the paper's 10 suits arms that move centimetres; over
5 s of driving it costs decimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

from drive.core.errors import DataError, TokenizerError
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
    checked_rows,
    held,
    motions_of,
    plans_to_fit,
    ragged,
)
from drive.tokenizers.uniform_bins import NARROWEST, QUANTILES

MARGIN = 1.25  # of the largest integer seen: beyond it an integer is cut to the largest symbol


@dataclass(frozen=True, eq=False)
class Fast(CardTokenizer):
    """A varying number of tokens a plan, at most 3 T."""

    low: Sequence[float]  # (3,) m, m, rad
    high: Sequence[float]  # (3,)
    scale: float  # higher is finer and longer
    steps: int  # poses of a plan
    reach: int  # symbols are the integers -reach..reach
    merges: Sequence[Sequence[int]]  # pairs of tokens in the order in which they are joined; merge i makes token 2 reach + 1 + i

    name: ClassVar[str] = "fast"
    motion_tokens: ClassVar[int] = 3

    @classmethod
    def fit(
        cls,
        plans: Array,
        vocab_size: int = 1024,
        scale: float = 50.0,
        tolerance: float = 0.05,
        dt: float = PLAN_DT,
        bounds: Bounds | None = None,
        sources: Sources = "",
    ) -> Fast:
        """Quantiles, symbols and merges of plans (N, T, 3), rear axle, ego frame. Raises DataError on no plans or NaN,
        TokenizerError where `vocab_size` does not hold the symbols alone."""
        if scale <= 0.0:
            raise TokenizerError(f"the scale of the cosine transform must be above 0, got {scale}")
        plans = plans_to_fit(plans)
        motions = motions_of(plans)
        low, high = np.quantile(motions.reshape(-1, 3), QUANTILES, axis=0)
        short = np.maximum(np.array(NARROWEST) - (high - low), 0.0) / 2.0
        low, high = low - short, high + short
        integers = _integers(motions, low, high, scale)
        reach = int(np.ceil(MARGIN * np.abs(integers).max()))
        if 2 * reach + 1 > vocab_size:
            raise TokenizerError(
                f"a scale of {scale:g} takes {2 * reach + 1} symbols, tokenizer.vocab_size={vocab_size} has no room: raise it or lower the scale"
            )
        merges = learn_merges(integers.reshape(len(plans), -1) + reach, 2 * reach + 1, vocab_size)
        record = PlanRecord(len(plans), sources, f"{2 * reach + 1} symbols, {len(merges)} merges")
        return cls(dt, tolerance, bounds or Bounds(), record, low.tolist(), high.tolist(), scale, plans.shape[1], reach, merges)

    def settings(self) -> dict[str, Any]:
        numbers = {"scale": self.scale, "steps": self.steps, "reach": self.reach}
        return {
            "low": list(self.low),
            "high": list(self.high),
            **numbers,
            "merges": [list(map(int, pair)) for pair in self.merges],
        }

    @property
    def vocab_size(self) -> int:
        return 2 * self.reach + 1 + len(self.merges)

    def rebuild_motions(self, deltas: Array) -> None:
        """None: the transform takes a plan as a whole."""

    @cached_property
    def _spellings(self) -> list[Tokens]:
        """The symbols, 0..2 reach, of each token."""
        spelt = [np.array([symbol]) for symbol in range(2 * self.reach + 1)]
        for left, right in self.merges:
            spelt.append(np.concatenate([spelt[left], spelt[right]]))
        return spelt

    def automaton(self, steps: int) -> Automaton:
        """The state is the number of integers spelt so far."""
        if steps != self.steps:
            raise TokenizerError(f"this FAST tokenizer makes plans of {self.steps} poses, {steps} are wanted: fit another")
        after = np.arange(3 * steps + 1)[:, None] + np.array([len(spelt) for spelt in self._spellings])
        return Automaton(np.where(after <= 3 * steps, after, -1))

    def integers(self, poses_ego: Array) -> Tokens:
        """The rounded coefficients (N, T, 3) of poses (N, T, 3), cut to the symbols: what encoding and decoding keep exactly."""
        plans = checked_plans(poses_ego, "poses to encode")
        if plans.shape[1] != self.steps:
            raise DataError(f"this FAST tokenizer takes plans of {self.steps} poses, got {plans.shape[1]}: fit another")
        found = _integers(motions_of(plans), np.array(self.low), np.array(self.high), self.scale)
        return np.clip(found, -self.reach, self.reach)

    def encode(self, poses_ego: Array) -> NDArray[Any]:
        """Poses (N, T, 3), T as fitted, to N rows of tokens."""
        symbols = self.integers(poses_ego) + self.reach
        return ragged(apply_merges(symbols.reshape(len(symbols), -1), self.merges, 2 * self.reach + 1))

    def encode_motions(self, deltas: Array) -> Tokens:
        """(N, 3): the lowest coefficients of a plan that holds the motion, one symbol for each dimension."""
        return self.integers(held(deltas, self.steps))[:, 0] + self.reach

    def decode_integers(self, tokens: Any) -> Tokens:
        """Rows of tokens to coefficients (N, T, 3). Raises TokenizerError, naming the row, where they are not 3 T integers."""
        found = []
        for i, row in enumerate(checked_rows(tokens, self.vocab_size, "FAST")):
            spelt = np.concatenate([self._spellings[token] for token in row]) if len(row) else np.zeros(0, np.int64)
            if len(spelt) != 3 * self.steps:
                raise TokenizerError(
                    f"sequence {i} spells {len(spelt)} coefficients, a plan of {self.steps} poses has {3 * self.steps}: its generation failed"
                )
            found.append(spelt.reshape(self.steps, 3) - self.reach)
        return np.stack(found) if found else np.zeros((0, self.steps, 3), np.int64)

    def decode(self, tokens: Any) -> Array:
        low, high = np.array(self.low), np.array(self.high)
        scaled = idct(self.decode_integers(tokens) / self.scale, axis=1, norm="ortho")
        return chain(low + (np.asarray(scaled) + 1.0) / 2.0 * (high - low))


def _integers(motions: Array, low: Array, high: Array, scale: float) -> Tokens:
    """Rounded coefficients (N, T, 3) of motions (N, T, 3)."""
    scaled = 2.0 * (motions - low) / (high - low) - 1.0
    return np.rint(scale * np.asarray(dct(scaled, axis=1, norm="ortho"))).astype(np.int64)


def learn_merges(symbols: Tokens, alphabet: int, vocab_size: int) -> list[tuple[int, int]]:
    """Pairs to join, most frequent first, until there are `vocab_size` tokens or no pair stands twice; ties go to the lower pair.

    symbols (N, L): rows of 0..alphabet-1; pairs do not reach from one row into the next.
    """
    flat, row = symbols.ravel(), np.repeat(np.arange(len(symbols)), symbols.shape[1])
    merges: list[tuple[int, int]] = []
    while alphabet + len(merges) < vocab_size:
        beside = row[1:] == row[:-1]
        codes, counts = np.unique(flat[:-1][beside] * vocab_size + flat[1:][beside], return_counts=True)
        if not len(counts) or counts.max() < 2:
            break
        left, right = divmod(int(codes[counts.argmax()]), vocab_size)
        flat, row = _join(flat, row, left, right, alphabet + len(merges))
        merges.append((left, right))
    return merges


def apply_merges(symbols: Tokens, merges: Sequence[Sequence[int]], alphabet: int) -> list[Tokens]:
    """Rows (N, L) of symbols with every merge applied in order: byte-pair encoding, as a merge only makes pairs of later
    merges."""
    flat, row = symbols.ravel(), np.repeat(np.arange(len(symbols)), symbols.shape[1])
    for i, (left, right) in enumerate(merges):
        flat, row = _join(flat, row, left, right, alphabet + i)
    return np.split(flat, np.searchsorted(row, np.arange(1, len(symbols)))) if len(symbols) else []


def _join(flat: Tokens, row: Tokens, left: int, right: int, joined: int) -> tuple[Tokens, Tokens]:
    """The rows, laid end to end, with each pair (left, right) of one row made the token `joined`; from the left where pairs
    overlap."""
    at = np.flatnonzero((flat[:-1] == left) & (flat[1:] == right) & (row[1:] == row[:-1]))
    if left == right and len(at):  # a a a holds one pair, not two: of a run of pairs every second one counts
        starts = np.concatenate([[True], np.diff(at) > 1])
        run = np.arange(len(at)) - np.maximum.accumulate(np.where(starts, np.arange(len(at)), 0))
        at = at[run % 2 == 0]
    flat = flat.copy()
    flat[at] = joined
    keep = np.ones(len(flat), bool)
    keep[at + 1] = False
    return flat[keep], row[keep]
