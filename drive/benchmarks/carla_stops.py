"""Red lights and stop signs for planners that read the ground truth: bars across every lane of the approach.

In the route's lane alone a bar would be one more thing that stands there, and the lane beside it the way around. A sign's bars stand until the car has stood there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import compose, interpolate_poses, project, relative, wrap_angle
from drive.metrics.carla_signs import STOP_NEAR

if TYPE_CHECKING:
    from drive.simulators.carla_simulator import CarlaSimulator
    from drive.simulators.carla_town import ClientTown
    from drive.simulators.routes import Route

Array = NDArray[np.float64]
STOOD = 0.1  # m/s below which a car stands, to the judge
BESIDE, ALONG = 2.5, 1.0  # m of a sign's trigger from the route, rad of its lane's heading from the route's
SEEN_M = 80.0  # m of route ahead
RED, YELLOW = "Red", "Yellow"
STOPPING, REACTION_S = 3.0, 0.5  # m/s^2 and s with which the expert stops for a light that turns yellow
SPARE_S, TAIL_M = 0.5, 1.0  # s before the red by which its tail wants to be over the line, and m behind the tail at which the judge looks
BEHIND_M = 10.0  # m behind the car's place on the route that signs are looked for: past a trigger its bar stays where it is
BAR_M = 4.5  # m from the trigger's middle to the bar: who keeps 3.5 m from it stands with its middle in the trigger's reach


def red_lights(simulator: CarlaSimulator, town: ClientTown, route_lane_ids: tuple[str, ...]) -> list[Array]:
    """(3,) poses of the ends of the lanes of the route, and of those beside them, whose light is red, or yellow and to be stopped at."""
    lanes = town.road_map.lanes
    roads = {lanes[i].roadblock or i for i in route_lane_ids if i in lanes}
    found = []
    for light in town.lights:
        state = light.actor.get_state().name
        if state in (RED, YELLOW):
            stops = [stop for lane, stop in zip(light.lanes, light.stops) if lane in lanes and (lanes[lane].roadblock or lane) in roads]
            left = light.actor.get_yellow_time() - light.actor.get_elapsed_time() if state == YELLOW else 0.0
            found += [stop for stop in stops if state == RED or not passes(simulator, stop, left)]
    return found


def passes(simulator: CarlaSimulator, stop: Array, left: float) -> bool:
    """Whether a car goes on over the end (3,) of its lane while the light is yellow, `left` s more: it can stop no more, and is over before the red.

    Who brakes as it was told to is never told to go on later.
    """
    route, vehicle = simulator.route, simulator.ego.vehicle
    ahead = float(project(route.path[:, :2], stop[:2])[0]) - simulator.route_s - vehicle.front_length
    speed = max(float(simulator.state[3]), 0.0)
    stops = ahead > speed**2 / (2.0 * STOPPING) + REACTION_S * speed
    return ahead < 0.0 or (not stops and ahead + vehicle.length + TAIL_M < (left - SPARE_S) * speed)


def stops_ahead(simulator: CarlaSimulator, town: ClientTown) -> list[Array]:
    """(3,) poses of bars across the route for the stop signs ahead at which the car has not stood since it came near."""
    found = []
    route, index = simulator.route, simulator.route_index
    low = max(index - int(BEHIND_M), 0)
    part = slice(low, index + int(SEEN_M))
    middle = simulator.ego.vehicle.rear_to_center
    for sign in town.signs:
        gap = np.hypot(*(route.path[part, :2] - sign.trigger).T)
        at = int(np.argmin(gap)) + low
        if gap[at - low] > BESIDE or not _meant(town, route.path[at], sign.trigger):
            continue
        passed = simulator.route_s + middle > route.s[at] + STOP_NEAR
        if not passed and not stood(simulator.states, middle, sign.trigger):
            bar = interpolate_poses(route.s, route.path, np.array([min(route.s[at] + BAR_M, route.length)]))[0]
            found += [compose(bar, np.array([0.0, left, 0.0])) for left in _abreast(town, route, at)]
    return found


def _abreast(town: ClientTown, route: Route, at: int) -> list[float]:
    """m to the left of the route of its own lane's middle (0) and of those beside it, at its point `at`."""
    lanes, pose = town.road_map.lanes, route.path[at]
    own = lanes[route.lane_id(at)]
    left = [0.0]
    for lane in lanes.values():
        if own.roadblock and lane.roadblock == own.roadblock and lane.id != own.id:
            near = lane.centerline[int(np.argmin(np.hypot(*(lane.centerline[:, :2] - pose[:2]).T)))]
            left.append(float(relative(pose, near)[1]))
    return left


def _meant(town: ClientTown, pose: Array, trigger: Array) -> bool:
    """Whether a sign rules the route: its lane, the nearest outside junctions, heads as the route does there."""
    best, heading = np.inf, 0.0
    for lane in town.road_map.lanes.values():
        if not lane.is_connector:
            gap = np.hypot(*(lane.centerline[:, :2] - trigger).T)
            k = int(np.argmin(gap))
            if gap[k] < best:
                best, heading = float(gap[k]), float(lane.centerline[k, 2])
    return abs(float(wrap_angle(heading - pose[2]))) < ALONG


def stood(states: list[Array], middle: float, trigger: Array) -> bool:
    """Whether a car stood within STOP_NEAR m of a trigger since it came there; `middle` m from a state's place to the box's middle."""
    for state in reversed(states):
        place = compose(state[:3], np.array([middle, 0.0, 0.0]))
        if np.hypot(*(place[:2] - trigger)) > STOP_NEAR:
            return False
        if np.hypot(state[3], state[4]) < STOOD:
            return True
    return False
