"""Rotations as quaternions w, x, y, z, as nuScenes and Argoverse 2 write them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def rotation_matrix(quaternion: ArrayLike) -> Array:
    """(..., 3, 3) of quaternions (..., 4), which need not be of unit length."""
    q = np.asarray(quaternion, np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def heading(matrix: Array) -> Array:
    """(...) rad: where the x axis of rotations (..., 3, 3) points on the ground."""
    return np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])


def transform(quaternion: ArrayLike, translation: ArrayLike) -> Array:
    """(4, 4) of a quaternion and a translation in m."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation_matrix(quaternion), np.asarray(translation, np.float64)
    return matrix
