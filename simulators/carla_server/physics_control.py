"""carla.VehiclePhysicsControl of our cars, and what of one that a client sends is heeded: mass, drag, steering, brakes, grip, inertia of the pull."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from drive.simulators.carla_server.layouts import ServerError, numbers
from drive.simulators.carla_server.vehicle_model import CarParams

RADIUS = 0.33  # m of a wheel
FINAL_RATIO, MAX_RPM = 4.0, 6000.0
TORQUE_SHAPE = ((0.0, 0.8), (0.3, 1.0), (0.7, 1.0), (1.0, 0.75))  # share of MAX_RPM, share of the highest torque


def message(car: CarParams, pose, width: float) -> list[Any]:
    """The wire's array; `pose` (6,) of the car: wheel positions are told in the world, cm, as Unreal does."""
    top = car.pull * RADIUS / FINAL_RATIO
    torque = [[share * MAX_RPM, part * top] for share, part in TORQUE_SHAPE]
    yaw = math.radians(pose[4])
    wheels = []
    for along, across, steers in ((car.front, -1, 1), (car.front, 1, 1), (-car.rear, -1, 0), (-car.rear, 1, 0)):
        x, y = along, across * (width / 2.0 - 0.12)
        place = [pose[0] + math.cos(yaw) * x - math.sin(yaw) * y, pose[1] + math.sin(yaw) * x + math.cos(yaw) * y, pose[2] + RADIUS]
        angle = math.degrees(car.max_steer) if steers else 0.0
        hand = 0.0 if steers else 0.25 * car.grip * car.mass * 9.81 * RADIUS
        brake = car.brakes / 4.0 * RADIUS
        stiff = (car.front_stiffness if steers else car.rear_stiffness) / 2.0
        wheels.append([3.5 * car.grip, 0.25, angle, RADIUS * 100.0, brake, hand, 3.0, stiff, 1000.0, [100.0 * v for v in place]])
    gears = [[1.0, 0.5, 0.65]]
    curve = [[0.0, 1.0], [120.0, 1.0]]
    drag = car.drag
    return [torque, MAX_RPM, 1.0, 0.15, 2.0, 0.35, True, 0.1, 10.0, FINAL_RATIO, gears, car.mass, drag, [0.0, 0.0, 0.0], curve, wheels, True]


def heeded(car: CarParams, value: list) -> CarParams:
    """`car` as a client wants it. Raises ServerError where the numbers cannot be a car's."""
    mass, drag = numbers(value[11:13], 2)
    torque = max((numbers(pair, 2)[1] for pair in value[0]), default=0.0)
    wheels = [numbers(wheel[:6], 6) for wheel in value[15]]
    if mass <= 0.0 or len(wheels) < 2 or torque < 0.0 or drag < 0.0:
        raise ServerError("physics with a mass above 0, two wheels or more, and no negative torque or drag, please")
    steer = max(wheel[2] for wheel in wheels)
    brakes = sum(wheel[4] for wheel in wheels) / RADIUS
    return replace(
        car,
        mass=mass,
        inertia=car.inertia * mass / car.mass,
        drag=drag,
        pull=torque * numbers(value[9:10], 1)[0] / RADIUS,
        max_steer=math.radians(min(max(steer, 0.0), 80.0)),
        brakes=max(brakes, 0.0),
        grip=max(sum(wheel[0] for wheel in wheels) / len(wheels) / 3.5, 0.05),
    )
