"""Paint on the road from lanes and their neighbours: white dashes, solid edges, double yellow lines, stop bars.

Dashed between lanes of one direction that may change, double yellow between opposite directions, solid white elsewhere.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.geometry import arc_length, wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.simulators.scene_geometry import Paint, Semantic, ribbon

Array = NDArray[np.float64]
WHITE, YELLOW = (232, 232, 226), (236, 184, 60)
LINE = 0.16  # m, width of a line
DASH, GAP = 3.0, 5.0  # m
SAME = 0.6  # m between two borders that are one line on the road


def has_width(lane: Lane) -> bool:
    """Whether the lane's borders are real ones (some logs give a centreline alone)."""
    return len(lane.left) > 1 and float(np.median(np.hypot(*(lane.left - lane.right).T))) > 1.0


def _cut(points: Array, begin: float, end: float) -> Array:
    """(M, 2) part of a polyline between two arc lengths."""
    s = arc_length(points)
    begin, end = max(begin, 0.0), min(end, float(s[-1]))
    inner = points[(s > begin) & (s < end)]
    ends = [[np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])] for at in (begin, end)]
    return np.vstack([ends[:1], inner, ends[1:]])


def _smooth(points: Array) -> Array:
    """(M, 2) the polyline with as few points as 2 cm allow, none further apart than 12 m."""
    line = shapely.segmentize(shapely.simplify(shapely.LineString(points), 0.02), 12.0)
    return shapely.get_coordinates(line)


def _offset(points: Array, by: float) -> Array:
    """(N, 2) the polyline shifted to its left by `by` metres."""
    tangent = np.gradient(points, axis=0)
    tangent = tangent / np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
    return points + by * np.column_stack([-tangent[:, 1], tangent[:, 0]])


def _line(points: Array, inset: float = 0.0, width: float = LINE) -> Array:
    """(Q, 4, 2) quads of a solid line along `points`, shifted to the left by `inset`."""
    return ribbon(_smooth(_offset(points, inset)), width)


def _dashes(points: Array) -> Array:
    """(Q, 4, 2) quads of a dashed line."""
    length = arc_length(points)[-1]
    starts = np.arange(GAP / 2.0, length - 0.5, DASH + GAP)
    parts = [ribbon(_smooth(_cut(points, s, s + DASH)), LINE) for s in starts]
    return np.concatenate([np.zeros((0, 4, 2)), *parts])


class _Borders:
    """All left borders of a map's marked lanes, to ask what lies along a line."""

    def __init__(self, lanes: list[Lane]) -> None:
        points = np.concatenate([lane.left for lane in lanes] or [np.zeros((0, 2))])
        self.heading = np.concatenate([lane.centerline[:, 2] for lane in lanes] or [np.zeros(0)])
        self.owner = np.repeat(np.arange(len(lanes)), [len(lane.left) for lane in lanes])
        self.tree = KDTree(points) if len(points) else None

    def share(self, line: Array, heading: Array, own: int, opposite: bool) -> float:
        """Share of `line` (N, 2) that runs along another lane's left border, in its direction or against it."""
        if self.tree is None:
            return 0.0
        stride = max(len(line) // 12, 1)  # a dozen points tell
        line, heading = line[::stride], heading[::stride]
        hits = 0
        for at, near in enumerate(self.tree.query_ball_point(line, SAME)):
            turned = [abs(float(wrap_angle(self.heading[k] - heading[at]))) for k in near if self.owner[k] != own]
            hits += any(turn > 2.6 if opposite else turn < 0.5 for turn in turned)
        return hits / len(line)


def _lane_lines(lane: Lane, own: int, borders: _Borders) -> tuple[list[Array], list[Array]]:
    """White and yellow quads of one lane. The left border is always its own; the right one where no neighbour paints it."""
    heading = lane.centerline[:, 2]
    white: list[Array] = []
    yellow: list[Array] = []
    if lane.left_neighbor:
        white.append(_dashes(lane.left))
    elif borders.share(lane.left, heading, own, opposite=True) > 0.5:
        yellow.append(_line(lane.left, -LINE))
    else:
        white.append(_line(lane.left, -LINE))
    if not lane.right_neighbor and borders.share(lane.right, heading, own, opposite=False) < 0.5:
        white.append(_line(lane.right, LINE))
    return white, yellow


def _stop_bar(lane: Lane) -> Array:
    """(1, 4, 2) the bar across the end of a lane."""
    back = np.array([np.cos(lane.centerline[-1, 2]), np.sin(lane.centerline[-1, 2])]) * 0.5
    left, right = lane.left[-1], lane.right[-1]
    inset = (left - right) * 0.08
    return np.array([[right + inset - back, right + inset, left - inset, left - inset - back]])


class _Junction:
    """The connectors of one junction, and which of them cross another road's."""

    def __init__(self, connectors: list[Lane], lanes: dict[str, Lane]) -> None:
        self.connectors = connectors
        self.middle = np.array([shapely.LineString(lane.centerline[:, :2]) for lane in connectors])
        trimmed = np.array(
            [shapely.LineString(_cut(lane.centerline[:, :2], 0.08 * lane.length, 0.92 * lane.length)) for lane in connectors]
        )
        source = np.array(
            [next((lanes[k].roadblock or k for k in lane.predecessors if k in lanes), lane.id) for lane in connectors]
        )
        meets = shapely.intersects(trimmed[:, None], trimmed[None]) & (source[:, None] != source[None])
        merges = np.array([[bool(set(a.successors) & set(b.successors)) for b in connectors] for a in connectors])
        self.crossed = {lane.id for lane, hit in zip(connectors, (meets & ~merges).any(1)) if hit}

    def lines(self) -> tuple[list[Array], list[Array]]:
        """White and yellow quads through a place where roads only merge or part: the borders that no path crosses."""
        white: list[Array] = []
        yellow: list[Array] = []
        sides = [(lane, left) for lane in self.connectors if has_width(lane) for left in (True, False)]
        if self.crossed or not sides:
            return white, yellow
        borders = [lane.left if left else lane.right for lane, left in sides]
        heading = np.array([lane.centerline[len(lane.centerline) // 2, 2] for lane, _ in sides])
        shapes = np.array([shapely.LineString(border) for border in borders])
        free = ~shapely.intersects(shapes[:, None], self.middle[None]).any(1)
        apart = shapely.hausdorff_distance(shapes[:, None], shapes[None])
        for k in np.flatnonzero(free):
            same = np.flatnonzero(apart[k] < SAME)
            inset = -LINE if sides[k][1] else LINE
            if (np.abs(wrap_angle(heading[same] - heading[k])) > 2.6).any():
                yellow.append(_line(borders[k], inset))
            elif len(same) == 1:
                white.append(_line(borders[k], inset))
            elif k == same.min():
                white.append(_dashes(borders[k]))
        return white, yellow


def _junctions(road_map: RoadMap) -> list[_Junction]:
    """Every junction of a map."""
    members: dict[str, list[Lane]] = {}
    for lane in road_map.lanes.values():
        if lane.is_connector and lane.junction and lane.length > 0.1:
            members.setdefault(lane.junction, []).append(lane)
    return [_Junction(connectors, road_map.lanes) for connectors in members.values()]


def lane_paint(road_map: RoadMap) -> list[Paint]:
    """The paint of every lane that has borders. Junctions carry none where paths cross, but stop bars at their mouths."""
    lanes = [lane for lane in road_map.lanes.values() if not lane.is_connector and has_width(lane)]
    junctions = _junctions(road_map)
    crossed = {connector for junction in junctions for connector in junction.crossed}
    borders = _Borders(lanes)
    white: list[Array] = [np.zeros((0, 4, 2))]
    yellow: list[Array] = [np.zeros((0, 4, 2))]
    for own, lane in enumerate(lanes):
        lane_white, lane_yellow = _lane_lines(lane, own, borders)
        white += lane_white
        yellow += lane_yellow
        if crossed.intersection(lane.successors):
            white.append(_stop_bar(lane))
    for junction in junctions:
        junction_white, junction_yellow = junction.lines()
        white += junction_white
        yellow += junction_yellow
    return [
        Paint.flat(np.concatenate(yellow), YELLOW, Semantic.LANE_MARKING),
        Paint.flat(np.concatenate(white), WHITE, Semantic.LANE_MARKING),
    ]
