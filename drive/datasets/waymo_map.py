"""RoadMap from Waymo's map features (map.proto), which the motion scenarios and newer perception segments share.

Features are brought into ScenarioNet's form, which the builder of `scenarionet_map` reads, with what Waymo does not give made up openly:

- Lanes have a centreline and no polygon. A lane is as wide as its boundaries are apart where it names some, within HALF_WIDTH of
  `scenarionet_map` to either side, and CONNECTOR_WIDTH (3.6 m) where it names none.
- `interpolating` is to mark the lanes through junctions, yet it is false for all 199 lanes of the public test scenario. So a lane also is a
  connector if a traffic light rules it, if it crosses another lane, or if it turns by 30 degrees or more behind a fork or before a merge.
- There is no drivable area. Ours is the lanes, each wider by SHOULDER metres to either side but not beyond the first road edge, and the driveways.
  Parking lots are therefore cut short, and where edges are missing SHOULDER metres beside a lane count that may be no road.
- A neighbour counts where at least one piece of the line between may be crossed.
- Crosswalks, speed bumps and stop signs have no layer in a RoadMap and are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import RoadMap
from drive.core.types import Lights, LightState
from drive.datasets.scenarionet_map import CONNECTOR_WIDTH, HALF_WIDTH, build_road_map, turn_of
from drive.datasets.waymo_wire import Message

Array = NDArray[np.float64]
Features = dict[str, dict[str, Any]]
SHOULDER = 3.0  # m
MPH = 0.44704  # m/s
MIN_HOLE = 2.0  # m^2, of an island in the drivable area
LANE, LINE, EDGE, STOP, CROSSWALK, BUMP, DRIVEWAY = 3, 4, 5, 7, 8, 9, 10  # fields of MapFeature
KINDS = {LANE: "lanes", LINE: "road lines", EDGE: "road edges", STOP: "stop signs", CROSSWALK: "crosswalks", BUMP: "speed bumps", DRIVEWAY: "driveways"}
LANES = {1: "LANE_FREEWAY", 2: "LANE_SURFACE_STREET", 3: "LANE_BIKE_LANE"}  # LaneCenter.type
LINES = {
    1: "ROAD_LINE_BROKEN_SINGLE_WHITE",
    2: "ROAD_LINE_SOLID_SINGLE_WHITE",
    3: "ROAD_LINE_SOLID_DOUBLE_WHITE",
    4: "ROAD_LINE_BROKEN_SINGLE_YELLOW",
    5: "ROAD_LINE_BROKEN_DOUBLE_YELLOW",
    6: "ROAD_LINE_SOLID_SINGLE_YELLOW",
    7: "ROAD_LINE_SOLID_DOUBLE_YELLOW",
    8: "ROAD_LINE_PASSING_DOUBLE_YELLOW",
}
SOLID = {2, 3, 6, 7}  # RoadLine.type
GO, CAUTION, HALT = LightState.GREEN, LightState.YELLOW, LightState.RED
# TrafficSignalLaneState.state: arrows 1-3, round lights 4-6, flashing ones 7 and 8
LIGHTS = np.array([LightState.UNKNOWN, HALT, CAUTION, GO, HALT, CAUTION, GO, HALT, CAUTION], np.int64)


def counts(features: Sequence[Message]) -> dict[str, int]:
    """How many of each kind of map feature there are."""
    return {name: found for kind, name in KINDS.items() if (found := sum(kind in feature.kinds for feature in features))}


def read_features(records: Sequence[Message]) -> Features:
    """Waymo's MapFeatures in ScenarioNet's form, by id; points in the frame of the file. Raises DataError on a broken record."""
    found: Features = {}
    for record in records:
        key = str(record.integer(1))
        if LANE in record.kinds:
            found[key] = _lane(record.message(LANE))
        elif LINE in record.kinds:
            line = record.message(LINE)
            found[key] = {"type": LINES.get(line.integer(1), "ROAD_LINE_UNKNOWN"), "polyline": line.table(2, (1, 2))}
        elif EDGE in record.kinds:
            found[key] = {"type": "ROAD_EDGE", "polyline": record.message(EDGE).table(2, (1, 2))}
        elif DRIVEWAY in record.kinds:
            found[key] = {"type": "DRIVEWAY", "outline": record.message(DRIVEWAY).table(1, (1, 2))}
    return found


def _lane(lane: Message) -> dict[str, Any]:
    def beside(number: int) -> list[str]:
        """Lanes next to this one, but those that solid lines keep apart all the way."""
        out = []
        for neighbor in lane.messages(number):
            lines = neighbor.table(6, (4,))[:, 0]  # LaneNeighbor.boundaries, BoundarySegment.boundary_type
            if not len(lines) or not np.isin(lines, list(SOLID)).all():
                out.append(str(neighbor.integer(1)))
        return out

    def borders(number: int) -> NDArray[np.int64]:
        return np.nan_to_num(lane.table(number, (1, 2, 3))).astype(np.int64)  # first and last point, id of a line or an edge

    return {
        "type": LANES.get(lane.integer(2), "LANE_UNKNOWN"),
        "polyline": lane.table(8, (1, 2)),
        "interpolating": bool(lane.integer(3)),
        "entry_lanes": [str(i) for i in lane.integers(9)],
        "exit_lanes": [str(i) for i in lane.integers(10)],
        "left_neighbor": beside(11),
        "right_neighbor": beside(12),
        "borders": (borders(13), borders(14)),
        "speed_limit": lane.real(1, 0.0) * MPH,
    }


def build(name: str, features: Features, origin: Array, ruled: Collection[str] = ()) -> RoadMap:
    """The RoadMap of `features`, shifted by -`origin` (2,) m; `ruled` are the lanes with a traffic light. Raises DataError on NaN points."""
    lanes = {key: f for key, f in features.items() if _drivable_lane(f)}
    connectors = _connectors(lanes, ruled)
    local = {key: np.asarray(f["polyline"], np.float64) - origin for key, f in lanes.items()}
    widths = {key: _half_widths(local[key], f, features, origin) for key, f in lanes.items()}
    shapes = {key: _ribbon(local[key], *widths[key]) for key in lanes}
    named: Features = {key: f for key, f in features.items() if not str(f["type"]).startswith("LANE")}
    for key, lane in lanes.items():
        ring = shapely.get_coordinates(shapes[key].exterior)[:-1] + origin
        named[key] = {**lane, "interpolating": key in connectors, **({"polygon": ring} if len(ring) > 2 else {})}
    for i, ring in enumerate(_drivable(local, widths, features, origin)):
        named[f"boundary_{i}"] = {"type": "BOUNDARY", "polyline": ring + origin}
    road = build_road_map(name, named, origin)
    limited = {k: replace(v, speed_limit=limit) if (limit := lanes[k].get("speed_limit", 0.0)) > 0.0 else v for k, v in road.lanes.items()}
    return RoadMap(name, limited, road.polygons)


def _drivable_lane(feature: Mapping[str, Any]) -> bool:
    kind, line = str(feature["type"]), feature.get("polyline", ())
    return kind.startswith("LANE") and "BIKE" not in kind and len(line) > 1 and bool(np.ptp(line, axis=0).max() > 0.0 or np.isnan(line).any())


def lane_ids(features: Features) -> set[str]:
    """Ids of the lanes that `build` makes, but those shorter than half a metre."""
    return {key for key, feature in features.items() if _drivable_lane(feature)}


def _connectors(lanes: Mapping[str, Mapping[str, Any]], ruled: Collection[str]) -> set[str]:
    ids = list(lanes)
    lines = [shapely.LineString(np.nan_to_num(lanes[key]["polyline"])) for key in ids]
    first, _ = shapely.STRtree(lines).query(lines, predicate="crosses")
    found = {ids[int(i)] for i in first} | {key for key in ids if lanes[key].get("interpolating") or key in ruled}
    for key in ids:
        before = (lanes[k].get("exit_lanes", ()) for k in lanes[key].get("entry_lanes", ()) if k in lanes)
        after = (lanes[k].get("entry_lanes", ()) for k in lanes[key].get("exit_lanes", ()) if k in lanes)
        if any(len(others) > 1 for others in (*before, *after)) and turn_of(polyline_with_heading(lanes[key]["polyline"])) != "straight":
            found.add(key)
    return found


def _half_widths(line: Array, lane: Mapping[str, Any], features: Features, origin: Array) -> tuple[Array, Array]:
    """Metres (N,) to the left and right boundary at each point of a lane's centreline."""
    sides = []
    for segments in lane.get("borders", ((), ())):
        width = np.full(len(line), CONNECTOR_WIDTH / 2.0)
        for begin, last, other in segments:
            border = features.get(str(other), {}).get("polyline", ())
            if len(border) > 1 and np.isfinite(border).all():
                part = slice(max(int(begin), 0), int(last) + 1)
                width[part] = shapely.distance(shapely.points(line[part]), shapely.LineString(border - origin))
        sides.append(median_filter(np.clip(width, *HALF_WIDTH), 9, mode="nearest"))
    return sides[0], sides[1]


def _ribbon(line: Array, left: Array, right: Array) -> shapely.Polygon:
    """The polygon of a centreline (N, 2) and its half widths (N,); empty where the line is faulty, which the builder then reports."""
    if not np.isfinite(line).all():
        return shapely.Polygon()
    keep = np.concatenate([[True], np.hypot(*np.diff(line, axis=0).T) > 1e-3])
    pose = polyline_with_heading(line[keep])
    if len(pose) < 2:
        return shapely.Polygon()
    normal = np.column_stack([-np.sin(pose[:, 2]), np.cos(pose[:, 2])])
    ring = np.concatenate([pose[:, :2] + left[keep, None] * normal, (pose[:, :2] - right[keep, None] * normal)[::-1]])
    parts = [part for part in shapely.get_parts(shapely.make_valid(shapely.Polygon(ring))) if part.geom_type == "Polygon"]
    return max(parts, key=lambda part: part.area, default=shapely.Polygon())


def _drivable(lines: Mapping[str, Array], widths: Mapping[str, tuple[Array, Array]], features: Features, origin: Array) -> list[Array]:
    """Closed rings, outlines and islands, of the area that the module's docstring describes."""
    edges = [np.asarray(f["polyline"]) - origin for f in features.values() if f["type"] == "ROAD_EDGE" and len(f["polyline"]) > 1]
    walls = shapely.STRtree([shapely.LineString(edge[i : i + 9]) for edge in edges if np.isfinite(edge).all() for i in range(0, len(edge) - 1, 8)])
    ribbons = []
    for key, line in lines.items():
        if np.isfinite(line).all():
            pose = polyline_with_heading(line)
            normal = np.column_stack([-np.sin(pose[:, 2]), np.cos(pose[:, 2])])
            left, right = (_reach(line, side * normal, width + SHOULDER, walls) for side, width in zip((1.0, -1.0), widths[key], strict=True))
            ribbons.append(_ribbon(line, left, right))
    outlines = [np.asarray(f["outline"]) - origin for f in features.values() if f["type"] == "DRIVEWAY"]
    ways = [shapely.make_valid(shapely.Polygon(ring)) for ring in outlines if len(ring) > 2 and np.isfinite(ring).all()]
    rings: list[Array] = []
    for part in shapely.get_parts(shapely.union_all([*ribbons, *ways])):
        if part.geom_type == "Polygon":
            holes = [ring for ring in part.interiors if shapely.Polygon(ring).area > MIN_HOLE]
            rings += [shapely.get_coordinates(ring) for ring in (part.exterior, *holes)]
    return rings


def _reach(line: Array, normal: Array, far: Array, walls: shapely.STRtree) -> Array:
    """Metres (N,) from points (N, 2) along unit vectors (N, 2) to the first wall, `far` (N,) at most and half a narrow lane at least."""
    rays = np.asarray(shapely.linestrings(np.stack([line, line + far[:, None] * normal], axis=1)))
    hit, wall = walls.query(rays, predicate="intersects")
    gap = shapely.distance(shapely.points(line[hit]), shapely.intersection(rays[hit], walls.geometries[wall]))
    reach = far.copy()
    np.minimum.at(reach, hit, gap)
    return np.maximum(reach, HALF_WIDTH[0])


def read_lights(states: Sequence[tuple[int, int, int]], steps: int, known: Collection[str]) -> tuple[Lights | None, int]:
    """Lights of (step, lane, TrafficSignalLaneState.state) over `steps` steps, and how many lanes were left out as unknown to the map."""
    lanes = sorted({str(lane) for _, lane, _ in states})
    kept = [lane for lane in lanes if lane in known]
    row = {lane: i for i, lane in enumerate(kept)}
    table = np.zeros((len(kept), steps), np.int64)
    for step, lane, state in states:
        if str(lane) in row:
            table[row[str(lane)], step] = LIGHTS[state] if 0 <= state < len(LIGHTS) else LightState.UNKNOWN
    return (Lights(tuple(kept), table) if kept else None), len(lanes) - len(kept)
