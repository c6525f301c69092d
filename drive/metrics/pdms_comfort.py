"""Comfort of NAVSIM's PDM score v1.1: six bounds on Savitzky-Golay filtered signals of 41 simulated states.

Source: NAVSIM v1.1, pdm_comfort_metrics.py. A filter along a fixed number of samples is linear, so it is one matrix here:
SciPy's own filter, with its edge handling and its even windows, applied to the identity.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

Array = NDArray[np.float64]
DT = 0.1  # s between states
DECIMALS = 8  # NAVSIM rounds every filtered signal
NAMES = ("lon_acceleration", "lat_acceleration", "jerk", "lon_jerk", "yaw_acceleration", "yaw_rate")  # order of components
LOW = np.array([-4.05, -4.89, -8.37, -4.13, -1.93, -0.95])  # m/s^2, m/s^3, rad/s^2, rad/s
HIGH = np.array([2.40, 4.89, 8.37, 4.13, 1.93, 0.95])
JERK_WINDOW = 8  # samples, of the acceleration that jerk is taken from
YAW_WINDOW = 5  # samples; upstream accepts another window and ignores it


@lru_cache(maxsize=32)
def savgol_matrix(samples: int, window: int, order: int, derivative: int = 0) -> Array:
    """Matrix F (samples, samples): signal (..., samples) @ F is its Savitzky-Golay filter."""
    identity, window = np.eye(samples), min(window, samples)
    return np.asarray(savgol_filter(identity, window, order, deriv=derivative, delta=DT, axis=-1), np.float64)


def comfort_signals(states: Array) -> Array:
    """The six filtered signals (N, 6, T), in the order of NAMES, of states (N, T, 11) at 0.1 s; SI units, rear axle."""
    samples = states.shape[1]
    smooth, jerk_smooth = savgol_matrix(samples, samples, 2), savgol_matrix(samples, JERK_WINDOW, 2)
    slope = savgol_matrix(samples, samples, 2, 1)
    longitudinal, lateral = states[..., 5], states[..., 6]
    heading = np.unwrap(states[..., 2], axis=-1)

    def jerk(acceleration: Array) -> Array:
        return np.round(acceleration @ jerk_smooth, DECIMALS) @ slope

    signals = [
        longitudinal @ smooth,
        lateral @ smooth,
        jerk(np.hypot(longitudinal, lateral)),
        jerk(longitudinal),
        heading @ savgol_matrix(samples, YAW_WINDOW, 3, 2),
        heading @ savgol_matrix(samples, YAW_WINDOW, 2, 1),
    ]
    return np.round(np.stack(signals, axis=1), DECIMALS)


def comfort_components(states: Array) -> NDArray[np.bool_]:
    """Whether each of the six signals keeps its bounds at all steps, (N, 6), of states (N, T, 11)."""
    signals = comfort_signals(states)
    return (signals.max(axis=2) < HIGH) & (signals.min(axis=2) > LOW)
