"""Traffic: vehicles that follow lanes, each other and the rules of a junction, and that react to the ego.

A world step is one call of a compiled kernel; this class adds, places and reads vehicles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.seeds import stream
from drive.core.types import AgentType, Tracks
from drive.simulators.traffic_fleet import DRIVEN, EXTERNAL, NO_LANE, PLAN, Fleet, new_fleet
from drive.simulators.traffic_graph import Graph, build_graph
from drive.simulators.traffic_kernels import overlapping_pairs, step_fleet
from drive.simulators.traffic_path import extend_plan, place, point_on, speed_on

Array = NDArray[np.float64]
HEIGHT = 1.6  # m, of every vehicle
SPAWN_GAP = 7.0  # m between the boxes of two vehicles at their start, plus SPAWN_TIME of driving
SPAWN_TIME = 1.2  # s
LINE_ROOM, START_BRAKE = 5.0, 1.5  # m before the end of a lane, m/s^2 with which a vehicle can still stop there at its start
DT = 0.1  # s of a step


class Traffic:
    """Up to `capacity` vehicles on one map; the state is `fleet`, the road `graph`."""

    def __init__(
        self, road_map: RoadMap, seed: int, capacity: int = 24, graph: tuple[Graph, dict[str, int]] | None = None
    ) -> None:
        self.road_map = road_map
        self.graph, self.lane_index = graph or build_graph(road_map)
        self.lane_ids = list(road_map.lanes)
        self.fleet: Fleet = new_fleet(capacity)
        self.count = 0
        self.tick = 0
        self._seed = seed

    def add(
        self,
        lane: int,
        s: float,
        speed: float,
        *,
        mode: int = DRIVEN,
        size: tuple[float, float] = (4.6, 1.9),
        offset: float = 0.0,
    ) -> int:
        """Add a vehicle whose centre is `s` metres along lane index `lane` (`offset` to its left if parked); its index.

        Raises DataError when the traffic is full.
        """
        i, fleet = self.count, self.fleet
        if i >= len(fleet.x):
            raise DataError(
                f"the traffic of map {self.road_map.name} holds at most {len(fleet.x)} vehicles: ask for a larger capacity"
            )
        self.count += 1
        fleet.mode[i], fleet.active[i], fleet.speed[i] = mode, True, speed
        fleet.length[i], fleet.width[i] = size
        fleet.plan[i] = NO_LANE
        fleet.plan[i, 0], fleet.s[i], fleet.offset[i] = lane, s, offset
        fleet.random[i] = np.uint64(stream(self._seed, "vehicle", i))
        extend_plan(self.graph, fleet, i)
        place(self.graph, fleet, i)
        return i

    def move(self, i: int, lane: int, s: float, speed: float) -> None:
        """Begin anew with vehicle i at another place; its size, mode and manner of driving stay."""
        fleet = self.fleet
        fresh, kept = new_fleet(1), {"mode", "length", "width", "eager", "headway", "push", "brake", "random"}
        for name in set(Fleet._fields) - kept:
            getattr(fleet, name)[i] = getattr(fresh, name)[0]
        fleet.active[i], fleet.speed[i], fleet.s[i], fleet.plan[i, 0] = True, speed, s, lane
        extend_plan(self.graph, fleet, i)
        place(self.graph, fleet, i)

    def set_plan(self, i: int, lanes: list[int]) -> None:
        """Send vehicle i along `lanes` (the current one first), and at random after them."""
        self.fleet.plan[i] = NO_LANE
        known = lanes[:PLAN]
        self.fleet.plan[i, : len(known)] = known
        if self.fleet.mode[i] != EXTERNAL:
            extend_plan(self.graph, self.fleet, i)

    def set_character(self, i: int, rng: np.random.Generator) -> None:
        """Give vehicle i a size and a manner of driving."""
        fleet = self.fleet
        fleet.length[i], fleet.width[i] = rng.uniform(4.1, 5.1), rng.uniform(1.75, 2.0)
        fleet.eager[i], fleet.headway[i] = rng.uniform(0.8, 1.05), rng.uniform(1.0, 1.8)
        fleet.push[i], fleet.brake[i] = rng.uniform(1.2, 2.0), rng.uniform(1.8, 2.5)

    def populate(self, n: int, rng: np.random.Generator, center: Array | None = None, radius: float = np.inf) -> int:
        """Add up to n vehicles at random on lanes within `radius` metres of `center` (2,); how many found room."""
        graph = self.graph
        lanes = np.flatnonzero(~graph.connector & graph.alive & (graph.length > 12.0))
        owner = np.repeat(np.arange(len(graph.length)), np.diff(graph.first))
        spots = np.flatnonzero(np.isin(owner, lanes))
        if center is not None:
            spots = spots[np.hypot(graph.x[spots] - center[0], graph.y[spots] - center[1]) < radius]
        added = 0
        for spot in rng.permutation(spots):
            if added == n or self.count == len(self.fleet.x):
                break
            lane = int(owner[spot])
            s = float((spot - graph.first[lane]) * graph.gap[lane])
            room = float(graph.length[lane]) - s - LINE_ROOM  # it must be able to stop where the next junction begins
            if room < 0.0:
                continue
            speed = min(rng.uniform(0.5, 0.9) * float(speed_on(graph, lane, s)), np.sqrt(2.0 * START_BRAKE * room))
            if self.is_free(lane, s, speed):
                self.set_character(self.add(lane, s, speed), rng)
                added += 1
        return added

    def is_free(self, lane: int, s: float, speed: float) -> bool:
        """Whether a vehicle may start at this place: nobody is near along the way, ahead or behind."""
        fleet, n = self.fleet, self.count
        x, y, c, d = point_on(self.graph, lane, s)
        dx, dy = fleet.x[:n] - x, fleet.y[:n] - y
        along, across = np.abs(c * dx + d * dy), np.abs(-d * dx + c * dy)
        aligned = c * np.cos(fleet.heading[:n]) + d * np.sin(fleet.heading[:n]) > -0.5
        room = SPAWN_GAP + 5.0 + SPAWN_TIME * np.maximum(fleet.speed[:n], speed)
        near = (along < room) & (across < np.where(aligned, 2.6, 2.2)) | (np.hypot(dx, dy) < 5.5) & (across < 2.6)
        return not bool((near & fleet.active[:n]).any())

    def step(self, dt: float = DT) -> None:
        """Advance by `dt` s, the same for every step; EXTERNAL vehicles stay where their owners put them."""
        step_fleet(self.graph, self.fleet, self.tick, dt)
        self.tick += 1

    def boxes(self) -> Array:
        """(N, 5) centre x, y, heading, length, width of the vehicles added so far."""
        f, n = self.fleet, self.count
        return np.column_stack([f.x[:n], f.y[:n], f.heading[:n], f.length[:n], f.width[:n]])

    def overlaps(self) -> NDArray[np.int64]:
        """(K, 2) index pairs of active vehicles whose boxes overlap."""
        index = np.flatnonzero(self.fleet.active[: self.count])
        return index[overlapping_pairs(self.boxes()[index])]

    def snapshot(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """poses (N, 3), velocity (N, 2) in the world frame, active (N,) of the vehicles added so far."""
        f, n = self.fleet, self.count
        poses = np.column_stack([f.x[:n], f.y[:n], (f.heading[:n] + np.pi) % (2 * np.pi) - np.pi])
        velocity = f.speed[:n, None] * np.column_stack([np.cos(f.course[:n]), np.sin(f.course[:n])])
        return poses, velocity, f.active[:n].copy()

    def tracks(self, snapshots: list[tuple[Array, Array, NDArray[np.bool_]]], start: int = 0) -> Tracks:
        """Tracks over S snapshots of the vehicles from index `start` on (1 leaves an ego at 0 out)."""
        n = self.count - start
        poses = np.stack([p[start:] for p, _, _ in snapshots], axis=1)
        velocity = np.stack([v[start:] for _, v, _ in snapshots], axis=1)
        valid = np.stack([a[start:] for _, _, a in snapshots], axis=1)
        size = np.column_stack([self.fleet.length, self.fleet.width, np.full(len(self.fleet.x), HEIGHT)])[start : self.count]
        return Tracks(
            ids=tuple(f"vehicle-{i}" for i in range(start, self.count)),
            types=np.full(n, int(AgentType.VEHICLE), np.int64),
            size=size,
            poses_world=np.where(valid[..., None], poses, 0.0),
            velocity_world=np.where(valid[..., None], velocity, 0.0),
            valid=valid,
        )
