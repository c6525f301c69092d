"""Tables of closed-loop evaluations. Nothing in them depends on the machine: two runs of one seed print the same bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

import drive
from drive.benchmarks.carla_routes import RETRIES, ClosedLoop, Finished, Missing
from drive.benchmarks.carla_summary import Estimate, abilities, scores
from drive.metrics.carla_bench2drive import Version, efficiency
from drive.metrics.carla_records import Infraction
from drive.metrics.carla_scores import Rule, leaderboard_score

KINDS = {
    Infraction.PEDESTRIAN: "ped",
    Infraction.VEHICLE: "veh",
    Infraction.STATIC: "static",
    Infraction.RED_LIGHT: "red",
    Infraction.STOP_SIGN: "stop",
    Infraction.SCENARIO_TIMEOUT: "scenario",
    Infraction.YIELD: "yield",
    Infraction.DEVIATION: "dev",
    Infraction.BLOCKED: "blocked",
    Infraction.ROUTE_TIMEOUT: "timeout",
}
LISTED = 8  # routes named in one line


def all_tables(result: ClosedLoop, benchmark: str, title: str, version: Version) -> list[str]:
    """Scores and infractions, by Bench2Drive's rule the abilities, the routes, and what is not covered."""
    tables = [closed_loop_table([result], benchmark, title)]
    tables += [ability_table([result], version)] if result.config.rule is Rule.BENCH2DRIVE else []
    tables += [route_table(result), "\n".join(coverage_lines(result))]
    return [table for table in tables if table]


def closed_loop_table(results: Sequence[ClosedLoop], benchmark: str, title: str) -> str:
    """One row per planner: scores over all scheduled routes with 95 % bootstrap intervals over routes; below, infractions per km driven."""
    rule = results[0].config.rule
    head = ["planner", "driving score [95 %]", "completion", "penalty", "success %"]
    head += ["efficiency %", "comfort %"] if rule is Rule.BENCH2DRIVE else []
    rows = [_row(result) for result in results]
    line = f"{benchmark} ({rule.value}, 0-100, mean over routes, intervals over routes), drive {drive.__version__}: {title}"
    kinds = ["infractions per km", *KINDS.values(), "off-lane km"]
    tables = [_aligned([[*head, "coverage", "routes", "km"], *rows]), _aligned([kinds, *map(_per_km, results)])]
    return "\n".join([line, "\n\n".join(tables)])


def _row(result: ClosedLoop) -> list[str]:
    found = scores(result)
    share = result.coverage
    cells = [_cell(found["driving_score"]), _cell(found["route_completion"]), _cell(found["infraction_penalty"], digits=3), _cell(found["success_rate"], 100.0)]
    if result.config.rule is Rule.BENCH2DRIVE:
        cells += [_cell(found["efficiency"]), _cell(found["comfort"], 100.0)]
    km = leaderboard_score(result.records, result.routes).km
    return [result.planner, *cells, "100 %" if share == 1.0 else f"PARTIAL {100.0 * share:.1f} %", str(result.routes), f"{km:.2f}"]


def _cell(estimate: Estimate, factor: float = 1.0, digits: int = 1) -> str:
    if math.isnan(estimate.value):
        return "-"
    value, low, high = (f"{factor * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _per_km(result: ClosedLoop) -> list[str]:
    per_km = leaderboard_score(result.records, result.routes).per_km
    return [result.planner, *(f"{per_km[kind.value]:.3f}" for kind in [*KINDS, Infraction.OUTSIDE_LANES])]


def ability_table(results: Sequence[ClosedLoop], version: Version) -> str:
    """Bench2Drive's five abilities in %, with intervals and the number of routes of each; those without routes have none, and then no mean."""
    found = [abilities(result, version)[1] for result in results]
    head = [f"abilities ({version.value})", *(name.replace("_", " ") for name in found[0])]
    return _aligned([head, *([r.planner, *(_ability(e) for e in row.values())] for r, row in zip(results, found))])


def _ability(estimate: Estimate) -> str:
    return f"{_cell(estimate, 100.0)} of {estimate.count}" if estimate.count else "-"


def route_table(result: ClosedLoop) -> str:
    """One row per scheduled route: its status, scores and what befell it."""
    bench2drive = result.config.rule is Rule.BENCH2DRIVE
    head = ["route", "town", "scenario", "status", "score", "completion", "penalty", *(["efficiency", "comfort"] if bench2drive else []), "m", "s", "infractions"]
    rows = [_route_row(finished, bench2drive) for finished in result.finished]
    rows += [[missing.route, missing.town, "", "not driven", "0.0", *["-"] * (len(head) - 5)] for missing in result.missing]
    return _aligned([head, *rows])


def _route_row(finished: Finished, bench2drive: bool) -> list[str]:
    record = finished.record
    always = Infraction.MIN_SPEED.value if bench2drive else ""  # an entry of every checkpoint, whatever the speed
    events = [f"{len(messages)} {kind}" for kind, messages in record.infractions.items() if messages and kind != always]
    speed = efficiency(record)
    more = ["-" if speed is None else f"{speed:.1f}", "-" if finished.comfort is None else f"{100.0 * finished.comfort:.1f}"] if bench2drive else []
    return [
        record.route,
        record.texts.get("town_name", ""),
        record.scenario or "-",
        record.status,
        f"{record.score_composed:.1f}",
        f"{record.score_route:.1f}",
        f"{record.score_penalty:.3f}",
        *more,
        f"{record.route_length:.0f}",
        f"{record.duration_game:.1f}",
        ", ".join(events) or "-",
    ]


def coverage_lines(result: ClosedLoop) -> list[str]:
    """What a score of all routes leaves out: empty where every route was driven to an end."""
    if result.coverage == 1.0:
        return []
    towns = Counter(missing.town for missing in result.missing)
    parts = [f"{len(result.crashed)} crashed"] if result.crashed else []
    parts += [f"{sum(towns.values())} not driven ({', '.join(f'{town}: {towns[town]}' for town in sorted(towns))})"] if towns else []
    parts += [f"the planner failed on {len(result.failed)}"] if result.failed else []
    driven = len(result.finished) - len(result.crashed) - len(result.failed)
    lines = [f"coverage: {driven} of {result.routes} routes driven, {' and '.join(parts)}; {'what was not driven counts' if result.failed else 'they count'} 0 in the scores above"]
    if result.failed:
        names = _listed([finished.record.route for finished in result.failed])
        lines.append(f"planner failed: {names}: standard error tells why; the same command with the same out= drives these again")
    if result.crashed:
        names = _listed([finished.record.route for finished in result.crashed])
        lines.append(f"Simulation crashed: {names}: in each of {RETRIES + 1} tries; the same command with the same out= drives these again")
    reasons: dict[str, list[Missing]] = {}
    for missing in result.missing:
        reasons.setdefault(missing.why.removeprefix(f"route {missing.route}: "), []).append(missing)
    return lines + [f"not driven: {_listed([missing.route for missing in group])}: {why}" for why, group in reasons.items()]


def _listed(routes: Sequence[str]) -> str:
    if len(routes) == 1:
        return f"route {routes[0]}"
    return f"{len(routes)} routes ({', '.join(routes[:LISTED])}{', …' if len(routes) > LISTED else ''})"


def timing_line(result: ClosedLoop) -> str:
    """How fast it went, which depends on the machine."""
    driven, wall = sum(f.driven_seconds for f in result.finished), sum(f.wall_seconds for f in result.finished)
    plans = [f.plan_seconds for f in result.finished if f.plan_seconds > 0.0]
    return f"{result.planner}: {driven:.0f} s driven in {wall:.0f} s ({driven / max(wall, 1e-9):.1f} times real time), {1e3 * float(np.mean(plans or [0.0])):.1f} ms a plan"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
