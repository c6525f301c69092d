"""One episode: a town, its actors and its clock. CARLA's frame throughout."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive.core.types import AgentType
from drive.simulators.carla_server.blueprints import Blueprint
from drive.simulators.carla_server.catalogue import blueprints
from drive.simulators.carla_server.collisions import Collisions
from drive.simulators.carla_server.layouts import (
    ACTOR,
    SENSOR_HEADER,
    SNAPSHOT_HEADER,
    WALKER,
    Actor,
    Kind,
    ServerError,
    Stream,
    numbers,
)
from drive.simulators.carla_server.poses import attached, flat_right
from drive.simulators.carla_server.recorder import Recorder
from drive.simulators.carla_server.sensor import Sensor
from drive.simulators.carla_server.sensors import SENSORS
from drive.simulators.carla_server.streams import WORLD_STREAM, Streams
from drive.simulators.carla_server.town import Town
from drive.simulators.carla_server.traffic_lights import TrafficLights
from drive.simulators.carla_server.vehicles import Vehicles
from drive.simulators.traffic_kernels import boxes_overlap

Array = NDArray[np.float64]
SETTINGS = [False, False, [False], True, 0.01, 10, 0.0, True, 3000.0, 2000.0, True]
CLEAR_NOON = [5.0, 0.0, 0.0, 10.0, -1.0, 45.0, 2.0, 0.75, 0.1, 0.0, 1.0, 0.03, 0.0331, 0.0]
LIBRARY: tuple[Blueprint, ...] = blueprints()
UIDS = {blueprint.id: uid for uid, blueprint in enumerate(LIBRARY, 1)}
MAX_ACTORS = 5000


@dataclass
class Counters:
    """What goes on growing from episode to episode, so that no client mistakes something old for something new."""

    frame: int = 0
    actor: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    stream: Iterator[int] = field(default_factory=lambda: itertools.count(WORLD_STREAM + 1))
    episode: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class Episode:
    """The world between two loads of a map."""

    def __init__(self, town: Town, streams: Streams, counters: Counters, seed: int, gnss: str, recorder: Recorder) -> None:
        self.id = next(counters.episode)
        self.town, self.streams, self.counters, self.seed, self.gnss = town, streams, counters, seed, gnss
        self.recorder = recorder
        self.settings: list = list(SETTINGS)
        self.weather: list[float] = list(CLEAR_NOON)
        self.elapsed, self.delta = 0.0, 0.0
        self.actors: dict[int, Actor] = {}
        self.vehicles = Vehicles(town.ground)
        self.walkers = np.zeros(0, WALKER)
        self.things = np.zeros(0, ACTOR)  # props, sensors, the spectator
        self.sensors: dict[int, Sensor] = {}
        self.lamps: dict[int, int] = {}  # carla.VehicleLightState of vehicles that switched some on
        self._props: list[int] = []
        self._place: dict[int, int] = {}  # row of an actor in `walkers` or `things`
        self.collisions = Collisions(self)
        self._map_changed = True
        self.spectator = self.spawn(LIBRARY[UIDS["spectator"] - 1].id, [], np.zeros(6)).id
        self.lights = TrafficLights(town.signals)
        self._furnish()

    @property
    def frame(self) -> int:
        """The last frame sent."""
        return self.counters.frame

    @property
    def synchronous(self) -> bool:
        """Whether the clock waits for clients."""
        return bool(self.settings[0])

    @property
    def fixed_delta(self) -> float | None:
        """s of a tick, None where it is as long as it took."""
        return float(self.settings[2][1]) if self.settings[2][0] else None

    def props(self) -> list[Actor]:
        """Static things that clients have put up."""
        return [self.actors[k] for k in self._props]

    def actor(self, actor_id: int) -> Actor:
        """Raises ServerError where it does not exist."""
        if actor_id not in self.actors:
            raise ServerError(f"unable to find actor {actor_id}: it was destroyed, or belongs to an earlier episode")
        return self.actors[actor_id]

    def spawn(self, type_id: str, attributes: list, pose: Array, parent: int = 0) -> Actor:
        """A new actor at `pose` (6,), in the frame of `parent` if there is one.

        Raises ServerError where there is no such blueprint or no room.
        """
        if type_id not in UIDS:
            raise ServerError(f"unknown blueprint {type_id!r}: the library of this server does not have it")
        if len(self.actors) >= MAX_ACTORS:
            raise ServerError(f"this server holds at most {MAX_ACTORS} actors: destroy some first")
        blueprint = LIBRARY[UIDS[type_id] - 1]
        world = attached(self.pose(parent), pose) if parent else pose
        actor = Actor(
            id=0,
            kind=blueprint.kind,
            uid=UIDS[type_id],
            type_id=type_id,
            attributes=attributes,
            centre=blueprint.centre,
            extent=blueprint.extent,
            parent=parent,
            relative=pose.copy() if parent else None,
            tags=bytes(blueprint.tags),
        )
        if actor.kind in (Kind.VEHICLE, Kind.WALKER) and not parent:
            self._check_room(actor, world)
        make = SENSORS.get(type_id)
        sensor: Sensor | None = make(actor, self) if make else None  # may refuse its attributes, before anything has changed
        actor.id = next(self.counters.actor)
        if sensor is not None:
            actor.stream = next(self.counters.stream)
            self.sensors[actor.id] = sensor
        self.actors[actor.id] = actor
        self.recorder.write("spawn", self.frame, actor.id, type_id)
        if actor.kind == Kind.PROP:
            self._props.append(actor.id)
        if actor.kind == Kind.VEHICLE:
            self.vehicles.add(actor, world, blueprint.car)
        elif actor.kind == Kind.WALKER:
            self.walkers = self._append(self.walkers, actor, world)
        else:
            self.things = self._append(self.things, actor, world)
        return actor

    def _furnish(self) -> None:
        """Lights and signs of the town become actors."""
        lights, signs = self.lights.actors(lambda: next(self.counters.actor))
        for actor in lights:
            self.actors[actor.id] = actor
        for actor, sign in signs:
            self.actors[actor.id] = actor
            self.things = self._append(self.things, actor, sign.pose)
            self.things["rest"][-1] = sign.id.encode()[:32].ljust(54, b"\0")

    def _append(self, table: NDArray, actor: Actor, pose: Array) -> NDArray:
        record = np.zeros(1, table.dtype)
        record["id"], record["state"], record["pose"][0] = actor.id, 1, pose
        self._place[actor.id] = len(table)
        return np.concatenate([table, record])

    def _check_room(self, actor: Actor, pose: Array) -> None:
        """Raises ServerError where a vehicle's box would stand in another's."""
        boxes = self.vehicles.centres()
        if not len(boxes):
            return
        reach = np.hypot(*self.vehicles.half[:, :2].T) + np.hypot(*actor.extent[:2])
        for i in np.flatnonzero(np.hypot(boxes[:, 0] - pose[0], boxes[:, 1] - pose[1]) < reach):
            yaw = np.radians(pose[4])
            mine = np.array([pose[0], pose[1], yaw, 2.0 * actor.extent[0], 2.0 * actor.extent[1]])
            other = np.array([*boxes[i], *(2.0 * self.vehicles.half[i, :2])])
            if boxes_overlap(mine, other):
                raise ServerError("Spawn failed because of collision at spawn position")

    def destroy(self, actor_id: int) -> bool:
        """Take an actor and what is attached to it out of the world."""
        actor = self.actor(actor_id)
        if actor_id == self.spectator:
            raise ServerError("the spectator cannot be destroyed")
        if actor.kind in (Kind.LIGHT, Kind.SIGN):
            raise ServerError(f"{actor.type_id} {actor_id} belongs to the map and cannot be destroyed")
        for child in [k for k, other in self.actors.items() if other.parent == actor_id]:
            if child in self.actors:
                self.destroy(child)
        del self.actors[actor_id]
        self.recorder.write("destroy", self.frame, actor_id)
        self.sensors.pop(actor_id, None)
        self.lamps.pop(actor_id, None)
        if actor.kind == Kind.PROP:
            self._props.remove(actor_id)
        if actor.kind == Kind.VEHICLE:
            self.vehicles.remove(actor_id)
            return True
        row = self._place.pop(actor_id)
        table = self.walkers if actor.kind == Kind.WALKER else self.things
        same = [k for k in self._place if (self.actors[k].kind == Kind.WALKER) == (actor.kind == Kind.WALKER)]
        for k in same:
            self._place[k] -= self._place[k] > row
        table = np.delete(table, row)
        if actor.kind == Kind.WALKER:
            self.walkers = table
        else:
            self.things = table
        return True

    def _record(self, actor_id: int) -> np.void:
        actor = self.actor(actor_id)
        if actor.kind == Kind.VEHICLE:
            return self.vehicles.records[self.vehicles.row[actor_id]]
        if actor.kind == Kind.LIGHT:
            return self.lights.records[self.lights.row[actor_id]]
        return (self.walkers if actor.kind == Kind.WALKER else self.things)[self._place[actor_id]]

    def pose(self, actor_id: int) -> Array:
        """(6,) x, y, z, pitch, yaw, roll in the world. Raises ServerError where there is no such actor."""
        return self._record(actor_id)["pose"].astype(float)

    def velocity(self, actor_id: int) -> Array:
        """(3,) m/s, world."""
        return self._record(actor_id)["velocity"].astype(float)

    def put(self, actor_id: int, pose: Array) -> None:
        """Set the pose (6,), in its parent's frame if it has one."""
        actor = self.actor(actor_id)
        if actor.parent:
            actor.relative = pose
            pose = attached(self.pose(actor.parent), pose)
        if actor.kind == Kind.VEHICLE:
            self.vehicles.put(actor_id, pose)
        else:
            self._record(actor_id)["pose"] = pose

    def walk(self, actor_id: int, control: list) -> None:
        """carla.WalkerControl, in force until the next one. Raises ServerError where the actor is no walker."""
        if self.actor(actor_id).kind != Kind.WALKER:
            raise ServerError(f"actor {actor_id} is not a walker")
        record = self._record(actor_id)
        record["direction"], record["speed"], record["jump"] = numbers(control[0], 3), numbers(control[1:], 1)[0], bool(control[2])

    def tick(self, delta: float) -> int:
        """Advance by `delta` s and send the frame; its number."""
        self.delta = delta
        self.elapsed += delta
        self.counters.frame += 1
        self.vehicles.step(delta)
        self.lights.step(delta)
        self.lights.tell(self.vehicles)
        self._tell_limits()
        self._step_walkers(delta)
        self.collisions.step()
        self._carry()
        self._send_snapshot()
        self._send_sensors()
        return self.frame

    def _tell_limits(self) -> None:
        """Each vehicle's speed limit, of the lane nearest to it."""
        pose = self.vehicles.records["pose"]
        if len(pose):
            self.vehicles.records["speed_limit"] = self.town.speed_limit(pose[:, 0], pose[:, 1], pose[:, 2])

    def height_at(self, x: float, y: float) -> float:
        """z m of the ground at a place of CARLA's frame."""
        return float(self.town.ground(np.array([x]), np.array([y]))[0])

    def scene(self, viewer: Actor) -> tuple[Array, Array, NDArray[np.int64]]:
        """Poses (A, 3) of box middles, right-handed, sizes (A, 3) and types (A,) of all that `viewer` can see."""
        poses, sizes, types, _ = self._seen(viewer)
        return poses, sizes, types

    def scene_ids(self, viewer: Actor) -> NDArray[np.uint32]:
        """(A,) actor of each row of `scene`."""
        return self._seen(viewer)[3]

    def _seen(self, viewer: Actor) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.uint32]]:
        boxes = self.vehicles.centres()
        poses = np.column_stack([boxes[:, 0], -boxes[:, 1], -boxes[:, 2]])
        sizes, ids = 2.0 * self.vehicles.half, self.vehicles.records["id"]
        types = np.where(sizes[:, 1] < 1.0, int(AgentType.BICYCLE), int(AgentType.VEHICLE))
        keep = np.ones(len(ids), bool)
        if viewer.parent in self.vehicles.row and viewer.relative is not None:
            parent = self.actors[viewer.parent]
            inside = np.abs(viewer.relative[:3] - parent.centre) <= np.array(parent.extent) + 0.5  # its own car would fill the image
            keep[self.vehicles.row[viewer.parent]] = not inside.all()
        walkers = self.walkers["pose"].astype(float)
        size = np.array([2.0 * np.array(self.actors[int(k)].extent) for k in self.walkers["id"]]).reshape(-1, 3)
        return (
            np.concatenate([poses[keep], flat_right(walkers)]),
            np.concatenate([sizes[keep], size]),
            np.concatenate([types[keep], np.full(len(walkers), int(AgentType.PEDESTRIAN))]),
            np.concatenate([ids[keep], self.walkers["id"]]),
        )

    def _step_walkers(self, delta: float) -> None:
        if not len(self.walkers):
            return
        direction, speed = self.walkers["direction"], self.walkers["speed"]
        length = np.maximum(np.linalg.norm(direction, axis=1), 1e-6)
        velocity = direction * (speed / length)[:, None]
        pose = self.walkers["pose"]
        pose[:, :2] += velocity[:, :2] * delta
        moving = speed > 0.01
        pose[moving, 4] = np.degrees(np.arctan2(velocity[moving, 1], velocity[moving, 0]))
        self.walkers["velocity"] = velocity

    def _carry(self) -> None:
        """Attached actors go with their parents, who always stand before them."""
        for actor_id, actor in self.actors.items():
            if actor.relative is not None and actor.parent in self.actors:
                record = self._record(actor_id)
                record["pose"] = attached(self.pose(actor.parent), actor.relative)
                record["velocity"] = self._record(actor.parent)["velocity"]

    def _send_snapshot(self) -> None:
        head = SENSOR_HEADER.pack(Stream.WORLD, self.frame, self.elapsed, *(0.0,) * 6)
        flags, self._map_changed = int(self._map_changed), False
        body = SNAPSHOT_HEADER.pack(self.id, time.monotonic(), self.delta, 0, 0, 0, flags)
        records = b"".join(t.tobytes() for t in (self.vehicles.records, self.walkers, self.lights.records, self.things))
        self.streams.send(WORLD_STREAM, head, body, records)
        if self.recorder.running:
            self.recorder.write("frame", self.frame, self.elapsed, records)

    def _send_sensors(self) -> None:
        for actor_id, sensor in tuple(self.sensors.items()):
            actor = self.actors[actor_id]
            if not self.streams.wanted(actor.stream) or not sensor.due(self.elapsed, self.delta):
                continue
            head = SENSOR_HEADER.pack(sensor.stream, self.frame, self.elapsed, *self.pose(actor_id))
            for payload in sensor.measure():
                self.streams.send(actor.stream, head, payload)
