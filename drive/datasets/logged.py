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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from drive.core.errors import DataError
from drive.core.types import Camera, Scenario
from drive.datasets.logs import Log, LogScenes, Outline
from drive.datasets.splits import fingerprint, split_by_log

SPLITS = ("train", "val", "test")
LOGS_KEPT = 64  # in memory, of those read when asked for
FOLDER_SPLITS = {"train": "train", "trainval": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test", "mini_val": "val"}


@dataclass(frozen=True)
class Entry:
    """A log that a Reader has found and not read yet."""

    log_id: str  # empty where only reading tells
    path: Path  # file or folder
    split: str  # train, val or test; empty where only reading tells
    key: str = ""  # which log of a file that holds several
    outline: Outline | None = None  # where it is known: the log is then read when a scene of it is asked for
    digest: str = ""  # of the content of `path`, where it is known
    group: str = ""  # as Log's, where it is known
    faults: tuple[str, ...] = ()  # as Log's, where they are known
    cut: bool = False  # as Log's, where it is known


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
        drive = entry.group or entry.log_id
        first = seen.setdefault(drive, entry) if drive and entry.split else entry
        if first.split != entry.split:
            raise DataError(
                f"log {drive} is in the splits {first.split} ({first.path}) and {entry.split} ({entry.path}): keep it in one, its scenarios are not independent"
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
        settings: str = "",
        render: tuple[Camera, ...] | None = None,
        cache_images: int = 512,
        progress: bool = False,
    ) -> None:
        """Reads every log of `split` with its map, unless its outline is known; a Scenario stands every `stride_s` seconds.

        A Scenario has its whole 5 s of future, which is what training imitates and the PDM score judges; `short_futures` also gives those
        with less outside of train, for protocols that judge what there is. `splits` names the logs of each split, in place of the
        source's own; `settings` are those of the reader, for the fingerprint; `render` are cameras for logs without any. A log that cannot be read is kept in `faults` and counts in `expected` as
        many scenarios as the readable ones hold on average, and at least as many as the whole ones does one whose file was cut, as nobody
        knows what stood behind the cut; one that is there twice is kept there too, and costs nothing. Raises DataError
        on an unknown split, a log in two splits or left out by `splits`, and a split without a readable log.
        """
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}: choose from {', '.join(SPLITS)}")
        if stride_s <= 0.0:
            raise DataError(f"stride_s={stride_s}: the time between two scenarios must be above 0 s")
        self.reader, self.root, self.split, self.settings = reader, Path(root), split, settings
        self.faults: list[str] = []
        self._options = {"render": render, "cache_images": cache_images}
        self._later = lru_cache(maxsize=LOGS_KEPT)(self._read)
        self._owner = None if splits is None else split_by_log(splits)
        entries = reader.find(self.root)
        if self._owner is None:
            _refuse_overlap(entries)
        logs, unread, others = self._open(entries, progress)
        if not logs:
            there = f"its logs are of {', '.join(sorted(others))}: give split={min(others)}" if others else f"no log of {reader.name} is there; `drive data inspect {self.root}` tells what is"
            raise DataError(f"{self.root} has no readable log of the split {split!r}: {'; '.join(self.faults[:3]) or there}")
        whole = split == "train" or not short_futures
        self._logs = {log_id: log for log_id, (_, log) in sorted(logs.items())}
        self._at: list[tuple[str, int]] = []
        broken = 0
        held: dict[bool, list[int]] = {False: [], True: []}  # scenarios of each log, by whether it was cut
        for log_id, (outline, log) in sorted(logs.items()):
            steps, lost = outline.chosen(stride_s, whole)
            held[log.cut if isinstance(log, Entry) else log.log.cut].append(len(steps) + lost)
            self._at += [(log_id, step) for step in steps]
            if lost:
                broken += lost
                where = log.path if isinstance(log, Entry) else log.log.files[0]
                self.faults.append(f"{where}: {lost} scenarios of log {log_id} stand beside missing frames and are left out")
        if not self._at:
            told = f": {'; '.join(self.faults[:3])}" if self.faults else ""
            raise DataError(f"{self.root}: none of the {len(logs)} logs of the split {split!r} is long and whole enough for a scenario{told}")
        usual = math.ceil(sum(held[False]) / len(held[False])) if held[False] else 0
        broken += sum(max(usual - count, 0) for count in held[True])
        self.expected = len(self._at) + broken + unread * math.ceil(len(self._at) / len(logs))

    def _open(self, entries: Sequence[Entry], progress: bool) -> tuple[dict[str, tuple[Outline, LogScenes | Entry]], int, set[str]]:
        """The logs of the split by id, how many could not be read, and the other splits that there are."""
        logs: dict[str, tuple[Outline, LogScenes | Entry]] = {}
        others: set[str] = set()
        stray: list[str] = []
        unread = 0
        for entry in tqdm(entries, desc=f"{self.reader.name} logs", disable=not progress, dynamic_ncols=True):
            known = entry.split if self._owner is None else self._owner.get(entry.group or entry.log_id, "")
            if known not in ("", self.split):
                others.add(known)
                continue
            outline, opened = entry.outline, entry
            try:
                if not known or outline is None:
                    opened = self._read(entry)
                    outline = Outline.of(opened.log)
            except DataError as error:
                unread += 1
                self.faults.append(str(error))
                continue
            log_id, split = (entry.log_id, known) if isinstance(opened, Entry) else (opened.log.log_id, opened.log.split)
            if split != self.split:
                (others.add if split else stray.append)(split or log_id)
            elif log_id in logs:
                self.faults.append(f"{entry.path}: log {log_id} is there twice: remove one of them")
            else:
                logs[log_id] = (outline, opened)
                self.faults += opened.log.faults if isinstance(opened, LogScenes) else opened.faults
        if stray:
            named = f"{self.root}: {len(stray)} logs belong to no split ({', '.join(stray[:3])}{', …' if len(stray) > 3 else ''})"
            if self._owner is not None:
                raise DataError(f"{named}: name every log in dataset.splits")
            self.faults.append(f"{named}: put them in folders named {', '.join(SPLITS)}, or name them in dataset.splits=FILE")
        return logs, unread, others

    def _read(self, entry: Entry) -> LogScenes:
        """The log of an entry; its map is read now, so that a faulty one is a fault of its log."""
        log = self.reader.read(entry)
        if self._owner is not None:
            log = replace(log, split=self._owner.get(log.group or log.log_id, ""))
        scenes = LogScenes(log, **self._options)
        if log.split == self.split:
            _ = scenes.route
        return scenes

    def log(self, log_id: str) -> LogScenes:
        """One log of the split. Raises DataError where it cannot be read."""
        found = self._logs[log_id]
        return found if isinstance(found, LogScenes) else self._later(found)

    @property
    def logs(self) -> list[LogScenes]:
        """Every log of the split, in order of id."""
        return [self.log(log_id) for log_id in self._logs]

    @property
    def drives(self) -> frozenset[str]:
        """The drives that the scenarios are cut from."""
        return frozenset(log.group or log.log_id if isinstance(log, Entry) else log.log.group or log.log.log_id for log in self._logs.values())

    @property
    def ids(self) -> tuple[str, ...]:
        """Scenario ids, in order."""
        return tuple(f"{log_id}-{step:04d}" for log_id, step in self._at)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the split, the reader's settings, the ids and the files that it is read from; images are not read for it."""
        files = {path for log in self._logs.values() if isinstance(log, LogScenes) for path in log.log.files}
        known = [log.digest for log in self._logs.values() if isinstance(log, Entry)]
        return hashlib.sha256("\n".join([self.split, self.settings, *self.ids, *known, fingerprint(self.root, files)]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`. Raises DataError where its log cannot be read."""
        log_id, step = self._at[index]
        return self.log(log_id).scenario(step)

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))
