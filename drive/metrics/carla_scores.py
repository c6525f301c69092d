"""Driving scores of CARLA's leaderboard 1.0, 2.0, 2.1 and of Bench2Drive, from events of a route and from records of many.

Source: carla-simulator/leaderboard statistics_manager.py (branches 1.0, 2.0 and 2.1) and Bench2Drive's copy of 2.0. The driving score is the
mean over all scheduled routes of completion times penalty; a route without a record counts 0. It is not mean completion times mean
penalty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from drive.core.errors import DataError
from drive.metrics.carla_records import Event, Failure, Infraction, RouteRecord

DIGITS, SCORE_DIGITS = 3, 6  # to which the files are rounded
SHORTEST = 0.001  # km, floor of the way driven


class Rule(str, Enum):
    """Whose penalties."""

    LEADERBOARD_1_0 = "carla_lb1"
    LEADERBOARD_2_0 = "carla_lb2_0"
    LEADERBOARD_2_1 = "carla_lb2_1"
    BENCH2DRIVE = "bench2drive"  # leaderboard 2.0 without the penalty on low speed


SCORE_NAMES: tuple[str, ...] = ("score_composed", "score_route", "score_penalty")
NOT_IN_1_0 = frozenset({Infraction.MIN_SPEED, Infraction.YIELD, Infraction.SCENARIO_TIMEOUT})
FACTORS_1_0: Mapping[Infraction, float] = {
    Infraction.PEDESTRIAN: 0.5,
    Infraction.VEHICLE: 0.6,
    Infraction.STATIC: 0.65,
    Infraction.RED_LIGHT: 0.7,
    Infraction.STOP_SIGN: 0.8,
}
FACTORS_2_0: Mapping[Infraction, float] = {**FACTORS_1_0, Infraction.SCENARIO_TIMEOUT: 0.7, Infraction.YIELD: 0.7}
FACTORS: Mapping[Rule, Mapping[Infraction, float]] = {
    Rule.LEADERBOARD_1_0: FACTORS_1_0,
    Rule.LEADERBOARD_2_0: FACTORS_2_0,
    Rule.BENCH2DRIVE: FACTORS_2_0,
}
COEFFICIENTS_2_1: Mapping[Infraction, float] = {
    Infraction.PEDESTRIAN: 1.0,
    Infraction.VEHICLE: 0.7,
    Infraction.STATIC: 0.6,
    Infraction.RED_LIGHT: 0.4,
    Infraction.STOP_SIGN: 0.25,
    Infraction.SCENARIO_TIMEOUT: 0.4,
    Infraction.YIELD: 0.4,
}
SLOW_2_0, SLOW_2_1 = 0.3, 0.4  # at standstill among moving traffic
FAILURES = {
    Infraction.DEVIATION: Failure.DEVIATION,
    Infraction.BLOCKED: Failure.BLOCKED,
    Infraction.ROUTE_TIMEOUT: Failure.ROUTE_TIMEOUT,
}


def infraction_penalty(events: Sequence[Event], rule: Rule) -> float:
    """The factor 0..1 on the route completion.

    1.0, 2.0 and Bench2Drive multiply a factor per event; 2.1 takes 1 / (1 + sum of coefficients). The share of the way outside the lanes
    multiplies in all of them. Raises DataError on an event of share whose percentage is not known.
    """
    product, total = 1.0, 0.0
    for event in events:
        short = 1.0 - event.percentage / 100.0
        if event.kind in (Infraction.OUTSIDE_LANES, Infraction.MIN_SPEED) and not math.isfinite(event.percentage):
            raise DataError(f"the {event.kind.value} event at tick {event.tick} has no percentage")
        if event.kind is Infraction.OUTSIDE_LANES:
            product *= short
        elif event.kind is Infraction.MIN_SPEED:
            product *= 1.0 - SLOW_2_0 * short if rule is Rule.LEADERBOARD_2_0 else 1.0
            total += SLOW_2_1 * short
        elif rule is Rule.LEADERBOARD_2_1:
            total += COEFFICIENTS_2_1.get(event.kind, 0.0)
        else:
            product *= FACTORS[rule].get(event.kind, 1.0)
    return product / (1.0 + total) if rule is Rule.LEADERBOARD_2_1 else product


def record_of(
    route_id: str,
    events: Sequence[Event],
    completion: float,
    rule: Rule,
    *,
    failure: Failure | None = None,
    route_length: float = 0.0,
    duration_game: float = 0.0,
    duration_system: float = 0.0,
    index: int | None = None,
    texts: Mapping[str, str] | None = None,
) -> RouteRecord:
    """The record of a route that has ended: `completion` 0..100 %, lengths in m and s, rounded as the files are.

    `failure` says what stopped it from outside (a crash, the limit of ticks); deviation, blocked and timeout follow from their events. A
    route at 100 % is Perfect without any entry, else Completed.
    """
    if not 0.0 <= completion <= 100.0:
        raise DataError(f"route {route_id}: completion {completion} is not between 0 and 100 %")
    kinds = [kind for kind in Infraction if not (rule is Rule.LEADERBOARD_1_0 and kind in NOT_IN_1_0)]
    lists = {kind.value: tuple(event.message for event in events if event.kind is kind) for kind in kinds}
    for event in events:
        if event.kind.value not in lists:
            raise DataError(f"route {route_id}: {rule.value} knows no {event.kind.value}")
        failure = FAILURES.get(event.kind, failure)
    penalty = infraction_penalty(events, rule)
    if completion >= 100.0:
        status = "Completed" if any(lists.values()) else "Perfect"
    else:
        status = f"Failed - {failure.value}" if failure else "Failed"
    return RouteRecord(
        route_id, status, round(completion, SCORE_DIGITS), round(penalty, SCORE_DIGITS),
        round(max(completion * penalty, 0.0), SCORE_DIGITS), lists, round(route_length, DIGITS), round(duration_game, DIGITS),
        round(duration_system, DIGITS), index, dict(texts or {}),
    )  # fmt: skip


@dataclass(frozen=True)
class LeaderboardScore:
    """Aggregate of leaderboard 2.x over the scheduled routes."""

    routes: int  # scheduled
    records: int
    driving_score: float  # 0..100
    route_completion: float  # 0..100
    infraction_penalty: float  # 0..1
    deviations: Mapping[str, float]  # standard deviations of the three, by score_composed, score_route, score_penalty
    per_km: Mapping[str, float]  # events per km driven, by key; outside_route_lanes in km in all
    km: float

    @property
    def coverage(self) -> float:
        """Share of the scheduled routes that have a record."""
        return self.records / self.routes if self.routes else 0.0


def leaderboard_score(records: Sequence[RouteRecord], routes: int) -> LeaderboardScore:
    """Aggregate of records over `routes` scheduled ones; missing ones count 0. Raises DataError on more records than routes, or twins.

    Infractions per km are totals over total way (length times completion), 0.001 km at least; the km outside lanes are not divided, as
    upstream. Standard deviations leave the missing routes' own terms out, as upstream.
    """
    check_records(records, routes)
    means = {name: round(sum(getattr(r, name) for r in records) / routes, SCORE_DIGITS) for name in SCORE_NAMES}
    squares = {name: sum((getattr(r, name) - mean) ** 2 for r in records) for name, mean in means.items()}
    spread = {name: round(math.sqrt(square / (routes - 1)), DIGITS) if routes > 1 else 0.0 for name, square in squares.items()}
    km = max(sum(r.route_length / 1000.0 * r.score_route / 100.0 for r in records), SHORTEST)
    per_km = {
        kind.value: round(
            sum(r.outside[0] for r in records) / 1000.0
            if kind is Infraction.OUTSIDE_LANES
            else sum(len(r.events(kind)) for r in records) / km,
            DIGITS,
        )
        for kind in Infraction
    }
    return LeaderboardScore(
        routes, len(records), means["score_composed"], means["score_route"], means["score_penalty"], spread, per_km, km
    )


def check_records(records: Sequence[RouteRecord], routes: int) -> None:
    """Raise DataError where a route has two records (a best of several runs would be printed as one) or there are too many."""
    seen: set[str] = set()
    for record in records:
        if record.route_id in seen:
            raise DataError(f"route {record.route_id} has two records: results of several runs must not be mixed")
        seen.add(record.route_id)
    if routes < 1 or len(records) > routes:
        raise DataError(f"{len(records)} records of {routes} scheduled routes: give the number of the benchmark's routes")
