"""The polygon layers of a RoadMap, built from lane borders: NAVSIM's lane, connector, roadblock, intersection, drivable area."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.roadmap import Lane, Layer, Polygons

Array = NDArray[np.float64]
Ring = tuple[str, Layer, Array]
GROW = 0.05  # m by which drivable pieces overlap their neighbours
CLOSE = 3.0  # m: notches of a junction's outline narrower than twice this are paved
PIECE = 60.0  # m, the longest piece of drivable area: keeps bounding boxes tight
FILL_HOLE = 60.0  # m^2: a smaller hole between connectors is paved, a larger one is an island
SIMPLIFY = 0.01  # m
MIN_AREA = 0.05  # m^2: slivers are dropped


@dataclass(frozen=True)
class Strip:
    """The surface of one lane of one road section outside junctions."""

    road: int
    section: int
    lane: int  # positive lanes have their borders in driving direction, against the road
    left: Array  # (N, 2)
    right: Array  # (N, 2)


def build_polygons(lanes: dict[str, Lane], strips: list[Strip]) -> Polygons:
    """All layers; `strips` are the driving and shoulder lanes outside junctions, in any order."""
    rings: list[Ring] = []
    blocks: dict[str, list[BaseGeometry]] = defaultdict(list)
    junctions: dict[str, list[BaseGeometry]] = defaultdict(list)
    for lane in lanes.values():
        shape = _surface(lane.left, lane.right)
        layer = Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE
        rings += _named(lane.id, layer, shape)
        (junctions[lane.junction] if lane.is_connector else blocks[lane.roadblock]).append(shape)
    for block, shapes in blocks.items():
        rings += _named(block, Layer.ROADBLOCK, _union(shapes))
    for junction, shapes in junctions.items():
        outline = _union(shapes).buffer(CLOSE).buffer(GROW - CLOSE)
        rings += _named(f"junction_{junction}", Layer.INTERSECTION, outline)
        rings += _named(f"junction_{junction}", Layer.DRIVABLE_AREA, outline)
    rings += _drivable(strips)
    return Polygons.from_rings(rings)


def _drivable(strips: list[Strip]) -> list[Ring]:
    """Cross sections of each road section, cut into pieces no longer than PIECE."""
    sections: dict[tuple[int, int], list[Strip]] = defaultdict(list)
    for strip in strips:
        sections[strip.road, strip.section].append(strip)
    rings: list[Ring] = []
    for (road, section), members in sections.items():
        count = max(math.ceil(max(np.hypot(*np.diff(m.left, axis=0).T).sum() for m in members) / PIECE), 1)
        for i in range(count):
            shapes = [_surface(*_cut(m, i, count)) for m in members]
            rings += _named(f"road_{road}_{section}_{i}", Layer.DRIVABLE_AREA, _union(shapes).buffer(GROW, join_style="mitre"))
    return rings


def _cut(strip: Strip, index: int, count: int) -> tuple[Array, Array]:
    """Borders of part `index` of `count`, counted along the road."""
    last = len(strip.left) - 1
    low, high = math.floor(index * last / count), math.ceil((index + 1) * last / count)
    if strip.lane > 0:
        low, high = last - high, last - low
    return strip.left[low : high + 1], strip.right[low : high + 1]


def _surface(left: Array, right: Array) -> BaseGeometry:
    """The polygon between two borders; repaired where a border folds in a tight bend."""
    polygon = shapely.Polygon(np.concatenate([left, right[::-1]]))
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def _union(shapes: Iterable[BaseGeometry]) -> BaseGeometry:
    """Union without the hairline gaps that rounding leaves between neighbours."""
    return shapely.union_all([s.buffer(0.02, join_style="mitre") for s in shapes]).buffer(-0.02, join_style="mitre")


def _named(token: str, layer: Layer, shape: BaseGeometry) -> list[Ring]:
    """Rings of a shape; more than one where it has several parts or was cut around an island."""
    return [(token, layer, ring) for ring in _simple_rings(shape)]


def _simple_rings(shape: BaseGeometry) -> list[Array]:
    """Outer rings (N, 2), not closed, that cover `shape`: small holes are filled, around larger ones the shape is cut in two."""
    found = []
    for part in shapely.get_parts(shape.simplify(SIMPLIFY)):
        if not isinstance(part, shapely.Polygon) or part.area < MIN_AREA:
            continue
        islands = [r for r in part.interiors if shapely.Polygon(r).area > FILL_HOLE]
        if not islands:
            found.append(np.asarray(part.exterior.coords)[:-1].round(4))
            continue
        part = shapely.Polygon(part.exterior, islands)
        x, (x0, y0, x1, y1) = islands[0].centroid.x, part.bounds
        for side in (shapely.box(x0 - 1.0, y0 - 1.0, x + GROW, y1 + 1.0), shapely.box(x - GROW, y0 - 1.0, x1 + 1.0, y1 + 1.0)):
            found += _simple_rings(part.intersection(side))
    return found
