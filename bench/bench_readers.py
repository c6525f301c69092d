"""Readers of logged data: opening a set against reading the bytes of its files alone, and scenes per second with their camera frames.

Each set is written by the tests' own helpers: small maps, few agents; a real log has ten times as many. The last rows convert: every reader's
logs to the cache, and the memory that a nuPlan log of half an hour takes on the way.
"""

from __future__ import annotations

import multiprocessing
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Row

from drive.datasets.av2 import Av2Reader
from drive.datasets.av2_forecasting import Av2ForecastingReader
from drive.datasets.convert import CacheReader, convert
from drive.datasets.l5kit import L5KitReader
from drive.datasets.logged import LogDataset, Reader
from drive.datasets.navsim import NavsimReader
from drive.datasets.nuplan import NuPlanReader
from drive.datasets.nuscenes import NuScenesReader
from drive.datasets.scenarionet import ScenarioNetReader
from drive.datasets.waymo_e2e import WaymoE2EReader
from drive.datasets.waymo_motion import WaymoMotionReader
from drive.datasets.waymo_perception import WaymoPerceptionReader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
SCENES = 40  # at most, of a set
SWEEPS, AGENTS, SEEN = 36_000, 60, 200  # of the long log: half an hour at 20 Hz, agents at a time, sweeps that each is seen for


def measure() -> list[Row]:
    """All readers, and the conversion."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, reader, place in written(root):
            rows += _rows(name, reader, place)
        rows += _converted(root)
        rows.append(_long_log(root / "long"))
    return rows


def written(root: Path) -> list[tuple[str, Callable[[], Reader], Path]]:
    """Small sets of every source, all of the split val or test: name, reader, folder."""
    import av2_files
    import av2_forecasting_files
    import l5kit_files
    import nuplan_files
    import nuscenes_files
    import scenarionet_logs
    import waymo_files

    for k in range(4):
        log = f"log-{k}"
        scenarionet_logs.write(root / "scenarionet" / "val" / f"{log}.pkl", scenarionet_logs.record(log))
        av2_files.write(root / "av2" / "val" / log)
        av2_forecasting_files.write(root / "av2_forecasting" / "val" / log)
    nuscenes_files.write(root / "nuscenes", nuscenes_files.tables(), can_bus=True)
    l5kit_files.write(root / "l5kit" / "validate.zarr")
    record, road_map, route = nuplan_files.av2_log(root / "av2" / "val" / "log-0")
    nuplan_files.write_maps(root / "maps", road_map, record)
    blocks = nuplan_files.blocks_of(road_map, route)
    nuplan_files.write_db(root / "nuplan" / "val" / "log-a.db", record, roadblocks=blocks)
    nuplan_files.write_navsim(root / "navsim" / "val" / "log-a.pkl", nuplan_files.navsim_frames(record, blocks))
    waymo_files.write(root / "motion" / "validation" / "val.tfrecord", *(waymo_files.scenario(f"scene-{k}") for k in range(4)))
    waymo_files.write(root / "e2e" / "val.tfrecord", *(waymo_files.e2e(number) for number in range(35, 60, 5)))
    waymo_files.write(root / "perception" / "validation" / "one.tfrecord", *(waymo_files.frame(k) for k in range(waymo_files.STEPS)))
    return [
        ("ScenarioNet", ScenarioNetReader, root / "scenarionet"),
        ("Argoverse 2", Av2Reader, root / "av2"),
        ("Argoverse 2 forecasting", Av2ForecastingReader, root / "av2_forecasting"),
        ("nuScenes", lambda: NuScenesReader(nuscenes_files.VERSION, split="test"), root / "nuscenes"),
        ("nuPlan", lambda: NuPlanReader(root / "maps"), root / "nuplan"),
        ("NAVSIM", lambda: NavsimReader(root / "maps"), root / "navsim"),
        ("Waymo motion", WaymoMotionReader, root / "motion"),
        ("Waymo end-to-end, 8 cameras", WaymoE2EReader, root / "e2e"),
        ("Waymo perception, 5 cameras", WaymoPerceptionReader, root / "perception"),
        ("L5Kit", L5KitReader, root / "l5kit"),
    ]


def _opened(reader: Callable[[], Reader], root: Path) -> LogDataset:
    return LogDataset(reader(), root, "test" if root.name == "nuscenes" else "val", short_futures=True)


def _rows(name: str, reader: Callable[[], Reader], root: Path) -> list[Row]:
    """Opening, against the bytes alone, and scenes per second."""
    _opened(reader, root)[0].observation()  # compiles the renderer
    start = time.perf_counter()
    size = sum(len(path.read_bytes()) for path in root.rglob("*") if path.is_file())
    floor = time.perf_counter() - start
    start = time.perf_counter()
    data = _opened(reader, root)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    count = min(len(data), SCENES)
    for i in range(count):
        data[i].observation()
    rate = count / (time.perf_counter() - start)
    logs = len({scene.log_id for scene in data})
    return [
        Row(f"{name}: open, logs {logs}", 1e3 * opened, "ms", f"the bytes of its files alone {1e3 * floor:.1f} ms, {size / 1e6:.2f} MB"),
        Row(f"{name}: scenes with frames", rate, "scenes/s", f"{count} scenes"),
    ]


def _converted(root: Path) -> list[Row]:
    """Argoverse logs through the cache: opening it, against opening the source, and its scenes."""
    start = time.perf_counter()
    done = convert(Av2Reader(), root / "av2", root / "cache", progress=False)
    took = time.perf_counter() - start
    start = time.perf_counter()
    source = LogDataset(Av2Reader(), root / "av2", "val")
    slow = time.perf_counter() - start
    start = time.perf_counter()
    data = LogDataset(CacheReader(), root / "cache", "val")
    fast = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(len(data)):
        data[i]
    rate = len(data) / (time.perf_counter() - start)
    assert data.ids == source.ids
    return [
        Row("cache: converting Argoverse 2", done.converted / took, "logs/s", f"{done.bytes / 1e6:.1f} MB"),
        Row("cache: open", 1e3 * fast, "ms", f"the source {1e3 * slow:.0f} ms"),
        Row("cache: scenes without frames", rate, "scenes/s", f"{len(data)} scenes"),
    ]


def write_long_log(path: Path) -> int:
    """A nuPlan log of half an hour; how many boxes it holds."""
    from nuplan_files import CITY, NAMES, START, TABLES, token

    path.parent.mkdir(parents=True)
    first = np.random.default_rng(0).integers(0, SWEEPS - SEEN, SWEEPS * AGENTS // SEEN)
    with sqlite3.connect(path) as db:
        for name, columns in TABLES.items():
            db.execute(f"CREATE TABLE {name} ({columns})")

        def fill(table: str, rows) -> None:
            rows = iter(rows)
            one = next(rows)
            marks = ",".join("?" * len(one))
            db.execute(f"INSERT INTO {table} VALUES ({marks})", one)
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

        fill("log", [(b"l", "v", "d", 1, "x", CITY, CITY)])
        fill("category", ((token("category", i), name, "") for i, name in enumerate(NAMES.values())))
        pose = (0.0, 1.0, 0.0, 0.0, 0.0, 6.0, *(0.0,) * 8, 1, b"l")
        fill("ego_pose", ((token("ego", k), k, 585000 + 0.3 * k, 4477000.0, *pose) for k in range(SWEEPS)))
        fill("lidar_pc", ((token("pc", k), None, None, token("ego", k), b"l", token("scene", 0), "f", START + 50_000 * k) for k in range(SWEEPS)))
        fill("scene", [(token("scene", 0), b"l", "s", token("ego", SWEEPS - 1), "")])
        fill("track", ((token("track", t), token("category", 0), 2, 4, 1) for t in range(len(first))))
        box = (4477000.0, 0.0, 2.0, 4.0, 1.5, 1.0, 0.0, 0.0, 0.0, 1.0)
        boxes = ((t, int(begin) + i) for t, begin in enumerate(first) for i in range(SEEN))
        fill("lidar_box", ((token("box", n), token("pc", k), token("track", t), None, None, 585000 + 0.3 * k, *box) for n, (t, k) in enumerate(boxes)))
    db.close()
    return len(first) * SEEN


def _peak(root: Path, out: Path) -> float:
    """MB of memory that this process has taken at most, after converting."""
    convert(NuPlanReader(), root, out, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _long_log(root: Path) -> Row:
    boxes = write_long_log(root / "source" / "val" / "long.db")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        start = time.perf_counter()
        peak = pool.apply(_peak, (root / "source", root / "cache"))
        took = time.perf_counter() - start
    size = (root / "source" / "val" / "long.db").stat().st_size / 1e6
    return Row("converting a nuPlan log of 30 min: peak memory", peak, "MB", f"goal at most 2048; {boxes / 1e6:.1f} M boxes, {size:.0f} MB, {took:.0f} s")
