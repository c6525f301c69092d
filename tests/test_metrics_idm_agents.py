"""Reactive vehicles: known answers on a straight street, one rule each, and a score that reads them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely

from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Camera, Command, EgoTrack, Lights, LightState, Scenario, Tracks
from drive.core.vehicle import PACIFICA
from drive.metrics.epdms import EpdmsScene, score_epdms
from drive.metrics.idm_agents import IdmModel, IdmTraffic, Traffic, idm_acceleration, nearest_pose
from drive.metrics.pdms_scene import PdmScene

FRAMES, PRESENT = 51, 15
CAR, WALKER = (4.6, 1.9, 1.6), (0.6, 0.6, 1.7)


class NoImages:
    def image(self, camera: int, step: int):
        raise AssertionError("nobody looks here")


def street(limit=10.0, end=250.0):
    """Lane "0" along x from -150 to `end` with a connector "1" behind it, and lane "2" 3.5 m to its left."""
    lanes, rings = {}, []
    for name, y, first, last in (("0", 0.0, -150.0, end), ("1", 0.0, end, end + 30.0), ("2", 3.5, -150.0, end)):
        x = np.linspace(first, last, round(last - first) + 1)
        line = np.column_stack([x, np.full_like(x, y), np.zeros_like(x)])
        left, right = line[:, :2] + [0.0, 1.75], line[:, :2] - [0.0, 1.75]
        lanes[name] = Lane(name, line, left, right, limit, name == "1", successors=("1",) if name == "0" else ())
        rings.append((name, Layer.LANE_CONNECTOR if name == "1" else Layer.LANE, np.concatenate([left[[0, -1]], right[[-1, 0]]])))
    rings.append(("junction", Layer.INTERSECTION, np.array([[end, -8.0], [end + 30.0, -8.0], [end + 30.0, 8.0], [end, 8.0]])))
    rings.append(("block", Layer.ROADBLOCK, np.array([[-150.0, -8.0], [end + 30.0, -8.0], [end + 30.0, 8.0], [-150.0, 8.0]])))
    return RoadMap("street", lanes, Polygons.from_rings(rings))


def scene(agents, ego_speed=0.0, road=None, lights=None):
    """The ego at the origin of lane "0"; agents are (x, y, heading, speed, kind), which keep their speed in the log."""
    steps = PRESENT + FRAMES
    t = 0.1 * (np.arange(steps) - PRESENT)
    count = len(agents)
    poses, velocity = np.zeros((count, steps, 3)), np.zeros((count, steps, 2))
    for a, (x, y, heading, speed, _) in enumerate(agents):
        ahead = np.array([math.cos(heading), math.sin(heading)])
        poses[a] = np.column_stack([x + ahead[0] * speed * t, y + ahead[1] * speed * t, np.full(steps, heading)])
        velocity[a] = speed * ahead
    types = np.array([kind for *_, kind in agents], np.int64)
    size = np.array([CAR if kind == AgentType.VEHICLE else WALKER for kind in types]).reshape(-1, 3)
    ids = tuple(f"a{k}" for k in range(count))
    ego = EgoTrack(np.column_stack([ego_speed * t, np.zeros((steps, 2))]).astype(np.float64), np.tile([ego_speed, 0.0], (steps, 1)), np.zeros((steps, 2)), np.zeros(steps))
    road = road or street()
    return Scenario(
        id="street", source="hand", split="test", log_id="street", kind="", dt=0.1, present=PRESENT, road_map=road, route_lane_ids=("0", "1"),
        centerline_world=road.lanes["0"].centerline, command=Command.LANEFOLLOW, ego=ego, agents=Tracks(ids, types, size, poses, velocity, np.ones((count, steps), bool)),
        cameras=(Camera.front(),), image_source=NoImages(), frame_steps=(0,), reference_world=ego.poses_world[PRESENT:], lights=lights,
    )  # fmt: skip


def driven(speed, start=0.0, y=0.0):
    """(41, 11) ego states at constant speed along x."""
    states = np.zeros((41, 11))
    states[:, 0], states[:, 1], states[:, 3] = start + speed * 0.1 * np.arange(41), y, speed
    return states


def traffic(scenario):
    return IdmTraffic.of(scenario, PdmScene.from_scenario(scenario))


def speeds(found, agent):
    """(40,) m/s between frames."""
    return np.hypot(*np.diff(found.boxes[:, agent, :2], axis=0).T) / 0.1


FAR = driven(0.0, y=60.0)  # an ego in nobody's way


def test_the_model_equals_the_expected_values_of_nuplans_own_test():
    """nuplan-devkit, idm/test/test_idm_policy.py: 3 m/s at 5 m, a lead of 2 m/s at 15 m whose rear half is 5 m long."""
    found = idm_acceleration(3.0, 15.0 - 5.0 - 5.0, 2.0, 30.0, IdmModel(2.0, 1.5, 0.73, 1.67))
    assert found == pytest.approx(-1.073366, abs=5e-8) and 3.0 + 0.5 * found == pytest.approx(2.46331699693, abs=5e-8)


def test_acceleration_of_the_model():
    assert idm_acceleration(0.0, 1e9, 0.0, 10.0) == pytest.approx(1.0)
    assert idm_acceleration(10.0, 1e9, 10.0, 10.0) == pytest.approx(0.0, abs=1e-9)
    assert idm_acceleration(5.0, 20.0, 5.0, 10.0) == pytest.approx(1.0 - 0.5**4 - (8.5 / 20.0) ** 2)
    assert idm_acceleration(5.0, 20.0, 3.0, 10.0) == pytest.approx(1.0 - 0.5**4 - ((8.5 + 10.0 / (2.0 * math.sqrt(2.0))) / 20.0) ** 2)
    assert idm_acceleration(10.0, 0.0, 0.0, 10.0) == -2.0  # the gap is never below 1 m


@pytest.mark.parametrize(("limit", "target"), [(14.0, 14.0), (0.0, 10.0)])
def test_a_free_road_leads_to_the_limit_of_the_lane_or_else_to_10_m_s(limit, target):
    found = traffic(scene([(-20.0, 0.0, 0.0, target - 1.0, AgentType.VEHICLE)], road=street(limit, end=5000.0))).react(FAR)
    speed = speeds(found, 0)
    assert (np.diff(speed) > 0).all() and target - 0.5 < speed[-1] < target
    wanted, v = [], target - 1.0
    for _ in range(40):
        wanted.append(v)
        v += 0.1 * 1.0 * (1.0 - (v / target) ** 4)
    np.testing.assert_allclose(speed, wanted, atol=0.02)  # the lane ends 5 km away


def test_a_follower_brakes_behind_a_stopped_ego_and_never_touches_it():
    found = traffic(scene([(-40.0, 0.0, 0.0, 8.0, AgentType.VEHICLE)])).react(driven(0.0))
    speed = speeds(found, 0)
    assert speed[0] == pytest.approx(8.0) and speed[-1] < 4.0 and (np.diff(speed) < 1e-9).all() and np.diff(speed).min() >= -0.2 - 1e-9
    # the logged one would have driven through it
    replayed = PdmScene.from_scenario(scene([(-40.0, 0.0, 0.0, 8.0, AgentType.VEHICLE)]))
    assert replayed.agent_pose[0, 40, 0] == pytest.approx(-8.0)
    assert found.boxes[-1, 0, 0] + CAR[0] / 2.0 < -PACIFICA.length / 2.0  # its box, as nuPlan is told it, has its centre at the rear axle


def test_a_vehicle_heeds_the_one_ahead_of_it_by_the_model():
    found = traffic(scene([(-60.0, 0.0, 0.0, 5.0, AgentType.VEHICLE), (-30.0, 0.0, 0.0, 5.0, AgentType.VEHICLE)], road=street(end=900.0))).react(FAR)
    gap = 30.0 - CAR[0]  # at first nuPlan measures between boxes, later between what is swept in 1.5 s
    first = speeds(found, 0)[1] - speeds(found, 0)[0]
    assert first == pytest.approx(0.1 * idm_acceleration(5.0, gap, 5.0, 10.0), abs=1e-6)
    swept = gap - 5.0 * 1.5  # of the follower, ahead of its box; the leader's lies ahead of the leader
    second = speeds(found, 0)[2] - speeds(found, 0)[1]
    assert second == pytest.approx(0.1 * idm_acceleration(5.0 + first, swept, 5.0, 10.0), abs=0.02)


@pytest.mark.parametrize("state", [LightState.RED, LightState.GREEN])
def test_a_vehicle_stops_at_the_end_of_its_lane_at_a_red_light_and_at_a_green_one_too(state):
    lights = Lights(("1",), np.full((1, PRESENT + FRAMES), state))
    road = street(end=60.0)
    found = traffic(scene([(30.0, 3.5, 0.0, 8.0, AgentType.VEHICLE), (35.0, 0.0, 0.0, 8.0, AgentType.VEHICLE)], road=road, lights=lights)).react(FAR)
    for agent in (0, 1):
        assert speeds(found, agent)[-1] < 3.0 and found.boxes[-1, agent, 0] + CAR[0] / 2.0 < 60.0
        assert (np.diff(speeds(found, agent)) < 0).all()


def test_people_and_objects_replay_the_log_and_block_nobody():
    agents = [(-30.0, 0.0, 0.0, 8.0, AgentType.VEHICLE), (-15.0, 0.0, math.pi / 2, 1.0, AgentType.PEDESTRIAN), (-10.0, 0.0, 0.0, 0.0, AgentType.TRAFFIC_CONE)]
    scenario = scene(agents, road=street(end=900.0))
    log = PdmScene.from_scenario(scenario)
    found = IdmTraffic.of(scenario, log).react(FAR)
    for agent in (1, 2):
        np.testing.assert_allclose(found.boxes[:, agent, :2], log.agent_pose[agent, :41, :2])
        assert found.valid[:, agent].all()
    assert speeds(found, 0).min() > 7.9  # through both


def test_vehicles_are_put_on_their_lane_and_those_that_appear_later_never_do():
    scenario = scene([(-30.0, 0.8, 0.05, 8.0, AgentType.VEHICLE), (20.0, 3.5, 0.0, 8.0, AgentType.VEHICLE)])
    valid = scenario.agents.valid.copy()
    valid[1, : PRESENT + 3] = False
    found = traffic(replace(scenario, agents=replace(scenario.agents, valid=valid))).react(FAR)
    assert found.boxes[0, 0, 1] == pytest.approx(0.8) and (found.boxes[1:, 0, 1] == 0.0).all()  # the log's place at the present
    assert not found.valid[:, 1].any()


def test_parked_vehicles_stand_unless_they_are_touched_and_moving_ones_off_the_road_are_gone():
    agents = [
        (40.0, -12.0, 0.0, 0.0, AgentType.VEHICLE),  # parked off the road
        (60.0, -12.0, 0.0, 3.0, AgentType.VEHICLE),  # moving off the road
        (-20.0, 0.0, 0.0, 8.0, AgentType.VEHICLE),
        (-8.0, -3.0, 0.0, 0.0, AgentType.VEHICLE),  # parked so near the lane that the one before touches it when it passes
    ]
    found = traffic(scene(agents)).react(FAR)
    assert found.valid[:, 0].all() and (found.boxes[:, 0, :2] == [40.0, -12.0]).all()
    assert found.valid[0, 1] and not found.valid[1:, 1].any()
    assert found.valid[:, 2].all()
    wide = replace(scene(agents), agents=replace(scene(agents).agents, size=np.array([CAR, CAR, CAR, (4.6, 4.4, 1.6)])))
    kept = traffic(wide).react(FAR).valid[:, 3]
    assert kept[0] and kept[1] and not kept.all()
    assert IdmTraffic.of(wide, PdmScene.from_scenario(wide)).rails[-1].row != 3


def test_a_vehicle_far_from_its_centreline_stands_where_it_is_even_if_it_moves():
    road = street()
    wide = [(n, Layer(int(road.polygons.layers[i])), road.polygons.ring(i)) for i, n in enumerate(road.polygons.tokens)]
    wide[0] = ("0", Layer.LANE, np.array([[-150.0, -9.0], [250.0, -9.0], [250.0, 1.75], [-150.0, 1.75]]))
    road = RoadMap("wide", road.lanes, Polygons.from_rings(wide))
    agents = [(20.0, -3.5, 0.0, 4.0, AgentType.VEHICLE), (40.0, -2.5, 0.0, 4.0, AgentType.VEHICLE)]
    found = traffic(scene(agents, road=road)).react(FAR)
    assert (found.boxes[1:, 0, :2] == [20.0, -3.5]).all() and found.valid[:, 0].all()
    assert (found.boxes[1:, 1, 1] == 0.0).all()


def test_a_vehicle_whose_place_is_taken_by_the_ego_or_that_is_far_away_is_gone_after_the_present():
    agents = [(1.0, 1.2, 0.0, 5.0, AgentType.VEHICLE), (-130.0, 0.0, 0.0, 5.0, AgentType.VEHICLE), (-99.0, 3.5, 0.0, 0.5, AgentType.VEHICLE)]
    found = traffic(scene(agents)).react(driven(6.0))
    assert found.valid[0].all()  # NAVSIM's log replay would take the first away, its IDM does not at the present
    assert not found.valid[1:, 0].any() and not found.valid[1:, 1].any()
    assert found.valid[1, 2] and not found.valid[-1, 2]  # 100 m are left behind on the way


def test_the_ego_is_seen_a_step_late_and_with_its_box_at_the_rear_axle():
    states = driven(0.0)
    states[:, 1] = 60.0
    states[20:, 1] = 0.0  # it drops into the lane at 2.0 s
    found = traffic(scene([(-30.0, 0.0, 0.0, 8.0, AgentType.VEHICLE)], road=street(end=5000.0))).react(states)
    change = np.diff(speeds(found, 0))
    assert (change[:20] > 0).all() and change[20] < 0  # the step to frame 21 still moves at the old speed and takes the new one


def test_a_turning_lane_is_followed():
    angle = np.linspace(0.0, np.pi / 2, 60)
    line = np.column_stack([30.0 * np.sin(angle), 30.0 * (1.0 - np.cos(angle)), angle])
    ring = shapely.get_coordinates(shapely.buffer(shapely.LineString(line[:, :2]), 1.75, cap_style="flat").exterior)[:-1]
    road = RoadMap("bend", {"b": Lane("b", line, line[:, :2], line[:, :2], 8.0)}, Polygons.from_rings([("b", Layer.LANE, ring)]))
    start = line[15] + [0.1, 0.0, 0.0]
    found = traffic(scene([(*start, 4.0, AgentType.VEHICLE)], road=replace_base(road))).react(FAR)
    assert found.valid.all()
    radius = np.hypot(found.boxes[1:, 0, 0], found.boxes[1:, 0, 1] - 30.0)
    np.testing.assert_allclose(radius, 30.0, atol=0.05)
    heading = np.arctan2(found.boxes[1:, 0, 3], found.boxes[1:, 0, 2])
    assert (np.diff(heading) > 0).all() and heading[-1] > 0.3


def replace_base(road):
    """The map with a lane "0" far away, for the scene's centreline."""
    lanes = dict(road.lanes)
    lanes["0"] = replace(street().lanes["0"], centerline=street().lanes["0"].centerline + [0.0, 500.0, 0.0])
    return RoadMap(road.name, lanes, road.polygons)


def test_the_nearest_pose_looks_ahead_and_at_the_end_back():
    line = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [10.0, 10.0, 0.0]])
    np.testing.assert_allclose(nearest_pose(line, np.array([5.0, 1.0])), [5.0, 0.0, 0.0])
    np.testing.assert_allclose(nearest_pose(line, np.array([10.0, 20.0])), [10.0, 10.0, np.pi / 2])
    np.testing.assert_allclose(nearest_pose(line, np.array([9.75, 0.0])), [9.75, 0.0, np.pi / 4])


def test_reacting_vehicles_change_a_score_and_each_proposal_has_its_own():
    """The log's follower drives through an ego that is slower than the logged one was; a reacting one brakes behind it."""
    scenario = scene([(-24.0, 0.0, 0.0, 14.0, AgentType.VEHICLE)], ego_speed=6.0, road=street(14.0, end=400.0))
    plan = np.column_stack([6.0 * 0.1 * np.arange(1, 41), np.zeros((40, 2))])
    plans = np.stack([plan, plan * [1.6, 1.0, 1.0]]).astype(np.float64)
    replay, idm = (EpdmsScene.from_scenario(scenario, kind) for kind in Traffic)
    first, second = (score_epdms([view], [plans], 0.1)[0] for view in (replay, idm))
    np.testing.assert_array_equal(first.states, second.states)
    assert first.ttc[0] == 0.0 and second.ttc[0] == 1.0 and first.score()[0] < second.score()[0]
    for n in (0, 1):
        alone = score_epdms([idm], [plans[n : n + 1]], 0.1)[0]
        assert alone.score()[0] == second.score()[n] and alone.ep[0] == second.ep[n]
    assert idm.reactive is not None and replay.reactive is None
    calm = traffic(scene([(-20.0, 0.0, 0.0, 6.0, AgentType.VEHICLE)], ego_speed=6.0))
    slow, fast = (calm.react(states).boxes[-1, 0, 0] for states in second.states)
    assert slow < fast - 1.0


@pytest.mark.parametrize("x", [[-50.0, -50.0, 50.0], [-50.0, -50.0, -50.0, 50.0, 50.0], [0.0, 0.0, 0.0], [-50.0, 50.0]])
def test_a_lane_whose_vertices_repeat_carries_nobody_and_troubles_nobody(x):
    line = np.column_stack([x, np.full(len(x), 30.0), np.zeros(len(x))])
    ring = np.array([[-50.0, 28.0], [50.0, 28.0], [50.0, 32.0], [-50.0, 32.0]])
    plain = street()
    rings = [(token, Layer(int(plain.polygons.layers[i])), plain.polygons.ring(i)) for i, token in enumerate(plain.polygons.tokens)]
    road = RoadMap("odd", {**plain.lanes, "odd": Lane("odd", line, line[:, :2], line[:, :2], 8.0)}, Polygons.from_rings([*rings, ("odd", Layer.LANE, ring)]))
    found = traffic(scene([(0.5, 30.0, 0.0, 4.0, AgentType.VEHICLE), (-30.0, 3.5, 0.0, 8.0, AgentType.VEHICLE)], road=road))
    assert [rail.row for rail in found.rails] == [1]
    boxes = found.react(FAR)
    assert not boxes.valid[1:, 0].any() and boxes.valid[:, 1].all() and np.isfinite(boxes.boxes[boxes.valid]).all()


def test_a_scene_without_vehicles_or_lanes_has_nothing_to_react():
    empty = scene([])
    bare = replace(scene([(9.0, 30.0, 0.0, 0.0, AgentType.VEHICLE)]), road_map=RoadMap("bare", {}, Polygons.from_rings([])))
    assert traffic(empty).react(FAR).valid.shape == (41, 0)
    assert traffic(bare).react(FAR).valid.all()
