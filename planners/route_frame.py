"""The route ahead as a Frenet frame, and paths through it as lateral offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import arc_length
from drive.core.types import Privileged
from drive.planners.lane_index import LaneIndex, frame_at, lane_pose, nearest_point, wrap

Array = NDArray[np.float64]
DEFAULT_LIMIT = 15.0  # m/s where the map knows none, as NAVSIM's PDM-Closed
SWING_OUT = 4.1  # m^2: front overhang squared over four; the inward shift (times curvature) that centres the swept width in a curve
MAX_SHIFT = 0.5  # m


@dataclass(frozen=True)
class RouteFrame:
    """S samples of the route, `step` metres apart, from a little behind the ego to the look-ahead."""

    points: Array  # (S, 3) world x, y, heading (unwrapped)
    step: float  # m
    ego_s: float  # m, the ego's rear axle along the samples
    ego_d: float  # m, its offset to the left
    ego_tilt: float  # rad, its heading against the route
    curvature: Array  # (S,) 1/m, left positive, smoothed over 5 m
    limit: Array  # (S,) m/s
    left: Array  # (S,) m, offset of the left same-direction neighbour's centre; NaN where there is none
    right: Array  # (S,) m, likewise, negative
    junction: NDArray[np.bool_]  # (S,) inside a junction
    ends: bool  # the road ends at the last sample: stop there

    @property
    def s(self) -> Array:
        """(S,) m"""
        return np.asarray(self.step * np.arange(len(self.points)), np.float64)


@dataclass(frozen=True)
class Paths:
    """P paths; sample i of a path stands beside sample i of the route."""

    offset: Array  # (P, S) m, to the left of the route
    points: Array  # (P, S, 3) world
    along: Array  # (P, S) m, arc length, 0 at the first sample
    speed: Array  # (P, S) m/s that curvature and the end of the road allow
    target: Array  # (P,) m, offset the path settles at
    side: NDArray[np.int64]  # (P,) 0 keeps the route's lane, 1 goes to the left neighbour, -1 to the right one


def route_frame(scene: Privileged, index: LaneIndex, ahead: float = 130.0, behind: float = 20.0, step: float = 1.0) -> RouteFrame:
    """The route of `scene` around the ego, prolonged along the lanes if it is too short."""
    line, pose = np.asarray(scene.centerline_world, float), scene.ego.pose_world
    along = arc_length(line)
    keep = np.concatenate([[True], np.diff(along) > 1e-3])
    line, along = line[keep], along[keep]
    at, _ = nearest_point(line, 0, len(line), pose[0], pose[1], pose[2])
    forward, _ = frame_at(line, at, pose[0], pose[1])
    middle = along[at] + forward
    start = max(along[0], middle - behind)
    stop = min(along[-1], middle + ahead)
    heading = np.unwrap(line[:, 2])
    s = np.arange(start, max(stop, start + 2.0 * step), step)
    points = np.column_stack([np.interp(s, along, line[:, 0]), np.interp(s, along, line[:, 1]), np.interp(s, along, heading)])
    missing = int((middle + ahead - s[-1]) / step)
    ends = False
    if missing > 0:
        points, ends = _prolong(points, index, missing, step)
    points[:, 2] = np.unwrap(points[:, 2])
    numbers = index.numbers(scene.route_lane_ids)
    lane, left, right = _annotate(points, numbers if len(numbers) else np.arange(len(index.ids)), *_arrays(index))
    limit = np.where(lane >= 0, index.limit[lane], DEFAULT_LIMIT)
    curvature = np.convolve(np.pad(np.gradient(points[:, 2], step), 2, mode="edge"), np.full(5, 0.2), mode="valid")
    ego_s, ego_d, tilt = _locate(points, middle - start, step, pose)
    junction = (lane >= 0) & index.junction[lane]
    limit = np.where(limit > 0.1, limit, DEFAULT_LIMIT)
    return RouteFrame(points, step, ego_s, ego_d, tilt, curvature, limit, left, right, junction, ends)


def _arrays(index: LaneIndex):
    return index.points, index.along, index.owner, index.start, index.left, index.right


def _prolong(points: Array, index: LaneIndex, missing: int, step: float) -> tuple[Array, bool]:
    """`missing` more samples along the straightest successors; fewer, and True, where the road ends."""
    x, y, heading = points[-1]
    if not len(index.points):
        return points, True
    at, cost = nearest_point(index.points, 0, len(index.points), x, y, heading)
    if at < 0 or cost > 4.0:
        return points, True
    lane = int(index.owner[at])
    ahead, _ = frame_at(index.points, at, x, y)
    more = _follow(index.points, index.along, index.start, index.next_lane, lane, index.along[at] + ahead, missing, step)
    return np.concatenate([points, more]), len(more) < missing


def _locate(points: Array, guess: float, step: float, pose: Array) -> tuple[float, float, float]:
    """Arc length, left offset and heading error of `pose` (3,) near the sample at `guess` metres."""
    i = int(np.clip(round(guess / step), 0, len(points) - 1))
    for _ in range(3):
        forward, across = frame_at(points, i, pose[0], pose[1])
        moved = int(np.clip(i + round(forward / step), 0, len(points) - 1))
        if moved == i:
            break
        i = moved
    forward, across = frame_at(points, i, pose[0], pose[1])
    return i * step + forward, across, float(wrap(pose[2] - points[i, 2]))


@njit(cache=True)
def _follow(points, along, start, next_lane, lane, s, missing, step):
    out = np.empty((missing, 3))
    total, last = along[start[lane + 1] - 1], lane
    for _ in range(64):
        if next_lane[last] < 0 or total > s + step * missing:
            break
        last = next_lane[last]
        total += along[start[last + 1] - 1]
    for k in range(missing):
        if s + step * (k + 1) > total:
            return out[:k]
        out[k, 0], out[k, 1], out[k, 2] = lane_pose(points, along, start, next_lane, lane, s + step * (k + 1))
    return out


@njit(cache=True)
def _annotate(samples, lanes, points, along, owner, start, left, right):
    """Lane under each sample (among `lanes`), and the offsets of its left and right neighbours' centres."""
    count = len(samples)
    lane, sides = np.full(count, -1), np.full((2, count), np.nan)
    for i in range(count):
        x, y, heading = samples[i]
        best = 6.0
        for j in lanes:
            # adjacent points are about 1 m apart: test every 8th before the whole lane
            close = False
            for k in range(start[j], start[j + 1], 8):
                if abs(points[k, 0] - x) < best + 10.0 and abs(points[k, 1] - y) < best + 10.0:
                    close = True
                    break
            if not close:
                continue
            _, cost = nearest_point(points, start[j], start[j + 1], x, y, heading)
            if cost < best:
                best, lane[i] = cost, j
        if lane[i] < 0:
            continue
        for side in range(2):
            other = left[lane[i]] if side == 0 else right[lane[i]]
            if other < 0:
                continue
            at, _ = nearest_point(points, start[other], start[other + 1], x, y, heading)
            ahead, across = frame_at(points, at, x, y)
            if abs(ahead) < 2.5 and 2.0 < abs(across) < 6.0:
                sides[side, i] = -across
    return lane, sides[0], sides[1]


def lane_change_offsets(frame: RouteFrame, side: int, length: float) -> Array | None:
    """(S,) offsets of a path in the neighbour lane, back on the route `length` metres before that lane ends; None if too short."""
    offset = frame.left if side > 0 else frame.right
    here = min(int(frame.ego_s / frame.step) + 1, len(offset) - 1)
    missing = np.flatnonzero(np.isnan(offset[here:]))
    room = missing[0] if len(missing) else len(offset) - here
    if room * frame.step < 2.0 * length + 5.0:
        return None
    s, end = frame.s, frame.s[here] + room * frame.step
    filled = np.where(np.isnan(offset), offset[here], offset)
    if not len(missing):
        return filled
    t = np.clip((end - s) / length, 0.0, 1.0)
    return filled * (t * t * (3.0 - 2.0 * t))


def build_paths(
    frame: RouteFrame, targets: list[Array], lengths: list[float], sides: list[int], lateral_acceleration: float, braking: float
) -> Paths:
    """Paths from the ego's pose to the `targets` (each (S,) offsets), reached smoothly after `lengths` metres.

    The speed of a path is bounded by `lateral_acceleration` (m/s^2) in curves, approached with `braking` (m/s^2).
    """
    shift = np.clip(SWING_OUT * frame.curvature, -MAX_SHIFT, MAX_SHIFT)
    wanted = np.stack(targets) + shift
    offset, points, along, speed = _paths(
        frame.points, frame.step, frame.ego_s, frame.ego_d, np.tan(np.clip(frame.ego_tilt, -1.0, 1.0)), wanted,
        np.array(lengths, float), lateral_acceleration, braking, frame.ends,
    )  # fmt: skip
    here = min(int(frame.ego_s / frame.step) + 1, len(frame.points) - 1)
    settled = np.stack(targets)[np.arange(len(targets)), np.minimum(here + np.ceil(lengths).astype(int), len(frame.points) - 1)]
    return Paths(offset, points, along, speed, settled, np.array(sides, np.int64))


@njit(cache=True)
def _paths(route, step, ego_s, ego_d, slope, wanted, lengths, lateral_acceleration, braking, ends):
    count, samples = wanted.shape
    offset, points = np.empty((count, samples)), np.empty((count, samples, 3))
    along, speed = np.zeros((count, samples)), np.empty((count, samples))
    here = min(max(int(ego_s / step), 0), samples - 1)
    for p in range(count):
        gap, length = ego_d - wanted[p, here], lengths[p]
        for i in range(samples):
            t = (i * step - ego_s) / length
            error = ego_d - wanted[p, i] if t <= 0.0 else 0.0
            if 0.0 < t < 1.0:
                # quintic with e(0) = gap, e'(0) = slope, e''(0) = 0 and value, slope, bend 0 at the end
                b = slope * length
                cubic, quartic, quintic = -10.0 * gap - 6.0 * b, 15.0 * gap + 8.0 * b, -6.0 * gap - 3.0 * b
                error = gap + b * t + t * t * t * (cubic + t * (quartic + t * quintic))
            offset[p, i] = wanted[p, i] + error
            points[p, i, 0] = route[i, 0] - np.sin(route[i, 2]) * offset[p, i]
            points[p, i, 1] = route[i, 1] + np.cos(route[i, 2]) * offset[p, i]
        for i in range(samples):
            a, b2 = max(i - 1, 0), min(i + 1, samples - 1)
            dx, dy = points[p, b2, 0] - points[p, a, 0], points[p, b2, 1] - points[p, a, 1]
            points[p, i, 2] = route[i, 2] + wrap(np.arctan2(dy, dx) - route[i, 2])
            if i > 0:
                along[p, i] = along[p, i - 1] + np.hypot(points[p, i, 0] - points[p, i - 1, 0], points[p, i, 1] - points[p, i - 1, 1])
        for i in range(samples):
            a, b2 = max(i - 2, 0), min(i + 2, samples - 1)
            bend = abs(points[p, b2, 2] - points[p, a, 2]) / max(along[p, b2] - along[p, a], 0.1)
            speed[p, i] = np.sqrt(lateral_acceleration / max(bend, 1e-4))
        if ends:
            speed[p, -1] = 0.0
        for i in range(samples - 2, -1, -1):
            speed[p, i] = min(speed[p, i], np.sqrt(speed[p, i + 1] ** 2 + 2.0 * braking * (along[p, i + 1] - along[p, i])))
    return offset, points, along, speed
