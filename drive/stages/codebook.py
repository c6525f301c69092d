"""Fitting the action codebook on the motions of a dataset (AutoVLA, arXiv 2506.13757, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from drive.core.checks import above, at_least, refuse
from drive.core.geometry import compose
from drive.core.types import PLAN_DT, AgentType, Scenario
from drive.tokenizers.feasibility import Bounds
from drive.tokenizers.kdisk import KDiskTokenizer, segments_from_tracks

Array = NDArray[np.float64]
REAR_SHARE = 0.27  # of a vehicle's length, from box centre back to rear axle


@dataclass(frozen=True)
class CodebookConfig:
    """Settings of the K-disk codebook."""

    k: int = 2048
    tolerance: float = 0.05  # m, mean distance of the four box corners
    dt: float = PLAN_DT
    mirror: bool = True
    fill: bool = True  # places left when the motions run out go to steady arcs, so that a small log covers all speeds
    seed: int = 0
    max_speed: float = 31.0  # m/s

    def __post_init__(self) -> None:
        refuse(at_least(1, self, "k") + above(0.0, self, "tolerance", "dt", "max_speed"))


def motions(dataset: Sequence[Scenario], dt: float) -> tuple[Array, Array]:
    """(segments (N, 3), speed before each (N,)): half-second motions of the ego, of its reference and of the vehicles around it.

    Every start offset of the scenario's clock counts. A vehicle's rear axle is not logged: it is taken REAR_SHARE of its length behind
    the box centre, where logged vehicles slip least.
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


def fit_codebook(dataset: Sequence[Scenario], config: CodebookConfig, source: str) -> KDiskTokenizer:
    """A codebook of the motions of `dataset`; `source` is the dataset's fingerprint."""
    segments, speed = motions(dataset, config.dt)
    bounds = Bounds(max_speed=config.max_speed)
    return KDiskTokenizer.fit(segments, config.k, config.tolerance, config.dt, bounds, config.seed, source, speed, config.mirror, config.fill)


def ego_plans(dataset: Sequence[Scenario], steps: int, dt: float) -> Array:
    """(N, steps, 3) teachers' plans in the ego frame, or the driven futures where there is no teacher."""
    plans = []
    for i in range(len(dataset)):
        scenario = dataset[i]
        teacher = scenario.teacher
        same = teacher is not None and abs(teacher.dt - dt) < 1e-9 and len(teacher.poses) >= steps
        plans.append(teacher.poses[:steps] if same and teacher is not None else scenario.logged_future(steps, dt).poses)
    return np.stack(plans)
