"""What can happen to the ego, and the car it is when driven by pedals and wheel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray

from drive.core.geometry import box_corners, compose
from drive.core.roadmap import Layer, RoadMap
from drive.core.vehicle import PACIFICA, VehicleParams
from drive.simulators.traffic import Traffic
from drive.simulators.traffic_kernels import boxes_overlap

Array = NDArray[np.float64]
ROAD_SLACK = 0.25  # m that a corner may hang over the edge of the drivable area
STUCK_AFTER = 300  # steps of standing still


@lru_cache(maxsize=8)
def drivable_area(road_map: RoadMap) -> shapely.Geometry:
    """The drivable area with ROAD_SLACK around it, prepared for many questions."""
    wanted = np.flatnonzero(road_map.polygons.layers == Layer.DRIVABLE_AREA)
    wanted = wanted if len(wanted) else np.arange(len(road_map.polygons))
    area = shapely.union_all(
        [shapely.buffer(shapely.make_valid(shapely.Polygon(road_map.polygons.ring(int(i)))), ROAD_SLACK) for i in wanted]
    )
    shapely.prepare(area)
    return area


class EventLog:
    """(step, text) of what befell the ego, each thing once."""

    def __init__(self, road_map: RoadMap) -> None:
        self.items: list[tuple[int, str]] = []
        self._area = drivable_area(road_map)
        self._said: set[str] = set()
        self._still = 0

    def look(self, step: int, state: Array, traffic: Traffic, route_ended: bool) -> None:
        """Note what is new at `step` with the ego at `state` (11,) as vehicle 0 of `traffic`."""
        boxes = traffic.boxes()
        near = np.hypot(boxes[:, 0] - boxes[0, 0], boxes[:, 1] - boxes[0, 1]) < 12.0
        for i in np.flatnonzero(near & traffic.fleet.active[: traffic.count]):
            if i > 0 and boxes_overlap(boxes[0], boxes[i]):
                self._say(step, f"collision vehicle-{i}")
        corners = box_corners(state[:3], PACIFICA.length, PACIFICA.width, PACIFICA.rear_to_center)
        if not shapely.contains_xy(self._area, corners[:, 0], corners[:, 1]).all():
            self._say(step, "off_road")
        self._still = self._still + 1 if state[3] < 0.1 else 0
        if self._still >= STUCK_AFTER:
            self._say(step, "stuck")
        if route_ended:
            self._say(step, "route_end")

    def _say(self, step: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.items.append((step, text))


def bicycle_step(state: Array, acceleration: float, steering: float, dt: float, vehicle: VehicleParams = PACIFICA) -> Array:
    """The state (11,) after `dt` s of drive.core.vehicle's bicycle at the acceleration (m/s^2) and wheel angle (rad) asked for.

    Both pass the same first-order lags as under the tracker; the car does not roll backwards.
    """
    new = state.copy()
    new[5] = state[5] + dt / (dt + vehicle.tau_acceleration) * (acceleration - state[5])
    angle = float(np.clip(steering, -vehicle.max_steering, vehicle.max_steering))
    new[7] = state[7] + dt / (dt + vehicle.tau_steering) * (angle - state[7])
    turn = state[3] * np.tan(state[7]) / vehicle.wheel_base
    new[:3] = compose(state[:3], np.array([state[3] * dt, 0.0, turn * dt]))
    new[3] = max(state[3] + new[5] * dt, 0.0)
    if new[3] == 0.0:
        new[5] = max(new[5], 0.0)
    new[8], new[9] = (new[7] - state[7]) / dt, new[3] * np.tan(new[7]) / vehicle.wheel_base
    new[10] = (new[9] - state[9]) / dt
    return new
