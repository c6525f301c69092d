"""Quads for the rasteriser: labels, cells, and how areas and lines become quads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.simulators.raster import QuadSet

Array = NDArray[np.float64]
TILE = 24.0  # m, edge of the cells that are culled as one
SUN = np.array([0.45, 0.35, 0.82])  # towards the sun, world axes
AMBIENT, DIFFUSE = 0.62, 0.42


class Semantic(IntEnum):
    """Labels of the rendered pixels: CARLA's tags where it has one, and 0 for the sky."""

    NONE = 0
    ROAD = 1
    SIDEWALK = 2
    BUILDING = 3
    POLE = 6
    TRAFFIC_LIGHT = 7
    VEGETATION = 9
    TERRAIN = 10
    PEDESTRIAN = 12
    VEHICLE = 14
    BICYCLE = 19
    STATIC = 20
    LANE_MARKING = 24


EMPTY = QuadSet(
    np.zeros((0, 4, 3)),
    np.zeros((0, 3), np.float32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.int32),
    np.zeros(1, np.int64),
    np.zeros((0, 3)),
    np.zeros(0),
)


@dataclass(frozen=True)
class Paint:
    """Quads of one look, before they are sorted into cells."""

    vertices: Array  # (Q, 4, 3) world m
    rgb: Array  # (Q, 3) 0..255
    semantic: Semantic

    @staticmethod
    def flat(corners: Array, rgb: tuple[int, int, int], semantic: Semantic) -> Paint:
        """Ground quads (Q, 4, 2) of one colour."""
        vertices = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], axis=2)
        return Paint(vertices, np.tile(np.array(rgb, float), (len(corners), 1)), semantic)


def sunlit(vertices: Array, rgb: Array) -> Array:
    """Colours (Q, 3) of faces (Q, 4, 3) under the sun, by Lambert's law with an ambient share."""
    normal = np.cross(vertices[:, 2] - vertices[:, 0], vertices[:, 3] - vertices[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return rgb * (AMBIENT + DIFFUSE * np.maximum(normal @ SUN, 0.0))[:, None]


def quad_set(layers: list[Paint]) -> QuadSet:
    """Sort quads into cells of one layer and one TILE each, layers in the order given (the order in which ground is painted)."""
    vertices = np.concatenate([paint.vertices for paint in layers] or [np.zeros((0, 4, 3))])
    rgb = np.concatenate([paint.rgb for paint in layers] or [np.zeros((0, 3))])
    counts = [len(paint.vertices) for paint in layers]
    layer = np.repeat(np.arange(len(layers)), counts)
    semantic = np.repeat(np.array([paint.semantic for paint in layers], np.uint8), counts)
    tile = np.floor(vertices[:, :, :2].mean(1) / TILE).astype(np.int64)
    order = np.lexsort((tile[:, 1], tile[:, 0], layer))
    key = np.column_stack([layer, tile])[order]
    first = np.flatnonzero(np.r_[True, (np.diff(key, axis=0) != 0).any(1)]) if len(key) else np.zeros(0, np.int64)
    start = np.r_[first, len(key)].astype(np.int64)
    vertices = np.ascontiguousarray(vertices[order])
    low = np.minimum.reduceat(vertices.min(1), first) if len(first) else np.zeros((0, 3))
    high = np.maximum.reduceat(vertices.max(1), first) if len(first) else np.zeros((0, 3))
    return QuadSet(
        vertices,
        np.ascontiguousarray(rgb[order], np.float32),
        semantic[order],
        np.zeros(len(order), np.int32),
        start,
        (low + high) / 2.0,
        np.linalg.norm(high - low, axis=1) / 2.0,
    )


@njit(cache=True)
def _trapezoids(edges):
    """Quads (Q, 4, 2) between the edges (E, 4: x0, y0, x1, y1 with y0 < y1) of a polygon with holes, by the even-odd rule."""
    levels = np.unique(np.concatenate((edges[:, 1], edges[:, 3])))
    quads = np.empty((len(edges) * len(levels), 4, 2))
    count = 0
    low, high = np.empty(len(edges)), np.empty(len(edges))
    for level in range(len(levels) - 1):
        y0, y1 = levels[level], levels[level + 1]
        n = 0
        for e in edges:
            if e[1] <= y0 and e[3] >= y1:
                slope = (e[2] - e[0]) / (e[3] - e[1])
                low[n], high[n] = e[0] + (y0 - e[1]) * slope, e[0] + (y1 - e[1]) * slope
                n += 1
        order = np.argsort(low[:n] + high[:n])
        for k in range(0, n - 1, 2):
            a, b = order[k], order[k + 1]
            quads[count, 0, 0], quads[count, 1, 0], quads[count, 2, 0], quads[count, 3, 0] = low[a], low[b], high[b], high[a]
            quads[count, 0, 1], quads[count, 1, 1], quads[count, 2, 1], quads[count, 3, 1] = y0, y0, y1, y1
            count += 1
    return quads[:count].copy()


def _edges(geometry: BaseGeometry) -> Array:
    """(E, 4) edges of every ring, lower end first, horizontal ones left out."""
    rings = shapely.get_rings(shapely.get_parts(geometry))
    lines = [np.hstack([c[:-1], c[1:]]) for c in (shapely.get_coordinates(ring) for ring in rings)]
    edges = np.concatenate(lines) if lines else np.zeros((0, 4))
    edges = np.where((edges[:, 1] > edges[:, 3])[:, None], edges[:, [2, 3, 0, 1]], edges)
    return np.ascontiguousarray(edges[edges[:, 1] < edges[:, 3]])


def area_quads(geometry: BaseGeometry) -> Array:
    """(Q, 4, 2) quads that cover a polygon with holes, cut along TILE squares that overlap by 2 cm, so that no crack can open."""
    if geometry.is_empty:
        return np.zeros((0, 4, 2))
    x0, y0, x1, y1 = (np.floor(bound / TILE) for bound in geometry.bounds)
    x, y = np.meshgrid(np.arange(x0, x1 + 1) * TILE, np.arange(y0, y1 + 1) * TILE)
    tiles = shapely.box(x - 0.01, y - 0.01, x + TILE + 0.01, y + TILE + 0.01).ravel()
    shapely.prepare(geometry)
    tiles = tiles[shapely.intersects(geometry, tiles)]
    inside = shapely.contains_properly(geometry, tiles)
    pieces = [_trapezoids(_edges(piece)) for piece in shapely.intersection(geometry, tiles[~inside])]
    whole = shapely.get_coordinates(tiles[inside]).reshape(-1, 5, 2)[:, :4]
    return np.concatenate([whole, *pieces])


def ribbon(points: Array, width: float) -> Array:
    """(N - 1, 4, 2) quads of a band of `width` metres along a polyline (N, 2), joined at its bends."""
    step = np.diff(points, axis=0)
    step = step / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    tangent = np.vstack([step[:1], step[:-1] + step[1:], step[-1:]])
    tangent = tangent / np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
    across = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * width / 2.0
    left, right = points + across, points - across
    return np.stack([right[:-1], right[1:], left[1:], left[:-1]], axis=1)


def ribbon_set(points: Array, width: float, rgb: tuple[int, int, int], semantic: Semantic) -> QuadSet:
    """A ground band of `width` metres along a polyline (N, 2+), world m; each piece is a cell of its own."""
    corners = ribbon(np.asarray(points, float)[:, :2], width)
    vertices = np.concatenate([corners, np.zeros((*corners.shape[:2], 1))], axis=2)
    n, centre = len(vertices), vertices.mean(1)
    radius = np.linalg.norm(vertices - centre[:, None], axis=2).max(1) if n else np.zeros(0)
    colours = np.tile(np.array(rgb, np.float32), (n, 1))
    return QuadSet(vertices, colours, np.full(n, semantic, np.uint8), np.zeros(n, np.int32), np.arange(n + 1), centre, radius)


def join(first: QuadSet, second: QuadSet) -> QuadSet:
    """Both sets, `first` painted first."""
    if not len(first.radius):
        return second
    start = np.concatenate([first.start[:-1], second.start + first.start[-1]])
    return QuadSet(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.rgb, second.rgb]),
        np.concatenate([first.semantic, second.semantic]),
        np.concatenate([first.instance, second.instance]),
        start,
        np.concatenate([first.centre, second.centre]),
        np.concatenate([first.radius, second.radius]),
    )
