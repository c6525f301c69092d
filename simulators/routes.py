"""Routes through a RoadMap: lanes, a smooth path along them, and the commands that a navigator would speak.

Commands come from the route alone, never from a driven future: LEFT, RIGHT or STRAIGHT from ANNOUNCE metres before a junction's
connector until its end, CHANGELANELEFT or CHANGELANERIGHT around a lane change of the route, LANEFOLLOW otherwise.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses, points_to_frame, wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.core.types import Command

Array = NDArray[np.float64]
COMMANDS = tuple(Command)  # Route.command holds indices into it
TURN_COMMANDS = {"left": Command.LEFT, "right": Command.RIGHT, "straight": Command.STRAIGHT}
SPACING = 1.0  # m between path points
ANNOUNCE = 40.0  # m before a connector from which its command is given
BLEND = 30.0  # m of path that a lane change takes, where the lane is long enough
BLEND_ANNOUNCE = 20.0  # m before the blend
FORK_SIDE = 1.5  # m to the side from which a fork without turn is told as a lane change
CHANGE_CHANCE = 0.25  # of a random route to change lanes on a lane long enough
CHANGE_ROOM = 60.0  # m of lane that a random lane change wants
CHANGE_COST = 30.0  # m of detour that a lane change is worth to the shortest route


@dataclass(frozen=True)
class Route:
    """A path through lanes, with what is in force at each of its N points."""

    lane_ids: tuple[str, ...]  # in driving order; a lane change stands as two neighbours in a row
    path: Array  # (N, 3) x, y, heading in the world, SPACING apart
    speed_limit: Array  # (N,) m/s
    command: NDArray[np.int8]  # (N,) index into COMMANDS
    lane_index: NDArray[np.int64]  # (N,) index into lane_ids
    is_connector: NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.path)

    @cached_property
    def s(self) -> Array:
        """(N,) arc length along the path, m, starting at 0."""
        return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.path[:, :2], axis=0).T))])

    @property
    def length(self) -> float:
        """m"""
        return float(self.s[-1])

    def lane_id(self, point: int) -> str:
        """The lane in force at path point `point`."""
        return self.lane_ids[self.lane_index[point]]


def sample_route(road_map: RoadMap, rng: np.random.Generator, length_m: float, start_lane: str | None = None) -> Route:
    """A random walk of `length_m` metres through the lane graph, from the start of `start_lane` or from a random place.

    Changes lanes now and then where two run side by side, and where a lane ends; never enters a lane with only dead ends ahead.
    Raises DataError where every way, or the start lane, leads only to dead ends.
    """
    onward, skip = _endless_lanes(road_map), 0.0
    if start_lane is None:
        starts = [k for k in onward if not road_map.lanes[k].is_connector]
        if not starts:
            raise DataError(f"map {road_map.name} has no lane from which one can drive on for ever")
        weight = np.array([road_map.lanes[k].length for k in starts])
        start_lane = starts[int(rng.choice(len(starts), p=weight / weight.sum()))]
        skip = float(rng.uniform(0.0, road_map.lanes[start_lane].length))
    elif start_lane not in onward:
        raise DataError(f"map {road_map.name} has no lane {start_lane!r}, or it leads only to dead ends")
    ids, covered, changed = [start_lane], 0.0, False
    while covered + road_map.lanes[ids[-1]].length < skip + length_m:
        lane = road_map.lanes[ids[-1]]
        beside = [k for k in (lane.left_neighbor, lane.right_neighbor) if onward.get(k)]
        wish = not changed and lane.length >= CHANGE_ROOM and rng.random() < CHANGE_CHANCE
        changed = bool(beside) and (wish or not onward[lane.id])
        if changed:
            ids.append(beside[int(rng.integers(len(beside)))])
        else:
            covered += lane.length
            ids.append(onward[lane.id][int(rng.integers(len(onward[lane.id])))])
    return _cut(route_along(road_map, tuple(ids)), skip, skip + length_m)


def shortest_route(road_map: RoadMap, start_lane: str, goal_lane: str) -> Route:
    """The shortest route from the start of one lane to the end of another (Dijkstra; a lane change costs CHANGE_COST metres).

    Raises DataError where a lane is unknown or the goal cannot be reached.
    """
    for lane_id in (start_lane, goal_lane):
        if lane_id not in road_map.lanes:
            raise DataError(f"map {road_map.name} has no lane {lane_id!r}")
    cost, parent, queue = {start_lane: 0.0}, {start_lane: ""}, [(0.0, start_lane)]
    done: set[str] = set()
    while queue:
        reached, lane_id = heapq.heappop(queue)
        if lane_id in done:
            continue
        done.add(lane_id)
        if lane_id == goal_lane:
            break
        lane = road_map.lanes[lane_id]
        steps = [(k, lane.length) for k in lane.successors]
        steps += [
            (k, CHANGE_COST * (1.0 + BLEND / max(lane.length, 1.0))) for k in (lane.left_neighbor, lane.right_neighbor) if k
        ]
        for other, price in steps:
            if reached + price < cost.get(other, np.inf):
                cost[other], parent[other] = reached + price, lane_id
                heapq.heappush(queue, (reached + price, other))
    if goal_lane not in done:
        raise DataError(f"map {road_map.name}: lane {goal_lane} cannot be reached from lane {start_lane}")
    ids = [goal_lane]
    while parent[ids[-1]]:
        ids.append(parent[ids[-1]])
    return route_along(road_map, tuple(reversed(ids)))


def route_along(road_map: RoadMap, lane_ids: tuple[str, ...]) -> Route:
    """The route through the given lanes, each a successor or a neighbour of the one before. Raises DataError elsewhere."""
    legs = _legs(road_map, lane_ids)
    rows, index, changes = [], [], []  # rows (n, 3); changes: (first row, end row, command)
    at = 0
    for first, leg in legs:
        row, own, blends = _leg_path([road_map.lanes[k] for k in leg])
        changes += [(at + a, at + b, c) for a, b, c in blends]
        rows.append(row)
        index.append(own + first)
        at += len(row)
    return resampled(road_map, lane_ids, np.concatenate(rows), np.concatenate(index), changes)


def resampled(
    road_map: RoadMap, lane_ids: tuple[str, ...], dense: Array, owner: NDArray[np.int64], changes: list[tuple[int, int, Command]]
) -> Route:
    """The Route along poses `dense` (n, 3), SPACING apart; `owner` (n,) index into `lane_ids`, `changes` (first row, end row, command)."""
    keep = np.concatenate([[True], np.hypot(*np.diff(dense[:, :2], axis=0).T) > 1e-3])  # seams repeat a point
    s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(dense[:, :2], axis=0).T))])
    grid = np.linspace(0.0, s[-1], max(round(s[-1] / SPACING), 1) + 1)
    path = interpolate_poses(s[keep], dense[keep], grid)
    lane_index = owner[np.clip(np.searchsorted(s, grid, side="right") - 1, 0, len(s) - 1)]
    lanes = [road_map.lanes[k] for k in lane_ids]
    command = _commands(road_map, lanes, lane_index, [(float(s[a]), float(s[b - 1]), c) for a, b, c in changes], grid)
    limit, connector = np.array([lane.speed_limit for lane in lanes]), np.array([lane.is_connector for lane in lanes])
    return Route(lane_ids, path, limit[lane_index], command, lane_index, connector[lane_index])


def nearest_index(route: Route, pose, hint: int | None = None) -> int:
    """The path point closest to `pose` (3,) in position and heading (1 rad counts as 5 m).

    A route may pass one place twice: `hint`, the last known index, limits the search to 20 points behind and 100 ahead of it.
    """
    low, high = (0, len(route)) if hint is None else (max(hint - 20, 0), min(hint + 101, len(route)))
    part = route.path[low:high]
    gap = np.hypot(part[:, 0] - pose[0], part[:, 1] - pose[1]) + 5.0 * np.abs(wrap_angle(part[:, 2] - pose[2]))
    return low + int(np.argmin(gap))


def command_at(route: Route, pose, hint: int | None = None) -> Command:
    """The command in force at `pose` (3,); `hint` as in `nearest_index`."""
    return COMMANDS[route.command[nearest_index(route, pose, hint)]]


def route_window(route: Route, pose, back_m: float, ahead_m: float, hint: int | None = None) -> Route:
    """The part of the route from `back_m` metres behind `pose` (3,) to `ahead_m` ahead of it; `hint` as in `nearest_index`."""
    at = route.s[nearest_index(route, pose, hint)]
    return _cut(route, at - back_m, at + ahead_m)


def _cut(route: Route, low: float, high: float) -> Route:
    """The points from arc length `low` to `high`, at least two."""
    first = min(int(np.searchsorted(route.s, low - 1e-6)), max(len(route) - 2, 0))
    last = max(int(np.searchsorted(route.s, high + 1e-6, side="right")), first + 2)
    owner = route.lane_index[first:last]
    return replace(
        route,
        lane_ids=route.lane_ids[owner[0] : owner[-1] + 1],
        path=route.path[first:last],
        speed_limit=route.speed_limit[first:last],
        command=route.command[first:last],
        lane_index=owner - owner[0],
        is_connector=route.is_connector[first:last],
    )


def _endless_lanes(road_map: RoadMap) -> dict[str, list[str]]:
    """Lanes from which one can drive on for ever, with the successors of which that is true.

    A lane without such a successor is kept only if a neighbour has one: two dead lanes side by side would keep each other alive.
    """
    onward = {k: list(lane.successors) for k, lane in road_map.lanes.items()}
    while True:
        kept = {}
        for k, following in onward.items():
            lane = road_map.lanes[k]
            if following or onward.get(lane.left_neighbor) or onward.get(lane.right_neighbor):
                kept[k] = [n for n in following if n in onward]
        if kept == onward:
            return onward
        onward = kept


def _legs(road_map: RoadMap, lane_ids: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """(index of its first lane, lanes) of each stretch; lanes of one stretch lie side by side."""
    if not lane_ids:
        raise DataError("a route takes at least one lane")
    legs: list[tuple[int, list[str]]] = []
    for i, lane_id in enumerate(lane_ids):
        if lane_id not in road_map.lanes:
            raise DataError(f"map {road_map.name} has no lane {lane_id!r}")
        before = road_map.lanes[lane_ids[i - 1]] if i else None
        if before is None or lane_id in before.successors:
            legs.append((i, [lane_id]))
        elif lane_id in (before.left_neighbor, before.right_neighbor):
            legs[-1][1].append(lane_id)
        else:
            raise DataError(f"map {road_map.name}: lane {lane_id} neither follows lane {before.id} nor lies beside it")
    return legs


def _leg_path(lanes: list[Lane]) -> tuple[Array, NDArray[np.int64], list[tuple[int, int, Command]]]:
    """Poses (n, 3) through lanes side by side, the lane of each (n,), and (first, end, command) of each blend.

    Neighbours are walked by the same share of their length; each change is a smooth step over BLEND metres, or over the lane's
    share of the change where that is shorter.
    """
    if len(lanes) == 1:
        return lanes[0].centerline, np.zeros(len(lanes[0].centerline), np.int64), []
    count = max(len(lane.centerline) for lane in lanes)
    share = np.linspace(0.0, 1.0, count)
    lines = [interpolate_poses(lane.s / lane.length, lane.centerline, share) for lane in lanes]
    changes, length = len(lanes) - 1, lanes[0].length
    width = min(BLEND / length, 0.9 / changes)
    path, own, blends = lines[0][:, :2].copy(), np.zeros(count, np.int64), []
    for i in range(changes):
        middle = (i + 0.5) / changes
        t = np.clip((share - middle) / width + 0.5, 0.0, 1.0)
        weight = (t**3 * (t * (6.0 * t - 15.0) + 10.0))[:, None]
        path += weight * (lines[i + 1][:, :2] - lines[i][:, :2])
        own += share >= middle
        inside = np.flatnonzero((t > 0.0) & (t < 1.0))
        if not len(inside):  # a lane of a few points
            inside = np.array([int(np.argmin(np.abs(share - middle)))])
        side = Command.CHANGELANELEFT if lanes[i + 1].id == lanes[i].left_neighbor else Command.CHANGELANERIGHT
        blends.append((int(inside[0]), int(inside[-1]) + 1, side))
    tangent = np.gradient(path, axis=0)
    heading = np.where(_any_blend(count, blends), np.arctan2(tangent[:, 1], tangent[:, 0]), lines[-1][:, 2])
    return np.column_stack([path, heading]), own, blends


def _any_blend(count: int, blends: list[tuple[int, int, Command]]) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    for first, end, _ in blends:
        mask[first:end] = True
    return mask


def _commands(
    road_map: RoadMap, lanes: list[Lane], lane_index, changes: list[tuple[float, float, Command]], s: Array
) -> NDArray[np.int8]:
    """(N,) command indices; later junctions are written first, so that the nearest one speaks."""
    command = np.full(len(s), COMMANDS.index(Command.LANEFOLLOW), np.int8)
    for i in range(len(lanes) - 1, -1, -1):
        own = np.flatnonzero(lane_index == i)
        if lanes[i].is_connector and len(own):
            word = _connector_command(road_map, lanes[i], lanes[i - 1] if i else None)
            command[(s >= s[own[0]] - ANNOUNCE) & (s <= s[own[-1]])] = COMMANDS.index(word)
    for start, end, word in changes:
        command[(s >= start - BLEND_ANNOUNCE) & (s <= end)] = COMMANDS.index(word)
    return command


def _connector_command(road_map: RoadMap, connector: Lane, before: Lane | None) -> Command:
    """The turn; where a lane forks into connectors of the same turn, the side to keep to, told as a lane change."""
    rivals = [road_map.lanes[k] for k in before.successors if k != connector.id] if before else []
    rivals = [r for r in rivals if r.is_connector and r.turn == connector.turn]
    if before and rivals:
        frame = before.centerline[-1]
        end = points_to_frame(frame, connector.centerline[-1, :2])
        offsets = [float(end[1] - points_to_frame(frame, r.centerline[-1, :2])[1]) for r in rivals]
        if min(offsets) > FORK_SIDE and abs(end[1]) > FORK_SIDE:
            return Command.CHANGELANELEFT
        if max(offsets) < -FORK_SIDE and abs(end[1]) > FORK_SIDE:
            return Command.CHANGELANERIGHT
    return TURN_COMMANDS[connector.turn]
