"""Damage of one format's own kind: a table or column short, NaN of the ego and of an agent; and the cells of the matrix that do not exist."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av2_forecasting_files
import l5kit_files
import numpy as np
import nuplan_files
import scenarionet_logs
import waymo_files

from drive.datasets.unpickle import load_plain_pickle

NAN = float("nan")


@dataclass(frozen=True)
class Case:
    """Damage done to a set below a folder, and what the line about it must hold."""

    damage: Callable[[Path], Any]
    words: tuple[str, ...] = ()
    partly: bool = False  # whether other records of the damaged file are still read
    shared: bool = False  # whether the file is that of all logs


def _table(name: str, change: Callable[[list[dict]], Any]) -> Callable[[Path], Any]:
    """Change the records of a nuScenes table."""

    def damage(root: Path) -> None:
        path = root / "v1.0-mini" / f"{name}.json"
        records = json.loads(path.read_text())
        change(records)
        path.write_text(json.dumps(records))

    return damage


def _of(records: list[dict], token: str) -> dict:
    return next(record for record in records if record["token"] == token)


def _sql(name: str, *statements: Any) -> Callable[[Path], Any]:
    return lambda root: nuplan_files.edit(root / name, *statements)


def _frames(change: Callable[[list[dict]], Any]) -> Callable[[Path], Any]:
    """Change the frames of a NAVSIM log."""

    def damage(root: Path) -> None:
        frames = load_plain_pickle(root / "logs/val/log-b.pkl")
        change(frames)
        nuplan_files.write_navsim(root / "logs/val/log-b.pkl", frames)

    return damage


def _second(make: Callable[[str], list], change: Callable[[list], list]) -> Callable[[Path], Any]:
    """A file of three Waymo records of which the second is changed."""

    def damage(root: Path) -> None:
        records = [make(name) for name in ("b-0", "b-1", "b-2")]
        waymo_files.write(root / "val_b.tfrecord", records[0], change(records[1]), records[2])

    return damage


def _lost_state(which: int) -> Callable[[list], list]:
    """A Scenario whose track number `which` is at NaN at step 20."""

    def change(record: list) -> list:
        at = [k for k, (number, _) in enumerate(record) if number == 2][which]
        states = [k for k, (number, _) in enumerate(record[at][1]) if number == 3]
        track = list(record[at][1])
        track[states[20]] = (3, waymo_files.put(track[states[20]][1], 2, NAN))
        return [*record[:at], (2, track), *record[at + 1 :]]

    return change


def _example(**changes: Callable[[np.ndarray], Any] | None) -> Callable[[Path], Any]:
    """The second tf.Example with features changed in place, or left out where the change is None."""

    def damage(root: Path) -> None:
        records = []
        for name in ("b-0", "b-1", "b-2"):
            features = waymo_files.example_features(name)
            for part, change in changes.items() if name == "b-1" else ():
                key = f"state/past/{part}"
                if change is None:
                    del features[key]
                else:
                    change(features[key])
            records.append(waymo_files.example(features))
        waymo_files.write(root / "val_b.tfrecord", *records)

    return damage


def _frame(change: Callable[[list], list]) -> Callable[[Path], Any]:
    """A perception segment whose frame 30 is changed."""

    def damage(root: Path) -> None:
        frames = [waymo_files.frame(k, waymo_files.CAMERAS[:1], name="b") for k in range(70)]
        waymo_files.write(root / "val_b.tfrecord", *frames[:30], change(frames[30]), *frames[31:])

    return damage


def _nan_box(record: list) -> list:
    bad = waymo_files.label("car", 1, (NAN, 0, 1, 4.5, 1.8, 1.5, 0))
    at = next(k for k, (number, _) in enumerate(record) if number == 6)
    return [*record[:at], (6, bad), *record[at + 1 :]]


def _e2e(change: Callable[[list], list]) -> Callable[[Path], Any]:
    def damage(root: Path) -> None:
        records = [waymo_files.e2e(number, "b", cameras=waymo_files.CAMERAS[:1]) for number in (40, 45, 50)]
        waymo_files.write(root / "val_b.tfrecord", records[0], change(records[1]), records[2])

    return damage


def _nan_past(record: list) -> list:
    past = [(number, value.copy() if isinstance(value, np.ndarray) else value) for number, value in next(value for number, value in record if number == 6)]
    past[0][1][3] = NAN
    return waymo_files.put(record, 6, past)


def _feather(name: str, change: Callable[[list[dict]], Any]) -> Callable[[Path], Any]:
    def damage(root: Path) -> None:
        import pyarrow as pa
        from pyarrow import feather

        path = root / "val/log-b" / name
        rows = feather.read_table(path).to_pylist()
        change(rows)
        feather.write_feather(pa.Table.from_pylist(rows), path)

    return damage


def _scenario(change: Callable[[list[dict]], Any], checked: bool = False) -> Callable[[Path], Any]:
    """The rows of an Argoverse forecasting scenario."""

    def damage(root: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        rows = [{**row, "scenario_id": "b"} for row in av2_forecasting_files.rows()]
        change(rows)
        parquet.write_table(pa.Table.from_pylist(rows), root / "val/b/scenario_b.parquet", write_page_checksum=checked)

    return damage


def _pickle(change: Callable[[dict], Any]) -> Callable[[Path], Any]:
    def damage(root: Path) -> None:
        record = scenarionet_logs.record("town-b")
        change(record)
        scenarionet_logs.write(root / "val/b.pkl", record)

    return damage


def _zarr(array: str, field: str, index: int, compressed: bool) -> Callable[[Path], Any]:
    def damage(root: Path) -> None:
        content = l5kit_files.arrays()
        content[array][field][index] = NAN
        codec = None
        if compressed:
            from numcodecs.blosc import Blosc

            codec = Blosc("lz4", 5, 1)
        l5kit_files.write(root / "valid_b.zarr", content, compressor=codec)

    return damage


def _without(field: str) -> Callable[[list[dict]], Any]:
    return lambda records: [record.pop(field) for record in records]


def _put(at: int, field: str, value: Any = NAN) -> Callable[[list[dict]], Any]:
    return lambda rows: rows[at].update({field: value})


def _nan_walker(rows: list[dict]) -> None:
    next(row for row in rows if row["track_id"] == "8" and row["timestep"] == 20)["position_x"] = NAN


def _blank(record: list, *numbers: int) -> list:
    return [item for item in record if item[0] not in numbers]


_SCENARIO, _TOKEN = waymo_files.scenario, nuplan_files.token
CASES: Mapping[str, Mapping[str, Case]] = {
    "table or column": {
        "nuscenes": Case(_table("scene", _without("nbr_samples")), ("scene.json", "record 0 lacks nbr_samples"), shared=True),
        "nuplan": Case(_sql("logs/val/log-b.db", "DROP TABLE lidar_box"), ("log-b.db", "lacks the table lidar_box")),
        "navsim": Case(_frames(_without("driving_command")), ("log-b.pkl", "frame 0 lacks driving_command")),
        "waymo_motion": Case(_second(_SCENARIO, lambda r: _blank(r, 2)), ("val_b.tfrecord: record 1 at byte", "lacks the track"), partly=True),
        "waymo_example": Case(_example(x=None), ("val_b.tfrecord: record 1 at byte", "state/past/x"), partly=True),
        "waymo_perception": Case(_frame(lambda r: _blank(r, 3)), ("val_b.tfrecord: record 30 at byte",), partly=True),
        "waymo_e2e": Case(_e2e(lambda r: _blank(r, 6)), ("val_b.tfrecord: record 1 at byte", "past_states"), partly=True),
        "av2": Case(_feather("annotations.feather", _without("length_m")), ("annotations.feather", "length_m")),
        "av2_forecasting": Case(_scenario(_without("heading")), ("scenario_b.parquet", "lacks the columns heading")),
        "av2_forecasting_checked": Case(_scenario(_without("heading"), True), ("scenario_b.parquet", "lacks the columns heading")),
        "scenarionet": Case(_pickle(lambda r: r.pop("tracks")), ("b.pkl", "lacks tracks")),
        "l5kit": Case(lambda root: shutil.rmtree(root / "valid_b.zarr/agents"), ("valid_b.zarr/agents/.zarray",), partly=True),
        "l5kit_blosc": Case(lambda root: shutil.rmtree(root / "valid_b.zarr/agents"), ("valid_b.zarr/agents/.zarray",), partly=True),
    },
    "NaN of the ego": {
        "nuscenes": Case(
            _table("ego_pose", lambda records: _of(records, "e-scene-0916-5")["translation"].__setitem__(0, NAN)), ("ego_pose.json", "record e-scene-0916-5", "NaN")
        ),
        "nuplan": Case(_sql("logs/val/log-b.db", ("UPDATE ego_pose SET x = ? WHERE token = ?", (NAN, _TOKEN("ego", 22)))), ("log-b.db", "x of the ego pose of step 11")),
        "navsim": Case(_frames(_put(7, "ego2global_translation", np.array([NAN, 0.0, 0.0]))), ("log-b.pkl", "ego2global_translation of frame 7")),
        "waymo_motion": Case(_second(_SCENARIO, _lost_state(-1)), ("val_b.tfrecord: record 1 at byte", "no finite pose at step 20"), partly=True),
        "waymo_example": Case(_example(x=lambda x: x.__setitem__((1, 3), NAN)), ("val_b.tfrecord: record 1 at byte", "no finite pose at step 3"), partly=True),
        "waymo_perception": Case(
            _frame(lambda r: waymo_files.put(r, 3, [(1, NAN)] * 16)), ("val_b.tfrecord: record 30 at byte", "a transform has NaN"), partly=True
        ),
        "waymo_e2e": Case(_e2e(_nan_past), ("val_b.tfrecord: record 1 at byte", "past positions have NaN at step 3"), partly=True),
        "av2": Case(_feather("city_SE3_egovehicle.feather", _put(400, "tx_m")), ("city_SE3_egovehicle.feather", "tx_m of row 400")),
        "av2_forecasting": Case(_scenario(_put(20, "position_x")), ("scenario_b.parquet", "position_x of row 20")),
        "av2_forecasting_checked": Case(_scenario(_put(20, "position_x"), True), ("scenario_b.parquet", "position_x of row 20")),
        "scenarionet": Case(_pickle(lambda r: r["tracks"]["ego"]["state"]["position"].__setitem__((20, 0), NAN)), ("b.pkl", "no finite pose at step 20")),
        "l5kit": Case(_zarr("frames", "ego_translation", 130, False), ("valid_b.zarr/frames", "record 130"), partly=True),
        "l5kit_blosc": Case(_zarr("frames", "ego_translation", 130, True), ("valid_b.zarr/frames", "record 130"), partly=True),
    },
    "NaN of an agent": {
        "nuscenes": Case(
            _table("sample_annotation", lambda records: _of(records, "a-car-scene-0916-5")["translation"].__setitem__(0, NAN)),
            ("sample_annotation.json", "record a-car-scene-0916-5"),
        ),
        "nuplan": Case(_sql("logs/val/log-b.db", "UPDATE lidar_box SET y = NULL WHERE rowid = 7"), ("log-b.db", "y of lidar_box 6")),
        "navsim": Case(_frames(lambda frames: frames[7]["anns"]["gt_boxes"].__setitem__((0, 0), NAN)), ("log-b.pkl", "box 0 of frame 7")),
        "waymo_motion": Case(_second(_SCENARIO, _lost_state(0))),
        "waymo_example": Case(_example(x=lambda x: x.__setitem__((0, 3), NAN))),
        "waymo_perception": Case(_frame(_nan_box)),
        "av2": Case(_feather("annotations.feather", _put(150, "tx_m")), ("annotations.feather", "tx_m of row 150")),
        "av2_forecasting": Case(_scenario(_nan_walker), ("scenario_b.parquet", "position_x of row")),
        "av2_forecasting_checked": Case(_scenario(_nan_walker, True), ("scenario_b.parquet", "position_x of row")),
        "scenarionet": Case(_pickle(lambda r: r["tracks"]["walker"]["state"]["position"].__setitem__((20, 0), NAN))),
        "l5kit": Case(_zarr("agents", "centroid", 300, False), ("valid_b.zarr/agents", "centroid of record 300"), partly=True),
        "l5kit_blosc": Case(_zarr("agents", "centroid", 300, True), ("valid_b.zarr/agents", "centroid of record 300"), partly=True),
    },
}
# cells that cost no log: a broken state is left out, and the log's notes count it
NOTED: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], bool]] = {
    ("waymo_motion", "NaN of an agent"): lambda notes: notes["broken_states"] == 1,
    ("waymo_example", "NaN of an agent"): lambda notes: notes["broken_states"] == 1,
    ("waymo_perception", "NaN of an agent"): lambda notes: notes["broken_states"] == 1,
    ("scenarionet", "NaN of an agent"): lambda notes: notes["dropped_tracks"] == ["walker"],
}
_ALONE = "the log is this file: nothing names one that is gone, but a list in dataset.splits or a scene filter"
_DESIGN = "read without it, as many have it not: motion from the poses, a corridor for a road; the fingerprint changes"
_LINE = "the byte is the end of a line: nothing is lost"
_NO_CAMERA = "the source records no camera images"
_CACHED = "what has NaN is refused before it is written, and a changed file is not named after its content (test_what_no_drive_can_hold_is_no_log)"
CANNOT: Mapping[tuple[str, ...], str] = {
    ("nuplan", "gone", "log-b.db"): _ALONE,
    ("navsim", "gone", "log-b.pkl"): _ALONE,
    ("scenarionet", "gone", "b.pkl"): _ALONE,
    ("av2_forecasting", "gone", "scenario_b.parquet"): _ALONE,
    ("av2_forecasting_checked", "gone", "scenario_b.parquet"): _ALONE,
    ("nuscenes", "gone", "scene-0916_pose.json"): _DESIGN,
    ("nuscenes", "gone", "singapore-onenorth.json"): _DESIGN,
    ("recordings", "a byte short", "index.jsonl"): _LINE,
    ("cache", "a byte short", "index.jsonl"): _LINE,
    ("waymo_motion", "image"): _NO_CAMERA,
    ("waymo_example", "image"): _NO_CAMERA,
    ("av2_forecasting", "image"): _NO_CAMERA,
    ("av2_forecasting_checked", "image"): _NO_CAMERA,
    ("scenarionet", "image"): _NO_CAMERA,
    ("l5kit", "image"): _NO_CAMERA,
    ("l5kit_blosc", "image"): _NO_CAMERA,
    ("cache", "image"): "its images are the source's, read as the source's are; those of recordings are its own",
    ("waymo_e2e", "NaN of an agent"): "the source records no agents",
    **{(name, kind): _CACHED for name in ("recordings", "cache") for kind in ("table or column", "NaN of the ego", "NaN of an agent")},
}
