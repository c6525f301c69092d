"""Captions, questions and answers about a scene, without any action: what a small vision-language model learns before it learns to drive.

The words are those of the expert's reasoning plus a few for questions; numbers are whole, distances in bins of 5 m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import arc_length, points_to_frame, project, wrap_angle
from drive.core.roadmap import Lane
from drive.core.types import AgentType, Privileged

Array = NDArray[np.float64]
VIEW_RANGE = 50.0  # m, how far a car counts as visible
VIEW_ANGLE = np.radians(40.0)  # rad to either side, the front camera's half width
ROAD_AHEAD = 40.0  # m over which the road's shape is judged
SPACING = 2.0  # m between samples of the route
CURVE = np.radians(15.0)  # rad of heading change that make a curve
STEADY = 0.8  # m/s; a smaller difference of speeds is none
CENTERED = 0.3  # m from the lane's centre
FREE_BEHIND, FREE_AHEAD = 10.0, 20.0  # m of a neighbour lane that must be empty for it to be free
LANE_AT = (10.0, 20.0, 30.0, 45.0)  # m along the route
EGO_FRONT = 4.0  # m, rear axle to front bumper, rounded


@dataclass(frozen=True)
class Facts:
    """What can be seen in one scene and is asked about."""

    cars: int  # visible vehicles
    people: int  # visible pedestrians
    lead_gap: float | None  # m from the ego's bumper to the vehicle ahead in its lane; None if there is none in view
    lead_speed: float  # m/s, 0 without one
    ego_speed: float  # m/s
    turn: float  # rad, heading change of the route over ROAD_AHEAD, left positive
    junction: float | None  # m to the next junction on the route, 0 inside; None if beyond VIEW_RANGE
    left: str  # "free", "busy" or "none"
    right: str
    offset: float  # m left of the lane's centre
    lane: tuple[float, ...]  # m to the left of the ego's axis of the route at LANE_AT m along it
    command: str


def _metres(distance: float) -> str:
    return f"{int(5 * round(max(distance, 0.0) / 5.0))} m"


def route_ahead(scene: Privileged) -> Array:
    """(N, 3) the route from the ego on, one sample each SPACING, as far as a car is seen."""
    line = np.asarray(scene.centerline_world, float)
    s, _ = project(line, scene.ego.pose_world[:2])
    along = arc_length(line)
    query = s + np.arange(0.0, VIEW_RANGE + 5.0, SPACING)
    query = query[query <= along[-1]]
    heading = np.interp(query, along, np.unwrap(line[:, 2]))
    return np.column_stack([np.interp(query, along, line[:, 0]), np.interp(query, along, line[:, 1]), heading])


def _junction(scene: Privileged, here: str) -> float | None:
    """Distance along the route to its next lane connector."""
    lanes = [scene.road_map.lanes[k] for k in scene.route_lane_ids if k in scene.road_map.lanes]
    ids = [lane.id for lane in lanes]
    if here not in ids:
        return None
    current = lanes[ids.index(here)]
    if current.is_connector:
        return 0.0
    gap = current.length - project(current.centerline, scene.ego.pose_world[:2])[0] - EGO_FRONT
    for lane in lanes[ids.index(here) + 1 :]:
        if lane.is_connector:
            return max(gap, 0.0) if gap <= VIEW_RANGE else None
        gap += lane.length
    return None


def _neighbor(scene: Privileged, lane: Lane, side: str, centers: Array) -> str:
    """Whether the same-direction lane on `side` exists and is empty beside the ego."""
    name = lane.left_neighbor if side == "left" else lane.right_neighbor
    if name not in scene.road_map.lanes:
        return "none"
    line = scene.road_map.lanes[name].centerline
    s, _ = project(line, scene.ego.pose_world[:2])
    for center in centers:
        at, across = project(line, center)
        if abs(across) < 1.6 and -FREE_BEHIND < at - s < FREE_AHEAD:
            return "busy"
    return "free"


def facts(scene: Privileged) -> Facts:
    """What the answers are made from; reads step 0 of the agents only."""
    pose, now = scene.ego.pose_world, scene.agents.valid[:, 0]
    centers, kinds = scene.agents.poses_world[now, 0], scene.agents.types[now]
    lengths, velocity = scene.agents.size[now, 0], scene.agents.velocity_world[now, 0]
    local = points_to_frame(pose, centers[:, :2])
    distance, bearing = np.hypot(local[:, 0], local[:, 1]), np.abs(np.arctan2(local[:, 1], local[:, 0]))
    visible = (distance <= VIEW_RANGE) & (bearing <= VIEW_ANGLE)
    here = scene.road_map.nearest_lane(pose, scene.route_lane_ids)
    here = scene.road_map.nearest_lane(pose) if abs(project(scene.road_map.lanes[here].centerline, pose[:2])[1]) > 2.0 else here
    lane = scene.road_map.lanes[here]
    line = route_ahead(scene)
    shape = line[: int(ROAD_AHEAD / SPACING) + 1, 2]
    gap, speed = None, 0.0
    for i in np.flatnonzero(visible & (kinds == AgentType.VEHICLE)):
        if len(line) < 2:
            break
        s, across = project(line, centers[i, :2])
        bumper = s - lengths[i] / 2.0 - EGO_FRONT
        same_way = abs(wrap_angle(centers[i, 2] - np.interp(s, arc_length(line), line[:, 2]))) < np.pi / 4
        if s > 0.0 and abs(across) < 1.5 and same_way and (gap is None or bumper < gap):
            gap, speed = max(bumper, 0.0), float(np.hypot(*velocity[i]))
    near = centers[distance < FREE_AHEAD + 10.0, :2]
    return Facts(
        cars=int((visible & (kinds == AgentType.VEHICLE)).sum()),
        people=int((visible & (kinds == AgentType.PEDESTRIAN)).sum()),
        lead_gap=gap,
        lead_speed=speed,
        ego_speed=scene.ego.speed,
        turn=float(shape[-1] - shape[0]),
        junction=_junction(scene, here),
        left=_neighbor(scene, lane, "left", near),
        right=_neighbor(scene, lane, "right", near),
        offset=project(lane.centerline, pose[:2])[1],
        lane=tuple(float(points_to_frame(pose, line[min(round(d / SPACING), len(line) - 1), :2])[1]) for d in LANE_AT),
        command=scene.command.value,
    )


def _shape(turn: float) -> str:
    return "straight" if abs(turn) < CURVE else "curve left" if turn > 0.0 else "curve right"


def _aside(offset: float) -> str:
    """A lateral distance to half a metre near the axis, to a metre farther out."""
    size = abs(offset)
    shown = f"{round(2 * size) / 2:.1f}" if size < 4.0 else f"{min(round(size), 30)}"
    return "0 m" if float(shown) == 0.0 else f"{'left' if offset > 0.0 else 'right'} {shown} m"


def _place(offset: float) -> str:
    return "center" if abs(offset) <= CENTERED else "left" if offset > 0.0 else "right"


def _relation(seen: Facts) -> str:
    if seen.lead_speed <= 0.3:
        return "stopped"
    change = seen.lead_speed - seen.ego_speed
    return "slower" if change < -STEADY else "faster" if change > STEADY else "same speed"


def caption(privileged: Privileged) -> str:
    """One short text that says what is in the picture: road, junction, cars, lead car, place in the lane."""
    seen = facts(privileged)
    words = [f"road {_shape(seen.turn)}"]
    if seen.junction is not None:
        words.append("in junction" if seen.junction <= 0.0 else f"junction {_metres(seen.junction)} ahead")
    words.append(f"{seen.cars} car visible" + (f" , {seen.people} person visible" if seen.people else ""))
    words.append(f"lead car {_metres(seen.lead_gap)} ahead" if seen.lead_gap is not None else "no lead car")
    words.append(f"in lane {_place(seen.offset)}")
    return " . ".join(words) + " ."


def questions(privileged: Privileged, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(question, answer) pairs about the scene in an order drawn from `rng`; the speed of the lead is asked only if there is one."""
    seen = facts(privileged)
    lead = "no" if seen.lead_gap is None else f"yes , {_metres(seen.lead_gap)} ahead"
    junction = "no" if seen.junction is None else "yes , here" if seen.junction <= 0.0 else f"yes , {_metres(seen.junction)} ahead"
    pairs = [
        ("is there a car ahead in my lane ?", lead),
        ("how many car visible ?", f"{seen.cars}"),
        ("how many person visible ?", f"{seen.people}"),
        ("road shape ahead ?", _shape(seen.turn)),
        ("is there a junction ahead ?", junction),
        ("is the left lane free ?", {"free": "yes", "busy": "no , car there", "none": "no lane there"}[seen.left]),
        ("is the right lane free ?", {"free": "yes", "busy": "no , car there", "none": "no lane there"}[seen.right]),
        ("where am i in the lane ?", _place(seen.offset)),
    ]
    reach = " , ".join(f"{at:.0f}" for at in LANE_AT)
    pairs.append((f"command {seen.command} , where is the route in {reach} m ?", " , ".join(map(_aside, seen.lane))))
    if seen.lead_gap is not None:
        pairs.append(("how fast is the lead car ?", _relation(seen)))
    return [pairs[i] for i in rng.permutation(len(pairs))]
