"""Walkers of a CARLA world: they stroll beside the roads and cross them, by seed, and wait for cars that are near.

The traffic sees each as a box that moves. Steered by WalkerControl, so that a server animates them as it likes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.roadmap import Lane, RoadMap
from drive.simulators.carla_session import Session
from drive.simulators.carla_traffic_actors import Heights, to_carla
from drive.simulators.traffic import Traffic
from drive.simulators.traffic_fleet import Fleet

Array = NDArray[np.float64]
STEP = 1.0  # m between the points of a path
BESIDE = 1.2  # m from the border of the last lane where the map has no sidewalk
MIDDLE = 1.0  # m above the ground of a walker's origin
CARROT = 1.5  # m ahead of a walker at which it aims
STROLL_M = (8.0, 35.0)  # m walked before the next choice
CROSS_CHANCE = 0.5
WIDEST_ROAD, NARROWEST_ROAD, ASKEW = 32.0, 4.0, 2.5  # m across a road, and m along it, to the other side
SPEEDS = (1.0, 1.7)  # m/s
LOOK_S, GAP_S, NEAR_M = 5.0, 2.0, 100.0  # s looked ahead, s left to a car, m within which cars are looked at
BEND_M = 80.0  # m, radius of a bend by which a car that comes may leave its straight line
SIDE, FRONT, TOUCH = 0.6, 1.2, 0.2  # m kept from a car's side and ends; m from its ends at which it is in the way
SIZE = 0.6  # m of a walker's box
SEES_S = 2.0  # s of walking over which the traffic's box reaches
PATIENCE_S = 6.0  # s that a walker waits on its way across
LOST_M = 6.0  # m from its aim at which a walker is lost: knocked over, or stuck


def side_paths(session: Session, road_map: RoadMap) -> list[Array]:
    """(N, 2) paths beside the outermost lanes outside junctions, right-handed: the sidewalk's middle, the shoulder's, or the verge."""
    town = session.world.get_map()
    paths = []
    for lane in road_map.lanes.values():
        if lane.is_connector or lane.right_neighbor or lane.length < 10.0:
            continue
        offset = _side_offset(session, town, lane)
        s = np.arange(2.0, lane.length - 2.0, STEP)
        x, y = (np.interp(s, lane.s, lane.centerline[:, k]) for k in (0, 1))
        heading = np.interp(s, lane.s, np.unwrap(lane.centerline[:, 2]))
        paths.append(np.column_stack([x + offset * np.sin(heading), y - offset * np.cos(heading)]))
    return paths


def _side_offset(session: Session, town: Any, lane: Lane) -> float:
    """m from the middle of a lane to where people walk on its right."""
    kinds = session.carla.LaneType
    i = len(lane.centerline) // 2
    x, y = lane.centerline[i, :2]
    waypoint = town.get_waypoint(session.carla.Location(x, -y, 0.0))
    here = waypoint.transform.location if waypoint else None
    for kind in (kinds.Sidewalk, kinds.Shoulder):
        beside = waypoint
        for _ in range(4):
            beside = beside.get_right_lane() if beside else None
            if beside and here and beside.lane_type == kind:
                return float(math.hypot(beside.transform.location.x - here.x, beside.transform.location.y - here.y))
    return float(np.hypot(*(lane.left[i] - lane.right[i]))) / 2.0 + BESIDE


@dataclass
class Walker:
    """One of them."""

    row: int  # in the traffic
    actor: Any
    speed: float  # m/s
    rng: np.random.Generator
    path: int = 0
    line: Array = field(default_factory=lambda: np.zeros((1, 2)))  # (N, 2) that it walks now, STEP apart
    s: float = 0.0  # m along it
    goal: int = 0  # index of its end on `path`
    crossing: bool = False
    waiting: bool = False
    waited: float = 0.0  # s
    home: tuple[int, int] = (0, 0)  # path and point from which it crosses
    sent: tuple[float, float, float] = (0.0, 0.0, -1.0)


class Walkers:
    """The walkers around the ego."""

    def __init__(self, session: Session, traffic: Traffic, heights: Heights, rows: list[int], seed: np.random.Generator) -> None:
        self.session, self.traffic, self._heights, self._rng = session, traffic, heights, seed
        self.paths = side_paths(session, traffic.road_map)
        starts = np.concatenate([[0], np.cumsum([len(p) for p in self.paths])]).astype(np.int64)
        self._points = np.concatenate([np.zeros((0, 2)), *self.paths])
        self._first = starts
        self._tree = KDTree(self._points) if len(self._points) else None
        self.walkers: list[Walker] = []
        self._rows = rows
        self._blueprints = sorted(session.world.get_blueprint_library().filter("walker.pedestrian.*"), key=lambda b: b.id)

    def start(self, centre: Array, radius: float) -> None:
        """Spawn one walker for each row within `radius` m of `centre` (2,), as far as there is room."""
        carla, commands, wanted = self.session.carla, [], []
        for row in self._rows:
            spot = self._spot(centre, 5.0, radius)
            if spot is None or not self._blueprints:
                break
            blueprint = self._blueprints[int(self._rng.integers(len(self._blueprints)))]
            if blueprint.has_attribute("is_invincible"):
                blueprint.set_attribute("is_invincible", "true")  # one that lies on the road would hold up everybody for the rest of the route
            x, y = self._points[spot]
            commands.append(carla.command.SpawnActor(blueprint, to_carla(self.session, x, y, self._heights.near(x, y) + MIDDLE, 0.0)))
            wanted.append((row, spot))
        answers = self.session.client.apply_batch_sync(commands, False)
        made = [(row, spot, r.actor_id) for (row, spot), r in zip(wanted, answers) if not r.has_error()]
        actors = {a.id: a for a in self.session.world.get_actors([number for _, _, number in made])}
        for row, spot, number in made:
            rng = np.random.default_rng(int(self._rng.integers(2**62)))
            walker = Walker(row, actors[number], rng.uniform(*SPEEDS), rng)
            self.walkers.append(walker)
            self._place(walker, spot)

    def _spot(self, centre: Array, low: float, high: float) -> int | None:
        """A random point of the paths between `low` and `high` m from `centre`, away from everybody."""
        if self._tree is None:
            return None
        gap = np.hypot(*(self._points - centre).T)
        spots = np.flatnonzero((gap > low) & (gap < high))
        for spot in self._rng.permutation(spots)[:20]:
            near = np.hypot(self.traffic.fleet.x - self._points[spot, 0], self.traffic.fleet.y - self._points[spot, 1])
            if (near[self.traffic.fleet.active] > 4.0).all():
                return int(spot)
        return None

    def _place(self, walker: Walker, spot: int) -> None:
        walker.path = int(np.searchsorted(self._first, spot, side="right")) - 1
        walker.goal = spot - int(self._first[walker.path])
        fleet, i = self.traffic.fleet, walker.row
        fleet.active[i], fleet.length[i], fleet.width[i] = True, SIZE, SIZE
        fleet.x[i], fleet.y[i], fleet.speed[i] = *self._points[spot], 0.0
        self._choose(walker)

    def _choose(self, walker: Walker) -> None:
        """Cross the road, or stroll on beside it."""
        path, at = self.paths[walker.path], walker.goal
        other = self._other_side(walker.path, at) if not walker.crossing and walker.rng.random() < CROSS_CHANCE else None
        walker.s, walker.waiting = 0.0, False
        if other is not None:
            walker.home = walker.path, at
            walker.line, walker.crossing = _line(path[at], self._points[other]), True
            walker.path = int(np.searchsorted(self._first, other, side="right")) - 1
            walker.goal = other - int(self._first[walker.path])
            return
        walker.crossing = False
        count = int(walker.rng.uniform(*STROLL_M) / STEP) * (1 if walker.rng.random() < 0.5 else -1)
        goal = int(np.clip(at + count, 0, len(path) - 1))
        if abs(goal - at) < 3:  # the path ends here
            goal = int(np.clip(at - count, 0, len(path) - 1))
        walker.line = path[at : goal + 1] if goal >= at else path[goal : at + 1][::-1]
        walker.goal = goal

    def _other_side(self, path: int, at: int) -> int | None:
        """The point of another path straight across the road; None where there is none."""
        points = self.paths[path]
        a, b = points[max(at - 2, 0)], points[min(at + 2, len(points) - 1)]
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
        gap = self._points - points[at]
        left = gap @ np.array([-along[1], along[0]])
        fits = (left > NARROWEST_ROAD) & (left < WIDEST_ROAD) & (np.abs(gap @ along) < ASKEW)
        fits[self._first[path] : self._first[path + 1]] = False
        found = np.flatnonzero(fits)
        return int(found[np.argmin(left[found])]) if len(found) else None

    def sense(self) -> None:
        """Show the walkers to the traffic, where the last snapshot has them."""
        fleet = self.traffic.fleet
        for walker in self.walkers:
            show_walker(fleet, walker.row, walker.actor, walker.crossing)

    def step(self, dt: float, vehicles: NDArray[np.int64]) -> list[Any]:
        """The commands of this tick; `vehicles` (K,) rows that are cars."""
        fleet, commands = self.traffic.fleet, []
        cars = near_cars(fleet, vehicles)
        for walker in self.walkers:
            here = np.array(walker_place(walker.actor))
            aim = min(int((walker.s + CARROT) / STEP), len(walker.line) - 1)
            rest = walker.line[aim] - here
            gap = float(np.hypot(*rest))
            if aim == len(walker.line) - 1 and gap < 0.4:
                self._choose(walker)
                continue
            walker.waiting = walker.crossing and must_wait(here, walker.line[aim:], walker.speed, cars)
            walker.waited = walker.waited + dt if walker.waiting else 0.0
            if walker.waited > PATIENCE_S:  # a car that stands in its way may wait for it in turn: it goes back
                walker.path, walker.goal = walker.home
                walker.line, walker.s, walker.waited = _line(here, self.paths[walker.path][walker.goal]), 0.0, 0.0
                continue
            speed = 0.0 if walker.waiting else walker.speed
            if gap < 2.0 * CARROT:
                walker.s += speed * dt
            control = (rest[0] / max(gap, 1e-6), -rest[1] / max(gap, 1e-6), speed)
            found = walk(self.session, walker.actor, control, walker.sent)
            walker.sent = control if found else walker.sent
            commands += found
        return commands

    def renew(self, centre: Array, radius: float, hidden: float) -> list[Any]:
        """Bring walkers further than `radius` m from `centre` (2,), or lost, back in where they are further than `hidden` m."""
        fleet, commands = self.traffic.fleet, []
        for walker in self.walkers:
            here = np.array([fleet.x[walker.row], fleet.y[walker.row]])
            aim = walker.line[min(int(walker.s / STEP), len(walker.line) - 1)]
            away = float(np.hypot(*(here - centre)))
            if away < radius and (away < hidden or float(np.hypot(*(here - aim))) < LOST_M):
                continue
            spot = self._spot(centre, hidden, radius)
            if spot is None:
                continue
            self._place(walker, spot)
            x, y = self._points[spot]
            place = to_carla(self.session, x, y, self._heights.near(x, y) + MIDDLE, 0.0)
            commands.append(self.session.carla.command.ApplyTransform(walker.actor.id, place))
        return commands

    def close(self) -> list[Any]:
        """The commands that take them away."""
        gone, self.walkers = self.walkers, []
        return [self.session.carla.command.DestroyActor(w.actor.id) for w in gone]


def walk(session: Session, actor: Any, control: tuple[float, float, float], sent: tuple[float, float, float]) -> list[Any]:
    """The command for direction x, y (CARLA's frame) and speed m/s; none where the last one still does."""
    if control[2] == sent[2] and (control[2] == 0.0 or abs(control[0] - sent[0]) + abs(control[1] - sent[1]) < 0.02):
        return []
    carla = session.carla
    return [carla.command.ApplyWalkerControl(actor.id, carla.WalkerControl(carla.Vector3D(control[0], control[1], 0.0), control[2], False))]


def walker_place(actor: Any) -> tuple[float, float]:
    """x, y, right-handed, of the last snapshot."""
    place = actor.get_location()
    return place.x, -place.y


def show_walker(fleet: Fleet, row: int, actor: Any, crossing: bool) -> None:
    """Write a walker to its row: on the road its box reaches as far as it will have walked SEES_S from now."""
    velocity = actor.get_velocity()
    x, y = walker_place(actor)
    if x == 0.0 and y == 0.0:
        return  # spawned since the last snapshot
    speed = math.hypot(velocity.x, velocity.y)
    heading = math.atan2(-velocity.y, velocity.x) if speed > 0.05 else float(fleet.heading[row])
    reach = speed * SEES_S if crossing else 0.0
    fleet.x[row], fleet.y[row] = x + reach / 2.0 * math.cos(heading), y + reach / 2.0 * math.sin(heading)
    fleet.heading[row] = fleet.course[row] = heading
    fleet.speed[row], fleet.length[row], fleet.width[row] = speed, SIZE + reach, SIZE


def near_cars(fleet: Fleet, rows: NDArray[np.int64]) -> Array:
    """(K, 6) x, y, course, speed, half length, half width of the active ones among `rows`."""
    rows = rows[fleet.active[rows]]
    return np.column_stack([fleet.x[rows], fleet.y[rows], fleet.course[rows], fleet.speed[rows], fleet.length[rows] / 2, fleet.width[rows] / 2])


def must_wait(here: Array, ahead: Array, speed: float, cars: Array) -> bool:
    """Whether a walker at `here` (2,) lets a car of `cars` (K, 6) pass before it walks along `ahead` (N, 2).

    It waits where it and a car that keeps its speed would be within GAP_S of each other, or where a car stands in its way; one that
    is already in front of a car walks on.
    """
    cars = cars[np.hypot(cars[:, 0] - here[0], cars[:, 1] - here[1]) < NEAR_M]
    if not len(cars):
        return False
    points = np.concatenate([here[None], ahead])
    walked = np.hypot(*(points - here).T) / speed
    points, walked = points[walked < LOOK_S], walked[walked < LOOK_S]
    dx, dy = points[:, :1] - cars[:, 0], points[:, 1:] - cars[:, 1]  # (points, cars)
    c, s = np.cos(cars[:, 2]), np.sin(cars[:, 2])
    along, across = c * dx + s * dy, np.abs(-s * dx + c * dy)
    in_way = across < cars[:, 5] + SIDE
    v = np.maximum(cars[:, 3], 0.1)
    first, last = (along - cars[:, 4]) / v, (along + cars[:, 4]) / v
    moving = cars[:, 3] > 0.5
    may_come = across < cars[:, 5] + SIDE + np.maximum(along, 0.0) ** 2 / (2.0 * BEND_M)
    meets = may_come & moving & (first < walked[:, None] + GAP_S) & (last > walked[:, None] - 0.5) & (along > -cars[:, 4])
    stands = in_way & ~moving & (np.abs(along) < cars[:, 4] + FRONT)
    if (in_way[0] & (along[0] > 0.0)).any():  # in front of a car, which waits for it if it stands: both would wait for ever
        blocked = in_way & ~moving & (np.abs(along) < cars[:, 4] + TOUCH)
        return bool(blocked[1:3].any())
    return bool(meets.any() or stands[: 1 + int(2.0 / STEP)].any())


def _line(a: Array, b: Array) -> Array:
    """(N, 2) points STEP apart from a to b."""
    count = max(round(float(np.hypot(*(b - a))) / STEP), 1) + 1
    return a + np.linspace(0.0, 1.0, count)[:, None] * (b - a)
