"""Second-stage scenes of navhard, written from a log by the published schema: the same world comes back, joined to the first stage; damage is told."""

import os
import pickle
import re
import sys

import numpy as np
import pytest
from av2_files import write
from navhard_files import (
    OrientedBox,
    StateSE2,
    TrackedObjectType,
    nuplan,
    seen_in,
    synthetic,
    tracked,
    write_split,
    write_synthetic,
)
from nuplan_files import av2_log, blocks_of, navsim_frames, write_image, write_maps, write_navsim

from drive.core.errors import DataError
from drive.core.types import LightState
from drive.datasets.navsim import NavsimDataset, NavsimReader, inspect
from drive.datasets.navsim_splits import read_scene_filter
from drive.datasets.navsim_synthetic import _kind, planned_lanes, read_synthetic
from drive.datasets.select import readable
from drive.datasets.unpickle import Record, load_plain_bytes, record_kinds

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
FIRST, SECOND = ("log-a-0007", "log-a-0006"), ("5421fa2f2e2b4cb13", "5634addd2134d1453")
EGO = tracked("ego", TrackedObjectType.EGO, (0.0, 0.0, 0.0), (5.0, 2.0, 1.6))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The log's frames, and root/: val/log-a.pkl, maps/, the filter mini and its mapping; second-stage scenes are not written yet."""
    root = tmp_path_factory.mktemp("navhard")
    write(root / "av2" / "val" / "log-a")
    log, road_map, route = av2_log(root / "av2" / "val" / "log-a")
    write_maps(root / "maps", road_map, log)
    frames = navsim_frames(log, blocks_of(road_map, route), lights=[(2, 0, 99, "green")])
    write_navsim(root / "val" / "log-a.pkl", frames)
    return root, frames


def second_stage(frames, token=SECOND[0], present=11, **changes):
    """A scene at frame `present` of the log, whose boxes after it are those of the log."""
    later = [[*seen_in(frame), EGO] for frame in frames[present + 1 :]]
    return synthetic(frames[present - 3 : present + 1], token, later=later, **{"lights": [[(2, "RED")]] * len(later), **changes})


def navhard(made, tmp_path, *scenes, reader=None):
    """The dataset of a copy of the logs with `scenes` beside them."""
    root, frames = made
    for scene in scenes:
        write_synthetic(tmp_path / "val" / "synthetic_scene_pickles", scene)
    write_navsim(tmp_path / "val" / "log-a.pkl", frames)
    path = write_split(tmp_path / "split", "mini", ["log-a"], FIRST, [(*FIRST, [SECOND])])
    return NavsimDataset(reader(read_scene_filter(path)) if reader else NavsimReader(root / "maps", scenes=read_scene_filter(path)), tmp_path / "val", "val")


def test_a_scene_holds_the_world_that_it_was_made_from(made, tmp_path):
    _, frames = made
    data = navhard(made, tmp_path, second_stage(frames, left=0.5), second_stage(frames, SECOND[1], 10))
    assert len(data) == data.expected == 4 and data.faults == [] and "nuplan" not in sys.modules
    assert set(data.ids) == {"log-a-0006", "log-a-0007", f"{SECOND[0]}-0003", f"{SECOND[1]}-0003"}
    scenes = {scene.notes["token"]: scene for scene in data}
    mine, before, first = scenes[SECOND[0]], scenes[SECOND[1]], scenes[FIRST[0]]
    assert (mine.notes["stage"], first.notes["stage"]) == (2, 1) and mine.notes["two_stage_split"].endswith("split/mini.yaml")
    assert mine.log_id == first.log_id == "log-a" and mine.notes["original_token"] == frames[11]["token"]
    assert mine.time_s - before.time_s == pytest.approx(0.5, abs=1e-6) and mine.notes["prolonged_steps"] == 0
    assert mine.road_map is first.road_map and mine.notes["origin_world"] == first.notes["origin_world"]  # one map for all scenes of a drive
    whole = NavsimDataset(NavsimReader(made[0] / "maps"), made[0] / "val", "val")
    logged = whole.logs[0].log
    side = np.array([-np.sin(logged.ego.poses_world[11, 2]), np.cos(logged.ego.poses_world[11, 2])])
    np.testing.assert_allclose(mine.ego.poses_world[:, :2], logged.ego.poses_world[8:12, :2] + 0.5 * side, atol=1e-6)
    np.testing.assert_allclose(mine.ego.velocity_ego, logged.ego.velocity_ego[8:12], atol=1e-5)
    assert len(mine.ego.poses_world) == 4 and mine.present == 3 and mine.teacher is None and mine.reference_world is None
    assert mine.agents.ids == ("car", "cone") and mine.agents.valid.shape == (2, 12) and mine.agents.valid.all()
    tracks = logged.agents.steps(8, 20)
    np.testing.assert_allclose(mine.agents.poses_world, tracks.poses_world, atol=1e-4)
    np.testing.assert_allclose(mine.agents.velocity_world, tracks.velocity_world, atol=1e-4)
    np.testing.assert_allclose(mine.agents.size, tracks.size, atol=1e-5)
    assert mine.command is logged.commands[11]
    assert mine.route_lane_ids == ("1", "2") and len(mine.centerline_world) > 150
    assert mine.lights is not None and (mine.lights.states[0] == [LightState.GREEN] * 4 + [LightState.RED] * 8).all()
    with pytest.raises(DataError, match="ends before"):
        mine.logged_future(8)


def test_scenes_without_anything_later_or_that_no_split_names(made, tmp_path):
    _, frames = made
    bare = synthetic(frames[8:12], SECOND[0])
    other = synthetic(frames[8:12], "somebody-elses")
    data = navhard(made, tmp_path, bare, other)
    assert len(data) == 3 and data.expected == 4
    scene = next(scene for scene in data if scene.notes["stage"] == 2)
    assert scene.agents.valid.shape[1] == 4 and scene.notes["later_steps"] == 0
    (fault,) = data.faults
    assert "1 of the 4 scenes of mini are missing, 1 of them second-stage scenes" in fault and SECOND[1] in fault


def test_without_the_mapping_they_are_missing_and_the_way_out_is_told(made, tmp_path):
    _, frames = made
    data = navhard(made, tmp_path, second_stage(frames))
    (tmp_path / "split" / "mini.yaml").unlink()
    scenes = read_scene_filter(tmp_path / "split" / "scene_filter" / "mini.yaml")
    assert scenes.mapping is None
    again = NavsimDataset(NavsimReader(made[0] / "maps", scenes=scenes), tmp_path / "val", "val")
    assert len(again) == 2 and again.expected == 4 and "2 of them second-stage scenes: they are read where mini.yaml" in again.faults[0]
    assert data.fingerprint != again.fingerprint
    plain = NavsimDataset(NavsimReader(made[0] / "maps"), tmp_path / "val", "val")
    assert {scene.log_id for scene in plain} == {"log-a"} and plain.faults == []  # no filter: they are no logs


def test_inspect_counts_and_a_cache_leaves_them_out(made, tmp_path):
    _, frames = made
    data = navhard(made, tmp_path, second_stage(frames))
    found = inspect(next((tmp_path / "val" / "synthetic_scene_pickles").iterdir()))
    assert found.kind == "NAVSIM second-stage scene" and found.counts["token"] == SECOND[0]
    assert [found.counts[key] for key in ("frames", "later steps", "boxes", "later boxes")] == [4, 8, 8, 16]
    reader = NavsimReader(made[0] / "maps", scenes=read_scene_filter(tmp_path / "split" / "scene_filter" / "mini.yaml"))
    assert len(data) == 3 and [entry.log_id for entry in reader.find(tmp_path / "val")] == ["log-a"]  # what a conversion finds


def test_the_fingerprint_knows_their_content(made, tmp_path):
    _, frames = made
    prints = [navhard(made, tmp_path / name, second_stage(frames, left=left)).fingerprint for name, left in (("a", 0.0), ("b", 0.0), ("c", 0.1))]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("folder", ["sensor_blobs", "synthetic_sensor_blobs"])
def test_their_images_lie_beside_them(made, tmp_path, folder):
    _, frames = made
    for k, frame in enumerate(frames):
        write_image(tmp_path / "val" / folder / frame["cams"]["CAM_F0"]["data_path"], 10 + k)
        write_image(tmp_path / "blobs" / frame["cams"]["CAM_F0"]["data_path"], 100 + k)

    def reader(scenes):
        return NavsimReader(made[0] / "maps", tmp_path / "blobs", ["CAM_F0"], scenes)

    data = navhard(made, tmp_path, second_stage(frames), reader=reader)
    shades = {scene.notes["stage"]: [round(float(image.mean())) for image in scene.observation().images[0]] for scene in data}
    np.testing.assert_allclose(shades[2], [18, 19, 20, 21], atol=1)
    np.testing.assert_allclose(shades[1], [104, 105, 106, 107], atol=1)


def test_a_planned_route_is_the_shortest_to_its_last_roadblock(made):
    road_map = NavsimDataset(NavsimReader(made[0] / "maps"), made[0] / "val", "val")[0].road_map
    blocks = [road_map.lanes[key].roadblock for key in ("1", "2", "4")]
    start = road_map.lanes["1"].centerline[3]
    assert planned_lanes(road_map, blocks, start) == ("1", "2", "4")
    assert planned_lanes(road_map, blocks[:2], start) == ("1", "2")
    assert planned_lanes(road_map, [], start) == planned_lanes(road_map, ["unknown"], start) == ()


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def frame_with(scene, **changes):
    scene["frames"][2].update(changes)
    return scene


def with_status(scene, **changes):
    scene["frames"][2]["ego_status"].update(changes)
    return scene


def with_box(scene, **changes):
    vars(scene["extended_detections_tracks"][1].tracked_objects.tracked_objects[0]).update(changes)
    return scene


def with_meta(scene, **changes):
    return {**scene, "scene_metadata": {**scene["scene_metadata"], **changes}}


INF = float("inf")
DAMAGE = {
    "no cameras": (lambda scene: frame_with(scene, camera_dict=None), "no second-stage scene"),
    "cameras of numbers": (lambda scene: frame_with(scene, camera_dict={3: {"data_path": "x"}}), "no second-stage scene"),
    "an endless time": (lambda scene: frame_with(scene, timestamp=INF), "no second-stage scene"),
    "a time beyond 64 bits": (lambda scene: frame_with(scene, timestamp=10**30), "no second-stage scene"),
    "an endless history": (lambda scene: with_meta(scene, num_history_frames=INF), "no second-stage scene"),
    "a box too long for a number": (lambda scene: with_box(scene, _box=OrientedBox(StateSE2(0.0, 0.0, 0.0), 10**400, 1.0, 1.0)), "seen 1 s after"),
    "code": (lambda scene: {**scene, "more": Evil()}, "refused"),
    "code in a track": (lambda scene: with_box(scene, _velocity=Evil()), "refused"),
    "no scene": (lambda scene: [1, 2], "no second-stage scene"),
    "no metadata": (lambda scene: {key: value for key, value in scene.items() if key != "scene_metadata"}, "scene_metadata"),
    "a key short": (lambda scene: frame_with(scene, ego_status={}), "in_global_frame"),
    "NaN in a pose": (lambda scene: with_status(scene, ego_pose=np.array([np.nan, 0.0, 0.0])), "ego2global_rotation|ego2global_translation of frame 2"),
    "an ego frame of its own": (lambda scene: with_status(scene, in_global_frame=False), "ego of frame 2"),
    "more history than frames": (lambda scene: {**scene, "scene_metadata": {**scene["scene_metadata"], "num_history_frames": 9}}, "names 9 of them"),
    "a track of no kind": (lambda scene: with_box(scene, _tracked_object_type=None), "seen 1 s after"),
    "a box of text": (lambda scene: with_box(scene, _box="large"), "seen 1 s after"),
    "time that stands": (lambda scene: frame_with(scene, timestamp=scene["frames"][1]["timestamp"]), "beside missing frames|not"),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_scene_at_fault_is_left_out_told_and_counted(made, tmp_path, monkeypatch, case):
    _, frames = made
    damage, told = case
    monkeypatch.chdir(tmp_path)
    good = second_stage(frames, SECOND[1], 10)
    write_synthetic(tmp_path / "val" / "synthetic_scene_pickles", good)
    broken = damage(second_stage(frames))
    path = tmp_path / "val" / "synthetic_scene_pickles" / "broken.pkl"
    with nuplan():
        path.write_bytes(pickle.dumps(broken, protocol=4))
    data = navhard(made, tmp_path)
    scenes, faults = readable(data, range(len(data)))
    assert len(scenes) == 3 and data.expected == 4 and sum(scene.notes["stage"] == 2 for scene in scenes) == 1
    assert any(re.search(told, fault) and "broken.pkl" in fault for fault in [*data.faults, *faults]), [*data.faults, *faults]
    assert not (tmp_path / "pwned").exists()


def test_a_file_that_is_cut_off_is_told(made, tmp_path):
    path = write_synthetic(tmp_path, second_stage(made[1]))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="not a complete pickle") as caught:
        read_synthetic(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match=r"absent\.pkl: cannot be read"):
        read_synthetic(tmp_path / "absent.pkl")


@pytest.mark.parametrize("number", [-1, -2, 8])
def test_a_type_that_nuplan_does_not_have_is_refused(number):
    kind = Record.__new__(Record)
    kind.args, box = (number,), Record.__new__(Record)
    box.fields = {"_tracked_object_type": kind}
    with pytest.raises(IndexError):
        _kind(box)


class Thing:
    """Pickled under an admitted name."""

    def __init__(self, *args):
        self.args, self.value, self.inner = args, None, None


def test_records_are_inert_and_only_those_that_are_named():
    kinds = record_kinds({__name__: ("Thing",)})
    made = Thing()
    vars(made).update(value=np.arange(3.0), inner=[Thing()])
    found = load_plain_bytes(pickle.dumps(made), "here", kinds)
    assert isinstance(found, Record) and found.kind == "Thing" and type(found.fields["value"]) is np.ndarray
    assert isinstance(found.fields["inner"][0], Record) and not hasattr(found, "value")
    with pytest.raises(DataError, match=r"refused.*Thing"):
        load_plain_bytes(pickle.dumps(made), "here")
    forged = pickle.dumps(made).replace(b"Thing", b"Thang")
    with pytest.raises(DataError, match="refused"):
        load_plain_bytes(forged, "here", kinds)
    name = __name__.encode()
    state = b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x05Thing\x93)\x81K\x05b."  # a state that is a number
    with pytest.raises(DataError, match="a state of int"):
        load_plain_bytes(state, "here", kinds)
    whole = b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c\x05Thing\x93}\x8c\x04kind\x8c\x04evilsb."  # a state for the class itself
    with pytest.raises(DataError):
        load_plain_bytes(whole, "here", kinds)
    assert kinds[__name__, "Thing"].kind == "Thing"
