"""nuPlan logs of the published schema, written from Argoverse 2 logs: the same scenarios come back; damaged ones are told and counted."""

import os
import pickle
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import shapely
from av2_files import STEPS, write
from nuplan_files import CITY, av2_log, blocks_of, edit, token, write_db, write_image, write_maps

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Command, EgoTrack, LightState, Tracks
from drive.datasets.av2 import Av2Reader, find_logs
from drive.datasets.logged import LogDataset
from drive.datasets.logs import Log, Outline
from drive.datasets.nuplan import NuPlanReader, breaks_of, inspect
from drive.metrics.pdms import score_pdms
from drive.metrics.pdms_scene import PdmScene
from drive.planners.pdm import PdmExpert

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
REAL = Path(__file__).resolve().parents[2] / "shared/data/real/argoverse__av2-api/tests/unit"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real Argoverse 2 logs are not at hand")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """av2/val/log-a, its copy nuplan/val/log-a.db with cameras in blobs/, and maps/."""
    root = tmp_path_factory.mktemp("nuplan")
    write(root / "av2" / "val" / "log-a")
    log, road_map, route = av2_log(root / "av2" / "val" / "log-a")
    write_maps(root / "maps", road_map, log)
    lights = [(2, 0, 30, "red"), (2, 31, 60, "green"), (2, 61, 70, "yellow")]
    write_db(root / "nuplan" / "val" / "log-a.db", log, roadblocks=blocks_of(road_map, route), lights=lights, images=root / "blobs")
    return root


@pytest.fixture(scope="module")
def original(root):
    return LogDataset(Av2Reader(), root / "av2", "val")


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(NuPlanReader(root / "maps"), root / "nuplan", "val")


def area(road_map, layer=Layer.DRIVABLE_AREA):
    polygons = road_map.polygons
    return shapely.union_all([shapely.Polygon(polygons.ring(i)) for i, kind in enumerate(polygons.layers) if kind == layer])


def assert_same(one, other):
    """Two scenarios of one situation, in two formats."""
    np.testing.assert_allclose(one.ego.poses_world, other.ego.poses_world, atol=1e-6)
    np.testing.assert_allclose(one.ego.velocity_ego, other.ego.velocity_ego, atol=1e-9)
    np.testing.assert_allclose(one.ego.acceleration_ego, other.ego.acceleration_ego, atol=1e-9)
    np.testing.assert_allclose(one.ego.yaw_rate, other.ego.yaw_rate, atol=1e-9)
    assert len(one.agents) == len(other.agents) and one.command is other.command
    np.testing.assert_array_equal(np.sort(one.agents.types), np.sort(other.agents.types))
    np.testing.assert_array_equal(one.agents.valid.sum(axis=0), other.agents.valid.sum(axis=0))
    k = one.present
    order, others = (np.lexsort(np.round(s.agents.poses_world[:, k, :2], 3).T) for s in (one, other))
    np.testing.assert_allclose(one.agents.poses_world[order, k], other.agents.poses_world[others, k], atol=1e-6)
    np.testing.assert_allclose(one.agents.size[order], other.agents.size[others], atol=1e-9)
    np.testing.assert_allclose(one.logged_future().poses, other.logged_future().poses, atol=1e-6)


def test_the_scenarios_are_those_that_the_log_was_made_from(data, original):
    assert len(data) == len(original) == data.expected == len(range(15, STEPS - 50, 5)) and data.faults == []
    for k in (0, 3, 6):
        assert_same(original[k], data[k])
    scene = data[3]
    assert (scene.id, scene.source, scene.split, scene.dt) == ("log-a-0030", "nuplan", "val", 0.1) and scene.time_s == pytest.approx(3.0)
    assert shapely.symmetric_difference(area(scene.road_map), area(original[3].road_map)).area < 1e-6
    assert scene.route_lane_ids == original[3].route_lane_ids == ("1", "2")
    static = scene.agents.types == AgentType.TRAFFIC_CONE
    assert static.any() and not scene.agents.velocity_world[static].any()
    moving = scene.agents.velocity_world[~static, scene.present]
    np.testing.assert_allclose(np.hypot(*moving.T), 6.0, atol=1e-6)


def test_lights_tags_goal_and_tokens(data):
    scene = data[3]
    assert scene.lights is not None and scene.lights.lane_ids == ("2",)
    assert [scene.lights.states[0, k] for k in (scene.present, scene.present + 1, scene.present + 31, scene.present + 41)] == [
        LightState.RED, LightState.GREEN, LightState.YELLOW, LightState.UNKNOWN,
    ]  # fmt: skip
    assert scene.notes["token"] == token("pc", 60).hex() and scene.notes["map_name"] == CITY
    goal = scene.notes["goal_world"]
    np.testing.assert_allclose(goal, data.logs[0].log.ego.poses_world[-1], atol=1e-6)
    log = data.logs[0].log
    assert log.step_notes["scenario_tags"][20] == ["high_magnitude_speed", "starting_left_turn"]  # one of them on the sweep between two steps
    assert not any(log.step_notes["scenario_tags"][k] for k in (19, 21))


def test_the_motion_is_the_recorded_one(root, tmp_path):
    shutil.copytree(root / "nuplan", tmp_path / "n")
    edit(tmp_path / "n" / "val" / "log-a.db", "UPDATE ego_pose SET vx = 9.5, acceleration_x = 0.25, angular_rate_z = 0.125", "UPDATE lidar_box SET vx = NULL")
    scene = LogDataset(NuPlanReader(), tmp_path / "n", "val")[0]
    state = scene.ego.state(scene.present)
    assert (state.velocity_ego[0], state.acceleration_ego[0], state.yaw_rate) == (9.5, 0.25, 0.125)
    moving = scene.agents.types == AgentType.VEHICLE  # without a recorded velocity, that of the positions
    np.testing.assert_allclose(scene.agents.velocity_world[moving, scene.present, 0], 6.0 * np.cos(0.3), atol=1e-6)


def test_without_maps_there_is_a_corridor_and_no_pdm_score(root):
    scene = LogDataset(NuPlanReader(), root / "nuplan", "val")[0]
    assert scene.notes["map"] == "corridor" and scene.observation().images.shape == (1, 4, 112, 112, 3)
    with pytest.raises(DataError, match="needs a map"):
        evaluate_pdms([scene], PdmExpert())


def test_splits(root, tmp_path):
    for name in ("train/a.db", "trainval/b.db", "mini/c.db"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(root / "nuplan" / "val" / "log-a.db", tmp_path / name)
    assert {e.log_id: e.split for e in NuPlanReader().find(tmp_path)} == {"a": "train", "b": "train", "c": "test"}


def test_the_expert_scores_as_on_the_original(data, original):
    mine, theirs = (evaluate_pdms(list(scenes), PdmExpert()) for scenes in (data, original))
    assert mine.coverage == theirs.coverage == 1.0
    np.testing.assert_allclose(mine.values(), theirs.values(), atol=1e-6)


@real
def test_real_scenes_come_back_and_score_the_same(tmp_path):
    for folder in find_logs(REAL):
        log, road_map, route = av2_log(folder, "test")
        write_maps(tmp_path / "maps", road_map, log)
        write_db(tmp_path / folder.name / "test" / f"{folder.name}.db", log, roadblocks=blocks_of(road_map, route))
        made = LogDataset(NuPlanReader(tmp_path / "maps"), tmp_path / folder.name, "test")
        reader = Av2Reader()
        split = next(entry.split for entry in reader.find(REAL) if entry.path == folder)
        source = LogDataset(reader, folder, split)
        assert len(made) == len(source) == 19 and made.faults == []
        assert [s.command for s in made] == [s.command for s in source]
        assert_same(source[5], made[5])
        near = shapely.LineString(log.ego.poses_world[:, :2]).buffer(140.0)  # farther away, the map is not read
        ours, theirs = (shapely.intersection(area(scenes[5].road_map), near) for scenes in (made, source))
        assert shapely.symmetric_difference(ours, theirs).area < 1e-3 < near.area
        driven = [[scene.logged_future().poses[None]] for scene in source]
        ours, theirs = ([score_pdms([PdmScene.from_scenario(s)], plan, 0.5)[0].score[0] for s, plan in zip(scenes, driven)] for scenes in (made, source))
        np.testing.assert_allclose(ours, theirs, atol=0.01)
        assert evaluate_pdms(made, PdmExpert()).coverage == 1.0


def lane(key, points, connector=False, **fields):
    points = np.asarray(points, float)
    line = polyline_with_heading(points)
    side = 1.75 * np.column_stack([-np.sin(line[:, 2]), np.cos(line[:, 2])])
    return Lane(key, line, points + side, points - side, 10.0, connector, **fields)


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """A lane that ends at a junction, where one may go on to the left or straight; the log ends 5 m before it."""
    root = tmp_path_factory.mktemp("crossing")
    bend = [(50 + 15 * np.sin(a), 15 - 15 * np.cos(a)) for a in np.linspace(0, np.pi / 2, 20)]
    lanes = [
        lane("1", [(-60, 0), (50, 0)], roadblock="11", successors=("2", "3")),
        lane("2", bend, True, turn="left", roadblock="12", junction="21", predecessors=("1",), successors=("4",)),
        lane("3", [(50, 0), (80, 0)], True, turn="straight", roadblock="13", junction="21", predecessors=("1",), successors=("5",)),
        lane("4", [(65, 15), (65, 80)], roadblock="14", predecessors=("2",)),
        lane("5", [(80, 0), (150, 0)], roadblock="15", predecessors=("3",)),
    ]
    rings = [(k.id, Layer.LANE_CONNECTOR if k.is_connector else Layer.LANE, np.concatenate([k.left, k.right[::-1]])) for k in lanes]
    square = np.array([(50, -5), (80, -5), (80, 20), (50, 20)], float)
    road_map = RoadMap("crossing", {k.id: k for k in lanes}, Polygons.from_rings([*rings, ("21", Layer.INTERSECTION, square)]))
    count = 100
    poses = np.column_stack([np.linspace(-15, 45, count), np.zeros(count), np.zeros(count)])
    still = np.zeros((count, 2))
    ego = EgoTrack(poses, still + [6.0, 0.0], still, np.zeros(count))
    log = Log("x", "nuplan", "test", (), 0.1, ego, (5.0, 2.0, 1.5), Tracks.empty(count), np.array([1000.0, 2000.0]))
    write_maps(root / "maps", road_map, log)
    for name, blocks in (("left", (11, 12, 14)), ("straight", (11, 13, 15)), ("none", ()), ("elsewhere", (14,))):
        write_db(root / name / "log.db", log, roadblocks=blocks)
    return root


@pytest.mark.parametrize(("name", "command", "last"), [("left", Command.LEFT, "4"), ("straight", Command.STRAIGHT, "5")])
def test_the_command_follows_the_recorded_roadblocks_beyond_the_log(crossing, name, command, last):
    data = LogDataset(NuPlanReader(crossing / "maps"), crossing / name, "test", short_futures=True)
    assert data[0].route_lane_ids[0] == "1" and data[0].route_lane_ids[-1] == last
    assert data[0].command is Command.LANEFOLLOW and data[len(data) - 1].command is command


@pytest.mark.parametrize("name", ["none", "elsewhere"])
def test_without_a_route_that_holds_the_drive_it_is_that_of_the_lanes_driven(crossing, name):
    data = LogDataset(NuPlanReader(crossing / "maps"), crossing / name, "test", short_futures=True)
    assert data[0].route_lane_ids == ("1",) and data[len(data) - 1].command is Command.LANEFOLLOW


def test_cameras_are_read_where_they_are_wanted(root, tmp_path):
    data = LogDataset(NuPlanReader(root / "maps", root / "blobs", ["CAM_F0"]), root / "nuplan", "val")
    scene = data[3]
    camera = scene.cameras[0]
    assert (camera.name, camera.width, camera.height) == ("CAM_F0", 64, 36) and len(scene.cameras) == 1
    np.testing.assert_allclose(camera.ego_from_camera, [[0, 0, 1, 1.7], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], atol=1e-12)
    assert scene.notes["camera_distortion"] == {"CAM_F0": [-0.3, 0.1, 0.0, 0.0, 0.0]}
    images = scene.observation().images
    assert images.shape == (1, 4, 36, 64, 3)
    assert [round(images[0, f].mean()) - 10 for f in range(4)] == [15, 20, 25, 30]
    with pytest.raises(DataError, match="no camera CAM_B0; it has CAM_F0"):
        LogDataset(NuPlanReader(root / "maps", root / "blobs", ["CAM_B0"]), root / "nuplan", "val")
    with pytest.raises(DataError, match="need the folder of sensor data"):
        NuPlanReader(sensors=tmp_path / "absent", cameras=["CAM_F0"])


def test_a_missing_image_is_told_when_it_is_asked_for(root, tmp_path):
    shutil.copytree(root / "blobs", tmp_path / "blobs")
    shutil.copytree(root / "nuplan", tmp_path / "n")
    (tmp_path / "blobs" / "log-a" / "CAM_F0" / "0010.jpg").unlink()
    edit(tmp_path / "n" / "val" / "log-a.db", ("DELETE FROM image WHERE filename_jpg LIKE ?", ("%/0040.jpg",)))
    data = LogDataset(NuPlanReader(None, tmp_path / "blobs", ["CAM_F0"]), tmp_path / "n", "val")
    with pytest.raises(DataError, match=r"0010\.jpg: no image can be read"):
        data[0].observation()
    with pytest.raises(DataError, match="no image of CAM_F0 at step 40"):
        data[5].observation()


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (("UPDATE camera SET intrinsic = ?", (pickle.dumps(Evil()),)), "intrinsic of camera CAM_F0.*system"),
        (("UPDATE camera SET rotation = NULL",), "rotation of camera CAM_F0"),
        (("UPDATE camera SET translation = ?", (pickle.dumps([1.0, 2.0]),)), "translation of camera CAM_F0 has shape"),
        (("UPDATE image SET filename_jpg = '../../secret.jpg'",), "outside of the folder of sensor data"),
    ],
)
def test_cameras_at_fault_are_refused(root, tmp_path, monkeypatch, statement, words):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "nuplan", tmp_path / "n")
    edit(tmp_path / "n" / "val" / "log-a.db", statement)
    with pytest.raises(DataError, match=words):
        LogDataset(NuPlanReader(None, root / "blobs", ["CAM_F0"]), tmp_path / "n", "val")
    assert not (tmp_path / "pwned").exists()


def cut(path, keep):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


DROPPED = ("log", "ego_pose", "lidar_pc", "lidar_box", "track", "category", "scene", "traffic_light_status")
DAMAGE = {
    **{f"no table {name}": (lambda p, name=name: edit(p, f"DROP TABLE {name}"), [f"lacks the table {name}"]) for name in DROPPED},
    "a column short": (lambda p: edit(p, "ALTER TABLE lidar_box DROP COLUMN yaw"), ["lidar_box", "columns yaw"]),
    "cut off": (lambda p: cut(p, 0.5), ["cannot be read"]),
    "almost nothing left": (lambda p: cut(p, 0.0), ["no SQLite file"]),
    "another file": (lambda p: p.write_text("hello, this is no database at all"), ["no SQLite file"]),
    "NaN in a pose": (lambda p: edit(p, ("UPDATE ego_pose SET x = ? WHERE token = ?", (float("nan"), token("ego", 22)))), ["x of the ego pose of step 11"]),
    "infinity in a pose": (lambda p: edit(p, ("UPDATE ego_pose SET vy = ? WHERE token = ?", (float("inf"), token("ego", 22)))), ["vy of the ego pose of step 11"]),
    "text in a pose": (lambda p: edit(p, "UPDATE ego_pose SET qw = 'north'"), ["no number"]),
    "a quaternion of zeros": (lambda p: edit(p, "UPDATE ego_pose SET qw = 0, qz = 0"), ["quaternion", "is 0"]),
    "a lost pose": (lambda p: edit(p, ("DELETE FROM ego_pose WHERE token = ?", (token("ego", 20),))), ["names an ego_pose that is not there"]),
    "a box without size": (lambda p: edit(p, "UPDATE lidar_box SET width = 0"), ["lidar_box 0 has no size"]),
    "a box without place": (lambda p: edit(p, "UPDATE lidar_box SET y = NULL"), ["y of lidar_box 0"]),
    "a box of no sweep": (lambda p: edit(p, ("UPDATE lidar_box SET lidar_pc_token = ?", (b"nowhere",))), ["belongs to no sweep"]),
    "a box of no track": (lambda p: edit(p, "DELETE FROM track"), ["track without a record"]),
    "a sweep without a time": (lambda p: edit(p, "UPDATE lidar_pc SET timestamp = NULL"), ["timestamp of lidar_pc 0"]),
    "another rate": (lambda p: edit(p, "UPDATE lidar_pc SET timestamp = timestamp * 4"), ["5.0 sweeps per second"]),
    "no sweeps": (lambda p: edit(p, "DELETE FROM lidar_pc"), ["0 sweeps"]),
    "a city without a map": (lambda p: edit(p, "UPDATE log SET map_version = 'sg-one-north'"), ["sg-one-north", "holds 0 files"]),
    "a city that leads elsewhere": (lambda p: edit(p, "UPDATE log SET map_version = '../..'"), ["no name of a nuPlan map"]),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_log_at_fault_is_left_out_told_and_counted(root, tmp_path, case):
    damage, words = case
    for name in ("log-a", "log-b"):
        (tmp_path / "val").mkdir(exist_ok=True)
        shutil.copy(root / "nuplan" / "val" / "log-a.db", tmp_path / "val" / f"{name}.db")
    damage(tmp_path / "val" / "log-b.db")
    data = LogDataset(NuPlanReader(root / "maps"), tmp_path, "val")
    assert len(data) == 7 and data.expected == 14 and {s.log_id for s in data} == {"log-a"}
    (fault,) = data.faults
    assert all(word in fault for word in words), fault


def test_presents_beside_missing_sweeps_are_left_out_and_counted(root, tmp_path):
    stamps = np.concatenate([np.arange(100), np.arange(101, 200)]) * 100_000
    kept, lost = Outline(199, 0.1, None, breaks_of(stamps, 0.1)).chosen(0.1, whole_future=False)
    assert kept == [*range(15, 50), *range(115, 199)] and lost == 65  # 1.5 s before to 5 s after
    shutil.copytree(root / "nuplan", tmp_path / "n")
    path = tmp_path / "n" / "val" / "log-a.db"
    edit(path, ("DELETE FROM lidar_pc WHERE token IN (?, ?)", (token("pc", 160), token("pc", 161))), ("DELETE FROM lidar_box WHERE lidar_pc_token = ?", (token("pc", 160),)))
    data = LogDataset(NuPlanReader(root / "maps"), tmp_path / "n", "val")
    assert [scene.notes["log_step"] for scene in data] == [15, 20, 25]
    assert len(data.faults) == 1 and "4 scenarios of log log-a stand beside missing frames" in data.faults[0] and data.expected == 7


def test_the_future_changes_no_byte_of_the_observation(root, tmp_path):
    shutil.copytree(root / "nuplan", tmp_path / "n")
    shutil.copytree(root / "blobs", tmp_path / "blobs")
    path = tmp_path / "n" / "val" / "log-a.db"
    with sqlite3.connect(path) as db:
        (start,) = db.execute("SELECT MIN(timestamp) FROM lidar_pc").fetchone()
        later = f"> {start + 3_040_000}"
        db.execute(f"UPDATE ego_pose SET x = x + 0.7, vx = vx + 2, angular_rate_z = 0.1, acceleration_x = 1 WHERE timestamp {later}")
        db.execute(f"UPDATE lidar_box SET y = y + 3, vx = 0 WHERE lidar_pc_token IN (SELECT token FROM lidar_pc WHERE timestamp {later})")
        db.execute(f"UPDATE traffic_light_status SET status = 'red' WHERE lidar_pc_token IN (SELECT token FROM lidar_pc WHERE timestamp {later})")
    db.close()
    for k in range(31, STEPS):
        write_image(tmp_path / "blobs" / "log-a" / "CAM_F0" / f"{k:04d}.jpg", 200)
    for cameras in ((), ("CAM_F0",)):
        plain = LogDataset(NuPlanReader(root / "maps", root / "blobs" if cameras else None, cameras), root / "nuplan", "val")[3].observation()
        other = LogDataset(NuPlanReader(root / "maps", tmp_path / "blobs" if cameras else None, cameras), tmp_path / "n", "val")[3].observation()
        np.testing.assert_array_equal(plain.images, other.images)
        np.testing.assert_array_equal(plain.ego_history, other.ego_history)
        assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


def test_the_file_is_not_written_to(root, tmp_path):
    folder = tmp_path / "a ? b # c%20" / "val"
    folder.mkdir(parents=True)
    path = folder / "log-a.db"
    shutil.copy(root / "nuplan" / "val" / "log-a.db", path)
    path.chmod(0o444)
    before = path.read_bytes()
    assert len(LogDataset(NuPlanReader(root / "maps"), tmp_path, "val")) == 7
    assert path.read_bytes() == before and sorted(p.name for p in folder.iterdir()) == ["log-a.db"]


def test_inspect_counts(root):
    found = inspect(root / "nuplan" / "val" / "log-a.db")
    assert found.kind == "nuPlan log" and found.counts["steps at 10 Hz"] == STEPS and found.counts["tracks"] == 2
    assert found.counts["lidar pc rows"] == 2 * STEPS - 1 and found.counts["image rows"] == STEPS and found.counts["map"] == CITY
