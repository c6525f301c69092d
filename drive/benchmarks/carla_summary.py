"""What stands in the tables of a closed-loop evaluation: scores with 95 % bootstrap intervals over routes, and the five abilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.benchmarks.carla_results import write_merged, write_results
from drive.benchmarks.carla_routes import ClosedLoop
from drive.benchmarks.statistics import bootstrap_interval
from drive.core.seeds import numpy_rng
from drive.metrics.carla_bench2drive import (
    ABILITIES,
    AbilityScore,
    Version,
    ability_score,
    bench2drive_score,
    efficiency,
    succeeded,
)
from drive.metrics.carla_scores import Rule, leaderboard_score

RESULTS, MERGED = "results.json", "merged.json"
RESAMPLES = 2000
MEAN = "Mean"  # of the abilities


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float
    count: int  # values that it is the mean of

    def to_json(self) -> dict[str, Any]:
        """Null for what is not there."""
        return {key: None if math.isnan(value) else value for key, value in asdict(self).items()}


def scores(result: ClosedLoop) -> dict[str, Estimate]:
    """driving_score and route_completion (0..100), infraction_penalty and success_rate (0..1) over all scheduled routes, those without
    a record as 0; efficiency (percent of the traffic's speed) and comfort (0..1) over the routes that tell them."""
    records = result.records
    board, bench = leaderboard_score(records, result.routes), bench2drive_score(records, result.routes)
    rest = [0.0] * (result.routes - len(records))
    return {
        "driving_score": _estimate(board.driving_score, [r.score_composed for r in records] + rest),
        "route_completion": _estimate(board.route_completion, [r.score_route for r in records] + rest),
        "infraction_penalty": _estimate(board.infraction_penalty, [r.score_penalty for r in records] + rest),
        "success_rate": _estimate(bench.success_rate, [float(succeeded(r)) for r in records] + rest),
        "efficiency": _estimate(bench.efficiency, [value for value in map(efficiency, records) if value is not None]),
        "comfort": _estimate(math.nan, [f.comfort for f in result.finished if f.comfort is not None]),
    }


def _estimate(value: float, values: Sequence[float]) -> Estimate:
    """`value` as upstream rounds it, else the mean of `values`."""
    if not values:
        return Estimate(math.nan, math.nan, math.nan, 0)
    known = np.array(values, float)
    low, high = bootstrap_interval(known)
    return Estimate(float(known.mean()) if math.isnan(value) else value, low, high, len(values))


def release(routes: str) -> Version:
    """The release of Bench2Drive that a route file's name speaks of; 0.0.3, that of bench2drive220.xml, where it names none."""
    return Version.V0_0_4 if Version.V0_0_4.value in Path(routes).name else Version.V0_0_3


def abilities(result: ClosedLoop, version: Version) -> tuple[AbilityScore, dict[str, Estimate]]:
    """The five abilities and MEAN, 0..1, of the routes that have a record; a route that crashed did not pass its junction."""
    share = {f.record.route: f.junction for f in result.finished}
    junctions = {r.route: math.inf for r in result.records if share[r.route] is None and r.score_route < 100.0}
    junctions |= {route: value for route, value in share.items() if value is not None}
    found = ability_score(result.records, junctions, version)
    rows = np.array([found.shares[name] for name in ABILITIES]).reshape(len(ABILITIES), -1)
    means = _resampled(rows)
    estimates = {name: _interval(found.rate(name), means[:, k], int(np.isfinite(rows[k]).sum())) for k, name in enumerate(ABILITIES)}
    return found, {**estimates, MEAN: _interval(found.mean, means.mean(1), int(np.isfinite(rows).any(0).sum()))}


def _resampled(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(RESAMPLES, A) means of rows (A, R) over routes drawn anew; NaN where none of an ability was drawn."""
    if not rows.shape[1]:
        return np.full((RESAMPLES, len(rows)), np.nan)
    drawn = rows[:, numpy_rng(0, "bootstrap").integers(0, rows.shape[1], (RESAMPLES, rows.shape[1]))]
    known = np.isfinite(drawn)
    count = known.sum(2)
    return np.where(count > 0, np.where(known, drawn, 0.0).sum(2) / np.maximum(count, 1), np.nan).T


def _interval(value: float, means: NDArray[np.float64], count: int) -> Estimate:
    known = means[np.isfinite(means)]
    if math.isnan(value) or not len(known):
        return Estimate(math.nan, math.nan, math.nan, count)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high), count)


def write_summary(out: Path, result: ClosedLoop, routes: str) -> None:
    """results.json in the leaderboard's layout with all of this under "drive"; by Bench2Drive's rule merged.json too, for its tools."""
    bench2drive = result.config.rule is Rule.BENCH2DRIVE
    more: dict[str, Any] = {
        "planner": result.planner,
        "rule": result.config.rule.value,
        "coverage": result.coverage,
        "not_driven": [asdict(missing) for missing in result.missing],
        "crashed": [f.record.route for f in result.crashed],
        "scores": {name: value.to_json() for name, value in scores(result).items()},
        "routes": {f.record.route: {"comfort": f.comfort, "efficiency": efficiency(f.record), "success": succeeded(f.record)} for f in result.finished},
    }
    if bench2drive:
        version = release(routes)
        more["abilities"] = {"release": version.value, **_ability_json(abilities(result, version))}
        write_merged(out / MERGED, result.records, result.routes)
    write_results(out / RESULTS, result.records, result.routes, more=more)


def _ability_json(found: tuple[AbilityScore, Mapping[str, Estimate]]) -> dict[str, Any]:
    score, estimates = found
    return {name: {**value.to_json(), **({"passed": score.counts[name][0]} if name in score.counts else {})} for name, value in estimates.items()}
