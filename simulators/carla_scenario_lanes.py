"""Scenarios of the ego's own lane: others come into it from ahead or from behind, or it is slippery."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_ways import Ways, lane_half
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import EXTERNAL

INVADE_M, FLOW_M, SOURCE_M = 0.25, 40.0, 30.0  # m over the middle line; m between cars, m beyond the file's distance (invading_turn.py)
DISTANCE, CONES_M, CONE, CONE_SIDE = 100.0, 5.0, "static.prop.constructioncone", 0.8  # m; m between cones; share of half a lane aside
INSET = 0.7  # m from a car's middle to what counts as over the line
SPEED, MOST = 7.0, 5  # m/s and number at a time of those who invade
CLEAR_S = 1.0  # s between two looks for traffic in their lane
EMERGENCY_S, FASTER, BEHIND_M = 12.0, 15.0, 15.0  # s of its drive, m/s above the ego's speed, m behind (yield_to_emergency_vehicle.py)
PRESS_S = 0.4  # s that it keeps to who does not make way
LONGEST_EMERGENCY = 7.0  # m, so that it keeps to its lane
ROOM_M = 60.0  # m of route behind the trigger
BACK_M = (0.0, 6.0, 12.0, 20.0)  # m further behind where it may stand as well
PUDDLES_M, PUDDLE_REACH, PUDDLE, SIDES = (14.0, 48.0, 74.0), 2.0, "static.prop.dirtdebris01", (-0.6, 0.8, 0.2)  # control_loss.py
THROTTLE, WHEEL, LOSS_M = (0.03, 0.01), (0.055, 0.015), 110.0  # mean and spread of the noise; m of road


class InvadingFlow(Part):
    """Cars of the other direction drive partly in the ego's lane, beside cones that narrow theirs."""

    next_gap = FLOW_M

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        middle = ways.plain(route, spec.trigger_s + 0.5 * spec.number("distance", DISTANCE), 10.0, (0.0, 10.0, -10.0, 20.0))
        if middle is None or ways.oncoming(route, middle) is None:
            return "no lane of the other direction beside the route behind the trigger"
        return None

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        why, ways, distance = self.fits(self.spec, ego.route, self.stage.ways), self.stage.ways, self.number("distance", DISTANCE)
        middle = ways.plain(ego.route, self.spec.trigger_s + 0.5 * distance, 10.0, (0.0, 10.0, -10.0, 20.0))
        found = None if middle is None else ways.oncoming(ego.route, middle)
        if why is not None or found is None or middle is None:
            return why
        lane, at = found
        self.lane = self.stage.traffic.lane_index[lane.id]
        self.source, self.sink = max(at - 0.5 * distance - SOURCE_M, 4.0), min(at + 0.5 * distance, lane.length - 3.0)
        self.aside = self.number("offset", INVADE_M) + lane_half(lane) - INSET
        self.passed_s = middle + 0.5 * distance
        self.stage.clear_lane(self.lane, self.source - 15.0, self.sink + 10.0)
        self.made: list[int] = []
        s = self.source + 0.6 * (self.sink - self.source)
        while s >= self.source and len(self.made) < MOST:
            self._add(s)
            s -= FLOW_M
        if not self.made:
            return "others stand in the lane of the other direction"
        self._cones(lane, at)
        return None

    def _add(self, s: float) -> None:
        row = self.stage.car(self.lane, s, SPEED, mode=EXTERNAL, plan=[self.lane])
        if row is not None:
            self.made.append(row)

    def _cones(self, lane: Any, at: float) -> None:
        """Along the right of their lane, where they begin to give way to it."""
        s = np.arange(max(at - 15.0, 4.0), min(at + 15.0, lane.length - 4.0), CONES_M)
        x, y = (np.interp(s, lane.s, lane.centerline[:, k]) for k in (0, 1))
        heading = np.interp(s, lane.s, np.unwrap(lane.centerline[:, 2]))
        aside = CONE_SIDE * lane_half(lane)
        self.stage.things_at(CONE, np.column_stack([x + aside * np.sin(heading), y - aside * np.cos(heading), heading]))

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        fleet, commands = self.stage.traffic.fleet, []
        if round(self.seconds / self.dt) % round(CLEAR_S / self.dt) == 0:
            self.stage.clear_lane(self.lane, self.source - 15.0, self.sink)
        if not running:
            return []
        for row in list(self.made):
            self.stage.drive(row, SPEED, self.dt, self.aside)
            if not fleet.active[row] or fleet.plan[row, 0] != self.lane or fleet.s[row] > self.sink:
                commands += self.stage.remove(row)
                self.made.remove(row)
        last = min((float(fleet.s[row]) for row in self.made), default=math.inf)
        if last > self.source + FLOW_M and len(self.made) < MOST:
            self._add(self.source)
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.passed_s


class EmergencyVehicle(Part):
    """One comes from behind, much faster than the ego, and stays behind it for as long as the ego does not make way."""

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        found = ways.lane_at(route, spec.trigger_s)
        if found is None or not (found[0].left_neighbor or found[0].right_neighbor):
            return "no second lane of the same direction into which the ego could make way"
        if ways.lane_at(route, spec.trigger_s + ROOM_M) is None:
            return f"the route ends within {ROOM_M:g} m behind the trigger"
        if ways.lane_at(route, spec.trigger_s - spec.number("distance", BEHIND_M)) is None:
            return "the route begins too late for a vehicle behind the trigger"
        return None

    def place(self, ego: EgoView) -> str | None:
        """See Part: it appears when the ego is at the trigger."""
        self.choice = [k for k in self.stage.kinds("special_type", "emergency") if k.length < LONGEST_EMERGENCY]
        if not self.choice:
            return "this server's library has no emergency vehicles"
        return self.fits(self.spec, ego.route, self.stage.ways)

    def begin(self, ego: EgoView) -> str | None:
        """See Part."""
        traffic, kind = self.stage.traffic, self.choice[int(self.stage.rng.integers(len(self.choice)))]
        for more in BACK_M:
            found = self.stage.lane_at(ego, self.spec.trigger_s - self.number("distance", BEHIND_M) - more)
            if found is None:
                break
            lane = traffic.lane_index[found[0].id]
            self.stage.clear_lane(lane, found[1] - 15.0, found[1] + 40.0)
            plan = self.stage.way(ego, found[0].id) if found[0].id in ego.route.lane_ids[int(ego.route.lane_index[ego.route_index]) :] else None
            speed = max(float(ego.state[3]), 0.0)
            self.emergency = self.stage.car(lane, found[1], speed, mode=EXTERNAL, plan=plan or self._plan(found[0].id), kind=kind, close=True)
            if self.emergency is not None:
                return None
        return "no free place behind the ego for the emergency vehicle"

    def _plan(self, lane: str) -> list[int]:
        """A way straight on from a lane that the ego has left."""
        return [self.stage.traffic.lane_index[k] for k in [lane, *self.stage.road_map.lanes[lane].successors[:1]]]

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        if self.emergency is not None and running and self.stage.traffic.fleet.active[self.emergency]:
            self.stage.drive(self.emergency, max(float(ego.state[3]), 0.0) + FASTER, self.dt, keep_s=PRESS_S)
        return []

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return self.seconds > EMERGENCY_S


class ControlLoss(Part):
    """The ego's wheel and throttle go astray where debris lies on the road."""

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        return None if spec.trigger_s + PUDDLES_M[0] < route.length else "the route ends before the debris"

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        self.spots: list[float] = []
        poses, means = [], []
        for along, side in zip(PUDDLES_M, SIDES):
            found = self.stage.lane_at(ego, self.spec.trigger_s + along)
            if found is not None:
                x, y, heading = self.stage.pose(ego, self.spec.trigger_s + along).tolist()
                poses.append((x - side * math.sin(heading), y + side * math.cos(heading), heading))
                self.spots.append(self.spec.trigger_s + along)
                means.append([mean if self.stage.rng.random() < 0.5 else -mean for mean in (THROTTLE[0], WHEEL[0])])
        self.means = np.array(means).reshape(-1, 2)
        if not self.spots:
            return "the route ends before the debris"
        library = {b.id for b in self.stage.session.world.get_blueprint_library().filter("static.prop.*")}
        if PUDDLE in library:
            self.stage.things_at(PUDDLE, np.array(poses))
        return None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        self.noise = (0.0, 0.0)
        middle = ego.route_s + ego.vehicle.rear_to_center
        for at, mean in zip(self.spots, self.means.tolist()):
            if running and abs(middle - at) < PUDDLE_REACH:
                rng = self.stage.rng
                self.noise = float(rng.normal(mean[0], THROTTLE[1])), float(rng.normal(mean[1], WHEEL[1]))
        return super().before_step(ego, running)

    def close(self) -> list[Any]:
        """See Part."""
        self.noise = (0.0, 0.0)
        return []

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.spec.trigger_s + LOSS_M
