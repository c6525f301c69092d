"""carla.VehiclePhysicsControl of our cars, and what of one that a client sends is heeded.

Our cars have no gears and one tyre for an axle, so the served numbers are chosen to be changed: torques, gear and final ratio scale the
pull, torque times revolutions the power, friction the grip, `lat_stiff_value` (of the load, as in PhysX) the stiffness of the tyres.
Sent back unchanged they give the same car to rounding. Not heeded: the moment of inertia of the engine, damping, clutch, the times of
gear shifts, the centre of mass, stiffness along the wheel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

from drive.simulators.carla_server.layouts import ServerError, numbers
from drive.simulators.carla_server.vehicle_model import AIR, AX, AY, BLEND_LOW, GRAVITY, STEER, VX, VY, YAW, YAW_RATE, CarParams

IDLE, MAX_RPM, FRICTION = 800.0, 6000.0, 3.5  # FRICTION: what CARLA calls a grip of 1
FINAL_RATIO = 3.36
GEARS = (4.584, 2.964, 1.912, 1.446, 1.0, 0.746)  # Ford's 6F55 six-speed automatic
UP = (4.0, 8.0, 13.0, 19.0, 26.0)  # m/s at which the next gear would come
SHAPE = ((0.0, 0.8), (0.3, 1.0), (0.7, 1.0), (1.0, 0.75))  # share of MAX_RPM, share of the highest torque
EDGE = 0.12  # m from the side of a car to the middle of its wheel


def places(car: CarParams, width: float) -> list[tuple[float, float]]:
    """x, y of the wheels in the car's frame: front left, front right, rear left, rear right; of a two-wheeler front and rear."""
    if car.two_wheels:
        return [(car.front, 0.0), (-car.rear, 0.0)]
    side = width / 2.0 - EDGE
    return [(car.front, -side), (car.front, side), (-car.rear, -side), (-car.rear, side)]


def message(car: CarParams, pose, width: float) -> list[Any]:
    """The wire's array; `pose` (6,) of the car, m and degrees: wheel positions are told in the world, cm, as Unreal does."""
    top = _highest(car)
    torque = [[share * MAX_RPM, part * top] for share, part in SHAPE]
    yaw = math.radians(pose[4])
    wheels = []
    middles = places(car, width)
    for x, y in middles:
        place = [pose[0] + math.cos(yaw) * x - math.sin(yaw) * y, pose[1] + math.sin(yaw) * x + math.cos(yaw) * y, pose[2] + car.radius]
        angle = math.degrees(car.max_steer) if x > 0.0 else 0.0
        hand = 0.0 if x > 0.0 else car.grip * car.mass * GRAVITY * car.radius / len(middles)
        brake = car.brakes / len(middles) * car.radius
        stiff = car.front_stiffness if x > 0.0 else car.rear_stiffness
        wheels.append([FRICTION * car.grip, 0.25, angle, car.radius * 100.0, brake, hand, 2.0, stiff, 1000.0, [100.0 * v for v in place]])
    gears = [[ratio, 0.5, 0.65] for ratio in GEARS]
    curve = [list(pair) for pair in car.curve]
    return [
        *(torque, MAX_RPM, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, FINAL_RATIO, gears, car.mass, car.drag),
        *([0.0, 0.0, 0.0], curve, wheels, True),
    ]


def _highest(car: CarParams) -> float:
    """N m of the engine that give the pull in the first gear."""
    return car.pull * car.radius / (GEARS[0] * FINAL_RATIO)


def heeded(car: CarParams, value: list) -> CarParams:
    """`car` as a client wants it. Raises ServerError where the numbers cannot be a car's."""
    ratio = numbers(value[9:10], 1)[0]
    mass, drag = numbers(value[11:13], 2)
    torque = [numbers(pair, 2) for pair in value[0]]
    gears = [numbers(gear, 1)[0] for gear in value[10]]
    curve = tuple((x, y) for x, y in (numbers(pair, 2) for pair in value[14]))
    wheels = [numbers(wheel[:9], 9) for wheel in value[15]]
    if mass <= 0.0 or len(wheels) < 2 or drag < 0.0 or ratio < 0.0 or any(t < 0.0 for _, t in torque):
        raise ServerError("physics with a mass above 0, two wheels or more, and no negative torque, ratio or drag, please")
    if any(w[0] < 0.0 or w[3] <= 0.0 or w[4] < 0.0 or w[7] <= 0.0 for w in wheels):
        raise ServerError("wheels with a radius and stiffness above 0, and no negative friction or brakes, please")
    if any(after[0] <= before[0] for before, after in pairwise(curve)):
        raise ServerError("a steering curve of rising speeds, please")
    front, rear = wheels[: len(wheels) // 2], wheels[len(wheels) // 2 :]
    radius = sum(w[3] for w in wheels) / len(wheels) / 100.0
    served = max(share * part for share, part in SHAPE) * MAX_RPM * _highest(car)
    return replace(
        car,
        mass=mass,
        inertia=car.inertia * mass / car.mass,
        drag=drag,
        pull=max((t for _, t in torque), default=0.0) * max(gears, default=1.0) * ratio / radius,
        power=car.power * (max((rpm * t for rpm, t in torque), default=0.0) / served if served else 1.0),
        max_steer=math.radians(min(max(max(w[2] for w in wheels), 0.0), 80.0)),
        brakes=sum(w[4] for w in wheels) / radius,
        grip=max(sum(w[0] for w in wheels) / len(wheels) / FRICTION, 0.01),
        front_stiffness=sum(w[7] for w in front) / len(front),
        rear_stiffness=sum(w[7] for w in rear) / len(rear),
        curve=curve or car.curve,
        radius=radius,
    )


def wheel_angle(car: CarParams, state, wheel: int) -> float:
    """Degrees of a wheel, positive to the right; `state` (9,) of the car. The rear ones do not steer."""
    return math.degrees(state[STEER]) if wheel < (1 if car.two_wheels else 2) else 0.0


def telemetry(car: CarParams, state, record) -> list[Any]:
    """carla.VehicleTelemetryData: `state` (9,) and snapshot record of the car; slips are those of the single-track model's axles."""
    v, gear = float(state[VX]), int(record["gear"])
    geared = GEARS[min(max(gear, 1), len(GEARS)) - 1] * FINAL_RATIO
    omega = v / car.radius
    rpm = min(max(abs(omega) * geared * 30.0 / math.pi, IDLE), MAX_RPM)
    middles = places(car, 1.0)
    load, base = car.mass * GRAVITY / len(middles), car.front + car.rear
    c, s = math.cos(state[YAW]), math.sin(state[YAW])
    ahead, side = c * state[AX] + s * state[AY], -s * state[AX] + c * state[AY]
    wheels = []
    for x, _ in middles:
        angle = state[STEER] if x > 0.0 else 0.0
        slip = angle - math.atan2(state[VY] + x * state[YAW_RATE], abs(v)) if abs(v) > BLEND_LOW else 0.0
        mine = load * 2.0 * (car.rear if x > 0.0 else car.front) / base
        along, across = car.mass * ahead / len(middles), mine * side / GRAVITY
        wheels.append([FRICTION * car.grip, float(slip), 0.0, omega, mine, mine / load, along * car.radius, along, across, along / mine, across / mine])
    pedals = [float(record[name]) for name in ("steer", "throttle", "brake")]
    return [abs(v), *pedals, rpm, gear, 0.5 * AIR * car.drag * v * v, wheels]
