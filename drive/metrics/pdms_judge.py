"""Verdict on simulated states: every part of the PDM score v1.1 that needs the map and the agents."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.vehicle import PACIFICA, VehicleParams
from drive.metrics.pdms_areas import PackedAreas, ego_areas
from drive.metrics.pdms_contacts import DT, PackedAgents, collisions, times_to_collision

Array = NDArray[np.float64]
DIRECTION_WINDOW = 10  # steps of 0.1 s before the present one
DIRECTION_LIMITS = (2.0, 6.0)  # m driven off the route's lanes within the window: 0.5 from the first, 0 from the second


class Verdict(NamedTuple):
    """Of N proposals; times are s from the present, infinite where nothing happened."""

    nc: Array  # (N,) no at-fault collision: 0, 0.5 or 1
    dac: Array  # (N,) drivable-area compliance: 0 or 1
    ddc: Array  # (N,) driving-direction compliance: 0, 0.5 or 1
    ttc: Array  # (N,) time to collision: 0 or 1
    progress: Array  # (N,) m along the centreline, not negative
    areas: NDArray[np.bool_]  # (N, 41, 3) multiple lanes, non-drivable, oncoming
    collision_time: Array  # (N,) s of the first at-fault collision
    ttc_time: Array  # (N,) s of the first violation


@njit(cache=True)
def project(line, x, y):
    """(arc length, squared distance) of the point of polyline (N, 2+) nearest to (x, y); the first of equals, the ends held."""
    best, at, travelled = np.inf, 0.0, 0.0
    for i in range(line.shape[0] - 1):
        dx, dy = line[i + 1, 0] - line[i, 0], line[i + 1, 1] - line[i, 1]
        length2 = dx * dx + dy * dy
        t = ((x - line[i, 0]) * dx + (y - line[i, 1]) * dy) / length2 if length2 > 0.0 else 0.0
        t = min(max(t, 0.0), 1.0)
        gap = (line[i, 0] + t * dx - x) ** 2 + (line[i, 1] + t * dy - y) ** 2
        length = np.sqrt(length2)
        if gap < best:
            best, at = gap, travelled + t * length
        travelled += length
    return at, best


@njit(cache=True, nogil=True)
def _direction_and_progress(states, flags, line, to_center):
    """Most metres driven off the route's lanes within 11 steps (N,), and progress of the centre along `line` (N,)."""
    n_proposals, n_steps = states.shape[0], states.shape[1]
    off_route, progress = np.zeros(n_proposals), np.zeros(n_proposals)
    step = np.zeros(n_steps)
    for n in range(n_proposals):
        x = states[n, :, 0] + to_center * np.cos(states[n, :, 2])
        y = states[n, :, 1] + to_center * np.sin(states[n, :, 2])
        for t in range(1, n_steps):
            step[t] = np.hypot(x[t] - x[t - 1], y[t] - y[t - 1]) if flags[n, t, 2] else 0.0
        for t in range(n_steps):
            off_route[n] = max(off_route[n], step[max(0, t - DIRECTION_WINDOW) : t + 1].sum())
        progress[n] = max(project(line, x[-1], y[-1])[0] - project(line, x[0], y[0])[0], 0.0)
    return off_route, progress


def judge(
    states: Array, areas: PackedAreas, agents: PackedAgents, centerline: Array, vehicle: VehicleParams = PACIFICA
) -> Verdict:
    """Verdict on states (N, 41, 11) at 0.1 s, see drive.core.vehicle.

    Progress and driving direction follow NAVSIM v1.1, pdm_scorer.py; the other parts are in pdms_areas and pdms_contacts.
    """
    front, rear, half_width = vehicle.front_length, vehicle.rear_length, vehicle.width / 2.0
    flags = ego_areas(states, areas, front, rear, half_width)
    nc, hit = collisions(states, flags, agents, front, rear, half_width)
    ttc, near = times_to_collision(states, flags, agents, areas, front, rear, half_width)
    line = np.ascontiguousarray(centerline, np.float64)
    off_route, progress = _direction_and_progress(states, flags, line, vehicle.rear_to_center)
    low, high = DIRECTION_LIMITS
    return Verdict(
        nc=nc,
        dac=np.where(flags[..., 1].any(axis=1), 0.0, 1.0),
        ddc=np.where(off_route < low, 1.0, np.where(off_route < high, 0.5, 0.0)),
        ttc=ttc,
        progress=progress,
        areas=flags,
        collision_time=np.where(hit < 0, np.inf, hit * DT),
        ttc_time=np.where(near < 0, np.inf, near * DT),
    )
