"""Examples:
  drive data annotate out=out/reasons                                   by rule, scenes of the embedded world
  drive data annotate out=out/reasons dataset=scenarionet dataset.root=/data/scenarionet split=train
  drive data annotate out=out/qwen source=teacher teacher.model=Qwen/Qwen2.5-VL-72B-Instruct-AWQ
  drive data annotate out=out/gpt source=teacher teacher.base_url=https://api.example.com/v1 teacher.model=big-model \\
      teacher.api_key_env=BIG_KEY teacher.price_input=2.5 teacher.price_output=10 teacher.max_cost=20 max_scenes=500

Writes OUT/SPLIT/annotations.jsonl and its card; the same command goes on where it was. Train on the texts with
`drive train stage=sft dataset.annotations=OUT`. Exit code 1 where scenes are left without an answer, unread, or outside the budget.
docs/annotate.md tells how to serve a teacher.
"""

from __future__ import annotations

from typing import Any


def run(argv: list[str]) -> int:
    """`drive data annotate [key=value …]`."""
    import shlex
    import sys
    from pathlib import Path

    from omegaconf import OmegaConf

    from drive.cli.config import load_config
    from drive.cli.schema import require_at_least
    from drive.core.errors import ConfigError
    from drive.datasets.select import readable, select, spread
    from drive.stages.annotate import annotate

    config: Any = OmegaConf.to_container(load_config("annotate", argv), resolve=True)
    require_at_least(config, {"max_scenes": 0}, "settings of annotate")
    if config["dataset"].get("annotations"):
        raise ConfigError("dataset.annotations is for training on texts: leave it out to write new ones")
    annotator = make_annotator(config)
    data = select(config["dataset"], config["split"])
    first = readable(data.scenarios, spread(len(data.scenarios), 3))[0][:1]
    if config["source"] == "rule" and first and first[0].notes.get("map") == "corridor":
        raise ConfigError(f"source=rule needs a map, and these logs of dataset={config['dataset']['name']} have none: take source=teacher, or other data")
    total = len(data.scenarios)
    indexes = spread(total, config["max_scenes"] or total)
    folder = Path(config["out"]) / config["split"]
    command = shlex.join([Path(sys.argv[0]).name, "data", "annotate", *argv])
    max_cost = config["teacher"]["max_cost"] if config["source"] == "teacher" else 0.0
    facts = annotate(data, config["dataset"], config["split"], annotator, folder, indexes, command, max_cost)["facts"]
    print(
        f"{facts['scenes_done']} of {facts['scenes_asked_for']} scenes done: {facts['accepted']} accepted, {facts['rejected']} rejected, "
        f"{facts['failed']} failed, {facts['unread']} unread"
        + (f"; {facts['scenes_of_other_runs']} more of earlier runs are kept" if facts["scenes_of_other_runs"] else "")
    )
    if facts["refusals"]:
        print("refused: " + ", ".join(f"{count} {kind}" for kind, count in facts["refusals"].items()))
    if config["source"] == "teacher":
        print(f"{facts['prompt_tokens']} + {facts['completion_tokens']} tokens in {facts['answers']} answers, cost {facts['cost']:g}")
    if facts["stopped_by_budget"]:
        print(f"stopped at teacher.max_cost={max_cost:g}: raise it and run the same command again")
    print(f"written: {folder}")
    return 0 if facts["scenes_done"] == facts["scenes_asked_for"] and not facts["unread"] else 1


def make_annotator(config: dict[str, Any]):
    """Who `source` names. Raises ConfigError on another name."""
    from drive.cli.config import to_dataclass
    from drive.core.errors import ConfigError

    if config["source"] == "teacher":
        from drive.stages.annotate_teacher import TeacherAnnotator, TeacherConfig

        return TeacherAnnotator(to_dataclass(config["teacher"], TeacherConfig, "teacher"), config["seed"])
    if config["source"] != "rule":
        raise ConfigError(f"source={config['source']}: expected rule or teacher")
    from drive.stages.annotate_expert import RuleAnnotator

    return RuleAnnotator()
