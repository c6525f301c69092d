"""drive data collect: drives of the closed loop as training data."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any


def run(config: dict[str, Any]) -> int:
    """Drive the routes and record them; 0 where every one was driven. Routes that are there already are kept."""
    from tqdm import tqdm

    from drive.benchmarks.carla_collect import collect_route
    from drive.benchmarks.carla_company import company
    from drive.benchmarks.carla_drive import DriveConfig
    from drive.cli.closed_loop import named_routes
    from drive.cli.eval import make_planner
    from drive.cli.schema import require_at_least
    from drive.cli.train import SHIPPED
    from drive.core.errors import ConfigError, DriveError
    from drive.core.protocols import PrivilegedPlanner
    from drive.datasets.convert import INDEX, CacheReader
    from drive.datasets.recording import IMAGES
    from drive.planners.pdm import PdmExpert
    from drive.simulators.carla_process import ServerProcess
    from drive.simulators.carla_session import Session

    require_at_least(config, {"count": 1, "max_routes": 0, "vehicles": 0, "walkers": 0, "timeout": 1, "port": 1}, "settings of collect")
    if not 0.0 <= config["share"] <= 1.0:
        raise ConfigError(f"share={config['share']}: give a share from 0 to 1")
    if config["split"] not in ("train", "val"):
        raise ConfigError(f"split={config['split']}: what is learnt from is of train or val")
    routes = named_routes(config["routes"], config["town"], config["max_routes"], config["count"], config["seed"])
    config["checkpoint"] = config["checkpoint"] or SHIPPED
    planner, out = make_planner(config), Path(config["out"])
    student = None if isinstance(planner, PrivilegedPlanner) else planner
    drive = DriveConfig(seed=config["seed"], vehicles=config["vehicles"], walkers=config["walkers"])
    there = {entry.log_id for entry in CacheReader().find(out)} if (out / INDEX).is_file() else set()
    named = {f"{Path(config['routes']).stem}-{config['seed']}-{route.id}".replace(" ", "_"): route for route in routes}
    left = {log_id: route for log_id, route in named.items() if log_id not in there}
    for log_id in left:  # of a collection that was killed
        shutil.rmtree(out / IMAGES / log_id, ignore_errors=True)
    ends: Counter[str] = Counter()
    steps = 0
    server: ServerProcess | None = None
    session: Session | None = None
    try:
        for log_id, route in tqdm(left.items(), desc="drives", initial=len(named) - len(left), total=len(named), dynamic_ncols=True):
            try:
                if session is None:
                    host, port = config["host"], config["port"]
                    if not host:
                        server = ServerProcess(seed=config["seed"], maps=Path(config["maps"]) if config["maps"] else None)
                        server.start()
                        host, port = server.host, server.port
                    session = Session(host, port, timeout_s=float(config["timeout"]))
                done = collect_route(session, route, PdmExpert(), student, config["share"], drive, company, out, log_id, config["split"])
            except (RuntimeError, DriveError) as error:
                if isinstance(error, DriveError) and session is None:  # there is no server to begin with
                    raise
                tqdm.write(f"not driven: route {route.id}: {str(error).removeprefix(f'route {route.id}: ')}")
                ends["not driven"] += 1
                if isinstance(error, RuntimeError) and not isinstance(error, DriveError):  # the client lost its server: begin anew
                    if server is not None:
                        server.stop()
                    server = session = None
                continue
            ends[done.why] += 1
            steps += done.steps
    finally:
        if session is not None:
            session.close()
        if server is not None:
            server.stop()
    told = ", ".join(f"{count} {why}" for why, count in sorted(ends.items()))
    print(f"{len(named) - len(left)} drives there before, {sum(ends.values()) - ends['not driven']} recorded with {steps} steps in {out}{f' ({told})' if told else ''}")
    print(f"learn from them with drive train stage=sft dataset=cache dataset.root={out}")
    return 1 if ends["not driven"] else 0
