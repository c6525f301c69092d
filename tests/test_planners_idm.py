"""IDM, its lead tables, the route frame and the forecasts, on roads drawn by hand."""

import numpy as np
import pytest
from planner_scenes import WIDTH, agents, crossing, curve, scene, straight

from drive.core.protocols import PrivilegedPlanner
from drive.core.types import AgentType
from drive.core.vehicle import PACIFICA
from drive.planners.forecast import forecast, present_agents
from drive.planners.idm import HORIZON, IdmConfig, IdmPlanner, lead_table
from drive.planners.lane_index import lane_index
from drive.planners.route_frame import build_paths, lane_change_offsets, route_frame


def _speeds(poses: np.ndarray) -> np.ndarray:
    return np.hypot(*np.diff(poses[:, :2], axis=0).T) / 0.1


def _plan(one):
    trajectory = IdmPlanner().plan_privileged([one])[0].trajectory
    assert trajectory is not None
    return trajectory.poses


def test_is_a_privileged_planner():
    assert isinstance(IdmPlanner(), PrivilegedPlanner)


def test_free_road_from_rest_first_accelerates_at_the_model_rate_and_never_exceeds_the_limit():
    poses = _plan(scene(straight(), 0.0))
    speeds = _speeds(poses)
    assert speeds[9] == pytest.approx(1.5 * 1.05, rel=0.01)  # a = 1.5 m/s^2 until the eleventh step's middle
    assert _speeds(_plan(scene(straight(), 11.9))).max() <= 12.0 + 1e-6
    np.testing.assert_allclose(poses[:, 1:], 0.0, atol=1e-9)


def test_keeps_the_equilibrium_gap_behind_a_lead_of_equal_speed():
    v, config = 6.0, IdmConfig()
    gap = (config.min_gap + v * config.headway) / np.sqrt(1.0 - (v / 12.0) ** config.exponent)
    poses = _plan(scene(straight(), v, agents((gap + PACIFICA.front_length + 2.3, 0.0, 0.0, v))))
    np.testing.assert_allclose(_speeds(poses), v, atol=0.1)


def test_stops_before_a_standing_car():
    poses = _plan(scene(straight(), 8.0, agents((45.0, 0.0, 0.0, 0.0))))
    assert poses[-1, 0] + PACIFICA.front_length < 45.0 - 2.3
    assert _speeds(poses)[-1] < 4.0


def test_brakes_into_a_curve():
    radius = 15.0
    poses = _plan(scene(curve(radius, before=30.0), 10.0))
    inside = poses[1:, 2] > 0.2
    assert inside.any() and _speeds(poses)[inside].max() < 1.1 * np.sqrt(2.5 * radius)


def test_takes_back_a_lateral_offset_smoothly():
    poses = _plan(scene(straight(), 8.0, pose=(0.0, 1.0, 0.0)))
    assert poses[0, 1] == pytest.approx(0.0, abs=0.02) and poses[-1, 1] == pytest.approx(-1.0, abs=0.01)
    assert np.abs(np.diff(poses[:, 2])).max() < 0.03


def test_stops_where_the_road_ends():
    poses = _plan(scene(straight(length=60.0), 8.0, pose=(20.0, 0.0, 0.0)))
    assert poses[-1, 0] + 20.0 < 60.0


def test_vehicle_forecast_stays_on_its_lane_through_a_curve():
    town = curve(20.0, before=10.0)
    future = forecast(agents((5.0, 0.5, 0.0, 8.0)), np.zeros(1), lane_index(town), 51, 0.1)
    center, distance = np.array([10.0, 20.0]), 19.5  # 0.5 m inside the lane's centre
    inside = (future.poses_world[0, :, 2] > 0.3) & (future.poses_world[0, :, 2] < 1.2)
    assert inside.sum() > 5
    np.testing.assert_allclose(np.hypot(*(future.poses_world[0, inside, :2] - center).T), distance, atol=0.1)


def test_people_and_crooked_cars_are_forecast_at_constant_velocity():
    index = lane_index(curve(20.0, before=10.0))
    for others in (agents((5.0, 0.5, 0.0, 2.0), kind=AgentType.PEDESTRIAN), agents((5.0, 0.5, 1.2, 2.0))):
        poses = forecast(others, np.zeros(1), index, 51, 0.1).poses_world[0]
        np.testing.assert_allclose(poses[-1, :2] - poses[0, :2], 10.0 * np.array([np.cos(poses[0, 2]), np.sin(poses[0, 2])]))


def test_present_agents_leave_out_the_absent_and_the_far():
    others = agents((5.0, 0.0, 0.0, 0.0), (500.0, 0.0, 0.0, 0.0), (6.0, 0.0, 0.0, 0.0))
    others.valid[2, 0] = False
    seen, acceleration = present_agents(scene(straight(), 5.0, others), 100.0)
    assert seen.ids == ("agent0",) and acceleration.tolist() == [0.0]


def test_who_brakes_is_forecast_to_stop():
    future = forecast(agents((5.0, 0.0, 0.0, 6.0)), np.array([-3.0]), lane_index(straight()), 51, 0.1)
    assert future.poses_world[0, -1, 0] == pytest.approx(5.0 + 6.0**2 / (2 * 3.0), abs=0.02) and future.speed[0, -1] == 0.0


def _table(one):
    index = lane_index(one.road_map)
    frame = route_frame(one, index)
    others, acceleration = present_agents(one, 100.0)
    paths = build_paths(frame, [np.zeros(len(frame.points))], [10.0], [0], 2.5, 1.2)
    return frame, lead_table(frame, paths, one.ego.speed, forecast(others, acceleration, index, HORIZON + 1, 0.1), others.size)


def test_lead_table_measures_the_box_and_sees_a_crossing_car_only_while_it_crosses():
    frame, table = _table(scene(straight(), 5.0, agents((30.0, 0.0, 0.0, 0.0), (20.0, 3.6, 0.0, 0.0))))
    assert table.near[0, 0, 0] - frame.ego_s == pytest.approx(30.0 - 2.3, abs=1e-6)
    assert table.far[0, 0, 0] - frame.ego_s == pytest.approx(30.0 + 2.3, abs=1e-6)
    assert not np.isfinite(table.near[0, 1]).any()  # beside us, one lane to the left
    frame, table = _table(scene(crossing(), 5.0, agents((40.0, -15.0, np.pi / 2, 6.0))))
    occupied = np.isfinite(table.near[0, 0])
    assert not occupied[0] and occupied[12] and not occupied[-1]
    held = table.held()
    assert np.isfinite(held.near[0, 0, 0]) and held.speed[0, 0, 0] == 0.0 and not np.isfinite(held.near[0, 0, -1])


def test_neighbor_lane_offsets_end_where_that_lane_ends():
    one = scene(straight(two_lanes=True, length=90.0), 8.0)
    frame = route_frame(one, lane_index(one.road_map))
    offsets = lane_change_offsets(frame, 1, 20.0)
    assert offsets is not None and offsets[25] == pytest.approx(WIDTH, abs=0.01)
    assert lane_change_offsets(frame, 1, 60.0) is None and lane_change_offsets(frame, -1, 20.0) is None
