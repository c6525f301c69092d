"""nuPlan's comfort metrics of a driven history: accelerations, jerks, yaw rate and yaw acceleration, and their bounds.

Source: nuplan-devkit v1.2, metrics/evaluation_metrics/common/ego_*.py and metrics/utils/state_extractors.py. Signals are Savitzky-Golay
filtered (quadratic; 8 samples for accelerations, 15 more for jerks, 5 for yaw, cubic for yaw acceleration), a shorter history by a
window of its own length. Magnitudes are those of the rear axle, the components those of the box centre by nuPlan's formula, in
which both angular terms act along the car.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from drive.core.errors import DataError
from drive.core.vehicle import PACIFICA, STATE_SIZE, VehicleParams

Array = NDArray[np.float64]
BOUNDS = {  # low, high; strict
    "lon_acceleration": (-4.05, 2.40),  # m/s^2
    "lat_acceleration": (-4.89, 4.89),
    "jerk": (-8.37, 8.37),  # m/s^3
    "lon_jerk": (-4.13, 4.13),
    "yaw_rate": (-0.95, 0.95),  # rad/s
    "yaw_acceleration": (-1.93, 1.93),  # rad/s^2
}


@dataclass(frozen=True)
class Signal:
    """One signal over a history."""

    values: Array  # (T,)

    @property
    def max(self) -> float:
        """Largest value."""
        return float(self.values.max())

    @property
    def min(self) -> float:
        """Smallest value."""
        return float(self.values.min())

    @property
    def mean(self) -> float:
        """Mean over the history."""
        return float(self.values.mean())

    @property
    def p90(self) -> float:
        """The 90th percentile of the absolute values, taken as one of them (nuPlan's "nearest")."""
        return float(np.percentile(np.abs(self.values), 90, method="nearest"))


def _filter(values: Array, window: int, order: int, derivative: int, dt: float) -> Array:
    window = min(window, len(values))
    if order >= window:
        raise DataError(f"a filter of order {order} wants more than {window} samples: the history is too short for comfort")
    return np.asarray(savgol_filter(values, window, order, deriv=derivative, delta=dt), np.float64)


def comfort_signals(states: Array, dt: float, vehicle: VehicleParams = PACIFICA) -> dict[str, Signal]:
    """Signals by name, those of BOUNDS and "acceleration" (magnitude), of ego states (T, 11) every `dt` s, see drive.core.vehicle.

    Raises DataError on other shapes, NaN, and histories of less than four samples.
    """
    states = np.asarray(states, np.float64)
    if states.ndim != 2 or states.shape[1] != STATE_SIZE or not np.isfinite(states).all() or not dt > 0.0:
        raise DataError(f"comfort takes finite states (T, {STATE_SIZE}) and a positive time step, got {states.shape} and {dt}")
    magnitude = _filter(np.hypot(states[:, 5], states[:, 6]), 8, 2, 0, dt)
    along = _filter(states[:, 5] + vehicle.rear_to_center * (states[:, 9] ** 2 + states[:, 10]), 8, 2, 0, dt)
    heading = np.unwrap(states[:, 2])
    signals = {
        "acceleration": magnitude,
        "lon_acceleration": along,
        "lat_acceleration": _filter(states[:, 6], 8, 2, 0, dt),
        "jerk": _filter(magnitude, 15, 2, 1, dt),
        "lon_jerk": _filter(along, 15, 2, 1, dt),
        "yaw_rate": _filter(heading, 5, 2, 1, dt),
        "yaw_acceleration": _filter(heading, 5, 3, 2, dt),
    }
    return {name: Signal(values) for name, values in signals.items()}


def within_bounds(signals: dict[str, Signal]) -> dict[str, bool]:
    """Whether each signal of BOUNDS keeps its bounds at all times."""
    return {name: bool(low < signals[name].min and signals[name].max < high) for name, (low, high) in BOUNDS.items()}


def comfortable(states: Array, dt: float) -> float:
    """1 if every signal keeps its bounds, else 0: nuPlan's ego_is_comfortable."""
    return float(all(within_bounds(comfort_signals(states, dt)).values()))


def mean_speed(states: Array) -> float:
    """m/s over the history, states (T, 11): nuPlan's ego_mean_speed."""
    return float(np.hypot(states[:, 3], states[:, 4]).mean())
