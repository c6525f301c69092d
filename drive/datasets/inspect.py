"""`drive data inspect`: what the files and folders under a path hold, whichever source they are of.

A file is recognised by its name, and where several sources share one, by its first record; nothing is read that is not recognised.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from drive.core.errors import DataError
from drive.datasets.logged import Inspection


@dataclass(frozen=True)
class Source:
    """Files or folders of one kind, and the function that counts what they hold."""

    matches: Callable[[Path], bool]  # by names alone
    module: str  # with a function inspect(path) -> Inspection; imported only where something matches
    function: str = "inspect"
    common: bool = False  # the name is that of many other files too: what it cannot read below a folder is none of ours


def _file(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: any(fnmatch(path.name, pattern) for pattern in patterns) and path.is_file()


def _folder_with(*names: str) -> Callable[[Path], bool]:
    """A folder that holds a file of every one of these names or patterns."""
    return lambda path: path.is_dir() and all(any(path.glob(name)) for name in names)


# Of the sources that match, the first that can read the file has it.
SOURCES = (
    Source(_folder_with("index.jsonl", "cache.json"), "drive.datasets.convert"),
    Source(_folder_with("city_SE3_egovehicle.feather"), "drive.datasets.av2"),
    Source(_folder_with("sync.arrow"), "drive.datasets.py123d"),
    Source(_folder_with("card.json", "episode-*.npz"), "drive.datasets.embedded"),
    Source(_folder_with("scene.json", "sample.json"), "drive.datasets.nuscenes"),
    Source(_folder_with("scene-*_pose.json"), "drive.datasets.nuscenes", "inspect_can_bus"),
    Source(_folder_with("global_pose", "processed_log"), "drive.datasets.recordings", "inspect_comma2k19"),
    Source(_folder_with(".zgroup"), "drive.datasets.l5kit"),
    Source(_file("semantic_map.pb"), "drive.datasets.l5kit", "inspect_map"),
    Source(_file("*.tfrecord*", "*.binproto", "*.parquet"), "drive.datasets.waymo"),
    Source(_file("scenario_*.parquet"), "drive.datasets.av2_forecasting"),
    Source(_file("*.db"), "drive.datasets.nuplan"),
    Source(_file("*.gpkg"), "drive.datasets.nuplan_map"),
    Source(_file("*.yaml"), "drive.datasets.navsim_files", "inspect_split", common=True),
    Source(_file("*.csv"), "drive.datasets.navsim_files", "inspect_scores", common=True),
    Source(_file("*.npy"), "drive.datasets.navsim_files", "inspect_motions", common=True),
    Source(_file("*.json"), "drive.datasets.navsim_files", "inspect_scene", common=True),
    Source(_file("*.json"), "drive.datasets.drivelm", common=True),
    Source(_file("dataset_summary.pkl", "dataset_mapping.pkl"), "drive.datasets.scenarionet", "inspect_index"),
    Source(_file("*.pkl"), "drive.datasets.scenarionet_inspect"),
    Source(_file("*.pkl"), "drive.datasets.navsim"),
    Source(_file("*.pkl"), "drive.datasets.mmdet3d_info"),
    Source(_file("*.pkl"), "drive.datasets.recordings", "inspect_plans"),
    Source(_file("*.tar.gz"), "drive.datasets.recordings", "inspect_tub", common=True),
)


def inspect(path: Path, asked: bool = True) -> Inspection | None:
    """What `path` itself holds; None where no source knows it, or, unless it was `asked` for, where only its name is known.

    Raises DataError, naming file and record, where it cannot be read: what the first source that matches says of it.
    """
    first: DataError | None = None
    for source in SOURCES:
        if not source.matches(path):
            continue
        try:
            return getattr(importlib.import_module(source.module), source.function)(path)
        except DataError as error:
            if asked or not source.common:
                first = first or error
    if first is not None:
        raise first
    return None


def walk(root: Path, asked: bool = True) -> Iterator[Inspection | DataError]:
    """Everything recognised at or below `root`, in order of name; a folder that is one record is not entered.

    Yields the DataError of what cannot be read in its place. Raises DataError where `root` does not exist.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist")
    try:
        found = inspect(root, asked)
    except DataError as error:
        yield error
        return
    if found is not None:
        yield found
    elif root.is_dir() and (asked or not root.is_symlink()):
        for name in sorted(os.listdir(root)):
            yield from walk(root / name, asked=False)
