"""Who else is on a route: background traffic, walkers, and the route's scenarios."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.benchmarks.carla_drive import DriveConfig, tell
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
    watched: list[tuple[bool, bool]] = field(default_factory=list)  # blocking, wrong side: tick by tick of the recording
    timeouts: list[int] = field(default_factory=list)  # ticks
    poses: list[list[NDArray[np.float64]]] = field(default_factory=list)  # of each emergency vehicle, from its own first tick on
    starts: list[int] = field(default_factory=list)  # those ticks

    def _view(self) -> EgoView:
        simulator = self.simulator
        return EgoView(simulator.state, simulator.ego.vehicle, simulator.route, simulator.route_index)

    def before_tick(self) -> None:
        """Move everybody for the tick to come."""
        self.traffic.before_tick(self._view())
        self.simulator.ego.noise = self.runner.noise

    def note(self) -> bool:
        """Take down, for a tick of the recording, what scenarios do to the judge; whether it looks for a blocked car now."""
        tick, fleet = len(self.watched), self.traffic.traffic.fleet
        self.watched.append(self.runner.watched)
        self.timeouts += [tick] * (self.runner.timeouts - len(self.timeouts))
        for k, emergency in enumerate(self.runner.emergencies):
            if k == len(self.poses):
                self.poses.append([])
                self.starts.append(tick)
            if emergency.going:
                row = emergency.row
                self.poses[k].append(np.array([fleet.x[row], fleet.y[row], fleet.heading[row]]))
        return self.watched[-1][0]

    def told(self) -> dict[str, Any]:
        """What was noted, by the names of a RollOut."""
        emergencies = []
        for first, rows in zip(self.starts, self.poses):
            if rows:
                poses = np.full((len(self.watched), 3), np.nan)
                poses[first : first + len(rows)] = rows
                emergencies.append((poses, first + len(rows) - 1))
        blocking, side = np.array(self.watched, bool).reshape(-1, 2).T
        return {
            "blocking_watched": blocking,
            "side_watched": side,
            "emergencies": tuple(emergencies),
            "scenario_timeouts": tuple(self.timeouts),
        }

    def mean_speed(self) -> float:
        """m/s of the traffic; NaN where there is none."""
        speeds = self.traffic.speeds()
        return float(np.mean(speeds)) if len(speeds) else float("nan")

    def close(self) -> None:
        """Take everybody away; scenarios that were not played are told."""
        for name in self.runner.missing():
            tell(f"scenario not played: {name}")
        self.traffic.close()


def company(session: Session, town: ClientTown, simulator: CarlaSimulator, route: CarlaRoute, config: DriveConfig) -> Company:
    """Traffic of `config` and the scenarios of `route`, placed by the route's own seed."""
    seed = stream(config.seed, "carla-route", route.id)
    specs, off = specs_on_route(simulator.route, route.scenarios)
    for name in off:
        tell(f"scenario not played: {name} lies off the route")
    runner = ScenarioRunner(specs, seed)
    traffic = CarlaTraffic(town.road_map, TrafficSettings(vehicles=config.vehicles, walkers=config.walkers), seed, [runner])
    made = Company(traffic, runner, simulator)
    traffic.start(session, made._view())
    return made
