"""The PID of the leaderboard agents: closed forms, and an embedded route that it ends; `-s` prints its lane error beside the LQR's."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from carla_client import REPOSITORY

from drive.benchmarks.carla_drive import DriveConfig
from drive.benchmarks.carla_routes import _digest, _settings
from drive.cli.closed_loop import controller_named
from drive.core.errors import ConfigError
from drive.core.vehicle import VehicleParams
from drive.simulators.carla_control import CarResponse, LqrController, Reference
from drive.simulators.carla_embedded_routes import embedded_routes
from drive.simulators.carla_pid import MOST_THROTTLE, WINDOW, ControllerKind, Pid, PidController, controller_of

CAR = VehicleParams(width=1.86, front_length=3.89, rear_length=1.04, wheel_base=2.85, height=1.5)


def state(x=0.0, y=0.0, heading=0.0, speed=0.0):
    found = np.zeros(11)
    found[:4] = x, y, heading, speed
    return found


def straight(speed, y=0.0):
    """A plan ahead of the origin, 5 s."""
    times = np.linspace(0.0, 5.0, 51)
    return Reference(times, np.column_stack([speed * times, np.full(51, y), np.zeros(51)]))


def test_a_pid_by_hand():
    pid = Pid((2.0, 3.0, 5.0))
    assert pid.step(1.0) == pytest.approx(2.0 + 3.0 / WINDOW + 5.0)
    assert pid.step(1.0) == pytest.approx(2.0 + 6.0 / WINDOW)
    assert pid.step(0.0) == pytest.approx(6.0 / WINDOW - 5.0)
    for _ in range(WINDOW):
        last = pid.step(0.5)
    assert last == pytest.approx(1.0 + 1.5)  # the window has forgotten what came before


def test_a_car_that_is_too_slow_gets_throttle_and_no_more_than_the_most():
    throttle, steer, brake = PidController(CAR).control(state(speed=2.0), straight(8.0), 0.0)
    assert (throttle, steer, brake) == (MOST_THROTTLE, 0.0, 0.0)
    gentle, _, _ = PidController(CAR).control(state(speed=7.95), straight(8.0), 0.0)
    assert gentle == pytest.approx(0.05 * (5.0 + 0.5 / WINDOW + 1.0))


@pytest.mark.parametrize(("plan", "speed"), [(0.0, 0.0), (0.3, 0.0), (0.0, 9.0), (5.0, 5.6)])
def test_full_brake_where_the_plan_stands_or_is_slower(plan, speed):
    throttle, _, brake = PidController(CAR).control(state(speed=speed), straight(plan), 0.0)
    assert (throttle, brake) == (0.0, 1.0)


def test_a_little_too_fast_rolls():
    assert PidController(CAR).control(state(speed=5.4), straight(5.0), 0.0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_wheel_turns_to_the_aim_by_its_gains(side):
    _, steer, _ = PidController(CAR).control(state(speed=8.0), straight(8.0, y=side), 0.0)
    error = side * math.atan2(1.0, 6.0) / (math.pi / 2.0)  # 8 m/s: points at 4 and 8 m, their middle at 6 m
    assert steer == pytest.approx(error * (1.25 + 0.75 / WINDOW + 0.3))
    assert abs(PidController(CAR).control(state(heading=side * 2.0, speed=8.0), straight(8.0), 0.0)[1]) == 1.0


def test_standing_does_not_wind_up_the_wheel():
    controller = PidController(CAR)
    for _ in range(100):
        assert controller.control(state(y=1.0), straight(0.0), 0.0)[1] == 0.0
    _, steer, _ = controller.control(state(speed=8.0), straight(8.0), 0.0)
    assert steer == 0.0


def test_a_car_that_stands_starts_on_a_plan_that_starts_slowly():
    times = np.linspace(0.0, 5.0, 51)
    slow = Reference(times, np.column_stack([16.0 * (times / 5.0) ** 5, np.zeros((51, 2))]))
    throttle, _, brake = PidController(CAR).control(state(), slow, 0.0)
    assert throttle == MOST_THROTTLE and brake == 0.0
    assert PidController(CAR).control(state(speed=2.5), slow, 0.0)[2] == 1.0  # it is no licence to go faster than the plan


def test_a_car_that_brakes_keeps_its_wheel():
    controller = PidController(CAR)
    _, turned, _ = controller.control(state(speed=8.0), straight(8.0, y=1.0), 0.0)
    assert turned > 0.1 and controller.control(state(speed=8.0), straight(0.0), 0.0) == (0.0, turned, 1.0)


def test_the_plan_goes_on_while_it_is_followed():
    late = PidController(CAR).control(state(x=4.0, speed=8.0), straight(8.0, y=1.0), 0.5)
    assert late == PidController(CAR).control(state(speed=8.0), straight(8.0, y=1.0), 0.0)


def test_names():
    assert controller_named("pid") is ControllerKind.PID and controller_named("lqr") is DriveConfig().controller
    with pytest.raises(ConfigError, match="controller=mpc: choose one of lqr, pid"):
        controller_named("mpc")
    made = [controller_of(kind, CAR, CarResponse()) for kind in ControllerKind]
    assert [type(c) for c in made] == [LqrController, PidController]


def test_routes_that_another_controller_drove_are_not_taken_over():
    route = embedded_routes("test", 1).routes[0]
    digests = {_digest(route, _settings("expert", DriveConfig(controller=kind))) for kind in ControllerKind}
    assert len(digests) == 2


DRIVE = """
import json, sys
import numpy as np
from drive.benchmarks.carla_drive import DriveConfig, drive_route
from drive.core.geometry import project
from drive.metrics.carla_scores import Rule
from drive.planners.pdm import PdmExpert
from drive.simulators.carla_embedded_routes import embedded_routes
from drive.simulators.carla_pid import ControllerKind
from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_session import Session
from drive.simulators.towns import load_town

found = {}
route = embedded_routes("test").routes[0]
path = plan_route(load_town(route.town), route.keypoints).path[:, :2]
with ServerProcess(route.town) as server, Session(server.host, server.port, timeout_s=60.0) as session:
    for kind in ControllerKind:
        driven = drive_route(session, route, PdmExpert(), DriveConfig(Rule.BENCH2DRIVE, run_up=3.0, controller=kind))
        beside = np.abs([project(path, pose[:2])[1] for pose in driven.poses])
        found[kind.value] = [driven.record.status, driven.record.score_composed, float(beside.mean()), float(np.percentile(beside, 95)), float(beside.max()), driven.driven_seconds]
print(json.dumps(found))
"""


@pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="the carla wheel is not installed")
def test_lane_error_of_both_on_an_empty_road():
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", DRIVE], capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for kind, (status, score, mean, high, most, seconds) in found.items():
        print(f"{kind}: {status}, score {score:.1f}, box middle beside the route: mean {mean:.3f} m, p95 {high:.3f} m, most {most:.3f} m, {seconds:.1f} s")
        assert status in ("Completed", "Perfect") and score == 100.0
        assert mean < 0.4 and high < 1.2 and most < 1.75  # half a lane
    assert found["lqr"] != found["pid"]
