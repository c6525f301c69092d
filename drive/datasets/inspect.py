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


def _file(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: any(fnmatch(path.name, pattern) for pattern in patterns) and path.is_file()


def _folder_with(*names: str) -> Callable[[Path], bool]:
    """A folder that holds a file of every one of these names or patterns."""
    return lambda path: path.is_dir() and all(any(path.glob(name)) for name in names)


SOURCES = (
    Source(_folder_with("index.jsonl", "cache.json"), "drive.datasets.convert"),
    Source(_folder_with("city_SE3_egovehicle.feather"), "drive.datasets.av2"),
    Source(_folder_with("card.json", "episode-*.npz"), "drive.datasets.embedded"),
)


def inspect(path: Path) -> Inspection | None:
    """What `path` itself holds; None where no source knows it. Raises DataError, naming file and record, where it cannot be read."""
    for source in SOURCES:
        if source.matches(path):
            return getattr(importlib.import_module(source.module), source.function)(path)
    return None


def walk(root: Path) -> Iterator[Inspection | DataError]:
    """Everything recognised at or below `root`, in order of name; a folder that is one record is not entered.

    Yields the DataError of what cannot be read in its place. Raises DataError where `root` does not exist.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist")
    try:
        found = inspect(root)
    except DataError as error:
        yield error
        return
    if found is not None:
        yield found
        return
    if root.is_dir() and not root.is_symlink():
        for name in sorted(os.listdir(root)):
            yield from walk(root / name)
