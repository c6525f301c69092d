"""Collisions of an episode: vehicles with each other, with walkers, props and what stands beside the road; and the sensor that tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.simulators.carla_server.contacts import MOST, resolve
from drive.simulators.carla_server.layouts import Stream
from drive.simulators.carla_server.sensor import Sensor, packed
from drive.simulators.carla_server.vehicle_model import VX, VY, YAW_RATE, X, Y
from drive.simulators.scene_geometry import Semantic

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
WALKER_MASS = 80.0  # kg
NEAR = 20.0  # m from a vehicle's middle within which scenery is looked at
NAMES = {int(Semantic.BUILDING): "static.building", int(Semantic.VEGETATION): "static.vegetation"}


class Hit(NamedTuple):
    """One contact of this tick, as one of the two feels it."""

    actor: int
    other: int  # 0 for scenery
    other_type: str
    impulse: tuple[float, float]  # N s on `actor`, CARLA's frame


class Collisions:
    """Finds and resolves the contacts of a tick."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self.hits: list[Hit] = []
        boxes, labels = episode.town.scenery
        self._scenery, self._labels = boxes, labels
        self._tree = KDTree(boxes[:, :2]) if len(boxes) else None
        self._found, self._impulses = np.zeros((MOST, 2), np.int64), np.zeros((MOST, 2))

    def step(self) -> None:
        """Resolve this tick's contacts; `hits` holds them until the next one."""
        episode, vehicles = self._episode, self._episode.vehicles
        self.hits = []
        n = len(vehicles)
        if n == 0:
            return
        centres = vehicles.centres()
        fixed = self._fixed(centres)
        boxes = np.concatenate([np.column_stack([centres, vehicles.half[:, :2]]), self._walkers(), fixed[0]])
        if len(boxes) < 2:
            return
        walkers = len(episode.walkers)
        mass, inertia = np.full(len(boxes), np.inf), np.full(len(boxes), np.inf)
        mass[:n] = np.where(vehicles.free, vehicles.params[:, 0], np.inf)
        inertia[:n] = np.where(vehicles.free, vehicles.params[:, 1], np.inf)
        mass[n : n + walkers], inertia[n : n + walkers] = WALKER_MASS, 10.0
        velocity, spin = np.zeros((len(boxes), 2)), np.zeros(len(boxes))
        c, s, state = np.cos(centres[:, 2]), np.sin(centres[:, 2]), vehicles.state
        velocity[:n, 0], velocity[:n, 1] = c * state[:, VX] - s * state[:, VY], s * state[:, VX] + c * state[:, VY]
        held = ~vehicles.free
        velocity[:n][held] = vehicles.records["velocity"][held, :2]
        spin[:n] = state[:, YAW_RATE]
        velocity[n : n + walkers] = episode.walkers["velocity"][:, :2]
        before = boxes[:, :2].copy()
        count = resolve(boxes, velocity, spin, mass, inertia, self._found, self._impulses)
        if count == 0:
            return
        touched = np.unique(self._found[:count])
        cars = touched[(touched < n)]
        cars = cars[vehicles.free[cars]]
        state[cars, X] += boxes[cars, 0] - before[cars, 0]
        state[cars, Y] += boxes[cars, 1] - before[cars, 1]
        state[cars, VX] = c[cars] * velocity[cars, 0] + s[cars] * velocity[cars, 1]
        state[cars, VY] = -s[cars] * velocity[cars, 0] + c[cars] * velocity[cars, 1]
        state[cars, YAW_RATE] = spin[cars]
        vehicles.write()
        episode.walkers["pose"][:, :2] += boxes[n : n + walkers, :2] - before[n : n + walkers]
        self._tell(count, n, walkers, fixed[1])

    def _walkers(self) -> Array:
        walkers = self._episode.walkers
        if not len(walkers):
            return np.zeros((0, 5))
        pose = walkers["pose"].astype(float)
        half = np.array([self._episode.actors[int(k)].extent[:2] for k in walkers["id"]])
        return np.column_stack([pose[:, 0], pose[:, 1], np.radians(pose[:, 4]), half])

    def _fixed(self, centres: Array) -> tuple[Array, list[tuple[int, str]]]:
        """Boxes (K, 5) of props and nearby scenery, and (actor or 0, type) of each."""
        props, who = [], []
        for actor in self._episode.props():
            pose = self._episode.pose(actor.id)
            if actor.extent[0] > 0.0:
                props.append((pose[0], pose[1], np.radians(pose[4]), actor.extent[0], actor.extent[1]))
                who.append((actor.id, actor.type_id))
        boxes = np.array(props).reshape(-1, 5)
        if self._tree is not None:
            near = sorted({k for found in self._tree.query_ball_point(centres[:, :2], NEAR) for k in found})
            boxes = np.concatenate([boxes, self._scenery[near]])
            who += [(0, NAMES[int(self._labels[k])]) for k in near]
        return boxes, who

    def _tell(self, count: int, n: int, walkers: int, fixed: list[tuple[int, str]]) -> None:
        episode = self._episode
        names = [(int(k), episode.actors[int(k)].type_id) for k in (*episode.vehicles.records["id"], *episode.walkers["id"])] + fixed
        for (i, j), (x, y) in zip(self._found[:count], self._impulses[:count]):
            first, second = names[i], names[j]
            if first[0]:
                self.hits.append(Hit(first[0], second[0], second[1], (-float(x), -float(y))))
            if second[0]:
                self.hits.append(Hit(second[0], first[0], first[1], (float(x), float(y))))
            episode.recorder.write("collision", episode.frame, first[0], second[0] or second[1])


class CollisionSensor(Sensor):
    """Tells every contact of the actor it is attached to."""

    stream = Stream.COLLISION

    def measure(self) -> Iterable[bytes]:
        """One message for each contact of this frame."""
        episode = self.episode
        for hit in episode.collisions.hits:
            if hit.actor != self.actor.parent:
                continue
            mine = episode.actors[hit.actor].message(0)
            other = episode.actors.get(hit.other)
            there = other.message(0) if other else [0, 0, [0, hit.other_type, []], [[0.0] * 3, [0.0] * 3, [0.0] * 3, 0], b"", b""]
            yield packed([mine, there, [hit.impulse[0], hit.impulse[1], 0.0]])
