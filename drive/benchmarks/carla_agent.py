"""A planner at the wheel of CARLA's evaluators: the loop of carla_drive, turned inside out for those who call once a tick.

What the planner may see decides how the car is read. A Planner gets cameras, and its own motion comes from GNSS, IMU and speedometer, as the
evaluators' SENSORS track allows. A PrivilegedPlanner reads the world, which no submission may: a teacher's number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from drive.benchmarks.carla_drive import Chooser, DriveConfig
from drive.core.errors import ConfigError, DriveError
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.simulators.carla_global_plan import GlobalPlan
from drive.simulators.carla_guest import GuestEgo, GuestSession, SensingEgo, sensors
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.carla_town import ClientTown


class AgentDriver:
    """Drives one route: `begin`, then `control` once a tick."""

    def __init__(self, planner: Planner | PrivilegedPlanner, config: DriveConfig) -> None:
        self.planner, self.config = planner, config
        self.privileged = isinstance(planner, PrivilegedPlanner)
        self.cameras = () if self.privileged else config.cameras
        self._turns: Iterator[None] | None = None

    def sensors(self) -> list[dict[str, Any]]:
        """As the evaluators' agents declare them."""
        return sensors(self.cameras, not self.privileged)

    def begin(self, plan: GlobalPlan, hero: Any, world: Any) -> None:
        """The car's actor and the carla.World; the latter is read for a PrivilegedPlanner alone. Raises DataError where the plan fits no lanes."""
        self.planner.reset()
        self._session = GuestSession(world if self.privileged else None)
        self._town = ClientTown(world) if self.privileged else None
        if self._town is not None:
            self.road_map, self.route = self._town.road_map, plan_route(self._town.road_map, *plan.keypoints())
            self.ego = GuestEgo(self._session, hero, self.cameras)
        else:
            self.road_map, self.route = plan.route()
            self.ego = SensingEgo(self._session, hero, self.cameras, plan)
        self._turns = None

    def control(self, data: dict[str, tuple[int, Any]]) -> Any:
        """The carla.VehicleControl of this tick, from the evaluator's readings. Raises DriveError where the planner fails."""
        self.ego.data = data
        self._session.world.frame = max((frame for frame, _ in data.values()), default=self._session.world.frame + 1)
        self._turns = self._turns or self._loop()
        next(self._turns)
        return self.ego.control

    def _loop(self) -> Iterator[None]:
        """One turn for each tick: as carla_drive._drive, but that the caller ticks."""
        simulator = CarlaSimulator(self._session, self.road_map, self.route, ego=self.ego, controller=self.config.controller)
        chooser = Chooser(simulator, self.planner, self._town, self.config)
        while True:
            plan, latency = chooser.next()
            if plan.trajectory is None:
                raise DriveError(f"{self.planner.name} made no plan at {simulator.time_s:.2f} s: {plan.reasoning or plan.status.value}")
            for _ in simulator.follow(plan, latency):
                yield
                simulator.advance()
            simulator.look()


def metric_folder(agent_config: str, save_path: str) -> Path | None:
    """Where Bench2Drive's tools look for a route's metric_info.json: SAVE_PATH/<save_name>, the name being what its evaluator appended last.

    None where the evaluator appends none, as the leaderboard's own does not, or no SAVE_PATH is set. Raises ConfigError on a name that is none.
    """
    _, plus, name = agent_config.rpartition("+")
    if not plus or not save_path or Path(agent_config).exists():
        return None
    if not name or name == ".." or Path(name).name != name:
        raise ConfigError(f"--agent-config {agent_config}: {name!r} behind the last + is no name of a folder")
    return Path(save_path).expanduser() / name


def agent_settings(path: str) -> list[str]:
    """The `key=value` settings of drive eval in an evaluator's --agent-config: empty, a checkpoint or run folder, or a YAML file of settings.

    Bench2Drive appends "+" and a name for each route. Raises ConfigError where it is none of these.
    """
    while "+" in path and not Path(path).exists():
        path = path.rpartition("+")[0]
    if path in ("", "None"):
        return []
    place = Path(path).expanduser()
    if place.is_dir():
        return ["planner=vla", f"checkpoint={place}"]
    if not place.is_file():
        raise ConfigError(f"--agent-config {path}: neither a folder with a checkpoint nor a YAML file of drive eval's settings")
    try:
        read = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--agent-config {path} is no YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(read, dict) or not read:
        raise ConfigError(f"--agent-config {path}: give settings of drive eval, one a line, as in `planner: vla` or `planner.mode: fast`")
    wrong = [str(key) for key, value in read.items() if isinstance(value, dict | list)]
    if wrong:
        raise ConfigError(f"--agent-config {path}: {', '.join(wrong)}: write sections with dots, as in `planner.mode: fast`")
    return [f"{key}={_word(value)}" for key, value in read.items()]


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
