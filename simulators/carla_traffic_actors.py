"""Vehicles of the traffic as actors of a CARLA world. CARLA's frame stays inside this module.

Poses of the traffic are of box middles, right-handed; an actor's place is its own origin, left-handed and in degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.errors import DriveError
from drive.core.roadmap import RoadMap
from drive.simulators.carla_session import Session
from drive.simulators.carla_traffic_lights import lane_of
from drive.simulators.traffic import Traffic
from drive.simulators.traffic_graph import Graph

Array = NDArray[np.float64]
LONGEST, WIDEST, SHORTEST = 6.0, 2.3, 3.0  # m of a car that fits into any lane and bend
DRAWER_Z, DRAWER_GAP = 200.0, 20.0  # m above the road, and apart, where blueprints are measured
DROP = 0.5  # m above the road at which an actor is spawned, so that it does not touch it
WAYPOINTS = 2.0  # m between those that heights are taken from


@dataclass(frozen=True)
class VehicleKind:
    """A blueprint with its box."""

    id: str
    length: float  # m
    width: float
    forward: float  # m from the actor's origin to the middle of its box
    left: float


def measure_kinds(session: Session) -> tuple[VehicleKind, ...]:
    """Cars of the library that fit into lanes, by name. Raises DriveError where there is none."""
    library = [b for b in sorted(session.world.get_blueprint_library().filter("vehicle.*"), key=lambda b: b.id) if _wheels(b) == 4]
    kinds = tuple(k for k in measure(session, library) if SHORTEST <= k.length <= LONGEST and k.width <= WIDEST)
    if not kinds:
        raise DriveError(f"the library of this server has no cars of {SHORTEST:g} to {LONGEST:g} m, so no traffic can be made of them")
    return kinds


def measure(session: Session, library: list[Any]) -> tuple[VehicleKind, ...]:
    """The boxes of blueprints, in their order. Each is spawned high above, read back and destroyed before a tick sees it."""
    carla, world, client = session.carla, session.world, session.client
    places = [carla.Transform(carla.Location(DRAWER_GAP * k, 0.0, DRAWER_Z)) for k in range(len(library))]
    answers = client.apply_batch_sync([carla.command.SpawnActor(b, p) for b, p in zip(library, places)], False)
    made = [(b.id, r.actor_id) for b, r in zip(library, answers) if not r.has_error()]
    boxes = {actor.id: actor.bounding_box for actor in world.get_actors([number for _, number in made])}
    client.apply_batch_sync([carla.command.DestroyActor(number) for _, number in made], False)
    return tuple(
        VehicleKind(name, 2.0 * boxes[k].extent.x, 2.0 * boxes[k].extent.y, boxes[k].location.x, -boxes[k].location.y) for name, k in made
    )


def _wheels(blueprint: Any) -> int:
    return blueprint.get_attribute("number_of_wheels").as_int() if blueprint.has_attribute("number_of_wheels") else 0


class Heights:
    """z of the road along the lanes, as the client's map has it."""

    def __init__(self, session: Session, road_map: RoadMap, graph: Graph) -> None:
        rows: dict[str, list[tuple[float, float]]] = {}
        for waypoint in session.world.get_map().generate_waypoints(WAYPOINTS):
            rows.setdefault(lane_of(waypoint), []).append((waypoint.s, waypoint.transform.location.z))
        self._graph = graph
        z = np.full(len(graph.x), np.nan)
        for i, lane_id in enumerate(road_map.lanes):
            if lane_id not in rows:
                continue
            s, height = np.array(sorted(rows[lane_id])).T
            part = np.linspace(s[0], s[-1], graph.first[i + 1] - graph.first[i])
            along = np.interp(part, s, height)
            z[graph.first[i] : graph.first[i + 1]] = along if int(lane_id.rsplit("_", 1)[1]) < 0 else along[::-1]
        known = np.isfinite(z)
        places = np.column_stack([graph.x, graph.y])
        if not known.any():
            z[:] = 0.0
        elif not known.all():
            z[~known] = z[known][KDTree(places[known]).query(places[~known])[1]]
        self._z, self._tree = z, KDTree(places)
        self.flat = bool(np.ptp(z) < 0.01) if len(z) else True

    def along(self, lane: NDArray[np.int64], s: Array) -> tuple[Array, Array]:
        """z (N,) m, and slope (N,), at s (N,) along lanes (N,)."""
        graph = self._graph
        if self.flat:
            return np.full(len(lane), self._z[0]), np.zeros(len(lane))
        u = np.clip(s / graph.gap[lane], 0.0, graph.first[lane + 1] - graph.first[lane] - 1.0)
        k = np.minimum(u.astype(np.int64), graph.first[lane + 1] - graph.first[lane] - 2)
        a = graph.first[lane] + k
        rise = self._z[a + 1] - self._z[a]
        return self._z[a] + (u - k) * rise, rise / graph.gap[lane]

    def near(self, x: float, y: float) -> float:
        """z m of the nearest lane."""
        return float(self._z[self._tree.query((x, y))[1]])


class Mirror:
    """Rows of a Traffic as actors: spawned without physics, then put where the row is, tick by tick."""

    def __init__(self, session: Session, traffic: Traffic, heights: Heights) -> None:
        n = len(traffic.fleet.x)
        self.session, self._traffic, self._heights = session, traffic, heights
        self.actor = np.zeros(n, np.int64)  # 0: the row has none
        self._box = np.zeros((n, 2))  # m forward and left from the actor's origin to the box's middle
        self._sent = np.full((n, 4), np.nan)
        self._library = session.world.get_blueprint_library()

    def spawn(self, rows: list[int], kinds: list[VehicleKind], seed: np.random.Generator, role: str) -> list[int]:
        """Actors for rows of the traffic; the rows that found no room are made inactive and returned."""
        carla = self.session.carla
        for row, kind in zip(rows, kinds):
            self._box[row] = kind.forward, kind.left
            self._traffic.fleet.length[row], self._traffic.fleet.width[row] = kind.length, kind.width
        places = self._transforms(np.array(rows, np.int64), DROP)
        commands = []
        for kind, place in zip(kinds, places):
            blueprint = self._library.find(kind.id)
            blueprint.set_attribute("role_name", role)
            if blueprint.has_attribute("color"):
                colours = list(blueprint.get_attribute("color").recommended_values)
                blueprint.set_attribute("color", colours[int(seed.integers(len(colours)))])
            spawn = carla.command.SpawnActor(blueprint, place)
            commands.append(spawn.then(carla.command.SetSimulatePhysics(carla.command.FutureActor, False)))
        lost = []
        for row, answer in zip(rows, self.session.client.apply_batch_sync(commands, False)):
            self._sent[row] = np.nan
            if answer.has_error():
                self._traffic.fleet.active[row], self.actor[row] = False, 0
                lost.append(row)
            else:
                self.actor[row] = answer.actor_id
        return lost

    def destroy(self, rows: list[int]) -> list[Any]:
        """The commands that take the actors of rows away; the rows are free then."""
        there = [row for row in rows if self.actor[row]]
        commands = [self.session.carla.command.DestroyActor(int(self.actor[row])) for row in there]
        self.actor[there] = 0
        self._traffic.fleet.active[rows] = False
        return commands

    def _transforms(self, rows: NDArray[np.int64], above: float = 0.0) -> list[Any]:
        carla, fleet = self.session.carla, self._traffic.fleet
        heading = fleet.heading[rows]
        c, s = np.cos(heading), np.sin(heading)
        forward, left = self._box[rows].T
        x, y = fleet.x[rows] - c * forward + s * left, fleet.y[rows] - s * forward - c * left
        z, slope = self._heights.along(np.maximum(fleet.plan[rows, 0], 0), fleet.s[rows])
        pitch, yaw = np.degrees(np.arctan(slope)), -np.degrees(heading)
        table = np.column_stack([x, -y, z + above, pitch, yaw]).tolist()
        return [carla.Transform(carla.Location(a, b, h), carla.Rotation(p, w, 0.0)) for a, b, h, p, w in table]

    def commands(self) -> list[Any]:
        """What has moved since the last call: a transform and a velocity each."""
        carla, fleet = self.session.carla, self._traffic.fleet
        now = np.column_stack([fleet.x, fleet.y, fleet.heading, fleet.speed])
        rows = np.flatnonzero((self.actor > 0) & fleet.active & (now != self._sent).any(axis=1))
        if not len(rows):
            return []
        self._sent[rows] = now[rows]
        ids = self.actor[rows].tolist()
        vx = (fleet.speed[rows] * np.cos(fleet.course[rows])).tolist()
        vy = (-fleet.speed[rows] * np.sin(fleet.course[rows])).tolist()
        put, push, vector = carla.command.ApplyTransform, carla.command.ApplyTargetVelocity, carla.Vector3D
        found = [put(k, place) for k, place in zip(ids, self._transforms(rows))]
        found += [push(k, vector(a, b, 0.0)) for k, a, b in zip(ids, vx, vy)]
        return found


def to_carla(session: Session, x: float, y: float, z: float, heading: float) -> Any:
    """carla.Transform of a right-handed place and heading, rad."""
    return session.carla.Transform(session.carla.Location(x, -y, z), session.carla.Rotation(yaw=-math.degrees(heading)))
