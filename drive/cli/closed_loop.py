"""The closed-loop half of `drive eval`: routes driven through the carla client."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

CLOSED_LOOP = ("carla_routes", "leaderboard2_ds", "bench2drive_ds")  # benchmark=
EMBEDDED = "embedded_"


def run_closed_loop(config: dict[str, Any]) -> int:
    """Drive the routes, print the tables; 0 where every scheduled route was driven to an end."""
    from drive.benchmarks.carla_company import company
    from drive.benchmarks.carla_drive import DriveConfig
    from drive.benchmarks.carla_routes import Where, evaluate_routes
    from drive.benchmarks.carla_summary import release, write_summary
    from drive.cli.eval import make_planner
    from drive.cli.schema import require_at_least
    from drive.core.errors import ConfigError
    from drive.core.files import atomic_write_text
    from drive.metrics.carla_scores import Rule
    from drive.report.closed_loop import all_tables, timing_line
    from drive.report.closed_loop_page import Pictures, write_page

    require_at_least(config, {"workers": 1, "vehicles": 0, "walkers": 0, "max_routes": 0, "timeout": 1, "port": 1, "run_up": 0, "creep_after": 0}, "settings of eval")
    chosen = named_routes(config["routes"], config["town"], config["max_routes"])
    drive = DriveConfig(
        Rule(config["benchmark"]["rule"]),
        config["seed"],
        latency=latency_of(config["latency"]),
        run_up=config["run_up"],
        creep_after=config["creep_after"],
        vehicles=config["vehicles"],
        walkers=config["walkers"],
        controller=controller_named(config["controller"]),
    )
    maps = Path(config["maps"]) if config["maps"] else None
    if maps is not None and not maps.is_dir():
        raise ConfigError(f"maps={maps}: there is no such folder")
    where = Where(config["host"] or "", config["port"], maps, float(config["timeout"]))
    videos = videos_of(config["videos"])
    refuse_open_loop(config["out"])
    name = make_planner(config).name  # a mistake in the planner's settings is told before a server starts
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(config["out"] or scratch)
        show = Pictures(out, videos) if config["out"] else None
        result = evaluate_routes(chosen, name, partial(make_planner, config), where, drive, out, company, config["workers"], show=show, identity=identity_of(config))
        tables = all_tables(result, config["benchmark"]["name"], f"{config['routes']}, seed {config['seed']}, controller {config['controller']}", release(config["routes"]))
        text = "\n\n".join(tables)
        print(text)
        print(timing_line(result), file=sys.stderr)  # standard output is the same for every run of one seed
        if config["out"]:
            atomic_write_text(out / "table.md", f"```\n{text}\n```\n")
            write_summary(out, result, config["routes"])
            print(write_page(out, result, config["benchmark"]["name"], tables), file=sys.stderr)
    return 0 if result.coverage == 1.0 else 1


def refuse_open_loop(out: str | None) -> None:
    """Raises ConfigError where the folder holds results of an open-loop benchmark, which would be lost."""
    from drive.core.errors import ConfigError
    from drive.report.tables import RESULTS, holds_closed_loop

    if out and (Path(out) / RESULTS).is_file() and not holds_closed_loop(Path(out)):
        raise ConfigError(f"out={out} holds an evaluation of another kind of benchmark: name another folder")


def identity_of(config: dict[str, Any]) -> str:
    """The planner's settings, its weights by content, and the folder of maps by content."""
    from drive.cli.train import SHIPPED, checkpoint_folder

    told = json.dumps(config["planner"], sort_keys=True, default=str)
    weights = sorted(checkpoint_folder(config["checkpoint"] or SHIPPED).glob("*.safetensors")) if config["planner"]["name"] == "vla" else []
    maps = sorted(Path(config["maps"]).glob("*.xodr*")) if config["maps"] else []
    digests = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in [*weights, *maps]]
    return hashlib.sha256("\n".join([told, *digests]).encode()).hexdigest()


def videos_of(value: Any) -> Any:
    """Which routes are filmed; true and false stand for all and none. Raises ConfigError on anything else."""
    from drive.core.errors import ConfigError
    from drive.report.closed_loop_page import Videos

    words = {"true": Videos.ALL, "false": Videos.NONE, **{kind.value: kind for kind in Videos}}
    if str(value).lower() not in words:
        raise ConfigError(f"videos={value}: give {', '.join(kind.value for kind in Videos)}")
    return words[str(value).lower()]


def named_routes(name: str, town: str | None, most: int, drawn: int = 0, seed: int = 0) -> list[Any]:
    """The routes of a file, or of the embedded towns, `drawn` of them (0: as the benchmark has them). Raises ConfigError where there are none."""
    from drive.core.errors import ConfigError
    from drive.simulators.carla_embedded_routes import COUNT, embedded_routes
    from drive.simulators.carla_routes import read_routes
    from drive.simulators.towns import TOWN_SPLITS

    split = str(name).removeprefix(EMBEDDED)
    if split in TOWN_SPLITS and str(name).startswith(EMBEDDED):
        routes = list(embedded_routes(split, drawn or COUNT, seed).routes)
    elif Path(name).is_file():
        routes = list(read_routes(Path(name)).routes)
    else:
        raise ConfigError(f"routes={name}: neither a route file nor one of {', '.join(EMBEDDED + split for split in TOWN_SPLITS)}")
    kept = [route for route in routes if town is None or route.town == town]
    if not kept:
        raise ConfigError(f"routes={name} has no route in town={town}: it has {', '.join(sorted({r.town for r in routes}))}")
    return kept[: most or None]


def controller_named(name: Any) -> Any:
    """The ControllerKind. Raises ConfigError on any other word."""
    from drive.core.errors import ConfigError
    from drive.simulators.carla_pid import ControllerKind

    try:
        return ControllerKind(name)
    except ValueError:
        raise ConfigError(f"controller={name}: choose one of {', '.join(kind.value for kind in ControllerKind)}") from None


def latency_of(value: Any) -> float | None:
    """Seconds, or None for "measured". Raises ConfigError on anything else."""
    from drive.core.errors import ConfigError

    if value == "measured":
        return None
    try:
        seconds = float(str(value).removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < 10.0:
        raise ConfigError(f"latency={value}: give seconds from 0 to 10, as in 0.1 or 0.1s, or measured")
    return seconds
