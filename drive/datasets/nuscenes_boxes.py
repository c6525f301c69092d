"""nuScenes' annotations as numbers: v1.0-trainval has 1.2 million, and as records of Python they would take gigabytes."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.datasets import sanity

NUMBERS = 6  # of a box


@dataclass(frozen=True)
class Boxes:
    """The B annotations of a scene, in order of key frame, then of the table."""

    instances: tuple[str, ...]  # tokens, in order of their first box
    categories: tuple[str, ...]  # of each instance
    step: NDArray[np.int32]  # (B,) key frame
    row: NDArray[np.int32]  # (B,) index of the instance
    values: NDArray[np.float64]  # (B, 6) x, y, heading, length, width, height; world, m and rad
    hidden: NDArray[np.bool_]  # (B,) of the lowest visibility, 0 to 40 %; False where the tables do not tell
    unscanned: NDArray[np.bool_]  # (B,) no lidar point in it; False where the tables do not tell


class BoxList:
    """The annotations of one scene as its table gives them, in any order."""

    def __init__(self, path: Path) -> None:
        """`path`: of the table, for errors."""
        self._path = path
        self._samples: list[str] = []
        self._instances: list[str] = []
        self._values = array("d")
        self._hidden = bytearray()
        self._unscanned = bytearray()
        self._faults: dict[int, str] = {}  # what is wrong with a box, by its number

    def add(self, record: Mapping[str, Any], sample: str, instance: str) -> None:
        """A record; `sample` and `instance` are its tokens, texts that are shared with the other boxes. A faulty one is told by `ordered`."""
        values = self._numbers(record)
        if isinstance(values, str):
            self._faults[len(self._samples)] = values
            values = (math.nan,) * NUMBERS
        self._values.extend(values)
        self._samples.append(sample)
        self._instances.append(instance)
        self._hidden.append(str(record.get("visibility_token", "")) == "1")
        self._unscanned.append(record.get("num_lidar_pts") == 0)

    def _numbers(self, record: Mapping[str, Any]) -> tuple[float, ...] | str:
        """A row of Boxes' values, or what is wrong with the record."""
        try:
            (x, y, z), (w, i, j, k) = map(float, record["translation"]), map(float, record["rotation"])
            # the way that x points, as `drive.core.quaternion.heading` has it, of a quaternion of any length
            pose = (x, y, math.atan2(2.0 * (i * j + w * k), w * w + i * i - j * j - k * k))
            if not math.isfinite(x + y + z + w + i + j + k) or not (w or i or j or k):
                raise ValueError("NaN, infinity or no direction")
            if abs(math.sqrt(w * w + i * i + j * j + k * k) - 1.0) > sanity.UNIT:
                raise ValueError("its quaternion is not of length 1: the file is damaged, fetch it again")
        except (TypeError, ValueError, OverflowError) as error:
            return f"{self._path}: record {record['token']} holds no pose ({error})"
        try:
            width, length, height = map(float, record["size"])
        except (TypeError, ValueError, OverflowError):
            width = length = height = 0.0
        if not all(0.0 < side < math.inf for side in (width, length, height)):
            return f"{self._path}: instance {record['instance_token']} has a box without a size"
        return (*pose, length, width, height)

    def ordered(self, samples: Sequence[str], category: Callable[[str], str]) -> Boxes:
        """The boxes of these samples, the key frames of the scene in order; `category` names that of an instance. Raises DataError on a faulty box."""
        position = {token: step for step, token in enumerate(samples)}
        steps = np.array([position.get(token, -1) for token in self._samples], np.int32)  # -1: of a sample outside of the scene's chain
        order = np.argsort(steps, kind="stable")
        order = order[steps[order] >= 0]
        if self._faults:
            for number in order:
                if fault := self._faults.get(int(number)):
                    raise DataError(fault)
        rows: dict[str, int] = {}
        row = np.array([rows.setdefault(self._instances[number], len(rows)) for number in order], np.int32)
        values = np.array(self._values).reshape(-1, NUMBERS)[order]
        hidden, unscanned = np.array(self._hidden, bool)[order], np.array(self._unscanned, bool)[order]
        return Boxes(tuple(rows), tuple(map(category, rows)), steps[order], row, values, hidden, unscanned)
