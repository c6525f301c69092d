"""Follows the route's line at the speed that limit and curves allow, and sees nobody: what a controller is measured with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import arc_length, interpolate_poses, project, relative
from drive.core.types import Plan, Privileged, Trajectory

Array = NDArray[np.float64]
STEP_S, STEPS = 0.1, 50
LATERAL, PUSH, BRAKE = 2.0, 1.5, 2.0  # m/s^2


class RouteFollower:
    """A PrivilegedPlanner that reads the route and the lanes' speed limits alone."""

    name = "route_follower"

    def reset(self) -> None:
        """Nothing to forget."""

    def plan_privileged(self, scenes: Sequence[Privileged]) -> list[Plan]:
        """50 poses, 0.1 s apart, on the route's line from the place beside the ego on."""
        return [Plan(self._follow(scene)) for scene in scenes]

    def _follow(self, scene: Privileged) -> Trajectory:
        line = scene.centerline_world
        s = arc_length(line)
        allowed = allowed_speed(line, s, min(lane.speed_limit for lane in map(scene.road_map.lanes.__getitem__, scene.route_lane_ids)))
        at, _ = project(line[:, :2], scene.ego.pose_world[:2])
        speed, places = scene.ego.speed, np.empty(STEPS)
        for k in range(STEPS):
            wanted = float(np.interp(at, s, allowed))
            speed = float(np.clip(wanted, max(speed - 2.0 * BRAKE * STEP_S, 0.0), speed + PUSH * STEP_S))
            at = min(at + speed * STEP_S, float(s[-1]))
            places[k] = at
        return Trajectory(relative(scene.ego.pose_world, interpolate_poses(s, line, places)), STEP_S)


def allowed_speed(line: Array, s: Array, limit: float) -> Array:
    """(N,) m/s along a line (N, 3): the limit, less in curves, with room to brake before them."""
    bend = np.abs(np.gradient(np.unwrap(line[:, 2]), np.maximum(s, np.arange(len(s)) * 1e-6)))
    bend = np.convolve(np.pad(bend, 2, mode="edge"), np.ones(5) / 5.0, mode="valid")
    speed = np.minimum(limit, np.sqrt(LATERAL / np.maximum(bend, 1e-4)))
    for k in range(len(s) - 2, -1, -1):
        speed[k] = min(speed[k], np.sqrt(speed[k + 1] ** 2 + 2.0 * BRAKE * (s[k + 1] - s[k])))
    return speed
