"""What a plan would do to the car and its surroundings, judged on the plan as it is: comfort, leaving the road, overlap with others.

Overlap is Waymo Open Motion's: any positive area shared with the box of an agent that is there at the present, at any planned step,
while the agent follows its log (waymo-open-dataset 99a4cb3, motion_metrics.proto). Off-road: any corner outside the drivable polygons, the
rule of NAVSIM's DAC. Comfort takes nuPlan's bounds on differences between planned poses; drive's own, since no protocol has one
for plans at 2 Hz. All over N plans at once. Nothing reacts: a plan that a follower would brake for counts as an overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import Array, wrap_angle
from drive.core.types import Scenario
from drive.core.vehicle import PACIFICA, STATE_SIZE, VehicleParams
from drive.metrics.nuplan_comfort import BOUNDS
from drive.metrics.pdms_areas import PackedAreas, ego_areas

NON_DRIVABLE = 1  # index of ego_areas' flags


def _checked(plans: Array, dt: float) -> Array:
    plans = np.asarray(plans, np.float64)
    if plans.ndim != 3 or plans.shape[1] < 3 or plans.shape[2] != 3 or not np.isfinite(plans).all() or not dt > 0.0:
        raise DataError(f"open-loop safety takes finite plans (N, T >= 3, 3) and a positive time step, got {plans.shape} and {dt}")
    return plans


def plan_signals(plans_ego: Array, dt: float, speed: float) -> dict[str, Array]:
    """Signals by the names of nuPlan's BOUNDS, each (N, steps), of plans (N, T, 3) in the ego frame and the present's `speed` in m/s.

    Speeds are those along the heading half-way between poses. The first acceleration is from the present's speed.
    """
    plans = _checked(plans_ego, dt)
    poses = np.concatenate([np.zeros((len(plans), 1, 3)), plans], axis=1)
    step, turn = np.diff(poses[..., :2], axis=1), wrap_angle(np.diff(poses[..., 2], axis=1))
    middle = poses[:, :-1, 2] + turn / 2.0
    along = (step[..., 0] * np.cos(middle) + step[..., 1] * np.sin(middle)) / dt
    rate = turn / dt
    gain = np.diff(along, axis=1) / dt
    start = (along[:, :1] - speed) / (dt / 2.0)
    return {
        "lon_acceleration": np.concatenate([start, gain], axis=1),
        "lat_acceleration": along * rate,
        "lon_jerk": np.diff(gain, axis=1) / dt,
        "yaw_rate": rate,
        "yaw_acceleration": np.diff(rate, axis=1) / dt,
    }


def uncomfortable(plans_ego: Array, dt: float, speed: float) -> NDArray[np.bool_]:
    """Whether (N,) some signal of a plan leaves nuPlan's bounds at some step."""
    out = np.zeros(len(plans_ego), bool)
    for name, values in plan_signals(plans_ego, dt, speed).items():
        low, high = BOUNDS[name]
        out |= ((values <= low) | (values >= high)).any(axis=1)
    return out


def off_road(plans_world: Array, areas: PackedAreas, vehicle: VehicleParams = PACIFICA) -> NDArray[np.bool_]:
    """Whether (N,) some corner of the ego lies outside every drivable polygon at some step of plans (N, T, 3), rear axle, world."""
    plans = np.asarray(plans_world, np.float64)
    states = np.zeros((*plans.shape[:2], STATE_SIZE))
    states[..., :3] = plans
    flags = ego_areas(states, areas, vehicle.front_length, vehicle.rear_length, vehicle.width / 2.0)
    return np.asarray(flags[..., NON_DRIVABLE].any(axis=1))


def overlaps(plans_world: Array, boxes: Array, valid: NDArray[np.bool_], size: Array, vehicle: VehicleParams = PACIFICA) -> NDArray[np.bool_]:
    """Whether (N,) the ego shares area with some agent's box at the same step of plans (N, T, 3), rear axle, world.

    boxes (A, T, 3) are centres of the same steps, valid (A, T), size (A, 2+) length and width. Boxes that only touch do not overlap.
    """
    plans, boxes = np.asarray(plans_world, np.float64), np.asarray(boxes, np.float64)
    if boxes.shape[1:] != plans.shape[1:] or valid.shape != boxes.shape[:2] or len(size) != len(boxes):
        raise DataError(f"overlap takes plans and boxes of the same steps, got {plans.shape}, {boxes.shape} and valid {valid.shape}")
    c, s = np.cos(plans[:, None, :, 2]), np.sin(plans[:, None, :, 2])  # (N, 1, T) against (A, T)
    dx = boxes[..., 0] - (plans[:, None, :, 0] + vehicle.rear_to_center * c)
    dy = boxes[..., 1] - (plans[:, None, :, 1] + vehicle.rear_to_center * s)
    other_c, other_s = np.cos(boxes[..., 2]), np.sin(boxes[..., 2])
    along, across = np.abs(c * other_c + s * other_s), np.abs(c * other_s - s * other_c)
    length, width = vehicle.length / 2.0, vehicle.width / 2.0
    other_length, other_width = size[:, 0, None] / 2.0, size[:, 1, None] / 2.0
    apart = np.abs(dx * c + dy * s) >= length + other_length * along + other_width * across
    apart |= np.abs(dy * c - dx * s) >= width + other_length * across + other_width * along
    apart |= np.abs(dx * other_c + dy * other_s) >= other_length + length * along + width * across
    apart |= np.abs(dy * other_c - dx * other_s) >= other_width + length * across + width * along
    return np.asarray((~apart & valid).any(axis=(1, 2)))


def logged_boxes(scenario: Scenario, steps: int, dt: float) -> tuple[Array, NDArray[np.bool_]]:
    """Boxes (A, steps, 3) and validity (A, steps) at `dt`, 2 dt, ... after the present, of agents that are there at the present.

    Nothing is valid beyond the log. Raises DataError where `dt` is no multiple of the log's step.
    """
    stride = round(dt / scenario.dt)
    if stride < 1 or abs(stride * scenario.dt - dt) > 1e-6:
        raise DataError(f"scenario {scenario.id} has a step each {scenario.dt:g} s, and a plan one each {dt:g} s: plan at multiples of it")
    tracks = scenario.agents
    index = scenario.present + stride * np.arange(1, steps + 1)
    held = np.minimum(index, tracks.valid.shape[1] - 1)
    valid = tracks.valid[:, held] & (index == held) & tracks.valid[:, scenario.present, None]
    return tracks.poses_world[:, held], valid
