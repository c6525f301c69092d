"""Which lanes a driven history used, as nuPlan reads it: the ground of its map metrics.

Source: nuplan-devkit v1.2, planning/metrics/utils/route_extractor.py and ego_lane_change.py. A point belongs to the lane that strictly
holds it, else to every lane connector that does; a history stays with what it was in, and with what follows, before it looks around.
Our RoadMap stands for nuPlan's map: lanes and connectors with their polygons, roadblocks, intersections, and as drivable area all that
NAVSIM lets a car stand on. A connector's roadblock is the union of the connectors that share its name, or itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import Array
from drive.core.roadmap import Layer, RoadMap

NEAR = 5.0  # m within which a point that left its connector still belongs to it
DRIVABLE = (Layer.ROADBLOCK, Layer.INTERSECTION, Layer.CARPARK, Layer.DRIVABLE_AREA)
Route = list[list[str]]


class LaneIndex:
    """Polygons of a RoadMap by lane, and what is asked of them."""

    def __init__(self, road_map: RoadMap) -> None:
        """Raises DataError on a map without polygons of its lanes: nuPlan's map metrics mean nothing there."""
        self.lanes, polygons = road_map.lanes, road_map.polygons
        rings = {layer: [i for i in range(len(polygons)) if polygons.layers[i] == layer] for layer in Layer}
        shapes = {i: shapely.Polygon(polygons.ring(i)) for i in range(len(polygons)) if len(polygons.ring(i)) > 2}
        held = [i for i in (*rings[Layer.LANE], *rings[Layer.LANE_CONNECTOR]) if polygons.tokens[i] in self.lanes and i in shapes]
        self.polygon = {polygons.tokens[i]: shapes[i] for i in held}
        if not self.polygon:
            raise DataError(f"map {road_map.name} has no polygon of a lane: nuPlan's map metrics need one")
        self._ids = list(self.polygon)
        self._tree = shapely.STRtree([self.polygon[name] for name in self._ids])
        self.drivable = shapely.union_all([shapely.make_valid(shapes[i]) for layer in DRIVABLE for i in rings[layer] if i in shapes])
        self.intersections = shapely.union_all([shapely.make_valid(shapes[i]) for i in rings[Layer.INTERSECTION] if i in shapes])
        self._blocks: dict[str, shapely.Geometry] = {polygons.tokens[i]: shapes[i] for i in rings[Layer.ROADBLOCK] if i in shapes}
        self.baseline = {name: shapely.LineString(lane.centerline[:, :2]) for name, lane in self.lanes.items()}

    def inside(self, points: Array) -> Route:
        """The lanes and connectors that strictly contain each of the points (N, 2)."""
        of, held = self._tree.query(shapely.points(points), predicate="within")
        out: Route = [[] for _ in points]
        for i, k in sorted(zip(of.tolist(), held.tolist())):
            out[i].append(self._ids[k])
        return out

    def at(self, found: list[str]) -> list[str]:
        """The lane of those that hold a point, else all connectors that do."""
        lane = next((name for name in found if not self.lanes[name].is_connector), None)
        return found if lane is None else [lane]

    def block(self, name: str) -> shapely.Geometry:
        """Area of the lane's roadblock."""
        token = self.lanes[name].roadblock
        if not token:
            return self.polygon[name]
        if token not in self._blocks:
            same = [k for k, lane in self.lanes.items() if lane.roadblock == token and k in self.polygon]
            self._blocks[token] = shapely.union_all([self.polygon[k] for k in same])
        return self._blocks[token]

    def among(self, found: list[str], candidates: Sequence[str]) -> list[str]:
        """The candidates among those that hold a point, else the successors of a single one."""
        kept = [name for name in candidates if name in found]
        if not kept and len(candidates) == 1:
            kept = [name for name in self.lanes[candidates[0]].successors if name in found]
        return kept


def driven_route(index: LaneIndex, points: Array) -> Route:
    """Lane, or connectors, of each point (T, 2); empty off the lanes."""
    found: Route = []
    current: list[str] = []
    for i, (xy, held) in enumerate(zip(points, index.inside(points))):
        if current:
            current = index.among(held, current)
        if not current:
            current = index.at(held)
            if i > 1 and found[-1] and index.lanes[found[-1][0]].is_connector:
                lost = not current and bool(shapely.contains_xy(index.intersections, xy[0], xy[1]))
                if lost or (current and index.lanes[current[0]].is_connector):
                    point = shapely.Point(xy)
                    current = [name for name in found[-1] if index.polygon[name].distance(point) < NEAR] or current
        found.append(current)
    return _ended(index, found)


def _ended(index: LaneIndex, route: Route) -> Route:
    """Of several connectors, those that the history ended up in, told backwards from what came next."""
    out = list(route)
    for i in range(len(out) - 2, -1, -1):
        here, after = route[i], out[i + 1]
        if len(here) <= 1:
            continue
        if len(here) > len(after) and set(after) <= set(here):
            out[i] = after
        if after and not index.lanes[after[0]].is_connector:
            leading = [name for name in here if name in index.lanes[after[0]].predecessors]
            out[i] = leading or out[i]
    return out


def simplified(route: Route) -> Route:
    """The route without repetitions, from its first lane on; empty where there is none."""
    out: Route = []
    for names in route:
        if names and not (out and set(out[-1]) & set(names)):
            out.append(names)
    return out


def corner_lanes(index: LaneIndex, corners: Array) -> list[list[list[str]]]:
    """Lanes of each of the four corners (T, 4, 2), in the order of `drive.core.geometry.box_corners`."""
    candidates: list[str] = []
    out = []
    inside = index.inside(corners.reshape(-1, 2))
    for step in range(len(corners)):
        found, following = [], []
        for held in inside[4 * step : 4 * step + 4]:
            names = index.among(held, candidates) if candidates else []
            if not names:
                names = index.at(held)
                if step == 1:  # upstream's slip: the second pose, not the first, teaches its own other corners
                    candidates += [name for name in names if name not in candidates]
            following += [name for name in names if name not in following]
            found.append(names)
        candidates = following
        out.append(found)
    return out


def shared_lanes(index: LaneIndex, corners: Sequence[Sequence[str]]) -> set[str] | None:
    """Lanes that hold all four corners, or connect them; empty where every corner is off the lanes, None where they lie apart."""
    if not any(corners):
        return set()
    if not all(corners):
        return None
    sets = [set(names) for names in corners]
    common = set.intersection(*sets)
    return common or _connecting(index, sets) or None


def _connecting(index: LaneIndex, corners: Sequence[set[str]]) -> set[str]:
    front_left, rear_left, rear_right, front_right = corners

    def with_edges(names: Iterable[str], kind: str) -> set[str]:
        return set(names) | {edge for name in names for edge in getattr(index.lanes[name], kind)}

    left_on, right_on = with_edges(rear_left, "successors"), with_edges(rear_right, "successors")
    if not (rear_left & right_on) | (rear_right & left_on):
        return set()
    return (with_edges(front_left, "predecessors") & right_on) & (with_edges(front_right, "predecessors") & left_on)


def in_one_lane(index: LaneIndex, corners: Array) -> NDArray[np.bool_]:
    """Whether (T,) one lane, or lanes that follow one another, hold all corners (T, 4, 2): what collisions and time to collision ask."""
    return np.array([bool(shared_lanes(index, lanes)) for lanes in corner_lanes(index, corners)])


@dataclass(frozen=True)
class LaneChange:
    """One change of lanes."""

    start: int  # step at which the corners parted
    stop: int  # step at which one lane held them all again, or the last step
    success: bool  # into another lane than before, and not the one that follows it


def lane_changes(index: LaneIndex, corners: Array) -> list[LaneChange]:
    """Changes of lanes in a history of corners (T, 4, 2); one that is open at the end, or ends off the road, has failed."""
    shared = [shared_lanes(index, lanes) for lanes in corner_lanes(index, corners)]
    out: list[LaneChange] = []
    opened: tuple[int, set[str]] | None = None
    for step in range(1, len(shared)):
        here, before = shared[step], shared[step - 1]
        if opened is None and here is None and before:
            opened = step, before
        elif opened is not None and here is not None:
            known = opened[1] | {edge for name in opened[1] for edge in index.lanes[name].successors}
            out.append(LaneChange(opened[0], step, bool(here) and not known & here))
            opened = None
    if opened is not None:
        out.append(LaneChange(opened[0], len(shared) - 1, False))
    return out
