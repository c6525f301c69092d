"""A folder of logs of one source as a dataset: which logs there are, which could be read, and their Scenarios in order.

A source is a Reader: it finds logs without reading them, and reads one at a time. What cannot be read is a fault with file and record,
and counts in `expected`; the rest is still read.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from drive.core.errors import DataError
from drive.core.types import Camera, Scenario
from drive.datasets.logs import Log, LogScenes
from drive.datasets.splits import fingerprint, split_by_log

SPLITS = ("train", "val", "test")
FOLDER_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test", "mini_val": "val"}


@dataclass(frozen=True)
class Entry:
    """A log that a Reader has found and not read yet."""

    log_id: str  # empty where only reading tells
    path: Path  # file or folder
    split: str  # train, val or test; empty where only reading tells
    key: str = ""  # which log of a file that holds several


class Reader(Protocol):
    """One source of logged data."""

    name: str  # of the dataset, as in configs/dataset

    def find(self, root: Path) -> list[Entry]:
        """The logs below `root`, sorted. Raises DataError where it is no folder or its index cannot be read."""
        ...

    def read(self, entry: Entry) -> Log:
        """One log. Raises DataError, naming file and record, where it cannot be read."""
        ...


@dataclass(frozen=True)
class Inspection:
    """What a file or folder of a source holds, for people to read."""

    kind: str  # e.g. "Argoverse 2 sensor log"
    path: Path
    counts: dict[str, int | float | str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()  # records that could not be read


def split_of_path(path: Path, default: str) -> str:
    """The split that the nearest folder above `path` is named after, else `default`."""
    named = (FOLDER_SPLITS[part.lower()] for part in reversed(path.absolute().parts) if part.lower() in FOLDER_SPLITS)
    return next(named, default)


def walk(root: str | Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Files below `root` whose name is wanted, sorted; links to folders are followed once. Raises DataError if it is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the folder that holds the logs")
    found, seen = [], set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(name) / file for file in files if wanted(file)]
    return sorted(found)


def _refuse_overlap(entries: Sequence[Entry]) -> None:
    """Raises DataError where a log stands in two splits."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.log_id, entry) if entry.log_id and entry.split else entry
        if first.split != entry.split:
            raise DataError(
                f"log {entry.log_id} is in the splits {first.split} ({first.path}) and {entry.split} ({entry.path}): keep it in one, its scenarios are not independent"
            )


class LogDataset(Sequence[Scenario]):
    """Scenarios of one split of a source, in order of log and time."""

    def __init__(
        self,
        reader: Reader,
        root: str | Path,
        split: str,
        stride_s: float = 0.5,
        short_futures: bool = False,
        splits: Mapping[str, Sequence[str]] | None = None,
        render: tuple[Camera, ...] | None = None,
        cache_images: int = 512,
        check_maps: bool = True,
        progress: bool = False,
    ) -> None:
        """Reads every log of `split`, with its map unless `check_maps` is off; a Scenario stands every `stride_s` seconds, `render` are cameras for logs without any.

        A Scenario has its whole 5 s of future, which is what training imitates and the PDM score judges; `short_futures` also gives those
        with less outside of train, for protocols that judge what there is. `splits` names the logs of each split, in place of the
        source's own. A log that cannot be read is kept in `faults` and counts in `expected` as many scenarios as the readable ones hold
        on average; one that is there twice is kept there too, and costs nothing. Raises DataError on an unknown split, a log that
        `splits` leaves out or names twice, and a split without a readable log.
        """
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
        if stride_s <= 0.0:
            raise DataError(f"stride_s={stride_s}: the time between two scenarios must be above 0 s")
        self.root, self.split = Path(root), split
        self.logs: list[LogScenes] = []
        self.faults: list[str] = []
        owner = None if splits is None else split_by_log(splits)
        entries = reader.find(self.root)
        if owner is None:
            _refuse_overlap(entries)
        others: set[str] = set()
        stray: list[str] = []
        unread = 0
        for entry in tqdm(entries, desc=f"{reader.name} logs", disable=not progress, dynamic_ncols=True):
            known = entry.split if owner is None else owner.get(entry.log_id, "")
            if known not in ("", split):
                others.add(known)
                continue
            try:
                log = reader.read(entry)
                log = log if owner is None else replace(log, split=owner.get(log.log_id, ""))
                if log.split != split:
                    (others.add if log.split else stray.append)(log.split or log.log_id)
                    continue
                if any(log.log_id == scenes.log.log_id for scenes in self.logs):
                    self.faults.append(f"{entry.path}: log {log.log_id} is there twice: remove one of them")
                    continue
                scenes = LogScenes(log, render, cache_images)
                if check_maps:
                    _ = scenes.route  # reads the map now, so that a faulty one is a fault of its log
            except DataError as error:
                unread += 1
                self.faults.append(str(error))
                continue
            self.logs.append(scenes)
        if stray:
            named = f"{self.root}: {len(stray)} logs belong to no split ({', '.join(stray[:3])}{', …' if len(stray) > 3 else ''})"
            if owner is not None:
                raise DataError(f"{named}: name every log in dataset.splits")
            self.faults.append(f"{named}: put them in folders named {', '.join(SPLITS)}, or name them in dataset.splits=FILE")
        if not self.logs:
            there = f"its logs are of {', '.join(sorted(others))}" if others else f"no log of {reader.name} is there"
            raise DataError(f"{self.root} has no readable log of the split {split!r}: {'; '.join(self.faults[:3]) or there}")
        self.logs.sort(key=lambda scenes: scenes.log.log_id)
        whole = split == "train" or not short_futures
        self._at = [(s, step) for s in self.logs for step in s.presents(max(round(stride_s / s.log.dt), 1), whole)]
        if not self._at:
            raise DataError(f"{self.root}: none of the {len(self.logs)} logs of the split {split!r} is long enough for a scenario")
        self.expected = len(self._at) + unread * math.ceil(len(self._at) / len(self.logs))

    @property
    def ids(self) -> tuple[str, ...]:
        """Scenario ids, in order."""
        return tuple(f"{scenes.log.log_id}-{step:04d}" for scenes, step in self._at)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the split, the ids and the files that it is read from; images are not read for it."""
        files = {path for scenes in self.logs for path in scenes.log.files}
        return hashlib.sha256("\n".join([self.split, *self.ids, fingerprint(self.root, files)]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`."""
        scenes, step = self._at[index]
        return scenes.scenario(step)

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))
