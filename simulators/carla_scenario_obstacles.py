"""Things that stand in the ego's lane: a parked car, an accident, works with cones."""

from __future__ import annotations

import numpy as np

from drive.simulators.carla_scenario_part import Part
from drive.simulators.carla_scenario_stage import Stage
from drive.simulators.carla_traffic import EgoView
from drive.simulators.traffic_fleet import PARKED

DISTANCE = 40.0  # m from the trigger to the obstacle
PASSED_M = 15.0  # m behind the obstacle at which the ego has passed it
CRASHED = 2  # cars of an accident
APART_M = 8.0  # m between them
CONES = (  # what marks works, in the order of preference
    *("static.prop.constructioncone", "static.prop.trafficcone01", "static.prop.trafficcone02", "static.prop.streetbarrier"),
    "static.prop.warningconstruction",
)
TAPER_M, WORKS_M, CONE_M = 10.0, 12.0, 2.0  # m along the lane: of the taper, of the works, between cones
SHARE = 0.45  # of the lane's width that the works take


class _Obstacle(Part):
    """Stands from its placing until the ego has passed."""

    end_s = 0.0

    def spot(self, ego: EgoView, length: float) -> float | None:
        """m along the route of a stretch of road of `length` m outside junctions, as near to where the file wants it as may be."""
        first, route = self.spec.trigger_s + self.number("distance", DISTANCE), ego.route
        for extra in (0.0, 8.0, -8.0, 16.0, 24.0, 32.0):
            inside = (route.s > first + extra - 4.0) & (route.s < first + extra + length + 4.0)
            if first + extra + length < route.length - 5.0 and not route.is_connector[inside].any():
                return first + extra
        return None

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.end_s + PASSED_M


class ParkedObstacle(_Obstacle):
    """A car, or those of an accident, in the lane."""

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        count = CRASHED if self.spec.type.startswith("Accident") else 1
        at = self.spot(ego, APART_M * (count - 1) + 5.0)
        if at is None:
            return "no stretch of road without a junction behind the trigger"
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
    """Cones that narrow the lane from its right: a taper, then a row along the works."""

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        library = {b.id for b in self.stage.session.world.get_blueprint_library().filter("static.prop.*")}
        cone = next((name for name in CONES if name in library), None)
        if cone is None:
            return f"this server's library has none of {', '.join(CONES)}"
        at = self.spot(ego, TAPER_M + WORKS_M)
        if at is None:
            return "no stretch of road without a junction behind the trigger"
        self.stage.clear_way(ego, at + TAPER_M + WORKS_M)
        self.poses = cone_poses(self.stage, ego, at)
        placed = self.stage.things_at(cone, self.poses)
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
        return lane_half(found[0].left, found[0].right)


def lane_half(left: np.ndarray, right: np.ndarray) -> float:
    """m, half of a lane's width from its borders (N, 2)."""
    return float(np.hypot(*(left - right).T).mean()) / 2.0


def cone_poses(stage: Stage, ego: EgoView, at: float) -> np.ndarray:
    """(N, 3) of the cones of works that begin `at` m along the route, right-handed."""
    found = stage.lane_at(ego, at)
    assert found is not None
    half = lane_half(found[0].left, found[0].right)
    rows = []
    for along in np.arange(0.0, TAPER_M + WORKS_M + 1e-6, CONE_M):
        x, y, heading = stage.pose(ego, at + along)
        aside = half - 2.0 * half * SHARE * min(along / TAPER_M, 1.0)  # to the right of the middle
        rows.append((x + np.sin(heading) * aside, y - np.cos(heading) * aside, heading))
    return np.array(rows)
