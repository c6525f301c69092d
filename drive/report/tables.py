"""Tables of a benchmark and the files that keep its results: results.json (every row) and table.md."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import drive
from drive.benchmarks.named import style_of
from drive.benchmarks.pdms import STYLE as PDMS
from drive.benchmarks.results import Pick, Result, SceneRow, Style
from drive.core.errors import DataError
from drive.core.files import atomic_write_text
from drive.core.types import PlanStatus

RESULTS, TABLE = "results.json", "table.md"
FORMAT = 2
FEW_LOGS = 5  # below which an interval over logs is told to say little


def columns(style: Style) -> tuple[str, ...]:
    """Names of a table's columns."""
    ending = ("pick", "coverage", "scenes", "logs", "p50 ms/plan", "p95 ms/plan", "think", "tokens")
    return ("planner", f"{style.name} [95 %]", *style.shown, *ending)


def value_text(name: str, value: float, result: Result, style: Style) -> str:
    """A number of "score" or a part as a table shows it; "-" for NaN, and with who picked the plan where a best of several can be meant."""
    if math.isnan(value):
        return "-"
    label = f" ({result.picked(name, style)})" if name in style.oracle else ""
    return f"{style.factor * value:.{style.digits}f}{label}"


def coverage_text(result: Result) -> str:
    """ "100 %", or "PARTIAL 97.3 %", rounded down so that a missing scene never reads as 100."""
    if result.coverage >= 1.0:
        return "100 %"
    return f"PARTIAL {math.floor(result.coverage * 1000.0 + 1e-9) / 10.0:.1f} %"


def heading(title: str, style: Style = PDMS) -> str:
    """The line over a table: benchmark with its version, the toolkit's version, the data."""
    note = f"; {style.note}" if style.note else ""
    return f"{style.name} ({style.scale}, mean over scenes, intervals over logs{note}), drive {drive.__version__}: {title}"


def table_cells(results: Sequence[Result], style: Style = PDMS) -> list[list[str]]:
    """One row of text per result, in the order of `columns`; "pick" is whose choice the plan was; "-" for thought of planners without words and parts that apply to no scene."""
    return [_cells(result, style) for result in results]


def _cells(result: Result, style: Style) -> list[str]:
    low, high = result.interval()
    speaks = any(row.mode for row in result.rows)
    scale, digits = style.factor, style.digits
    return [
        result.planner,
        f"{scale * result.mean():.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]",
        *(value_text(name, result.mean(name), result, style) for name in style.shown),
        result.picked("score", style),
        coverage_text(result),
        str(result.expected),
        str(result.logs),
        f"{1e3 * result.latency(50):.1f}",
        f"{1e3 * result.latency(95):.1f}",
        f"{100 * result.think_rate:.0f} %" if speaks else "-",
        f"{result.mean_tokens:.1f}" if speaks else "-",
    ]


def notes(results: Sequence[Result]) -> list[str]:
    """One sentence on intervals of few logs, and one for each result that does not cover its set: how many scenes are missing, and why."""
    said = []
    few = min((result.logs for result in results), default=FEW_LOGS)
    if few < FEW_LOGS:
        said.append(f"The intervals come from {few} log{'s' if few > 1 else ''}: they say little.")
    for result in results:
        scored = sum(row.status is PlanStatus.OK for row in result.rows)
        if scored == result.expected:
            continue
        why = {s.value: sum(row.status is s for row in result.rows) for s in (PlanStatus.UNDECODABLE, PlanStatus.FAILED)}
        why["not read"] = result.expected - len(result.rows)
        reasons = ", ".join(f"{count} {name}" for name, count in why.items() if count)
        scored_of = f"{scored} of {result.expected} scenes scored ({reasons})"
        others = "".join(f", {value:g} in {_few(result.worst_parts, value)}" for value in sorted(set(result.worst_parts.values())))
        said.append(f"PARTIAL: {result.planner} has {scored_of}; the others count {result.worst:g} in its means{others}.")
    return said


def counted(messages: Iterable[str]) -> list[str]:
    """Each distinct message once, in order of first appearance, with how often it came."""
    return [f"{message} ({count} times)" if count > 1 else message for message, count in Counter(messages).items()]


def _few(worst: Mapping[str, float], value: float) -> str:
    """The first parts that count `value`."""
    names = [name for name, other in worst.items() if other == value]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def text_table(results: Sequence[Result], title: str, style: Style = PDMS) -> str:
    """An aligned text table of results on one set, below a line that names the benchmark and `title`."""
    rows = [list(columns(style)), *table_cells(results, style)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]) for row in rows]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([heading(title, style), "", lines[0], rule, *lines[1:], *notes(results)])


def markdown_table(results: Sequence[Result], title: str, style: Style = PDMS) -> str:
    """The same as a GitHub table."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [list(columns(style)), *table_cells(results, style)]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"| --- |{' ---: |' * (len(rows[0]) - 1)}"
    return "\n".join([f"**{heading(title, style)}**", "", lines[0], rule, *lines[1:], *(f"\n{note}" for note in notes(results))]) + "\n"


@dataclass(frozen=True)
class StoredResults:
    """What `write_results` wrote."""

    results: list[Result]
    config: dict[str, Any]
    fingerprint: str  # of the data
    version: str  # of drive
    style: Style  # of the benchmark


def write_results(folder: Path, results: Sequence[Result], config: Mapping[str, Any], fingerprint: str, style: Style = PDMS) -> None:
    """Write results.json and table.md into `folder`, each whole or not at all.

    config: plain values of what was run; fingerprint: of the data. Raises DriveError on a full disk.
    """
    content = {
        "format": FORMAT,
        "benchmark": style.name,
        "drive": drive.__version__,
        "fingerprint": fingerprint,
        "config": dict(config),
        "results": [_result_to_json(result, style) for result in results],
    }
    atomic_write_text(Path(folder) / RESULTS, json.dumps(content, indent=1) + "\n")
    atomic_write_text(Path(folder) / TABLE, markdown_table(results, data_words(config, fingerprint), style))


def data_words(config: Mapping[str, Any], fingerprint: str) -> str:
    """What was evaluated on, in a table's heading: dataset, split, the start of the fingerprint."""
    dataset = config.get("dataset")
    words = [dataset.get("name", "") if isinstance(dataset, Mapping) else "", str(config.get("split", "")), f"data {fingerprint[:19]}"]
    return " ".join(word for word in words if word)


def holds_closed_loop(folder: Path) -> bool:
    """Whether the results in `folder` are a closed loop's, in the leaderboard's layout."""
    path = Path(folder) / RESULTS
    return path.is_file() and '"_checkpoint"' in path.read_text(encoding="utf-8", errors="replace")


def read_results(folder: Path) -> StoredResults:
    """Read results.json back. Raises DataError where it is missing, no JSON, or of another benchmark or format."""
    path = Path(folder) / RESULTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        style = style_of(content["benchmark"])
        if content["format"] != FORMAT or style is None:
            found = f"{content['benchmark']} in format {content['format']}"
            raise DataError(f"{path} holds {found}; this drive reads its own benchmarks in format {FORMAT}: evaluate again")
        results = [_result_from_json(item) for item in content["results"]]
        return StoredResults(results, content["config"], content["fingerprint"], content["drive"], style)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}): write it again with drive eval out={folder}") from error


def summary(result: Result, style: Style = PDMS) -> dict[str, Any]:
    """The headline numbers of one result; scores 0-1 (None for a part that applies to no scene), seconds."""
    parts = {name: result.mean(name) for name in style.parts}
    return {
        "score": result.mean(),
        "score_interval": list(result.interval()),
        **{name: None if math.isnan(value) else value for name, value in parts.items()},
        "picked": {name: result.picked(name, style) for name in ("score", *style.parts)},
        "coverage": result.coverage,
        "scenes": result.expected,
        "logs": result.logs,
        "latency_p50_s": result.latency(50),
        "latency_p95_s": result.latency(95),
        "think_rate": result.think_rate,
        "tokens": result.mean_tokens,
    }


def _result_to_json(result: Result, style: Style) -> dict[str, Any]:
    return {
        "planner": result.planner,
        "summary": summary(result, style),
        "expected": result.expected,
        "faults": list(result.faults),
        "worst": result.worst,
        "worst_parts": dict(result.worst_parts),
        "pick": result.pick.value,
        "rows": [_row_to_json(row) for row in result.rows],
    }


def _row_to_json(row: SceneRow) -> dict[str, Any]:
    poses = None if row.poses_ego is None else np.asarray(row.poses_ego, float).tolist()
    parts = {name: None if math.isnan(value) else value for name, value in row.parts.items()}  # JSON knows no NaN
    return {**vars(row), "status": row.status.value, "poses_ego": poses, "parts": parts}


def _result_from_json(item: Mapping[str, Any]) -> Result:
    rows = [_row_from_json(row) for row in item["rows"]]
    return Result(item["planner"], rows, item["expected"], list(item["faults"]), item["worst"], item["worst_parts"], Pick(item["pick"]))


def _row_from_json(row: Mapping[str, Any]) -> SceneRow:
    poses = None if row["poses_ego"] is None else np.array(row["poses_ego"], float).reshape(-1, 3)
    parts = {name: math.nan if value is None else value for name, value in row["parts"].items()}
    return SceneRow(**{**row, "status": PlanStatus(row["status"]), "poses_ego": poses, "parts": parts})
