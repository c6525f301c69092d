# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false
"""A checkpoint is not scored on the drives that it was trained on, under whichever dataset's name they come."""

import pytest
import scenarionet_logs

from drive.cli import main
from drive.core.runs import RunFolder
from drive.planners.vla.checkpoint import load_policy

QUICK = ["stage.batch=4", "stage.validate_scenes=0", "model.max_reasoning=8", "tokenizer.k=64"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("guard")
    for split, log in (("train", "town-1"), ("val", "town-2")):
        scenarionet_logs.write(place / "logs" / split / f"{log}.pkl", scenarionet_logs.record(log))
    return place


def test_trained_logs_travel_with_the_checkpoint_and_are_refused(place, capsys):
    data = ["dataset=scenarionet", f"dataset.root={place}/logs"]
    assert main(["train", "stage=sft", "stage.steps=1", *QUICK, *data, f"out={place}/runs"]) == 0
    sft = RunFolder.newest(place / "runs", "sft")
    assert load_policy(sft.latest_checkpoint()[1]).trained_on == {"town-1"}
    assert main(["export", str(sft.path), str(place / "model")]) == 0
    assert main(["eval", "planner=vla", f"checkpoint={place}/model", *data, "split=val"]) == 0
    capsys.readouterr()

    renamed = place / "elsewhere" / "test" / "x.pkl"
    scenarionet_logs.write(renamed, scenarionet_logs.record("town-1"))
    again = ["eval", "planner=vla", f"checkpoint={place}/model", "dataset=scenarionet", f"dataset.root={place}/elsewhere"]
    assert main(again) == 2
    assert "trained on 1 of these 1 logs (town-1)" in capsys.readouterr().err
    assert main([*again, "force=true"]) == 0
    assert main([*again[:1], "planner=constant_velocity", *again[3:]]) == 0  # which was trained on nothing

    pytest.importorskip("pyarrow")
    assert main(["data", "convert", "dataset=scenarionet", f"dataset.root={place}/elsewhere", f"out={place}/cache"]) == 0
    assert main([*again[:3], "dataset=cache", f"dataset.root={place}/cache"]) == 2
    assert main(["train", "stage=grpo", f"checkpoint={place}/model", "stage.steps=1", "stage.scenes=2", "stage.group=2", *QUICK[1:3], *data, f"out={place}/runs"]) == 0
    grpo = RunFolder.newest(place / "runs", "grpo")
    assert load_policy(grpo.latest_checkpoint()[1]).trained_on == {"town-1"}
