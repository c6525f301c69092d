"""nuScenes' tables as Scenarios: hand-made tables, damaged ones, and the two real scenes where they are at hand."""

import json
import math
import multiprocessing
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from nuscenes_files import SAMPLES, SPEED, VERSION, tables, write
from PIL import Image

from drive.core.errors import DataError
from drive.core.quaternion import heading, rotation_matrix, transform
from drive.core.types import AgentType, Command, Tracks
from drive.datasets.nuscenes import DT, HISTORY, NuScenesDataset, NuScenesReader, inspect, inspect_can_bus
from drive.datasets.nuscenes_tables import NuScenesTables, agent_type
from drive.datasets.splits import NUSCENES_MINI
from drive.metrics.nuscenes_l2 import lidar_positions

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real/SysCV__vis4d-test-data/nuscenes_test"
REAL_VERSION = "v1.0-mini-reconstructed"
real = pytest.mark.skipif(not (ROOT / REAL_VERSION).is_dir(), reason="the real nuScenes tables are not at hand")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return NuScenesDataset(write(tmp_path_factory.mktemp("nuscenes"), tables()), "test", VERSION)


def test_rotations():
    matrix = rotation_matrix([math.cos(0.4), 0.0, 0.0, math.sin(0.4)])
    np.testing.assert_allclose(matrix @ [1, 0, 0], [math.cos(0.8), math.sin(0.8), 0.0], atol=1e-12)
    assert heading(rotation_matrix([math.cos(-1.5), 0.0, 0.0, math.sin(-1.5)])) == pytest.approx(-3.0)
    np.testing.assert_allclose(transform([2.0, 0, 0, 0], [1, 2, 3]) @ [0, 0, 0, 1], [1, 2, 3, 1])  # quaternions need not be of unit length


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("vehicle.car", AgentType.VEHICLE),
        ("vehicle.bus.rigid", AgentType.VEHICLE),
        ("vehicle.bicycle", AgentType.BICYCLE),
        ("human.pedestrian.child", AgentType.PEDESTRIAN),
        ("movable_object.barrier", AgentType.BARRIER),
        ("movable_object.trafficcone", AgentType.TRAFFIC_CONE),
        ("static_object.bicycle_rack", AgentType.GENERIC_OBJECT),
    ],
)
def test_categories(category, kind):
    assert agent_type(category) is kind


def test_a_scenario_for_every_key_frame(data):
    assert len(data) == data.expected == 2 * SAMPLES and data.faults == []
    scene = data[5]
    assert (scene.id, scene.log_id, scene.split, scene.dt, scene.present) == ("scene-0103-0005", "scene-0103", "test", DT, HISTORY)
    assert scene.time_s == pytest.approx(2.5) and scene.command is Command.LANEFOLLOW
    future = scene.logged_future(8).poses
    np.testing.assert_allclose(future, np.column_stack([SPEED * DT * np.arange(1, 9), np.zeros(8), np.zeros(8)]), atol=1e-9)
    assert scene.teacher is None  # eight of ten steps are left
    assert data[3].teacher is not None and len(data[3].teacher.poses) == 10
    now = scene.ego.state(HISTORY)
    assert now.speed == pytest.approx(SPEED) and now.yaw_rate == pytest.approx(0.0)


def test_agents_keep_size_place_and_class(data):
    scene = data[5]
    car, walker = scene.agents.subset(scene.agents.types == AgentType.VEHICLE), scene.agents.subset(scene.agents.types == AgentType.PEDESTRIAN)
    np.testing.assert_allclose(car.size[0], [4.6, 1.9, 1.6])
    ego = scene.ego.poses_world[HISTORY]
    np.testing.assert_allclose(car.poses_world[0, HISTORY, :2] - ego[:2], 20.0 * np.array([math.cos(0.3), math.sin(0.3)]), atol=1e-9)
    np.testing.assert_allclose(np.hypot(*car.velocity_world[0, HISTORY]), SPEED)
    np.testing.assert_allclose(walker.velocity_world[0], 0.0)


def test_the_start_of_a_scene_is_prolonged_backwards(tmp_path):
    data = NuScenesDataset(write(tmp_path, tables(), can_bus=True), "test", VERSION)
    first = data[0]
    assert first.notes["prolonged_frames"] == 3 and data[2].notes["prolonged_frames"] == 1 and data[3].notes["prolonged_frames"] == 0
    history = first.observation().ego_history
    np.testing.assert_allclose(history[:, 0], SPEED * DT * np.arange(-3, 1), atol=0.2)
    assert not first.agents.valid[:, :HISTORY].any() and first.agents.valid[:, HISTORY].all()


def test_the_future_changes_no_byte_of_the_observation(tmp_path):
    changed = tables()
    for record in changed["ego_pose"] + changed["sample_annotation"]:
        name, k = record["token"].rsplit("-", 1)
        if "0103" in name and int(k) > 5:
            record["translation"] = [record["translation"][0] + 3.0, record["translation"][1] - 7.0, 0.0]
    changed_at = tables()
    for record in changed_at["ego_pose"] + changed_at["sample_annotation"]:
        if not record["token"].endswith("-0"):
            record["translation"] = [record["translation"][0] + 3.0, record["translation"][1] - 7.0, 0.0]
    for present, future, can_bus in ((5, changed, False), (5, changed, True), (0, changed_at, False), (0, changed_at, True)):
        name = f"{present}-{can_bus}"
        plain = NuScenesDataset(write(tmp_path / f"plain-{name}", tables(), can_bus), "test", VERSION)[present].observation()
        other = NuScenesDataset(write(tmp_path / f"other-{name}", future, can_bus), "test", VERSION)[present].observation()
        for name in ("images", "ego_history"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
        assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


def test_motion_from_the_can_bus_is_the_last_message_before_the_frame(tmp_path):
    now = NuScenesDataset(write(tmp_path, tables(), can_bus=True), "test", VERSION)[4].observation()
    assert now.speed == pytest.approx(SPEED + 0.01 * 100)  # message 100, at 2 s
    assert (now.acceleration, now.yaw_rate) == (pytest.approx(0.5), pytest.approx(0.02))


def test_val_is_another_name_of_the_test_split(tmp_path):
    data = NuScenesDataset(write(tmp_path, tables()), "val", VERSION)
    assert len(data) == 2 * SAMPLES and data[0].split == "test"
    with pytest.raises(DataError, match="no key frame of CAM_FORNT; it has CAM_FRONT, LIDAR_TOP"):
        NuScenesDataset(tmp_path, "val", VERSION, camera="CAM_FORNT")


def test_images_are_read_where_a_camera_is_named(tmp_path):
    content = tables()
    data = NuScenesDataset(write(tmp_path, content, images=True), "test", VERSION, camera="CAM_FRONT")
    seen = data[4].observation()
    assert seen.images.shape == (1, 4, 36, 64, 3) and seen.cameras[0].name == "CAM_FRONT"
    np.testing.assert_allclose(seen.images.mean(axis=(0, 2, 3, 4)), [11, 12, 13, 14], atol=1.0)  # steps 1 to 4
    np.testing.assert_allclose(seen.cameras[0].ego_from_camera @ [0, 0, 1, 0], [1, 0, 0, 0], atol=1e-12)  # z looks ahead
    assert data[0].observation().images[0, 0].mean() == pytest.approx(10, abs=1.0)


def test_the_lidar_frame_has_x_right_and_y_ahead(data):
    matrix = np.array(data[5].notes["lidar_from_ego"])
    straight = np.array([[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    np.testing.assert_allclose(lidar_positions(straight, matrix), [[0, 2], [0, 4]], atol=1e-12)
    np.testing.assert_allclose(lidar_positions(np.array([[0.0, 3.0, 0.0]]), matrix), [[-3, 0]], atol=1e-12)
    # turned about the rear axle, the lidar 1 m ahead of it moves
    np.testing.assert_allclose(lidar_positions(np.array([[0.0, 0.0, math.pi / 2]]), matrix), [[-1, -1]], atol=1e-12)


def test_training_takes_key_frames_with_a_whole_plan_alone(tmp_path):
    data = NuScenesDataset(write(tmp_path, tables(("scene-0061", "scene-0103"))), "train", VERSION)
    assert len(data) == data.expected == SAMPLES - 10
    assert all(scene.teacher is not None for scene in data)


DAMAGE = {
    "a truncated table": (lambda root: _cut(root / VERSION / "ego_pose.json"), ["ego_pose.json", "JSON"]),
    "a missing table": (lambda root: (root / VERSION / "instance.json").unlink(), ["instance.json", "lacks"]),
    "a record without a field": (lambda root: _edit(root, "sample", 3, lambda r: r.pop("timestamp")), ["sample.json", "record 3", "timestamp"]),
    "no such version": (lambda root: (root / VERSION).rename(root / "v1.0-other"), [VERSION, "v1.0-other"]),
    "a table that is no list": (lambda root: (root / VERSION / "log.json").write_text("{}"), ["log.json", "no list"]),
}


def _cut(path):
    path.write_text(path.read_text()[:500])


def _edit(root, table, index, change):
    path = root / VERSION / f"{table}.json"
    records = json.loads(path.read_text())
    change(records[index])
    path.write_text(json.dumps(records))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_tables_are_told_by_name(tmp_path, damage):
    break_it, words = damage
    break_it(write(tmp_path, tables()))
    with pytest.raises(DataError) as error:
        NuScenesDataset(tmp_path, "test", VERSION)
    assert all(word in str(error.value) for word in words)


NAN = float("nan")
FAULTS = {
    "NaN in a pose": ("ego_pose", 4, lambda r: r.update(translation=[NAN, 0.0, 0.0]), ["ego_pose.json", "e-scene-0103-4", "NaN"]),
    "a pose of two numbers": ("ego_pose", 4, lambda r: r.update(rotation=[1.0, 0.0]), ["ego_pose.json", "e-scene-0103-4", "no pose"]),
    "NaN in a box": ("sample_annotation", 6, lambda r: r.update(rotation=[NAN] * 4), ["sample_annotation.json", "a-car-scene-0103-3"]),
    "a box without size": ("sample_annotation", 0, lambda r: r.update(size=[0.0, NAN, 1.0]), ["sample_annotation.json", "scene-0103-car", "size"]),
    "a broken chain": ("sample", 4, lambda r: r.update(next=""), ["sample.json", "scene-0103", "14 samples", "has 5"]),
    "a sample that is not there": ("sample", 4, lambda r: r.update(next="elsewhere"), ["sample.json", "elsewhere"]),
    "an instance that is not there": ("sample_annotation", 0, lambda r: r.update(instance_token="ghost"), ["instance.json", "ghost"]),
    "NaN in a calibration": ("calibrated_sensor", 0, lambda r: r.update(translation=[NAN, 0.0, 0.0]), ["calibrated_sensor.json", "c-lidar", "NaN"]),
    "no direction": ("ego_pose", 4, lambda r: r.update(rotation=[0.0] * 4), ["ego_pose.json", "e-scene-0103-4", "no direction"]),
    "a size of two numbers": ("sample_annotation", 0, lambda r: r.update(size=[1.0, 2.0]), ["sample_annotation.json", "scene-0103-car", "size"]),
    "no size": ("sample_annotation", 0, lambda r: r.update(size=None), ["sample_annotation.json", "scene-0103-car", "size"]),
    "a text for a time": ("sample", 4, lambda r: r.update(timestamp="soon"), ["sample.json", "scene-0103", "timestamps"]),
    "a time twice": ("sample", 4, lambda r: r.update(timestamp=1_500_000_001_500_000), ["sample.json", "scene-0103", "ascend"]),
    "a chain into another scene": ("sample", 4, lambda r: r.update(next="scene-0916-5"), ["sample.json", "scene-0103", "scene-0916-5", "another scene"]),
    "a number beyond all": ("sample_annotation", 0, lambda r: r.update(translation=[10**400, 0, 0]), ["sample_annotation.json", "a-car-scene-0103-0"]),
    "no lidar frame": ("sample_data", 0, lambda r: r.update(calibrated_sensor_token="c-cam"), ["sample_data.json", "scene-0103-0", "LIDAR_TOP"]),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_a_scene_at_fault_is_left_out_told_and_counted(tmp_path, case):
    table, index, change, words = case
    _edit(write(tmp_path, tables()), table, index, change)
    if table == "calibrated_sensor":  # both scenes share it
        with pytest.raises(DataError) as error:
            NuScenesDataset(tmp_path, "test", VERSION)
        assert all(word in str(error.value) for word in words)
        return
    data = NuScenesDataset(tmp_path, "test", VERSION)
    assert len(data) == SAMPLES and data.expected == 2 * SAMPLES and {s.log_id for s in data} == {"scene-0916"}
    (fault,) = data.faults
    assert all(word in fault for word in words)


def test_a_missing_image_is_a_fault_of_its_scene(tmp_path):
    write(tmp_path, tables(), images=True)
    (tmp_path / "samples" / "cam-scene-0103-7.jpg").unlink()
    data = NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT")
    assert len(data) == SAMPLES and "cam-scene-0103-7.jpg" in data.faults[0] and "is missing" in data.faults[0]
    (tmp_path / "samples" / "cam-scene-0916-4.jpg").write_bytes(b"\xff\xd8 torn")
    with pytest.raises(DataError, match=r"cam-scene-0916-4\.jpg"):
        data[4].observation()


def test_a_can_bus_file_of_another_time_is_a_fault_of_its_scene(tmp_path):
    write(tmp_path, tables(), can_bus=True)
    folder = tmp_path / "can_bus"
    (folder / "scene-0103_pose.json").write_text((folder / "scene-0916_pose.json").read_text())
    data = NuScenesDataset(tmp_path, "test", VERSION)
    assert len(data) == SAMPLES and "scene-0103_pose.json" in data.faults[0] and "another scene" in data.faults[0]


def test_a_torn_can_bus_file_is_a_fault_of_its_scene(tmp_path):
    write(tmp_path, tables(), can_bus=True)
    _cut(tmp_path / "can_bus" / "scene-0916_pose.json")
    data = NuScenesDataset(tmp_path, "test", VERSION)
    assert len(data) == SAMPLES and "scene-0916_pose.json" in data.faults[0]


def test_a_can_bus_file_that_ends_early_is_a_fault_of_its_scene(tmp_path):
    write(tmp_path, tables(), can_bus=True)
    path = tmp_path / "can_bus" / "scene-0916_pose.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:60]))
    data = NuScenesDataset(tmp_path, "test", VERSION)
    assert len(data) == SAMPLES and path.name in data.faults[0] and "no message within" in data.faults[0]


def test_a_short_scene_counts_nothing_in_training_and_the_can_bus_is_part_of_the_fingerprint(tmp_path):
    content = tables(("scene-0061", "scene-0553", "scene-0103"))
    next(r for r in content["scene"] if r["name"] == "scene-0553")["nbr_samples"] = 5
    next(r for r in content["sample"] if r["token"] == "scene-0553-4")["next"] = ""
    for instance in content["instance"]:
        instance["nbr_annotations"] = 5 if instance["token"].startswith("scene-0553") else SAMPLES
    data = NuScenesDataset(write(tmp_path, content), "train", VERSION)
    assert len(data) == data.expected == SAMPLES - 10
    before = data.fingerprint
    assert NuScenesDataset(write(tmp_path, content, can_bus=True), "train", VERSION).fingerprint != before


def test_no_scene_of_a_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="has 2 scenes, none of the split 'train'; they are of test: give split=test"):
        NuScenesDataset(write(tmp_path, tables()), "train", VERSION)


@pytest.fixture(scope="module")
def real_data():
    return NuScenesDataset(ROOT, "test", REAL_VERSION)


@real
def test_the_real_tables_hold_what_is_known_of_them(real_data):
    found = NuScenesTables(ROOT, REAL_VERSION)
    counts = {name: sum(1 for _ in found.records(name)) for name in ("scene", "sample", "sample_data", "ego_pose", "sample_annotation", "instance")}
    assert (counts["scene"], counts["sample"], counts["sample_data"], counts["ego_pose"], counts["sample_annotation"]) == (2, 81, 567, 567, 4433)
    assert len(real_data) == 81 and real_data.faults == []
    annotated = {}
    for record in found.records("sample_annotation"):
        annotated[record["instance_token"]] = annotated.get(record["instance_token"], 0) + 1
    assert len(annotated) == 207
    assert all(found.get("instance", token)["nbr_annotations"] == count for token, count in annotated.items())
    kept = sum(int(scenes.log.agents.valid.sum()) for scenes in real_data.logs)
    assert kept == 4433


@real
def test_the_real_motion_agrees_with_the_driven_path(real_data):
    for log in (scenes.log for scenes in real_data.logs):
        step = np.hypot(*np.diff(log.ego.poses_world[:, :2], axis=0).T) / np.diff(log.times)
        middle = (log.ego.velocity_ego[1:, 0] + log.ego.velocity_ego[:-1, 0]) / 2
        assert np.abs(step / middle - 1.0).mean() < 0.04  # the wheels read 2 % slow


@real
def test_the_real_tables_equal_the_devkits(tmp_path):
    devkit = pytest.importorskip("nuscenes.nuscenes", reason="nuscenes-devkit is not installed", exc_type=ImportError)
    (tmp_path / REAL_VERSION).symlink_to(ROOT / REAL_VERSION)
    (tmp_path / "maps").mkdir()
    for record in json.loads((ROOT / REAL_VERSION / "map.json").read_text()):  # the devkit wants the raster maps, and reads nothing of them here
        Image.new("L", (4, 4)).save(tmp_path / record["filename"])
    theirs = devkit.NuScenes(version=REAL_VERSION, dataroot=str(tmp_path), verbose=False)
    ours = NuScenesTables(ROOT, REAL_VERSION)
    ours.load(scene["token"] for scene in theirs.scene)
    for scene in theirs.scene:
        records = ours.scene(scene["token"])
        boxes, at, seen = records.boxes, scene["first_sample_token"], 0
        for k, token in enumerate(records.samples):
            official = theirs.get("sample", at)
            assert token == official["token"]
            mine = {boxes.instances[boxes.row[b]]: b for b in np.flatnonzero(boxes.step == k)}
            seen += len(mine)
            data = theirs.get("sample_data", official["data"]["LIDAR_TOP"])
            np.testing.assert_allclose(records.poses[k, :2], theirs.get("ego_pose", data["ego_pose_token"])["translation"][:2])
            for annotation in official["anns"]:
                box, record = theirs.get_box(annotation), theirs.get("sample_annotation", annotation)
                row = mine.pop(record["instance_token"])
                assert boxes.categories[boxes.row[row]] == record["category_name"] and boxes.hidden[row] == (record["visibility_token"] == "1")
                values = boxes.values[row]
                np.testing.assert_array_equal(values[:2], box.center[:2])
                np.testing.assert_array_equal(values[3:], box.wlh[[1, 0, 2]])
                assert math.cos(values[2] - box.orientation.yaw_pitch_roll[0]) == pytest.approx(1.0)
            assert not mine
            at = official["next"]
        assert at == "" and seen == len(boxes.step)


def _with_cameras(content, size=(36, 64)):
    """The tables with a second camera, to the left."""
    content["sensor"].append({"token": "s-left", "channel": "CAM_FRONT_LEFT"})
    content["calibrated_sensor"].append({**content["calibrated_sensor"][1], "token": "c-left", "sensor_token": "s-left"})
    for record in [r for r in content["sample_data"] if r["calibrated_sensor_token"] == "c-cam"]:
        left = {"calibrated_sensor_token": "c-left", "filename": record["filename"].replace("cam-", "left-"), "token": f"left-{record['token']}"}
        content["sample_data"].append({**record, **left, "height": size[0], "width": size[1]})
    return content


def test_several_cameras_in_the_order_asked_for(tmp_path):
    write(tmp_path, _with_cameras(tables(("scene-0103",))), images=True)
    for k in range(SAMPLES):
        Image.fromarray(np.full((36, 64, 3), 200 + k, np.uint8)).save(tmp_path / "samples" / f"left-scene-0103-{k}.jpg")
    data = NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT_LEFT, CAM_FRONT")
    seen = data[4].observation()
    assert seen.images.shape == (2, 4, 36, 64, 3) and [camera.name for camera in seen.cameras] == ["CAM_FRONT_LEFT", "CAM_FRONT"]
    np.testing.assert_allclose(seen.images.mean(axis=(2, 3, 4)), [[201, 202, 203, 204], [11, 12, 13, 14]], atol=1.5)
    assert data.fingerprint != NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT").fingerprint
    with pytest.raises(DataError, match="names a camera twice"):
        NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT,CAM_FRONT")
    (tmp_path / "samples" / "left-scene-0103-3.jpg").unlink()
    with pytest.raises(DataError, match=r"left-scene-0103-3\.jpg is missing"):
        NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT,CAM_FRONT_LEFT")


def test_cameras_of_two_sizes_are_refused(tmp_path):
    write(tmp_path, _with_cameras(tables(("scene-0103",)), size=(18, 32)), images=True)
    for k in range(SAMPLES):
        Image.fromarray(np.full((18, 32, 3), 9, np.uint8)).save(tmp_path / "samples" / f"left-scene-0103-{k}.jpg")
    with pytest.raises(DataError, match="not of one size"):
        NuScenesDataset(tmp_path, "test", VERSION, camera="CAM_FRONT,CAM_FRONT_LEFT")


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.jpg", "samples/../../outside.jpg"])
def test_an_image_outside_of_the_folder_is_not_read(tmp_path, name):
    content = tables(("scene-0103",))
    next(r for r in content["sample_data"] if r["token"] == "cam-scene-0103-3")["filename"] = name
    with pytest.raises(DataError, match="outside of the dataset's folder"):
        NuScenesDataset(write(tmp_path, content, images=False), "test", VERSION, camera="CAM_FRONT")


def test_only_the_wanted_scenes_of_the_long_tables_are_kept(tmp_path):
    content = tables(("scene-0061", "scene-0103"))
    sweep = {"is_key_frame": False, "token": "sweep", "ego_pose_token": "e-sweep"}
    content["sample_data"].append({**content["sample_data"][0], **sweep})
    content["ego_pose"].append({**content["ego_pose"][0], "token": "e-sweep"})
    reader = NuScenesReader(VERSION, split="test")
    (entry,) = reader.find(write(tmp_path, content))
    assert entry.log_id == "scene-0103" and reader.read(entry).steps == SAMPLES
    found = NuScenesTables(tmp_path, VERSION)
    found.load(["scene-0103"])
    assert len(found.table("ego_pose")) == SAMPLES and len(found.scene("scene-0103").boxes.step) == 2 * SAMPLES
    with pytest.raises(DataError, match=r"sample_data\.json: sample scene-0061-0 of scene-0061 has no key frame of LIDAR_TOP; it has none of any sensor"):
        found.scene("scene-0061")
    both = NuScenesReader(VERSION)
    assert [(e.log_id, e.split) for e in both.find(tmp_path)] == [("scene-0061", "train"), ("scene-0103", "test")]


def _passed_to_a_worker(root, scenes):
    """Bytes of the reader after it has read the tables of these scenes, and of the largest of its entries."""
    reader = NuScenesReader(VERSION)
    entries = reader.find(write(root, tables(scenes)))
    assert len(entries) == len(scenes)
    return len(pickle.dumps(reader)), max(len(pickle.dumps(entry)) for entry in entries)


def test_what_a_worker_is_given_does_not_grow_with_the_number_of_scenes(tmp_path):
    few = _passed_to_a_worker(tmp_path / "few", NUSCENES_MINI["test"])
    many = _passed_to_a_worker(tmp_path / "many", NUSCENES_MINI["test"] + NUSCENES_MINI["train"])
    assert few[0] == many[0] < 500
    assert abs(few[1] - many[1]) < 50 and 2 * SAMPLES * 48 < many[1] < 2 * SAMPLES * 48 + 8_000  # two boxes a key frame of six numbers


def test_a_scene_that_has_gone_to_a_worker_is_read_without_the_tables(tmp_path):
    content = tables()
    next(r for r in content["sample"] if r["token"] == "scene-0916-3")["next"] = ""
    reader = NuScenesReader(VERSION)
    good, bad = reader.find(write(tmp_path, content))
    here = reader.read(good)
    for path in (tmp_path / VERSION).glob("*.json"):
        path.unlink()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(reader.read, (good,))
        with pytest.raises(DataError, match=r"sample\.json: scene scene-0916 has 14 samples, its chain has 4"):
            pool.apply(reader.read, (bad,))
    assert isinstance(there.agents, Tracks) and isinstance(here.agents, Tracks)
    np.testing.assert_array_equal(there.agents.poses_world, here.agents.poses_world)
    assert there.agents.ids == here.agents.ids == ("scene-0103-car", "scene-0103-ped") and there.agents.valid.all()


def test_tables_may_stand_in_the_root_itself(tmp_path):
    write(tmp_path, tables(), can_bus=True)
    plain = NuScenesDataset(tmp_path, "test", VERSION)
    (tmp_path / "can_bus").rename(tmp_path / VERSION / "can_bus")
    (tmp_path / VERSION).rename(tmp_path / "mini")
    (tmp_path / "mini" / VERSION).symlink_to(".")
    inner = NuScenesDataset(tmp_path / "mini", "test", VERSION)
    assert inner.ids == plain.ids and inner[4].observation().speed == plain[4].observation().speed == pytest.approx(SPEED + 1.0)


def test_a_box_takes_a_few_numbers_in_memory(tmp_path):
    content = tables(NUSCENES_MINI["train"])
    content["sample_annotation"] = [
        {**box, "token": f"{box['token']}-{n}", "instance_token": f"{box['instance_token']}-{n}"} for box in content["sample_annotation"] for n in range(60)
    ]
    content["instance"] = [{**instance, "token": f"{instance['token']}-{n}"} for instance in content["instance"] for n in range(60)]
    found = NuScenesTables(write(tmp_path, content), VERSION)
    wanted = [scene["token"] for scene in content["scene"]]
    boxes = len(content["sample_annotation"])
    tracemalloc.start()
    found.load(wanted)
    held, _ = tracemalloc.get_traced_memory()
    records = [found.scene(token) for token in wanted]
    tracemalloc.stop()
    assert sum(len(scene.boxes.step) for scene in records) == boxes == 13_440
    assert held < 150 * boxes  # 77 with all that the samples take; a box as a record takes 2000


def test_boxes_come_in_order_of_key_frame_whatever_their_order_in_the_table(tmp_path):
    content = tables(("scene-0103",))
    plain = NuScenesDataset(write(tmp_path / "plain", content), "test", VERSION)
    content["sample_annotation"].sort(key=lambda record: (int(record["sample_token"].rsplit("-", 1)[1]) * 5 % SAMPLES, "ped" in record["token"]))
    mixed = NuScenesDataset(write(tmp_path / "mixed", content), "test", VERSION)
    for one, other in zip(plain.logs, mixed.logs):
        assert one.log.agents.ids == other.log.agents.ids
        for name in ("types", "size", "poses_world", "velocity_world", "valid"):
            np.testing.assert_array_equal(getattr(one.log.agents, name), getattr(other.log.agents, name))


def test_hidden_boxes_are_told_by_instance_and_key_frame(tmp_path):
    content = tables(("scene-0103",))
    for record in content["sample_annotation"]:
        if record["token"] in ("a-car-scene-0103-2", "a-car-scene-0103-9", "a-ped-scene-0103-2"):
            record["visibility_token"] = "1"
    data = NuScenesDataset(write(tmp_path, content), "test", VERSION)
    assert data.logs[0].log.notes["hidden"] == {"scene-0103-car": [2, 9], "scene-0103-ped": [2]}


def test_counts_of_a_folder_of_tables(tmp_path):
    folder = write(tmp_path, tables(), can_bus=True) / VERSION
    for name in ("attribute", "visibility", "map"):
        (folder / f"{name}.json").write_text("[]")
    found = inspect(folder)
    assert (found.counts["scene"], found.counts["sample"], found.counts["sample_annotation"]) == (2, 2 * SAMPLES, 4 * SAMPLES) and not found.faults
    (folder / "map.json").unlink()
    _cut(folder / "ego_pose.json")
    found = inspect(folder)
    assert "ego_pose" not in found.counts and len(found.faults) == 2 and "lacks map.json: 1 of the 13" in found.faults[0] and "JSON" in found.faults[1]
    bus = inspect_can_bus(tmp_path / "can_bus")
    assert (bus.counts["scenes"], bus.counts["messages"], bus.counts["rate (Hz)"]) == (2, 820, 50.0)
    _cut(tmp_path / "can_bus" / "scene-0103_pose.json")
    bus = inspect_can_bus(tmp_path / "can_bus")
    assert bus.counts["scenes"] == 1 and "scene-0103" in bus.faults[0]
    for check, path in ((inspect, tmp_path / "can_bus"), (inspect_can_bus, folder)):
        with pytest.raises(DataError, match="holds no"):
            check(path)


@real
def test_the_real_folders_are_counted():
    whole = inspect(ROOT / REAL_VERSION)
    assert not whole.faults and len(whole.counts) == 13
    assert [whole.counts[name] for name in ("scene", "sample", "sample_annotation", "instance", "sample_data")] == [2, 81, 4433, 207, 567]
    part = inspect(ROOT / "v1.0-mini")
    (fault,) = part.faults
    assert "lacks sample_data.json, ego_pose.json, sample_annotation.json: 3 of the 13 tables" in fault and part.counts["scene"] == 10
    bus = inspect_can_bus(ROOT / "can_bus")
    assert bus.counts["scenes"] == 7 and bus.counts["rate (Hz)"] == pytest.approx(50.0, abs=0.5) and not bus.faults
