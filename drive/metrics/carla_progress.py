"""Criteria along the route: completion, deviation, blocked, timeout, the way outside lanes, and speed among the traffic.

Source: scenario_runner atomic_criteria.py (RouteCompletionTest, InRouteTest, ActorBlockedTest, OutsideRouteLanesTest,
MinimumSpeedRouteTest) and RouteTimeoutBehavior, as leaderboard 2.x and Bench2Drive use them. All run on the dense path of the route (1 m)
in one flat frame; upstream's distances have heights too. What can end a route is a small object with a `step` for every tick, so
that a runner can use it while it drives; the functions fold recorded arrays through the same objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.metrics.carla_records import Event, Failure, Infraction
from drive.metrics.carla_scores import Rule

Array = NDArray[np.float64]
DONE, CLOSE = 99.0, 10.0  # %, m: beyond that share and within that distance of the end the route is completed
OFF_ROUTE, NEAR_ROUTE, OFF_SHARE = 30.0, 15.0, 30.0  # m, m, % of the route that may be driven farther than NEAR_ROUTE from it
STILL = 0.1  # m/s
LEAST_TIMEOUT, SLOWEST_SHARE = 300.0, 0.1  # s, of the speed limit
LAST_CHECKPOINT = 0.95  # share of the route from which the last checkpoint counts
MESSAGES = {
    Infraction.DEVIATION: "Agent deviated from the route at {}",
    Infraction.BLOCKED: "Agent got blocked at {}",
    Infraction.ROUTE_TIMEOUT: "Route timeout.",
}


def place(x: float, y: float) -> str:
    """A point (x, y) of the right-handed world as the files have it: in CARLA's frame, with a height that is not known."""
    return f"(x={round(float(x), 3)}, y={round(-float(y), 3)}, z=0.0)"


class Path:
    """The dense path of a route with its arc lengths, as plain numbers: a tick asks for a few of them."""

    def __init__(self, path: Array) -> None:
        """`path` (N, 3) x, y, heading; N >= 2. Raises DataError on any other array."""
        path = np.asarray(path, float)
        if path.ndim != 2 or path.shape[1] != 3 or len(path) < 2 or not np.isfinite(path).all():
            raise DataError(f"a route path takes at least two finite poses (N, 3), got an array of shape {path.shape}")
        self.x, self.y = path[:, 0].tolist(), path[:, 1].tolist()
        self.cos, self.sin = np.cos(path[:, 2]).tolist(), np.sin(path[:, 2]).tolist()
        self.s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T))]).tolist()

    def __len__(self) -> int:
        return len(self.x)

    def passed(self, index: int, x: float, y: float) -> bool:
        """Whether (x, y) lies ahead of path point `index`, by the heading there."""
        return (x - self.x[index]) * self.cos[index] + (y - self.y[index]) * self.sin[index] > 0.0

    def advance(self, index: int, window: int, x: float, y: float) -> int:
        """The last point passed among `index` and the `window` after it; `index` where none is."""
        last = index
        for i in range(index, min(index + window + 1, len(self))):
            if self.passed(i, x, y):
                last = i
        return last

    def distance(self, index: int, x: float, y: float) -> float:
        """m from (x, y) to path point `index`."""
        return math.hypot(x - self.x[index], y - self.y[index])


class Completion:
    """Route completion in %, of the last path point passed.

    The route is `done` beyond 99 % and within 10 m of its end, and then at 100 %. By rounding, or beside its end, a route may show 100 %
    without being done; the files take it as completed then, whatever ends it.
    """

    window = 2

    def __init__(self, path: Path) -> None:
        self.path, self.index, self.percent, self.done = path, 0, 0.0, False

    def step(self, x: float, y: float) -> float:
        """Completion after a tick at (x, y)."""
        if not self.done:
            self.index = self.path.advance(self.index, self.window, x, y)
            self.percent = round(self.path.s[self.index] / self.path.s[-1] * 100.0, 2)
            self.done = self.percent > DONE and self.path.distance(-1, x, y) < CLOSE
        return 100.0 if self.done else self.percent


class Deviation:
    """Far from the route, or too much of it driven beside it."""

    window = 5

    def __init__(self, path: Path) -> None:
        self.path, self.index, self.beside, self.near = path, 0, 0.0, True

    def step(self, x: float, y: float) -> bool:
        """Whether the route is left at (x, y)."""
        near = range(self.index, min(self.index + self.window + 1, len(self.path)))
        distance, back = min((self.path.distance(i, x, y), -i) for i in near)
        if distance < OFF_ROUTE:
            self.near = distance < NEAR_ROUTE
        if not self.near:
            self.beside += self.path.s[-back] - self.path.s[self.index]
        self.index = -back
        return distance >= OFF_ROUTE or 100.0 * self.beside / self.path.s[-1] > OFF_SHARE


class Blocked:
    """Stood still for longer than a limit."""

    def __init__(self, limit: float) -> None:
        self.limit, self.moved = limit, math.nan  # s; time of the last movement

    def step(self, time: float, speed: float, watched: bool = True) -> bool:
        """Whether the car is blocked at `time` s; while not `watched` (a scenario makes it wait) the clock does not run."""
        if not watched or speed >= STILL or math.isnan(self.moved):
            self.moved = time
        return time - self.moved > self.limit


class RouteTimeout:
    """Slower than 300 s and a tenth of the speed limit all the way."""

    window = 3

    def __init__(self, path: Path) -> None:
        self.path, self.index, self.start, self.allowed = path, 0, math.nan, LEAST_TIMEOUT

    def step(self, time: float, x: float, y: float, speed_limit: float) -> bool:
        """Whether the time is up at `time` s; `speed_limit` in m/s is that of the place. Raises DataError where that is not above 0."""
        if not speed_limit > 0.0:
            raise DataError(f"the speed limit at {time:g} s is {speed_limit} m/s: the route's timeout takes one above 0")
        self.start = time if math.isnan(self.start) else self.start
        at = self.path.advance(self.index, self.window, x, y)
        self.allowed += (self.path.s[at] - self.path.s[self.index]) / (SLOWEST_SHARE * speed_limit)
        self.index = at
        return time - self.start > self.allowed


class Ending(str, Enum):
    """How a route ended."""

    COMPLETED = "completed"
    DEVIATION = Failure.DEVIATION.value
    BLOCKED = Failure.BLOCKED.value
    ROUTE_TIMEOUT = Failure.ROUTE_TIMEOUT.value
    TICKS = Failure.TICKS.value


class EndWatch:
    """All that can end a route, tick by tick. `blocked` is 180 s in leaderboard 2.x, 60 s in Bench2Drive, which also stops at 4000 ticks."""

    def __init__(self, path: Array, rule: Rule) -> None:
        line = Path(path)
        bench2drive = rule is Rule.BENCH2DRIVE
        self.completion, self.deviation, self.timeout = Completion(line), Deviation(line), RouteTimeout(line)
        self.blocked, self.most = Blocked(60.0 if bench2drive else 180.0), 4000 if bench2drive else None
        self.ticks, self.percent = 0, 0.0  # percent: completion after the last tick
        self.events: list[Event] = []
        self.ending: Ending | None = None

    def step(self, time: float, x: float, y: float, speed: float, speed_limit: float, watched: bool = True) -> Ending | None:
        """The ending at this tick, or None; `events` then holds what ended it. SI units; `watched` as in Blocked."""
        found = [
            (Infraction.DEVIATION, Ending.DEVIATION, self.deviation.step(x, y)),
            (Infraction.BLOCKED, Ending.BLOCKED, self.blocked.step(time, speed, watched)),
            (Infraction.ROUTE_TIMEOUT, Ending.ROUTE_TIMEOUT, self.timeout.step(time, x, y, speed_limit)),
        ]
        for kind, ending, hit in found:
            if hit:
                self.events.append(Event(kind, self.ticks, MESSAGES[kind].format(place(x, y))))
                self.ending = ending
        self.percent = self.completion.step(x, y)
        if self.completion.done:
            self.ending = Ending.COMPLETED
        self.ticks += 1
        if self.ending is None and self.ticks == self.most:
            self.ending = Ending.TICKS
        return self.ending


def completion(path: Array, positions: Array) -> Array:
    """(T,) route completion in % at positions (T, 2 or more) along a path (N, 3)."""
    criterion = Completion(Path(path))
    return np.array([criterion.step(x, y) for x, y in np.asarray(positions, float)[:, :2].tolist()])


def way_outside(path: Array, positions: Array, outside: NDArray[np.bool_]) -> Event | None:
    """The event of having driven outside the lanes: share of the way passed so far, its tick the last that added to it; None without.

    positions (T, 2 or more); outside (T,) from `drive.metrics.carla_lanes`. Way is counted by path points as they are passed, three at
    most in a tick; a point passed while outside counts with the way from the point before.
    """
    line, index, wrong, total, tick = Path(path), 0, 0.0, 0.0, -1
    for t, (x, y) in enumerate(np.asarray(positions, float)[:, :2].tolist()):
        for i in range(index + 1, min(index + 4, len(line))):
            if line.passed(i, x, y):
                way = line.distance(i, line.x[index], line.y[index])
                total, index = total + way, i
                if outside[t]:
                    wrong, tick = wrong + way, t
    if not wrong:
        return None
    percent = wrong / total * 100.0
    message = f"Agent went outside its route lanes for about {round(wrong, 3)} meters ({round(percent, 2)}% of the completed route)"
    return Event(Infraction.OUTSIDE_LANES, tick, message, percent)


@dataclass(frozen=True)
class SpeedRule:
    """Checkpoints of equal length, and whether one is an event at 100 % and more too."""

    checkpoints: int
    always: bool


SPEED_RULES = {Rule.LEADERBOARD_2_0: SpeedRule(4, False), Rule.LEADERBOARD_2_1: SpeedRule(4, False), Rule.BENCH2DRIVE: SpeedRule(20, True)}


def slow_checkpoints(path: Array, positions: Array, speeds: Array, traffic: Array, rule: Rule) -> list[Event]:
    """Events of the ego's mean speed between checkpoints, in percent of the traffic's, rounded to 0.01.

    speeds (T,) m/s; traffic (T,) mean speed of all background vehicles, NaN in ticks without any, which are not counted. A stretch without
    traffic, or with traffic at standstill, is 100 %. The last stretch counts beyond 95 % of the route. Empty for leaderboard 1.0.
    """
    if rule not in SPEED_RULES:
        return []
    line, settings, events = Path(path), SPEED_RULES[rule], []
    index, start, own, others, count = 0, 0.0, 0.0, 0.0, 0

    def note(tick: int) -> None:
        value = round(own / others * 100.0, 2) if count and others else 100.0
        if settings.always or value < 100.0:
            events.append(Event(Infraction.MIN_SPEED, tick, f"Average speed is {value}% of the surrounding traffic's one", value))

    for t, (x, y) in enumerate(np.asarray(positions, float)[:, :2].tolist()):
        index = line.advance(index, Completion.window, x, y)
        if line.s[index] - start > line.s[-1] / settings.checkpoints:
            note(t)
            start, own, others, count = line.s[index], 0.0, 0.0, 0
        if math.isfinite(traffic[t]):
            own, others, count = own + float(speeds[t]), others + float(traffic[t]), count + 1
    if line.s[index] / line.s[-1] > LAST_CHECKPOINT:
        note(len(positions) - 1)
    return events
