"""The embedded world as a Gymnasium environment, "drive/Embedded-v0".

Actions are in [-1, 1]. control="trajectory": (10, 3), the plan's half-second motions in the car's own frame, one after the other:
forward 0..15 m, sideways +-1.5 m, turn +-0.6 rad; 0.5 s are driven. control="pedals": (2,), acceleration -6..3 m/s^2 (0 is
coasting) and wheel angle +-0.6 rad; 0.2 s are driven.

Reward of a step: metres along the route over those that the speed limit allows, at most 1, less 0.1 per metre beside the route
and 0.1 per radian against it; -5 more for a collision or leaving the road. `info` holds the parts.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from drive.core.errors import ConfigError
from drive.core.geometry import compose, relative
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, Trajectory
from drive.simulators.embedded_simulator import RUN_UP, situation
from drive.simulators.routes import COMMANDS, Route
from drive.simulators.scenarios import KINDS
from drive.simulators.towns import town_names
from drive.simulators.traffic import DT
from drive.simulators.world import World

STEPS = {"trajectory": 5, "pedals": 2}  # steps of 0.1 s per action
MOTION_LOW, MOTION_HIGH = np.array([0.0, -1.5, -0.6]), np.array([15.0, 1.5, 0.6])
BRAKE, PUSH, WHEEL = 6.0, 3.0, 0.6  # m/s^2, m/s^2, rad
ROUTE_AHEAD = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0)  # m along the route of the points in the state
STATE_SIZE = 7 + len(COMMANDS) + 2 * len(ROUTE_AHEAD)
STATE_BOUND = 10.0
CRASH = 5.0


class EmbeddedEnv(gymnasium.Env):
    """Observation: "image" (H, W, 3) uint8 of the front camera; "state" (STATE_SIZE,) float32: speed / 20, acceleration / 5,
    yaw rate, wheel angle, metres left of the route, rad against it, speed limit / 20, command (one-hot), and points of the route
    (x, y) / 50 in the ego frame.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        split: str = "train",
        control: str = "trajectory",
        kinds: tuple[str, ...] = KINDS,
        size: int = 112,
        seconds: float = 30.0,
        render_mode: str | None = None,
    ) -> None:
        """`size` is the image's width and height in pixels. Raises ConfigError on an unknown control."""
        if control not in STEPS:
            raise ConfigError(f"no control {control!r}: choose one of {', '.join(STEPS)}")
        self.towns, self.control, self.kinds, self.seconds, self.render_mode = (
            town_names(split),
            control,
            kinds,
            seconds,
            render_mode,
        )
        self.camera = Camera.front(size, size)
        shape = (PLAN_STEPS, 3) if control == "trajectory" else (2,)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, shape, np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8),
                "state": gymnasium.spaces.Box(-STATE_BOUND, STATE_BOUND, (STATE_SIZE,), np.float32),
            }
        )
        self._world: World | None = None

    @property
    def world(self) -> World:
        """The world being driven; there is none before the first reset."""
        if self._world is None:
            raise gymnasium.error.ResetNeeded("call reset() before the first step")
        return self._world

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray], dict[str, Any]]:
        """Start a new drive; `options` are not used."""
        super().reset(seed=seed)
        self._world = situation(self.towns, self.kinds, int(self.np_random.integers(2**31)))
        return self._observe(), {"town": self._world.town, "kind": self._world.kind}

    def step(self, action: NDArray) -> tuple[dict[str, NDArray], float, bool, bool, dict[str, Any]]:
        """Drive one action."""
        world, steps = self.world, STEPS[self.control]
        before, seen = world.route_s, len(world.events)
        limit = float(world.route.speed_limit[world.route_index])
        action = np.clip(np.asarray(action, float), -1.0, 1.0)
        if self.control == "trajectory":
            world.drive(plan_of(action), steps)
        else:
            world.drive_control(action[0] * (PUSH if action[0] > 0.0 else BRAKE), action[1] * WHEEL, steps)
        new = [text for _, text in world.events[seen:]]
        crashed = any(text == "off_road" or text.startswith("collision") for text in new)
        progress = (world.route_s - before) / (max(limit, 1.0) * steps * DT)
        lateral, against = self._beside_route()
        reward = float(np.clip(progress, -1.0, 1.0) - 0.1 * min(abs(lateral), 5.0) - 0.1 * abs(against) - CRASH * crashed)
        late = (world.step - RUN_UP) * DT >= self.seconds - 1e-6
        info = {"progress": progress, "lateral": lateral, "heading_error": against, "crashed": crashed, "events": new}
        return self._observe(), reward, world.over, bool(late and not world.over), info

    def render(self) -> NDArray[np.uint8] | None:
        """The front camera at the present, (H, W, 3), in render mode rgb_array."""
        return self.world.image(self.camera, self.world.step) if self.render_mode == "rgb_array" else None

    def _beside_route(self) -> tuple[float, float]:
        """(m left of the route, rad against it)."""
        return beside_route(self.world.state, self.world.route, self.world.route_index)

    def _observe(self) -> dict[str, NDArray]:
        world = self.world
        return {"image": world.image(self.camera, world.step), "state": state_vector(world.state, world.route, world.route_index)}


def beside_route(state: NDArray, route: Route, index: int) -> tuple[float, float]:
    """(m left of the route, rad against it) of a car at `state` (11,) whose nearest point of the route is `index`."""
    _, lateral, against = relative(route.path[index], state[:3])
    return float(lateral), float(against)


def state_vector(state: NDArray, route: Route, index: int) -> NDArray[np.float32]:
    """(STATE_SIZE,) "state" of an observation; arguments as in `beside_route`."""
    at = index + np.round(ROUTE_AHEAD).astype(int)  # route points are 1 m apart
    points = relative(state[:3], route.path[np.minimum(at, len(route) - 1)])[:, :2] / 50.0
    command = np.arange(len(COMMANDS)) == route.command[index]
    own = [state[3] / 20.0, state[5] / 5.0, state[9], state[7], *beside_route(state, route, index), route.speed_limit[index] / 20.0]
    return np.clip(np.concatenate([own, command, points.ravel()]), -STATE_BOUND, STATE_BOUND).astype(np.float32)


def plan_of(action: NDArray) -> Trajectory:
    """The plan of a "trajectory" action (10, 3) in [-1, 1]."""
    motions = MOTION_LOW + (np.asarray(action, float) + 1.0) / 2.0 * (MOTION_HIGH - MOTION_LOW)
    poses, pose = np.empty((PLAN_STEPS, 3)), np.zeros(3)
    for k, motion in enumerate(motions):
        pose = compose(pose, motion)
        poses[k] = pose
    return Trajectory(poses, PLAN_DT)


gymnasium.register(id="drive/Embedded-v0", entry_point="drive.simulators.gym_env:EmbeddedEnv")
