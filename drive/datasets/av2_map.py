"""RoadMap from an Argoverse 2 vector map (`log_map_archive_*.json`).

Lane segments but bike lanes become lanes, those in intersections lane connectors; a lane's polygon is its left boundary and its right one
reversed, its centreline the middle of the two. The drivable area is the union of the map's own areas. Speed limits are not recorded:
SPEED_LIMIT of `scenarionet_map` stands in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.geometry import arc_length, evenly, polyline_with_heading
from drive.core.roadmap import Lane, RoadMap
from drive.datasets.map_lanes import linked, simple_polygon
from drive.datasets.scenarionet_map import SPEED_LIMIT, blocks_and_junctions, polygon_layers, turn_of

Array = NDArray[np.float64]
STEP = 1.0  # m between points of a centreline


def read_map(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The archive. Raises DataError, naming the file, where it cannot be read or lacks lanes or areas."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
    if not isinstance(content, dict) or not {"lane_segments", "drivable_areas"} <= set(content):
        raise DataError(f"{path} is no Argoverse 2 map: it lacks lane_segments or drivable_areas")
    for layer in ("lane_segments", "drivable_areas"):
        records = content[layer]
        if not isinstance(records, dict) or not records:
            raise DataError(f"{path}: {layer} holds no records")
        for key, record in records.items():
            if not isinstance(record, dict) or "id" not in record:
                raise DataError(f"{path}: record {key} of {layer} has no id")
    return content


def build_road_map(name: str, archive: Mapping[str, Mapping[str, Any]], origin: Array, path: Path) -> RoadMap:
    """The RoadMap of an archive, shifted by -`origin` (2,) m. Raises DataError, naming `path` and the record, on a faulty one."""
    lanes: dict[str, Lane] = {}
    shapes: dict[str, BaseGeometry] = {}
    for record in archive["lane_segments"].values():
        if record.get("lane_type") == "BIKE":
            continue
        lane = _lane(record, origin, path)
        ring = np.concatenate([_points(record, "left_lane_boundary", origin, path), _points(record, "right_lane_boundary", origin, path)[::-1]])
        lanes[lane.id], shapes[lane.id] = lane, simple_polygon(ring)
    lanes = {key: linked(lane, lanes) for key, lane in lanes.items()}
    areas = [simple_polygon(_points(record, "area_boundary", origin, path)) for record in archive["drivable_areas"].values()]
    lanes = blocks_and_junctions(lanes, shapes)
    return RoadMap(name, lanes, polygon_layers(lanes, shapes, shapely.union_all(areas)))


def _points(record: Mapping[str, Any], field: str, origin: Array, path: Path) -> Array:
    try:
        points = np.array([[point["x"], point["y"]] for point in record[field]], np.float64) - origin
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: record {record.get('id')} has no usable {field} ({error!r})") from error
    if len(points) < 2 or not np.isfinite(points).all():
        raise DataError(f"{path}: record {record.get('id')} has NaN, or fewer than two points, in {field}")
    return points


def _lane(record: Mapping[str, Any], origin: Array, path: Path) -> Lane:
    left, right = (_points(record, f"{side}_lane_boundary", origin, path) for side in ("left", "right"))
    length = max(arc_length(left)[-1], arc_length(right)[-1])
    count = max(int(np.ceil(length / STEP)), 1) + 1
    left, right = evenly(left, count), evenly(right, count)
    centerline = polyline_with_heading((left + right) / 2.0)
    connector = bool(record.get("is_intersection"))
    return Lane(
        id=str(record["id"]),
        centerline=centerline,
        left=left,
        right=right,
        speed_limit=SPEED_LIMIT,
        is_connector=connector,
        turn=turn_of(centerline) if connector else "",
        successors=_ids(record, "successors", path),
        predecessors=_ids(record, "predecessors", path),
        left_neighbor=_reachable(record, "left"),
        right_neighbor=_reachable(record, "right"),
    )


def _ids(record: Mapping[str, Any], field: str, path: Path) -> tuple[str, ...]:
    ids = record.get(field) or []
    if not isinstance(ids, list):
        raise DataError(f"{path}: {field} of record {record['id']} is no list")
    return tuple(str(i) for i in ids)


def _reachable(record: Mapping[str, Any], side: str) -> str:
    """The neighbour's id where the marking between may be crossed."""
    neighbor, marking = record.get(f"{side}_neighbor_id"), str(record.get(f"{side}_lane_mark_type", ""))
    return "" if neighbor is None or marking.startswith(("SOLID", "DOUBLE_SOLID")) else str(neighbor)
