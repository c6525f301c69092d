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
from drive.core.errors import DataError
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

    @property
    def groups(self) -> list[str | int]:
        """(expected,) the log of each value; every unread scenario is its own."""
        return [*(row.log_id for row in self.rows), *range(self.expected - len(self.rows))]

    @property
    def logs(self) -> int:
        """How many logs the scenarios come from."""
        return len(set(self.groups))

    def interval(self, name: str = "score") -> tuple[float, float]:
        """95 % bootstrap interval of the mean, 0-1; whole logs are resampled."""
        return bootstrap_interval(self.values(name), self.groups)

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


def _answers(planner: Planner | PrivilegedPlanner, scenarios: Sequence[Scenario]) -> list[Plan]:
    """The planner's answers, each with its latency. Raises whatever the planner raises, and DataError on what is no list of plans."""
    start = time.perf_counter()
    if isinstance(planner, PrivilegedPlanner):
        plans = list(planner.plan_privileged([s.privileged() for s in scenarios]))
    else:
        plans = list(planner.plan([s.observation() for s in scenarios]))
    took = (time.perf_counter() - start) / len(scenarios)
    if len(plans) != len(scenarios):
        raise DataError(f"{len(plans)} plans came back for {len(scenarios)} scenes: give one for each, in their order")
    for plan in plans:
        if not isinstance(plan, Plan):
            raise DataError(f"a planner answers with drive.core.types.Plan, not {type(plan).__name__}")
        if (plan.trajectory is not None) != (plan.status is PlanStatus.OK):
            raise DataError(f"a plan has a trajectory where its status is ok and only there, not where it is {plan.status.value}")
        if plan.trajectory is not None and (plan.trajectory.t0 != 0.0 or not len(plan.trajectory.poses)):
            raise DataError("a plan starts at the present: its trajectory has t0 = 0 and at least one pose")
    return [plan if plan.latency_s else replace(plan, latency_s=took) for plan in plans]


def _plan_batch(planner: Planner | PrivilegedPlanner, scenarios: Sequence[Scenario]) -> list[Plan]:
    """One plan for each scenario. A batch that fails is planned again scene by scene, so that a fault stays with its scene."""
    try:
        return _answers(planner, scenarios)
    except Exception as error:  # a planner is anybody's code: whatever it raises is a failed plan, told and scored 0
        if len(scenarios) > 1:
            return [plan for scenario in scenarios for plan in _plan_batch(planner, [scenario])]
        print(f"{planner.name} failed on scene {scenarios[0].id}: {type(error).__name__}: {error}", file=sys.stderr)
        return [Plan(None, PlanStatus.FAILED)]


def _score(planner: str, scenario: Scenario, plan: Plan, truth: PdmScene | None) -> SceneRow:
    """One row; a plan that cannot be scored (too short, of no time step) has failed."""
    if plan.trajectory is None:
        return _row(scenario, plan, 0.0, dict.fromkeys(PARTS, 0.0))
    trajectory = plan.trajectory.to_ego(scenario.ego.poses_world[scenario.present])
    try:
        found = score_pdms([PdmScene.from_scenario(scenario) if truth is None else truth], [trajectory.poses[None]], trajectory.dt)[0]
    except DataError as error:
        print(f"{planner}: its plan of scene {scenario.id} cannot be scored: {error}", file=sys.stderr)
        return _row(scenario, replace(plan, trajectory=None, status=PlanStatus.FAILED), 0.0, dict.fromkeys(PARTS, 0.0))
    parts = {name: float(getattr(found, name)[0]) for name in PARTS}
    return _row(scenario, replace(plan, trajectory=trajectory), float(found.score[0]), parts)


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
    keeps them. Batches are planned together; every latency is a share of its batch. A planner that raises, or answers with
    anything but one Plan per scene, has failed on the scenes where it does so alone.
    """
    items = list(scenarios)
    rows: list[SceneRow] = []
    planner.reset()
    for start in tqdm(range(0, len(items), batch), desc=f"{NAME} {planner.name}", disable=not progress, dynamic_ncols=True):
        part = items[start : start + batch]
        plans = _plan_batch(planner, part)
        for i, (scenario, plan) in enumerate(zip(part, plans)):
            rows.append(_score(planner.name, scenario, plan, pdm_scenes(start + i) if pdm_scenes else None))
    return PdmsResult(planner.name, rows, len(items) if expected is None else expected, list(faults))
