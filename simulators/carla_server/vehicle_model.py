"""Cars as dynamic single-track models with tyre slip, all of an episode in one compiled call.

Left-handed like CARLA: a positive steering angle and yaw rate turn right; the equations are the same in both frames. Below BLEND_LOW
the slip angles mean nothing and the kinematic bicycle rules; up to BLEND_HIGH the two are mixed (Rajamani, Vehicle Dynamics and
Control, 2nd edition, 2.2 and 2.3). Gears are left out: the pull is what power and grip allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
GRAVITY, AIR = 9.81, 1.225  # m/s^2, kg/m^3
BLEND_LOW, BLEND_HIGH = 3.0, 6.0  # m/s
SUBSTEP = 0.01  # s at most
X, Y, YAW, VX, VY, YAW_RATE, STEER, AX, AY = range(9)  # world m, rad; velocity of the box's middle along the body, m/s; rad/s; rad; m/s^2 world
THROTTLE, WHEEL, BRAKE, HAND_BRAKE, REVERSE = range(5)


@dataclass(frozen=True)
class CarParams:
    """One car; SI units."""

    mass: float = 1700.0
    inertia: float = 2900.0  # kg m^2 about z
    front: float = 1.425  # m, centre of mass to the front axle
    rear: float = 1.425
    front_stiffness: float = 95e3  # N/rad of both wheels
    rear_stiffness: float = 115e3
    grip: float = 1.0  # of the tyres on a dry road
    max_steer: float = math.radians(35.0)  # at the wheels
    steer_rate: float = math.radians(60.0)  # rad/s at the wheels
    pull: float = 6500.0  # N at most
    power: float = 140e3  # W at the wheels
    brakes: float = 17000.0  # N at most
    drag: float = 0.66  # m^2, drag coefficient times area
    rolling: float = 0.013  # of the weight
    coasting: float = 0.35  # m/s^2 of the engine without throttle
    reverse_speed: float = 9.0  # m/s at most

    def row(self) -> Array:
        """(P,) for the kernel."""
        return np.array([getattr(self, f.name) for f in fields(self)])


@njit(cache=True)
def _forces(v, throttle, brake, hand, reverse, p):
    """N along the body: what pulls, and what only ever slows down."""
    mass, pull, power = p[0], p[9], p[10]
    drive = 0.0
    if not hand:
        drive = throttle * min(pull, power / max(abs(v), 1.0))
    if reverse:
        drive = -drive if v > -p[15] else 0.0
    slow = brake * p[11] + p[13] * mass * GRAVITY + 0.5 * AIR * p[12] * v * v
    if hand:
        slow += 0.5 * p[6] * mass * GRAVITY
    if throttle < 0.01:
        slow += p[14] * mass
    most = p[6] * mass * GRAVITY
    return min(max(drive, -most), most), min(slow, most)


@njit(cache=True)
def _advance(s, throttle, wheel, brake, hand, reverse, p, h):
    """One car, `h` seconds."""
    mass, inertia, lf, lr = p[0], p[1], p[2], p[3]
    target = min(max(wheel, -1.0), 1.0) * p[7]
    s[STEER] += min(max(target - s[STEER], -p[8] * h), p[8] * h)
    drive, slow = _forces(s[VX], throttle, brake, hand, reverse, p)
    steer, v = s[STEER], s[VX]
    base = lf + lr
    mix = min(max((v - BLEND_LOW) / (BLEND_HIGH - BLEND_LOW), 0.0), 1.0)
    side, turn = s[VY], s[YAW_RATE]
    new_v = v + drive / mass * h
    drop = slow / mass * h
    new_v = max(new_v - drop, 0.0) if new_v > 0.0 else min(new_v + drop, 0.0)
    if mix > 0.0:
        load_f, load_r = mass * GRAVITY * lr / base, mass * GRAVITY * lf / base
        top_f, top_r = p[6] * load_f, p[6] * load_r
        slip_f = steer - math.atan2(side + lf * turn, v)
        slip_r = -math.atan2(side - lr * turn, v)
        force_f = top_f * math.tanh(p[4] * slip_f / top_f)
        force_r = top_r * math.tanh(p[5] * slip_r / top_r)
        if hand:
            force_r *= 0.3
        new_side = side + ((force_f * math.cos(steer) + force_r) / mass - v * turn) * h
        new_turn = turn + (lf * force_f * math.cos(steer) - lr * force_r) / inertia * h
        new_v += (side * turn - force_f * math.sin(steer) / mass) * h * mix
    else:
        new_side, new_turn = 0.0, 0.0
    bend = math.tan(steer) / base
    s[VX] = new_v
    s[YAW_RATE] = mix * new_turn + (1.0 - mix) * new_v * bend
    s[VY] = mix * new_side + (1.0 - mix) * new_v * bend * lr
    middle = s[YAW] + 0.5 * h * s[YAW_RATE]
    c, d = math.cos(middle), math.sin(middle)
    s[X] += (c * s[VX] - d * s[VY]) * h
    s[Y] += (d * s[VX] + c * s[VY]) * h
    s[YAW] += h * s[YAW_RATE]


@njit(cache=True)
def step_cars(state, control, params, free, dt):
    """Advance the cars (N, 9) of which `free` (N,) is true by `dt` s under `control` (N, 5) in place."""
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
