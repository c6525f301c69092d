"""What the files around nuPlan and NAVSIM hold: split YAMLs, per-token score CSVs, nuPlan's JSON test scenes, vocabularies of motions."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from drive.core.errors import DataError
from drive.datasets.logged import Inspection
from drive.datasets.navsim_splits import read_scene_filter, read_two_stage_groups

FUTURES = ("ego_future_states", "expert_ego_states", "world_future_states")


def inspect_split(path: Path) -> Inspection:
    """Counts of a scene filter, or of a two-stage mapping. Raises DataError, naming the file, where it is neither."""
    try:
        groups = read_two_stage_groups(path)
    except DataError as no_groups:
        try:
            scenes = read_scene_filter(path)
        except DataError as error:
            raise DataError(f"{error}; {no_groups}") from error
        counts: dict[str, int | float | str] = {
            "tokens": len(scenes.tokens), "synthetic tokens": len(scenes.synthetic_tokens), "logs": len(scenes.log_names),
            "history frames": scenes.num_history_frames, "future frames": scenes.num_future_frames,
        }  # fmt: skip
        return Inspection("NAVSIM scene filter", path, counts)
    first = {token for group in groups for token in (group.now, group.previous)}
    second = {token for group in groups for pair in group.follow_ups for token in pair}
    counts = {"groups": len(groups), "first-stage tokens": len(first), "second-stage tokens": len(second)}
    return Inspection("NAVSIM two-stage mapping", path, counts)


def inspect_scores(path: Path) -> Inspection:
    """Rows, logs and 100 x the mean score of a per-token score CSV; rows that are not valid or have no score are faults.

    Raises DataError, naming the file, where it is no such CSV.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})") from error
    missing = {"token", "valid", "score"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{path} is no table of NAVSIM scores: it lacks the columns {', '.join(sorted(missing))}")
    scores, faults = [], []
    for number, row in enumerate(rows, 2):
        score = _number(row["score"])
        if row["valid"] != "True" or score is None:
            faults.append(f"{path}: line {number}, token {row['token']}: no valid score")
        else:
            scores.append(score)
    counts: dict[str, int | float | str] = {"rows": len(rows), "tokens": len({row["token"] for row in rows})}
    if "log_name" in (reader.fieldnames or ()):
        counts["logs"] = len({row["log_name"] for row in rows})
    counts["100 x mean score"] = round(100.0 * sum(scores) / max(len(rows), 1), 4)  # a row without a score counts 0
    return Inspection("NAVSIM per-token scores", path, counts, tuple(faults))


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def inspect_scene(path: Path) -> Inspection:
    """What one of nuPlan's hand-made JSON scenes holds: agents by kind, futures, expected statistics. Raises DataError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not {"camera", "meta"} <= set(content):
        raise DataError(f"{path} is no scene of nuPlan's tests: it lacks camera or meta")
    world, expected = content.get("world") or {}, content.get("expected")
    counts: dict[str, int | float | str] = {
        "ego": "yes" if "ego" in content else "no",
        "map": str((content.get("map") or {}).get("area", "none")),
    }
    counts |= {kind: len(objects) for kind, objects in world.items() if isinstance(objects, list)}
    counts |= {name.replace("_", " "): len(content[name]) for name in FUTURES if isinstance(content.get(name), list | dict)}
    if isinstance(expected, dict):
        counts["expected statistics"] = len(expected.get("statistics") or ())
    elif expected is not None:
        counts["expected values"] = len(expected) if isinstance(expected, list) else 1
    return Inspection("nuPlan test scene", path, counts)


def inspect_motions(path: Path) -> Inspection:
    """Shape and reach of a vocabulary of motions (N, T, 2 or 3). Raises DataError where it is none, or holds NaN."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array ({error})") from error
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.shape[2] not in (2, 3) or values.dtype.kind != "f":
        raise DataError(
            f"{path} is no vocabulary of motions: want floats of shape (motions, steps, 2 or 3), got {getattr(values, 'shape', type(values).__name__)}"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{path}: motion {int(np.argmax(~np.isfinite(values).all(axis=(1, 2))))} has NaN or infinity")
    reach = float(np.hypot(values[..., 0], values[..., 1]).max()) if values.size else 0.0
    counts: dict[str, int | float | str] = {
        "motions": values.shape[0],
        "steps": values.shape[1],
        "columns": values.shape[2],
        "farthest (m)": round(reach, 1),
    }
    return Inspection("vocabulary of motions", path, counts)
