"""RoadMap from a nuPlan map (`<city>/<version>/map.gpkg`), within RADIUS of a drive.

Lanes are `lanes_polygons` (ids from lane_fid), connectors `lane_connectors` with the polygons of
`gen_lane_connectors_scaled_width_polygons`; centrelines are `baseline_paths`, borders `boundaries`. A connector leads from its
exit_lane_fid to its entry_lane_fid, lanes of a group lie side by side by lane_index, 0 the leftmost (nuplan-devkit,
nuplan_map/lane.py and lane_connector.py). A change over a solid boundary is not allowed. Turns are read from the centrelines: the devkit
reads no turn type either. Roadblocks are `lane_groups_polygons`; those of connectors are ids alone, as NAVSIM's score leaves their areas out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.geometry import arc_length, evenly, polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.datasets.logged import Inspection
from drive.datasets.nuplan_db import column_names, opened
from drive.datasets.nuplan_gpkg import MapLayers, projection
from drive.datasets.route import MIN_MATCHED, match_lanes
from drive.datasets.scenarionet_map import SPEED_LIMIT, turn_of

Array = NDArray[np.float64]
RADIUS = 150.0  # m around the drive; the PDM score looks 100 m around the ego
STEP = 1.0  # m between points of a centreline
SOLID = "2"  # boundary_type_fid
NO_JUNCTION = {"3", "4", "5"}  # intersection_type_fid of lane branches, lane merges and plain passages (devkit, IntersectionType)
AREAS = (("intersections", Layer.INTERSECTION), ("carpark_areas", Layer.CARPARK), ("lane_groups_polygons", Layer.ROADBLOCK))
DRIVABLE = ("generic_drivable_areas", Layer.DRIVABLE_AREA)


def map_file(maps: Path, name: str) -> Path:
    """The map.gpkg of a city below `maps`. Raises DataError where there is none, or several and no nuplan-maps-v1.0.json to choose."""
    name = name.removesuffix(".gpkg")
    if not re.fullmatch(r"[\w-]+", name):
        raise DataError(f"{name!r} is no name of a nuPlan map")
    found = sorted((maps / name).glob("*/map.gpkg"))
    index = maps / "nuplan-maps-v1.0.json"
    if len(found) > 1 and index.is_file():
        try:
            version = json.loads(index.read_text(encoding="utf-8"))[name]["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{index} does not tell the version of {name} ({type(error).__name__}: {error})") from error
        found = [path for path in found if path.parent.name == version]
    if len(found) != 1:
        raise DataError(
            f"{maps / name} holds {len(found)} files VERSION/map.gpkg, want one: dataset.maps is the folder of nuPlan's maps"
        )
    return found[0]


def read_road_map(name: str, path: Path, drive: Array, origin: Array, generic_areas: bool = True) -> RoadMap:
    """The RoadMap around `drive` (S, 2+), m in the map's own frame, shifted by -`origin` (2,).

    `generic_areas` adds generic_drivable_areas, which nuPlan's own scores count as drivable and NAVSIM's do not.
    Raises DataError, naming the file and the record, on a missing layer, a broken geometry, or a lane without its lines.
    """
    points = drive[:: max(len(drive) // 2000, 1), :2]
    line = shapely.LineString(points) if len(points) > 1 else shapely.Point(points[0])
    area = line.simplify(1.0).buffer(RADIUS)
    with opened(path) as connection:
        layers = MapLayers(connection, path, area)
        lanes, shapes = _lanes(layers, origin)
        rings = [
            ring
            for key, lane in lanes.items()
            for ring in _rings(key, Layer.LANE_CONNECTOR if lane.is_connector else Layer.LANE, shapes[key])
        ]
        for layer, kind in (*AREAS, DRIVABLE) if generic_areas else AREAS:
            for shape, (fid,) in layers.near(layer, ("fid",)):
                rings += _rings(_id(fid), kind, _shifted(shape, origin))
    return RoadMap(name, lanes, Polygons.from_rings(rings))


def _id(value: Any) -> str:
    """Ids are stored as integers, floats or text."""
    if value is None or value != value:
        return ""
    try:
        return str(int(value))
    except (TypeError, ValueError):
        return str(value).strip().removesuffix(".0")


def _shifted(shape: BaseGeometry, origin: Array) -> BaseGeometry:
    return shapely.set_coordinates(shape, shapely.get_coordinates(shape) - origin)


def _rings(token: str, layer: Layer, shape: BaseGeometry) -> list[tuple[str, Layer, Array]]:
    """The shape's polygons; those with holes are cut through each of them, as a RoadMap's have none."""
    out, work = [], [shape if shape.is_valid else shapely.make_valid(shape)]
    while work:
        for part in shapely.get_parts(work.pop()):
            if part.geom_type != "Polygon" or part.area < 1e-3:
                continue
            if not len(part.interiors):
                out.append((token, layer, shapely.get_coordinates(part.exterior)[:-1]))
                continue
            x0, y0, x1, y1 = part.bounds
            cut = float(part.interiors[0].centroid.x)
            work += [shapely.intersection(part, shapely.box(*box)) for box in ((x0, y0, cut, y1), (cut, y0, x1, y1))]
    return out


@dataclass(frozen=True)
class _Record:
    """A lane or connector as stored: its area, and the ids of its lines."""

    shape: BaseGeometry
    block: str
    limit: Any
    left: str
    right: str
    index: int = 0  # within its group, from the left
    before: str = ""
    after: str = ""
    junction: str = ""
    connector: bool = False


def _records(layers: MapLayers, origin: Array) -> dict[str, _Record]:
    columns = ("lane_fid", "lane_group_fid", "speed_limit_mps", "left_boundary_fid", "right_boundary_fid", "lane_index")
    found: dict[str, _Record] = {}
    for shape, (fid, group, limit, left, right, index) in layers.near("lanes_polygons", columns):
        found[_id(fid)] = _Record(_shifted(shape, origin), _id(group), limit, _id(left), _id(right), int(_id(index) or 0))
    plain = {
        _id(fid) for fid, kind in layers.records("intersections", ("fid", "intersection_type_fid")) if _id(kind) in NO_JUNCTION
    }
    wanted = ("fid", "exit_lane_fid", "entry_lane_fid", "lane_group_connector_fid", "intersection_fid", "speed_limit_mps")
    links = {_id(fid): rest for fid, *rest in layers.records("lane_connectors", wanted)}
    columns = ("lane_connector_fid", "left_boundary_fid", "right_boundary_fid")
    for shape, (fid, left, right) in layers.near("gen_lane_connectors_scaled_width_polygons", columns):
        key = _id(fid)
        if key not in links or key in found:
            raise DataError(
                f"{layers.path}: connector {key} {'stands for a lane as well' if key in found else 'is not in lane_connectors'}"
            )
        before, after, block, junction, limit = links[key]
        at = "" if _id(junction) in plain else _id(junction)
        found[key] = _Record(
            _shifted(shape, origin), _id(block), limit, _id(left), _id(right), 0, _id(before), _id(after), at, True
        )
    return found


def _lanes(layers: MapLayers, origin: Array) -> tuple[dict[str, Lane], dict[str, BaseGeometry]]:
    records = _records(layers, origin)
    paths: dict[str, Array] = {}
    for shape, (lane, connector) in layers.near(
        "baseline_paths", ("lane_fid", "lane_connector_fid"), lambda a, b: (_id(a) or _id(b)) in records
    ):
        paths[_id(lane) or _id(connector)] = shapely.get_coordinates(shape) - origin
    borders, solid = {}, set()
    edges = {fid for record in records.values() for fid in (record.left, record.right)}
    for shape, (fid, kind) in layers.near("boundaries", ("fid", "boundary_type_fid"), lambda fid, _: _id(fid) in edges):
        borders[_id(fid)] = shapely.get_coordinates(shape) - origin
        if _id(kind) == SOLID:
            solid.add(_id(fid))
    after: dict[str, list[str]] = {key: [] for key in records}
    before: dict[str, list[str]] = {key: [] for key in records}
    for key, record in records.items():
        if record.connector:
            for old, new in ((record.before, key), (key, record.after)):
                if old in records and new in records:
                    after[old].append(new)
                    before[new].append(old)
    lanes = {
        key: replace(
            _lane(layers.path, key, record, paths, borders), successors=tuple(after[key]), predecessors=tuple(before[key])
        )
        for key, record in records.items()
    }
    return _beside(lanes, records, solid), {key: record.shape for key, record in records.items()}


def _lane(path: Path, key: str, record: _Record, paths: Mapping[str, Array], borders: Mapping[str, Array]) -> Lane:
    if key not in paths or arc_length(paths[key])[-1] < 1e-3:
        raise DataError(f"{path}: lane {key} has no line in baseline_paths")
    missing = [fid for fid in (record.left, record.right) if fid not in borders]
    if missing:
        raise DataError(f"{path}: boundary {missing[0] or 'NULL'} of lane {key} is not in boundaries")
    line = paths[key]
    count = max(int(np.ceil(arc_length(line)[-1] / STEP - 1e-6)), 1) + 1
    centerline = polyline_with_heading(evenly(line, count))
    limit = float(record.limit) if isinstance(record.limit, int | float) and record.limit > 0 else SPEED_LIMIT
    left, right = (evenly(_along(borders[fid], line), count) for fid in (record.left, record.right))
    return Lane(
        key,
        centerline,
        left,
        right,
        limit,
        record.connector,
        turn_of(centerline) if record.connector else "",
        record.block,
        record.junction,
    )


def _along(border: Array, line: Array) -> Array:
    """The border in the direction of the line."""
    same = np.hypot(*(border[0] - line[0])) + np.hypot(*(border[-1] - line[-1]))
    return border if same <= np.hypot(*(border[-1] - line[0])) + np.hypot(*(border[0] - line[-1])) else border[::-1]


def _beside(lanes: dict[str, Lane], records: Mapping[str, _Record], solid: set[str]) -> dict[str, Lane]:
    """The lanes with their neighbours: next to each other in a group, no solid boundary between."""
    groups: dict[str, list[str]] = {}
    for key, record in records.items():
        if not record.connector:
            groups.setdefault(record.block, []).append(key)
    for keys in groups.values():
        keys.sort(key=lambda key: records[key].index)
        for left, right in pairwise(keys):
            if records[right].index - records[left].index == 1:
                lanes[left] = replace(lanes[left], right_neighbor="" if records[left].right in solid else right)
                lanes[right] = replace(lanes[right], left_neighbor="" if records[right].left in solid else left)
    return lanes


def route_lanes(road_map: RoadMap, roadblocks: Sequence[str], poses: Array) -> tuple[str, ...]:
    """The lanes under driven poses (S, 3) within the recorded roadblocks, and on to the last roadblock by the first lane that leads there.

    Empty where the roadblocks hold under half of the drive: the recorded route is not the driven one.
    """
    order = {block: index for index, block in enumerate(dict.fromkeys(roadblocks))}
    inside = {key for key, lane in road_map.lanes.items() if lane.roadblock in order}
    lanes = {
        key: replace(
            road_map.lanes[key],
            **{
                side: tuple(k for k in getattr(road_map.lanes[key], side) if k in inside)
                for side in ("successors", "predecessors")
            },
        )
        for key in road_map.lanes
        if key in inside
    }
    if not lanes:
        return ()
    path, matched = match_lanes(RoadMap(road_map.name, lanes, road_map.polygons), poses)
    if matched < MIN_MATCHED:
        return ()
    path = list(path)
    while onward := [key for key in lanes[path[-1]].successors if order[lanes[key].roadblock] > order[lanes[path[-1]].roadblock]]:
        path.append(min(onward, key=lambda key: order[lanes[key].roadblock]))
    return tuple(path)


def inspect(path: Path) -> Inspection:
    """Records of each layer of a map. Raises DataError where it is no map of nuPlan."""
    with opened(path) as connection:
        if not column_names(connection, "gpkg_geometry_columns"):
            raise DataError(f"{path} is no GeoPackage: it lacks gpkg_geometry_columns")
        names = sorted(row[0] for row in connection.execute("SELECT table_name FROM gpkg_geometry_columns"))
        counts: dict[str, int | float | str] = {"projection": projection(connection, path)}
        for name in names:
            counts[name.replace("_", " ")] = connection.execute(f'SELECT COUNT(*) FROM "{_quoted(name)}"').fetchone()[0]
    return Inspection("nuPlan map", path, counts)


def _quoted(name: str) -> str:
    return name.replace('"', '""')
