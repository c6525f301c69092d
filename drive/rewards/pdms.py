"""The reward of GRPO: pdms_v1_1 minus a fee on thinking, counted in tokens (AutoVLA, section 3.4, with characters made tokens).

AutoVLA's fee is a sigmoid of the reasoning's characters and costs almost the whole fee for reasoning of ordinary length, so it
teaches not to think at all. Here every reasoning token costs the same, so that shorter reasoning is cheaper than longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.checks import above, at_least, refuse
from drive.metrics.pdms import PdmScene, score_pdms


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the parts."""

    score_weight: float = 1.0  # of pdms_v1_1 (0-1)
    fee_per_token: float = 0.0002  # of each token of reasoning

    def __post_init__(self) -> None:
        refuse(above(0.0, self, "score_weight") + at_least(0, self, "fee_per_token"))


@dataclass(frozen=True)
class RewardBatch:
    """Named parts, each (scenes, group); `total` is their sum, and is what is optimised."""

    parts: dict[str, NDArray[np.float64]]
    metrics: dict[str, NDArray[np.float64]]  # sub-scores, logged and not summed

    @property
    def total(self) -> NDArray[np.float64]:
        """(scenes, group)"""
        return np.sum(list(self.parts.values()), axis=0)


def pdms_reward(
    scenes: Sequence[PdmScene],
    poses_ego: Sequence[NDArray[np.float64]],
    decodable: NDArray[np.bool_],
    reasoning_tokens: NDArray[np.int64],
    dt: float,
    config: RewardConfig,
) -> RewardBatch:
    """Rewards of G plans for each of B scenes.

    poses_ego: B arrays (G, T, 3); rows of undecodable plans are ignored and score 0. decodable, reasoning_tokens: (B, G).
    """
    scored = score_pdms(scenes, poses_ego, dt)
    metrics = {name: np.stack([getattr(s, name) for s in scored]) for name in ("nc", "dac", "ttc", "comfort", "ep")}
    score = np.where(decodable, np.stack([s.score for s in scored]), 0.0)
    parts = {"pdms_v1_1": config.score_weight * score, "thinking_fee": -config.fee_per_token * reasoning_tokens.astype(float)}
    return RewardBatch(parts, {**metrics, "score": score})
