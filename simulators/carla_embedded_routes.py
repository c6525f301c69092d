"""Routes through the embedded towns, by seed: no file to download, and the test town is one that no shipped model has seen."""

from __future__ import annotations

import numpy as np

from drive.core.seeds import numpy_rng
from drive.simulators.carla_routes import CarlaRoute, CarlaScenario, RouteSet
from drive.simulators.routes import sample_route
from drive.simulators.towns import load_town, town_names

COUNT, LENGTH, EVERY = 24, (300.0, 600.0), 30  # routes, m, m between keypoints
PASSED_BESIDE = ("ParkedObstacle", "ConstructionObstacle")  # what stands in the lane: passed in the next lane of the same direction alone
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
TRIGGER = (0.25, 0.6)  # share of the route at which a scenario begins


def embedded_routes(split: str, count: int = COUNT, seed: int = 0) -> RouteSet:
    """`count` routes of 300 to 600 m in the towns of `split` (train, val or test)."""
    towns = town_names(split)
    routes = []
    for k in range(count):
        rng = numpy_rng(seed, "carla-routes", split, k)
        town = towns[k % len(towns)]
        route = sample_route(load_town(town), rng, float(rng.uniform(*LENGTH)))
        path = route.path
        rows = path[np.unique(np.r_[np.arange(0, len(path) - 1, EVERY), len(path) - 1])]
        keypoints = np.column_stack([rows[:, 0], -rows[:, 1], np.zeros(len(rows))]).round(3)
        kind, index = SCENARIOS[k % len(SCENARIOS)], int(rng.uniform(*TRIGGER) * len(path))
        ahead = route.lane_id(min(index + 30, len(path) - 1))
        if kind in PASSED_BESIDE and not load_town(town).lanes[ahead].left_neighbor:
            kind = "HardBreakRoute"
        at = path[index]
        trigger = np.array([at[0], -at[1], 0.0, -np.degrees(at[2])]).round(3)
        scenarios = (CarlaScenario(f"{kind}_{k}", kind, trigger, ()),) if kind else ()
        routes.append(CarlaRoute(f"{split}-{k:02d}", town, keypoints, None, scenarios, ()))
    return RouteSet(f"embedded_{split}", tuple(routes))
