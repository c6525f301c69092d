"""RoadMap from L5Kit's semantic map: `semantic_map.pb`, a MapFragment of Lyft's road_network.proto, placed by the matrix in `meta.json`.

Field numbers are those of road_network.proto (woven-planet/l5kit, l5kit/data/proto). A lane has a left and a right boundary, whose points are
differences in cm in a local frame east, north, up; the first is measured from the frame's origin, a latitude and longitude in 1e-7 degrees. As L5Kit
does (data/map_api.py), origins are taken at height 0 and unturned, then carried over to Earth-centred coordinates (WGS 84) and by the inverse of
`world_to_ecef` (older files: `pose_to_ecef`) to the world of the scenes.

- The centreline is the middle of the boundaries, both resampled. The schema does not say in which direction boundaries of lanes against their segment run:
  where the left one lies to the right of the way, both are reversed.
- Lanes of a junction are connectors; their turn is the recorded one, else read from the centreline. Bike lanes are left out.
- Neighbours are those that the map allows changes to. Roadblocks are neighbours side by side. Lanes take the limit of their segment, connectors that
  of a lane before them; without one, SPEED_LIMIT.
- There is no drivable area: lanes grown by GROW stand in, as in `scenarionet_map`. Parking zones are car parks. Crosswalks are counted, but a
  RoadMap has no layer for them.
- A lane's light shows the colour of the lit faces among its traffic controls, the strictest where several are lit; unknown where none is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.core.geometry import arc_length, evenly, polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import Lights, LightState
from drive.datasets.map_lanes import simple_polygon
from drive.datasets.scenarionet_map import SPEED_LIMIT, blocks_and_junctions, polygon_layers, turn_of
from drive.datasets.waymo_wire import FIXED32, Message

Array = NDArray[np.float64]
RADIUS = 150.0  # m around a drive
STEP = 1.0  # m between points of a centreline
WGS84_A, WGS84_E2 = 6378137.0, 6.69437999014e-3  # m, squared eccentricity
SEGMENT, LANE, CONTROL, JUNCTION = 1, 3, 4, 5  # fields of MapElement.Element
CROSSWALK, PARKING = 16, 35  # fields of TrafficControlElement
TURNS = {1: "straight", 2: "left", 3: "left", 4: "right", 5: "right", 6: "left"}  # Lane.TurnType; a U-turn is to the left
ONLY_BIKE, BACKWARD = 4, 3  # AccessRestriction.Type, TravelDirection
FACES = {
    **dict.fromkeys((10, 11, 30, 32, 38, 41, 44), LightState.RED),
    **dict.fromkeys((9, 12, 36, 37, 39, 42, 45), LightState.YELLOW),
    **dict.fromkeys((13, 31, 33, 40, 43, 46), LightState.GREEN),
}  # fields of TrafficControlElement
STRICTEST = (LightState.RED, LightState.YELLOW, LightState.GREEN)


@dataclass(frozen=True)
class _Lane:
    """A lane as recorded, in the world of the scenes."""

    left: Array  # (N, 2)
    right: Array  # (M, 2)
    parent: str
    turn: int
    backward: bool
    ahead: tuple[str, ...]
    beside: tuple[str, str]  # left, right; empty where no change is allowed
    controls: tuple[str, ...]


@dataclass(frozen=True)
class SemanticMap:
    """The whole map, decoded."""

    path: Path
    meta: Path  # which places it in the world
    lanes: Mapping[str, _Lane]
    limits: Mapping[str, tuple[float, float]]  # m/s of segments, forward and backward; 0 where there is none
    junctions: frozenset[str]
    crosswalks: Mapping[str, Array]  # (N, 2) outlines
    parking: Mapping[str, Array]
    faces: Mapping[str, LightState]  # colour of each face of a light
    reversed: int  # lanes whose boundaries ran against their way

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree([shapely.LineString(np.concatenate([lane.left, lane.right[::-1]])) for lane in self.lanes.values()])

    def near(self, area: BaseGeometry) -> dict[str, _Lane]:
        """The lanes that meet `area`, by id."""
        keys = list(self.lanes)
        return {keys[k]: self.lanes[keys[k]] for k in sorted(self._tree.query(area, predicate="intersects").tolist())}


def map_files(folder: Path) -> tuple[Path, Path]:
    """semantic_map.pb and meta.json below a folder of L5Kit's data. Raises DataError where one is missing."""
    chart = next((path for path in (folder / "semantic_map" / "semantic_map.pb", folder / "semantic_map.pb") if path.is_file()), None)
    meta = next((path for path in (folder / "meta.json", folder.parent / "meta.json") if path.is_file()), None)
    if chart is None or meta is None:
        raise DataError(f"{folder} lacks {'semantic_map/semantic_map.pb' if chart is None else 'meta.json'}: dataset.maps is the folder of L5Kit's data with both")
    return chart, meta


def world_from_ecef(path: Path) -> Array:
    """(4, 4) from Earth-centred coordinates to the scenes' world, of a meta.json. Raises DataError, naming the file, on a faulty one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        matrix = np.array(content["world_to_ecef"] if "world_to_ecef" in content else content["pose_to_ecef"], np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"a matrix of shape {matrix.shape}")
        inverse = np.asarray(np.linalg.inv(matrix), np.float64)
        if not np.isfinite(inverse).all():
            raise ValueError("a matrix with NaN")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no usable world_to_ecef ({error!r}): fetch it again") from error
    return inverse


def read_map(folder: Path) -> SemanticMap:
    """The map of a folder of L5Kit's data. Raises DataError, naming file and element, where it cannot be read."""
    path, meta = map_files(folder)
    world = world_from_ecef(meta)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    lanes: dict[str, _Lane] = {}
    limits: dict[str, tuple[float, float]] = {}
    junctions: set[str] = set()
    areas: dict[int, dict[str, Array]] = {CROSSWALK: {}, PARKING: {}}
    faces: dict[str, LightState] = {}
    turned = 0
    for number, element in enumerate(Message(data, str(path)).messages(2)):
        element.where = f"{path}: element {number}"
        key, record = _id(element.message(1)), element.message(2)
        record.where = element.where = f"{path}: element {key or number}"
        if LANE in record.kinds:
            lane, against = _lane(record.message(LANE), world)
            if lane is not None:
                lanes[key], turned = lane, turned + against
        elif SEGMENT in record.kinds:
            segment = record.message(SEGMENT)
            limits[key] = segment.real(9, 0.0), segment.real(10, 0.0)
        elif JUNCTION in record.kinds:
            junctions.add(key)
        elif CONTROL in record.kinds:
            control = record.message(CONTROL)
            kind = next((field for field in control.kinds if field in areas or field in FACES), 0)
            if kind in FACES:
                faces[key] = FACES[kind]
            elif kind in areas and len(ring := _points(control, (3, 4, 5), control.message(2), world)) > 2:
                areas[kind][key] = ring
    if not lanes:
        raise DataError(f"{path} holds no lane: is it L5Kit's semantic_map.pb?")
    return SemanticMap(path, meta, lanes, limits, frozenset(junctions), areas[CROSSWALK], areas[PARKING], faces, turned)


def _id(message: Message) -> str:
    """The text of a GlobalId."""
    return message.text(1)


def _ids(message: Message, number: int) -> tuple[str, ...]:
    return tuple(found for record in message.messages(number) if (found := _id(record)))


def _signed(values: NDArray[np.int64]) -> Array:
    """sint32 of varints: zigzag."""
    return ((values >> 1) ^ -(values & 1)).astype(np.float64)


def _fixed(message: Message, number: int) -> int:
    """An sfixed32, 0 if absent."""
    rows = message.rows[(message.rows[:, 0] == number) & (message.rows[:, 1] == FIXED32)]
    return int(message.data[rows[-1, 2] : rows[-1, 3]].view("<i4")[0]) if len(rows) else 0


def ecef_of_enu(points: Array, latitude: float, longitude: float) -> Array:
    """(N, 3) Earth-centred coordinates in m of points (N, 3) east, north, up of a place on the WGS 84 ellipsoid, in rad; as road_network.proto has it."""
    up = np.array([np.cos(longitude) * np.cos(latitude), np.sin(longitude) * np.cos(latitude), np.sin(latitude)])
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    north = np.array([-np.cos(longitude) * np.sin(latitude), -np.sin(longitude) * np.sin(latitude), np.cos(latitude)])
    normal = WGS84_A / np.sqrt(1.0 - WGS84_E2 * np.sin(latitude) ** 2)
    return np.asarray(up * normal * [1.0, 1.0, 1.0 - WGS84_E2] + points @ np.stack([east, north, up]), np.float64)


def _points(message: Message, fields: Sequence[int], frame: Message, world: Array) -> Array:
    """(N, 2) in the scenes' world of the differences in three fields of a message. Raises DataError where they are not of one length."""
    steps = [_signed(message.integers(number)) for number in fields]
    if len({len(values) for values in steps}) > 1:
        raise DataError(f"{message.where}: {', '.join(str(len(values)) for values in steps)} differences in x, y, z: torn? fetch the map again")
    origin = frame.message(1)
    latitude, longitude = (np.radians(_fixed(origin, number) * 1e-7) for number in (1, 2))
    if abs(latitude) > np.pi / 2 or abs(longitude) > np.pi:
        raise DataError(f"{message.where}: its origin lies at {np.degrees(latitude):.4f}, {np.degrees(longitude):.4f} degrees, nowhere on Earth")
    place = ecef_of_enu(np.cumsum(np.column_stack(steps) / 100.0, axis=0), latitude, longitude)
    return (place @ world[:3, :3].T + world[:3, 3])[:, :2]


def _lane(lane: Message, world: Array) -> tuple[_Lane | None, bool]:
    """A lane, none of a bike lane, and whether its boundaries ran against its way."""
    if lane.message(11).integer(1) == ONLY_BIKE:
        return None, False
    frame = lane.message(2)
    left, right = (_points(lane.message(side), (1, 2, 3), frame, world) for side in (3, 4))
    if min(len(left), len(right)) < 2:
        raise DataError(f"{lane.where}: a lane with a boundary of fewer than two points")
    way, across = (left[-1] + right[-1]) - (left[0] + right[0]), (left[0] + left[-1]) - (right[0] + right[-1])
    against = bool(way[0] * across[1] - way[1] * across[0] < 0.0)
    beside = tuple(_id(lane.message(side)) for side in (6, 7))
    found = _Lane(
        left[::-1] if against else left, right[::-1] if against else right, _id(lane.message(1)), lane.integer(13), lane.integer(12) == BACKWARD,
        _ids(lane, 5), (beside[0], beside[1]), _ids(lane, 8),
    )  # fmt: skip
    return found, against


def road_map(name: str, chart: SemanticMap, drive: Array, origin: Array) -> RoadMap:
    """The RoadMap within RADIUS of a drive (S, 2+) in the scenes' world, shifted by -`origin` (2,) m. Raises DataError where no lane is."""
    line = shapely.LineString(drive[:, :2]) if len(drive) > 1 else shapely.Point(drive[0, :2])
    area = line.simplify(1.0).buffer(RADIUS)
    near = chart.near(area)
    if not near:
        raise DataError(f"{chart.path} has no lane within {RADIUS:.0f} m of {name}: is it the map of these scenes?")
    lanes = {key: built for key, lane in near.items() if (built := _built(key, lane, chart, origin)) is not None}
    before: dict[str, list[str]] = {key: [] for key in lanes}
    for key, lane in lanes.items():
        for after in lane.successors:
            if after in before:
                before[after].append(key)
    lanes = {key: _linked(lane, lanes, before[key]) for key, lane in lanes.items()}
    lanes = {key: replace(lane, speed_limit=_limit(lane, lanes, chart)) for key, lane in lanes.items()}
    shapes = {key: simple_polygon(np.concatenate([lane.left, lane.right[::-1]])) for key, lane in lanes.items()}
    lanes = {k: replace(lane, junction=near[k].parent if lane.is_connector else "") for k, lane in blocks_and_junctions(lanes, shapes).items()}
    polygons = polygon_layers(lanes, shapes, shapely.Polygon())
    rings = [(polygons.tokens[i], Layer(int(polygons.layers[i])), polygons.ring(i)) for i in range(len(polygons))]
    rings += [(key, Layer.CARPARK, ring - origin) for key, ring in chart.parking.items() if shapely.intersects(area, shapely.LineString(ring))]
    return RoadMap(name, lanes, Polygons.from_rings(rings))


def _built(key: str, lane: _Lane, chart: SemanticMap, origin: Array) -> Lane | None:
    """A lane without its speed limit; none where it has no length."""
    length = max(arc_length(lane.left)[-1], arc_length(lane.right)[-1])
    if length < 0.1:
        return None
    count = max(int(np.ceil(length / STEP)), 1) + 1
    left, right = evenly(lane.left - origin, count), evenly(lane.right - origin, count)
    centerline = polyline_with_heading((left + right) / 2.0)
    connector = lane.parent in chart.junctions
    turn = TURNS.get(lane.turn, turn_of(centerline)) if connector else ""
    return Lane(key, centerline, left, right, SPEED_LIMIT, connector, turn, successors=lane.ahead, left_neighbor=lane.beside[0], right_neighbor=lane.beside[1])


def _linked(lane: Lane, lanes: Mapping[str, Lane], before: Sequence[str]) -> Lane:
    """`lane` with those links alone that lead to lanes of this map."""
    left, right = (other if other in lanes else "" for other in (lane.left_neighbor, lane.right_neighbor))
    return replace(lane, successors=tuple(i for i in lane.successors if i in lanes), predecessors=tuple(before), left_neighbor=left, right_neighbor=right)


def _limit(lane: Lane, lanes: Mapping[str, Lane], chart: SemanticMap) -> float:
    """m/s of the lane's segment; of a connector, that of the first lane before it that has one."""
    for key in (lane.id, *(i for i in lane.predecessors if lane.is_connector and i in lanes)):
        recorded = chart.lanes[key]
        forward, backward = chart.limits.get(recorded.parent, (0.0, 0.0))
        limit = backward if recorded.backward and backward > 0.0 else forward
        if limit > 0.0:
            return limit
    return SPEED_LIMIT


def lights(chart: SemanticMap, lane_ids: Iterable[str], lit: Sequence[Sequence[str]]) -> Lights:
    """What the lights of lanes show, of the faces that are lit at each of S steps."""
    ruled = {key: own for key in lane_ids if (own := frozenset(chart.lanes[key].controls) & chart.faces.keys())}
    states = np.zeros((len(ruled), len(lit)), np.int64)
    for step, faces in enumerate(lit):
        for row, own in enumerate(ruled.values()):
            shown = {chart.faces[face] for face in own.intersection(faces)}
            states[row, step] = next((state for state in STRICTEST if state in shown), LightState.UNKNOWN)
    return Lights(tuple(ruled), states)


def counts(chart: SemanticMap) -> dict[str, int]:
    """How many of each kind of element there are."""
    return {
        "lanes": len(chart.lanes), "lanes of junctions": sum(lane.parent in chart.junctions for lane in chart.lanes.values()), "segments": len(chart.limits),
        "junctions": len(chart.junctions), "crosswalks": len(chart.crosswalks), "parking zones": len(chart.parking), "faces of lights": len(chart.faces),
        "boundaries reversed": chart.reversed,
    }  # fmt: skip
