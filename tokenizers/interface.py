"""What every action tokenizer does, and what all but the K-disk codebook share: their card on the disk.

A tokenizer is made by the `fit` of its class, from plans (N, T, 3) of the rear axle in the ego frame, `dt` apart (the K-disk
codebook: from single motions). `encode` gives one row of tokens per plan. Where every plan takes as many tokens, the rows are one
array (N, L) of integers; where they do not (BPE, text), they are an array (N,) of objects, each an array (L_i,) of integers: both
are indexed alike. `decode` takes either, or a list of rows, and raises TokenizerError on a row that makes no plan: there is no
default motion. `decode_each` says of every row of a batch whether it failed, and why.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError, TokenizerError
from drive.core.files import atomic_write_text
from drive.core.geometry import compose, relative
from drive.tokenizers.automaton import Automaton
from drive.tokenizers.feasibility import Bounds

if TYPE_CHECKING:
    from drive.tokenizers.report import TokenizerReport

Array = NDArray[np.float64]
Tokens = NDArray[np.int64]
Sources = str | Mapping[str, Any]  # fingerprint of the data, or per source its fingerprint, weight and motions
CARD = "tokenizer.json"


class PlanTokenizer(ABC):
    """Plans to action tokens and back."""

    dt: float  # s between two poses of a plan
    tolerance: float  # m, mean distance of box corners within which a motion counts as rebuilt
    bounds: Bounds  # what a car can do, for the report
    record: Any  # where it came from; it prints, and its `sources` name the data
    name: ClassVar[str]  # as in tokenizer=NAME
    motion_tokens: ClassVar[int]  # tokens that say one motion in a prompt
    in_text: ClassVar[bool] = False  # the tokens are words that a language model's vocabulary has already

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of action tokens."""

    @property
    def token_names(self) -> list[str]:
        """Names of the tokens in order; which ids they get is the language model's business."""
        return [f"<action_{i}>" for i in range(self.vocab_size)]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides what a token means; checkpoints are bound to it."""

    @property
    def speed_cap(self) -> float | None:
        """m/s beyond which no plan of this vocabulary goes; None where the tokens set no limit."""
        return None

    @property
    def token_motions(self) -> Array | None:
        """The motion (K, 3) that each token stands for; None where a token alone is no motion."""
        return None

    @property
    def token_places(self) -> Array | None:
        """(K, 3) points that are close where two tokens mean nearly the same, so that they start alike in a model; None: no such
        points."""
        return self.token_motions

    @abstractmethod
    def automaton(self, steps: int) -> Automaton:
        """Which token may follow which in a plan of `steps` poses; TokenizerError where the tokenizer makes no such plans."""

    @abstractmethod
    def encode(self, poses_ego: Array) -> NDArray[Any]:
        """Poses (N, T, 3) of the rear axle, ego frame, `dt` apart, the first one `dt` ahead, to rows of tokens (see the
        module)."""

    @abstractmethod
    def encode_motions(self, deltas: Array) -> Tokens:
        """Single motions (N, 3) over `dt` s to tokens (N, motion_tokens): how a prompt says what was driven."""

    @abstractmethod
    def decode(self, tokens: Any) -> Array:
        """Rows of tokens to poses (N, T, 3), heading in (-pi, pi]. Raises TokenizerError, naming the row, where one makes no
        plan."""

    def decode_each(self, tokens: Any) -> list[Array | TokenizerError]:
        """Of each row its poses (T, 3), or the error that says why it makes no plan."""
        rows = list(tokens)
        try:
            return list(self.decode(tokens)) if rows else []
        except TokenizerError:
            return [self._decode_one(row) for row in rows]

    def _decode_one(self, row: Any) -> Array | TokenizerError:
        try:
            return self.decode(np.asarray(row)[None])[0]
        except TokenizerError as error:
            return error

    def rebuild_motions(self, deltas: Array) -> Array | None:
        """Motions (N, 3) as they come back when each stands alone, as a plan of one step; None where a plan is coded as a
        whole."""
        return self.decode(self.encode(np.asarray(deltas, float)[:, None]))[:, 0]

    def report(self, plans_ego: Array) -> TokenizerReport:
        """What it costs and covers on plans (N, T, 3)."""
        from drive.tokenizers.report import report  # the report reads tokenizers, so not at the top

        return report(self, plans_ego)

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files. Raises TokenizerError if the disk refuses."""


@dataclass(frozen=True)
class PlanRecord:
    """Where a tokenizer that was fitted on plans came from."""

    plans: int
    sources: Sources = ""
    note: str = ""  # what the fit found

    def __str__(self) -> str:
        return f"fitted on {self.plans:,} plans{': ' if self.note else ''}{self.note}"


@dataclass(frozen=True, eq=False)
class CardTokenizer(PlanTokenizer):
    """A tokenizer that is a few numbers: all of it stands in `tokenizer.json`."""

    dt: float
    tolerance: float
    bounds: Bounds
    record: PlanRecord

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the meaning of a token beside dt, as JSON; the keyword arguments of the class."""

    @classmethod
    def format(cls) -> str:
        """What the card calls itself; the number counts changes of its meaning."""
        return f"drive-{cls.name}-1"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of format, dt and settings."""
        text = json.dumps([self.format(), self.dt, self.settings()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, whole or not at all."""
        card = {
            "format": self.format(),
            "dt": self.dt,
            "vocab_size": self.vocab_size,
            "tolerance": self.tolerance,
            "bounds": asdict(self.bounds),
            "record": asdict(self.record),
            "settings": self.settings(),
            "sha256": self.fingerprint,
        }
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            atomic_write_text(Path(folder) / CARD, json.dumps(card, indent=2) + "\n")
        except OSError as error:
            raise TokenizerError(f"the tokenizer was not saved to {folder} ({error}): nothing there was changed") from error

    @classmethod
    def from_card(cls, card: Mapping[str, Any], where: Path) -> CardTokenizer:
        """What `save` wrote. Raises TokenizerError where the settings are not those of the card's fingerprint."""
        bounds, record = Bounds(**card["bounds"]), PlanRecord(**card["record"])
        tokenizer = cls(card["dt"], card["tolerance"], bounds, record, **card["settings"])
        if tokenizer.fingerprint != card["sha256"]:
            raise TokenizerError(f"{where} was changed after it was written: restore it or fit again")
        return tokenizer


def held(deltas: Array, steps: int) -> Array:
    """Plans (N, steps, 3) that repeat the motions (N, 3)."""
    pose, poses = np.zeros_like(deltas), []
    for _ in range(steps):
        pose = compose(pose, deltas)
        poses.append(pose)
    return np.stack(poses, axis=1)


def motions_of(plans: Array) -> Array:
    """Motions (N, T, 3) from each pose of the plans (N, T, 3) to the next, the first from the origin."""
    return relative(np.concatenate([np.zeros_like(plans[:, :1]), plans[:, :-1]], axis=1), plans)


def chain(deltas: Array) -> Array:
    """Plans (N, T, 3) of motions (N, T, 3): what `motions_of` undoes."""
    pose, poses = np.zeros_like(deltas[:, 0]), np.zeros_like(deltas)
    for t in range(deltas.shape[1]):
        pose = poses[:, t] = compose(pose, deltas[:, t])
    return poses


def checked_plans(plans: Array, what: str) -> Array:
    """The plans as float64 (N, T, 3); DataError on another shape, no step, or NaN and infinity."""
    plans = np.ascontiguousarray(plans, np.float64)
    if plans.ndim != 3 or plans.shape[-1] != 3 or not plans.shape[1]:
        raise DataError(f"{what} want shape (N, T, 3) with at least one step, got {plans.shape}")
    if not np.isfinite(plans).all():
        raise DataError(f"{what} hold NaN or infinity: drop those records first")
    return plans


def plans_to_fit(plans: Array) -> Array:
    """As `checked_plans`; DataError where there is none."""
    plans = checked_plans(plans, "plans to fit")
    if not len(plans):
        raise DataError("a tokenizer wants at least one plan to be fitted on: check dataset.root and the split")
    return plans


def checked_rows(tokens: Any, vocab_size: int, name: str) -> list[Tokens]:
    """The rows as integer arrays (L,). Raises TokenizerError, naming row and place, on another type or an unknown token."""
    rows = [np.asarray(row) for row in tokens]
    for i, row in enumerate(rows):
        if row.ndim != 1 or not (np.issubdtype(row.dtype, np.integer) or not row.size):
            raise TokenizerError(f"decode takes rows of integer tokens, sequence {i} is {row.dtype} of shape {row.shape}")
        unknown = (row < 0) | (row >= vocab_size)
        if unknown.any():
            at = int(unknown.argmax())
            raise TokenizerError(
                f"token {row[at]} at place {at} of sequence {i} is not among the {vocab_size} tokens of {name}: "
                "the sequence was made with another tokenizer, or its generation failed"
            )
    return [row.astype(np.int64) for row in rows]


def rows_of(tokens: Any, vocab_size: int, per_step: int, name: str, head: int = 0) -> Tokens:
    """Rows of `head` + `per_step` tokens a pose, all of one length, as one array (N, L). Raises TokenizerError on any other."""
    rows = checked_rows(tokens, vocab_size, name)
    for i, row in enumerate(rows):
        if len(row) <= head or (len(row) - head) % per_step or len(row) != len(rows[0]):
            wanted = (
                f"{len(rows[0])} as in sequence 0" if i and len(row) != len(rows[0]) else f"{head} + a multiple of {per_step}"
            )
            raise TokenizerError(f"sequence {i} has {len(row)} tokens, a plan of {name} has {wanted}: its generation failed")
    return np.stack(rows) if rows else np.zeros((0, head + per_step), np.int64)


def ragged(rows: Sequence[Tokens]) -> NDArray[Any]:
    """Rows of unequal length as an array (N,) of objects."""
    out = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def nearest_index(values: Array, grid: Array) -> Tokens:
    """Index of the point of the ascending `grid` (K,) that is nearest to each of `values` (...); ties go to the lower."""
    right = np.clip(np.searchsorted(grid, values), 1, len(grid) - 1)
    return right - (values - grid[right - 1] <= grid[right] - values)
