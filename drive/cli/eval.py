"""Examples:
  drive eval planner=vla                                       the shipped tiny-drive on the unseen test town
  drive eval planner=vla planner.mode=fast checkpoint=runs/…-grpo
  drive eval planner=constant_velocity
  drive eval planner=expert split=val max_scenes=50
  drive eval planner=idm dataset=scenarionet dataset.root=/data/scenarionet
  drive eval planner=vla out=out/eval                          also writes results.json and table.md

Prints pdms_v1_1 (0-100) and its parts with 95 % bootstrap intervals over scenes, coverage, latency and think rate. A plan that cannot
be decoded, a planner that fails and a scene that cannot be read score 0, lower the coverage and make the exit code 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = "score a planner: benchmark=pdms_v1_1 planner=vla dataset=embedded split=test"


def run(argv: list[str]) -> int:
    """Evaluate one planner and print its table."""
    from omegaconf import OmegaConf

    from drive.benchmarks.pdms import evaluate_pdms
    from drive.cli.config import load_config
    from drive.cli.schema import require_at_least
    from drive.datasets.select import readable, select
    from drive.report.tables import pdms_table, write_results

    config: Any = OmegaConf.to_container(load_config("eval", argv), resolve=True)
    require_at_least(config, {"batch": 1, "max_scenes": 0, "threads": 0}, "settings of eval")
    planner = make_planner(config)
    data = select(config["dataset"], config["split"])
    count = min(len(data.scenarios), config["max_scenes"] or len(data.scenarios))
    expected = count if config["max_scenes"] else data.expected
    scenes, faults = readable(data.scenarios, count)
    result = evaluate_pdms(scenes, planner, config["batch"], expected, [*data.faults, *faults], progress=True)
    print(pdms_table([result], f"{config['dataset']['name']} {config['split']}"))
    for fault in result.faults:
        print(f"not read: {fault}")
    if config["out"]:
        write_results(Path(config["out"]), [result], config, data.fingerprint)
    return 0 if result.coverage >= 1.0 else 1


def make_planner(config: dict[str, Any]):
    """The planner of the config section `planner`."""
    name = config["planner"]["name"]
    if name == "constant_velocity":
        from drive.planners.constant_velocity import ConstantVelocity

        return ConstantVelocity()
    if name == "idm":
        from drive.planners.idm import IdmPlanner

        return IdmPlanner()
    if name == "expert":
        from drive.planners.pdm import PdmExpert

        return PdmExpert()
    from drive.cli.train import checkpoint_folder, use_device
    from drive.planners.vla.checkpoint import load_policy
    from drive.planners.vla.planner import VlaPlanner
    from drive.planners.vla.shipped import shipped

    device = use_device(config)
    policy = load_policy(checkpoint_folder(config["checkpoint"]) if config["checkpoint"] else shipped("tiny-drive"))
    policy.model.to(device)
    return VlaPlanner(policy, config["planner"]["mode"], config["planner"]["temperature"], config["seed"])
