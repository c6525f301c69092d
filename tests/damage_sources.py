"""One small set of logs for every reader, of which one log is to be damaged: what opens the set, and which files belong to whom."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path

import av2_files
import av2_forecasting_files
import l5kit_files
import numpy as np
import nuplan_files
import nuscenes_files
import nuscenes_maps
import scenarionet_logs
import waymo_files
from PIL import Image

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera, Command, EgoState, Tracks
from drive.datasets.av2 import Av2Reader
from drive.datasets.av2_forecasting import Av2ForecastingReader
from drive.datasets.convert import INDEX, CacheReader, convert
from drive.datasets.l5kit import L5KitReader
from drive.datasets.logged import LogDataset
from drive.datasets.navsim import NavsimDataset, NavsimReader
from drive.datasets.nuplan import NuPlanReader
from drive.datasets.nuscenes import NuScenesDataset
from drive.datasets.nuscenes_map import read_expansion
from drive.datasets.recording import LogRecorder
from drive.datasets.scenarionet import ScenarioNetReader
from drive.datasets.select import readable
from drive.datasets.waymo_e2e import WaymoE2EReader
from drive.datasets.waymo_motion import WaymoMotionReader
from drive.datasets.waymo_perception import WaymoPerceptionReader

OTHER_CITY, AWAY = "us-ma-boston", "singapore-onenorth"
RING = ("ring_front_left",)
FRAMES = 70  # of a perception segment


@dataclass(frozen=True)
class Source:
    """A set of logs; those whose ids begin with `hurt` are damaged, the others must stay as they are."""

    name: str
    write: Callable[[Path], None]
    open: Callable[[Path], LogDataset]
    hurt: str
    own: tuple[str, ...] = ()  # patterns of files of the damaged log: damage to them costs it and nothing else
    records: tuple[str, ...] = ()  # of files of several records, all of them hurt: damage may cost some of them
    shared: tuple[str, ...] = ()  # of files that all logs are read from
    images: str = ""  # pattern of the damaged log's camera files
    cameras: bool = False  # whether images are recorded, in files of their own or not
    checksum: bool = False  # whether the format tells every flipped byte of `own` and `records`


class Fate(Enum):
    """What became of damage."""

    TOLD = "told"
    SAME = "read the same"
    NEAR = "off by less than a centimetre"
    SILENT = "read as another drive"


@dataclass(frozen=True)
class Outcome:
    """What a set gives."""

    refused: str  # why it cannot be opened at all, or empty
    scenes: dict[str, str]  # digests by id, of the scenes whose images can be read too
    rough: dict[str, str]  # the same of numbers rounded to a hundredth
    expected: int
    faults: tuple[str, ...]  # each once


def digest(value, decimals=None, into=None) -> str:
    """Of a Scenario and all that it holds but its images' places; to the bit, or of rounded numbers."""
    into = hashlib.sha256() if into is None else into
    if hasattr(value, "__dataclass_fields__"):
        for field in fields(value):
            if field.name == "notes":
                into.update(json.dumps(value.notes, default=str).encode())
            elif field.name != "image_source":
                digest(getattr(value, field.name), decimals, into)
    elif isinstance(value, RoadMap):
        digest([value.name, value.lanes, value.polygons], decimals, into)
    elif isinstance(value, np.ndarray):
        into.update(value.tobytes() if decimals is None or value.dtype.kind != "f" else (np.round(value, decimals) + 0.0).tobytes())
    elif isinstance(value, tuple | list):
        for item in value:
            digest(item, decimals, into)
    elif isinstance(value, dict):
        digest(list(value.items()), decimals, into)
    else:
        into.update(repr(value).encode())
    return into.hexdigest()


def outcome(source: Source, root: Path) -> Outcome:
    """Opens the set and reads every scene, as an evaluation does. Lets everything but DataError through."""
    read_expansion.cache_clear()  # a city that was read before is not read again
    try:
        data = source.open(root)
    except DataError as error:
        return Outcome(str(error), {}, {}, 0, ())
    scenes, faults = readable(data, range(len(data)))
    found, rough = {}, {}
    for scene in scenes:
        try:
            seen = scene.observation().images if source.cameras or source.images else None
        except DataError as error:
            faults.append(str(error))
            continue
        found[scene.id], rough[scene.id] = digest([scene, seen]), digest([scene, seen], 2)
    return Outcome("", found, rough, data.expected, tuple(dict.fromkeys([*data.faults, *faults])))


# ---- nuScenes


def _nuscenes(root: Path) -> None:
    content = nuscenes_files.tables()
    content["log"].append({"token": "log-2", "logfile": "n001", "location": AWAY})
    content["scene"][1]["log_token"] = "log-2"
    nuscenes_files.write(root, content, images=True, steady=True)
    nuscenes_maps.write_map(root)
    far = nuscenes_maps.expansion()
    for node in far["node"]:
        node["x"] += 1000.0
    for arcs in far["arcline_path_3"].values():
        for arc in arcs:
            arc["start_pose"][0] += 1000.0
    nuscenes_maps.write_map(root, far, AWAY)
    frames = {f"scene-0916-{k}": {"QA": {"planning": [{"Q": "What now?", "A": "Keep on."}]}} for k in (2, 7)}
    (root / "drivelm.json").write_text(json.dumps({"scene-0916": {"key_frames": frames}}))


def _open_nuscenes(root: Path) -> LogDataset:
    return NuScenesDataset(root, "test", nuscenes_files.VERSION, "CAM_FRONT", root / "drivelm.json")


# ---- nuPlan and NAVSIM, written from an Argoverse log


def _drives(root: Path):
    """Two logs of one drive in two cities, with the roadblocks of their route; writes the maps."""
    log, road_map, route = nuplan_files.av2_log(av2_files.write(root / "av2" / "val" / "log-a"))
    rows = nuplan_files.map_rows(road_map)
    for city in (nuplan_files.CITY, OTHER_CITY):
        nuplan_files.write_map(root / "maps" / city / "9.17.1937" / "map.gpkg", rows, log.origin)
    return [(name, replace(log, log_id=name), city) for name, city in (("log-a", nuplan_files.CITY), ("log-b", OTHER_CITY))], nuplan_files.blocks_of(road_map, route)


LIGHTS = [(2, 0, 30, "red"), (2, 31, 60, "green")]


def _nuplan(root: Path) -> None:
    drives, blocks = _drives(root)
    for name, log, city in drives:
        path = nuplan_files.write_db(root / "logs" / "val" / f"{name}.db", log, roadblocks=blocks, lights=LIGHTS, images=root / "blobs")
        nuplan_files.edit(path, ("UPDATE log SET map_version = ?", (city,)))


def _open_nuplan(root: Path) -> LogDataset:
    return LogDataset(NuPlanReader(root / "maps", root / "blobs", ["CAM_F0"]), root / "logs", "val")


def _navsim(root: Path) -> None:
    drives, blocks = _drives(root)
    for name, log, city in drives:
        frames = nuplan_files.navsim_frames(log, blocks, LIGHTS, sensors=root / "blobs")
        nuplan_files.write_navsim(root / "logs" / "val" / f"{name}.pkl", [{**frame, "map_location": city} for frame in frames])
        for image in (root / "blobs" / name).rglob("*.jpg"):  # a pickle does not tell the size of nuPlan's images
            Image.open(image).resize((64, 36)).save(image)


def _open_navsim(root: Path) -> LogDataset:
    return NavsimDataset(NavsimReader(root / "maps", root / "blobs", ["CAM_F0"]), root / "logs", "val")


# ---- Waymo


def _motion(root: Path) -> None:
    waymo_files.write(root / "val_a.tfrecord", waymo_files.scenario("a"))
    waymo_files.write(root / "val_b.tfrecord", *[waymo_files.scenario(name) for name in ("b-0", "b-1", "b-2")])


def _example(root: Path) -> None:
    waymo_files.write(root / "val_a.tfrecord", waymo_files.example(waymo_files.example_features("a")))
    waymo_files.write(root / "val_b.tfrecord", *[waymo_files.example(waymo_files.example_features(name)) for name in ("b-0", "b-1", "b-2")])


def _perception(root: Path) -> None:
    for name in ("a", "b"):
        waymo_files.write(root / f"val_{name}.tfrecord", *[waymo_files.frame(k, waymo_files.CAMERAS[:1], name=name) for k in range(FRAMES)])


def _e2e(root: Path) -> None:
    for name in ("a", "b"):
        waymo_files.write(root / f"val_{name}.tfrecord", *[waymo_files.e2e(number, name, cameras=waymo_files.CAMERAS[:1]) for number in (40, 45, 50)])


# ---- Argoverse 2


def _av2(root: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    lens = {"sensor_name": RING[0], "fx_px": 20.0, "fy_px": 20.0, "cx_px": 16.0, "cy_px": 12.0, "height_px": 24, "width_px": 32}
    ahead = {"sensor_name": RING[0], "qw": 0.5, "qx": -0.5, "qy": 0.5, "qz": -0.5, "tx_m": 1.5, "ty_m": 0.2, "tz_m": 1.4}
    for name in ("log-a", "log-b"):
        folder = av2_files.write(root / "val" / name)
        place = folder / "sensors" / "cameras" / RING[0]
        place.mkdir(parents=True)
        (folder / "calibration").mkdir()
        feather.write_feather(pa.Table.from_pylist([lens]), folder / "calibration" / "intrinsics.feather")
        feather.write_feather(pa.Table.from_pylist([ahead]), folder / "calibration" / "egovehicle_SE3_sensor.feather")
        for k in range(av2_files.STEPS):
            Image.fromarray(np.full((24, 32, 3), k, np.uint8)).save(place / f"{av2_files.START + 100_000_000 * k - 20_000_000}.jpg", quality=95)


def _forecasting(root: Path) -> None:
    for name in ("a", "b"):
        av2_forecasting_files.write(root / "val" / name)


def _checked_pages(root: Path) -> None:
    """The same with checksums of the pages, which Parquet can have."""
    from pyarrow import parquet

    _forecasting(root)
    path = root / "val" / "b" / "scenario_b.parquet"
    parquet.write_table(parquet.read_table(path), path, write_page_checksum=True)


# ---- the rest


def _scenarionet(root: Path) -> None:
    for name in ("a", "b"):
        scenarionet_logs.write(root / "val" / f"{name}.pkl", scenarionet_logs.record(f"town-{name}"))


def _l5kit(root: Path) -> None:
    for name in ("valid_a", "valid_b"):
        l5kit_files.write(root / f"{name}.zarr")


def _l5kit_blosc(root: Path) -> None:
    from numcodecs.blosc import Blosc

    for name in ("valid_a", "valid_b"):
        l5kit_files.write(root / f"{name}.zarr", compressor=Blosc("lz4", 5, 1))


def _recordings(root: Path) -> None:
    for name in ("a", "b"):
        recorder = LogRecorder(root, name, "embedded", "val", 0.1, (4.9, 2.0, 1.6), (Camera.front(32, 24),))
        for k in range(80):
            ego = EgoState(np.array([1000.0 + 0.6 * k, 500.0, 0.0]), np.array([6.0, 0.0]), np.zeros(2), 0.0, 0.0, 0.1 * k)
            place = np.array([[[1020.0 + 0.6 * k, 500.0, 0.0]]])
            seen = Tracks(("car",), np.array([int(AgentType.VEHICLE)]), np.array([[4.5, 1.9, 1.6]]), place, np.array([[[6.0, 0.0]]]), np.ones((1, 1), bool))
            recorder.add(ego, seen, Command.STRAIGHT, np.full((1, 24, 32, 3), k, np.uint8))
        recorder.close()


def _cache(root: Path) -> None:
    _scenarionet(root / "source")
    convert(ScenarioNetReader(), root / "source", root / "cache", progress=False)


def arrow_of(cache: Path, log_id: str) -> str:
    """The name of a converted log's file."""
    lines = (json.loads(line) for line in (cache / INDEX).read_text().splitlines())
    return next(f"{line['digest']}.arrow" for line in lines if line["log_id"] == log_id and line["digest"])


SOURCES = {
    source.name: source
    for source in (
        Source(
            "nuscenes", _nuscenes, _open_nuscenes, "scene-0916", ("can_bus/scene-0916_pose.json", f"maps/expansion/{AWAY}.json"),
            shared=("v1.0-mini/*.json", "drivelm.json"), images="samples/cam-scene-0916-*.jpg",
        ),
        Source(
            "nuplan", _nuplan, _open_nuplan, "log-b", ("logs/val/log-b.db", f"maps/{OTHER_CITY}/9.17.1937/map.gpkg"), images="blobs/log-b/CAM_F0/*.jpg"
        ),
        Source(
            "navsim", _navsim, _open_navsim, "log-b", ("logs/val/log-b.pkl", f"maps/{OTHER_CITY}/9.17.1937/map.gpkg"), images="blobs/log-b/CAM_F0/*.jpg"
        ),
        Source("waymo_motion", _motion, lambda r: LogDataset(WaymoMotionReader(), r, "val"), "b", records=("val_b.tfrecord",), checksum=True),
        Source("waymo_example", _example, lambda r: LogDataset(WaymoMotionReader(), r, "val"), "b", records=("val_b.tfrecord",), checksum=True),
        Source("waymo_perception", _perception, lambda r: LogDataset(WaymoPerceptionReader(), r, "val"), "b", records=("val_b.tfrecord",), cameras=True, checksum=True),
        Source("waymo_e2e", _e2e, lambda r: LogDataset(WaymoE2EReader(), r, "val"), "b", records=("val_b.tfrecord",), cameras=True, checksum=True),
        Source(
            "av2", _av2, lambda r: LogDataset(Av2Reader(RING), r, "val"), "log-b",
            ("val/log-b/*.feather", "val/log-b/map/*.json", "val/log-b/calibration/*.feather"), images=f"val/log-b/sensors/cameras/{RING[0]}/*.jpg",
        ),
        Source("av2_forecasting", _forecasting, lambda r: LogDataset(Av2ForecastingReader(), r, "val"), "b", ("val/b/*.parquet", "val/b/*.json")),
        Source("av2_forecasting_checked", _checked_pages, lambda r: LogDataset(Av2ForecastingReader(), r, "val"), "b", ("val/b/*.parquet",)),
        Source("scenarionet", _scenarionet, lambda r: LogDataset(ScenarioNetReader(), r, "val"), "town-b", ("val/b.pkl",)),
        Source("l5kit", _l5kit, lambda r: LogDataset(L5KitReader(), r, "val"), "valid_b", records=("valid_b.zarr/*/*",)),
        Source("l5kit_blosc", _l5kit_blosc, lambda r: LogDataset(L5KitReader(), r, "val"), "valid_b", records=("valid_b.zarr/*/*",)),
        Source(
            "recordings", _recordings, lambda r: LogDataset(CacheReader(), r, "val"), "b", ("b.arrow",), shared=("index.jsonl", "cache.json"),
            images="images/b/*/*.png", checksum=True,
        ),
        Source(
            "cache", _cache, lambda r: LogDataset(CacheReader(), r / "cache", "val"), "town-b", ("b.arrow",),
            shared=("cache/index.jsonl", "cache/cache.json"), checksum=True,
        ),
    )
}  # fmt: skip


def files_of(source: Source, root: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of a set that its patterns name, each at least once; b.arrow is the converted log of the damaged drive."""
    found = []
    for pattern in patterns:
        if pattern == "b.arrow":
            cache = root / "cache" if source.name == "cache" else root
            found.append(cache / "logs" / arrow_of(cache, source.hurt))
            continue
        here = sorted(path for path in root.glob(pattern) if path.is_file())
        assert here, pattern
        found += here
    return found


def judge(source: Source, before: Outcome, after: Outcome, shared: bool = False) -> Fate:
    """What became of damage, from a set's outcomes. Asserts that nothing is lost uncounted, and that no other log is touched unless the file is `shared`."""
    lines = [after.refused, *after.faults]
    assert all("\n" not in line and len(line) < 800 for line in lines), [line[:300] for line in lines]
    if after.refused:
        assert shared, after.refused
        return Fate.TOLD
    others = {key: value for key, value in before.scenes.items() if not key.startswith(source.hurt)}
    assert shared or others == {key: value for key, value in after.scenes.items() if not key.startswith(source.hurt)}, "another log is touched"
    if after.scenes == before.scenes and not after.faults:
        return Fate.SAME
    if after.faults:
        kept = after.scenes.keys() == before.scenes.keys()  # a frame that no scene needs
        assert kept or after.expected > len(after.scenes), f"a loss that is told and not counted: {after.faults}"
        return Fate.TOLD
    return Fate.NEAR if after.rough == before.rough else Fate.SILENT
