"""Where scenarios find room, as far as lanes alone tell: junctions on a route, the ways of those who cross or join it, stretches of road.

Pure geometry, right-handed, metres: what places actors on a live route and what chooses routes for them beforehand look at the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import interpolate_poses, wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.simulators.routes import Route
from drive.simulators.traffic_fleet import PLAN
from drive.simulators.traffic_graph import Graph
from drive.simulators.traffic_kernels import project_on

Array = NDArray[np.float64]
APPROACH_M = 70.0  # m before the junction at which a flow begins, where its road is as long
SHORTEST_M = 18.0  # m of approach that a flow needs
LEAVE_M = 25.0  # m behind the junction at which its cars go
OPPOSITE, ACROSS = np.radians(140.0), (np.radians(50.0), np.radians(130.0))  # between the entries of two connectors
AHEAD_M = 120.0  # m behind a trigger within which its junction must lie
ASKEW = -0.8  # cosine between the headings of two lanes of opposite directions


@dataclass(frozen=True)
class Way:
    """To, through and behind a lane."""

    lanes: tuple[int, ...]  # indices
    approach_m: float  # m to the lane
    sink_m: float  # m to where cars go


@dataclass(frozen=True)
class Ways:
    """The lanes of a map as scenarios look at them."""

    road_map: RoadMap
    graph: Graph
    index: dict[str, int]

    def pose(self, route: Route, s: float) -> Array:
        """(3,) of the route `s` m along it."""
        return interpolate_poses(route.s, route.path, np.array([s]))[0]

    def lane_at(self, route: Route, s: float) -> tuple[Lane, float] | None:
        """The route's lane `s` m along it, and how far along that lane; None beyond the route's ends."""
        if not 0.0 <= s < route.length:
            return None
        lane = self.road_map.lanes[route.lane_id(int(np.searchsorted(route.s, s)))]
        x, y, _ = self.pose(route, s)
        return lane, float(project_on(self.graph, self.index[lane.id], x, y)[0])

    def plain(self, route: Route, first: float, length: float, tries: tuple[float, ...]) -> float | None:
        """m along the route, `first` or with one of `tries` added, from which `length` m are road outside junctions; None without."""
        for extra in tries:
            at = first + extra
            inside = (route.s > at - 1.0) & (route.s < at + length + 1.0)
            if at > 0.0 and at + length < route.length - 5.0 and not route.is_connector[inside].any():
                return at
        return None

    def behind_junction(self, route: Route, s: float) -> float | None:
        """m along the route at which it leaves the first junction behind `s` m; None where there is none."""
        junction = np.flatnonzero(route.is_connector & (route.s > s) & (route.s < s + AHEAD_M))
        after = np.flatnonzero(~route.is_connector & (route.s > route.s[junction[0]])) if len(junction) else junction
        return float(route.s[after[0]]) if len(after) else None

    def crossed(self, route: Route, s: float) -> tuple[Lane, float] | None:
        """The route's first connector behind `s` m that meets others, and m along the route where it begins; None within AHEAD_M."""
        near = (route.s > s - 2.0) & (route.s < s + AHEAD_M) & route.is_connector
        for point in np.flatnonzero(near):
            lane = self.road_map.lanes[route.lane_id(int(point))]
            k = self.index[lane.id]
            if self.graph.conf_first[k + 1] > self.graph.conf_first[k]:
                return lane, float(route.s[point])
        return None

    def rivals(self, mine: Lane) -> list[Lane]:
        """Lanes that conflict with `mine`."""
        graph, k, names = self.graph, self.index[mine.id], list(self.road_map.lanes)
        return [self.road_map.lanes[names[j]] for j in graph.conf_lane[graph.conf_first[k] : graph.conf_first[k + 1]]]

    def facing(self, mine: Lane) -> list[Lane]:
        """Those that come straight on from the opposite side."""
        return [k for k in self.rivals(mine) if turn_between(mine, k) > OPPOSITE and k.turn == "straight"]

    def across(self, mine: Lane, wanted: str) -> list[Lane]:
        """Those that come from a side, first from `wanted` ("left", "right", "opposite"), those that drive straight on before others."""
        found = sorted(self.rivals(mine), key=lambda k: (side_of(mine, k) != wanted, k.turn != "straight", k.id))
        return [k for k in found if ACROSS[0] < turn_between(mine, k) < ACROSS[1] or side_of(mine, k) == wanted]

    def joined(self, route: Route, s: float) -> list[tuple[Lane, Lane, float]]:
        """(the route's lane, another that leads to the same place, m along the route behind it), and the lanes to which it changes."""
        lanes, found = self.road_map.lanes, []
        points = np.flatnonzero((route.s > s) & (route.s < s + AHEAD_M))
        for point in points[1:]:
            a, b = int(route.lane_index[point - 1]), int(route.lane_index[point])
            if a == b:
                continue
            before, here = lanes[route.lane_ids[a]], lanes[route.lane_ids[b]]
            if before.id not in here.predecessors:  # a lane change
                found.append((before, here, float(route.s[point]) + 30.0))
            others = [lanes[k] for k in here.predecessors if k != before.id and k in lanes]
            others = [k for k in others if not set(k.predecessors) & set(before.predecessors)]
            others.sort(key=lambda k: (k.turn != "straight", k.id))
            found += [(before, k, float(route.s[point]) + 20.0) for k in others]
        return found

    def through(self, lane: Lane) -> Way | None:
        """The way to, through and behind `lane`; None where the approach is shorter than SHORTEST_M."""
        lanes, ids = self.road_map.lanes, self._approach(lane)
        length = sum(lanes[k].length for k in ids)
        after = [k for k in lane.successors if k in lanes]
        if length < SHORTEST_M or not after:
            return None
        ids += [lane.id, after[0], *[k for k in lanes[after[0]].successors if k in lanes][:1]]
        return Way(tuple(self.index[k] for k in ids[:PLAN]), length, length + lane.length + LEAVE_M)

    def _approach(self, lane: Lane) -> list[str]:
        """Lanes that lead to `lane`, first one first, of APPROACH_M together or as far as the junction before."""
        lanes, ids, reached, at = self.road_map.lanes, [], 0.0, lane
        while reached < APPROACH_M and len(ids) < PLAN - 4:
            before = [lanes[k] for k in at.predecessors if k in lanes and k not in ids and k != lane.id]
            before = [k for k in before if not k.is_connector]
            if not before:
                break
            at = max(before, key=lambda k: (k.length, k.id))
            ids.insert(0, at.id)
            reached += at.length
        return ids

    def oncoming(self, route: Route, s: float) -> tuple[Lane, float] | None:
        """The lane of the other direction left of the route's at `s` m, and how far along it that is; None where there is none beside it."""
        found = self.lane_at(route, s)
        if found is None:
            return None
        width = 2.0 * lane_half(found[0])
        x, y, heading = self.pose(route, s).tolist()
        x, y, graph = x - np.sin(heading) * width, y + np.cos(heading) * width, self.graph
        gap = np.hypot(graph.x - x, graph.y - y)
        against = graph.cos * np.cos(heading) + graph.sin * np.sin(heading) < ASKEW
        at = int(np.argmin(np.where(against, gap, np.inf)))
        if not against[at] or gap[at] > width / 2.0:
            return None
        k = int(np.searchsorted(graph.first, at, side="right")) - 1
        lane = self.road_map.lanes[list(self.road_map.lanes)[k]]
        return None if lane.is_connector else (lane, float((at - graph.first[k]) * graph.gap[k]))


def lane_half(lane: Lane) -> float:
    """m, half of a lane's width."""
    return float(np.hypot(*(lane.left - lane.right).T).mean()) / 2.0


def turn_between(a: Lane, b: Lane) -> float:
    """rad between the headings at which two connectors begin."""
    return abs(float(wrap_angle(b.centerline[0, 2] - a.centerline[0, 2])))


def side_of(a: Lane, b: Lane) -> str:
    """Where who takes `b` comes from, as seen by who takes `a`: "left", "right" or "opposite"."""
    turn = float(wrap_angle(b.centerline[0, 2] - a.centerline[0, 2]))
    return "opposite" if abs(turn) > OPPOSITE else "right" if turn > 0.0 else "left"
