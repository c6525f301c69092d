"""Kernels of the two-stage controller: profiles of a path, one-step LQR, kinematic bicycle. Use them through drive.core.vehicle.

NAVSIM's batched copy of nuPlan's controller, 0.1 s steps. Its profiles over M steps are least-squares fits that upstream solves
by pseudo-inverse over an initial value and its increments. Written for the values themselves the same problems are banded:

- speed: sum_k |d_k - u_k dt v_k|^2 + p sum_{1 <= j <= M-3} a_j^2 + p (a_{M-1} - a_{M-2})^2, with a_j = (v_j - v_{j-1}) / dt.
  One constant matrix, because |u_k| = 1. nuPlan penalises every difference of accelerations; in NAVSIM's outputs only the last
  row does, the others penalise the acceleration itself (recovered from those outputs, and equal to them to 1e-11).
- curvature: sum_k (dh_k - dt v_k kappa_k)^2 + q sum_k ((kappa_{k+1} - kappa_k) / dt)^2 + r kappa_0^2, tridiagonal.

Both are positive definite, at a standstill too (r > 0), so the answer is the pseudo-inverse's.
"""

import math

import numpy as np
from numba import njit

DT = 0.1  # s, step of targets and states
HORIZON = 10  # steps that the controller looks ahead
Q_LONGITUDINAL, R_LONGITUDINAL = 10.0, 1.0
Q_LATERAL, Q_HEADING, R_STEERING_RATE = 1.0, 10.0, 1.0
JERK_PENALTY = 1e-4
CURVATURE_RATE_PENALTY = 1e-2
INITIAL_CURVATURE_PENALTY = 1e-10
STOPPING_SPEED = 0.2  # m/s, below which the proportional stopping controller drives
STOPPING_GAIN = 0.5


@njit(cache=True, inline="always")
def _wrap(angle):
    """Radians to [-pi, pi), nuPlan's principal value."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


@njit(cache=True)
def factor_speed_system(size):
    """LDL' factors of the speed fit's matrix over dt^2: diagonal (M,), first and second subdiagonal (M,)."""
    weight = JERK_PENALTY / DT**4
    diagonal, first, second = np.ones(size), np.zeros(size), np.zeros(size)
    for k in range(size - 3):
        diagonal[k] += weight
        diagonal[k + 1] += weight
        first[k] -= weight
    k = size - 3
    diagonal[k] += weight
    diagonal[k + 1] += 4.0 * weight
    diagonal[k + 2] += weight
    first[k] -= 2.0 * weight
    first[k + 1] -= 2.0 * weight
    second[k] += weight
    for k in range(size):
        if k + 1 < size:
            low = first[k] / diagonal[k]
            diagonal[k + 1] -= low * first[k]
            if k + 2 < size:
                first[k + 1] -= low * second[k]
            first[k] = low
        if k + 2 < size:
            low = second[k] / diagonal[k]
            diagonal[k + 2] -= low * second[k]
            second[k] = low
    return diagonal, first, second


@njit(cache=True)
def _fit_speed(targets, diagonal, first, second, speed):
    """Speeds (M,) into `speed` from targets (M + 1, 3): displacement along the heading at the start of each step, smoothed."""
    size = speed.shape[0]
    for k in range(size):
        heading = targets[k, 2]
        dx, dy = targets[k + 1, 0] - targets[k, 0], targets[k + 1, 1] - targets[k, 1]
        speed[k] = (math.cos(heading) * dx + math.sin(heading) * dy) / DT
        if k >= 1:
            speed[k] -= first[k - 1] * speed[k - 1]
        if k >= 2:
            speed[k] -= second[k - 2] * speed[k - 2]
    for k in range(size - 1, -1, -1):
        speed[k] /= diagonal[k]
        if k + 1 < size:
            speed[k] -= first[k] * speed[k + 1]
        if k + 2 < size:
            speed[k] -= second[k] * speed[k + 2]


@njit(cache=True)
def _fit_curvature(targets, speed, pivot, curvature):
    """Curvatures (M,) into `curvature`, from targets (M + 1, 3) and speeds (M,); `pivot` (M,) is scratch.

    The elimination carries the excess of each pivot over the coupling instead of subtracting, so nothing cancels where the car
    is all but standing and the data terms vanish beside the coupling.
    """
    size = speed.shape[0]
    coupling = CURVATURE_RATE_PENALTY / DT**2
    excess, carried = 0.0, 0.0
    for k in range(size):
        step = DT * speed[k]
        excess = step * step + (coupling * excess / pivot[k - 1] if k > 0 else INITIAL_CURVATURE_PENALTY)
        pivot[k] = excess + (coupling if k + 1 < size else 0.0)
        carried = step * _wrap(targets[k + 1, 2] - targets[k, 2]) + (coupling * carried / pivot[k - 1] if k > 0 else 0.0)
        curvature[k] = carried
    for k in range(size - 1, -1, -1):
        ahead = coupling * curvature[k + 1] if k + 1 < size else 0.0
        curvature[k] = (curvature[k] + ahead) / pivot[k]


@njit(cache=True)
def _steering_rate(state, target, acceleration, curvature, step, wheel_base):
    """rad/s of the lateral LQR: errors and steering over the horizon as one affine step with a constant rate."""
    last = curvature.shape[0] - 1
    sin, cos = math.sin(target[2]), math.cos(target[2])
    lateral = cos * (state[1] - target[1]) - sin * (state[0] - target[0])
    heading, steering = _wrap(state[2] - target[2]), state[7]
    gain_lateral, gain_heading, gain_steering = 0.0, 0.0, 0.0
    for k in range(HORIZON):
        travelled = DT * (state[3] + k * DT * acceleration)
        lateral += travelled * heading
        heading += travelled * (steering / wheel_base - curvature[min(step + k, last)])
        gain_lateral += travelled * gain_heading
        gain_heading += travelled * gain_steering / wheel_base
        gain_steering += DT
    heading = _wrap(heading)
    weighted = Q_LATERAL * gain_lateral * lateral + Q_HEADING * gain_heading * heading
    return -weighted / (Q_LATERAL * gain_lateral**2 + Q_HEADING * gain_heading**2 + R_STEERING_RATE)


@njit(cache=True)
def _step(state, acceleration, steering_rate, wheel_base, max_steering, tau_acceleration, tau_steering, out):
    """One Euler step (11,) into `out` (11,): kinematic bicycle behind lagging actuators, moved by its old heading and speed."""
    applied = state[5] + DT / (DT + tau_acceleration) * (acceleration - state[5])
    turned = DT / (DT + tau_steering) * (DT * steering_rate)
    out[0] = state[0] + DT * state[3] * math.cos(state[2])
    out[1] = state[1] + DT * state[3] * math.sin(state[2])
    out[2] = _wrap(state[2] + DT * state[3] * math.tan(state[7]) / wheel_base)
    out[3] = state[3] + DT * applied
    out[4] = 0.0
    out[5] = applied
    out[6] = 0.0
    out[7] = min(max(state[7] + turned, -max_steering), max_steering)
    out[8] = turned / DT
    out[9] = out[3] * math.tan(out[7]) / wheel_base
    out[10] = (out[9] - state[9]) / DT


@njit(cache=True, nogil=True)
def simulate_kernel(initial, targets, wheel_base, max_steering, tau_acceleration, tau_steering):
    """States (N, M + 1, 11) of N cars that start at `initial` (N, 11) and track `targets` (N, M + 1, 3)."""
    count, size = targets.shape[0], targets.shape[1] - 1
    states = np.empty((count, size + 1, 11))
    diagonal, first, second = factor_speed_system(size)
    speed, curvature, scratch = np.empty(size), np.empty(size), np.empty(size)
    gain = Q_LONGITUDINAL * HORIZON * DT / (Q_LONGITUDINAL * (HORIZON * DT) ** 2 + R_LONGITUDINAL)
    for n in range(count):
        _fit_speed(targets[n], diagonal, first, second, speed)
        _fit_curvature(targets[n], speed, scratch, curvature)
        states[n, 0] = initial[n]
        for i in range(size):
            state = states[n, i]
            wanted = speed[min(i + HORIZON, size - 1)]
            if wanted <= STOPPING_SPEED and state[3] <= STOPPING_SPEED:
                acceleration, rate = -STOPPING_GAIN * (state[3] - wanted), 0.0
            else:
                acceleration = gain * (wanted - state[3])
                rate = _steering_rate(state, targets[n, i], acceleration, curvature, i, wheel_base)
            _step(state, acceleration, rate, wheel_base, max_steering, tau_acceleration, tau_steering, states[n, i + 1])
    return states


@njit(cache=True, nogil=True)
def sample_kernel(poses, knots_us, query_us):
    """Poses (N, Q, 3) at increasing integer times `query_us` (Q,) from poses (N, K, 3) at `knots_us` (K,); ends held."""
    count, last = poses.shape[0], poses.shape[1] - 1
    out = np.empty((count, query_us.shape[0], 3))
    for n in range(count):
        i = 0
        for q in range(query_us.shape[0]):
            time = min(max(query_us[q], knots_us[0]), knots_us[last])
            while i < last - 1 and time > knots_us[i + 1]:
                i += 1
            weight = (time - knots_us[i]) / (knots_us[i + 1] - knots_us[i])
            out[n, q, 0] = poses[n, i, 0] + weight * (poses[n, i + 1, 0] - poses[n, i, 0])
            out[n, q, 1] = poses[n, i, 1] + weight * (poses[n, i + 1, 1] - poses[n, i, 1])
            out[n, q, 2] = _wrap(poses[n, i, 2] + weight * _wrap(poses[n, i + 1, 2] - poses[n, i, 2]))
    return out
