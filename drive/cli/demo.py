"""Examples:
  drive demo                        about ten minutes on two CPU cores: data, SFT, GRPO, scores on an unseen town, a video
  drive demo out=out/demo seed=1
  drive demo sft_steps=100 grpo_steps=40 dataset.test_scenes=40     a quick look; the scores mean little then

Generates scenes of the embedded towns, fits a codebook, fine-tunes the shipped tiny-base (SFT), reinforces it (GRPO), prints
pdms_v1_1 on the test town for two blind baselines, SFT, GRPO and the expert, and films the car driving that town in closed loop.
All but the scenes (dataset.root=) lands in out=; the runs below it are ordinary run folders.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

HELP = "the whole line on the embedded world: data, SFT, GRPO, scores, video"


def run(argv: list[str]) -> int:
    """Train and compare; exit code 1 if a planner left scenes out."""
    from omegaconf import OmegaConf

    from drive.benchmarks.pdms import evaluate_pdms
    from drive.cli.config import load_config
    from drive.cli.schema import require_at_least
    from drive.datasets.select import readable, select
    from drive.planners.constant_velocity import ConstantAcceleration, ConstantVelocity
    from drive.planners.pdm import PdmExpert
    from drive.planners.vla.planner import VlaPlanner
    from drive.report.html import write_report
    from drive.report.plans import add_evaluation
    from drive.report.tables import text_table, write_results

    start = time.perf_counter()
    config: Any = OmegaConf.to_container(load_config("demo", argv), resolve=True)
    require_at_least(config, {"batch": 1, "sft_steps": 1, "grpo_steps": 1, "video_seconds": 0.1}, "settings of demo")
    out = Path(config["out"])
    data = [f"dataset.{k}={v}" for k, v in config["dataset"].items() if k != "name" and v is not None]
    sft = _train(["stage=sft", f"stage.steps={config['sft_steps']}", f"stage.validate_every={config['sft_steps']}"], config, data)
    steps, fee = config["grpo_steps"], config["fee_per_token"]
    settings = ["stage=grpo", f"checkpoint={sft.path}", f"stage.steps={steps}", f"stage.validate_every={steps}", f"reward.fee_per_token={fee}"]
    grpo = _train(settings, config, data)
    test = select(config["dataset"], "test")
    scenes, faults = readable(test.scenarios, range(len(test.scenarios)))
    planners = [ConstantVelocity(), ConstantAcceleration(), VlaPlanner(_policy(sft)), VlaPlanner(_policy(grpo)), PdmExpert()]
    names = ("constant_velocity", "constant_acceleration", "vla after SFT", "vla after GRPO", "expert")
    results = []
    for planner, name in zip(planners, names):
        planner.name = name
        results.append(evaluate_pdms(scenes, planner, config["batch"], test.expected, [*test.faults, *faults], progress=True))
    title = "embedded test (a town never seen in training)"
    print(text_table(results, title))
    write_results(out / "results", results, {**config, "split": "test"}, test.fingerprint)
    add_evaluation(grpo.path, results[3], {**grpo.config, "split": "test"}, test.fingerprint, scenes)
    print(f"report: {write_report(grpo)}")
    _film(planners[3], out, config)
    print(f"done in {(time.perf_counter() - start) / 60:.1f} min")
    return 0 if all(result.coverage >= 1.0 for result in results) else 1


def _train(settings: list[str], config: dict[str, Any], data: list[str]):
    """One stage through the same code as `drive train`; its run folder."""
    from omegaconf import OmegaConf

    from drive.cli.config import load_config
    from drive.cli.train import load_splits, starting_policy, train
    from drive.core.runs import RunFolder

    argv = [*settings, f"out={config['out']}/runs", f"stage.seed={config['seed']}", *data]
    stage: Any = OmegaConf.to_container(load_config("train", argv), resolve=True)
    splits = load_splits(stage)
    policy = starting_policy(stage, lambda: splits)
    folder = RunFolder.create(stage["out"], stage["stage"]["name"], stage, ["drive", "train", *argv], stage["stage"]["name"])
    train(folder, stage, splits, policy)
    return folder


def _policy(run):
    from drive.planners.vla.checkpoint import load_policy

    return load_policy(run.latest_checkpoint()[1])


def _film(planner, out: Path, config: dict[str, Any]) -> None:
    """An mp4 of the planner driving the test town."""
    from drive.report.drive_town import make_video

    path = make_video(planner, out / "drive.mp4", town=config["town"], kind=config["kind"], seed=config["video_seed"], seconds=config["video_seconds"])
    print(f"video: {path}")
