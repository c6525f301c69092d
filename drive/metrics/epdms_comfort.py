"""Comfort of NAVSIM's EPDMS v2.2: history comfort (HC) and two-frame extended comfort (EC).

Source: NAVSIM v2.2, pdm_comfort_metrics.py, checked against its own outputs. Quirks that are part of the published numbers: states
interpolated from the log carry no yaw rate; the centre's longitudinal acceleration takes both angular terms, its lateral one
none; the jerk of the acceleration's magnitude is that of the rear axle; yaw filters are always 5 samples wide.
"""

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.vehicle import PACIFICA, STATE_SIZE
from drive.metrics.pdms_comfort import DECIMALS, DT, HIGH, LOW, YAW_WINDOW, savgol_matrix

Array = NDArray[np.float64]
ACCELERATION_WINDOW, JERK_WINDOW = 8, 15  # samples
FRAME_LIMITS = np.array([0.7, 0.5, 0.1, 0.1])  # RMS of two frames' difference: m/s^2, m/s^3, rad/s, rad/s^2
MAX_FRAME_GAP = 0.55  # s between two frames that are compared
DT_US = 100_000


def interpolate_history(states: Array, time_us: NDArray[np.int64]) -> Array:
    """Past (P, 11) every 0.1 s of logged states (H, 11) at `time_us` (H,), ascending, the last one the present.

    The present is left out and so is the last sample before it: a span of exactly 1.5 s gives 14 samples. Yaw rate and yaw
    acceleration are 0, as nuPlan's interpolation leaves them. Raises DataError on fewer than two states, other shapes, NaN.
    """
    states, time_us = np.asarray(states, np.float64), np.asarray(time_us, np.int64)
    if states.ndim != 2 or states.shape[1] != STATE_SIZE or len(states) < 2 or time_us.shape != (len(states),):
        raise DataError(f"a history has states (H >= 2, {STATE_SIZE}) with their times (H,), got {states.shape} and {time_us.shape}")
    if not np.isfinite(states).all() or (np.diff(time_us) <= 0).any():
        raise DataError("a history has finite states with ascending times")
    span = int(time_us[-1] - time_us[0])
    count = max(-(-span // DT_US) - 1, 0)
    query, knots = DT_US * np.arange(count, dtype=np.float64), (time_us - time_us[0]).astype(np.float64)
    past = np.stack([np.interp(query, knots, states[:, k]) for k in range(STATE_SIZE)], axis=-1)
    past[:, :3] = interpolate_poses(knots, states[:, :3], query)
    past[:, 9:] = 0.0
    return past


def history_signals(past: Array, states: Array) -> Array:
    """The six filtered signals (N, 6, P + T), in the order of pdms_comfort.NAMES, of `past` (P, 11) and then states (N, T, 11)."""
    joined = np.concatenate([np.broadcast_to(past, (len(states), *past.shape)), states], axis=1)
    samples = joined.shape[1]
    smooth, slope = savgol_matrix(samples, ACCELERATION_WINDOW, 2), savgol_matrix(samples, JERK_WINDOW, 2, 1)
    longitudinal = joined[..., 5] + PACIFICA.rear_to_center * (joined[..., 9] ** 2 + joined[..., 10])
    heading = np.unwrap(joined[..., 2], axis=-1)

    def jerk(acceleration: Array) -> Array:
        return np.round(acceleration @ smooth, DECIMALS) @ slope

    signals = [
        longitudinal @ smooth,
        joined[..., 6] @ smooth,
        jerk(np.hypot(joined[..., 5], joined[..., 6])),
        jerk(longitudinal),
        heading @ savgol_matrix(samples, YAW_WINDOW, 3, 2),
        heading @ savgol_matrix(samples, YAW_WINDOW, 2, 1),
    ]
    return np.round(np.stack(signals, axis=1), DECIMALS)


def history_comfort(past: Array, states: Array) -> NDArray[np.bool_]:
    """Whether each of the six signals keeps its bounds over past and plan, (N, 6)."""
    signals = history_signals(past, states)
    return (signals.max(axis=2) < HIGH) & (signals.min(axis=2) > LOW)


def frame_differences(first: Array, second: Array) -> Array:
    """RMS over time (N, 4) of the difference of two frames' plans, states (N, T, 11) of the same instants.

    Of the acceleration's magnitude (m/s^2), its jerk (m/s^3), yaw rate (rad/s), yaw acceleration (rad/s^2; a quadratic filter
    here, where history comfort has a cubic one); rear axle.
    """
    samples = first.shape[1]
    smooth, slope = savgol_matrix(samples, ACCELERATION_WINDOW, 2), savgol_matrix(samples, JERK_WINDOW, 2, 1)
    yaw = [savgol_matrix(samples, YAW_WINDOW, 2, k) for k in (1, 2)]
    signals = []
    for states in (first, second):
        magnitude = np.round(np.hypot(states[..., 5], states[..., 6]) @ smooth, DECIMALS)
        heading = np.unwrap(states[..., 2], axis=-1)
        signals.append(np.round(np.stack([magnitude, magnitude @ slope, *(heading @ y for y in yaw)], axis=1), DECIMALS))
    return np.sqrt(((signals[0] - signals[1]) ** 2).mean(axis=2))


def extended_comfort(now: Array, previous: Array, gap_s: float) -> Array:
    """EC (N,), 1 or 0, of plans' simulated states (N, 41, 11) now, and of the frame `gap_s` seconds before.

    The two are compared where they overlap, after round(gap / 0.1) steps. Raises DataError unless 0 < gap_s < 0.55.
    """
    if not 0.0 < gap_s < MAX_FRAME_GAP:
        raise DataError(f"extended comfort compares frames less than {MAX_FRAME_GAP} s apart, got {gap_s:g} s")
    steps = round(gap_s / DT)
    shared = now.shape[1] - steps
    return np.where((frame_differences(now[:, :shared], previous[:, steps:]) <= FRAME_LIMITS).all(axis=1), 1.0, 0.0)
