"""Ray casting in numba: straight rays against the ground plane and upright boxes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.roadmap import RoadMap
from drive.simulators.raster import View, labels, rasterise
from drive.simulators.scene_geometry import EMPTY, Semantic
from drive.simulators.scenery import scenery_solid_boxes
from drive.simulators.static_scene import drivable_surface, static_scene

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
BINS = 720  # of azimuth, in which boxes are sorted
NOTHING, GROUND = -2, -1  # what a ray met, beside rows of boxes
CELL, MOST_CELLS = 0.2, 3000  # m of the map of ground labels, at least; cells along its longer side at most
ABOVE = 1000.0  # m from which the map of ground labels is drawn
SCENERY_NAMES = {int(Semantic.BUILDING): "static.building", int(Semantic.VEGETATION): "static.vegetation"}


class Hits(NamedTuple):
    """What N rays met first."""

    distance: Array  # (N,) m, inf where nothing
    what: NDArray[np.int64]  # (N,) row of the box, GROUND or NOTHING
    cosine: Array  # (N,) of the angle between ray and surface normal


class Targets(NamedTuple):
    """All that rays can meet; CARLA's frame, heights from the ground."""

    boxes: Array  # (M, 7) x, y, z m, yaw rad, half length, width, height m: first bodies, then scenery
    ids: NDArray[np.uint32]  # (M,) actors, 0 for scenery
    tags: NDArray[np.uint8]  # (M,) CARLA's semantic labels
    velocity: Array  # (M, 3) m/s
    dynamic: NDArray[np.bool_]  # (M,) vehicles and walkers


@njit(cache=True)
def sort_boxes(boxes, x, y, reach):
    """Per bin of azimuth round x, y the boxes within `reach` m, nearest first: start (BINS + 1,), rows, and nearest (M,) m."""
    m = len(boxes)
    nearest = np.full(m, np.inf)
    first, last = np.zeros(m, np.int64), np.full(m, -1, np.int64)
    for k in range(m):
        dx, dy, radius = boxes[k, 0] - x, boxes[k, 1] - y, math.hypot(boxes[k, 4], boxes[k, 5])
        away = math.hypot(dx, dy)
        if away - radius > reach:
            continue
        nearest[k] = max(away - radius, 0.0)
        last[k] = BINS - 1
        if away > radius:
            middle, half = math.atan2(dy, dx), math.asin(radius / away) + 1e-6
            first[k] = math.floor((middle - half + math.pi) / (2.0 * math.pi) * BINS)
            last[k] = math.floor((middle + half + math.pi) / (2.0 * math.pi) * BINS)
    start = np.zeros(BINS + 1, np.int64)
    for k in range(m):
        for b in range(first[k], last[k] + 1):
            start[b % BINS + 1] += 1
    start = np.cumsum(start)
    rows, at = np.empty(start[BINS], np.int64), start.copy()
    for k in np.argsort(nearest, kind="mergesort"):
        for b in range(first[k], last[k] + 1):
            rows[at[b % BINS]] = k
            at[b % BINS] += 1
    return start, rows, nearest


@njit(cache=True)
def _enter(box, origin, way, c, s):
    """Metres along a ray at which it enters a box from outside, and the cosine at which; inf where it does not."""
    dx, dy = origin[0] - box[0], origin[1] - box[1]
    near, far, cosine = -np.inf, np.inf, 0.0
    for axis in range(3):
        if axis == 0:
            o, d = c * dx + s * dy, c * way[0] + s * way[1]
        elif axis == 1:
            o, d = -s * dx + c * dy, -s * way[0] + c * way[1]
        else:
            o, d = origin[2] - box[2], way[2]
        half = box[4 + axis]
        if abs(d) < 1e-12:
            if abs(o) > half:
                return np.inf, 0.0
            continue
        a, b = (-half - o) / d, (half - o) / d
        if a > b:
            a, b = b, a
        if a > near:
            near, cosine = a, abs(d)
        far = min(far, b)
    if near > far or near < 0.0:
        return np.inf, 0.0
    return near, cosine


@njit(cache=True)
def cast(origin, ways, reach, boxes, start, rows, nearest):
    """The first thing on each ray: origin (3,), ways (N, 3) of length 1, reach (N,) m; the rest as `sort_boxes` gives it."""
    n = len(ways)
    distance, what, cosine = np.full(n, np.inf), np.full(n, NOTHING, np.int64), np.zeros(n)
    cos, sin = np.cos(boxes[:, 3]), np.sin(boxes[:, 3])
    for i in range(n):
        way, best = ways[i], reach[i]
        if way[2] < 0.0 < origin[2] and origin[2] <= -best * way[2]:
            best = -origin[2] / way[2]
            distance[i], what[i], cosine[i] = best, GROUND, -way[2]
        flat = math.hypot(way[0], way[1])
        b = int((math.atan2(way[1], way[0]) + math.pi) / (2.0 * math.pi) * BINS) % BINS
        for j in range(start[b], start[b + 1]):
            k = rows[j]
            if nearest[k] > best * flat:
                break
            at, angle = _enter(boxes[k], origin, way, cos[k], sin[k])
            if at <= best:
                best = at
                distance[i], what[i], cosine[i] = at, k, angle
    return distance, what, cosine


_SCENERY: WeakKeyDictionary[RoadMap, tuple[Array, NDArray[np.uint8]]] = WeakKeyDictionary()
_GROUND: WeakKeyDictionary[RoadMap, tuple[NDArray[np.uint8], float, float, float]] = WeakKeyDictionary()


def _scenery(road_map: RoadMap) -> tuple[Array, NDArray[np.uint8]]:
    """Boxes (M, 7) and labels (M,) of houses and trees, CARLA's frame."""
    if road_map not in _SCENERY:
        b, kinds = scenery_solid_boxes(road_map, drivable_surface(road_map))
        middle, half = (b[:, 5] + b[:, 6]) / 2.0, (b[:, 6] - b[:, 5]) / 2.0
        _SCENERY[road_map] = (
            np.column_stack([b[:, 0], -b[:, 1], middle, -b[:, 2], b[:, 3], b[:, 4], half]),
            kinds.astype(np.uint8),
        )
    return _SCENERY[road_map]


def targets(episode: Episode) -> Targets:
    """Of this frame."""
    scene = episode.scene
    boxes, tags = _scenery(episode.town.road_map)
    still = np.zeros(len(boxes))
    return Targets(
        np.concatenate([scene.boxes, boxes]),
        np.concatenate([scene.ids, still.astype(np.uint32)]),
        np.concatenate([scene.tags, tags]),
        np.concatenate([scene.velocity, np.zeros((len(boxes), 3))]),
        np.concatenate([scene.dynamic, still.astype(bool)]),
    )


def shoot(found: Targets, origin: Array, ways: Array, reach: Array) -> Hits:
    """What rays from `origin` (3,), z above the ground, along `ways` (N, 3) of length 1 meet within `reach` (N,) m.

    A box that holds the origin is not met: like the triangles of a mesh, its sides face outwards.
    """
    sorted_boxes = sort_boxes(found.boxes, origin[0], origin[1], float(reach.max(initial=0.0)))
    return Hits(*cast(origin, np.ascontiguousarray(ways), reach, found.boxes, *sorted_boxes))


def ground_labels(road_map: RoadMap, x: Array, y: Array) -> NDArray[np.uint8]:
    """CARLA's labels (N,) of the ground at x, y (N,), CARLA's frame, to a cell of 0.2 m (more in towns of over 600 m)."""
    if road_map not in _GROUND:
        _GROUND[road_map] = _ground_map(road_map)
    table, left, top, cell = _GROUND[road_map]
    column, row = np.floor((x - left) / cell).astype(np.int64), np.floor((y - top) / cell).astype(np.int64)
    inside = (column >= 0) & (column < table.shape[1]) & (row >= 0) & (row < table.shape[0])
    found = np.full(len(x), int(Semantic.TERRAIN), np.uint8)
    found[inside] = table[row[inside], column[inside]]
    return found


def _ground_map(road_map: RoadMap) -> tuple[NDArray[np.uint8], float, float, float]:
    """The ground as the renderer paints it, seen from above: labels, and x, y of its first corner and the cell's side, m."""
    ground = static_scene(road_map).ground
    points = ground.vertices.reshape(-1, 3)
    low, high = (points[:, :2].min(0), points[:, :2].max(0)) if len(points) else (np.zeros(2), np.ones(2))
    cell = max(CELL, float((high - low).max()) / MOST_CELLS)
    width, height = (int(size) for size in np.ceil((high - low) / cell))
    middle = (low + high) / 2.0
    down = np.diag([1.0, -1.0, -1.0])
    focal = ABOVE / cell
    view = View(down, np.array([*middle, ABOVE]), focal, focal, width / 2.0, height / 2.0, width, height)
    table = labels(rasterise(view, 2.0 * ABOVE, ground, EMPTY, EMPTY, EMPTY, Semantic.TERRAIN.value))[1]
    return table, float(middle[0] - width * cell / 2.0), float(-middle[1] - height * cell / 2.0), cell
