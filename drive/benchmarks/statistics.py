"""Intervals that stand beside every headline number."""

import numpy as np
from numpy.typing import NDArray

from drive.core.seeds import numpy_rng


def bootstrap_interval(values: NDArray[np.float64], level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (N,), resampling the N values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return (float(values.mean()), float(values.mean())) if len(values) else (0.0, 0.0)
    rng = numpy_rng(seed, "bootstrap")
    means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> tuple[float, tuple[float, float]]:
    """(mean of a - b, its 95 % bootstrap interval) over paired samples (N,)."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    return float(difference.mean()), bootstrap_interval(difference, seed=seed)
