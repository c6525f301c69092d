"""DriveLM's questions joined to nuScenes scenarios: hand-made files, damaged ones, and the real ones where they are at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from nuscenes_files import SAMPLES, VERSION, tables, write

from drive.core.errors import DataError
from drive.core.types import Question
from drive.datasets.drivelm import inspect, read_questions
from drive.datasets.nuscenes import NuScenesDataset

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real/OpenDriveLab__DriveLM/challenge"
real = pytest.mark.skipif(not ROOT.is_dir(), reason="DriveLM's real files are not at hand")


def content():
    """Questions about two key frames of scene-0103 and one of a scene that is not there."""
    pair = {"Q": "What is ahead?", "A": "A car.", "C": None, "con_up": None}
    frame = {"QA": {"perception": [pair], "planning": [{"Q": "What now?", "A": "Keep on."}, {"Q": "Why?", "A": "It is clear."}]}, "image_paths": {}}
    other = {"QA": {"behavior": [{"Q": "Predict the behavior.", "A": "It goes straight."}]}}
    return {
        "scene-0103": {"scene_description": "x", "key_frames": {"scene-0103-2": frame, "scene-0103-7": other}},
        "scene-9999": {"key_frames": {"scene-9999-0": other}},
    }


def _file(path, value):
    path.write_text(json.dumps(value))
    return path


def test_questions_are_those_of_the_present_alone(tmp_path):
    write(tmp_path, tables())
    data = NuScenesDataset(tmp_path, "test", VERSION, drivelm=_file(tmp_path / "drivelm.json", content()))
    assert data[2].language == (
        Question("What is ahead?", "A car.", "perception"),
        Question("What now?", "Keep on.", "planning"),
        Question("Why?", "It is clear.", "planning"),
    )
    assert data[7].language == (Question("Predict the behavior.", "It goes straight.", "behavior"),)
    told = {scene.id for scene in data if scene.language}
    assert told == {"scene-0103-0002", "scene-0103-0007"} and len(data) == 2 * SAMPLES
    assert NuScenesDataset(tmp_path, "test", VERSION)[2].language == ()


def test_language_changes_no_byte_of_the_observation(tmp_path):
    write(tmp_path, tables())
    plain = NuScenesDataset(tmp_path, "test", VERSION)[7].observation()
    other = NuScenesDataset(tmp_path, "test", VERSION, drivelm=_file(tmp_path / "drivelm.json", content()))[7].observation()
    np.testing.assert_array_equal(plain.images, other.images)
    assert (plain.text, plain.command) == (other.text, other.command)


def test_questions_about_other_samples_alone_are_an_error(tmp_path):
    stray = {"scene-9999": content()["scene-9999"]}
    with pytest.raises(DataError, match="none of its 1 key frames"):
        NuScenesDataset(write(tmp_path, tables()), "test", VERSION, drivelm=_file(tmp_path / "drivelm.json", stray))


def _frame(value):
    return value["scene-0103"]["key_frames"]["scene-0103-2"]


DAMAGE = {
    "no key frames": (lambda v: v["scene-0103"].pop("key_frames"), ["scene scene-0103", "key_frames"]),
    "a scene that is no record": (lambda v: v.update({"scene-0103": []}), ["scene scene-0103"]),
    "a frame without questions": (lambda v: _frame(v).pop("QA"), ["key frame scene-0103-2", "QA"]),
    "a question without an answer": (lambda v: _frame(v)["QA"]["planning"][1].pop("A"), ["key frame scene-0103-2", "record 1 of planning"]),
    "an answer that is a number": (lambda v: _frame(v)["QA"]["planning"][0].update(A=3), ["record 0 of planning"]),
    "a topic that is no list": (lambda v: _frame(v)["QA"].update(planning="none"), ["record 0 of planning"]),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_told_by_record(tmp_path, case):
    damage, words = case
    value = content()
    damage(value)
    with pytest.raises(DataError) as error:
        read_questions(_file(tmp_path / "drivelm.json", value))
    assert "drivelm.json" in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_files_that_are_none_of_drivelm(tmp_path):
    for value in ({}, [], "text", [{"question": "alone"}]):
        with pytest.raises(DataError, match="no DriveLM file"):
            inspect(_file(tmp_path / "x.json", value))
    (tmp_path / "x.json").write_text('{"scene": {"key_fr')
    with pytest.raises(DataError, match="JSON"):
        inspect(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"absent\.json"):
        read_questions(tmp_path / "absent.json")


def test_answers_are_counted_and_those_without_a_field_told(tmp_path):
    answers = [{"id": "a", "question": "b", "answer": "c", "gt_answer": "d"}, {"id": "a", "question": "b", "answer": "c"}, {"id": "a"}]
    found = inspect(_file(tmp_path / "output.json", answers))
    assert found.counts == {"answers": 2, "with a reference": 1} and "record 2" in found.faults[0]


@real
def test_the_real_files_hold_what_is_known_of_them():
    sample = inspect(ROOT / "data/train_sample.json")
    assert (sample.counts["scenes"], sample.counts["key frames"], sample.counts["questions"]) == (2, 9, 790) and sample.faults == ()
    assert [sample.counts[topic] for topic in ("perception", "prediction", "planning", "behavior")] == [337, 271, 173, 9]
    for name in ("test.json", "test_eval.json"):
        assert inspect(ROOT / name).counts["questions"] == 66
    assert inspect(ROOT / "output.json").counts == {"answers": 66, "with a reference": 66}


@real
def test_the_real_questions_are_read_whole():
    content = json.loads((ROOT / "data/train_sample.json").read_text())
    found = read_questions(ROOT / "data/train_sample.json")
    for scene, record in content.items():
        for sample, frame in record["key_frames"].items():
            assert [q.answer for q in found[scene, sample]] == [pair["A"] for pairs in frame["QA"].values() for pair in pairs]
