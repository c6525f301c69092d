"""The kernel of one traffic step: junctions, lane changes, the intelligent driver model, motion.

IDM: Treiber, Hennecke and Helbing, Phys. Rev. E 62 (2000). Lane changes: MOBIL, Kesting, Treiber and Helbing, TRR 1999 (2007).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from drive.simulators.traffic_fleet import DRIVEN, NO_LANE, NOBODY, PARKED, PLAN, Fleet
from drive.simulators.traffic_graph import Graph
from drive.simulators.traffic_junction import update_junctions
from drive.simulators.traffic_path import advance, extend_plan, gather, look_ahead, stopping_horizon

SLOW_DOWN_TIME = 0.5  # s in which a speed above the wish is given up
STANDSTILL = 2.0  # m left to the vehicle ahead at a stop
HARD_BRAKE = 8.0  # m/s^2
LINE_GAP = 1.0  # m left to a stop line
POLITENESS = 0.3  # MOBIL's p
GAIN = 0.4  # m/s^2 a lane change must win
SAFE_BRAKE = 2.5  # m/s^2 that a lane change may cost the one behind
CHANGE_TIME, CHANGE_MIN = 3.5, 22.0  # s and m of a lane change
COOLDOWN = 6.0  # s between two lane changes
ROOM_BEFORE_END = 15.0  # m of lane left after a lane change


@njit(cache=True)
def idm(fleet: Fleet, i: int, v: float, wish: float, gap: float, lead_speed: float) -> float:
    """Acceleration in m/s^2 towards speed `wish` behind a vehicle `gap` metres ahead (infinity if none)."""
    a, b = fleet.push[i], fleet.brake[i]
    ratio = v / max(wish, 0.1)
    # above the wish the IDM is too soft to have slowed down where a curve begins
    free = a * (1.0 - ratio**4) if v <= wish else -min((v - wish) / SLOW_DOWN_TIME, 1.5 * b)
    if gap == np.inf:
        return max(free, -HARD_BRAKE)
    close = v * (v - lead_speed) / (2.0 * np.sqrt(a * b))
    wanted = STANDSTILL + max(0.0, v * fleet.headway[i] + close)
    interaction = a * (wanted / max(gap, 0.1)) ** 2
    return max(min(free, a) - interaction, -HARD_BRAKE)


@njit(cache=True)
def drop_distance(graph: Graph, fleet: Fleet, i: int) -> float:
    """Metres to the end of a lane that must be left sideways; infinity if the path goes on, or off the map."""
    ahead = -fleet.s[i]
    for k in range(PLAN):
        lane = fleet.plan[i, k]
        if lane == NO_LANE:
            return np.inf
        ahead += graph.length[lane]
        if k + 1 < PLAN and fleet.plan[i, k + 1] == NO_LANE:
            beside = graph.left[lane] >= 0 or graph.right[lane] >= 0
            return ahead if beside else np.inf
    return np.inf


@njit(cache=True)
def wanted_accel(graph: Graph, fleet: Fleet, i: int, others, n_others: int) -> float:
    """Acceleration of vehicle i on its path; also stores the gap ahead."""
    v = fleet.speed[i]
    plan = fleet.plan[i]
    horizon = stopping_horizon(v)
    found = look_ahead(graph, fleet, i, others, n_others, plan, fleet.s[i], fleet.offset[i], fleet.change[i], horizon)
    gap, lead_speed, who, allowed = found
    fleet.gap[i], fleet.ahead[i] = gap, who
    wish = allowed * fleet.eager[i]
    accel = idm(fleet, i, v, wish, gap, lead_speed)
    if fleet.need[i] != NO_LANE and fleet.granted[i] != fleet.need[i] and fleet.need_ahead[i] < horizon:
        accel = min(accel, idm(fleet, i, v, wish, fleet.need_ahead[i] - LINE_GAP + STANDSTILL, 0.0))
    end = drop_distance(graph, fleet, i)
    if end < horizon:
        accel = min(accel, idm(fleet, i, v, wish, end - fleet.length[i] / 2.0, 0.0))
    if not np.isnan(fleet.order[i]):
        accel = min(accel, fleet.order[i])
    return accel


@njit(cache=True)
def project_on(graph: Graph, lane: int, x: float, y: float):
    """(s, d) of a point on a lane: metres along it and to its left."""
    best, at = np.inf, graph.first[lane]
    for k in range(graph.first[lane], graph.first[lane + 1]):
        gap = (graph.x[k] - x) ** 2 + (graph.y[k] - y) ** 2
        if gap < best:
            best, at = gap, k
    dx, dy = x - graph.x[at], y - graph.y[at]
    s = (at - graph.first[lane]) * graph.gap[lane] + graph.cos[at] * dx + graph.sin[at] * dy
    return min(max(s, 0.0), graph.length[lane]), -graph.sin[at] * dx + graph.cos[at] * dy


@njit(cache=True)
def follower(graph: Graph, fleet: Fleet, i: int, lane: int, s: float):
    """(index, gap) of the vehicle behind place s of `lane`: on it, coming from a lane before it, or changing into it."""
    best, who = np.inf, NOBODY
    for j in range(fleet.x.shape[0]):
        if j == i or not fleet.active[j] or fleet.mode[j] == PARKED:
            continue
        here = fleet.plan[j, 0]
        if here == lane:
            back = s - fleet.s[j]
        elif fleet.plan[j, 1] == lane:
            back = s + graph.length[here] - fleet.s[j]
        else:
            continue
        if here == lane and fleet.change[j] < 1.0 and abs(back) < (fleet.length[i] + fleet.length[j]) / 2.0 + 4.0:
            return j, -1.0  # it is on its way to the same place from the other side
        if back >= 0.0 and back - (fleet.length[i] + fleet.length[j]) / 2.0 < best:
            best, who = back - (fleet.length[i] + fleet.length[j]) / 2.0, j
    return who, best


@njit(cache=True)
def change_gain(graph: Graph, fleet: Fleet, i: int, lane, now_accel: float, forced: bool, others, n_others: int):
    """(gain, s, d): MOBIL's incentive to move to `lane` (minus infinity if not safe), and where on it vehicle i would be."""
    s, d = project_on(graph, lane, fleet.x[i], fleet.y[i])
    if graph.length[lane] - s < ROOM_BEFORE_END:
        return -np.inf, s, d
    plan = np.full(PLAN, NO_LANE, np.int64)
    plan[0] = lane
    a, b = graph.succ_first[lane], graph.succ_first[lane + 1]
    if b > a:
        plan[1] = graph.succ[a]
    v = fleet.speed[i]
    # looked at from a little behind, so that a vehicle alongside counts as ahead
    alongside = min(s, fleet.length[i])
    gap, lead_speed, _, allowed = look_ahead(
        graph, fleet, i, others, n_others, plan, s - alongside, 0.0, 1.0, stopping_horizon(v) + alongside
    )
    gap -= alongside
    if gap < 2.0 + 0.25 * v:
        return -np.inf, s, d
    new_accel = idm(fleet, i, v, allowed * fleet.eager[i], gap, lead_speed)
    behind, back_gap = follower(graph, fleet, i, lane, s)
    loss = 0.0
    if behind != NOBODY:
        wish = fleet.speed[behind] + 1.0
        after = idm(fleet, behind, fleet.speed[behind], wish, back_gap, v)
        if fleet.want[i] != 0:  # a scripted cut-in keeps no distance, but leaves room to brake
            closing = max(fleet.speed[behind] - v, 0.0)
            if back_gap < 3.0 + 0.1 * fleet.speed[behind] + closing * closing / (2.0 * SAFE_BRAKE):
                return -np.inf, s, d
            return 0.0, s, d
        if back_gap < 2.0 + 0.25 * fleet.speed[behind] or after < -SAFE_BRAKE * (2.0 if forced else 1.0):
            return -np.inf, s, d
        loss = max(fleet.accel[behind] - after, 0.0)
    if new_accel < -2.0 * SAFE_BRAKE:
        return -np.inf, s, d
    return new_accel - now_accel - POLITENESS * loss, s, d


@njit(cache=True)
def begin_change(graph: Graph, fleet: Fleet, i: int, lane, s: float, d: float) -> None:
    """Give vehicle i over to `lane`; its offset shrinks over the next metres it drives."""
    fleet.before[i] = fleet.plan[i, 0]
    fleet.plan[i, :] = NO_LANE
    fleet.plan[i, 0] = lane
    extend_plan(graph, fleet, i)
    fleet.s[i], fleet.offset[i], fleet.change[i] = s, d, 0.0
    fleet.change_length[i] = max(CHANGE_TIME * fleet.speed[i], CHANGE_MIN)
    fleet.cooldown[i] = COOLDOWN
    fleet.want[i] = 0


@njit(cache=True)
def consider_change(graph: Graph, fleet: Fleet, i: int, now_accel: float, others, n_others: int) -> None:
    """Begin a lane change of vehicle i where it is wanted, worth it or needed, and safe."""
    lane = fleet.plan[i, 0]
    if fleet.change[i] < 1.0 or graph.connector[lane] or (fleet.cooldown[i] > 0.0 and fleet.want[i] == 0):
        return
    must = drop_distance(graph, fleet, i) < 80.0 or not graph.alive[lane]
    if graph.length[lane] - fleet.s[i] < 2.0 * ROOM_BEFORE_END and not must:
        return
    need = fleet.need[i]
    if need != NO_LANE and graph.closed[need] and not must and fleet.want[i] == 0:
        return  # a red light is no reason to change lanes
    best, best_lane, best_s, best_d = GAIN, NO_LANE, 0.0, 0.0
    for side in (1, -1):
        beside = graph.left[lane] if side == 1 else graph.right[lane]
        if beside < 0 or (fleet.want[i] != 0 and fleet.want[i] != side):
            continue
        forced = must or fleet.want[i] == side
        gain, s, d = change_gain(graph, fleet, i, beside, now_accel, forced, others, n_others)
        gain += 100.0 if forced else 0.0
        if gain > best:
            best, best_lane, best_s, best_d = gain, beside, s, d
    if best_lane != NO_LANE:
        begin_change(graph, fleet, i, best_lane, best_s, best_d)


@njit(cache=True)
def step_fleet(graph, fleet, tick, dt):
    """Advance every vehicle by dt s; EXTERNAL ones are looked at but not moved. All accelerations are of one instant."""
    n = fleet.x.shape[0]
    others = np.empty(n, np.int64)
    update_junctions(graph, fleet, tick * dt)
    for i in range(n):
        if not fleet.active[i] or fleet.mode[i] == PARKED:
            continue
        n_others = gather(fleet, i, stopping_horizon(fleet.speed[i]) + 10.0, others)
        fleet.wish[i] = wanted_accel(graph, fleet, i, others, n_others)
        fleet.cooldown[i] = max(fleet.cooldown[i] - dt, 0.0)
        if fleet.mode[i] == DRIVEN and (tick + i) % 5 == 0:
            consider_change(graph, fleet, i, fleet.wish[i], others, n_others)
    for i in range(n):
        if fleet.active[i] and fleet.mode[i] == DRIVEN:
            advance(graph, fleet, i, fleet.wish[i], dt)


@njit(cache=True)
def boxes_overlap(a, b) -> bool:
    """Whether two boxes (5,) = centre x, y, heading, length, width overlap (separating axis test)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    for first, second in ((a, b), (b, a)):
        c, s = np.cos(first[2]), np.sin(first[2])
        relative = second[2] - first[2]
        cr, sr = abs(np.cos(relative)), abs(np.sin(relative))
        if abs(c * dx + s * dy) > first[3] / 2.0 + (second[3] * cr + second[4] * sr) / 2.0:
            return False
        if abs(-s * dx + c * dy) > first[4] / 2.0 + (second[3] * sr + second[4] * cr) / 2.0:
            return False
    return True


@njit(cache=True)
def overlapping_pairs(boxes):
    """(K, 2) index pairs of overlapping boxes (N, 5)."""
    found = np.empty((boxes.shape[0] * boxes.shape[0], 2), np.int64)
    k = 0
    for i in range(boxes.shape[0]):
        for j in range(i + 1, boxes.shape[0]):
            if boxes_overlap(boxes[i], boxes[j]):
                found[k, 0], found[k, 1] = i, j
                k += 1
    return found[:k]
