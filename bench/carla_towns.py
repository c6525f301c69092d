"""Route following in CARLA's towns, on our server through the official client: how far from the lane's centre the car strays.

    python bench/carla_towns.py --maps FOLDER                           # all towns of the folder, 20 routes each
    python bench/carla_towns.py --maps FOLDER --routes 5 Town01 Town02

Routes join two of the town's spawn points, drawn by seed, by the shortest way. Nobody else is on the road, and lights are not heeded. The error of a
tick is the distance of the actor's origin, the middle of the car, from the planned path: the lanes' centres, and a smooth blend where the
route changes lanes. All ticks count, from the first to the last.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose, project
from drive.core.seeds import numpy_rng
from drive.planners.route_follower import RouteFollower
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.carla_town import ClientTown
from drive.simulators.routes import Route

Array = NDArray[np.float64]
SHORTEST, LONGEST = 300.0, 1200.0  # m of a route
LOST = 5.0  # m from the path at which a drive is given up
SLOWEST = 2.0  # m/s on average; a slower drive is given up
END = 5.0  # m before the end at which a route is done
BAR = 0.5  # m, of the error that 95 % of the ticks stay below
TIMEOUT = 600.0  # s of an answer of the server, on a busy machine too
HEAD = "| town | routes ended | km | lane changes | error p50, m | p95 | worst route's p95 | max | mean speed, m/s | ticks/s | wall, s |"


@dataclass(frozen=True)
class Driven:
    """One route."""

    start: tuple[float, float]  # m, CARLA's frame
    end: tuple[float, float]
    length: float  # m
    changes: int
    ended: bool
    collisions: int
    errors: Array  # (T,) m
    seconds: float  # of the world
    wall: float


@dataclass(frozen=True)
class Row:
    """One town."""

    town: str
    ended: int
    routes: int
    km: float
    changes: int
    p50: float
    p95: float
    worst: float  # p95 of the worst route
    most: float
    speed: float  # m/s
    rate: float  # ticks/s
    wall: float  # s

    @property
    def good(self) -> bool:
        """Whether every route ended and the error is below the bar."""
        return self.ended == self.routes and self.p95 < BAR

    def __str__(self) -> str:
        figures = f"{self.p50:.3f} | {self.p95:.3f} | {self.worst:.3f} | {self.most:.2f} | {self.speed:.1f} | {self.rate:.0f} | {self.wall:.0f}"
        return f"| {self.town} | {self.ended} of {self.routes} | {self.km:.1f} | {self.changes} | {figures} |"


def draw(town: ClientTown, count: int, seed: int) -> list[Route]:
    """`count` routes between spawn points, SHORTEST to LONGEST m long. Raises DataError where the town has too few."""
    rng, spots = numpy_rng(seed, "carla-towns", town.name), town.carla_map.get_spawn_points()
    found: list[Route] = []
    for _ in range(100 * count):
        if len(found) == count:
            return found
        ends = [spots[k] for k in rng.choice(len(spots), 2, replace=False)]
        points = np.array([(spot.location.x, spot.location.y) for spot in ends])
        try:
            route = plan_route(town.road_map, points, np.array([spot.rotation.yaw for spot in ends]))
        except DataError:  # no way from one to the other
            continue
        if SHORTEST <= route.length <= LONGEST:
            found.append(route)
    raise DataError(f"{town.name} has not {count} routes of {SHORTEST:g} to {LONGEST:g} m among {100 * count} pairs of spawn points")


def drive(session: Session, town: ClientTown, route: Route) -> Driven:
    """Follow `route` until it ends, or the car is lost."""
    began = time.perf_counter()
    x, y = route.path[0, :2].tolist()
    height = town.height(x, y, session.carla)
    simulator, planner = CarlaSimulator(session, town.road_map, route, height=height), RouteFollower()
    middle, errors = np.array([simulator.ego.rear, 0.0, 0.0]), []
    longest = route.length / SLOWEST
    while simulator.time_s < longest and simulator.route_s <= route.length - END and max(errors, default=0.0) < LOST:
        for _ in simulator.follow(planner.plan_privileged([simulator.privileged()])[0]):
            simulator.advance()
            errors.append(_error(route, compose(simulator.state[:3], middle), simulator.route_index))
    hits = len({other for _, other, _, _ in simulator.ego.collisions})
    session.clear()
    changes = sum(b not in town.road_map.lanes[a].successors for a, b in zip(route.lane_ids, route.lane_ids[1:]))
    ended = simulator.route_s > route.length - END and max(errors) < LOST
    ends = [(float(pose[0]), float(-pose[1])) for pose in (route.path[0], route.path[-1])]
    return Driven(ends[0], ends[1], route.length, changes, ended, hits, np.array(errors), simulator.time_s, time.perf_counter() - began)


def _error(route: Route, pose: Array, index: int) -> float:
    near = route.path[max(index - 5, 0) : index + 10, :2]
    return abs(project(near, pose[:2])[1])


def measure(session: Session, name: str, count: int, seed: int, tell: bool = False) -> Row:
    """Drive `count` routes of a town."""
    session.load(name)
    town = ClientTown(session.world)
    driven = []
    for number, route in enumerate(draw(town, count, seed)):
        driven.append(one := drive(session, town, route))
        if tell or not one.ended or one.collisions:
            worst = int(np.argmax(one.errors))
            print(
                f"{name} {number}: {one.start} to {one.end}, {one.length:.0f} m, {one.changes} changes, {'ended' if one.ended else 'NOT ended'}, "
                f"{one.collisions} collisions, p95 {np.percentile(one.errors, 95):.3f}, max {one.errors[worst]:.2f} m at {worst * session.dt:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    errors = np.concatenate([one.errors for one in driven])
    wall, metres = sum(one.wall for one in driven), sum(one.length for one in driven)
    return Row(
        name,
        sum(one.ended and not one.collisions for one in driven),
        count,
        metres / 1000.0,
        sum(one.changes for one in driven),
        float(np.percentile(errors, 50)),
        float(np.percentile(errors, 95)),
        max(float(np.percentile(one.errors, 95)) for one in driven),
        float(errors.max()),
        metres / sum(one.seconds for one in driven),
        len(errors) / wall,
        wall,
    )


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 where a town misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("towns", nargs="*", help="all those of the folder if left out")
    parser.add_argument("--maps", type=Path, required=True, help="folder of .xodr or .xodr.gz files")
    parser.add_argument("--routes", type=int, default=20, help="of each town (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", action="store_true", help="also tell each route, on stderr")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    options = parser.parse_args(argv)
    towns = options.towns or sorted(path.name.split(".")[0] for path in options.maps.glob("*.xodr*"))
    good = True
    if not options.json:
        print(f"{HEAD}\n|{'---|' * (HEAD.count('|') - 1)}")
    with ServerProcess(towns[0], maps=options.maps) as server, Session(server.host, server.port, timeout_s=TIMEOUT) as session:
        for name in towns:
            row = measure(session, name, options.routes, options.seed, options.each)
            good &= row.good
            print(json.dumps(asdict(row)) if options.json else row, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
