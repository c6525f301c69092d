"""One route of a closed-loop benchmark: driven through the carla client, recorded, and judged."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from drive.benchmarks.carla_film import FilmLog, RouteLog
from drive.benchmarks.carla_motion import MotionLog
from drive.benchmarks.carla_stops import RED, red_lights, stops_ahead
from drive.core.geometry import arc_length, compose, interpolate_poses, project, relative
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.types import AgentType, Camera, Plan, PlanStatus, Privileged, Tracks, Trajectory
from drive.metrics.carla_contacts import Contact
from drive.metrics.carla_infractions import RollOut, Surroundings, judge
from drive.metrics.carla_lanes import LaneIndex
from drive.metrics.carla_progress import EndWatch
from drive.metrics.carla_records import Failure, RouteRecord
from drive.metrics.carla_scores import Rule, record_of
from drive.metrics.carla_signs import StopSign, TrafficLight
from drive.planners.route_follower import RouteFollower
from drive.simulators.carla_pid import ControllerKind
from drive.simulators.carla_route_plan import junction_share, plan_route
from drive.simulators.carla_routes import CarlaRoute, WeatherPoint
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import PLAN_S, CarlaSimulator
from drive.simulators.carla_town import ClientTown
from drive.simulators.routes import Route

Array = NDArray[np.float64]
CREEP, CREEP_SPEED, STILL = 1.5, 3.0, 0.1  # s, m/s; m/s below which a car stands
BAR = (0.6, 3.2, 1.5)  # m, of the barrier that stands for a red light to planners that read the ground truth


@dataclass(frozen=True)
class DriveConfig:
    """How routes are driven."""

    rule: Rule = Rule.LEADERBOARD_2_1
    seed: int = 0
    cameras: tuple[Camera, ...] = (Camera.front(),)  # of planners that see; those that read the ground truth get none
    latency: float | None = 0.0  # s between a plan's observation and its coming to the car; None takes what each plan really took
    run_up: float = 0.0  # s at the start that the route follower drives: planners that learnt from drives in motion cannot start one
    creep_after: float = 0.0  # s of standing still after which the car creeps for CREEP s, as TransFuser's does (Chitta et al. 2022); 0 never
    vehicles: int = 20  # of the background traffic
    walkers: int = 10
    controller: ControllerKind = ControllerKind.LQR  # that follows a plan's trajectory


@dataclass(frozen=True)
class DrivenRoute:
    """A route's record, and what a table or pictures of it need."""

    record: RouteRecord
    poses: Array  # (T, 3) box middles, world
    plan_seconds: float  # mean wall clock of a plan
    driven_seconds: float  # of the world
    wall_seconds: float
    comfort: float | None = None  # Bench2Drive's smoothness, 0..1; None where it was not driven
    junction: float | None = None  # `junction_share` of the route
    log: RouteLog | None = None


def drive_route(
    session: Session,
    route: CarlaRoute,
    planner: Planner | PrivilegedPlanner,
    config: DriveConfig,
    add: Callable[..., Any] | None = None,
    film: bool = False,
) -> DrivenRoute:
    """Drive `route` from its start to whatever ends it.

    `add(session, town, simulator, route, config)` puts traffic and scenarios into the world: an object with `before_tick()`,
    `mean_speed()` (m/s, NaN without traffic), `close()`, `note()` at every tick of the recording (whether a blocked car is looked for),
    and `told()`: what else a RollOut has to know of its scenarios. `film`: note what a film is drawn from; it changes nothing else.
    Raises DriveError where the town is not there or the route does not fit it.
    """
    start = time.perf_counter()
    session.load(route.town)
    town = ClientTown(session.world)
    path = plan_route(town.road_map, route.keypoints, route.yaw)
    privileged = isinstance(planner, PrivilegedPlanner)
    height = float(route.keypoints[0, 2])
    try:
        planner.reset()
    except Exception as error:  # the user's own code
        tell(f"route {route.id}: the planner cannot begin ({told(error)})")
        return undriven(route, config, Failure.AGENT_SETUP)
    simulator = CarlaSimulator(session, town.road_map, path, () if privileged else config.cameras, height, controller=config.controller)
    company = add(session, town, simulator, route, config) if add is not None else None
    gone = False
    try:
        recording = _Recording(simulator, town, path, company, config, FilmLog(simulator) if film else None)
        why, plan_seconds = _drive(simulator, planner, recording, company, route, config)
    except RuntimeError:  # of the carla client
        gone = True
        raise
    finally:
        if company is not None:
            company.close()
        if not gone:  # a server that does not answer would be waited for once more
            session.clear()
    if why:
        tell(f"route {route.id}: the planner failed after {simulator.time_s:g} s ({why})")
    verdict = judge(recording.rollout(), path.path, recording.surroundings(), config.rule)
    record = record_of(
        f"RouteScenario_{route.id}_rep0",
        verdict.events,
        verdict.completion,
        config.rule,
        failure=Failure.AGENT if why else verdict.failure,
        route_length=path.length,
        duration_game=simulator.time_s,
        duration_system=round(time.perf_counter() - start, 3),
        texts=texts_of(route),
    )
    poses, wall = np.stack(recording.poses), time.perf_counter() - start
    log = RouteLog(
        town.road_map,
        path,
        tuple(light.stops for light in town.lights),
        np.array(recording.times),
        poses,
        verdict.events,
        recording.film.film() if recording.film is not None else None,
    )
    return DrivenRoute(record, poses, plan_seconds, simulator.time_s, wall, recording.motion.comfort(), junction_share(path), log)


def texts_of(route: CarlaRoute) -> dict[str, str]:
    """What Bench2Drive's records tell of a route beside its scores; its abilities go by the type of the first scenario."""
    named = {"scenario_name": f"{route.scenarios[0].type}_1"} if route.scenarios else {}
    return {**named, "town_name": route.town}


def undriven(route: CarlaRoute, config: DriveConfig, failure: Failure) -> DrivenRoute:
    """A route that counts 0."""
    record = record_of(f"RouteScenario_{route.id}_rep0", (), 0.0, config.rule, failure=failure, texts=texts_of(route))
    return DrivenRoute(record, np.zeros((0, 3)), 0.0, 0.0, 0.0)


def tell(line: str) -> None:
    """To the user, above the bar of progress; standard output is the table's."""
    tqdm.write(line, file=sys.stderr)


class _Recording:
    """What the judge asks for, tick by tick; and the judge of what ends a route, asked live."""

    def __init__(self, simulator: CarlaSimulator, town: ClientTown, path: Route, company: Any, config: DriveConfig, film: FilmLog | None) -> None:
        self.simulator, self.town, self.company, self.film = simulator, town, company, film
        self.motion = MotionLog()
        self.watch = EndWatch(path.path, config.rule)
        self.times: list[float] = []
        self.poses: list[Array] = []
        self.velocities: list[Array] = []
        self.limits: list[float] = []
        self.traffic: list[float] = []
        self.red: list[list[bool]] = []
        self.contacts: list[Contact] = []
        self._first_frame = simulator.frame

    def tick(self) -> bool:
        """Note the present; whether the route is over."""
        simulator = self.simulator
        ego, state = simulator.ego, simulator.state
        pose = compose(state[:3], np.array([ego.rear, 0.0, 0.0]))
        velocity = ego.actor.get_velocity()
        limit = float(simulator.route.speed_limit[simulator.route_index])
        self.times.append(simulator.time_s)
        self.poses.append(pose)
        self.velocities.append(np.array([velocity.x, -velocity.y]))
        self.limits.append(limit)
        self.traffic.append(self.company.mean_speed() if self.company is not None else np.nan)
        lights = tuple(light.actor.get_state().name for light in self.town.lights)
        self.red.append([state == RED for state in lights])
        self.motion.note(ego.actor)
        if self.film is not None:
            self.film.tick(lights)
        while ego.collisions:
            frame, other, type_id, _ = ego.collisions.popleft()
            tick = min(max(frame - self._first_frame, 0), len(self.times) - 1)
            self.contacts.append(Contact(tick, other, type_id))
        speed = float(np.hypot(velocity.x, velocity.y))
        watched = self.company.note() if self.company is not None else True
        return self.watch.step(simulator.time_s, float(pose[0]), float(pose[1]), speed, limit, watched) is not None

    def rollout(self) -> RollOut:
        """All of it."""
        return RollOut(
            np.array(self.times),
            np.stack(self.poses),
            np.stack(self.velocities),
            self.simulator.ego.vehicle.length / 2.0,
            np.array(self.limits),
            np.array(self.traffic),
            tuple(sorted(self.contacts, key=lambda c: (c.tick, c.actor_id))),
            np.array(self.red, bool).reshape(len(self.times), -1),
            **(self.company.told() if self.company is not None else {}),
        )

    def surroundings(self) -> Surroundings:
        """The town, as the judge looks at it."""
        town = self.town
        lights = tuple(TrafficLight(k.actor.id, k.position, k.trigger, k.stops) for k in town.lights)
        signs = tuple(StopSign(s.id, s.position, s.trigger, s.half_size) for s in town.signs)
        return Surroundings(LaneIndex(town.road_map.lanes.values()), None, lights, signs)


def weather_at(points: Sequence[WeatherPoint], percent: float) -> dict[str, float]:
    """carla.WeatherParameters by name at a share of the route, between the points that are told; empty where none is."""
    at = [point.percentage for point in points]
    names = {name for point in points for name in point.values}
    return {name: float(np.interp(percent, at, [point.values.get(name, 0.0) for point in points])) for name in sorted(names)}


def set_weather(session: Session, points: Sequence[WeatherPoint], percent: float) -> None:
    """Give the world the weather of that share of the route; one that the file leaves open stays as it is."""
    if not points:
        return
    weather = session.world.get_weather()
    for name, value in weather_at(points, percent).items():
        if hasattr(weather, name):
            setattr(weather, name, value)
    session.world.set_weather(weather)


class Chooser:
    """Whose plan the car follows next: the run-up's, the creep's or the planner's. Asked once for each PLAN_S seconds."""

    def __init__(self, simulator: CarlaSimulator, planner: Any, town: ClientTown | None, config: DriveConfig) -> None:
        """`town` is for planners that read the ground truth."""
        self._simulator, self._planner, self._town, self._config = simulator, planner, town, config
        self._follower = RouteFollower()
        self._still = 0.0  # s that the car has stood
        self._took: list[float] = []

    @property
    def mean_seconds(self) -> float:
        """Mean wall clock of the planner's plans."""
        return float(np.mean(self._took)) if self._took else 0.0

    def next(self) -> tuple[Plan, float]:
        """The plan, without trajectory where the planner failed, and the seconds after which it reaches the car."""
        simulator, config = self._simulator, self._config
        begun, latency = time.perf_counter(), 0.0
        if simulator.time_s < config.run_up - 1e-6:
            plan = self._follower.plan_privileged([simulator.privileged()])[0]
        elif config.creep_after and self._still >= config.creep_after:
            plan = _creep(simulator)
            self._still = self._still if self._still < config.creep_after + CREEP - 1e-6 else 0.0
        else:
            plan = ask(self._planner, simulator, self._town)
            self._took.append(time.perf_counter() - begun)
            latency = self._took[-1] if config.latency is None else config.latency
        standing = float(simulator.state[3]) < STILL
        self._still = self._still + PLAN_S if standing or self._still >= config.creep_after > 0.0 else 0.0
        return plan, latency


def _drive(simulator: CarlaSimulator, planner: Any, recording: _Recording, company: Any, route: CarlaRoute, config: DriveConfig) -> tuple[str, float]:
    """Why it ended, where the planner was to blame, else ""; mean seconds of a plan."""
    over = recording.tick()
    chooser = Chooser(simulator, planner, recording.town, config)
    while not over:
        set_weather(simulator.session, route.weather, recording.watch.percent)
        plan, latency = chooser.next()
        if recording.film is not None:
            recording.film.plan(plan, latency)
        if plan.trajectory is None:
            return plan.reasoning or plan.status.value, chooser.mean_seconds
        for _ in simulator.follow(plan, latency):
            if company is not None:
                company.before_tick()
            simulator.advance()
            over = recording.tick()
            if over:
                break
        if not over:
            simulator.look()
    return "", chooser.mean_seconds


def _creep(simulator: CarlaSimulator) -> Plan:
    """A plan along the route at CREEP_SPEED."""
    scene = simulator.privileged()
    line = scene.centerline_world
    s = arc_length(line)
    at, _ = project(line[:, :2], scene.ego.pose_world[:2])
    ahead = interpolate_poses(s, line, np.minimum(at + CREEP_SPEED * PLAN_S * np.arange(1, 11), s[-1]))
    return Plan(Trajectory(relative(scene.ego.pose_world, ahead), PLAN_S))


def ask(planner: Any, simulator: CarlaSimulator, town: ClientTown | None) -> Plan:
    """One plan; a planner that raises, or answers with anything else, has failed. What the world raises is not the planner's fault."""
    if isinstance(planner, PrivilegedPlanner):
        scene = simulator.privileged()
        plan, seen = planner.plan_privileged, with_lights(scene, simulator, town) if town is not None else scene
    else:
        plan, seen = planner.plan, simulator.observation()
    try:
        (found,) = plan([seen])  # type: ignore[list-item]  # each kind of planner gets its own kind of scene
        if not isinstance(found, Plan):
            raise TypeError(f"it answered with {type(found).__name__}, not with a Plan")
    except Exception as error:  # a planner is the user's own code: what it raises ends the route, and is told
        return Plan(None, PlanStatus.FAILED, reasoning=told(error))
    return found


def told(error: Exception) -> str:
    """What somebody's code raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {Path(frame.filename).name}:{frame.lineno}"


def with_lights(scene: Privileged, simulator: CarlaSimulator, town: ClientTown) -> Privileged:
    """The scene with a barrier at the end of every lane of the route's roads whose light is red, or yellow in good time, and at stop signs still to be stopped at.

    Planners after PDM know boxes, not lights and signs.
    """
    bars = stop_bars(simulator, town, scene.route_lane_ids)
    if not len(bars):
        return scene
    acceleration = None if scene.agent_acceleration is None else np.concatenate([scene.agent_acceleration, np.zeros(len(bars))])
    return replace(scene, agents=joined(scene.agents, bars), agent_acceleration=acceleration)


def stop_bars(simulator: CarlaSimulator, town: ClientTown, route_lane_ids: tuple[str, ...]) -> Tracks:
    """Those barriers, one step; each is named by its place."""
    rows = red_lights(simulator, town, route_lane_ids) + stops_ahead(simulator, town)
    named = {f"stop-line {x:.0f} {y:.0f}": np.array([x, y, heading]) for x, y, heading in rows}
    n = len(named)
    poses = compose(np.array(list(named.values())).reshape(-1, 3), np.array([BAR[0], 0.0, 0.0]))[:, None]
    return Tracks(tuple(named), np.full(n, int(AgentType.BARRIER), np.int64), np.tile(BAR, (n, 1)), poses, np.zeros((n, 1, 2)), np.ones((n, 1), bool))


def joined(agents: Tracks, more: Tracks) -> Tracks:
    """Agents of either, over the same steps."""
    return Tracks(
        agents.ids + more.ids,
        np.concatenate([agents.types, more.types]),
        np.concatenate([agents.size, more.size]),
        np.concatenate([agents.poses_world, more.poses_world]),
        np.concatenate([agents.velocity_world, more.velocity_world]),
        np.concatenate([agents.valid, more.valid]),
    )
