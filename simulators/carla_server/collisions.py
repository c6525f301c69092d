"""Collisions of an episode: vehicles with each other, with walkers, props and what stands beside the road; and the sensor that tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.contacts import CELL, MOST, resolve
from drive.simulators.carla_server.layouts import Stream
from drive.simulators.carla_server.sensor import Sensor, packed
from drive.simulators.carla_server.vehicle_model import AX, AY, INERTIA, MASS, VX, VY, YAW_RATE, X, Y
from drive.simulators.carla_server.walkers import INERTIA as WALKER_INERTIA
from drive.simulators.carla_server.walkers import MASS as WALKER_MASS
from drive.simulators.scene_geometry import Semantic

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
CURB = 0.2  # m: what is lower is driven over
TALL = 1e6  # m, half height of scenery
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
        self.stale = True  # whether props were put up, moved or taken away
        self.ghosts: set[int] = set()  # props that collide with nothing
        self._found, self._jolts = np.zeros((MOST, 2), np.int64), np.zeros((MOST, 2))

    def step(self) -> None:
        """Resolve this tick's contacts; `hits` holds them until the next one."""
        episode, vehicles, walkers = self._episode, self._episode.vehicles, self._episode.people
        self.hits = []
        n, total = len(vehicles), len(vehicles) + len(walkers)
        if n == 0:
            return
        if self.stale:
            self._stand_still()
        boxes, motion, weight = self._bodies(total)
        before, was = boxes[:, :2].copy(), motion.copy()
        count = resolve(boxes, motion, weight, self._still, self._keys, self._far, self._found, self._jolts)
        if count == 0:
            return
        touched = np.unique(self._found[:count])
        cars = touched[touched < n]
        cars = cars[vehicles.free[cars]]
        state = vehicles.state
        c, s = np.cos(boxes[cars, 2]), np.sin(boxes[cars, 2])
        state[cars, X] += boxes[cars, 0] - before[cars, 0]
        state[cars, Y] += boxes[cars, 1] - before[cars, 1]
        state[cars, VX] = c * motion[cars, 0] + s * motion[cars, 1]
        state[cars, VY] = -s * motion[cars, 0] + c * motion[cars, 1]
        state[cars, YAW_RATE] = motion[cars, 2]
        state[cars, AX] += (motion[cars, 0] - was[cars, 0]) / episode.delta
        state[cars, AY] += (motion[cars, 1] - was[cars, 1]) / episode.delta
        vehicles.write()
        walkers.records["pose"][:, :2] += boxes[n:, :2] - before[n:]
        by_cars = self._found[:count][(self._found[:count, 0] < n) & (self._found[:count, 1] >= n) & (self._found[:count, 1] < total), 1]
        if len(by_cars):
            rows = np.unique(by_cars)
            walkers.hit(rows - n, motion[rows, :2] - was[rows, :2])
        self._tell(count, total)

    def _bodies(self, total: int) -> tuple[Array, Array, Array]:
        """Boxes (N, 7), motions (N, 3) and weights (N, 2) of vehicles and walkers, as `resolve` takes them."""
        vehicles, walkers = self._episode.vehicles, self._episode.people
        n = len(vehicles)
        boxes, motion, weight = np.empty((total, 7)), np.zeros((total, 3)), np.empty((total, 2))
        boxes[:n, :3], boxes[:n, 3:5] = vehicles.centres(), vehicles.half[:, :2]
        boxes[:n, 5], boxes[:n, 6] = vehicles.records["pose"][:, 2] + vehicles.offset[:, 2], vehicles.half[:, 2]
        motion[:n, :2], motion[:n, 2] = vehicles.records["velocity"][:, :2], vehicles.state[:, YAW_RATE]
        weight[:n, 0] = np.where(vehicles.solid, vehicles.free / vehicles.params[:, MASS], -1.0)
        weight[:n, 1] = vehicles.free / vehicles.params[:, INERTIA]
        if total > n:
            pose = walkers.records["pose"]
            boxes[n:, :2], boxes[n:, 2], boxes[n:, 5] = pose[:, :2], np.radians(pose[:, 4]), pose[:, 2]
            boxes[n:, 3:5], boxes[n:, 6] = walkers.half[:, :2], walkers.half[:, 2]
            motion[n:, :2] = walkers.records["velocity"][:, :2]
            weight[n:, 0], weight[n:, 1] = np.where(walkers.solid, 1.0 / WALKER_MASS, -1.0), 1.0 / WALKER_INERTIA
        return boxes, motion, weight

    def boxes(self, still: bool) -> Array:
        """(N, 7) of all vehicles and walkers that collide and, if `still`, of the props."""
        boxes, _, weight = self._bodies(len(self._episode.vehicles) + len(self._episode.people))
        if self.stale:
            self._stand_still()
        props = np.array([number for number, _ in self._who], np.int64) > 0
        return np.concatenate([boxes[weight[:, 0] >= 0.0], self._still[props]]) if still else boxes[weight[:, 0] >= 0.0]

    def _stand_still(self) -> None:
        """Gather props and scenery, sorted by the cells of the grid."""
        episode = self._episode
        scenery, labels = episode.town.scenery
        boxes, who = [np.column_stack([scenery, np.zeros(len(scenery)), np.full(len(scenery), TALL)])], []
        who += [(0, NAMES[int(label)]) for label in labels]
        for actor in episode.props():
            pose = episode.pose(actor.id)
            if 2.0 * actor.extent[2] > CURB and actor.id not in self.ghosts:
                boxes.append(np.array([[*pose[:2], np.radians(pose[4]), *actor.extent[:2], pose[2] + actor.centre[2], actor.extent[2]]]))
                who.append((actor.id, actor.type_id))
        still = np.concatenate(boxes)
        keys = (np.floor(still[:, 0] / CELL).astype(np.int64) << 32) + np.floor(still[:, 1] / CELL).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        self._still, self._keys, self._who = still[order], keys[order], [who[k] for k in order]
        self._far = float(np.hypot(still[:, 3], still[:, 4]).max(initial=0.0))
        self.stale = False

    def _tell(self, count: int, total: int) -> None:
        episode, n = self._episode, len(self._episode.vehicles)
        felt: dict[tuple[int, int, str], Array] = {}  # a house has several boxes, and is one thing to hit

        def name(row: int) -> tuple[int, str]:
            if row >= total:
                return self._who[row - total]
            actor_id = int(episode.vehicles.records["id"][row] if row < n else episode.people.records["id"][row - n])
            return actor_id, episode.actors[actor_id].type_id

        for (i, j), jolt in zip(self._found[:count].tolist(), self._jolts[:count]):
            first, second = name(i), name(j)
            for one, other, sign in ((first, second, -1.0), (second, first, 1.0)):
                if one[0]:
                    key = (one[0], *other)
                    if key not in felt and one is first:
                        episode.recorder.write("collision", episode.frame, first[0], second[0] or second[1])
                    felt[key] = felt.get(key, 0.0) + sign * jolt
        self.hits = [Hit(*key, (float(jolt[0]), float(jolt[1]))) for key, jolt in felt.items()]


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
