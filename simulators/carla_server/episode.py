"""One episode: a town, its actors and its clock. CARLA's frame throughout."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.attachments import Attachments
from drive.simulators.carla_server.blueprints import Blueprint
from drive.simulators.carla_server.catalogue import blueprints
from drive.simulators.carla_server.collisions import Collisions
from drive.simulators.carla_server.contacts import SLOP, overlap
from drive.simulators.carla_server.friction import TYPE as FRICTION_TRIGGER
from drive.simulators.carla_server.friction import FrictionTriggers
from drive.simulators.carla_server.layouts import (
    ACTOR,
    SENSOR_HEADER,
    SNAPSHOT_HEADER,
    Actor,
    Kind,
    ServerError,
    Stream,
)
from drive.simulators.carla_server.poses import attached
from drive.simulators.carla_server.recorder import Recorder
from drive.simulators.carla_server.sensor import Sensor
from drive.simulators.carla_server.sensor_scene import Scene
from drive.simulators.carla_server.sensors import SENSORS
from drive.simulators.carla_server.streams import WORLD_STREAM, Streams
from drive.simulators.carla_server.town import Town
from drive.simulators.carla_server.traffic_lights import TrafficLights
from drive.simulators.carla_server.vehicles import Vehicles
from drive.simulators.carla_server.walkers import Walkers

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
        self.people = Walkers(town.ground)
        self.things = np.zeros(0, ACTOR)  # props, sensors, the spectator
        self.sensors: dict[int, Sensor] = {}
        self.lamps: dict[int, int] = {}  # carla.VehicleLightState of vehicles that switched some on
        self._props: list[int] = []
        self._place: dict[int, int] = {}  # row of an actor in `things`
        self.collisions, self.attachments, self.friction = Collisions(self), Attachments(self), FrictionTriggers()
        self._map_changed = True
        self._scene: Scene | None = None
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

    @property
    def walkers(self) -> NDArray:
        """The walkers' records."""
        return self.people.records

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
        if actor.kind in (Kind.VEHICLE, Kind.WALKER, Kind.PROP) and not parent:
            self._check_room(actor, world)
        make = SENSORS.get(type_id)
        sensor: Sensor | None = make(actor, self) if make else None  # may refuse its attributes, before anything has changed
        actor.id = next(self.counters.actor)
        if sensor is not None:
            actor.stream = next(self.counters.stream)
            self.sensors[actor.id] = sensor
        if type_id == FRICTION_TRIGGER:
            self.friction.add(actor, world)
        self.attachments.stale |= bool(parent)
        self.actors[actor.id] = actor
        self.recorder.write("spawn", self.frame, actor.id, type_id)
        if actor.kind == Kind.PROP:
            self._props.append(actor.id)
            self.collisions.stale = True
        if actor.kind == Kind.VEHICLE:
            self.vehicles.add(actor, world, blueprint.car)
        elif actor.kind == Kind.WALKER:
            self.people.add(actor, world)
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
        """Raises ServerError where a new actor's box would stand in a vehicle's, a walker's, or, if it moves by itself, a thing's."""
        others = self.collisions.boxes(still=actor.kind != Kind.PROP)
        if not len(others) or not actor.extent[0]:
            return
        yaw = math.radians(pose[4])
        c, s, (x, y, z) = math.cos(yaw), math.sin(yaw), actor.centre
        mine = np.array([pose[0] + c * x - s * y, pose[1] + s * x + c * y, yaw, *actor.extent[:2], pose[2] + z, actor.extent[2]])
        reach = np.hypot(*others[:, 3:5].T) + math.hypot(*actor.extent[:2])
        way = np.empty(2)
        for other in others[np.hypot(others[:, 0] - mine[0], others[:, 1] - mine[1]) < reach]:
            if overlap(mine, other, way) > SLOP:
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
        self.attachments.stale |= bool(actor.parent)
        self.friction.remove(actor_id)
        if actor.kind == Kind.PROP:
            self._props.remove(actor_id)
            self.collisions.stale = True
        if actor.kind == Kind.VEHICLE:
            self.vehicles.remove(actor_id)
            return True
        if actor.kind == Kind.WALKER:
            self.people.remove(actor_id)
            return True
        row = self._place.pop(actor_id)
        self._place = {k: r - (r > row) for k, r in self._place.items()}
        self.things = np.delete(self.things, row)
        return True

    def record(self, actor_id: int) -> np.void:
        """Its row of the snapshot. Raises ServerError where there is no such actor."""
        actor = self.actor(actor_id)
        if actor.kind == Kind.VEHICLE:
            return self.vehicles.records[self.vehicles.row[actor_id]]
        if actor.kind == Kind.LIGHT:
            return self.lights.records[self.lights.row[actor_id]]
        if actor.kind == Kind.WALKER:
            return self.people.records[self.people.row[actor_id]]
        return self.things[self._place[actor_id]]

    def pose(self, actor_id: int) -> Array:
        """(6,) x, y, z, pitch, yaw, roll in the world. Raises ServerError where there is no such actor."""
        return self.record(actor_id)["pose"].astype(float)

    def velocity(self, actor_id: int) -> Array:
        """(3,) m/s, world."""
        return self.record(actor_id)["velocity"].astype(float)

    def put(self, actor_id: int, pose: Array) -> None:
        """Set the pose (6,), in its parent's frame if it has one."""
        actor = self.actor(actor_id)
        if actor.parent:
            actor.relative = pose
            pose = attached(self.pose(actor.parent), pose)
        if actor.kind == Kind.VEHICLE:
            self.vehicles.put(actor_id, pose)
        else:
            self.collisions.stale |= actor.kind == Kind.PROP
            self.record(actor_id)["pose"] = pose

    def walk(self, actor_id: int, control: list) -> None:
        """carla.WalkerControl, in force until the next one. Raises ServerError where the actor is no walker."""
        if self.actor(actor_id).kind != Kind.WALKER:
            raise ServerError(f"actor {actor_id} is not a walker")
        self.people.control(actor_id, control)

    def tick(self, delta: float) -> int:
        """Advance by `delta` s and send the frame; its number."""
        self.delta = delta
        self.elapsed += delta
        self.counters.frame += 1
        self.friction.step(self.vehicles)
        self.vehicles.step(delta)
        self.lights.step(delta)
        self.lights.tell(self.vehicles)
        self._tell_limits()
        self.people.step(delta)
        self.collisions.step()
        self.attachments.step()
        self._send_snapshot()
        self._send_sensors()
        return self.frame

    def _tell_limits(self) -> None:
        """Each vehicle's speed limit, of the lane nearest to it."""
        pose = self.vehicles.records["pose"]
        if len(pose):
            self.vehicles.records["speed_limit"] = self.town.speed_limit(pose[:, 0], pose[:, 1], pose[:, 2])

    def height_at(self, x: float, y: float, z: float = math.nan) -> float:
        """z m of the ground at a place of CARLA's frame, on the level nearest to `z` if that is known."""
        return float(self.town.ground(np.array([x]), np.array([y]), np.array([z]))[0])

    @property
    def scene(self) -> Scene:
        """All that sensors can see, put together once a frame."""
        if self._scene is None:
            self._scene = Scene.of(self)
        return self._scene

    def _send_snapshot(self) -> None:
        head = SENSOR_HEADER.pack(Stream.WORLD, self.frame, self.elapsed, *(0.0,) * 6)
        flags, self._map_changed = int(self._map_changed), False
        body = SNAPSHOT_HEADER.pack(self.id, time.monotonic(), self.delta, 0, 0, 0, flags)
        records = b"".join(t.tobytes() for t in (self.vehicles.records, self.walkers, self.lights.records, self.things))
        self.streams.send(WORLD_STREAM, head, body, records)
        if self.recorder.running:
            self.recorder.write("frame", self.frame, self.elapsed, records)

    def _send_sensors(self) -> None:
        self._scene = None
        for actor_id, sensor in tuple(self.sensors.items()):
            actor = self.actors[actor_id]
            if not self.streams.wanted(actor.stream) or not sensor.due(self.elapsed, self.delta):
                continue
            head = SENSOR_HEADER.pack(sensor.stream, self.frame, self.elapsed, *self.pose(actor_id))
            for payload in sensor.measure():
                self.streams.send(actor.stream, head, payload)
