"""`drive data annotate` from its settings to its files, on a made-up log."""

import json

import numpy as np
import nuscenes_files
import pytest
from openai_server import MODEL, TeacherServer
from scenarionet_logs import STEPS, record, write

from drive.cli.config import load_config, to_dataclass
from drive.cli.data_annotate import run
from drive.core.errors import ConfigError
from drive.datasets.annotations import annotated, read_annotations, read_card
from drive.datasets.select import select
from drive.stages.annotate_teacher import TeacherConfig


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    straight_on = np.column_stack([5.0 + 0.8 * np.arange(STEPS), np.zeros((STEPS, 2))])
    write(folder / "scene-0061.pkl", record("scene-0061", poses=straight_on))
    return ["dataset=scenarionet", f"dataset.root={folder}", f"out={tmp_path / 'out'}"]


def test_by_rule_into_a_folder_of_the_split_which_joins_the_data(tmp_path, logs, capsys):
    assert run(logs) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "out" / "train"
    card = read_card(folder)
    facts = card["facts"]
    assert facts["scenes_done"] == facts["scenes_asked_for"] == facts["accepted"] + facts["rejected"] > 5
    assert f"{facts['scenes_done']} of {facts['scenes_done']} scenes done" in said and "written:" in said
    assert card["identity"]["source"] == "rule" and " data annotate dataset=scenarionet" in card["command"]
    config = {"name": "scenarionet", "root": str(tmp_path / "logs"), "stride_s": 0.5, "splits": None, "annotations": None}
    data = annotated(select(config, "train"), {**config, "annotations": tmp_path / "out"}, "train").scenarios
    texts = {row.id: row.reasoning for row in read_annotations(folder / "annotations.jsonl")}
    assert {scenario.id: scenario.reasoning for scenario in data} == texts and any(texts.values())


def test_by_a_teacher_a_spread_of_scenes(tmp_path, logs, capsys):
    with TeacherServer() as server:
        words = ["source=teacher", f"teacher.base_url={server.url}", f"teacher.model={MODEL}", "max_scenes=3"]
        assert run([*logs, *words, "teacher.price_input=500", "teacher.price_output=500", "teacher.max_cost=100"]) == 0
        assert len(server.requests) == 3
        assert run([*logs, *words]) == 0 and len(server.requests) == 3, "prices and budget are no part of what a folder is"
        assert run([*logs, *words, "teacher.price_input=1000", "teacher.max_cost=4", "max_scenes=0"]) == 1
    said = capsys.readouterr().out
    assert "3000 + 300 tokens in 3 answers, cost 1.65" in said and "stopped at teacher.max_cost=4" in said
    indexes = [json.loads(line)["index"] for line in (tmp_path / "out" / "train" / "annotations.jsonl").read_text().splitlines()]
    assert 0 in indexes and max(indexes) > 4, "evenly spread"


def test_settings_are_those_of_the_code():
    config = load_config("annotate", ["out=x"])
    assert to_dataclass(config.teacher, TeacherConfig, "teacher") == TeacherConfig()


@pytest.mark.parametrize(
    "words,fault",
    [
        (["source=expert"], "expected rule or teacher"),
        (["source=teacher"], r"teacher\.model must be given"),
        (["teacher.concurency=3"], "did you mean teacher.concurrency"),
        (["source=teacher", "teacher.model=a", "teacher.asks=0"], "asks=0 must be at least 1"),
        (["max_scenes=-1"], "must be at least 0"),
    ],
)
def test_mistakes_are_told_before_any_data_is_touched(tmp_path, words, fault):
    with pytest.raises(ConfigError, match=fault):
        run([f"out={tmp_path / 'out'}", *words])
    assert not (tmp_path / "out").exists()


def test_the_folder_must_be_given():
    with pytest.raises(ConfigError, match="out: must be given"):
        run([])


def test_the_rules_are_refused_where_there_is_no_map(tmp_path):
    nuscenes_files.write(tmp_path / "nuscenes", nuscenes_files.tables(("scene-0061", "scene-0103")))
    words = ["dataset=nuscenes", f"dataset.root={tmp_path}/nuscenes", f"dataset.version={nuscenes_files.VERSION}", "split=test"]
    with pytest.raises(ConfigError, match="source=rule needs a map"):
        run([f"out={tmp_path / 'out'}", *words])
