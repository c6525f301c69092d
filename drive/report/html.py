"""report.html: a run or an evaluation in one file that needs no network, no script and no file beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import yaml

from drive.benchmarks.results import Result, Style
from drive.core.files import atomic_write_text
from drive.core.runs import RunFolder
from drive.report.plans import extremes, parts_text, stored_picture
from drive.report.plots import chart, metric_groups, metric_series, number
from drive.report.tables import RESULTS, StoredResults, columns, counted, data_words, heading, notes, read_results, table_cells

REPORT = "report.html"
PAGE = Path(__file__).with_name("page.html")


def write_report(run: RunFolder) -> Path:
    """Write or refresh report.html in the run folder from what the folder holds; its path. Raises DataError on a damaged run folder."""
    stored = read_results(run.path) if (run.path / RESULTS).is_file() else None
    lines = run.metrics()
    sections = [_head(run, lines), _evaluation(run.path, stored), _curves(lines), _last_values(lines), _settings(run.config)]
    return _write(run.path, f"{run.stage} · {run.path.name}", sections)


def write_evaluation_report(folder: Path) -> Path:
    """Write or refresh report.html in the folder of a `drive eval out=`; its path. Raises DataError where it holds no readable results."""
    stored = read_results(folder)
    facts = {
        "planners": ", ".join(result.planner for result in stored.results),
        "drive": stored.version,
        "data": f"{data_words(stored.config, stored.fingerprint)}",
    }
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    name = folder.resolve().name
    head = f'<header><h1>{escape(stored.style.name)}</h1><div class="under">{escape(name)}</div><dl>{rows}</dl></header>'
    return _write(folder, f"{stored.style.name} · {name}", [head, _evaluation(folder, stored), _settings(stored.config)])


def _write(folder: Path, title: str, sections: Sequence[str]) -> Path:
    template = Template(PAGE.read_text(encoding="utf-8"))
    return atomic_write_text(folder / REPORT, template.substitute(title=escape(title), body="\n".join(sections)))


def _head(run: RunFolder, lines: Sequence[dict[str, Any]]) -> str:
    """What was run, when, with what, on what."""
    status, git = run.status, _json(run, "git.json")
    versions, data = _json(run, "versions.json"), _json(run, "data.json")
    commit = f"{git['commit'][:12]}{', with uncommitted changes' if git['dirty'] else ''}" if git else "not from a checkout"
    facts = {
        "started": _clock(status["started"]),
        "finished": _clock(status["finished"]) if status["finished"] else "not yet, or killed",
        "steps logged": str(lines[-1]["step"]) if lines else "none",
        "git": commit,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "data": ", ".join(f"{name} {digest}" for name, digest in data.items()) or "no fingerprint recorded",
    }
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    command = (run.path / "command.txt").read_text(encoding="utf-8").strip()
    title = f'<h1>{escape(run.stage)}<span class="state">{escape(status["state"])}</span></h1>'
    return f'<header>{title}<div class="under">{escape(run.path.name)}</div><pre>{escape(command)}</pre><dl>{rows}</dl></header>'


def _evaluation(folder: Path, stored: StoredResults | None) -> str:
    """The metric table, scores by kind of scene, best and worst plans of the first planner; empty where nothing was evaluated."""
    if stored is None:
        return ""
    shown = "".join(f"<tr>{''.join(_table_cell(cell) for cell in row)}</tr>" for row in table_cells(stored.results, stored.style))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns(stored.style))
    parts = [
        f"<h2>Evaluation</h2><p class='under'>{escape(heading(data_words(stored.config, stored.fingerprint), stored.style))}</p>",
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table></div>',
        *(f'<p class="alarm">{escape(note)}</p>' for note in notes(stored.results)),
        *(f'<p class="note">not read: {escape(fault)}</p>' for fault in counted(fault for result in stored.results for fault in result.faults)),
    ]
    first = next((result for result in stored.results if result.rows), None)
    if first is None:
        return "".join(parts)
    best, worst = extremes(first.rows, stored.style)
    parts += [_by_kind(first, stored.style), *(_plans(folder, first, f"{which} plans", rows, stored.style) for which, rows in (("Best", best), ("Worst", worst)))]
    return f"<section>{''.join(parts)}</section>"


def _table_cell(text: str) -> str:
    return f'<td class="alarm">{escape(text)}</td>' if text.startswith("PARTIAL") else f"<td>{escape(text)}</td>"


def _by_kind(result: Result, style: Style) -> str:
    """Mean score for each kind of scene, weakest first."""
    kinds: dict[str, list[float]] = {}
    for row in result.rows:
        kinds.setdefault(row.kind, []).append(row.score)
    means = sorted(((sum(scores) / len(scores), kind, scores) for kind, scores in kinds.items()), reverse=style.less_is_better)
    cells = [(escape(kind), str(len(s)), _shown(mean, style), str(sum(score == style.worst for score in s))) for mean, kind, s in means]
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in cells)
    head = f"<tr><th>kind of scene</th><th>scenes</th><th>mean score</th><th>scored {style.worst:g}</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'<h3>{escape(result.planner)} by kind of scene</h3><div class="scroll">{table}</div>'


def _shown(score: float, style: Style) -> str:
    return f"{style.factor * score:.{style.digits}f}"


def _plans(folder: Path, result: Result, title: str, rows: Sequence[int], style: Style) -> str:
    """Pictures of some rows; rows that were not drawn are told in words."""
    figures = []
    for i in rows:
        row, picture = result.rows[i], stored_picture(folder, i)
        image = f'<img alt="{escape(f"plan in {row.scenario_id}", quote=True)}" src="{_data_uri(picture)}">' if picture else ""
        speech = f"{row.mode}: {row.reasoning}" if row.mode and row.reasoning else row.reasoning or row.mode
        said = f'<span class="words">{escape(speech)}</span>'
        name = f"<b>{_shown(row.score, style)}</b> {escape(row.kind)} <code>{escape(row.scenario_id)}</code>"
        words = f"{name}<br>{escape(parts_text(row, style))}{said}"
        figures.append(f'<figure class="plan">{image}<figcaption>{words}</figcaption></figure>')
    heading_of = f"<h3>{title} of {escape(result.planner)}</h3>"
    return f'{heading_of}<div class="plans">{"".join(figures)}</div>' if figures else ""


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _curves(lines: Sequence[dict[str, Any]]) -> str:
    charts = "".join(chart(title, curves) for title, curves in metric_groups(metric_series(lines)).items())
    if not charts:
        return '<p class="note">No metric was logged.</p>'
    note = "Over optimiser steps. Long curves: faint as logged, strong smoothed. The figure beside a name is its last value."
    return f'<section><h2>Curves</h2><p class="note">{note}</p><div class="charts">{charts}</div></section>'


def _last_values(lines: Sequence[dict[str, Any]]) -> str:
    """The last logged value of every metric."""
    series = metric_series(lines).values()
    rows = "".join(f"<div><span>{escape(curve.name)}</span><b>{number(curve.values[-1])}</b></div>" for curve in series)
    return f'<section><h2>Last values</h2><div class="last">{rows}</div></section>' if rows else ""


def _settings(config: dict[str, Any]) -> str:
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return f"<details><summary>Settings</summary><pre>{escape(text)}</pre></details>"


def _json(run: RunFolder, name: str) -> dict[str, Any]:
    """A JSON file of the run folder; empty where it is absent."""
    path = run.path / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _clock(iso: str) -> str:
    return f"{iso[:19].replace('T', ' ')} UTC"
