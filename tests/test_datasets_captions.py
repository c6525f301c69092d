"""Captions, questions and answers on roads drawn by hand."""

from dataclasses import replace

import numpy as np
from planner_scenes import agents, curve, scene, straight

from drive.core.types import AgentType
from drive.datasets.captions import caption, facts, questions


def _answers(one) -> dict[str, str]:
    return dict(questions(one, np.random.default_rng(0)))


def test_lead_car_is_measured_from_the_bumper_and_compared_in_speed():
    answers = _answers(scene(straight(), 8.0, agents((26.0, 0.0, 0.0, 4.0))))
    assert answers["is there a car ahead in my lane ?"] == "yes , 20 m ahead"  # 26 - 2.3 - 4 = 19.7
    assert answers["how fast is the lead car ?"] == "slower"
    assert _answers(scene(straight(), 8.0, agents((26.0, 0.0, 0.0, 0.0))))["how fast is the lead car ?"] == "stopped"


def test_cars_count_only_where_the_camera_sees_them():
    others = agents((20.0, 3.6, 0.0, 5.0), (-10.0, 0.0, 0.0, 5.0), (5.0, 20.0, 0.0, 0.0), (70.0, 0.0, 0.0, 0.0))
    answers = _answers(scene(straight(two_lanes=True), 8.0, others))
    assert answers["how many car visible ?"] == "1"
    assert answers["is there a car ahead in my lane ?"] == "no" and "how fast is the lead car ?" not in answers


def test_neighbor_lanes():
    town = straight(two_lanes=True)
    assert _answers(scene(town, 8.0))["is the left lane free ?"] == "yes"
    assert _answers(scene(town, 8.0))["is the right lane free ?"] == "no lane there"
    assert _answers(scene(town, 8.0, agents((-5.0, 3.6, 0.0, 8.0))))["is the left lane free ?"] == "no , car there"


def test_road_shape_and_place_in_lane():
    assert _answers(scene(curve(15.0, before=10.0), 5.0))["road shape ahead ?"] == "curve left"
    assert _answers(scene(straight(), 5.0, pose=(0.0, 0.6, 0.0)))["where am i in the lane ?"] == "left"
    assert facts(scene(straight(), 5.0, pose=(0.0, -0.6, 0.0))).offset < -0.5


def test_junction_is_the_next_connector_of_the_route():
    town = straight()
    lanes = dict(town.lanes)
    lanes["a"] = replace(lanes["a"], centerline=lanes["a"].centerline[:80], left=lanes["a"].left[:80], right=lanes["a"].right[:80])
    lanes["j"] = replace(town.lanes["a"], id="j", centerline=town.lanes["a"].centerline[80:], is_connector=True)
    one = replace(scene(town, 5.0), road_map=type(town)("t", lanes, town.polygons), route_lane_ids=("a", "j"))
    assert _answers(one)["is there a junction ahead ?"] == "yes , 25 m ahead"  # lane a ends at x = 29
    assert "junction 25 m ahead" in caption(one)


def test_nothing_depends_on_the_future_and_the_order_is_the_generators():
    now = scene(straight(), 8.0, agents((26.0, 0.0, 0.0, 4.0), steps=1))
    later = scene(straight(), 8.0, agents((26.0, 0.0, 0.0, 4.0), steps=30))
    assert caption(now) == caption(later)
    assert questions(now, np.random.default_rng(3)) == questions(later, np.random.default_rng(3))
    people = scene(straight(), 8.0, agents((20.0, 2.0, 0.0, 1.0), kind=AgentType.PEDESTRIAN))
    assert "1 person visible" in caption(people) and "no lead car" in caption(people)
