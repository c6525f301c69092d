"""Waymo Open Motion records as Scenarios: hand-made ones, damaged ones, and the public ones where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from waymo_files import (
    HEADING,
    PRESENT,
    SIZE,
    SPEED,
    STEPS,
    at,
    damaged,
    e2e,
    example,
    example_features,
    frame,
    masked,
    pack,
    points,
    put,
    road,
    scenario,
    track,
    write,
)

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.geometry import box_corners
from drive.core.roadmap import Layer
from drive.core.types import AgentType, LightState
from drive.datasets.logged import LogDataset
from drive.datasets.logs import LogScenes
from drive.datasets.waymo import Kind, inspect, kind_of
from drive.datasets.waymo_e2e import WaymoE2EReader
from drive.datasets.waymo_motion import REAR_TO_CENTER, WaymoMotionReader, split_of
from drive.datasets.waymo_perception import WaymoPerceptionReader
from drive.planners.pdm import PdmExpert

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real/waymo-research__waymo-open-dataset/src/waymo_open_dataset"
real = pytest.mark.skipif(not ROOT.is_dir(), reason="Waymo's public test data is not at hand")
NAMES = {"scene": "motion_data_one_scenario.tfrecord", "example": "motion_data_one_example.tfrecord"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("motion")
    write(root / "validation" / "val.tfrecord-00000-of-00001", scenario("scene-a"), scenario("scene-b", others=False))
    write(root / "training" / "uncompressed.tfrecord", example())
    return root


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(WaymoMotionReader(), root, "val")


def only(path):
    """The log of a file's one record."""
    reader = WaymoMotionReader()
    return reader.read(reader.find(path.parent)[0])


def refused(tmp_path, record, match):
    with pytest.raises(DataError, match=match) as caught:
        only(write(tmp_path / "one.tfrecord", record))
    assert "one.tfrecord: record 0 at byte 0" in str(caught.value) and "\n" not in str(caught.value)


def test_one_scene_per_record_at_its_present(data):
    assert data.ids == (f"scene-a-{PRESENT:04d}", f"scene-b-{PRESENT:04d}") and data.expected == 2 and data.faults == []
    scene = data[0]
    assert (scene.source, scene.split, scene.dt, scene.present, scene.time_s) == ("waymo_motion", "val", 0.1, 15, pytest.approx(1.0))
    assert scene.notes["prolonged_steps"] == 5 and scene.notes["tracks_to_predict"] == ["70"] and scene.notes["difficulties"] == [2]
    assert scene.notes["objects_of_interest"] == ["70", "71"] and scene.notes["sdc_id"] == "99" and scene.notes["scenario_id"] == "scene-a"
    np.testing.assert_allclose(scene.logged_future(10).poses[:, 0], SPEED * 0.5 * np.arange(1, 11), atol=1e-5)
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED, abs=1e-4)
    assert scene.teacher is not None and len(scene.ego.poses_world) == 15 + 1 + 50
    assert scene.observation().images.shape == (1, 4, 112, 112, 3)


def test_the_ego_is_moved_to_its_rear_axle_and_is_no_agent(data):
    scene = data[0]
    origin = np.array(scene.notes["origin_world"])
    np.testing.assert_allclose(scene.ego.poses_world[scene.present, :2] + origin, at(PRESENT * 0.1 * SPEED), atol=1e-6)
    assert scene.notes["ego_size"] == pytest.approx(SIZE) and REAR_TO_CENTER == 1.461
    assert scene.agents.ids == ("70", "71", "72", "73")
    assert scene.agents.types.tolist() == [AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.BICYCLE, AgentType.GENERIC_OBJECT]
    np.testing.assert_allclose(scene.agents.poses_world[0, scene.present, :2] + origin, at(25.0 + SPEED), atol=1e-6)
    np.testing.assert_allclose(scene.agents.poses_world[0, scene.present, 2], HEADING, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*scene.agents.velocity_world[0, scene.present]), SPEED, atol=1e-5)
    assert not scene.agents.valid[1, 5:10].any() and scene.agents.valid[1, 10:].all()  # unseen in its first 5 steps
    assert len(data[1].agents) == 0


def test_lanes_links_limits_and_lights(data):
    scene = data[0]
    road_map = scene.road_map
    assert set(road_map.lanes) == {"1", "2", "3", "4", "5"}  # no bike lane
    first, across, second = road_map.lanes["1"], road_map.lanes["5"], road_map.lanes["2"]
    assert first.successors == ("2",) and second.predecessors == ("1",) and second.successors == ("4",)
    assert second.is_connector and across.is_connector and second.junction == across.junction != "" and not first.is_connector
    assert first.left_neighbor == "3" and road_map.lanes["3"].right_neighbor == ""  # a solid line lies to its right
    assert first.speed_limit == pytest.approx(45 * 0.44704) and road_map.lanes["3"].speed_limit == pytest.approx(65 * 0.44704)
    assert road_map.lanes["4"].speed_limit == pytest.approx(50 / 3.6)  # none recorded
    assert first.length == pytest.approx(100.0, abs=1e-6)
    gap = np.abs(first.left - first.centerline[:, :2])
    np.testing.assert_allclose(np.hypot(*gap.T)[5:-5], 1.6, atol=1e-3)  # its own line
    np.testing.assert_allclose(np.hypot(*(first.right - first.centerline[:, :2]).T)[5:-5], 1.8, atol=1e-3)  # nominal
    assert scene.lights is not None and scene.lights.lane_ids == ("2",) and scene.notes["lights_off_map"] == 1
    shown = scene.lights.states[0]
    assert shown[:5].tolist() == [LightState.UNKNOWN] * 5  # before the record
    assert set(shown[5:35]) == {LightState.RED} and set(shown[35:]) == {LightState.GREEN}


def test_the_drivable_area_ends_at_edges_and_takes_driveways(data):
    scene = data[0]
    polygons, origin = scene.road_map.polygons, np.array(scene.notes["origin_world"])
    area = shapely.union_all([shapely.Polygon(polygons.ring(i)) for i, layer in enumerate(polygons.layers) if layer == Layer.DRIVABLE_AREA])
    inside = [shapely.contains(area, shapely.Point(at(*place) - origin)) for place in ((-20, 0), (-20, -2.3), (-20, 5.8), (100, -4.0), (3, -8.0))]
    outside = [shapely.contains(area, shapely.Point(at(*place) - origin)) for place in ((-20, -2.8), (-20, 6.3), (100, -5.5), (20, -8.0))]
    assert all(inside) and not any(outside)
    assert "approximated" in scene.notes["map"]


def test_the_expert_drives_such_a_record_and_is_scored(data):
    result = evaluate_pdms([data[0]], PdmExpert())
    assert result.coverage == 1.0 and result.mean("dac") == result.mean("nc") == 1.0


def test_another_future_changes_no_byte_of_the_observation(tmp_path):
    clock = np.arange(STEPS) * 0.1
    braking = np.where(clock <= PRESENT * 0.1, clock * SPEED, PRESENT + (clock - 1.0) * 2.0)
    seen = []
    for name, driven in (("go", None), ("stop", braking)):
        log = only(write(tmp_path / name / "x.tfrecord", scenario("s", driven=driven)))
        scene = LogScenes(log).scenario(PRESENT)
        seen.append((scene.observation(), scene.logged_future(4).poses[-1, 0]))
    (go, there), (stop, near) = seen
    assert there - near > 10.0
    for field in ("images", "ego_history"):
        assert getattr(go, field).tobytes() == getattr(stop, field).tobytes()
    assert (go.speed, go.acceleration, go.yaw_rate, go.command) == (stop.speed, stop.acceleration, stop.yaw_rate, stop.command)


def test_tensors_give_the_same_log(root, data):
    scene = LogDataset(WaymoMotionReader(), root, "train")[0]
    assert scene.id == f"scene-x-{PRESENT:04d}" and scene.agents.ids == ("7",) and scene.notes["sdc_id"] == "9"
    np.testing.assert_allclose(scene.ego.poses_world, data[0].ego.poses_world, atol=2e-3)  # tensors are float32
    np.testing.assert_allclose(scene.agents.poses_world[0], data[0].agents.poses_world[0], atol=2e-3)
    assert scene.notes["tracks_to_predict"] == ["7"] and scene.notes["objects_of_interest"] == []
    lanes = scene.road_map.lanes
    assert set(lanes) == {"1", "2"} and lanes["1"].successors == ("2",) and lanes["2"].is_connector  # a light rules it
    assert scene.lights is not None and scene.lights.lane_ids == ("2",) and scene.lights.states[0, -1] == LightState.RED
    assert "sampled points" in scene.notes["map"]


def test_a_bad_record_among_good_ones_is_counted_and_the_rest_is_read(tmp_path):
    path = write(tmp_path / "val" / "x.tfrecord", scenario("a"), scenario("b"), scenario("c"))
    damaged(path, path.stat().st_size // 2)
    data = LogDataset(WaymoMotionReader(), tmp_path, "val")
    assert data.ids == ("a-0010", "c-0010") and data.expected == 3
    assert len(data.faults) == 1 and "record 1" in data.faults[0] and "checksum of its data is wrong" in data.faults[0]
    found = inspect(path)
    assert found.counts["records"] == 2 and len(found.faults) == 1
    path.write_bytes(path.read_bytes()[:-50])
    assert LogDataset(WaymoMotionReader(), tmp_path, "val").ids == ("a-0010",)
    write(tmp_path / "val" / "y.tfrecord", scenario("a"))
    assert any("twice" in fault for fault in LogDataset(WaymoMotionReader(), tmp_path, "val").faults)


def test_records_that_lack_something_are_refused_by_name(tmp_path):
    refused(tmp_path, put(scenario(), 5, None), "lacks scenario_id")
    refused(tmp_path, put(scenario(), 6, 40), "lacks the track of sdc_track_index")
    refused(tmp_path, put(scenario(), 10, None), "its present is step -1")
    refused(tmp_path, put(scenario(), 1, None), "not 0.1 s apart")
    refused(tmp_path, [*put(scenario(), 1, None), *[(1, k * 0.2) for k in range(STEPS)]], r"not 0\.1 s apart \(0\.200 s after step 0\)")
    refused(tmp_path, [*scenario(), (2, track(5, 1, 0.0, steps=4))], "track 5 has 4 states for 91 steps")
    refused(tmp_path, [*put(scenario(), 6, 5), (2, track(5, 1, np.full(STEPS, np.nan)))], "no finite pose at step 0")
    refused(tmp_path, [*put(scenario(), 6, 5), (2, track(5, 1, 0.0, seen=range(90)))], r"no finite pose at step 90 \(1 such steps\)")
    refused(tmp_path, b"\x0a\x7fxx", "no such message")


def test_nan_states_are_not_seen_and_counted(tmp_path):
    places = np.arange(STEPS) * 1.0
    places[[20, 21]] = np.nan
    extra = [(2, track(80, 1, places)), (2, track(81, 1, 3.0, size=(0.0, 1.0, 1.0))), (2, track(82, 1, 3.0, seen=()))]
    log = only(write(tmp_path / "x.tfrecord", [*scenario(), *extra]))
    assert log.agents.ids[-1] == "80" and not log.agents.valid[-1, 20:22].any() and log.agents.valid[-1].sum() == STEPS - 2
    assert log.notes["broken_states"] == 2 + STEPS and log.notes["unseen_tracks"] == 2
    assert np.isfinite(log.agents.poses_world).all() and np.isfinite(log.agents.velocity_world).all()


def test_maps_that_are_faulty_or_absent(tmp_path):
    bare = only(write(tmp_path / "a" / "x.tfrecord", put(scenario(), 8, None)))
    assert bare.make_map is None and bare.lights is None and LogScenes(bare).scenario(PRESENT).notes["map"] == "corridor"
    broken = [(8, [(1, 1), (3, points(8, [(0.0, 0.0), (np.nan, 1.0), (2.0, 2.0)]))])]
    log = only(write(tmp_path / "b" / "x.tfrecord", [*put(scenario(), 8, None), *broken]))
    with pytest.raises(DataError, match="map feature 1 has NaN"):
        _ = LogScenes(log).road_map
    stub = [(8, [(1, 9), (3, points(8, [(0.0, 0.0), (0.0, 0.0)]))]), *[(8, feature) for feature in road()]]
    assert "9" not in LogScenes(only(write(tmp_path / "c" / "x.tfrecord", [*put(scenario(), 8, None), *stub]))).road_map.lanes


def test_tensors_that_lack_something_are_refused_by_name(tmp_path):
    def changed(**new):
        return example({key: new.get(key.replace("/", "_"), value) for key, value in example_features().items() if key.replace("/", "_") not in new or new[key.replace("/", "_")] is not None})

    refused(tmp_path, changed(scenario_id=None), "without scenario/id")
    refused(tmp_path, changed(state_past_x=None), "without the feature state/past/x")
    refused(tmp_path, changed(state_is_sdc=np.zeros(4, int)), "0 agents are Waymo's own car")
    refused(tmp_path, changed(state_current_y=np.zeros(7)), "has 7 numbers")
    refused(tmp_path, changed(state_type=np.zeros(4, int)), "is no list of floats")
    refused(tmp_path, changed(state_past_x=np.full((4, 10), np.nan)), "no finite pose at step 0")


def test_splits_are_read_off_files_and_folders():
    paths = {"training/a.tfrecord": "train", "validation_interactive/a": "val", "x/training_20s/uncompressed/a": "train", "testing/a": "test"}
    paths |= {"val_202504.tfrecord-00001-of-00093": "val", "data/testdata/a.tfrecord": "test", "validation/test_2025.tfrecord": "test"}
    assert {name: split_of(Path("data") / name) for name in paths} == paths


def test_kinds_of_files(tmp_path, root):
    assert kind_of(next((root / "validation").iterdir())) is Kind.SCENARIO and kind_of(root / "training" / "uncompressed.tfrecord") is Kind.EXAMPLE
    path = write(tmp_path / "a.tfrecord", scenario("a"), scenario("b"))
    damaged(path, 100)
    assert kind_of(path) is Kind.SCENARIO  # by the second record
    for content, match in (([b"\x08\x01"], "no Scenario, tf.Example"), ([example({"other": np.zeros(2)})], "no Scenario"), ([], "holds no record")):
        with pytest.raises(DataError, match=match):
            kind_of(write(tmp_path / "b.tfrecord", *content))
    (tmp_path / "c.tfrecord").write_bytes(b"\x05" + bytes(7) + masked(b"\x05" + bytes(7)).to_bytes(4, "little") + b"12")
    with pytest.raises(DataError, match="ends within its data"):
        kind_of(tmp_path / "c.tfrecord")


def test_submissions_and_tables_are_counted(tmp_path):
    values = np.zeros(80, np.float32)
    scene = [(1, [*[(field, values) for field in (2, 3, 4, 5)], (6, 70 + k)]) for k in range(2)]
    (tmp_path / "s.binproto").write_bytes(pack([(1, [(1, "scene-a"), (2, scene), (2, scene)]), (4, "method")]))
    assert inspect(tmp_path / "s.binproto").counts == {"scenarios": 1, "first scenario": "scene-a", "rollouts": 2, "objects": 2, "simulated trajectories": 4, "steps": "80"}
    (tmp_path / "s.binproto").write_bytes(b"")
    with pytest.raises(DataError, match="no rollouts"):
        inspect(tmp_path / "s.binproto")
    pytest.importorskip("pyarrow")
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        inspect(tmp_path / "p.parquet")


@real
def test_the_public_scenario_and_example_are_counted():
    counts = inspect(ROOT / "utils/testdata" / NAMES["scene"]).counts
    wanted = {"steps": 91, "tracks": 83, "vehicles": 70, "pedestrians": 10, "cyclists": 3, "map features": 301, "signal states": 91, "tracks to predict": 3, "current step": "10"}
    assert {key: counts[key] for key in wanted} == wanted and counts["scenario"] == "637f20cafde22ff8"
    assert inspect(ROOT / "utils/testdata" / NAMES["example"]).counts["scenario"] == "a3bb37c25ce56418"
    assert kind_of(ROOT / "utils/testdata" / NAMES["scene"]) is Kind.SCENARIO and kind_of(ROOT / "utils/testdata" / NAMES["example"]) is Kind.EXAMPLE
    sim = inspect(ROOT / "utils/sim_agents/testdata/test_submission.binproto").counts
    assert (sim["rollouts"], sim["first scenario"], sim["steps"]) == (32, "637f20cafde22ff8", "80")
    pytest.importorskip("pyarrow")
    assert inspect(next(ROOT.rglob("*.parquet"))).counts["ego poses"] == 199


@real
def test_the_public_scenario_stands_on_its_map():
    reader = WaymoMotionReader()
    logs = {entry.path.name: reader.read(entry) for entry in reader.find(ROOT / "utils/testdata") if "motion" in entry.path.name}
    log = logs[NAMES["scene"]]
    assert log.steps == 91 and log.presents == (10,) and len(log.agents) == 82 and log.notes["broken_states"] == 0
    assert log.lights is not None and log.lights.states.shape == (12, 91) and log.notes["lights_off_map"] == 0
    road_map = LogScenes(log).road_map
    assert len(road_map.lanes) == 197 and sum(lane.is_connector for lane in road_map.lanes.values()) == 64
    area = shapely.union_all([shapely.Polygon(road_map.polygons.ring(i)) for i, layer in enumerate(road_map.polygons.layers) if layer == Layer.DRIVABLE_AREA])
    shapely.prepare(area)
    corners = box_corners(log.ego.poses_world, *log.ego_size[:2], REAR_TO_CENTER).reshape(-1, 2)
    assert shapely.contains(area, shapely.points(corners)).all()
    moving = log.agents.valid & (np.hypot(*np.moveaxis(log.agents.velocity_world, -1, 0)) > 1.0) & (log.agents.types == AgentType.VEHICLE)[:, None]
    assert shapely.contains(area, shapely.points(log.agents.poses_world[..., :2][moving])).mean() > 0.97
    turning = LogScenes(logs[NAMES["example"]])
    assert len(turning.log.agents) == 127 and len(turning.road_map.lanes) == 123
    assert turning.scenario(10).teacher is not None


def test_files_of_waymos_other_datasets_are_left_to_their_own_readers(tmp_path):
    write(tmp_path / "val_a.tfrecord", scenario("scene-a"))
    write(tmp_path / "val_b.tfrecord", *(frame(k) for k in range(3)))
    write(tmp_path / "val_c.tfrecord", e2e(50))
    (tmp_path / "val_d.tfrecord").write_bytes(b"torn")
    names = {}
    for reader in (WaymoMotionReader(), WaymoPerceptionReader(), WaymoE2EReader()):
        names[reader.name] = sorted(entry.path.name for entry in reader.find(tmp_path))
    assert names["waymo_motion"] == ["val_a.tfrecord", "val_d.tfrecord"]  # what tells no kind is every reader's fault to tell
    assert names["waymo_perception"] == ["val_b.tfrecord", "val_d.tfrecord"] and names["waymo_e2e"] == ["val_c.tfrecord", "val_d.tfrecord"]
    data = LogDataset(WaymoMotionReader(), tmp_path, "val")
    assert len(data) == 1 and data.expected == 2 and "val_d.tfrecord" in data.faults[0]


def test_a_light_of_a_later_step_changes_no_byte_of_the_observation(tmp_path):
    def seen(name, steps):
        message = [item for item in scenario("scene-a") if item[0] != 7]
        states = [(7, [(1, [(1, 1), (2, 4)])] if step in steps else []) for step in range(91)]
        write(tmp_path / name / "val.tfrecord", [*message, *states])
        return LogDataset(WaymoMotionReader(), tmp_path / name, "val")[0]

    early, late, none = seen("early", range(5, 90)), seen("late", range(40, 90)), seen("none", ())
    assert late.observation().images.tobytes() == none.observation().images.tobytes()
    assert early.lights is not None and set(early.road_map.lanes) == set(late.road_map.lanes)
    assert early.road_map.lanes["1"].is_connector and not late.road_map.lanes["1"].is_connector
