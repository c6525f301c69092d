"""Run folders and atomic files: what a kill, a full disk or a move must not change."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from drive.core.errors import DataError, DriveError
from drive.core.files import atomic_folder, atomic_write_bytes, atomic_write_text
from drive.core.runs import RunFolder


def make_run(root: Path, name: str = "sft", **options: str) -> RunFolder:
    return RunFolder.create(root, name, {"seed": 0, "stage": {"steps": 3}}, ["drive", "train", "name=a b"], **options)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_create_writes_what_was_run(tmp_path: Path):
    run = make_run(tmp_path / "runs")
    assert re.fullmatch(r"\d{8}-\d{6}-sft", run.path.name)
    assert run.config == {"seed": 0, "stage": {"steps": 3}}
    assert (run.path / "command.txt").read_text() == "drive train 'name=a b'\n"
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["torch"] == torch.__version__ and versions["python"] == sys.version.split()[0]
    assert run.status["state"] == "running" and not run.is_finished
    assert run.metrics() == []


def test_git_state_only_in_a_checkout(tmp_path: Path):
    run = make_run(tmp_path)
    root = Path(__file__).parents[1]
    assert (run.path / "git.json").exists() == (root / ".git").exists()
    if (root / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
        state = json.loads((run.path / "git.json").read_text())
        assert len(head) == 40 and len(state["commit"]) == 40 and isinstance(state["dirty"], bool)


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path):
    paths = {make_run(tmp_path).path for _ in range(3)}
    assert len(paths) == 3


def test_a_name_that_leaves_the_root_is_refused(tmp_path: Path):
    with pytest.raises(DriveError, match="cannot name a run"):
        make_run(tmp_path, "../x")


def test_a_run_can_be_moved(tmp_path: Path):
    run = make_run(tmp_path / "here")
    run.log(1, {"loss": 0.5})
    with run.checkpoint_dir(1) as folder:
        (folder / "weights").write_bytes(b"w")
    held = [path.read_bytes() for path in run.path.rglob("*") if path.is_file()]
    assert not [content for content in held if str(tmp_path).encode() in content]
    moved = RunFolder.open(shutil.move(run.path, tmp_path / "there"))
    assert moved.metrics() == [{"step": 1, "loss": 0.5}]
    latest = moved.latest_checkpoint()
    assert latest is not None and latest[1] == tmp_path / "there" / "checkpoints" / "step-00000001"


def test_open_refuses_what_is_no_run(tmp_path: Path):
    with pytest.raises(DataError, match=r"not a run folder.*drive train"):
        RunFolder.open(tmp_path)


def test_metrics_take_numpy_and_torch_scalars(tmp_path: Path):
    run = make_run(tmp_path)
    run.log(1, {"a": np.float32(0.25), "b": torch.tensor(2), "c": [np.float64(0.1)], "d": "text"})
    assert run.metrics() == [{"step": 1, "a": 0.25, "b": 2, "c": [0.1], "d": "text"}]
    with pytest.raises(TypeError, match="not object"):
        run.log(2, {"a": object()})
    assert len(run.metrics()) == 1


def train(run: RunFolder, first: int, last: int) -> None:
    """A stand-in for a stage: a state that each step changes, a log line per step and a checkpoint every two."""
    latest = run.latest_checkpoint()
    state = json.loads((latest[1] / "state.json").read_text()) if latest else 1.0
    for step in range(first, last + 1):
        state = state * 1.1 + step
        run.log(step, {"state": state})
        if step % 2 == 0:
            with run.checkpoint_dir(step) as folder:
                atomic_write_text(folder / "state.json", json.dumps(state))


@pytest.mark.parametrize("killed_after", [1, 4, 5])
def test_a_killed_and_resumed_run_ends_with_the_same_bytes(tmp_path: Path, killed_after: int):
    whole, broken = make_run(tmp_path), make_run(tmp_path)
    train(whole, 1, 7)
    train(broken, 1, killed_after)
    with open(broken.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "sta')  # the kill tore this line
    latest = broken.latest_checkpoint()
    step = latest[0] if latest else 0
    broken.truncate_after(step)
    train(broken, step + 1, 7)
    for name in ("metrics.jsonl", "checkpoints/step-00000006/state.json"):
        assert (whole.path / name).read_bytes() == (broken.path / name).read_bytes()


def test_a_bad_line_inside_metrics_is_named(tmp_path: Path):
    run = make_run(tmp_path)
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        run.metrics()


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path):
    run = make_run(tmp_path)
    assert run.latest_checkpoint() is None
    with run.checkpoint_dir(2) as folder:
        (folder / "weights").write_bytes(b"two")
    with pytest.raises(RuntimeError), run.checkpoint_dir(10) as folder:
        (folder / "weights").write_bytes(b"half")
        raise RuntimeError
    (run.path / "checkpoints" / ".step-00000012.partial").mkdir()  # as a SIGKILL leaves it
    (run.path / "checkpoints" / "step-best").mkdir()
    assert list(run.checkpoints()) == [2]
    with run.checkpoint_dir(12) as folder:
        (folder / "weights").write_bytes(b"twelve")
    latest = run.latest_checkpoint()
    assert latest is not None and latest[0] == 12 and (latest[1] / "weights").read_bytes() == b"twelve"


def test_a_checkpoint_written_again_replaces_the_old_one(tmp_path: Path):
    target = tmp_path / "step"
    for content in ("old", "new"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["new"]
    with pytest.raises(KeyboardInterrupt), atomic_folder(target):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["step", "new"]


def test_what_a_kill_moved_aside_is_put_back_before_the_next_try(tmp_path: Path):
    target = tmp_path / "step"
    with atomic_folder(target) as folder:
        (folder / "old").write_text("old")
    target.rename(tmp_path / ".step.old.partial")  # where a kill between the two renames leaves it
    with pytest.raises(KeyboardInterrupt), atomic_folder(target):
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_newest_is_the_last_finished_run_of_the_stage(tmp_path: Path):
    first, second, other = make_run(tmp_path), make_run(tmp_path, "again", stage="sft"), make_run(tmp_path, "grpo")
    assert RunFolder.newest(tmp_path, "sft") is None
    first.finish()
    other.finish()
    newest = RunFolder.newest(tmp_path, "sft")
    assert newest is not None and newest.path == first.path
    second.finish()
    newest = RunFolder.newest(tmp_path, "sft")
    assert newest is not None and newest.path == second.path and newest.status["finished"] > newest.status["started"]
    assert RunFolder.newest(tmp_path / "absent", "sft") is None


def test_changed_data_under_a_run_is_refused(tmp_path: Path):
    run = make_run(tmp_path)
    run.record_data({"train": "aa"})
    run.record_data({"train": "aa", "val": "bb"})
    assert json.loads((run.path / "data.json").read_text()) == {"train": "aa", "val": "bb"}
    with pytest.raises(DataError, match=r"data changed.*val"):
        run.record_data({"val": "cc"})


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = atomic_write_text(tmp_path / "deep" / "file.txt", "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DriveError, match=r"no space left .*file\.txt: free some space"):
        atomic_write_bytes(path, b"new")
    with pytest.raises(DriveError, match="metrics"):
        RunFolder(tmp_path).log(1, {})
    with pytest.raises(DriveError, match="no space left"), atomic_folder(tmp_path / "step") as folder:
        (folder / "weights").write_bytes(b"w")
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["deep", "file.txt", "metrics.jsonl"]


def test_other_faults_come_through_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(PermissionError):
        atomic_write_text(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []
