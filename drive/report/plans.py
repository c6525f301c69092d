"""The evaluation that stands in a run folder: its rows, and pictures of its best and worst plans."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from drive.benchmarks.pdms import STYLE as PDMS
from drive.benchmarks.results import Result, SceneRow, Style
from drive.core.errors import DataError
from drive.core.files import atomic_folder
from drive.core.types import Scenario
from drive.report.pictures import plan_picture
from drive.report.tables import RESULTS, holds_closed_loop, read_results, write_results

PLANS = "plans"  # folder of pictures in a run
OF = "of.txt"  # digest of the results.json that the pictures belong to
SHOWN = 4  # best plans, and as many worst ones


def extremes(rows: Sequence[SceneRow], style: Style = PDMS, count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Indexes of the best and of the worst rows, no row in both; among equal scores, kinds of scenes take turns.

    A log is shown once, unless there are too few: its scenes look alike.
    """
    turn: dict[tuple[float, str], int] = {}
    order = []
    for i, row in enumerate(rows):
        key = (row.score, row.kind)
        order.append((-row.score if style.less_is_better else row.score, turn.get(key, 0), i))
        turn[key] = turn.get(key, 0) + 1
    worst = _one_per_log(rows, [i for _, _, i in sorted(order)])[: min(count, (len(rows) + 1) // 2)]
    best = _one_per_log(rows, [i for _, _, i in sorted((-score, nth, i) for score, nth, i in order) if i not in worst])
    return best[:count], worst


def _one_per_log(rows: Sequence[SceneRow], order: Sequence[int]) -> list[int]:
    """`order` with the first row of every log in front."""
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(rows[i].log_id, i)
    return sorted(order, key=lambda i: first[rows[i].log_id] != i)


def parts_text(row: SceneRow, style: Style = PDMS) -> str:
    """ "nc 1  dac 1  ttc 0 ...", or the status where there was no plan."""
    if row.poses_ego is None:
        return f"no plan: {row.status.value}"
    label = f" (oracle, best of {row.candidates})" if row.candidates > 1 else ""
    shown = [(name, row.parts[name], label if name in style.oracle else "") for name in style.shown]
    return "   ".join(f"{name} {value:.3g}{picked}" for name, value, picked in shown if not math.isnan(value))


def add_evaluation(
    folder: Path, result: Result, config: Mapping[str, Any], fingerprint: str, scenarios: Sequence[Scenario] | None, style: Style = PDMS
) -> None:
    """Put a result in front of those of other planners on the same data in `folder` (results.json, table.md); with `scenarios`, those
    that were scored, its best and worst plans are drawn (plans/).

    An earlier result of the same planner is replaced, and that is told. Raises DataError where the folder holds results of other data
    or another benchmark, or a row's scenario is not among those given.
    """
    _refuse_closed_loop(folder)
    others = []
    stored = None
    if (folder / RESULTS).is_file():
        try:
            stored = read_results(folder)
        except DataError as error:  # a finished evaluation is not thrown away for an old file
            print(f"{folder}: the earlier evaluation is replaced: {error}", file=sys.stderr)
    if stored is not None:
        refuse_other_results(folder, fingerprint, config.get("max_scenes"), style)
        others = [other for other in stored.results if other.planner != result.planner]
        if len(others) < len(stored.results):
            print(f"{folder}: the earlier evaluation of {result.planner} is replaced", file=sys.stderr)
    write_results(folder, [result, *others], config, fingerprint, style)
    if scenarios is not None:
        _draw(folder, result, scenarios, style)


def _refuse_closed_loop(folder: Path) -> None:
    if holds_closed_loop(folder):
        raise DataError(f"{folder} holds a closed-loop evaluation: name another folder with out=")


def refuse_other_results(folder: Path, fingerprint: str, max_scenes: int | None, style: Style) -> None:
    """Raise DataError where `folder` holds readable results that do not belong into one table with those to come; max_scenes as eval has it."""
    _refuse_closed_loop(folder)
    try:
        stored = read_results(folder)
    except DataError:
        return
    wanted = [style.name, f"data {fingerprint[:12]}", f"max_scenes={max_scenes or 0}"]
    there = [stored.style.name, f"data {stored.fingerprint[:12]}", f"max_scenes={stored.config.get('max_scenes') or 0}"]
    if wanted != there:
        raise DataError(f"{folder} holds results of {', '.join(there)}, these are of {', '.join(wanted)}: name another folder with out=")


def _draw(target: Path, result: Result, scenarios: Sequence[Scenario], style: Style) -> None:
    best, worst = extremes(result.rows, style)
    by_id = {scenario.id: scenario for scenario in scenarios}
    with atomic_folder(target / PLANS) as folder:
        for i in [*best, *worst]:
            row = result.rows[i]
            scenario = by_id.get(row.scenario_id)
            if scenario is None:
                raise DataError(f"row {i} is of {row.scenario_id}, which is not among the scenarios: give those that were scored")
            picture = plan_picture(scenario, row.poses_ego, row.kind)
            Image.fromarray(picture).save(folder / _name(i), quality=88)
        (folder / OF).write_text(_digest(target), encoding="utf-8")


def stored_picture(run: Path, row: int) -> bytes | None:
    """JPEG of a row's plan; None where it was not drawn, or belongs to results that are no longer there."""
    folder = run / PLANS
    if not (folder / OF).is_file() or (folder / OF).read_text(encoding="utf-8") != _digest(run):
        return None
    path = folder / _name(row)
    return path.read_bytes() if path.is_file() else None


def _name(row: int) -> str:
    return f"row-{row:05d}.jpg"


def _digest(run: Path) -> str:
    return hashlib.sha256((run / RESULTS).read_bytes()).hexdigest()
