"""The one loop of every open-loop benchmark: plan scene by scene in batches, hold the planner to its word, score.

A plan that is undecodable, or a planner that fails, gets the benchmark's worst value (0 of a score) and lowers the coverage; so does
a scenario that could not be read.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from drive.benchmarks.results import Result, SceneRow, Style
from drive.core.errors import DataError
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.types import Plan, PlanStatus, Scenario, Trajectory


class Scored(NamedTuple):
    """What a benchmark found out about one plan."""

    score: float  # in the benchmark's unit
    parts: dict[str, float]
    detail: Any = None  # what `finish` reads of it


class Benchmark(Protocol):
    """A published protocol for one plan per scenario."""

    style: Style
    needs_map: bool  # whether it means nothing on scenes without one

    def accepts(self, scenario: Scenario) -> bool:
        """Whether the scenario belongs to the benchmark's set. Raises DataError where the dataset lacks what it measures by."""
        ...

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """The score of a plan, ego frame, of the scenario at `index` of the set. Raises DataError where it cannot be scored."""
        ...

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows after what takes several scenarios; scored[i] is that of rows[i], None where it has no plan."""
        ...


def evaluate(
    benchmark: Benchmark,
    scenarios: Sequence[Scenario] | Iterable[Scenario],
    planner: Planner | PrivilegedPlanner,
    batch: int = 16,
    expected: int | None = None,
    faults: Sequence[str] = (),
    progress: bool = False,
) -> Result:
    """Score `planner` on `scenarios`.

    expected: how many the set should hold (default: as many as given). Batches are planned together; every latency is a share of
    its batch. A planner that raises, or answers with anything but one Plan per scene, has failed on the scenes where it does so alone.
    Raises DataError on a dataset that the benchmark cannot measure.
    """
    given = list(scenarios)
    for scenario in given[:1]:
        if benchmark.needs_map and scenario.notes.get("map") == "corridor":
            raise DataError(f"{benchmark.style.name} needs a map, and the {scenario.source} scenes have none: take benchmark=l2_uniad or l2_stp3")
    items = [scenario for scenario in given if benchmark.accepts(scenario)]
    if given and not items:
        raise DataError(f"none of the {len(given)} scenes belongs to the set of {benchmark.style.name} ({benchmark.style.note})")
    unread = 0 if expected is None else expected - len(given)  # of them, as large a share belongs to the set as of those read
    expected = len(items) + (math.ceil(unread * len(items) / len(given)) if given else unread)
    rows: list[SceneRow] = []
    found: list[Scored | None] = []
    planner.reset()
    for start in tqdm(range(0, len(items), batch), desc=f"{benchmark.style.name} {planner.name}", disable=not progress, dynamic_ncols=True):
        part = items[start : start + batch]
        for i, (scenario, plan) in enumerate(zip(part, _plan_batch(planner, part))):
            row, scored = _score(benchmark, planner.name, scenario, plan, start + i)
            rows.append(row)
            found.append(scored)
    return Result(planner.name, benchmark.finish(rows, found, items), expected, list(faults), benchmark.style.worst)


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
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        print(f"{planner.name} failed on scene {scenarios[0].id}: {type(error).__name__}: {error}{where}", file=sys.stderr)
        return [Plan(None, PlanStatus.FAILED)]


def _score(benchmark: Benchmark, planner: str, scenario: Scenario, plan: Plan, index: int) -> tuple[SceneRow, Scored | None]:
    """One row; a plan that cannot be scored (too short, of no time step) has failed."""
    worst = benchmark.style.worst
    nothing = dict.fromkeys(benchmark.style.parts, worst)
    if plan.trajectory is None:
        return _row(scenario, plan, worst, nothing), None
    trajectory = plan.trajectory.to_ego(scenario.ego.poses_world[scenario.present])
    try:
        scored = benchmark.score(scenario, trajectory, index)
        if math.isnan(scored.score):
            raise DataError("its score is NaN")
    except DataError as error:
        print(f"{planner}: its plan of scene {scenario.id} cannot be scored: {error}", file=sys.stderr)
        return _row(scenario, replace(plan, trajectory=None, status=PlanStatus.FAILED), worst, nothing), None
    return _row(scenario, replace(plan, trajectory=trajectory), scored.score, scored.parts), scored


def _row(scenario: Scenario, plan: Plan, score: float, parts: dict[str, float]) -> SceneRow:
    poses = plan.trajectory.poses if plan.trajectory is not None else None
    return SceneRow(
        scenario.id, scenario.log_id, scenario.kind, plan.status, score, parts, poses, plan.mode, plan.generated_tokens, plan.latency_s, plan.reasoning
    )
