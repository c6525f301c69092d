"""Which half-second motions a car can make: the filter that keeps impossible tokens out of a codebook.

A motion is an SE(2) delta (N, 3) = forward m, left m, heading change rad of the REAR AXLE over `dt` seconds. The rear axle is
the one point of a car that moves along its heading, so a motion of constant steering is a circular arc whose chord stands at
half the heading change; everything below follows from that.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """What a passenger car can do. The three allowances at the end are for the noise of logged tracks."""

    max_speed: float = 35.0  # m/s, mean over the motion; 126 km/h
    max_acceleration: float = 5.0  # m/s^2, between the mean speeds of two consecutive motions
    max_deceleration: float = 9.0  # m/s^2, positive; full braking on a dry road
    max_curvature: float = 0.22  # 1/m, of the rear axle's path; a turning radius of 4.5 m
    max_yaw_rate: float = 1.0  # rad/s
    max_lateral_acceleration: float = 6.0  # m/s^2, speed times yaw rate
    max_slip_angle: float = 0.015  # rad between the motion and the chord of its arc: steering that changes, heading bias of a log
    allow_reverse: bool = False
    slip_noise: float = 0.02  # m sideways at any speed
    reverse_noise: float = 0.03  # m backwards at a standstill; under a 0.05 m tolerance these all fall to the token of no motion
    heading_noise: float = 0.005  # rad of heading change without motion


def arc_motion(deltas: Array) -> tuple[Array, Array]:
    """(length, slip), each (N,) m: signed arc length of the motions (N, 3), and the distance sideways from the arc's chord."""
    half = deltas[:, 2] / 2.0
    c, s = np.cos(half), np.sin(half)
    forward = c * deltas[:, 0] + s * deltas[:, 1]
    slip = c * deltas[:, 1] - s * deltas[:, 0]
    return forward / np.sinc(half / np.pi), slip


def segment_speed(deltas: Array, dt: float) -> Array:
    """Mean speed (N,) m/s of the motions (N, 3) over `dt` s, from the arc length; negative in reverse."""
    return arc_motion(deltas)[0] / dt


def rear_axle_offset(deltas: Array) -> float:
    """How far ahead of the rear axle, m, the point lies whose motions (N, 3) these are; 0 where fewer than 30 of them turn.

    A point d m ahead of the rear axle slips 2 d sin(turn / 2) outwards in a turn; this is the median d, as logs hold outliers.
    About 1.4 m means box centres: convert them by `compose(poses, [-d, 0, 0])`, or most turns will be taken for slips.
    """
    length, slip = arc_motion(deltas)
    turning = (np.abs(deltas[:, 2]) > 0.03) & (length > 1.0)
    if turning.sum() < 30:
        return 0.0
    return float(np.median(slip[turning] / (2.0 * np.sin(deltas[turning, 2] / 2.0))))


def feasible(deltas: Array, dt: float, bounds: Bounds) -> NDArray[np.bool_]:
    """(N,) whether each motion (N, 3) over `dt` s keeps the bounds on speed, direction, turning and slip.

    Acceleration is not a property of one motion: see `feasible_acceleration`.
    """
    length, slip = arc_motion(deltas)
    distance, turn = np.abs(length), np.abs(deltas[:, 2])
    ok = distance <= bounds.max_speed * dt
    if not bounds.allow_reverse:
        ok &= length >= -bounds.reverse_noise
    ok &= turn <= bounds.max_yaw_rate * dt
    ok &= turn <= bounds.max_curvature * distance + bounds.heading_noise
    ok &= turn * distance <= bounds.max_lateral_acceleration * dt**2 + bounds.heading_noise * distance
    ok &= np.abs(slip) <= bounds.slip_noise + bounds.max_slip_angle * distance
    return ok


def feasible_acceleration(previous_speed: Array, speed: Array, dt: float, bounds: Bounds) -> NDArray[np.bool_]:
    """(N,) whether going from one mean speed to the next (both (N,) m/s, `dt` s apart) keeps the bounds; NaN, unknown, passes.

    A token may follow any other token, so no codebook can bound acceleration by itself. In `fit` the bound is applied to what
    the token was seen to do: a logged motion reached from its predecessor by an impossible jump is not offered as a token.
    """
    gain = (speed - previous_speed) / dt
    return ~((gain > bounds.max_acceleration) | (gain < -bounds.max_deceleration))


def feasible_pairs(deltas: Array, dt: float, bounds: Bounds) -> NDArray[np.bool_]:
    """(N, T-1) whether each step of the token sequences (N, T, 3) follows the one before within the acceleration bounds."""
    speed = segment_speed(deltas.reshape(-1, 3), dt).reshape(deltas.shape[:2])
    return feasible_acceleration(speed[:, :-1], speed[:, 1:], dt, bounds)
