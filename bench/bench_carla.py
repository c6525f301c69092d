"""The CARLA-compatible server and its client on the same machine: ticks per second of the official client, and whole routes.

A tick is apply_control, world.tick, get_transform and get_velocity of one car in test_c at 20 Hz; the other cars are put on the map and driven straight
by the server's physics; every image is waited for. The floor is measured next to each figure: the same bytes to and fro over bare sockets. Goals are
those of a machine with two cores. A picture is one message of a camera, made in the server's process. A route is driven with 20 cars of traffic and 10
walkers, the planner's own time included.
"""

from __future__ import annotations

import queue
import time
from typing import Any

import numpy as np
from harness import Row, timed
from socket_floor import floor

from drive.benchmarks.carla_company import company
from drive.benchmarks.carla_drive import DriveConfig, drive_route
from drive.planners.pdm import PdmExpert
from drive.planners.vla.checkpoint import load_policy
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.shipped import shipped
from drive.simulators.carla_embedded_routes import embedded_routes
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_server.server import CarlaServer, ServerConfig
from drive.simulators.carla_server.weather import NAMES, NOON
from drive.simulators.carla_session import Session

TICKS = 1500
VEHICLES = {1: 1500, 20: 1200, 100: 700}  # vehicles: goal
CAMERA = {"image_size_x": "224", "image_size_y": "224", "fov": "90"}
LIDAR = {"points_per_second": "56000"}
RIGS = (("one RGB camera of 224 x 224", 1, 0, "goal 250; "), ("three such cameras and a LiDAR of 56,000 points/s", 3, 1, ""))
ROUTE = 0  # of embedded_test
CONTROL, ANSWERS, SNAPSHOT, RECORD, IMAGE, SCAN = 75, 24, 88, 119, 64 + 4 * 224 * 224, 20_000  # bytes on the wire
WEATHERS = {"by day": {}, "in rain": {"precipitation": 80.0, "cloudiness": 90.0}, "at night": {"sun_altitude": -60.0}}


def measure() -> list[Row]:
    """All of it, on one server."""
    rows = []
    with ServerProcess("test_c") as server, Session(server.host, server.port, timeout_s=60.0) as session:
        for count, goal in VEHICLES.items():
            rows.append(_row("1 vehicle" if count == 1 else f"{count} vehicles", _ticks(session, count, []), f"goal {goal}; ", count, 0))
        for name, cameras, lidars, goal in RIGS:
            sensors: list[Any] = [("sensor.camera.rgb", CAMERA)] * cameras + [("sensor.lidar.ray_cast", LIDAR)] * lidars
            more = cameras * IMAGE + lidars * SCAN
            rows.append(_row(f"1 vehicle, {name}", _ticks(session, 1, sensors), goal, 1 + cameras + lidars, more))
        rows += _pictures()
        for name, planner in (("expert", PdmExpert()), ("VLA", VlaPlanner(load_policy(shipped("tiny-drive"))))):
            route, config = embedded_routes("test").routes[ROUTE], DriveConfig(run_up=3.0, creep_after=5.0)
            driven = drive_route(session, route, planner, config, company)
            note = f"{driven.driven_seconds:.0f} s of driving, {1e3 * driven.plan_seconds:.0f} ms a plan every 0.5 s"
            rows.append(Row(f"a whole route, {name}", driven.driven_seconds / driven.wall_seconds, "x real time", note))
    return rows


def _row(what: str, rate: float, goal: str, actors: int, more: int) -> Row:
    """A rate with the floor of the bytes that its ticks carry: `actors` in the snapshot, `more` bytes of sensors."""
    least = floor(CONTROL, ANSWERS, SNAPSHOT + RECORD * actors + more)
    return Row(what, rate, "ticks/s", f"{goal}floor {least:.0f} over bare sockets")


def _pictures() -> list[Row]:
    """ms of the server for one picture, 20 cars with their lamps on in the town."""
    episode = CarlaServer(ServerConfig()).episode
    cars = [episode.spawn("vehicle.tesla.model3", [], pose) for pose in episode.town.spawn_points[:20]]
    episode.lamps = {car.id: 3 for car in cars}  # position and low beam
    settings = [[key, 4, value] for key, value in CAMERA.items()]
    sensor = episode.sensors[episode.spawn("sensor.camera.rgb", settings, np.array([1.0, 0.0, 1.8, 0.0, 0.0, 0.0]), cars[7].id).id]
    episode.tick(0.05)
    rows = []
    for name, changes in WEATHERS.items():
        episode.weather = [changes.get(key, value) for key, value in zip(NAMES, NOON)]
        took = timed(lambda: list(sensor.measure()), repeats=50, warm=5)
        rows.append(Row(f"one picture of 224 x 224 {name}", 1e3 * took.median, "ms", f"goal 2.5; {1e3 * took.fastest:.2f} at best"))
    return rows


def _ticks(session: Session, count: int, sensors: list[tuple[str, dict[str, str]]]) -> float:
    """Ticks per second with `count` vehicles, `sensors` on the first; every image is waited for."""
    session.load("test_c")
    carla, world = session.carla, session.world
    library = world.get_blueprint_library()
    spots = world.get_map().get_spawn_points()
    ego = session.keep(world.spawn_actor(library.find("vehicle.lincoln.mkz_2020"), spots[0]))
    for spot in spots[1:count]:
        session.keep(world.spawn_actor(library.find("vehicle.tesla.model3"), spot))
    world.tick()
    frames: list[queue.Queue] = []
    for type_id, settings in sensors:
        blueprint = library.find(type_id)
        for key, value in settings.items():
            blueprint.set_attribute(key, value)
        sensor = session.keep(world.spawn_actor(blueprint, carla.Transform(carla.Location(x=1.0, z=1.8)), attach_to=ego))
        frames.append(queue.Queue())
        sensor.listen(lambda data, into=frames[-1]: into.put(data.frame))
    ticks = TICKS // (5 if sensors else 1)
    for k in range(ticks + 20):
        if k == 20:  # the first ones compile, and wait for the streams
            start = time.perf_counter()
        ego.apply_control(carla.VehicleControl(throttle=0.3, steer=0.01 * (k % 3)))
        frame = world.tick()
        ego.get_transform()
        ego.get_velocity()
        for taken in frames:
            while taken.get(timeout=30.0) < frame:
                pass
    took = time.perf_counter() - start
    session.clear()
    return ticks / took
