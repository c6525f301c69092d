# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
"""The Gymnasium face of the embedded world, and the Simulator protocol."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from drive.core.errors import ConfigError, DataError
from drive.core.geometry import arc_length, interpolate_poses, project, relative
from drive.core.types import Plan, PlanStatus, RolloutStatus, Trajectory
from drive.simulators.embedded_simulator import RUN_UP, EmbeddedSimulator
from drive.simulators.gym_env import MOTION_HIGH, plan_of


def make(**options):
    return gymnasium.make("drive/Embedded-v0", size=32, **options)


@pytest.mark.parametrize("control", ["trajectory", "pedals"])
def test_passes_gymnasiums_own_check(control):
    check_env(make(control=control, split="val", render_mode="rgb_array").unwrapped)


def test_unknown_control_is_refused():
    with pytest.raises(ConfigError, match="pedals"):
        make(control="telepathy")


def test_plan_of_an_action_chains_motions():
    action = np.tile([1.0, 0.0, 0.0], (10, 1))
    assert np.allclose(plan_of(action).poses[:, 0], MOTION_HIGH[0] * np.arange(1, 11))
    action[:, 2] = 1.0
    turned = plan_of(action).poses
    assert np.allclose(turned[0], [15.0, 0.0, 0.6])
    assert np.allclose(turned[1, :2], [15.0 + 15.0 * np.cos(0.6), 15.0 * np.sin(0.6)])


def test_braking_pays_less_than_driving_on():
    rewards = {}
    for name, pedal in (("brake", -1.0), ("drive", 0.3)):
        env = make(control="pedals", split="val", kinds=("free",))
        env.reset(seed=5)
        rewards[name] = sum(env.step(np.array([pedal, 0.0], np.float32))[1] for _ in range(8))
    assert rewards["drive"] > rewards["brake"] + 1.0


def test_leaving_the_road_ends_the_drive_and_costs():
    env = make(control="pedals", split="val", kinds=("free",))
    env.reset(seed=5)
    for _ in range(40):
        _, reward, terminated, _, info = env.step(np.array([0.5, 0.3], np.float32))
        if terminated:
            break
    assert terminated and info["crashed"] and reward < -4.0


def test_time_truncates():
    env = make(control="pedals", split="val", kinds=("free",), seconds=1.0)
    env.reset(seed=5)
    results = [env.step(np.zeros(2, np.float32)) for _ in range(5)]
    assert [r[3] for r in results] == [False] * 4 + [True]


def along_the_route(scene):
    """A plan that follows the centreline at the present speed."""
    line = scene.centerline_world
    at = arc_length(line)
    here = project(line, scene.ego.pose_world[:2])[0]
    poses = interpolate_poses(at, line, here + scene.ego.speed * 0.5 * np.arange(1, 11))
    return Trajectory(relative(scene.ego.pose_world, poses))


def test_simulator_drives_a_plan_and_tells_the_rollout():
    simulator = EmbeddedSimulator(("val_b",), ("free",), seconds=2.0)
    with pytest.raises(DataError, match="reset"):
        simulator.privileged()
    first = simulator.reset(3)
    assert first.images.shape == (1, 4, 112, 112, 3) and np.allclose(first.ego_history[-1], 0.0)
    assert first.ego_history[0, 0] < -2.0  # the run-up was driven
    over, plans = False, 0
    while not over:
        observation, over = simulator.step(Plan(along_the_route(simulator.privileged())))
        plans += 1
    rollout = simulator.rollout()
    assert plans == 4 and len(rollout.plans) == 4 and len(rollout.ego.poses_world) == RUN_UP + 21
    assert rollout.status is RolloutStatus.COMPLETED and observation.id != first.id


def test_simulator_ends_on_a_plan_that_cannot_be_driven():
    simulator = EmbeddedSimulator(("val_b",), ("free",))
    simulator.reset(3)
    _, over = simulator.step(Plan(None, PlanStatus.UNDECODABLE))
    assert over and simulator.rollout().status is RolloutStatus.UNDECODABLE


def test_one_seed_is_one_drive():
    simulator = EmbeddedSimulator(("val_b",))
    first, again, other = simulator.reset(1), simulator.reset(1), simulator.reset(2)
    assert (first.images == again.images).all() and first.id == again.id != other.id
