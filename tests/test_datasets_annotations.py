"""Annotation files: round trip, torn and broken lines, and the join with a dataset."""

import errno
import json
import logging
import os
from dataclasses import replace

import numpy as np
import pytest
from toy_scenes import toy_scenario

from drive.core.errors import DataError, DriveError
from drive.datasets.annotations import (
    CARD,
    LINES,
    AnnotatedDataset,
    Annotation,
    AnnotationLog,
    Verdict,
    annotated,
    data_identity,
    latest,
    read_annotations,
    read_card,
)
from drive.datasets.select import Selected

SCENES = [toy_scenario(i) for i in range(4)]
DATA = Selected(SCENES, "a" * 64, 4, ("one fault",))
GOOD = Annotation(0, "toy-0", Verdict.ACCEPTED, "rule", "Weg frei – fahren .", True, "keep speed, go straight", ("format: x",), 2, 1, 30, 4, 0.5)
REJECTED = Annotation(1, "toy-1", Verdict.REJECTED, "rule", reasons=("action: no",))
FAILED = Annotation(2, "toy-2", Verdict.FAILED, "rule", reasons=("no answer: time-out",))


def toy(root, **changes):
    """The dataset's section."""
    return {"name": "toy", "root": "here", "workers": 2, "train_scenes": 4, "stride": 5, "camera": "", "annotations": str(root), **changes}


def write(root, *rows, fingerprint=DATA.fingerprint, split="train"):
    folder = root / split
    folder.mkdir(exist_ok=True)
    (folder / LINES).write_text("".join(row.line() for row in rows), encoding="utf-8")
    (folder / CARD).write_text(json.dumps({"identity": {**data_identity(DATA, toy(root), split), "fingerprint": fingerprint, "source": "rule"}}))
    return folder


def test_lines_come_back_as_they_went(tmp_path):
    folder = write(tmp_path, GOOD, REJECTED, FAILED)
    assert read_annotations(folder / LINES) == [GOOD, REJECTED, FAILED]
    assert read_card(folder)["identity"]["fingerprint"] == DATA.fingerprint


def test_a_log_grows_by_whole_lines_and_drops_a_torn_one(tmp_path):
    folder = write(tmp_path, GOOD, REJECTED)
    path = folder / LINES
    whole = path.read_bytes()
    for cut in (1, 10, len(REJECTED.line()) - 1):
        path.write_bytes(whole[:-cut])
        assert read_annotations(path) == [GOOD]
        log = AnnotationLog(folder)
        assert log.rows == [GOOD] and path.read_bytes() == GOOD.line().encode()
        log.append(REJECTED)
        log.append(FAILED)
        assert read_annotations(path) == log.rows == [GOOD, REJECTED, FAILED]
    (tmp_path / "new").mkdir()
    assert AnnotationLog(tmp_path / "new").rows == []


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    folder = write(tmp_path, GOOD)
    log = AnnotationLog(folder)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DriveError, match="no space left"):
        log.append(REJECTED)
    monkeypatch.undo()
    log.append(FAILED)
    assert read_annotations(folder / LINES) == log.rows == [GOOD, FAILED]


def edited(**changes) -> str:
    return json.dumps({**json.loads(GOOD.line()), **changes}) + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "\n",
        "{}\n",
        "[1]\n",
        "{broken\n",
        "\0\0\0\n",
        edited(verdict="good"),
        edited(index="0"),
        edited(index=True),
        edited(id=None),
        edited(more=1),
        edited(reasoning=""),
        edited(verdict="rejected"),
        edited(reasoning="stop </think><answer>"),
        edited(reasoning="two\nlines"),
    ],
)
def test_a_broken_line_in_the_middle_is_told_with_file_and_number(tmp_path, line):
    path = tmp_path / LINES
    path.write_text(REJECTED.line() + line + FAILED.line(), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{LINES}, line 2: no annotation") as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path):
    (tmp_path / LINES).write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match="line 1"):
        read_annotations(tmp_path / LINES)
    with pytest.raises(DataError, match="drive data annotate"):
        read_annotations(tmp_path / "none.jsonl")
    for content in ("", "{}", "[]", '{"identity": 3}', "{"):
        (tmp_path / CARD).write_text(content)
        with pytest.raises(DataError, match="no card of annotations"):
            read_card(tmp_path)


def test_the_join_replaces_the_reasoning_by_id_and_nothing_else():
    second = replace(GOOD, index=3, id="toy-3", reasoning="other words", complex=None)
    data = AnnotatedDataset(SCENES, latest([replace(GOOD, reasoning="old"), GOOD, REJECTED, second]))
    assert [scenario.reasoning for scenario in data] == ["Weg frei – fahren .", "", "", "other words"]
    assert SCENES[1].reasoning and SCENES[2].reasoning, "what the dataset said of a scene without an accepted text is not mixed in"
    assert data[0].notes["complex"] is True and data[3].notes == SCENES[3].notes
    assert len(data) == 4 and data.coverage == 0.5
    assert data.summary == "2 of 4 scenes have a reasoning (1 rejected, 0 failed, 1 not annotated)"
    assert data[-1].id == "toy-3" and [s.id for s in data[1:3]] == ["toy-1", "toy-2"]
    for before, after in zip(SCENES, data, strict=True):
        same, told = before.observation(), after.observation()
        np.testing.assert_array_equal(same.images, told.images)
        assert (same.speed, same.command, same.text) == (told.speed, told.command, told.text)
        assert replace(after, reasoning=before.reasoning, notes=before.notes) == before or after.teacher is before.teacher
    with pytest.raises(IndexError):
        data[4]


def test_a_split_is_joined_with_its_own_file_and_the_fingerprint_is_of_both(tmp_path, caplog):
    write(tmp_path, GOOD, REJECTED)
    with caplog.at_level(logging.WARNING):
        joined = annotated(DATA, toy(tmp_path), "train")
    assert joined.scenarios[0].reasoning == GOOD.reasoning and joined.expected == 4 and joined.faults == DATA.faults
    assert "1 of 4 scenes have a reasoning (1 rejected, 0 failed, 2 not annotated)" in caplog.text
    assert joined.fingerprint != DATA.fingerprint and len(joined.fingerprint) == 64
    assert annotated(DATA, toy(tmp_path), "train").fingerprint == joined.fingerprint
    write(tmp_path, GOOD)
    assert annotated(DATA, toy(tmp_path), "train").fingerprint != joined.fingerprint


def test_annotations_of_other_data_and_missing_ones_are_refused(tmp_path, caplog):
    with pytest.raises(DataError, match="missing or no card"):
        annotated(DATA, toy(tmp_path), "train")
    with pytest.raises(DataError, match="missing or no card"):
        annotated(DATA, toy(tmp_path / "nowhere"), "val")
    write(tmp_path, GOOD, split="val")
    with pytest.raises(DataError, match="missing or no card"):
        annotated(DATA, toy(tmp_path), "train")
    with caplog.at_level(logging.WARNING):
        assert annotated(DATA, toy(tmp_path), "test") is DATA
    assert "no annotations of the split test" in caplog.text
    write(tmp_path, GOOD, fingerprint="b" * 64)
    with pytest.raises(DataError, match=r"annotates other data .fingerprint bbb.*, not aaa"):
        annotated(DATA, toy(tmp_path), "train")
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match="scenes 4, not 3"):
        annotated(replace(DATA, scenarios=SCENES[:3]), toy(tmp_path), "train")
    with pytest.raises(DataError, match=r"dataset\.stride 5, not 10"):
        annotated(DATA, toy(tmp_path, stride=10), "train")
    with pytest.raises(DataError, match=r"dataset\.camera , not CAM_FRONT"):  # the teacher saw other pictures than the student would
        annotated(DATA, toy(tmp_path, camera="CAM_FRONT"), "train")
    assert annotated(DATA, {**toy(tmp_path), "root": "moved", "workers": 9, "train_scenes": 9}, "train").scenarios[0].reasoning == GOOD.reasoning
