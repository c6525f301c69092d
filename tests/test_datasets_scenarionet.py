"""ScenarioNet logs of a small made-up town, written in the format of the real ones: every answer is known."""

import copy
from dataclasses import fields

import numpy as np
import pytest
import shapely
from scenarionet_logs import OFFSET, STEPS, drive_left, record, town, track, write

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.roadmap import Layer, RoadMap
from drive.core.types import AgentType, Camera, Command, Observation
from drive.datasets.logged import LogDataset
from drive.datasets.logs import LogScenes
from drive.datasets.motion import central_velocity, ego_motion, theil_sen
from drive.datasets.route import find_route, through
from drive.datasets.scenarionet import ScenarioNetReader, log_of
from drive.datasets.scenarionet_log import lever_arm, read_log
from drive.datasets.scenarionet_map import build_road_map
from drive.datasets.splits import load_splits

CAMERA = (Camera.front(32, 32),)
SPLITS = {"train": ("town-1",), "test": ("town-2",)}
HISTORY, FUTURE = 15, 50


def dataset(root, split, **options):
    return LogDataset(ScenarioNetReader(), root, split, **{"splits": SPLITS, **options})


def scenes_of(path):
    return LogScenes(log_of(read_log(path), "train"), CAMERA, cache_images=8)


@pytest.fixture
def log_file(tmp_path):
    return write(tmp_path / "town-1.pkl", record())


@pytest.fixture(scope="module")
def town_map():
    return build_road_map("town", town(), OFFSET)


# --- the ego's motion


def test_theil_sen_is_exact_on_a_line_and_ignores_one_outlier():
    values = 3.0 + 2.0 * np.linspace(-0.85, -0.05, 9)
    assert theil_sen(values, 0.1) == pytest.approx((3.0, 2.0))
    values[5] *= 1.3
    assert theil_sen(values, 0.1) == pytest.approx((3.0, 2.0), abs=0.05)


def test_motion_of_a_braking_car_and_of_a_circle_is_known():
    t = np.linspace(0.0, 3.9, 40)
    braking = ego_motion(np.column_stack([10 * t - 0.5 * 1.5 * t**2, np.zeros((40, 2))]))
    np.testing.assert_allclose(braking.velocity_ego[10:, 0], 10 - 1.5 * t[10:], atol=1e-9)
    np.testing.assert_allclose(braking.acceleration_ego[10:], np.tile([-1.5, 0.0], (30, 1)), atol=1e-9)
    rate, radius = 0.25, 20.0
    circle = ego_motion(np.column_stack([radius * np.sin(rate * t), radius - radius * np.cos(rate * t), rate * t]))
    np.testing.assert_allclose(circle.yaw_rate, rate, atol=1e-9)
    np.testing.assert_allclose(circle.velocity_ego[:, 0], rate * radius, rtol=1e-3)
    np.testing.assert_allclose(circle.velocity_ego[:, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(circle.acceleration_ego[:, 1], rate**2 * radius, rtol=1e-3)


def test_motion_never_reads_a_later_pose():
    poses = drive_left(0.8 * np.arange(60, 120))
    other = poses.copy()
    other[31:] += np.linspace(0, 1, 29)[:, None] ** 2 * (5.0, -2.0, 0.3)
    first, second = ego_motion(poses), ego_motion(other)
    for name in ("velocity_ego", "acceleration_ego", "yaw_rate"):
        assert getattr(first, name)[:31].tobytes() == getattr(second, name)[:31].tobytes()
        assert not np.allclose(getattr(first, name)[31:], getattr(second, name)[31:])


def test_central_velocity_uses_valid_steps_alone():
    positions = np.array([[[9.0, 9.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 9.0], [5.0, 0.0]]])
    valid = np.array([[False, True, True, True, False, True]])
    np.testing.assert_allclose(central_velocity(positions, valid)[0, :, 0], [0.0, 10.0, 10.0, 10.0, 0.0, 0.0])


# --- reading a log


def test_a_log_round_trips_through_its_file(log_file):
    log = read_log(log_file)
    np.testing.assert_array_equal(log.origin, np.floor([5.0, 0.0] + OFFSET))
    np.testing.assert_allclose(
        log.ego.poses_world[:, :2] + log.origin, drive_left(0.8 * np.arange(STEPS))[:, :2] + OFFSET, atol=1e-9
    )
    assert (log.log_id, log.steps, log.recorded_steps, log.trimmed_steps) == ("town-1", STEPS, STEPS, 0)
    assert log.ego_size == (4.08, 1.73, 1.56)
    assert log.agents.ids == ("parked", "walker", "cone", "fence", "bike") and log.never_valid == 1
    wanted = [AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.TRAFFIC_CONE, AgentType.BARRIER, AgentType.BICYCLE]
    np.testing.assert_array_equal(log.agents.types, wanted)
    np.testing.assert_allclose(log.agents.size[2], [0.9, 0.4, 0.8])  # the first, though most later steps differ
    np.testing.assert_allclose(log.agents.velocity_world[1, :60], np.tile([0.0, 1.2], (60, 1)), atol=1e-6)
    assert not log.agents.velocity_world[1, 60:].any() and not log.agents.poses_world[1, 60:].any()


def test_other_sources_log_the_box_centre(tmp_path):
    rear = drive_left(0.8 * np.arange(STEPS))
    centre = compose(rear, [0.28 * 4.08, 0.0, 0.0])
    assert lever_arm(rear) == pytest.approx(0.0, abs=0.02) and lever_arm(centre) == pytest.approx(0.28 * 4.08, abs=0.05)
    log = read_log(write(tmp_path / "a.pkl", record(dataset="waymo", poses=centre)))
    np.testing.assert_allclose(log.ego.poses_world[:, :2] + log.origin - OFFSET, rear[:, :2], atol=1e-9)
    assert np.isnan(lever_arm(rear[:40]))


def test_a_clock_that_jumps_back_ends_the_log_but_a_car_that_reverses_does_not(tmp_path):
    s = np.linspace(0.0, 0.8 * (STEPS - 1), STEPS)
    s[-2:] -= 1.6
    log = read_log(write(tmp_path / "jump.pkl", record(poses=drive_left(s))))
    assert (log.steps, log.trimmed_steps) == (STEPS - 2, 2)
    there = np.concatenate([np.linspace(0, 5, 40), 5 - 0.2 * np.linspace(0, 1, 80) ** 2 * 20])
    log = read_log(write(tmp_path / "reverse.pkl", record(poses=drive_left(there + 1 - np.exp(-np.arange(120) / 5.0)))))
    assert log.trimmed_steps == 0


def broken(change):
    content = copy.deepcopy(record())
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["tracks"]["ego"]["state"]["position"].__setitem__((33, 0), np.nan), ["track ego", "step 33"]),
        (lambda r: r["tracks"]["ego"]["state"]["heading"].__setitem__(7, np.inf), ["track ego", "step 7"]),
        (lambda r: r["tracks"]["ego"]["state"]["valid"].__setitem__(50, 0), ["track ego", "step 50"]),
        (lambda r: r["tracks"].pop("ego"), ["'ego'", "sdc_id"]),
        (lambda r: r["tracks"]["parked"]["state"].pop("heading"), ["track parked", "'heading'"]),
        (lambda r: r["tracks"]["parked"]["state"].update(position="x"), ["track parked", "'position'"]),
        (lambda r: r["tracks"].update(short=track("VEHICLE", np.zeros((5, 3)))), ["track short", "5 steps"]),
        (lambda r: r["metadata"].update(ts=0.5 * np.arange(STEPS)), ["0.500 s", "10 Hz"]),
        (lambda r: r.pop("map_features"), ["map_features"]),
    ],
)
def test_a_faulty_log_names_file_track_and_step(tmp_path, change, words):
    path = write(tmp_path / "faulty.pkl", broken(change))
    with pytest.raises(DataError) as caught:
        read_log(path)
    assert all(word in str(caught.value) for word in ["faulty.pkl", *words]), caught.value


def test_an_agent_with_nan_is_dropped_and_counted(tmp_path):
    def change(r):
        r["tracks"]["parked"]["state"]["heading"][3] = np.nan
        r["tracks"]["walker"]["state"]["position"][100] = np.nan  # not valid there: harmless

    log = read_log(write(tmp_path / "nan.pkl", broken(change)))
    assert log.dropped_tracks == ("parked",)
    assert log.agents.ids == ("walker", "cone", "fence", "bike")
    assert np.isfinite(log.agents.poses_world).all() and np.isfinite(log.agents.velocity_world).all()


# --- the map


def test_lanes_are_linked_by_their_ends_and_their_sides(town_map, tmp_path):
    lanes = town_map.lanes
    assert set(lanes) == {"A", "A2", "left", "straight", "B", "D"}
    assert lanes["A"].successors == ("left", "straight") and lanes["B"].predecessors == ("left",)
    assert lanes["A2"].successors == () and lanes["D"].predecessors == ("straight",)
    assert (lanes["A"].left_neighbor, lanes["A"].right_neighbor, lanes["A2"].right_neighbor) == ("A2", "", "A")
    assert lanes["A"].roadblock == lanes["A2"].roadblock != lanes["D"].roadblock
    assert [lanes[k].turn for k in ("A", "left", "straight")] == ["", "left", "straight"]
    assert lanes["left"].junction == lanes["straight"].junction != "" and lanes["A"].junction == ""
    assert lanes["left"].is_connector and lanes["left"].speed_limit == pytest.approx(50 / 3.6)
    np.testing.assert_allclose(lanes["A"].left[:, 1], 2.0, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*(lanes["left"].left - lanes["left"].right).T), 3.6)
    town_map.save(tmp_path / "map.npz")
    assert RoadMap.load(tmp_path / "map.npz").lanes["left"].successors == ("B",)


def test_a_solid_line_forbids_the_change_and_named_links_are_taken_at_their_word():
    features = town()
    features["divider"]["type"] = "ROAD_LINE_SOLID_SINGLE_WHITE"
    assert build_road_map("solid", features, OFFSET).lanes["A"].left_neighbor == ""
    features["A"] |= {"exit_lanes": ["D", "gone"], "left_neighbor": [{"feature_id": "A2"}]}
    lanes = build_road_map("named", features, OFFSET).lanes
    assert lanes["A"].successors == ("D",) and lanes["left"].successors == () and lanes["A"].left_neighbor == "A2"


def in_drivable(road_map, points):
    """Whether points (..., 2) lie in any drivable polygon."""
    polygons = road_map.polygons.subset(road_map.polygons.layers == Layer.DRIVABLE_AREA)
    area = shapely.union_all([shapely.Polygon(polygons.ring(i)) for i in range(len(polygons))])
    return shapely.intersects_xy(area, points[..., 0].ravel(), points[..., 1].ravel()).reshape(points.shape[:-1])


def test_the_drivable_area_is_the_outline_without_its_islands(town_map):
    polygons = town_map.polygons.subset(town_map.polygons.layers == Layer.DRIVABLE_AREA)
    rings = [shapely.Polygon(polygons.ring(i)) for i in range(len(polygons))]
    assert all(ring.is_valid for ring in rings)
    assert sum(ring.area for ring in rings) == pytest.approx(160 * 100 - 10 * 10)
    inside = in_drivable(town_map, np.array([(30.0, 0.0), (105.0, 45.0), (99.0, 45.0), (160.0, 0.0)]))
    np.testing.assert_array_equal(inside, [True, False, True, False])


def test_without_outlines_lanes_and_connectors_grown_are_drivable():
    features = {k: f for k, f in town().items() if not k.startswith("boundary")}
    inside = in_drivable(
        build_road_map("town", features, OFFSET), np.array([(30.0, -2.4), (30.0, -2.6), (70.0, 2.2), (70.0, 60.0)])
    )
    np.testing.assert_array_equal(inside, [True, False, True, True])


def test_a_map_feature_with_nan_is_named():
    features = town()
    features["B"]["polyline"][3] = (np.nan, 0.0)
    with pytest.raises(DataError, match=r"log town: map feature B has NaN"):
        build_road_map("town", features, OFFSET)


# --- route and command


def test_the_route_is_the_lanes_under_the_drive(town_map):
    poses = drive_left(0.8 * np.arange(STEPS))
    route = find_route(town_map, poses)
    assert route.lane_ids == ("A", "left", "B") and route.matched == 1.0
    assert route.centerline[0, 0] == pytest.approx(-60.0, abs=0.1) and route.centerline[-1, 1] == pytest.approx(132.0, abs=0.1)
    wanted = {10.0: Command.LANEFOLLOW, 30.0: Command.LEFT, 62.0: Command.LEFT, 80.0: Command.LANEFOLLOW}
    assert {s: route.command(drive_left(np.array([s]))[0]) for s in wanted} == wanted


def test_a_connector_barely_entered_is_no_command(town_map):
    route = find_route(town_map, drive_left(np.linspace(0, 58, 60)))
    assert route.lane_ids == ("A",)
    assert route.command(np.array([50.0, 0.0, 0.0])) is Command.LANEFOLLOW


def test_a_drive_off_the_lanes_has_its_own_path_and_no_command(town_map):
    poses = np.column_stack([np.linspace(20, 60, 50), np.full(50, 70.0), np.zeros(50)])
    route = find_route(town_map, poses)
    assert (route.lane_ids, route.matched, route.maneuvers) == ((), 0.0, ())
    np.testing.assert_allclose(route.centerline[:, 1], 70.0, atol=1e-9)
    parked = find_route(town_map, np.tile([30.0, 70.0, np.pi / 2], (50, 1)))
    np.testing.assert_allclose(parked.centerline[[0, -1], :2], [(30.0, 10.0), (30.0, 131.0)], atol=1e-9)


def test_a_lane_change_leads_over_without_a_step_back(town_map):
    x = np.linspace(2, 58, 100)
    poses = np.column_stack([x, 4.0 / (1 + np.exp(-(x - 30.0))), np.zeros(100)])
    assert find_route(town_map, poses).lane_ids == ("A", "A2")
    path = through(town_map, ("A", "A2"))
    assert (np.diff(path[:, 0]) > 0).all() and path[0, 1] == 0.0 and path[-1, 1] == 4.0


# --- windows


def test_windows_hold_history_present_and_future(tmp_path):
    write(tmp_path / "town-1.pkl", record())
    write(tmp_path / "town-2.pkl", record("town-2"))
    data = dataset(tmp_path, "train", render=CAMERA)
    assert len(data) == len(range(HISTORY, STEPS - FUTURE, 5)) == 11
    assert data.ids[0] == "town-1-0015" and data.ids[-1] == "town-1-0065" and [scenes.log.log_id for scenes in data.logs] == ["town-1"]
    scene = data[3]
    assert (scene.id, scene.split, scene.source, scene.log_id) == ("town-1-0030", "train", "scenarionet", "town-1")
    assert scene.present == 15 and len(scene.ego.poses_world) == 66 and scene.agents.valid.shape[1] == 66
    assert "ego" not in scene.agents.ids and len(scene.privileged().agents.valid[0]) == 51
    assert scene.command is Command.LEFT and scene.route_lane_ids == ("A", "left", "B")
    assert scene.teacher is not None and scene.reference_world is not None
    np.testing.assert_array_equal(scene.teacher.poses, scene.logged_future().poses)
    np.testing.assert_allclose(scene.teacher.poses[:6, 0], 4.0 * np.arange(1, 7), atol=1e-6)
    assert scene.reference_world.shape == (51, 3)
    np.testing.assert_array_equal(scene.reference_world[0], scene.ego.poses_world[15])
    np.testing.assert_array_equal(compose(scene.reference_world[0], scene.teacher.poses[-1]), scene.reference_world[-1])
    assert not data[10].privileged().agents.valid[1].any()  # the walker, last seen at step 59: the present is 65
    with pytest.raises(DataError, match="not 120"):
        data.logs[0].scenario(STEPS)
    assert data.fingerprint == dataset(tmp_path, "train").fingerprint
    assert data.fingerprint != dataset(tmp_path, "test").fingerprint


def observation_bytes(observation: Observation) -> bytes:
    parts = []
    for field in fields(observation):
        value = getattr(observation, field.name)
        parts.append(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return b"|".join(parts)


def test_another_future_on_the_same_lanes_changes_no_byte_of_the_observation(tmp_path):
    present = 30
    s = np.linspace(0.0, 0.8 * (STEPS - 1), STEPS)
    later = s.copy()
    later[present + 1 :] = s[present] + 0.75 * (s[present + 1 :] - s[present])  # slower, and to one side
    other = drive_left(later)
    other[present + 1 :, 1] += 0.3
    files = [write(tmp_path / f"{i}.pkl", record(poses=poses)) for i, poses in enumerate((drive_left(s), other))]
    first, second = (scenes_of(path).scenario(present) for path in files)
    assert first.route_lane_ids == second.route_lane_ids
    assert first.teacher is not None and second.teacher is not None
    assert not np.allclose(first.teacher.poses, second.teacher.poses)
    assert observation_bytes(first.observation()) == observation_bytes(second.observation())


def test_images_are_rendered_once_and_not_of_the_future(log_file):
    log = scenes_of(log_file)
    scene = log.scenario(30)
    images = scene.observation().images
    assert images.shape == (1, 4, 32, 32, 3) and images.dtype == np.uint8 and images.std() > 5
    assert scene.image_source.image(0, 15) is log.scenario(35).image_source.image(0, 10)
    with pytest.raises(DataError, match="not at 16"):
        scene.image_source.image(0, 16)


# --- folders


def test_the_rest_is_read_and_the_loss_counted(tmp_path):
    good = write(tmp_path / "town-1.pkl", record())
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "0.pkl", record("town-2"))
    (tmp_path / "torn.pkl").write_bytes(good.read_bytes()[:-500])
    write(tmp_path / "twice.pkl", record())
    write(tmp_path / "dataset_mapping.pkl", {"town-1.pkl": "", "0.pkl": "deep", "gone.pkl": ""})
    write(tmp_path / "dataset_summary.pkl", {"town-1.pkl": {}})
    write(tmp_path / "deep" / "dataset_summary.pkl", ["no", "mapping"])
    data = dataset(tmp_path, "train")
    reasons = {name: next(fault for fault in data.faults if name in fault) for name in ("torn.pkl", "twice.pkl", "gone.pkl", "dataset_summary.pkl")}
    assert len(data.faults) == 4 and len(data) == 11
    assert "town-1 is there twice" in reasons["twice.pkl"] and "not a complete pickle" in reasons["torn.pkl"]
    assert data.expected == 11 + 3 * 11  # torn, gone and the bad index, each as many as the one readable log holds; a repetition costs nothing


def test_logs_take_their_split_from_their_folder_or_from_a_file(tmp_path):
    write(tmp_path / "training" / "a.pkl", record("town-1"))
    write(tmp_path / "val" / "b.pkl", record("town-2"))
    write(tmp_path / "c.pkl", record("town-3"))
    assert [scenes.log.log_id for scenes in dataset(tmp_path, "val", splits=None).logs] == ["town-2"]
    data = dataset(tmp_path, "train", splits=None)
    assert len(data) == data.expected and "belong to no split (town-3)" in data.faults[0] and "dataset.splits=FILE" in data.faults[0]
    with pytest.raises(DataError, match=r"1 logs belong to no split \(town-3\)"):
        dataset(tmp_path, "train")
    named = tmp_path / "splits.yaml"
    named.write_text("train: [town-3]\ntest: [town-1, town-2]\n")
    assert [scenes.log.log_id for scenes in dataset(tmp_path, "test", splits=load_splits(named)).logs] == ["town-1", "town-2"]


def test_a_torn_log_counts_as_many_scenes_as_the_others_in_its_own_split_alone(tmp_path):
    from drive.datasets.select import select

    good = write(tmp_path / "scene-0103.pkl", record("scene-0103"))
    (tmp_path / "sd_scene-0916.pkl").write_bytes(good.read_bytes()[:-500])
    (tmp_path / "sd_scene-0061.pkl").write_bytes(good.read_bytes()[:-500])  # named as a log to train on
    data = select({"name": "scenarionet", "root": str(tmp_path), "stride_s": 0.5, "splits": None}, "test")
    assert len(data.scenarios) == 11 and data.expected == 22 and len(data.faults) == 1


def test_a_dataset_of_nothing_says_so(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        dataset(tmp_path / "absent", "train")
    with pytest.raises(DataError, match="no readable log"):
        dataset(tmp_path, "train")
    write(tmp_path / "town-3.pkl", record("town-3"))
    with pytest.raises(DataError, match="town-3"):
        dataset(tmp_path, "train")
    with pytest.raises(DataError, match="stride"):
        dataset(tmp_path, "train", stride_s=0.0)
