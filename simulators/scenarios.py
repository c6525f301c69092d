"""Situations placed by seed: where the ego starts, its route, who stands or drives around it, and what they will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.simulators.routes import Route, route_along, sample_route
from drive.simulators.traffic_fleet import DRIVEN, PARKED
from drive.simulators.traffic_graph import LATERAL_ACCELERATION

Array = NDArray[np.float64]
KINDS = (
    "free",
    "follow",
    "stopped_car",
    "cut_in",
    "hard_brake",
    "junction_left",
    "junction_right",
    "junction_straight",
    "merge",
)
ROUTE_M = 700.0  # m of route after its first lanes, enough for 13 s of motorway and the view ahead
BRAKE = 1.5  # m/s^2 with which the ego could still slow for what the route asks at its start
SETTLE_BRAKE = 2.5  # m/s^2 with which two that merge could stop before they meet
TRIES = 30  # spots looked at before a kind is given up


@dataclass(frozen=True)
class Script:
    """What an actor does: brake at `value` m/s^2 for `duration` s, or change lanes to side `value` (1 left, -1 right)."""

    action: str  # "brake" or "change"
    time: float  # s from the start of the world
    value: float
    duration: float = 0.0


@dataclass(frozen=True)
class Actor:
    """A vehicle that makes the situation; its centre stands `s` metres along a lane."""

    lane: str
    s: float
    speed: float  # m/s
    mode: int = DRIVEN
    offset: float = 0.0  # m to the left of the lane's centre, of a parked one
    eager: float = 1.0  # speed wished / speed allowed
    lanes: tuple[str, ...] = ()  # its way, if not at random
    script: Script | None = None


@dataclass(frozen=True)
class Placement:
    """A situation: the ego's start and route, its actors, and how much traffic there is around."""

    kind: str
    route: Route
    start: float  # m along the route of the ego's rear axle
    speed: float  # m/s of the ego
    actors: tuple[Actor, ...]
    traffic: int  # vehicles besides the actors
    radius: float  # m around the ego in which they start


def possible_kinds(road_map: RoadMap) -> tuple[str, ...]:
    """The kinds for which `road_map` has a place."""
    return tuple(kind for kind in KINDS if _spots(road_map, kind))


def place_scenario(road_map: RoadMap, kind: str, rng: np.random.Generator) -> Placement:
    """A situation of `kind` somewhere on `road_map`. Raises DataError on an unknown kind, or one that this map cannot give."""
    if kind not in KINDS:
        raise DataError(f"no scenario kind {kind!r}: choose one of {', '.join(KINDS)}")
    spots = _spots(road_map, kind)
    if not spots:
        possible = ", ".join(possible_kinds(road_map))
        raise DataError(f"map {road_map.name} has no place for a {kind} scenario: choose one of {possible}")
    for _ in range(TRIES):
        found = _BUILDERS[kind](road_map, spots[int(rng.integers(len(spots)))], rng)
        if found is not None:
            return found
    raise DataError(f"map {road_map.name}: {TRIES} places for a {kind} scenario did not do: take another seed or kind")


def cruise_speed(route: Route, at: float) -> float:
    """m/s at which the route may be driven `at` metres along it, with what lies ahead in mind."""
    turn = np.abs(wrap_angle(np.diff(route.path[:, 2], append=route.path[-1:, 2])))
    curvature = np.convolve(turn, np.ones(5) / 5.0, mode="same")  # SPACING is 1 m
    allowed = np.minimum(route.speed_limit, np.sqrt(LATERAL_ACCELERATION / np.maximum(curvature, 1e-4)))
    ahead = route.s - at
    near = (ahead > -1.0) & (ahead < 120.0)
    return float(np.sqrt(allowed[near] ** 2 + 2.0 * BRAKE * np.maximum(ahead[near], 0.0)).min())


@lru_cache(maxsize=64)
def _spots(road_map: RoadMap, kind: str) -> list[str]:
    """Ids of the lanes (connectors for the junction kinds) on which a situation of `kind` can be built."""
    lanes = [lane for lane in road_map.lanes.values() if _goes_on(road_map, lane)]
    roads = [lane for lane in lanes if not lane.is_connector]
    if kind.startswith("junction_"):
        turn = kind.removeprefix("junction_")
        return [
            k.id for k in lanes if k.is_connector and k.turn == turn and _entry(road_map, k, 15.0) and _is_crossed(road_map, k)
        ]
    if kind == "cut_in":
        return [k.id for k in roads if k.length >= 60.0 and (k.left_neighbor or k.right_neighbor)]
    if kind == "merge":
        drops = [k.id for k in roads if not k.successors and (k.left_neighbor or k.right_neighbor) and k.length >= 40.0]
        return drops + [k.id for k in lanes if _rival(road_map, k) is not None]
    return [k.id for k in roads if k.length >= {"free": 15.0, "stopped_car": 50.0}.get(kind, 35.0)]


def _goes_on(road_map: RoadMap, lane: Lane) -> bool:
    try:
        sample_route(road_map, np.random.default_rng(0), lane.length + 50.0, lane.id)
    except DataError:
        return False
    return True


def _entry(road_map: RoadMap, connector: Lane, length: float) -> Lane | None:
    """A lane of at least `length` metres that leads into `connector`."""
    return next(
        (road_map.lanes[k] for k in connector.predecessors if k in road_map.lanes and road_map.lanes[k].length >= length), None
    )


def _is_crossed(road_map: RoadMap, connector: Lane) -> bool:
    """Whether roads meet in its junction: a bend, a fork or a slip road is no junction to a driver."""
    others = [k for k in road_map.lanes.values() if k.junction == connector.junction and k.is_connector]
    return any(abs(wrap_angle(k.centerline[0, 2] - connector.centerline[0, 2])) > 0.9 for k in others)


def _rival(road_map: RoadMap, lane: Lane) -> Lane | None:
    """A lane that joins `lane` at its end from a similar direction, as on a slip road."""
    if not _entry(road_map, lane, 40.0):
        return None
    for follower in lane.successors:
        for other_id in road_map.lanes[follower].predecessors:
            other = road_map.lanes[other_id]
            turned = abs(wrap_angle(other.centerline[0, 2] - lane.centerline[0, 2]))
            if (
                other_id != lane.id
                and not set(other.predecessors) & set(lane.predecessors)
                and turned < 1.0
                and _entry(road_map, other, 40.0)
            ):
                return other
    return None


def _route_from(road_map: RoadMap, first: tuple[str, ...], rng: np.random.Generator) -> Route:
    """A random route that starts with the lanes `first`."""
    length = sum(road_map.lanes[k].length for k in first) + ROUTE_M
    onward = sample_route(road_map, rng, length, first[-1]).lane_ids
    return route_along(road_map, first[:-1] + onward)


def _route_through(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Route:
    """A random route that keeps to the lane `spot` until its end, where it can."""
    onward = [k for k in road_map.lanes[spot].successors if k in road_map.lanes and _goes_on(road_map, road_map.lanes[k])]
    return _route_from(road_map, (spot, onward[int(rng.integers(len(onward)))]) if onward else (spot,), rng)


def _at(route: Route, lane: str, s: float) -> float:
    """Metres along the route of the place `s` metres along its lane `lane`."""
    first = route.lane_ids.index(lane)
    return float(route.s[np.flatnonzero(route.lane_index == first)[0]]) + s


def _free(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement:
    route = _route_from(road_map, (spot,), rng)
    start = rng.uniform(2.0, max(road_map.lanes[spot].length - 10.0, 3.0))
    speed = cruise_speed(route, start) * rng.uniform(0.5, 1.0)
    return Placement("free", route, start, speed, (), int(rng.integers(0, 6)), 140.0)


def _lead(road_map: RoadMap, route: Route, place: float) -> tuple[str, float, tuple[str, ...]] | None:
    """(lane, s, lanes from there on) of the place so far along the route; None in a junction or beyond the end."""
    if place >= route.length:
        return None
    point = int(np.searchsorted(route.s, place))
    lane = route.lane_id(point)
    s = place - float(route.s[np.flatnonzero(route.lane_index == route.lane_index[point])[0]])
    if route.is_connector[point] or s > road_map.lanes[lane].length - 3.0:
        return None
    return lane, s, route.lane_ids[int(route.lane_index[point]) :]


def _plain_way(road_map: RoadMap, lanes: tuple[str, ...]) -> tuple[str, ...]:
    """The lanes up to the first lane change."""
    way = [lanes[0]]
    for lane in lanes[1:]:
        if lane not in road_map.lanes[way[-1]].successors:
            break
        way.append(lane)
    return tuple(way)


def _follow(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    route = _route_from(road_map, (spot,), rng)
    start = rng.uniform(2.0, max(road_map.lanes[spot].length - 30.0, 3.0))
    speed = cruise_speed(route, start) * rng.uniform(0.6, 0.95)
    found = _lead(road_map, route, start + speed * rng.uniform(1.3, 2.5) + 10.0)
    if found is None:
        return None
    lane, s, way = found
    lead = Actor(lane, s, speed * rng.uniform(0.7, 1.0), eager=rng.uniform(0.4, 0.8), lanes=_plain_way(road_map, way))
    return Placement("follow", route, start, speed, (lead,), int(rng.integers(3, 10)), 130.0)


def _hard_brake(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    route = _route_from(road_map, (spot,), rng)
    start = rng.uniform(2.0, max(road_map.lanes[spot].length - 30.0, 3.0))
    speed = cruise_speed(route, start) * rng.uniform(0.7, 1.0)
    found = _lead(road_map, route, start + speed * rng.uniform(1.2, 1.9) + 9.0)
    if found is None:
        return None
    lane, s, way = found
    script = Script("brake", rng.uniform(2.0, 6.0), -rng.uniform(4.0, 6.5), rng.uniform(2.0, 5.0))
    lead = Actor(lane, s, speed, lanes=_plain_way(road_map, way), script=script)
    return Placement("hard_brake", route, start, speed, (lead,), int(rng.integers(2, 8)), 130.0)


def _stopped_car(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    lane = road_map.lanes[spot]
    route = _route_through(road_map, spot, rng)
    start = rng.uniform(2.0, max(lane.length - 45.0, 3.0))
    speed = cruise_speed(route, start) * rng.uniform(0.5, 0.9)
    room = speed**2 / (2.0 * 2.5) + 12.0
    place = start + rng.uniform(room, room + 35.0)
    if place > lane.length - 4.0:
        return None
    # either in the way, or half on the verge so that a shift within the road may do
    offset = rng.uniform(-0.3, 0.3) if rng.random() < 0.5 else -rng.uniform(1.0, 1.7)
    car = Actor(spot, place, 0.0, mode=PARKED, offset=offset)
    return Placement("stopped_car", route, start, speed, (car,), int(rng.integers(0, 7)), 130.0)


def _cut_in(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    lane = road_map.lanes[spot]
    sides = [(k, side) for k, side in ((lane.left_neighbor, -1.0), (lane.right_neighbor, 1.0)) if k in road_map.lanes]
    if not sides:
        return None
    beside, side = sides[int(rng.integers(len(sides)))]
    route = _route_through(road_map, spot, rng)
    speed = cruise_speed(route, 2.0) * rng.uniform(0.6, 0.95)
    ahead = rng.uniform(10.0, 16.0) + 0.3 * speed
    room = lane.length - ahead - 4.0 * speed - 15.0  # the lane change must end before the lane does
    if room < 2.0:
        return None
    start = rng.uniform(2.0, room)
    speed, place = min(speed, cruise_speed(route, start)), start + ahead
    s = place * road_map.lanes[beside].length / lane.length
    car = Actor(
        beside,
        s,
        speed * rng.uniform(0.9, 1.05),
        eager=rng.uniform(0.6, 0.95),
        script=Script("change", rng.uniform(0.2, 2.0), side),
    )
    return Placement("cut_in", route, start, speed, (car,), int(rng.integers(2, 9)), 130.0)


def _junction(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    connector = road_map.lanes[spot]
    entry = _entry(road_map, connector, 15.0)
    if entry is None:
        return None
    route = _route_from(road_map, (entry.id, spot), rng)
    start = max(entry.length - rng.uniform(15.0, 60.0), 2.0)
    speed = cruise_speed(route, start) * rng.uniform(0.6, 1.0)
    return Placement(f"junction_{connector.turn}", route, start, speed, (), int(rng.integers(8, 17)), 90.0)


def _merge(road_map: RoadMap, spot: str, rng: np.random.Generator) -> Placement | None:
    lane = road_map.lanes[spot]
    rival, entry = _rival(road_map, lane), _entry(road_map, lane, 40.0)
    if rival is None or entry is None:  # the lane ends: it must be left sideways
        route = _route_from(road_map, (spot,), rng)
        start = max(lane.length - rng.uniform(60.0, 120.0), 2.0)
        speed = cruise_speed(route, start) * rng.uniform(0.6, 1.0)
        return Placement("merge", route, start, speed, (), int(rng.integers(6, 14)), 130.0)
    route = _route_from(road_map, (entry.id, spot), rng)
    pace = min(entry.speed_limit, lane.speed_limit) * rng.uniform(0.6, 0.95)
    # both are far enough away to settle who goes first
    start = max(entry.length - pace**2 / (2.0 * SETTLE_BRAKE) - rng.uniform(10.0, 40.0), 2.0)
    speed = min(pace, cruise_speed(route, start))
    other = _entry(road_map, rival, 40.0)
    if other is None:
        return None
    ahead = (_at(route, spot, lane.length) - start) / max(speed, 3.0)  # s to the end of the merge
    pace = min(other.speed_limit, rival.speed_limit) * rng.uniform(0.7, 0.95)
    s = other.length + rival.length - pace * ahead + rng.uniform(-10.0, 10.0)
    if not 3.0 <= s <= other.length - pace**2 / (2.0 * SETTLE_BRAKE) - 8.0:
        return None
    car = Actor(other.id, s, pace, lanes=(other.id, rival.id))
    return Placement("merge", route, start, speed, (car,), int(rng.integers(4, 12)), 130.0)


_BUILDERS: dict[str, Callable[[RoadMap, str, np.random.Generator], Placement | None]] = {
    "free": _free,
    "follow": _follow,
    "hard_brake": _hard_brake,
    "stopped_car": _stopped_car,
    "cut_in": _cut_in,
    "junction_left": _junction,
    "junction_right": _junction,
    "junction_straight": _junction,
    "merge": _merge,
}
