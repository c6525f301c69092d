"""nuPlan's map metrics of a driven history, and its closed-loop score.

    CLS = NC * DAC * MP * DDC * (5 EP + 5 TTC + 4 SL + 2 C) / 16

Source: nuplan-devkit v1.2, drivable_area_compliance.py, driving_direction_compliance.py, ego_progress_along_expert_route.py,
ego_is_making_progress.py, speed_limit_compliance.py and their settings; closed_loop_*_weighted_average.yaml. Everything is taken at
the middle of the ego's box. nuPlan's own expected values need its maps, which are not at hand: these are held to hand-made cases.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import Array, box_corners
from drive.core.types import Tracks
from drive.core.vehicle import PACIFICA, STATE_SIZE, VehicleParams
from drive.metrics.nuplan_comfort import comfortable
from drive.metrics.nuplan_route import LaneIndex, Route, driven_route, in_one_lane, simplified
from drive.metrics.nuplan_safety import collision_score, find_collisions, times_to_collision, ttc_score

OFF_ROAD_TOLERANCE = 0.3  # m
AGAINST, FAR_AGAINST = 2.0, 6.0  # m against the traffic within a second
LEAST_PROGRESS = 2.0  # m, below which driver and expert count as having moved this far
MAKING_PROGRESS = 0.2  # of the expert's progress
OVERSPEED = 2.23  # m/s over the limit, throughout, that leave nothing
MULTIPLIERS = ("nc", "dac", "mp", "ddc")
WEIGHTS = {"ep": 5.0, "ttc": 5.0, "sl": 4.0, "comfort": 2.0}


def centers(poses: Array, vehicle: VehicleParams = PACIFICA) -> Array:
    """(T, 2) middles of the boxes of rear-axle poses (T, 3)."""
    return poses[:, :2] + vehicle.rear_to_center * np.column_stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])])


def drivable_area_compliance(index: LaneIndex, corners: Array, route: Route) -> float:
    """0 where a corner (T, 4, 2) off the lanes and the drivable area is 0.3 m or more from both it and the ego's lanes (`route`), else 1."""
    on_road = shapely.contains_xy(index.drivable, corners[..., 0], corners[..., 1])
    on_road |= np.array([bool(names) for names in index.inside(corners.reshape(-1, 2))]).reshape(on_road.shape)
    for step, corner in np.argwhere(~on_road):
        point = shapely.Point(corners[step, corner])
        areas = [index.drivable, *(index.polygon[name] for name in route[step])]
        if all(area.is_empty or area.distance(point) >= OFF_ROAD_TOLERANCE for area in areas):
            return 0.0
    return 1.0


def progress_along_lanes(index: LaneIndex, points: Array, route: Route, dt: float) -> Array:
    """(T,) metres along the lanes' direction over the last second of middles (T, 2), negative against it.

    The first two steps in a lane, and steps off the lanes, count 0.
    """
    made, before = np.zeros(len(points)), None
    lane = route[0][0] if route[0] else ""
    lines = [index.baseline[names[0]] if names else None for names in route]
    feet = shapely.line_locate_point(lines, shapely.points(points)).tolist()
    for i, (names, s) in enumerate(zip(route, feet)):
        if not names:
            continue
        if names[0] != lane:
            lane, before = names[0], None
            continue
        made[i] = s - before if before is not None and s else 0.0  # upstream takes a foot at the lane's very start for none
        before = s
    window = int(1.0 / dt + 1e-9)
    return np.array([made[max(0, i - window) : i + 1].sum() for i in range(len(made))])


def driving_direction_compliance(progress: Array) -> float:
    """1 below 2 m against the traffic within a second, 0.5 below 6 m, else 0, of `progress_along_lanes`."""
    against = abs(float(progress.min()))
    return 1.0 if against < AGAINST else 0.5 if against < FAR_AGAINST else 0.0


def progress_along_route(index: LaneIndex, points: Array, expert_route: Route) -> float:
    """Metres along the roadblocks of the expert's simplified route (not empty) that the middles (T, 2) make.

    In a roadblock, along the baseline of the expert's lane there; into a later one, the rest of the last baseline, what the new one
    has beyond its end, and what skipped ones bridge. Off the route nothing is made.
    """
    names = [lanes[0] for lanes in expert_route]
    names = [name for i, name in enumerate(names) if not i or _token(index, name) != _token(index, names[i - 1])]
    lines, blocks = [index.baseline[name] for name in names], np.array([index.block(name) for name in names])
    inside = shapely.contains_xy(blocks[:, None], points[:, 0], points[:, 1])  # (K, T)
    feet = shapely.line_locate_point(np.array(lines)[:, None], shapely.points(points))
    at, total = 0, 0.0
    before = feet[0, 0]
    for i in range(1, len(points)):
        ahead = np.flatnonzero(inside[at:, i])
        if not len(ahead):
            continue
        entered = at + int(ahead[0])
        s = feet[entered, i]
        if entered == at:
            total += s - before
        else:
            total += lines[at].length - before + s - lines[entered].project(_last(lines[at]))
            total += sum(lines[k].project(_first(lines[k + 1])) - lines[k].project(_last(lines[k - 1])) for k in range(at + 1, entered))
        at, before = entered, s
    return float(total)


def _token(index: LaneIndex, name: str) -> str:
    return index.lanes[name].roadblock or name


def _first(line: shapely.LineString) -> shapely.Point:
    return shapely.Point(line.coords[0])


def _last(line: shapely.LineString) -> shapely.Point:
    return shapely.Point(line.coords[-1])


def expert_progress_ratio(index: LaneIndex, points: Array, expert_points: Array) -> float:
    """nuPlan's ego_progress_along_expert_route, 0..1, of middles (T, 2) and the expert's; 1 where the expert was on no lane."""
    route = simplified(driven_route(index, expert_points))
    if not route:
        return 1.0
    own, expert = progress_along_route(index, points, route), progress_along_route(index, expert_points, route)
    if own < -LEAST_PROGRESS:
        return 0.0
    return min(1.0, max(own, LEAST_PROGRESS) / max(expert, LEAST_PROGRESS))


def overspeeds(index: LaneIndex, speeds: Array, route: Route) -> Array:
    """(T,) m/s over the limit; 0 off the lanes and where a limit is unknown (0 or NaN).

    On connectors the highest limit of the lanes before and after them holds.
    """
    out = np.zeros(len(speeds))
    for i, names in enumerate(route):
        if not names:
            continue
        first = index.lanes[names[0]]
        edges = [edge for name in names for edge in (*index.lanes[name].successors, *index.lanes[name].predecessors)]
        limits = [index.lanes[k].speed_limit for k in edges if k in index.lanes] if first.is_connector else [first.speed_limit]
        if limits and all(limit > 0.0 for limit in limits):
            out[i] = max(0.0, float(speeds[i]) - max(limits))
    return out


def speed_limit_compliance(over: Array) -> float:
    """0..1 of `overspeeds` (T,): 1 less their sum over 2.23 m/s times the duration."""
    if len(over) < 2:
        return 1.0
    return max(0.0, 1.0 - float(over.sum()) / (OVERSPEED * (len(over) - 1)))


def closed_loop_score(parts: Mapping[str, float]) -> float:
    """CLS, 0..1, of the parts named in MULTIPLIERS and WEIGHTS; a weighted part that is NaN is left out with its weight, as nuPlan does it."""
    known = {name: weight for name, weight in WEIGHTS.items() if not np.isnan(parts[name])}
    mean = sum(weight * parts[name] for name, weight in known.items()) / sum(known.values()) if known else 0.0
    return float(np.prod([parts[name] for name in MULTIPLIERS if not np.isnan(parts[name])])) * mean


def nuplan_closed_loop(
    index: LaneIndex, states: Array, tracks: Tracks, expert_poses: Array, dt: float, vehicle: VehicleParams = PACIFICA
) -> dict[str, float]:
    """All parts of CLS and "score", 0..1, of a driven history.

    states (T, 11), see drive.core.vehicle, and tracks over the same T steps `dt` s apart; expert_poses (E, 3) are the log's rear axles.
    Raises DataError on other shapes and NaN.
    """
    states, expert_poses = np.asarray(states, np.float64), np.asarray(expert_poses, np.float64)
    if states.ndim != 2 or states.shape[1] != STATE_SIZE or expert_poses.ndim != 2 or expert_poses.shape[1] != 3 or not len(expert_poses):
        raise DataError(f"CLS takes states (T, {STATE_SIZE}) and expert poses (E, 3), got {states.shape} and {expert_poses.shape}")
    if not (np.isfinite(states).all() and np.isfinite(expert_poses).all()) or not dt > 0.0:
        raise DataError("CLS takes finite states, finite expert poses and a positive time step, got NaN or infinity")
    middle, expert = centers(states[:, :3], vehicle), centers(expert_poses, vehicle)
    corners = box_corners(states[:, :3], vehicle.length, vehicle.width, vehicle.rear_to_center)
    route = driven_route(index, middle)
    outside: NDArray[np.bool_] = ~in_one_lane(index, corners)
    crossing = shapely.contains_xy(index.intersections, states[:, 0], states[:, 1])
    contacts = find_collisions(states, tracks, outside, vehicle)
    ratio = expert_progress_ratio(index, middle, expert)
    parts = {
        "nc": collision_score(contacts),
        "dac": drivable_area_compliance(index, corners, route),
        "mp": float(ratio >= MAKING_PROGRESS),
        "ddc": driving_direction_compliance(progress_along_lanes(index, middle, route, dt)),
        "ep": ratio,
        "ttc": ttc_score(times_to_collision(states, tracks, contacts, outside, crossing, vehicle)),
        "sl": speed_limit_compliance(overspeeds(index, np.hypot(states[:, 3], states[:, 4]), route)),
        "comfort": comfortable(states, dt),
    }
    return {**parts, "score": closed_loop_score(parts)}
