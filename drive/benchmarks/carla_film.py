"""What pictures of a driven route are drawn from, noted while it is driven: boxes, lights, plans, and what the planner's camera saw."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.geometry import compose
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera, Command, Plan
from drive.metrics.carla_records import Event
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.routes import COMMANDS, Route

Array = NDArray[np.float64]
TICKS_PER_MOMENT = 2  # a film has 10 pictures a second
SEEN_M = 120.0  # m within which others are noted
LARGEST_M = 40.0  # m, of a box that is drawn
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Moment:
    """Who stood where, world frame."""

    time: float  # s since the start
    ego: Array  # (3,) rear axle
    speed: float  # m/s
    command: Command
    ids: tuple[int, ...]  # of the others
    poses: Array  # (A, 3) box middles
    sizes: Array  # (A, 3) m
    types: NDArray[np.int64]  # (A,) AgentType
    lights: tuple[str, ...]  # state of each light of the town


@dataclass(frozen=True)
class Thought:
    """A plan of the planner, or of the run-up's driver."""

    made: float  # s
    since: float  # s from which the car follows it
    poses_world: Array  # (T, 3), `dt` s apart
    dt: float
    words: str
    mode: str


@dataclass(frozen=True)
class Film:
    """What a film takes beyond the driven path."""

    moments: tuple[Moment, ...]
    thoughts: tuple[Thought, ...]
    shots: tuple[tuple[float, bytes], ...]  # (s, JPEG) of the planner's first camera; empty where it has none
    camera: Camera | None


@dataclass(frozen=True)
class RouteLog:
    """One driven route, for its pictures; T ticks."""

    road_map: RoadMap
    route: Route
    stops: tuple[Array, ...]  # of each light, (K, 3) ends of the lanes that it holds
    times: Array  # (T,) s
    poses: Array  # (T, 3) box middles, world
    events: tuple[Event, ...]
    film: Film | None


class FilmLog:
    """Filled while a route is driven."""

    def __init__(self, simulator: CarlaSimulator) -> None:
        self._simulator = simulator
        self._moments: list[Moment] = []
        self._thoughts: list[Thought] = []
        self._shots: list[tuple[float, bytes]] = []
        self._boxes: dict[int, tuple[AgentType, Array, Array] | None] = {}

    def tick(self, lights: tuple[str, ...]) -> None:
        """Note the present, every TICKS_PER_MOMENT ticks."""
        simulator = self._simulator
        if simulator.tick % TICKS_PER_MOMENT:
            return
        here, found = simulator.state[:2], []
        for actor in simulator.session.world.get_actors():
            box = self._box(actor)
            if box is None:
                continue
            place = actor.get_transform()
            pose = np.array([place.location.x, -place.location.y, -np.radians(place.rotation.yaw)])
            if np.hypot(*(pose[:2] - here)) < SEEN_M:
                found.append((actor.id, box[0], box[1], compose(pose, box[2])))
        found.sort(key=lambda row: row[0])
        n = len(found)
        self._moments.append(
            Moment(
                simulator.time_s,
                simulator.state[:3].copy(),
                float(np.hypot(*simulator.state[3:5])),
                COMMANDS[simulator.route.command[simulator.route_index]],
                tuple(row[0] for row in found),
                np.array([row[3] for row in found]).reshape(n, 3),
                np.array([row[2] for row in found]).reshape(n, 3),
                np.array([int(row[1]) for row in found], np.int64),
                lights,
            )
        )

    def plan(self, plan: Plan, latency: float) -> None:
        """A plan of the present, and the camera's picture that it was made from."""
        simulator = self._simulator
        if plan.trajectory is not None:
            world = plan.trajectory.to_world(simulator.state[:3])
            now = simulator.time_s
            self._thoughts.append(Thought(now, now + latency, world.poses, world.dt, plan.reasoning, plan.mode))
        if simulator.ego.cameras:
            buffer = io.BytesIO()
            Image.fromarray(simulator.observation().images[0, -1]).save(buffer, "jpeg", quality=JPEG_QUALITY)
            self._shots.append((simulator.time_s, buffer.getvalue()))

    def film(self) -> Film:
        """All of it."""
        cameras = self._simulator.ego.cameras
        return Film(tuple(self._moments), tuple(self._thoughts), tuple(self._shots), cameras[0] if cameras else None)

    def _box(self, actor: Any) -> tuple[AgentType, Array, Array] | None:
        """Type, size and middle in the actor's frame; None for what is not drawn."""
        if actor.id not in self._boxes:
            kind = _kind(actor) if actor.id != self._simulator.ego.actor.id else None
            self._boxes[actor.id] = _sized(kind, actor.bounding_box) if kind is not None else None
        return self._boxes[actor.id]


def _sized(kind: AgentType, box: Any) -> tuple[AgentType, Array, Array] | None:
    size, middle = 2.0 * np.array([box.extent.x, box.extent.y, box.extent.z]), np.array([box.location.x, -box.location.y, 0.0])
    sound = np.isfinite([*size, *middle]).all() and size.max() < LARGEST_M  # CARLA's props have boxes of infinite size at times
    return (kind, size, middle) if sound else None


def _kind(actor: Any) -> AgentType | None:
    name = actor.type_id
    if name.startswith("walker."):
        return AgentType.PEDESTRIAN
    if name.startswith("vehicle."):
        return AgentType.BICYCLE if actor.attributes.get("number_of_wheels") == "2" else AgentType.VEHICLE
    if name.startswith("static.prop."):
        return AgentType.TRAFFIC_CONE if "cone" in name else AgentType.GENERIC_OBJECT
    return None
