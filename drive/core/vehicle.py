"""The car: its measures, and the path tracker with kinematic bicycle that NAVSIM's score, planners' roll-outs and the ego share.

States are (..., 11): x, y, heading (rear axle, world), vx, vy, ax, ay (body), steering angle, steering rate, yaw rate, yaw
acceleration. Source: NAVSIM v1.1, pdm_planner/simulation; nuPlan's LQR tracker and kinematic bicycle with their default
settings.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.tracker import DT, HORIZON, sample_kernel, simulate_kernel
from drive.core.types import EgoState

Array = NDArray[np.float64]
STATE_SIZE = 11


@dataclass(frozen=True)
class VehicleParams:
    """Measures of a car in metres, its steering limit and the time constants of its actuators."""

    width: float
    front_length: float  # rear axle to front bumper
    rear_length: float  # rear axle to rear bumper
    wheel_base: float
    height: float
    max_steering: float = pi / 3.0  # rad
    tau_acceleration: float = 0.2  # s, first-order lag
    tau_steering: float = 0.05  # s

    @property
    def length(self) -> float:
        """m, bumper to bumper."""
        return self.front_length + self.rear_length

    @property
    def rear_to_center(self) -> float:
        """m from the rear axle to the middle of the box."""
        return (self.front_length - self.rear_length) / 2.0


PACIFICA = VehicleParams(width=2.297, front_length=4.049, rear_length=1.127, wheel_base=3.089, height=1.777)


def state_array(ego: EgoState) -> Array:
    """(11,) state of an EgoState; steering rate and yaw acceleration are unknown there and zero."""
    return np.array(
        [*ego.pose_world, *ego.velocity_ego, *ego.acceleration_ego, ego.steering_angle, 0.0, ego.yaw_rate, 0.0], dtype=np.float64
    )


def simulate(initial: Array, targets_world: Array, vehicle: VehicleParams = PACIFICA) -> Array:
    """States (N, M + 1, 11) at 0.1 s of N cars that start at `initial` (N, 11) and track `targets_world` (N, M + 1, 3).

    Targets are x, y, heading of the rear axle at 0.1 s, the initial pose first; M >= 10, the tracker's look-ahead. Nothing
    stops the car from leaving the road or accelerating beyond comfort: that is what a score is for. Raises DataError on other
    shapes, NaN, infinity.
    """
    initial, targets_world = np.ascontiguousarray(initial, np.float64), np.ascontiguousarray(targets_world, np.float64)
    if targets_world.ndim != 3 or targets_world.shape[2] != 3 or targets_world.shape[1] <= HORIZON:
        raise DataError(f"simulate takes targets of shape (N, M + 1, 3) with M >= {HORIZON}, got {targets_world.shape}")
    if initial.shape != (len(targets_world), STATE_SIZE):
        raise DataError(f"simulate takes initial states of shape ({len(targets_world)}, {STATE_SIZE}), got {initial.shape}")
    if not (np.isfinite(initial).all() and np.isfinite(targets_world).all()):
        raise DataError("simulate takes finite states and targets, got NaN or infinity: drop the proposal or repair its source")
    v = vehicle
    return simulate_kernel(initial, targets_world, v.wheel_base, v.max_steering, v.tau_acceleration, v.tau_steering)


def sample_times_us(steps: int, time_us: int = 0) -> NDArray[np.int64]:
    """(steps + 1,) whole microseconds of the samples at 0.1 s from `time_us`, cut (not rounded) as nuPlan's clock does."""
    return ((np.arange(steps + 1) * DT + time_us * 1e-6) * 1e6).astype(np.int64)


def targets_from_plan(poses_ego: Array, dt: float, ego_pose_world: Array, steps: int, time_us: int = 0) -> Array:
    """Targets (N, steps + 1, 3), world frame, 0.1 s apart, of plans `poses_ego` (N, T, 3) given every `dt` s from `dt` on.

    The ego pose `ego_pose_world` (3,) or (N, 3) is put in front; x and y are linear, the heading is unwrapped and linear, and a
    plan that ends early stands still at its last pose. `time_us` is the clock at the present: NAVSIM cuts times to whole
    microseconds after adding it, which moves samples by up to 1 us of motion. Raises DataError on other shapes, NaN, infinity
    or dt <= 0.
    """
    poses_ego = np.asarray(poses_ego, np.float64)
    if poses_ego.ndim != 3 or poses_ego.shape[1] < 1 or poses_ego.shape[2] != 3:
        raise DataError(f"plans have shape (N, T, 3) with T >= 1, got {poses_ego.shape}")
    if not np.isfinite(poses_ego).all():
        raise DataError("plans have finite poses, got NaN or infinity: drop the proposal or repair its source")
    if not dt > 0.0:
        raise DataError(f"plans have a positive time step, got {dt} s")
    origin = np.broadcast_to(np.asarray(ego_pose_world, np.float64), (len(poses_ego), 3))[:, None]
    knots = np.concatenate([origin, compose(origin, poses_ego)], axis=1)
    knots_us = ((np.arange(poses_ego.shape[1]) * dt + dt + time_us * 1e-6) * 1e6).astype(np.int64)
    return sample_kernel(knots, np.concatenate([[time_us], knots_us]), sample_times_us(steps, time_us))
