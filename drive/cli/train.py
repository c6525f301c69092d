"""Examples:
  drive train stage=sft                                    fine-tune the shipped base on scenes of the embedded world
  drive train stage=grpo                                   reinforce the newest SFT run, or the shipped checkpoint
  drive train stage=grpo checkpoint=runs/…-sft stage.steps=500
  drive train stage=sft dataset=scenarionet dataset.root=/data/scenarionet
  drive train stage=sft model=qwen2_5_vl_3b device=cuda    AutoVLA's backbone with LoRA
  drive train stage=pretrain                               the base model itself: to see, captions and questions; no actions

Where a stage starts, with checkpoint=null: pretrain from fresh weights; sft from model.weights (the shipped tiny-base for
model=tiny) with a codebook fitted on the training split; grpo from the newest finished SFT run on the same dataset under out=, or else from the shipped
tiny-drive. A killed run goes on with `drive resume RUN`. Of the checkpoints the newest two stay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from drive.core.runs import RunFolder
    from drive.core.types import Scenario
    from drive.datasets.select import Selected
    from drive.planners.vla.policy import VlaPolicy

HELP = "train the VLA: stage=pretrain, sft or grpo"
SHIPPED = "tiny-drive"  # as a value of checkpoint=
START = "start"  # folder in the run that holds what GRPO started from


def run(argv: list[str]) -> int:
    """Check the settings, make the run folder, train."""
    from omegaconf import OmegaConf

    from drive.cli.config import load_config
    from drive.core.errors import ConfigError
    from drive.core.runs import RunFolder
    from drive.datasets.splits import refuse_evaluation_split

    config: Any = OmegaConf.to_container(load_config("train", argv), resolve=True)
    typed_sections(config)
    refuse_evaluation_split(config["split"], config["force"])
    stage = config["stage"]["name"]
    if stage == "pretrain" and config["checkpoint"] is not None:
        raise ConfigError("stage=pretrain starts from fresh weights: leave checkpoint= out, or go on with a killed run by `drive resume RUN`")
    if stage == "pretrain" and config["model"]["name"] != "tiny":
        raise ConfigError(f"stage=pretrain makes the tiny base alone; {config['model']['name']} comes pretrained: go on with stage=sft")
    use_device(config)
    splits = cache(partial(load_splits, config))
    policy = None if stage == "pretrain" else starting_policy(config, splits)
    data = splits()
    named = [f"checkpoint={config['checkpoint']}"] if config["checkpoint"] and not any(a.startswith("checkpoint=") for a in argv) else []
    folder = RunFolder.create(config["out"], config["name"] or stage, config, ["drive", "train", *argv, *named], stage)
    print(f"run: {folder.path}")
    train(folder, config, data, policy)
    return 0


def typed_sections(config: dict[str, Any]) -> dict[str, Any]:
    """The config's sections as the stages' frozen dataclasses; all faults in one error."""
    from drive.cli.config import to_dataclass
    from drive.core.errors import ConfigError
    from drive.planners.vla.backbone import ModelConfig
    from drive.rewards.pdms import RewardConfig
    from drive.stages.codebook import settings_class
    from drive.stages.grpo import GrpoConfig
    from drive.stages.pretrain import PretrainConfig
    from drive.stages.sft import SftConfig

    stages = {"pretrain": PretrainConfig, "sft": SftConfig, "grpo": GrpoConfig}
    stage = {k: v for k, v in config["stage"].items() if k != "name"}
    hints = ("reasoning_weight", "label_spread", "sft_learning_rate", "grpo_learning_rate", "embedding_lr_share")  # read by the stage files
    model = {k: v for k, v in config["model"].items() if k not in hints}
    tokenizer = {k: v for k, v in config["tokenizer"].items() if k not in ("name", "codebook")}
    wanted = {
        "stage": (stage, stages[config["stage"]["name"]]),
        "model": (model, ModelConfig),
        "tokenizer": (tokenizer, settings_class(config["tokenizer"]["name"])),
        "reward": (config["reward"], RewardConfig),
    }
    built, faults = {}, []
    for name, (section, cls) in wanted.items():
        try:
            built[name] = to_dataclass(section, cls, name)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return built


def use_device(config: dict[str, Any]) -> str:
    """Set the thread count; the device's name."""
    import torch

    from drive.core.errors import ConfigError

    if config["device"] not in ("auto", "cpu", "cuda") or (config["device"] == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"device={config['device']}: choose auto, cpu or cuda, and cuda only where torch finds a GPU")
    if config["threads"] < 0:
        raise ConfigError(f"threads={config['threads']}: give 0 for all cores, or their number")
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    if config["device"] == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config["device"]


def checkpoint_folder(path: str | Path) -> Path:
    """A checkpoint folder from a checkpoint, a run or the name of a shipped one; CheckpointError if there is none."""
    from drive.core.errors import CheckpointError
    from drive.core.runs import RunFolder
    from drive.planners.vla.shipped import NAMES, shipped

    if str(path) in NAMES and not Path(path).exists():
        return shipped(str(path))
    path = Path(path)
    if (path / "drive.json").is_file():
        return path
    if (path / "status.json").is_file():
        latest = RunFolder.open(path).latest_checkpoint()
        if latest is None:
            raise CheckpointError(f"{path} has no checkpoint yet: wait for its first one, or name another run")
        return latest[1]
    if (path / "config.json").is_file():
        raise CheckpointError(f"{path} is a base model without a codebook: start from it with model.weights={path} instead of checkpoint=")
    raise CheckpointError(f"{path} is neither a checkpoint (drive.json) nor a run (status.json); {' and '.join(NAMES)} are the shipped ones")


class Splits(NamedTuple):
    """What a stage trains on, and what it is validated on."""

    train: Selected
    val: Selected | None


def load_splits(config: dict[str, Any]) -> Splits:
    """The datasets of `config`; no validation split where the stage or the dataset has none."""
    from drive.core.errors import ConfigError, DataError
    from drive.datasets.select import readable, select, spread

    name = config["dataset"]["name"]
    data = select(config["dataset"], config["split"])
    some = readable(data.scenarios, spread(len(data.scenarios), 20))[0] if config["stage"]["name"] == "grpo" else []
    if any(scenario.notes.get("map") == "corridor" for scenario in some):
        raise ConfigError(f"stage=grpo rewards pdms_v1_1, which needs a map, and these logs of dataset={name} have none: take others, such as scenarionet or av2")
    if not config["stage"]["validate_scenes"]:
        return Splits(data, None)
    if name == "embedded":
        return Splits(data, select(config["dataset"], "val"))
    try:
        val = None if name == "nuscenes" else select(config["dataset"], "val")
    except DataError as error:
        print(f"no validation: {error}", file=sys.stderr)
        val = None
    shared = sorted(data.logs & val.logs) if val else []
    if shared and not config["force"]:
        raise DataError(f"{len(shared)} drives are in train and in val ({', '.join(shared[:3])}): keep each in one, their scenarios are not independent")
    if val is None:
        print(f"{name} has no validation logs here: the stage runs without validation", file=sys.stderr)
    return Splits(data, val)


def starting_policy(config: dict[str, Any], splits: Callable[[], Splits]) -> VlaPolicy:
    """What the stage starts from (see the examples above); `splits` is called only where a codebook is fitted."""
    from dataclasses import replace

    from drive.core.runs import RunFolder
    from drive.planners.vla.backbone import load_backbone
    from drive.planners.vla.checkpoint import load_policy
    from drive.planners.vla.policy import VlaPolicy
    from drive.stages.codebook import Source, fit_tokenizer
    from drive.tokenizers.load import load_tokenizer

    sections, device = typed_sections(config), use_device(config)
    source = config["checkpoint"]
    if source is None and config["stage"]["name"] == "grpo":
        newest = RunFolder.newest(config["out"], "sft", lambda run: run.config["dataset"]["name"] == config["dataset"]["name"])
        config["checkpoint"] = source = str(newest.path) if newest else SHIPPED  # the run's config tells what it started from
        print(f"starting from {newest.path if newest else 'the shipped tiny-drive'}")
    if source is not None:
        policy = load_policy(checkpoint_folder(source), sections["model"])
        if config["tokenizer"]["codebook"]:
            policy.require_codebook(load_tokenizer(config["tokenizer"]["codebook"]))
    else:
        model_config = sections["model"]
        if config["tokenizer"]["codebook"]:
            codebook = load_tokenizer(config["tokenizer"]["codebook"], expect_dt=sections["tokenizer"].dt)
        else:
            data = splits().train
            whole = [Source(config["dataset"]["name"], data.scenarios, data.fingerprint)]
            codebook = fit_tokenizer(config["tokenizer"]["name"], sections["tokenizer"], whole)
            print(codebook.record)
        model, processor = load_backbone(model_config)
        kept = model_config if model_config.lora_rank else replace(model_config, weights="")  # a whole checkpoint needs no other weights
        policy = VlaPolicy.from_backbone(model, processor, codebook, kept)
    policy.model.to(device)
    return policy


def train(folder: RunFolder, config: dict[str, Any], splits: Splits, policy: VlaPolicy | None, resume_from: tuple[int, Path] | None = None) -> None:
    """Run the stage of `config` in `folder`, from the start or from a checkpoint."""
    from drive.core.files import atomic_folder
    from drive.core.runs import RunFolder
    from drive.planners.vla.checkpoint import save_policy
    from drive.report.html import write_report

    sections, device = typed_sections(config), use_device(config)
    stage = config["stage"]["name"]
    if policy is not None:
        policy.trained_on |= splits.train.logs
    if stage == "grpo" and not (folder.path / START).exists():
        assert policy is not None
        with atomic_folder(folder.path / START) as start:
            save_policy(policy, start)
    data, val = splits
    folder.record_data({"train": data.fingerprint, **({"val": val.fingerprint} if val else {})})
    held_out = val.scenarios if val else None
    try:
        _run_stage(folder, stage, sections, data.scenarios, held_out, policy, device, resume_from)
    except KeyboardInterrupt:
        latest = folder.latest_checkpoint()
        print(f"\n`drive resume {folder.path}` goes on from step {latest[0] if latest else 0}", file=sys.stderr)
        raise
    RunFolder.open(folder.path).finish()
    print(f"report: {write_report(folder)}")


def _run_stage(
    folder: RunFolder,
    stage: str,
    sections: dict[str, Any],
    scenarios: Sequence[Scenario],
    held_out: Sequence[Scenario] | None,
    policy: VlaPolicy | None,
    device: str,
    resume_from: tuple[int, Path] | None,
) -> None:
    from drive.planners.vla.checkpoint import load_policy
    from drive.stages.grpo import train_grpo
    from drive.stages.pretrain import train_base
    from drive.stages.sft import train_sft

    if stage == "pretrain":
        train_base(folder, scenarios, held_out, sections["stage"], device, resume_from)
    elif stage == "sft":
        assert policy is not None
        train_sft(folder, policy, scenarios, held_out, sections["stage"], resume_from)
    else:
        assert policy is not None
        train_grpo(folder, policy, scenarios, held_out, sections["stage"], sections["reward"], lambda: _on(load_policy(folder.path / START), device), resume_from)


def _on(policy: VlaPolicy, device: str) -> VlaPolicy:
    policy.model.to(device)
    return policy
