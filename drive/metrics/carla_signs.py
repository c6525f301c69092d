"""Red lights, stop signs and emergency vehicles of a roll-out.

Source: scenario_runner atomic_criteria.py, RunningRedLightTest, RunningStopTest and YieldToEmergencyVehicleTest, as leaderboard 2.x and
Bench2Drive use them. Everything is flat; upstream's distances have heights too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.metrics.carla_lanes import LaneIndex
from drive.metrics.carla_progress import STILL, place
from drive.metrics.carla_records import Event, Infraction

Array = NDArray[np.float64]
LIGHT_NEAR = 15.0  # m from the trigger volume of a light
TAIL_START, TAIL_END = 0.8, 1.0  # the tail: from that share of the half length to that many metres behind the car
LINE_SHARE = 0.6  # of the lane's width, to each side
STOP_NEAR, STOP_STEP, STOP_SCALE = 4.0, 0.5, 1.2  # m, m, of the trigger volume
BACKWARDS = -0.17  # cosine (and m/s) below which a car drives backwards or against its lane


@dataclass(frozen=True)
class TrafficLight:
    """A light and the stop lines it rules: the last lane points before the junction, of the lanes its trigger volume covers."""

    id: int
    position: Array  # (2,) of the actor, for messages
    trigger: Array  # (2,) centre of the trigger volume
    stops: Array  # (K, 3) x, y, heading


@dataclass(frozen=True)
class StopSign:
    """A stop sign; upstream takes its trigger volume along the axes of the world, however the sign stands."""

    id: int
    position: Array  # (2,) of the actor, for messages
    trigger: Array  # (2,) centre of the trigger volume
    half_size: Array  # (2,) half extents along the world's x and y, m


def stop_lines(trigger: Array, heading: float, half_extent: float, driving: LaneIndex) -> Array:
    """(K, 3) stop poses of the lanes under a light's trigger volume: centre (2,), heading of its actor, half extent along it, m.

    Lanes are looked for every metre over nine tenths of the volume, so that it does not reach into the next one, and followed to the junction.
    """
    offsets = np.arange(-0.9 * half_extent, 0.9 * half_extent, 1.0)
    found = driving.nearest(trigger + offsets[:, None] * [np.cos(heading), np.sin(heading)])
    new = np.concatenate([[True], np.diff(found.road_lane) != 0])[: len(offsets)]
    rows = [driving.before_junction(int(found.lane[i]), float(found.s[i])) for i in np.flatnonzero(new)]
    return np.array(rows).reshape(-1, 3)


def red_lights(poses: Array, half_length: float, lights: tuple[TrafficLight, ...], red: NDArray[np.bool_], driving: LaneIndex) -> list[Event]:
    """Events of the tail of the car crossing a stop line of its lane while the light is red; the same light not twice in a row.

    poses (T, 3) of the car's centre, half_length in m, red (T, L) whether each light is red. Raises DataError on another number of lights.
    """
    if red.shape != (len(poses), len(lights)):
        raise DataError(f"{len(lights)} lights over {len(poses)} ticks take states of that shape, got {red.shape}")
    ahead = np.column_stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])])
    close, far = poses[:, :2] - TAIL_START * half_length * ahead, poses[:, :2] - (half_length + TAIL_END) * ahead
    tail = driving.nearest(far)
    crossing = np.zeros(red.shape, bool)
    for i, light in enumerate(lights):
        watched = red[:, i] & (np.hypot(*(poses[:, :2] - light.trigger).T) <= LIGHT_NEAR)
        if not watched.any() or not len(light.stops):
            continue
        lines = driving.nearest(light.stops)
        for k, (x, y, heading) in enumerate(light.stops.tolist()):
            side = LINE_SHARE * lines.width[k] * np.array([-np.sin(heading), np.cos(heading)])
            meets = _cross(close, far, np.array([x, y]) + side, np.array([x, y]) - side)
            same = (tail.road_lane == lines.road_lane[k]) & (ahead @ [np.cos(heading), np.sin(heading)] > 0.0)
            crossing[:, i] |= watched & same & meets
    events: list[Event] = []
    last = -1
    for t, i in np.argwhere(crossing).tolist():
        if i != last:
            told = f"Agent ran a red light {lights[i].id} at {place(*lights[i].position)}"
            events.append(Event(Infraction.RED_LIGHT, t, told))
            last = i
    return events


def _cross(a: Array, b: Array, c: Array, d: Array) -> NDArray[np.bool_]:
    """(T,) whether the segments a-b (T, 2) meet or touch the segment c-d (2,)."""

    def side(p: Array, q: Array, r: Array) -> Array:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    return (side(a, b, c) * side(a, b, d) <= 0.0) & (side(c, d, a) * side(c, d, b) <= 0.0)


def stop_signs(poses: Array, velocities: Array, signs: tuple[StopSign, ...], driving: LaneIndex) -> list[Event]:
    """Events of having left the box of a stop sign without a stop (below 0.1 m/s) in it; a sign fails at most once in a row.

    poses (T, 3) of the car's centre, velocities (T, 2) m/s. A sign concerns the car while one of nine points of its lane, from the car on and
    0.5 m apart, lies in the box, and the first of them within 4 m of the box's centre; not while it drives backwards or against the lane.
    """
    if not signs:
        return []
    near = driving.nearest(poses)
    triggers = np.array([sign.trigger for sign in signs])
    close = np.hypot(*np.moveaxis(near.points[:, None] - triggers, -1, 0)) <= STOP_NEAR
    speeds = np.hypot(*velocities.T)
    ahead = np.column_stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])])
    lane_ahead = np.column_stack([np.cos(near.heading), np.sin(near.heading)])
    fits = ((velocities * ahead).sum(1) >= BACKWARDS) & ((ahead * lane_ahead).sum(1) >= BACKWARDS)

    def concerns(t: int, i: int) -> bool:
        if not close[t, i]:
            return False
        points = driving.ahead(int(near.lane[t]), float(near.s[t]), STOP_STEP, int(STOP_NEAR / STOP_STEP))
        return bool((np.abs(points - triggers[i]) < STOP_SCALE * signs[i].half_size).all(1).any())

    events: list[Event] = []
    target, stopped, failed = -1, False, -1
    for t in range(len(poses)):
        if target < 0:
            target = next((i for i in np.flatnonzero(close[t]).tolist() if concerns(t, i)), -1) if fits[t] else -1
            continue
        stopped = stopped or bool(speeds[t] < STILL)
        if not concerns(t, target):
            if not stopped and failed != target:
                told = f"Agent ran a stop with id={signs[target].id} at {place(*signs[target].position)}"
                events.append(Event(Infraction.STOP_SIGN, t, told))
                failed = target
            target, stopped = -1, False
    return events


def not_yielded(positions: Array, emergency: Array, last: int) -> Event | None:
    """The event of an emergency vehicle that is still behind the ego when its scenario ends, at tick `last`; None where it came past.

    positions (T, 2 or more) of the ego, emergency (T, 3) of the vehicle, NaN while it is absent: its last known pose up to `last` counts.
    """
    known = np.flatnonzero(np.isfinite(emergency[: last + 1]).all(1))
    if not len(known):
        return None
    t = int(known[-1])
    x, y, heading = emergency[t].tolist()
    if (positions[t, 0] - x) * np.cos(heading) + (positions[t, 1] - y) * np.sin(heading) <= 0.0:
        return None
    return Event(Infraction.YIELD, last, "Agent failed to yield to an emergency vehicle")
