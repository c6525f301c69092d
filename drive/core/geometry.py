"""Frames and planar geometry.

SI units and radians. The ego frame has x forward, y left, heading counter-clockwise, origin at the rear axle. The world
frame is any flat, right-handed map frame. Poses are arrays (..., 3) = x, y, heading.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def wrap_angle(angle):
    """Angles (...) in radians to (-pi, pi]; keeps the array type."""
    return -((-np.asarray(angle) + np.pi) % (2.0 * np.pi) - np.pi)


def compose(origin, relative) -> Array:
    """SE(2) product origin * relative, both (..., 3): pose `relative`, given in the frame of `origin`, in the frame of `origin`'s parent."""
    origin, relative = np.broadcast_arrays(np.asarray(origin, float), np.asarray(relative, float))
    c, s = np.cos(origin[..., 2]), np.sin(origin[..., 2])
    x = origin[..., 0] + c * relative[..., 0] - s * relative[..., 1]
    y = origin[..., 1] + s * relative[..., 0] + c * relative[..., 1]
    return np.stack([x, y, wrap_angle(origin[..., 2] + relative[..., 2])], axis=-1)


def relative(origin, pose) -> Array:
    """SE(2) quotient origin^-1 * pose, both (..., 3): `pose` as seen in the frame of `origin`."""
    origin, pose = np.broadcast_arrays(np.asarray(origin, float), np.asarray(pose, float))
    c, s = np.cos(origin[..., 2]), np.sin(origin[..., 2])
    dx, dy = pose[..., 0] - origin[..., 0], pose[..., 1] - origin[..., 1]
    return np.stack([c * dx + s * dy, -s * dx + c * dy, wrap_angle(pose[..., 2] - origin[..., 2])], axis=-1)


def points_to_frame(origin, points) -> Array:
    """World points (..., 2) in the frame of `origin` (3,)."""
    points = np.asarray(points, float)
    c, s = np.cos(origin[2]), np.sin(origin[2])
    dx, dy = points[..., 0] - origin[0], points[..., 1] - origin[1]
    return np.stack([c * dx + s * dy, -s * dx + c * dy], axis=-1)


def box_corners(poses, length, width, rear_to_center=0.0) -> Array:
    """Corners (..., 4, 2) of boxes in the order front-left, rear-left, rear-right, front-right (NAVSIM's order).

    poses (..., 3) is the box centre, or the rear axle when `rear_to_center` > 0 (metres along the heading to the centre).
    """
    poses = np.asarray(poses, float)
    half_l = np.broadcast_to(np.asarray(length, float) / 2.0, poses.shape[:-1])
    half_w = np.broadcast_to(np.asarray(width, float) / 2.0, poses.shape[:-1])
    c, s = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    cx, cy = poses[..., 0] + c * rear_to_center, poses[..., 1] + s * rear_to_center
    along = np.array([1.0, -1.0, -1.0, 1.0]) * half_l[..., None]
    across = np.array([1.0, 1.0, -1.0, -1.0]) * half_w[..., None]
    x = cx[..., None] + c[..., None] * along - s[..., None] * across
    y = cy[..., None] + s[..., None] * along + c[..., None] * across
    return np.stack([x, y], axis=-1)


def interpolate_poses(times, poses, query) -> Array:
    """Poses (Q, 3) at the times `query` (Q,) from poses (T, 3) at increasing `times` (T,); heading unwrapped, ends held."""
    poses = np.asarray(poses, float)
    heading = np.unwrap(poses[:, 2])
    x = np.interp(query, times, poses[:, 0])
    y = np.interp(query, times, poses[:, 1])
    return np.stack([x, y, wrap_angle(np.interp(query, times, heading))], axis=-1)


def polyline_with_heading(points) -> Array:
    """(N, 3) x, y, heading of a polyline (N, 2), heading of each segment given to its start, the last repeated."""
    points = np.asarray(points, float)
    step = np.diff(points, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    return np.column_stack([points, np.append(heading, heading[-1:])])


def arc_length(points) -> Array:
    """Cumulative length (N,) along a polyline (N, 2 or 3), metres, starting at 0."""
    points = np.asarray(points, float)[:, :2]
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])


def evenly(points, count: int) -> Array:
    """(count, 2) evenly spaced points of a polyline (N, 2 or 3)."""
    points = np.asarray(points, float)
    s = arc_length(points)
    keep = np.concatenate([[True], np.diff(s) > 1e-9])
    at = np.linspace(0.0, s[-1], count)
    return np.column_stack([np.interp(at, s[keep], points[keep, k]) for k in range(2)])


def project(points, xy) -> tuple[float, float]:
    """(s, d): arc length of the foot of `xy` (2,) on a polyline (N, 2+), and its signed distance, left positive; metres."""
    points, xy = np.asarray(points, float)[:, :2], np.asarray(xy, float)
    start, step = points[:-1], np.diff(points, axis=0)
    length2 = np.maximum((step**2).sum(1), 1e-12)
    t = np.clip(((xy - start) * step).sum(1) / length2, 0.0, 1.0)
    foot = start + t[:, None] * step
    gap = xy - foot
    i = int(np.argmin((gap**2).sum(1)))
    s = arc_length(points)[i] + t[i] * np.sqrt(length2[i])
    side = np.sign(step[i, 0] * gap[i, 1] - step[i, 1] * gap[i, 0]) or 1.0
    return float(s), float(side * np.hypot(*gap[i]))
