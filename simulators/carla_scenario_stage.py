"""What every scenario needs: places along the ego's route, and cars, people and things that it puts there and takes away."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.roadmap import Lane
from drive.simulators.carla_scenario_ways import Ways
from drive.simulators.carla_traffic import CarlaTraffic, EgoView, way_from
from drive.simulators.carla_traffic_actors import VehicleKind, measure, to_carla
from drive.simulators.carla_walkers import MIDDLE, show_walker
from drive.simulators.traffic_fleet import DRIVEN, EXTERNAL, NO_LANE, PARKED, PLAN
from drive.simulators.traffic_path import advance

Array = NDArray[np.float64]
BRAKE, PUSH = 6.0, 2.0  # m/s^2 of a scripted car, at most
FOLLOWS = 0.7  # cosine between the headings of who follows and who leads
CLAIM_M = 40.0  # m before a junction from which nobody else is let in on its way
KEEP_M, KEEP_S = 3.0, 0.8  # m and s that it keeps to whom it follows


class Stage:
    """The actors of one scenario, by their rows of the traffic."""

    def __init__(self, surroundings: CarlaTraffic, rng: np.random.Generator) -> None:
        self.surroundings, self.rng = surroundings, rng
        self.traffic, self.session = surroundings.traffic, surroundings.session
        self.road_map = surroundings.road_map
        self.ways = Ways(self.road_map, self.traffic.graph, self.traffic.lane_index)
        self.cars: list[int] = []
        self.people: dict[int, Any] = {}  # row: actor
        self.things: list[int] = []  # actor ids
        self._blocks: list[int] = []  # rows that stand for things
        self._aside: dict[int, tuple[float, float]] = {}  # row: m by which it drives beside its lane's middle, along x and y

    # places

    def pose(self, ego: EgoView, s: float) -> Array:
        """(3,) of the route `s` m along it."""
        return self.ways.pose(ego.route, s)

    def lane_at(self, ego: EgoView, s: float) -> tuple[Lane, float] | None:
        """The route's lane `s` m along it, and how far along that lane; None beyond the route's ends."""
        return self.ways.lane_at(ego.route, s)

    def way(self, ego: EgoView, lane: str) -> list[int]:
        """Lane indices of the route from its lane `lane` on, for a car that follows it."""
        ids = ego.route.lane_ids
        route = way_from(self.road_map, ids[ids.index(lane, int(ego.route.lane_index[ego.route_index])) :])
        way = route[:1]
        for before, after in pairwise(route):
            if after not in self.road_map.lanes[before].successors:
                break
            way.append(after)
        return [self.traffic.lane_index[k] for k in way[:PLAN]]

    # actors

    def kinds(self, attribute: str, value: str | bool) -> tuple[VehicleKind, ...]:
        """The library's vehicles of which an attribute has this value, by name; empty where it has none."""

        def has(blueprint: Any) -> bool:
            found = blueprint.get_attribute(attribute) if blueprint.has_attribute(attribute) else None
            return found is not None and (found.as_bool() if isinstance(value, bool) else found.as_str()) == value

        library = sorted(self.session.world.get_blueprint_library().filter("vehicle.*"), key=lambda b: b.id)
        return measure(self.session, [b for b in library if has(b)])

    def car(
        self,
        lane: int,
        s: float,
        speed: float,
        mode: int = DRIVEN,
        offset: float = 0.0,
        plan: list[int] | None = None,
        kind: VehicleKind | None = None,
        close: bool = False,
    ) -> int | None:
        """A car on the lane with this index, of a `kind` or any; its row, None where there is no room. `close`: others may be near."""
        traffic, kinds = self.traffic, self.surroundings.kinds
        free = close or mode == PARKED or traffic.is_free(lane, s, speed)
        row = self.surroundings.take() if free else None
        if row is None:
            return None
        fleet = traffic.fleet
        fleet.mode[row], fleet.eager[row], fleet.headway[row] = mode, 1.0, 1.0
        fleet.push[row], fleet.brake[row] = 2.5, 2.5
        traffic.move(row, lane, s, speed)
        fleet.offset[row] = offset
        if offset:
            c, d = np.cos(fleet.heading[row]), np.sin(fleet.heading[row])
            fleet.x[row], fleet.y[row] = fleet.x[row] - d * offset, fleet.y[row] + c * offset
        if plan:
            traffic.set_plan(row, plan)
        kind = kind or kinds[int(self.rng.integers(len(kinds)))]
        if self.surroundings.mirror.spawn([row], [kind], self.rng, "scenario"):
            self.surroundings.give_back(row)
            return None
        self.cars.append(row)
        return row

    def glider(self, kind: VehicleKind, x: float, y: float, heading: float) -> int | None:
        """A vehicle that `glide` moves, off the lanes too, at a right-handed place; its row, None where there is no room."""
        graph = self.traffic.graph
        at = int(np.argmin(np.hypot(graph.x - x, graph.y - y)))
        lane = int(np.searchsorted(graph.first, at, side="right")) - 1
        row = self.surroundings.take()
        if row is None:
            return None
        self.traffic.fleet.mode[row] = PARKED
        self.traffic.move(row, lane, float((at - graph.first[lane]) * graph.gap[lane]), 0.0)
        self.glide(row, x, y, heading, 0.0)
        if self.surroundings.mirror.spawn([row], [kind], self.rng, "scenario"):
            self.surroundings.give_back(row)
            return None
        self.cars.append(row)
        return row

    def glide(self, row: int, x: float, y: float, heading: float, speed: float) -> None:
        """Put a glider where it is now, with its speed in m/s along its heading."""
        fleet = self.traffic.fleet
        fleet.x[row], fleet.y[row], fleet.speed[row] = x, y, speed
        fleet.heading[row] = fleet.course[row] = heading

    def drive(self, row: int, speed: float, dt: float, aside: float = 0.0, keep_s: float = KEEP_S) -> None:
        """Advance a car of mode EXTERNAL along its plan towards `speed` m/s, `aside` m left of its lane's middle, `keep_s` behind whom it follows.

        It heeds no light and no right of way, but whom it follows. The ego counts where it drives the same way: whoever crosses before
        it is hit.
        """
        fleet = self.traffic.fleet
        was = self._aside.get(row, (0.0, 0.0))
        fleet.x[row], fleet.y[row] = fleet.x[row] - was[0], fleet.y[row] - was[1]
        v, gap, ahead = float(fleet.speed[row]), float(fleet.gap[row]), int(fleet.ahead[row])
        accel = float(np.clip((speed - v) / 0.5, -BRAKE, PUSH))
        if ahead > 0 or (ahead == 0 and np.cos(fleet.heading[0] - fleet.heading[row]) > FOLLOWS):
            lead = max(float(fleet.speed[ahead]), 0.0)
            free = gap - KEEP_M - keep_s * v - max(v * v - lead * lead, 0.0) / (2.0 * BRAKE)
            accel = min(accel, PUSH if free > 4.0 else float(np.clip(free, -BRAKE, PUSH)))
        fleet.mode[row] = DRIVEN
        advance(self.traffic.graph, fleet, row, accel, dt)
        fleet.mode[row] = EXTERNAL
        if aside:
            self._aside[row] = -aside * np.sin(fleet.heading[row]), aside * np.cos(fleet.heading[row])
            fleet.x[row], fleet.y[row] = fleet.x[row] + self._aside[row][0], fleet.y[row] + self._aside[row][1]
        if fleet.need[row] != NO_LANE and fleet.need_ahead[row] < CLAIM_M:  # who waits there lets it pass
            fleet.granted[row] = fleet.need[row]

    def person(self, x: float, y: float, heading: float) -> tuple[int, Any] | None:
        """(row, actor) of a walker that stands at a right-handed place; None where there is no room."""
        carla, world = self.session.carla, self.session.world
        blueprints = sorted(world.get_blueprint_library().filter("walker.pedestrian.*"), key=lambda b: b.id)
        if not blueprints:
            return None
        blueprint = blueprints[int(self.rng.integers(len(blueprints)))]
        if blueprint.has_attribute("is_invincible"):
            blueprint.set_attribute("is_invincible", "false")
        row = self.surroundings.take()
        if row is None:
            return None
        place = to_carla(self.session, x, y, self.surroundings.heights.near(x, y) + MIDDLE, heading)
        (answer,) = self.session.client.apply_batch_sync([carla.command.SpawnActor(blueprint, place)], False)
        if answer.has_error():
            self.surroundings.give_back(row)
            return None
        actor = world.get_actors([answer.actor_id])[0]
        fleet = self.traffic.fleet
        fleet.mode[row], fleet.active[row] = PARKED, True
        fleet.x[row], fleet.y[row], fleet.heading[row], fleet.speed[row] = x, y, heading, 0.0
        fleet.length[row] = fleet.width[row] = 0.6
        self.people[row] = actor
        return row, actor

    def sense(self) -> None:
        """Show the walkers to the traffic."""
        for row, actor in self.people.items():
            show_walker(self.traffic.fleet, row, actor, True)

    def things_at(self, blueprint: str, poses: Array) -> int:
        """Put up a prop at each of the right-handed poses (N, 3); how many found room."""
        carla = self.session.carla
        made = self.session.world.get_blueprint_library().find(blueprint)
        places = [to_carla(self.session, x, y, self.surroundings.heights.near(x, y), h) for x, y, h in poses.tolist()]
        answers = self.session.client.apply_batch_sync([carla.command.SpawnActor(made, p) for p in places], False)
        found = [r.actor_id for r in answers if not r.has_error()]
        self.things += found
        return len(found)

    def block(self, x: float, y: float, heading: float, length: float, width: float) -> bool:
        """A box in the traffic's way that stands for things. False where no row is free."""
        row = self.surroundings.take()
        if row is None:
            return False
        fleet = self.traffic.fleet
        fleet.mode[row], fleet.active[row], fleet.speed[row] = PARKED, True, 0.0
        fleet.x[row], fleet.y[row], fleet.heading[row], fleet.course[row] = x, y, heading, heading
        fleet.length[row], fleet.width[row] = length, width
        self._blocks.append(row)
        return True

    def clear_way(self, ego: EgoView, s: float) -> None:
        """Take the traffic's cars on the route between the ego and `s` m along it elsewhere: behind an obstacle they would stand for ever."""
        fleet, around = self.traffic.fleet, self.surroundings
        for row in around.cars[fleet.active[around.cars]].tolist():
            gap = np.hypot(ego.route.path[:, 0] - fleet.x[row], ego.route.path[:, 1] - fleet.y[row])
            at = int(np.argmin(gap))
            if gap[at] < 2.0 and ego.route_s < ego.route.s[at] < s + 12.0:
                self.send_away(row)

    def clear_lane(self, lane: int, low: float, high: float) -> None:
        """Take the traffic's cars between `low` and `high` m of a lane elsewhere."""
        fleet, cars = self.traffic.fleet, self.surroundings.cars
        there = fleet.active[cars] & (fleet.plan[cars, 0] == lane) & (fleet.s[cars] > low) & (fleet.s[cars] < high)
        for row in cars[there].tolist():
            self.send_away(row)

    def send_away(self, row: int) -> None:
        """Bring a car of the traffic back in where the ego does not see it, or not at all."""
        around = self.surroundings
        spot = around.spot(self.rng, around.settings.hidden_m, around.settings.radius_m)
        if spot is not None:
            self.traffic.move(row, *spot)
        else:
            self.traffic.fleet.active[row] = False

    def remove(self, row: int) -> list[Any]:
        """The commands that take one car away."""
        self.cars.remove(row)
        self._aside.pop(row, None)
        commands = self.surroundings.mirror.destroy([row])
        self.surroundings.give_back(row)
        return commands

    def close(self) -> list[Any]:
        """The commands that take everything away."""
        carla = self.session.carla
        commands = [c for row in list(self.cars) for c in self.remove(row)]
        commands += [carla.command.DestroyActor(k) for k in [*(a.id for a in self.people.values()), *self.things]]
        for row in [*self.people, *self._blocks]:
            self.surroundings.give_back(row)
        self.people, self.things, self._blocks = {}, [], []
        return commands
