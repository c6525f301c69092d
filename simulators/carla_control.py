"""From a plan to throttle, brake and wheel: the LQR of drive.core.vehicle for the pedals, one with preview on the bicycle for the wheel.

The wheel's own: NAVSIM's lateral LQR looks one second ahead with a single steering rate, and cuts a town's corners by two thirds of a metre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import arc_length, interpolate_poses, project
from drive.core.tracker import DT, HORIZON
from drive.core.vehicle import VehicleParams, simulate

Array = NDArray[np.float64]
STANDING, HOLD = 0.3, 0.6  # m/s of a plan that stands; brake that holds the car then
SLIP_SPEED, SLIP_GAIN = 3.0, 0.15  # m/s above which tyre slip is observed; of each observation
AIR = 1.225  # kg/m^3
PREVIEW, STEP = 40, 0.05  # steps that the wheel looks ahead, s each
OFFSET_COST, DRIFT_COST = 1.0, 1.0  # of a metre and of a m/s sideways, squared, for each step
RATE_COST, JERK_COST = 0.05, 0.003  # of a 1/s of the wheel angle's tangent and of a m/s^3 sideways, likewise
SLOWEST = 1.0  # m/s, below which the way ahead is no shorter
WHEEL_RATE = 1.0  # rad/s that a car's wheels turn at most; a command that runs ahead of them would pass for slip
MOST_SLIP = 0.1  # rad


@dataclass(frozen=True)
class CarResponse:
    """What a car does with its pedals: how strong throttle and brake are. SI units."""

    mass: float = 1700.0
    pull: float = 6500.0  # N of full throttle at low speed
    power: float = 140e3  # W of full throttle at high speed
    brakes: float = 17000.0  # N of a full brake
    drag: float = 0.66  # m^2
    rolling: float = 0.013  # of the weight
    coasting: float = 0.35  # m/s^2 without throttle
    max_steer: float = math.radians(35.0)  # at the wheels of a full turn of a car that stands
    curve: tuple[tuple[float, float], ...] = ((0.0, 1.0),)  # km/h and share of max_steer that a full turn gives there

    def lock(self, speed: float) -> float:
        """rad at the wheels of a full turn at `speed` m/s."""
        speeds, shares = np.array(self.curve).T
        return self.max_steer * float(np.interp(3.6 * abs(speed), speeds, shares))

    def pedals(self, acceleration: float, speed: float) -> tuple[float, float]:
        """(throttle, brake) in 0..1 for `acceleration` m/s^2 at `speed` m/s."""
        resistance = self.rolling * 9.81 + 0.5 * AIR * self.drag * speed**2 / self.mass
        if acceleration > -resistance:
            return min((acceleration + resistance) * self.mass / min(self.pull, self.power / max(speed, 1.0)), 1.0), 0.0
        return 0.0, min(max((-acceleration - resistance - self.coasting) * self.mass / self.brakes, 0.0), 1.0)


@dataclass(frozen=True)
class Reference:
    """A plan in the world: poses (T, 3) of the rear axle at `times` (T,) s since it was made, the pose then first."""

    times: Array
    poses_world: Array

    def at(self, t: Array) -> Array:
        """(N, 3) poses at times t (N,); before the first and after the last one they stand still."""
        return interpolate_poses(self.times, self.poses_world, np.clip(t, self.times[0], self.times[-1]))


class Controller(Protocol):
    """Tracks one plan after another."""

    def control(self, state: Array, reference: Reference, t: float) -> tuple[float, float, float]:
        """(throttle, steer, brake) `t` s after the plan was made; steer in -1..1, positive to the LEFT as in drive's frame.

        `state` (11,) as in drive.core.vehicle.
        """
        ...


class LqrController:
    """Speeds as NAVSIM's tracker has them, turned into pedals; the wheel by `_preview_rate` along the plan's line.

    Its bicycle knows no tyre slip: the wheel angle that a real car takes beyond the bicycle's for the yaw rate it has is observed and added.
    """

    def __init__(self, vehicle: VehicleParams, response: CarResponse) -> None:
        self.vehicle, self.response = vehicle, response
        self._slip = 0.0  # rad of wheel angle beyond the bicycle's

    def control(self, state: Array, reference: Reference, t: float) -> tuple[float, float, float]:
        """See Controller."""
        targets = reference.at(t + DT * np.arange(HORIZON + 2, dtype=np.float64))
        if _stands(targets) and state[3] < 2.0 * STANDING:
            self._slip = 0.0
            return 0.0, float(np.clip(state[7] / self.response.lock(state[3]), -1.0, 1.0)), HOLD
        if state[3] > SLIP_SPEED:
            seen = float(state[7]) - math.atan(self.vehicle.wheel_base * state[9] / state[3])
            self._slip = float(np.clip(self._slip + SLIP_GAIN * (seen - self._slip), -MOST_SLIP, MOST_SLIP))
        after = simulate(state[None], targets[None], self.vehicle)[0, 1]
        acceleration = state[5] + (after[5] - state[5]) * (self.vehicle.tau_acceleration + DT) / DT  # undoes the actuator's lag, which the car has itself
        throttle, brake = self.response.pedals(float(acceleration), float(state[3]))
        wheel = math.atan(self._tangent(state, reference)) + self._slip
        wheel = float(np.clip(wheel, state[7] - WHEEL_RATE * STEP, state[7] + WHEEL_RATE * STEP))
        return throttle, float(np.clip(wheel / self.response.lock(state[3]), -1.0, 1.0)), brake

    def _tangent(self, state: Array, reference: Reference) -> float:
        """Of the bicycle's wheel angle STEP s on, that brings the car onto the reference's line and keeps it there, whenever it was to be where."""
        tangent = math.tan(float(state[7]) - self._slip)
        s = arc_length(reference.poses_world)
        apart = np.concatenate([[True], np.diff(s) > 1e-6])
        line, s = reference.poses_world[apart], s[apart]
        if len(line) < 2:
            return tangent
        step = STEP * max(float(state[3]), SLOWEST)
        ahead = interpolate_poses(s, line, project(line, state[:2])[0] + step * np.arange(PREVIEW + 1))
        drift = DRIFT_COST * max(float(state[3]), SLOWEST) ** 2
        price = RATE_COST + JERK_COST * (float(state[3]) ** 2 / self.vehicle.wheel_base) ** 2
        return tangent + STEP * _preview_rate(state[:3], tangent, ahead, step, self.vehicle.wheel_base, drift, price)


@njit(cache=True)
def _preview_rate(pose: Array, tangent: float, ahead: Array, step: float, wheel_base: float, drift: float, price: float) -> float:
    """1/s, of the wheel angle's `tangent`: the first of the rates that cost least over the poses `ahead` (N + 1, 3), `step` m apart.

    The kinematic bicycle's error z = (offset, heading, tangent, 1) against each pose goes on as z' = A z + B rate, linear in small errors; how the line
    bends and shifts stands in A's last column. The cost-to-go z'Pz is folded back from the last pose (Riccati); `drift` and `price` are the costs of
    heading and rate.
    """
    turn = step / wheel_base
    a, b = np.eye(4), np.array([0.25 * step * turn * STEP, 0.5 * turn * STEP, STEP, 0.0])
    a[0, 1], a[0, 2], a[1, 2] = step, 0.5 * step * turn, turn
    cost = np.diag(np.array([OFFSET_COST, drift, 0.0, 0.0]))
    value, rate = cost.copy(), np.zeros(4)
    for k in range(len(ahead) - 2, -1, -1):
        bend = (ahead[k + 1, 2] - ahead[k, 2] + np.pi) % (2.0 * np.pi) - np.pi
        middle, dx, dy = ahead[k, 2] + 0.5 * bend, ahead[k + 1, 0] - ahead[k, 0], ahead[k + 1, 1] - ahead[k, 1]
        a[0, 3], a[1, 3] = np.sin(middle) * dx - np.cos(middle) * dy - 0.5 * step * bend, -bend
        onward = value @ b
        rate = -(a.T @ onward) / (price + b @ onward)
        value = cost + a.T @ value @ a - np.outer(rate, rate) * (price + b @ onward)
    sin, cos = np.sin(ahead[0, 2]), np.cos(ahead[0, 2])
    offset = cos * (pose[1] - ahead[0, 1]) - sin * (pose[0] - ahead[0, 0])
    heading = (pose[2] - ahead[0, 2] + np.pi) % (2.0 * np.pi) - np.pi
    return rate[0] * offset + rate[1] * heading + rate[2] * tangent + rate[3]


def _stands(targets: Array) -> bool:
    return float(np.hypot(*(targets[-1, :2] - targets[0, :2]))) < STANDING * DT * (len(targets) - 1)
