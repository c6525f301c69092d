"""The words of drive: Scenario, Observation, Privileged, Trajectory, Plan, Rollout.

Metres, seconds, radians. `_ego` is the ego frame at the scenario's present (x forward, y left, origin at the rear axle),
`_world` the flat map frame. Every array is read-only by convention: make a new object rather than write into one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose, relative
from drive.core.roadmap import RoadMap

Array = NDArray[np.float64]
PLAN_DT = 0.5  # seconds of one action token
PLAN_STEPS = 10  # action tokens of a plan: 5 s


class Frame(str, Enum):
    """Frame of a Trajectory's poses."""

    EGO = "ego"  # rear axle at the present
    WORLD = "world"


class AgentType(IntEnum):
    """nuPlan's classes; from TRAFFIC_CONE on they are static objects to the PDM score."""

    VEHICLE = 0
    PEDESTRIAN = 1
    BICYCLE = 2
    TRAFFIC_CONE = 3
    BARRIER = 4
    GENERIC_OBJECT = 5


class Command(str, Enum):
    """Route command at the present, in CARLA's words; read from the route, never from the driven future."""

    LEFT = "left"
    RIGHT = "right"
    STRAIGHT = "straight"
    LANEFOLLOW = "lanefollow"
    CHANGELANELEFT = "changelaneleft"
    CHANGELANERIGHT = "changelaneright"


@dataclass(frozen=True)
class Trajectory:
    """Future poses, the first one `dt` after `t0`."""

    poses: Array  # (T, 3) x, y, heading in `frame`
    dt: float = PLAN_DT  # s between poses
    frame: Frame = Frame.EGO
    t0: float = 0.0  # s

    def __post_init__(self) -> None:
        if self.poses.ndim != 2 or self.poses.shape[1] != 3:
            raise DataError(f"a Trajectory takes poses of shape (T, 3), got {self.poses.shape}")
        if not np.isfinite(self.poses).all():
            raise DataError("a Trajectory takes finite poses, got NaN or infinity: drop the record or repair its source")

    @property
    def times(self) -> Array:
        """(T,) seconds."""
        return self.t0 + self.dt * np.arange(1, len(self.poses) + 1, dtype=np.float64)

    def to_world(self, origin_world: Array) -> Trajectory:
        """The same poses in the world frame; `origin_world` (3,) is the ego pose at the present."""
        if self.frame is Frame.WORLD:
            return self
        return Trajectory(compose(origin_world, self.poses), self.dt, Frame.WORLD, self.t0)

    def to_ego(self, origin_world: Array) -> Trajectory:
        """The same poses in the ego frame of `origin_world` (3,)."""
        if self.frame is Frame.EGO:
            return self
        return Trajectory(relative(origin_world, self.poses), self.dt, Frame.EGO, self.t0)


@dataclass(frozen=True)
class EgoState:
    """The ego at one instant; rear axle."""

    pose_world: Array  # (3,)
    velocity_ego: Array  # (2,) m/s along x, y of the body
    acceleration_ego: Array  # (2,) m/s^2
    yaw_rate: float = 0.0  # rad/s
    steering_angle: float = 0.0  # rad, at the wheels
    time_s: float = 0.0

    @property
    def speed(self) -> float:
        """m/s, never negative."""
        return float(np.hypot(*self.velocity_ego))


@dataclass(frozen=True)
class EgoTrack:
    """The ego over S steps of the scenario's clock; rear axle."""

    poses_world: Array  # (S, 3)
    velocity_ego: Array  # (S, 2) m/s
    acceleration_ego: Array  # (S, 2) m/s^2
    yaw_rate: Array  # (S,) rad/s

    def state(self, step: int, time_s: float = 0.0) -> EgoState:
        """The state at `step`; steering is zero, as NAVSIM starts it."""
        return EgoState(
            self.poses_world[step], self.velocity_ego[step], self.acceleration_ego[step], float(self.yaw_rate[step]), 0.0, time_s
        )


@dataclass(frozen=True)
class Tracks:
    """A agents over S steps of the scenario's clock; box centres."""

    ids: tuple[str, ...]
    types: NDArray[np.int64]  # (A,) AgentType
    size: Array  # (A, 3) length, width, height in m
    poses_world: Array  # (A, S, 3); zeros where not valid
    velocity_world: Array  # (A, S, 2) m/s
    valid: NDArray[np.bool_]  # (A, S)

    def __len__(self) -> int:
        return len(self.ids)

    def steps(self, start: int, stop: int) -> Tracks:
        """The same agents over steps start..stop-1."""
        cut = slice(start, stop)
        return Tracks(self.ids, self.types, self.size, self.poses_world[:, cut], self.velocity_world[:, cut], self.valid[:, cut])

    def subset(self, keep: NDArray) -> Tracks:
        """The agents chosen by a boolean mask or an index array (A,)."""
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        ids = tuple(self.ids[int(i)] for i in index)
        return Tracks(ids, self.types[index], self.size[index], self.poses_world[index], self.velocity_world[index], self.valid[index])

    def acceleration(self, step: int, dt: float, window_s: float = 0.5) -> Array:
        """(A,) m/s^2 of the speed over the `window_s` seconds before `step`; 0 where an agent was not there at both ends."""
        before = max(step - max(round(window_s / dt), 1), 0)
        speed = np.hypot(self.velocity_world[..., 0], self.velocity_world[..., 1])
        both = self.valid[:, step] & self.valid[:, before]
        return np.where(both, (speed[:, step] - speed[:, before]) / (max(step - before, 1) * dt), 0.0)

    @staticmethod
    def empty(steps: int) -> Tracks:
        """No agents over `steps` steps."""
        return Tracks((), np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, steps, 3)), np.zeros((0, steps, 2)), np.zeros((0, steps), bool))


class LightState(IntEnum):
    """What a traffic light shows."""

    UNKNOWN = 0
    GREEN = 1
    YELLOW = 2
    RED = 3


@dataclass(frozen=True)
class Lights:
    """Traffic lights over S steps of the scenario's clock, by the lane or lane connector that they rule."""

    lane_ids: tuple[str, ...]  # L, of the road map
    states: NDArray[np.int64]  # (L, S) LightState

    def steps(self, start: int, stop: int, unknown: int = 0) -> Lights:
        """The same lights over steps start..stop-1, with `unknown` steps of LightState.UNKNOWN in front."""
        return Lights(self.lane_ids, np.pad(self.states[:, start:stop], [(0, 0), (unknown, 0)]))


@dataclass(frozen=True)
class Question:
    """A question about a driving scene and its answer."""

    question: str
    answer: str
    topic: str = ""  # as the source sorts them, e.g. "perception"


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Optical frame: x right, y down, z forward (OpenCV)."""

    name: str
    width: int  # pixels
    height: int
    intrinsics: Array  # (3, 3) pixels
    ego_from_camera: Array  # (4, 4) optical frame to ego frame (z up, rear axle on the ground)

    @staticmethod
    def front(width: int = 112, height: int = 112, fov_deg: float = 80.0, name: str = "CAM_F0", yaw_deg: float = 0.0) -> Camera:
        """A roof camera 1.6 m ahead of the rear axle and 1.7 m high, pitched down 6 degrees; `fov_deg` is horizontal."""
        focal = width / 2.0 / np.tan(np.radians(fov_deg) / 2.0)
        intrinsics = np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])
        pitch, yaw = np.radians(6.0), np.radians(yaw_deg)
        forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), -np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
        pose[:3, 3] = (1.6, 0.0, 1.7)
        return Camera(name, width, height, intrinsics, pose)


class ImageSource(Protocol):
    """Where a scenario's camera frames come from: a file, a renderer."""

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of camera index `camera` at `step` of the scenario's clock."""
        ...


@dataclass(frozen=True)
class Observation:
    """All that the ego may see at one instant. Nothing here may depend on the future or on agents' ground truth."""

    id: str
    images: NDArray[np.uint8]  # (C, F, H, W, 3) RGB, C cameras, F frames in time order, the last one is the present
    cameras: tuple[Camera, ...]
    frame_dt: float  # s between frames
    ego_history: Array  # (F, 3) past rear-axle poses in the ego frame of the present; the last is zero
    speed: float  # m/s
    acceleration: float  # m/s^2, along the heading
    yaw_rate: float  # rad/s
    command: Command
    text: str = ""  # instruction of the passenger, empty if none


@dataclass(frozen=True)
class Privileged:
    """What only teachers, rewards and metrics may see: the map, the agents and, in a log, what happens next."""

    road_map: RoadMap
    route_lane_ids: tuple[str, ...]
    centerline_world: Array  # (N, 3) path that the route asks for
    ego: EgoState
    agents: Tracks  # step 0 is the present; later steps are the log's future, and are absent in a live world
    dt: float  # s between steps of `agents`
    command: Command
    agent_acceleration: Array | None = None  # (A,) m/s^2 along the heading at the present, from the past; None if unknown


@dataclass(frozen=True)
class Scenario:
    """One logged or generated driving situation around a present instant."""

    id: str
    source: str  # "embedded", "scenarionet", ...
    split: str  # "train", "val", "test"
    log_id: str  # scenarios of one log are not independent
    kind: str  # scenario type, e.g. "follow"
    dt: float  # s between steps
    present: int  # index of the present step
    road_map: RoadMap
    route_lane_ids: tuple[str, ...]
    centerline_world: Array  # (N, 3)
    command: Command
    ego: EgoTrack
    agents: Tracks
    cameras: tuple[Camera, ...]
    image_source: ImageSource
    frame_steps: tuple[int, ...]  # steps (relative to the present, <= 0) at which the ego has camera frames, time order
    teacher: Trajectory | None = None  # ego frame; what SFT imitates
    reference_world: Array | None = None  # (51, 3) at 10 Hz from the present: what progress is measured against (NAVSIM's PDM-Closed)
    reasoning: str = ""  # why the teacher does it; empty if unknown
    lights: Lights | None = None  # None where the source records none
    language: tuple[Question, ...] = ()  # about the present
    time_s: float = 0.0  # of the present, on the log's own clock
    notes: dict = field(default_factory=dict)

    def observation(self) -> Observation:
        """What the ego may see; built from steps <= present only."""
        steps = [self.present + s for s in self.frame_steps]
        if min(steps) < 0:
            raise DataError(f"scenario {self.id} starts {-min(steps)} steps too late for its {len(steps)} history frames")
        if max(self.frame_steps) > 0:
            raise DataError(f"scenario {self.id} asks for camera frames of the future: {self.frame_steps}")
        images = np.stack([np.stack([self.image_source.image(c, s) for s in steps]) for c in range(len(self.cameras))])
        frame_dt = self.dt * (self.frame_steps[-1] - self.frame_steps[0]) / max(len(steps) - 1, 1)
        now = self.ego.state(self.present)
        return Observation(
            id=self.id,
            images=images,
            cameras=self.cameras,
            frame_dt=frame_dt,
            ego_history=relative(now.pose_world, self.ego.poses_world[steps]),
            speed=now.speed,
            acceleration=float(now.acceleration_ego[0]),
            yaw_rate=now.yaw_rate,
            command=self.command,
        )

    def privileged(self) -> Privileged:
        """The map, the agents from the present on, and the ego state."""
        return Privileged(
            road_map=self.road_map,
            route_lane_ids=self.route_lane_ids,
            centerline_world=self.centerline_world,
            ego=self.ego.state(self.present),
            agents=self.agents.steps(self.present, self.agents.valid.shape[1]),
            dt=self.dt,
            command=self.command,
            agent_acceleration=self.agents.acceleration(self.present, self.dt),
        )

    def logged_future(self, steps: int = PLAN_STEPS, dt: float = PLAN_DT) -> Trajectory:
        """The driven future in the ego frame. Raises DataError if the log ends too early."""
        stride = round(dt / self.dt)
        index = self.present + stride * np.arange(1, steps + 1)
        if index[-1] >= len(self.ego.poses_world):
            raise DataError(f"scenario {self.id} ends before the {steps * dt:g} s future asked for")
        return Trajectory(relative(self.ego.poses_world[self.present], self.ego.poses_world[index]), dt)


class PlanStatus(str, Enum):
    """Whether a Plan may be driven."""

    OK = "ok"
    UNDECODABLE = "undecodable"  # counted, scored 0, never replaced by a default motion
    FAILED = "failed"  # the planner raised


@dataclass(frozen=True)
class Plan:
    """What a Planner answers."""

    trajectory: Trajectory | None  # ego frame; None unless status is OK
    status: PlanStatus = PlanStatus.OK
    reasoning: str = ""
    mode: str = ""  # "fast", "slow", or empty for planners that do not speak
    generated_tokens: int = 0
    log_prob: float = 0.0  # of the whole answer, sum over tokens
    alternatives: tuple[Trajectory, ...] = ()
    latency_s: float = 0.0  # wall clock, its share of the batch


class RolloutStatus(str, Enum):
    """How a closed-loop drive ended."""

    COMPLETED = "completed"
    PLANNER_FAILED = "planner_failed"
    UNDECODABLE = "undecodable"
    SIMULATOR_CRASHED = "simulator_crashed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Rollout:
    """A closed-loop drive."""

    scenario_id: str
    ego: EgoTrack
    agents: Tracks
    plans: tuple[tuple[int, Plan], ...]  # (step, plan)
    events: tuple[tuple[int, str], ...]  # (step, what happened)
    status: RolloutStatus
    dt: float
