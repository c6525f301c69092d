"""Routes through the embedded towns, by seed: no file to download, and the test town is one that no shipped model has seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from drive.core.errors import DataError
from drive.core.seeds import numpy_rng
from drive.simulators.carla_routes import CarlaRoute, CarlaScenario, RouteSet
from drive.simulators.carla_scenario_part import ScenarioSpec
from drive.simulators.carla_scenario_ways import Ways
from drive.simulators.carla_scenarios import KINDS, kind_of
from drive.simulators.routes import Route, sample_route
from drive.simulators.towns import load_town, town_names
from drive.simulators.traffic_graph import build_graph

COUNT, LENGTH, EVERY = 24, (300.0, 600.0), 30  # routes, m, m between keypoints
PASSED_BESIDE = ("ParkedObstacle", "ConstructionObstacle")  # what stands in the lane: passed in the next lane of the same direction alone
ROOM_M = (35.0, 20.0)  # m before it and behind its end with that lane and without a junction
FREE_M = 30.0  # m from the start without a junction: planners that learnt from drives in motion are brought to speed there
SCENARIOS = (  # one for each route in turn, none for every fourth
    "",
    "HardBreakRoute",
    "StaticCutIn",
    "DynamicObjectCrossing",
    "",
    "ParkedObstacle",
    "SignalizedJunctionLeftTurn",
    "OppositeVehicleRunningRedLight",
    "",
    "ConstructionObstacle",
    "MergerIntoSlowTraffic",
    "PedestrianCrossing",
)
TRIGGER, BETWEEN = (0.25, 0.6), 5  # share of the route at which a scenario begins; path points between places that are looked at
BEFORE_JUNCTION = 25.0  # m that a scenario of a junction begins before it at least
TRIES = 400  # routes looked at for one on which its scenario has room


def embedded_routes(split: str, count: int = COUNT, seed: int = 0) -> RouteSet:
    """`count` routes of 300 to 600 m in the towns of `split` (train, val or test), each with room for its scenario."""
    towns = town_names(split)
    routes = []
    for k in range(count):
        rng = numpy_rng(seed, "carla-routes", split, k)
        town, kind = towns[k % len(towns)], SCENARIOS[k % len(SCENARIOS)]
        road_map = load_town(town)
        ways = _ways(town)
        if kind in PASSED_BESIDE and not _roomy(ways, kind):
            kind = "HardBreakRoute"
        for _ in range(TRIES):
            route = sample_route(road_map, rng, float(rng.uniform(*LENGTH)))
            index = None if route.is_connector[route.s < FREE_M].any() else _trigger(kind, route, ways, rng) if kind else 0
            if index is not None:
                break
        else:
            raise DataError(f"{town} has no route with room for {kind}")
        path = route.path
        rows = path[np.unique(np.r_[np.arange(0, len(path) - 1, EVERY), len(path) - 1])]
        keypoints = np.column_stack([rows[:, 0], -rows[:, 1], np.zeros(len(rows))]).round(3)
        at = path[index]
        trigger = np.array([at[0], -at[1], 0.0, -np.degrees(at[2])]).round(3)
        scenarios = (CarlaScenario(f"{kind}_{k}", kind, trigger, ()),) if kind else ()
        routes.append(CarlaRoute(f"{split}-{k:02d}", town, keypoints, None, scenarios, ()))
    return RouteSet(f"embedded_{split}", tuple(routes))


@lru_cache(maxsize=8)
def _ways(town: str) -> Ways:
    road_map = load_town(town)
    return Ways(road_map, *build_graph(road_map))


def _roomy(ways: Ways, kind: str) -> set[str]:
    """Lanes on which such an obstacle can stand and be passed."""
    length = KINDS[kind_of(kind) or ""].length_m + sum(ROOM_M)  # type: ignore[attr-defined]
    return {k for k, lane in ways.road_map.lanes.items() if lane.left_neighbor and not lane.is_connector and lane.length > length}


def _trigger(kind: str, route: Route, ways: Ways, rng: np.random.Generator) -> int | None:
    """Path point at which the scenario begins: one drawn, or the nearest one to it with room; None where there is none."""
    if kind in PASSED_BESIDE and not _roomy(ways, kind).intersection(route.lane_ids):
        return None
    first, drawn, last = (int(share * len(route)) for share in (TRIGGER[0], rng.uniform(*TRIGGER), TRIGGER[1]))
    places = sorted([drawn, *range(first, last, BETWEEN)], key=lambda k: abs(k - drawn))
    return next((k for k in places if _fits(kind, route, k, ways)), None)


def _fits(kind: str, route: Route, index: int, ways: Ways) -> bool:
    """Whether the scenario has room where it begins at path point `index`, on a road outside junctions."""
    spec, part = ScenarioSpec(kind, kind, float(route.s[index])), KINDS[kind_of(kind) or ""]
    s = spec.trigger_s
    if route.is_connector[index] or part.fits(spec, route, ways) is not None:
        return False
    if kind in PASSED_BESIDE:
        spot = part.spot(spec, route, ways)  # type: ignore[attr-defined]  # both are obstacles
        ends = spot - ROOM_M[0], spot + part.length_m + ROOM_M[1]  # type: ignore[attr-defined]
        lanes = [ways.lane_at(route, end) for end in ends]
        junction = route.is_connector[(route.s > ends[0]) & (route.s < ends[1])].any()
        return not junction and all(k is not None and k[0].left_neighbor for k in lanes)
    crossed = ways.crossed(route, s)
    junction = kind in ("SignalizedJunctionLeftTurn", "OppositeVehicleRunningRedLight")
    return not junction or (crossed is not None and crossed[1] - s >= BEFORE_JUNCTION)
