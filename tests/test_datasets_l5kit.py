"""L5Kit's zarr folders as Scenarios: hand-made ones, damaged ones, and the real scene where it is at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from l5kit_files import HEADING, SPEED, STEPS, arrays, at, write

from drive.core.errors import DataError
from drive.core.types import AgentType, Command
from drive.datasets.l5kit import L5KitReader, inspect, open_arrays, read_log
from drive.datasets.logged import LogDataset
from drive.datasets.zarr_files import Records

REAL = Path(__file__).resolve().parents[2] / "shared/data/real/woven-planet__l5kit/l5kit/l5kit/tests/artefacts/single_scene.zarr"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real L5Kit scene is not at hand")
EACH = len(range(15, STEPS - 50, 5))
NAN = float("nan")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("l5kit")
    write(root / "validate.zarr")
    return root


@pytest.fixture(scope="module")
def data(root):
    return LogDataset(L5KitReader(), root, "val")


def test_scenarios_every_half_second(data):
    assert len(data) == data.expected == 2 * EACH and data.faults == []
    scene = data[3]
    assert (scene.id, scene.source, scene.log_id, scene.split, scene.dt) == ("validate-00000-0030", "l5kit", "validate-00000", "val", 0.1)
    assert scene.time_s == pytest.approx(3.0) and scene.command is Command.LANEFOLLOW and scene.notes["map"] == "corridor"
    np.testing.assert_allclose(scene.logged_future(10).poses[:, 0], SPEED * 0.5 * np.arange(1, 11), atol=1e-6)
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED)
    origin = np.array(scene.notes["origin_world"])
    np.testing.assert_allclose(scene.ego.poses_world[scene.present], [*(np.array(at(SPEED * 3.0)) - origin), HEADING], atol=1e-6)
    assert scene.observation().images.shape == (1, 4, 112, 112, 3)


def test_agents_keep_place_size_and_class(data):
    scene = data[3]
    assert set(scene.agents.ids) == {"1", "2"}
    car, walker = (scene.agents.ids.index(name) for name in ("1", "2"))
    assert [scene.agents.types[i] for i in (car, walker)] == [AgentType.VEHICLE, AgentType.PEDESTRIAN]
    np.testing.assert_allclose(scene.agents.size[car], [4.5, 1.8, 1.5], atol=1e-6)
    origin = np.array(scene.notes["origin_world"])
    np.testing.assert_allclose(scene.agents.poses_world[car, scene.present, :2], np.array(at(20.0 + SPEED * 3.0)) - origin, atol=1e-6)
    np.testing.assert_allclose(np.hypot(*scene.agents.velocity_world[car, scene.present]), SPEED, atol=1e-6)
    np.testing.assert_allclose(scene.agents.velocity_world[walker], 0.0, atol=1e-6)


def test_lit_faces_stand_in_the_notes_and_no_lane_is_known(data):
    scene = data[3]
    assert scene.lights is None and scene.notes["active_light_faces"] == ("red",)
    late = next(s for s in data if s.notes["log_step"] == 45)
    assert late.notes["active_light_faces"] == ("red",)
    log = data.logs[0].log
    assert log.step_notes["active_light_faces"][60] == ("red",)  # the green face is listed as inactive


def test_splits_are_names_of_files_else_of_folders(tmp_path):
    for name in ("train_full.zarr", "sample.zarr"):
        write(tmp_path / name)
    write(tmp_path / "val" / "other.zarr", arrays(1))
    found = [(entry.log_id, entry.split) for entry in L5KitReader().find(tmp_path)]
    assert found == [
        ("sample-00000", "test"), ("sample-00001", "test"), ("train_full-00000", "train"), ("train_full-00001", "train"), ("other-00000", "val"),
    ]  # fmt: skip
    assert L5KitReader().find(tmp_path / "sample.zarr")[0].log_id == "sample-00000"  # the file itself as the root


def test_a_slice_reads_its_chunks_alone(root, tmp_path):
    folder = write(tmp_path / "x.zarr", chunk=16)
    wanted = arrays()["frames"]
    for k in (0, 1, 12):
        (folder / "frames" / str(k)).unlink()
    frames = Records(folder / "frames", ("timestamp",))
    np.testing.assert_array_equal(frames.rows(35, 90)["timestamp"], wanted["timestamp"][35:90])
    assert len(frames.rows(40, 40)) == 0
    with pytest.raises(DataError, match=r"frames/1: the chunk of the records from 16 on"):
        frames.rows(31, 40)
    with pytest.raises(DataError, match="records 0 to 199"):
        frames.rows(150, 201)


def test_blosc_chunks_are_read_and_torn_ones_told(tmp_path):
    blosc = pytest.importorskip("numcodecs.blosc", reason="numcodecs is not installed")
    content = arrays()
    for cname in ("lz4", "zstd"):
        folder = write(tmp_path / f"{cname}.zarr", content, compressor=blosc.Blosc(cname, 5, 1))
        for name, records in content.items():
            assert Records(folder / name, ()).rows(0, len(records)).tobytes() == records.tobytes()
    for damage in (lambda b: b[:-7], lambda b: b[:10], lambda b: b"", lambda b: b[:4] + b"\xff\xff\xff\x7f" + b[8:], lambda b: b[:16] + b"\0" * (len(b) - 16)):
        path = write(tmp_path / "torn.zarr", content, compressor=blosc.Blosc("lz4", 5, 1)) / "frames" / "1"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match="frames/1"):
            Records(path.parent, ()).rows(64, 128)


def _edit(folder, array, change):
    path = folder / array / ".zarray"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


META = {
    "another compressor": (lambda m: m.update(compressor={"id": "pickle"}), ["compressed by 'pickle'"]),
    "a filter": (lambda m: m.update(filters=[{"id": "pickle"}]), ["without filters"]),
    "zarr v3": (lambda m: m.update(zarr_format=3), ["zarr v2"]),
    "objects": (lambda m: m["dtype"][0].__setitem__(1, "|O"), ["kinds", "O"]),
    "a dtype that is no list": (lambda m: m.update(dtype=5), ["dtype"]),
    "a dtype of nonsense": (lambda m: m["dtype"][0].__setitem__(1, "wrong"), ["dtype"]),
    "two dimensions": (lambda m: m.update(shape=[4, 4]), ["one dimension"]),
    "no chunks": (lambda m: m.pop("chunks"), ["one dimension"]),
    "a chunk of 100 GB": (lambda m: m.update(chunks=[10**9]), ["256 MiB"]),
    "a field short": (lambda m: m["dtype"].pop(0), ["lacks the fields timestamp"]),
}


@pytest.mark.parametrize("case", META.values(), ids=META)
def test_arrays_that_are_not_read_are_told_by_file(tmp_path, case):
    change, words = case
    write(tmp_path / "valid.zarr")
    _edit(write(tmp_path / "valid_2.zarr"), "frames", change)
    data = LogDataset(L5KitReader(), tmp_path, "val")  # the other file is still read
    assert len(data) == 2 * EACH and data.expected == 3 * EACH
    (fault,) = data.faults
    assert "valid_2.zarr/frames/.zarray" in fault and all(word in fault for word in words), fault


def test_a_missing_array_is_told(tmp_path):
    (write(tmp_path / "x.zarr") / "agents" / ".zarray").unlink()
    with pytest.raises(DataError, match=r"agents/\.zarray"):
        inspect(tmp_path / "x.zarr")


def _set(field, index, value):
    def change(records):
        records[field][index] = value

    return change


FAULTS = {
    "NaN in an ego pose": ("frames", _set("ego_translation", 130, NAN), ["frames", "record 130", "NaN"]),
    "NaN in a rotation": ("frames", _set("ego_rotation", 131, NAN), ["frames", "record 131"]),
    "a lost frame": ("frames", _set("timestamp", slice(150, 200), 10**18 + 10**12 + 10**10), ["frames", "not 0.1 s apart"]),
    "agents beyond the end": ("frames", _set("agent_index_interval", 199, (398, 999)), ["agents", "998 of 400"]),
    "agents left out": ("frames", _set("agent_index_interval", 150, (301, 302)), ["agents", "overlap or leave records out"]),
    "NaN in a box": ("agents", _set("centroid", 300, NAN), ["agents", "centroid of record 300"]),
    "NaN in a label": ("agents", _set("label_probabilities", 301, NAN), ["agents", "label_probabilities of record 301"]),
    "a box without size": ("agents", _set("extent", 302, 0.0), ["agents", "record 302", "size"]),
    "a track twice in a frame": ("agents", _set("track_id", 302, 2), ["agents", "two boxes in one frame"]),
    "a scene of no frames": ("scenes", _set("frame_index_interval", 1, (100, 100)), ["scene 1 has 0 frames"]),
    "a scene beyond the end": ("scenes", _set("frame_index_interval", 1, (100, 300)), ["frames", "scene 1", "299 of 200"]),
}


@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS)
def test_a_scene_at_fault_is_left_out_told_and_counted(tmp_path, case):
    array, change, words = case
    content = arrays()
    change(content[array])
    folder = write(tmp_path / "valid.zarr", content)
    data = LogDataset(L5KitReader(), tmp_path, "val")
    assert len(data) == EACH and data.expected == 2 * EACH and {s.log_id for s in data} == {"valid-00000"}
    (fault,) = data.faults
    assert "valid.zarr" in fault and all(word in fault for word in words), fault
    assert inspect(folder).faults == (fault,)


def test_a_torn_chunk_takes_its_scene_alone(tmp_path):
    path = write(tmp_path / "valid.zarr") / "frames" / "3"
    path.write_bytes(path.read_bytes()[:500])
    data = LogDataset(L5KitReader(), tmp_path, "val")
    assert {s.log_id for s in data} == {"valid-00000"} and "frames/3 is torn" in data.faults[0]


def test_the_future_changes_no_byte_of_the_observation(root, tmp_path, data):
    content = arrays()
    frames, agents = content["frames"], content["agents"]
    later = slice(31, STEPS)  # of the first scene, whose present 30 is looked at
    frames["ego_translation"][later, 0] += 3.0
    boxes = agents[int(frames["agent_index_interval"][31, 0]) : 2 * STEPS]
    boxes["centroid"] += 2.0
    boxes["extent"] *= 2.0
    boxes["label_probabilities"] = np.eye(17)[14]
    write(tmp_path / "validate.zarr", content)
    plain, other = data[3].observation(), LogDataset(L5KitReader(), tmp_path, "val")[3].observation()
    np.testing.assert_array_equal(plain.images, other.images)
    np.testing.assert_array_equal(plain.ego_history, other.ego_history)
    assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)


def test_the_fingerprint_is_of_what_is_read(root, tmp_path):
    folder = write(tmp_path / "validate.zarr")
    first = LogDataset(L5KitReader(), tmp_path, "val").fingerprint
    assert first == LogDataset(L5KitReader(), root, "val").fingerprint
    content = arrays()
    content["agents"]["yaw"][5] += 0.1
    write(folder, content)
    assert LogDataset(L5KitReader(), tmp_path, "val").fingerprint != first


@real
def test_the_real_scene_holds_what_is_known_of_it():
    pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    found = inspect(REAL)
    assert [found.counts[k] for k in ("scenes", "frames", "agent boxes", "traffic-light faces")] == [1, 248, 20802, 3216] and not found.faults
    assert found.counts["driven (m)"] == pytest.approx(268.0, abs=0.5)
    log = read_log(REAL, open_arrays(REAL), 0, "test")
    assert len(log.agents.step) == 20802 and log.steps == 248
    data = LogDataset(L5KitReader(), REAL.parent, "test")
    assert data.faults == [] and len(data) == data.expected == len(range(15, 248 - 50, 5))
