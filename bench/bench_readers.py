"""Readers of logged data: opening a set, and scenes per second with their four rendered frames; the floor is parsing the same files alone.

Each set is written by the tests' own helpers: small maps, few agents; a real log has ten times as many.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Row

from drive.core.types import Scenario
from drive.datasets.av2 import Av2Reader
from drive.datasets.logged import LogDataset
from drive.datasets.nuscenes import NuScenesDataset
from drive.datasets.scenarionet import ScenarioNetReader
from drive.datasets.unpickle import load_plain_pickle

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def _rows(name: str, files: int, parse: Callable[[], object], read: Callable[[], Sequence[Scenario]]) -> list[Row]:
    """Opening, against parsing alone, and scenes per second."""
    read()[0].observation()  # compiles the renderer
    start = time.perf_counter()
    parse()
    floor = time.perf_counter() - start
    start = time.perf_counter()
    data = read()
    opened = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(len(data)):
        data[i].observation()
    rate = len(data) / (time.perf_counter() - start)
    return [
        Row(f"{name}: open {files} logs", 1e3 * opened, "ms", f"parsing their files alone {1e3 * floor:.0f} ms"),
        Row(f"{name}: scenes with frames", rate, "scenes/s", f"{len(data)} scenes"),
    ]


def measure() -> list[Row]:
    """All readers."""
    import av2_files
    import nuscenes_files
    import scenarionet_logs
    from pyarrow import feather

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for k in range(4):
            log = f"scene-{k:04d}"
            (root / "scenarionet" / log).mkdir(parents=True)
            scenarionet_logs.write(root / "scenarionet" / log / f"{log}.pkl", scenarionet_logs.record(log))
            av2_files.write(root / "av2" / "val" / log)
        nuscenes_files.write(root / "nuscenes", nuscenes_files.tables(), can_bus=True)
        pickles = sorted((root / "scenarionet").rglob("*.pkl"))
        arrows, maps = sorted((root / "av2").rglob("*.feather")), sorted((root / "av2").rglob("*.json"))
        tables = sorted((root / "nuscenes").rglob("*.json"))
        splits = {"test": [f"scene-{k:04d}" for k in range(4)]}
        rows += _rows(
            "ScenarioNet", 4, lambda: [load_plain_pickle(p) for p in pickles], lambda: LogDataset(ScenarioNetReader(), root / "scenarionet", "test", splits=splits)
        )
        rows += _rows(
            "Argoverse 2", 4, lambda: [*map(feather.read_table, arrows), *(json.loads(p.read_text()) for p in maps)], lambda: LogDataset(Av2Reader(), root / "av2", "val")
        )
        rows += _rows(
            "nuScenes", 2, lambda: [json.loads(p.read_text()) for p in tables], lambda: NuScenesDataset(root / "nuscenes", "test", nuscenes_files.VERSION)
        )
    return rows
