"""Benchmark epdms_v2_2: how NAVSIM v2.2 puts scores of scenes together, in one stage (navtest) and in two (navhard).

One stage: the mean over frames; EC of a frame compares it with the frame before it in the same log, and is 0 where that one has no
plan, so that no failure ever raises a score. Two stages: each group's logged
frames are weighed with the mean score of the synthetic frames that start near where the plan ended; vehicles react. Source: NAVSIM v2.2,
scene_aggregator.py, run_pdm_score.py, run_pdm_score_one_stage.py. A frame without a score counts 0 here and lowers the coverage, one that
could not be read as much as if the plan had ended on it; NAVSIM's own scripts yield no number then. Which it is, the data tells: scenes of
a filter with a mapping (`notes["two_stage_split"]`) are judged in two stages. There progress is measured against drive's expert in place
of PDM-Closed, and the route are all lanes of its roadblocks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.pdms import SECONDS, has_horizon
from drive.benchmarks.results import SceneRow, Style
from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.types import PLAN_DT, Scenario, Trajectory
from drive.datasets.navsim_splits import TwoStageGroup, read_two_stage_groups
from drive.metrics.epdms import MULTIPLIERS, EpdmsScene, combine, human_filter, score_epdms
from drive.metrics.epdms_comfort import MAX_FRAME_GAP, extended_comfort
from drive.metrics.idm_agents import Traffic
from drive.planners.pdm import PdmExpert

Array = NDArray[np.float64]
PARTS = (*MULTIPLIERS, "ep", "ttc", "lk", "hc", "ec")
STAGES = ("stage1", "stage2")  # of two: a logged frame's own score, and that of its follow-ups; their product is what the mean runs over
STYLE = Style(
    "epdms_v2_2",
    (*PARTS, *STAGES),
    (*PARTS, *STAGES),
    note="one stage with log replay, or two with reactive vehicles; human filter after its fix, TLC where the data holds traffic lights",
)
SPLIT = "two_stage_split"  # note of scenes that are judged in two stages: the file with their groups
HUMAN_STEPS = 8  # of 0.5 s: the logged drive that the filter forgives
KERNEL_VARIANCE = 0.1  # m^2, of the weight of a follow-up by its distance from the plan's end


class Epdms:
    """The benchmark, over scenarios of any dataset; in two stages where they are of a split that has them.

    TLC of a scenario without traffic lights is 1 in the score, and left out of TLC's own mean. The logged drive is the filter's human.
    """

    style = STYLE
    needs_map = True

    def accepts(self, scenario: Scenario) -> bool:
        """Scenarios whose log goes on for the 4 s that are simulated, and second-stage scenes."""
        return scenario.notes.get("stage") == 2 or has_horizon(scenario)

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """EPDMS without EC, which `finish` adds. Raises DataError on a plan that cannot be simulated, or a scene without a past."""
        scene = EpdmsScene.from_scenario(_staged(scenario), Traffic.IDM) if SPLIT in scenario.notes else EpdmsScene.from_scenario(scenario)
        found = score_epdms([scene], [trajectory.poses[None]], trajectory.dt)[0]
        if scenario.notes.get("stage") != 2:
            human = score_epdms([scene], [scenario.logged_future(HUMAN_STEPS, PLAN_DT).poses[None]], PLAN_DT, "group")[0]
            found = human_filter(found, human)
        parts = {name: float(getattr(found, name)[0]) for name in PARTS if name != "ec"}
        frame = Frame(_token(scenario), scenario.log_id, scenario.time_s, parts, found.states[0], _end(scenario, trajectory))
        unknown = dict.fromkeys(("ec", *STAGES), float("nan"))
        shown = {**parts, **unknown, "tlc": parts["tlc"] if scenario.lights is not None else float("nan")}
        return Scored(float(found.score()[0]), shown, frame)

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """Rows with EC, and the score with it; in two stages, those of the first carry the product of both, and the means run over them."""
        split = next((scenario.notes[SPLIT] for scenario in scenarios if SPLIT in scenario.notes), None)
        frames = {item.detail.token: item.detail for item in scored if item is not None}
        if split is not None:
            return _two_stage_rows(rows, frames, scenarios, read_two_stage_groups(split))
        before = predecessors([Place(s.id, s.log_id, s.time_s) for s in scenarios])
        done = []
        for row, item in zip(rows, scored):
            row = replace(row, parts={**row.parts, **dict.fromkeys(STAGES, float("nan"))})
            if item is None or item.detail.token not in before:
                done.append(row)
                continue
            previous = frames.get(before[item.detail.token])
            ec = 0.0 if previous is None else pair_comfort(item.detail, previous)
            done.append(replace(row, score=score_frame(item.detail, ec), parts={**row.parts, "ec": ec}))
        return done


def _token(scenario: Scenario) -> str:
    """What the frame is called in split files, in two stages; its id else."""
    return scenario.notes["token"] if SPLIT in scenario.notes else scenario.id


def _start(scenario: Scenario) -> Array:
    """(2,) where the ego stands at the present, in the frame that the drives of a city share."""
    return scenario.ego.poses_world[scenario.present, :2] + np.asarray(scenario.notes.get("origin_world", (0.0, 0.0)))


def _end(scenario: Scenario, trajectory: Trajectory) -> Array:
    """(2,) where the plan itself is after 4 s, or at its end before that, in the same frame."""
    last = min(round(SECONDS / trajectory.dt), len(trajectory.poses)) - 1
    here = scenario.ego.poses_world[scenario.present]
    return compose(here, trajectory.poses[last])[:2] - here[:2] + _start(scenario)


def _staged(scenario: Scenario) -> Scenario:
    """The scenario as two stages judge it: progress against the expert, on a route of all lanes of its roadblocks."""
    here = scenario.ego.poses_world[scenario.present]
    plan = PdmExpert().plan_privileged([scenario.privileged()])[0].trajectory
    assert plan is not None  # the expert always plans
    blocks = set(map(str, scenario.notes.get("route_roadblocks", ())))
    lanes = tuple(key for key, lane in scenario.road_map.lanes.items() if lane.roadblock in blocks)
    reference = np.concatenate([here[None], compose(here, plan.poses)])
    return replace(scenario, reference_world=reference, route_lane_ids=lanes or scenario.route_lane_ids)


def _two_stage_rows(
    rows: Sequence[SceneRow], frames: Mapping[str, Frame], scenarios: Sequence[Scenario], groups: Sequence[TwoStageGroup]
) -> list[SceneRow]:
    """The rows of both stages; tells how many frames of the groups are not among the scenarios."""
    result = two_stage(groups, frames, {_token(scenario): _start(scenario) for scenario in scenarios})
    absent = result.expected - sum(_token(scenario) in result.comfort for scenario in scenarios)
    if absent:
        print(f"{STYLE.name}: {absent} of the {result.expected} frames of the two stages are not there and count 0; max_scenes cuts groups apart", file=sys.stderr)
    done = []
    for row, scenario in zip(rows, scenarios):
        token = _token(scenario)
        parts = {**row.parts, "ec": result.comfort.get(token, float("nan"))}
        if token in result.first:
            own, followed = result.first[token]
            done.append(replace(row, score=own * followed, parts={**parts, "stage1": own, "stage2": followed}, among=2 * len(groups)))
        else:
            score = score_frame(frames[token], parts["ec"]) if token in frames else row.score
            done.append(replace(row, score=score, parts={**parts, **dict.fromkeys(STAGES, float("nan"))}, among=0))
    return done


class Place(NamedTuple):
    """Where a frame stands in its log."""

    token: str
    log_id: str
    time_s: float


@dataclass(frozen=True)
class Frame:
    """What a planner's plan of one frame got, and what the aggregation reads of it."""

    token: str
    log_id: str
    time_s: float
    parts: Mapping[str, float]  # nc, dac, ddc, tlc, ep, ttc, lk, hc that make the score, 0..1
    states: Array  # (41, 11) simulated, world frame
    end_world: Array  # (2,) where the plan itself, not the simulation, is after 4 s


@dataclass(frozen=True)
class TwoStageResult:
    """The score and its parts, 0..1, by the names of PARTS."""

    score: float
    parts: dict[str, float]  # unweighted means over the first stage's frames
    values: Array  # (groups,) what `score` is the mean of
    scored: int  # frames with a plan, of
    expected: int
    second_stage: dict[str, float]  # means of the weighted parts of the synthetic frames
    first: dict[str, tuple[float, float]] = field(default_factory=dict)  # of each first-stage frame: its score, and its follow-ups'
    comfort: dict[str, float] = field(default_factory=dict)  # EC of every frame of the groups

    @property
    def coverage(self) -> float:
        """Share of the expected frames with a plan."""
        return self.scored / max(self.expected, 1)


def score_frame(frame: Frame, ec: float = float("nan")) -> float:
    """EPDMS of one frame, 0..1; EC is left out of the average where it is NaN."""
    parts = {name: np.array([frame.parts[name]]) for name in PARTS if name != "ec"}
    return float(combine(parts, np.array([ec]))[0])


def predecessors(places: Sequence[Place]) -> dict[str, str]:
    """Token of the frame before each, by token, in the same log: the latest one less than 0.55 s earlier; frames without one are not in it."""
    found = {}
    for log in {place.log_id for place in places}:
        ordered = sorted((place for place in places if place.log_id == log), key=lambda place: place.time_s)
        for before, place in pairwise(ordered):
            if 0.0 < place.time_s - before.time_s < MAX_FRAME_GAP:
                found[place.token] = before.token
    return found


def pair_comfort(now: Frame, previous: Frame) -> float:
    """EC of two plans of one log: 1 or 0. Raises DataError, naming them, where they are not 0 to 0.55 s apart."""
    gap = now.time_s - previous.time_s
    if not 0.0 < gap < MAX_FRAME_GAP:
        raise DataError(f"frames {previous.token} and {now.token} are {gap:g} s apart: extended comfort compares 0 to {MAX_FRAME_GAP} s")
    return float(extended_comfort(now.states[None], previous.states[None], gap)[0])


def follow_up_weights(end_world: Array, starts_world: Array) -> Array:
    """(F,) weights, sum 1, of follow-ups that start at `starts_world` (F, 2) for a plan that ends at `end_world` (2,).

    Gaussian in the distance with a variance of 0.1 m^2; even where all are too far for any weight.
    """
    distance = ((np.asarray(starts_world, np.float64) - end_world) ** 2).sum(axis=1)
    weights = np.exp(-distance / (2.0 * KERNEL_VARIANCE))
    total = weights.sum()
    return weights / total if total > 1e-12 else np.full(len(weights), 1.0 / len(weights))


def two_stage(groups: Sequence[TwoStageGroup], frames: Mapping[str, Frame], starts_world: Mapping[str, Array]) -> TwoStageResult:
    """Mean over groups of (s_now * sum w s2_now + s_previous * sum w s2_previous) / 2.

    frames: by token, those with a plan; a missing one scores 0, and so does EC of its partner. starts_world: where the ego stands,
    (2,), in each follow-up, planned or not; one that is not known weighs as if the plan ended on it, which never flatters. EC of a pair counts for both of its frames. `parts` are unweighted means over the first
    stage's frames, `second_stage` the means of the weighted parts; their product is not the score. Raises DataError, naming them,
    where the frames of a pair are not 0 to 0.55 s apart.
    """
    values, first, second = [], [], []
    own: dict[str, tuple[float, float]] = {}
    comforts: dict[str, float] = {}
    expected = scored = 0
    for group in groups:
        pairs = [(group.now, group.previous), *group.follow_ups]
        expected += 2 * len(pairs)
        scored += sum(token in frames for pair in pairs for token in pair)
        comfort = [_comfort(frames, pair) for pair in pairs]
        comforts |= {token: ec for pair, ec in zip(pairs, comfort) for token in pair}
        halves = []
        for side in (0, 1):
            rows = np.array([_columns(frames, pair[side], ec) for pair, ec in zip(pairs, comfort)])  # (1 + F, parts and score)
            weights = _weights(frames, starts_world, group, side)
            followed = weights @ rows[1:]
            halves.append(rows[0, -1] * followed[-1])
            own[pairs[0][side]] = (float(rows[0, -1]), float(followed[-1]))
            first.append(rows[0, :-1])
            second.append(followed[:-1])
        values.append(float(np.mean(halves)))
    return TwoStageResult(
        score=float(np.mean(values)) if values else 0.0,
        parts=dict(zip(PARTS, np.mean(first, axis=0).tolist())) if first else {},
        values=np.array(values),
        scored=scored,
        expected=expected,
        second_stage=dict(zip(PARTS, np.mean(second, axis=0).tolist())) if second else {},
        first=own,
        comfort=comforts,
    )


def _comfort(frames: Mapping[str, Frame], pair: tuple[str, str]) -> float:
    """EC of a pair of tokens, 0 where one of them has no plan."""
    now, previous = (frames.get(token) for token in pair)
    return 0.0 if now is None or previous is None else pair_comfort(now, previous)


def _columns(frames: Mapping[str, Frame], token: str, ec: float) -> Array:
    """(10,) the parts in the order of PARTS, then the score; zeros for a frame without a plan."""
    frame = frames.get(token)
    if frame is None:
        return np.zeros(len(PARTS) + 1)
    known = {**frame.parts, "ec": ec}
    return np.array([*(known[name] for name in PARTS), score_frame(frame, ec)])


def _weights(frames: Mapping[str, Frame], starts_world: Mapping[str, Array], group: TwoStageGroup, side: int) -> Array:
    """(F,) weights of the group's follow-ups on one side (0 now, 1 previous); even where the first stage has no plan (and scores 0)."""
    first = frames.get((group.now, group.previous)[side])
    if first is None:
        return np.full(len(group.follow_ups), 1.0 / len(group.follow_ups))
    return follow_up_weights(first.end_world, np.array([starts_world.get(pair[side], first.end_world) for pair in group.follow_ups]))
