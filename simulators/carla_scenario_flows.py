"""Scenarios of crossing and merging traffic: a flow against which the ego turns, a flow into which it merges, a red-light runner."""

from __future__ import annotations

from typing import Any

import numpy as np

from drive.core.geometry import wrap_angle
from drive.core.roadmap import Lane
from drive.simulators.carla_scenario_part import Part
from drive.simulators.carla_traffic import EgoView
from drive.simulators.traffic_fleet import EXTERNAL, PLAN

APPROACH_M = 70.0  # m before the junction at which a flow begins, where its road is as long
SHORTEST_M = 18.0  # m of approach that a flow needs
LEAVE_M = 25.0  # m behind the junction at which its cars go
FLOW_SPEED, FLOW_GAP = 8.0, (15.0, 28.0)  # m/s; m between cars
SLOW_SPEED = 5.0  # m/s of the traffic into which MergerIntoSlowTraffic merges
MOST_CARS = 8  # of a flow at a time
LONGEST_S = 60.0
CLEAR_S = 3.0  # s of red for those who are still in the junction, before a flow starts at a light
OPPOSITE, ACROSS = np.radians(140.0), (np.radians(50.0), np.radians(130.0))  # between the entries of two connectors
RUNNER_M, RUN_SPEED = (25.0, 55.0), (5.0, 14.0)  # m before its line at which a runner waits; m/s
COMMITTED_M = 12.0  # m before the meeting place from which it keeps its speed
AHEAD_M = 120.0  # m behind the trigger within which the junction must lie


class _Junction(Part):
    """Of the ego's way through the next junction, and the ways of others."""

    def connector(self, ego: EgoView) -> Lane | None:
        """The ego's first connector behind the trigger that meets others."""
        route, graph = ego.route, self.stage.traffic.graph
        near = (route.s > self.spec.trigger_s - 2.0) & (route.s < self.spec.trigger_s + AHEAD_M) & route.is_connector
        for point in np.flatnonzero(near):
            lane = self.stage.road_map.lanes[route.lane_id(int(point))]
            k = self.stage.traffic.lane_index[lane.id]
            if graph.conf_first[k + 1] > graph.conf_first[k]:
                self.enter_s, self.leave_s = float(route.s[point]), float(route.s[point]) + lane.length
                return lane
        return None

    def rivals(self, mine: Lane) -> list[Lane]:
        """Lanes that conflict with `mine`."""
        graph, index = self.stage.traffic.graph, self.stage.traffic.lane_index
        k = index[mine.id]
        names = self.stage.traffic.lane_ids
        return [self.stage.road_map.lanes[names[j]] for j in graph.conf_lane[graph.conf_first[k] : graph.conf_first[k + 1]]]

    def approach(self, lane: Lane, length: float) -> list[str]:
        """Lanes that lead to `lane`, first one first, of at least `length` m together or as far as the junction before."""
        lanes, ids, reached, at = self.stage.road_map.lanes, [], 0.0, lane
        while reached < length and len(ids) < PLAN - 4:
            before = [lanes[k] for k in at.predecessors if k in lanes and k not in ids and k != lane.id]
            before = [k for k in before if not k.is_connector]
            if not before:
                break
            at = max(before, key=lambda k: (k.length, k.id))
            ids.insert(0, at.id)
            reached += at.length
        return ids

    def path(self, rival: Lane) -> list[int] | None:
        """Indices of the lanes to, through and behind `rival`; None where the approach is too short."""
        lanes, index = self.stage.road_map.lanes, self.stage.traffic.lane_index
        ids = self.approach(rival, APPROACH_M)
        self.approach_m = sum(lanes[k].length for k in ids)
        after = [k for k in rival.successors if k in lanes]
        if self.approach_m < SHORTEST_M or not after:
            return None
        ids += [rival.id, after[0], *[k for k in lanes[after[0]].successors if k in lanes][:1]]
        self.sink_m = self.approach_m + rival.length + LEAVE_M
        return [index[k] for k in ids[:PLAN]]

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
    age = 0.0  # s since it began to move: it ends even where the ego waits for it before the trigger

    def open_flow(self, ego: EgoView, rival: Lane) -> str | None:
        """Cars along the way through `rival`, up to its line; why not, None where there are some."""
        found = self.path(rival)
        if found is None:
            return f"the way to lane {rival.id} is shorter than {SHORTEST_M:g} m"
        self.lanes = found
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
        if room and self.age < LONGEST_S and self._add(3.0):
            self.next_gap = float(self.stage.rng.uniform(*self.gaps))
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.leave_s + 10.0 or self.seconds > LONGEST_S


class CrossingFlow(_Flow):
    """Cars straight on from the opposite side, against which the ego turns; where there are lights, both have green."""

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        mine = self.connector(ego)
        if mine is None:
            return f"no junction with other traffic within {AHEAD_M:g} m behind the trigger"
        facing = [k for k in self.rivals(mine) if _turn(mine, k) > OPPOSITE and k.turn == "straight"]
        for rival in facing:
            why = self.open_flow(ego, rival)
            if why is None:
                self.light(mine, rival)
                return None
        return why if facing else "nobody comes straight from the opposite side of the junction across the ego's way"


class MergingFlow(_Flow):
    """Cars in the lane into which the ego turns, merges or changes."""

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        why = "the route joins no other lane behind the trigger"
        for mine, rival, leave in self._joined(ego):
            self.leave_s = leave
            found = self.open_flow(ego, rival)
            if found is None:
                self.light(mine, rival)
                return None
            why = found
        return why

    def _joined(self, ego: EgoView) -> list[tuple[Lane, Lane, float]]:
        """(the route's lane, another that leads to the same place, m along the route behind it), and the lanes to which it changes."""
        route, lanes, found = ego.route, self.stage.road_map.lanes, []
        points = np.flatnonzero((route.s > self.spec.trigger_s) & (route.s < self.spec.trigger_s + AHEAD_M))
        for point in points[1:]:
            a, b = int(route.lane_index[point - 1]), int(route.lane_index[point])
            if a == b:
                continue
            before, here = lanes[route.lane_ids[a]], lanes[route.lane_ids[b]]
            if before.id not in here.predecessors:  # a lane change
                found.append((before, here, float(route.s[point]) + 30.0))
            others = [lanes[k] for k in here.predecessors if k != before.id and k in lanes]
            others = [k for k in others if not set(k.predecessors) & set(before.predecessors)]
            others.sort(key=lambda k: (k.turn != "straight", k.id))
            found += [(before, k, float(route.s[point]) + 20.0) for k in others]
        return found


class RedLightRunner(_Junction):
    """A car from the side meets the ego in the junction; where there are lights, the ego has green and it does not."""

    row = 0
    passed = False

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        mine = self.connector(ego)
        if mine is None:
            return f"no junction with other traffic within {AHEAD_M:g} m behind the trigger"
        self.mine = mine
        why = "nobody crosses the ego's way in the junction"
        wanted = self.spec.values.get("direction", "")
        for rival in sorted(self.rivals(mine), key=lambda k: (_side(mine, k) != wanted, k.turn != "straight", k.id)):
            if not ACROSS[0] < _turn(mine, rival) < ACROSS[1] and _side(mine, rival) != wanted:
                continue
            lanes = self.path(rival)
            if lanes is None or self.approach_m < RUNNER_M[0]:
                why = f"the roads across are shorter than {RUNNER_M[0]:g} m"
                continue
            if self._wait(lanes, rival):
                return None
            why = "others stand where the car would come from"
        return why

    def _wait(self, lanes: list[int], rival: Lane) -> bool:
        """Put the car where nobody stands between it and the junction."""
        graph, fleet = self.stage.traffic.graph, self.stage.traffic.fleet
        back = float(self.stage.rng.uniform(RUNNER_M[0], min(RUNNER_M[1], self.approach_m - 3.0))) if self.approach_m > RUNNER_M[0] + 3.0 else 0.0
        if back == 0.0:
            return False
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
        self.did, self.pace = 0.0, 0.0
        return True

    def begin(self, ego: EgoView) -> None:
        """See Part."""
        self.hold_lights(self.mine, [])

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """It goes so fast that both are at the meeting place at once."""
        fleet = self.stage.traffic.fleet
        if not running or self.passed:
            return []
        rest = self.run_m - self.did
        if rest > COMMITTED_M:
            ego_s = (self.meet_s - ego.route_s - ego.vehicle.front_length) / max(float(ego.state[3]), 2.0)
            self.pace = float(np.clip(rest / max(ego_s, 0.5), *RUN_SPEED)) if ego_s < rest / RUN_SPEED[0] else 0.0
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


def _turn(a: Lane, b: Lane) -> float:
    """rad between the headings at which two connectors begin."""
    return abs(float(wrap_angle(b.centerline[0, 2] - a.centerline[0, 2])))


def _side(a: Lane, b: Lane) -> str:
    """Where who takes `b` comes from, as seen by who takes `a`: "left", "right" or "opposite"."""
    turn = float(wrap_angle(b.centerline[0, 2] - a.centerline[0, 2]))
    return "opposite" if abs(turn) > OPPOSITE else "right" if turn > 0.0 else "left"
