"""drive data collect: drives of the closed loop as training data."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

SETTINGS = "collect.json"  # in the folder: which settings each drive was made with


def run(config: dict[str, Any]) -> int:
    """Drive the routes and record them; 0 where every one was driven. Drives that are there already are kept."""
    import sys

    from tqdm import tqdm

    from drive.benchmarks.carla_collect import collect_route
    from drive.benchmarks.carla_company import company
    from drive.benchmarks.carla_drive import DriveConfig
    from drive.cli.eval import make_planner
    from drive.core.errors import DataError, DriveError
    from drive.core.files import atomic_write_text
    from drive.core.protocols import PrivilegedPlanner
    from drive.datasets.convert import INDEX, CacheReader
    from drive.datasets.recording import IMAGES
    from drive.planners.pdm import PdmExpert

    named = _drives(config)
    planner, out = make_planner(config), Path(config["out"])
    student = None if isinstance(planner, PrivilegedPlanner) else planner
    drive = DriveConfig(seed=config["seed"], vehicles=config["vehicles"], walkers=config["walkers"])
    made, settings = _made(out), _settings(config)
    there = {entry.log_id for entry in CacheReader().find(out)} if (out / INDEX).is_file() else set()
    made |= dict.fromkeys(there - set(made), settings)  # killed before its settings were noted
    for log_id in named:
        if log_id in made and made[log_id] != settings:
            raise DataError(f"{out} holds drive {log_id}, made with other settings: choose another seed= or out=")
    left = {log_id: route for log_id, route in named.items() if log_id not in made}
    ends: Counter[str] = Counter()
    steps = unanswered = 0
    link = _Link(config)
    try:
        for log_id, route in tqdm(left.items(), desc="drives", initial=len(named) - len(left), total=len(named), dynamic_ncols=True):
            shutil.rmtree(out / IMAGES / log_id, ignore_errors=True)  # of a drive that was killed
            try:
                done = collect_route(link.session(), route, PdmExpert(), student, config["share"], drive, company, out, log_id, config["split"])
            except (RuntimeError, DriveError) as error:
                if not link.met:
                    raise
                shutil.rmtree(out / IMAGES / log_id, ignore_errors=True)
                tqdm.write(f"not driven: route {route.id}: {str(error).removeprefix(f'route {route.id}: ')}", file=sys.stderr)
                ends["not driven"] += 1
                if not isinstance(error, DataError):  # the server may be gone, or hang: begin anew
                    link.close()
                continue
            made[log_id] = settings
            atomic_write_text(out / SETTINGS, json.dumps(made, indent=1, sort_keys=True) + "\n")
            ends[done.why] += 1
            steps, unanswered = steps + done.steps, unanswered + done.unanswered
    finally:
        link.close()
    told = ", ".join(f"{count} {why}" for why, count in sorted(ends.items()))
    print(f"{len(named) - len(left)} drives there before, {sum(ends.values()) - ends['not driven']} recorded with {steps} steps in {out}{f' ({told})' if told else ''}")
    if unanswered:
        print(f"{unanswered} times the planner gave no plan, and the teacher drove on")
    print(f"learn from them with drive train stage=sft dataset=cache dataset.root={out}")
    return 1 if ends["not driven"] else 0


class _Link:
    """The server, ours or one that is there, and a session with it: made when first asked for, and again after `close`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config, self._server, self._session = config, None, None
        self.met = False  # whether there ever was a server

    def session(self) -> Any:
        """The session. Raises DriveError where there is no server."""
        from drive.simulators.carla_process import ServerProcess
        from drive.simulators.carla_session import Session

        if self._session is None:
            config = self._config
            host, port = config["host"], config["port"]
            if not host:
                self._server = ServerProcess(seed=config["seed"], maps=Path(config["maps"]) if config["maps"] else None)
                self._server.start()
                host, port = self._server.host, self._server.port
            self._session = Session(host, port, timeout_s=float(config["timeout"]))
            self.met = True
        return self._session

    def close(self) -> None:
        """Give the world back as it was; end our own server."""
        if self._session is not None and (self._server is None or self._server.alive):
            self._session.close()
        if self._server is not None:
            self._server.stop()
        self._server = self._session = None


def _drives(config: dict[str, Any]) -> dict[str, Any]:
    """The routes by the names of their logs. Raises ConfigError on settings that cannot be, DataError on two routes of one name."""
    from drive.benchmarks.carla_routes import plain
    from drive.cli.closed_loop import named_routes
    from drive.cli.schema import require_at_least
    from drive.core.errors import ConfigError, DataError
    from drive.simulators.towns import TOWN_SPLITS

    require_at_least(config, {"count": 1, "max_routes": 0, "vehicles": 0, "walkers": 0, "timeout": 1, "port": 1}, "settings of collect")
    if not 0.0 <= config["share"] <= 1.0:
        raise ConfigError(f"share={config['share']}: give a share from 0 to 1")
    if config["split"] not in ("train", "val"):
        raise ConfigError(f"split={config['split']}: what is learnt from is of train or val")
    routes = named_routes(config["routes"], config["town"], config["max_routes"], config["count"], config["seed"])
    kept = [split for split in TOWN_SPLITS if split != "train" and split != config["split"]]
    for route in routes:
        if any(route.town in TOWN_SPLITS[split] for split in kept):
            raise ConfigError(f"route {route.id} is of {route.town}, a town that is kept from split={config['split']}: models are judged there")
    named = {plain(f"{Path(config['routes']).stem}-{config['seed']}-{route.id}"): route for route in routes}
    if len(named) < len(routes):
        raise DataError(f"routes={config['routes']}: two routes have one id")
    return named


def _settings(config: dict[str, Any]) -> str:
    """What decides how a drive goes, besides its name."""
    from drive.cli.closed_loop import identity_of

    return json.dumps([identity_of(config), *(config[key] for key in ("routes", "share", "split", "vehicles", "walkers"))])


def _made(out: Path) -> dict[str, str]:
    """The settings of the drives that are there, by the names of their logs. Raises DataError where the file is torn."""
    from drive.core.errors import DataError

    path = out / SETTINGS
    if not path.is_file():
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}): collect into another folder") from error
