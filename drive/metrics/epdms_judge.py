"""Verdict on simulated states: every part of the EPDMS v2.2 that needs the map, the lights and the agents.

Source: NAVSIM v2.2, pdm_scorer.py. Collisions and areas are those of v1.1; time to collision is asked at steps 0..31 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import box_corners
from drive.core.vehicle import PACIFICA, VehicleParams
from drive.metrics.pdms_areas import INTERSECTION, PackedAreas, ego_areas, in_any
from drive.metrics.pdms_contacts import DT, PackedAgents, boxes_meet, collisions, times_to_collision
from drive.metrics.pdms_judge import DIRECTION_LIMITS, DIRECTION_WINDOW, project

Array = NDArray[np.float64]
TTC_STEPS = 32  # boxes are known for 4 s, and the look-ahead is 0.9 s
LANE_DEVIATION = 0.5  # m of the centre from the centreline
LANE_WINDOW = 20  # steps of 0.1 s in a row beyond it that fail lane keeping


class EpdmsVerdict(NamedTuple):
    """Of N proposals; times are s from the present, infinite where nothing happened."""

    nc: Array  # (N,) no at-fault collision: 0, 0.5 or 1
    dac: Array  # (N,) drivable-area compliance: 0 or 1
    ddc: Array  # (N,) driving-direction compliance: 0, 0.5 or 1
    tlc: Array  # (N,) traffic-light compliance: 0 or 1
    ttc: Array  # (N,) time to collision: 0 or 1
    lk: Array  # (N,) lane keeping: 0 or 1
    progress: Array  # (N,) m along the centreline, not negative
    areas: NDArray[np.bool_]  # (N, 41, 3) multiple lanes, non-drivable, oncoming
    collision_time: Array  # (N,) s of the first at-fault collision
    ttc_time: Array  # (N,) s of the first violation


def joined(verdicts: Sequence[EpdmsVerdict]) -> EpdmsVerdict:
    """One verdict of the proposals of several, one or more."""
    return EpdmsVerdict(*(np.concatenate(parts) for parts in zip(*verdicts)))


class RedLight(NamedTuple):
    """A lane connector of the route and when its light is red."""

    ring: Array  # (V, 2) outer ring, world frame
    red: NDArray[np.bool_]  # (41,) at 0.1 s from the present


@njit(cache=True, nogil=True)
def _along_route(states, flags, areas, line, to_center):
    """Of N proposals: most metres off the route's lanes within 11 steps, progress along `line`, longest run of steps off it.

    Steps with the centre in an intersection add no metres, and neither lengthen nor end a run.
    """
    n_proposals, n_steps = states.shape[0], states.shape[1]
    off_route, progress, run = np.zeros(n_proposals), np.zeros(n_proposals), np.zeros(n_proposals, np.int64)
    step = np.zeros(n_steps)
    for n in range(n_proposals):
        x = states[n, :, 0] + to_center * np.cos(states[n, :, 2])
        y = states[n, :, 1] + to_center * np.sin(states[n, :, 2])
        count = 0
        for t in range(n_steps):
            inside = in_any(areas, INTERSECTION, x[t], y[t])
            moved = t > 0 and flags[n, t, 2] and not inside
            step[t] = np.hypot(x[t] - x[t - 1], y[t] - y[t - 1]) if moved else 0.0
            off_route[n] = max(off_route[n], step[max(0, t - DIRECTION_WINDOW) : t + 1].sum())
            if not inside:
                count = count + 1 if project(line, x[t], y[t])[1] > LANE_DEVIATION * LANE_DEVIATION else 0
                run[n] = max(run[n], count)
        progress[n] = max(project(line, x[-1], y[-1])[0] - project(line, x[0], y[0])[0], 0.0)
    return off_route, progress, run


@njit(cache=True)
def _meets(x, y, c, s, half_length, half_width, boxes, half_size):
    """Whether the box at (x, y) with heading (c, s) meets each of the boxes (A, 4): (A,)."""
    out = np.zeros(len(boxes), np.bool_)
    for a in range(len(boxes)):
        b = boxes[a]
        out[a] = boxes_meet(b[0] - x, b[1] - y, c, s, half_length, half_width, b[2], b[3], half_size[a, 0], half_size[a, 1])
    return out


def without_overlaps(agents: PackedAgents, initial: Array, vehicle: VehicleParams = PACIFICA) -> PackedAgents:
    """`agents` without those that meet the ego at the present, state (11,): v2.2's log replay removes them for good."""
    c, s = np.cos(initial[2]), np.sin(initial[2])
    x, y = initial[0] + c * vehicle.rear_to_center, initial[1] + s * vehicle.rear_to_center
    there = agents.valid[0] & _meets(x, y, c, s, vehicle.length / 2.0, vehicle.width / 2.0, agents.boxes[0], agents.half_size)
    return agents._replace(valid=agents.valid & ~there)


def red_light_compliance(states: Array, lights: Sequence[RedLight], vehicle: VehicleParams = PACIFICA) -> Array:
    """TLC (N,): 0 where the ego box touches a connector of the route while it is red, even one that it was in before."""
    kept = np.ones(len(states))
    ever_red = [light for light in lights if light.red.any()]
    if not ever_red:
        return kept
    boxes = np.asarray(shapely.polygons(box_corners(states[..., :3], vehicle.length, vehicle.width, vehicle.rear_to_center)))
    for light in ever_red:
        area = shapely.polygons(light.ring)
        shapely.prepare(area)
        kept[shapely.intersects(boxes[:, light.red], area).any(axis=1)] = 0.0
    return kept


def judge_epdms(
    states: Array,
    areas: PackedAreas,
    agents: PackedAgents,
    centerline: Array,
    lights: Sequence[RedLight],
    vehicle: VehicleParams = PACIFICA,
) -> EpdmsVerdict:
    """Verdict on states (N, 41, 11) at 0.1 s, see drive.core.vehicle; `agents` without those that overlap the ego at the start."""
    front, rear, half_width = vehicle.front_length, vehicle.rear_length, vehicle.width / 2.0
    flags = ego_areas(states, areas, front, rear, half_width)
    nc, hit = collisions(states, flags, agents, front, rear, half_width)
    early = np.ascontiguousarray(states[:, :TTC_STEPS])
    ttc, near = times_to_collision(early, np.ascontiguousarray(flags[:, :TTC_STEPS]), agents, areas, front, rear, half_width)
    line = np.ascontiguousarray(centerline, np.float64)
    off_route, progress, run = _along_route(states, flags, areas, line, vehicle.rear_to_center)
    low, high = DIRECTION_LIMITS
    return EpdmsVerdict(
        nc=nc,
        dac=np.where(flags[..., 1].any(axis=1), 0.0, 1.0),
        ddc=np.where(off_route < low, 1.0, np.where(off_route < high, 0.5, 0.0)),
        tlc=red_light_compliance(states, lights, vehicle),
        ttc=ttc,
        lk=np.where(run >= LANE_WINDOW, 0.0, 1.0),
        progress=progress,
        areas=flags,
        collision_time=np.where(hit < 0, np.inf, hit * DT),
        ttc_time=np.where(near < 0, np.inf, near * DT),
    )
