"""Argoverse 2 sensor logs as Scenarios: a hand-made log, damaged ones, and the three real ones where they are at hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely
from av2_files import HEADING, SPEED, START, STEPS, at, write
from PIL import Image

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.core.types import AgentType, Command
from drive.datasets.av2 import Av2Reader, find_logs, read_columns, read_log
from drive.datasets.av2_cameras import calibration
from drive.datasets.logged import LogDataset, split_of_path
from drive.planners.pdm import PdmExpert

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
feather = pytest.importorskip("pyarrow.feather")

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real/argoverse__av2-api/tests/unit"
real = pytest.mark.skipif(not ROOT.is_dir(), reason="the real Argoverse 2 logs are not at hand")
@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("av2")
    write(root / "val" / "log-a")
    return root


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(Av2Reader(), root, "val")


def test_scenarios_every_half_second(data):
    assert len(data) == data.expected == len(range(15, STEPS - 50, 5)) and data.faults == []
    scene = data[3]
    assert (scene.id, scene.source, scene.log_id, scene.split, scene.dt) == ("log-a-0030", "av2", "log-a", "val", 0.1)
    assert scene.time_s == pytest.approx(3.0)
    np.testing.assert_allclose(scene.logged_future(10).poses[:, 0], SPEED * 0.5 * np.arange(1, 11), atol=1e-9)
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED)
    assert scene.observation().images.shape == (1, 4, 112, 112, 3)


def test_boxes_are_carried_to_the_city_and_the_ego_is_none_of_them(data):
    scene = data[3]
    assert set(scene.agents.ids) == {"car", "cone"}
    car, cone = (scene.agents.ids.index(name) for name in ("car", "cone"))
    origin = np.array(scene.notes["origin_world"])
    k = scene.present + 20
    np.testing.assert_allclose(scene.agents.poses_world[car, k], [*(np.array(at(20.0 + SPEED * 5.0)) - origin), HEADING], atol=1e-6)
    np.testing.assert_allclose(scene.agents.poses_world[cone, :, :2] - (np.array(at(30.0, 3.0)) - origin), 0.0, atol=1e-6)
    assert [scene.agents.types[i] for i in (car, cone)] == [AgentType.VEHICLE, AgentType.TRAFFIC_CONE]
    np.testing.assert_allclose(scene.agents.size[car], [4.5, 1.8, 1.0])
    np.testing.assert_allclose(np.hypot(*scene.agents.velocity_world[car, k]), SPEED, atol=1e-6)


def test_lanes_links_and_areas_of_the_map(data):
    road = data[0].road_map
    assert set(road.lanes) == {"1", "2", "3", "4"}  # no bike lane
    first, across = road.lanes["1"], road.lanes["2"]
    assert first.successors == ("2",) and across.successors == ("4",) and across.is_connector and across.turn == "straight"
    assert first.left_neighbor == "3" and road.lanes["3"].right_neighbor == ""  # a solid line lies to its right
    assert first.roadblock == road.lanes["3"].roadblock != road.lanes["4"].roadblock
    assert first.length == pytest.approx(90.0, abs=1e-6)
    np.testing.assert_allclose(np.hypot(*(first.left - first.right).T), 3.5, atol=1e-9)
    layers = [Layer(int(layer)) for layer in road.polygons.layers]
    assert layers.count(Layer.LANE) == 3 and layers.count(Layer.LANE_CONNECTOR) == 1
    area = shapely.union_all([shapely.Polygon(road.polygons.ring(i)) for i, layer in enumerate(layers) if layer is Layer.DRIVABLE_AREA])
    assert area.area == pytest.approx(220.0 * 12.0, rel=1e-6)
    assert data[0].route_lane_ids == ("1", "2")
    assert data[0].command is Command.LANEFOLLOW  # a connector that no other one crosses is no junction


def test_the_expert_drives_such_a_log_and_is_scored(data):
    result = evaluate_pdms([data[0], data[4]], PdmExpert())
    assert result.coverage == 1.0 and result.mean("dac") == result.mean("nc") == 1.0


def test_splits_are_folders_and_nothing_else_is_trained_on(root, tmp_path):
    assert len(LogDataset(Av2Reader(), root / "val", "val")) == len(LogDataset(Av2Reader(), root / "val" / "log-a", "val")) == 7  # whichever folder is the root
    with pytest.raises(DataError, match="its logs are of val"):
        LogDataset(Av2Reader(), root / "val", "test")
    assert split_of_path(Path("sensor/train/x"), "test") == "train" and split_of_path(Path("elsewhere/x"), "test") == "test"
    with pytest.raises(DataError, match="no readable log of the split 'train'"):
        LogDataset(Av2Reader(), root, "train")
    with pytest.raises(DataError, match="no split 'dev'"):
        LogDataset(Av2Reader(), root, "dev")
    with pytest.raises(DataError, match="no folder"):
        find_logs(tmp_path / "absent")
    shutil.copytree(root / "val" / "log-a", tmp_path / "val" / "log-a")
    shutil.copytree(root / "val" / "log-a", tmp_path / "val" / "again" / "log-a")
    assert "twice" in LogDataset(Av2Reader(), tmp_path, "val").faults[0]


def test_links_to_folders_are_followed_and_the_fingerprint_is_of_what_is_read(root, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "log-a").symlink_to(root / "val" / "log-a")
    (tmp_path / "val" / "loop").symlink_to(tmp_path)
    data = LogDataset(Av2Reader(), tmp_path, "val")
    assert len(data) == 7 and data.faults == []
    copy = tmp_path / "copy"
    shutil.copytree(root / "val" / "log-a", copy / "val" / "log-a")
    before = LogDataset(Av2Reader(), copy, "val").fingerprint
    (copy / "val" / "log-a" / "sensors").mkdir()
    (copy / "val" / "log-a" / "sensors" / "sweep.feather").write_bytes(b"lidar")
    assert LogDataset(Av2Reader(), copy, "val").fingerprint == before
    _rewrite(copy / "val" / "log-a" / POSES, lambda rows: rows[5].update(tz_m=6.0))
    assert LogDataset(Av2Reader(), copy, "val").fingerprint != before


def _rewrite(path, change):
    rows = feather.read_table(path).to_pylist()
    change(rows)
    feather.write_feather(pa.Table.from_pylist(rows), path)


def _map(folder):
    return next((folder / "map").glob("log_map_archive_*"))


def _edit_map(folder, change):
    content = json.loads(_map(folder).read_text())
    change(content)
    _map(folder).write_text(json.dumps(content))


NAN = float("nan")
BOXES, POSES = "annotations.feather", "city_SE3_egovehicle.feather"
DAMAGE = {
    "truncated boxes": (lambda d: (d / BOXES).write_bytes((d / BOXES).read_bytes()[:900]), [BOXES, "cannot be read"]),
    "no boxes": (lambda d: (d / BOXES).unlink(), ["holds 0 files annotations"]),
    "a column short": (lambda d: _rewrite(d / BOXES, lambda rows: [r.pop("qz") for r in rows]), [BOXES, "qz"]),
    "NaN in a box": (lambda d: _rewrite(d / BOXES, lambda rows: rows[7].update(tx_m=NAN)), [BOXES, "tx_m of row 7"]),
    "a box without size": (lambda d: _rewrite(d / BOXES, lambda rows: rows[9].update(width_m=0.0)), [BOXES, "row 9", "size"]),
    "a lost frame": (lambda d: _rewrite(d / BOXES, lambda rows: rows.__delitem__(slice(60, 63))), [BOXES, "0.200 s after frame 19"]),
    "NaN in a pose": (lambda d: _rewrite(d / POSES, lambda rows: rows[11].update(qw=NAN)), [POSES, "qw of row 11"]),
    "poses that end early": (lambda d: _rewrite(d / POSES, lambda rows: rows.__delitem__(slice(900, None))), [POSES, "no pose within"]),
    "no poses": (lambda d: (d / POSES).unlink(), [POSES, "cannot be read"]),
    "a quaternion of zeros": (lambda d: _rewrite(d / POSES, lambda rows: rows[3].update(qw=0.0, qz=0.0)), [POSES, "row 3 is 0"]),
    "text for numbers": (lambda d: _rewrite(d / BOXES, lambda rows: [r.update(tx_m=str(r["tx_m"])) for r in rows]), [BOXES, "tx_m is of type string"]),
    "a lane without an id": (lambda d: _edit_map(d, lambda m: m["lane_segments"]["2"].pop("id")), ["record 2 of lane_segments", "no id"]),
    "no lanes": (lambda d: _edit_map(d, lambda m: m.update(lane_segments={})), ["lane_segments holds no records"]),
    "a null lane": (lambda d: _edit_map(d, lambda m: m["lane_segments"].update({"2": None})), ["record 2 of lane_segments"]),
    "links that are no list": (lambda d: _edit_map(d, lambda m: m["lane_segments"]["2"].update(successors=5)), ["successors of record 2"]),
    "no map": (lambda d: _map(d).unlink(), ["log_map_archive", "holds 0 files"]),
    "a torn map": (lambda d: _map(d).write_text(_map(d).read_text()[:300]), ["log_map_archive", "JSON"]),
    "another file for a map": (lambda d: _map(d).write_text("[]"), ["log_map_archive", "no Argoverse 2 map"]),
    "NaN in a boundary": (
        lambda d: _edit_map(d, lambda m: m["lane_segments"]["2"]["left_lane_boundary"][0].update(x=NAN)),
        ["log_map_archive", "record 2", "left_lane_boundary"],
    ),
    "an area without points": (lambda d: _edit_map(d, lambda m: m["drivable_areas"]["7"].pop("area_boundary")), ["record 7", "area_boundary"]),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_log_at_fault_is_left_out_told_and_counted(root, tmp_path, case):
    damage, words = case
    for name in ("log-a", "log-b"):
        shutil.copytree(root / "val" / "log-a", tmp_path / "val" / name)
    damage(tmp_path / "val" / "log-b")
    data = LogDataset(Av2Reader(), tmp_path, "val")
    assert len(data) == 7 and data.expected == 14 and {s.log_id for s in data} == {"log-a"}
    (fault,) = data.faults
    assert "log-b" in fault and all(word in fault for word in words), fault


def test_the_future_changes_no_byte_of_the_observation(root, tmp_path):
    shutil.copytree(root / "val" / "log-a", tmp_path / "val" / "log-a")

    def swerve(rows):
        for row in rows:
            if row["timestamp_ns"] > START + 3_050_000_000:
                row["tx_m"] += 1.0

    _rewrite(tmp_path / "val" / "log-a" / POSES, swerve)
    _rewrite(tmp_path / "val" / "log-a" / BOXES, swerve)
    plain, other = LogDataset(Av2Reader(), root, "val")[3].observation(), LogDataset(Av2Reader(), tmp_path, "val")[3].observation()
    np.testing.assert_array_equal(plain.images, other.images)
    np.testing.assert_array_equal(plain.ego_history, other.ego_history)
    assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


@real
def test_the_real_logs_hold_what_is_known_of_them():
    logs = {folder.name[:8]: read_log(folder, "test") for folder in find_logs(ROOT)}
    assert {name: (log.steps, len(log.agents)) for name, log in logs.items()} == {"3b3570b4": (157, 119), "7fab2350": (156, 114), "adcf7d18": (156, 146)}
    driven = [np.hypot(*np.diff(log.ego.poses_world[:, :2], axis=0).T).sum() for log in logs.values()]
    assert all(35.0 < metres < 75.0 for metres in driven)


@real
def test_the_real_cars_stay_on_the_real_roads():
    for split in ("val", "test"):
        data = LogDataset(Av2Reader(), ROOT, split)
        assert data.faults == [] and len(data) == data.expected == 19 * len(data.logs)
        for log in data.logs:
            polygons = log.road_map.polygons
            area = shapely.union_all([shapely.Polygon(polygons.ring(i)) for i, layer in enumerate(polygons.layers) if layer == Layer.DRIVABLE_AREA])
            assert shapely.contains_xy(area, log.log.ego.poses_world[:, :2]).all()
            assert log.route.matched == 1.0 and 140 < len(log.road_map.lanes) < 200


@real
def test_the_real_tracks_agree_with_those_of_navsims_recorded_cases():
    golden = ROOT.parents[3] / "golden" / "navsim"
    for folder in golden.glob("av2_*"):
        info = json.loads((folder / "scene.json").read_text())
        log = read_log(next(path for path in find_logs(ROOT) if path.name == info["av2_log"]), "test")
        pose = np.array(info["ego"]["rear_axle"])
        poses = log.ego.poses_world + [*log.origin, 0.0]
        step = int(np.hypot(*(poses[:, :2] - pose[:2]).T).argmin())
        np.testing.assert_allclose(poses[step], pose, atol=1e-9)
        inputs = np.load(folder / "inputs.npz")
        agents = log.agents.steps(0, log.steps)
        for a, agent in enumerate(info["agents"]):
            mine = agents.ids.index(agent["token"])
            count = min(51, log.steps - step)
            both = inputs["agent_valid"][a, :count] & agents.valid[mine, step : step + count]
            gap = agents.poses_world[mine, step : step + count, :2] + log.origin - inputs["agent_pose"][a, :count, :2]
            assert both.any() and np.abs(gap[both]).max() < 0.15  # they left the car's tilt out


def test_sizes_and_kinds_of_later_boxes_change_no_byte_of_the_observation(root, tmp_path):
    shutil.copytree(root, tmp_path / "other")
    rows = feather.read_table(root / "val" / "log-a" / BOXES).to_pylist()
    stamps = sorted({row["timestamp_ns"] for row in rows})
    for row in rows:
        if row["timestamp_ns"] > stamps[30]:
            row.update(length_m=row["length_m"] * 3.0, width_m=row["width_m"] * 2.0, category="PEDESTRIAN" if row["category"] == "REGULAR_VEHICLE" else row["category"])
    feather.write_feather(pa.Table.from_pylist(rows[::-1]), tmp_path / "other" / "val" / "log-a" / BOXES)
    plain, other = LogDataset(Av2Reader(), root, "val")[3], LogDataset(Av2Reader(), tmp_path / "other", "val")[3]
    assert plain.notes["log_step"] == 30
    np.testing.assert_array_equal(plain.observation().images, other.observation().images)


def _calibrated(folder, stamps, size=(32, 24), cameras=("ring_front_left", "ring_front_right")):
    """Calibration of two cameras that look ahead, and an image 20 ms before each of `stamps`, brighter by the frame."""
    (folder / "calibration").mkdir()
    lens = [
        {"sensor_name": name, "fx_px": 20.0, "fy_px": 20.0, "cx_px": 16.0, "cy_px": 12.0, "k1": 0.1, "height_px": size[1], "width_px": size[0]} for name in cameras
    ]
    ahead = {"qw": 0.5, "qx": -0.5, "qy": 0.5, "qz": -0.5, "tx_m": 1.5, "ty_m": 0.2, "tz_m": 1.4}  # optical axis along x of the car
    feather.write_feather(pa.Table.from_pylist(lens), folder / "calibration" / "intrinsics.feather")
    feather.write_feather(pa.Table.from_pylist([{"sensor_name": name, **ahead} for name in cameras]), folder / "calibration" / "egovehicle_SE3_sensor.feather")
    for c, name in enumerate(cameras):
        place = folder / "sensors" / "cameras" / name
        place.mkdir(parents=True)
        for k, stamp in enumerate(stamps):
            Image.fromarray(np.full((size[1], size[0], 3), k + 100 * c, np.uint8)).save(place / f"{stamp - 20_000_000}.jpg", quality=95)


def test_recorded_cameras_are_read_where_asked_for(root, tmp_path):
    shutil.copytree(root, tmp_path / "av2")
    folder = tmp_path / "av2" / "val" / "log-a"
    stamps = sorted({row["timestamp_ns"] for row in feather.read_table(folder / BOXES).to_pylist()})
    _calibrated(folder, stamps)
    (folder / "sensors" / "cameras" / "ring_front_left" / f"{stamps[30] + 1_000_000}.jpg").write_bytes(b"an image after the present")
    both = ("ring_front_left", "ring_front_right")
    scene = LogDataset(Av2Reader(both), tmp_path / "av2", "val")[3]
    seen = scene.observation().images
    assert seen.shape == (2, 4, 24, 32, 3) and scene.notes["log_step"] == 30
    for c in (0, 1):
        assert [abs(int(seen[c, f].mean()) - (k + 100 * c)) <= 1 for f, k in enumerate((15, 20, 25, 30))] == [True] * 4
    left = scene.cameras[0]
    np.testing.assert_allclose(left.ego_from_camera[:3, 2], [1.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(left.ego_from_camera[:3, 1], [0.0, 0.0, -1.0], atol=1e-9)
    np.testing.assert_allclose(left.ego_from_camera[:3, 3], [1.5, 0.2, 1.72])
    for image in (folder / "sensors" / "cameras" / "ring_front_left").glob(f"{stamps[25] - 20_000_000}.jpg"):
        image.unlink()
    with pytest.raises(DataError, match="no image of ring_front_left at step 25"):
        LogDataset(Av2Reader(both), tmp_path / "av2", "val")[3].observation()
    with pytest.raises(DataError, match="no camera ring_up; it has ring_front_left, ring_front_right"):
        LogDataset(Av2Reader(["ring_up"]), tmp_path / "av2", "val")
    shutil.rmtree(folder / "sensors" / "cameras" / "ring_front_right")
    with pytest.raises(DataError, match="ring_front_right holds no image"):
        LogDataset(Av2Reader(both), tmp_path / "av2", "val")
    shutil.rmtree(folder / "calibration")
    with pytest.raises(DataError, match=r"intrinsics\.feather cannot be read"):
        LogDataset(Av2Reader(both), tmp_path / "av2", "val")


@real
def test_the_real_cameras_look_where_their_names_say():
    folder = next(path for path in find_logs(ROOT) if path.name.startswith("7fab"))
    names = ("ring_front_left", "ring_front_right", "ring_side_left", "ring_rear_right")
    with pytest.raises(DataError, match="ring_front_left holds no image"):  # they are not at hand, the calibration is
        read_log(folder, "val", names)
    with pytest.raises(DataError, match="not of one size"):
        calibration(folder, ["ring_front_center", "ring_front_left"], read_columns)
    cameras = dict(zip(names, calibration(folder, names, read_columns)))
    sides = {name: np.round(camera.ego_from_camera[:2, 2], 1).tolist() for name, camera in cameras.items()}
    assert sides == {"ring_front_left": [0.7, 0.7], "ring_front_right": [0.7, -0.7], "ring_side_left": [-0.2, 1.0], "ring_rear_right": [-0.9, -0.5]}


@pytest.mark.parametrize("at", range(5, 100, 5))
def test_a_flipped_byte_anywhere_is_never_more_than_one_line(root, tmp_path, at):
    shutil.copytree(root / "val" / "log-a", tmp_path / "val" / "log-b")
    path = tmp_path / "val" / "log-b" / BOXES
    content = bytearray(path.read_bytes())
    place = len(content) * at // 100
    content[place : place + 4] = b"\xff" * 4
    path.write_bytes(content)
    try:
        read_log(path.parent, "val")
    except DataError as error:  # not every byte can be told: what can be told is one line that names the file
        assert "\n" not in str(error) and BOXES in str(error) and len(str(error)) < 500
