"""NAVSIM's PDM score, version 1.1 (`pdms_v1_1`), batched over scenes and proposals.

    PDMS = NC * DAC * (5 EP + 5 TTC + 2 C) / 12

A plan is tracked by the LQR of drive.core.vehicle for 4 s, and the simulated states are judged. Source: NAVSIM tag v1.1
(0811876), pdm_scorer.py and pdm_score.py, with its quirks: they are part of the published numbers. One deviation: nothing is
dropped in silence; a proposal that cannot be scored raises DataError here and is the caller's to count as 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.vehicle import simulate, targets_from_plan
from drive.metrics.pdms_comfort import comfort_components
from drive.metrics.pdms_judge import Verdict, judge
from drive.metrics.pdms_scene import HORIZON, PdmScene

Array = NDArray[np.float64]
WEIGHT_PROGRESS, WEIGHT_TTC, WEIGHT_COMFORT = 5.0, 5.0, 2.0
PROGRESS_THRESHOLD = 5.0  # m; a set whose best gated progress is not above it is not compared by progress


@dataclass(frozen=True)
class PdmScores:
    """Scores of the N proposals of one scene."""

    score: Array  # (N,) 0..1
    nc: Array  # (N,) no at-fault collision: 0, 0.5 or 1
    dac: Array  # (N,) drivable-area compliance: 0 or 1
    ddc: Array  # (N,) driving-direction compliance: 0, 0.5 or 1; reported, not part of the score
    ttc: Array  # (N,) time to collision: 0 or 1
    comfort: Array  # (N,) 0 or 1
    ep: Array  # (N,) ego progress 0..1, normalised within its scoring set
    progress_raw: Array  # (N,) m along the centreline
    comfort_components: NDArray[np.bool_]  # (N, 6) in the order of pdms_comfort.NAMES
    areas: NDArray[np.bool_]  # (N, 41, 3) multiple lanes, non-drivable, oncoming
    collision_time: Array  # (N,) s of the first at-fault collision, infinite if none
    ttc_time: Array  # (N,) s of the first time-to-collision violation, infinite if none
    states: Array  # (N, 41, 11) simulated, see drive.core.vehicle

    def __len__(self) -> int:
        return len(self.score)


def normalised_progress(gated: Array, product: Array, rival: float) -> Array:
    """EP (N,) of `gated` (N,), progress times NC * DAC in m, against the best gated progress `rival` of the others in the
    scoring set.

    Source: pdm_scorer.py, aggregation, v1.1. A set that hardly moves counts as arrived, but for those whose `product` NC * DAC
    is 0.
    """
    best = np.maximum(gated, rival)
    compared = best > PROGRESS_THRESHOLD
    return np.where(compared, gated / np.where(compared, best, 1.0), product != 0.0)


def _scores(scene: PdmScene, verdict: Verdict, components: NDArray[np.bool_], states: Array, against: str) -> PdmScores:
    product = verdict.nc * verdict.dac
    gated = verdict.progress * product
    rival = scene.reference_progress if against == "reference" else float(gated.max(initial=0.0))
    ep = normalised_progress(gated, product, rival)
    comfort = np.where(components.all(axis=1), 1.0, 0.0)
    weighted = WEIGHT_PROGRESS * ep + WEIGHT_TTC * verdict.ttc + WEIGHT_COMFORT * comfort
    return PdmScores(
        score=product * weighted / (WEIGHT_PROGRESS + WEIGHT_TTC + WEIGHT_COMFORT),
        nc=verdict.nc,
        dac=verdict.dac,
        ddc=verdict.ddc,
        ttc=verdict.ttc,
        comfort=comfort,
        ep=ep,
        progress_raw=verdict.progress,
        comfort_components=components,
        areas=verdict.areas,
        collision_time=verdict.collision_time,
        ttc_time=verdict.ttc_time,
        states=states,
    )


def score_pdms(
    scenes: Sequence[PdmScene], proposals: Sequence[Array], dt: float, against: Literal["reference", "group"] = "reference"
) -> list[PdmScores]:
    """PdmScores of every scene for its proposals (N, T, 3), ego frame, poses every `dt` s from `dt` on; N and T may differ.

    Plans are read up to 4 s, shorter ones stand still at their last pose. Progress is normalised `against` the scene's
    reference, each proposal by itself (the benchmark's way), or within the group of the N proposals (no reference needed; what
    GRPO compares). Raises DataError for NaN, wrong shapes, or a missing reference, naming the scene.
    """
    if len(scenes) != len(proposals):
        raise DataError(
            f"score_pdms takes one array of proposals per scene, got {len(scenes)} scenes and {len(proposals)} arrays"
        )
    if against not in ("reference", "group"):
        raise DataError(f"score_pdms scores against 'reference' or 'group', got {against!r}")
    if not len(scenes):
        return []
    targets, initial = [], []
    for scene, poses in zip(scenes, proposals):
        try:
            targets.append(targets_from_plan(poses, dt, scene.initial[:3], HORIZON, scene.time_us))
        except DataError as error:
            raise DataError(f"scene {scene.id!r}: {error}") from error
        initial.append(np.broadcast_to(scene.initial, (len(poses), len(scene.initial))))
    states = simulate(np.concatenate(initial), np.concatenate(targets))
    components = comfort_components(states)
    results, at = [], 0
    for scene, poses in zip(scenes, proposals):
        part = slice(at, at + len(poses))
        at += len(poses)
        verdict = judge(states[part], scene.areas, scene.agents, scene.centerline)
        results.append(_scores(scene, verdict, components[part], states[part], against))
    return results
