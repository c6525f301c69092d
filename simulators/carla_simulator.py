"""A Simulator over the carla client: the ego on a route, among whoever else the world holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DriveError
from drive.core.geometry import compose, relative
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera, Observation, Plan, Privileged, Tracks
from drive.simulators.carla_control import Controller, Reference
from drive.simulators.carla_ego import CarlaEgo
from drive.simulators.carla_pid import ControllerKind, controller_of
from drive.simulators.carla_session import Session
from drive.simulators.routes import COMMANDS, Route, nearest_index, route_window

Array = NDArray[np.float64]
PLAN_S = 0.5  # s between plans and between camera frames
FRAMES = 4  # of a camera that a planner sees
VIEW_BACK, VIEW_AHEAD = 20.0, 180.0  # m of route in `privileged`
SEEN_M = 100.0  # m within which others are told
LOW_M = 0.3  # m below which a thing on the road is driven over


class CarlaSimulator:
    """Drives one route; `step` follows a plan for PLAN_S seconds, tick by tick."""

    def __init__(
        self,
        session: Session,
        road_map: RoadMap,
        route: Route,
        cameras: tuple[Camera, ...] = (),
        height: float = 0.0,
        ego: CarlaEgo | None = None,
        controller: ControllerKind = ControllerKind.LQR,
    ) -> None:
        """`height` m of the road at the start; an `ego` that is there already. Raises DriveError where there is no room."""
        self.session, self.road_map, self.route = session, road_map, route
        self.ticks_per_plan = round(PLAN_S / session.dt)
        self.ego = ego or CarlaEgo(session, route.path[0], cameras, PLAN_S, height)
        self.controller: Controller = controller_of(controller, self.ego.vehicle, self.ego.response)
        self.tick = 0
        self.route_index = 0
        self._boxes: dict[int, tuple[AgentType, Array, Array]] = {}  # type, size, middle in the actor's frame
        self.frame = session.world.tick()
        self.states: list[Array] = [self.ego.state()]
        self._plans: list[tuple[float, float, Reference]] = []  # (time from which it is in force, time it was made, its poses), newest first
        self._images: list[NDArray[np.uint8]] = []
        self._poses: list[Array] = []
        self.look()

    @property
    def time_s(self) -> float:
        """s since the start."""
        return self.tick * self.session.dt

    @property
    def state(self) -> Array:
        """(11,) the ego's now."""
        return self.states[-1]

    def look(self) -> None:
        """Take the cameras' frames of the present, every PLAN_S seconds."""
        images = self.ego.images(self.frame) if self.ego.cameras else np.zeros((0, 1, 1, 3), np.uint8)
        missing = FRAMES - 1 if not self._images else 0  # the first one stands for those before it
        self._images = [*self._images, *[images] * (missing + 1)][-FRAMES:]
        self._poses = [*self._poses, *[self.state[:3]] * (missing + 1)][-FRAMES:]

    def step(self, plan: Plan) -> tuple[Observation, bool]:
        """Follow `plan` for PLAN_S seconds; the new observation, and whether the route is done. Raises DriveError on a plan without trajectory."""
        for _ in self.follow(plan):
            self.advance()
        self.look()
        return self.observation(), self.route_s > self.route.length - 5.0

    def follow(self, plan: Plan, latency: float = 0.0) -> Iterator[int]:
        """Steer after `plan` for PLAN_S seconds: one turn for each tick, before which the pedals are set; the caller advances the world.

        The plan before it is followed until `latency` seconds have gone. Raises DriveError on a plan without trajectory.
        """
        if plan.trajectory is None:
            raise DriveError(f"a plan without trajectory ({plan.status.value}) cannot be driven")
        poses = np.concatenate([np.zeros((1, 3)), plan.trajectory.to_ego(self.state[:3]).poses])
        times = plan.trajectory.dt * np.arange(len(poses), dtype=np.float64)
        self._plans = [(self.time_s + latency, self.time_s, Reference(times, compose(self.state[:3], poses))), *self._plans]
        for k in range(self.ticks_per_plan):
            in_force = next((k for k, plan in enumerate(self._plans) if plan[0] <= self.time_s + 1e-9), None)
            if in_force is None:
                self.ego.apply(0.0, 0.0, 0.0)  # the first plan is still being thought about
            else:
                del self._plans[in_force + 1 :]
                _, made, reference = self._plans[in_force]
                self.ego.apply(*self.controller.control(self.state, reference, self.time_s - made))
            yield k

    def advance(self) -> None:
        """One tick of the world."""
        self.frame = self.session.world.tick()
        self.tick += 1
        self.states.append(self.ego.state())
        self.route_index = nearest_index(self.route, self.state[:3], self.route_index)

    @property
    def route_s(self) -> float:
        """m of the rear axle along the route."""
        return float(self.route.s[self.route_index] + relative(self.route.path[self.route_index], self.state[:3])[0])

    def observation(self) -> Observation:
        """What the ego may see now."""
        ego = self.ego.ego_state(self.state, self.time_s)
        return Observation(
            id=f"{self.road_map.name}-{self.tick}",
            images=np.stack(self._images, axis=1),
            cameras=self.ego.cameras,
            frame_dt=PLAN_S,
            ego_history=relative(self.state[:3], np.stack(self._poses)),
            speed=ego.speed,
            acceleration=float(ego.acceleration_ego[0]),
            yaw_rate=ego.yaw_rate,
            command=COMMANDS[self.route.command[self.route_index]],
        )

    def others(self) -> Tracks:
        """Vehicles, walkers and things that stand up within SEEN_M of the ego, one step."""
        ids, types, sizes, poses, velocities = [], [], [], [], []
        snapshot = self.session.world.get_snapshot()
        for actor in self.session.world.get_actors():
            if actor.id == self.ego.actor.id or not actor.type_id.startswith(("vehicle.", "walker.", "static.prop.")):
                continue
            seen = snapshot.find(actor.id)
            if seen is None:
                continue
            kind, size, middle = self._box(actor)
            if size[2] < LOW_M:
                continue
            transform, velocity = seen.get_transform(), seen.get_velocity()
            pose = np.array([transform.location.x, -transform.location.y, -np.radians(transform.rotation.yaw)])
            if np.hypot(*(pose[:2] - self.state[:2])) > SEEN_M:
                continue
            ids.append(f"{actor.type_id.split('.')[0]}-{actor.id}")
            types.append(int(kind))
            sizes.append(size)
            poses.append(compose(pose, middle))
            velocities.append((velocity.x, -velocity.y))
        n = len(ids)
        return Tracks(
            tuple(ids),
            np.array(types, np.int64),
            np.array(sizes).reshape(n, 3),
            np.array(poses).reshape(n, 1, 3),
            np.array(velocities).reshape(n, 1, 2),
            np.ones((n, 1), bool),
        )

    def _box(self, actor: Any) -> tuple[AgentType, Array, Array]:
        if actor.id not in self._boxes:
            box = actor.bounding_box
            kind = {"walker": AgentType.PEDESTRIAN, "static": AgentType.BARRIER}.get(actor.type_id.split(".")[0], AgentType.VEHICLE)
            if actor.attributes.get("number_of_wheels") == "2":
                kind = AgentType.BICYCLE
            size = 2.0 * np.array([box.extent.x, box.extent.y, box.extent.z])
            self._boxes[actor.id] = kind, size, np.array([box.location.x, -box.location.y, 0.0])
        return self._boxes[actor.id]

    def privileged(self) -> Privileged:
        """The ground truth of the present: agents have one step."""
        window = route_window(self.route, self.state[:3], VIEW_BACK, VIEW_AHEAD, self.route_index)
        command = COMMANDS[self.route.command[self.route_index]]
        ego = self.ego.ego_state(self.state, self.time_s)
        return Privileged(self.road_map, window.lane_ids, window.path, ego, self.others(), self.session.dt, command)
