"""Large sets of every source, written as a stream: of the published schema, as large as real ones, their content repeated.

Each writer takes a folder and a size and returns how many boxes it wrote. What a reader does not look into (JPEGs, lidar) are random bytes.
"""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from drive.core.types import Command, EgoState, Tracks
from drive.datasets import tfrecord

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
AGENTS, SEEN = 60, 200  # of a long log: agents at a time, steps that each is seen for
BUSY = 250  # tracks of a Waymo scenario
LANES = 250  # of a large map, each with two lines and two edges


def _lives(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Track (B,) and step (B,) of the boxes of a long log, in order of step."""
    first = np.random.default_rng(0).integers(0, steps - SEEN + 1, max(steps * AGENTS // SEEN, AGENTS))
    track, step = np.repeat(np.arange(len(first)), SEEN), (first[:, None] + np.arange(SEEN)).ravel()
    order = np.argsort(step, kind="stable")
    return track[order], step[order]


def write_nuplan(root: Path, minutes: int) -> int:
    """One `.db` at 20 Hz."""
    from nuplan_files import CITY, NAMES, START, TABLES, token

    sweeps = 20 * 60 * minutes
    track, step = _lives(sweeps)
    path = root / "val" / "long.db"
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous=OFF")
        for name, columns in TABLES.items():
            db.execute(f"CREATE TABLE {name} ({columns})")

        def fill(table: str, rows: Iterable[tuple]) -> None:
            rows = iter(rows)
            one = next(rows)
            marks = ",".join("?" * len(one))
            db.execute(f"INSERT INTO {table} VALUES ({marks})", one)
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

        fill("log", [(b"l", "v", "d", 1, "x", CITY, CITY)])
        fill("category", ((token("category", i), name, "") for i, name in enumerate(NAMES.values())))
        pose = (0.0, 1.0, 0.0, 0.0, 0.0, 6.0, *(0.0,) * 8, 1, b"l")
        fill("ego_pose", ((token("ego", k), k, 585000 + 0.3 * k, 4477000.0, *pose) for k in range(sweeps)))
        fill("lidar_pc", ((token("pc", k), None, None, token("ego", k), b"l", token("scene", 0), "f", START + 50_000 * k) for k in range(sweeps)))
        fill("scene", [(token("scene", 0), b"l", "s", token("ego", sweeps - 1), "")])
        fill("track", ((token("track", t), token("category", 0), 2, 4, 1) for t in range(int(track.max()) + 1)))
        box = (4477000.0, 0.0, 2.0, 4.0, 1.5, 1.0, 0.0, 0.0, 0.0, 1.0)
        sweep_of, track_of = [token("pc", k) for k in range(sweeps)], [token("track", t) for t in range(int(track.max()) + 1)]
        lives = enumerate(zip(step.tolist(), track.tolist()))
        fill("lidar_box", ((b"b" + n.to_bytes(7, "big"), sweep_of[k], track_of[t], None, None, 585000 + 0.3 * k, *box) for n, (k, t) in lives))
    db.close()
    return len(step)


def write_navsim(root: Path, minutes: int) -> int:
    """One log pickle at 2 Hz with eight cameras, in which nothing is shared between frames, as nothing is in real ones."""
    from nuplan_files import CITY, START

    names, turn, boxes = ("CAM_F0", "CAM_L0", "CAM_L1", "CAM_L2", "CAM_R0", "CAM_R1", "CAM_R2", "CAM_B0"), np.eye(3), np.ones((AGENTS, 7))
    frames = []
    for k in range(2 * 60 * minutes):
        cams = {
            name: {
                "data_path": f"long/{name}/{k:016x}.jpg", "sensor2lidar_rotation": turn.copy(), "sensor2lidar_translation": np.zeros(3),
                "cam_intrinsic": turn.copy(), "distortion": np.zeros(5),
            }
            for name in names
        }  # fmt: skip
        tokens = [f"{(AGENTS * k) // (SEEN // 20) // AGENTS * AGENTS + a:016x}" for a in range(AGENTS)]
        anns = {
            "gt_boxes": boxes.copy(), "gt_names": np.array(["vehicle"] * AGENTS), "gt_velocity_3d": np.zeros((AGENTS, 3)),
            "instance_tokens": [f"{AGENTS * k + a:016x}" for a in range(AGENTS)], "track_tokens": tokens,
        }  # fmt: skip
        frames.append({
            "token": f"{k:016x}", "frame_idx": k, "timestamp": START + 500_000 * k, "log_name": "long", "log_token": "l", "scene_name": "s", "scene_token": "s",
            "map_location": CITY, "roadblock_ids": ["1"], "vehicle_name": "v", "can_bus": np.zeros(18), "lidar_path": "x.pcd", "lidar2ego_translation": np.zeros(3),
            "lidar2ego_rotation": [1.0, 0.0, 0.0, 0.0], "ego2global_translation": np.array([585000 + 3.0 * k, 4477000.0, 0.0]),
            "ego2global_rotation": np.array([1.0, 0.0, 0.0, 0.0]), "ego_dynamic_state": [6.0, 0.0, 0.0, 0.0], "traffic_lights": [],
            "driving_command": np.array([0, 1, 0, 0]), "cams": cams, "anns": anns,
        })  # fmt: skip
    path = root / "val" / "long.pkl"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        pickle.dump(frames, file, protocol=4)
    return len(frames) * AGENTS


def _tfrecord(path: Path, records: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(b"".join([length, struct.pack("<I", tfrecord.masked(length)), data, struct.pack("<I", tfrecord.masked(data))]))


def _named(data: bytes, count: int) -> Iterator[bytes]:
    """`count` copies of a record, their NAME-00000 numbered."""
    for k in range(count):
        yield data.replace(b"NAME-00000", b"NAME-%05d" % k)


def _large_map() -> list:
    """Parallel lanes of 60 points, with two lines and two edges each."""
    import waymo_files as w

    metres, out = np.arange(0.0, 30.0, 0.5), []
    for k in range(LANES):
        along, left, key = metres + 40.0 * (k // 50), 8.0 * (k % 50), 5 * k
        out.append(w.lane(key, w.at(along, left)))
        out += [[(1, key + 1 + side), (4, [(1, 1), *w.points(2, w.at(along, left + (1.8, -1.8)[side]))])] for side in range(2)]
        out += [[(1, key + 3 + side), (5, [(1, 1), *w.points(2, w.at(along, left + (3.0, -3.0)[side]))])] for side in range(2)]
    return out


def write_scenarios(root: Path, count: int) -> int:
    """A shard of `count` motion scenarios of BUSY tracks, and one whose map has thousands of features."""
    import waymo_files as w

    busy = [item for item in w.scenario("NAME-00000") if item[0] != 2]
    busy = w.put(busy, 6, 0)
    tracks = [w.track(100 + k, 1, np.arange(w.STEPS) * 0.1 * w.SPEED + w.REAR, 0.3 * k) for k in range(BUSY)]
    data = w.pack(sorted([*busy, *((2, track) for track in tracks)], key=lambda item: item[0]))
    large = w.pack([*(item for item in w.scenario("large") if item[0] != 8), *((8, feature) for feature in _large_map())])
    _tfrecord(root / "validation" / "validation.tfrecord-00000-of-00150", (part for source in ([large], _named(data, count)) for part in source))
    return count * BUSY * w.STEPS


def write_examples(root: Path, count: int) -> int:
    """A shard of `count` tf.Examples of 128 agents and 20,000 points of road."""
    import waymo_files as w

    found = w.example_features("NAME-00000", agents=4)
    out: dict = {}
    for key, value in found.items():
        rows = np.asarray(value)
        agents = key.startswith("state/") and rows.ndim and len(rows) == 4
        out[key] = np.concatenate([rows[[1]], np.repeat(rows[[0]], 127, axis=0)]) if agents else value
    out["state/is_sdc"], out["state/id"] = np.array([1] + [0] * 127), np.arange(128.0)
    old = len(out["roadgraph_samples/id"])
    metres = np.arange(100) * 0.5
    more = [np.column_stack([w.at(metres, 20.0 + 4.0 * k), np.zeros(100)]) for k in range((20_000 - old) // 100)]
    out["roadgraph_samples/xyz"] = np.concatenate([out["roadgraph_samples/xyz"], *more])
    ids = 1000 + np.repeat(np.arange(len(more)), 100)
    out["roadgraph_samples/id"] = np.concatenate([out["roadgraph_samples/id"], ids])
    out["roadgraph_samples/type"] = np.concatenate([out["roadgraph_samples/type"], np.full(len(ids), 15)])
    out["roadgraph_samples/valid"] = np.concatenate([out["roadgraph_samples/valid"], np.ones(len(ids), int)])
    _tfrecord(root / "validation" / "validation_tfexample.tfrecord-00000-of-00150", _named(w.pack(w.example(out)), count))
    return count * 128 * w.STEPS


def _with(message: list, numbers: dict[int, int], field: int) -> list:
    """The message, each of its messages `number` holding as many random bytes as `numbers` says in `field` more."""
    noise = np.random.default_rng(0).bytes(max(numbers.values()))
    return [(n, [*(item for item in v if item[0] != field), (field, noise[: numbers[n]])] if n in numbers else v) for n, v in message]


def write_perception(root: Path, frames: int) -> int:
    """A segment of 5 MB a frame: five JPEGs of 300 kB, five lidars of 700 kB, 120 boxes; the map in its first."""
    import waymo_files as w

    def records() -> Iterator[bytes]:
        for k in range(frames):
            message = [item for item in w.frame(k, mapped=k == 0) if item[0] != 6]
            boxes = [(6, w.label(f"agent-{a + 2 * AGENTS * (k // 50)}", 1, (2.0 * a, 8.0, 1.0, 4.5, 1.8, 1.5, 0.0))) for a in range(2 * AGENTS)]
            yield w.pack([*_with(message, {4: 300_000, 5: 700_000}, 2), *boxes])

    _tfrecord(root / "validation" / "segment-1_with_camera_labels.tfrecord", records())
    return frames * 2 * AGENTS


def write_e2e(root: Path, frames: int) -> int:
    """Two shards of end-to-end frames, eight JPEGs of 300 kB each, over which the frames of drives of 200 are spread."""
    import waymo_files as w

    def records(part: int) -> Iterator[bytes]:
        for k in range(part, frames, 2):
            message = w.e2e(k % 200, f"drive-{k // 200:05d}")
            yield w.pack([(1, _with(message[0][1], {4: 300_000}, 2)), *message[1:]])

    for part in range(2):
        _tfrecord(root / f"val.tfrecord-{part:05d}-of-00002", records(part))
    return 0


def write_av2(root: Path, seconds: int) -> int:
    """One sensor log; the real ones last 15 s."""
    import av2_files as a
    import pyarrow as pa
    from pyarrow import feather

    folder, steps = root / "val" / "long", 10 * seconds
    (folder / "map").mkdir(parents=True)
    (folder / "map" / "log_map_archive_long____PIT_city_1.json").write_text(json.dumps(a.archive()))
    track, step = _lives(steps)
    still = {key: np.full(len(step), value) for key, value in a.turned(0.0).items()}
    fine = np.arange(20 * steps)
    x, y = a.at(a.SPEED * 0.005 * fine)
    poses = {"timestamp_ns": a.START + 5_000_000 * fine, **{k: np.full(len(fine), v) for k, v in a.turned(a.HEADING).items()}, "tx_m": x, "ty_m": y, "tz_m": 0.0 * x}
    boxes = {
        "timestamp_ns": a.START + 100_000_000 * step, "track_uuid": pa.DictionaryArray.from_arrays(track.astype(np.int32), [f"{t:036x}" for t in range(int(track.max()) + 1)]).cast(pa.string()),
        "category": pa.array(["REGULAR_VEHICLE"] * len(step)), **dict.fromkeys(("length_m", "width_m", "height_m"), np.ones(len(step))), **still,
        "tx_m": 10.0 + track % 50, "ty_m": np.zeros(len(step)), "tz_m": np.zeros(len(step)),
    }  # fmt: skip
    feather.write_feather(pa.table(poses), folder / "city_SE3_egovehicle.feather")
    feather.write_feather(pa.table(boxes), folder / "annotations.feather")
    return len(step)


def write_forecasting(root: Path, count: int) -> int:
    """`count` scenarios of 60 tracks."""
    import av2_files
    import av2_forecasting_files as f
    import pyarrow as pa
    from pyarrow import parquet

    rows = [row for row in f.rows() if row["track_id"] in ("AV", "7")]
    every = [*rows, *({**row, "track_id": str(100 + k)} for k in range(AGENTS - 2) for row in rows[f.STEPS :])]
    table, archive = pa.Table.from_pylist(every), json.dumps(av2_files.archive())
    column = table.schema.get_field_index("scenario_id")
    for k in range(count):
        name = f"{k:036x}"
        folder = root / "val" / name
        folder.mkdir(parents=True)
        (folder / f"log_map_archive_{name}.json").write_text(archive)
        parquet.write_table(table.set_column(column, "scenario_id", pa.array([name] * len(table))), folder / f"scenario_{name}.parquet")
    return count * len(every)


def _scenarionet(path: Path, name: str, steps: int, agents: int) -> int:
    import scenarionet_logs as s

    poses = s.drive_left(np.minimum(s.SPEED * 0.1 * np.arange(steps), 120.0))
    record = s.record(name, poses=poses)
    for k in range(agents):
        record["tracks"][f"more-{k}"] = s.track("VEHICLE", poses + [0.0, 8.0 + k, 0.0], valid=np.arange(steps) // SEEN == k % max(steps // SEEN, 1))
    s.write(path, record)
    return agents * SEEN


def write_scenarionet(root: Path, count: int) -> int:
    """`count` pickles of 20 s and 100 agents."""
    return sum(_scenarionet(root / "val" / f"town-{k:04d}.pkl", f"town-{k:04d}", 200, 100) for k in range(count))


def write_scenarionet_long(root: Path, seconds: int) -> int:
    """One pickle of 300 agents, each of which has a state at every step, as the format wants it."""
    return _scenarionet(root / "val" / "long.pkl", "long", 10 * seconds, 300)


def write_l5kit(root: Path, scenes: int) -> int:
    """One zarr of scenes of 248 frames and 80 agents; its chunks of agents are links to one file, on the disk once."""
    import l5kit_files as z

    frames, agents = 248, 80
    folder, each = root / "validate.zarr", frames * agents
    one = np.zeros(each, np.dtype(z.DTYPES["agents"]))
    track = np.tile(np.arange(agents), frames)
    one["centroid"] = np.column_stack([z.X + 2.0 * track, np.full(each, z.Y)])
    one["extent"], one["track_id"], one["label_probabilities"][:, z.CAR] = (4.5, 1.8, 1.5), track + 1, 1.0
    z.write(folder, {"agents": one}, chunk=each)
    meta = json.loads((folder / "agents" / ".zarray").read_text())
    (folder / "agents" / ".zarray").write_text(json.dumps({**meta, "shape": [each * scenes]}))
    for k in range(1, scenes):
        os.link(folder / "agents" / "0", folder / "agents" / str(k))
    rows = np.zeros(frames * scenes, np.dtype(z.DTYPES["frames"]))
    number = np.arange(len(rows))
    rows["timestamp"] = 10**18 + number * 100_000_000
    rows["agent_index_interval"] = np.column_stack([number, number + 1]) * agents
    rows["ego_translation"][:, 0], rows["ego_translation"][:, 1] = z.X + 0.6 * (number % frames), z.Y - 5.0
    rows["ego_rotation"] = np.eye(3)
    whole = np.zeros(scenes, np.dtype(z.DTYPES["scenes"]))
    whole["frame_index_interval"] = np.column_stack([np.arange(scenes), np.arange(1, scenes + 1)]) * frames
    z.write(folder, {"frames": rows, "scenes": whole, "traffic_light_faces": np.zeros(0, np.dtype(z.DTYPES["traffic_light_faces"]))}, chunk=10_000)
    return each * scenes


def record_drive(root: Path, minutes: int) -> int:
    """A drive of our own recorder at 10 Hz, with agents that come and go."""
    from drive.datasets.recording import LogRecorder

    steps = 600 * minutes
    track, step = _lives(steps)
    cuts = np.searchsorted(step, np.arange(steps + 1))
    recorder = LogRecorder(root, "long", "embedded", "val", 0.1, (4.9, 1.9, 1.6))
    for k in range(steps):
        ids = tuple(f"agent-{t}" for t in track[cuts[k] : cuts[k + 1]].tolist())
        poses = np.zeros((len(ids), 1, 3)) + [0.6 * k, 5.0, 0.0]
        agents = Tracks(ids, np.zeros(len(ids), np.int64), np.ones((len(ids), 3)), poses, np.zeros((len(ids), 1, 2)), np.ones((len(ids), 1), bool))
        recorder.add(EgoState(np.array([0.6 * k, 0.0, 0.0]), np.array([6.0, 0.0]), np.zeros(2), time_s=0.1 * k), agents, Command.LANEFOLLOW)
    recorder.close()
    return len(step)
