"""Bench2Drive's own numbers: success rate, driving efficiency, comfort, and the five abilities.

Source: Thinklab-SJTU/Bench2Drive tools/merge_route_json.py, efficiency_smoothness_benchmark.py and ability_benchmark.py. Quirks are kept,
since published numbers have them: what Bench2Drive calls yaw acceleration is the smoothed yaw rate, so that the bound of 0.95 rules;
the yaw rate comes in degrees per second and is held against bounds in radians per second, after an unwrapping meant for angles;
jerk takes a step of 0.1 s although agents log every 0.05 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from drive.core.errors import DataError
from drive.metrics.carla_records import Infraction, RouteRecord
from drive.metrics.carla_scores import check_records

Array = NDArray[np.float64]
ROUTES = 220  # of both published sets; the denominator, whatever has been driven
FASTEST = 1000.0  # % of the traffic's speed; checkpoints above it are left out
SEGMENT, WINDOW, ORDER, STEP = 20, 7, 2, 0.1  # samples, samples, degree, s
BOUNDS = {  # strict; nuPlan's
    "lon_acceleration": (-4.05, 2.40),  # m/s^2
    "lat_acceleration": (-4.89, 4.89),
    "jerk": (-8.37, 8.37),  # m/s^3
    "lon_jerk": (-4.13, 4.13),
    "yaw_rate": (-0.95, 0.95),  # rad/s by the text, deg/s by the data
}


class Version(str, Enum):
    """Release of ability_benchmark.py; Traffic_Signs and the mean of one are not comparable with those of the other."""

    V0_0_3 = "0.0.3"  # every route of Traffic_Signs counts twice: once by success, once by the junction
    V0_0_4 = "0.0.4"  # once: by success, or else by the junction


SIGNS = (
    "BlockedIntersection", "OppositeVehicleTakingPriority", "OppositeVehicleRunningRedLight", "PedestrianCrossing", "VehicleTurningRoute",
    "VehicleTurningRoutePedestrian", "EnterActorFlow", "CrossingBicycleFlow", "NonSignalizedJunctionLeftTurn",
    "NonSignalizedJunctionRightTurn", "NonSignalizedJunctionLeftTurnEnterFlow", "SignalizedJunctionLeftTurn",
    "SignalizedJunctionRightTurn", "SignalizedJunctionLeftTurnEnterFlow", "T_Junction", "VanillaNonSignalizedTurn",
    "VanillaNonSignalizedTurnEncounterStopsign", "VanillaSignalizedTurnEncounterGreenLight", "VanillaSignalizedTurnEncounterRedLight",
)  # fmt: skip
ABILITIES: Mapping[str, tuple[str, ...]] = {
    "Overtaking": (
        "Accident", "AccidentTwoWays", "ConstructionObstacle", "ConstructionObstacleTwoWays", "HazardAtSideLane",
        "HazardAtSideLaneTwoWays", "ParkedObstacle", "ParkedObstacleTwoWays", "VehicleOpensDoorTwoWays",
    ),
    "Merging": (
        "CrossingBicycleFlow", "EnterActorFlow", "HighwayExit", "HighwayCutIn", "InterurbanActorFlow", "InterurbanAdvancedActorFlow",
        "MergerIntoSlowTraffic", "MergerIntoSlowTrafficV2", "NonSignalizedJunctionLeftTurn", "NonSignalizedJunctionRightTurn",
        "NonSignalizedJunctionLeftTurnEnterFlow", "ParkingExit", "SequentialLaneChange", "SignalizedJunctionLeftTurn",
        "SignalizedJunctionRightTurn", "SignalizedJunctionLeftTurnEnterFlow",
    ),
    "Emergency_Brake": (
        "BlockedIntersection", "DynamicObjectCrossing", "HardBreakRoute", "OppositeVehicleTakingPriority",
        "OppositeVehicleRunningRedLight", "ParkingCutIn", "PedestrianCrossing", "ParkingCrossingPedestrian", "StaticCutIn",
        "VehicleTurningRoute", "VehicleTurningRoutePedestrian", "ControlLoss",
    ),
    "Give_Way": ("InvadingTurn", "YieldToEmergencyVehicle"),
    "Traffic_Signs": SIGNS,
}  # fmt: skip


@dataclass(frozen=True)
class Bench2DriveScore:
    """The headline numbers."""

    routes: int  # scheduled
    records: int
    driving_score: float  # 0..100
    success_rate: float  # 0..1
    efficiency: float  # percent of the traffic's speed, unbounded; NaN where no route has a checkpoint

    @property
    def coverage(self) -> float:
        """Share of the scheduled routes that have a record."""
        return self.records / self.routes


def succeeded(record: RouteRecord) -> bool:
    """Whether the end was reached without any entry but those on speed."""
    return record.reached and not any(messages for key, messages in record.infractions.items() if key != Infraction.MIN_SPEED.value)


def efficiency(record: RouteRecord) -> float | None:
    """Mean of the route's speed percentages up to 1000; None where none is left (upstream stops with an error there)."""
    values = [value for value in record.speeds if value <= FASTEST]
    return sum(values) / len(values) if values else None


def bench2drive_score(records: Sequence[RouteRecord], routes: int = ROUTES) -> Bench2DriveScore:
    """Driving score and success rate over all scheduled routes, efficiency over those with checkpoints. Raises DataError as check_records."""
    check_records(records, routes)
    fast = [value for value in map(efficiency, records) if value is not None]
    return Bench2DriveScore(
        routes,
        len(records),
        sum(record.score_composed for record in records) / routes,
        sum(map(succeeded, records)) / routes,
        sum(fast) / len(fast) if fast else float("nan"),
    )


def comfortness(acceleration: Array, yaw_rate: Array, forward: Array, right: Array) -> float:
    """Share 0..1 of a route's segments of 20 samples that are comfortable; a benchmark's comfort is the mean over its routes.

    acceleration (T, 2) m/s^2, forward and right (T, 2) unit vectors of the car, all in one flat frame; yaw_rate (T,) in degrees per
    second, as CARLA's actors tell it. Raises DataError below three samples.
    """
    if len(acceleration) < 3:
        raise DataError(f"comfort takes at least three samples, got {len(acceleration)}")
    signals = [np.asarray(x, float) for x in (acceleration, yaw_rate, forward, right)]
    if len({len(x) for x in signals}) > 1 or not all(np.isfinite(x).all() for x in signals):
        raise DataError("comfort takes finite signals of one length")
    whole = len(acceleration) // SEGMENT
    parts = [slice(0, None)] if len(acceleration) <= SEGMENT else [slice(i * SEGMENT, (i + 1) * SEGMENT) for i in range(whole)]
    return float(np.mean([_comfortable(*(x[part] for x in signals)) for part in parts]))


def _comfortable(acceleration: Array, yaw_rate: Array, forward: Array, right: Array) -> bool:
    turns = np.concatenate([[0.0], np.cumsum(np.round(np.diff(yaw_rate) / (2.0 * np.pi)))])
    magnitude, along = _smooth(np.hypot(*acceleration.T)), _smooth((acceleration * forward).sum(1))
    signals = {
        "lon_acceleration": along,
        "lat_acceleration": _smooth((acceleration * right).sum(1)),
        "jerk": _smooth(magnitude, 1),
        "lon_jerk": _smooth(along, 1),
        "yaw_rate": _smooth(yaw_rate - 2.0 * np.pi * turns),
    }
    return all(bool(np.all(signal > BOUNDS[name][0]) and np.all(signal < BOUNDS[name][1])) for name, signal in signals.items())


def _smooth(values: Array, derivative: int = 0) -> Array:
    """(T,) Savitzky-Golay filtered, or its rate over STEP."""
    return np.asarray(savgol_filter(values, min(WINDOW, len(values)), ORDER, deriv=derivative, delta=STEP), np.float64)


@dataclass(frozen=True)
class AbilityScore:
    """Passed and counted routes of each ability; one without routes has no rate."""

    version: Version
    counts: Mapping[str, tuple[int, int]]  # ability -> (passed, counted)
    shares: Mapping[str, tuple[float, ...]]  # ability -> 0..1 for each record, NaN for those of other abilities

    def rate(self, ability: str) -> float:
        """0..1; NaN without routes."""
        passed, counted = self.counts[ability]
        return passed / counted if counted else float("nan")

    @property
    def mean(self) -> float:
        """Mean of the five rates; NaN where one has no routes (upstream stops with an error there)."""
        return sum(map(self.rate, self.counts)) / len(self.counts)


def ability_score(records: Sequence[RouteRecord], junctions: Mapping[str, float], version: Version) -> AbilityScore:
    """The five abilities. Routes without a record leave the denominators, as upstream.

    `junctions` maps a route's id to the share of its way at which the first junction counts as passed (`junction_share` of the planned
    route). A route of Traffic_Signs without one is taken to have passed the junction where it was completed, to have failed where it ran
    a light or a stop sign; elsewhere DataError names it.
    """
    check_records(records, max(len(records), 1))
    counts = {name: [0, 0] for name in ABILITIES}
    shares: dict[str, list[float]] = {name: [] for name in ABILITIES}
    for record in records:
        success = succeeded(record)
        for name, kinds in ABILITIES.items():
            share = float("nan")
            if record.scenario in kinds:
                signs = name == "Traffic_Signs"
                passed = _passed_junction(record, junctions) if signs else False
                twice = signs and version is Version.V0_0_3
                points, weight = (success + passed, 2) if twice else (int(success or passed), 1)
                counts[name][0] += points
                counts[name][1] += weight
                share = points / weight
            shares[name].append(share)
    pairs = {name: (passed, counted) for name, (passed, counted) in counts.items()}
    return AbilityScore(version, pairs, {name: tuple(values) for name, values in shares.items()})


def _passed_junction(record: RouteRecord, junctions: Mapping[str, float]) -> bool:
    if record.events(Infraction.STOP_SIGN) or record.events(Infraction.RED_LIGHT):
        return False
    share = junctions.get(record.route)
    if share is not None:
        return record.score_route / 100.0 > share
    if record.score_route < 100.0:
        raise DataError(f"record {record.route_id} ({record.scenario}) was not completed: its ability needs the place of its first junction")
    return True
