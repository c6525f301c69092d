"""Driving in CARLA as a Gymnasium environment, "drive/Carla-v0": by the carla client alone, on a server of our own or on one that is there.

Observations and "trajectory" actions are those of drive/Embedded-v0. control="pedals": (2,) in [-1, 1], throttle (above 0) or brake (below),
and the wheel, left positive; 0.2 s are driven.

Reward of a step: metres along the route over those that the speed limit allows, at most 1, less 0.1 per metre beside the route and 0.1 per
radian against it, less 1 for each red light that was passed; -5 more for a collision, for leaving the road or the route. `info` holds the parts.
A collision, leaving the road or the route, and the route's end terminate an episode; the time limit and a server that is lost truncate it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import shapely
from numpy.typing import NDArray

from drive.core.errors import ConfigError, DataError, DriveError
from drive.core.geometry import box_corners, compose, relative
from drive.core.types import PLAN_STEPS, Camera, Plan
from drive.simulators.carla_ego import CarlaEgo
from drive.simulators.carla_embedded_routes import embedded_routes
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.carla_scenarios import ScenarioRunner, specs_on_route
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import PLAN_S, CarlaSimulator
from drive.simulators.carla_town import ClientTown
from drive.simulators.carla_traffic import CarlaTraffic, EgoView, TrafficSettings
from drive.simulators.gym_env import CRASH, STATE_BOUND, STATE_SIZE, beside_route, plan_of, state_vector
from drive.simulators.world_events import drivable_area

SECONDS = {"trajectory": PLAN_S, "pedals": 0.2}  # driven per action
RETRIES = 2  # episodes in a row that may be lost with their server
END_ROOM = 5.0  # m before the end of the route at which it is done
OFF_ROUTE = 30.0  # m, as in the leaderboard's InRouteTest
RED_COST = 1.0
ROUTE_END = "route_end"
ACROSS = 2.0  # m from the middle of a lane within which its stop line is crossed


class CarlaEnv(gymnasium.Env):
    """Observation: "image" (H, W, 3) uint8 of the front camera; "state" (STATE_SIZE,) float32, see drive.simulators.gym_env."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        split: str = "train",
        routes: Sequence[CarlaRoute] | None = None,
        control: str = "trajectory",
        size: int = 112,
        seconds: float = 60.0,
        vehicles: int = 20,
        walkers: int = 10,
        host: str | None = None,
        port: int = 2000,
        maps: str | Path | None = None,
        timeout: float = 30.0,
        render_mode: str | None = None,
    ) -> None:
        """Episodes on `routes`, or on the embedded ones of `split`; a server of our own, with the towns of `maps`, where there is no `host`.

        `size` is the image's width and height in pixels, `timeout` s that a server may take to answer. Raises ConfigError on settings that are none.
        """
        if control not in SECONDS:
            raise ConfigError(f"no control {control!r}: choose one of {', '.join(SECONDS)}")
        self.routes = tuple(embedded_routes(split).routes if routes is None else routes)
        if not self.routes:
            raise ConfigError("an environment takes at least one route")
        self.control, self.seconds, self.render_mode = control, seconds, render_mode
        self.traffic = TrafficSettings(vehicles, walkers)
        self.camera = Camera.front(size, size)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (PLAN_STEPS, 3) if control == "trajectory" else (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": gymnasium.spaces.Box(-STATE_BOUND, STATE_BOUND, (STATE_SIZE,), np.float32),
            }
        )
        self._link = _Link(host, port, Path(maps) if maps is not None else None, timeout)
        self._drive: _Drive | None = None
        self._seen: dict[str, NDArray] = {}
        self._lost = 0  # episodes in a row

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Start a new drive; `options` are not used. Raises DriveError where there is no server, no town, or no way to begin there."""
        super().reset(seed=seed)
        route = self.routes[int(self.np_random.integers(len(self.routes)))]
        draw = int(self.np_random.integers(2**31))
        for attempt in range(RETRIES + 1):
            try:
                self._finish()
                self._drive = _Drive(self._link.load(route), route, draw, self.traffic, self.camera, SECONDS[self.control])
                self._seen = self._drive.observe()
                return self._seen, {"route": route.id, "town": route.town}
            except (_Absent, DataError):
                raise
            except (RuntimeError, DriveError) as error:  # of the carla client; a camera that stays silent
                self._drop()
                if attempt == RETRIES:
                    raise DriveError(f"route {route.id} could not be begun {RETRIES + 1} times ({error}): see whether the server can be driven in") from error
        raise AssertionError("unreachable")

    def step(self, action: NDArray) -> tuple[dict[str, NDArray], float, bool, bool, dict[str, Any]]:
        """Drive one action. Raises DriveError where more than RETRIES episodes in a row were lost with their server."""
        if self._drive is None:
            raise gymnasium.error.ResetNeeded("call reset() before the next step")
        action = np.asarray(action, float)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise DataError(f"an action is finite, of shape {self.action_space.shape}; got {action.shape}: {action.ravel()[:4]} ...")
        try:
            info = self._drive.act(np.clip(action, -1.0, 1.0))
            self._seen = self._drive.observe()
        except (RuntimeError, DriveError) as error:
            return self._seen, 0.0, False, True, self._give_up(error)
        over, late = bool(info["events"]), self._drive.simulator.time_s >= self.seconds - 1e-6
        fine = 0.1 * min(abs(info["lateral"]), 5.0) + 0.1 * abs(info["heading_error"]) + RED_COST * info["red_lights"] + CRASH * info["crashed"]
        return self._seen, float(np.clip(info["progress"], -1.0, 1.0) - fine), over, late and not over, info

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera at the present, (H, W, 3), in render mode rgb_array."""
        return self._seen["image"] if self.render_mode == "rgb_array" and self._seen else None

    def close(self) -> None:
        """Leave the server as it was, and end it if it is ours. A later reset begins anew."""
        try:
            self._finish()
        except (RuntimeError, DriveError):  # it has gone: there is nothing to leave in order
            self._drop()
        self._link.close()

    def _finish(self) -> None:
        drive, self._drive = self._drive, None
        if drive is not None:
            drive.close()
            self._lost = 0

    def _drop(self) -> None:
        self._drive = None
        self._link.drop()

    def _give_up(self, error: Exception) -> dict[str, Any]:
        """What is told of an episode whose server is lost."""
        self._drop()
        self._lost += 1
        if self._lost > RETRIES:
            raise DriveError(f"{self._lost} episodes in a row were lost with their server (the last: {error}): see why it ends") from error
        gymnasium.logger.warn(f"the server was lost and the episode with it, the next reset starts or seeks a new one: {error}")
        return {"progress": 0.0, "lateral": 0.0, "heading_error": 0.0, "red_lights": 0, "crashed": False, "events": [], "lost": str(error)}


class _Absent(DriveError):
    """There is no server, or it does not have the town: another try would not help."""


class _Link:
    """The server and the session of an environment, made when first needed and again after a loss."""

    def __init__(self, host: str | None, port: int, maps: Path | None, timeout_s: float) -> None:
        self._address, self._maps, self._timeout_s = (host, port), maps, timeout_s
        self._server: ServerProcess | None = None
        self._session: Session | None = None

    def load(self, route: CarlaRoute) -> Session:
        """A session in the town of `route`, anew on a server of our own: on another one only where it is in another town, as that takes long."""
        session = self._connected()
        if route.town not in session.towns():
            raise _Absent(f"route {route.id}: the server has no town {route.town}; it has {', '.join(session.towns())}")
        if self._server is not None or session.world.get_map().name.rsplit("/", 1)[-1] != route.town:
            session.load(route.town)
        else:
            session.world.reset_all_traffic_lights()
        return session

    def _connected(self) -> Session:
        if self._session is None:
            host, port = self._address
            try:
                if host is None:
                    self._server = ServerProcess(maps=self._maps)
                    self._server.start()
                    host, port = self._server.host, self._server.port
                self._session = Session(host, port, timeout_s=self._timeout_s)
            except DriveError as error:
                self.drop()
                raise _Absent(str(error)) from error
        return self._session

    def drop(self) -> None:
        """Let a server go that does not answer; ours is ended."""
        session, self._session = self._session, None
        if self._server is not None:
            self._server.stop()
            self._server = None
        elif session is not None:
            session.close()
        del session
        gc.collect()  # traffic and scenarios know each other, and with them the client would stay, and its sockets

    def close(self) -> None:
        """Leave the server as it was; ours is ended."""
        if self._session is not None and self._server is not None:
            self._session.close()
        self.drop()


class _Drive:
    """One episode: the car on its route, who else is there, and what befell it."""

    def __init__(self, session: Session, route: CarlaRoute, seed: int, traffic: TrafficSettings, camera: Camera, seconds: float) -> None:
        """`seconds` per action. Raises DriveError where there is no room, DataError where the route does not fit the town."""
        town = ClientTown(session.world)
        self.route = plan_route(town.road_map, route.keypoints, route.yaw)
        self._session, self._steps, self._area = session, round(seconds / session.dt), drivable_area(town.road_map)
        ego = CarlaEgo(session, self.route.path[0], (camera,), seconds, float(route.keypoints[0, 2]))
        self.simulator = CarlaSimulator(session, town.road_map, self.route, ego=ego)
        specs, _ = specs_on_route(self.route, route.scenarios)
        self._runner = ScenarioRunner(specs, seed)
        self._traffic = CarlaTraffic(town.road_map, traffic, seed, [self._runner])
        self._traffic.start(session, self._view())
        lines = [(light.actor, stop) for light in town.lights for lane, stop in zip(light.lanes, light.stops) if lane in self.route.lane_ids]
        self._lights, self._lines = [actor for actor, _ in lines], np.array([stop for _, stop in lines]).reshape(-1, 3)
        self._places = self._beyond_lines()
        ego.collisions.clear()  # a car that is set down may touch the ground

    def _view(self) -> EgoView:
        simulator = self.simulator
        return EgoView(simulator.state, simulator.ego.vehicle, self.route, simulator.route_index)

    def observe(self) -> dict[str, NDArray]:
        """The present."""
        simulator = self.simulator
        return {"image": simulator.observation().images[0, -1], "state": state_vector(simulator.state, self.route, simulator.route_index)}

    def act(self, action: NDArray) -> dict[str, Any]:
        """Drive an action in [-1, 1]: (10, 3) motions, or (2,) pedals and wheel; the parts of its reward."""
        simulator, before, reds = self.simulator, self.simulator.route_s, 0
        limit = float(self.route.speed_limit[simulator.route_index])
        for _ in simulator.follow(Plan(plan_of(action))) if action.ndim == 2 else self._pedals(*action.tolist()):
            self._traffic.before_tick(self._view())
            simulator.ego.noise = self._runner.noise
            simulator.advance()
            reds += self._red_lights()
        simulator.look()
        lateral, against = beside_route(simulator.state, self.route, simulator.route_index)
        events = self._events()
        return {
            "progress": (simulator.route_s - before) / (max(limit, 1.0) * self._steps * self._session.dt),
            "lateral": lateral,
            "heading_error": against,
            "red_lights": reds,
            "crashed": any(text != ROUTE_END for text in events),
            "events": events,
            "lost": "",
        }

    def _pedals(self, pedal: float, wheel: float) -> Iterator[None]:
        for _ in range(self._steps):
            self.simulator.ego.apply(max(pedal, 0.0), wheel, max(-pedal, 0.0))
            yield

    def _beyond_lines(self) -> NDArray[np.float64]:
        """(K, 3) the car's front in the frames of the stop lines."""
        front = compose(self.simulator.state[:3], np.array([self.simulator.ego.vehicle.front_length, 0.0, 0.0]))
        return relative(self._lines, front)

    def _red_lights(self) -> int:
        """Stop lines that were passed in this tick while their light was red."""
        before, self._places = self._places, self._beyond_lines()
        passed = (before[:, 0] < 0.0) & (self._places[:, 0] >= 0.0) & (np.abs(self._places[:, 1]) < ACROSS)
        return sum(self._lights[k].get_state() == self._session.carla.TrafficLightState.Red for k in np.flatnonzero(passed))

    def _events(self) -> list[str]:
        """What ends the episode now."""
        simulator, ego, events = self.simulator, self.simulator.ego, []
        while ego.collisions:
            _, _, other, _ = ego.collisions.popleft()
            if "sidewalk" not in other and f"collision {other}" not in events:  # a kerb is no collision, as for the leaderboard
                events.append(f"collision {other}")
        car = ego.vehicle
        corners = box_corners(simulator.state[:3], car.length, car.width, car.rear_to_center)
        if not shapely.contains_xy(self._area, corners[:, 0], corners[:, 1]).all():
            events.append("off_road")
        if np.hypot(*(self.route.path[simulator.route_index, :2] - simulator.state[:2])) > OFF_ROUTE:
            events.append("off_route")
        if simulator.route_s > self.route.length - END_ROOM:
            events.append(ROUTE_END)
        return events

    def close(self) -> None:
        """Take the car and everybody else away."""
        self._traffic.close()
        self._session.clear()


gymnasium.register(id="drive/Carla-v0", entry_point="drive.simulators.carla_env:CarlaEnv")
