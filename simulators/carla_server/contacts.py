"""Who touches whom, and what it does to them: boxes on the ground, impulses along the way out, friction along the side."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESTITUTION, FRICTION = 0.1, 0.4
MOST = 256  # contacts of a tick


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
    """Depth m by which boxes (x, y, yaw, half length, half width) overlap, 0 if they do not; the way out for b, (2,), into `out`."""
    dx, dy = b[0] - a[0], b[1] - a[1]
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
def resolve(boxes, velocity, spin, mass, inertia, found, impulses):
    """Push overlapping boxes apart and change their velocities, in place; how many contacts there were.

    boxes (N, 5), velocity (N, 2) m/s, spin (N,) rad/s, all world; mass (N,) and inertia (N,), infinite for what cannot move.
    found (MOST, 2) takes the pairs, impulses (MOST, 2) the N s on the second of each.
    """
    n, count = len(boxes), 0
    way, point = np.empty(2), np.empty(2)
    for i in range(n):
        for j in range(i + 1, n):
            if math.isinf(mass[i]) and math.isinf(mass[j]):
                continue
            reach = math.hypot(boxes[i, 3], boxes[i, 4]) + math.hypot(boxes[j, 3], boxes[j, 4])
            if abs(boxes[i, 0] - boxes[j, 0]) > reach or abs(boxes[i, 1] - boxes[j, 1]) > reach:
                continue
            depth = overlap(boxes[i], boxes[j], way)
            if depth <= 0.0 or count >= MOST:
                continue
            _touch_point(boxes[i], boxes[j], point)
            ra_x, ra_y = point[0] - boxes[i, 0], point[1] - boxes[i, 1]
            rb_x, rb_y = point[0] - boxes[j, 0], point[1] - boxes[j, 1]
            wa, wb = 1.0 / mass[i], 1.0 / mass[j]
            ia, ib = 1.0 / inertia[i], 1.0 / inertia[j]
            vx = velocity[j, 0] - spin[j] * rb_y - velocity[i, 0] + spin[i] * ra_y
            vy = velocity[j, 1] + spin[j] * rb_x - velocity[i, 1] - spin[i] * ra_x
            closing = vx * way[0] + vy * way[1]
            push = 0.0
            slide = 0.0
            tx, ty = -way[1], way[0]
            if closing < 0.0:
                ca, cb = ra_x * way[1] - ra_y * way[0], rb_x * way[1] - rb_y * way[0]
                push = -(1.0 + RESTITUTION) * closing / (wa + wb + ca * ca * ia + cb * cb * ib)
                da, db = ra_x * ty - ra_y * tx, rb_x * ty - rb_y * tx
                slide = -(vx * tx + vy * ty) / (wa + wb + da * da * ia + db * db * ib)
                slide = min(max(slide, -FRICTION * push), FRICTION * push)
            jx, jy = push * way[0] + slide * tx, push * way[1] + slide * ty
            velocity[i, 0] -= jx * wa
            velocity[i, 1] -= jy * wa
            velocity[j, 0] += jx * wb
            velocity[j, 1] += jy * wb
            spin[i] -= (ra_x * jy - ra_y * jx) * ia
            spin[j] += (rb_x * jy - rb_y * jx) * ib
            part = wa / (wa + wb)
            boxes[i, 0] -= way[0] * depth * part
            boxes[i, 1] -= way[1] * depth * part
            boxes[j, 0] += way[0] * depth * (1.0 - part)
            boxes[j, 1] += way[1] * depth * (1.0 - part)
            found[count, 0], found[count, 1] = i, j
            impulses[count, 0], impulses[count, 1] = jx, jy
            count += 1
    return count
