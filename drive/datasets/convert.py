"""Converting logs to the Arrow cache: in parallel, resumable, safe to kill; and reading it back.

A cache is a folder: `logs/` holds one file per log, named after its content (`arrow_log`); `index.jsonl` says which log of which source
became which file, one line each, appended as they are done. A killed conversion goes on where it was; a source file that has changed is
converted again. One log at a time is in memory in each worker.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_write_bytes, atomic_write_text
from drive.core.workers import end_with_parent
from drive.datasets import arrow_log
from drive.datasets.logged import Entry, Inspection, Reader
from drive.datasets.logs import Log, Outline

INDEX, LOGS, CARD = "index.jsonl", "logs", "cache.json"


@dataclass(frozen=True)
class Record:
    """One line of the index."""

    path: str  # of the source, relative to its root
    key: str
    stamp: list[list[Any]]  # name, size, mtime_ns of each file that it was read from: a changed one is converted again
    log_id: str
    group: str
    split: str
    steps: int
    dt: float
    presents: list[int] | None
    breaks: list[int]
    digest: str
    bytes: int


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    converted: int
    kept: int  # that an earlier one had done
    bytes: int  # of all files of the cache
    faults: tuple[str, ...] = field(default=())


def _stamp(files: tuple[Path, ...], root: Path) -> list[list[Any]]:
    return [[os.path.relpath(path, root), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _fresh(record: Record, root: Path, out: Path) -> bool:
    """Whether the file is there and its source unchanged."""
    file = out / LOGS / f"{record.digest}{arrow_log.SUFFIX}"
    if not file.is_file() or file.stat().st_size != record.bytes:
        return False
    try:
        return [[name, (root / name).stat().st_size, (root / name).stat().st_mtime_ns] for name, _, _ in record.stamp] == record.stamp
    except OSError:
        return False


def _records(out: Path) -> dict[tuple[str, str], Record]:
    """The index by (path, key), the last line of each; a torn last line is dropped. Raises DataError on any other line."""
    path = out / INDEX
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")
    found = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            if number == len(lines):  # the process was killed while it wrote this line
                break
            raise DataError(f"{path}: line {number} is no record of a converted log ({error}): delete it, its log is converted again") from error
        found[record.path, record.key] = record
    return found


def convert(reader: Reader, root: Path, out: Path, split: str | None = None, workers: int = 1, progress: bool = True) -> Conversion:
    """Convert the logs of `reader` below `root` into the cache `out`: those of `split`, or all.

    A log that cannot be read is a fault, told with file and record, and tried again next time. Raises DataError where `out` holds
    logs of another source or root.
    """
    card = {"format": arrow_log.FORMAT, "source": reader.name, "root": str(root.absolute())}
    out.mkdir(parents=True, exist_ok=True)
    if (out / CARD).is_file() and json.loads((out / CARD).read_text(encoding="utf-8")) != card:
        raise DataError(f"{out} holds converted logs of another source, folder or format ({(out / CARD).read_text(encoding='utf-8')}): give another out=")
    atomic_write_text(out / CARD, json.dumps(card))
    known = _records(out)
    entries = [entry for entry in reader.find(root) if split is None or entry.split in ("", split)]
    at = {id(entry): (os.path.relpath(entry.path, root), entry.key) for entry in entries}
    fresh = {name for name, record in known.items() if _fresh(record, root, out)}
    todo = [entry for entry in entries if at[id(entry)] not in fresh]
    faults = []
    with (out / INDEX).open("a+", encoding="utf-8") as index:
        end_line(index)
        bar = tqdm(_converted(reader, todo, root, out, workers), total=len(todo), desc=f"converting {reader.name}", disable=not progress, dynamic_ncols=True)
        for done in bar:
            if isinstance(done, str):
                faults.append(done)
                continue
            index.write(json.dumps(asdict(done)) + "\n")
            index.flush()
            os.fsync(index.fileno())
    records = _records(out).values()
    named = {f"{record.digest}{arrow_log.SUFFIX}" for record in records}
    for path in (out / LOGS).glob("*"):  # of logs that changed since, and what a killed worker left
        if path.name not in named:
            path.unlink()
    return Conversion(len(todo) - len(faults), len(entries) - len(todo), sum(record.bytes for record in records), tuple(faults))


def end_line(index: Any) -> None:
    """Cut a torn last line off, so that the next one starts on its own."""
    index.seek(0)
    text = index.read()
    if text and not text.endswith("\n"):
        index.truncate(len(text[: text.rfind("\n") + 1].encode()))
    index.seek(0, os.SEEK_END)


def _convert_one(reader: Reader, entry: Entry, root: Path, out: Path) -> Record | str:
    """The line of a log, or what is wrong with it."""
    try:
        log = reader.read(entry)
        content = arrow_log.pack(log, root)
    except DataError as error:
        return str(error)
    name = arrow_log.digest(content)
    atomic_write_bytes(out / LOGS / f"{name}{arrow_log.SUFFIX}", content)
    path = os.path.relpath(entry.path, root)
    return Record(path, entry.key, _stamp(log.files, root), log.log_id, log.group, log.split, log.steps, log.dt, None if log.presents is None else list(log.presents), list(log.breaks), name, len(content))


def _converted(reader: Reader, entries: list[Entry], root: Path, out: Path, workers: int) -> Iterator[Record | str]:
    if workers <= 1 or len(entries) < 2:
        for entry in entries:
            yield _convert_one(reader, entry, root, out)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs threads (tqdm) may lock up
    pool = ProcessPoolExecutor(min(workers, len(entries)), mp_context=context, initializer=_start_worker, initargs=(reader, root, out))
    pending: list[Future[Record | str]] = []
    waiting = iter(entries)
    try:
        while True:
            while len(pending) < 2 * workers and (entry := next(waiting, None)) is not None:
                pending.append(pool.submit(_work, entry))
            if not pending:
                return
            yield pending.pop(0).result()
    except BrokenProcessPool as error:
        raise DriveError(f"a worker that converts {root} was killed (out of memory?): run the command again with fewer workers") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: tuple[Reader, Path, Path] | None = None  # of this worker process: a reader may hold tables, which go over once


def _start_worker(reader: Reader, root: Path, out: Path) -> None:
    global _job
    end_with_parent()
    _job = (reader, root, out)


def _work(entry: Entry) -> Record | str:
    if _job is None:
        raise DriveError("a converting worker was not started by convert()")
    reader, root, out = _job
    return _convert_one(reader, entry, root, out)


class CacheReader:
    """The logs of a cache. A `Reader`."""

    name = "cache"

    def __init__(self, images: str | Path | None = None) -> None:
        """`images`: folder that holds the source's images, where they were moved since the conversion."""
        self.images = None if images is None else Path(images)

    def find(self, root: Path) -> list[Entry]:
        """The logs of the index. Raises DataError where `root` is no cache."""
        if not (root / INDEX).is_file():
            raise DataError(f"{root} holds no {INDEX}: it is no folder of `drive data convert`")
        records = sorted(_records(root).values(), key=lambda record: record.log_id)
        return [_entry(record, root) for record in records]

    def read(self, entry: Entry) -> Log:
        """One log, mapped into memory. Raises DataError, naming the file."""
        card = entry.path.parents[1] / CARD
        try:
            images = self.images or card.parent / json.loads(card.read_text(encoding="utf-8"))["root"]  # an absolute root replaces the parent
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{card} is missing or no card of a cache ({error}): convert again") from error
        return arrow_log.read(entry.path, images)


def _entry(record: Record, root: Path) -> Entry:
    outline = Outline(record.steps, record.dt, None if record.presents is None else tuple(record.presents), tuple(record.breaks))
    return Entry(record.log_id, root / LOGS / f"{record.digest}{arrow_log.SUFFIX}", record.split, "", outline, record.digest, record.group)


def inspect(path: Path) -> Inspection:
    """Counts of a cache; every file is compared with its name."""
    reader, faults, steps, scenes = CacheReader(), [], 0, 0
    entries = reader.find(path)
    for entry in entries:
        try:
            log = reader.read(entry)
        except DataError as error:
            faults.append(str(error))
            continue
        steps += log.steps
        scenes += len(Outline.of(log).chosen(0.5, True)[0])
    size = sum(file.stat().st_size for file in (path / LOGS).iterdir())
    return Inspection("converted logs", path, {"logs": len(entries) - len(faults), "steps": steps, "scenes": scenes, "MB": round(size / 1e6, 1)}, tuple(faults))
