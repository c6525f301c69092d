"""NAVSIM's extended PDM score, version 2.2 (`epdms_v2_2`), of plans in one scene, batched over scenes and proposals.

    EPDMS = NC * DAC * DDC * TLC * (5 EP + 5 TTC + 2 LK + 2 HC + 2 EC) / 16

EC compares the plans of two frames half a second apart; a frame without a predecessor leaves it out (/ 14). Source: NAVSIM v2.2
(359c7f7), pdm_scorer.py and pdm_score.py, with its quirks. The traffic replays the log, as in NAVSIM's one-stage script, or its vehicles react
to each proposal (drive.metrics.idm_agents), as in its two-stage script; the scene's reference is then judged among the traffic of the proposal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.core.types import LightState, Scenario
from drive.core.vehicle import simulate, state_array, targets_from_plan
from drive.metrics.epdms_comfort import history_comfort, interpolate_history
from drive.metrics.epdms_judge import EpdmsVerdict, RedLight, joined, judge_epdms, without_overlaps
from drive.metrics.idm_agents import IdmTraffic, Traffic
from drive.metrics.pdms import PROGRESS_THRESHOLD
from drive.metrics.pdms_contacts import DT, PackedAgents
from drive.metrics.pdms_scene import HORIZON, PdmScene

Array = NDArray[np.float64]
MULTIPLIERS = ("nc", "dac", "ddc", "tlc")
WEIGHTS = {"ep": 5.0, "ttc": 5.0, "lk": 2.0, "hc": 2.0, "ec": 2.0}
LIGHT_DT = 0.5  # s between two readings of a traffic light
AGENT_SECONDS = 4.0  # of the log that agents are read from
HISTORY_FRAMES, HISTORY_DT = 4, 0.5  # the past that NAVSIM's scenes hold, the present among it
FILTERED = (*MULTIPLIERS, "ttc", "lk")  # parts that a human's zero forgives; HC and EP of a human alone are always 1


@dataclass(frozen=True, eq=False)
class EpdmsScene:
    """A PdmScene and what version 2.2 reads besides it."""

    pdm: PdmScene
    history: Array  # (H, 11) logged ego states over the last 1.5 s, the present last; see drive.core.vehicle
    history_us: NDArray[np.int64]  # (H,) their clock
    lights: tuple[RedLight, ...] = ()  # of the route's lane connectors
    reactive: IdmTraffic | None = None  # None replays the log

    def __post_init__(self) -> None:
        for light in self.lights:
            if light.red.shape != (HORIZON + 1,) or light.ring.ndim != 2 or len(light.ring) < 3:
                shapes = f"{light.ring.shape} and {light.red.shape}"
                raise DataError(f"scene {self.pdm.id!r}: a light has a ring (V, 2) and red ({HORIZON + 1},), got {shapes}")

    @staticmethod
    def from_scenario(scenario: Scenario, traffic: Traffic = Traffic.LOG_REPLAY) -> EpdmsScene:
        """The benchmark's view: agents and lights of 4 s, the ego's past at 2 Hz over 1.5 s. Raises DataError without that past."""
        stride = round(HISTORY_DT / scenario.dt)
        steps = scenario.present - stride * np.arange(HISTORY_FRAMES)[::-1]
        if steps[0] < 0 or abs(stride * scenario.dt - HISTORY_DT) > 1e-6:
            raise DataError(f"scene {scenario.id!r} has no past of {HISTORY_DT * (HISTORY_FRAMES - 1):g} s at 2 Hz: history comfort wants one")
        history = np.stack([state_array(scenario.ego.state(int(step))) for step in steps])
        times = np.round(HISTORY_DT * 1e6 * np.arange(1 - HISTORY_FRAMES, 1)).astype(np.int64)
        last = scenario.present + round(AGENT_SECONDS / scenario.dt)
        pdm = PdmScene.from_scenario(replace(scenario, agents=scenario.agents.steps(0, last + 1)))
        return EpdmsScene(pdm, history, times, red_lights(scenario), IdmTraffic.of(scenario, pdm) if traffic is Traffic.IDM else None)

    @cached_property
    def past(self) -> Array:
        """(P, 11) states before the present that history comfort joins to a plan."""
        return interpolate_history(self.history, self.history_us)

    @cached_property
    def agents(self) -> PackedAgents:
        """The agents of the log without those that touch the ego at the present."""
        return without_overlaps(self.pdm.agents, self.pdm.initial)

    @cached_property
    def reference(self) -> tuple[float, float]:
        """(metres along the centreline, NC * DAC * DDC * TLC) of the scene's reference, in the traffic of the log."""
        return self.reference_among(self.agents)

    def judge(self, states: Array, agents: PackedAgents) -> EpdmsVerdict:
        """Verdict on states (N, 41, 11) among `agents`."""
        return judge_epdms(states, self.pdm.areas, agents, self.pdm.centerline, self.lights)

    def reference_among(self, agents: PackedAgents) -> tuple[float, float]:
        """As `reference`, among other agents."""
        verdict = self.judge(self.pdm.reference_states[None], agents)
        return float(verdict.progress[0]), float(_product(verdict)[0])

    def judged(self, states: Array, against: Literal["reference", "group"]) -> tuple[EpdmsVerdict, Array]:
        """Verdict on states (N, 41, 11), and the metres times product (N,) of the reference that each is up against, or of the group's best."""
        if self.reactive is None:
            around = []
            verdict = self.judge(states, self.agents)
        else:
            around = [self.reactive.react(each) for each in states]
            verdict = joined([self.judge(each[None], agents) for each, agents in zip(states, around)])
        if against == "group":
            return verdict, np.full(len(states), (verdict.progress * _product(verdict)).max(initial=0.0))
        rivals = [np.prod(self.reference_among(agents)) for agents in around] or [np.prod(self.reference)] * len(states)
        return verdict, np.array(rivals)


def red_lights(scenario: Scenario) -> tuple[RedLight, ...]:
    """The lane connectors of the route that are red at some time within 4 s; a light is read at 2 Hz and held, as NAVSIM does it."""
    if scenario.lights is None:
        return ()
    held = LIGHT_DT * np.floor(np.arange(HORIZON + 1) * DT / LIGHT_DT + 1e-9)
    steps = np.minimum(scenario.present + np.round(held / scenario.dt).astype(int), scenario.lights.states.shape[1] - 1)
    red = {lane: scenario.lights.states[row, steps] == LightState.RED for row, lane in enumerate(scenario.lights.lane_ids)}
    route, polygons = set(scenario.route_lane_ids), scenario.road_map.polygons
    ruled = {lane for lane, when in red.items() if lane in route and when.any()}
    at = [i for i in np.flatnonzero(polygons.layers == Layer.LANE_CONNECTOR) if polygons.tokens[i] in ruled]
    return tuple(RedLight(polygons.ring(int(i)), red[polygons.tokens[i]]) for i in at)


@dataclass(frozen=True)
class EpdmsScores:
    """Scores of the N proposals of one scene, each (N,)."""

    nc: Array  # 0, 0.5 or 1
    dac: Array  # 0 or 1
    ddc: Array  # 0, 0.5 or 1
    tlc: Array  # 0 or 1
    ep: Array  # 0..1, normalised within its scoring set
    ttc: Array  # 0 or 1
    lk: Array  # 0 or 1
    hc: Array  # 0 or 1
    progress_raw: Array  # m along the centreline
    states: Array  # (N, 41, 11) simulated, see drive.core.vehicle; two of them give EC
    verdict: EpdmsVerdict
    unfiltered: EpdmsScores | None = field(default=None, repr=False)  # what the score before the filter's fix is made of

    @property
    def product(self) -> Array:
        """NC * DAC * DDC * TLC as reported."""
        return _product(self)

    def score(self, ec: Array | None = None) -> Array:
        """(N,) EPDMS 0..1; without `ec` (N,) it is left out of the average, where it is NaN too."""
        source = self.unfiltered or self
        return combine({name: getattr(source, name) for name in (*MULTIPLIERS, "ep", "ttc", "lk", "hc")}, ec)


def combine(parts: dict[str, Array], ec: Array | None = None) -> Array:
    """EPDMS (N,) of its parts (N,), by the names of MULTIPLIERS and WEIGHTS; EC is left out where it is None or NaN."""
    product = np.prod([parts[name] for name in MULTIPLIERS], axis=0)
    total = sum(WEIGHTS[name] * parts[name] for name in ("ep", "ttc", "lk", "hc"))
    weight = sum(WEIGHTS[name] for name in ("ep", "ttc", "lk", "hc"))
    if ec is None:
        return product * total / weight
    known = ~np.isnan(ec)
    return product * (total + np.where(known, WEIGHTS["ec"] * ec, 0.0)) / (weight + WEIGHTS["ec"] * known)


def _product(scores: EpdmsScores | EpdmsVerdict) -> Array:
    return scores.nc * scores.dac * scores.ddc * scores.tlc


def _progress(raw: Array, product: Array, rival: Array) -> Array:
    """EP (N,): raw metres over the best of metres * product, the proposal's own or its rival's (N,); 1 for all in a set that hardly moves."""
    best = np.maximum(raw * product, rival)
    compared = best > PROGRESS_THRESHOLD
    return np.where(compared, np.clip(raw / np.where(compared, best, 1.0), 0.0, 1.0), 1.0)


def score_epdms(
    scenes: Sequence[EpdmsScene], proposals: Sequence[Array], dt: float, against: Literal["reference", "group"] = "reference"
) -> list[EpdmsScores]:
    """EpdmsScores of every scene for its proposals (N, T, 3), ego frame, poses every `dt` s from `dt` on.

    As drive.metrics.pdms.score_pdms: plans are read up to 4 s; progress is normalised against the scene's reference, each proposal
    by itself, or within the group. Raises DataError for NaN, wrong shapes, or a missing reference, naming the scene.
    """
    if len(scenes) != len(proposals):
        raise DataError(f"score_epdms takes one array of proposals per scene, got {len(scenes)} scenes and {len(proposals)} arrays")
    if against not in ("reference", "group"):
        raise DataError(f"score_epdms scores against 'reference' or 'group', got {against!r}")
    results = []
    for scene, poses in zip(scenes, proposals):
        pdm = scene.pdm
        try:
            targets = targets_from_plan(poses, dt, pdm.initial[:3], HORIZON, pdm.time_us)
        except DataError as error:
            raise DataError(f"scene {pdm.id!r}: {error}") from error
        states = simulate(np.broadcast_to(pdm.initial, (len(poses), len(pdm.initial))), targets)
        verdict, rivals = scene.judged(states, against)
        hc = np.where(history_comfort(scene.past, states).all(axis=1), 1.0, 0.0)
        ep = _progress(verdict.progress, _product(verdict), rivals)
        results.append(
            EpdmsScores(verdict.nc, verdict.dac, verdict.ddc, verdict.tlc, ep, verdict.ttc, verdict.lk, hc, verdict.progress, states, verdict)
        )
    return results


def human_filter(scores: EpdmsScores, human: EpdmsScores, fixed: bool = True) -> EpdmsScores:
    """`scores` with each part 1 in which the logged human, scored alone in the same scene (N = 1), has exactly 0.

    fixed: whether the score follows the filtered parts (NAVSIM since 359c7f7), or the parts are filtered in the table alone while
    the score keeps the unfiltered ones, as published before. Print which.
    """
    forgiven = {name: np.ones_like(scores.nc) for name in FILTERED if getattr(human, name)[0] == 0.0}
    return replace(scores, **forgiven, unfiltered=None if fixed else scores)
