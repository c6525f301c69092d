"""Drives of an ego among carla_traffic, over the official client and a server of our own. Run as a program: a protocol fault may end it.

    python carla_drives.py '{"town": "urban_a", "seed": 0, "seconds": 30, "vehicles": 10}'

prints one line of JSON. The ego drives as the traffic would, or at a constant speed whatever happens ("blind").
"""

import hashlib
import json
import sys

import numpy as np

from drive.core.seeds import numpy_rng
from drive.simulators.carla_control import Reference
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_scenarios import ScenarioRunner, ScenarioSpec
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.carla_traffic import CarlaTraffic, EgoView, TrafficSettings
from drive.simulators.routes import route_along, sample_route
from drive.simulators.towns import load_town
from drive.simulators.traffic_fleet import NO_LANE


def route_of(road_map, args):
    if "lanes" in args:
        return route_along(road_map, tuple(args["lanes"]))
    return sample_route(road_map, numpy_rng(args["seed"], "route"), args.get("length", 400.0))


class Drive:
    """One ego on one route."""

    def __init__(self, session, road_map, args):
        self.session, self.args = session, args
        self.route = route_of(road_map, args)
        self.sim = CarlaSimulator(session, road_map, self.route)
        self.specs = [ScenarioSpec(spec[0], spec[1], spec[2], spec[3] if len(spec) > 3 else {}) for spec in args.get("scenarios", [])]
        self.runner = ScenarioRunner(self.specs, args["seed"])
        settings = TrafficSettings(args.get("vehicles", 0), args.get("walkers", 0))
        self.traffic = CarlaTraffic(road_map, settings, args["seed"], [self.runner])
        self.traffic.start(session, self.view())
        self.taken = [self.traffic.take() for _ in range(args.get("taken", 0))]  # rows that no scenario gets
        self.digest = hashlib.sha256()
        self.overlaps, self.touched_ego, self.red, self.moved, self.passed = [], [], [], 0.0, 0
        self.trace, self.noises = [], []

    def view(self):
        return EgoView(self.sim.state, self.sim.ego.vehicle, self.route, self.sim.route_index)

    def control(self):
        v = float(self.sim.state[3])
        blind = self.args.get("blind")
        accel = np.clip((blind - v) / 0.5, -4.0, 2.0) if blind else np.clip(self.traffic.traffic.fleet.wish[0], -6.0, 1.5)
        times = 0.1 * np.arange(1, 25)
        speed = np.maximum(v + float(accel) * times, 0.0)
        s = np.minimum(self.sim.route_s + np.concatenate([[0.0], np.cumsum(speed) * 0.1]), self.route.length)
        path = np.unwrap(self.route.path[:, 2])
        poses = np.column_stack([np.interp(s, self.route.s, self.route.path[:, k]) for k in (0, 1)] + [np.interp(s, self.route.s, path)])
        self.sim.ego.apply(*self.sim.controller.control(self.sim.state, Reference(np.concatenate([[0.0], times]), poses), 0.0))

    def tick(self):
        traffic, fleet = self.traffic, self.traffic.traffic.fleet
        need, near, x, y = fleet.need.copy(), fleet.need_ahead.copy(), fleet.x.copy(), fleet.y.copy()
        red = self.red_lanes()
        self.control()
        traffic.before_tick(self.view())
        self.sim.ego.noise = self.runner.noise
        self.noises.append(self.runner.noise)
        self.sim.advance()
        for row in traffic.cars:
            moved = np.hypot(fleet.x[row] - x[row], fleet.y[row] - y[row])  # one brought back in jumps
            passed = need[row] != NO_LANE and fleet.need[row] != need[row] and near[row] < 1.5 and moved < 2.0
            self.passed += bool(passed)
            if passed and need[row] in red:
                self.red.append((self.sim.tick, int(row), int(need[row])))
        pairs = traffic.overlaps().tolist()
        self.overlaps += [(self.sim.tick, *p) for p in pairs if 0 not in p]
        self.touched_ego += [p for p in pairs if 0 in p]
        self.digest.update(traffic.traffic.boxes().tobytes())
        self.digest.update(self.sim.state.tobytes())
        self.moved += float(fleet.speed[traffic.cars].mean()) * self.session.dt if len(traffic.cars) else 0.0
        self.note()

    def red_lanes(self):
        """Lanes whose light shows red in the last snapshot."""
        lights = self.traffic.lights
        red = self.session.carla.TrafficLightState.Red
        return {int(k) for light, lanes in zip(lights.lights, lights.lanes) if light.get_state() == red for k in lanes}

    def note(self):
        """The actors of a running scenario: [tick, phase, ego s, ego speed, [x, y, speed, accel, change, offset from the ego's way] of each]."""
        fleet = self.traffic.traffic.fleet
        for item in self.runner._all:
            if item.stage is None:
                continue
            rows = [*item.stage.cars, *item.stage.people]
            own = int(getattr(item.part, "row", 0))
            if own and own not in rows and fleet.active[own]:
                rows.append(own)
            actors = []
            for row in rows:
                x, y = float(fleet.x[row]), float(fleet.y[row])
                gap = np.hypot(self.route.path[:, 0] - x, self.route.path[:, 1] - y)
                k = int(np.argmin(gap))
                pose = self.route.path[k]
                aside = -np.sin(pose[2]) * (x - pose[0]) + np.cos(pose[2]) * (y - pose[1])
                actors.append([row, round(float(fleet.speed[row]), 3), round(float(fleet.accel[row]), 3), round(float(self.route.s[k]), 2), round(float(aside), 3)])
            self.trace.append([self.sim.tick, item.phase.value, round(self.sim.route_s, 2), round(float(self.sim.state[3]), 3), actors, len(item.stage.things)])

    def run(self):
        for _ in range(round(self.args["seconds"] / self.session.dt)):
            self.tick()
            if self.sim.route_s > self.route.length - 12.0 or ("until" in self.args and self.args["until"] in {e.phase.value for e in self.runner.events}):
                break
        return self.result()

    def result(self):
        traffic = self.traffic
        result = {
            "cars": len(traffic.cars),
            "refused": traffic.refused,
            "walkers": len(traffic.walkers.walkers),
            "lights": len(traffic.lights.lights),
            "overlaps": self.overlaps,
            "touched_ego": len(self.touched_ego),
            "collisions": [hit[2] for hit in self.sim.ego.collisions],
            "red": self.red,
            "passed": self.passed,
            "moved": self.moved,
            "digest": self.digest.hexdigest(),
            "ticks": self.sim.tick,
            "ego_s": self.sim.route_s,
            "events": [(e.tick, e.name, e.type, e.phase.value, e.why) for e in self.runner.events],
            "missing": self.runner.missing(),
            "trace": self.trace,
            "noises": [n for n in self.noises if any(n)],
            "emergencies": [e.row for e in self.runner.emergencies],
        }
        traffic.close()
        left = self.session.world.get_actors()
        result["left"] = sorted(a.type_id for a in left if a.type_id.startswith(("vehicle.", "walker.", "static.")))
        result["free_rows"] = len(traffic._free)
        return result


def drive(args):
    """Each of `args["drives"]`, or the one, over one server."""
    results = []
    road_map = load_town(args["town"])
    with ServerProcess(args["town"], args.get("server_seed", 0)) as server:
        for one in args.get("drives", [args]):
            with Session(server.host, server.port, timeout_s=120.0) as session:
                session.load(args["town"])
                results.append(Drive(session, road_map, {**args, **one}).run())
    return results


if __name__ == "__main__":
    json.dump(drive(json.loads(sys.argv[1])), sys.stdout)
