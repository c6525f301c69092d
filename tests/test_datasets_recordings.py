# pyright: reportArgumentType=false
"""What is counted of info pickles, ScenarioNet pickles, plans, comma2k19 segments and tubs: hand-made files, damaged ones, real ones."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenarionet_logs import record

from drive.core.errors import DataError
from drive.datasets import mmdet3d_info, scenarionet_inspect, unpickle
from drive.datasets.recordings import inspect_comma2k19, inspect_plans, inspect_tub

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real"
real = pytest.mark.skipif(not ROOT.is_dir(), reason="the real recordings are not at hand")


def _pickle(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


def _jpeg(size=(16, 12)):
    out = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(out, "jpeg")
    return out.getvalue()


def _infos(folder):
    """Two frames of one camera; the second one's image and lidar points are missing."""
    (folder / "a.jpg").write_bytes(_jpeg())
    (folder / "a.bin").write_bytes(b"\0" * 4 * 5 * 7)

    def frame(name):
        lidar = {"lidar_path": f"{name}.bin", "num_pts_feats": 5}
        return {"instances": [{"bbox_label_3d": 0}, {"bbox_label_3d": 8}], "images": {"CAM_FRONT": {"img_path": f"{name}.jpg"}}, "lidar_points": lidar}

    return {"metainfo": {"categories": {"car": 0}, "version": "v1.0-mini"}, "data_list": [frame("a"), frame("b"), {"instances": []}]}


def test_mmdetection3d_infos(tmp_path):
    found = mmdet3d_info.inspect(_pickle(tmp_path / "infos.pkl", _infos(tmp_path)))
    wanted = {"frames": 2, "boxes": 4, "images": 2, "images beside it": 1, "lidar points beside it": 7, "image sizes": "16x12", "car": 2, "label 8": 2}
    assert found.counts == {"version": "v1.0-mini", **wanted}
    assert [part in " ".join(found.faults) for part in ("b.jpg", "b.bin", "record 2 of data_list")] == [True] * 3 and len(found.faults) == 3


def test_vis4d_key_frames(tmp_path):
    notes = {"boxes3d": np.zeros((2, 10), np.float32), "boxes3d_track_ids": np.array([4, 5])}
    frames = [{"scene_name": "s", "LIDAR_TOP": {"annotations": notes}, "CAM_FRONT": {}}, {"scene_name": "s", "LIDAR_TOP": {}}]
    found = mmdet3d_info.inspect(_pickle(tmp_path / "val.pkl", frames))
    assert found.counts == {"scenes": 1, "key frames": 1, "boxes": 2, "cameras": 1, "tracks": 2, "s": 1} and "key frame 1" in found.faults[0]
    for value in ({}, [], [1], {"data_list": 3}):
        with pytest.raises(DataError, match="no info pickle"):
            mmdet3d_info.inspect(_pickle(tmp_path / "x.pkl", value))


def test_scenarionet_pickles(tmp_path):
    log = record("town-1")
    found = scenarionet_inspect.inspect(_pickle(tmp_path / "log.pkl", log))
    steps = len(next(iter(log["tracks"].values()))["state"]["position"])
    assert [found.counts[key] for key in ("log", "source", "steps", "tracks", "map features")] == ["town-1", "nuscenes", steps, len(log["tracks"]), len(log["map_features"])]
    assert found.faults == () and "vehicle" in found.counts
    first, second = list(log["tracks"])[:2]
    log["tracks"][first]["state"]["position"][3] = np.nan
    del log["tracks"][second]["state"]["valid"]
    found = scenarionet_inspect.inspect(_pickle(tmp_path / "log.pkl", log))
    assert len(found.faults) == 2 and f"track {first} has NaN" in found.faults[0] and f"track {second} has no usable state" in found.faults[1]
    with pytest.raises(DataError, match="no ScenarioNet record"):
        scenarionet_inspect.inspect(_pickle(tmp_path / "dataset_mapping.pkl", {"a.pkl": ""}))


def test_plans(tmp_path):
    good = {"a": np.zeros((6, 2)), "b": np.zeros((6, 2)), "c": np.full((6, 2), np.nan), "d": "none"}
    found = inspect_plans(_pickle(tmp_path / "plans.pkl", good))
    assert found.counts == {"samples": 4, "of shape 6 x 2": 2} and len(found.faults) == 2 and "plan of c" in found.faults[0]
    for value in ({}, [], {"a": "text"}):
        with pytest.raises(DataError, match="no pickle of plans"):
            inspect_plans(_pickle(tmp_path / "x.pkl", value))


def _segment(folder, frames=41):
    def save(name, values):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.save(file, values, allow_pickle=False)

    times = 100.0 + 0.05 * np.arange(frames)
    save("global_pose/frame_times", times)
    save("global_pose/frame_positions", np.column_stack([10.0 * times, 0 * times, 0 * times]))
    save("global_pose/frame_velocities", np.tile([10.0, 0.0, 0.0], (frames, 1)))
    save("global_pose/frame_orientations", np.tile([1.0, 0.0, 0.0, 0.0], (frames, 1)))
    for name, columns in (("CAN/speed", 1), ("CAN/steering_angle", 1), ("IMU/accelerometer", 3), ("IMU/gyro", 3)):
        save(f"processed_log/{name}/t", 100.0 + 0.01 * np.arange(201))
        save(f"processed_log/{name}/value", np.zeros((201, columns)))
    return folder


def test_comma2k19_segments(tmp_path):
    folder = _segment(tmp_path / "a|b" / "40")
    counts = inspect_comma2k19(folder).counts
    assert (counts["frame poses"], counts["rate (Hz)"], counts["driven (m)"]) == (41, 20.0, 20.0)
    assert (counts["CAN speeds"], counts["IMU turn rates"], counts["IMU turn rates (Hz)"]) == (201, 201, 100.0)
    (folder / "processed_log/IMU/gyro/t").unlink()
    with (folder / "processed_log/CAN/speed/value").open("wb") as file:
        np.save(file, np.full((201, 1), np.nan), allow_pickle=False)
    found = inspect_comma2k19(folder)
    assert len(found.faults) == 2 and "speed/value: record 0 is NaN" in found.faults[0] and "gyro/t" in found.faults[1]
    for damage, words in ((lambda b: b[:200], "frame_times"), (lambda b: b"text", "frame_times")):
        path = _segment(tmp_path / "torn") / "global_pose" / "frame_times"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match=words):
            inspect_comma2k19(tmp_path / "torn")
    with (tmp_path / "torn" / "global_pose" / "frame_times").open("wb") as file:  # a pickle in numpy's wrapping
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(pickle.dumps([{"code": 1}]))
    with pytest.raises(DataError, match="frame_times cannot be read"):
        inspect_comma2k19(tmp_path / "torn")


def _tub(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return path


def _lines(*images):
    return "\n".join(json.dumps({"_index": k, "user/angle": 0.1, "user/throttle": 0.2, "cam/image_array": name}) for k, name in enumerate(images)).encode()


def test_tubs_are_counted_without_extracting_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "tub/manifest.json": b"[]", "tub/catalog_0.catalog": _lines("0.jpg", "1.jpg", "2.jpg") + b'\n{"torn', "tub/images/0.jpg": _jpeg(),
        "tub/images/1.jpg": _jpeg(), "tub/._catalog_0.catalog": b"\0", "../../outside.jpg": _jpeg((8, 8)), "tub/link.jpg": None, "tub/images/torn.jpg": b"\xff\xd8",
    }  # fmt: skip
    found = inspect_tub(_tub(tmp_path / "tub.tar.gz", files))
    assert found.counts == {"records": 3, "images": 3, "of 16x12": 2, "of 8x8": 1}
    assert len(found.faults) == 3 and all(any(part in fault for fault in found.faults) for part in ("line 4 of", "torn.jpg", "'2.jpg'"))
    assert [path.name for path in tmp_path.rglob("*")] == ["tub.tar.gz"] and not (tmp_path.parent / "outside.jpg").exists()
    whole = (tmp_path / "tub.tar.gz").read_bytes()
    for damage, words in ((whole[: len(whole) // 2], "cannot be read"), (b"text", "cannot be read"), (b"", "cannot be read")):
        (tmp_path / "tub.tar.gz").write_bytes(damage)
        with pytest.raises(DataError, match=words):
            inspect_tub(tmp_path / "tub.tar.gz")
    with pytest.raises(DataError, match=r"no manifest\.json"):
        inspect_tub(_tub(tmp_path / "tub.tar.gz", {"a.txt": b"x"}))
    monkeypatch.setattr("drive.datasets.recordings.MAX_FILE", 100)
    with pytest.raises(DataError, match="larger than"):
        inspect_tub(_tub(tmp_path / "tub.tar.gz", {"manifest.json": b"0" * 200}))


@real
def test_the_real_recordings_hold_what_is_known_of_them():
    plans = inspect_plans(ROOT / "USC-GVL__Agent-Driver/experiments/pred_trajs_dict.pkl")
    assert plans.counts == {"samples": 6019, "of shape 6 x 2": 6019} and plans.faults == ()
    (segment,) = (ROOT / "commaai__comma2k19/Example_1").glob("*/40")
    comma = inspect_comma2k19(segment)
    assert (comma.counts["frame poses"], comma.counts["rate (Hz)"], comma.faults) == (1200, 20.0, ()) and comma.counts["CAN speeds"] == 4974
    tub = inspect_tub(ROOT / "autorope__donkeycar/donkeycar/tests/tub/tub.tar.gz")
    assert tub.counts == {"records": 1000, "images": 1000, "of 160x120": 1000} and tub.faults == ()


@real
def test_the_real_scenarionet_logs_hold_what_is_known_of_them():
    logs = {}
    for path in sorted((ROOT / "metadriverse__scenarionet/scenarionet/tests/test_dataset").rglob("*.pkl")):
        if not path.name.startswith("dataset_"):
            found = scenarionet_inspect.inspect(path)
            logs[found.counts["log"]] = [found.counts[key] for key in ("steps", "tracks", "map features")]
            assert found.faults == ()
    assert len(logs) == 7 and logs["scene-0061"] == [191, 226, 586] and logs["scene-0757"] == [201, 30, 192]
    assert all(191 <= steps <= 201 and 30 <= tracks <= 226 and 190 <= features <= 590 for steps, tracks, features in logs.values())


@real
def test_the_real_vis4d_key_frames_hold_what_is_known_of_them():
    found = mmdet3d_info.inspect(ROOT / "SysCV__vis4d-test-data/nuscenes_test/mini_val.pkl")
    assert (found.counts["scenes"], found.counts["key frames"], found.counts["cameras"], found.faults) == (2, 81, 81 * 6, ())


@real
@pytest.mark.skipif(("_codecs", "encode") not in unpickle._ADMITTED, reason="the plain unpickler does not admit the bytes of such pickles")
def test_the_real_mmdetection3d_infos_hold_what_is_known_of_them():
    (path,) = (ROOT / "open-mmlab__mmdetection3d/demo/data/nuscenes").glob("*.pkl")
    found = mmdet3d_info.inspect(path)
    assert (found.counts["frames"], found.counts["boxes"], found.counts["images beside it"], found.counts["image sizes"]) == (1, 69, 6, "1600x900")
    assert found.counts["lidar points beside it"] == 34688 and found.faults == ()
