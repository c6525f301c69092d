"""RoadMap from nuScenes' map expansion v1.3 (`maps/expansion/<location>.json`).

Layers and fields: nuscenes-devkit, map_expansion/map_api. Lanes and lane connectors get the centreline of their arcline path,
three arcs or straights from a start pose; those without one are left out, as the devkit's own centrelines leave them. Lanes link
as `connectivity` says. Road dividers and the solid parts of lane dividers keep lanes from being neighbours. The drivable area is
the union of the map's own areas. A city is cut to what comes within REACH of one place, the start of a drive: the shape of the
cut must tell nothing of where the drive goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.datasets.scenarionet_map import build_road_map

Array = NDArray[np.float64]
LAYERS = ("node", "line", "polygon", "lane", "lane_connector", "drivable_area", "road_divider", "lane_divider")
REACH = 400.0  # m; nuScenes scenes last 20 s
STEP = 1.0  # m between points of a centreline
BEND = {"L": 1.0, "R": -1.0, "S": 0.0}


@dataclass(frozen=True)
class Expansion:
    """A city, in its own frame."""

    path: Path
    lanes: Mapping[str, Mapping[str, Any]]  # ScenarioNet's lane features by token
    solid: tuple[Array, ...]  # (N, 2) lines that are not crossed
    areas: tuple[BaseGeometry, ...]  # drivable


def expansion_file(root: Path, location: str) -> Path:
    """Where the map of a location stands. Raises DataError on a location that is no plain name."""
    if not location or location != Path(location).name:
        raise DataError(f"log.json: {location!r} is no location")
    return root / "maps" / "expansion" / f"{location}.json"


@lru_cache(maxsize=4)  # nuScenes has four cities
def read_expansion(path: Path) -> Expansion:
    """The map in a file. Raises DataError, naming file and record, where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
    layers = content if isinstance(content, dict) else {}
    missing = [name for name in LAYERS if not isinstance(layers.get(name), list)]
    missing += [name for name in ("arcline_path_3", "connectivity") if not isinstance(layers.get(name), dict)]
    if missing:
        raise DataError(f"{path} lacks the layers {', '.join(missing)}: fetch the map expansion v1.3")
    try:
        nodes = {record["token"]: (float(record["x"]), float(record["y"])) for record in layers["node"]}
        lines = {record["token"]: record["node_tokens"] for record in layers["line"]}
        polygons = {record["token"]: record for record in layers["polygon"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: a node, line or polygon lacks a field ({error!r})") from error
    return Expansion(
        path,
        {token: lane for kind in ("lane", "lane_connector") for token, lane in _lanes(path, layers, kind, nodes, polygons)},
        tuple(_solid(path, layers, nodes, lines)),
        tuple(_areas(path, layers["drivable_area"], nodes, polygons)),
    )


def _points(path: Path, what: str, tokens: Any, nodes: Mapping[str, tuple[float, float]]) -> Array:
    try:
        points = np.array([nodes[token] for token in tokens], np.float64).reshape(-1, 2)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: {what} names a node that is not there ({error})") from error
    if not np.isfinite(points).all():
        raise DataError(f"{path}: {what} has a node at NaN or infinity")
    return points


def _lanes(
    path: Path, layers: Mapping[str, Any], kind: str, nodes: Mapping[str, tuple[float, float]], polygons: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, record in enumerate(layers[kind]):
        try:
            token = record["token"]
            arcs = layers["arcline_path_3"].get(token)
            ring = polygons[record["polygon_token"]]["exterior_node_tokens"] if record.get("polygon_token") else ()
            links = layers["connectivity"].get(token) or {}
            ends = {field: [str(t) for t in links.get(side) or ()] for field, side in (("entry_lanes", "incoming"), ("exit_lanes", "outgoing"))}
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: record {number} of {kind} lacks a field or names what is not there ({error!r})") from error
        if not arcs:
            continue
        feature: dict[str, Any] = {
            "type": "LANE_SURFACE_STREET", "polyline": arc_points(path, token, arcs), "interpolating": kind == "lane_connector", **ends,
        }  # fmt: skip
        outline = _points(path, f"{kind} {token}", ring, nodes)
        yield str(token), {**feature, "polygon": outline} if len(outline) > 2 else feature


def arc_points(path: Path, token: str, arcs: Sequence[Mapping[str, Any]]) -> Array:
    """(N, 2) points about STEP m apart along an arcline path: records of a start pose, three lengths, a shape such as LSR and a radius."""
    points: list[Array] = []
    try:
        for arc in arcs:
            x, y, yaw = (float(value) for value in arc["start_pose"])
            radius, shape = float(arc["radius"]), str(arc["shape"])
            lengths = [float(value) for value in arc["segment_length"]]
            if len(shape) != 3 or len(lengths) != 3 or not radius > 0.0 or not np.isfinite([x, y, yaw, *lengths]).all() or min(lengths) < 0.0:
                raise ValueError(f"shape {shape!r}, radius {radius}, lengths {lengths}")
            points.append(np.array([[x, y]]))
            for letter, length in zip(shape, lengths):
                bend = BEND[letter] / radius
                at = np.linspace(0.0, length, max(int(np.ceil(length / STEP)), 1) + 1)[1:]
                # a chord of an arc of angle a is sinc(a / 2) times its length, turned by a / 2
                chord, way = at * np.sinc(bend * at / (2.0 * np.pi)), yaw + bend * at / 2.0
                leg = np.column_stack([x + chord * np.cos(way), y + chord * np.sin(way)])
                points.append(leg)
                (x, y), yaw = leg[-1], yaw + bend * length
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: the arcline path of {token} is at fault ({error!r})") from error
    found = np.concatenate(points)
    return found[np.concatenate([[True], np.hypot(*np.diff(found, axis=0).T) > 1e-3])]


def _solid(path: Path, layers: Mapping[str, Any], nodes: Mapping[str, tuple[float, float]], lines: Mapping[str, Any]) -> Iterator[Array]:
    for kind in ("road_divider", "lane_divider"):
        for number, record in enumerate(layers[kind]):
            try:
                tokens = lines[record["line_token"]]
                kinds = {s["node_token"]: str(s["segment_type"]) for s in record.get("lane_divider_segments") or ()} if kind == "lane_divider" else {}
            except (KeyError, TypeError) as error:
                raise DataError(f"{path}: record {number} of {kind} lacks a field or names a line that is not there ({error!r})") from error
            points = _points(path, f"record {number} of {kind}", tokens, nodes)
            if kind == "road_divider" and len(points) > 1:
                yield points
            elif kind == "lane_divider":  # a segment is named by its first node
                yield from (points[k : k + 2] for k in range(len(points) - 1) if "SOLID" in kinds.get(tokens[k], ""))


def _areas(path: Path, records: Sequence[Any], nodes: Mapping[str, tuple[float, float]], polygons: Mapping[str, Any]) -> Iterator[BaseGeometry]:
    for number, record in enumerate(records):
        try:
            parts = [polygons[token] for token in record["polygon_tokens"]]
            rings = [[part["exterior_node_tokens"], *(hole["node_tokens"] for hole in part.get("holes") or ())] for part in parts]
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: record {number} of drivable_area lacks a field or names a polygon that is not there ({error!r})") from error
        for outer, *holes in rings:
            shell, *inner = (_points(path, f"record {number} of drivable_area", tokens, nodes) for tokens in (outer, *holes))
            if len(shell) > 2:
                yield shapely.make_valid(shapely.Polygon(shell, [ring for ring in inner if len(ring) > 2]))


def map_around(name: str, path: Path, place: Array, origin: Array) -> RoadMap:
    """The RoadMap within REACH m of `place` (2,) of the city's frame, shifted by -`origin` (2,) m.

    Raises DataError where the file is faulty or no lane is near.
    """
    city = read_expansion(path)
    x, y = place
    window = shapely.box(x - REACH, y - REACH, x + REACH, y + REACH)
    near = {token: lane for token, lane in city.lanes.items() if (np.abs(lane["polyline"] - place).max(axis=1) < REACH).any()}
    if not near:
        raise DataError(f"{path}: no lane within {REACH:g} m of ({x:.0f}, {y:.0f}): the map is of another place")
    features: dict[str, Mapping[str, Any]] = dict(near)
    lines = (line for line in city.solid if (np.abs(line - place).max(axis=1) < REACH).any())
    features |= {f"solid_{k}": {"type": "ROAD_LINE_SOLID_SINGLE_WHITE", "polyline": line} for k, line in enumerate(lines)}
    area = shapely.intersection(shapely.union_all([part for part in city.areas if part.intersects(window)]), window)
    for part in (p for p in shapely.get_parts(area) if p.geom_type == "Polygon"):
        for ring in (part.exterior, *part.interiors):
            features[f"boundary_{len(features)}"] = {"type": "BOUNDARY_LINE", "polyline": shapely.get_coordinates(ring)}
    return build_road_map(name, features, origin)
