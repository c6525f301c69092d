"""Kernels that walk a vehicle's path: points on lanes, random routes, the vehicle ahead and the speed that the road allows."""

from __future__ import annotations

import numpy as np
from numba import njit

from drive.simulators.traffic_fleet import EXTERNAL, NO_LANE, NOBODY, PARKED, PLAN, Fleet
from drive.simulators.traffic_graph import Graph

STEP = 1.5  # m between the places at which the path ahead is looked at
SIDE_MARGIN = 0.35  # m kept free on both sides of the corridor
HORIZON_BRAKE = 1.8  # m/s^2: the look-ahead is the stopping distance at this braking
MAX_HORIZON = 110.0  # m
CURVE_BRAKE = 1.6  # m/s^2 used when slowing for a curve
REAR_AXLE = 0.28  # distance from box centre to rear axle / vehicle length


@njit(cache=True)
def next_random(fleet: Fleet, i: int) -> float:
    """A number in [0, 1) from vehicle i's own stream (splitmix64)."""
    fleet.random[i] += np.uint64(0x9E3779B97F4A7C15)
    z = fleet.random[i]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def point_on(graph: Graph, lane: int, s):
    """x, y, cos, sin of the point s metres along a lane (held at its ends)."""
    u = min(max(s / graph.gap[lane], 0.0), graph.first[lane + 1] - graph.first[lane] - 1.0)
    k = min(int(u), graph.first[lane + 1] - graph.first[lane] - 2)
    a = graph.first[lane] + k
    t = u - k
    x = graph.x[a] + t * (graph.x[a + 1] - graph.x[a])
    y = graph.y[a] + t * (graph.y[a + 1] - graph.y[a])
    c = graph.cos[a] + t * (graph.cos[a + 1] - graph.cos[a])
    d = graph.sin[a] + t * (graph.sin[a + 1] - graph.sin[a])
    n = max(np.sqrt(c * c + d * d), 1e-9)
    return x, y, c / n, d / n


@njit(cache=True)
def speed_on(graph: Graph, lane: int, s):
    """Speed that limit and curvature allow, m/s."""
    k = int(s / graph.gap[lane] + 0.5)
    return graph.speed[min(max(graph.first[lane] + k, graph.first[lane]), graph.first[lane + 1] - 1)]


@njit(cache=True)
def ease(u: float) -> float:
    """Quintic step from 0 to 1 with no speed and no acceleration at its ends."""
    u = min(max(u, 0.0), 1.0)
    return u * u * u * (10.0 + u * (6.0 * u - 15.0))


@njit(cache=True)
def extend_plan(graph: Graph, fleet: Fleet, i: int) -> None:
    """Fill the free places of vehicle i's plan with random successors, endless ones where there are any."""
    for k in range(1, PLAN):
        if fleet.plan[i, k] != NO_LANE:
            continue
        lane = fleet.plan[i, k - 1]
        a, b = graph.succ_first[lane], graph.succ_first[lane + 1]
        count = 0
        for j in range(a, b):
            count += graph.alive[graph.succ[j]]
        endless = count > 0
        count = count if endless else b - a
        if count == 0:
            return
        pick = int(next_random(fleet, i) * count)
        for j in range(a, b):
            if endless and not graph.alive[graph.succ[j]]:
                continue
            if pick == 0:
                fleet.plan[i, k] = graph.succ[j]
                break
            pick -= 1


@njit(cache=True)
def stopping_horizon(v: float) -> float:
    """Metres of path that matter at speed v."""
    return min(MAX_HORIZON, 25.0 + v * v / (2.0 * HORIZON_BRAKE))


@njit(cache=True)
def hit_distance(fleet: Fleet, j: int, x, y, c, s, half_width):
    """(hit, along, reach, speed): does box j lie over the corridor at this place; its centre and half extent along it."""
    dx, dy = fleet.x[j] - x, fleet.y[j] - y
    across = -s * dx + c * dy
    along = c * dx + s * dy
    cj, sj = np.cos(fleet.heading[j]), np.sin(fleet.heading[j])
    cd, sd = abs(c * cj + s * sj), abs(c * sj - s * cj)
    half_l, half_w = fleet.length[j] / 2.0, fleet.width[j] / 2.0
    side = half_l * sd + half_w * cd
    reach = half_l * cd + half_w * sd
    hit = abs(across) < side + half_width and abs(along) < reach + STEP / 2.0
    speed = fleet.speed[j] * (c * np.cos(fleet.course[j]) + s * np.sin(fleet.course[j]))
    return hit, along, reach, speed


@njit(cache=True)
def look_ahead(
    graph: Graph, fleet: Fleet, i: int, others, n_others: int, plan, s0: float, offset: float, change: float, horizon: float
):
    """(gap, speed, who, allowed) along `plan` (PLAN,) from s0: bumper gap to the first box on it, its speed along the path
    and index (NOBODY: gap is infinity), and the speed that limits and curves ahead allow now."""
    half_l = fleet.length[i] / 2.0
    half_w = fleet.width[i] / 2.0 + SIDE_MARGIN
    at, k, lane = s0, 0, plan[0]
    ahead = 0.0
    allowed = speed_on(graph, lane, s0)
    best, who, lead_speed = np.inf, NOBODY, 0.0
    while ahead <= horizon:
        while at > graph.length[lane]:
            at -= graph.length[lane]
            k += 1
            if k >= PLAN or plan[k] == NO_LANE:
                return best, lead_speed, who, allowed
            lane = plan[k]
        if best < np.inf and ahead - half_l > best + STEP:
            break
        limit = speed_on(graph, lane, at)
        allowed = min(allowed, np.sqrt(limit * limit + 2.0 * CURVE_BRAKE * max(ahead - half_l, 0.0)))
        if ahead >= half_l - STEP:
            x, y, c, s = point_on(graph, lane, at)
            d = offset * (1.0 - ease(change + ahead / fleet.change_length[i])) if change < 1.0 else 0.0
            x, y = x - s * d, y + c * d
            for m in range(n_others):
                j = others[m]
                hit, along, reach, speed = hit_distance(fleet, j, x, y, c, s, half_w)
                gap = ahead + along - reach - half_l
                if hit and ahead + along > 0.0 and gap < best:
                    best, lead_speed, who = gap, speed, j
        ahead += STEP
        at += STEP
    return best, lead_speed, who, allowed


@njit(cache=True)
def gather(fleet: Fleet, i: int, radius: float, out) -> int:
    """Write the active vehicles within `radius` of vehicle i into `out`; how many."""
    n = 0
    for j in range(fleet.x.shape[0]):
        if j == i or not fleet.active[j]:
            continue
        dx, dy = fleet.x[j] - fleet.x[i], fleet.y[j] - fleet.y[i]
        r = radius + fleet.length[j]
        if dx * dx + dy * dy < r * r:
            out[n] = j
            n += 1
    return n


@njit(cache=True)
def place(graph: Graph, fleet: Fleet, i: int) -> None:
    """Put vehicle i where its lane, s and offset say, along the lane."""
    x, y, c, s = point_on(graph, fleet.plan[i, 0], fleet.s[i])
    d = fleet.offset[i] if fleet.mode[i] == PARKED else fleet.offset[i] * (1.0 - ease(fleet.change[i])) * (fleet.change[i] < 1.0)
    fleet.x[i], fleet.y[i] = x - s * d, y + c * d
    fleet.heading[i] = fleet.course[i] = np.arctan2(s, c)


@njit(cache=True)
def shift_plan(graph: Graph, fleet: Fleet, i: int) -> bool:
    """Move vehicle i on to its next lanes while s lies beyond the current one; False where the map ends."""
    while fleet.s[i] > graph.length[fleet.plan[i, 0]]:
        if fleet.plan[i, 1] == NO_LANE:
            return False
        fleet.s[i] -= graph.length[fleet.plan[i, 0]]
        fleet.before[i] = fleet.plan[i, 0]
        for k in range(PLAN - 1):
            fleet.plan[i, k] = fleet.plan[i, k + 1]
        fleet.plan[i, PLAN - 1] = NO_LANE
        extend_plan(graph, fleet, i)
    return True


@njit(cache=True)
def advance(graph: Graph, fleet: Fleet, i: int, accel: float, dt: float) -> None:
    """Move vehicle i by dt: its centre along the path, its heading as the rear axle of a car must follow (it does not slip)."""
    v = fleet.speed[i]
    accel = max(accel, -v / dt)
    ds = max(v * dt + 0.5 * accel * dt * dt, 0.0)
    fleet.speed[i] = max(v + accel * dt, 0.0)
    fleet.accel[i] = accel
    fleet.still[i] = fleet.still[i] + dt if fleet.speed[i] < 0.2 else 0.0
    if fleet.mode[i] == EXTERNAL or ds <= 0.0:
        return
    fleet.s[i] += ds
    if not shift_plan(graph, fleet, i):
        fleet.active[i] = False
        return
    if fleet.change[i] < 1.0:
        fleet.change[i] = min(fleet.change[i] + ds / fleet.change_length[i], 1.0)
    x0, y0, heading = fleet.x[i], fleet.y[i], fleet.heading[i]
    place(graph, fleet, i)
    dx, dy = fleet.x[i] - x0, fleet.y[i] - y0
    moved = np.sqrt(dx * dx + dy * dy)
    if moved > 1e-6:
        course = np.arctan2(dy, dx)
        slip = (heading - course + np.pi) % (2.0 * np.pi) - np.pi
        slip = 2.0 * np.arctan(np.tan(slip / 2.0) * np.exp(-moved / (REAR_AXLE * fleet.length[i])))
        fleet.course[i], fleet.heading[i] = course, course + slip
