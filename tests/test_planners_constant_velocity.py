# pyright: reportOptionalMemberAccess=false
"""The constant-velocity baseline."""

from dataclasses import replace

import numpy as np
import pytest

from drive.core.protocols import Planner
from drive.core.types import Camera, Command, Observation
from drive.planners.constant_velocity import ConstantAcceleration, ConstantVelocity


def _observation(speed: float, yaw_rate: float = 0.0) -> Observation:
    images = np.zeros((1, 1, 2, 2, 3), np.uint8)
    return Observation("o", images, (Camera.front(2, 2),), 0.5, np.zeros((1, 3)), speed, 1.0, yaw_rate, Command.LANEFOLLOW)


def test_is_a_planner():
    assert isinstance(ConstantVelocity(), Planner)


@pytest.mark.parametrize("speed", [0.0, 7.5])
def test_goes_straight_at_its_speed(speed):
    straight = ConstantVelocity().plan([_observation(speed, yaw_rate=0.3)])[0].trajectory
    assert straight is not None and straight.dt == 0.5
    np.testing.assert_allclose(straight.poses[:, 0], speed * straight.times)
    assert not straight.poses[:, 1:].any()


def test_keeps_its_acceleration_until_it_stands():
    faster, braking, still = (_observation(v) for v in (2.0, 4.0, 0.0))  # all at 1 m/s^2
    braking = replace(braking, acceleration=-2.0)
    ahead, stopped, off = (p.trajectory.poses[:, 0] for p in ConstantAcceleration().plan([faster, braking, still]))
    np.testing.assert_allclose(ahead[[0, 9]], [2.0 * 0.5 + 0.5 * 0.25, 2.0 * 5 + 12.5])
    np.testing.assert_allclose(stopped[[0, 1, 3, 9]], [1.75, 3.0, 4.0, 4.0])  # stands after 2 s and 4 m
    np.testing.assert_allclose(off[9], 12.5)
    back = ConstantAcceleration().plan([replace(still, acceleration=-1.0)])[0].trajectory
    assert back is not None and not back.poses.any()  # standing and "braking" is no reverse


def test_answers_every_observation_in_order():
    plans = ConstantVelocity().plan([_observation(v) for v in (1.0, 2.0, 3.0)])
    assert [p.trajectory.poses[-1, 0] for p in plans if p.trajectory] == [5.0, 10.0, 15.0]
    assert ConstantVelocity().plan([]) == []
