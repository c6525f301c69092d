"""Things that stand in the ego's lane: a parked car, an accident, works with cones, a car behind a junction, an open door."""

from __future__ import annotations

from typing import Any

import numpy as np

from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_stage import Stage
from drive.simulators.carla_scenario_ways import Ways, lane_half
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import PARKED

DISTANCE = 40.0  # m from the trigger to the obstacle
PASSED_M = 15.0  # m behind the obstacle at which the ego has passed it
CRASHED = 2  # cars of an accident
APART_M = 8.0  # m between them
CONES = (  # what marks works, in the order of preference
    *("static.prop.constructioncone", "static.prop.trafficcone01", "static.prop.trafficcone02", "static.prop.streetbarrier"),
    "static.prop.warningconstruction",
)
BOARD, BOARD_M = "static.prop.trafficwarning", 3.0  # that announces them, m before the first cone
TAPER_M, WORKS_M, CONE_M = 10.0, 12.0, 2.0  # m along the lane: of the taper, of the works, between cones
TRIES_M = (0.0, 8.0, -8.0, 16.0, 24.0, 32.0)  # m from where the file wants it at which an obstacle may stand
BLOCKER_M, NEAR_M, WAIT_S = 7.0, 13.0, 10.0  # m behind a junction; m of the ego to it, and s after that, at which it goes (blocked_intersection.py)
DOOR_S, DOOR_M, DOOR_PROP = 3.0, 10.0, "static.prop.streetsign"  # s or m of the ego at which it opens (vehicle_opens_door.py); what it is made of
DOOR_REACH, DOOR_THICK, DOOR_AHEAD, BESIDE = 1.0, 0.2, 0.6, 1.3  # m of the door, m ahead of its car's middle, m of that from the lane's border
PAST_DOOR_M = 20.0  # m behind the car with the door at which the ego has passed it
SHARE = 0.9  # of the lane's width that the works take: who goes on has to leave it


class _Obstacle(Part):
    """Stands from its placing until the ego has passed."""

    end_s = 0.0
    length_m = 0.0  # m along the lane

    @classmethod
    def spot(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> float | None:
        """m along the route of a stretch of road outside junctions, as near to where the file wants it as may be."""
        found = ways.plain(route, spec.trigger_s + spec.number("distance", DISTANCE) - 3.0, cls.length_m + 6.0, TRIES_M)
        return None if found is None else found + 3.0

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        return "no stretch of road without a junction behind the trigger" if cls.spot(spec, route, ways) is None else None

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.end_s + PASSED_M


class ParkedObstacle(_Obstacle):
    """A car, or those of an accident, in the lane."""

    length_m = APART_M * (CRASHED - 1) + 5.0

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        count = CRASHED if self.spec.type.startswith("Accident") else 1
        at = self.spot(self.spec, ego.route, self.stage.ways)
        if at is None:
            return self.fits(self.spec, ego.route, self.stage.ways)
        self.stage.clear_way(ego, at + APART_M * count)
        side = 1.0 if self.spec.values.get("direction") == "left" else -1.0
        for k in range(count):
            found = self.stage.lane_at(ego, at + k * APART_M)
            assert found is not None
            lane, s = found
            offset = side * float(self.stage.rng.uniform(0.0, 0.5))
            if self.stage.car(self.stage.traffic.lane_index[lane.id], s, 0.0, mode=PARKED, offset=offset) is None:
                return "another actor stands where the car would"
        self.end_s = at + APART_M * (count - 1)
        return None


class Construction(_Obstacle):
    """A board, and behind it cones that close the lane from its right: a taper, then a row along the works."""

    length_m = TAPER_M + WORKS_M

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        library = {b.id for b in self.stage.session.world.get_blueprint_library().filter("static.prop.*")}
        cone = next((name for name in CONES if name in library), None)
        if cone is None:
            return f"this server's library has none of {', '.join(CONES)}"
        at = self.spot(self.spec, ego.route, self.stage.ways)
        if at is None:
            return self.fits(self.spec, ego.route, self.stage.ways)
        self.stage.clear_way(ego, at + TAPER_M + WORKS_M)
        self.poses = cone_poses(self.stage, ego, at)
        placed = self.stage.things_at(cone, self.poses)
        if BOARD in library:
            self.stage.things_at(BOARD, self.stage.pose(ego, at - BOARD_M)[None])
        if placed < len(self.poses):
            return f"only {placed} of {len(self.poses)} cones found room"
        middle, half = self.stage.pose(ego, at + (TAPER_M + WORKS_M) / 2.0), self._half(ego, at)
        aside = half * (1.0 - SHARE)
        x, y = middle[0] + np.sin(middle[2]) * aside, middle[1] - np.cos(middle[2]) * aside
        if not self.stage.block(x, y, middle[2], TAPER_M + WORKS_M, 2.0 * half * SHARE):
            return "the traffic has no row left for the works"
        self.end_s = at + TAPER_M + WORKS_M
        return None

    def _half(self, ego: EgoView, at: float) -> float:
        found = self.stage.lane_at(ego, at)
        assert found is not None
        return lane_half(found[0])


class BlockedExit(_Obstacle):
    """A car stands where the ego leaves the junction; once the ego has waited behind it for a while it is gone."""

    waited_s = 0.0

    @classmethod
    def spot(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> float | None:
        """m along the route of the car's middle."""
        left = ways.behind_junction(route, spec.trigger_s)
        return None if left is None else ways.plain(route, left + BLOCKER_M, 3.0, (0.0, 2.0, 4.0))

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        return "no junction with road behind it ahead of the trigger" if cls.spot(spec, route, ways) is None else None

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        at = self.spot(self.spec, ego.route, self.stage.ways)
        found = None if at is None else self.stage.lane_at(ego, at)
        if at is None or found is None:
            return self.fits(self.spec, ego.route, self.stage.ways)
        self.stage.clear_lane(self.stage.traffic.lane_index[found[0].id], found[1] - 15.0, found[1] + 10.0)
        row = self.stage.car(self.stage.traffic.lane_index[found[0].id], found[1], 0.0, mode=PARKED)
        if row is None:
            return "another actor stands where the car would"
        self.row, self.end_s = row, at
        return None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        fleet = self.stage.traffic.fleet
        near = np.hypot(fleet.x[self.row] - fleet.x[0], fleet.y[self.row] - fleet.y[0]) < NEAR_M
        self.waited_s += self.dt if running and (near or self.waited_s > 0.0) else 0.0
        return super().before_step(ego, running)

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return self.waited_s > WAIT_S or super().over(ego)


class OpenDoor(_Obstacle):
    """A car at the kerb opens its door into the ego's lane. Servers without doors that move get a thing of the door's size in its place."""

    length_m = 8.0
    opened = False

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        at = self.spot(self.spec, ego.route, self.stage.ways)
        found = None if at is None else self.stage.lane_at(ego, at)
        if at is None or found is None:
            return self.fits(self.spec, ego.route, self.stage.ways)
        kinds = [k for k in self.stage.kinds("has_dynamic_doors", True) if k.length < 5.5]
        if not kinds:
            return "this server's library has no cars with doors"
        kind = kinds[int(self.stage.rng.integers(len(kinds)))]
        self.half, self.end_s = lane_half(found[0]), at
        self.side = 1.0 if self.spec.values.get("direction") == "left" else -1.0
        aside = self.side * (self.half + BESIDE)
        row = self.stage.car(self.stage.traffic.lane_index[found[0].id], found[1], 0.0, mode=PARKED, offset=aside, kind=kind)
        if row is None:
            return "another actor stands where the car would"
        self.row = row
        return None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        rest = self.end_s - ego.route_s - ego.vehicle.rear_to_center
        if running and not self.opened and (rest < DOOR_M or rest / max(float(ego.state[3]), 0.1) < DOOR_S):
            self.opened = True
            self._open(ego)
        return super().before_step(ego, running)

    def _open(self, ego: EgoView) -> None:
        session = self.stage.session
        car = session.world.get_actor(int(self.stage.surroundings.mirror.actor[self.row]))
        doors = session.carla.VehicleDoor
        car.open_door(doors.FR if self.side > 0.0 else doors.FL)
        x, y, heading = self.stage.pose(ego, self.end_s + DOOR_AHEAD).tolist()
        aside = self.side * (self.half - DOOR_REACH / 2.0)
        x, y = x - np.sin(heading) * aside, y + np.cos(heading) * aside
        self.stage.things_at(DOOR_PROP, np.array([[x, y, heading + np.pi / 2.0]]))
        self.stage.block(x, y, heading, DOOR_THICK, DOOR_REACH)

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.end_s + PAST_DOOR_M


def cone_poses(stage: Stage, ego: EgoView, at: float) -> np.ndarray:
    """(N, 3) of the cones of works that begin `at` m along the route, right-handed."""
    found = stage.lane_at(ego, at)
    assert found is not None
    half = lane_half(found[0])
    rows = []
    for along in np.arange(0.0, TAPER_M + WORKS_M + 1e-6, CONE_M):
        x, y, heading = stage.pose(ego, at + along)
        aside = half - 2.0 * half * SHARE * min(along / TAPER_M, 1.0)  # to the right of the middle
        rows.append((x + np.sin(heading) * aside, y - np.cos(heading) * aside, heading))
    return np.array(rows)
