"""RoadMap from and to a map of py123d: one Arrow file, a row for each object with its layer, its polygon or line as WKB, and its features.

Reading. A lane group is a roadblock, the lanes of a group that belongs to an intersection are connectors; bike lanes are left out, and so are
crosswalks, walkways, stop zones, edges and painted lines, for which a RoadMap has no layer. Neighbours count where they drive the same way:
whether a solid line lies between is not told. Maps without lane groups (Waymo's) get roadblocks and junctions as `scenarionet_map` makes
them, and those without drivable areas get their lanes grown by GROW. A lane without a speed limit gets SPEED_LIMIT.

Writing. Ids become numbers, as py123d knows no others: they stay where every lane's is one of 32 bits, else lanes are numbered in order. Of a polygon
in several parts the largest is written, and a roadblock without a polygon gets that of its lanes. Heights are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.geometry import arc_length, evenly, polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.datasets import py123d_layout as layout
from drive.datasets.map_lanes import linked
from drive.datasets.py123d_arrow import open_table, pack, pyarrow, unpack, write_table
from drive.datasets.scenarionet_map import GROW, SPEED_LIMIT, blocks_and_junctions, polygon_layers, turn_of

Array = NDArray[np.float64]
RADIUS = 150.0  # m around a drive, of a map that serves several logs
COLUMNS = ("object_id", "map_layer", "features", "wkb")
STEP, COARSE = 1.0, 2.0  # m between points of a lane: as resampled, and at most as recorded
LONGEST = 1e5  # m, of a lane: beyond, a number is damaged
AREAS = ((layout.LANE_GROUP, Layer.ROADBLOCK), (layout.INTERSECTION, Layer.INTERSECTION), (layout.CARPARK, Layer.CARPARK))
INT32 = 2**31


@dataclass(frozen=True)
class _Object:
    """One row of a map."""

    id: int
    shape: BaseGeometry
    packed: bytes
    where: str

    @property
    def features(self) -> Mapping[str, Any]:
        found = unpack(self.packed, self.where)
        if not isinstance(found, dict):
            raise DataError(f"{self.where} has no features")
        return found


def read_road_map(name: str, path: Path, origin: Array, drive: Array | None = None) -> RoadMap:
    """The RoadMap of a map file, shifted by -`origin` (2,) m; with `drive` (S, 2+), in the map's frame, what lies within RADIUS of it.

    Raises DataError, naming the file and the object, where it cannot be read.
    """
    objects = _objects(path, None if drive is None else shapely.LineString(drive[:, :2]).simplify(1.0).buffer(RADIUS))
    groups = {group.id: group.features for group in objects[layout.LANE_GROUP]}
    lanes: dict[str, Lane] = {}
    shapes: dict[str, BaseGeometry] = {}
    for record in objects[layout.LANE]:
        if (features := record.features).get("lane_type") != layout.BIKE_LANE:
            lane = _lane(record, features, groups, origin)
            lanes[lane.id], shapes[lane.id] = lane, _shifted(record.shape, origin)
    lanes = {key: linked(lane, lanes) for key, lane in lanes.items()}
    areas = [_shifted(record.shape, origin) for record in objects[layout.GENERIC_DRIVABLE]]
    if not groups:
        lanes = blocks_and_junctions(_connectors(lanes), shapes)
        return RoadMap(name, lanes, polygon_layers(lanes, shapes, shapely.union_all(areas)))
    rings = [(key, Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, _ring(shapes[key])) for key, lane in lanes.items()]
    rings += [(str(record.id), kind, _ring(_shifted(record.shape, origin))) for layer, kind in AREAS for record in objects[layer]]
    for i, area in enumerate(areas or (shapely.buffer(shape, GROW, join_style="mitre") for shape in shapes.values())):
        holed = any(len(part.interiors) for part in shapely.get_parts(area) if part.geom_type == "Polygon")
        tiles = polygon_layers({}, {}, area) if holed else None  # a RoadMap's polygons have no holes
        parts = [_ring(area)] if tiles is None else [tiles.ring(k) for k in range(len(tiles))]
        rings += [(f"drivable_{i}", Layer.DRIVABLE_AREA, part) for part in parts]
    return RoadMap(name, lanes, Polygons.from_rings([ring for ring in rings if len(ring[2]) > 2]))


def counts(path: Path) -> dict[str, int]:
    """How many objects of each layer a map file holds. Raises DataError where it cannot be read."""
    found = _objects(path, None)
    return {name: len(found[layer]) for layer, name in enumerate(layout.LAYERS) if found[layer]}


def _objects(path: Path, area: BaseGeometry | None) -> dict[int, list[_Object]]:
    """The objects of each layer that meet `area`."""
    table, _ = open_table(path, COLUMNS)
    try:
        ids, layers = (np.asarray(table[name].to_numpy()).astype(np.int64) for name in ("object_id", "map_layer"))
        shapes = shapely.from_wkb(np.asarray(table["wkb"].to_pylist(), object)) if len(ids) else np.zeros(0, object)
    except (TypeError, ValueError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{path}: object_id, map_layer or wkb cannot be read ({str(error).splitlines()[0]})") from error
    packed = table["features"].to_pylist()
    rows: list[Any] = list(shapes)
    keep = np.ones(len(ids), bool) if area is None else shapely.intersects(shapes, area)
    found: dict[int, list[_Object]] = {layer: [] for layer in range(len(layout.LAYERS))}
    for row in np.flatnonzero(keep).tolist():
        if rows[row] is None or not np.isfinite(shapely.get_coordinates(rows[row])).all():
            raise DataError(f"{path}: object {ids[row]} of layer {layers[row]} has no geometry, or NaN in it")
        found.setdefault(int(layers[row]), []).append(_Object(int(ids[row]), rows[row], packed[row] or b"", f"{path}: object {ids[row]} of layer {layers[row]}"))
    return found


def _shifted(shape: BaseGeometry, origin: Array) -> BaseGeometry:
    return shapely.set_coordinates(shapely.force_2d(shape), shapely.get_coordinates(shape) - origin)


def _ring(shape: BaseGeometry) -> Array:
    """The outline (N, 2) of a shape's largest polygon, not closed; none where it has none."""
    part = _largest(shape)
    return shapely.get_coordinates(part.exterior)[:-1]


def _largest(shape: BaseGeometry) -> shapely.Polygon:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=shapely.Polygon())


def _lane(record: _Object, features: Mapping[str, Any], groups: Mapping[int, Mapping[str, Any]], origin: Array) -> Lane:
    try:
        lines = [np.asarray(features[key], np.float64)[:, :2] - origin for key in ("centerline", "left_boundary", "right_boundary")]
        group = features["lane_group_id"]
        after, before = ([str(int(i)) for i in features[key]] for key in ("successor_ids", "predecessor_ids"))
        left, right = ("" if features[key] is None else str(int(features[key])) for key in ("left_lane_id", "right_lane_id"))
        limit = float(features["speed_limit_mps"] or 0.0)
        junction = groups.get(group, {}).get("intersection_id")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{record.where}: a lane lacks something, or has it in another form ({error!r})") from error
    if any(len(line) < 2 or not np.isfinite(line).all() for line in lines):
        raise DataError(f"{record.where}: a line of the lane has NaN, or fewer than two points")
    if max(arc_length(line)[-1] for line in lines) > LONGEST:
        raise DataError(f"{record.where}: a line of the lane is longer than {LONGEST / 1e3:.0f} km")
    if len({len(line) for line in lines}) > 1 or np.diff(arc_length(lines[0])).max() > COARSE:
        count = max(int(np.ceil(max(arc_length(line)[-1] for line in lines) / STEP)), 1) + 1
        lines = [evenly(line, count) for line in lines]
    centerline = polyline_with_heading(lines[0])
    return Lane(
        id=str(record.id), centerline=centerline, left=lines[1], right=lines[2],
        speed_limit=limit if 0.0 < limit < np.inf else SPEED_LIMIT,
        is_connector=junction is not None,
        turn="" if junction is None else turn_of(centerline),
        roadblock=f"lane_{record.id}" if group is None else str(group),
        junction="" if junction is None else str(junction),
        successors=tuple(after), predecessors=tuple(before), left_neighbor=left, right_neighbor=right,
    )  # fmt: skip


def _connectors(lanes: Mapping[str, Lane]) -> dict[str, Lane]:
    """Where no lane tells of an intersection, those that turn behind a fork or before a merge count as connectors."""
    out = {}
    for key, lane in lanes.items():
        shared = any(len(lanes[i].successors) > 1 for i in lane.predecessors) or any(len(lanes[i].predecessors) > 1 for i in lane.successors)
        turn = turn_of(lane.centerline)
        out[key] = replace(lane, is_connector=True, turn=turn) if shared and turn != "straight" else lane
    return out


def numbered(ids: Iterable[str]) -> dict[str, int]:
    """A number for each id: its own where all are numbers of 32 bits, else its place."""
    ids = list(dict.fromkeys(ids))
    own = all(i.isascii() and i.isdigit() and len(i) <= 10 and str(int(i)) == i and int(i) < INT32 for i in ids)
    return {i: int(i) if own else k for k, i in enumerate(ids)}


def write_road_map(path: Path, road_map: RoadMap, origin: Array, description: Mapping[str, Any]) -> None:
    """Write a RoadMap, shifted by +`origin` (2,) m, as a map file of py123d."""
    pa = pyarrow()
    schema = pa.schema([("object_id", pa.int64()), ("map_layer", pa.int8()), ("features", pa.binary()), ("wkb", pa.binary())])
    rows = [(number, layer, pack({**features, "outline": _outline(shape)}), shapely.to_wkb(shape)) for layer, number, features, shape in _rows(road_map, origin)]
    write_table(path, schema, description, [dict(zip(COLUMNS, (list(column) for column in zip(*rows, strict=True)), strict=True))] if rows else [])


def _outline(shape: shapely.Polygon) -> Array:
    return _flat(shapely.get_coordinates(shape.exterior))


def _flat(points: Array) -> Array:
    """(N, 3) of (N, 2), at height 0."""
    return np.column_stack([points[:, :2], np.zeros(len(points))])


def _rows(road_map: RoadMap, origin: Array) -> list[tuple[int, int, dict[str, Any], shapely.Polygon]]:
    """Layer, id, features and polygon of every object."""
    lanes = road_map.lanes
    number = numbered(lanes)
    members: dict[str, list[Lane]] = {}
    for lane in lanes.values():
        members.setdefault(lane.roadblock or f"lane_{lane.id}", []).append(lane)
    group = numbered(members)
    group_of = {lane.id: group[key] for key, own in members.items() for lane in own}
    junction = numbered(lane.junction for lane in lanes.values() if lane.junction)
    area = _areas(road_map.polygons, origin)
    shapes = {key: area.get((Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, key)) or _between(lane, origin) for key, lane in lanes.items()}
    rows: list[tuple[int, int, dict[str, Any], shapely.Polygon]] = []
    for key, lane in lanes.items():
        features = {
            "lane_type": layout.UNDEFINED_LANE,
            "lane_group_id": group_of[key],
            "left_boundary": _flat(lane.left + origin),
            "right_boundary": _flat(lane.right + origin),
            "centerline": _flat(lane.centerline[:, :2] + origin),
            "left_lane_id": number.get(lane.left_neighbor),
            "right_lane_id": number.get(lane.right_neighbor),
            "predecessor_ids": [number[i] for i in lane.predecessors if i in number],
            "successor_ids": [number[i] for i in lane.successors if i in number],
            "speed_limit_mps": float(lane.speed_limit),
        }
        rows.append((layout.LANE, number[key], features, shapes[key]))
    for key, own in members.items():
        first, last = _outermost(own)
        features = {
            "lane_ids": [number[lane.id] for lane in own],
            "left_boundary": _flat(first.left + origin),
            "right_boundary": _flat(last.right + origin),
            "intersection_id": next((junction[lane.junction] for lane in own if lane.junction), None),
            "predecessor_ids": sorted({group_of[i] for lane in own for i in lane.predecessors if i in group_of}),
            "successor_ids": sorted({group_of[i] for lane in own for i in lane.successors if i in group_of}),
        }
        shape = area.get((Layer.ROADBLOCK, key)) or _largest(shapely.union_all([shapes[lane.id] for lane in own]))
        rows.append((layout.LANE_GROUP, group[key], features, shape))
    for key, place in junction.items():
        own = [lane for lane in lanes.values() if lane.junction == key]
        shape = area.get((Layer.INTERSECTION, key)) or _largest(shapely.union_all([shapes[lane.id] for lane in own]))
        features = {"intersection_type": layout.DEFAULT_INTERSECTION, "lane_group_ids": sorted({group_of[lane.id] for lane in own})}
        rows.append((layout.INTERSECTION, place, features, shape))
    for kind, layer in ((Layer.CARPARK, layout.CARPARK), (Layer.DRIVABLE_AREA, layout.GENERIC_DRIVABLE)):
        rings = [i for i in range(len(road_map.polygons)) if road_map.polygons.layers[i] == kind]
        rows += [(layer, k, {}, shapely.Polygon(road_map.polygons.ring(i) + origin)) for k, i in enumerate(rings)]
    return rows


def _areas(polygons: Polygons, origin: Array) -> dict[tuple[Layer, str], shapely.Polygon]:
    """The largest polygon of each token of a layer."""
    found: dict[tuple[Layer, str], shapely.Polygon] = {}
    for i, token in enumerate(polygons.tokens):
        shape, key = shapely.Polygon(polygons.ring(i) + origin), (Layer(int(polygons.layers[i])), token)
        if key not in found or shape.area > found[key].area:
            found[key] = shape
    return found


def _between(lane: Lane, origin: Array) -> shapely.Polygon:
    return shapely.Polygon(np.concatenate([lane.left, lane.right[::-1]]) + origin)


def _outermost(lanes: Sequence[Lane]) -> tuple[Lane, Lane]:
    """The leftmost and the rightmost of lanes side by side."""
    ids = {lane.id for lane in lanes}
    return next((lane for lane in lanes if lane.left_neighbor not in ids), lanes[0]), next((lane for lane in lanes if lane.right_neighbor not in ids), lanes[0])
