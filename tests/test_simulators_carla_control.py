"""From plans to pedals and wheel: closed forms, and a bicycle that follows."""

import math

import numpy as np
import pytest

from drive.core.geometry import compose
from drive.core.vehicle import VehicleParams
from drive.simulators.carla_control import AIR, HOLD, CarResponse, LqrController, Reference

CAR = VehicleParams(width=1.86, front_length=3.89, rear_length=1.04, wheel_base=2.85, height=1.5)
RESPONSE = CarResponse()
STEP = 0.05  # s


def state(x=0.0, y=0.0, heading=0.0, speed=0.0):
    found = np.zeros(11)
    found[:4] = x, y, heading, speed
    return found


def straight(speed):
    """A plan ahead of the origin, 5 s."""
    times = np.linspace(0.0, 5.0, 51)
    return Reference(times, np.column_stack([speed * times, np.zeros((51, 2))]))


@pytest.mark.parametrize("speed", [0.0, 5.0, 15.0, 30.0])
@pytest.mark.parametrize("acceleration", [-4.0, -1.0, 0.0, 0.5, 1.5])
def test_pedals_give_the_acceleration_that_was_asked_for(speed, acceleration):
    throttle, brake = RESPONSE.pedals(acceleration, speed)
    assert 0.0 <= throttle < 1.0 and 0.0 <= brake < 1.0 and throttle * brake == 0.0
    resistance = RESPONSE.rolling * 9.81 + 0.5 * AIR * RESPONSE.drag * speed**2 / RESPONSE.mass
    pull = throttle * min(RESPONSE.pull, RESPONSE.power / max(speed, 1.0))
    coasting = RESPONSE.coasting if throttle == 0.0 else 0.0
    got = (pull - brake * RESPONSE.brakes) / RESPONSE.mass - resistance - coasting
    eased = acceleration > -resistance - coasting  # between coasting and the least throttle there is nothing to press
    assert got == pytest.approx(acceleration, abs=1e-9) or (throttle == brake == 0.0 and eased)


def test_pedals_stay_within_their_way():
    assert RESPONSE.pedals(50.0, 10.0) == (1.0, 0.0) and RESPONSE.pedals(-50.0, 10.0) == (0.0, 1.0)


def test_a_full_turn_gives_less_at_speed():
    response = CarResponse(curve=((0.0, 1.0), (100.0, 0.5)))
    assert response.lock(0.0) == response.max_steer and response.lock(50.0 / 3.6) == pytest.approx(0.75 * response.max_steer)
    assert response.lock(-100.0) == pytest.approx(0.5 * response.max_steer)


def test_a_plan_stands_still_before_its_start_and_after_its_end():
    reference = straight(4.0)
    np.testing.assert_allclose(reference.at(np.array([-1.0, 0.25, 9.0]))[:, 0], [0.0, 1.0, 20.0])


def test_a_car_that_is_to_stand_is_held():
    assert LqrController(CAR, RESPONSE).control(state(), straight(0.0), 0.0) == (0.0, 0.0, HOLD)


@pytest.mark.parametrize(("beside", "sign"), [(1.0, -1.0), (-1.0, 1.0)])
def test_the_wheel_turns_back_to_the_plan(beside, sign):
    _, steer, _ = LqrController(CAR, RESPONSE).control(state(y=beside, speed=8.0), straight(8.0), 0.0)
    assert math.copysign(1.0, steer) == sign and abs(steer) > 1e-3


@pytest.mark.parametrize("slip", [0.0, 0.004])
def test_a_bicycle_follows_a_circle_even_where_its_tyres_slip(slip):
    """`slip` rad of wheel angle for each m/s^2 sideways, which the controller does not know of: at 10 m/s on 40 m radius a quarter of the angle."""
    radius, speed = 40.0, 10.0
    controller, s, wheel = LqrController(CAR, RESPONSE), state(speed=speed), 0.0
    turn = speed / radius
    angle = turn * np.arange(0.0, 5.01, 0.1)
    around = np.column_stack([radius * np.sin(angle), radius * (1.0 - np.cos(angle)), angle])
    away = []
    for k in range(400):
        if k % 10 == 0:  # a new plan from the foot of the car on the circle
            at = math.atan2(s[0], radius - s[1])
            foot = np.array([radius * math.sin(at), radius * (1.0 - math.cos(at)), at])
            reference = Reference(np.linspace(0.0, 5.0, 51), compose(foot, around))
        throttle, steer, brake = controller.control(s, reference, (k % 10) * STEP)
        wheel = steer * RESPONSE.lock(s[3])
        rate = s[3] * math.tan(wheel - slip * s[3] * s[9]) / CAR.wheel_base
        push = throttle * min(RESPONSE.pull, RESPONSE.power / max(s[3], 1.0)) - brake * RESPONSE.brakes
        resistance = RESPONSE.rolling * 9.81 + 0.5 * AIR * RESPONSE.drag * s[3] ** 2 / RESPONSE.mass
        s[5] = push / RESPONSE.mass - resistance
        s[3], s[7], s[9] = s[3] + s[5] * STEP, wheel, rate
        s[2] += rate * STEP
        s[0], s[1] = s[0] + s[3] * math.cos(s[2]) * STEP, s[1] + s[3] * math.sin(s[2]) * STEP
        away.append(abs(math.hypot(s[0], s[1] - radius) - radius))
    assert max(away[200:]) < 0.5 and abs(s[3] - speed) < 1.0
