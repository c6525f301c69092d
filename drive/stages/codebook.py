"""Fitting an action tokenizer on one dataset or on several: a codebook on the motions of all cars (AutoVLA, arXiv 2506.13757,
section 3.2), any other kind on the plans to imitate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from drive.core.checks import above, at_least, refuse
from drive.core.errors import ConfigError, DataError
from drive.core.geometry import compose
from drive.core.seeds import numpy_rng
from drive.core.types import PLAN_DT, PLAN_STEPS, AgentType, Scenario
from drive.tokenizers.bev_grid import BevGrid
from drive.tokenizers.fast import Fast
from drive.tokenizers.feasibility import Bounds
from drive.tokenizers.interface import PlanTokenizer, Sources
from drive.tokenizers.kdisk import KDiskTokenizer, segments_from_tracks
from drive.tokenizers.text_waypoints import TextWaypoints
from drive.tokenizers.unicycle import Unicycle
from drive.tokenizers.uniform_bins import UniformBins

Array = NDArray[np.float64]
REAR_SHARE = 0.27  # of a vehicle's length, from box centre back to rear axle


@dataclass(frozen=True)
class TokenizerConfig:
    """What the settings of every tokenizer have in common."""

    tolerance: float = 0.05  # m, mean distance of the four box corners
    dt: float = PLAN_DT
    seed: int = 0
    max_speed: float = 31.0  # m/s

    def __post_init__(self) -> None:
        refuse(self._faults())

    def _faults(self) -> list[str]:
        return above(0.0, self, "tolerance", "dt", "max_speed")


@dataclass(frozen=True)
class CodebookConfig(TokenizerConfig):
    """Settings of the K-disk codebook."""

    k: int = 2048
    mirror: bool = True
    fill: bool = True  # places left when the motions run out go to steady arcs, so that a small log covers all speeds

    def _faults(self) -> list[str]:
        return at_least(1, self, "k") + super()._faults()


@dataclass(frozen=True)
class UniformBinsConfig(TokenizerConfig):
    """Settings of the uniform bins."""

    bins: int = 256

    def _faults(self) -> list[str]:
        return at_least(2, self, "bins") + super()._faults()


@dataclass(frozen=True)
class UnicycleConfig(TokenizerConfig):
    """Settings of the acceleration and curvature bins."""

    bins: int = 129  # of each; odd

    def _faults(self) -> list[str]:
        odd = [] if self.bins % 2 else [f"bins={self.bins} must be odd, so that one is zero"]
        return at_least(3, self, "bins") + odd + super()._faults()


@dataclass(frozen=True)
class BevGridConfig(TokenizerConfig):
    """Settings of the bird's-eye grid."""

    cells: int = 256  # of each axis
    fine: float = 2.0  # m within which cells are about even

    def _faults(self) -> list[str]:
        return at_least(3, self, "cells") + above(0.0, self, "fine") + super()._faults()


@dataclass(frozen=True)
class FastConfig(TokenizerConfig):
    """Settings of FAST."""

    vocab_size: int = 1024
    scale: float = 50.0

    def _faults(self) -> list[str]:
        return at_least(3, self, "vocab_size") + above(0.0, self, "scale") + super()._faults()


KINDS: dict[str, tuple[type[TokenizerConfig], Any]] = {
    KDiskTokenizer.name: (CodebookConfig, KDiskTokenizer),
    UniformBins.name: (UniformBinsConfig, UniformBins),
    Unicycle.name: (UnicycleConfig, Unicycle),
    BevGrid.name: (BevGridConfig, BevGrid),
    Fast.name: (FastConfig, Fast),
    TextWaypoints.name: (TokenizerConfig, TextWaypoints),
}


def settings_class(name: str) -> type[TokenizerConfig]:
    """The class of the settings of tokenizer=`name`; ConfigError where there is none."""
    if name not in KINDS:
        raise ConfigError(f"tokenizer={name} has settings and no code in drive: there are {', '.join(KINDS)}")
    return KINDS[name][0]


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture."""

    name: str
    dataset: Sequence[Scenario]
    fingerprint: str
    weight: float = 1.0  # its share of the mixture, against the other weights


def motions(dataset: Sequence[Scenario], dt: float) -> tuple[Array, Array]:
    """(segments (N, 3), speed before each (N,)): half-second motions of the ego, of its reference and of the vehicles around it.

    Every start offset of the scenario's clock counts. A vehicle's rear axle is not logged: it is taken REAR_SHARE of its length
    behind the box centre, where logged vehicles slip least.
    """
    parts = []
    for i in tqdm(range(len(dataset)), desc="motions", dynamic_ncols=True):
        scenario = dataset[i]
        own = [scenario.ego.poses_world] + ([] if scenario.reference_world is None else [scenario.reference_world])
        parts += [segments_from_tracks(poses[None], np.ones((1, len(poses)), bool), scenario.dt, dt) for poses in own]
        cars = scenario.agents.types == AgentType.VEHICLE
        back = np.zeros((int(cars.sum()), 1, 3))
        back[:, 0, 0] = -REAR_SHARE * scenario.agents.size[cars, 0]
        parts.append(segments_from_tracks(compose(scenario.agents.poses_world[cars], back), scenario.agents.valid[cars], scenario.dt, dt))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def fit_codebook(dataset: Sequence[Scenario], config: CodebookConfig, source: Sources) -> KDiskTokenizer:
    """A codebook of the motions of `dataset`; `source` is the dataset's fingerprint."""
    segments, speed = motions(dataset, config.dt)
    return _codebook(segments, speed, config, source)


def _codebook(segments: Array, speed: Array, config: CodebookConfig, source: Sources) -> KDiskTokenizer:
    bounds = Bounds(max_speed=config.max_speed)
    return KDiskTokenizer.fit(segments, config.k, config.tolerance, config.dt, bounds, config.seed, source, speed, config.mirror, config.fill)


def fit_tokenizer(name: str, config: TokenizerConfig, sources: Sequence[Source]) -> PlanTokenizer:
    """The tokenizer `name` with its settings, fitted on one source or on a mixture of several (see `mixture`).

    Its record holds the fingerprint of the one source, or the fingerprint, weight and motions of each. Raises DataError and
    TokenizerError as the tokenizer's own fit does.
    """
    if isinstance(config, CodebookConfig):
        pools = [motions(source.dataset, config.dt) for source in sources]
        taken, record = mixture(sources, [len(segments) for segments, _ in pools], config.seed)
        segments, speed = (np.concatenate([pool[k][index] for pool, index in zip(pools, taken)]) for k in (0, 1))
        return _codebook(segments, speed, config, record)
    plans = [ego_plans(source.dataset, PLAN_STEPS, config.dt) for source in sources]
    taken, record = mixture(sources, [len(pool) for pool in plans], config.seed, PLAN_STEPS)
    pool = np.concatenate([part[index] for part, index in zip(plans, taken)])
    own = {key: value for key, value in vars(config).items() if key not in ("seed", "max_speed")}
    return KINDS[name][1].fit(pool, bounds=Bounds(max_speed=config.max_speed), sources=record, **own)


def mixture(
    sources: Sequence[Source], counts: Sequence[int], seed: int, motions_each: int = 1
) -> tuple[list[NDArray[np.int64]], Sources]:
    """(indexes to take of each source, what the record says of them): as many records as give each source its share of the
    mixture.

    A source's share is its weight over the sum of the weights. None is taken twice: the source that is scarcest for its weight is
    taken whole, of the others as many as that allows, drawn with the seed. One source alone is taken whole, in its order. counts:
    records of each source; motions_each: motions of a record. Raises ConfigError where a source holds none.
    """
    empty = [source.name for source, count in zip(sources, counts) if not count]
    if empty:
        raise ConfigError(f"{', '.join(empty)}: no motion to fit on: check the root and the split, or leave it out")
    if len(sources) == 1:
        return [np.arange(counts[0])], sources[0].fingerprint
    unit = min(count / source.weight for source, count in zip(sources, counts))
    taken, record = [], {}
    for source, count in zip(sources, counts):
        wanted = max(min(round(unit * source.weight), count), 1)
        taken.append(np.sort(numpy_rng(seed, "mixture", source.name).permutation(count)[:wanted]))
        record[source.name] = {
            "fingerprint": source.fingerprint,
            "weight": source.weight,
            "motions": wanted * motions_each,
            "of": count * motions_each,
        }
    return taken, record


def ego_plans(dataset: Sequence[Scenario], steps: int, dt: float) -> Array:
    """(N, steps, 3) teachers' plans in the ego frame, or the driven futures where there is no teacher.

    Scenes whose log ends before that are left out, and their number told. Raises DataError where none is left.
    """
    plans, short = [], 0
    for i in range(len(dataset)):
        scenario = dataset[i]
        teacher = scenario.teacher
        if teacher is not None and abs(teacher.dt - dt) < 1e-9 and len(teacher.poses) >= steps:
            plans.append(teacher.poses[:steps])
        elif scenario.present + steps * round(dt / scenario.dt) < len(scenario.ego.poses_world):
            plans.append(scenario.logged_future(steps, dt).poses)
        else:
            short += 1
    if not plans:
        raise DataError(f"none of the {len(dataset)} scenes has a plan of {steps * dt:g} s: check dataset.root and the split")
    if short:
        print(f"{short} of {len(dataset)} scenes end before the {steps * dt:g} s of a plan and are left out", file=sys.stderr)
    return np.stack(plans)
