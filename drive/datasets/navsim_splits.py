"""NAVSIM's own split files: scene filters (`navtest.yaml`) and the groups of the two-stage benchmark (`navhard_two_stage.yaml`).

The files are Hydra configs of NAVSIM; they are read as plain YAML, and nothing in them is instantiated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drive.core.errors import DataError


@dataclass(frozen=True)
class SceneFilter:
    """Which scenes belong to a split."""

    name: str
    num_history_frames: int  # at 2 Hz, the present among them
    num_future_frames: int
    has_route: bool  # scenes without a route are left out
    log_names: tuple[str, ...]
    tokens: tuple[str, ...]  # of the present frames
    synthetic_tokens: tuple[str, ...] = ()  # second-stage scenes
    mapping: Path | None = None  # split file with the groups of the two stages


@dataclass(frozen=True)
class TwoStageGroup:
    """One entry of the two-stage mapping: a logged frame, the one about 0.5 s before it, and the synthetic pairs that follow."""

    now: str
    previous: str
    follow_ups: tuple[tuple[str, str], ...]  # (now, previous) of each


def read_scene_filter(path: str | Path) -> SceneFilter:
    """A scene filter YAML, and the file of the same name in the folder above, where NAVSIM keeps the mapping of a filter with second-stage scenes.

    Raises DataError, naming the file, where it is no such file or a token stands in it twice.
    """
    path = Path(path)
    content = _yaml(path)
    try:
        found = SceneFilter(
            name=path.stem,
            num_history_frames=int(content["num_history_frames"]),
            num_future_frames=int(content["num_future_frames"]),
            has_route=bool(content["has_route"]),
            log_names=_texts(content["log_names"]),
            tokens=_texts(content["tokens"]),
            synthetic_tokens=(synthetic := _texts(content.get("reactive_synthetic_initial_tokens") or [])),
            mapping=beside if synthetic and (beside := path.absolute().parent.parent / path.name).is_file() else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no NAVSIM scene filter: {error!r}") from error
    for what, names in (("token", (*found.tokens, *found.synthetic_tokens)), ("log", found.log_names)):
        if len(set(names)) != len(names):
            raise DataError(f"{path} names a {what} twice: its scenes would count twice")
    return found


def read_two_stage_groups(path: str | Path) -> tuple[TwoStageGroup, ...]:
    """The groups of a split YAML with `reactive_all_mapping`. Raises DataError, naming the file, where it has none or one is malformed."""
    path = Path(path)
    content = _yaml(path)
    if "reactive_all_mapping" not in content:
        raise DataError(f"{path} has no reactive_all_mapping: it is no two-stage split")
    groups = []
    for number, entry in enumerate(content["reactive_all_mapping"]):
        try:
            now, previous, pairs = entry
            if not pairs:
                raise ValueError("it has no follow-ups")
            groups.append(TwoStageGroup(_text(now), _text(previous), tuple((_text(a), _text(b)) for a, b in pairs)))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: group {number} wants [now, previous, [[now, previous], …]]: {error}") from error
    return tuple(groups)


def _yaml(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"there is no file {path}: give its path, as NAVSIM has it below navsim/planning/script/config/common/train_test_split")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds no mapping: it is no NAVSIM split file")
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no token: tokens are quoted text (unquoted, YAML may read one as a number)")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)
