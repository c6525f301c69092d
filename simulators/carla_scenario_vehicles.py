"""Scenarios of one car near the ego: the one ahead brakes hard, one beside it or at the kerb cuts in."""

from __future__ import annotations

from typing import Any

import numpy as np

from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_ways import Ways
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import DRIVEN, PARKED, UNSET
from drive.simulators.traffic_graph import Graph
from drive.simulators.traffic_path import extend_plan

PLACES_M = (30.0, 36.0, 42.0, 50.0, 60.0, 72.0)  # m ahead of the ego at which a car may appear
ADOPT_M = 45.0  # m within which the traffic's own car ahead of the ego is taken
PACE_M, PACE_S = 6.0, 1.2  # m and s ahead of the ego at which a car waits for its part
BRAKE, HELD_S = 7.0, 4.0  # m/s^2 of the hard brake, s of standing after it
BRAKING_M = 45.0  # m of road on which it brakes
GONE_M = 60.0  # m from the ego at which a car may be taken away
LONGEST_S = 25.0  # s after which a scenario ends anyway
VERGE = 0.9  # m from the lane's border to the middle of a parked car
PULL_OUT_M = 16.0  # m over which a parked car comes into the lane
NEAR_M, NEAR_S = 10.0, 1.8  # m and s of the ego to a parked car when it pulls out


class _Paced(Part):
    """A car that keeps a little ahead of the ego until its time has come."""

    row: int | None = None
    mine = True  # spawned for this, not the traffic's own

    def pace(self, ego: EgoView) -> None:
        """Order it to keep PACE_M + PACE_S of driving ahead of the ego's front; faster than its lane allows it never is."""
        fleet = self.stage.traffic.fleet
        row = self.row
        assert row is not None
        ahead = np.hypot(fleet.x[row] - fleet.x[0], fleet.y[row] - fleet.y[0]) - (fleet.length[row] + fleet.length[0]) / 2.0
        v = max(float(ego.state[3]), 0.0)
        accel = 0.15 * (PACE_M + PACE_S * v - ahead) + 0.8 * (v - fleet.speed[row])
        fleet.order[row] = float(np.clip(accel, -3.0, 3.0))

    def release(self) -> None:
        """It drives on as the traffic does."""
        if self.row is not None:
            self.stage.traffic.fleet.order[self.row] = UNSET

    def far(self, ego: EgoView) -> bool:
        """Whether it is out of the ego's way."""
        fleet = self.stage.traffic.fleet
        if self.row is None or not fleet.active[self.row]:
            return True
        return bool(np.hypot(fleet.x[self.row] - fleet.x[0], fleet.y[self.row] - fleet.y[0]) > GONE_M)

    def close(self) -> list[Any]:
        """See Part."""
        self.release()
        return []


class HardBrake(_Paced):
    """The car ahead brakes as hard as it can, stands for a while, and drives on."""

    stood = 0.0

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        if ways.plain(route, spec.trigger_s, BRAKING_M, (0.0,)) is None:
            return f"no {BRAKING_M:g} m of road without a junction behind the trigger"
        return None

    def place(self, ego: EgoView) -> str | None:
        """The traffic's own car ahead, or a new one; where there is room for neither, the traffic makes some."""
        if self._followed() is not None:
            return None
        if (why := self._put(ego)) is not None:
            self.stage.clear_way(ego, ego.route_s + PLACES_M[-1])
            why = self._put(ego)
        return why

    def _put(self, ego: EgoView) -> str | None:
        """A new car ahead; why there is none, None where there is."""
        for ahead in PLACES_M:
            found = self.stage.lane_at(ego, ego.route_s + ahead)
            if found is None:
                return "the route ends before a car could drive ahead"
            lane, s = found
            if not lane.is_connector:
                speed = min(max(float(ego.state[3]), 3.0), lane.speed_limit)
                self.row = self.stage.car(self.stage.traffic.lane_index[lane.id], s, speed, plan=self.stage.way(ego, lane.id))
                if self.row is not None:
                    return None
        return f"no car ahead of the ego, and no free place {PLACES_M[0]:g} to {PLACES_M[-1]:g} m ahead of it"

    def _followed(self) -> int | None:
        """The traffic's car that the ego follows now."""
        fleet, stage = self.stage.traffic.fleet, self.stage
        follows = int(fleet.ahead[0])
        return follows if follows in stage.surroundings.cars and fleet.gap[0] < ADOPT_M else None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        if self.row is None:
            self.row = self._followed() if running else None
        elif not running:
            self.pace(ego)
        elif self.seconds < LONGEST_S:
            self._brake(self.row)
        else:
            self.release()
        return super().before_step(ego, running)

    def begin(self, ego: EgoView) -> None:
        """It is the car that the ego follows now that brakes."""
        follows = self._followed()
        if follows is not None:
            self.release()
            self.row = follows

    def _brake(self, row: int) -> None:
        fleet = self.stage.traffic.fleet
        if fleet.speed[row] < 0.1:
            self.stood += self.dt
        fleet.order[row] = -BRAKE if self.stood < HELD_S else UNSET

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return self.seconds > LONGEST_S or (self.stood >= HELD_S and self.far(ego))


class CutIn(_Paced):
    """From the lane beside the ego's, or from the kerb where there is none or the type says so."""

    parked = False
    begun = False

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        here, then = ways.lane_at(route, spec.trigger_s - PACE_M), ways.lane_at(route, spec.trigger_s + PLACES_M[0])
        sides = [getattr(k[0], side) for side in ("left_neighbor", "right_neighbor") for k in (here, then) if here and then and k]
        beside = len(sides) == 4 and (all(sides[:2]) or all(sides[2:]))
        if spec.type != "ParkingCutIn" and beside:
            return None
        if spec.type != "HighwayCutIn" and any(cls.kerb(spec, route, ways)):
            return None
        return "no lane beside the route" if spec.type == "HighwayCutIn" else "neither a lane beside the route nor a free kerb"

    @classmethod
    def kerb(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> list[float]:
        """m along the route of places at whose kerb a car may park and from which it may pull out."""
        first = spec.trigger_s + spec.number("distance", 30.0)
        found = [(first + extra, ways.lane_at(route, first + extra)) for extra in (0.0, 8.0, 16.0, -8.0, 24.0)]
        return [
            s
            for s, at in found
            if at is not None and not at[0].is_connector and not at[0].right_neighbor and at[0].length - at[1] >= PULL_OUT_M + 4.0
        ]

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        if self.spec.type != "ParkingCutIn" and self._beside(ego):
            return None
        return self._park(ego) if self.spec.type != "HighwayCutIn" else "no free lane beside the route"

    def _beside(self, ego: EgoView) -> bool:
        """A car in the next lane, a little ahead."""
        sides = ("left", "right") if self.stage.rng.random() < 0.5 else ("right", "left")
        wanted = self.spec.values.get("direction")
        sides = (wanted,) if wanted in sides else sides
        for ahead in PLACES_M[:4]:
            found = self.stage.lane_at(ego, ego.route_s + ahead)
            trigger = self.stage.lane_at(ego, min(self.spec.trigger_s, ego.route.length - 1.0))
            if found is None or trigger is None:
                return False
            for side in sides:
                beside = found[0].left_neighbor if side == "left" else found[0].right_neighbor
                there = trigger[0].left_neighbor if side == "left" else trigger[0].right_neighbor
                if not beside or not there:
                    continue
                lane = self.stage.road_map.lanes[beside]
                s = found[1] * lane.length / found[0].length
                speed = min(max(float(ego.state[3]), 3.0), lane.speed_limit)
                self.row = self.stage.car(self.stage.traffic.lane_index[beside], s, speed)
                if self.row is not None:
                    self.side = -1 if side == "left" else 1
                    self.stage.traffic.fleet.cooldown[self.row] = 1e6  # no change of its own
                    return True
        return False

    def _park(self, ego: EgoView) -> str | None:
        for place_s in self.kerb(self.spec, ego.route, self.stage.ways):
            found = self.stage.lane_at(ego, place_s)
            assert found is not None
            lane, s = found
            k = int(np.searchsorted(lane.s, s)) - 1
            half = float(np.hypot(*(lane.left[k] - lane.right[k]))) / 2.0
            index = self.stage.traffic.lane_index[lane.id]
            self.row = self.stage.car(index, s, 0.0, mode=PARKED, offset=-(half + VERGE))
            if self.row is not None:
                self.parked, self.place_s = True, place_s
                return None
        return "neither a lane beside the route nor a free kerb"

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        fleet, row = self.stage.traffic.fleet, self.row
        if row is None or not fleet.active[row]:
            return super().before_step(ego, running)
        if self.parked:
            v = max(float(ego.state[3]), 0.0)
            if running and not self.begun and self.place_s - ego.route_s - ego.vehicle.front_length < NEAR_M + NEAR_S * v:
                pull_out(self.stage.traffic.graph, fleet, row)
                self.begun = True
        elif not running:
            self.pace(ego)
        elif not self.begun:
            fleet.cooldown[row] = 0.0
            fleet.order[row], fleet.want[row], fleet.eager[row] = UNSET, self.side, 0.7
            self.begun = bool(fleet.change[row] < 1.0)
        else:
            fleet.cooldown[row] = 1e6  # it stays where it came
        return super().before_step(ego, running)

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return self.seconds > LONGEST_S or (self.begun and self.far(ego))


def pull_out(graph: Graph, fleet: Any, row: int) -> None:
    """A parked car drives off into its lane."""
    fleet.mode[row], fleet.change[row], fleet.change_length[row] = DRIVEN, 0.0, PULL_OUT_M
    fleet.speed[row], fleet.eager[row] = 1.0, 0.5
    extend_plan(graph, fleet, row)
