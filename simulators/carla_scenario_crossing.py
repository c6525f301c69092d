"""A walker crosses the road before the ego: from the kerb, from behind a parked car, or behind a junction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drive.simulators.carla_scenario_part import Part
from drive.simulators.carla_traffic import EgoView
from drive.simulators.carla_walkers import walk, walker_place
from drive.simulators.traffic_fleet import PARKED

DISTANCE, BEHIND_JUNCTION = 30.0, 8.0  # m from the trigger to the crossing; m behind a junction
KERB = 1.0  # m from the border of the road to the walker
BEYOND = 6.0  # m that it walks beyond the middle of the ego's lane
SPEED = (1.6, 2.4)  # m/s
EARLY_S = 0.4  # s before the ego that it would reach the middle of the lane
BLOCKER_M, VERGE = 5.0, 0.9  # m before the walker, and beside the lane, of the car that hides it
LONGEST_S, AFTER_S = 40.0, 3.0


class PedestrianCrossing(Part):
    """See above. It starts so that it meets an ego that does not slow down, and heeds no car."""

    going = False
    arrived_s = math.inf

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        at = self._where(ego)
        if at is None:
            return "the route has no stretch of road behind the trigger on which to cross"
        self.place_s = at
        found = self.stage.lane_at(ego, at)
        assert found is not None
        lane, outer = found[0], found[0]
        while outer.right_neighbor:
            outer = self.stage.road_map.lanes[outer.right_neighbor]
        x, y, heading = self.stage.pose(ego, at).tolist()
        k = int(np.argmin(np.hypot(outer.right[:, 0] - x, outer.right[:, 1] - y)))
        to_kerb = float(np.hypot(*(outer.right[k] - (x, y)))) + KERB
        side = -1.0 if self.spec.values.get("direction", "right") != "left" else 1.0
        if side > 0:
            to_kerb = float(np.hypot(*(lane.left[0] - lane.right[0]))) * 1.5 + KERB
        left = np.array([-math.sin(heading), math.cos(heading)])
        self.from_xy = np.array([x, y]) + side * to_kerb * left
        self.to_xy = np.array([x, y]) - side * BEYOND * left
        self.to_lane = to_kerb
        self.speed = self.number("adversary_speed", float(self.stage.rng.uniform(*SPEED)))
        made = self.stage.person(float(self.from_xy[0]), float(self.from_xy[1]), heading - side * math.pi / 2.0)
        if made is None:
            return "no room for a walker at the kerb"
        self.row, self.actor = made
        self.sent = (0.0, 0.0, -1.0)
        if self.spec.type == "ParkingCrossingPedestrian" and side < 0:
            half = float(np.hypot(*(outer.left[k] - outer.right[k]))) / 2.0
            s = float(outer.s[k]) - BLOCKER_M
            if s > 3.0:
                self.stage.car(self.stage.traffic.lane_index[outer.id], s, 0.0, mode=PARKED, offset=-(half + VERGE))
        return None

    def _where(self, ego: EgoView) -> float | None:
        """m along the route of the crossing: on a plain road, or behind the next junction for who turns."""
        route = ego.route
        first = self.spec.trigger_s + self.number("distance", DISTANCE)
        if self.spec.type == "VehicleTurningRoutePedestrian":
            junction = np.flatnonzero(route.is_connector & (route.s > self.spec.trigger_s))
            after = np.flatnonzero(~route.is_connector & (route.s > route.s[junction[0]])) if len(junction) else junction
            if not len(after):
                return None
            return float(route.s[after[0]]) + BEHIND_JUNCTION
        for extra in (0.0, 6.0, 12.0, -6.0, 20.0, 30.0):
            point = int(np.searchsorted(route.s, first + extra))
            if point < len(route) - 5 and not route.is_connector[point]:
                return first + extra
        return None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        super().before_step(ego, running)
        if not running:
            return []
        here = np.array(walker_place(self.actor))
        rest = self.to_xy - here
        gap = float(np.hypot(*rest))
        if not self.going:
            front = self.place_s - ego.route_s - ego.vehicle.front_length
            self.going = front / max(float(ego.state[3]), 1.0) < self.to_lane / self.speed + EARLY_S
        if gap < 0.5:
            self.arrived_s = min(self.arrived_s, self.seconds)
        speed = self.speed if self.going and gap >= 0.5 else 0.0
        control = (rest[0] / max(gap, 1e-6), -rest[1] / max(gap, 1e-6), speed)
        commands = walk(self.stage.session, self.actor, control, self.sent)
        self.sent = control if commands else self.sent
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        passed = ego.route_s > self.place_s + 10.0
        return passed or self.seconds > LONGEST_S or self.seconds > self.arrived_s + AFTER_S
