"""NAVSIM log pickles written from an Argoverse 2 log: the same scenarios at 2 Hz; filters, damage, and the files around them."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from av2_files import STEPS, write
from nuplan_files import CITY, av2_log, blocks_of, navsim_frames, write_image, write_maps, write_navsim

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.types import AgentType, Command, LightState
from drive.datasets.av2 import Av2Reader
from drive.datasets.logged import LogDataset
from drive.datasets.navsim import NavsimDataset, NavsimReader, inspect, read_filter
from drive.datasets.navsim_files import inspect_motions, inspect_scene, inspect_scores, inspect_split
from drive.datasets.navsim_splits import SceneFilter
from drive.datasets.unpickle import load_plain_pickle
from drive.planners.pdm import PdmExpert

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
REAL = Path(__file__).resolve().parents[2] / "shared/data/real"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not at hand")
FRAMES = STEPS // 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """av2/val/log-a, its copy navsim/val/log-a.pkl with images in blobs/, and maps/."""
    root = tmp_path_factory.mktemp("navsim")
    write(root / "av2" / "val" / "log-a")
    log, road_map, route = av2_log(root / "av2" / "val" / "log-a")
    write_maps(root / "maps", road_map, log)
    frames = navsim_frames(log, blocks_of(road_map, route), lights=[(2, 0, 30, "red"), (2, 31, 99, "green")], sensors=root / "blobs")
    write_navsim(root / "navsim" / "val" / "log-a.pkl", frames)
    return root


@pytest.fixture(scope="module")
def frames(root):
    return load_plain_pickle(root / "navsim" / "val" / "log-a.pkl")


@pytest.fixture(scope="module")
def data(root):
    return NavsimDataset(NavsimReader(root / "maps"), root / "navsim", "val")


@pytest.fixture(scope="module")
def original(root):
    return LogDataset(Av2Reader(), root / "av2", "val")


def test_the_scenarios_are_those_that_the_log_was_made_from(data, original):
    assert len(data) == len(original) == data.expected == 7 and data.faults == []
    scene, wanted = data[3], original[3]  # both at 3.0 s
    assert (scene.dt, scene.present, scene.frame_steps, scene.id) == (0.5, 3, (-3, -2, -1, 0), "log-a-0006") and scene.time_s == wanted.time_s
    np.testing.assert_allclose(scene.ego.poses_world, wanted.ego.poses_world[::5], atol=1e-6)
    np.testing.assert_allclose(scene.ego.velocity_ego, wanted.ego.velocity_ego[::5], atol=1e-9)
    np.testing.assert_allclose(scene.ego.acceleration_ego, wanted.ego.acceleration_ego[::5], atol=1e-9)
    np.testing.assert_allclose(scene.ego.yaw_rate, wanted.ego.yaw_rate[::5], atol=1e-9)
    assert set(scene.agents.ids) == set(wanted.agents.ids) == {"car", "cone"}
    for name in scene.agents.ids:
        mine, theirs = scene.agents.ids.index(name), wanted.agents.ids.index(name)
        np.testing.assert_allclose(scene.agents.poses_world[mine], wanted.agents.poses_world[theirs, ::5], atol=1e-6)
        np.testing.assert_allclose(scene.agents.size[mine], wanted.agents.size[theirs], atol=1e-9)
        if scene.agents.types[mine] == AgentType.VEHICLE:
            np.testing.assert_allclose(scene.agents.velocity_world[mine], wanted.agents.velocity_world[theirs, ::5], atol=1e-6)
    assert scene.teacher is not None and wanted.teacher is not None
    np.testing.assert_allclose(scene.teacher.poses, wanted.teacher.poses, atol=1e-6)
    assert scene.route_lane_ids == ("1", "2") and scene.observation().ego_history.shape == (4, 3)


def test_commands_lights_and_tokens_are_the_recorded_ones(data):
    assert [data[k].command for k in range(4)] == [Command.LANEFOLLOW, Command.STRAIGHT, Command.LEFT, Command.RIGHT]
    scene = data[3]
    assert scene.notes["token"] == "log-a-0006" and scene.notes["map_name"] == CITY
    assert scene.lights is not None and scene.lights.lane_ids == ("2",)
    assert scene.lights.states[0, scene.present] == LightState.RED and scene.lights.states[0, scene.present + 1] == LightState.GREEN


def test_the_expert_scores_such_a_scenario_nearly_as_the_original(data, original):
    mine, theirs = (evaluate_pdms(list(scenes), PdmExpert()) for scenes in (data, original))
    assert mine.coverage == 1.0
    np.testing.assert_allclose(mine.values(), theirs.values(), atol=0.02)  # straight on at even speed: 2 Hz loses nothing


def test_without_maps_commands_stay_and_without_can_bus_the_yaw_rate_is_that_of_the_step(root, frames, tmp_path):
    bare = [{key: value for key, value in frame.items() if key not in ("can_bus", "anns", "traffic_lights")} for frame in frames]
    turned = [dict(frame, ego2global_rotation=[np.cos(0.05 * k), 0.0, 0.0, np.sin(0.05 * k)]) for k, frame in enumerate(bare)]
    write_navsim(tmp_path / "val" / "x.pkl", turned)
    scene = NavsimDataset(NavsimReader(), tmp_path, "val")[0]
    assert scene.notes["map"] == "corridor" and scene.command is Command.LANEFOLLOW and len(scene.agents) == 0
    np.testing.assert_allclose(scene.ego.yaw_rate[1:], 0.2, atol=1e-9)


def test_images_are_read_where_they_are_wanted(root, tmp_path):
    reader = NavsimReader(root / "maps", root / "blobs", ["CAM_F0"])
    scene = NavsimDataset(reader, root / "navsim", "val")[3]
    np.testing.assert_allclose(scene.cameras[0].ego_from_camera[:3, 3], [1.7, 0.0, 1.5])
    np.testing.assert_allclose(scene.cameras[0].ego_from_camera[:3, 2], [1.0, 0.0, 0.0])  # it looks ahead
    images = scene.observation().images
    assert [round(images[0, f].mean()) - 10 for f in range(4)] == [15, 20, 25, 30]
    shutil.copytree(root / "blobs", tmp_path / "blobs")
    (tmp_path / "blobs" / "log-a" / "CAM_F0" / "0030.jpg").unlink()
    data = NavsimDataset(NavsimReader(None, tmp_path / "blobs", ["CAM_F0"]), root / "navsim", "val")
    with pytest.raises(DataError, match=r"0030\.jpg: no image"):
        data[3].observation()
    with pytest.raises(DataError, match="no camera CAM_B0; it has CAM_F0"):
        NavsimDataset(NavsimReader(None, root / "blobs", ["CAM_B0"]), root / "navsim", "val")
    with pytest.raises(DataError, match="need the folder"):
        NavsimReader(None, None, ["CAM_F0"])


def scenes(tokens, logs=("log-a",), synthetic=(), has_route=True, future=10):
    return SceneFilter("small", 4, future, has_route, tuple(logs), tuple(tokens), tuple(synthetic))


def token(k):
    return f"log-a-{k:04x}"


def test_a_filter_names_its_presents_and_the_missing_are_counted(root):
    wanted = [token(k) for k in (1, 5, 9, 10)] + ["elsewhere"]  # 1 has too little history, 10 too little future
    data = NavsimDataset(NavsimReader(root / "maps", scenes=scenes(wanted, synthetic=("s1", "s2"))), root / "navsim", "val")
    assert [scene.notes["token"] for scene in data] == [token(5), token(9)] and data.expected == 7
    (fault,) = data.faults
    assert "5 of the 7 scenes of small are missing, 2 of them second-stage" in fault and f"first: {token(1)}" in fault
    short = NavsimDataset(NavsimReader(scenes=scenes([token(k) for k in (10, 11, 12)], future=8)), root / "navsim", "val")
    assert [scene.notes["token"] for scene in short] == [token(10), token(11)] and short[1].teacher is None
    with pytest.raises(DataError, match="no log of navsim is there"):
        NavsimDataset(NavsimReader(scenes=scenes(wanted, logs=("another",))), root / "navsim", "val")


def test_scenes_without_a_route_are_left_out_where_the_filter_asks_for_one(root, frames, tmp_path):
    write_navsim(tmp_path / "val" / "log-a.pkl", [dict(frame, roadblock_ids=[] if k == 5 else frame["roadblock_ids"]) for k, frame in enumerate(frames)])
    for has_route, count in ((True, 1), (False, 2)):
        assert len(NavsimDataset(NavsimReader(scenes=scenes([token(5), token(6)], has_route=has_route)), tmp_path, "val")) == count


def test_presents_beside_missing_frames_are_left_out_and_counted(frames, tmp_path):
    write_navsim(tmp_path / "val" / "log-a.pkl", frames[:4] + frames[5:])
    data = NavsimDataset(NavsimReader(), tmp_path, "val")
    assert [scene.notes["log_step"] for scene in data] == [7, 8] and data.expected == 6
    assert len(data.faults) == 1 and "4 scenarios of log log-a stand beside missing frames" in data.faults[0]
    filtered = NavsimDataset(NavsimReader(scenes=scenes([token(k) for k in (5, 9)])), tmp_path, "val")
    assert [scene.notes["token"] for scene in filtered] == [token(9)] and filtered.expected == 2


def test_the_future_changes_no_byte_of_the_observation(root, frames, tmp_path):
    shutil.copytree(root / "blobs", tmp_path / "blobs")
    changed = []
    for k, frame in enumerate(frames):
        if k > 6:
            place = np.array(frame["ego2global_translation"]) + [0.7, 0.2, 0.0]
            anns = dict(frame["anns"], gt_boxes=frame["anns"]["gt_boxes"] + [3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
            frame = dict(frame, ego2global_translation=place, anns=anns, ego_dynamic_state=[9.0, 0.0, 1.0, 0.0], traffic_lights=[], driving_command=np.eye(4, dtype=int)[2])
            write_image(tmp_path / "blobs" / "log-a" / "CAM_F0" / f"{5 * k:04d}.jpg", 200)
        changed.append(frame)
    write_navsim(tmp_path / "n" / "val" / "log-a.pkl", changed)
    for cameras in ((), ("CAM_F0",)):
        plain = NavsimDataset(NavsimReader(root / "maps", root / "blobs" if cameras else None, cameras), root / "navsim", "val")[3].observation()
        other = NavsimDataset(NavsimReader(root / "maps", tmp_path / "blobs" if cameras else None, cameras), tmp_path / "n", "val")[3].observation()
        np.testing.assert_array_equal(plain.images, other.images)
        np.testing.assert_array_equal(plain.ego_history, other.ego_history)
        assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def with_frame(k, **changes):
    return lambda frames: [dict(frame, **changes) if index == k else frame for index, frame in enumerate(frames)]


def anns(**changes):
    return lambda frames: with_frame(7, anns=dict(frames[7]["anns"], **changes))(frames)


BAD_BOX = np.array([[np.nan, 0, 0, 4, 2, 1, 0], [5, 0, 0, 4, 2, 1, 0]], float)
DAMAGE = {
    "code instead of data": (lambda frames: [Evil()], ["refused", "system"]),
    "code within a frame": (with_frame(3, extra=Evil()), ["refused", "system"]),
    "no list": (lambda frames: {"a": 1}, ["no NAVSIM log"]),
    "an empty list": (lambda frames: [], ["no NAVSIM log"]),
    "frames that are none": (lambda frames: [1, 2], ["frame 0 lacks token"]),
    "a key short": (lambda frames: [{k: v for k, v in f.items() if k != "ego_dynamic_state"} for f in frames], ["frame 0 lacks ego_dynamic_state"]),
    "NaN in a pose": (with_frame(7, ego2global_translation=np.array([np.nan, 0.0, 0.0])), ["ego2global_translation of frame 7"]),
    "text in a pose": (with_frame(7, ego2global_translation="north"), ["ego2global_translation of frame 7"]),
    "a quaternion of zeros": (with_frame(7, ego2global_rotation=np.zeros(4)), ["ego2global_rotation of frame 7 is 0"]),
    "time that runs back": (with_frame(7, timestamp=0), ["frame 7 is not later"]),
    "two commands": (with_frame(7, driving_command=np.array([1, 1, 0, 0])), ["driving_command of frame 7"]),
    "no command": (with_frame(7, driving_command=np.zeros(4)), ["driving_command of frame 7"]),
    "a short can bus": (with_frame(7, can_bus=np.zeros(3)), ["can_bus of frame 7"]),
    "lights that are none": (with_frame(7, traffic_lights=[1, 2]), ["traffic_lights of frame 7"]),
    "NaN in a box": (anns(gt_boxes=BAD_BOX), ["box 0 of frame 7"]),
    "a box without size": (anns(gt_boxes=np.nan_to_num(BAD_BOX) * [1, 1, 1, 0, 1, 1, 1]), ["box 0 of frame 7"]),
    "a name too few": (anns(gt_names=np.array(["vehicle"])), ["anns of frame 7 hold 2 boxes"]),
    "boxes of another shape": (anns(gt_boxes=np.zeros((2, 5))), ["anns of frame 7"]),
    "a city without a map": (with_frame(0, map_location="sg-one-north"), ["sg-one-north", "holds 0 files"]),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_log_at_fault_is_left_out_told_and_counted(root, frames, tmp_path, monkeypatch, case):
    damage, words = case
    monkeypatch.chdir(tmp_path)
    write_navsim(tmp_path / "val" / "log-a.pkl", frames)
    write_navsim(tmp_path / "val" / "log-b.pkl", damage(frames))
    data = NavsimDataset(NavsimReader(root / "maps"), tmp_path, "val")
    assert len(data) == 7 and data.expected == 14 and {s.log_id for s in data} == {"log-a"}
    (fault,) = data.faults
    assert ("log-b" in fault or "maps" in fault) and all(word in fault for word in words), fault
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_that_is_cut_off_is_told(root, frames, tmp_path):
    write_navsim(tmp_path / "val" / "log-a.pkl", frames)
    path = write_navsim(tmp_path / "val" / "log-b.pkl", frames)
    path.write_bytes(path.read_bytes()[:2000])
    assert "log-b.pkl: not a complete pickle" in NavsimDataset(NavsimReader(), tmp_path, "val").faults[0]


def test_splits_are_folders(frames, tmp_path):
    for name in ("trainval/a.pkl", "test/b.pkl", "mini/c.pkl"):
        write_navsim(tmp_path / name, frames)
    assert {e.log_id: e.split for e in NavsimReader().find(tmp_path)} == {"a": "train", "b": "test", "c": "test"}


def test_inspect_counts(root):
    found = inspect(root / "navsim" / "val" / "log-a.pkl")
    assert found.kind == "NAVSIM log" and found.counts["map"] == CITY
    assert [found.counts[key] for key in ("frames", "tracks", "boxes", "cameras", "traffic lights")] == [FRAMES, 2, 2 * FRAMES, 1, 1]


def test_split_files(tmp_path):
    assert read_filter("") is None
    content = {"num_history_frames": 4, "num_future_frames": 10, "has_route": True, "log_names": ["a"], "tokens": ["t1", "t2"]}
    path = tmp_path / "filter.yaml"
    path.write_text(yaml.safe_dump(content))
    assert inspect_split(path).counts["tokens"] == 2
    assert (found := read_filter(str(path))) is not None and found.tokens == ("t1", "t2")
    path.write_text(yaml.safe_dump({"reactive_all_mapping": [["a", "b", [["c", "d"], ["e", "f"]]]]}))
    assert inspect_split(path).counts == {"groups": 1, "first-stage tokens": 2, "second-stage tokens": 4}
    path.write_text("a: 1")
    with pytest.raises(DataError, match="no NAVSIM scene filter"):
        inspect_split(path)


def test_score_tables(tmp_path):
    path = tmp_path / "scores.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("token", "valid", "log_name", "score"), ("a", "True", "l", 1.0), ("b", "True", "l", 0.5), ("c", "False", "m", 1.0), ("d", "True", "m", "nan")])
    found = inspect_scores(path)
    assert found.counts == {"rows": 4, "tokens": 4, "logs": 2, "100 x mean score": 37.5}
    assert [fault.split("line ")[1] for fault in found.faults] == ["4, token c: no valid score", "5, token d: no valid score"]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="lacks the columns score, token, valid"):
        inspect_scores(path)


def test_scene_files(tmp_path):
    path = tmp_path / "scene.json"
    content = {"camera": {}, "meta": {}, "ego": {}, "map": {"area": CITY}, "world": {"vehicles": [1, 2]}, "expected": {"statistics": [1]}, "ego_future_states": [1, 2, 3]}
    path.write_text(json.dumps(content))
    assert inspect_scene(path).counts == {"ego": "yes", "map": CITY, "vehicles": 2, "ego future states": 3, "expected statistics": 1}
    for text, word in (("{", "cannot be read"), ("[]", "no scene"), ('{"camera": 1}', "no scene")):
        path.write_text(text)
        with pytest.raises(DataError, match=word):
            inspect_scene(path)


def test_vocabularies(tmp_path):
    path = tmp_path / "motions.npy"
    np.save(path, np.array([[[3.0, 4.0], [0.0, 1.0]]]))
    assert inspect_motions(path).counts == {"motions": 1, "steps": 2, "columns": 2, "farthest (m)": 5.0}
    np.save(path, np.full((1, 2, 3), np.nan))
    with pytest.raises(DataError, match="motion 0 has NaN"):
        inspect_motions(path)
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(DataError, match="no vocabulary"):
        inspect_motions(path)
    np.save(path, np.array([Evil()], object))
    with pytest.raises(DataError, match="cannot be read as an array"):
        inspect_motions(path)


@real
def test_the_real_files_hold_what_is_known_of_them():
    config = REAL / "autonomousvision__navsim/navsim/planning/script/config/common/train_test_split"
    navtest = inspect_split(config / "scene_filter/navtest.yaml").counts
    assert (navtest["tokens"], navtest["logs"]) == (12146, 136)
    navhard = inspect_split(config / "scene_filter/navhard_two_stage.yaml").counts
    assert (navhard["tokens"], navhard["synthetic tokens"]) == (450, 5462)
    assert inspect_split(config / "navhard_two_stage.yaml").counts == {"groups": 225, "first-stage tokens": 450, "second-stage tokens": 5462}
    (table,) = REAL.glob("WZiang__navsim-score-basis-audit/**/*.csv")
    scores = inspect_scores(table)
    assert (scores.counts["rows"], scores.counts["100 x mean score"], scores.faults) == (12143, 85.2834, ())
    vocabulary = inspect_motions(REAL / "NVlabs__GTRS/traj_final/8192.npy").counts
    assert (vocabulary["motions"], vocabulary["steps"], vocabulary["columns"]) == (8192, 40, 3)
    (anchors,) = REAL.glob("vita-epfl__RAP/**/*.npy")
    assert [inspect_motions(anchors).counts[key] for key in ("motions", "steps", "columns")] == [20, 8, 2]
    found = [inspect_scene(path) for path in sorted(REAL.glob("motional__nuplan-devkit/**/*.json"))]
    assert len(found) == 62 and sum(any(key.startswith("expected") for key in one.counts) for one in found) == 32
