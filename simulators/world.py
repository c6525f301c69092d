"""The embedded world: an ego car among traffic on one map, advanced by plans or by pedals and wheel.

Step k is at k * 0.1 s. The ego tracks a plan with the LQR and the bicycle of drive.core.vehicle; traffic sees it and reacts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose, relative, wrap_angle
from drive.core.roadmap import RoadMap
from drive.core.seeds import numpy_rng, stream
from drive.core.types import Camera, Command, EgoState, EgoTrack, Observation, Privileged, Tracks, Trajectory
from drive.core.vehicle import PACIFICA, simulate, targets_from_plan
from drive.simulators.render import SceneRenderer
from drive.simulators.routes import COMMANDS, Route, nearest_index, route_window
from drive.simulators.scenarios import Actor, Placement, place_scenario
from drive.simulators.traffic import DT, Traffic
from drive.simulators.traffic_fleet import EXTERNAL, UNSET
from drive.simulators.traffic_graph import Graph, build_graph
from drive.simulators.traffic_kernels import project_on
from drive.simulators.world_events import EventLog, bicycle_step

Array = NDArray[np.float64]
VIEW_BACK, VIEW_AHEAD = 20.0, 180.0  # m of route in `privileged`
TRACK_STEPS = 20  # steps of a plan given to the tracker, which looks 10 ahead
FRAME_STEPS = (-15, -10, -5, 0)
ACCELERATION_STEPS = 5  # steps back from which the agents' acceleration is told, as Tracks.acceleration does
END_ROOM = 30.0  # m before the end of the route at which the drive is over


@lru_cache(maxsize=8)
def map_graph(road_map: RoadMap) -> tuple[Graph, dict[str, int]]:
    """The traffic's graph of a map, made once."""
    return build_graph(road_map)


@lru_cache(maxsize=8)
def map_renderer(road_map: RoadMap) -> SceneRenderer:
    """The renderer of a map, made once."""
    return SceneRenderer(road_map)


class World:
    """One situation of `kind` on `road_map`, the same for the same seed.

    Raises DataError where the map has no place for the kind.
    """

    def __init__(self, road_map: RoadMap, town: str, kind: str, seed: int) -> None:
        self.road_map, self.town, self.kind, self.seed = road_map, town, kind, seed
        rng = numpy_rng(seed, "world", town, kind)
        placement = place_scenario(road_map, kind, rng)
        self.route: Route = placement.route
        first = self._route_pose(placement.start)
        ahead = self._route_pose(placement.start + 2.0)[2]
        self.state = np.zeros(11)  # drive.core.vehicle's
        self.state[:3], self.state[3] = first, placement.speed
        turn = wrap_angle(ahead - first[2]) / 2.0  # 1/m over 2 m: the wheels are already turned as the road asks
        self.state[7], self.state[9] = np.arctan(PACIFICA.wheel_base * turn), placement.speed * turn
        self.route_index = nearest_index(self.route, first, round(placement.start))  # a route may pass one place twice
        self._fill(placement, rng)
        self._events = EventLog(road_map)
        self._ego: list[Array] = []
        self._snapshots: list[tuple[Array, Array, NDArray[np.bool_]]] = []
        self._images: dict[tuple[int, int], NDArray[np.uint8]] = {}  # of (camera, step)
        self._record()

    def _fill(self, placement: Placement, rng: np.random.Generator) -> None:
        """Ego, actors and traffic, in this order."""
        self.traffic = Traffic(
            self.road_map, stream(self.seed, "traffic"), 2 + len(placement.actors) + placement.traffic, map_graph(self.road_map)
        )
        lane = self.traffic.lane_index[self.route.lane_id(self.route_index)]
        self.traffic.add(lane, 0.0, placement.speed, mode=EXTERNAL, size=(PACIFICA.length, PACIFICA.width))
        self._place_ego()
        self._scripts: list[tuple[int, Actor]] = []
        for actor in placement.actors:
            i = self.traffic.add(self.traffic.lane_index[actor.lane], actor.s, actor.speed, mode=actor.mode, offset=actor.offset)
            self.traffic.fleet.eager[i] = actor.eager
            if actor.lanes:
                self.traffic.set_plan(i, [self.traffic.lane_index[k] for k in actor.lanes])
            if actor.script is not None:
                self._scripts.append((i, actor))
        self.traffic.populate(placement.traffic, rng, self.state[:2], placement.radius)

    @property
    def step(self) -> int:
        """Index of the present step."""
        return len(self._ego) - 1

    @property
    def events(self) -> tuple[tuple[int, str], ...]:
        """(step, what happened): "collision vehicle-3", "off_road", "stuck", "route_end"."""
        return tuple(self._events.items)

    @property
    def over(self) -> bool:
        """Whether the ego has hit something, left the road, come to the end of its route or got stuck."""
        return bool(self._events.items)

    @property
    def command(self) -> Command:
        """The navigator's word at the present."""
        return COMMANDS[self.route.command[self.route_index]]

    @property
    def ego(self) -> EgoState:
        """The ego at the present."""
        s = self.state
        return EgoState(s[:3].copy(), s[3:5].copy(), s[5:7].copy(), float(s[9]), float(s[7]), self.step * DT)

    def drive(self, trajectory: Trajectory, steps: int = 5) -> None:
        """Advance `steps` steps of 0.1 s while the ego tracks `trajectory`, in the ego frame of the present.

        Raises DataError where it is shorter than `steps` * 0.1 s.
        """
        if trajectory.dt * len(trajectory.poses) < steps * DT - 1e-6:
            raise DataError(
                f"a plan of {trajectory.dt * len(trajectory.poses):g} s cannot be driven for {steps * DT:g} s: plan further ahead"
            )
        poses = trajectory.to_ego(self.state[:3]).poses
        targets = targets_from_plan(poses[None], trajectory.dt, self.state[:3], max(TRACK_STEPS, steps))
        for state in simulate(self.state[None], targets)[0][1 : steps + 1]:
            self._advance(state)

    def drive_control(self, acceleration: float, steering: float, steps: int = 1) -> None:
        """Advance `steps` steps of 0.1 s at `acceleration` m/s^2 with the wheels turned towards `steering` rad."""
        for _ in range(steps):
            self._advance(bicycle_step(self.state, acceleration, steering, DT))

    def coast(self, steps: int) -> None:
        """Advance along the route as the traffic itself would drive the ego's car: the run-up before a planner takes over."""
        for _ in range(steps):
            accel = float(np.clip(self.traffic.fleet.wish[0], -6.0, 1.5)) if self.step else 0.0
            times = DT * np.arange(1, TRACK_STEPS + 1)
            speed = np.maximum(self.state[3] + accel * times, 0.0)
            along = self.route_s + np.cumsum(speed) * DT
            self.drive(Trajectory(relative(self.state[:3], self._route_pose(along)), DT), 1)

    def _route_pose(self, s) -> Array:
        """(..., 3) the route's poses at arc lengths s (...)."""
        x, y, heading = self.route.path.T
        at = [np.interp(s, self.route.s, column) for column in (x, y, np.unwrap(heading))]
        return np.stack([at[0], at[1], wrap_angle(at[2])], axis=-1)

    @property
    def route_s(self) -> float:
        """m of the ego's rear axle along the route."""
        return float(self.route.s[self.route_index] + relative(self.route.path[self.route_index], self.state[:3])[0])

    def _advance(self, state: Array) -> None:
        """Take the ego to `state` (11,) and let everybody else make one step."""
        self.state = np.array(state)
        self._run_scripts()
        self.traffic.step()
        self.route_index = nearest_index(self.route, self.state[:3], self.route_index)
        self._place_ego()
        self._record()
        ended = self.route_s > self.route.length - END_ROOM
        self._events.look(self.step, self.state, self.traffic, ended)

    def _place_ego(self) -> None:
        """Show the ego to the traffic: its box, and its place and way on the lanes."""
        fleet, index = self.traffic.fleet, self.traffic.lane_index
        center = compose(self.state[:3], np.array([PACIFICA.rear_to_center, 0.0, 0.0]))
        fleet.x[0], fleet.y[0], fleet.heading[0], fleet.course[0] = center[0], center[1], center[2], center[2]
        fleet.speed[0], fleet.accel[0] = self.state[3], self.state[5]
        at = min(self.route_index + round(PACIFICA.rear_to_center), len(self.route) - 1)
        first = int(self.route.lane_index[at])
        way = [self.route.lane_ids[first]]
        for before, lane in zip(self.route.lane_ids[first:], self.route.lane_ids[first + 1 :]):
            if lane in self.road_map.lanes[before].successors:
                way.append(lane)
            elif len(way) > 1:  # of lanes side by side the last one leads on
                way[-1] = lane
        lanes = [index[k] for k in way]
        if fleet.plan[0, 0] != lanes[0]:
            fleet.before[0] = fleet.plan[0, 0]
        self.traffic.set_plan(0, lanes)
        fleet.s[0], _ = project_on(self.traffic.graph, lanes[0], center[0], center[1])

    def _run_scripts(self) -> None:
        fleet, now = self.traffic.fleet, self.step * DT
        for i, actor in self._scripts:
            script = actor.script
            if script is None or now < script.time:
                continue
            if script.action == "brake":
                fleet.order[i] = script.value if now < script.time + script.duration else UNSET
            elif now < script.time + 4.0 and fleet.change[i] >= 1.0 and now - script.time < DT + 1e-6:
                fleet.want[i] = int(script.value)

    def _record(self) -> None:
        self._ego.append(self.state.copy())
        self._snapshots.append(self.traffic.snapshot())

    def ego_track(self) -> EgoTrack:
        """The ego over all steps so far."""
        states = np.stack(self._ego)
        return EgoTrack(states[:, :3], states[:, 3:5], states[:, 5:7], states[:, 9])

    def tracks(self) -> Tracks:
        """The other vehicles over all steps so far."""
        return self.traffic.tracks(self._snapshots, start=1)

    def privileged(self) -> Privileged:
        """The ground truth of the present: agents have one step."""
        window = route_window(self.route, self.state[:3], VIEW_BACK, VIEW_AHEAD, self.route_index)
        recent = self.traffic.tracks(self._snapshots[-1 - ACCELERATION_STEPS :], start=1)
        present = recent.valid[:, -1]
        acceleration = recent.acceleration(recent.valid.shape[1] - 1, DT)[present]
        agents = recent.steps(recent.valid.shape[1] - 1, recent.valid.shape[1]).subset(present)
        return Privileged(self.road_map, window.lane_ids, window.path, self.ego, agents, DT, self.command, acceleration)

    def image(self, camera: Camera, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of `camera` at a step gone by, or the present."""
        poses, _, active = self._snapshots[step]
        size = self.traffic.tracks(self._snapshots[-1:], start=1).size[active[1:]]
        types = np.zeros(len(size), np.int64)
        return map_renderer(self.road_map).render_rgb(camera, self._ego[step][:3], poses[1:][active[1:]], size, types)

    def observation(self, cameras: tuple[Camera, ...], frame_steps: tuple[int, ...] = FRAME_STEPS) -> Observation:
        """What the ego may see now; steps before the world's first one show the first one."""
        steps = [max(self.step + k, 0) for k in frame_steps]
        images = np.stack([np.stack([self._kept_image(i, camera, k) for k in steps]) for i, camera in enumerate(cameras)])
        self._images = {key: image for key, image in self._images.items() if key[1] > self.step + min(frame_steps)}
        ego = self.ego
        return Observation(
            id=f"{self.town}-{self.kind}-{self.seed}-{self.step}",
            images=images,
            cameras=cameras,
            frame_dt=DT * (frame_steps[-1] - frame_steps[0]) / max(len(frame_steps) - 1, 1),
            ego_history=relative(ego.pose_world, np.stack([self._ego[k][:3] for k in steps])),
            speed=ego.speed,
            acceleration=float(ego.acceleration_ego[0]),
            yaw_rate=ego.yaw_rate,
            command=self.command,
        )

    def _kept_image(self, index: int, camera: Camera, step: int) -> NDArray[np.uint8]:
        key = (index, step)
        if key not in self._images:
            self._images[key] = self.image(camera, step)
        return self._images[key]
