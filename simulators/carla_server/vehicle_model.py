"""Cars as dynamic single-track models with tyre slip, all of an episode in one compiled call.

Left-handed like CARLA: a positive steering angle and yaw rate turn right; the equations are the same in both frames. Below BLEND_LOW
the slip angles mean nothing and the kinematic bicycle rules, which a car that was hit reaches by sliding; up to BLEND_HIGH the two are
mixed (Rajamani, Vehicle Dynamics and Control, 2nd edition, 2.2 and 2.3). What tyres give sideways is what braking leaves of the friction
ellipse. Gears are left out: the pull is what power and grip allow. Two-wheelers lean as far as they must and never tip: their grip is
the tangent of the largest lean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
GRAVITY, AIR = 9.81, 1.225  # m/s^2, kg/m^3
BLEND_LOW, BLEND_HIGH = 3.0, 6.0  # m/s
SUBSTEP = 0.01  # s at most
ALONG = 1.1  # grip along the wheel, as a multiple of that sideways
FRONT = 0.95  # grip of the front axle, as a multiple of the rear one's: at the limit the nose pushes out, as makers see to
LEAST = 0.35  # of the grip sideways that anti-lock brakes leave
LOCKED = 0.3  # of the grip sideways that a locked rear axle keeps
CURVE_KMH = (0.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 180.0)  # km/h at which the steering curve is looked up
CURVE_MS = np.array(CURVE_KMH) / 3.6
X, Y, YAW, VX, VY, YAW_RATE, STEER, AX, AY = range(9)  # world m, rad; velocity of the box's middle along the body, m/s; rad/s; rad; m/s^2 world
THROTTLE, WHEEL, BRAKE, HAND_BRAKE, REVERSE = range(5)
(MASS, INERTIA, LF, LR, CF, CR, GRIP, MAX_STEER, STEER_RATE, PULL, POWER, BRAKES, DRAG, ROLLING, COASTING, TOP, BACK) = range(17)
CURVE = 17


@dataclass(frozen=True)
class CarParams:
    """One car; SI units. The defaults are the Lincoln MKZ's."""

    mass: float = 1696.0
    inertia: float = 3170.0  # kg m^2 about z
    front: float = 1.425  # m, centre of mass to the front axle
    rear: float = 1.425
    front_stiffness: float = 11.0  # 1/rad, force of the front tyres sideways as a multiple of their load
    rear_stiffness: float = 14.5
    grip: float = 0.92  # of the tyres on a dry road, sideways
    max_steer: float = math.radians(34.9)  # at the wheels
    steer_rate: float = math.radians(60.0)  # rad/s at the wheels
    pull: float = 6500.0  # N at most
    power: float = 140e3  # W at the wheels
    brakes: float = 17000.0  # N at most
    drag: float = 0.67  # m^2, drag coefficient times area
    rolling: float = 0.013  # of the weight
    coasting: float = 0.35  # m/s^2 of the engine without throttle
    top_speed: float = 67.0  # m/s at which the engine holds back
    reverse_speed: float = 9.0  # m/s at most
    curve: tuple[tuple[float, float], ...] = ((0.0, 1.0), (20.0, 0.9), (60.0, 0.8), (120.0, 0.7))  # km/h, share of max_steer; CARLA's
    radius: float = 0.33  # m of a wheel
    two_wheels: float = 0.0

    def row(self) -> Array:
        """(25,) for the kernel: the first 17 fields, and the steering curve at CURVE_KMH."""
        numbers = [getattr(self, name) for name in ROW]
        speeds, shares = zip(*self.curve)
        return np.array([*numbers, *np.interp(CURVE_KMH, speeds, shares)])


ROW = tuple(CarParams.__dataclass_fields__)[:CURVE]


@njit(cache=True)
def _share(v, p):
    """Of the largest steering angle, at `v` m/s."""
    v = abs(v)
    for k in range(1, len(CURVE_MS)):
        if v < CURVE_MS[k]:
            part = (v - CURVE_MS[k - 1]) / (CURVE_MS[k] - CURVE_MS[k - 1])
            return (1.0 - part) * p[CURVE + k - 1] + part * p[CURVE + k]
    return p[CURVE + len(CURVE_MS) - 1]


@njit(cache=True)
def _forces(v, throttle, brake, hand, reverse, p):
    """N along the body: what pulls, what brakes, and what air and rolling take."""
    weight = p[MASS] * GRAVITY
    most = ALONG * p[GRIP] * weight
    drive = 0.0
    if not hand:
        room = p[BACK] + v if reverse else p[TOP] - v
        drive = throttle * min(p[PULL], p[POWER] / max(abs(v), 1.0)) * min(max(room, 0.0), 1.0)
        drive = min(drive, 0.6 * most) * (-1.0 if reverse else 1.0)
    slow = brake * p[BRAKES]
    if hand:
        slow += 0.5 * p[GRIP] * weight
    if throttle < 0.01:
        slow += p[COASTING] * p[MASS]
    return drive, min(slow, most), p[ROLLING] * weight + 0.5 * AIR * p[DRAG] * v * v


@njit(cache=True)
def _towards(value, target, step):
    return value + min(max(target - value, -step), step)


@njit(cache=True)
def _advance(s, throttle, wheel, brake, hand, reverse, p, h):
    """One car, `h` seconds."""
    mass, inertia, lf, lr = p[MASS], p[INERTIA], p[LF], p[LR]
    base, hold = lf + lr, p[GRIP] * GRAVITY
    v, side, turn = s[VX], s[VY], s[YAW_RATE]
    s[STEER] = _towards(s[STEER], min(max(wheel, -1.0), 1.0) * p[MAX_STEER] * _share(v, p), p[STEER_RATE] * h)
    steer = s[STEER]
    drive, slow, resistance = _forces(v, throttle, brake, hand, reverse, p)
    new_v = _towards(v + drive / mass * h, 0.0, (slow + resistance) / mass * h)
    mix = min(max((math.hypot(v, side) - BLEND_LOW) / (BLEND_HIGH - BLEND_LOW), 0.0), 1.0)
    new_side, new_turn = 0.0, 0.0
    if mix > 0.0:
        used = min((abs(drive) + slow) / (ALONG * hold * mass), 1.0)
        left = max(math.sqrt(1.0 - used * used), LEAST)
        load_f, load_r = mass * GRAVITY * lr / base, mass * GRAVITY * lf / base
        top_f, top_r = FRONT * p[GRIP] * load_f * left, p[GRIP] * load_r * left
        if hand:
            top_r *= LOCKED
        ahead = steer if v > 0.0 else -steer
        force_f = top_f * math.tanh(p[CF] * load_f * (ahead - math.atan2(side + lf * turn, abs(v))) / top_f)
        force_r = top_r * math.tanh(-p[CR] * load_r * math.atan2(side - lr * turn, abs(v)) / top_r)
        new_side = side + ((force_f * math.cos(steer) + force_r) / mass - v * turn) * h
        new_turn = turn + (lf * force_f * math.cos(steer) - lr * force_r) / inertia * h
        new_v += (side * turn - force_f * math.sin(steer) / mass) * h * mix
    bend = math.tan(steer) / base
    bend = min(max(bend, -hold / max(v * v, 1.0)), hold / max(v * v, 1.0))
    roll_turn = _towards(turn, new_v * bend, 0.5 * hold * mass * base / inertia * h)
    roll_side = _towards(side, new_v * bend * lr, hold * h)
    s[VX] = new_v
    s[YAW_RATE] = mix * new_turn + (1.0 - mix) * roll_turn
    s[VY] = mix * new_side + (1.0 - mix) * roll_side
    middle = s[YAW] + 0.5 * h * s[YAW_RATE]
    c, d = math.cos(middle), math.sin(middle)
    s[X] += (c * s[VX] - d * s[VY]) * h
    s[Y] += (d * s[VX] + c * s[VY]) * h
    s[YAW] += h * s[YAW_RATE]


@njit(cache=True)
def step_cars(state, control, params, free, dt):
    """Advance the cars (N, 9) of which `free` (N,) is true by `dt` s under `control` (N, 5) in place; `params` (N, 25) of CarParams.row."""
    count = max(math.ceil(dt / SUBSTEP - 1e-6), 1)
    h = dt / count
    for i in range(state.shape[0]):
        if not free[i]:
            continue
        s, u = state[i], control[i]
        c, d = math.cos(s[YAW]), math.sin(s[YAW])
        before_x, before_y = c * s[VX] - d * s[VY], d * s[VX] + c * s[VY]
        for _ in range(count):
            _advance(s, u[THROTTLE], u[WHEEL], u[BRAKE], u[HAND_BRAKE] > 0.5, u[REVERSE] > 0.5, params[i], h)
        c, d = math.cos(s[YAW]), math.sin(s[YAW])
        s[AX] = (c * s[VX] - d * s[VY] - before_x) / dt
        s[AY] = (d * s[VX] + c * s[VY] - before_y) / dt
