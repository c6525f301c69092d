"""Scenarios on a route in CARLA: each waits for the ego, plays its part among the traffic, ends and cleans up.

The types are those of CARLA's leaderboard 2.0 and of Bench2Drive (scenario_runner, srunner/scenarios); the parts are our own
and of the same kind, not of the same code: where and how fast actors move differs, so that scores are not comparable actor for actor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import wrap_angle
from drive.core.seeds import numpy_rng
from drive.simulators.carla_scenario_bicycles import BicycleFlow, SideHazard
from drive.simulators.carla_scenario_crossing import BicycleCrossing, Crossing
from drive.simulators.carla_scenario_flows import CrossingFlow, MergingFlow, RedLightRunner
from drive.simulators.carla_scenario_lanes import ControlLoss, EmergencyVehicle, InvadingFlow
from drive.simulators.carla_scenario_obstacles import BlockedExit, Construction, OpenDoor, ParkedObstacle
from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_stage import Stage
from drive.simulators.carla_scenario_vehicles import CutIn, HardBrake
from drive.simulators.carla_traffic import CarlaTraffic, EgoView
from drive.simulators.routes import Route

__all__ = ["KINDS", "NOT_PLAYED", "NO_ACTORS", "Emergency", "Event", "Phase", "ScenarioRunner", "ScenarioSpec", "kind_of", "specs_on_route"]

Array = NDArray[np.float64]
AHEAD_M = 80.0  # m before its trigger at which a scenario's actors appear
TRIGGER_M = 2.0  # m before the trigger point at which it acts, scenario_runner's threshold
RETRY_S = 0.5  # s after which a place without room is looked at again
TIMEOUT_S = 240.0  # s after its trigger at which a scenario of TIMED times out, in scenario_runner
OFF_ROUTE_M = 8.0  # m from the route beyond which a trigger point belongs to another one

KINDS: dict[str, type[Part]] = {
    "hard_brake": HardBrake,
    "cut_in": CutIn,
    "pedestrian_crossing": Crossing,
    "parked_obstacle": ParkedObstacle,
    "opposite_traffic": CrossingFlow,
    "red_light_runner": RedLightRunner,
    "construction": Construction,
    "merging": MergingFlow,
    "bicycle_crossing": BicycleCrossing,
    "bicycle_flow": BicycleFlow,
    "side_hazard": SideHazard,
    "blocked_exit": BlockedExit,
    "open_door": OpenDoor,
    "invading_flow": InvadingFlow,
    "emergency_vehicle": EmergencyVehicle,
    "control_loss": ControlLoss,
}
TYPES = {  # of leaderboard 2.0 and Bench2Drive
    "HardBreakRoute": "hard_brake",
    "HighwayCutIn": "cut_in",
    "StaticCutIn": "cut_in",
    "ParkingCutIn": "cut_in",
    "DynamicObjectCrossing": "pedestrian_crossing",
    "PedestrianCrossing": "pedestrian_crossing",
    "ParkingCrossingPedestrian": "pedestrian_crossing",
    "VehicleTurningRoutePedestrian": "pedestrian_crossing",
    "ParkedObstacle": "parked_obstacle",
    "ParkedObstacleTwoWays": "parked_obstacle",
    "Accident": "parked_obstacle",
    "AccidentTwoWays": "parked_obstacle",
    "SignalizedJunctionLeftTurn": "opposite_traffic",
    "NonSignalizedJunctionLeftTurn": "opposite_traffic",
    "OppositeVehicleRunningRedLight": "red_light_runner",
    "OppositeVehicleTakingPriority": "red_light_runner",
    "ConstructionObstacle": "construction",
    "ConstructionObstacleTwoWays": "construction",
    "SignalizedJunctionRightTurn": "merging",
    "NonSignalizedJunctionRightTurn": "merging",
    "SignalizedJunctionLeftTurnEnterFlow": "merging",
    "NonSignalizedJunctionLeftTurnEnterFlow": "merging",
    "EnterActorFlow": "merging",
    "InterurbanActorFlow": "merging",
    "InterurbanAdvancedActorFlow": "merging",
    "MergerIntoSlowTraffic": "merging",
    "MergerIntoSlowTrafficV2": "merging",
    "HighwayExit": "merging",
    "VehicleTurningRoute": "bicycle_crossing",
    "CrossingBicycleFlow": "bicycle_flow",
    "HazardAtSideLane": "side_hazard",
    "HazardAtSideLaneTwoWays": "side_hazard",
    "BlockedIntersection": "blocked_exit",
    "VehicleOpensDoorTwoWays": "open_door",
    "InvadingTurn": "invading_flow",
    "YieldToEmergencyVehicle": "emergency_vehicle",
    "ControlLoss": "control_loss",
}
NOT_PLAYED = {"ParkingExit": "the car would have to start on a parking lane, and drive's maps have driving lanes only"}
UNTIMED = frozenset(  # without ScenarioTimeout in scenario_runner
    {
        *("HardBreakRoute", "HighwayCutIn", "StaticCutIn", "ParkingCutIn", "DynamicObjectCrossing", "PedestrianCrossing"),
        *("ParkingCrossingPedestrian", "VehicleTurningRoutePedestrian", "VehicleTurningRoute", "ControlLoss"),
        *("OppositeVehicleRunningRedLight", "OppositeVehicleTakingPriority", "YieldToEmergencyVehicle"),
    }
)
TIMED = frozenset(TYPES) - UNTIMED
NO_ACTORS = frozenset(  # the route itself is the task: lights, signs, lane changes
    {
        "PriorityAtJunction",
        "SequentialLaneChange",
        "T_Junction",
        "VanillaNonSignalizedTurn",
        "VanillaNonSignalizedTurnEncounterStopsign",
        "VanillaSignalizedTurnEncounterGreenLight",
        "VanillaSignalizedTurnEncounterRedLight",
    }
)


class Phase(Enum):
    """Of one scenario."""

    WAITING = "waiting"
    PLACED = "placed"
    RUNNING = "running"
    ENDED = "ended"
    NO_ROOM = "no room"
    UNKNOWN = "unknown"
    NO_ACTORS = "no actors"


@dataclass(frozen=True)
class Event:
    """What became of a scenario, and when."""

    tick: int
    name: str
    type: str
    phase: Phase
    why: str = ""


@dataclass
class Emergency:
    """An emergency vehicle behind the ego."""

    row: int  # of the traffic
    going: bool = True  # until its scenario ends


class Listed(Protocol):
    """A scenario as a route file lists it; drive.simulators.carla_routes.CarlaScenario is one."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def trigger(self) -> Array: ...
    @property
    def parameters(self) -> Sequence[tuple[str, Mapping[str, str]]]: ...


def kind_of(scenario_type: str) -> str | None:
    """Our kind for a type of a benchmark, or for a kind's own name; None where we have none."""
    return scenario_type if scenario_type in KINDS else TYPES.get(scenario_type)


def specs_on_route(route: Route, listed: Sequence[Listed]) -> tuple[list[ScenarioSpec], list[str]]:
    """The scenarios of a route file (triggers x, y, z, yaw in CARLA's frame) along `route`; the names of those that lie off it."""
    specs, off = [], []
    for item in listed:
        x, y, yaw = float(item.trigger[0]), -float(item.trigger[1]), -np.radians(float(item.trigger[3]))
        gap = np.hypot(route.path[:, 0] - x, route.path[:, 1] - y) + 2.0 * np.abs(wrap_angle(route.path[:, 2] - yaw))
        at = int(np.argmin(gap))
        if np.hypot(route.path[at, 0] - x, route.path[at, 1] - y) > OFF_ROUTE_M:
            off.append(item.name)
            continue
        values = {tag if key == "value" else f"{tag}.{key}": text for tag, found in item.parameters for key, text in found.items()}
        specs.append(ScenarioSpec(item.name, item.type, float(route.s[at]), values))
    return sorted(specs, key=lambda spec: spec.trigger_s), off


@dataclass
class _Running:
    spec: ScenarioSpec
    phase: Phase
    part: Part | None = None
    stage: Stage | None = None
    look_again: int = 0  # tick from which a place without room is looked at again


class ScenarioRunner:
    """A Script of CarlaTraffic: the scenarios of one route. What becomes of each stands in `events`."""

    def __init__(self, specs: Sequence[ScenarioSpec], seed: int) -> None:
        self.events: list[Event] = []
        self.noise = (0.0, 0.0)  # on the ego's throttle and wheel, this tick
        self.emergencies: list[Emergency] = []
        self.timeouts = 0  # scenarios that have timed out
        self._seed, self._tick = seed, 0
        self._all = [_Running(spec, Phase.WAITING) for spec in specs]

    @property
    def phases(self) -> dict[str, Phase]:
        """Of each scenario by name."""
        return {item.spec.name: item.phase for item in self._all}

    def missing(self) -> list[str]:
        """One line for each scenario that was not played: unknown types and those without room."""
        said = {Phase.UNKNOWN, Phase.NO_ROOM}
        return [f"{e.name} ({e.type}): {e.phase.value}{': ' + e.why if e.why else ''}" for e in self.events if e.phase in said]

    def _to(self, item: _Running, phase: Phase, why: str = "") -> None:
        item.phase = phase
        self.events.append(Event(self._tick, item.spec.name, item.spec.type, phase, why))

    def start(self, traffic: CarlaTraffic, ego: EgoView) -> None:
        """Say which types are unknown."""
        self._traffic = traffic
        for item in self._all:
            if item.spec.type in NO_ACTORS:
                self._to(item, Phase.NO_ACTORS)
            elif kind_of(item.spec.type) is None:
                self._to(item, Phase.UNKNOWN, NOT_PLAYED.get(item.spec.type, "no kind of ours plays this type"))

    def before_step(self, ego: EgoView) -> list[Any]:
        """Place, trigger and end; then each part's own orders."""
        commands: list[Any] = []
        self.noise = (0.0, 0.0)
        for item in self._all:
            at = item.spec.trigger_s
            if item.phase == Phase.WAITING and ego.route_s > at - AHEAD_M and self._tick >= item.look_again:
                self._place(item, ego, ego.route_s > at - TRIGGER_M)
            if item.phase == Phase.PLACED and ego.route_s > at - TRIGGER_M:
                commands += self._begin(item, ego)
            if item.phase in (Phase.PLACED, Phase.RUNNING) and item.part and item.stage:
                item.stage.sense()
                commands += item.part.before_step(ego, item.phase == Phase.RUNNING)
                self.noise = (self.noise[0] + item.part.noise[0], self.noise[1] + item.part.noise[1])
                if item.phase == Phase.RUNNING:
                    commands += self._end(item, ego)
        self._tick += 1
        return commands

    def _begin(self, item: _Running, ego: EgoView) -> list[Any]:
        """Start a scenario that was placed; the commands that take it away where there is no room for what comes now."""
        assert item.part is not None and item.stage is not None
        why = item.part.begin(ego)
        if why is not None:
            self._to(item, Phase.NO_ROOM, why)
            return item.part.close() + item.stage.close()
        self._to(item, Phase.RUNNING)
        if item.part.emergency is not None:
            self.emergencies.append(Emergency(item.part.emergency))
        return []

    def _end(self, item: _Running, ego: EgoView) -> list[Any]:
        """The commands that take a running scenario away where it is over, or where its time is."""
        assert item.part is not None and item.stage is not None
        late = item.spec.type in TIMED and item.part.seconds > TIMEOUT_S
        if not late and not item.part.over(ego):
            return []
        self.timeouts += late
        for emergency in self.emergencies:
            emergency.going = emergency.going and emergency.row != item.part.emergency
        self._to(item, Phase.ENDED, "timed out" if late else "")
        return item.part.close() + item.stage.close()

    @property
    def watched(self) -> tuple[bool, bool]:
        """Whether the judge looks for a blocked car, and for one on the wrong side of the road: scenarios switch both off."""
        types = [item.spec.type for item in self._all if item.phase == Phase.RUNNING]
        return not TIMED.intersection(types), not any(name.endswith("TwoWays") for name in types)

    def _place(self, item: _Running, ego: EgoView, last: bool) -> None:
        """Put its actors up; where there is no room, try again later, until it is the `last` time."""
        kind = kind_of(item.spec.type)
        if kind is None:
            return
        rng = numpy_rng(self._seed, "carla-scenario", item.spec.name)
        item.stage = Stage(self._traffic, rng)
        item.part = KINDS[kind](item.spec, item.stage)
        try:
            why = item.part.place(ego)
        except (ValueError, IndexError, ZeroDivisionError) as error:  # figures of a route file that no scenario can have
            why, last = f"its figures make no scenario ({error})", True
        if why is None:
            self._to(item, Phase.PLACED)
            return
        self._traffic.session.client.apply_batch_sync(item.stage.close(), False)
        item.look_again = self._tick + round(RETRY_S / self._traffic.session.dt)
        if last:
            self._to(item, Phase.NO_ROOM, why)

    def after_step(self, ego: EgoView) -> list[Any]:
        """What parts move themselves."""
        live = (Phase.PLACED, Phase.RUNNING)
        return [c for item in self._all if item.phase in live and item.part for c in item.part.after_step(ego, item.phase == Phase.RUNNING)]

    def close(self) -> list[Any]:
        """The commands that take all actors away."""
        commands = []
        for item in self._all:
            if item.phase in (Phase.PLACED, Phase.RUNNING) and item.part and item.stage:
                commands += item.part.close() + item.stage.close()
                self._to(item, Phase.ENDED, "the drive ended")
        return commands
