"""Who else is on a route: background traffic, walkers, and the route's scenarios."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from drive.benchmarks.carla_drive import DriveConfig
from drive.core.seeds import stream
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.carla_scenarios import ScenarioRunner, specs_on_route
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.carla_town import ClientTown
from drive.simulators.carla_traffic import CarlaTraffic, EgoView, TrafficSettings


@dataclass
class Company:
    """Traffic and scenarios of one drive."""

    traffic: CarlaTraffic
    runner: ScenarioRunner
    simulator: CarlaSimulator

    def _view(self) -> EgoView:
        simulator = self.simulator
        return EgoView(simulator.state, simulator.ego.vehicle, simulator.route, simulator.route_index)

    def before_tick(self) -> None:
        """Move everybody for the tick to come."""
        self.traffic.before_tick(self._view())

    def mean_speed(self) -> float:
        """m/s of the traffic; NaN where there is none."""
        speeds = self.traffic.speeds()
        return float(np.mean(speeds)) if len(speeds) else float("nan")

    def close(self) -> None:
        """Take everybody away; scenarios that were not played are told."""
        for name in self.runner.missing():
            tqdm.write(f"scenario not played: {name}")
        self.traffic.close()


def company(session: Session, town: ClientTown, simulator: CarlaSimulator, route: CarlaRoute, config: DriveConfig) -> Company:
    """Traffic of `config` and the scenarios of `route`, placed by the route's own seed."""
    seed = stream(config.seed, "carla-route", route.id)
    specs, off = specs_on_route(simulator.route, route.scenarios)
    for name in off:
        tqdm.write(f"scenario not played: {name} lies off the route")
    runner = ScenarioRunner(specs, seed)
    traffic = CarlaTraffic(town.road_map, TrafficSettings(vehicles=config.vehicles, walkers=config.walkers), seed, [runner])
    made = Company(traffic, runner, simulator)
    traffic.start(session, made._view())
    return made
