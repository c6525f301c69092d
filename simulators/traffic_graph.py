"""The lane graph that the traffic kernels read: a RoadMap flattened to arrays, with the conflicts between its lanes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.errors import DataError
from drive.core.roadmap import Lane, RoadMap

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

SPACING = 1.0  # m between the resampled points of a lane
LATERAL_ACCELERATION = 2.5  # m/s^2, what the curve speed allows
CLEARANCE = 2.7  # m between two centrelines below which their vehicles would touch
SHORT_LANE = 60.0  # m: a shorter conflicting connector is entered only when granted, a longer one up to its conflict zone
STOP_SHORT = 6.0  # m from the stop line to the conflict zone on a long lane
TURN_RANK = {"straight": 0, "": 0, "right": 1, "left": 2}


class Graph(NamedTuple):
    """L lanes, P points, C directed conflicts. Lane k has the points first[k]:first[k + 1], `gap[k]` metres apart."""

    first: Ints  # (L + 1,)
    gap: Array  # (L,) m
    length: Array  # (L,) m
    x: Array  # (P,) world, m
    y: Array  # (P,)
    cos: Array  # (P,) of the heading
    sin: Array  # (P,)
    speed: Array  # (P,) m/s that limit and curvature allow
    succ_first: Ints  # (L + 1,)
    succ: Ints  # (S,) successors
    left: Ints  # (L,) neighbour or -1
    right: Ints  # (L,)
    connector: NDArray[np.bool_]  # (L,)
    rank: Ints  # (L,) 0 straight, 1 right, 2 left
    alive: NDArray[np.bool_]  # (L,) an endless drive starts here
    stop: Array  # (L,) m along the lane of its stop line; infinity where nothing conflicts
    conf_first: Ints  # (L + 1,)
    conf_lane: Ints  # (C,) the other lane
    conf_other_out: Array  # (C,) m along the other lane at which its conflict zone ends
    closed: NDArray[np.bool_]  # (L,) a light forbids to enter the lane now


def build_graph(road_map: RoadMap) -> tuple[Graph, dict[str, int]]:
    """The arrays of `road_map`, and the index of each lane id. Raises DataError on a map without lanes."""
    ids = list(road_map.lanes)
    if not ids:
        raise DataError(f"map {road_map.name} has no lanes, so no traffic can drive on it")
    index = {lane_id: i for i, lane_id in enumerate(ids)}
    lanes = [road_map.lanes[k] for k in ids]
    sampled = [_resample(lane) for lane in lanes]
    first = np.concatenate([[0], np.cumsum([len(p) for p, _ in sampled])]).astype(np.int64)
    points = np.concatenate([p for p, _ in sampled])
    length = np.array([max(lane.length, 0.1) for lane in lanes])
    succ = [[index[k] for k in lane.successors if k in index] for lane in lanes]
    neighbours = [
        [index.get(name, -1) for lane in lanes for name in [getattr(lane, side)]] for side in ("left_neighbor", "right_neighbor")
    ]
    left, right = (np.array(n, np.int64) for n in neighbours)
    conf_first, conf_lane, conf_out, stop = _conflicts(lanes, succ, [p for p, _ in sampled])
    graph = Graph(
        first=first,
        gap=length / (np.diff(first) - 1),
        length=length,
        x=points[:, 0].copy(),
        y=points[:, 1].copy(),
        cos=np.cos(points[:, 2]),
        sin=np.sin(points[:, 2]),
        speed=np.concatenate([speed for _, speed in sampled]),
        succ_first=np.concatenate([[0], np.cumsum([len(s) for s in succ])]).astype(np.int64),
        succ=np.array([k for s in succ for k in s], np.int64),
        left=left,
        right=right,
        connector=np.array([lane.is_connector for lane in lanes]),
        rank=np.array([TURN_RANK.get(lane.turn, 0) for lane in lanes], np.int64),
        alive=_alive(succ, left, right),
        stop=stop,
        conf_first=conf_first,
        conf_lane=conf_lane,
        conf_other_out=conf_out,
        closed=np.zeros(len(lanes), bool),
    )
    return graph, index


def with_signals(graph: Graph, lanes: Ints) -> Graph:
    """The graph for lights that rule `lanes` (K,): a stop line where each begins, and a `closed` of its own, all open."""
    stop = graph.stop.copy()
    stop[lanes] = 0.0
    return graph._replace(stop=stop, closed=np.zeros(len(graph.length), bool))


def _resample(lane: Lane) -> tuple[Array, Array]:
    """Points (N, 3) evenly along the lane, at least two, and the speed (N,) that limit and curvature allow."""
    length = max(lane.length, 0.1)
    n = max(2, round(length / SPACING) + 1)
    s = np.linspace(0.0, lane.length, n)
    heading = np.unwrap(lane.centerline[:, 2])
    points = np.column_stack(
        [np.interp(s, lane.s, lane.centerline[:, 0]), np.interp(s, lane.s, lane.centerline[:, 1]), np.interp(s, lane.s, heading)]
    )
    if n < 6:  # too short to tell curvature from the noise of its points
        return points, np.full(n, lane.speed_limit)
    # headings over 4 m, so that one rough point does not stop the traffic
    reach = max(1, round(2.0 / (length / (n - 1))))
    before, after = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach, n - 1)
    curvature = np.abs(points[after, 2] - points[before, 2]) / np.maximum(s[after] - s[before], 1e-6)
    return points, np.minimum(lane.speed_limit, np.sqrt(LATERAL_ACCELERATION / np.maximum(curvature, 1e-4)))


def _alive(succ: list[list[int]], left: Ints, right: Ints) -> NDArray[np.bool_]:
    """(L,) lanes from which a drive never has to end; all of them where the map has no loop at all."""
    alive = np.ones(len(succ), bool)
    while True:
        keep = np.array([any(alive[k] for k in s) for s in succ])
        beside = np.where(left >= 0, keep[left], False) | np.where(right >= 0, keep[right], False)
        after = alive & (keep | beside)
        if (after == alive).all():
            break
        alive = after
    return alive if alive.any() else np.ones(len(succ), bool)


def _conflicts(lanes: list[Lane], succ: list[list[int]], points: list[Array]) -> tuple[Ints, Ints, Array, Array]:
    """CSR rows of the lanes that conflict with each lane, the end of the zone on the other lane, and the stop lines (L,)."""
    starts_from: dict[int, set[int]] = {k: set() for k in range(len(lanes))}
    for a, followers in enumerate(succ):
        for b in followers:
            starts_from[b].add(a)
    found: dict[int, list[tuple[int, float, float]]] = {k: [] for k in range(len(lanes))}
    for a, b in _candidate_pairs(lanes, succ, points):
        if starts_from[a] & starts_from[b]:
            continue  # they leave one lane: the one behind sees the one ahead
        zone = _zone(points[a], points[b], lanes[a].length, lanes[b].length)
        if zone is not None:
            (a_in, a_out), (b_in, b_out) = zone
            found[a].append((b, a_in, b_out))
            found[b].append((a, b_in, a_out))
    stop = np.full(len(lanes), np.inf)
    for k, rows in found.items():
        if rows:
            stop[k] = (
                0.0 if lanes[k].length <= SHORT_LANE and lanes[k].is_connector else max(min(r[1] for r in rows) - STOP_SHORT, 0.0)
            )
    rows = [row for k in range(len(lanes)) for row in found[k]]
    conf_first = np.concatenate([[0], np.cumsum([len(found[k]) for k in range(len(lanes))])]).astype(np.int64)
    return conf_first, np.array([r[0] for r in rows], np.int64), np.array([r[2] for r in rows], float), stop


def _candidate_pairs(lanes: list[Lane], succ: list[list[int]], points: list[Array]) -> list[tuple[int, int]]:
    """Pairs a < b that may conflict: connectors whose boxes meet, and lanes of any kind that end in one successor."""
    pairs: set[tuple[int, int]] = set()
    into: dict[int, list[int]] = {}
    for a, followers in enumerate(succ):
        for b in followers:
            into.setdefault(b, []).append(a)
    for merging in into.values():
        pairs.update((min(a, b), max(a, b)) for a in merging for b in merging if a != b)
    connectors = [k for k, lane in enumerate(lanes) if lane.is_connector]
    low = np.array([points[k][:, :2].min(0) - CLEARANCE for k in connectors]).reshape(-1, 2)
    high = np.array([points[k][:, :2].max(0) + CLEARANCE for k in connectors]).reshape(-1, 2)
    for i, a in enumerate(connectors):
        meets = (low[i] <= high[i + 1 :]).all(1) & (high[i] >= low[i + 1 :]).all(1)
        for j in np.flatnonzero(meets) + i + 1:
            b = connectors[j]
            pairs.add((min(a, b), max(a, b)))
    return sorted(pairs)


def _zone(a: Array, b: Array, length_a: float, length_b: float) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Stretches (in, out) of `a` and of `b`, in m along each, where the two come closer than CLEARANCE; None if never."""
    near_a = np.flatnonzero(KDTree(b[:, :2]).query(a[:, :2])[0] < CLEARANCE)
    near_b = np.flatnonzero(KDTree(a[:, :2]).query(b[:, :2])[0] < CLEARANCE)
    if not len(near_a) or not len(near_b):
        return None
    step_a, step_b = length_a / (len(a) - 1), length_b / (len(b) - 1)
    return (near_a[0] * step_a, near_a[-1] * step_a), (near_b[0] * step_b, near_b[-1] * step_b)
