"""The expert on roads drawn by hand: what it chooses, what that scores among the agents as they are, and what it says."""

from dataclasses import replace

import numpy as np
import pytest
from planner_scenes import WIDTH, agents, crossing, curve, scene, straight

from drive.core.errors import DataError
from drive.core.protocols import PrivilegedPlanner
from drive.core.types import AgentType, Privileged
from drive.core.vehicle import PACIFICA, simulate, state_array, targets_from_plan
from drive.metrics.pdms import score_pdms
from drive.metrics.pdms_scene import PdmScene
from drive.planners.pdm import PdmExpert
from drive.planners.reasoning import Cause, Decision


def _plan(one: Privileged) -> tuple[np.ndarray, str, Decision]:
    expert = PdmExpert()
    plan = expert.plan_privileged([one])[0]
    assert plan.trajectory is not None and plan.trajectory.dt == 0.1 and plan.trajectory.poses.shape == (50, 3)
    return plan.trajectory.poses, plan.reasoning, expert.last_decisions[0]


def _truth(one: Privileged, poses: np.ndarray):
    """PDM scores of a plan among agents that move at constant velocity; one.agents must have 51 steps."""
    view = PdmScene.from_privileged(one, one.agents.poses_world, one.agents.velocity_world, one.agents.valid)
    return score_pdms([view], [poses[None]], 0.1, against="group")[0]


def _drive(one: Privileged, seconds: float) -> np.ndarray:
    """(T, 11) states of a closed loop that plans every 0.5 s among standing agents."""
    expert, state, states = PdmExpert(), state_array(one.ego), []
    for _ in range(int(seconds / 0.5)):
        ego = replace(one.ego, pose_world=state[:3], velocity_ego=state[3:5], acceleration_ego=state[5:7], steering_angle=state[7])
        trajectory = expert.plan_privileged([replace(one, ego=ego)])[0].trajectory
        assert trajectory is not None
        states.append(simulate(state[None], targets_from_plan(trajectory.poses[None], 0.1, state[:3], 20))[0, 1:6])
        state = states[-1][-1]
    return np.concatenate(states)


def _speeds(poses: np.ndarray) -> np.ndarray:
    return np.hypot(*np.diff(poses[:, :2], axis=0).T) / 0.1


def test_is_a_privileged_planner_and_forgets():
    expert = PdmExpert()
    assert isinstance(expert, PrivilegedPlanner)
    expert.plan_privileged([scene(straight(), 5.0), scene(straight(), 0.0)])
    assert len(expert.last_decisions) == 2
    expert.reset()
    assert expert.last_decisions == [] and expert.plan_privileged([]) == []


def test_free_road_reaches_the_speed_limit_and_holds_it():
    states = _drive(scene(straight(), 5.0), 12.0)
    assert states[-1, 3] == pytest.approx(12.0, abs=0.4) and states[:, 3].max() <= 12.2
    assert np.abs(states[:, 1]).max() < 0.01
    _, text, decision = _plan(scene(straight(), 11.8))
    assert decision.cause is Cause.FREE and not decision.is_complex and "free road" in text


def test_stops_before_a_standing_car_without_a_collision():
    one = scene(straight(), 10.0, agents((45.0, 0.0, 0.0, 0.0), steps=51))
    poses, text, decision = _plan(one)
    truth = _truth(one, poses)
    assert truth.nc[0] == 1.0 and truth.ttc[0] == 1.0 and truth.comfort[0] == 1.0
    assert decision.cause is Cause.STOP_BEHIND and decision.is_complex and "stopped car 40 m ahead . stop behind it" in text
    states = _drive(one, 12.0)
    assert states[-1, 3] < 0.2 and 0.5 < 45.0 - 2.3 - PACIFICA.front_length - states[-1, 0] < 6.0


def test_passes_a_standing_car_where_the_left_lane_is_free():
    one = scene(straight(two_lanes=True), 10.0, agents((45.0, 0.0, 0.0, 0.0), steps=51))
    poses, text, decision = _plan(one)
    assert decision.cause is Cause.PASS and decision.side == 1 and "pass it left" in text and "change lane left" in text
    assert poses[-1, 1] == pytest.approx(WIDTH, abs=0.3) and _truth(one, poses).score[0] > 0.95
    states = _drive(one, 12.0)
    assert states[-1, 0] > 60.0 and abs(states[-1, 1]) < 0.5  # past it, and back


def test_does_not_cut_up_a_car_that_comes_from_behind():
    beside = agents((45.0, 0.0, 0.0, 0.0), (-5.0, WIDTH, 0.0, 10.0))
    assert _plan(scene(straight(two_lanes=True), 10.0, beside))[2].side == 0


def test_follows_a_lead_and_says_so():
    poses, text, decision = _plan(scene(straight(), 10.0, agents((25.0, 0.0, 0.0, 5.0))))
    assert _speeds(poses)[-1] == pytest.approx(5.0, abs=1.0)
    assert decision.cause is Cause.FOLLOW and decision.lead is not None and decision.lead.agent == 0
    assert "lead car 20 m ahead at 5 m/s , slower . follow it" in text  # 25 - 2.3 - 4.0 = 18.7


def test_expects_a_braking_lead_to_stop():
    one = scene(straight(), 10.0, agents((30.0, 0.0, 0.0, 8.0)))
    steady, braking = (_plan(replace(one, agent_acceleration=np.array([a])))[0] for a in (0.0, -4.0))
    assert braking[-1, 0] < steady[-1, 0] - 5.0
    with pytest.raises(DataError, match="1 agents has 2 accelerations"):
        _plan(replace(one, agent_acceleration=np.zeros(2)))


def test_slows_for_a_curve_and_keeps_to_the_road():
    one = scene(curve(15.0, before=40.0), 12.0, agents(steps=51))
    poses, text, decision = _plan(one)
    assert decision.cause is Cause.CURVE and "slow for the curve" in text
    assert _truth(one, poses).dac[0] == 1.0
    states = _drive(one, 9.0)
    lateral = states[:, 3] * np.abs(states[:, 9])
    assert states[-1, 1] > 15.0 and lateral.max() < 4.0


def test_waits_for_a_crossing_car():
    one = scene(crossing(), 10.0, agents((40.0, -22.0, np.pi / 2, 6.0), steps=51))
    poses, text, decision = _plan(one)
    assert decision.cause is Cause.YIELD and "car from right" in text and "yield to it" in text
    assert _truth(one, poses).nc[0] == 1.0
    free = _plan(scene(crossing(), 10.0))[0]
    assert poses[-1, 0] < free[-1, 0] - 4.0


def test_brakes_for_a_person_who_steps_onto_the_road():
    one = scene(straight(), 9.0, agents((28.0, -4.0, np.pi / 2, 1.2), kind=AgentType.PEDESTRIAN, steps=51))
    poses, text, _ = _plan(one)
    assert _truth(one, poses).nc[0] == 1.0 and "person" in text


def test_brakes_as_hard_as_it_can_where_a_crash_cannot_be_avoided():
    poses, text, decision = _plan(scene(straight(), 15.0, agents((18.0, 0.0, 0.0, 0.0))))
    assert decision.cause is Cause.EMERGENCY and "brake hard" in text
    assert _speeds(poses)[9] < 15.0 - 5.0


def test_does_not_squeeze_past_a_car_at_speed():
    one = scene(straight(two_lanes=True), 11.0, agents((35.0, 2.4, 0.0, 0.0), (-4.0, WIDTH, 0.0, 11.0)))
    assert _plan(one)[2].cause is Cause.STOP_BEHIND


def test_recovers_from_a_lateral_offset():
    poses, _, _ = _plan(scene(straight(), 8.0, pose=(0.0, 0.6, 0.0)))
    assert poses[-1, 1] == pytest.approx(-0.6, abs=0.05)
    states = _drive(scene(straight(), 8.0, pose=(0.0, 1.0, 0.0)), 8.0)  # starts with a wheel off the road, where every score is 0
    assert abs(states[-1, 1]) < 0.15 and states[-1, 3] > 8.0


def test_stands_where_everything_is_blocked_and_starts_when_it_clears():
    assert _plan(scene(straight(), 0.0, agents((8.0, 0.0, 0.0, 0.0))))[0][-1, 0] < 0.5
    assert _plan(scene(straight(), 0.0, agents((8.0, 0.0, 0.0, 6.0))))[0][-1, 0] > 8.0


def test_equal_scenes_get_equal_plans_and_the_logged_future_is_not_read():
    now = scene(straight(), 10.0, agents((30.0, 0.0, 0.0, 5.0), steps=1))
    later = scene(straight(), 10.0, agents((30.0, 0.0, 0.0, 5.0), steps=51))
    later.agents.poses_world[:, 1:] += 100.0
    np.testing.assert_array_equal(_plan(now)[0], _plan(later)[0])
    np.testing.assert_array_equal(_plan(now)[0], _plan(now)[0])
