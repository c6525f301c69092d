"""The embedded world: a traffic step, a drive without touching, and scenes per second of generation and reading.

Generation is with the expert, one front camera of 112 x 112 pixels and four frames a scene; touches are counted over all towns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from harness import Row, timed

from drive.core.seeds import numpy_rng
from drive.datasets.embedded import EmbeddedDataset
from drive.datasets.episode import EpisodeConfig, record_episode
from drive.datasets.generate import generate
from drive.planners.pdm import PdmExpert
from drive.simulators.towns import load_town, town_names
from drive.simulators.traffic import Traffic

VEHICLES = 20
SEEDS = 3
MINUTES = 2.0
SCENES, WORKERS = 1000, 2


def step_time() -> Row:
    """One step of 20 vehicles in the densest town."""
    traffic = Traffic(load_town("urban_a"), 0, VEHICLES)
    traffic.populate(VEHICLES, numpy_rng(0, "bench"))

    def second() -> None:
        for _ in range(10):
            traffic.step()

    return Row("traffic step, 20 vehicles", timed(second, repeats=30).median * 100.0, "ms", "goal < 0.3")


def touches() -> list[Row]:
    """Overlapping pairs in two minutes of traffic in every town, and the longest wait."""
    pairs, longest, minutes = 0, 0.0, 0.0
    for town in town_names():
        for seed in range(SEEDS):
            traffic = Traffic(load_town(town), seed, VEHICLES)
            count = traffic.populate(VEHICLES, numpy_rng(seed, "bench"))
            for _ in range(round(MINUTES * 600)):
                traffic.step()
                pairs += len(traffic.overlaps())
                longest = max(longest, float(traffic.fleet.still[:count].max()))
            minutes += MINUTES * count
    note = f"{minutes:.0f} vehicle minutes, {len(town_names())} towns"
    return [Row("overlapping pairs in traffic", pairs, "steps", note), Row("longest standstill", longest, "s", note)]


def generation() -> list[Row]:
    """Scenes per second: in one process after warm-up, over two processes with their start, and read back."""
    config, expert = EpisodeConfig("train", 0), PdmExpert()
    for index in range(9):
        record_episode(config, index, expert)
    start, scenes = time.perf_counter(), 0
    for index in range(9, 27):
        scenes += len(record_episode(config, index, expert)["plans"])
    rows = [Row("generation, one process", scenes / (time.perf_counter() - start), "scenes/s", "per core, after warm-up")]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate(Path(folder), config, SCENES, PdmExpert, WORKERS, progress=False)
        took = time.perf_counter() - start
        rows.append(Row("generation, two processes", SCENES / took, "scenes/s", f"{SCENES} scenes, start of the processes included"))
        data = EmbeddedDataset(folder)
        order = np.random.default_rng(0).permutation(len(data))
        start = time.perf_counter()
        for index in order:
            data[int(index)].observation()
        rows.append(Row("reading a scene with its frames", 1e3 * (time.perf_counter() - start) / len(data), "ms", "goal < 3"))
    return rows


def measure() -> list[Row]:
    """All rows."""
    return [step_time(), *touches(), *generation()]


if __name__ == "__main__":
    for row in measure():
        print(f"{row.what:36s} {row.value:8.3f} {row.unit:10s} {row.note}")
