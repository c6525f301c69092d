"""The results.json of CARLA's leaderboard and of Bench2Drive: read, written, and merged.

Layout: carla-simulator/leaderboard statistics_manager.py (`_checkpoint` with records, progress and global record; entry status, labels and
values), and Bench2Drive's merged.json (records without their index, by route id from last to first, and three numbers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drive.core.errors import DataError
from drive.core.files import atomic_write_text
from drive.metrics.carla_bench2drive import ROUTES, bench2drive_score
from drive.metrics.carla_records import Infraction, RouteRecord, record_from_json
from drive.metrics.carla_scores import leaderboard_score

LARGEST_FILE = 256 * 2**20  # bytes; 220 routes take 0.7 MB
LABELS: tuple[tuple[str, Infraction], ...] = (
    ("Collisions with pedestrians", Infraction.PEDESTRIAN),
    ("Collisions with vehicles", Infraction.VEHICLE),
    ("Collisions with layout", Infraction.STATIC),
    ("Red lights infractions", Infraction.RED_LIGHT),
    ("Stop sign infractions", Infraction.STOP_SIGN),
    ("Off-road infractions", Infraction.OUTSIDE_LANES),
    ("Route deviations", Infraction.DEVIATION),
    ("Route timeouts", Infraction.ROUTE_TIMEOUT),
    ("Agent blocked", Infraction.BLOCKED),
    ("Yield emergency vehicles infractions", Infraction.YIELD),
    ("Scenario timeouts", Infraction.SCENARIO_TIMEOUT),
    ("Min speed infractions", Infraction.MIN_SPEED),
)


def read_results(path: str | Path) -> tuple[RouteRecord, ...]:
    """All records of a results.json or merged.json, in the file's order, those of routes that failed or still run too. Raises DataError on any other file."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path} is larger than {LARGEST_FILE >> 20} MB: no file of results is")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the results file {path} ({error}): run the benchmark again, or fetch the file again") from error
    checkpoint = data.get("_checkpoint") if isinstance(data, dict) else None
    records = checkpoint.get("records") if isinstance(checkpoint, dict) else None
    if not isinstance(records, list):
        raise DataError(f"{path} is no results.json of CARLA's leaderboard: it has no _checkpoint.records")
    return tuple(record_from_json(record, f"{path}, record {number}") for number, record in enumerate(records))


def write_results(
    path: str | Path, records: Sequence[RouteRecord], routes: int, sensors: Sequence[str] = (), more: Mapping[str, Any] | None = None
) -> Path:
    """Write the official layout, with the aggregate over `routes` scheduled routes; atomically, so that a killed run leaves a whole file.

    `more` stands under "drive", which official tools do not read. The entry is Finished only when every scheduled route has a record. Raises DataError as `leaderboard_score`.
    """
    score = leaderboard_score(records, routes)
    means = {"score_composed": score.driving_score, "score_route": score.route_completion, "score_penalty": score.infraction_penalty}
    failed = [[r.route_id, r.index, r.status] for r in records if "Failed" in r.status]
    status = "Failed" if failed else "Perfect" if all(r.status == "Perfect" for r in records) else "Completed"
    totals = {
        "total_length": sum(r.route_length for r in records),
        "duration_game": sum(r.duration_game for r in records),
        "duration_system": sum(r.duration_system for r in records),
        "exceptions": failed,
    }
    overall = {
        "index": -1, "route_id": -1, "status": status, "infractions": dict(score.per_km), "scores_mean": means,
        "scores_std_dev": dict(score.deviations), "meta": totals,
    }  # fmt: skip
    entry = _entry_status(records, routes)
    data = {
        "_checkpoint": {"global_record": overall, "progress": [len(records), routes], "records": [r.to_json() for r in records]},
        "entry_status": entry,
        "eligible": entry == "Finished",
        "sensors": list(sensors),
        "values": [str(value) for value in (*means.values(), *(score.per_km[kind.value] for _, kind in LABELS))],
        "labels": ["Avg. driving score", "Avg. route completion", "Avg. infraction penalty", *(label for label, _ in LABELS)],
    }
    return _write(Path(path), data if more is None else {**data, "drive": more})


def write_merged(path: str | Path, records: Sequence[RouteRecord], routes: int = ROUTES) -> Path:
    """Write Bench2Drive's merged.json; its tools read it. Raises DataError where a route has two records."""
    score = bench2drive_score(records, routes)
    rows = [record.to_json() for record in sorted(records, key=lambda r: r.route_id, reverse=True)]
    for row in rows:
        row.pop("index", None)
    data = {
        "_checkpoint": {"records": rows},
        "driving score": score.driving_score,
        "success rate": score.success_rate,
        "eval num": score.records,
    }
    return _write(Path(path), data)


def _entry_status(records: Sequence[RouteRecord], routes: int) -> str:
    for words, entry in (("Simulation crashed", "Crashed"), ("sensors were invalid", "Rejected")):
        if any(words in record.status for record in records):
            return entry
    return "Finished" if len(records) == routes else "Started"


def _write(path: Path, data: dict[str, Any]) -> Path:
    return atomic_write_text(path, json.dumps(data, indent=4) + "\n")
