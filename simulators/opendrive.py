"""OpenDRIVE to RoadMap, through carla.Map from the official wheel, which parses OpenDRIVE without a server.

carla.Map gives geometry and topology; lane types and speed records are read from the XML, as the wheel does not expose them.
CARLA's frame is left-handed and in degrees: `_rows` is the one place where y and the heading are flipped.
"""

from __future__ import annotations

import gzip
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError, DriveError
from drive.core.geometry import wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.simulators.map_polygons import Strip, build_polygons
from drive.simulators.towns import TOWN_SPLITS, load_town, town_names

__all__ = ["TOWN_SPLITS", "load_map", "load_town", "road_map_from_opendrive", "town_names"]

Array = NDArray[np.float64]
DEFAULT_SPEED = 50.0 / 3.6  # m/s, where neither the road nor its neighbours state a limit
SPACING = 1.0  # m, the longest step of a centreline
END_GAP = 1e-3  # m: a waypoint at the very end of a section would belong to the next one
TURN_ANGLE = math.radians(30.0)  # a connector that turns less goes straight
DRIVING_TYPES = frozenset({"driving", "entry", "exit", "onRamp", "offRamp", "connectingRamp"})
UNITS = {"m/s": 1.0, "": 1.0, "km/h": 1.0 / 3.6, "mph": 0.44704}


@dataclass(frozen=True)
class Piece:
    """One lane of one lane section."""

    road: int
    section: int
    lane: int  # OpenDRIVE's id: negative lanes run along the road, positive ones against it
    start: float  # m along the road
    end: float
    kind: str
    speed: float | None  # m/s
    junction: str  # empty outside junctions

    @property
    def id(self) -> str:
        return f"{self.road}_{self.section}_{self.lane}"

    @property
    def block(self) -> str:
        """Lanes side by side in one direction share it."""
        return f"{self.road}_{self.section}_{'r' if self.lane < 0 else 'l'}"

    @property
    def gap(self) -> float:
        return min(END_GAP, (self.end - self.start) / 4.0)


def load_map(path: str | Path) -> RoadMap:
    """The RoadMap of a .xodr, .xodr.gz or saved .npz file, named after the file. Raises DataError where it cannot be read."""
    path = Path(path)
    if path.suffix == ".npz":
        return RoadMap.load(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the OpenDRIVE file {path} ({error})") from error
    return road_map_from_opendrive(text, path.name.split(".")[0])


def road_map_from_opendrive(source: str | Path, name: str) -> RoadMap:
    """The RoadMap of an OpenDRIVE text, or of a file's path; heights are dropped.

    Raises DataError where the OpenDRIVE is not well formed, DriveError where the carla wheel is missing.
    """
    text = str(source)
    if not text.lstrip("\ufeff \t\r\n").startswith("<"):
        return RoadMap(name, (road_map := load_map(text)).lanes, road_map.polygons)
    world = carla_map(text, name)
    try:
        pieces = _pieces(ElementTree.fromstring(text))
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"map {name} is not well-formed OpenDRIVE ({error}): check it with an OpenDRIVE validator") from error
    driving = [p for p in pieces if p.kind in DRIVING_TYPES]
    if not driving:
        raise DataError(f"map {name} has no driving lanes")
    lanes = _lanes(world, driving)
    strips = [Strip(p.road, p.section, p.lane, lanes[p.id].left, lanes[p.id].right) for p in driving if not p.junction]
    paved = {(s.road, s.section) for s in strips}  # a road of nothing but shoulders is scenery
    for piece in pieces:
        if piece.kind == "shoulder" and (piece.road, piece.section) in paved:
            _, left, right = _sample(world, piece)
            strips.append(Strip(piece.road, piece.section, piece.lane, left, right))
    return RoadMap(name, lanes, build_polygons(lanes, strips))


def carla_map(text: str, name: str) -> Any:
    """carla.Map of an OpenDRIVE text. Raises DataError where it cannot read it, DriveError where the wheel is missing."""
    try:
        import carla
    except ImportError as error:
        raise DriveError(
            "reading OpenDRIVE needs the carla wheel (`pip install carla==0.9.16`: Linux x86-64 or Windows, Python below 3.13); "
            "elsewhere use the shipped towns, or a map saved as .npz on such a machine"
        ) from error
    try:
        return carla.Map(name, text)
    except RuntimeError as error:
        raise DataError(
            f"map {name}: carla.Map cannot read this OpenDRIVE ({error}): check it with an OpenDRIVE validator"
        ) from error


def _pieces(root: ElementTree.Element) -> list[Piece]:
    """Every driving and shoulder lane of every section, in file order."""
    found = []
    for road in root.iter("road"):
        sections = road.findall("lanes/laneSection")
        starts = [float(s.get("s", 0.0)) for s in sections] + [float(road.get("length", 0.0))]
        junction = road.get("junction", "-1")
        for index, section in enumerate(sections):
            start, end = starts[index], starts[index + 1]
            if end - start < 2.0 * END_GAP:
                continue
            for lane in [*section.findall("left/lane"), *section.findall("right/lane")]:
                kind = lane.get("type", "none")
                if kind in DRIVING_TYPES or kind == "shoulder":
                    speed = _speed(road, lane, start, (start + end) / 2.0)
                    key = int(road.get("id", "")), index, int(lane.get("id", ""))
                    found.append(Piece(*key, start, end, kind, speed, "" if junction == "-1" else junction))
    return found


def _speed(road: ElementTree.Element, lane: ElementTree.Element, start: float, middle: float) -> float | None:
    """m/s in force at `middle`: the lane's record, else the road's, else None."""
    records = [(start + float(r.get("sOffset", 0.0)), r) for r in lane.findall("speed")]
    records = records or [(float(t.get("s", 0.0)), r) for t in road.findall("type") for r in t.findall("speed")]
    in_force = [r for at, r in sorted(records, key=lambda item: item[0]) if at <= middle]
    if not in_force:
        return None
    try:
        value = float(in_force[-1].get("max", "")) * UNITS[in_force[-1].get("unit", "")]
    except (KeyError, ValueError):  # "no limit", "undefined"
        return None
    return value if value > 0.0 else None


def _rows(world: Any, piece: Piece, stations: Array) -> Array:
    """(N, 4) x, y, heading, lane width at road stations (N,), in driving direction, right-handed."""
    rows = np.empty((len(stations), 4))
    for i, s in enumerate(stations if piece.lane < 0 else stations[::-1]):
        waypoint = world.get_waypoint_xodr(piece.road, piece.lane, float(s))
        if waypoint is None:
            raise DataError(f"carla.Map has no lane {piece.lane} at {s:.2f} m of road {piece.road}")
        transform = waypoint.transform
        rows[i] = transform.location.x, -transform.location.y, -math.radians(transform.rotation.yaw), waypoint.lane_width
    return rows


def _sample(world: Any, piece: Piece) -> tuple[Array, Array, Array]:
    """Centreline (N, 3), left and right border (N, 2), at most SPACING apart, ends exact; rounded to 0.1 mm."""
    low, high = piece.start + piece.gap, piece.end - piece.gap
    count = max(math.ceil((high - low) / SPACING), 1) + 1
    rows = _rows(world, piece, np.linspace(low, high, count))
    longest = np.hypot(*np.diff(rows[:, :2], axis=0).T).max()
    if longest > SPACING - 2.0 * piece.gap:  # the outer lanes of a curve are longer than the road
        count = math.ceil((count - 1) * longest / SPACING * 1.02) + 1
        rows = _rows(world, piece, np.linspace(low, high, count))
    rows[0, :2] -= piece.gap * np.array([np.cos(rows[0, 2]), np.sin(rows[0, 2])])
    rows[-1, :2] += piece.gap * np.array([np.cos(rows[-1, 2]), np.sin(rows[-1, 2])])
    offset = 0.5 * rows[:, 3:] * np.column_stack([-np.sin(rows[:, 2]), np.cos(rows[:, 2])])
    centre = np.column_stack([rows[:, :2].round(4), wrap_angle(rows[:, 2]).round(6)])
    return centre, (rows[:, :2] + offset).round(4), (rows[:, :2] - offset).round(4)


def _lanes(world: Any, driving: list[Piece]) -> dict[str, Lane]:
    known = {p.id for p in driving}
    after = {p.id: tuple(i for i in _successors(world, p) if i in known) for p in driving}
    before: dict[str, list[str]] = defaultdict(list)
    for lane_id, successors in after.items():
        for successor in successors:
            before[successor].append(lane_id)
    lanes = {}
    for piece in driving:
        centre, left, right = _sample(world, piece)
        left_id, right_id = _neighbors(world, piece)
        lanes[piece.id] = Lane(
            id=piece.id,
            centerline=centre,
            left=left,
            right=right,
            speed_limit=piece.speed or 0.0,
            is_connector=bool(piece.junction),
            roadblock=piece.block,
            junction=piece.junction,
            successors=after[piece.id],
            predecessors=tuple(before[piece.id]),
            left_neighbor=left_id if left_id in known else "",
            right_neighbor=right_id if right_id in known else "",
        )
    turns = _turns(driving, lanes)
    return {k: replace(lane, speed_limit=_limit(lanes, lane), turn=turns.get(k, "")) for k, lane in lanes.items()}


def _successors(world: Any, piece: Piece) -> list[str]:
    end = piece.end - piece.gap if piece.lane < 0 else piece.start + piece.gap
    waypoint = world.get_waypoint_xodr(piece.road, piece.lane, end)
    ids = {f"{w.road_id}_{w.section_id}_{w.lane_id}" for w in waypoint.next(2.0 * piece.gap)} if waypoint else set()
    return sorted(ids - {piece.id})


def _neighbors(world: Any, piece: Piece) -> tuple[str, str]:
    """Ids of the lanes left and right, same direction, that the lane marking lets a car change to; empty where none."""
    waypoint = world.get_waypoint_xodr(piece.road, piece.lane, (piece.start + piece.end) / 2.0)
    allowed = str(waypoint.lane_change)
    found = []
    for side, other in (("Left", waypoint.get_left_lane()), ("Right", waypoint.get_right_lane())):
        if other is not None and allowed in (side, "Both") and other.road_id == piece.road and other.lane_id * piece.lane > 0:
            found.append(f"{other.road_id}_{other.section_id}_{other.lane_id}")
        else:
            found.append("")
    return found[0], found[1]


def _turns(driving: list[Piece], lanes: dict[str, Lane]) -> dict[str, str]:
    """Turn of each connector by the heading change over the whole connecting road, its sections added up."""
    change: dict[tuple[int, bool], dict[int, float]] = defaultdict(dict)
    for p in driving:
        if p.junction:
            heading = np.unwrap(lanes[p.id].centerline[:, 2])
            change[p.road, p.lane < 0].setdefault(p.section, float(heading[-1] - heading[0]))
    turns = {}
    for p in driving:
        if p.junction:
            total = sum(change[p.road, p.lane < 0].values())
            turns[p.id] = "left" if total > TURN_ANGLE else "right" if total < -TURN_ANGLE else "straight"
    return turns


def _limit(lanes: dict[str, Lane], lane: Lane) -> float:
    """The stated limit; else, as for most connecting roads, the lowest stated one before or after it; else the default."""
    if lane.speed_limit > 0.0:
        return lane.speed_limit
    around = [lanes[k].speed_limit for k in (*lane.predecessors, *lane.successors)]
    return min((v for v in around if v > 0.0), default=DEFAULT_SPEED)
