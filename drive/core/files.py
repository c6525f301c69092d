"""Writing files so that a reader sees the old content or the new, never half of it, even across a kill or a full disk."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from drive.core.errors import DriveError

PARTIAL = ".partial"  # suffix of what is still being written; every reader of a folder skips it


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk met inside the block into one DriveError that names `path`; other OSErrors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DriveError(f"no space left on the device while writing {path}: free some space and run the command again") from error


def atomic_write_bytes(path: Path | str, data: bytes) -> Path:
    """Write `data` to `path` through a temporary file beside it, fsync and rename; parents are made.

    Raises DriveError on a full disk and OSError on any other fault; in both cases nothing is left beside `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _fsync_folder(path.parent)
    return path


def atomic_write_text(path: Path | str, text: str) -> Path:
    """`atomic_write_bytes` of UTF-8 text, line ends as given."""
    return atomic_write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    A folder already at `path` is replaced. What a killed process left under the temporary name is removed at the next try, and what it
    had moved aside is put back first.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    previous = path.with_name(f".{path.name}.old{PARTIAL}")
    with disk_errors(path):
        if previous.exists() and not path.exists():  # killed between the two renames below
            os.rename(previous, path)
        for stale in (temporary, previous):
            if stale.exists():
                shutil.rmtree(stale)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _fsync_folder(file) if file.is_dir() else _fsync_file(file)
            if path.exists():
                os.rename(path, previous)  # a rename cannot replace a folder that holds files
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if previous.exists() and not path.exists():
                os.rename(previous, path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _fsync_folder(path.parent)


def _fsync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    """Make a rename inside `path` survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
