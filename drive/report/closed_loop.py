"""Tables of closed-loop evaluations. Nothing in them depends on the machine: two runs of one seed print the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import drive
from drive.benchmarks.carla_routes import ClosedLoop
from drive.benchmarks.statistics import bootstrap_interval
from drive.metrics.carla_bench2drive import bench2drive_score
from drive.metrics.carla_records import Infraction, RouteRecord
from drive.metrics.carla_scores import leaderboard_score

KINDS = {
    Infraction.PEDESTRIAN: "ped",
    Infraction.VEHICLE: "veh",
    Infraction.STATIC: "static",
    Infraction.RED_LIGHT: "red",
    Infraction.STOP_SIGN: "stop",
    Infraction.DEVIATION: "dev",
    Infraction.BLOCKED: "blocked",
    Infraction.ROUTE_TIMEOUT: "timeout",
}


def closed_loop_table(results: Sequence[ClosedLoop], benchmark: str, title: str) -> str:
    """One row per planner: scores over all scheduled routes with 95 % bootstrap intervals over routes, infractions per km."""
    head = ["planner", "driving score [95 %]", "completion", "penalty", "success %", "efficiency %", *(f"{word}/km" for word in KINDS.values()), "off-lane km", "coverage", "routes", "km"]
    rows = [_row(result) for result in results]
    line = f"{benchmark} ({results[0].config.rule.value}, 0-100, mean over routes, intervals over routes), drive {drive.__version__}: {title}"
    return "\n".join([line, _aligned([head, *rows])])


def _row(result: ClosedLoop) -> list[str]:
    records = result.records
    board, bench = leaderboard_score(records, result.routes), bench2drive_score(records, result.routes)
    scores = np.array([r.score_composed for r in records] + [0.0] * (result.routes - len(records)))
    low, high = bootstrap_interval(scores)
    share = len(records) / max(result.routes, 1)
    return [
        result.planner,
        f"{board.driving_score:.1f} [{low:.1f}, {high:.1f}]",
        f"{board.route_completion:.1f}",
        f"{board.infraction_penalty:.3f}",
        f"{100.0 * bench.success_rate:.1f}",
        "-" if math.isnan(bench.efficiency) else f"{bench.efficiency:.1f}",
        *(f"{board.per_km[kind.value]:.3f}" for kind in KINDS),
        f"{board.per_km[Infraction.OUTSIDE_LANES.value]:.3f}",
        "100 %" if share == 1.0 else f"PARTIAL {100.0 * share:.1f} %",
        str(result.routes),
        f"{board.km:.2f}",
    ]


def route_table(result: ClosedLoop) -> str:
    """One row per route: its status, scores and what befell it."""
    head = ["route", "town", "status", "score", "completion", "penalty", "m", "s", "infractions"]
    return _aligned([head, *(_route_row(record) for record in result.records)])


def _route_row(record: RouteRecord) -> list[str]:
    events = [f"{len(messages)} {kind}" for kind, messages in record.infractions.items() if messages]
    return [
        record.route,
        record.texts.get("town_name", ""),
        record.status,
        f"{record.score_composed:.1f}",
        f"{record.score_route:.1f}",
        f"{record.score_penalty:.3f}",
        f"{record.route_length:.0f}",
        f"{record.duration_game:.1f}",
        ", ".join(events) or "-",
    ]


def timing_line(result: ClosedLoop) -> str:
    """How fast it went, which depends on the machine."""
    driven, wall = sum(f.driven_seconds for f in result.finished), sum(f.wall_seconds for f in result.finished)
    plans = [f.plan_seconds for f in result.finished if f.plan_seconds > 0.0]
    return f"{result.planner}: {driven:.0f} s driven in {wall:.0f} s ({driven / max(wall, 1e-9):.1f} times real time), {1e3 * float(np.mean(plans or [0.0])):.1f} ms a plan"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
