"""Logs that lack frames: a present stands only where no frame is missing around it, and those that are lost so are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.datasets.logged import LogDataset, Reader
from drive.datasets.logs import FUTURE_S, HISTORY_S

TOLERANCE = 0.3  # of a step, between two frames
BESIDE_GAPS = "beside_gaps"  # note of a Log: the presents left out


def whole_windows(stamps: NDArray[np.int64], dt: float) -> NDArray[np.bool_]:
    """(S,) whether the frames from 1.5 s before to 5 s after each are `dt` s apart; stamps (S,) in microseconds. Beyond the log's ends nothing is asked."""
    history, future, count = round(HISTORY_S / dt), round(FUTURE_S / dt), len(stamps)
    broken = np.abs(np.diff(stamps) * 1e-6 - dt) > TOLERANCE * dt
    total = np.concatenate([[0], np.cumsum(broken)])  # broken links before each frame
    first, last = (np.clip(np.arange(count) + by, 0, count - 1) for by in (-history, future))
    return total[last] == total[first]


def presents_beside_gaps(stamps: NDArray[np.int64], dt: float, stride_s: float) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The presents every `stride_s` of a log with gaps, and those that are lost to them; None and none where there is no gap."""
    whole = whole_windows(stamps, dt)
    if whole.all():
        return None, ()
    steps = range(round(HISTORY_S / dt), len(stamps), max(round(stride_s / dt), 1))
    return tuple(step for step in steps if whole[step]), tuple(step for step in steps if not whole[step])


class GapDataset(LogDataset):
    """A LogDataset that counts the presents lost to missing frames: in `expected`, and in one line of `faults` per log."""

    def __init__(self, reader: Reader, root: str | Path, split: str, stride_s: float = 0.5, short_futures: bool = False) -> None:
        """As LogDataset."""
        super().__init__(reader, root, split, stride_s, short_futures)
        for scenes in self.logs:
            stop = scenes.log.steps - (scenes.future if split == "train" or not short_futures else 0)
            lost = sum(step < stop for step in scenes.log.notes.get(BESIDE_GAPS, ()))
            if lost:
                self.expected += lost
                self.faults.append(f"{scenes.log.files[0]}: {lost} scenarios stand beside missing frames and are left out")
