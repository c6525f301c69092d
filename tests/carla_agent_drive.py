# pyright: reportAttributeAccessIssue=false
"""Run in a process of its own, as the client may take it down: our loop and the agent side by side on one car. Prints JSON.

usage: carla_agent_drive.py beside expert|vla 0.9.16|0.9.15 SECONDS
       carla_agent_drive.py alone FOLDER_WITH_STAND_INS SECONDS
"""

import importlib
import json
import math
import queue
import sys
from enum import IntEnum
from pathlib import Path

import numpy as np

from drive.benchmarks.carla_agent import AgentDriver
from drive.benchmarks.carla_drive import Chooser, DriveConfig
from drive.core.geometry import compose, relative
from drive.planners.pdm import PdmExpert
from drive.simulators.carla_embedded_routes import embedded_routes
from drive.simulators.carla_global_plan import GlobalPlan
from drive.simulators.carla_guest import REAR, GuestEgo
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_server.inertial import mercator
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import CarlaSimulator
from drive.simulators.carla_town import ClientTown
from drive.simulators.routes import COMMANDS, nearest_index

Option = IntEnum("Option", {"VOID": -1, "LEFT": 1, "RIGHT": 2, "STRAIGHT": 3, "LANEFOLLOW": 4, "CHANGELANELEFT": 5, "CHANGELANERIGHT": 6})
ENTRY = Path(__file__).parents[1] / "drive/cli/leaderboard/drive_agent.py"
NOISE = {"noise_lat_stddev": "5e-6", "noise_lon_stddev": "5e-6", "noise_accel_stddev_x": "0.001", "noise_gyro_stddev_z": "0.001"}


def global_plan(carla, route):
    """What the evaluators' planner would make of a route: the car's own place, then points 1 m apart; words inside junctions alone."""
    poses = [compose(route.path[0], np.array([REAR, 0.0, 0.0])), *route.path[3:]]
    words = ["LANEFOLLOW", *(COMMANDS[c].name if inside else "LANEFOLLOW" for c, inside in zip(route.command[3:], route.is_connector[3:]))]
    world = [
        (carla.Transform(carla.Location(x, -y, 0.0), carla.Rotation(yaw=-math.degrees(h))), Option[w]) for (x, y, h), w in zip(poses, words)
    ]
    gps = []
    for transform, word in world:
        latitude, longitude = mercator(transform.location.x, transform.location.y, 0.0, 0.0)
        gps.append(({"lat": latitude, "lon": longitude, "z": 0.0}, word))
    return gps, world


def speed_of(actor):
    velocity, yaw = actor.get_velocity(), math.radians(actor.get_transform().rotation.yaw)
    return velocity.x * math.cos(yaw) + velocity.y * math.sin(yaw)


class Sensors:
    """The evaluators' side of sensors()."""

    def __init__(self, session, actor, specs, noise):
        self.actor, self.specs, self.queues = actor, specs, {}
        library = session.world.get_blueprint_library()
        for spec in specs:
            if spec["type"] == "sensor.speedometer":
                continue
            blueprint = library.find(spec["type"])
            if "fov" in spec:
                for key, name in {"image_size_x": "width", "image_size_y": "height", "fov": "fov"}.items():
                    blueprint.set_attribute(key, str(spec[name]))
            for key, value in noise.items():
                if blueprint.has_attribute(key):
                    blueprint.set_attribute(key, value)
            place = session.carla.Location(spec["x"], spec["y"], spec["z"])
            turn = session.carla.Rotation(spec["pitch"], spec["yaw"], spec["roll"])
            sensor = session.keep(session.world.spawn_actor(blueprint, session.carla.Transform(place, turn), attach_to=actor))
            self.queues[spec["id"]] = waiting = queue.Queue()
            sensor.listen(waiting.put)

    def read(self, frame):
        """{id: (frame, data)} of `frame`, as sensor_interface.py lays it out."""
        found = {}
        for spec in self.specs:
            if spec["type"] == "sensor.speedometer":
                found[spec["id"]] = frame, {"speed": speed_of(self.actor)}
                continue
            while (event := self.queues[spec["id"]].get(timeout=20.0)).frame < frame:
                pass
            if spec["type"] == "sensor.camera.rgb":
                data = np.frombuffer(event.raw_data, np.uint8).reshape(event.height, event.width, 4)
            elif spec["type"] == "sensor.other.imu":
                a, g = event.accelerometer, event.gyroscope
                data = np.array([a.x, a.y, a.z, g.x, g.y, g.z, event.compass])
            else:
                data = np.array([event.latitude, event.longitude, event.altitude])
            found[spec["id"]] = event.frame, data
        return found


def beside(kind, version, seconds):
    planner, config = (PdmExpert(), DriveConfig()) if kind == "expert" else (vla(), DriveConfig(run_up=3.0, latency=0.1))
    chosen = embedded_routes("test").routes[1]
    with ServerProcess(chosen.town, gnss=version) as process, Session(process.host, process.port) as session:
        session.load(chosen.town)
        town = ClientTown(session.world)
        route = plan_route(town.road_map, chosen.keypoints, chosen.yaw)
        cameras = () if kind == "expert" else config.cameras
        first = CarlaSimulator(session, town.road_map, route, cameras)
        plan = GlobalPlan.read(*global_plan(session.carla, route))
        drivers = {"same": AgentDriver(planner, config), "own": AgentDriver(planner if kind == "expert" else vla(), config)}
        for driver in drivers.values():
            driver.begin(plan, first.ego.actor, session.world)
        same = drivers["same"]  # the very frames, and the very state: equal to the bit
        same.road_map, same.route, same.ego = town.road_map, route, GuestEgo(same._session, first.ego.actor, cameras)
        sensors = Sensors(session, first.ego.actor, [s for s in drivers["own"].sensors() if "fov" not in s], NOISE)
        for _ in range(9):  # the camera sees every tenth tick
            session.world.tick()
        images, controls, gaps, drift, words = {}, [], {"same": [], "own": []}, [], []
        seen = first.ego.images
        first.ego.images = lambda frame: images.setdefault(frame, seen(frame))
        simulator = CarlaSimulator(session, town.road_map, route, cameras, ego=first.ego)
        send = first.ego.send

        def noted(control):
            controls.append(control)
            send(control)

        first.ego.send = noted
        chooser = Chooser(simulator, planner, town if kind == "expert" else None, config)
        while simulator.time_s < seconds:
            chosen_plan, latency = chooser.next()
            for _ in simulator.follow(chosen_plan, latency):
                data = sensors.read(simulator.frame)
                if simulator.frame in images and cameras:
                    bgra = np.concatenate([images[simulator.frame][0][..., ::-1], np.zeros((*images[simulator.frame].shape[1:3], 1), np.uint8)], 2)
                    data[cameras[0].name] = simulator.frame, bgra
                wanted = controls[-1]
                for name, driver in drivers.items():
                    given = driver.control(data)
                    gaps[name].append([abs(getattr(given, key) - getattr(wanted, key)) for key in ("throttle", "steer", "brake")])
                drivers["own"].ego._wheel = first.ego._wheel  # evaluators carry out what the agent says; here the car is told `wanted`
                if kind == "vla":
                    drift.append(float(np.hypot(*(drivers["own"].ego._pose - simulator.state[:3])[:2])))
                mine_route = drivers["own"].route
                at = nearest_index(mine_route, simulator.state[:3])
                words.append(COMMANDS[mine_route.command[at]] == COMMANDS[route.command[simulator.route_index]])
                simulator.advance()
            simulator.look()
        told = {name: {"max": np.max(gap, 0).tolist(), "mean": np.mean(gap, 0).tolist()} for name, gap in gaps.items()}
        moved = float(simulator.route_s)
        print(json.dumps({"gaps": told, "drift": max(drift, default=0.0), "words": float(np.mean(words)), "moved": moved, "ticks": len(controls)}))


def vla():
    from drive.cli.eval import make_planner

    return make_planner({"planner": {"name": "vla", "mode": "fast", "temperature": 0.0}, "checkpoint": None, "device": "cpu", "seed": 0, "threads": 1})


def alone(folder, seconds):
    """The entry file as the evaluators load it, and the car as they spawn and drive it."""
    sys.path.insert(0, folder)
    sys.path.insert(0, str(ENTRY.parent))
    module = importlib.import_module(ENTRY.stem)
    provider = importlib.import_module("srunner.scenariomanager.carla_data_provider").CarlaDataProvider
    chosen = embedded_routes("test").routes[1]
    with ServerProcess(chosen.town) as process, Session(process.host, process.port) as session:
        session.load(chosen.town)
        route = plan_route(ClientTown(session.world).road_map, chosen.keypoints, chosen.yaw)
        gps, world = global_plan(session.carla, route)
        blueprint = session.world.get_blueprint_library().find("vehicle.lincoln.mkz_2020")
        blueprint.set_attribute("role_name", "hero")
        world[0][0].location.z += 0.5
        hero = session.keep(session.world.spawn_actor(blueprint, world[0][0]))
        provider.world, provider.hero = session.world, hero
        session.world.tick()
        agent = getattr(module, module.get_entry_point())(process.host, process.port, False)
        agent.set_global_plan(gps, world)
        agent.setup(str(Path(folder) / "agent.yaml") + "+RouteScenario_1_rep0")
        sensors = Sensors(session, hero, agent.sensors(), NOISE)
        for _ in range(10):
            session.world.tick()
        aside, ran = [], 0
        for _ in range(round(seconds / session.dt)):
            frame = session.world.tick()
            control = agent.run_step(sensors.read(frame), session.world.get_snapshot().timestamp.elapsed_seconds)
            control.manual_gear_shift = False
            hero.apply_control(control)
            place = hero.get_transform()
            pose = np.array([place.location.x, -place.location.y, -math.radians(place.rotation.yaw)])
            at = nearest_index(route, compose(pose, np.array([-REAR, 0.0, 0.0])))
            aside.append(abs(float(relative(route.path[at], pose)[1])))
            ran = max(ran, float(route.s[at]))
        specs = [{"type": s["type"], "id": s["id"]} for s in agent.sensors()]
        track = agent.track.name
        agent.destroy()
        print(json.dumps({"aside": max(aside), "ran": ran, "sensors": specs, "track": track}))


if __name__ == "__main__":
    if sys.argv[1] == "beside":
        beside(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        alone(sys.argv[2], float(sys.argv[3]))
