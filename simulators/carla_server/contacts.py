"""Who touches whom, and what it does to them: boxes on the ground, impulses along the way out, friction along the side.

Boxes are rows x, y, yaw, half length, half width, z of the middle, half height; m, rad.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESTITUTION, FRICTION = 0.1, 0.4
BOUNCING = 1.0  # m/s of approach below which nothing bounces: what leans on something stays there
SLOP = 1e-3  # m of overlap that is none: what was pushed apart does not touch again by rounding
MOST = 256  # contacts of a tick
CELL = 16.0  # m of the grid that finds what stands still


@njit(cache=True)
def _axes(box, out):
    c, s = math.cos(box[2]), math.sin(box[2])
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = c, s, -s, c


@njit(cache=True)
def _reach(box, x, y):
    c, s = math.cos(box[2]), math.sin(box[2])
    return box[3] * abs(c * x + s * y) + box[4] * abs(-s * x + c * y)


@njit(cache=True)
def overlap(a, b, out):
    """Depth m by which two boxes overlap, 0 if they do not; the way out for b, (2,), into `out`."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    out[0], out[1] = 0.0, 0.0
    if abs(b[5] - a[5]) >= a[6] + b[6]:
        return 0.0
    axes = np.empty((2, 2))
    best = np.inf
    for box in (a, b):
        _axes(box, axes)
        for k in range(2):
            x, y = axes[k, 0], axes[k, 1]
            gap = dx * x + dy * y
            depth = _reach(a, x, y) + _reach(b, x, y) - abs(gap)
            if depth <= 0.0:
                return 0.0
            if depth < best:
                best = depth
                sign = 1.0 if gap >= 0.0 else -1.0
                out[0], out[1] = sign * x, sign * y
    return best


@njit(cache=True)
def _touch_point(a, b, out):
    """Mean of the corners of either box that lie in the other, into `out`; the point halfway between the middles if there are none."""
    count, x, y = 0, 0.0, 0.0
    for first, second in ((a, b), (b, a)):
        c, s = math.cos(first[2]), math.sin(first[2])
        d, t = math.cos(second[2]), math.sin(second[2])
        for i in (-1.0, 1.0):
            for j in (-1.0, 1.0):
                px = first[0] + c * i * first[3] - s * j * first[4]
                py = first[1] + s * i * first[3] + c * j * first[4]
                rx, ry = px - second[0], py - second[1]
                if abs(d * rx + t * ry) <= second[3] and abs(-t * rx + d * ry) <= second[4]:
                    x, y, count = x + px, y + py, count + 1
    if count:
        out[0], out[1] = x / count, y / count
    else:
        out[0], out[1] = (a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0


@njit(cache=True)
def _meet(a, b, motion_a, motion_b, weight_a, weight_b, jolt):
    """Part two boxes and change their motions (3,) = velocity m/s and spin rad/s, in place; the N s on b into `jolt` (2,).

    Weights (2,) are 1/kg and 1/(kg m^2), zero for what cannot move. Whether they touched.
    """
    way, point = np.empty(2), np.empty(2)
    depth = overlap(a, b, way)
    total = weight_a[0] + weight_b[0]
    if depth <= SLOP or total == 0.0:
        return False
    _touch_point(a, b, point)
    ra_x, ra_y, rb_x, rb_y = point[0] - a[0], point[1] - a[1], point[0] - b[0], point[1] - b[1]
    vx = motion_b[0] - motion_b[2] * rb_y - motion_a[0] + motion_a[2] * ra_y
    vy = motion_b[1] + motion_b[2] * rb_x - motion_a[1] - motion_a[2] * ra_x
    closing = vx * way[0] + vy * way[1]
    push, slide = 0.0, 0.0
    tx, ty = -way[1], way[0]
    if closing < 0.0:
        ca, cb = ra_x * way[1] - ra_y * way[0], rb_x * way[1] - rb_y * way[0]
        bounce = 1.0 + RESTITUTION if closing < -BOUNCING else 1.0
        push = -bounce * closing / (total + ca * ca * weight_a[1] + cb * cb * weight_b[1])
        da, db = ra_x * ty - ra_y * tx, rb_x * ty - rb_y * tx
        slide = -(vx * tx + vy * ty) / (total + da * da * weight_a[1] + db * db * weight_b[1])
        slide = min(max(slide, -FRICTION * push), FRICTION * push)
    jolt[0], jolt[1] = push * way[0] + slide * tx, push * way[1] + slide * ty
    motion_a[0] -= jolt[0] * weight_a[0]
    motion_a[1] -= jolt[1] * weight_a[0]
    motion_b[0] += jolt[0] * weight_b[0]
    motion_b[1] += jolt[1] * weight_b[0]
    motion_a[2] -= (ra_x * jolt[1] - ra_y * jolt[0]) * weight_a[1]
    motion_b[2] += (rb_x * jolt[1] - rb_y * jolt[0]) * weight_b[1]
    apart, part = depth - 0.5 * SLOP, weight_a[0] / total
    for k in range(2):
        a[k] -= way[k] * apart * part
        b[k] += way[k] * apart * (1.0 - part)
    return True


@njit(cache=True)
def _first(keys, key):
    """Of the sorted keys, the first that is not smaller."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def cell_key(x, y):
    """Of the cell of CELL m that a place is in."""
    return (np.int64(math.floor(x / CELL)) << 32) + np.int64(math.floor(y / CELL))


@njit(cache=True)
def resolve(boxes, motion, weight, still, keys, far, found, jolts):
    """Push apart what overlaps and change its motion, in place; how many contacts there were.

    boxes (N, 7) of what moves; motion (N, 3) velocity m/s and spin rad/s, world; weight (N, 2), 1/kg and 1/(kg m^2), zero for what is
    moved by clients only, negative for what collides with nothing. still (S, 7) boxes that never move, sorted by their `keys` (S,) from
    `cell_key`; far m is the longest half diagonal of them. found (MOST, 2) takes the pairs, of which the second is N + s for a still
    box; jolts (MOST, 2) the N s on the second of each.
    """
    n, count = len(boxes), 0
    rest, fixed, spare = np.zeros(3), np.zeros(2), np.empty(7)
    for i in range(n):
        if weight[i, 0] < 0.0:
            continue
        reach_i = math.hypot(boxes[i, 3], boxes[i, 4])
        for j in range(i + 1, n):
            reach = reach_i + boxes[j, 3] + boxes[j, 4]
            if abs(boxes[i, 0] - boxes[j, 0]) > reach or abs(boxes[i, 1] - boxes[j, 1]) > reach or weight[j, 0] < 0.0:
                continue
            if count < MOST and _meet(boxes[i], boxes[j], motion[i], motion[j], weight[i], weight[j], jolts[count]):
                found[count, 0], found[count, 1] = i, j
                count += 1
        if len(keys) == 0 or weight[i, 0] == 0.0:
            continue
        around = reach_i + far
        row, last = math.floor((boxes[i, 0] - around) / CELL), math.floor((boxes[i, 0] + around) / CELL)
        while row <= last:
            k = _first(keys, cell_key(row * CELL, boxes[i, 1] - around))
            end = cell_key(row * CELL, boxes[i, 1] + around)
            while k < len(keys) and keys[k] <= end:
                spare[:] = still[k]
                rest[:] = 0.0
                if count < MOST and _meet(boxes[i], spare, motion[i], rest, weight[i], fixed, jolts[count]):
                    found[count, 0], found[count, 1] = i, n + k
                    count += 1
                k += 1
            row += 1
    return count
