"""Situations, and the world in which the ego drives."""

import numpy as np
import pytest
from world_maps import oval

from drive.core.errors import DataError
from drive.core.geometry import arc_length, compose, interpolate_poses, project, relative
from drive.core.seeds import numpy_rng
from drive.core.types import Camera, Trajectory
from drive.core.vehicle import PACIFICA
from drive.simulators.scenarios import KINDS, cruise_speed, place_scenario, possible_kinds
from drive.simulators.towns import load_town, town_names
from drive.simulators.traffic_fleet import PARKED
from drive.simulators.world import World
from drive.simulators.world_events import STUCK_AFTER, bicycle_step


@pytest.fixture(scope="module")
def town():
    return load_town("urban_a")


def straight_plan(speed, brake=0.0):
    """5 s straight ahead at 10 Hz."""
    t = 0.1 * np.arange(1, 51)
    stop = speed / brake if brake else np.inf
    t = np.minimum(t, stop)
    return Trajectory(np.column_stack([speed * t - 0.5 * brake * t**2, np.zeros((50, 2))]), 0.1)


def route_plan(world):
    """5 s along the route at the present speed."""
    scene = world.privileged()
    line = scene.centerline_world
    here = project(line, scene.ego.pose_world[:2])[0]
    poses = interpolate_poses(arc_length(line), line, here + scene.ego.speed * 0.1 * np.arange(1, 51))
    return Trajectory(relative(scene.ego.pose_world, poses), 0.1)


def test_every_kind_has_a_place_in_the_training_towns():
    assert {kind for name in town_names("train") for kind in possible_kinds(load_town(name))} == set(KINDS)


def test_kinds_that_do_not_fit_are_refused(town):
    with pytest.raises(DataError, match="no scenario kind"):
        place_scenario(town, "parade", numpy_rng(0, "test"))
    with pytest.raises(DataError, match="no place for a merge"):
        place_scenario(town, "merge", numpy_rng(0, "test"))


@pytest.mark.parametrize("turn", ["left", "right", "straight"])
def test_a_junction_kind_starts_before_such_a_turn(town, turn):
    for seed in range(5):
        placed = place_scenario(town, f"junction_{turn}", numpy_rng(seed, "test"))
        connector = next(k for k in placed.route.lane_ids if town.lanes[k].is_connector)
        start = placed.route.s[np.flatnonzero(placed.route.is_connector)[0]]
        assert town.lanes[connector].turn == turn and 0.0 < start - placed.start <= 61.0


def test_a_stopped_car_stands_in_the_way(town):
    for seed in range(5):
        world = World(town, "urban_a", "stopped_car", seed)
        fleet = world.traffic.fleet
        assert fleet.mode[1] == PARKED and fleet.speed[1] == 0.0
        s, d = project(world.route.path, [fleet.x[1], fleet.y[1]])
        assert 10.0 < s - world.route_s < 90.0
        assert abs(d) < (PACIFICA.width + fleet.width[1]) / 2.0


def test_the_lead_brakes_when_its_script_says_so(town):
    world = World(town, "urban_a", "hard_brake", 3)
    script = world._scripts[0][1].script
    assert script is not None
    slowest = []
    for _ in range(26):
        world.drive(route_plan(world), 5)
        slowest.append(world.traffic.fleet.accel[1])
    before = round(script.time / 0.5)
    assert min(slowest[:before]) > -3.0 and min(slowest[before : before + 4]) < -3.5


def test_the_cut_in_comes_into_the_egos_lane():
    road = load_town("highway_a")
    came = 0
    for seed in range(4):
        world = World(road, "highway_a", "cut_in", seed)
        assert abs(project(world.privileged().centerline_world, world.traffic.boxes()[1, :2])[1]) > 2.5
        world.coast(80)
        came += abs(project(world.privileged().centerline_world, world.traffic.boxes()[1, :2])[1]) < 1.0
    assert came >= 3


def test_cruise_speed_knows_limit_and_curve():
    placed = place_scenario(oval(radius=30.0), "free", numpy_rng(0, "test"))
    curve = np.flatnonzero(np.abs(np.diff(placed.route.path[:, 2])) > 0.02)
    middle = float(placed.route.s[curve[len(curve) // 2]])
    assert cruise_speed(placed.route, middle) <= np.sqrt(2.5 * 33.6) + 0.2
    assert cruise_speed(placed.route, 0.0) <= 14.0


def test_driving_follows_the_plan(town):
    world = World(town, "urban_a", "free", 1)
    for _ in range(6):
        plan = route_plan(world)
        goal = compose(world.state[:3], plan.poses[4])
        world.drive(plan, 5)
        assert np.hypot(*(world.state[:2] - goal[:2])) < 0.6
    assert world.step == 30 and len(world.ego_track().poses_world) == 31
    assert world.tracks().poses_world.shape[1] == 31


def test_a_plan_that_is_too_short_is_refused(town):
    world = World(town, "urban_a", "free", 1)
    with pytest.raises(DataError, match="plan further ahead"):
        world.drive(Trajectory(np.array([[1.0, 0.0, 0.0]]), 0.1), 5)


def test_collision_and_leaving_the_road_are_told(town):
    world = World(town, "urban_a", "stopped_car", 2)
    for _ in range(60):
        world.drive(route_plan(world) if world.state[3] > 3.0 else straight_plan(5.0), 5)
        if world.over:
            break
    assert any(text == "collision vehicle-1" for _, text in world.events)

    world = World(town, "urban_a", "free", 2)
    world.drive_control(1.0, 0.35, 60)
    assert any(text == "off_road" for _, text in world.events)


def test_standing_for_long_is_being_stuck(town):
    world = World(town, "urban_a", "free", 2)
    world.drive_control(-6.0, 0.0, STUCK_AFTER + 60)
    assert any(text == "stuck" for _, text in world.events)
    assert world.state[3] == 0.0


def test_privileged_shows_the_present_alone(town):
    world = World(town, "urban_a", "follow", 4)
    world.drive(route_plan(world), 5)
    scene = world.privileged()
    assert scene.agents.valid.shape[1] == 1 and scene.agents.valid.all()
    assert np.allclose(scene.agents.poses_world[:, 0, :2], world.traffic.boxes()[1:, :2])
    assert scene.agent_acceleration is not None and len(scene.agent_acceleration) == len(scene.agents)
    along = arc_length(scene.centerline_world)[-1]
    assert 150.0 < along <= 201.0
    assert abs(project(scene.centerline_world, world.state[:2])[0] - 20.0) < 1.5


def test_agents_boxes_never_touch_the_ego_at_the_start(town):
    for kind in possible_kinds(town):
        for seed in range(3):
            world = World(town, "urban_a", kind, seed)
            world.coast(1)
            assert not world.events, f"{kind} {seed}: {world.events}"


def test_observation_is_rendered_history(town):
    world = World(town, "urban_a", "follow", 0)
    camera = Camera.front(64, 48)
    world.coast(15)
    seen = world.observation((camera,))
    assert seen.images.shape == (1, 4, 48, 64, 3) and seen.frame_dt == pytest.approx(0.5)
    assert (seen.images[0, -1] == world.image(camera, 15)).all() and (seen.images[0, 0] == world.image(camera, 0)).all()
    assert np.allclose(seen.ego_history, relative(world.state[:3], world.ego_track().poses_world[[0, 5, 10, 15]]))
    assert seen.command is world.command


def test_one_seed_is_one_world(town):
    def end(seed):
        world = World(town, "urban_a", "junction_left", seed)
        world.coast(40)
        return world.state, world.traffic.boxes()

    first, again, other = end(1), end(1), end(2)
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


def test_bicycle_circles_at_the_radius_of_its_wheels():
    state = np.zeros(11)
    state[3], state[7] = 5.0, 0.2
    points = []
    for _ in range(400):
        state = bicycle_step(state, 0.0, 0.2, 0.1)
        points.append(state[:2])
    radius = np.ptp(np.array(points)[:, 1]) / 2.0
    assert radius == pytest.approx(PACIFICA.wheel_base / np.tan(0.2), rel=0.02)
    assert state[9] == pytest.approx(5.0 / radius, rel=0.02)
