"""From a plan to throttle, brake and wheel: the LQR of drive.core.vehicle on the bicycle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import interpolate_poses
from drive.core.tracker import DT, HORIZON
from drive.core.vehicle import VehicleParams, simulate

Array = NDArray[np.float64]
STANDING, HOLD = 0.3, 0.6  # m/s of a plan that stands; brake that holds the car then
SLIP_SPEED, SLIP_GAIN = 3.0, 0.15  # m/s above which tyre slip is observed; of each observation
AIR = 1.225  # kg/m^3


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
    """The tracker of NAVSIM's score and of the embedded world, its acceleration and wheel angle turned into pedals and steer.

    Its bicycle knows no tyre slip: the wheel angle that a real car takes beyond the bicycle's for the yaw rate it has is observed and added.
    """

    def __init__(self, vehicle: VehicleParams, response: CarResponse) -> None:
        self.vehicle, self.response = vehicle, response
        self._slip = 0.0  # rad of wheel angle beyond the bicycle's

    def control(self, state: Array, reference: Reference, t: float) -> tuple[float, float, float]:
        """See Controller."""
        targets = reference.at(t + DT * np.arange(HORIZON + 2))
        if _stands(targets) and state[3] < 2.0 * STANDING:
            self._slip = 0.0
            return 0.0, float(np.clip(state[7] / self.response.lock(state[3]), -1.0, 1.0)), HOLD
        if state[3] > SLIP_SPEED:
            seen = float(state[7]) - math.atan(self.vehicle.wheel_base * state[9] / state[3])
            self._slip += SLIP_GAIN * (seen - self._slip)
        start = state.copy()
        start[7] -= self._slip
        after = simulate(start[None], targets[None], self.vehicle)[0, 1]
        acceleration = state[5] + (after[5] - state[5]) * (self.vehicle.tau_acceleration + DT) / DT  # undoes the actuator's lag, which the car has itself
        throttle, brake = self.response.pedals(float(acceleration), float(state[3]))
        wheel = start[7] + (after[7] - start[7]) * (self.vehicle.tau_steering + DT) / DT + self._slip
        return throttle, float(np.clip(wheel / self.response.lock(state[3]), -1.0, 1.0)), brake


def _stands(targets: Array) -> bool:
    return float(np.hypot(*(targets[-1, :2] - targets[0, :2]))) < STANDING * DT * (len(targets) - 1)
