"""Examples:
  drive eval planner=vla                                       the shipped tiny-drive on the unseen test town
  drive eval planner=vla planner.mode=fast checkpoint=runs/…-grpo
  drive eval planner=constant_velocity
  drive eval planner=custom planner.target=my_module:MyPlanner your own (see planners/README.md)
  drive eval planner=expert split=val max_scenes=50
  drive eval planner=idm dataset=scenarionet dataset.root=/data/scenarionet
  drive eval benchmark=epdms_v2_2 planner=constant_velocity dataset=scenarionet dataset.root=/data/scenarionet
  drive eval benchmark=l2_uniad planner=vla dataset=nuscenes dataset.root=/data/nuscenes         collisions too; or l2_stp3, l2_vad
  drive eval benchmark=waymo_motion planner=vla                displacement, comfort, off-road, overlap; or ade_av2_5s
  drive eval benchmark=carla_routes planner=expert             closed loop through the carla client, on a server of our own
  drive eval benchmark=bench2drive_ds routes=bench2drive220.xml maps=/data/carla_maps workers=4 out=out/b2d
  drive eval carla://127.0.0.1:2000 routes=routes.xml          on a CARLA server that is running (docs/carla.md)
  drive eval planner=vla out=out/eval                          also writes results.json, table.md and pictures of plans; planners
                                                               evaluated on the same data into one folder share a table

Prints the benchmark and its parts with 95 % bootstrap intervals over logs, coverage, think rate and the time of a plan (that of its batch over
the batch; batch=1 gives the latency of one). A plan that cannot be decoded, a planner that fails and a scene that cannot be read score 0 (50 m
and 100 % where less is better), lower the coverage and make the exit code 1. "pick" says whose choice a plan was: the planner's (deployable),
a teacher's that reads the ground truth (privileged); a best of several alternatives is labelled oracle. `drive report out/eval` draws a page of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HELP = "score a planner: benchmark=pdms_v1_1 planner=vla dataset=embedded split=test"


def run(argv: list[str]) -> int:
    """Evaluate one planner and print its table."""
    from omegaconf import OmegaConf

    from drive.benchmarks.evaluate import evaluate
    from drive.benchmarks.named import make_benchmark
    from drive.cli.closed_loop import CLOSED_LOOP, run_closed_loop
    from drive.cli.config import load_config
    from drive.cli.schema import require_at_least
    from drive.core.errors import ConfigError
    from drive.datasets.select import asked_for, readable, select, spread
    from drive.report.plans import add_evaluation, refuse_other_results
    from drive.report.tables import counted, text_table

    config: Any = OmegaConf.to_container(load_config("eval", addressed(argv)), resolve=True)
    if config["benchmark"]["name"] in CLOSED_LOOP:
        return run_closed_loop(config)
    require_at_least(config, {"batch": 1, "max_scenes": 0, "threads": 0}, "settings of eval")
    if config["checkpoint"] is not None and config["planner"]["name"] != "vla":
        raise ConfigError(f"checkpoint= is read by planner=vla alone, not by planner={config['planner']['name']}: leave it out")
    benchmark = make_benchmark(config["benchmark"]["name"])
    planner = make_planner(config)
    data = select(config["dataset"], config["split"])
    if not config["force"]:
        refuse_trained_logs(planner, data.logs)
    count = min(len(data.scenarios), config["max_scenes"] or len(data.scenarios))
    expected = asked_for(count, data)
    if config["out"]:
        refuse_other_results(Path(config["out"]), data.fingerprint, config["max_scenes"], benchmark.style)  # before hours of planning
    scenes, faults = readable(data.scenarios, spread(len(data.scenarios), count))
    result = evaluate(benchmark, scenes, planner, config["batch"], expected, [*data.faults, *faults], progress=True)
    print(text_table([result], data_title(config, count, len(data.scenarios)), benchmark.style))
    for fault in counted(result.faults):
        print(f"not read: {fault}")
    if config["out"]:
        add_evaluation(Path(config["out"]), result, config, data.fingerprint, scenes, benchmark.style)
    return 0 if result.coverage >= 1.0 else 1


def addressed(argv: list[str]) -> list[str]:
    """`carla://HOST:PORT` as settings. Raises ConfigError where it is none."""
    from drive.core.errors import ConfigError

    out = []
    for text in argv:
        if not text.startswith("carla://"):
            out.append(text)
            continue
        host, colon, port = text.removeprefix("carla://").rstrip("/").rpartition(":")
        if not colon or not port.isdigit() or not 0 < int(port) < 65536 or not host:
            raise ConfigError(f"{text}: give host and port, as in carla://127.0.0.1:2000")
        if not any(other.startswith("benchmark=") for other in argv):
            out.append("benchmark=carla_routes")
        out += [f"host={host}", f"port={port}"]
    return out


def refuse_trained_logs(planner: Any, logs: frozenset[str]) -> None:
    """Raise DataError where the planner's checkpoint was trained on drives that it is to be evaluated on."""
    from drive.core.errors import DataError
    from drive.planners.vla.planner import VlaPlanner

    seen = sorted(planner.policy.trained_on & logs) if isinstance(planner, VlaPlanner) else []
    if seen:
        told = f"{', '.join(seen[:3])}{', …' if len(seen) > 3 else ''}"
        raise DataError(f"the checkpoint was trained on {len(seen)} of these {len(logs)} logs ({told}): its score there says nothing; force=true shows it all the same")


def data_title(config: dict[str, Any], count: int, total: int) -> str:
    """What was evaluated on, for the line over the table."""
    words = [config["dataset"]["name"], config["dataset"].get("version", ""), config["split"]]
    part = f", {count} of its {total} scenes, evenly spread" if count < total else ""
    return " ".join(word for word in words if word) + part


def make_planner(config: dict[str, Any]):
    """The planner of the config section `planner`."""
    from drive.core.errors import ConfigError

    name = config["planner"]["name"]
    if name == "constant_velocity":
        from drive.planners.constant_velocity import ConstantVelocity

        return ConstantVelocity()
    if name == "constant_acceleration":
        from drive.planners.constant_velocity import ConstantAcceleration

        return ConstantAcceleration()
    if name == "custom":
        return custom_planner(config["planner"]["target"])
    if name == "idm":
        from drive.planners.idm import IdmPlanner

        return IdmPlanner()
    if name == "expert":
        from drive.planners.pdm import PdmExpert

        return PdmExpert()
    if name != "vla":
        raise ConfigError(f"planner={name} has settings and no code in drive: planner=custom planner.target=module:Class takes your own")
    from drive.cli.train import SHIPPED, checkpoint_folder, use_device
    from drive.planners.vla.checkpoint import load_policy
    from drive.planners.vla.planner import VlaPlanner, check_settings

    settings = {name: value for name, value in config["planner"].items() if name != "name"}
    check_settings(**{name: value for name, value in settings.items() if name != "past"})  # before anything is loaded
    device = use_device(config)
    policy = load_policy(checkpoint_folder(SHIPPED if config["checkpoint"] is None else config["checkpoint"]))
    policy.model.to(device)
    return VlaPlanner(policy, seed=config["seed"], **settings)


def custom_planner(target: str):
    """The planner of class `target`, "module:Class". Raises ConfigError where there is none, or it does not plan."""
    import importlib
    import sys

    from drive.core.errors import ConfigError
    from drive.core.protocols import Planner, PrivilegedPlanner

    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"planner.target={target}: give module:Class, as in planner.target=my_module:MyPlanner")
    sys.path.insert(0, "")  # the current folder, as `python -m` has it
    try:
        planner = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"planner.target={target}: {error}; give module:Class, a class that is made without arguments") from error
    finally:
        sys.path.remove("")
    if not isinstance(planner, (Planner, PrivilegedPlanner)):
        raise ConfigError(f"planner.target={target} is no planner: it needs name, reset() and plan(observations), see planners/README.md")
    return planner
