"""One generated episode: the expert drives a situation of the embedded world, and what it saw, did and thought is recorded.

About half of the episodes are disturbed: for a second or two the car is driven off the expert's plan, sideways and faster or
slower, so that the set holds states from which one must come back. The labels stay the expert's answers at those states.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses, wrap_angle
from drive.core.protocols import PrivilegedPlanner
from drive.core.roadmap import RoadMap
from drive.core.seeds import numpy_rng, stream
from drive.core.types import Camera, Frame, Plan, Trajectory
from drive.simulators.routes import route_window
from drive.simulators.scenarios import possible_kinds
from drive.simulators.towns import load_town, town_names
from drive.simulators.traffic import DT
from drive.simulators.world import FRAME_STEPS, VIEW_AHEAD, VIEW_BACK, World

Array = NDArray[np.float64]
FORMAT = 1
REPLAN = 5  # steps between two plans of the expert, and between two camera frames
FUTURE = 50  # steps of future that a scene needs
SIDEWAYS = 0.8  # m that a burst pushes the car sideways at most
SPEED_SCALE = (0.7, 1.3)
BURST_S = (1.0, 2.0)  # s
CALM_S = (1.0, 3.0)  # s between two bursts
PLACES = 8  # situations tried before a town and kind are given up


@dataclass(frozen=True)
class EpisodeConfig:
    """What an episode is made of; part of its identity."""

    split: str
    seed: int
    seconds: float = 13.0
    spacing_s: float = 1.0  # between the presents of two scenes
    disturbed_share: float = 0.5
    cameras: tuple[Camera, ...] = field(default_factory=lambda: (Camera.front(),))

    @property
    def steps(self) -> int:
        """Steps driven."""
        return round(self.seconds / DT / REPLAN) * REPLAN

    @property
    def presents(self) -> list[int]:
        """Steps at which scenes stand: they have their frames behind them and FUTURE steps ahead."""
        stride = max(round(self.spacing_s / DT / REPLAN), 1) * REPLAN
        return list(range(-min(FRAME_STEPS), self.steps - FUTURE + 1, stride))

    def plain(self) -> dict[str, Any]:
        """As it comes back from JSON, for the card and for telling sets apart."""
        cameras = [
            {**asdict(c), "intrinsics": c.intrinsics.tolist(), "ego_from_camera": c.ego_from_camera.tolist()}
            for c in self.cameras
        ]
        return {**asdict(self), "cameras": cameras, "format": FORMAT}


@dataclass(frozen=True)
class Burst:
    """A stretch of steps in which the car is driven off the plan."""

    first: int
    end: int
    sideways: float  # m/s
    scale: float  # of the plan's speed


@lru_cache(maxsize=8)
def town_map(name: str) -> RoadMap:
    """A shipped town, loaded once."""
    return load_town(name)


@lru_cache(maxsize=8)
def towns_by_kind(split: str) -> dict[str, list[str]]:
    """The towns of a split that have a place for each kind."""
    kinds: dict[str, list[str]] = {}
    for town in town_names(split):
        for kind in possible_kinds(town_map(town)):
            kinds.setdefault(kind, []).append(town)
    return kinds


def record_episode(config: EpisodeConfig, index: int, planner: PrivilegedPlanner) -> dict[str, NDArray]:
    """The arrays of episode `index`: `meta` (JSON bytes), ego (S, 8), agents, route, plans and PNG frames; see `EpisodeFile`."""
    rng = numpy_rng(config.seed, "episode", config.split, index)
    kinds = towns_by_kind(config.split)
    kind = sorted(kinds)[index % len(kinds)]  # in turn, so that small sets hold all
    town = kinds[kind][int(rng.integers(len(kinds[kind])))]
    world = _place(town, kind, config, index)
    bursts = _bursts(config.steps, rng) if rng.random() < config.disturbed_share else []
    planner.reset()
    scenes: list[dict[str, Any]] = []
    plans: list[Array] = []
    last = config.presents[-1]
    frames: list[bytes] = []
    while world.step < config.steps:
        plan = planner.plan_privileged([world.privileged()])[0]
        if plan.trajectory is None:
            raise DataError(
                f"episode {index} of {config.split} ({town}, {kind}): {planner.name} gave no plan ({plan.status.value})"
            )
        if world.step in config.presents and not world.over:
            scenes.append(_scene(world, plan, planner))
            plans.append(_plan_world(world, plan.trajectory))
        if world.step <= last:
            frames += [_png(world.image(camera, world.step)) for camera in config.cameras]
        world.drive(_disturbed(plan.trajectory, bursts, world), REPLAN)
    meta = {
        "index": index,
        "town": town,
        "kind": kind,
        "world_seed": world.seed,
        "disturbed": bool(bursts),
        "scenes": scenes,
        "dropped": {str(step): _reason(world, step) for step in config.presents[len(scenes) :]},
        "events": world.events,
        "config": config.plain(),
    }
    return _arrays(world, meta, plans, frames)


def _place(town: str, kind: str, config: EpisodeConfig, index: int) -> World:
    reason = ""
    for attempt in range(PLACES):
        try:
            return World(town_map(town), town, kind, stream(config.seed, "world", config.split, index, attempt))
        except DataError as error:  # this place did not do; the last reason is told below
            reason = str(error)
    raise DataError(f"episode {index} of {config.split}: no place for {kind} in {town} in {PLACES} tries ({reason})")


def _bursts(steps: int, rng: np.random.Generator) -> list[Burst]:
    bursts, at = [], rng.uniform(0.0, CALM_S[1])
    while at / DT < steps:
        length = rng.uniform(*BURST_S)
        sideways = rng.uniform(-SIDEWAYS, SIDEWAYS) / length
        bursts.append(Burst(round(at / DT), round((at + length) / DT), sideways, rng.uniform(*SPEED_SCALE)))
        at += length + rng.uniform(*CALM_S)
    return bursts


def _disturbed(plan: Trajectory, bursts: list[Burst], world: World) -> Trajectory:
    """The plan as the burst at hand drives it: drifting sideways, and faster or slower; the plan itself where there is none."""
    burst = next((b for b in bursts if b.first <= world.step < b.end), None)
    if burst is None:
        return plan
    times = np.concatenate([[0.0], plan.times])
    poses = np.concatenate([np.zeros((1, 3)), plan.poses])
    scaled = interpolate_poses(times, poses, np.minimum(times[1:] * burst.scale, times[-1]))
    # a car that hardly moves cannot drift
    rate = burst.sideways * min(float(world.state[3]) / 4.0, 1.0)
    drift = rate * np.minimum(times[1:], 1.0)
    heading = scaled[:, 2]
    scaled[:, 0] -= np.sin(heading) * drift
    scaled[:, 1] += np.cos(heading) * drift
    scaled[:, 2] = wrap_angle(heading + np.arctan2(rate, max(float(world.state[3]), 3.0)) * (times[1:] < 1.0))
    return Trajectory(scaled, plan.dt, Frame.EGO)


def _scene(world: World, plan: Plan, planner: PrivilegedPlanner) -> dict[str, Any]:
    """What is known of the scene at the present besides its arrays."""
    window = route_window(world.route, world.state[:3], VIEW_BACK, VIEW_AHEAD, world.route_index)
    first = int(np.argmin(np.abs(world.route.path[:, :2] - window.path[0, :2]).sum(1)[: world.route_index + 1]))
    decisions = getattr(planner, "last_decisions", None)
    return {
        "present": world.step,
        "command": world.command.value,
        "reasoning": plan.reasoning,
        "complex": bool(decisions[-1].is_complex) if decisions else bool(plan.reasoning),
        "route": [first, first + len(window.path)],
        "lanes": list(window.lane_ids),
    }


def _plan_world(world: World, plan: Trajectory) -> Array:
    """(FUTURE + 1, 3) the present pose and the plan at 10 Hz, in the world."""
    poses = np.concatenate([world.state[None, :3], plan.to_world(world.state[:3]).poses])
    return interpolate_poses(np.concatenate([[0.0], plan.times]), poses, DT * np.arange(FUTURE + 1))


def _reason(world: World, step: int) -> str:
    """The first event before `step`, without its object."""
    return next(text.split()[0] for at, text in world.events if at <= step)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _arrays(world: World, meta: dict[str, Any], plans: list[Array], frames: list[bytes]) -> dict[str, NDArray]:
    ego, tracks = world.ego_track(), world.tracks()
    return {
        "meta": np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8),
        "ego": np.column_stack([ego.poses_world, ego.velocity_ego, ego.acceleration_ego, ego.yaw_rate]),
        "agent_size": tracks.size,
        "agent_type": tracks.types,
        "agent_motion": np.concatenate([tracks.poses_world, tracks.velocity_world], axis=-1).astype(np.float32),
        "agent_valid": tracks.valid,
        "route": world.route.path,
        "plans": np.stack(plans) if plans else np.zeros((0, FUTURE + 1, 3)),
        "frames": np.frombuffer(b"".join(frames), np.uint8),
        "frame_ends": np.cumsum([len(f) for f in frames]).astype(np.int64),
    }
