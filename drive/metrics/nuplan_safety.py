"""nuPlan's collision and time-to-collision metrics of a driven history.

Source: nuplan-devkit v1.2, no_ego_at_fault_collisions.py, time_to_collision_within_bound.py, collision_utils.py. A track counts once, at
its first contact, with its state of that moment; it is out of everything afterwards. Lateral contacts are the ego's fault, and
lateral tracks matter to time to collision, only where the caller says that no one lane holds the ego. Pairs whose circles stay apart are
left out over the whole history at once: of a hundred tracks a few are looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.types import AgentType, Tracks
from drive.core.vehicle import PACIFICA, STATE_SIZE, VehicleParams
from drive.metrics.pdms_contacts import STOPPED_SPEED, TTC_STOPPED_SPEED, boxes_meet

Array = NDArray[np.float64]
AHEAD, BEHIND = math.radians(30.0), math.radians(150.0)
TTC_STEP, TTC_HORIZON = 0.1, 3.0  # s
LEAST_TTC = 0.95  # s
SLACK = 1e-3  # m by which circles are drawn too wide, beyond all rounding
VULNERABLE = (AgentType.PEDESTRIAN, AgentType.BICYCLE)
ALLOWED = {"vru": 0, "vehicle": 0, "object": 1}  # at-fault collisions that leave part of the score


class Contact(str, Enum):
    """Kinds of collision, in the order in which they are asked."""

    STOPPED_EGO = "stopped ego"
    STOPPED_TRACK = "stopped track"
    REAR = "active rear"
    FRONT = "active front"
    LATERAL = "active lateral"


@dataclass(frozen=True)
class Collision:
    """The first contact with one track."""

    step: int
    track: str
    group: str  # "vru", "vehicle", "object"
    contact: Contact
    at_fault: bool
    delta_v: float  # m/s, of an ego as heavy as the other


def _group(kind: int) -> str:
    if kind in VULNERABLE:
        return "vru"
    return "vehicle" if kind == AgentType.VEHICLE else "object"


def _bearing(pose: Array, x: float, y: float) -> float:
    """Angle in rad, 0..pi, between the heading at `pose` (3,) and the way to (x, y)."""
    dx, dy = x - pose[0], y - pose[1]
    norm = math.hypot(dx, dy)
    if norm == 0.0:
        return math.nan
    cosine = (math.cos(pose[2]) * dx + math.sin(pose[2]) * dy) / norm
    return math.acos(min(max(cosine, -1.0), 1.0))


def _ego_box(state: Array, vehicle: VehicleParams) -> tuple[float, float, float, float]:
    """Centre x, y, and cos and sin of the heading."""
    c, s = math.cos(state[2]), math.sin(state[2])
    return state[0] + c * vehicle.rear_to_center, state[1] + s * vehicle.rear_to_center, c, s


def _contact(state: Array, tracks: Tracks, a: int, step: int, vehicle: VehicleParams) -> Contact:
    if math.hypot(state[3], state[4]) <= STOPPED_SPEED:
        return Contact.STOPPED_EGO
    if tracks.types[a] >= AgentType.TRAFFIC_CONE or math.hypot(*tracks.velocity_world[a, step]) <= STOPPED_SPEED:
        return Contact.STOPPED_TRACK
    x, y, heading = tracks.poses_world[a, step]
    if _bearing(state, x, y) > BEHIND:
        return Contact.REAR
    c, s = math.cos(state[2]), math.sin(state[2])
    dx, dy = x - (state[0] + c * vehicle.front_length), y - (state[1] + s * vehicle.front_length)
    length, width = tracks.size[a, :2] / 2.0
    bumper = boxes_meet(dx, dy, c, s, 0.0, vehicle.width / 2.0, math.cos(heading), math.sin(heading), length, width)
    return Contact.FRONT if bumper else Contact.LATERAL


def _checked(states: Array, tracks: Tracks, *flags: NDArray[np.bool_]) -> Array:
    states = np.asarray(states, np.float64)
    if states.ndim != 2 or states.shape[1] != STATE_SIZE or not np.isfinite(states).all():
        raise DataError(f"a history has finite ego states (T, {STATE_SIZE}), got {states.shape}")
    if tracks.valid.shape[1] != len(states) or any(flag.shape != (len(states),) for flag in flags):
        raise DataError(f"a history of {len(states)} states wants tracks and flags of as many steps")
    return states


def _within_reach(states: Array, tracks: Tracks, seconds: float, vehicle: VehicleParams) -> NDArray[np.bool_]:
    """(A, T) of tracks that are there: whether their boxes' circle and the ego's come to meet within `seconds`, if both keep speed and heading.

    True wherever the boxes meet, and where a number is not finite.
    """
    own, other = (np.stack([np.cos(heading), np.sin(heading)], axis=-1) for heading in (states[:, 2], tracks.poses_world[..., 2]))
    speed = np.where(tracks.types[:, None] >= AgentType.TRAFFIC_CONE, 0.0, np.hypot(tracks.velocity_world[..., 0], tracks.velocity_world[..., 1]))
    gap = tracks.poses_world[..., :2] - (states[:, :2] + vehicle.rear_to_center * own)
    closing = other * speed[..., None] - own * np.hypot(states[:, 3], states[:, 4])[:, None]
    square = (closing**2).sum(axis=-1)
    nearest = np.clip(-(gap * closing).sum(axis=-1) / np.where(square > 0.0, square, 1.0), 0.0, seconds)
    gap = gap + closing * nearest[..., None]
    reach = np.hypot(vehicle.length, vehicle.width) / 2.0 + np.hypot(tracks.size[:, 0], tracks.size[:, 1]) / 2.0 + SLACK
    return tracks.valid & ~((gap**2).sum(axis=-1) > reach[:, None] ** 2)


def find_collisions(states: Array, tracks: Tracks, outside_one_lane: NDArray[np.bool_], vehicle: VehicleParams = PACIFICA) -> list[Collision]:
    """First contacts of the ego, states (T, 11), with `tracks` of the same T steps, in order of time.

    outside_one_lane (T,): no lane, or lanes that follow one another, hold all corners of the ego. Raises DataError on other shapes.
    """
    states = _checked(states, tracks, outside_one_lane)
    found, done = [], np.zeros(len(tracks), bool)
    half_length, half_width = vehicle.length / 2.0, vehicle.width / 2.0
    near = _within_reach(states, tracks, 0.0, vehicle)
    for step in np.flatnonzero(near.any(axis=0)).tolist():
        state = states[step]
        x, y, c, s = _ego_box(state, vehicle)
        for a in np.flatnonzero(near[:, step] & ~done):
            px, py, heading = tracks.poses_world[a, step]
            length, width = tracks.size[a, :2] / 2.0
            if not boxes_meet(px - x, py - y, c, s, half_length, half_width, math.cos(heading), math.sin(heading), length, width):
                continue
            done[a] = True
            contact = _contact(state, tracks, int(a), step, vehicle)
            fault = contact in (Contact.FRONT, Contact.STOPPED_TRACK) or (contact is Contact.LATERAL and bool(outside_one_lane[step]))
            found.append(Collision(step, tracks.ids[a], _group(int(tracks.types[a])), contact, fault, _delta_v(state, tracks, int(a), step)))
    return found


def _delta_v(state: Array, tracks: Tracks, a: int, step: int) -> float:
    """Half the difference of the two velocities along their headings, m/s: equal masses."""
    own, other = math.hypot(state[3], state[4]), math.hypot(*tracks.velocity_world[a, step])
    if tracks.types[a] >= AgentType.TRAFFIC_CONE:
        other = 0.0
    angle = state[2] - tracks.poses_world[a, step, 2]
    return math.sqrt(max(own**2 + other**2 - 2.0 * own * other * math.cos(angle), 0.0)) / 2.0


def collision_score(collisions: list[Collision]) -> float:
    """0..1: one at-fault contact with a road user leaves 0, one with an object 0.5, two 0."""
    counts = {group: sum(c.at_fault and c.group == group for c in collisions) for group in ALLOWED}
    return float(np.prod([max(0.0, 1.0 - counts[group] / (allowed + 1)) for group, allowed in ALLOWED.items()]))


@njit(cache=True)
def _first_meeting(x, y, c, s, speed, half_length, half_width, boxes, speeds, sizes, step, horizon):
    """Least time (s) at which the ego box and one of the boxes (A, 4) meet if all keep speed and heading; infinite if none."""
    count = math.ceil(horizon / step - 1e-9)
    for k in range(1, count):
        t = k * step
        for a in range(len(boxes)):
            b = boxes[a]
            dx = b[0] + b[2] * speeds[a] * t - (x + c * speed * t)
            dy = b[1] + b[3] * speeds[a] * t - (y + s * speed * t)
            if boxes_meet(dx, dy, c, s, half_length, half_width, b[2], b[3], sizes[a, 0], sizes[a, 1]):
                return t
    return math.inf


def times_to_collision(
    states: Array,
    tracks: Tracks,
    collisions: list[Collision],
    outside_one_lane: NDArray[np.bool_],
    in_intersection: NDArray[np.bool_],
    vehicle: VehicleParams = PACIFICA,
    horizon: float = TTC_HORIZON,
) -> Array:
    """Time to collision (T,) in s, infinite where none is near, of a history as `find_collisions` takes it.

    At constant velocity of all, in steps of 0.1 s below `horizon` (3 s: up to 2.9 s). Tracks ahead (within 30 degrees) count; beside the ego only where it
    is outside one lane or its rear axle in an intersection; behind (beyond 150 degrees) never. 0 at an at-fault collision.
    """
    states = _checked(states, tracks, outside_one_lane, in_intersection)
    index = {token: a for a, token in enumerate(tracks.ids)}
    gone = np.full(len(tracks), len(states))
    for collision in collisions:
        gone[index[collision.track]] = collision.step
    faults = {collision.step for collision in collisions if collision.at_fault}
    static = tracks.types >= AgentType.TRAFFIC_CONE
    times = np.full(len(states), np.inf)
    reached = _within_reach(states, tracks, horizon, vehicle) & (np.arange(len(states)) < gone[:, None])
    for step in sorted(faults.union(np.flatnonzero(reached.any(axis=0)).tolist())):
        state = states[step]
        speed = math.hypot(state[3], state[4])
        if step in faults:
            times[step] = 0.0
            continue
        if speed <= TTC_STOPPED_SPEED:
            continue
        beside = bool(outside_one_lane[step] or in_intersection[step])
        near = [a for a in np.flatnonzero(reached[:, step]) if _matters(state, tracks.poses_world[a, step], beside)]
        if not near:
            continue
        poses = tracks.poses_world[near, step]
        boxes = np.column_stack([poses[:, :2], np.cos(poses[:, 2]), np.sin(poses[:, 2])])
        speeds = np.where(static[near], 0.0, np.hypot(*tracks.velocity_world[near, step].T))
        x, y, c, s = _ego_box(state, vehicle)
        half = np.ascontiguousarray(tracks.size[near, :2] / 2.0)
        times[step] = _first_meeting(x, y, c, s, speed, vehicle.length / 2.0, vehicle.width / 2.0, boxes, speeds, half, TTC_STEP, horizon)
    return times


def _matters(state: Array, pose: Array, beside: bool) -> bool:
    bearing = _bearing(state, pose[0], pose[1])
    return bearing < AHEAD or (beside and not bearing > BEHIND)


def ttc_score(times: Array) -> float:
    """1 where every time to collision is above 0.95 s, else 0."""
    return float((np.asarray(times) > LEAST_TTC).all())
