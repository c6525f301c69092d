"""From the keypoints of a CARLA route to a dense path: which lanes they lie in, the way between them, and the commands on it.

Keypoints of the published files lie 2 m (Bench2Drive) to several hundred metres (leaderboard) apart, on lane centres, and say nothing of
lanes; inside a junction several connectors pass one point. So all lanes near a keypoint are candidates, the way between two candidates is
found by A* over the lane graph, and the cheapest chain of candidates through all keypoints wins (Viterbi). CARLA's own planner
(GlobalRoutePlanner) takes the nearest lane of each keypoint by itself.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses, wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.core.types import Command
from drive.simulators.carla_routes import CarlaScenario
from drive.simulators.routes import BLEND, CHANGE_COST, SPACING, Route, resampled

Array = NDArray[np.float64]
Node = tuple[str, float, bool]  # lane, share of it at which it is entered, whether by a lane change
REACH = 6.0  # m from a keypoint to a lane; farther, the route does not fit the map
AMBIGUITY = 1.5  # m by which a candidate may be farther than the nearest lane
CANDIDATES = 8
LEAST_BLEND = 10.0  # m of path of a lane change beside a keypoint or the end of a lane, where the lane has them
OFFSET_COST = 10.0  # m of way that a metre between keypoint and lane is worth
HEADING_COST = 20.0  # m of way that a radian between keypoint and lane is worth, where the file has headings
BACKWARDS = 2.0  # m that a keypoint may lie behind the one before it: published ones are rounded to 0.1 m
DETOUR, MARGIN = 3.0, 300.0  # a first search stops at 3 times the distance plus 300 m
TRIGGER_REACH, TRIGGER_TURN = 2.0, np.radians(10.0)  # m, rad between a trigger point and the route
JUNCTION_ROOM = 8  # points behind the start of the first junction, from which Bench2Drive counts it as passed


@dataclass(frozen=True)
class Place:
    """A point of a lane."""

    lane: str
    s: float  # m along its centreline
    cost: float  # m


@dataclass(frozen=True)
class Way:
    """The lanes from one place to the next."""

    cost: float  # m
    lanes: tuple[tuple[str, bool], ...]  # after the first place's own: (lane, whether by a lane change)


@dataclass
class Leg:
    """Lanes side by side, and where the route changes between them; shares are of each lane's length."""

    lanes: list[str]
    start: float
    end: float = 1.0
    changes: list[float] = field(default_factory=list)

    def change(self, lanes: list[str], low: float, high: float) -> None:
        """Append changes to `lanes`, spread evenly between two shares."""
        low = max(low, *self.changes[-1:], self.start)
        high = max(high, low)
        self.changes += [low + (i + 0.5) / len(lanes) * (high - low) for i in range(len(lanes))]
        self.lanes += lanes


def plan_route(road_map: RoadMap, keypoints: Array, yaw: Array | None = None) -> Route:
    """The route through `keypoints` (K, 2 or 3), m, in CARLA's left-handed frame, with their `yaw` (K,) in degrees where known.

    The Route is right-handed, as the RoadMap: (x, -y). It starts and ends at the lane points beside the first and last keypoint. Raises
    DataError, with the number of the keypoint, where one lies off every lane, or cannot be reached from the one before.
    """
    points = np.asarray(keypoints, float)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 2 or not np.isfinite(points).all():
        raise DataError(f"a route takes at least two finite keypoints (K, 2 or 3), got an array of shape {points.shape}")
    xy = points[:, :2] * (1.0, -1.0)
    headings = None if yaw is None else -np.radians(np.asarray(yaw, float))
    places = [_places(road_map, xy[i], None if headings is None else float(headings[i]), i) for i in range(len(xy))]
    return _route(road_map, _legs(road_map, *_chain(road_map, xy, places)))


def trigger_station(route: Route, scenario: CarlaScenario) -> float | None:
    """m along the route at which a scenario triggers: the first path point within 2 m and 10 degrees of its trigger point, heights aside.

    None where there is none: the leaderboard (route_parser.py) leaves such a scenario out, a runner has to count it.
    """
    x, y, _, yaw = scenario.trigger.tolist()
    near = np.hypot(route.path[:, 0] - x, route.path[:, 1] + y) < TRIGGER_REACH
    along = np.abs(wrap_angle(route.path[:, 2] + np.radians(yaw))) < TRIGGER_TURN
    found = np.flatnonzero(near & along)
    return float(route.s[found[0]]) if len(found) else None


def junction_share(route: Route) -> float | None:
    """The share of the route (0..1 and above) at which its first junction counts as passed in Bench2Drive's test of traffic signs.

    (Number of the first point inside a junction + 8) / points, on a path of 1 m (tools/ability_benchmark.py). CARLA's own planner starts up
    to 2 m later, so that its share may differ by two points. None without a junction.
    """
    inside = np.flatnonzero(route.is_connector)
    return (int(inside[0]) + 1 + JUNCTION_ROOM) / len(route) if len(inside) else None


def _places(road_map: RoadMap, xy: Array, heading: float | None, number: int) -> list[Place]:
    """Candidates of one keypoint, the best first."""
    found: list[tuple[float, float, Place]] = []
    for lane_id in road_map.lanes_near(xy, REACH + SPACING):
        lane = road_map.lanes[lane_id]
        s, gap = _project(lane, xy)
        turn = 0.0 if heading is None else abs(float(wrap_angle(_pose(lane, s)[2] - heading)))
        if gap <= REACH:
            found.append((OFFSET_COST * gap + HEADING_COST * turn, gap, Place(lane_id, s, OFFSET_COST * gap + HEADING_COST * turn)))
    if not found:
        raise DataError(
            f"map {road_map.name}: keypoint {number} at x={xy[0]:.1f}, y={-xy[1]:.1f} is more than {REACH:g} m from every lane; "
            "the route is of another town, or of another version of this one"
        )
    nearest = min(gap for _, gap, _ in found)
    found = sorted((item for item in found if item[1] <= nearest + AMBIGUITY), key=lambda item: (item[0], item[2].lane))
    return [place for _, _, place in found[:CANDIDATES]]


def _project(lane: Lane, xy: Array) -> tuple[float, float]:
    """(arc length of the nearest point of the centreline, distance to it), m."""
    line = lane.centerline[:, :2]
    start, step = line[:-1], np.diff(line, axis=0)
    share = np.clip(((xy - start) * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0.0, 1.0)
    gap = np.hypot(*(start + share[:, None] * step - xy).T)
    best = int(np.argmin(gap))
    return float(lane.s[best] + share[best] * (lane.s[best + 1] - lane.s[best])), float(gap[best])


def _pose(lane: Lane, s: float) -> Array:
    return interpolate_poses(lane.s, lane.centerline, np.array([s]))[0]


def _chain(road_map: RoadMap, xy: Array, places: list[list[Place]]) -> tuple[list[Place], list[Way]]:
    """The cheapest chain: one candidate of each keypoint (K), and the ways between them (K - 1)."""
    costs = [place.cost for place in places[0]]
    steps: list[list[tuple[int, Way] | None]] = []  # of each later keypoint's candidates: where from, and how
    for i in range(1, len(xy)):
        distance = float(np.hypot(*(xy[i] - xy[i - 1])))
        for limit in (DETOUR * distance + MARGIN, np.inf):
            reached, came = _advance(road_map, places[i - 1], costs, places[i], limit)
            if np.isfinite(reached).any():
                break
        else:
            raise DataError(
                f"map {road_map.name}: keypoint {i} at x={xy[i, 0]:.1f}, y={-xy[i, 1]:.1f} cannot be reached from the one before; "
                "the route is of another version of this town"
            )
        costs = reached
        steps.append(came)
    at = int(np.argmin(costs))
    chain, ways = [places[-1][at]], []
    for i in range(len(steps) - 1, -1, -1):
        step = steps[i][at]
        assert step is not None  # only candidates of finite cost are on the way back
        at, way = step
        chain.append(places[i][at])
        ways.append(way)
    return chain[::-1], ways[::-1]


def _advance(
    road_map: RoadMap, before: list[Place], costs: list[float], after: list[Place], limit: float
) -> tuple[list[float], list[tuple[int, Way] | None]]:
    """Cost of each candidate in `after`, and (index in `before`, way) of the best way to it; None where there is none."""
    best: list[float] = [np.inf] * len(after)
    came: list[tuple[int, Way] | None] = [None] * len(after)
    for k, place in enumerate(before):
        for j, goal in enumerate(after):
            way = _way(road_map, place, goal, limit) if np.isfinite(costs[k]) else None
            if way is not None and costs[k] + way.cost + goal.cost < best[j]:
                best[j], came[j] = costs[k] + way.cost + goal.cost, (k, way)
    return best, came


def _way(road_map: RoadMap, start: Place, goal: Place, limit: float) -> Way | None:
    """The cheapest way between two places by A*; None where it costs more than `limit` metres.

    A lane change keeps the share of the lane, a successor is entered at 0.
    """
    lanes = road_map.lanes
    end_xy, end = _pose(lanes[goal.lane], goal.s)[:2], ("", 0.0, False)
    first: Node = (start.lane, start.s / lanes[start.lane].length, False)
    cost: dict[Node, float] = {first: 0.0}
    parent: dict[Node, Node] = {}
    done: set[Node] = set()
    queue: list[tuple[float, float, Node]] = [(0.0, 0.0, first)]
    while queue:
        bound, reached, node = heapq.heappop(queue)
        if bound > limit:
            return None
        if node == end:
            return Way(reached, _unroll(parent, end))
        if node in done:
            continue
        done.add(node)
        lane, share = lanes[node[0]], node[1]
        left = goal.s - share * lane.length
        steps: list[tuple[Node, float]] = [(end, max(left, 0.0))] if node[0] == goal.lane and left >= -BACKWARDS else []
        steps += [((k, 0.0, False), (1.0 - share) * lane.length) for k in lane.successors]
        steps += [((k, share, True), CHANGE_COST) for k in (lane.left_neighbor, lane.right_neighbor) if k]
        for other, price in steps:
            total = reached + price
            if total < cost.get(other, np.inf):
                cost[other], parent[other] = total, node
                ahead = 0.0 if other == end else float(np.hypot(*(_entry(lanes[other[0]], other[1]) - end_xy)))
                heapq.heappush(queue, (total + ahead, total, other))
    return None


def _entry(lane: Lane, share: float) -> Array:
    """(2,) the centreline point nearest to a share of the length."""
    return lane.centerline[round(share * (len(lane.centerline) - 1)), :2]


def _unroll(parent: dict[Node, Node], end: Node) -> tuple[tuple[str, bool], ...]:
    """(lane, by a change) of the nodes between the first one and the end."""
    chain, node = [], parent[end]
    while node in parent:
        chain.append((node[0], node[2]))
        node = parent[node]
    return tuple(reversed(chain))


def _legs(road_map: RoadMap, chain: list[Place], ways: list[Way]) -> list[Leg]:
    """The whole route as legs, each a successor of the one before."""
    share = chain[0].s / road_map.lanes[chain[0].lane].length
    legs = [Leg([chain[0].lane], share)]
    for way, goal in zip(ways, chain[1:]):
        aside: list[str] = []
        for lane, changed in (*way.lanes, ("", False)):
            goal_share = goal.s / road_map.lanes[goal.lane].length
            if changed:
                aside.append(lane)
                continue
            if aside:
                legs[-1].change(aside, share, 1.0 if lane else goal_share)
                aside = []
            if lane:
                legs.append(Leg([lane], 0.0))
                share = 0.0
        share = goal.s / road_map.lanes[goal.lane].length
    legs[-1].end = max(share, legs[-1].start, *legs[-1].changes[-1:])
    return legs


def _route(road_map: RoadMap, legs: list[Leg]) -> Route:
    """The Route along legs, resampled to SPACING."""
    lane_ids = tuple(lane for leg in legs for lane in leg.lanes)
    rows, index, changes, first, count = [], [], [], 0, 0
    for leg in legs:
        row, own, blends = _leg_path([road_map.lanes[k] for k in leg.lanes], leg)
        changes += [(count + a, count + b, command) for a, b, command in blends]
        rows.append(row)
        index.append(own + first)
        first, count = first + len(leg.lanes), count + len(row)
    dense = np.concatenate(rows)
    length = float(np.hypot(*np.diff(dense[:, :2], axis=0).T).sum())
    if length < SPACING:
        raise DataError(f"map {road_map.name}: the keypoints make a route of {length:.2f} m, it takes at least {SPACING:g} m")
    return resampled(road_map, lane_ids, dense, np.concatenate(index), changes)


def _leg_path(lanes: list[Lane], leg: Leg) -> tuple[Array, NDArray[np.int64], list[tuple[int, int, Command]]]:
    """Poses (n, 3) along a leg, the lane of each (n,) counted in the leg, and (first, end, command) of each blend."""
    length, extent = lanes[0].length, leg.end - leg.start
    count = max(round(extent * max(lane.length for lane in lanes) / SPACING), 1) + 1
    share = np.linspace(leg.start, leg.end, count)
    lines = [interpolate_poses(lane.s / lane.length, lane.centerline, share) for lane in lanes]
    path, own, blends = lines[0].copy(), np.zeros(count, np.int64), []
    edges = [leg.start, *((a + b) / 2.0 for a, b in zip(leg.changes, leg.changes[1:])), leg.end]
    for i, (wish, low, high) in enumerate(zip(leg.changes, edges, edges[1:])):
        room = min(max(min(wish - low, high - wish), LEAST_BLEND / 2.0 / length), (high - low) / 2.0)
        half = min(BLEND / 2.0 / length, room)
        middle = float(np.clip(wish, low + half, high - half))
        t = np.clip((share - middle) / max(2.0 * half, 1e-9) + 0.5, 0.0, 1.0)
        weight = (t**3 * (t * (6.0 * t - 15.0) + 10.0))[:, None]
        path[:, :2] += weight * (lines[i + 1][:, :2] - lines[i][:, :2])
        own += share >= middle
        inside = np.flatnonzero((t > 0.0) & (t < 1.0))
        if not len(inside):  # a leg of a few points
            inside = np.array([int(np.argmin(np.abs(share - middle)))])
        side = Command.CHANGELANELEFT if lanes[i + 1].id == lanes[i].left_neighbor else Command.CHANGELANERIGHT
        blends.append((int(inside[0]), int(inside[-1]) + 1, side))
    if blends:
        tangent = np.gradient(path[:, :2], axis=0)
        path[:, 2] = lines[-1][:, 2]
        for a, b, _ in blends:
            path[a:b, 2] = np.arctan2(tangent[a:b, 1], tangent[a:b, 0])
        before = slice(0, blends[0][0])
        path[before, 2] = lines[0][before, 2]
    return path, own, blends
