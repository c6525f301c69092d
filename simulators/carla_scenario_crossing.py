"""Somebody crosses the road before the ego: from the kerb, from behind a parked car, before a junction or behind it; on foot or on a bicycle.

How fast, and how long before the ego would be there, are the figures of scenario_runner's object_crash_vehicle.py,
object_crash_intersection.py and pedestrian_crossing.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_ways import Ways, lane_half
from drive.simulators.carla_traffic import EgoView
from drive.simulators.carla_walkers import walk, walker_place
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import PARKED

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Manner:
    """How one type is played."""

    reaction: float  # s to the ego's arrival at which it starts
    least: float  # m of the ego's middle to the crossing from which it starts anyway
    speed: tuple[float, float]  # m/s
    people: int = 1
    behind: float | None = None  # m behind the next junction; None: elsewhere
    before: float | None = None  # m before the next junction


MANNERS: Mapping[str, Manner] = {
    "DynamicObjectCrossing": Manner(2.1, 6.0, (2.0, 2.0)),
    "ParkingCrossingPedestrian": Manner(2.15, 6.0, (2.0, 2.0)),
    "PedestrianCrossing": Manner(3.5, 12.0, (1.3, 2.0), people=3, before=1.0),
    "VehicleTurningRoutePedestrian": Manner(2.2, 6.0, (1.8, 1.8), behind=0.5),
    "VehicleTurningRoute": Manner(1.8, 6.0, (1.8, 1.8), behind=11.0),
}
DISTANCE, TRIES_M = 30.0, (0.0, 6.0, 12.0, -6.0, 20.0, 30.0)  # m from the trigger to the crossing, and what may be added
JUNCTION_M = 6.0  # m that a crossing behind a junction keeps from it at least, where the road's border is known
KERB, BEYOND = 1.0, 6.0  # m from the border of the road; m that it goes beyond the middle of the ego's lane
IDLE_S, SPREAD_M = 1.5, (0.6, 0.8)  # s of a group's waiting at most; m along the road and from it between them
BLOCKER_M, VERGE = 5.0, 0.9  # m before the walker, and beside the lane, of the car that hides it
LONGEST_S, AFTER_S = 40.0, 3.0


@dataclass
class _Crosser:
    row: int
    actor: Any  # None of a bicycle
    speed: float
    idle: float  # s that it waits when the others start
    start: Array  # (2,)
    goal: Array
    sent: tuple[float, float, float] = (0.0, 0.0, -1.0)
    gone: float = 0.0  # m


class Crossing(Part):
    """See above. It starts so that it meets an ego that does not slow down, and heeds no car."""

    going_s: float | None = None  # s since the start
    arrived_s = math.inf

    @classmethod
    def manner(cls, spec: ScenarioSpec) -> Manner:
        """Of its type; a kind's own name stands for the plainest."""
        return MANNERS.get(spec.type, MANNERS["DynamicObjectCrossing"])

    @classmethod
    def where(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> float | None:
        """m along the route of the crossing."""
        manner = cls.manner(spec)
        if manner.behind is not None:
            left = ways.behind_junction(route, spec.trigger_s)
            at = None if left is None else left + max(manner.behind, JUNCTION_M)
            return at if at is not None and at < route.length - 5.0 else None
        if manner.before is not None:
            ahead = np.flatnonzero(route.is_connector & (route.s > spec.trigger_s + 15.0) & (route.s < spec.trigger_s + 120.0))
            if len(ahead):
                return float(route.s[ahead[0]]) - manner.before
        return ways.plain(route, spec.trigger_s + spec.number("distance", DISTANCE), 0.0, TRIES_M)

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        return "the route has no stretch of road behind the trigger on which to cross" if cls.where(spec, route, ways) is None else None

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        at = self.where(self.spec, ego.route, self.stage.ways)
        found = None if at is None else self.stage.lane_at(ego, at)
        if at is None or found is None:
            return self.fits(self.spec, ego.route, self.stage.ways)
        manner, rng = self.manner(self.spec), self.stage.rng
        self.place_s, self.side = at, 1.0 if self.spec.values.get("direction", "right") == "left" else -1.0
        x, y, heading = self.stage.pose(ego, at).tolist()
        to_kerb = self._kerb(found[0], x, y)
        ahead, left = np.array([math.cos(heading), math.sin(heading)]), np.array([-math.sin(heading), math.cos(heading)])
        self.crossers: list[_Crosser] = []
        for k in range(manner.people):
            speed = float(rng.uniform(*manner.speed))
            far = max(to_kerb, self.number("adversary_speed", speed) * manner.reaction) + SPREAD_M[1] * k
            middle = np.array([x, y]) + SPREAD_M[0] * k * ahead
            one = self._stand(middle, left, (far, to_kerb + SPREAD_M[1] * k), speed, heading)
            if one is None:
                return "no room at the kerb for who crosses"
            one.idle = float(rng.uniform(0.0, IDLE_S)) if k else 0.0
            self.crossers.append(one)
        self.lead_s = max(manner.reaction, max(float(np.hypot(*(c.start - (x, y)))) / c.speed for c in self.crossers[:1]))
        if self.spec.type == "ParkingCrossingPedestrian" and self.side < 0.0:
            self._hide(found[0], x, y)
        return None

    def _stand(self, middle: Array, left: Array, aways: tuple[float, ...], speed: float, heading: float) -> _Crosser | None:
        """Somebody who will cross at `middle` (2,), as many metres to the side as there is room."""
        for away in aways:
            start = middle + self.side * away * left
            made = self.body(float(start[0]), float(start[1]), heading - self.side * math.pi / 2.0)
            if made is not None:
                return _Crosser(made[0], made[1], self.number("adversary_speed", speed), 0.0, start, middle - self.side * BEYOND * left)
        return None

    def body(self, x: float, y: float, heading: float) -> tuple[int, Any] | None:
        """(row, actor) of who crosses, at a right-handed place; None where there is no room."""
        return self.stage.person(x, y, heading)

    def _kerb(self, lane: Any, x: float, y: float) -> float:
        """m from the middle of the ego's lane to where people stand."""
        if self.side > 0.0:
            return 3.0 * lane_half(lane) + KERB
        outer = self._outer(lane)
        return float(np.hypot(*(outer.right - (x, y)).T).min()) + KERB

    def _outer(self, lane: Any) -> Any:
        while lane.right_neighbor:
            lane = self.stage.road_map.lanes[lane.right_neighbor]
        return lane

    def _hide(self, lane: Any, x: float, y: float) -> None:
        """A parked car before the walker, where there is room for one."""
        outer = self._outer(lane)
        k = int(np.argmin(np.hypot(outer.right[:, 0] - x, outer.right[:, 1] - y)))
        s = float(outer.s[k]) - BLOCKER_M
        if s > 3.0:
            self.stage.car(self.stage.traffic.lane_index[outer.id], s, 0.0, mode=PARKED, offset=-(lane_half(outer) + VERGE))

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        super().before_step(ego, running)
        if not running:
            return []
        if self.going_s is None:
            rest = self.place_s - ego.route_s - ego.vehicle.rear_to_center
            if rest < self.manner(self.spec).least or rest / max(float(ego.state[3]), 0.1) < self.lead_s:
                self.going_s = 0.0
            else:
                return []
        self.going_s += self.dt
        commands = [c for one in self.crossers if self.going_s > one.idle for c in self.move(one)]
        if all(self.left_of(one) < 0.5 for one in self.crossers):
            self.arrived_s = min(self.arrived_s, self.seconds)
        return commands

    def left_of(self, one: _Crosser) -> float:
        """m of its way that one has not gone."""
        return float(np.hypot(*(one.goal - walker_place(one.actor))))

    def move(self, one: _Crosser) -> list[Any]:
        """The commands that let one walk."""
        rest = one.goal - np.array(walker_place(one.actor))
        gap = float(np.hypot(*rest))
        control = (rest[0] / max(gap, 1e-6), -rest[1] / max(gap, 1e-6), one.speed if gap >= 0.5 else 0.0)
        commands = walk(self.stage.session, one.actor, control, one.sent)
        one.sent = control if commands else one.sent
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        passed = ego.route_s > self.place_s + 10.0
        return passed or self.seconds > LONGEST_S or self.seconds > self.arrived_s + AFTER_S


class BicycleCrossing(Crossing):
    """On a bicycle, ridden across at a walking pace."""

    def body(self, x: float, y: float, heading: float) -> tuple[int, Any] | None:
        """See Crossing."""
        kinds = self.stage.kinds("base_type", "bicycle")
        row = self.stage.glider(kinds[int(self.stage.rng.integers(len(kinds)))], x, y, heading) if kinds else None
        return None if row is None else (row, None)

    def left_of(self, one: _Crosser) -> float:
        """See Crossing."""
        return float(np.hypot(*(one.goal - one.start))) - one.gone

    def move(self, one: _Crosser) -> list[Any]:
        """See Crossing."""
        way = one.goal - one.start
        length = float(np.hypot(*way))
        one.gone = min(one.gone + one.speed * self.dt, length)
        x, y = (one.start + way / length * one.gone).tolist()
        self.stage.glide(one.row, x, y, math.atan2(way[1], way[0]), one.speed if one.gone < length else 0.0)
        return []
