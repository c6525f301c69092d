"""Splits are partitions of logs; training keeps off the evaluation ones; a fingerprint changes with any byte."""

import pytest

from drive.core.errors import DataError
from drive.datasets.splits import (
    NUSCENES_MINI,
    choose_logs,
    fingerprint,
    load_splits,
    refuse_evaluation_split,
    split_by_log,
    split_logs,
)

LOGS = [f"log-{i:02d}" for i in range(10)]


def test_logs_are_dealt_once_each_in_the_asked_shares():
    splits = split_logs(LOGS, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert {name: len(logs) for name, logs in splits.items()} == {"train": 7, "val": 1, "test": 2}
    assert sorted(log for logs in splits.values() for log in logs) == LOGS


def test_the_deal_depends_on_the_set_and_the_seed_alone():
    fractions = {"train": 0.5, "test": 0.5}
    assert split_logs(LOGS, fractions, seed=1) == split_logs(reversed(LOGS), fractions, seed=1)
    assert any(split_logs(LOGS, fractions, seed=1) != split_logs(LOGS, fractions, seed=s) for s in (2, 3))


@pytest.mark.parametrize(("count", "sizes"), [(3, [1, 1, 1]), (4, [2, 1, 1]), (7, [5, 1, 1]), (25, [20, 3, 2])])
def test_no_split_is_empty(count, sizes):
    splits = split_logs([str(i) for i in range(count)], {"train": 0.8, "val": 0.1, "test": 0.1})
    assert [len(logs) for logs in splits.values()] == sizes


@pytest.mark.parametrize(
    ("logs", "fractions", "words"),
    [
        (LOGS + LOGS[:1], {"train": 0.5, "test": 0.5}, "log-00"),
        (LOGS, {"train": 0.5, "test": 0.6}, "sum to 1"),
        (LOGS, {"train": 1.2, "test": -0.2}, "positive"),
        (LOGS, {}, "positive"),
        (LOGS[:1], {"train": 0.5, "test": 0.5}, "cannot fill"),
    ],
)
def test_an_impossible_deal_is_refused(logs, fractions, words):
    with pytest.raises(DataError, match=words):
        split_logs(logs, fractions)


def test_an_overlap_names_the_log_and_both_splits():
    with pytest.raises(DataError, match="log b is in the splits train and test"):
        split_by_log({"train": ["a", "b"], "test": ["b"]})
    split_by_log(NUSCENES_MINI)


def test_choosing_takes_what_is_there_and_refuses_strays():
    splits = {"train": ["a", "b"], "test": ["c"]}
    assert choose_logs(splits, "train", ["c", "b"]) == ("b",)
    with pytest.raises(DataError, match="no split 'valid': choose from train, test"):
        choose_logs(splits, "valid", ["a"])
    with pytest.raises(DataError, match=r"1 logs belong to no split \(x\)"):
        choose_logs(splits, "train", ["a", "x"])
    with pytest.raises(DataError, match="keep it in one"):
        choose_logs({"train": ["a"], "test": ["a"]}, "train", ["a"])


@pytest.mark.parametrize("split", ["val", "test", "all"])
def test_training_off_the_training_split_must_be_forced(split):
    with pytest.raises(DataError, match=split):
        refuse_evaluation_split(split)
    refuse_evaluation_split(split, force=True)
    refuse_evaluation_split("train")
    with pytest.raises(DataError) as error:
        refuse_evaluation_split("test", can_force=False)
    assert "force" not in str(error.value)


def test_the_fingerprint_sees_names_and_bytes_but_not_the_place(tmp_path):
    def folder(name, **files):
        (tmp_path / name).mkdir()
        for key, text in files.items():
            (tmp_path / name / key).write_text(text)
        return tmp_path / name

    def of(root):
        return fingerprint(root, root.iterdir())

    first = folder("one", a="x", b="y")
    assert of(first) == of(folder("two", a="x", b="y")) and len(of(first)) == 64
    assert (
        len({of(first), of(folder("three", a="x", b="z")), of(folder("four", a="x", c="y")), of(folder("five", a="xy", b=""))})
        == 4
    )
    with pytest.raises(DataError, match="gone"):
        fingerprint(first, [first / "gone"])


def test_the_fingerprint_of_a_huge_file_reads_samples_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("drive.datasets.splits.MEGABYTE", 4)
    monkeypatch.setattr("drive.datasets.splits.SAMPLED_ABOVE", 1000)
    path = tmp_path / "huge"
    content = bytearray(range(256)) * 8
    path.write_bytes(content)
    first = fingerprint(tmp_path, [path])
    content[-1] ^= 1  # within the last sample
    path.write_bytes(content)
    second = fingerprint(tmp_path, [path])
    path.write_bytes(content + b"x")
    assert len({first, second, fingerprint(tmp_path, [path])}) == 3


def test_splits_from_a_file(tmp_path):
    path = tmp_path / "splits.yaml"
    path.write_text("train: [a, b]\ntest: [c]\n")
    assert load_splits(path) == {"train": ("a", "b"), "test": ("c",)}
    for text, told in (
        ("train: [a]\ntest: [a]\n", "in the splits train and test"),
        ("train: a\n", "a list of log ids"),
        ("train: [1]\n", "in quotes"),
        ("mine: [a]\n", "maps train, val and test"),
        ("[", "cannot be read as YAML"),
        ("", "maps train, val and test"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            load_splits(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_splits(tmp_path / "absent.yaml")
