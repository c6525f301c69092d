"""Checks by rule on reasoning texts: what the driven plan does in words, and whether a text agrees with it and with the scene.

The meta-action follows the thresholds of AutoVLA's released code (arXiv 2506.13757): stop below 0.3 m/s, steady within 0.8 m/s, straight
within 2 m aside. Deviations: "quickly" is a change above 4 m/s, as in the expert's words, not a doubled speed; a turn is told from a lane change by the
heading at the end (15 degrees) and not by 4 m aside, which a bend or two lanes also give; what is neither yet is "bear".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from drive.core.geometry import compose, project, wrap_angle
from drive.core.types import Privileged, Scenario, Trajectory
from drive.datasets.annotations import is_plain
from drive.datasets.captions import facts
from drive.planners.reasoning import CURVE, QUICK, STEADY, STOP_SPEED, Cause, Decision

ASIDE = 2.0  # m to a side within which a plan goes straight
BACK = 0.5  # a lane change ends with at most this share of its largest heading
SPEEDS = ("stay stopped", "stop", "keep speed", "slow down", "slow down quickly", "speed up", "speed up quickly")
SLOWER = ("stay stopped", "stop", "slow down", "slow down quickly")
WAYS = ("go straight", "bear left", "bear right", "turn left", "turn right", "change lane left", "change lane right")
STEPS = ("Scene", "Objects", "Intentions", "Action")  # AutoVLA's four: scene, critical objects, their intention, the ego's action
SHORTEST = 2  # words of a step


@dataclass(frozen=True)
class MetaAction:
    """A plan in words."""

    speed: str  # of SPEEDS
    way: str  # of WAYS
    final_speed: float  # m/s

    @property
    def phrase(self) -> str:
        """Both parts, as the teacher is told them and has to conclude."""
        return f"{self.speed}, {self.way}"


def meta_action(plan: Trajectory, speed: float) -> MetaAction:
    """What `plan` (ego frame) does from `speed` m/s at present; its final speed is the mean over its last step."""
    poses = np.concatenate([np.zeros((1, 3)), plan.poses])
    final = float(np.hypot(*(poses[-1, :2] - poses[-2, :2]))) / plan.dt
    change = final - speed
    if final <= STOP_SPEED:
        pace = "stay stopped" if speed <= STOP_SPEED else "stop"
    elif abs(change) < STEADY:
        pace = "keep speed"
    else:
        pace = ("speed up" if change > 0.0 else "slow down") + (" quickly" if abs(change) > QUICK else "")
    return MetaAction(pace, _way(poses), final)


def _way(poses: np.ndarray) -> str:
    aside = float(poses[np.argmax(np.abs(poses[:, 1])), 1])
    if abs(aside) < ASIDE:
        return "go straight"
    turned, largest = float(wrap_angle(poses[-1, 2])), float(np.abs(np.unwrap(poses[:, 2])).max())
    if abs(turned) >= CURVE:
        return f"turn {'left' if turned > 0.0 else 'right'}"
    verb = "change lane" if abs(turned) <= BACK * largest else "bear"
    return f"{verb} {'left' if aside > 0.0 else 'right'}"


def driven(scenario: Scenario) -> Trajectory:
    """What the student imitates: the teacher's plan, or the driven future where there is none. Raises DataError where the log ends too early."""
    return scenario.logged_future() if scenario.teacher is None else scenario.teacher


# ---------------------------------------------------------------- the rule's own texts


def as_driven(decision: Decision, plan: Trajectory, action: MetaAction) -> Decision:
    """The expert's reasons with the motion that was driven."""
    steps = np.diff(np.concatenate([np.zeros((1, 2)), plan.poses[:, :2]]), axis=0)
    return replace(decision, final_speed=action.final_speed, travelled=float(np.hypot(*steps.T).sum()))


def contradiction(decision: Decision, action: MetaAction, plan: Trajectory, scene: Privileged) -> str:
    """Why the expert's cause cannot be the reason of what was driven; empty where it can."""
    cause, lead = decision.cause, decision.lead
    said = f"contradiction: {cause.value} and the driver does {action.phrase}"
    if cause is Cause.EMERGENCY:
        agrees = action.speed in ("stop", "slow down quickly")
    elif cause in (Cause.STOP_BEHIND, Cause.YIELD, Cause.CURVE, Cause.END):
        agrees = action.speed in SLOWER
    elif cause is Cause.FREE:
        agrees = action.speed not in SLOWER
    elif cause is Cause.FOLLOW:
        agrees = lead is None or action.final_speed <= max(lead.speed, decision.speed) + STEADY
    else:
        agrees = True
    side = "left" if decision.side > 0 else "right"
    if cause is Cause.PASS:
        agrees = action.way in (f"change lane {side}", f"bear {side}")
    elif cause is Cause.RETURN:
        end = compose(scene.ego.pose_world, plan.poses[-1])
        agrees = abs(project(scene.centerline_world, end[:2])[1]) < abs(decision.offset)
    elif action.way.startswith("change lane"):
        agrees = False  # nothing in the text would say why
    return "" if agrees else said


# ---------------------------------------------------------------- a teacher's answers


@dataclass(frozen=True)
class SceneNumbers:
    """What numbers in a text are held against."""

    speed: float  # m/s of the ego
    distances: tuple[float, ...]  # m, rear axle to the centre of every agent at present
    lead: float | None = None  # m, bumper to the vehicle ahead in the ego's lane; None if there is none in view

    @staticmethod
    def of(scene: Privileged) -> SceneNumbers:
        """Measured in a scene; a map without lanes tells no lead."""
        here = scene.agents.valid[:, 0]
        away = scene.agents.poses_world[here, 0, :2] - scene.ego.pose_world[:2]
        lead = facts(scene).lead_gap if scene.road_map.lanes else None
        return SceneNumbers(scene.ego.speed, tuple(np.hypot(away[:, 0], away[:, 1]).tolist()), lead)


@dataclass(frozen=True)
class CheckConfig:
    """Bounds of the checks."""

    max_words: int = 120  # of the whole text
    distance_m: float = 8.0  # a distance to an object may be off by this (bumper against centre is about 6 of it) and a quarter of it
    speed_ms: float = 2.0  # the ego's own speed may be off by this


_STEP = re.compile(rf"^\W{{0,4}}(?:\d\W{{1,3}})?(?:\*\*)?({'|'.join(STEPS)})(?:\*\*)?\s*:(?:\*\*)?\s*(.*)$", re.IGNORECASE)
_CONCLUSION = re.compile(rf"\btherefore\s+({'|'.join(sorted(SPEEDS, key=len, reverse=True))})\s*,\s*({'|'.join(WAYS)})\W*$", re.IGNORECASE)
_TOLD = re.compile(
    r"\b(hint\w*|ground[ -]truth|(?:was|were|been|being|am|are) (?:told|given|informed|instructed)|as (?:told|given|instructed|stated|noted)"
    r"|(?:given|provided|supplied|known|expected|correct|target|labell?ed|recorded|logged|actual) (?:action|answer|plan|manoeuvre|maneuver|trajectory|label|future)"
    r"|the (?:note|prompt|label|answer|log)\b|future (?:trajectory|path|positions?|frames?)|trajectory points?|waypoints?)",
    re.IGNORECASE,
)
_FUTURE = re.compile(r"\b(?:in|after|within|next|over|for)\s+(?:the\s+)?(?:next\s+)?\d+(?:\.\d+)?\s*(?:s|sec|secs|seconds?)\b|\bt\s*=\s*\d", re.IGNORECASE)
_COORDINATES = re.compile(r"[(\[]\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?")
_CLAUSE = re.compile(r"[;:!?]|,(?!\d)|\.(?!\d)|\band\b|\bwhile\b|\bbut\b", re.IGNORECASE)
_OBJECT = re.compile(r"\b(cars?|vehicles?|trucks?|bus(?:es)?|vans?|pedestrians?|persons?|people|cyclists?|bicycles?|motorcycl\w+|bikes?|lead|suvs?|taxis?)\b", re.IGNORECASE)
_LEAD = re.compile(r"\b(lead|leading)\b", re.IGNORECASE)
_METRES = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)[\s-]*(?:m|meters?|metres?)\b(?!\s*/|\s*per)", re.IGNORECASE)
_EGO = re.compile(r"\b(ego|we|our|i|my|current(?:ly)?)\b", re.IGNORECASE)
_PACE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*(m/s|mps|km/h|kph|kmh|mph)(?![\w/])", re.IGNORECASE)
_TO_MS = {"m/s": 1.0, "mps": 1.0, "km/h": 1 / 3.6, "kph": 1 / 3.6, "kmh": 1 / 3.6, "mph": 0.44704}


def steps_of(answer: str) -> list[str] | None:
    """The four steps of an answer, each on one line, or None where they are not there once each, in order, and alone."""
    found: list[tuple[str, str]] = []
    for line in answer.strip().splitlines():
        match = _STEP.match(line.strip())
        if match:
            found.append((match[1].capitalize(), match[2]))
        elif line.strip():
            if not found:
                return None  # an introduction
            found[-1] = (found[-1][0], f"{found[-1][1]} {line}")
    if tuple(name for name, _ in found) != STEPS:
        return None
    return [" ".join(text.replace("**", "").split()) for _, text in found]


def text_of(steps: list[str]) -> str:
    """What a student learns: the four steps on one line."""
    return " ".join(f"{name}: {step}" for name, step in zip(STEPS, steps, strict=True))


def check_answer(answer: str, action: MetaAction, mark: str, numbers: SceneNumbers, config: CheckConfig) -> tuple[str, list[str]]:
    """(the student's text, what is wrong with it as "kind: detail").

    mark: the word that stands by the hint and nowhere else; a text that holds it quotes the hint.
    """
    steps = steps_of(answer)
    if steps is None:
        return "", [f"format: not the four lines {', '.join(STEPS)}" if answer.strip() else "empty: no answer"]
    text = text_of(steps)
    faults = [f"format: {name} says nothing" for name, step in zip(STEPS, steps, strict=True) if len(step.split()) < SHORTEST]
    end = _CONCLUSION.search(steps[-1])
    if end is None:
        faults.append("format: the last step does not end with 'therefore SPEED, WAY'")
    elif f"{end[1]}, {end[2]}".lower() != action.phrase:
        faults.append(f"action: {end[1]}, {end[2]} instead of {action.phrase}".lower())
    if not is_plain(text):
        faults.append("control: '<', '>' or a control character")
    if len(text.split()) > config.max_words:
        faults.append(f"length: {len(text.split())} words")
    return text, faults + _leaks(text, mark) + _wrong_numbers(text, numbers, config)


def _leaks(text: str, mark: str) -> list[str]:
    found = [match[0] for pattern in (_TOLD, _FUTURE, _COORDINATES) if (match := pattern.search(text))]
    if mark.lower() in text.lower():
        found.append("the mark of the hint")
    return [f"leak: {words}" for words in found]


def _wrong_numbers(text: str, numbers: SceneNumbers, config: CheckConfig) -> list[str]:
    """Distances to objects where no object is, and another speed of the ego than its own; clause by clause, what names neither is left."""
    faults = []
    for clause in _CLAUSE.split(text):
        if _OBJECT.search(clause):
            is_lead = numbers.lead is not None and _LEAD.search(clause)
            there = (numbers.lead,) if numbers.lead is not None and is_lead else numbers.distances
            wrong = [said for said in map(float, _METRES.findall(clause)) if not any(abs(said - true) <= config.distance_m + 0.25 * true for true in there)]
            faults += [f"distance: {said:g} m, where {'the lead is not' if is_lead else 'nothing is'}" for said in wrong]
        elif _EGO.search(clause):
            for size, unit in _PACE.findall(clause):
                said = float(size) * _TO_MS[unit.lower()]
                if abs(said - numbers.speed) > config.speed_ms:
                    faults.append(f"speed: {size} {unit}, the car drives {numbers.speed:.1f} m/s")
    return faults
