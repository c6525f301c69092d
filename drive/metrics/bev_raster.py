"""Polygons on a grid of cells, pixel for pixel as OpenCV's fillPoly paints them: what published occupancy grids were drawn with.

fillPoly draws every edge as an 8-connected line and fills the scan lines between edges, with edge positions in 16-bit fixed point;
a box therefore covers up to a cell more than its area. Source: OpenCV, modules/imgproc/src/drawing.cpp, as it is up to 4.7 and from 4.11 on
(4.8 to 4.10 round half cells up, and paint 0.7 % more). Polygons that leave the grid are cut cell by cell here, where OpenCV cuts their
edges first: their cells can differ.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError

SHIFT = 16  # bits behind the point of an edge's position
MAX_CORNERS = 16


@njit(cache=True)
def _paint(grid, row, column):
    if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
        grid[row, column] = True


@njit(cache=True)
def _line(grid, x0, y0, x1, y1):
    """An 8-connected line, drawn from its left end."""
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy, up = x1 - x0, abs(y1 - y0), 1 if y1 >= y0 else -1
    steep = dy > dx
    longer, shorter = (dy, dx) if steep else (dx, dy)
    error, x, y = longer - 2 * shorter, x0, y0
    for _ in range(longer + 1):
        _paint(grid, y, x)
        aside = error < 0
        error += 2 * longer - 2 * shorter if aside else -2 * shorter
        if steep:
            y += up
            x += 1 if aside else 0
        else:
            x += 1
            y += up if aside else 0


@njit(cache=True)
def _fixed_slope(dx, dy):
    """dx / dy in fixed point, cut towards zero as C does it; dy > 0."""
    return (dx << SHIFT) // dy if dx >= 0 else -((-dx << SHIFT) // dy)


@njit(cache=True)
def _fill(grid, corners):
    """One polygon, corners (V, 2) whole x (column) and y (row)."""
    count = corners.shape[0]
    for i in range(count):
        j = (i + 1) % count
        _line(grid, corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1])
    crossings = np.empty(MAX_CORNERS, np.int64)
    for y in range(max(corners[:, 1].min(), 0), min(corners[:, 1].max(), grid.shape[0])):
        found = 0
        for i in range(count):
            j = (i + 1) % count
            low, high = (i, j) if corners[i, 1] < corners[j, 1] else (j, i)
            if corners[low, 1] <= y < corners[high, 1]:
                slope = _fixed_slope(corners[high, 0] - corners[low, 0], corners[high, 1] - corners[low, 1])
                crossings[found] = (corners[low, 0] << SHIFT) + (y - corners[low, 1]) * slope
                found += 1
        ordered = np.sort(crossings[:found])
        for k in range(0, found - 1, 2):
            for x in range(max((ordered[k] + (1 << SHIFT) - 1) >> SHIFT, 0), min((ordered[k + 1] >> SHIFT) + 1, grid.shape[1])):
                grid[y, x] = True


@njit(cache=True)
def _fill_all(grids, corners, layer):
    for i in range(corners.shape[0]):
        _fill(grids[layer[i]], corners[i])


def fill_polygons(corners: NDArray[np.int64], layer: NDArray[np.int64], layers: int, cells: int) -> NDArray[np.bool_]:
    """Grids (layers, cells, cells), rows by columns: True where one of M polygons of the same `layer` (M,) lies.

    corners (M, V, 2) are whole cells, column before row, inside or outside the grid. Raises DataError on other shapes.
    """
    corners, layer = np.ascontiguousarray(corners, np.int64), np.ascontiguousarray(layer, np.int64)
    fits = corners.ndim == 3 and corners.shape[2] == 2 and 2 <= corners.shape[1] <= MAX_CORNERS and layer.shape == corners.shape[:1]
    if not fits or (len(layer) and not (layer.min() >= 0 and layer.max() < layers)):
        raise DataError(f"polygons have corners (M, 2..{MAX_CORNERS}, 2) and layers (M,) below {layers}, got {corners.shape} and {layer.shape}")
    grids = np.zeros((layers, cells, cells), np.bool_)
    _fill_all(grids, np.clip(corners, -4 * cells, 5 * cells), layer)
    return grids
