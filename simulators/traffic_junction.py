"""Kernels that decide who enters a conflict zone: first come first served; at a tie straight over turning, then right-hand.

A vehicle on its way into a conflicting lane asks for it when it is near, and is granted it once no other vehicle holds a lane
that conflicts and no better one asks. A vehicle inside always holds its lane. Who has waited long enough goes by the exact order of
asking (then by index), which has no rings, so that no courtesy lasts for ever. A lane that a light closes is asked for by nobody,
and given back by who can still stop.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from drive.simulators.traffic_fleet import EXTERNAL, NO_LANE, NOBODY, PARKED, PLAN, Fleet
from drive.simulators.traffic_graph import Graph

ASK_BRAKE = 1.5  # m/s^2: asks when stopping at this braking would have to begin
ASK_NEAR = 14.0  # m
CANNOT_STOP = 5.0  # m/s^2: enters without a grant when only harder braking would stop it
WILL_NOT_STOP = 3.0  # m/s^2: likewise for a vehicle that others drive, which knows of no grants
TIE = 1.0  # s between two askings that count as the same time
PATIENCE = 8.0  # s of waiting after which ties and a full exit no longer count
IDLE = 3.0  # s of standing still before the line after which a grant is given back
EXIT_ROOM = 2.5  # m kept free behind a queue beyond the zone
SLOW_EXIT = 1.5  # m/s of the vehicle ahead that counts as a queue


@njit(cache=True)
def find_need(graph: Graph, fleet: Fleet, i: int) -> None:
    """Set need and need_ahead of vehicle i: its next conflicting lane whose stop line its front has not passed."""
    ahead = -fleet.s[i] - fleet.length[i] / 2.0
    need, need_ahead = NO_LANE, np.inf
    for k in range(PLAN):
        lane = fleet.plan[i, k]
        if lane == NO_LANE or ahead > 80.0:
            break
        # a lane already entered, or just being entered without a grant, is held and no longer asked for
        if graph.stop[lane] < np.inf and ahead + graph.stop[lane] > -0.3:
            need, need_ahead = lane, ahead + graph.stop[lane]
            break
        ahead += graph.length[lane]
    if need != fleet.need[i]:
        fleet.asked[i] = np.inf
    fleet.need[i], fleet.need_ahead[i] = need, need_ahead


@njit(cache=True)
def holds(graph: Graph, fleet: Fleet, j: int, lane: int, out: float):
    """Whether vehicle j is in, or has been let into, the zone that ends `out` metres along `lane`."""
    half = fleet.length[j] / 2.0
    if fleet.granted[j] == lane and fleet.plan[j, 0] != lane:
        return True
    if fleet.plan[j, 0] == lane:
        front, rear = fleet.s[j] + half, fleet.s[j] - half
        return rear < out and (fleet.granted[j] == lane or front > graph.stop[lane] + 0.3)
    if fleet.before[j] == lane and graph.length[lane] + fleet.s[j] - half < out:
        return True
    # the front is past the line though the centre is not
    return fleet.plan[j, 1] == lane and fleet.s[j] + half - graph.length[fleet.plan[j, 0]] > graph.stop[lane] + 0.3


@njit(cache=True)
def goes_first(graph: Graph, fleet: Fleet, j: int, i: int, patient: bool):
    """Whether asking vehicle j has priority over asking vehicle i, which may have lost its patience."""
    apart = fleet.asked[j] - fleet.asked[i]
    if abs(apart) > TIE or (not patient and apart != 0.0):
        return apart < 0.0
    if not patient:
        return j < i
    a, b = fleet.need[i], fleet.need[j]
    if graph.rank[a] != graph.rank[b]:
        return graph.rank[b] < graph.rank[a]
    p, q = graph.first[a], graph.first[b]
    from_right = graph.cos[p] * graph.sin[q] - graph.sin[p] * graph.cos[q]
    if abs(from_right) > 0.5:
        return from_right > 0.0
    return j < i


@njit(cache=True)
def may_enter(graph: Graph, fleet: Fleet, i: int, now: float) -> bool:
    """Whether vehicle i may be granted the lane it needs."""
    lane = fleet.need[i]
    patient = now - fleet.asked[i] < PATIENCE
    j = fleet.ahead[i]
    if patient and j != NOBODY and fleet.speed[j] < SLOW_EXIT:
        clear = graph.length[lane] - graph.stop[lane] if graph.stop[lane] == 0.0 else 0.0
        if fleet.gap[i] < fleet.need_ahead[i] + clear + fleet.length[i] + EXIT_ROOM:
            return False
    for c in range(graph.conf_first[lane], graph.conf_first[lane + 1]):
        other, out = graph.conf_lane[c], graph.conf_other_out[c]
        for j in range(fleet.x.shape[0]):
            if j == i or not fleet.active[j] or fleet.mode[j] == PARKED:
                continue
            if holds(graph, fleet, j, other, out):
                return False
            if fleet.need[j] == other and fleet.asked[j] < np.inf and goes_first(graph, fleet, j, i, patient):
                return False
    return True


@njit(cache=True)
def must_give_way(graph: Graph, fleet: Fleet, i: int) -> bool:
    """Whether vehicle i, granted but not yet in, can still stop for an EXTERNAL one that comes regardless."""
    if fleet.mode[i] == EXTERNAL or fleet.need_ahead[i] < fleet.speed[i] * fleet.speed[i] / (2.0 * CANNOT_STOP):
        return False
    lane = fleet.need[i]
    for c in range(graph.conf_first[lane], graph.conf_first[lane + 1]):
        for j in range(fleet.x.shape[0]):
            comes = fleet.active[j] and fleet.mode[j] == EXTERNAL and fleet.speed[j] > 1.0
            if comes and holds(graph, fleet, j, graph.conf_lane[c], graph.conf_other_out[c]):
                return True
    return False


@njit(cache=True)
def overruns(fleet: Fleet, i: int):
    """Whether vehicle i passes the line of the lane it needs whatever happens: only harder braking would stop it."""
    limit = WILL_NOT_STOP if fleet.mode[i] == EXTERNAL else CANNOT_STOP
    return fleet.need_ahead[i] < fleet.speed[i] * fleet.speed[i] / (2.0 * limit)


@njit(cache=True)
def update_junctions(graph: Graph, fleet: Fleet, now: float) -> None:
    """Ask, grant and give back for every vehicle, in order of index."""
    n = fleet.x.shape[0]
    for i in range(n):
        if not fleet.active[i] or fleet.mode[i] == PARKED:
            continue
        find_need(graph, fleet, i)
        lane, ahead, v = fleet.need[i], fleet.need_ahead[i], fleet.speed[i]
        held = fleet.granted[i]
        if held != NO_LANE and held != lane and held != fleet.plan[i, 0] and held != fleet.plan[i, 1]:
            fleet.granted[i] = NO_LANE
        if lane == NO_LANE:
            continue
        if graph.closed[lane] and (fleet.still[i] > 0.0 or not overruns(fleet, i)):
            fleet.asked[i] = np.inf
            if held == lane:
                fleet.granted[i] = NO_LANE
            continue
        if held == lane and fleet.still[i] > IDLE and now - fleet.granted_at[i] > IDLE:
            fleet.granted[i] = NO_LANE
            fleet.asked[i] = now
        first_in_queue = fleet.gap[i] > ahead - 1.0 or fleet.ahead[i] == NOBODY
        if fleet.asked[i] == np.inf and first_in_queue and ahead < ASK_NEAR + v * v / (2.0 * ASK_BRAKE):
            fleet.asked[i] = now
    for i in range(n):
        if not fleet.active[i] or fleet.mode[i] == PARKED or fleet.need[i] == NO_LANE:
            continue
        if fleet.granted[i] == fleet.need[i]:
            if must_give_way(graph, fleet, i):
                fleet.granted[i] = NO_LANE
            continue
        if fleet.asked[i] < np.inf and (overruns(fleet, i) or may_enter(graph, fleet, i, now)):
            fleet.granted[i], fleet.granted_at[i] = fleet.need[i], now
