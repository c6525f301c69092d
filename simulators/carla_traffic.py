"""What surrounds the ego in a CARLA world: cars that drive with drive's own traffic, walkers, and the scenarios of a route.

Pure client side: the cars are actors without physics that are put in their places, one batch a tick, so that it works against
Unreal and against our own server alike. Everything follows from the seed and from what the ego does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import ConfigError
from drive.core.geometry import compose
from drive.core.roadmap import RoadMap
from drive.core.seeds import numpy_rng, stream
from drive.core.vehicle import VehicleParams
from drive.simulators.carla_session import Session
from drive.simulators.carla_traffic_actors import Heights, Mirror, VehicleKind, measure_kinds
from drive.simulators.carla_traffic_lights import TrafficLights
from drive.simulators.carla_walkers import Walkers
from drive.simulators.routes import Route
from drive.simulators.traffic import LINE_ROOM, START_BRAKE, Traffic
from drive.simulators.traffic_fleet import EXTERNAL, PARKED
from drive.simulators.traffic_graph import Graph, build_graph, with_signals
from drive.simulators.traffic_kernels import project_on
from drive.simulators.traffic_path import speed_on

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
SPARE = 32  # rows for the actors of scenarios
TRIES = 40  # places looked at for one car
RENEW_S = 1.0  # s between two looks for cars that are too far away
EGO_ROOM = 20.0  # m round the ego in which nobody starts


@dataclass(frozen=True)
class TrafficSettings:
    """How much there is, and where."""

    vehicles: int = 20
    walkers: int = 0
    radius_m: float = 150.0  # around the ego; who is further away is brought back in
    hidden_m: float = 90.0  # from the ego: where they come back in

    def __post_init__(self) -> None:
        if self.vehicles < 0 or self.walkers < 0 or not 0.0 < self.hidden_m < self.radius_m:
            raise ConfigError(
                f"traffic of {self.vehicles} vehicles and {self.walkers} walkers, hidden beyond {self.hidden_m:g} m, within "
                f"{self.radius_m:g} m: counts are at least 0, and 0 < hidden_m < radius_m"
            )


@dataclass(frozen=True)
class EgoView:
    """The ego at one tick, right-handed."""

    state: Array  # (11,) as in drive.core.vehicle, of the rear axle
    vehicle: VehicleParams
    route: Route
    route_index: int  # nearest point of the route

    @property
    def route_s(self) -> float:
        """m along the route."""
        return float(self.route.s[self.route_index])


class Script(Protocol):
    """Moves actors of its own among the traffic."""

    def start(self, traffic: CarlaTraffic, ego: EgoView) -> None:
        """Once, before the first tick."""
        ...

    def before_step(self, ego: EgoView) -> list[Any]:
        """Commands, before the traffic makes its step."""
        ...

    def after_step(self, ego: EgoView) -> list[Any]:
        """Commands, after it."""
        ...

    def close(self) -> list[Any]:
        """The commands that take its actors away."""
        ...


@lru_cache(maxsize=4)
def _map_graph(road_map: RoadMap) -> tuple[Graph, dict[str, int]]:
    return build_graph(road_map)


class CarlaTraffic:
    """Call `start` once the ego stands in the world and a tick has passed, `before_tick` before every tick, `close` at the end."""

    def __init__(self, road_map: RoadMap, settings: TrafficSettings, seed: int, scripts: Sequence[Script] = ()) -> None:
        self.road_map, self.settings, self.seed, self.scripts = road_map, settings, seed, tuple(scripts)
        self.ticks = 0
        self.refused = 0  # cars that the server had no room for
        self.kinds: tuple[VehicleKind, ...] = ()

    def start(self, session: Session, ego: EgoView) -> None:
        """Put everybody into the world, the ego at `ego` among them. Raises DriveError where the server has no cars."""
        settings = self.settings
        graph, index = _map_graph(self.road_map)
        self.session = session
        self.lights = TrafficLights(session, self.road_map, index)
        graph = with_signals(graph, self.lights.signalled)
        capacity = 1 + settings.vehicles + settings.walkers + SPARE
        self.traffic = Traffic(self.road_map, stream(self.seed, "carla-traffic"), capacity, (graph, index))
        self.heights = Heights(session, self.road_map, graph)
        self.mirror = Mirror(session, self.traffic, self.heights)
        self.kinds = measure_kinds(session)
        self._rng = numpy_rng(self.seed, "carla-traffic", "places")
        lanes = np.flatnonzero(~graph.connector & graph.alive & (graph.length > 12.0))
        self._owner = np.repeat(np.arange(len(graph.length)), np.diff(graph.first))
        along = (np.arange(len(graph.x)) - graph.first[self._owner]) * graph.gap[self._owner]
        self._along = along
        self._spots = np.flatnonzero(np.isin(self._owner, lanes) & (graph.length[self._owner] - along > LINE_ROOM))
        self.traffic.add(index[ego.route.lane_id(ego.route_index)], 0.0, 0.0, mode=EXTERNAL, size=(ego.vehicle.length, ego.vehicle.width))
        self._ego_lane = -1
        self._place_ego(ego)
        self.lights.update(graph)
        self.cars = self._populate()
        walkers = [self._reserve() for _ in range(settings.walkers)]
        self._free = [self._reserve() for _ in range(capacity - self.traffic.count)]
        rng = numpy_rng(self.seed, "carla-traffic", "walkers")
        self.walkers = Walkers(session, self.traffic, self.heights, walkers, rng)
        self.walkers.start(self.ego_place, settings.radius_m)
        for script in self.scripts:
            script.start(self, ego)

    def _reserve(self) -> int:
        row = self.traffic.add(0, 0.0, 0.0, mode=PARKED)
        self.traffic.fleet.active[row] = False
        return row

    def take(self) -> int | None:
        """A free row of the traffic for an actor of a scenario; None where all are in use."""
        return self._free.pop(0) if self._free else None

    def give_back(self, row: int) -> None:
        """A row that is no longer needed; its actor has gone."""
        self.traffic.fleet.active[row] = False
        self._free.append(row)

    @property
    def ego_place(self) -> Array:
        """(2,) m, the middle of the ego's box."""
        return np.array([self.traffic.fleet.x[0], self.traffic.fleet.y[0]])

    @property
    def vehicle_rows(self) -> Ints:
        """Rows of the traffic with a car: the ego's, and those of actors."""
        return np.flatnonzero((self.mirror.actor > 0) | (np.arange(len(self.mirror.actor)) == 0))

    def _populate(self) -> Ints:
        """Cars around the ego, spawned in one batch; their rows."""
        rows, kinds = [], []
        for _ in range(self.settings.vehicles):
            spot = self.spot(self._rng, EGO_ROOM, self.settings.radius_m)
            if spot is None:
                break
            row = self.traffic.add(*spot)
            self.traffic.set_character(row, self._rng)
            rows.append(row)
            kinds.append(self.kinds[int(self._rng.integers(len(self.kinds)))])
        lost = self.mirror.spawn(rows, kinds, self._rng, "background")
        self.refused = len(lost)
        return np.array([row for row in rows if row not in lost], np.int64)

    def spot(self, rng: np.random.Generator, low: float, high: float) -> tuple[int, float, float] | None:
        """(lane, s, speed) of a random free place between `low` and `high` m from the ego; None where there is none."""
        graph = self.traffic.graph
        gap = np.hypot(graph.x[self._spots] - self.ego_place[0], graph.y[self._spots] - self.ego_place[1])
        near = self._spots[(gap > low) & (gap < high)]
        for point in rng.permutation(near)[:TRIES]:
            lane, s = int(self._owner[point]), float(self._along[point])
            room = float(graph.length[lane]) - s - LINE_ROOM  # it must be able to stop where the next junction begins
            speed = min(rng.uniform(0.5, 0.9) * float(speed_on(graph, lane, s)), float(np.sqrt(2.0 * START_BRAKE * room)))
            if self.traffic.is_free(lane, s, speed):
                return lane, s, speed
        return None

    def before_tick(self, ego: EgoView) -> None:
        """Advance everybody by one tick and send where they are; the world's own tick comes next."""
        traffic, session = self.traffic, self.session
        self._place_ego(ego)
        self.lights.update(traffic.graph)
        self.walkers.sense()
        commands = [c for script in self.scripts for c in script.before_step(ego)]
        traffic.step(session.dt)
        self.ticks += 1
        commands += [c for script in self.scripts for c in script.after_step(ego)]
        commands += self.walkers.step(session.dt, self.vehicle_rows)
        if self.ticks % max(round(RENEW_S / session.dt), 1) == 0:
            self._renew()
            commands += self.walkers.renew(self.ego_place, self.settings.radius_m, self.settings.hidden_m)
        commands += self.mirror.commands()
        if commands:
            session.client.apply_batch_sync(commands, False)

    def _renew(self) -> None:
        """Cars that have left the map, or are too far away, come back in out of sight."""
        fleet, settings = self.traffic.fleet, self.settings
        away = np.hypot(fleet.x[self.cars] - self.ego_place[0], fleet.y[self.cars] - self.ego_place[1]) > settings.radius_m
        for row in self.cars[away | ~fleet.active[self.cars]]:
            spot = self.spot(self._rng, settings.hidden_m, settings.radius_m)
            if spot is not None:
                self.traffic.move(int(row), *spot)

    def _place_ego(self, ego: EgoView) -> None:
        """Show the ego to the traffic: its box, and its place and way on the lanes."""
        fleet, index, route = self.traffic.fleet, self.traffic.lane_index, ego.route
        center = compose(ego.state[:3], np.array([ego.vehicle.rear_to_center, 0.0, 0.0]))
        fleet.x[0], fleet.y[0], fleet.heading[0], fleet.course[0] = center[0], center[1], center[2], center[2]
        fleet.speed[0], fleet.accel[0] = max(float(ego.state[3]), 0.0), ego.state[5]
        at = min(ego.route_index + round(ego.vehicle.rear_to_center), len(route) - 1)
        first = int(route.lane_index[at])
        if first != self._ego_lane:
            lanes = [index[k] for k in way_from(self.road_map, route.lane_ids[first:])]
            fleet.before[0] = fleet.plan[0, 0]
            self.traffic.set_plan(0, lanes)
            self._ego_lane = first
        fleet.s[0], _ = project_on(self.traffic.graph, fleet.plan[0, 0], center[0], center[1])

    def speeds(self) -> Array:
        """(N,) m/s of the background cars."""
        return self.traffic.fleet.speed[self.cars].copy()

    def overlaps(self) -> Ints:
        """(K, 2) pairs of rows with cars whose boxes overlap now."""
        pairs = self.traffic.overlaps()
        return pairs[np.isin(pairs, self.vehicle_rows).all(axis=1)]

    def close(self) -> None:
        """Take everybody but the ego out of the world."""
        commands = [c for script in self.scripts for c in script.close()]
        commands += self.walkers.close() + self.mirror.destroy(self.cars.tolist())
        self.lights.release()
        self.session.batch(commands)


def way_from(road_map: RoadMap, lane_ids: Sequence[str]) -> list[str]:
    """Lanes of a route as a way without lane changes: of lanes side by side the last one leads on, but for the first."""
    way = [lane_ids[0]]
    for before, lane in pairwise(lane_ids):
        if lane in road_map.lanes[before].successors:
            way.append(lane)
        elif len(way) > 1:
            way[-1] = lane
    return way
