"""Intervals that stand beside every headline number."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from drive.core.seeds import numpy_rng


def bootstrap_interval(
    values: NDArray[np.float64], groups: Sequence[Hashable] | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (N,).

    groups: what each value comes from (N,), its log; whole groups are resampled, since scenes of one drive are not independent
    (cluster bootstrap: Cameron, Gelbach and Miller 2008). Without groups, or with all values of one, every value is its own.
    """
    values = np.asarray(values, float)
    if not len(values):
        return 0.0, 0.0
    index = np.arange(len(values)) if groups is None else _numbered(groups)
    index = index if index.any() else np.arange(len(values))
    sums, counts = np.bincount(index, values), np.bincount(index)
    drawn = numpy_rng(seed, "bootstrap").integers(0, len(sums), (resamples, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """(N,) number of each value's group, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def paired_interval(
    a: NDArray[np.float64], b: NDArray[np.float64], groups: Sequence[Hashable] | None = None, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """(mean of a - b, its 95 % bootstrap interval) over paired samples (N,); groups as in `bootstrap_interval`."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    return float(difference.mean()), bootstrap_interval(difference, groups, seed=seed)
