"""Converting logs to the Arrow cache: in parallel, resumable, safe to kill; and reading it back.

A cache is a folder: `logs/` holds one file per log, named after its content (`arrow_log`); `index.jsonl` says which log of which source
became which file, one line each, appended as they are done. A killed conversion goes on where it was; a source file that has changed is
converted again, and one that is gone leaves. Beside the reader, one log at a time is in memory in each worker.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_write_bytes, atomic_write_text
from drive.core.workers import end_with_parent
from drive.datasets import arrow_log
from drive.datasets.logged import Entry, Inspection, Reader
from drive.datasets.logs import Log, Outline

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None
WAITING = "not converted yet, the conversion was stopped: run it again"
INDEX, LOGS, CARD, LOCK = "index.jsonl", "logs", "cache.json", ".lock"


@dataclass(frozen=True, slots=True)
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
    digest: str  # empty where the log could not be read
    bytes: int
    fault: str = ""  # why it could not
    faults: list[str] = field(default_factory=list)  # of records within it
    cut: bool = False


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    converted: int
    kept: int  # that an earlier one had done
    bytes: int  # of all files of the cache
    faults: tuple[str, ...] = ()  # logs that could not be read
    partly: tuple[str, ...] = ()  # records that could not, of logs that were converted


def _stamp(files: Iterable[Path], root: Path) -> list[list[Any]]:
    """Name, size and mtime_ns of each file; of one that is not there, -1 and -1."""
    out: list[list[Any]] = []
    for path in files:
        try:
            found = path.stat()
            out.append([os.path.relpath(path, root), found.st_size, found.st_mtime_ns])
        except OSError:
            out.append([os.path.relpath(path, root), -1, -1])
    return out


def _fresh(record: Record, root: Path, out: Path) -> bool:
    """Whether the file is there and its source unchanged."""
    file = out / LOGS / f"{record.digest}{arrow_log.SUFFIX}"
    there = bool(record.digest) and file.is_file() and file.stat().st_size == record.bytes
    return there and _stamp((root / name for name, _, _ in record.stamp), root) == record.stamp


def _lines(file: BinaryIO, path: Path) -> Iterator[Record]:
    """The lines of an index; a torn last one is dropped. Raises DataError on any other that is no record."""
    file.seek(0)
    for number, line in enumerate(file, 1):  # bytes: a damaged line may be no text
        if line == b"\n":
            continue
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            if not line.endswith(b"\n"):  # the process was killed while it wrote this line
                return
            raise DataError(f"{path}: line {number} is no record of a converted log ({error}): delete it, its log is converted again") from error
        yield record


def _records(out: Path) -> Iterator[Record]:
    """The last line of each log in the index, one at a time: a set of half a million logs would fill the memory. Raises DataError as `_lines`."""
    path = out / INDEX
    if not path.is_file():
        return
    with path.open("rb") as file:
        last = {(sys.intern(record.path), record.key): number for number, record in enumerate(_lines(file, path))}
        for number, record in enumerate(_lines(file, path)):
            if last.get((record.path, record.key)) == number:
                yield record


def convert(
    reader: Reader,
    root: Path,
    out: Path,
    split: str | None = None,
    workers: int = 1,
    progress: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert the logs of `reader` below `root` into the cache `out`: those of `split`, or all; `settings` are those of the reader.

    A log that cannot be read is a fault, told with file and record, kept in the index so that the cache counts it, and tried again next time.
    What the source no longer holds leaves the cache. Raises DataError where `out` holds logs of another source, root or settings, where another
    conversion writes there, and where no log is of `split`.
    """
    card = json.loads(json.dumps({"format": arrow_log.FORMAT, "source": reader.name, "root": str(root.absolute()), "settings": dict(settings or {})}))
    if file := next((path for path in (out, *out.absolute().parents) if path.exists() and not path.is_dir()), None):
        raise DataError(f"{file} is a file: give a folder as out=")
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        if (out / CARD).is_file() and (there := json.loads((out / CARD).read_text(encoding="utf-8"))) != card:
            other = [f"{key} {there.get(key)}, not {value}" for key, value in card.items() if there.get(key) != value]
            raise DataError(f"{out} holds converted logs of another source, folder or settings ({'; '.join(other)}): give another out=")
        (out / LOGS).mkdir(exist_ok=True)
        entries = {(_relative(e.path, root), e.key): e for e in reader.find(root) if split is None or e.split in ("", split)}
        if not entries:
            raise DataError(f"{root} has no log of {reader.name}{f' of the split {split!r}' if split else ''}")
        atomic_write_text(out / CARD, json.dumps(card))
        fresh = {name for record in _records(out) if (name := (record.path, record.key)) in entries and _fresh(record, root, out)}
        todo = [entry for name, entry in entries.items() if name not in fresh]
        faults, partly = [], []
        with (out / INDEX).open("ab+") as index:
            end_line(index)
            index.writelines(_line(_unread(entry, _relative(entry.path, root), WAITING)) for entry in todo)
            done = _converted(reader, todo, root, out, workers)
            for record in tqdm(done, total=len(todo), desc=f"converting {reader.name}", disable=not progress, dynamic_ncols=True):
                faults += [record.fault] if record.fault else []
                partly += record.faults
                append(index, record)
        named, size, text = set(), 0, BytesIO()
        for record in _records(out):
            if (record.path, record.key) in entries or (split is not None and record.split not in ("", split)):
                text.write(_line(record))
                named.add(f"{record.digest}{arrow_log.SUFFIX}")
                size += record.bytes
        atomic_write_bytes(out / INDEX, text.getvalue())
        for path in (out / LOGS).glob("*"):  # of logs that changed since or are gone, and what a killed worker left
            if path.name not in named:
                path.unlink()
    return Conversion(len(todo) - len(faults), len(entries) - len(todo), size, tuple(faults), tuple(partly))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds the folder for one conversion; a killed one lets go of it. Raises DataError where another holds it."""
    with (out / LOCK).open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"another conversion writes to {out}: wait for it, or give another out=") from None
            except OSError:  # a file system without locks: then two conversions are the user's to keep apart
                pass
        yield


def append(index: BinaryIO, record: Record) -> None:
    """A line of the index, on the disk when this returns."""
    index.write(_line(record))
    index.flush()
    os.fsync(index.fileno())


def end_line(index: BinaryIO) -> None:
    """Cut a torn last line off, so that the next one starts on its own; bytes: a torn line may be no text."""
    index.seek(0)
    whole, line = 0, b"\n"
    for line in index:
        whole += len(line) if line.endswith(b"\n") else 0
    if not line.endswith(b"\n"):
        index.truncate(whole)
    index.seek(0, os.SEEK_END)


@lru_cache(maxsize=4096)  # the records of a file share its name
def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def _line(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode() + b"\n"


def _convert_one(reader: Reader, entry: Entry, root: Path, out: Path) -> Record:
    """The line of a log; with a fault where it cannot be read."""
    path = _relative(entry.path, root)
    try:
        log = reader.read(entry)
        content = arrow_log.pack(log, root)
    except DataError as error:
        return _unread(entry, path, str(error))
    name = arrow_log.digest(content)
    atomic_write_bytes(out / LOGS / f"{name}{arrow_log.SUFFIX}", content)
    return record_of(log, path, entry.key, _stamp((*log.files, *log.absent), root), name, len(content))


def _unread(entry: Entry, path: str, fault: str) -> Record:
    return Record(path, entry.key, [], entry.log_id, entry.group, entry.split, 0, 0.0, None, [], "", 0, f"{path}: {fault}" if fault == WAITING else fault)


def record_of(log: Log, path: str, key: str, stamp: list[list[Any]], digest: str, size: int) -> Record:
    """The line of a log that was written as `digest`."""
    presents, faults = None if log.presents is None else list(log.presents), list(log.faults)
    return Record(path, key, stamp, log.log_id, log.group, log.split, log.steps, log.dt, presents, list(log.breaks), digest, size, "", faults, log.cut)


def _converted(reader: Reader, entries: list[Entry], root: Path, out: Path, workers: int) -> Iterator[Record]:
    if workers <= 1 or len(entries) < 2:
        for entry in entries:
            yield _convert_one(reader, entry, root, out)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs threads (tqdm) may lock up
    pool = ProcessPoolExecutor(min(workers, len(entries)), mp_context=context, initializer=_start_worker, initargs=(reader, root, out))
    pending: list[Future[Record]] = []
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


_job: tuple[Reader, Path, Path] | None = None  # of this worker process: a reader may hold what it found, which goes over once


def _start_worker(reader: Reader, root: Path, out: Path) -> None:
    global _job
    end_with_parent()
    _job = (reader, root, out)


def _work(entry: Entry) -> Record:
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
        """The logs of the index, and those files that it does not name, which `read` tells. Raises DataError where `root` is no cache."""
        if not (root / INDEX).is_file():
            raise DataError(f"{root} holds no {INDEX}: it is no folder of `drive data convert`")
        named: set[str] = set()
        entries, waiting = [], Counter[str]()
        for record in sorted(_records(root), key=lambda record: record.log_id):
            named.add(f"{record.digest}{arrow_log.SUFFIX}")
            waiting[record.log_id] += record.fault.endswith(WAITING)
            entries.append(_entry(record, root))
        strays = sorted(path for path in (root / LOGS).glob(f"*{arrow_log.SUFFIX}") if path.name not in named)
        return [*entries, *_lost(root, strays, +waiting)]

    def read(self, entry: Entry) -> Log:
        """One log, mapped into memory. Raises DataError, naming the file, and for a log that could not be converted."""
        if entry.key:
            raise DataError(entry.key)
        card = entry.path.parents[1] / CARD
        try:
            images = self.images or card.parent / json.loads(card.read_text(encoding="utf-8"))["root"]  # an absolute root replaces the parent
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{card} is missing or no card of a cache ({error}): convert again") from error
        log = arrow_log.read(entry.path, images)
        if entry.outline != Outline.of(log) or entry.log_id != log.log_id or entry.split != log.split:
            raise DataError(f"{card.parent / INDEX}: the line of log {entry.log_id} is damaged, it is not what {entry.path.name} holds: convert again")
        return log


def _lost(root: Path, strays: list[Path], waiting: Counter[str]) -> list[Entry]:
    """Those of the files that the index does not name that no log in `waiting` accounts for: a conversion writes a file before its line."""
    torn, lost = f"{root / INDEX} is cut off or damaged", []
    for path in strays:
        log_id = _log_id(path, root) if waiting else ""
        if log_id and waiting[log_id]:
            waiting[log_id] -= 1
        else:
            lost.append(path)
    unsure = waiting[""]  # logs whose name only reading tells: any of the files may be theirs
    if not unsure:
        return [Entry("", path, "", f"{torn}: it does not name {path.name}; run the conversion again") for path in lost]
    told = f"{torn}: up to {len(lost)} files in {LOGS} are of logs that it does not name, {unsure} of them may be of the stopped conversion; run it again"
    return [Entry("", path, "", told) for path in lost[unsure:]]


def _log_id(path: Path, root: Path) -> str:
    try:
        return arrow_log.read(path, root).log_id
    except DataError:
        return ""


def _entry(record: Record, root: Path) -> Entry:
    if record.fault:
        return Entry(record.log_id, root / INDEX, record.split, record.fault, group=record.group)
    outline = Outline(record.steps, record.dt, None if record.presents is None else tuple(record.presents), tuple(record.breaks))
    path = root / LOGS / f"{record.digest}{arrow_log.SUFFIX}"
    return Entry(record.log_id, path, record.split, "", outline, record.digest, record.group, tuple(record.faults), record.cut)


def source_of(root: Path) -> str:
    """The name of the reader that a cache was converted with; empty where its card does not tell, which `read` then says."""
    try:
        return str(json.loads((root / CARD).read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def inspect(path: Path) -> Inspection:
    """Counts of a cache; every file is compared with its name."""
    reader, faults, read, steps, scenes = CacheReader(), [], 0, 0, 0
    entries = reader.find(path)
    for entry in entries:
        faults += entry.faults
        try:
            log = reader.read(entry)
        except DataError as error:
            faults.append(str(error))
            continue
        read += 1
        steps += log.steps
        scenes += len(Outline.of(log).chosen(0.5, True)[0])
    size = sum(record.bytes for record in _records(path))
    return Inspection("converted logs", path, {"logs": read, "steps": steps, "scenes": scenes, "MB": round(size / 1e6, 1)}, tuple(faults))
