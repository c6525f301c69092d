"""CARLA's poses: left-handed, x forward, y right, z up, degrees; x, y, z, pitch, yaw, roll in this order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def matrix(pose) -> Array:
    """(4, 4) from the frame of `pose` (6,) to the frame it is given in; equal to carla.Transform.get_matrix."""
    pitch, yaw, roll = math.radians(pose[3]), math.radians(pose[4]), math.radians(pose[5])
    cp, sp, cy, sy, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(yaw), math.sin(yaw), math.cos(roll), math.sin(roll)
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr, pose[0]],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr, pose[1]],
            [sp, -cp * sr, cp * cr, pose[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def pose_from(m: Array) -> Array:
    """(6,) of a (4, 4) matrix."""
    pitch = math.degrees(math.asin(min(max(m[2, 0], -1.0), 1.0)))
    yaw, roll = math.degrees(math.atan2(m[1, 0], m[0, 0])), math.degrees(math.atan2(-m[2, 1], m[2, 2]))
    return np.array([m[0, 3], m[1, 3], m[2, 3], pitch, yaw, roll])


def attached(parent, relative) -> Array:
    """(6,) world pose of what stands at `relative` (6,) in the frame of `parent` (6,)."""
    return pose_from(matrix(parent) @ matrix(relative))
