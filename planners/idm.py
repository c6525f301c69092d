"""The intelligent driver model along a path (Treiber, Hennecke, Helbing 2000), and the planner that is nothing more.

s* = gap + v T + v dv / (2 sqrt(a b)); acceleration = a (1 - (v / v0)^delta - (s* / s)^2), clipped to [-b, a].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import relative
from drive.core.types import Frame, Plan, Privileged, Trajectory
from drive.core.vehicle import PACIFICA
from drive.planners.forecast import Forecast, forecast, present_agents
from drive.planners.lane_index import lane_index, wrap
from drive.planners.route_frame import Paths, RouteFrame, build_paths, route_frame

Array = NDArray[np.float64]
STEP_S = 0.1  # s between poses of a plan
HORIZON = 50  # steps of a plan
TABLE_STRIDE = 2  # forecast steps between entries of a lead table
BOUND_AHEAD = 0.5  # s ahead at which the speed bound of the road's shape is met
CORRIDOR_MARGIN, MARGIN_S = 0.3, 0.025  # m, and m per m/s, left free on either side of the ego's body
REAR_GAP, REAR_HEADWAY = 2.0, 0.4  # m and s that an agent behind is left at the least
SQUEEZE_SPEED = 3.0  # m/s, below which a small gap is no danger
FRONT = PACIFICA.front_length  # m, rear axle to front bumper
REAR = PACIFICA.rear_length  # m, rear axle to rear bumper
CENTER = PACIFICA.rear_to_center  # m


@dataclass(frozen=True)
class IdmConfig:
    """nuPlan's IDM as PDM-Closed uses it."""

    min_gap: float = 1.0  # m, bumper to bumper at a standstill
    headway: float = 1.5  # s
    acceleration: float = 1.5  # m/s^2
    deceleration: float = 3.0  # m/s^2, comfortable and at the same time the hardest
    exponent: float = 10.0
    lateral_acceleration: float = 2.5  # m/s^2 at most in curves
    curve_braking: float = 1.2  # m/s^2 with which a curve is approached


@dataclass(frozen=True)
class LeadTable:
    """What occupies the corridor of each path: P paths, A agents, K times TABLE_STRIDE * STEP_S apart."""

    near: Array  # (P, A, K) m along the path to the closest part of the agent; inf where it is not in the corridor
    far: Array  # (P, A, K) m to its farthest part; -inf likewise
    speed: Array  # (P, A, K) m/s along the path

    def held(self) -> LeadTable:
        """The table in which an agent holds its closest future place from now until it is past: who reads it waits for the crossing."""
        near = np.minimum.accumulate(self.near[..., ::-1], axis=-1)[..., ::-1]
        waits = near < self.near
        return LeadTable(near, np.where(waits, near + 1.0, self.far), np.where(waits, 0.0, self.speed))


@dataclass(frozen=True)
class Rollouts:
    """N rollouts of T = HORIZON + 1 states, the first one the present."""

    poses_world: Array  # (N, T, 3) rear axle on the path
    speed: Array  # (N, T) m/s
    lead: NDArray[np.int64]  # (N,) agent that held the rollout back most, -1 if none did
    lead_pull: Array  # (N,) m/s^2 of the strongest hold, 0 if none
    curve_bound: NDArray[np.bool_]  # (N,) the curve, not the limit, set the speed at some time
    pressed: NDArray[np.bool_]  # (N,) an agent comes too close from behind: after a lane change, one that was cut up
    squeezed: NDArray[np.bool_]  # (N,) a moving ego would have to brake twice as hard as it does: it hits, or just misses, something


def lead_table(frame: RouteFrame, paths: Paths, speed: float, future: Forecast, size: Array) -> LeadTable:
    """The lead table of `paths` at `speed` m/s for the forecast boxes; size (A, 3)."""
    half = PACIFICA.width / 2.0 + CORRIDOR_MARGIN + MARGIN_S * speed
    poses, speeds = (np.ascontiguousarray(x[:, ::TABLE_STRIDE]) for x in (future.poses_world, future.speed))
    return LeadTable(*_occupancy(frame.points, frame.step, paths.offset, paths.points, paths.along, poses, speeds, size, half))


@njit(cache=True)
def _occupancy(route, step, offset, path_points, along, poses, speeds, size, half):
    paths, samples, agents, times = len(offset), len(route), poses.shape[0], poses.shape[1]
    near, far = np.full((paths, agents, times), np.inf), np.full((paths, agents, times), -np.inf)
    speed = np.zeros((paths, agents, times))
    for a in range(agents):
        reach = 0.5 * np.hypot(size[a, 0], size[a, 1])
        rows = int(np.ceil(size[a, 0] / 1.2)) + 1
        for k in range(times):
            x, y, heading = poses[a, k]
            best, at = np.inf, 0
            for i in range(samples):
                square = (route[i, 0] - x) ** 2 + (route[i, 1] - y) ** 2
                if square < best:
                    best, at = square, i
            if best > (reach + 8.0) ** 2:
                continue
            c, s = np.cos(heading), np.sin(heading)
            for row in range(rows):
                for column in range(3):
                    u, v = size[a, 0] * (row / (rows - 1) - 0.5), size[a, 1] * (column * 0.5 - 0.5)
                    px, py = x + c * u - s * v, y + s * u + c * v
                    i = at
                    for _ in range(3):
                        rc, rs = np.cos(route[i, 2]), np.sin(route[i, 2])
                        forward = rc * (px - route[i, 0]) + rs * (py - route[i, 1])
                        j = min(max(i + int(np.round(forward / step)), 0), samples - 1)
                        if j == i:
                            break
                        i = j
                    rc, rs = np.cos(route[i, 2]), np.sin(route[i, 2])
                    forward = rc * (px - route[i, 0]) + rs * (py - route[i, 1])
                    across = -rs * (px - route[i, 0]) + rc * (py - route[i, 1])
                    if abs(forward) > 1.5 * step:
                        continue
                    for p in range(paths):
                        if abs(across - offset[p, i]) <= half:
                            where = along[p, i] + forward
                            near[p, a, k], far[p, a, k] = min(near[p, a, k], where), max(far[p, a, k], where)
                            speed[p, a, k] = speeds[a, k] * np.cos(heading - path_points[p, i, 2])
    return near, far, speed


def roll_out(
    frame: RouteFrame, paths: Paths, tables: Sequence[LeadTable], speed: float, config: IdmConfig,
    path: NDArray[np.int64], fraction: Array, table: NDArray[np.int64], brake: Array,
) -> Rollouts:  # fmt: skip
    """N rollouts from the ego's place at `speed` m/s.

    path (N,) index into `paths`, fraction (N,) of the speed limit, table (N,) index into `tables`; brake (N,) m/s^2 stops at that
    rate and heeds nothing else where positive.
    """
    near, far, pace = (np.stack([getattr(t, name) for t in tables]) for name in ("near", "far", "speed"))
    idm = (config.min_gap, config.headway, config.acceleration, config.deceleration, config.exponent)
    args = (paths.points, paths.along, paths.speed, frame.limit, frame.step, frame.ego_s, speed)
    return Rollouts(*_roll_out(*args, near, far, pace, path, fraction, table, brake, *idm))


@njit(cache=True)
def _lead(near, far, pace, ignored, u, v, k, gap0, headway, root):
    """(agent, (s* / s)^2) of the agent that holds back most at table time k, and whether one is too close behind; marks those that run into the ego."""
    lead, pull, pressed = -1, 0.0, False
    for a in range(len(near)):
        if ignored[a] or near[a, k] == np.inf:
            continue
        if far[a, k] < u - REAR:
            pressed |= u - REAR - far[a, k] < REAR_GAP + REAR_HEADWAY * max(pace[a, k], 0.0) + max(pace[a, k] - v, 0.0)
            continue
        if near[a, k] < u + FRONT and 0.5 * (near[a, k] + far[a, k]) < u + CENTER:
            ignored[a], pressed = True, True
            continue
        gap = max(near[a, k] - u - FRONT, 0.1)
        wish = gap0 + max(v * headway + v * (v - pace[a, k]) / root, 0.0)
        if (wish / gap) ** 2 > pull:
            lead, pull = a, (wish / gap) ** 2
    return lead, pull, pressed


@njit(cache=True)
def _roll_out(
    points, along, bound, limit, step, ego_s, speed, near, far, pace, path, fraction, table, brake,
    gap0, headway, accel, decel, exponent,
):  # fmt: skip
    count, samples, agents = len(path), points.shape[1], near.shape[2]
    poses, speeds = np.empty((count, HORIZON + 1, 3)), np.empty((count, HORIZON + 1))
    leads, pulls = np.full(count, -1), np.zeros(count)
    curve, close, narrow = np.zeros(count, np.bool_), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    root = 2.0 * np.sqrt(accel * decel)
    for n in range(count):
        p, t = path[n], table[n]
        i = min(max(int(ego_s / step), 0), samples - 2)
        u = along[p, i] + (ego_s - i * step) / step * (along[p, i + 1] - along[p, i])
        v = speed
        ignored = np.zeros(agents, np.bool_)
        for k in range(HORIZON + 1):
            while i < samples - 2 and along[p, i + 1] < u:
                i += 1
            w = (u - along[p, i]) / max(along[p, i + 1] - along[p, i], 1e-6)
            turn = wrap(points[p, i + 1, 2] - points[p, i, 2])
            poses[n, k, 0] = points[p, i, 0] + w * (points[p, i + 1, 0] - points[p, i, 0])
            poses[n, k, 1] = points[p, i, 1] + w * (points[p, i + 1, 1] - points[p, i, 1])
            poses[n, k, 2] = points[p, i, 2] + min(max(w, 0.0), 1.0) * turn
            speeds[n, k] = v
            if brake[n] > 0.0:
                a = -brake[n]
            else:
                wish = fraction[n] * limit[i]
                lead, pull, pressed = _lead(near[t, p], far[t, p], pace[t, p], ignored, u, v, k // TABLE_STRIDE, gap0, headway, root)
                close[n] |= pressed
                narrow[n] |= v > SQUEEZE_SPEED and accel * pull > 2.0 * decel
                if accel * pull > pulls[n]:
                    leads[n], pulls[n] = lead, accel * pull
                a = accel * (1.0 - (v / max(wish, 0.1)) ** exponent - pull)
                j = i
                while j < samples - 1 and along[p, j] < u + BOUND_AHEAD * v:
                    j += 1
                to_bound = (bound[p, j] - v) / BOUND_AHEAD
                if to_bound < a:
                    a, curve[n] = to_bound, True
                a = min(max(a, -decel), accel)
            following = max(v + a * 0.1, 0.0)
            u += 0.05 * (v + following)
            v = following
    return poses, speeds, leads, pulls, curve, close, narrow


class IdmPlanner:
    """Follows the route's centreline and keeps its distance; changes no lane, yields to nobody."""

    name = "idm"

    def __init__(self, config: IdmConfig | None = None, agent_radius: float = 100.0) -> None:
        self.config = config or IdmConfig()
        self.agent_radius = agent_radius  # m

    def reset(self) -> None:
        """Nothing to forget."""

    def plan_privileged(self, scenes: Sequence[Privileged]) -> list[Plan]:
        """One Plan of 50 poses, 0.1 s apart, per scene."""
        return [self._plan(scene) for scene in scenes]

    def _plan(self, scene: Privileged) -> Plan:
        start = perf_counter()
        index = lane_index(scene.road_map)
        frame = route_frame(scene, index)
        agents, acceleration = present_agents(scene, self.agent_radius)
        future = forecast(agents, acceleration, index, HORIZON + 1, STEP_S)
        length = max(8.0, 2.0 * scene.ego.speed)
        middle = np.zeros(len(frame.points))
        paths = build_paths(frame, [middle], [length], [0], self.config.lateral_acceleration, self.config.curve_braking)
        table = lead_table(frame, paths, scene.ego.speed, future, agents.size)
        one = np.zeros(1, np.int64)
        rollouts = roll_out(frame, paths, [table], scene.ego.speed, self.config, one, np.ones(1), one, np.zeros(1))
        poses = relative(scene.ego.pose_world, rollouts.poses_world[0, 1:])
        return Plan(Trajectory(poses, STEP_S, Frame.EGO), latency_s=perf_counter() - start)
