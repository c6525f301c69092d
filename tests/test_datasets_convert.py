"""The Arrow cache: what comes out is what went in, nothing is done twice, and nothing is lost to a kill or a torn file."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import av2_files
import numpy as np
import nuscenes_files
import pytest
import scenarionet_logs
import waymo_files
from PIL import Image

from drive.core.errors import DataError
from drive.core.types import Camera, Command, Lights, LightState, Question, Scenario, Tracks
from drive.datasets import arrow_log
from drive.datasets.av2 import Av2Reader
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.convert import INDEX, LOGS, WAITING, CacheReader, _alone, convert, inspect
from drive.datasets.logged import LogDataset
from drive.datasets.logs import ImageRef, LogScenes, Outline
from drive.datasets.nuscenes import NuScenesReader
from drive.datasets.scenarionet import ScenarioNetReader, log_of
from drive.datasets.scenarionet_log import read_log
from drive.datasets.select import make_reader, readable, select
from drive.datasets.waymo_e2e import WaymoE2EReader
from drive.datasets.waymo_perception import WaymoPerceptionReader

pytest.importorskip("pyarrow")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    root = tmp_path_factory.mktemp("logs") / "scenarionet"
    for k in range(3):
        scenarionet_logs.write(root / "val" / f"{k}.pkl", scenarionet_logs.record(f"town-{k}"))
    return root


def same(a, b, where=""):
    """Equal to the bit, dataclass by dataclass."""
    if hasattr(a, "__dataclass_fields__"):
        for field in fields(a):
            if field.name not in ("image_source", "road_map", "notes"):
                same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    elif isinstance(a, tuple) and a and hasattr(a[0], "__dataclass_fields__"):
        assert len(a) == len(b), where
        for x, y in zip(a, b):
            same(x, y, where)
    else:
        assert a == b, where


def same_scenario(a: Scenario, b: Scenario):
    same(a, b)
    assert json.loads(json.dumps(a.notes)) == json.loads(json.dumps(b.notes))
    assert list(a.road_map.lanes) == list(b.road_map.lanes) and a.road_map.polygons.tokens == b.road_map.polygons.tokens
    for key in a.road_map.lanes:
        same(a.road_map.lanes[key], b.road_map.lanes[key], key)
    same(a.road_map.polygons, b.road_map.polygons)
    same(a.observation(), b.observation())


@pytest.mark.parametrize("workers", [1, 2])
def test_scenarios_of_a_cache_are_those_of_the_source_to_the_bit(logs, tmp_path, workers):
    done = convert(ScenarioNetReader(), logs, tmp_path, workers=workers, progress=False)
    assert (done.converted, done.kept, done.faults) == (3, 0, ()) and done.bytes == sum(p.stat().st_size for p in (tmp_path / LOGS).iterdir())
    source, cached = LogDataset(ScenarioNetReader(), logs, "val"), LogDataset(CacheReader(), tmp_path, "val")
    assert source.ids == cached.ids and len(source) == 33
    for k in (0, 12, 32):
        same_scenario(source[k], cached[k])


def test_argoverse_logs_too(tmp_path):
    av2_files.write(tmp_path / "source" / "val" / "log-a")
    convert(Av2Reader(), tmp_path / "source", tmp_path / "cache", progress=False)
    source, cached = LogDataset(Av2Reader(), tmp_path / "source", "val"), LogDataset(CacheReader(), tmp_path / "cache", "val")
    same_scenario(source[3], cached[3])


def test_arrays_lie_in_the_file_and_cannot_be_written(logs, tmp_path):
    convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    log = CacheReader().read(CacheReader().find(tmp_path)[0])
    assert not log.agents.poses_world.flags.owndata and not log.agents.poses_world.flags.writeable


def test_lights_cameras_language_commands_and_notes_survive(logs, tmp_path):
    picture = tmp_path / "images" / "blob.bin"
    picture.parent.mkdir()
    Image.fromarray(np.full((4, 6, 3), 77, np.uint8)).save(tmp_path / "one.png")
    png = (tmp_path / "one.png").read_bytes()
    picture.write_bytes(b"x" * 10 + png + b"y" * 5)
    plain = log_of(read_log(next(logs.rglob("0.pkl"))), "test")
    ref = ImageRef(picture, 10, len(png))
    log = replace(
        plain,
        lights=Lights(("A", "B"), np.full((2, plain.steps), LightState.RED)),
        cameras=(Camera.front(6, 4),),
        images=((ref, None) * (plain.steps // 2),),
        language={20: (Question("What is ahead?", "A car.", "perception"),)},
        commands=(Command.LEFT,) * plain.steps,
        presents=(20, 21),
        notes={"raters": [{"poses": np.zeros((2, 2)), "score": 7.0}]},
        step_notes={"token": [f"t{k}" for k in range(plain.steps)]},
    )
    content = arrow_log.pack(log, tmp_path / "images")
    path = tmp_path / f"{arrow_log.digest(content)}.arrow"
    path.write_bytes(content)
    (tmp_path / "images").rename(tmp_path / "moved")
    back = arrow_log.read(path, tmp_path / "moved")
    assert isinstance(plain.agents, Tracks)
    assert back.sound and not log.sound  # its bytes have been compared with its name
    same(replace(log, sound=True, agents=BoxTracks.of(plain.agents), files=(), make_map=None, images=(), step_notes={}, times=None), replace(back, files=(), make_map=None, images=(), step_notes={}, times=None, route=None))
    scenes = LogScenes(back)
    assert Outline.of(back).chosen(0.5, True) == ([20, 21], 0)
    scene = scenes.scenario(20)
    assert scene.lights is not None and (scene.lights.states == LightState.RED).all() and scene.lights.states.shape == (2, 66)
    assert scene.language[0].answer == "A car." and scene.command is Command.LEFT and scene.notes["token"] == "t20"
    assert scene.notes["raters"] == [{"poses": [[0.0, 0.0], [0.0, 0.0]], "score": 7.0}]
    assert (scene.image_source.image(0, 15) == 77).all() and scene.image_source.image(0, 15).shape == (4, 6, 3)
    with pytest.raises(DataError, match="no image of CAM_F0 at step 15"):
        scene.image_source.image(0, 10)


def test_a_second_run_converts_what_is_new_or_changed_alone(logs, tmp_path):
    root, out = tmp_path / "source", tmp_path / "cache"
    for k in range(2):
        scenarionet_logs.write(root / "val" / f"{k}.pkl", scenarionet_logs.record(f"town-{k}"))
    assert convert(ScenarioNetReader(), root, out, progress=False).converted == 2
    before = {path.name: path.stat().st_mtime_ns for path in (out / LOGS).iterdir()}
    again = convert(ScenarioNetReader(), root, out, progress=False)
    assert (again.converted, again.kept) == (0, 2)
    scenarionet_logs.write(root / "val" / "1.pkl", scenarionet_logs.record("town-1", poses=scenarionet_logs.drive_left(0.5 * np.arange(scenarionet_logs.STEPS))))
    scenarionet_logs.write(root / "val" / "2.pkl", scenarionet_logs.record("town-2"))
    third = convert(ScenarioNetReader(), root, out, progress=False)
    after = {path.name: path.stat().st_mtime_ns for path in (out / LOGS).iterdir()}
    assert (third.converted, third.kept) == (2, 1) and len(after) == 3  # the old town-1 is gone
    kept = set(before) & set(after)
    assert len(kept) == 1 and all(before[name] == after[name] for name in kept)
    assert third.bytes == sum(path.stat().st_size for path in (out / LOGS).iterdir())


def test_a_bad_log_is_told_and_the_rest_converted(logs, tmp_path):
    root, out = tmp_path / "source", tmp_path / "cache"
    good = scenarionet_logs.write(root / "val" / "good.pkl", scenarionet_logs.record("town-1"))
    (root / "val" / "torn.pkl").write_bytes(good.read_bytes()[:-300])
    done = convert(ScenarioNetReader(), root, out, workers=2, progress=False)
    assert done.converted == 1 and len(done.faults) == 1 and "torn.pkl" in done.faults[0]
    (root / "val" / "torn.pkl").write_bytes(good.read_bytes().replace(b"town-1", b"town-9"))
    assert convert(ScenarioNetReader(), root, out, progress=False).converted == 1
    with pytest.raises(DataError, match="another source, folder or settings"):
        convert(ScenarioNetReader(), logs, out, progress=False)


def test_damage_is_seen(logs, tmp_path):
    convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    victim = sorted((tmp_path / LOGS).iterdir())[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    good, faults = readable(data := LogDataset(CacheReader(), tmp_path, "val"), range(33))
    assert len(data) == data.expected == 33 and len(good) == 22 and len(faults) == 11
    assert "is damaged" in faults[0] and victim.name in faults[0]
    assert len(inspect(tmp_path).faults) == 1 and inspect(tmp_path).counts["logs"] == 2
    for bad in (b"", bytes(content[: len(content) // 2])):
        path = tmp_path / f"{arrow_log.digest(bad)}.arrow"
        path.write_bytes(bad)
        with pytest.raises(DataError, match="cannot be read as a converted log"):
            arrow_log.read(path, tmp_path)
    with pytest.raises(DataError, match=r"holds no index\.jsonl"):
        CacheReader().find(logs)


def test_a_torn_index_is_mended_and_a_wrong_one_told(logs, tmp_path):
    convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    lines = (tmp_path / INDEX).read_text().splitlines(keepends=True)
    (tmp_path / INDEX).write_text("".join(lines[:2]) + lines[2][:40])
    torn = LogDataset(CacheReader(), tmp_path, "val")
    assert len(torn) == 22 and torn.expected == 33 and "index.jsonl is cut off or damaged" in torn.faults[0]
    assert convert(ScenarioNetReader(), logs, tmp_path, progress=False).converted == 1
    assert len(LogDataset(CacheReader(), tmp_path, "val")) == 33
    (tmp_path / INDEX).write_text("nonsense\n" + "".join(lines))
    with pytest.raises(DataError, match="line 1 is no record"):
        CacheReader().find(tmp_path)


def waiting_and_lost(root, out, reader, order=(0, 1, 2)):
    """A cache of three logs, of which one waits for its conversion, and the line of another is gone; the names of their files."""
    convert(reader, root, out, progress=False)
    records = [json.loads(line) for line in (out / INDEX).read_text().splitlines()]
    gone, waits, kept = (records[k] for k in order)
    waiting = {**waits, "digest": "", "fault": f"{waits['path']}: {WAITING}"}
    (out / INDEX).write_text("".join(json.dumps(record) + "\n" for record in (waiting, kept)))
    return gone["digest"], waits["digest"], waiting


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])  # by hash either may come first
def test_a_file_that_no_log_waits_for_is_told_whatever_its_hash(tmp_path, order):
    root, out = tmp_path / "source", tmp_path / "cache"
    for name in ("log-a", "log-b", "log-c"):
        av2_files.write(root / "val" / name)
    gone, waits, _ = waiting_and_lost(root, out, Av2Reader(), order)
    lost = [entry.key for entry in CacheReader().find(out) if "cut off or damaged" in entry.key]
    assert len(lost) == 1 and gone in lost[0] and waits not in lost[0]
    data = LogDataset(CacheReader(), out, "val")
    assert data.expected == 3 * len(data) and len(data.faults) == 2


def test_where_only_reading_tells_the_logs_names_the_files_are_counted(logs, tmp_path):
    gone, waits, waiting = waiting_and_lost(logs, tmp_path, ScenarioNetReader())
    lines = (tmp_path / INDEX).read_text().splitlines()
    (tmp_path / INDEX).write_text(json.dumps({**waiting, "log_id": ""}) + "\n" + lines[1] + "\n")
    (told,) = [entry.key for entry in CacheReader().find(tmp_path) if "cut off or damaged" in entry.key]
    assert "up to 2 files in logs are of logs that it does not name, 1 of them may be of the stopped conversion" in told
    assert gone not in told and waits not in told
    assert LogDataset(CacheReader(), tmp_path, "val").expected == 33


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_torn_line_that_is_no_text_stops_no_conversion(logs, tmp_path, end):
    convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    lines = (tmp_path / INDEX).read_bytes().splitlines()
    (tmp_path / INDEX).write_bytes(end.join([*lines[:2], b'{"path": "\xc3']))
    done = convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    assert (done.converted, done.kept) == (1, 2) and len(LogDataset(CacheReader(), tmp_path, "val")) == 33


def converted(out):
    """How many logs the index names."""
    lines = (out / INDEX).read_text().split("\n")[:-1] if (out / INDEX).is_file() else []
    return sum(bool(json.loads(line)["digest"]) for line in lines)


def test_a_killed_conversion_goes_on(tmp_path):
    root, out = tmp_path / "source", tmp_path / "cache"
    for k in range(40):
        scenarionet_logs.write(root / "val" / f"{k:02}.pkl", scenarionet_logs.record(f"town-{k:02}"))
    code = (
        "from pathlib import Path\nfrom drive.datasets.convert import convert\nfrom drive.datasets.scenarionet import ScenarioNetReader\n"
        "if __name__ == '__main__':\n"
        f"    convert(ScenarioNetReader(), Path({str(root)!r}), Path({str(out)!r}), workers=1, progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and converted(out) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = converted(out)
    half = LogDataset(CacheReader(), out, "val")
    assert len(half) == 11 * had and half.expected == 40 * 11, "what is not converted yet counts as missing"
    assert "not converted yet" in half.faults[0]
    done = convert(ScenarioNetReader(), root, out, progress=False)
    assert had >= 3 and done.kept == had and done.converted == 40 - had
    assert not [name for name in os.listdir(out / LOGS) if name.endswith(".partial")]
    assert len(LogDataset(CacheReader(), out, "val")) == 40 * 11


def test_what_the_source_no_longer_holds_leaves_the_cache(tmp_path):
    root, out = tmp_path / "source", tmp_path / "cache"
    for k in range(3):
        scenarionet_logs.write(root / ("val" if k else "train") / f"{k}.pkl", scenarionet_logs.record(f"town-{k}"))
    convert(ScenarioNetReader(), root, out, progress=False)
    (root / "val" / "1.pkl").unlink()
    convert(ScenarioNetReader(), root, out, split="val", progress=False)
    assert {entry.log_id for entry in CacheReader().find(out)} == {"town-0", "town-2"} and len(list((out / LOGS).iterdir())) == 2
    with pytest.raises(DataError, match="no log of scenarionet of the split 'test'"):
        convert(ScenarioNetReader(), root, out, split="test", progress=False)


def test_logs_that_could_not_be_read_lower_the_coverage_of_the_cache(tmp_path):
    root, out = tmp_path / "source", tmp_path / "cache"
    good = scenarionet_logs.write(root / "val" / "good.pkl", scenarionet_logs.record("town-1"))
    (root / "val" / "torn.pkl").write_bytes(good.read_bytes()[:-300])
    convert(ScenarioNetReader(), root, out, progress=False)
    source, cached = LogDataset(ScenarioNetReader(), root, "val"), LogDataset(CacheReader(), out, "val")
    assert len(cached) == len(source) == 11 and cached.expected == source.expected == 22
    assert cached.faults == source.faults and "torn.pkl" in cached.faults[0] and len(inspect(out).faults) == 1
    (root / "val" / "torn.pkl").unlink()
    convert(ScenarioNetReader(), root, out, progress=False)
    assert LogDataset(CacheReader(), out, "val").expected == 11


def test_other_settings_are_refused_and_files_that_appear_are_noticed(tmp_path):
    root, out = tmp_path / "nuscenes", tmp_path / "cache"
    nuscenes_files.write(root, nuscenes_files.tables())
    reader = NuScenesReader(nuscenes_files.VERSION)
    assert convert(reader, root, out, progress=False, settings={"camera": ""}).converted == 2
    with pytest.raises(DataError, match=r"settings \{'camera': ''\}, not \{'camera': 'CAM_FRONT'\}"):
        convert(reader, root, out, progress=False, settings={"camera": "CAM_FRONT"})
    assert convert(reader, root, out, progress=False, settings={"camera": ""}).kept == 2
    nuscenes_files.write(root, nuscenes_files.tables(), can_bus=True)
    assert convert(reader, root, out, progress=False, settings={"camera": ""}).converted == 2


def test_images_of_several_sizes_come_back_filled_up(tmp_path):
    waymo_files.write(tmp_path / "source" / "val" / "a.tfrecord", *(waymo_files.frame(k) for k in range(waymo_files.STEPS)))
    reader = WaymoPerceptionReader(("FRONT", "SIDE_LEFT"))
    convert(reader, tmp_path / "source", tmp_path / "cache", progress=False)
    source = LogDataset(reader, tmp_path / "source", "val", short_futures=True)
    cached = LogDataset(CacheReader(), tmp_path / "cache", "val", short_futures=True)
    same_scenario(source[2], cached[2])
    assert source[2].observation().images.shape == (2, 4, 40, 64, 3)


def test_two_conversions_do_not_share_a_folder(logs, tmp_path):
    pytest.importorskip("fcntl")
    with _alone(tmp_path), pytest.raises(DataError, match="another conversion writes to"):
        convert(ScenarioNetReader(), logs, tmp_path, progress=False)
    assert convert(ScenarioNetReader(), logs, tmp_path, progress=False).converted == 3


def test_end_to_end_frames_keep_their_drive(tmp_path):
    waymo_files.write(tmp_path / "source" / "val.tfrecord", waymo_files.e2e(50), waymo_files.e2e(45), waymo_files.e2e(40))
    convert(WaymoE2EReader(), tmp_path / "source", tmp_path / "cache", progress=False)
    data = LogDataset(CacheReader(), tmp_path / "cache", "val")
    assert data.drives == {"drive-1"} and data[0].log_id == "drive-1"
    source = LogDataset(WaymoE2EReader(), tmp_path / "source", "val")
    same_scenario(source[2], data[2])
    waymo_files.write(tmp_path / "source" / "training.tfrecord", waymo_files.e2e(60))
    with pytest.raises(DataError, match="log drive-1 is in the splits"):
        LogDataset(WaymoE2EReader(), tmp_path / "source", "val")


def test_broken_records_within_a_log_are_told_by_the_cache_too(tmp_path):
    path = waymo_files.write(tmp_path / "source" / "val" / "a.tfrecord", *(waymo_files.frame(k) for k in range(waymo_files.STEPS)))
    waymo_files.damaged(path, path.stat().st_size - 40)  # the last record
    reader = WaymoPerceptionReader(("FRONT",))
    done = convert(reader, tmp_path / "source", tmp_path / "cache", progress=False, settings={"cameras": ("FRONT",)})
    source, cached = LogDataset(reader, tmp_path / "source", "val"), LogDataset(CacheReader(), tmp_path / "cache", "val")
    assert len(source.faults) == 1 and cached.faults == source.faults and list(done.partly) == source.faults and done.converted == 1
    assert list(inspect(tmp_path / "cache").faults) == source.faults
    assert convert(reader, tmp_path / "source", tmp_path / "cache", progress=False, settings={"cameras": ("FRONT",)}).kept == 1


def test_a_cut_shard_counts_the_same_in_the_cache(tmp_path):
    for name, steps in (("a", waymo_files.STEPS), ("b", waymo_files.STEPS - 10)):
        path = waymo_files.write(tmp_path / "source" / "val" / f"{name}.tfrecord", *(waymo_files.frame(k, name=name) for k in range(steps)))
    path.write_bytes(path.read_bytes()[:-40])
    reader = WaymoPerceptionReader(("FRONT",))
    convert(reader, tmp_path / "source", tmp_path / "cache", progress=False)
    source, cached = (LogDataset(*of, "val", short_futures=True) for of in ((reader, tmp_path / "source"), (CacheReader(), tmp_path / "cache")))
    whole = len(range(15, waymo_files.STEPS, 5))
    assert len(cached) == len(source) < 2 * whole == source.expected == cached.expected and CacheReader().read(CacheReader().find(tmp_path / "cache")[1]).cut


def test_a_subset_of_a_set_with_a_loss_is_not_charged_for_it():
    from drive.datasets.select import Selected, asked_for

    scenes = [None] * 1000
    assert [asked_for(n, Selected(scenes, "", 1001)) for n in (1, 50, 1000)] == [1, 50, 1001]  # type: ignore[arg-type]
    assert asked_for(50, Selected(scenes[:60], "", 100)) == 83  # type: ignore[arg-type]


@pytest.mark.parametrize("below", ["", "cache"])
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path, below):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="taken is a file: give a folder as out="):
        convert(ScenarioNetReader(), tmp_path, tmp_path / "taken" / below, progress=False)


def test_a_cache_of_nuscenes_gives_the_same_scenes(tmp_path):
    """Also those with less than 5 s of future, which the L2 protocols judge."""
    nuscenes_files.write(tmp_path / "source", nuscenes_files.tables())
    settings = {"version": nuscenes_files.VERSION, "camera": "", "drivelm": ""}
    convert(make_reader({"name": "nuscenes", **settings}), tmp_path / "source", tmp_path / "cache", progress=False)
    source = select({"name": "nuscenes", "root": tmp_path / "source", **settings}, "test").scenarios
    cache = {"name": "cache", "root": str(tmp_path / "cache"), "images": None, "stride_s": 0.5, "splits": None, "codebook_tolerance": 0.04}
    assert [s.id for s in select({**cache, "short_futures": None}, "test").scenarios] == [s.id for s in source]
    assert len(select({**cache, "short_futures": False}, "test").scenarios) < len(source)
