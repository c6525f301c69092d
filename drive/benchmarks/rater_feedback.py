"""Benchmark rfs: Waymo's rater feedback score of the end-to-end driving challenge, 0 to 10, where people rated trajectories of the scene.

scenario.notes["rater_trajectories"] holds what they rated: a list of {"poses": (T, 2 or 3) at 4 Hz in the ego frame, "score": 0..10}, -1
where a frame has none. Mean over frames; Waymo's leaderboard means over scenario clusters, in a way that is not published. ADE is
against the trajectory that was rated highest, as the leaderboard has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drive.benchmarks.evaluate import Scored
from drive.benchmarks.results import SceneRow, Style
from drive.core.errors import DataError
from drive.core.geometry import interpolate_poses
from drive.core.types import Scenario, Trajectory
from drive.metrics.displacement import ade
from drive.metrics.rater_feedback import JUDGED, RATE, rater_feedback_score

PARTS = ("ade 3 s", "ade 5 s")
STEPS = JUDGED[-1] * RATE


class Rfs:
    """The benchmark."""

    style = Style(
        "rfs", PARTS, PARTS, scale="0-10, ADE in m", factor=1.0, digits=2, worst_parts=dict.fromkeys(PARTS, 50.0),
        note="frames that people rated, which Waymo's end-to-end validation records alone have; failed plans count 0 and 50 m",
    )  # fmt: skip
    needs_map = False

    def accepts(self, scenario: Scenario) -> bool:
        """Whether people rated trajectories of the frame."""
        return bool(rated(scenario))

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """RFS and ADE of a plan. Raises DataError on a plan of less than 5 s, and on references that cannot be read."""
        references = rated(scenario)
        times = np.concatenate([[0.0], trajectory.times])
        if times[-1] < JUDGED[-1] - 1e-6:
            raise DataError(f"rfs judges plans at {JUDGED[-1]} s, this one ends after {times[-1]:g} s")
        query = np.arange(1, STEPS + 1) / RATE
        plan = interpolate_poses(times, np.concatenate([np.zeros((1, 3)), trajectory.poses]), query)
        paths, scores = [path for path, _ in references], [score for _, score in references]
        speed = scenario.ego.state(scenario.present).speed
        best = paths[int(np.argmax(scores))]
        known = min(len(best), STEPS)
        errors = {name: float(ade(plan[:n], best[:n])) for name, n in zip(PARTS, (min(second * RATE, known) for second in JUDGED))}
        return Scored(float(rater_feedback_score(plan[None], paths, scores, speed)[0]), errors)

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows as they are: every frame counts by itself."""
        return rows


def rated(scenario: Scenario) -> list[tuple[np.ndarray, float]]:
    """(path (T, 2), score) of the trajectories that people rated; empty where nobody did. Raises DataError on records of another make."""
    found: list[tuple[np.ndarray, float]] = []
    records: Any = scenario.notes.get("rater_trajectories", ())
    try:
        for record in records:
            path, score = np.asarray(record["poses"], np.float64), float(record["score"])
            if path.ndim != 2 or path.shape[1] < 2 or not len(path):
                raise ValueError(f"poses of shape {path.shape}")
            if score >= 0.0:
                found.append((path[:, :2], score))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"scenario {scenario.id}: rater_trajectories are no list of poses (T, 2 or 3) with a score ({error!r})") from error
    return found
