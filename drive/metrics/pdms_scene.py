"""PdmScene: all that NAVSIM's PDM score reads of one situation, packed once for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.roadmap import Polygons
from drive.core.tracker import sample_kernel
from drive.core.types import Privileged, Scenario, Tracks
from drive.core.vehicle import PACIFICA, STATE_SIZE, sample_times_us, simulate, state_array
from drive.metrics.pdms_areas import PackedAreas, pack_areas
from drive.metrics.pdms_contacts import DT, PackedAgents, pack_agents
from drive.metrics.pdms_judge import judge

Array = NDArray[np.float64]
HORIZON = 40  # simulated steps of 0.1 s
FRAMES = 51  # frames of agents and reference, 0..5 s: time to collision looks 0.9 s beyond the horizon
MAP_RADIUS = 100.0  # m around the ego


@dataclass(frozen=True, eq=False)
class PdmScene:
    """One situation to score plans in: world frame, 0.1 s between frames. Raises DataError on arrays that do not fit."""

    polygons: Polygons  # near the ego
    on_route: NDArray[np.bool_]  # (P,) lane or lane connector of the route
    centerline: Array  # (N, 2+) path that progress is measured along
    initial: Array  # (11,) ego state at the present, see drive.core.vehicle
    agent_pose: Array  # (A, 51, 3) box centres; any value where not valid
    agent_velocity: Array  # (A, 51, 2) m/s
    agent_valid: NDArray[np.bool_]  # (A, 51)
    agent_size: Array  # (A, 2+) length, width, m
    agent_types: NDArray[np.int64]  # (A,) AgentType
    reference_poses: Array | None = None  # (R >= 41, 3) rear axle from the present on; what progress is normalised against
    time_us: int = 0  # clock at the present; matters to the last microsecond of interpolation alone
    id: str = ""  # named in errors

    def __post_init__(self) -> None:
        count = len(self.agent_types)
        wanted = {
            "on_route": (len(self.polygons),),
            "initial": (STATE_SIZE,),
            "agent_pose": (count, FRAMES, 3),
            "agent_velocity": (count, FRAMES, 2),
            "agent_valid": (count, FRAMES),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise DataError(f"scene {self.id!r}: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if self.agent_size.ndim != 2 or len(self.agent_size) != count or self.agent_size.shape[1] < 2:
            raise DataError(f"scene {self.id!r}: agent_size has shape {self.agent_size.shape}, expected ({count}, 2 or more)")
        if self.centerline.ndim != 2 or len(self.centerline) < 2 or not np.isfinite(self.centerline).all():
            raise DataError(
                f"scene {self.id!r}: the centreline needs two finite points or more, got shape {self.centerline.shape}"
            )
        if not np.isfinite(self.initial).all() or not np.isfinite(self.agent_pose[self.agent_valid]).all():
            raise DataError(f"scene {self.id!r}: NaN or infinity in the ego state or in a valid agent pose")
        reference = self.reference_poses
        if reference is not None and (reference.ndim != 2 or len(reference) <= HORIZON or reference.shape[1] != 3):
            raise DataError(
                f"scene {self.id!r}: reference_poses has shape {reference.shape}, expected ({HORIZON + 1} or more, 3)"
            )

    @cached_property
    def areas(self) -> PackedAreas:
        """The polygons as the kernels read them."""
        return pack_areas(self.polygons, self.on_route)

    @cached_property
    def agents(self) -> PackedAgents:
        """The agents as the kernels read them."""
        return pack_agents(self.agent_pose, self.agent_velocity, self.agent_valid, self.agent_size, self.agent_types)

    @cached_property
    def reference_states(self) -> Array:
        """(41, 11) states of the reference, tracked as any plan is. Raises DataError where the scene has none."""
        poses = self.reference_poses
        if poses is None:
            raise DataError(f"scene {self.id!r} has no reference for progress: give reference_poses, or score against='group'")
        knots_us = self.time_us + np.round(np.arange(len(poses)) * DT * 1e6).astype(np.int64)
        targets = sample_kernel(np.asarray(poses, np.float64)[None], knots_us, sample_times_us(HORIZON, self.time_us))
        return simulate(self.initial[None], targets)[0]

    @cached_property
    def reference_progress(self) -> float:
        """Metres along the centreline of the reference times its NC * DAC: 0 where it collides at fault or leaves the road."""
        verdict = judge(self.reference_states[None], self.areas, self.agents, self.centerline)
        return float(verdict.progress[0] * verdict.nc[0] * verdict.dac[0])

    @staticmethod
    def from_scenario(scenario: Scenario) -> PdmScene:
        """The benchmark's view: logged agents from the present on, the reference of the scenario or else its logged future.

        Steering starts at zero, as NAVSIM does it. Where the scenario's clock is not 10 Hz, agents are interpolated between
        their first and last sample (one seen once stands in all frames). A log that ends within 4 s leaves no reference.
        Raises DataError for scenes without a map, whose road is a corridor around the driven path.
        """
        if scenario.notes.get("map") == "corridor":
            raise DataError(f"scene {scenario.id} has no map, and a PDM score means nothing without one")
        now = scenario.present
        initial = state_array(scenario.ego.state(now))
        initial[7:] = 0.0
        tracks = scenario.agents.steps(now, scenario.agents.valid.shape[1])
        tracks = _padded(tracks) if abs(scenario.dt - DT) < 1e-6 else _resampled(tracks, scenario.dt)
        reference = scenario.reference_world
        if reference is None:
            driven = scenario.ego.poses_world[now:]
            if (len(driven) - 1) * scenario.dt >= HORIZON * DT - 1e-6:
                reference = interpolate_poses(scenario.dt * np.arange(len(driven)), driven, DT * np.arange(FRAMES))
        return _scene(scenario, initial, tracks, reference, scenario.id)

    @staticmethod
    def from_privileged(
        scene: Privileged,
        poses_world: Array,
        velocity_world: Array,
        valid: NDArray[np.bool_],
        reference_world: Array | None = None,
    ) -> PdmScene:
        """A planner's view: agents (A, 51, 3), (A, 51, 2), (A, 51) as it forecasts them at 10 Hz, sizes and types from `scene`.

        Score with against="group" unless `reference_world` (41 or more, 3) is given. The ego starts with the steering it has.
        """
        forecast = Tracks(scene.agents.ids, scene.agents.types, scene.agents.size, poses_world, velocity_world, valid)
        return _scene(scene, state_array(scene.ego), forecast, reference_world, "live")


def _scene(source: Scenario | Privileged, initial: Array, tracks: Tracks, reference: Array | None, name: str) -> PdmScene:
    center = initial[:2] + PACIFICA.rear_to_center * np.array([np.cos(initial[2]), np.sin(initial[2])])
    polygons = source.road_map.polygons.near(center, MAP_RADIUS)
    wanted = set(source.route_lane_ids)
    on_route = np.array([token in wanted for token in polygons.tokens], np.bool_)
    return PdmScene(
        polygons=polygons,
        on_route=on_route,
        centerline=source.centerline_world,
        initial=initial,
        agent_pose=tracks.poses_world,
        agent_velocity=tracks.velocity_world,
        agent_valid=tracks.valid,
        agent_size=tracks.size,
        agent_types=tracks.types,
        reference_poses=reference,
        id=name,
    )


def _padded(tracks: Tracks) -> Tracks:
    """51 frames of 10 Hz tracks; beyond the log's end no agent is valid."""
    missing = max(FRAMES - tracks.valid.shape[1], 0)

    def pad(array: NDArray) -> NDArray:
        return np.pad(array[:, :FRAMES], [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))

    return Tracks(tracks.ids, tracks.types, tracks.size, pad(tracks.poses_world), pad(tracks.velocity_world), pad(tracks.valid))


def _resampled(tracks: Tracks, dt: float) -> Tracks:
    """51 frames at 10 Hz of tracks every `dt` s: linear between the first and the last sample, heading unwrapped."""
    query = DT * np.arange(FRAMES)
    poses, velocity = np.zeros((len(tracks), FRAMES, 3)), np.zeros((len(tracks), FRAMES, 2))
    valid = np.zeros((len(tracks), FRAMES), np.bool_)
    kept = min(tracks.valid.shape[1], int((FRAMES - 1) * DT / dt + 1e-6) + 1)
    for a in range(len(tracks)):
        seen = np.flatnonzero(tracks.valid[a, :kept])
        if not len(seen):
            continue
        times = dt * seen
        poses[a] = interpolate_poses(times, tracks.poses_world[a, seen], query)
        velocity[a] = np.column_stack([np.interp(query, times, tracks.velocity_world[a, seen, k]) for k in range(2)])
        valid[a] = (len(seen) == 1) | ((query >= times[0] - 1e-6) & (query <= times[-1] + 1e-6))
    return Tracks(tracks.ids, tracks.types, tracks.size, poses, velocity, valid)
