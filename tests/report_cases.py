"""Results of known numbers and a drive of a known shape, for the tests of the reports."""

import numpy as np

from drive.benchmarks.pdms import PARTS
from drive.benchmarks.results import Result, SceneRow
from drive.core.types import PlanStatus

PLAN = np.column_stack([np.arange(1.0, 11.0), np.zeros(10), np.zeros(10)])


def row(index: int, score: float = 1.0, status: PlanStatus = PlanStatus.OK, kind: str = "free", **changes) -> SceneRow:
    """A row whose parts are all equal to its score."""
    values = {
        "scenario_id": f"toy-{index}",
        "log_id": f"log-{index}",
        "kind": kind,
        "status": status,
        "score": score,
        "parts": dict.fromkeys(PARTS, score),
        "poses_ego": PLAN if status is PlanStatus.OK else None,
        "mode": "",
        "tokens": 0,
        "latency_s": 0.01 * (index + 1),
        "reasoning": "",
    }
    return SceneRow(**{**values, **changes})


def partial_result() -> Result:
    """Four scenes: scored 1.0 and 0.5, one undecodable, one not read. Mean 37.5, coverage 50 %."""
    thought = row(1, 0.5, mode="slow", tokens=30, reasoning="car ahead")
    rows = [row(0, 1.0), thought, row(2, 0.0, PlanStatus.UNDECODABLE, mode="fast", tokens=12)]
    return Result("vla", rows, 4, ["log-3: truncated"])
