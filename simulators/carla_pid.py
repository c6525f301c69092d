"""The PID of CARLA's leaderboard agents, as a baseline beside the LQR: speed and aim point of a plan, each with a PID of its own.

Gains, windows and rules are those of TransFuser (Chitta et al. 2022; `control_pid` of its model and its config.py). TCP (Wu et al. 2022) has the
same but for the gain of the wheel, 0.75 for 1.25, and the window, 40 for 20. For steps of 0.05 s. Two things are ours, as plans of drive start
as slowly as NAVSIM's tracker does (0.1 m in 2 s) and planners read the wheel: a slow car looks at the whole plan, and one that brakes keeps its wheel.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import compose, relative
from drive.core.vehicle import VehicleParams
from drive.simulators.carla_control import CarResponse, Controller, LqrController, Reference

Array = NDArray[np.float64]
TURN, SPEED = (1.25, 0.75, 0.3), (5.0, 0.5, 1.0)  # proportional, integral, derivative
WINDOW = 20  # errors that the integral is the mean of
MOST_THROTTLE = 0.75
SLOWEST, TOO_FAST = 0.4, 1.1  # m/s of a plan below which the car brakes; share of its speed above which it does
MOST_DELTA = 0.25  # m/s of speed error that the PID is told
AHEAD = np.arange(0.5, 4.3, 0.25)  # s of the plan that are looked at: the speed is that from 0.5 to 1 s, the aim is at 0.75 s
LEAST_AIM = 2.0  # m from the car to the aim; nearer, a later point is aimed at
STARTING = 2.0  # m/s below which the speed of the whole plan counts, up to this one
RIGHT_ANGLE = math.pi / 2.0  # rad of aim that is an error of 1


class ControllerKind(str, Enum):
    """Who follows a plan's trajectory."""

    LQR = "lqr"
    PID = "pid"


class Pid:
    """A PID whose integral is the mean of the last WINDOW errors, zeros before the first, and whose derivative is their last difference."""

    def __init__(self, gains: tuple[float, float, float]) -> None:
        self.gains = gains
        self._errors: deque[float] = deque([0.0] * WINDOW, maxlen=WINDOW)

    def step(self, error: float) -> float:
        """The answer to the next error."""
        change = error - self._errors[-1]
        self._errors.append(error)
        p, i, d = self.gains
        return p * error + i * sum(self._errors) / WINDOW + d * change


class PidController:
    """Full brake or none; poses of the plan and of the car are taken at the car's middle, as the agents have them."""

    def __init__(self, vehicle: VehicleParams) -> None:
        self._middle = np.array([vehicle.rear_to_center, 0.0, 0.0])
        self._turn, self._speed, self._steer = Pid(TURN), Pid(SPEED), 0.0

    def control(self, state: Array, reference: Reference, t: float) -> tuple[float, float, float]:
        """See Controller."""
        points = relative(compose(state[:3], self._middle), compose(reference.at(t + AHEAD), self._middle))[:, :2]
        speed, wanted = max(float(state[3]), 0.0), math.dist(points[0], points[2]) / (AHEAD[2] - AHEAD[0])
        if speed < STARTING:
            wanted = max(wanted, min(math.dist(points[0], points[-1]) / (AHEAD[-1] - AHEAD[0]), STARTING))
        brakes = wanted < SLOWEST or speed > TOO_FAST * wanted
        throttle = self._speed.step(min(max(wanted - speed, 0.0), MOST_DELTA))
        aims = points[1:][np.hypot(*points[1:].T) >= LEAST_AIM]
        if not brakes and len(aims):
            x, y = aims[0]
            self._steer = min(max(self._turn.step(math.atan2(y, x) / RIGHT_ANGLE), -1.0), 1.0)
        return (0.0, self._steer, 1.0) if brakes else (min(max(throttle, 0.0), MOST_THROTTLE), self._steer, 0.0)


def controller_of(kind: ControllerKind, vehicle: VehicleParams, response: CarResponse) -> Controller:
    """A new controller for one drive."""
    return PidController(vehicle) if kind is ControllerKind.PID else LqrController(vehicle, response)
