"""The one loop of every open-loop benchmark: plan scene by scene in batches, hold the planner to its word, score.

A plan that is undecodable, or a planner that fails, gets the benchmark's worst value (0 of a score) and lowers the coverage; so does
a scenario that could not be read.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tqdm import tqdm

from drive.benchmarks.results import Pick, Result, SceneRow, Style
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
        """Whether the scenario belongs to the benchmark's set. Raises DataError where it lacks what is measured by."""
        ...

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """The score of a plan, ego frame, of the scenario at `index` of the set. Raises DataError where it cannot be scored."""
        ...

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows after what takes several scenarios; scored[i] is that of rows[i], None where it has no plan."""
        ...


@runtime_checkable
class BestOf(Protocol):
    """A benchmark with parts that choose among a planner's alternatives with the ground truth: its Style names them in `oracle`."""

    most_candidates: int  # that it looks at, in the planner's order

    def best_of(self, scenario: Scenario, candidates: Sequence[Trajectory], index: int) -> dict[str, float]:
        """The parts of Style.oracle, no more and no less; candidates in the ego frame, the planner's own plan first.

        Raises DataError where they cannot be scored.
        """
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
    Raises DataError on a dataset that the benchmark cannot measure; scenes of it that it cannot are faults, and lower the coverage. A benchmark sees one plan of each scene, the one that the planner
    would drive; alternatives reach `BestOf.best_of` alone, whose parts are labelled as an oracle's choice.
    """
    if isinstance(benchmark, BestOf) != bool(benchmark.style.oracle):
        raise TypeError(f"{benchmark.style.name} must have both best_of and parts named in Style.oracle, or neither")
    given = list(scenarios)
    mapped = [scenario for scenario in given if not (benchmark.needs_map and scenario.notes.get("map") == "corridor")]
    if given and not mapped:
        raise DataError(
            f"{benchmark.style.name} needs a map, and the {given[0].source} scenes have none: take benchmark=ade_av2_5s, or for nuScenes l2_uniad, l2_stp3 or l2_vad"
        )
    if len(mapped) < len(given):
        faults = [*faults, f"{len(given) - len(mapped)} of the {len(given)} scenes have no map, and {benchmark.style.name} leaves them out"]
    items, refused = _accepted(benchmark, mapped)
    faults = [*faults, *(f"{count} of the {len(given)} scenes cannot be judged by {benchmark.style.name}: {why}" for why, count in refused.items())]
    if given and not items:
        raise DataError(f"none of the {len(given)} scenes belongs to the set of {benchmark.style.name} ({benchmark.style.note})")
    unread = 0 if expected is None else expected - len(given)  # of them, as large a share belongs to the set as of those read
    belong = len(items) + sum(refused.values())
    expected = belong + (math.ceil(unread * belong / len(given)) if given else unread)
    rows: list[SceneRow] = []
    found: list[Scored | None] = []
    planner.reset()
    for start in tqdm(range(0, len(items), batch), desc=f"{benchmark.style.name} {planner.name}", disable=not progress, dynamic_ncols=True):
        part = items[start : start + batch]
        for i, (scenario, plan) in enumerate(zip(part, _plan_batch(planner, part))):
            row, scored = _score(benchmark, planner.name, scenario, plan, start + i)
            rows.append(row)
            found.append(scored)
    style, pick = benchmark.style, Pick.PRIVILEGED if isinstance(planner, PrivilegedPlanner) else Pick.DEPLOYABLE
    return Result(planner.name, benchmark.finish(rows, found, items), expected, list(faults), style.worst, style.worst_parts, pick)


def _accepted(benchmark: Benchmark, scenarios: Sequence[Scenario]) -> tuple[list[Scenario], Counter[str]]:
    """The scenarios of the benchmark's set, and how often each reason kept it from judging one. Raises DataError where it can judge none."""
    items: list[Scenario] = []
    refused: Counter[str] = Counter()
    for scenario in scenarios:
        try:
            if benchmark.accepts(scenario):
                items.append(scenario)
        except DataError as error:
            refused[str(error)] += 1
    if refused and not items:
        raise DataError(next(iter(refused)))
    return items, refused


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
    style = benchmark.style
    worst, nothing = style.worst, {name: style.worst_parts.get(name, style.worst) for name in style.parts}
    if plan.trajectory is None:
        return _row(scenario, plan, worst, nothing), None
    here = scenario.ego.poses_world[scenario.present]
    trajectory = plan.trajectory.to_ego(here)
    candidates = [trajectory]
    try:
        scored = benchmark.score(scenario, trajectory, index)
        if math.isnan(scored.score):
            raise DataError("its score is NaN")
        if isinstance(benchmark, BestOf):
            wanted = len(trajectory.poses), trajectory.dt  # an alternative that is shorter cannot be compared, and must not cost the plan its score
            others = [other.to_ego(here) for other in plan.alternatives if (len(other.poses), other.dt) == wanted]
            candidates += others[: benchmark.most_candidates - 1]
            chosen = benchmark.best_of(scenario, candidates, index)
            if set(chosen) != set(style.oracle) or set(chosen) & set(scored.parts):
                raise TypeError(f"{style.name} chose {sorted(chosen)} with the ground truth and scored {sorted(scored.parts)}: its style says {style.oracle}")
            scored = scored._replace(parts={**scored.parts, **chosen})
    except DataError as error:
        print(f"{planner}: its plan of scene {scenario.id} cannot be scored: {error}", file=sys.stderr)
        return _row(scenario, replace(plan, trajectory=None, status=PlanStatus.FAILED), worst, nothing), None
    return _row(scenario, replace(plan, trajectory=trajectory), scored.score, scored.parts, len(candidates)), scored


def _row(scenario: Scenario, plan: Plan, score: float, parts: dict[str, float], candidates: int = 1) -> SceneRow:
    poses, tokens = plan.trajectory.poses if plan.trajectory is not None else None, plan.generated_tokens
    return SceneRow(
        scenario.id, scenario.log_id, scenario.kind, plan.status, score, parts, poses, plan.mode, tokens, plan.latency_s, plan.reasoning, candidates
    )
