"""Benchmark pdms_v1_1: NAVSIM's PDM score, version 1.1, of one plan per scenario.

Mean over all scenarios of the set. A plan that is undecodable, or a planner that fails, scores 0 and lowers the coverage; so
does a scenario that could not be read. NAVSIM itself leaves failed tokens out of its mean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from drive.benchmarks.statistics import bootstrap_interval
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.types import Plan, PlanStatus, Scenario
from drive.metrics.pdms import PdmScene, score_pdms

NAME = "pdms_v1_1"
PARTS = ("nc", "dac", "ttc", "comfort", "ep", "ddc")


@dataclass(frozen=True)
class SceneRow:
    """One scenario's result. Scores are 0-1."""

    scenario_id: str
    log_id: str
    kind: str
    status: PlanStatus
    score: float
    parts: dict[str, float]
    poses_ego: NDArray[np.float64] | None  # (T, 3) the plan, None where there was none
    mode: str
    tokens: int
    latency_s: float
    reasoning: str


@dataclass(frozen=True)
class PdmsResult:
    """All rows of one planner on one set."""

    planner: str
    rows: list[SceneRow]
    expected: int  # scenarios that the set should have, read or not
    faults: list[str] = field(default_factory=list)  # scenarios that could not be read

    def values(self, name: str = "score") -> NDArray[np.float64]:
        """(expected,) values of "score" or a part; unread scenarios are 0."""
        read = [row.score if name == "score" else row.parts[name] for row in self.rows]
        return np.array(read + [0.0] * (self.expected - len(read)))

    def mean(self, name: str = "score") -> float:
        """Mean over the expected scenarios, 0-1."""
        return float(self.values(name).mean()) if self.expected else 0.0

    def interval(self, name: str = "score") -> tuple[float, float]:
        """95 % bootstrap interval of the mean over scenarios, 0-1."""
        return bootstrap_interval(self.values(name))

    @property
    def coverage(self) -> float:
        """Share of the expected scenarios that got a plan and a score."""
        return sum(row.status is PlanStatus.OK for row in self.rows) / max(self.expected, 1)

    @property
    def think_rate(self) -> float:
        """Share of plans with reasoning among the plans of a planner that can reason; 0 for the others."""
        return float(np.mean([row.mode == "slow" for row in self.rows])) if self.rows else 0.0

    @property
    def mean_tokens(self) -> float:
        """Generated tokens per plan."""
        return float(np.mean([row.tokens for row in self.rows])) if self.rows else 0.0

    def latency(self, percentile: float) -> float:
        """Latency per plan in seconds at a percentile."""
        return float(np.percentile([row.latency_s for row in self.rows], percentile)) if self.rows else 0.0


def _plan_batch(planner: Planner | PrivilegedPlanner, scenarios: Sequence[Scenario]) -> list[Plan]:
    """Plans with their latency; a planner that raises has failed on its whole batch."""
    start = time.perf_counter()
    try:
        if isinstance(planner, PrivilegedPlanner):
            plans = planner.plan_privileged([s.privileged() for s in scenarios])
        else:
            plans = planner.plan([s.observation() for s in scenarios])
    except Exception as error:  # a planner is anybody's code: whatever it raises is a failed plan, told and scored 0
        print(f"{planner.name} failed on {len(scenarios)} scenes: {type(error).__name__}: {error}", file=sys.stderr)
        return [Plan(None, PlanStatus.FAILED)] * len(scenarios)
    took = (time.perf_counter() - start) / len(scenarios)
    return [plan if plan.latency_s else replace(plan, latency_s=took) for plan in plans]


def _row(scenario: Scenario, plan: Plan, score: float, parts: dict[str, float]) -> SceneRow:
    poses = plan.trajectory.poses if plan.trajectory is not None else None
    return SceneRow(
        scenario.id, scenario.log_id, scenario.kind, plan.status, score, parts, poses, plan.mode, plan.generated_tokens, plan.latency_s, plan.reasoning
    )


def evaluate_pdms(
    scenarios: Sequence[Scenario] | Iterable[Scenario],
    planner: Planner | PrivilegedPlanner,
    batch: int = 16,
    expected: int | None = None,
    faults: Sequence[str] = (),
    pdm_scenes: Callable[[int], PdmScene] | None = None,
    progress: bool = False,
) -> PdmsResult:
    """Score `planner` on `scenarios`.

    expected: how many the set should hold (default: as many as given). pdm_scenes: the PdmScene of scenario i, where the caller
    keeps them. Batches are planned together; every latency is a share of its batch.
    """
    items = list(scenarios)
    rows: list[SceneRow] = []
    planner.reset()
    for start in tqdm(range(0, len(items), batch), desc=f"{NAME} {planner.name}", disable=not progress, dynamic_ncols=True):
        part = items[start : start + batch]
        plans = _plan_batch(planner, part)
        driven = [i for i, plan in enumerate(plans) if plan.trajectory is not None]
        truths = [pdm_scenes(start + i) if pdm_scenes else PdmScene.from_scenario(part[i]) for i in driven]
        scored = {}
        for i, truth in zip(driven, truths):
            trajectory = plans[i].trajectory
            assert trajectory is not None
            scored[i] = score_pdms([truth], [trajectory.poses[None]], trajectory.dt)[0]
        for i, (scenario, plan) in enumerate(zip(part, plans)):
            found = scored.get(i)
            parts = {name: float(getattr(found, name)[0]) if found is not None else 0.0 for name in PARTS}
            rows.append(_row(scenario, plan, float(found.score[0]) if found is not None else 0.0, parts))
    return PdmsResult(planner.name, rows, len(items) if expected is None else expected, list(faults))
