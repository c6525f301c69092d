"""Examples:
  drive export runs/20260131-235959-pretrain out/tiny-base       the base model
  drive export runs/20260131-235959-grpo out/tiny-drive          a VLA with its codebook
  drive export runs/20260131-235959-grpo/checkpoints/step-00000300 out/earlier

Writes the newest checkpoint of a finished run, or the checkpoint named, in half precision with a model card (what it is, the command, data, metrics), ready to be
shared; no optimiser state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = "write a run's model in half precision, with its card"
LIMITS = {  # by dataset
    "embedded": "Trained on scenes of drive's embedded world alone: flat-coloured pictures of synthetic towns. It knows nothing of real cameras, "
    "lights, pedestrians or weather, and must not drive anything real.",
    "av2": "Trained on Argoverse 2 logs whose cameras were rendered from map and boxes: it knows nothing of real pictures, and must not drive "
    "anything real. Argoverse's licence (CC BY-NC-SA 4.0) may bind the weights as well.",
    "av2_forecasting": "Trained on Argoverse 2 forecasting scenarios whose cameras were rendered from map and boxes: it knows nothing of real pictures, "
    "and must not drive anything real. Argoverse's licence (CC BY-NC-SA 4.0) may bind the weights as well.",
    "cache": "Trained on converted driving logs: it must not drive anything real. The logs' licence may bind the weights as well.",
    "l5kit": "Trained on Lyft Level 5 logs whose cameras were rendered from boxes: it knows nothing of real pictures, and must not drive anything "
    "real. The data's licence (CC BY-NC-SA 4.0) may bind the weights as well.",
    "navsim": "Trained on NAVSIM logs: it must not drive anything real. nuPlan's terms (CC BY-NC-SA 4.0) may bind the weights as well.",
    "nuplan": "Trained on nuPlan logs: it must not drive anything real. nuPlan's terms (CC BY-NC-SA 4.0) may bind the weights as well.",
    **dict.fromkeys(
        ("waymo_e2e", "waymo_motion", "waymo_perception"),
        "Trained on Waymo Open Dataset logs: it must not drive anything real. Waymo's licence (non-commercial) binds the weights as well.",
    ),
    "nuscenes": "Trained on nuScenes logs: it must not drive anything real. nuScenes' terms (non-commercial) may bind the weights as well.",
    "scenarionet": "Trained on real driving logs whose cameras were rendered from map and boxes: it knows nothing of real pictures, and must not "
    "drive anything real. The logs' licence may bind the weights as well.",
}


def run(argv: list[str]) -> int:
    """`drive export RUN FOLDER`."""
    import torch

    from drive.core.errors import CheckpointError, ConfigError
    from drive.core.files import atomic_folder
    from drive.core.runs import CHECKPOINTS, RunFolder
    from drive.planners.vla.checkpoint import load_policy, save_policy

    if len(argv) != 2:
        raise ConfigError("drive export takes a run folder, or one of its checkpoints, and a folder to write: drive export runs/<date>-grpo out/model")
    given, target = Path(argv[0]), Path(argv[1])
    named = given.resolve().parent.name == CHECKPOINTS
    source = RunFolder.open(given.resolve().parents[1] if named else given)
    if not named and not source.is_finished:
        raise CheckpointError(f"{source.path} is not finished: go on with `drive resume {source.path}` first, or name one of its checkpoints")
    chosen = [item for item in source.checkpoints().items() if not named or item[1].name == given.resolve().name]
    if not chosen:
        raise CheckpointError(f"{given} holds no checkpoint")
    step, checkpoint = chosen[-1]
    target = target.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{argv[1]} exists and is not empty: name a new folder")
    card = _card(source, target.name, step)
    with atomic_folder(target) as folder:
        if source.stage == "pretrain":
            _export_base(checkpoint, folder)
            (folder / "README.md").write_text(card)
        else:
            save_policy(load_policy(checkpoint), folder, torch.float16, card)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 1e6
    print(f"written: {target} ({size:.1f} MB)")
    return 0


def _export_base(checkpoint: Path, folder: Path) -> None:
    import torch

    from drive.planners.vla.backbone import read_model
    from drive.planners.vla.processor import ImageTextProcessor

    read_model(checkpoint, torch.float16).save_pretrained(folder)
    ImageTextProcessor.load(checkpoint).save_pretrained(folder)


def _card(run: Any, name: str, step: int) -> str:
    from drive.report.cards import model_card

    what = {
        "pretrain": "A vision-language base model of the embedded world: it learnt where roads, cars and the route lie, captions and questions; no actions. SFT starts from it.",
        "sft": "A fast and slow thinking driving VLA after supervised fine-tuning on the expert's plans.",
        "grpo": "A fast and slow thinking driving VLA after supervised fine-tuning and GRPO on pdms_v1_1.",
    }[run.stage]
    merged: dict[str, float] = {}
    for line in (line for line in run.metrics() if line["step"] <= step):
        merged.update({k: v for k, v in line.items() if isinstance(v, (int, float)) and not k.startswith("time/")})
    shown = {k: v for k, v in merged.items() if k.startswith("val/") or k in ("step", "reward", "loss", "action_loss")}
    command = (run.path / "command.txt").read_text().strip()
    import json

    data = json.loads((run.path / "data.json").read_text()).get("train", "")
    settings = run.config["stage" if run.stage == "pretrain" else "model"]
    return model_card(name, settings, what, command, data, {**shown, **_evaluated(run, step)}, limits=LIMITS[run.config["dataset"]["name"]])


def _evaluated(run: Any, step: int) -> dict[str, str]:
    """The evaluations that stand in the run folder, of its newest checkpoint."""
    from drive.report.tables import RESULTS, columns, data_words, read_results, table_cells

    if not (run.path / RESULTS).is_file() or step != max(run.checkpoints()):
        return {}
    stored = read_results(run.path)
    cells = table_cells([result for result in stored.results if result.planner.startswith("vla")], stored.style)
    return {f"{row[0]}: {columns(stored.style)[1]}, {data_words(stored.config, stored.fingerprint)}": row[1] for row in cells}
