"""RoadMap from the map features of a ScenarioNet log.

What the features of the nuScenes logs hold, as measured on seven of them, and what is made of it:

- `LANE_*` with a polygon is a lane, without one a lane connector. Connectors get the polygon of their centreline widened to
  CONNECTOR_WIDTH; a lane's borders are where its polygon ends to the left and right of its centreline.
- No links are given, but the ends of connected centrelines coincide, where other ends are metres apart: a lane follows another
  if it starts within JOIN metres of its end, in its direction. Logs that name their links are taken at their word.
- `boundary_*` are closed rings: the outlines of the whole drivable area and of the islands in it. Their even-odd fill is the
  drivable area. The lane polygons alone hold all four corners of NAVSIM's ego box (5.18 x 2.30 m) at 8 to 77 % of a moving log's
  poses, with connectors at 79 to 100 %, the fill at 100 % of every log. It is cut into tiles, as a RoadMap's polygons have
  no holes. Logs without such rings get the lanes and connectors, grown by GROW (90 to 100 %).
- The speed limit of nuScenes connectors is a filler of 100 km/h: limits above MAX_SPEED_LIMIT are replaced by SPEED_LIMIT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.spatial import KDTree
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.geometry import arc_length, polyline_with_heading, wrap_angle
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap

Array = NDArray[np.float64]
Ring = tuple[str, Layer, Array]
CONNECTOR_WIDTH = 3.6  # m
HALF_WIDTH = (1.2, 3.0)  # m, bounds of a lane's half width; nuScenes polygons bulge where parking bays join
GROW = 0.5  # m, added to lanes and connectors where no outline of the drivable area is given
JOIN = 0.5  # m, between the end of a lane and the start of the next
JOIN_ANGLE = np.radians(40.0)
TURN_ANGLE = np.radians(30.0)  # heading change from which a connector is a turn
SPEED_LIMIT, MAX_SPEED_LIMIT = 50 / 3.6, 90 / 3.6  # m/s
TILE = 40.0  # m
NEIGHBOR_REACH = 5.0  # m between the centrelines of neighbours


def build_road_map(name: str, features: Mapping[str, Mapping[str, Any]], origin: Array) -> RoadMap:
    """The RoadMap `name` of ScenarioNet's `map_features`, shifted by -`origin` (2,) m. Raises DataError on a faulty feature."""
    shapes: dict[str, BaseGeometry] = {}
    lanes: dict[str, Lane] = {}
    has_polygons = any("polygon" in f for f in features.values() if _is_lane(f))
    for key, feature in features.items():
        if _is_lane(feature):
            lane, shape = _lane(name, str(key), feature, origin, has_polygons)
            if lane is not None:
                lanes[lane.id], shapes[lane.id] = lane, shape
    lanes = _link(lanes, features)
    lanes = _neighbors(lanes, features, _solid_lines(features, origin))
    lanes = blocks_and_junctions(lanes, shapes)
    return RoadMap(name, lanes, polygon_layers(lanes, shapes, outline(features, origin)))


def _is_lane(feature: Mapping[str, Any]) -> bool:
    kind = str(feature.get("type", ""))
    return kind.startswith("LANE_") and "BIKE" not in kind


def _points(name: str, key: str, values: Any, origin: Array) -> Array:
    """(N, 2) of a polyline or polygon given as lists or arrays of 2 or 3 columns."""
    try:
        points = np.asarray(values, float).reshape(len(values), -1)[:, :2] - origin
    except (TypeError, ValueError) as error:
        raise DataError(f"log {name}: map feature {key} is no list of points ({error})") from error
    if not np.isfinite(points).all():
        raise DataError(f"log {name}: map feature {key} has NaN or infinite points: repair or remove the feature")
    return points


def _resample(points: Array, step: float = 1.0) -> Array:
    """(M, 2) points about `step` m apart along a polyline; empty if it is shorter than 0.5 m."""
    s = arc_length(points)
    keep = np.concatenate([[True], np.diff(s) > 1e-6])
    if s[-1] < 0.5:
        return np.zeros((0, 2))
    at = np.linspace(0.0, s[-1], max(int(np.ceil(s[-1] / step)), 1) + 1)
    return np.column_stack([np.interp(at, s[keep], points[keep, 0]), np.interp(at, s[keep], points[keep, 1])])


def _lane(name: str, key: str, feature: Mapping[str, Any], origin: Array, has_polygons: bool) -> tuple[Lane | None, BaseGeometry]:
    """The lane of one feature and its area; no lane if its centreline has no length."""
    line = (
        _resample(_points(name, key, feature.get("polyline", ()), origin))
        if len(feature.get("polyline", ())) > 1
        else np.zeros((0, 2))
    )
    if not len(line):
        return None, shapely.Polygon()
    centerline = polyline_with_heading(line)
    connector = bool(feature.get("interpolating", has_polygons and "polygon" not in feature))
    if len(feature.get("polygon", ())) > 2:
        shape = _largest(shapely.make_valid(shapely.Polygon(_points(name, key, feature["polygon"], origin))))
        left, right = (_border(centerline, shape, side) for side in (1.0, -1.0))
    else:
        shape = _largest(shapely.buffer(shapely.LineString(line), CONNECTOR_WIDTH / 2.0, cap_style="flat"))
        left, right = (_offset(centerline, side * np.full(len(line), CONNECTOR_WIDTH / 2.0)) for side in (1.0, -1.0))
    limit = float(feature.get("speed_limit_kmh") or 0.0) / 3.6
    limit = limit if 0.0 < limit <= MAX_SPEED_LIMIT else SPEED_LIMIT
    turn = turn_of(centerline) if connector else ""
    return Lane(key, centerline, left, right, limit, connector, turn), shape


def turn_of(centerline: Array) -> str:
    change = float(np.sum(wrap_angle(np.diff(centerline[:, 2]))))
    return "left" if change > TURN_ANGLE else "right" if change < -TURN_ANGLE else "straight"


def _offset(centerline: Array, by: Array) -> Array:
    """(N, 2) points `by` (N,) m to the left of a centreline."""
    return centerline[:, :2] + by[:, None] * np.column_stack([-np.sin(centerline[:, 2]), np.cos(centerline[:, 2])])


def _border(centerline: Array, shape: BaseGeometry, side: float) -> Array:
    """(N, 2) where the lane's polygon ends on one side (1 left, -1 right) of its centreline, within HALF_WIDTH."""
    far = _offset(centerline, np.full(len(centerline), side * HALF_WIDTH[1]))
    rays = shapely.linestrings(np.stack([centerline[:, :2], far], axis=1))
    gap = shapely.distance(shapely.points(centerline[:, :2]), shapely.intersection(rays, shape.boundary))
    # NaN: the ray meets no border, the polygon is wider than the bound here
    gap = np.clip(np.nan_to_num(gap, nan=HALF_WIDTH[1]), *HALF_WIDTH)
    if len(gap) > 2:
        gap[[0, -1]] = gap[[1, -2]]  # the end rays run along the polygon's end edge, which they meet at once
    return _offset(centerline, side * median_filter(gap, 5, mode="nearest"))


def _largest(shape: BaseGeometry) -> BaseGeometry:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area) if parts else shapely.Polygon()


def _named(feature: Mapping[str, Any], key: str, lanes: Mapping[str, Lane]) -> tuple[str, ...]:
    """Ids of known lanes in a feature's list of links, whose items are ids or records with a feature_id."""
    items = feature.get(key) or ()
    ids = (str(item.get("feature_id", "") if isinstance(item, Mapping) else item) for item in items)
    return tuple(i for i in ids if i in lanes)


def _link(lanes: dict[str, Lane], features: Mapping[str, Mapping[str, Any]]) -> dict[str, Lane]:
    """Successors and predecessors: the links that the log names, else those of touching ends."""
    after: dict[str, set[str]] = {key: set() for key in lanes}
    if any(feature.get("exit_lanes") or feature.get("entry_lanes") for feature in features.values()):
        for key, feature in ((str(k), f) for k, f in features.items() if str(k) in lanes):
            after[key].update(_named(feature, "exit_lanes", lanes))
            for entry in _named(feature, "entry_lanes", lanes):
                after[entry].add(key)
    elif lanes:
        ids = list(lanes)
        starts = np.array([lanes[k].centerline[0] for k in ids])
        tree = KDTree(starts[:, :2])
        for key in ids:
            end = lanes[key].centerline[-1]
            near = [j for j in tree.query_ball_point(end[:2], JOIN) if abs(wrap_angle(starts[j, 2] - end[2])) < JOIN_ANGLE]
            after[key].update(ids[j] for j in near if ids[j] != key)
    before: dict[str, list[str]] = {key: [] for key in lanes}
    for key in lanes:
        for other in sorted(after[key]):
            before[other].append(key)
    return {k: replace(lane, successors=tuple(sorted(after[k])), predecessors=tuple(before[k])) for k, lane in lanes.items()}


def _solid_lines(features: Mapping[str, Mapping[str, Any]], origin: Array) -> shapely.STRtree:
    lines = [
        f["polyline"]
        for f in features.values()
        if str(f.get("type", "")).startswith("ROAD_LINE_SOLID") and len(f["polyline"]) > 1
    ]
    return shapely.STRtree([shapely.LineString(np.asarray(line, float)[:, :2] - origin) for line in lines])


def _neighbors(lanes: dict[str, Lane], features: Mapping[str, Mapping[str, Any]], solid: shapely.STRtree) -> dict[str, Lane]:
    """Left and right neighbours: as named, else lanes alongside for most of the way with no solid line between."""
    ids = [key for key, lane in lanes.items() if not lane.is_connector]
    if not ids:
        return lanes
    points = np.concatenate([lanes[key].centerline for key in ids])
    owner = np.repeat(np.arange(len(ids)), [len(lanes[key].centerline) for key in ids])
    tree = KDTree(points[:, :2])
    named = any(f.get("left_neighbor") or f.get("right_neighbor") for f in features.values())
    out = dict(lanes)
    for i, key in enumerate(ids):
        found = {}
        for field, side in (("left_neighbor", 1.0), ("right_neighbor", -1.0)):
            if named:
                found[field] = next(iter(_named(features.get(key, {}), field, lanes)), "")
            else:
                votes = [_beside(at, side, i, points, owner, tree, solid) for at in _quarters(lanes[key].centerline)]
                best = max(sorted(set(votes)), key=votes.count)
                found[field] = ids[best] if best >= 0 and votes.count(best) >= 2 else ""
        out[key] = replace(lanes[key], **found)
    return out


def _quarters(centerline: Array) -> Array:
    """(3, 3) poses at a quarter, half and three quarters of a centreline."""
    return centerline[np.round(np.array([0.25, 0.5, 0.75]) * (len(centerline) - 1)).astype(int)]


def _beside(pose: Array, side: float, own: int, points: Array, owner: NDArray, tree: KDTree, solid: shapely.STRtree) -> int:
    """Index of the nearest lane to one side of `pose`, in its direction, with no solid line between; -1 if none."""
    best, gap = -1, np.inf
    for j in tree.query_ball_point(pose[:2], NEIGHBOR_REACH):
        across = points[j, :2] - pose[:2]
        lateral = side * (-np.sin(pose[2]) * across[0] + np.cos(pose[2]) * across[1])
        along = abs(np.cos(pose[2]) * across[0] + np.sin(pose[2]) * across[1])
        aligned = abs(wrap_angle(points[j, 2] - pose[2])) < np.radians(20.0)
        if owner[j] != own and aligned and lateral > 1.5 and along < 1.5 and lateral < gap:
            best, gap = j, lateral
    if best < 0 or len(solid.query(shapely.LineString([pose[:2], points[best, :2]]), predicate="intersects")):
        return -1
    return int(owner[best])


def _groups(keys: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The smallest key of each key's connected component."""
    root = {key: key for key in keys}

    def find(key: str) -> str:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for a, b in pairs:
        low, high = sorted((find(a), find(b)))
        root[high] = low
    return {key: find(key) for key in root}


def blocks_and_junctions(lanes: dict[str, Lane], shapes: Mapping[str, BaseGeometry]) -> dict[str, Lane]:
    """Roadblocks: neighbours side by side, and connectors between the same two of them. Junctions: connectors that overlap."""
    links = [(k, n) for k, lane in lanes.items() for n in (lane.left_neighbor, lane.right_neighbor) if n]
    block = _groups(lanes, links)
    connectors = [k for k, lane in lanes.items() if lane.is_connector]
    areas = [shapes[k] for k in connectors]
    first, second = shapely.STRtree(areas).query(np.array(areas, object), predicate="intersects")  # a list of none is no list of shapes
    pairs = [
        (connectors[i], connectors[j])
        for i, j in zip(first, second, strict=True)
        if i < j and areas[i].intersection(areas[j]).area > 1.0
    ]
    junction = _groups(connectors, pairs)
    size = {name: list(junction.values()).count(name) for name in set(junction.values())}
    out = {}
    for key, lane in lanes.items():
        if not lane.is_connector:
            out[key] = replace(lane, roadblock=f"block_{block[key]}")
            continue
        ends = [min((block[k] for k in side), default=key) for side in (lane.predecessors, lane.successors)]
        at = f"junction_{junction[key]}" if size[junction[key]] > 1 else ""
        out[key] = replace(lane, roadblock=f"block_{ends[0]}_{ends[1]}", junction=at)
    return out


def outline(features: Mapping[str, Mapping[str, Any]], origin: Array) -> BaseGeometry:
    """The drivable area as outlined by the log's closed `boundary_*` rings, islands left out; empty if there are none."""
    rings = []
    for key, feature in features.items():
        if str(key).startswith("boundary") and len(feature.get("polyline", ())) > 3:
            ring = _points("map", str(key), feature["polyline"], origin)
            if np.hypot(*(ring[0] - ring[-1])) < 0.01:
                rings.append(shapely.make_valid(shapely.Polygon(ring)))
    area: BaseGeometry = shapely.Polygon()
    for ring in sorted(rings, key=lambda ring: -ring.area):
        area = shapely.symmetric_difference(area, ring)
    return area


def _tiles(area: BaseGeometry) -> list[Array]:
    """Simple rings without holes that together cover `area`: a grid of tiles, each cut again until no hole is left."""
    rings: list[Array] = []
    x0, y0, x1, y1 = (float(v) for v in area.bounds)
    columns, rows = (np.arange(np.floor(low / TILE), np.ceil(high / TILE)) * TILE for low, high in ((x0, x1), (y0, y1)))
    strips = [(x, shapely.intersection(area, shapely.box(x, y0, x + TILE, y1))) for x in columns]
    work = [shapely.intersection(strip, shapely.box(x, y, x + TILE, y + TILE)) for x, strip in strips for y in rows]
    while work:
        for part in shapely.get_parts(work.pop()):
            if part.geom_type != "Polygon" or part.area < 1e-3:
                continue
            if not len(part.interiors):
                rings.append(shapely.get_coordinates(part.exterior)[:-1])
                continue
            cut = float(part.interiors[0].centroid.x)  # a vertical cut through the hole opens it
            x0, y0, x1, y1 = part.bounds
            work += [shapely.intersection(part, shapely.box(*box)) for box in ((x0, y0, cut, y1), (cut, y0, x1, y1))]
    return rings


def polygon_layers(lanes: dict[str, Lane], shapes: Mapping[str, BaseGeometry], area: BaseGeometry) -> Polygons:
    """All layers: lanes, connectors, roadblocks, intersections and the drivable area."""
    rings: list[Ring] = []
    blocks: dict[str, list[BaseGeometry]] = {}
    junctions: dict[str, list[BaseGeometry]] = {}
    for key, lane in lanes.items():
        rings += _rings(key, Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, shapes[key])
        blocks.setdefault(lane.roadblock, []).append(shapes[key])
        if lane.junction:
            junctions.setdefault(lane.junction, []).append(shapes[key])
    for layer, groups in ((Layer.ROADBLOCK, blocks), (Layer.INTERSECTION, junctions)):
        for token, parts in groups.items():
            rings += _rings(token, layer, shapely.union_all(parts))
    if area.is_empty:
        for key in lanes:
            rings += _rings(f"drivable_{key}", Layer.DRIVABLE_AREA, shapely.buffer(shapes[key], GROW, join_style="mitre"))
    else:
        rings += [(f"drivable_{i}", Layer.DRIVABLE_AREA, ring) for i, ring in enumerate(_tiles(area))]
    return Polygons.from_rings(rings)


def _rings(token: str, layer: Layer, shape: BaseGeometry) -> list[Ring]:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and part.area > 0.1]
    return [(token, layer, shapely.get_coordinates(part.exterior)[:-1]) for part in parts]
