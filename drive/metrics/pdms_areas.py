"""Where the ego is: strict point-in-polygon, and the three area flags of NAVSIM's PDM score.

Source: NAVSIM v1.1, pdm_scorer.py, ego areas. A point on a border is outside; each corner may lie in another polygon; no
tolerance.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.roadmap import Layer, Polygons

Array = NDArray[np.float64]
LANE, DRIVABLE, ON_ROUTE, INTERSECTION = 1, 2, 4, 8  # bits of PackedAreas.kind
_KIND = {
    Layer.LANE: LANE,
    Layer.LANE_CONNECTOR: LANE,
    Layer.ROADBLOCK: DRIVABLE,
    Layer.INTERSECTION: DRIVABLE | INTERSECTION,
    Layer.CARPARK: DRIVABLE,
    Layer.DRIVABLE_AREA: DRIVABLE,
}


class PackedAreas(NamedTuple):
    """Polygons as the kernels read them; edges lie in slabs across the longer side, so that a point meets a few of them."""

    bounds: Array  # (P, 4) xmin, ymin, xmax, ymax
    kind: NDArray[np.int64]  # (P,) bits LANE, DRIVABLE, ON_ROUTE, INTERSECTION
    order: NDArray[np.int64]  # (P,) indices, lanes of the route first: they most often settle where the ego is
    swapped: NDArray[np.bool_]  # (P,) x and y change places, the slabs lie along x
    slabs: NDArray[np.int64]  # (P + 1,) slab k of polygon i is entry slabs[i] + k of `starts`
    scale: Array  # (P,) slabs per metre
    starts: NDArray[np.int64]  # (S + 1,) edges[starts[j]:starts[j + 1]] may meet slab j
    edges: Array  # (E, 4) from x, y to x, y; an edge stands in each slab that it meets


def pack_areas(polygons: Polygons, on_route: NDArray[np.bool_]) -> PackedAreas:
    """PackedAreas of map polygons and their on-route flags (P,); the flag counts for lanes and lane connectors alone."""
    table = np.array([_KIND[layer] for layer in Layer], np.int64)
    kind = table[polygons.layers.astype(np.int64)]
    kind = np.where(on_route & ((kind & LANE) != 0), kind | ON_ROUTE, kind)
    bounds = np.ascontiguousarray(polygons.bounds, np.float64)
    extent = bounds[:, 2:] - bounds[:, :2]
    counts = np.maximum(np.diff(polygons.offsets) // 2, 1)
    scale = counts / np.maximum(extent.max(axis=1), 1e-9)
    slabs = np.concatenate([[0], np.cumsum(counts)])
    swapped = extent[:, 0] > extent[:, 1]
    vertices = np.ascontiguousarray(polygons.vertices, np.float64).reshape(-1, 2)
    starts, edges = _fill_slabs(vertices, polygons.offsets, bounds, swapped, slabs, scale)
    order = np.argsort((kind & ON_ROUTE) == 0, kind="stable")
    return PackedAreas(bounds, kind, order, swapped, slabs, scale, starts, edges)


@njit(cache=True, inline="always")
def _slab(y, low, scale, count):
    """Slab of ordinate `y`; monotonic in y, so that no edge that straddles y is missed."""
    return min(max(int((y - low) * scale), 0), count - 1)


@njit(cache=True, nogil=True)
def _fill_slabs(vertices, offsets, bounds, swapped, slabs, scale):
    """`starts` and `edges` of PackedAreas: one pass counts, a second one fills."""
    starts = np.zeros(slabs[-1] + 1, np.int64)
    edges = np.empty((0, 4))
    at = starts
    for filling in (False, True):
        if filling:
            starts = np.cumsum(starts)
            at = starts.copy()
            edges = np.empty((starts[-1], 4))
        for i in range(slabs.shape[0] - 1):
            x, y = (1, 0) if swapped[i] else (0, 1)
            low, count, a = bounds[i, y], slabs[i + 1] - slabs[i], offsets[i + 1] - 1
            for b in range(offsets[i], offsets[i + 1]):
                first, last = min(vertices[a, y], vertices[b, y]), max(vertices[a, y], vertices[b, y])
                for k in range(_slab(first, low, scale[i], count), _slab(last, low, scale[i], count) + 1):
                    j = slabs[i] + k
                    if filling:
                        e = at[j]
                        edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3] = (
                            vertices[a, x],
                            vertices[a, y],
                            vertices[b, x],
                            vertices[b, y],
                        )
                        at[j] += 1
                    else:
                        starts[j + 1] += 1
                a = b
    return starts, edges


@njit(cache=True, inline="always")
def in_polygon(areas, i, x, y):
    """Whether polygon `i` of PackedAreas strictly contains (x, y): crossings of a ray along x, a point on an edge is outside."""
    b = areas.bounds
    if not (b[i, 0] < x < b[i, 2] and b[i, 1] < y < b[i, 3]):
        return False
    low = b[i, 1]
    if areas.swapped[i]:
        x, y, low = y, x, b[i, 0]
    j = areas.slabs[i] + _slab(y, low, areas.scale[i], areas.slabs[i + 1] - areas.slabs[i])
    inside = False
    for e in range(areas.starts[j], areas.starts[j + 1]):
        ax, ay, bx, by = areas.edges[e, 0], areas.edges[e, 1], areas.edges[e, 2], areas.edges[e, 3]
        if (ay > y) != (by > y):
            side = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            if side == 0.0:
                return False
            if (side > 0.0) == (by > ay):
                inside = not inside
        elif by == y and (bx == x or (ay == y and min(ax, bx) <= x <= max(ax, bx))):
            return False
    return inside


@njit(cache=True, nogil=True)
def in_any(areas, bit, x, y):
    """Whether some polygon with `bit` in its kind strictly contains (x, y)."""
    for i in range(areas.kind.shape[0]):  # noqa: SIM110, numba compiles no generator
        if areas.kind[i] & bit and in_polygon(areas, i, x, y):
            return True
    return False


@njit(cache=True)
def _near(bounds, box, among, count, out):
    """Number of polygons of among[:count] whose bounds meet `box` (xmin, ymin, xmax, ymax); their indices into `out`."""
    found = 0
    for j in range(count):
        i = among[j]
        if bounds[i, 0] <= box[2] and bounds[i, 2] >= box[0] and bounds[i, 1] <= box[3] and bounds[i, 3] >= box[1]:
            out[found] = i
            found += 1
    return found


@njit(cache=True, inline="always")
def _flags(areas, near, count, points):
    """(multiple lanes, non-drivable, oncoming) of one ego box: points (5, 2), the corners and the centre."""
    lanes_touched, within_one_lane, on_route, covered = 0, False, False, 0
    for j in range(count):
        i = near[j]
        kind = areas.kind[i]
        if kind & LANE:
            corners = 0
            for c in range(0 if within_one_lane else 4):
                if in_polygon(areas, i, points[c, 0], points[c, 1]):
                    corners += 1
                elif lanes_touched > 1:
                    break  # only a lane that holds all four corners can still matter
            lanes_touched += corners > 0
            within_one_lane |= corners == 4
            if kind & ON_ROUTE and not on_route:
                on_route = in_polygon(areas, i, points[4, 0], points[4, 1])
        elif covered != 15:
            for c in range(4):
                if not covered & (1 << c) and in_polygon(areas, i, points[c, 0], points[c, 1]):
                    covered |= 1 << c
    return lanes_touched > 1 and not within_one_lane, covered != 15, not on_route


@njit(cache=True, nogil=True)
def ego_areas(states, areas, front, rear, half_width):
    """Flags (N, T, 3) bool, multiple lanes, non-drivable, oncoming, of states (N, T, 11); ego box measured from the rear axle."""
    n_proposals, n_steps = states.shape[0], states.shape[1]
    flags = np.empty((n_proposals, n_steps, 3), np.bool_)
    n_polygons = areas.kind.shape[0]
    reach, near = np.empty(n_polygons, np.int64), np.empty(n_polygons, np.int64)
    box, points = np.empty(4), np.empty((5, 2))
    radius = math.hypot(max(front, rear), half_width)
    along = (front, -rear, -rear, front, (front - rear) / 2.0)
    across = (half_width, half_width, -half_width, -half_width, 0.0)
    for n in range(n_proposals):
        box[0], box[1] = states[n, :, 0].min() - radius, states[n, :, 1].min() - radius
        box[2], box[3] = states[n, :, 0].max() + radius, states[n, :, 1].max() + radius
        n_reach = _near(areas.bounds, box, areas.order, n_polygons, reach)
        for t in range(n_steps):
            c, s = math.cos(states[n, t, 2]), math.sin(states[n, t, 2])
            for k in range(5):
                points[k, 0] = states[n, t, 0] + c * along[k] - s * across[k]
                points[k, 1] = states[n, t, 1] + s * along[k] + c * across[k]
            box[0], box[1] = points[:, 0].min(), points[:, 1].min()
            box[2], box[3] = points[:, 0].max(), points[:, 1].max()
            n_near = _near(areas.bounds, box, reach, n_reach, near)
            flags[n, t, 0], flags[n, t, 1], flags[n, t, 2] = _flags(areas, near, n_near, points)
    return flags
