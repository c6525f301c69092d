"""A run is a folder: what was run, with what, on what data, and everything it wrote; it can be moved and opened elsewhere.

    runs/20260131-235959-grpo/
      config.yaml      resolved config          versions.json  python, torch, transformers, drive, platform
      command.txt      exact command            git.json       commit and whether the tree was changed (checkouts only)
      data.json        data fingerprints        status.json    stage, state (running or finished), started, finished
      metrics.jsonl    one line per log call    checkpoints/step-00000100/

Nothing in it names the folder's own place. Nothing here puts a clock into metrics.jsonl: a run that was killed and resumed ends
with the same lines as one that was not, but for metrics that a stage itself takes from the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_folder, atomic_write_text, disk_errors

STATUS, METRICS, CHECKPOINTS = "status.json", "metrics.jsonl", "checkpoints"
_STEP_FOLDER = re.compile(r"step-(\d+)")
_VERSIONS_OF = ("drive-vla", "torch", "transformers", "numpy")


class RunFolder:
    """One run's folder. Make it with `create`, or `open` one that exists; `path` is its only attribute."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls,
        root: Path | str,
        name: str,
        config: Mapping[str, Any],
        command: Sequence[str],
        stage: str | None = None,
    ) -> RunFolder:
        """Make `root/<UTC date-time>-<name>` and write all that is known before the first step.

        `config` holds plain values (dict, list, str, number, bool, None); `stage` is what `newest` looks for (default: `name`).
        Raises DriveError on a name that is no folder name and on a full disk.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise DriveError(f"{name!r} cannot name a run: use letters, digits, '-', '_', '.', '+', starting with a letter or digit")
        now = datetime.now(timezone.utc)
        run = cls(_new_folder(Path(root), f"{now:%Y%m%d-%H%M%S}-{name}"))
        atomic_write_text(run.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        atomic_write_text(run.path / "command.txt", shlex.join(command) + "\n")
        run._write_json("versions.json", _versions())
        git = _git_state(Path(__file__).resolve().parents[2])
        if git is not None:
            run._write_json("git.json", git)
        run._write_json("data.json", {})
        atomic_write_text(run.path / METRICS, "")
        run._write_json(STATUS, {"stage": stage or name, "state": "running", "started": now.isoformat(), "finished": None})
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run folder. Raises DataError where `path` is none."""
        path = Path(path)
        if not (path / STATUS).is_file():
            if not path.exists():
                raise DataError(f"{path} is not a run folder: nothing is there")
            raise DataError(f"{path} is not a run folder (no {STATUS} in it): give one that `drive train` made, such as runs/<date>-<name>")
        return cls(path)

    @classmethod
    def newest(cls, root: Path | str, stage: str, where: Callable[[RunFolder], bool] = lambda run: True) -> RunFolder | None:
        """The finished run of `stage` under `root` that started last among those that `where` takes, or None."""
        runs = [cls(file.parent) for file in sorted(Path(root).glob(f"*/{STATUS}"))]
        finished = [run for run in runs if run.is_finished and run.stage == stage and where(run)]
        return max(finished, key=lambda run: run.status["started"], default=None)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as plain values."""
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

    @property
    def status(self) -> dict[str, Any]:
        """stage, state ("running" or "finished"; a killed run stays "running"), started, finished (UTC, ISO 8601)."""
        return _read_json(self.path / STATUS)

    @property
    def stage(self) -> str:
        """The stage that `create` was told."""
        return self.status["stage"]

    @property
    def is_finished(self) -> bool:
        """Whether `finish` was reached."""
        return self.status["state"] == "finished"

    def finish(self) -> None:
        """Mark the run as finished."""
        self._write_json(STATUS, {**self.status, "state": "finished", "finished": datetime.now(timezone.utc).isoformat()})

    def record_data(self, fingerprints: Mapping[str, str]) -> None:
        """Add data fingerprints (name to digest) to data.json.

        Raises DataError where a name is there with another digest: the data changed under a run that is being resumed.
        """
        known = _read_json(self.path / "data.json")
        changed = sorted(name for name, digest in fingerprints.items() if known.get(name, digest) != digest)
        if changed:
            raise DataError(f"{self.path}: data changed since the run began ({', '.join(changed)}): restore it, or start a new run")
        self._write_json("data.json", {**known, **fingerprints})

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line {"step": step, **values} to metrics.jsonl and fsync it. Numpy and torch scalars are taken as numbers."""
        line = json.dumps({"step": int(step), **values}, default=_plain) + "\n"
        path = self.path / METRICS
        with disk_errors(path), open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Every logged line, in order; a last line that a kill tore is left out. Raises DataError on any other bad line."""
        return [json.loads(line) for line in self._lines()]

    def truncate_after(self, step: int) -> None:
        """Drop the lines of later steps, and a torn last one: call it when resuming from the checkpoint of `step`."""
        kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
        atomic_write_text(self.path / METRICS, "".join(f"{line}\n" for line in kept))

    @contextlib.contextmanager
    def checkpoint_dir(self, step: int) -> Iterator[Path]:
        """`with run.checkpoint_dir(100) as folder:` write files there; checkpoints/step-00000100 appears whole when the block ends."""
        with atomic_folder(self.path / CHECKPOINTS / f"step-{step:08d}") as folder:
            yield folder

    def checkpoints(self) -> dict[int, Path]:
        """Step to folder of every complete checkpoint, ascending; what is still being written is not among them."""
        found = {
            int(match[1]): folder
            for folder in (self.path / CHECKPOINTS).glob("step-*")
            if (match := _STEP_FOLDER.fullmatch(folder.name)) and folder.is_dir()
        }
        return dict(sorted(found.items()))

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and folder of the newest complete checkpoint; None where the run was killed before its first."""
        return max(self.checkpoints().items(), default=None)

    def _lines(self) -> list[str]:
        path = self.path / METRICS
        *lines, _torn = path.read_text(encoding="utf-8").split("\n")  # what follows the last line end was torn by a kill
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)["step"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}: not a metrics line ({error}): repair or remove that line") from error
        return lines

    def _write_json(self, name: str, value: Any) -> None:
        atomic_write_text(self.path / name, json.dumps(value, indent=2) + "\n")


def _new_folder(root: Path, name: str) -> Path:
    """Make root/name, or root/name-2 and so on where two runs start within one second."""
    for suffix in ["", *(f"-{n}" for n in range(2, 1000))]:
        path = root / f"{name}{suffix}"
        with disk_errors(path), contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise DriveError(f"{root} already holds a thousand runs named {name}: choose another --name")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): restore it from a copy of the run") from error


def _plain(value: Any) -> Any:
    """Numpy and torch values as plain numbers and lists, for json."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a metric must be a number, string, list or dict of them, not {type(value).__name__}")


def _versions() -> dict[str, str]:
    """Versions as installed, read without importing anything heavy."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    for name in _VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout that holds this code; None where the code was installed, or git is absent."""
    if not (checkout / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changes = subprocess.run(["git", "-C", str(checkout), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}
