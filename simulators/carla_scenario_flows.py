"""Scenarios of crossing and merging traffic: a flow against which the ego turns, a flow into which it merges, a red-light runner."""

from __future__ import annotations

from typing import Any

import numpy as np

from drive.core.roadmap import Lane
from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_stage import BRAKE, KEEP_M, PUSH
from drive.simulators.carla_scenario_ways import AHEAD_M, LEAVE_M, Way, Ways
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import EXTERNAL

FLOW_SPEED, FLOW_GAP = 8.0, (15.0, 28.0)  # m/s; m between cars
SLOW_SPEED = 5.0  # m/s of the traffic into which MergerIntoSlowTraffic merges
MOST_CARS = 8  # of a flow at a time
FLOWS_S = 60.0  # s after which a flow runs dry, so that the ego may go
LONGEST_S = 60.0  # s of a runner
CLEAR_S = 3.0  # s of red for those who are still in the junction, before a flow starts at a light
RUNNER_M, RUN_SPEED = (25.0, 40.0), 60.0 / 3.6  # m before its line at which a runner waits; m/s (opposite_vehicle_taking_priority.py)
LEAST_M = 12.0  # m of the ego to the meeting place at which it starts anyway


class _Junction(Part):
    """Of the ego's way through the next junction, and the ways of others."""

    def hold_lights(self, mine: Lane, others: list[Lane]) -> None:
        """Green for the ego and for `others` (the same approach as their neighbours), red for the rest, until `close`."""
        index = self.stage.traffic.lane_index
        lights = self.stage.surroundings.lights
        lights.hold(np.array([index[k.id] for k in (mine, *others)], np.int64))
        lights.update(self.stage.traffic.graph)

    def close(self) -> list[Any]:
        """See Part."""
        self.stage.surroundings.lights.release()
        return []


class _Flow(_Junction):
    """Cars in a row along one way, new ones at its beginning, until the ego has passed."""

    lanes: list[int]
    lit: tuple[Lane, list[Lane]] | None = None
    leave_s = 0.0  # m along the route at which the ego has left the junction
    age = 0.0  # s since it began to move: it ends even where the ego waits for it before the trigger

    def open_flow(self, way: Way) -> str | None:
        """Cars along a way, up to its line; why not, None where there are some."""
        self.lanes, self.approach_m, self.sink_m = list(way.lanes), way.approach_m, way.sink_m
        self.made: dict[int, float] = {}  # row: m driven at its start
        low, high = (float(self.spec.values.get(f"source_dist_interval.{k}", d)) for k, d in zip(("from", "to"), FLOW_GAP))
        slow = self.spec.type.startswith("MergerIntoSlowTraffic")
        self.speed = self.number("flow_speed", SLOW_SPEED if slow else FLOW_SPEED)
        self.gaps = (min(low, high) + 5.0, max(low, high) + 5.0)
        at = self.approach_m - 6.0
        while at > 3.0 and len(self.made) < MOST_CARS:
            self._add(at)
            at -= float(self.stage.rng.uniform(*self.gaps))
        self.next_gap = float(self.stage.rng.uniform(*self.gaps))
        return None if self.made else "no free place on the way of the flow"

    def open_first(self, places: list[tuple[Lane, Lane, float]], why: str | None) -> str | None:
        """A flow at the first of (the ego's lane, another's, m along the route behind them) that has room; else the last's reason, or `why`."""
        for mine, rival, self.leave_s in places:
            way = self.stage.ways.through(rival)
            if way is not None:
                why = self.open_flow(way)
                if why is None:
                    self.light(mine, rival)
                    return None
        return why

    def light(self, mine: Lane, rival: Lane) -> None:
        """Where lights rule the flow, it waits for the trigger; then it and the ego have green."""
        if self.stage.traffic.lane_index[rival.id] in self.stage.surroundings.lights.signalled:
            self.lit = (mine, [rival])

    def _add(self, at: float) -> bool:
        """A car `at` m along the way."""
        graph = self.stage.traffic.graph
        k, s = 0, at
        while s > graph.length[self.lanes[k]]:
            s -= float(graph.length[self.lanes[k]])
            k += 1
        row = self.stage.car(self.lanes[k], s, self.speed, mode=EXTERNAL, plan=self.lanes[k:])
        if row is not None:
            self.made[row] = at
        return row is not None

    def driven(self, row: int) -> float:
        """m along the way of a car."""
        fleet, graph = self.stage.traffic.fleet, self.stage.traffic.graph
        here = int(fleet.plan[row, 0])
        if here not in self.lanes:
            return self.sink_m
        return float(fleet.s[row] + sum(graph.length[k] for k in self.lanes[: self.lanes.index(here)]))

    def begin(self, ego: EgoView) -> None:
        """See Part."""
        if self.lit is not None:
            self.hold_lights(*self.lit)

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """A flow that needs green waits for the trigger; any other runs."""
        fleet, commands = self.stage.traffic.fleet, []
        if self.lit is not None and self.seconds < CLEAR_S:
            fleet.speed[list(self.made)] = 0.0
            return []
        for row in list(self.made):
            self.stage.drive(row, self.speed, self.dt)
            if not fleet.active[row] or self.driven(row) >= self.sink_m:
                commands += self.stage.remove(row)
                del self.made[row]
        last = min((self.driven(row) for row in self.made), default=self.sink_m)
        self.age += self.dt
        room = last > self.next_gap + 3.0 and len(self.made) < MOST_CARS
        if room and self.age < FLOWS_S and self._add(3.0):
            self.next_gap = float(self.stage.rng.uniform(*self.gaps))
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.leave_s + 10.0


class CrossingFlow(_Flow):
    """Cars straight on from the opposite side, against which the ego turns; where there are lights, both have green."""

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        found = ways.crossed(route, spec.trigger_s)
        if found is None:
            return f"no junction with other traffic within {AHEAD_M:g} m behind the trigger"
        facing = ways.facing(found[0])
        if not facing:
            return "nobody comes straight from the opposite side of the junction across the ego's way"
        return None if any(ways.through(k) for k in facing) else "the road on the opposite side is too short"

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        why, ways = self.fits(self.spec, ego.route, self.stage.ways), self.stage.ways
        found = ways.crossed(ego.route, self.spec.trigger_s)
        if found is None:
            return why
        mine, enter = found
        return self.open_first([(mine, rival, enter + mine.length) for rival in ways.facing(mine)], why)


class MergingFlow(_Flow):
    """Cars in the lane into which the ego turns, merges or changes."""

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        found = ways.joined(route, spec.trigger_s)
        if not found:
            return "the route joins no other lane behind the trigger"
        return None if any(ways.through(k) for _, k, _ in found) else "the way of the others is too short for a flow"

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        why, ways = self.fits(self.spec, ego.route, self.stage.ways), self.stage.ways
        return self.open_first(ways.joined(ego.route, self.spec.trigger_s), why)


class RedLightRunner(_Junction):
    """A car from the side meets the ego in the junction; where there are lights, the ego has green and it does not."""

    row = 0
    passed = False

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        found = ways.crossed(route, spec.trigger_s)
        if found is None:
            return f"no junction with other traffic within {AHEAD_M:g} m behind the trigger"
        if not (across := ways.across(found[0], spec.values.get("direction", ""))):
            return "nobody crosses the ego's way in the junction"
        return None if any(long_enough(ways.through(k)) for k in across) else f"the roads across are shorter than {RUNNER_M[0]:g} m"

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        why, ways = self.fits(self.spec, ego.route, self.stage.ways), self.stage.ways
        found = ways.crossed(ego.route, self.spec.trigger_s)
        if why is not None or found is None:
            return why
        self.mine, self.enter_s = found
        for rival in ways.across(self.mine, self.spec.values.get("direction", "")):
            way = ways.through(rival)
            if way is not None and long_enough(way):
                self.approach_m = way.approach_m
                if self._wait(list(way.lanes), rival):
                    return None
        return "others stand where the car would come from"

    def _wait(self, lanes: list[int], rival: Lane) -> bool:
        """Put the car where nobody stands between it and the junction."""
        graph, fleet = self.stage.traffic.graph, self.stage.traffic.fleet
        back = float(self.stage.rng.uniform(RUNNER_M[0], min(RUNNER_M[1], self.approach_m - 3.0)))
        k, s = 0, self.approach_m - back
        while s > graph.length[lanes[k]]:
            s -= float(graph.length[lanes[k]])
            k += 1
        between = lanes[k : lanes.index(self.stage.traffic.lane_index[rival.id]) + 1]
        there = fleet.active & np.isin(fleet.plan[:, 0], between) & ((fleet.plan[:, 0] != lanes[k]) | (fleet.s > s))
        if there[1:].any():
            return False
        row = self.stage.car(lanes[k], s, 0.0, mode=EXTERNAL, plan=lanes[k:])
        if row is None:
            return False
        mine, theirs = self.mine.centerline[:, :2], rival.centerline[:, :2]
        gap = np.hypot(mine[:, None, 0] - theirs[None, :, 0], mine[:, None, 1] - theirs[None, :, 1])
        i, j = np.unravel_index(int(np.argmin(gap)), gap.shape)
        self.row, self.rival, self.run_m = row, rival, back + float(rival.s[j])
        self.meet_s = self.enter_s + float(self.mine.s[i])
        self.gone_m = back + rival.length + LEAVE_M
        self.way = [(lanes[k], s), *((lane, 0.0) for lane in between[1:])]
        self.did, self.pace = 0.0, 0.0
        return True

    def begin(self, ego: EgoView) -> None:
        """See Part."""
        self.hold_lights(self.mine, [])

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """It starts so that both are at the meeting place at once where the ego does not slow down; then its speed is its own.

        Until then its way to the junction and over it is kept free: whom the light holds there would hold it too.
        """
        fleet = self.stage.traffic.fleet
        if not self.pace:
            for lane, low in self.way:
                self.stage.clear_lane(lane, low, np.inf)
        if not running or self.passed:
            return []
        if not self.pace:
            rest = self.meet_s - ego.route_s - ego.vehicle.rear_to_center
            room = max(float(fleet.gap[self.row]) - KEEP_M - 2.0, 0.0)  # to whom it follows
            speed = min(RUN_SPEED, float(np.sqrt(2.0 * BRAKE * room)))
            if rest > LEAST_M and rest / max(float(ego.state[3]), 0.1) > run_s(self.run_m, speed):
                return []
            self.pace, fleet.speed[self.row] = RUN_SPEED, speed
        before = float(fleet.x[self.row]), float(fleet.y[self.row])
        self.stage.drive(self.row, self.pace, self.dt)
        self.did += float(np.hypot(fleet.x[self.row] - before[0], fleet.y[self.row] - before[1]))
        if self.did < self.gone_m and fleet.active[self.row]:
            return []
        self.passed = True
        return self.stage.remove(self.row)

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return self.passed or self.seconds > LONGEST_S


def run_s(metres: float, speed: float) -> float:
    """s that a runner which starts with `speed` m/s takes for so many metres."""
    gains = (RUN_SPEED**2 - speed**2) / (2.0 * PUSH)  # m until it has its own speed
    if gains > metres:
        return float(np.sqrt(speed**2 + 2.0 * PUSH * metres) - speed) / PUSH
    return (RUN_SPEED - speed) / PUSH + (metres - gains) / RUN_SPEED


def long_enough(way: Way | None) -> bool:
    """Whether a runner can come along it."""
    return way is not None and way.approach_m > RUNNER_M[0] + 3.0
