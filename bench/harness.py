"""What a benchmark file needs: a row of the table, and a timer whose ratios survive a busy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: what was measured, its value and unit, and the goal or condition it stands against."""

    what: str
    value: float
    unit: str
    note: str = ""


class Timing(NamedTuple):
    """Seconds per call: median, fastest and slowest of the repeats."""

    median: float
    fastest: float
    slowest: float


def timed(action: Callable[[], object], repeats: int = 7, warm: int = 2) -> Timing:
    """Time `repeats` calls of `action` after `warm` calls that are thrown away (compilation, caches)."""
    seconds = [_seconds(action) for _ in range(warm + repeats)][warm:]
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def ratio(peer: Callable[[], object], ours: Callable[[], object], rounds: int = 7, warm: int = 2) -> Timing:
    """How many times faster `ours` is than `peer`: the two alternate, and each round gives one ratio.

    Returned as a Timing of ratios: median, smallest, largest.
    """
    pairs = [(_seconds(peer), _seconds(ours)) for _ in range(warm + rounds)][warm:]
    ratios = [slow / fast for slow, fast in pairs]
    return Timing(statistics.median(ratios), min(ratios), max(ratios))


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
