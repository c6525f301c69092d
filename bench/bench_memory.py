"""Memory of a conversion: every reader's largest sets through `drive data convert`, each in a process of its own.

Each source is written twice, at a size and at four times that, the larger at or above its largest real file; the figure is the peak of the
larger, the note has the other's. A peak that stays is bound by what is read at once, one that grows by the length of one log, or by the index of
the set. The modules alone take what the last row says. Agents, boxes and bytes are as many as in real logs; their content is repeated.
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import large_nuscenes as nuscenes
import large_sets as large
from harness import Row

from drive.datasets.convert import convert
from drive.datasets.logged import Entry, Reader

T = TypeVar("T")
Writer = Callable[[Path, int], int]  # folder and size to boxes written
TIMES = 4
GOAL = "goal at most 2048"


class Source(NamedTuple):
    """A source and its two sizes."""

    what: str  # of a size, "{}"
    reader: str  # module of drive.datasets and class
    write: Writer
    size: int  # the smaller
    every: int = 1  # of the logs that are found, which ones are converted


class Taken(NamedTuple):
    """What one conversion took."""

    peak: float  # MB
    before: float  # MB, with the modules loaded
    seconds: float
    logs: int


SOURCES = (
    Source("nuPlan, a log of {} min", "nuplan.NuPlanReader", large.write_nuplan, 10),
    Source("NAVSIM, a log of {} min", "navsim.NavsimReader", large.write_navsim, 15),
    Source("Waymo motion, a shard of {} scenarios", "waymo_motion.WaymoMotionReader", large.write_scenarios, 40),
    Source("Waymo motion, a shard of {} tf.Examples", "waymo_motion.WaymoMotionReader", large.write_examples, 40),
    Source("Waymo perception, a segment of {} frames", "waymo_perception.WaymoPerceptionReader", large.write_perception, 50),
    Source("Waymo end-to-end, {} frames in two shards", "waymo_e2e.WaymoE2EReader", large.write_e2e, 100),
    Source("Argoverse 2, a log of {} s", "av2.Av2Reader", large.write_av2, 450),
    Source("Argoverse 2 forecasting, {} scenarios", "av2_forecasting.Av2ForecastingReader", large.write_forecasting, 60),
    Source("ScenarioNet, {} logs of 20 s", "scenarionet.ScenarioNetReader", large.write_scenarionet, 30),
    Source("ScenarioNet, a log of {} s", "scenarionet.ScenarioNetReader", large.write_scenarionet_long, 60),
    Source("L5Kit, {} scenes in one zarr", "l5kit.L5KitReader", large.write_l5kit, 1000, every=80),
)


def measure() -> list[Row]:
    """All sources, the recorder, and the modules alone."""
    rows, before = [], []
    for source in SOURCES:
        row, taken = _source(source)
        rows.append(row)
        before.append(taken.before)
    rows += [_recorder(15), _nuscenes(212)]
    return [*rows, Row("the modules alone", max(before), "MB", "the largest of the readers above")]


def _source(source: Source) -> tuple[Row, Taken]:
    notes, taken = [], None
    for size in (TIMES * source.size, source.size):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            boxes = _alone(source.write, root / "source", size)
            taken = _alone(_converted, source.reader, root, source.every)
            on_disk = sum(path.stat().st_size for path in (root / "source").rglob("*") if path.is_file())
        notes.append((taken, f"{on_disk / 1e6:.0f} MB, {boxes / 1e6:.1f} M boxes, {taken.logs} logs, {taken.seconds:.0f} s"))
    (large_one, note), (small_one, other) = notes
    note = f"{GOAL}; {note}; of {source.size}: {small_one.peak:.0f} MB ({other})"
    return Row(source.what.format(TIMES * source.size), large_one.peak, "MB", note), large_one


def _recorder(minutes: int) -> Row:
    peaks = []
    for length in (4 * minutes, minutes):
        with tempfile.TemporaryDirectory() as folder:
            peaks.append(_alone(_recorded, Path(folder), length))
    (peak, boxes, seconds), (small, _, _) = peaks
    note = f"{GOAL}; {boxes / 1e6:.1f} M boxes, {seconds:.0f} s; of {minutes}: {small:.0f} MB"
    return Row(f"recording a drive of {4 * minutes} min", peak, "MB", note)


def _nuscenes(scenes: int) -> Row:
    """Tables of four times `scenes` scenes, with two workers: v1.0-trainval has 850."""
    peaks = []
    for count in (TIMES * scenes, scenes):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            boxes = nuscenes.write_nuscenes(root / "source", count)
            on_disk = sum(path.stat().st_size for path in (root / "source").rglob("*.json"))
            peaks.append((nuscenes.peak_of_converting(root / "source", root / "cache", workers=2), boxes, on_disk))
    (large_one, boxes, on_disk), (small_one, _, _) = peaks
    note = f"{GOAL}; parent and two workers together ({large_one.parent:.0f} and {large_one.worker:.0f}); {on_disk / 1e6:.0f} MB, {boxes / 1e6:.2f} M boxes, "
    return Row(f"nuScenes, {TIMES * scenes} scenes", large_one.together, "MiB", f"{note}{large_one.seconds:.0f} s; of {scenes}: {small_one.together:.0f} MiB")


def _alone(action: Callable[..., T], *args: object) -> T:
    """The result of a call in a process of its own, whose peak is then its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(action, *args).result()


def _peak() -> float:
    """MB of memory that this process has taken at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # of this program alone; what getrusage tells begins with the size of the process that started it
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1.024e-3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


class _Every:
    """A reader, of whose logs every Nth is found: those of a whole set would take an hour."""

    def __init__(self, reader: Reader, every: int) -> None:
        self.name, self.read, self._reader, self._every = reader.name, reader.read, reader, every

    def find(self, root: Path) -> list[Entry]:
        """The logs to convert."""
        return self._reader.find(root)[:: self._every]


def _converted(reader: str, root: Path, every: int) -> Taken:
    """Convert the logs below `root`/source."""
    module, name = reader.split(".")
    made = getattr(importlib.import_module(f"drive.datasets.{module}"), name)
    before, start = _peak(), time.perf_counter()
    done = convert(_Every(made(), every), root / "source", root / "cache", progress=False)
    if done.faults:
        raise RuntimeError(f"{reader}: {done.faults[0]}")
    return Taken(_peak(), before, time.perf_counter() - start, done.converted)


def _recorded(root: Path, minutes: int) -> tuple[float, int, float]:
    start = time.perf_counter()
    boxes = large.record_drive(root, minutes)
    return _peak(), boxes, time.perf_counter() - start
