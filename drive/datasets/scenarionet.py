"""Scenarios from real driving logs in ScenarioNet's pickle format (Li et al. 2023), cameras rendered from map and boxes.

A log of about 20 s gives one Scenario every 0.5 s: 1.5 s of history, the present, 5 s of future. The logs hold no images; the
front camera is rendered from the log's own map and agents. How the ego's motion, the map and the route come out of a log
stands in `scenarionet_log`, `scenarionet_map` and `route`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import relative
from drive.core.roadmap import RoadMap
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, EgoTrack, Scenario, Trajectory
from drive.datasets.route import Route, find_route
from drive.datasets.scenarionet_log import DT, LogRecord, read_log
from drive.datasets.scenarionet_map import build_road_map
from drive.datasets.splits import NUSCENES_MINI, choose_logs, fingerprint
from drive.datasets.unpickle import load_plain_pickle

HISTORY, FUTURE = 15, 50  # steps of 0.1 s before and after the present
FRAME_STEPS = (-15, -10, -5, 0)
STRIDE = 5  # steps between presents
INDEX_FILES = ("dataset_summary.pkl", "dataset_mapping.pkl")
STOPPED = 0.3  # m/s
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """A file that could not be read, and why."""

    path: Path
    reason: str
    unread: bool = True  # False where nothing is lost by it: a log that another file holds


@dataclass(frozen=True)
class Scan:
    """What a folder holds: the logs that could be read, and what was lost."""

    logs: tuple[LogRecord, ...]  # in order of log id
    faults: tuple[Fault, ...]

    @property
    def coverage(self) -> float:
        """Share of the files that could be read."""
        return len(self.logs) / max(len(self.logs) + len(self.faults), 1)


def find_files(root: str | Path) -> tuple[list[Path], list[Fault]]:
    """All scenario pickles below `root` and those its indexes name, whether or not they exist, sorted; and bad indexes.

    Raises DataError if `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give the folder that holds the ScenarioNet pickles")
    found = {path for path in root.rglob("*.pkl") if path.name not in INDEX_FILES}
    faults = []
    for index in sorted(path for name in INDEX_FILES for path in root.rglob(name)):
        try:
            found.update(_indexed(index))
        except DataError as error:
            faults.append(Fault(index, str(error)))
    return sorted({path.resolve() for path in found}), faults


def _indexed(index: Path) -> list[Path]:
    """The files that an index file names: a mapping gives their folders, a summary without one keeps them beside it."""
    content = load_plain_pickle(index)
    if not isinstance(content, Mapping):
        raise DataError(
            f"{index}: no ScenarioNet index, it holds a {type(content).__name__}: remove it, the logs are found without"
        )
    if index.name == "dataset_mapping.pkl":
        return [index.parent / str(folder) / str(name) for name, folder in content.items()]
    return [] if (index.parent / "dataset_mapping.pkl").exists() else [index.parent / str(name) for name in content]


def scan(root: str | Path) -> Scan:
    """Reads every log below `root`. A file that cannot be read, or repeats another's log, is a fault; the rest is still read."""
    logs: dict[str, LogRecord] = {}
    files, faults = find_files(root)
    for path in files:
        try:
            record = read_log(path)
        except DataError as error:
            faults.append(Fault(path, str(error)))
            continue
        if record.log_id in logs:
            reason = f"{path}: holds log {record.log_id} again, {logs[record.log_id].path} has it: remove one of them"
            faults.append(Fault(path, reason, unread=False))
        else:
            logs[record.log_id] = record
    return Scan(tuple(logs[key] for key in sorted(logs)), tuple(faults))


class RenderedLog:
    """The map, route and rendered camera frames of one log, each made when first asked for."""

    def __init__(self, record: LogRecord, cameras: tuple[Camera, ...], cache_images: int) -> None:
        """`cache_images`: how many frames to keep, least recently used ones go first."""
        self.record = record
        self.cameras = cameras
        self._frame = lru_cache(maxsize=cache_images)(self._render)

    @cached_property
    def road_map(self) -> RoadMap:
        """The map in the log's shifted frame."""
        return build_road_map(self.record.log_id, self.record.map_features, self.record.origin)

    @cached_property
    def route(self) -> Route:
        """The lanes under the whole log."""
        return find_route(self.road_map, self.record.ego.poses_world)

    @cached_property
    def _renderer(self):
        from drive.simulators.render import SceneRenderer  # compiles its kernels on import: paid only where images are asked for

        return SceneRenderer(self.road_map, scenery=False)

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of camera index `camera` at `step` of the log; read-only."""
        return self._frame(camera, step)

    def _render(self, camera: int, step: int) -> NDArray[np.uint8]:
        agents = self.record.agents
        seen = agents.valid[:, step]
        image = self._renderer.render_rgb(
            self.cameras[camera],
            self.record.ego.poses_world[step],
            agents.poses_world[seen, step],
            agents.size[seen],
            agents.types[seen],
        )
        image.setflags(write=False)
        return image


@dataclass(frozen=True)
class WindowImages:
    """The camera frames of a window's steps up to its present; later ones are not given."""

    log: RenderedLog
    start: int  # step of the log at which the window starts
    present: int  # of the window

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of camera index `camera` at `step` of the window. Raises DataError on a step after the present."""
        if not 0 <= step <= self.present:
            raise DataError(f"log {self.log.record.log_id}: camera frames exist at steps 0 to {self.present}, not at {step}")
        return self.log.image(camera, self.start + step)


class ScenarioNetDataset(Sequence[Scenario]):
    """Scenarios of one split of the logs below a folder, in order of log and time."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        splits: Mapping[str, Sequence[str]] = NUSCENES_MINI,
        stride: int = STRIDE,
        cameras: tuple[Camera, ...] | None = None,
        cache_images: int = 512,
    ) -> None:
        """Reads all logs of `split`; maps and images are made when asked for.

        `splits` names the logs of each split; `stride` is in steps of 0.1 s; `cameras` default to Camera.front(); `cache_images`
        frames are kept per log. Unreadable files are logged and kept in `faults`; `expected` counts the scenarios of the split with
        those that they would have held, unless a file's name tells that its log is of another split.
        Raises DataError on a folder or split without readable logs, and on logs that no split names.
        """
        if stride < 1:
            raise DataError(f"the stride between scenarios must be at least 1 step, got {stride}")
        self.root, self.split = Path(root), split
        found = scan(root)
        self.faults = found.faults
        for fault in found.faults:
            logger.warning("unreadable log left out: %s", fault.reason)
        chosen = choose_logs(splits, split, [record.log_id for record in found.logs])
        if not chosen:
            raise DataError(
                f"{root} has no readable log of the split {split!r} ({len(found.logs)} logs of other splits, {len(found.faults)} unreadable; files sought: **/*.pkl)"
            )
        cameras = cameras or (Camera.front(),)
        self.logs = {r.log_id: RenderedLog(r, cameras, cache_images) for r in found.logs if r.log_id in chosen}
        self._windows = [
            (key, present) for key in chosen for present in range(HISTORY, self.logs[key].record.steps - FUTURE, stride)
        ]
        others = [log for name, logs in splits.items() if name != split for log in logs]
        torn = [f for f in found.faults if f.unread and not any(log in f.path.name for log in others)]
        self.expected = len(self._windows) + len(torn) * self._per_log()

    def _per_log(self) -> int:
        """Scenarios that an unreadable log counts for: as many as the readable ones hold on average, rounded up."""
        return max(math.ceil(len(self._windows) / len(self.logs)), 1)

    @property
    def ids(self) -> tuple[str, ...]:
        """Scenario ids, in order."""
        return tuple(f"{log_id}-{present:04d}" for log_id, present in self._windows)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of this split's files."""
        return fingerprint(self.root.resolve(), [log.record.path for log in self.logs.values()])

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`."""
        log_id, present = self._windows[index]
        return window(self.logs[log_id], present, self.split)

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))


def window(log: RenderedLog, present: int, split: str, source: str = "scenarionet") -> Scenario:
    """The Scenario around step `present` of a log. Raises DataError where its history or future is not recorded."""
    record, route = log.record, log.route
    start, stop = present - HISTORY, present + FUTURE + 1
    if start < 0 or stop > record.steps:
        raise DataError(
            f"log {record.log_id}: step {present} lacks history or future, {HISTORY} to {record.steps - FUTURE - 1} have both"
        )
    ego = record.ego
    poses = ego.poses_world
    cut = EgoTrack(poses[start:stop], ego.velocity_ego[start:stop], ego.acceleration_ego[start:stop], ego.yaw_rate[start:stop])
    agents = record.agents.steps(start, stop)
    command = route.command(poses[present])
    stride = round(PLAN_DT / DT)
    future = poses[present + stride : stop : stride]
    return Scenario(
        id=f"{record.log_id}-{present:04d}",
        source=source,
        split=split,
        log_id=record.log_id,
        kind="stopped" if ego.state(present).speed < STOPPED else command.value,
        dt=DT,
        present=HISTORY,
        road_map=log.road_map,
        route_lane_ids=route.lane_ids,
        centerline_world=route.centerline,
        command=command,
        ego=cut,
        agents=agents.subset(np.flatnonzero(agents.valid.any(axis=1))),
        cameras=log.cameras,
        image_source=WindowImages(log, start, HISTORY),
        frame_steps=FRAME_STEPS,
        teacher=Trajectory(relative(poses[present], future[:PLAN_STEPS]), PLAN_DT),
        reference_world=poses[present:stop],
        time_s=present * DT,
        notes={
            "origin_world": record.origin.tolist(),
            "ego_size": record.ego_size,
            "log_step": present,
            "route_matched": route.matched,
            "trimmed_steps": record.trimmed_steps,
            "dropped_tracks": list(record.dropped_tracks),
        },
    )
