# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""The command line from data to score, on a handful of scenes: killed runs resume to the same numbers, bad input leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av2_files
import nuscenes_files
import pytest
import torch
from scenarionet_logs import record, write

import drive.planners
from drive.cli import main
from drive.core.runs import RunFolder
from drive.planners.vla.checkpoint import load_policy
from drive.planners.vla.shipped import WEIGHTS

pytestmark = pytest.mark.skipif(not (WEIGHTS / "tiny-base").is_dir(), reason="the shipped checkpoints are not in this copy")
QUICK = ["stage.validate_scenes=4", "stage.log_every=1", "stage.checkpoint_every=2", "threads=1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("end")


@pytest.fixture(scope="module")
def data(place) -> list[str]:
    settings = [f"dataset.root={place}/data", "dataset.train_scenes=24", "dataset.val_scenes=6", "dataset.test_scenes=6", "dataset.workers=1"]
    assert main(["data", "generate", *settings]) == 0
    return settings


def sft_settings(place: Path, data: list[str], out: str) -> list[str]:
    return ["train", "stage=sft", "stage.steps=8", "stage.batch=6", "stage.validate_every=8", *QUICK, *data, f"out={place}/{out}", "tokenizer.k=256"]


def grpo_settings(place: Path, data: list[str], out: str, start: Path) -> list[str]:
    few = ["stage.steps=6", "stage.scenes=3", "stage.group=4", "stage.validate_every=6"]
    return ["train", "stage=grpo", *few, *QUICK, *data, f"out={place}/{out}", f"checkpoint={start}"]


def trained(settings: list[str], root: Path, stage: str) -> RunFolder:
    assert main(settings) == 0
    run = RunFolder.newest(root, stage)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def sft(place, data) -> RunFolder:
    return trained(sft_settings(place, data, "whole"), place / "whole", "sft")


def numbers(run: RunFolder) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]


def start_and_kill(arguments: list[str], root: Path, at_least: int) -> RunFolder:
    """Start a training in another process and kill -9 it once the checkpoint of step `at_least` is there."""
    process = subprocess.Popen([sys.executable, "-m", "drive", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        runs = list(root.glob("*/status.json"))
        if runs and any(step >= at_least for step in RunFolder.open(runs[0].parent).checkpoints()):
            break
        time.sleep(0.05)
    assert process.poll() is None, "the training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    return RunFolder.open(next(root.glob("*/status.json")).parent)


def same_weights(a: RunFolder, b: RunFolder) -> bool:
    states = [load_policy(run.latest_checkpoint()[1]).model.state_dict() for run in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(states[0].values(), states[1].values()))


def test_sft_killed_and_resumed_equals_sft_unbroken(place, data, sft):
    killed = start_and_kill(sft_settings(place, data, "killed-sft"), place / "killed-sft", 2)
    assert not killed.is_finished
    assert main(["resume", str(killed.path)]) == 0
    assert killed.is_finished
    assert numbers(killed) == numbers(sft)
    assert same_weights(killed, sft)


def test_grpo_killed_and_resumed_equals_grpo_unbroken(place, data, sft):
    whole = trained(grpo_settings(place, data, "whole-grpo", sft.path), place / "whole-grpo", "grpo")
    killed = start_and_kill(grpo_settings(place, data, "killed-grpo", sft.path), place / "killed-grpo", 2)
    assert main(["resume", str(killed.path)]) == 0
    assert numbers(killed) == numbers(whole)
    assert same_weights(killed, whole)


def pretrain_settings(place: Path, data: list[str], out: str) -> list[str]:
    few = ["stage.steps=12", "stage.sight_steps=6", "stage.sight_batch=8", "stage.batch=3", "stage.validate_every=6", "stage.vocabulary=320"]
    return ["train", "stage=pretrain", *few, *QUICK, *data, f"out={place}/{out}"]


@pytest.fixture(scope="module")
def base(place, data) -> RunFolder:
    return trained(pretrain_settings(place, data, "whole-base"), place / "whole-base", "pretrain")


@pytest.mark.parametrize("killed_after", [2, 6, 8])
def test_pretraining_killed_in_either_part_or_between_and_resumed_equals_it_unbroken(place, data, base, killed_after):
    from transformers import AutoModelForImageTextToText

    assert {"val/route_error_20_m", "val/planes_loss", "val/accuracy"} <= {name for line in base.metrics() for name in line}
    killed = start_and_kill(pretrain_settings(place, data, f"killed-base-{killed_after}"), place / f"killed-base-{killed_after}", killed_after)
    for step, checkpoint in killed.checkpoints().items():
        if step > killed_after:  # as if the kill had come at once
            shutil.rmtree(checkpoint)
    assert main(["resume", str(killed.path)]) == 0
    assert numbers(killed) == numbers(base)
    ours, theirs = (AutoModelForImageTextToText.from_pretrained(run.latest_checkpoint()[1]).state_dict() for run in (killed, base))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_holds_all_that_made_it(sft):
    names = {path.name for path in sft.path.iterdir()}
    assert {"config.yaml", "command.txt", "versions.json", "data.json", "metrics.jsonl", "checkpoints", "report.html", "status.json"} <= names
    assert (sft.latest_checkpoint()[1] / "optimizer.safetensors").is_file()
    last = sft.metrics()[-1]
    assert {"val/action_accuracy", "val/rollout_ade_m", "val/pdms_v1_1"} <= set(last)


def test_export_takes_the_newest_checkpoint_or_the_one_named(sft, place):
    earlier, latest = list(sft.checkpoints().items())
    assert main(["export", str(sft.path), str(place / "newest")]) == 0
    assert main(["export", str(earlier[1]), str(place / "earlier")]) == 0
    for name, (step, folder) in (("newest", latest), ("earlier", earlier)):
        card = (place / name / "README.md").read_text()
        assert f"| step | {step} |" in card and "drive train stage=sft" in card
        ours, theirs = load_policy(place / name).model.state_dict(), load_policy(folder).model.state_dict()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, atol=2e-3, rtol=2e-3)
    assert main(["export", str(sft.path), str(place / "newest")]) == 2, "a folder that holds something is not written over"


def test_a_run_can_be_moved(sft, place, data, capsys):
    moved = place / "elsewhere"
    sft.path.rename(moved)
    try:
        assert main(["eval", "planner=vla", f"checkpoint={moved}", *data, f"out={place}/results", "planner.mode=fast"]) == 0
    finally:
        moved.rename(sft.path)
    shown = capsys.readouterr().out
    assert "pdms_v1_1" in shown and "100" in shown
    stored = json.loads((place / "results" / "results.json").read_text())
    assert len(stored["results"][0]["rows"]) == 6


def test_the_demo_compares_five_planners_and_films_one(place):
    few = ["dataset.train_scenes=48", "dataset.val_scenes=6", "dataset.test_scenes=6", "dataset.workers=2", f"dataset.root={place}/demo-data"]
    out = place / "demo"
    assert main(["demo", *few, f"out={out}", "sft_steps=2", "grpo_steps=1", "video_seconds=1", "batch=4"]) == 0
    stored = json.loads((out / "results" / "results.json").read_text())["results"]
    assert [r["planner"] for r in stored] == ["constant_velocity", "constant_acceleration", "vla after SFT", "vla after GRPO", "expert"]
    assert all(r["summary"]["coverage"] == 1.0 and r["summary"]["scenes"] == 6 for r in stored)
    assert (out / "drive.mp4").stat().st_size > 10_000
    report = RunFolder.newest(out / "runs", "grpo").path / "report.html"
    assert report.read_text().count("data:image/jpeg") == 6  # three best and three worst plans


def test_real_logs_go_through_the_same_commands(place, capsys, monkeypatch):
    root = place / "logs"
    for log in ("scene-0061", "scene-0103"):  # one to train on, one to test
        (root / log).mkdir(parents=True)
        write(root / log / f"{log}.pkl", record(log))
    data = ["dataset=scenarionet", f"dataset.root={root}"]
    assert main(["tokenizer", "fit", *data, "tokenizer.k=64", f"out={place}/log-codebook"]) == 0
    assert main(["tokenizer", "report", *data, f"out={place}/log-codebook", "report_split=test"]) == 0
    quick = [*QUICK, f"out={place}/log-runs", *data]
    assert main(["train", "stage=sft", "stage.steps=2", "stage.batch=4", f"tokenizer.codebook={place}/log-codebook", *quick]) == 0
    sft = RunFolder.newest(place / "log-runs", "sft")
    assert main(["train", "stage=grpo", "stage.steps=2", "stage.scenes=2", "stage.group=3", *quick]) == 0
    grpo = RunFolder.newest(place / "log-runs", "grpo")
    assert grpo.config["checkpoint"] == str(sft.path) and f"checkpoint={sft.path}" in (grpo.path / "command.txt").read_text()
    assert main(["eval", "planner=vla", f"checkpoint={grpo.path}", *data, f"out={grpo.path}"]) == 0
    assert main(["eval", "planner=constant_acceleration", *data, f"out={grpo.path}"]) == 0
    assert main(["report", str(grpo.path)]) == 0
    report = (grpo.path / "report.html").read_text()
    assert "constant_acceleration" in report and ">vla<" in report and "scenarionet test" in report and "data:image/jpeg" in report
    assert main(["export", str(grpo.path), str(place / "log-model")]) == 0
    card = (place / "log-model" / "README.md").read_text()
    assert "real driving logs" in card and "embedded world" not in card and "| vla: pdms_v1_1" in card
    capsys.readouterr()
    monkeypatch.chdir(place)  # an SFT run on logs is no start for GRPO on the embedded world
    settings = ["train", "stage=grpo", f"out={place}/log-runs", "stage.steps=1", "stage.scenes=2", "stage.group=2", *QUICK]
    few = [f"dataset.root={place}/data", "dataset.train_scenes=24", "dataset.val_scenes=6", "dataset.test_scenes=6", "dataset.workers=1"]
    assert main([*settings, *few]) == 0
    assert "starting from the shipped tiny-drive" in capsys.readouterr().out


def test_nuscenes_tables_go_through_the_same_commands(place, capsys):
    nuscenes_files.write(place / "nuscenes", nuscenes_files.tables(("scene-0061", "scene-0103")))
    data = ["dataset=nuscenes", f"dataset.root={place}/nuscenes", f"dataset.version={nuscenes_files.VERSION}"]
    quick = [*QUICK, f"out={place}/nuscenes-runs", *data, "tokenizer.k=64"]
    assert main(["train", "stage=sft", "stage.steps=2", "stage.batch=4", *quick]) == 0
    assert "no validation logs" in capsys.readouterr().err
    assert main(["train", "stage=grpo", "stage.steps=2", *quick]) == 2
    assert "needs a map" in capsys.readouterr().err
    sft = RunFolder.newest(place / "nuscenes-runs", "sft")
    assert main(["eval", "benchmark=l2_stp3", "planner=vla", f"checkpoint={sft.path}", *data, f"out={sft.path}"]) == 0
    shown = capsys.readouterr().out
    assert "l2_stp3 (m and % of collisions, less is better" in shown and "100 %" in shown
    assert main(["report", str(sft.path)]) == 0 and "l2_stp3" in (sft.path / "report.html").read_text()
    assert main(["eval", "planner=constant_velocity", *data]) == 2
    assert "needs a map" in capsys.readouterr().err


def test_argoverse_logs_go_through_the_same_commands(place, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for split, log in (("train", "log-a"), ("test", "log-b")):
        av2_files.write(place / "av2" / split / log)
    data = ["dataset=av2", f"dataset.root={place}/av2"]
    quick = [*QUICK, f"out={place}/av2-runs", *data]
    assert main(["train", "stage=sft", "stage.steps=2", "stage.batch=4", "tokenizer.k=64", *quick]) == 0
    assert main(["train", "stage=grpo", "stage.steps=2", "stage.scenes=2", "stage.group=3", *quick]) == 0
    grpo = RunFolder.newest(place / "av2-runs", "grpo")
    for benchmark in ("pdms_v1_1", "epdms_v2_2"):
        assert main(["eval", f"benchmark={benchmark}", "planner=vla", f"checkpoint={grpo.path}", *data, f"out={place}/av2-{benchmark}"]) == 0
    assert main(["export", str(grpo.path), str(place / "av2-model")]) == 0
    assert "Argoverse" in (place / "av2-model" / "README.md").read_text()
    capsys.readouterr()
    assert main(["eval", "benchmark=l2_uniad", "planner=constant_velocity", *data]) == 2
    assert "dataset=nuscenes" in capsys.readouterr().err


def test_a_planner_of_ones_own_is_named_by_its_module(data, tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (Path(drive.planners.__path__[0]) / "README.md").read_text(), re.DOTALL)
    (tmp_path / "my_planner_of_a_test.py").write_text(example + "\n\nclass NoPlanner:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "planner=custom", "planner.target=my_planner_of_a_test:Creep", *data]) == 0
    assert "creep" in capsys.readouterr().out
    for target, words in (("my_planner_of_a_test:NoPlanner", "is no planner"), ("my_planner_of_a_test:Absent", "Absent"), ("nowhere:X", "nowhere"), ("x", "module:Class"), ("my_planner_of_a_test:", "module:Class")):
        assert main(["eval", "planner=custom", f"planner.target={target}", *data]) == 2
        shown = capsys.readouterr().err
        assert words in shown and "Traceback" not in shown


@pytest.mark.parametrize("planner", ["constant_velocity", "constant_acceleration", "idm", "expert"])
def test_eval_of_the_planners_without_weights(planner, data, capsys):
    assert main(["eval", f"planner={planner}", *data]) == 0
    assert "pdms_v1_1" in capsys.readouterr().out


def test_eval_of_another_benchmark_names_it_in_every_file(place, data, capsys):
    out = place / "epdms"
    assert main(["eval", "benchmark=epdms_v2_2", "planner=constant_velocity", *data, f"out={out}"]) == 0
    printed = capsys.readouterr()
    assert "epdms_v2_2 (0-100" in printed.out and "TLC where the data holds traffic lights" in printed.out
    assert "epdms_v2_2 [95 %]" in (out / "table.md").read_text() and json.loads((out / "results.json").read_text())["benchmark"] == "epdms_v2_2"
    before = (out / "table.md").read_text()
    assert main(["eval", "planner=constant_velocity", *data, f"out={out}"]) == 2  # another benchmark
    assert "holds results of epdms_v2_2" in capsys.readouterr().err and (out / "table.md").read_text() == before
    few = ["eval", "benchmark=epdms_v2_2", "planner=constant_velocity", "max_scenes=3", *data]
    assert main([*few, f"out={out}"]) == 2 and "max_scenes=3" in capsys.readouterr().err  # another set
    assert main(few) == 0 and "3 of its 6 scenes, evenly spread" in capsys.readouterr().out
    assert main(["eval", "benchmark=epdms_v2_2", "planner=constant_velocity", *data, f"out={out}"]) == 0
    assert "the earlier evaluation of constant_velocity is replaced" in capsys.readouterr().err


def test_partial_coverage_is_marked_counted_and_fails(place, data, monkeypatch, capsys):
    from drive.datasets import select as room
    from drive.datasets.embedded import EmbeddedDataset

    shutil.copytree(place / "data", place / "broken", dirs_exist_ok=True)
    episode = sorted((place / "broken" / "train").glob("episode-*.npz"))[0]
    episode.write_bytes(episode.read_bytes()[:1000])
    scenes = EmbeddedDataset(place / "broken" / "train", 24)
    # A damaged episode of the embedded world would be made again: here it comes as a logged file that nobody can make again.
    monkeypatch.setattr(room, "select", lambda *_: room.Selected(scenes, "broken", 24))
    assert main(["eval", "planner=constant_velocity", *data, f"out={place}/partial"]) == 1
    shown = capsys.readouterr().out
    assert "PARTIAL" in shown and f"not read: {place}" in shown and episode.name in shown
    (stored,) = json.loads((place / "partial" / "results.json").read_text())["results"]
    read = [row["score"] for row in stored["rows"]]
    assert 0 < len(read) < 24 and stored["summary"]["coverage"] == pytest.approx(len(read) / 24)
    assert stored["summary"]["score"] == pytest.approx(sum(read) / 24), "unread scenes count as 0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "stage=grop"], "grpo"),
        (["train", "stage=sft", "stage.lerning_rate=1"], "learning_rate"),
        (["train", "stage=sft", "split=test"], "test"),
        (["train", "stage=grpo", "checkpoint=nowhere"], "neither a checkpoint"),
        (["eval", "planner=vlaa"], "vla"),
        (["eval", "planner=vla", "planner.mode=slwo"], "slow"),
        (["tokenizer", "report", "out=nowhere"], "nowhere"),
        (["resume", "nowhere"], "not a run folder"),
        (["train", "stage=sft", "stage.batch=0", "stage.micro_batch=0"], "batch=0 must be at least 1; micro_batch=0 must be at least 1"),
        (["train", "stage=sft", "stage.log_every=0"], "log_every=0 must be at least 1"),
        (["train", "stage=sft", "stage.slow_share_complex=2"], "between 0 and 1"),
        (["train", "stage=sft", "stage.optim.learning_rate=0"], "optim: learning_rate=0.0 must be above 0"),
        (["train", "stage=sft", "dataset.train_scenes=0"], "dataset.train_scenes=0: must be at least 1"),
        (["train", "stage=sft", "tokenizer.dt=0"], "dt=0.0 must be above 0"),
        (["train", "stage=grpo", "stage.group=1"], "group=1 must be at least 2"),
        (["train", "stage=grpo", "stage.temperature=0"], "temperature=0.0 must be above 0"),
        (["train", "stage=pretrain", "checkpoint=somewhere"], "starts from fresh weights"),
        (["train", "stage=grpo", "checkpoint=[1]"], "expected str or null"),
        (["train", "stage=grpo", "model=smolvlm_256m"], "was trained with model.name=tiny"),
        (["eval", "planner=constant_velocity", "batch=0", "max_scenes=-1"], "batch=0: must be at least 1"),
        (["eval", "planner=vla", "planner.temperature=-1"], "planner.temperature=-1.0"),
        (["demo", "grpo_steps=0"], "grpo_steps=0: must be at least 1"),
        (["export", "nowhere", "out"], "not a run folder"),
        (["train", "stage=pretrain", "device=gpu"], "choose auto, cpu or cuda"),
        (["train", "stage=pretrain", "model=smolvlm_256m"], "comes pretrained"),
        (["train", "stage=pretrain", "stage.steps=800"], "steps=800 must exceed sight_steps=1500"),
        (["train", "stage=grpo", "model.dtype=bf16", "model.lora_rank=-1"], "dtype=bf16 is none of float32, bfloat16; lora_rank=-1"),
        (["train", "stage=sft", "threads=-1"], "threads=-1"),
        (["train", "stage=sft", "stage.batch=0", "model.dtype=bf16"], "dtype=bf16"),
        (["train", "stage=sft", "stage.batch=0", "model.dtype=bf16"], "batch=0"),
        (["train", "stage=grpo", "reward.fee_per_token=-5", "reward.score_weight=0"], "score_weight=0.0 must be above 0; fee_per_token=-5.0"),
        (["train", "stage=sft", "stage.optim.lr=1"], "did you mean stage.optim.learning_rate"),
        (["eval", "planner=expert", "checkpoint=nowhere"], "planner=vla alone"),
        (["eval", "planner=vla", f"checkpoint={WEIGHTS}/tiny-base"], "model.weights="),
        (["eval", "planner=vla", "checkpoint=nowhere", "planner.mode=quick"], "planner.mode=quick is none of"),
    ],
)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown and "drive: error:" in shown
    assert not list(tmp_path.iterdir())


def test_codebook_of_another_dt_is_refused(place, data, tmp_path, monkeypatch, capsys):
    from toy_scenes import toy_codebook

    from drive.tokenizers.kdisk import KDiskTokenizer

    codebook = toy_codebook()
    KDiskTokenizer.fit(codebook.codebook / 5.0, k=16, dt=0.1).save(tmp_path / "tenth")
    assert main([*sft_settings(place, data, "none"), f"tokenizer.codebook={tmp_path}/tenth"]) == 2
    assert "dt" in capsys.readouterr().err and not (place / "none").exists()


def test_every_verb_has_examples_in_its_help(capsys):
    from drive.cli import verbs

    for name, verb in verbs().items():
        assert main([name, "--help"]) == 0
        assert f"drive {name}" in capsys.readouterr().out and verb.line


def test_the_settings_in_the_examples_of_the_help_exist():
    import re
    import shlex

    from drive.cli import verbs
    from drive.cli.config import load_config
    from drive.cli.tokenizer import split_sources

    example = re.compile(r"^  drive (train|eval|demo|data (?:generate|convert|card|annotate)|tokenizer fit|tokenizer report)((?: \S+=\S+)*)", re.MULTILINE)
    found = [match for verb in verbs().values() for match in example.findall(verb.doc)]
    assert len(found) > 15
    for command, settings in found:
        words = shlex.split(settings.replace("…", "x"))
        verb, _, action = command.partition(" ")
        if verb == "tokenizer":
            for source in split_sources(words):  # several datasets have settings each
                load_config("tokenizer", source.overrides)
            continue
        load_config(action if action in ("convert", "card", "annotate") else verb, words)
