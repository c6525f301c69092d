"""Scenarios from real driving logs in ScenarioNet's pickle format (Li et al. 2023), cameras rendered from map and boxes.

How the ego's motion, the map and the route come out of a log stands in `scenarionet_log`, `scenarionet_map` and `route`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from drive.core.errors import DataError
from drive.datasets.logged import Entry, Inspection, split_of_path, walk
from drive.datasets.logs import Log
from drive.datasets.motion import DT
from drive.datasets.scenarionet_log import LogRecord, read_log
from drive.datasets.scenarionet_map import build_road_map
from drive.datasets.splits import NUSCENES_MINI
from drive.datasets.unpickle import load_plain_pickle

SUMMARY, MAPPING = "dataset_summary.pkl", "dataset_mapping.pkl"


def _indexed(index: Path) -> list[Path]:
    """The files that an index file names: a mapping gives their folders, a summary without one keeps them beside it."""
    content = load_plain_pickle(index)
    if not isinstance(content, Mapping):
        raise DataError(f"{index}: no ScenarioNet index, it holds a {type(content).__name__}: remove it, the logs are found without")
    if index.name == MAPPING:
        return [index.parent / str(folder) / str(name) for name, folder in content.items()]
    return [] if (index.parent / MAPPING).exists() else [index.parent / str(name) for name in content]


def log_of(record: LogRecord, split: str) -> Log:
    """A record as a Log."""
    return Log(
        log_id=record.log_id,
        source="scenarionet",
        split=split,
        files=(record.path,),
        dt=DT,
        ego=record.ego,
        ego_size=record.ego_size,
        agents=record.agents,
        origin=record.origin,
        make_map=partial(build_road_map, record.log_id, record.map_features, record.origin),
        notes={"trimmed_steps": record.trimmed_steps, "dropped_tracks": list(record.dropped_tracks)},
    )


class ScenarioNetReader:
    """The pickles below a folder, and those that its indexes name. A `Reader`."""

    name = "scenarionet"

    def find(self, root: Path) -> list[Entry]:
        """All scenario pickles, whether or not they exist, and indexes that cannot be read, which `read` tells.

        The split of a nuScenes-mini log is that of `splits.NUSCENES_MINI`, of others that of the folder; else it is unknown before reading.
        """
        pickles = {path.resolve() for path in walk(root, lambda name: name.endswith(".pkl"))}
        indexes = sorted(path for path in pickles if path.name in (SUMMARY, MAPPING))
        found, bad = pickles - set(indexes), []
        for index in indexes:
            try:
                found.update(path.resolve() for path in _indexed(index))
            except DataError:
                bad.append(index)
        return [Entry("", path, _named_split(path)) for path in [*sorted(found), *bad]]

    def read(self, entry: Entry) -> Log:
        """One log. Raises DataError, naming file, track and step."""
        if entry.path.name in (SUMMARY, MAPPING):
            _indexed(entry.path)
        record = read_log(entry.path)
        mini = (split for split, logs in NUSCENES_MINI.items() if record.log_id in logs)
        return log_of(record, next(mini, entry.split))


def _named_split(path: Path) -> str:
    """The split that a file's name or folder tells."""
    mini = (split for split, logs in NUSCENES_MINI.items() for log in logs if log in path.name)
    return next(mini, split_of_path(path, ""))


def inspect_index(path: Path) -> Inspection:
    """Counts of a summary or mapping; logs that it names and that are not there are faults. Raises DataError where it is none."""
    named = _indexed(path)
    lost = tuple(f"{path} names {file.name}, which is not there" for file in named if not file.is_file())
    return Inspection("ScenarioNet index", path, {"logs named": len(named), "there": len(named) - len(lost)}, lost)
