"""Why the expert does what it does, in a small controlled language: road, command, object, decision, plan.

The four steps are AutoVLA's (scene, critical objects, intention, action), each cut to a phrase. Every word is in `VOCABULARY`; numbers are whole,
distances rounded to 5 m and speeds to 1 m/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from drive.core.types import AgentType, Command

STOP_SPEED = 0.3  # m/s; at or below it the car stands
STEADY = 0.8  # m/s; a smaller change over the plan is no change
QUICK = 4.0  # m/s; a larger change over the plan is a quick one
CURVE = np.radians(15.0)  # heading change of the road within the look-ahead that makes a curve


class Cause(str, Enum):
    """What decided the plan."""

    FREE = "free"
    FOLLOW = "follow"
    STOP_BEHIND = "stop_behind"
    YIELD = "yield"
    PASS = "pass"
    RETURN = "return"
    KEEP_CHANGE = "keep_change"
    CURVE = "curve"
    EMERGENCY = "emergency"
    NUDGE = "nudge"
    END = "end"


@dataclass(frozen=True)
class Lead:
    """The agent that mattered, as the ego meets it."""

    agent: int  # index into the scene's agents
    type: AgentType
    distance: float  # m, bumper to box, along the path where it is on it
    speed: float  # m/s
    crossing: bool  # comes into the path from the side
    bearing: float  # rad, left positive, from the ego's heading


@dataclass(frozen=True)
class Decision:
    """What the expert really weighed in one scene; `describe` turns it into words."""

    cause: Cause
    command: Command
    speed: float  # m/s, now
    final_speed: float  # m/s, at the end of the plan
    travelled: float  # m, along the plan
    road_turn: float  # rad, heading change of the route over the look-ahead
    junction_distance: float  # m along the route, 0 inside one, inf if none is near
    lead: Lead | None
    side: int  # 1 the plan goes to the left neighbour lane, -1 to the right one, 0 it keeps the route's lane
    offset: float  # m, where in the lane the ego is now; left positive
    score: float  # PDMS of the chosen proposal on the forecast
    proposal: int  # its index

    @property
    def is_complex(self) -> bool:
        """True where another road user decides and the ego must react: it stops, yields, passes, or slows behind a lead by STEADY or more."""
        if self.cause in (Cause.STOP_BEHIND, Cause.YIELD, Cause.PASS, Cause.NUDGE, Cause.EMERGENCY):
            return True
        return self.cause is Cause.FOLLOW and self.final_speed < self.speed - STEADY


def _object(kind: AgentType) -> str:
    return {AgentType.VEHICLE: "car", AgentType.PEDESTRIAN: "person", AgentType.BICYCLE: "bicycle"}.get(kind, "obstacle")


def metres(distance: float) -> str:
    """`distance` in words, to 5 m."""
    return f"{int(5 * round(max(distance, 0.0) / 5.0))} m"


def pace(speed: float) -> str:
    """`speed` in words, to 1 m/s."""
    return f"{round(abs(speed))} m/s"


def _road(decision: Decision) -> str:
    if decision.junction_distance <= 0.0:
        road = "in junction"
    elif abs(decision.road_turn) < CURVE:
        road = "road straight"
    else:
        road = "road curve left" if decision.road_turn > 0.0 else "road curve right"
    if 0.0 < decision.junction_distance <= 40.0:
        road += f" , junction {metres(decision.junction_distance)} ahead"
    return f"{road} . command {decision.command.value}"


def _objects(decision: Decision) -> str:
    lead = decision.lead
    if lead is None:
        return "no object in the way"
    word = _object(lead.type)
    if lead.crossing:
        where = "left" if lead.bearing > 0.0 else "right"
        return f"{word} from {where} {metres(lead.distance)} away at {pace(lead.speed)} , will cross"
    if lead.speed <= STOP_SPEED:
        return f"stopped {word} {metres(lead.distance)} ahead"
    change = decision.speed - lead.speed
    relation = "slower" if change > STEADY else "faster" if change < -STEADY else "same speed"
    return f"lead {word} {metres(lead.distance)} ahead at {pace(lead.speed)} , {relation}"


_INTENTIONS = {
    Cause.FREE: "free road , keep lane",
    Cause.FOLLOW: "follow it",
    Cause.STOP_BEHIND: "stop behind it",
    Cause.YIELD: "yield to it",
    Cause.PASS: "pass it {side}",
    Cause.RETURN: "go back to the route lane",
    Cause.KEEP_CHANGE: "keep the {side} lane",
    Cause.CURVE: "slow for the curve",
    Cause.EMERGENCY: "brake hard , danger",
    Cause.NUDGE: "keep away from it in lane",
    Cause.END: "road ends , stop",
}


def _plan(decision: Decision) -> str:
    change = decision.final_speed - decision.speed
    if decision.final_speed <= STOP_SPEED:
        action = "stay stopped" if decision.speed <= STOP_SPEED else "stop"
    elif abs(change) < STEADY:
        action = f"keep {pace(decision.final_speed)}"
    else:
        verb = "speed up" if change > 0.0 else "slow down"
        action = f"{verb}{' quickly' if abs(change) > QUICK else ''} to {pace(decision.final_speed)}"
    if decision.side and decision.cause is Cause.PASS:
        action += f" , change lane {'left' if decision.side > 0 else 'right'}"
    return f"plan {action}"


def describe(decision: Decision) -> str:
    """The decision in about 12 to 30 words of `VOCABULARY`: road . command . objects . decision . plan ."""
    intention = _INTENTIONS[decision.cause].format(side="left" if decision.side > 0 else "right")
    return f"{_road(decision)} . {_objects(decision)} . {intention} . {_plan(decision)} ."


VOCABULARY = frozenset(
    [".", ",", "m", "m/s", "in", "junction", "road", "straight", "curve", "left", "right", "ahead", "command", "lanefollow", "changelaneleft", "changelaneright", "no", "object", "the", "way", "car", "person", "bicycle", "obstacle", "from", "away", "at", "will", "cross", "stopped", "lead", "slower", "faster", "same", "speed", "free", "keep", "lane", "follow", "it", "stop", "behind", "yield", "to", "pass", "go", "back", "route", "slow", "for", "brake", "hard", "danger", "ends", "plan", "stay", "up", "down", "quickly", "change"]
)  # all words but whole numbers
