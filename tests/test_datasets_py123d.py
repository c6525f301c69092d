# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""py123d's Arrow layout: what is written comes back, and what is faulty is told by file and record. py123d itself is asked in test_datasets_py123d_package."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import py123d_files as files
import pytest

from drive.core.errors import DataError
from drive.core.types import AgentType, Camera, LightState
from drive.datasets import py123d_layout as layout
from drive.datasets.av2 import Av2Reader
from drive.datasets.inspect import inspect
from drive.datasets.logged import LogDataset
from drive.datasets.logs import LogScenes
from drive.datasets.py123d import Py123dReader, split_of
from drive.datasets.py123d_arrow import describe, open_table, write_table
from drive.datasets.py123d_export import camera_names, export, write_log
from drive.datasets.py123d_map import read_road_map

pa = pytest.importorskip("pyarrow")
REAL = Path(__file__).resolve().parents[2] / "shared/data/real/argoverse__av2-api"
NAMES = ("pcam_f0", "pcam_l0", "pcam_b0")
NAN = float("nan")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return files.log(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def root(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("py123d")
    assert write_log(source, root) == root / "logs" / "made-up_val" / "town-1"
    return root


def read(root, cameras=(), sensors=None):
    reader = Py123dReader(cameras, sensors)
    (entry,) = reader.find(root)
    return reader.read(entry)


def test_what_is_carried_comes_back_equal(source, root):
    log = read(root, NAMES)
    assert (log.log_id, log.source, log.split, log.dt, log.steps, log.faults, log.breaks) == ("town-1", "py123d", "val", 0.1, files.STEPS, (), ())
    np.testing.assert_array_equal(log.origin, source.origin)
    np.testing.assert_allclose(log.ego.poses_world, source.ego.poses_world, atol=1e-9)
    for name in ("velocity_ego", "acceleration_ego", "yaw_rate"):
        np.testing.assert_array_equal(getattr(log.ego, name), getattr(source.ego, name))
    np.testing.assert_allclose(log.ego_size, source.ego_size)
    np.testing.assert_allclose([log.time(k) for k in range(log.steps)], [source.time(k) for k in range(log.steps)], atol=1e-6)
    found, wanted = log.agents.steps(0, log.steps), source.agents
    assert found.ids == wanted.ids and found.types.tolist() == wanted.types.tolist() == list(AgentType)
    np.testing.assert_array_equal(found.valid, wanted.valid)
    np.testing.assert_array_equal(found.size, wanted.size)
    np.testing.assert_allclose(found.poses_world, wanted.poses_world, atol=1e-8)
    np.testing.assert_array_equal(found.velocity_world, wanted.velocity_world)
    assert log.lights is not None and log.lights.lane_ids == source.lights.lane_ids
    np.testing.assert_array_equal(log.lights.states, source.lights.states)
    assert set(log.lights.states.ravel().tolist()) == set(LightState)


def test_cameras_and_their_images_come_back(source, root):
    log = read(root, NAMES)
    for camera, wanted in zip(log.cameras, source.cameras, strict=True):
        assert (camera.name, camera.width, camera.height) == (wanted.name, wanted.width, wanted.height)
        np.testing.assert_allclose(camera.intrinsics, wanted.intrinsics)
        np.testing.assert_allclose(camera.ego_from_camera, wanted.ego_from_camera, atol=1e-12)
    for k, (images, wanted) in enumerate(zip(log.images, source.images, strict=True)):
        for step in range(log.steps):
            if wanted[step] is None:  # the one before is young enough
                assert images[step] == images[step - 1]
            elif step % 10 == k:
                np.testing.assert_array_equal(images[step].read(), wanted[step].read())
    assert all(ref.path.name.startswith("camera.pcam_") and ref.offset > 0 for ref in log.images[0])  # they stand in the Arrow file
    assert log.notes["camera_distortion"] == source.notes["camera_distortion"]
    assert LogScenes(log).scenario(15).observation().images.shape == (3, 4, files.HEIGHT, files.WIDTH, 3)


def test_the_map_comes_back(source, root):
    found, wanted = LogScenes(read(root)).road_map, files.road_map()
    assert list(found.lanes) == list(wanted.lanes)
    for key, lane in wanted.lanes.items():
        for name in ("centerline", "left", "right"):
            np.testing.assert_allclose(getattr(found.lanes[key], name), getattr(lane, name), atol=1e-8)
        words = ("speed_limit", "is_connector", "turn", "roadblock", "junction", "successors", "predecessors", "left_neighbor", "right_neighbor")
        assert [getattr(found.lanes[key], word) for word in words] == [getattr(lane, word) for word in words], key
    rings = [{(p.tokens[i], int(p.layers[i])): p.ring(i) for i in range(len(p))} for p in (found.polygons, wanted.polygons)]
    assert rings[0].keys() == rings[1].keys()
    for key, ring in rings[1].items():
        np.testing.assert_allclose(rings[0][key], ring, atol=1e-8)


def test_scenes_of_both_are_the_same(source, root):
    data = LogDataset(Py123dReader(NAMES[:1]), root, "val")
    wanted = LogScenes(replace(source, cameras=source.cameras[:1], images=source.images[:1]))
    assert data.faults == [] and len(data) == data.expected == len(range(15, files.STEPS - 50, 5))
    for scene in data:
        other = wanted.scenario(scene.notes["log_step"])
        assert (scene.command, scene.route_lane_ids, scene.kind, scene.time_s) == (other.command, other.route_lane_ids, other.kind, pytest.approx(other.time_s))
        np.testing.assert_array_equal(scene.observation().images, other.observation().images)
        np.testing.assert_allclose(scene.teacher.poses, other.teacher.poses, atol=1e-8)


def test_lanes_of_other_names_are_numbered_with_their_lights(source, tmp_path):
    plain = files.road_map()
    lanes = {f"road-{k}": replace(lane, id=f"road-{k}", successors=(), predecessors=(), left_neighbor="", right_neighbor="") for k, lane in enumerate(plain.lanes.values())}
    other = type(plain)("named", lanes, plain.polygons)
    lights = replace(source.lights, lane_ids=("road-1", "elsewhere"))
    write_log(replace(source, make_map=lambda: other, lights=lights, cameras=(), images=()), tmp_path)
    log = read(tmp_path)
    assert list(LogScenes(log).road_map.lanes) == ["0", "1", "2", "3", "4"]
    assert log.lights.lane_ids == ("1",) and log.lights.states[0].tolist() == source.lights.states[0].tolist()


def test_a_log_of_nothing_but_a_drive(source, tmp_path):
    write_log(replace(source, make_map=None, lights=None, cameras=(), images=(), agents=source.agents.subset(np.zeros(6, bool))), tmp_path)
    log = read(tmp_path)
    assert len(log.agents) == 0 and log.lights is None and log.make_map is None and LogScenes(log).scenario(20).notes["map"] == "corridor"


def test_missing_frames_are_breaks(source, tmp_path):
    times = 0.1 * np.arange(files.STEPS)
    times[40:] += 0.4
    write_log(replace(source, times=times, cameras=(), images=()), tmp_path)
    assert read(tmp_path).breaks == (40,)


def test_cameras_get_the_names_that_py123d_has_by_where_they_look():
    def named(*degrees):
        return camera_names([Camera.front(yaw_deg=yaw) for yaw in degrees])

    assert named(0, 45, -45, 90, -90, 135, -135, 180) == ["pcam_f0", "pcam_l0", "pcam_r0", "pcam_l1", "pcam_r1", "pcam_l2", "pcam_r2", "pcam_b0"]
    assert named(-150, -110, -55) == ["pcam_r2", "pcam_r1", "pcam_r0"]
    assert len(set(named(*range(0, 44, 4)))) == 11
    with pytest.raises(DataError, match="12 cameras"):
        named(*range(12))


def test_splits_are_the_ends_of_folders():
    assert [split_of(Path(f"/data/logs/{name}/log")) for name in ("nuplan-mini_train", "av2-sensor_val", "carla_test", "train", "logs")] == ["train", "val", "test", "train", "test"]


def test_folders_above_the_data_root_name_no_split():
    home = Path("/data/me/val/py123d")
    assert split_of(home / "mine" / "log", home) == split_of(home / "logs" / "mine" / "log", home) == split_of(home / "logs" / "mine" / "log") == "test"
    assert split_of(home / "logs" / "av2_train" / "log", home) == split_of(home / "train" / "mine" / "log", home) == "train"
    for root in (home / "av2_val", home / "av2_val" / "log"):  # the folder of a split, or a log's own, as root
        assert split_of(home / "av2_val" / "log", root) == "val"


def test_motion_that_knows_the_next_pose_is_not_read(source, root, tmp_path):
    """py123d infers velocities from the poses before and after; only what drive itself wrote is taken."""
    folder = tmp_path / "logs" / "x_val" / "town-1"
    shutil.copytree(root / "logs" / "made-up_val" / "town-1", folder)
    path = folder / "ego_state_se3.arrow"
    table, description = open_table(path)
    state = np.tile(np.arange(9.0), (files.STEPS, 1)).reshape(-1)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns["ego_state_se3.dynamic_state_se3"] = pa.FixedSizeListArray.from_arrays(pa.array(state), 9)
    write_table(path, table.schema, description, [columns])  # without drive's own mark
    log = read(tmp_path)
    np.testing.assert_allclose(log.ego.velocity_ego, source.ego.velocity_ego, atol=1e-6)
    write_table(path, table.schema, description, [columns], {b"drive": b""})
    assert read(tmp_path).ego.velocity_ego[3].tolist() == [0.0, 1.0]


def test_the_future_changes_no_byte_of_the_observation(source, root, tmp_path):
    later = source.ego.poses_world.copy()
    later[41:, :2] += 2.0
    agents = replace(source.agents, poses_world=source.agents.poses_world + np.where(np.arange(files.STEPS) > 40, 1.0, 0.0)[None, :, None] * [1.0, 1.0, 0.0])
    write_log(replace(source, ego=replace(source.ego, poses_world=later), agents=agents, cameras=(), images=()), tmp_path)
    for folder in (root, tmp_path):  # as py123d would have written them
        path = folder / "logs" / "made-up_val" / "town-1" / "ego_state_se3.arrow"
        table, description = open_table(path)
        if folder is tmp_path:
            write_table(path, table.schema, description, [{name: table[name].combine_chunks() for name in table.column_names}])
    plain = replace(read(root), cameras=(), images=())
    one, other = LogScenes(plain).scenario(40).observation(), LogScenes(read(tmp_path)).scenario(40).observation()
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_allclose(one.ego_history, other.ego_history, atol=1e-9)
    assert one.speed == pytest.approx(other.speed, abs=1e-6) and one.yaw_rate == pytest.approx(other.yaw_rate, abs=1e-6)


def _copied(root, tmp_path):
    folder = tmp_path / "logs" / "made-up_val" / "town-1"
    shutil.copytree(root / "logs" / "made-up_val" / "town-1", folder)
    return folder


def _edit(folder, key, change, metadata=None):
    """Rewrite a file's columns, as lists, and its description."""
    path = folder / f"{key}.arrow"
    table, description = open_table(path)
    extra = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"metadata"}
    columns = {name.removeprefix(f"{key}."): table[name].cast(pa.binary(16)).to_pylist() if name == "sync.uuid" else table[name].to_pylist() for name in table.column_names}
    change(columns)
    kinds = {name.removeprefix(f"{key}."): pa.binary(16) if name == "sync.uuid" else table.schema.field(name).type for name in table.column_names}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
    prefix = "" if key in ("map", "sync") else f"{key}."
    named = {name if name.startswith(prefix) and prefix else f"{prefix}{name}": values for name, values in arrays.items()}
    if key == "sync":
        named = {(name if name not in ("uuid", "timestamp_us") else f"sync.{name}"): values for name, values in arrays.items()}
    schema = pa.schema([(name, values.type) for name, values in named.items()])
    write_table(path, schema, {**description, **(metadata or {})}, [named], extra)


def _at(name, row, value):
    def change(columns):
        columns[name][row] = value

    return change


def _box(row, index, value):
    def change(columns):
        columns["bounding_box_se3"][row][0][index] = value

    return change


def _rename(old, new):
    def change(columns):
        columns[new] = columns.pop(old)

    return change


def _same(columns):
    pass


ONE = [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
FAULTS = {
    "times that stand still": ("sync", _at("timestamp_us", 5, 400_000), {}, ["sync.arrow", "do not grow"]),
    "frames 0.3 s apart": ("sync", lambda c: c.update(timestamp_us=[300_000 * k for k in range(files.STEPS)]), {}, ["0.300 s apart"]),
    "no ego at a frame": ("sync", _at(layout.EGO, 7, None), {}, ["frame 7 has no ego state"]),
    "a row beyond the end": ("sync", _at(layout.BOXES, 7, 999), {}, ["frame 7", "row 999", "box_detections_se3.arrow", "90"]),
    "a row before the start": ("sync", _at(layout.BOXES, 7, -5), {}, ["frame 7", "row -5", "box_detections_se3.arrow", "90"]),
    "images back in time": ("camera.pcam_f0", _at("timestamp_us", 7, 100_000), {}, ["camera.pcam_f0.arrow", "not in order of time"]),
    "an image of no time": ("camera.pcam_f0", _at("timestamp_us", 7, None), {}, ["camera.pcam_f0.arrow", "time of its images is missing"]),
    "no ego column": ("sync", _rename(layout.EGO, "other"), {}, ["sync.arrow lacks the columns ego_state_se3"]),
    "NaN in a pose": ("ego_state_se3", _at("imu_se3", 9, [NAN] * 7), {}, ["ego_state_se3.arrow", "row 9"]),
    "a pose that is not there": ("ego_state_se3", _at("imu_se3", 9, None), {}, ["row 9"]),
    "a rotation of 0": ("ego_state_se3", _at("imu_se3", 9, ONE), {}, ["row 9", "rotation"]),
    "ego states of another time": ("ego_state_se3", _at("timestamp_us", 9, 5_000_000), {}, ["frame 9 is 4.100 s away"]),
    "no motion": ("ego_state_se3", _at("dynamic_state_se3", 9, None), {}, ["dynamic_state_se3 of row 9"]),
    "a car without a width": ("ego_state_se3", _same, {"width": 0.0}, ["no usable length, width, height"]),
    "a car without an axle": ("ego_state_se3", _same, {"rear_axle_to_imu_se3": [0.0]}, ["no usable rear_axle_to_imu_se3"]),
    "a column short": ("box_detections_se3", _rename("label", "labels"), {}, ["lacks the columns box_detections_se3.label"]),
    "NaN in a box": ("box_detections_se3", _box(4, 0, NAN), {}, ["box of agent-0 at frame 4", "NaN"]),
    "a box without a size": ("box_detections_se3", _box(4, 7, 0.0), {}, ["box of agent-0 at frame 4", "no size"]),
    "a box twice": ("box_detections_se3", lambda c: c["track_token"][5].__setitem__(1, "agent-0"), {}, ["two boxes in one frame"]),
    "a label that is none": ("box_detections_se3", lambda c: c["label"][5].__setitem__(1, 99), {}, ["label 99 is none of DefaultBoxDetectionLabel"]),
    "labels of an unknown class": ("box_detections_se3", _same, {"box_detection_label_class": "my.Labels"}, ["class 'Labels'", "NuPlanBoxDetectionLabel"]),
    "lists of different lengths": ("box_detections_se3", lambda c: c["label"][5].pop(), {}, ["lists of different lengths"]),
    "a state that is none": ("traffic_light_detections", lambda c: c["status"][5].__setitem__(0, 9), {}, ["row 5 has the state 9 of lane 10"]),
    "a camera of another model": ("camera.pcam_f0", _same, {"camera_model": "ftheta"}, ["model ftheta", "pinhole"]),
    "a camera without intrinsics": ("camera.pcam_f0", _same, {"intrinsics": None}, ["no usable intrinsics"]),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_a_log_at_fault_is_left_out_told_and_counted(root, tmp_path, case):
    key, change, metadata, words = case
    _edit(_copied(root, tmp_path), key, change, metadata)
    good = tmp_path / "logs" / "made-up_val" / "town-2"
    shutil.copytree(root / "logs" / "made-up_val" / "town-1", good)
    data = LogDataset(Py123dReader(NAMES[:1]), tmp_path, "val")
    assert len(data) == data.expected // 2 and {scene.log_id for scene in data} == {"town-2"}
    (fault,) = data.faults
    assert all(word in fault for word in words) and "\n" not in fault, fault


def test_files_that_are_rewritten_and_not_changed_are_still_read(root, tmp_path):
    """The edits of the faults above are the only thing wrong there."""
    folder = _copied(root, tmp_path)
    for key in ("sync", "ego_state_se3", "box_detections_se3", "traffic_light_detections", "camera.pcam_f0"):
        _edit(folder, key, _same)
    np.testing.assert_array_equal(read(tmp_path, NAMES).ego.poses_world, read(root).ego.poses_world)


def test_boxes_without_a_velocity_take_it_from_their_places(source, root, tmp_path):
    folder = _copied(root, tmp_path)
    _edit(folder, layout.BOXES, lambda c: c.update(velocity_3d=[[None] * len(row) for row in c["velocity_3d"]]))
    np.testing.assert_allclose(read(tmp_path).agents.steps(0, files.STEPS).velocity_world, source.agents.velocity_world, atol=1e-6)


def test_frames_without_boxes_are_told_and_the_log_is_kept(root, tmp_path):
    folder = _copied(root, tmp_path)
    _edit(folder, "sync", lambda c: [_at(layout.BOXES, k, None)(c) for k in (3, 4)])
    log = read(tmp_path)
    assert "2 of 90 frames have no record of boxes" in log.faults[0] and not log.agents.steps(3, 5).valid.any() and log.agents.steps(5, 6).valid.any()


def test_images_named_by_path_need_their_folder_and_stay_in_it(source, root, tmp_path):
    folder = _copied(root, tmp_path)
    sensors = source.files[0]

    def named(columns):
        columns["data"] = [f"front-{k}.jpeg" for k in range(files.STEPS)]

    _named(folder, named)
    with pytest.raises(DataError, match=r"dataset\.sensors="):
        read(tmp_path, NAMES[:1])
    np.testing.assert_array_equal(read(tmp_path, NAMES[:1], sensors).images[0][7].read(), source.images[0][7].read())
    _named(folder, lambda columns: columns.update(data=["../../secret.jpeg"] * files.STEPS))
    with pytest.raises(DataError, match="lies outside"):
        read(tmp_path, NAMES[:1], sensors)
    _named(folder, lambda columns: columns.update(data=list(range(files.STEPS))), pa.int32())
    with pytest.raises(DataError, match="frames of a film"):
        read(tmp_path, NAMES[:1], sensors)
    with pytest.raises(DataError, match="has no camera pcam_r0; it has pcam_b0, pcam_f0, pcam_l0"):
        read(tmp_path, ("pcam_r0",))


def _named(folder, change, kind=None):
    path = folder / "camera.pcam_f0.arrow"
    table, description = open_table(path)
    columns = {name.partition("pcam_f0.")[2]: table[name].to_pylist() for name in table.column_names}
    change(columns)
    arrays = {f"camera.pcam_f0.{name}": pa.array(values, kind or pa.string()) if name == "data" else pa.array(values, table.schema.field(f"camera.pcam_f0.{name}").type)
              for name, values in columns.items()}  # fmt: skip
    write_table(path, pa.schema([(name, values.type) for name, values in arrays.items()]), description, [arrays])


def test_compressed_images_are_told(root, tmp_path):
    path = _copied(root, tmp_path) / "camera.pcam_f0.arrow"
    table, _ = open_table(path)
    other = path.with_suffix(".new")  # the table lies in the mapped file: it cannot be written over
    with pa.OSFile(str(other), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    other.replace(path)
    with pytest.raises(DataError, match="is compressed"):
        read(tmp_path, NAMES[:1])
    assert read(tmp_path).steps == files.STEPS


def test_a_flipped_or_lost_byte_anywhere_is_never_more_than_one_line(root, tmp_path):
    folder = _copied(root, tmp_path)
    rng = np.random.default_rng(1)
    for path in sorted(folder.glob("*.arrow")):
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 25).tolist():
            for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
                path.with_suffix(".new").write_bytes(damaged)
                path.with_suffix(".new").replace(path)  # a mapped file must not be written over
                try:
                    _ = LogScenes(read(tmp_path, NAMES)).road_map
                except DataError as error:
                    assert "\n" not in str(error), (path.name, at)
        path.with_suffix(".new").write_bytes(whole)
        path.with_suffix(".new").replace(path)


def test_maps_of_several_logs_are_read_around_the_drive(source, root, tmp_path):
    folder = _copied(root, tmp_path)
    far = files.straight("40", 900, 950, 0.0, roadblock="5")
    plain = files.road_map()
    write_log(replace(source, log_id="whole", make_map=lambda: type(plain)("toy", {**plain.lanes, "40": far}, plain.polygons), cameras=(), images=()), tmp_path / "other")
    (folder / "map.arrow").unlink()
    (tmp_path / "maps" / "made-up").mkdir(parents=True)
    shutil.copy(tmp_path / "other" / "logs" / "made-up_val" / "whole" / "map.arrow", tmp_path / "maps" / "made-up" / "made-up_town.arrow")
    shutil.rmtree(tmp_path / "other")
    assert read(tmp_path).make_map is None and read(tmp_path).absent == (folder / "map.arrow",)  # the log names no place
    _edit(folder, "sync", _same, {"location": "../town"})
    assert read(tmp_path).make_map is None
    _edit(folder, "sync", _same, {"location": "town"})
    log = read(tmp_path)
    assert list(LogScenes(log).road_map.lanes) == list(plain.lanes) and log.files[-1].name == "made-up_town.arrow"
    assert log.absent[0] == folder / "map.arrow" and {path.name for path in log.absent[1:]} == {"made-up_town.arrow"} and log.files[-1] not in log.absent
    assert "40" in read_road_map("x", log.files[-1], source.origin).lanes


def test_inspect_counts(root):
    found = inspect(root / "logs" / "made-up_val" / "town-1")
    assert found is not None and found.kind == "py123d log"
    wanted = {"frames": 90, "tracks: vehicle": 1, "tracks: barrier": 1, "lanes with a light": 2, "images of pcam_f0": 90, "images of pcam_l0": 60, "map: lanes": 5, "map: intersections": 1}
    assert {key: found.counts[key] for key in wanted} == wanted


def test_the_schema_is_the_one_that_is_documented(root):
    folder = root / "logs" / "made-up_val" / "town-1"
    table, about = open_table(folder / "sync.arrow")
    assert table.column_names == ["sync.uuid", "sync.timestamp_us", "ego_state_se3", "box_detections_se3", "traffic_light_detections", *(f"camera.{name}" for name in NAMES)]
    assert about["split"] == "made-up_val" and about["map_metadata"]["map_is_per_log"] is True and describe(folder, table.schema) == about
    assert table["camera.pcam_l0"].to_pylist()[:4] == [0, 1, None, 2]
    assert struct.unpack(">Q", table["sync.uuid"][0].as_py().bytes[:8])[0] >> 12 & 0xF == 5  # a uuid of version 5


@pytest.mark.skipif(not REAL.is_dir(), reason="the real Argoverse logs are not at hand")
def test_the_real_argoverse_logs_go_there_and_back(tmp_path):
    assert export(Av2Reader(), REAL, tmp_path).written == 3
    sources = {entry.log_id: entry for entry in Av2Reader().find(REAL)}
    reader = Py123dReader()
    for entry in reader.find(tmp_path):
        log, wanted = reader.read(entry), Av2Reader().read(sources[entry.log_id])
        assert log.steps == wanted.steps and log.agents.ids == wanted.agents.ids and log.agents.types.tolist() == wanted.agents.types.tolist()
        np.testing.assert_allclose(log.ego.poses_world, wanted.ego.poses_world, atol=1e-9)
        np.testing.assert_allclose(log.agents.steps(0, log.steps).poses_world, wanted.agents.steps(0, log.steps).poses_world, atol=1e-9)
        maps = LogScenes(log).road_map, LogScenes(wanted).road_map
        assert list(maps[0].lanes) == list(maps[1].lanes) and len(maps[0].polygons) == len(maps[1].polygons)
        lost = [key for key, lane in maps[1].lanes.items() if lane.is_connector != maps[0].lanes[key].is_connector]
        assert all(maps[1].lanes[key].junction == "" for key in lost) and len(lost) <= 2  # connectors of no junction
        assert LogScenes(log).route.lane_ids == LogScenes(wanted).route.lane_ids
