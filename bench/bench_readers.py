"""Readers of logged data: opening a set against reading the bytes of its files alone, and scenes per second with their camera frames.

Each set is written by the tests' own helpers: small maps, few agents; a real log has ten times as many. The last rows are of the cache; what
memory a conversion takes is in bench_memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


def measure() -> list[Row]:
    """All readers, and the conversion."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, reader, place in written(root):
            rows += _rows(name, reader, place)
        rows += _converted(root)
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
