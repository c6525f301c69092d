"""How the car moved, tick by tick, as Bench2Drive's agents note it for its smoothness: metric_info.json.

Layout: Thinklab-SJTU/Bench2Drive autonomous_agent.py (`get_metric_info`) and efficiency_smoothness_benchmark.py, which reads
SAVE_PATH/<save_name>/metric_info.json. All in CARLA's frame: left-handed, m, degrees.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.files import atomic_write_text
from drive.metrics.carla_bench2drive import comfortness

FIELDS = ("acceleration", "angular_velocity", "forward_vector", "right_vector", "location", "rotation")  # three numbers each
METRIC_INFO = "metric_info.json"


class MotionLog:
    """Of one car on one route."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float64]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def note(self, actor: Any) -> None:
        """The motion of a carla.Actor in the present: m/s^2, degrees/s, unit vectors, m, degrees (roll, pitch, yaw)."""
        transform = actor.get_transform()
        vectors = (actor.get_acceleration(), actor.get_angular_velocity(), transform.get_forward_vector(), transform.get_right_vector(), transform.location)
        turn = transform.rotation
        self._rows.append(np.array([k for v in vectors for k in (v.x, v.y, v.z)] + [turn.roll, turn.pitch, turn.yaw]))

    def comfort(self) -> float | None:
        """Bench2Drive's smoothness of the route, 0..1; None below the three ticks that it takes."""
        if len(self) < 3:
            return None
        rows = np.stack(self._rows)
        return comfortness(rows[:, 0:2], rows[:, 5], rows[:, 6:8], rows[:, 9:11])

    def write(self, folder: Path) -> Path:
        """metric_info.json in `folder`: {tick: {field: [x, y, z]}}."""
        data = {str(k): {name: row[3 * i : 3 * i + 3].tolist() for i, name in enumerate(FIELDS)} for k, row in enumerate(self._rows)}
        return atomic_write_text(folder / METRIC_INFO, json.dumps(data) + "\n")
