"""The file for --agent of CARLA's leaderboard_evaluator.py (2.x) and of Bench2Drive: any planner of drive at the wheel. See docs/carla.md.

It stands alone in its folder because the evaluators put that folder first on the path of modules.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from drive.benchmarks.carla_agent import AgentDriver, agent_settings, metric_folder
from drive.benchmarks.carla_drive import DriveConfig
from drive.benchmarks.carla_motion import MotionLog
from drive.cli.closed_loop import controller_named, latency_of
from drive.cli.config import load_config
from drive.cli.eval import make_planner
from drive.core.errors import ConfigError, DriveError
from drive.simulators.carla_global_plan import GlobalPlan

try:
    from leaderboard.autoagents.autonomous_agent import AutonomousAgent, Track
    from srunner.scenariomanager.carla_data_provider import CarlaDataProvider
except ModuleNotFoundError as error:
    raise DriveError(
        f"drive_agent.py is loaded by CARLA's evaluators, and {error.name} is not on PYTHONPATH: docs/carla.md has the commands"
    ) from error


def get_entry_point() -> str:
    """The class that the evaluators make, once for each route."""
    return "DriveAgent"


@lru_cache(maxsize=1)
def _driver_of(settings: tuple[str, ...]) -> tuple[Any, DriveConfig]:
    """Planner and settings; a checkpoint is read once for all routes."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(load_config("eval", ["benchmark=leaderboard2_ds", *settings]), resolve=True)
    if config["benchmark"]["name"] != "leaderboard2_ds":
        raise ConfigError("--agent-config: leave benchmark out; the evaluator decides what is measured")
    controller = controller_named(config["controller"])
    drive = DriveConfig(latency=latency_of(config["latency"]), run_up=config["run_up"], creep_after=config["creep_after"], controller=controller)
    return make_planner(config), drive


class DriveAgent(AutonomousAgent):
    """See AgentDriver."""

    def setup(self, path_to_conf_file: str) -> None:
        """--agent-config: nothing (the shipped model), a checkpoint or run folder, or a YAML file of drive eval's settings."""
        self.track = Track.SENSORS
        self._driver = AgentDriver(*_driver_of(tuple(agent_settings(path_to_conf_file or ""))))
        self._begun = False
        self._metrics = metric_folder(path_to_conf_file or "", os.environ.get("SAVE_PATH", ""))
        self._motion = MotionLog()

    def set_global_plan(self, global_plan_gps: Any, global_plan_world_coord: Any) -> None:
        """The route, before the evaluator thins it out."""
        super().set_global_plan(global_plan_gps, global_plan_world_coord)
        self._plan = GlobalPlan.read(global_plan_gps, global_plan_world_coord)

    def sensors(self) -> list[dict[str, Any]]:
        """Cameras, and what the car's own motion is told from."""
        return self._driver.sensors()

    def run_step(self, input_data: dict[str, Any], timestamp: float) -> Any:
        """The control of this tick."""
        if not self._begun:
            self._driver.begin(self._plan, CarlaDataProvider.get_hero_actor(), CarlaDataProvider.get_world())
            self._begun = True
        if self._metrics is not None:  # for Bench2Drive's tools: the planner does not see it
            self._motion.note(CarlaDataProvider.get_hero_actor())
        return self._driver.control(input_data)

    def destroy(self) -> None:
        """Let the route go, with its motion written where Bench2Drive looks for it; the planner is kept for the next one."""
        if self._metrics is not None and len(self._motion):
            self._motion.write(self._metrics)
        del self._driver
