"""What every reader of logged data gives: a Log, and the Scenarios that it is cut into.

A Log is one drive as arrays, shifted so that its first position lies within a metre of zero (`origin`), with whatever its source recorded:
map, traffic lights, cameras, language. A Scenario holds 1.5 s of history, the present and up to 5 s of future. Where a source
records less history than that, the drive is prolonged backwards at constant speed and yaw rate, and `notes` tell by how many steps.
Images are read, or rendered from map and boxes where a log has none, when they are asked for, and never from a step after the present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.core.geometry import compose, relative, wrap_angle
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, Command, EgoTrack, Lights, Question, Scenario, Tracks, Trajectory
from drive.datasets import sanity
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.route import Route, find_route, recorded_route

Array = NDArray[np.float64]
HISTORY_S, FUTURE_S = 1.5, PLAN_DT * PLAN_STEPS
FRAMES_S = (-1.5, -1.0, -0.5, 0.0)  # of the camera frames that a Scenario's Observation holds
REFERENCE_DT = 0.1  # s, of Scenario.reference_world
STOPPED = 0.3  # m/s
SMALL = 1 << 17  # pixels of an image up to which the last ones read are kept: 25 MB in all
CORRIDOR = 5.0  # m to either side of the driven path, where a log has no map


@dataclass(frozen=True)
class ImageRef:
    """An encoded image on the disk: a file, or a part of one."""

    path: Path
    offset: int = 0  # bytes
    length: int = -1  # bytes; -1 reads to the end
    inner: tuple[int, int] = (0, 0)  # width and height that it must have, in pixels; zeros ask for nothing
    outer: tuple[int, int] = (0, 0)  # to which it is filled up with black, below and to the right; zeros fill nothing

    def read(self) -> NDArray[np.uint8]:
        """RGB (H, W, 3). Raises DataError, naming the file, where there is no image, or one of another size."""
        where = f" at byte {self.offset}" if self.offset else ""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                with Image.open(BytesIO(file.read(self.length))) as picture:
                    image = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.path}: no image can be read{where} ({error})") from error
        if self.inner != (0, 0) and image.shape[:2] != self.inner[::-1]:
            raise DataError(f"{self.path}: the image{where} is {image.shape[1]} x {image.shape[0]}, its calibration {self.inner[0]} x {self.inner[1]}")
        below, right = max(self.outer[1] - image.shape[0], 0), max(self.outer[0] - image.shape[1], 0)
        return np.pad(image, [(0, below), (0, right), (0, 0)]) if below or right else image


@dataclass(frozen=True)
class Log:
    """One recorded drive of S steps, `dt` apart; rear-axle poses, box centres, frame shifted by `origin`.

    Raises DataError, naming file and record, on what no drive can hold (`sanity`).
    """

    log_id: str
    source: str  # name of the dataset, as in configs/dataset
    split: str  # train, val or test
    files: tuple[Path, ...]  # that it was read from, images left out; errors name the first, those of the map the last
    absent: tuple[Path, ...] = field(default=(), kw_only=True)  # files and folders that are not read and yet decide what is there
    faults: tuple[str, ...] = field(default=(), kw_only=True)  # records of it that could not be read
    cut: bool = field(default=False, kw_only=True)  # whether records at its start or end are lost, nobody knows how many
    sound: bool = field(default=False, kw_only=True)  # of our recorder or under a checksum: bounds that tell damage of files do not apply
    dt: float  # s
    ego: EgoTrack  # S steps
    ego_size: tuple[float, float, float]  # m, length, width, height
    agents: Tracks | BoxTracks  # S steps, without the ego
    origin: Array  # (2,) m, recorded position of our zero
    make_map: Callable[[], RoadMap] | None = None  # in the shifted frame; None where the source has no map
    times: Array | None = None  # (S,) s on the log's own clock; None is dt apart from 0
    lights: Lights | None = None
    cameras: tuple[Camera, ...] = ()  # recorded ones; empty renders a front camera
    images: tuple[tuple[ImageRef | None, ...], ...] = ()  # of each camera, at each step
    language: Mapping[int, tuple[Question, ...]] = field(default_factory=dict)  # by step
    commands: tuple[Command, ...] = ()  # of each step, where the source records them
    route_lane_ids: tuple[str, ...] = ()  # where the source records them
    route: Route | None = None  # where it was found before; None finds it
    presents: tuple[int, ...] | None = None  # the steps that its protocol predicts from; None is every one
    breaks: tuple[int, ...] = ()  # steps before which frames are missing: no scenario reaches over one
    group: str = ""  # the drive that several Logs are cut from, whose scenarios are not independent; empty is the log itself
    notes: Mapping[str, Any] = field(default_factory=dict)
    step_notes: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # (S,) each; a Scenario's notes take the present's
    teachers: Array | None = None  # (S, PLAN_STEPS, 3) a teacher's plan at each step, ego frame, NaN where it gave none; None takes the driven future

    def __post_init__(self) -> None:
        sanity.check_log(self)

    @property
    def steps(self) -> int:
        """S."""
        return len(self.ego.poses_world)

    def time(self, step: int) -> float:
        """s of `step` on the log's own clock."""
        return float(self.times[step]) if self.times is not None else step * self.dt


def corridor_map(name: str, poses: Array) -> RoadMap:
    """A road around driven poses (S, 3), for privileged planners on a log without a map; never drawn."""
    path = find_route(RoadMap(name, {}, Polygons.from_rings([])), poses).centerline
    line = shapely.LineString(path[:, :2])
    ring = shapely.get_coordinates(shapely.get_exterior_ring(line.buffer(CORRIDOR).simplify(0.05)))[:-1]
    side = np.stack([-np.sin(path[:, 2]), np.cos(path[:, 2])], axis=-1) * 1.75
    lane = Lane("driven", path, path[:, :2] + side, path[:, :2] - side, 15.0)
    return RoadMap(name, {"driven": lane}, Polygons.from_rings([("driven", Layer.LANE, ring), ("corridor", Layer.DRIVABLE_AREA, ring)]))


@dataclass(frozen=True)
class Outline:
    """What tells, without its arrays, which steps of a log can be a present."""

    steps: int
    dt: float  # s
    presents: tuple[int, ...] | None = None  # the steps that its protocol predicts from; None is every one
    breaks: tuple[int, ...] = ()  # steps before which frames are missing

    @staticmethod
    def of(log: Log) -> Outline:
        """The outline of a log."""
        return Outline(log.steps, log.dt, log.presents, log.breaks)

    def chosen(self, stride_s: float, whole_future: bool) -> tuple[list[int], int]:
        """Steps that can be a present, and how many others would be but for missing frames around them.

        They are every `stride_s` seconds with a whole history, or those that the source's protocol names; `whole_future` leaves out those with less
        than 5 s after them.
        """
        history, future = round(HISTORY_S / self.dt), round(FUTURE_S / self.dt)
        stop = self.steps - (future if whole_future else 0)
        wanted = range(history, stop, max(round(stride_s / self.dt), 1)) if self.presents is None else [step for step in self.presents if step < stop]
        kept = [step for step in wanted if not any(step - history < at <= step + future for at in self.breaks)]
        return kept, len(wanted) - len(kept)


def _stamp(path: Path) -> tuple[int, int]:
    """Tells a file from what is written in its place; zeros where there is none, which reading it tells."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _kept(ref: ImageRef, stamp: tuple[int, int]) -> NDArray[np.uint8]:
    """A small image, read once for the scenes that share it; read-only."""
    image = ref.read()
    image.setflags(write=False)
    return image


class LogScenes:
    """One log's Scenarios; its map, route and images are made when first asked for."""

    def __init__(self, log: Log, render: tuple[Camera, ...] | None = None, cache_images: int = 512) -> None:
        """`render`: cameras to draw where the log has none; `cache_images` drawn frames are kept, least recently used ones go first."""
        self.log = log
        self.rendered = not log.cameras
        self.cameras = log.cameras or render or (Camera.front(),)
        self.history, self.future = round(HISTORY_S / log.dt), round(FUTURE_S / log.dt)
        self._frame = lru_cache(maxsize=cache_images if self.rendered else 0)(self._draw)

    @cached_property
    def road_map(self) -> RoadMap:
        """The map in the log's shifted frame; a corridor around the driven path where the source has none."""
        if self.log.make_map is None:
            return corridor_map(self.log.log_id, self.log.ego.poses_world)
        road_map = self.log.make_map()
        where, cure = (self.log.files[-1], sanity.DAMAGED) if self.log.files else (self.log.source, sanity.GIVEN)
        reach = np.inf if self.log.sound else sanity.MAP_REACH
        sanity.check_map(f"{where}: log {self.log.log_id}", road_map, self.log.ego.poses_world, cure, reach)
        return road_map

    @cached_property
    def route(self) -> Route:
        """The recorded lanes, or those under the whole log."""
        if self.log.route is not None:
            return self.log.route
        if self.log.make_map is None:
            path = self.road_map.lanes["driven"].centerline
            return Route(("driven",), path, (), 1.0)
        if self.log.route_lane_ids:
            return recorded_route(self.road_map, self.log.route_lane_ids, self.log.ego.poses_world)
        return find_route(self.road_map, self.log.ego.poses_world)

    @cached_property
    def _renderer(self):
        from drive.simulators.render import SceneRenderer  # compiles its kernels on import: paid only where images are asked for

        drawn = RoadMap(self.log.log_id, {}, Polygons.from_rings([])) if self.log.make_map is None else self.road_map
        return SceneRenderer(drawn, scenery=False)

    def image(self, camera: int, step: int, pose: Array | None = None) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of camera `camera` at `step` of the log, drawn from `pose` (3,) if given; read-only. Raises DataError on a missing image."""
        if self.rendered:
            return self._frame(camera, step, None if pose is None else tuple(map(float, pose)))
        ref = self.log.images[camera][step]
        if ref is None:
            raise DataError(f"{self.log.files[0]}: log {self.log.log_id} has no image of {self.cameras[camera].name} at step {step}")
        width, height = self.cameras[camera].width, self.cameras[camera].height
        return _kept(ref, _stamp(ref.path)) if width * height <= SMALL else ref.read()

    def _draw(self, camera: int, step: int, pose: tuple[float, ...] | None) -> NDArray[np.uint8]:
        agents = self.log.agents.steps(step, step + 1)
        seen = agents.valid[:, 0]
        eye = self.log.ego.poses_world[step] if pose is None else np.array(pose)
        image = self._renderer.render_rgb(self.cameras[camera], eye, agents.poses_world[seen, 0], agents.size[seen], agents.types[seen])
        image.setflags(write=False)
        return image

    def scenario(self, present: int) -> Scenario:
        """The Scenario around step `present` of the log. Raises DataError on a step that is not there."""
        log = self.log
        if not 0 <= present < log.steps:
            raise DataError(f"log {log.log_id} has the steps 0 to {log.steps - 1}, not {present}")
        start, stop = max(present - self.history, 0), min(present + self.future, log.steps - 1) + 1
        missing = self.history - (present - start)
        ego = prolonged(log.ego, start, stop, missing, log.dt)
        poses = log.ego.poses_world
        stride = round(PLAN_DT / log.dt)
        future = relative(poses[present], poses[present + stride : stop : stride])
        whole = stop - present - 1 == self.future
        command = log.commands[present] if log.commands else self.route.command(poses[present])
        return Scenario(
            id=f"{log.log_id}-{present:04d}",
            source=log.source,
            split=log.split,
            log_id=log.group or log.log_id,
            kind="stopped" if log.ego.state(present).speed < STOPPED else command.value,
            dt=log.dt,
            present=self.history,
            road_map=self.road_map,
            route_lane_ids=self.route.lane_ids,
            centerline_world=self.route.centerline,
            command=command,
            ego=ego,
            agents=_agents(log.agents, start, stop, missing),
            cameras=self.cameras,
            image_source=_Frames(self, present, missing, ego.poses_world[: self.history + 1]),
            frame_steps=tuple(round(second / log.dt) for second in FRAMES_S),
            teacher=self._teacher(present, future[:PLAN_STEPS] if whole else None),
            reference_world=poses[present:stop] if whole and abs(log.dt - REFERENCE_DT) < 1e-9 else None,
            reasoning=str(log.step_notes["reasoning"][present]) if "reasoning" in log.step_notes else "",
            lights=None if log.lights is None else log.lights.steps(start, stop, missing),
            language=log.language.get(present, ()),
            time_s=log.time(present),
            notes={
                "origin_world": log.origin.tolist(),
                "ego_size": log.ego_size,
                "log_step": present,
                "route_matched": self.route.matched,
                "prolonged_steps": missing,
                **({"map": "corridor"} if log.make_map is None else {}),
                **log.notes,
                **{key: values[present] for key, values in log.step_notes.items()},
            },
        )

    def _teacher(self, present: int, driven: Array | None) -> Trajectory | None:
        """The recorded teacher's plan where there are such plans, else what was driven."""
        poses = driven if self.log.teachers is None else self.log.teachers[present]
        return None if poses is None or not np.isfinite(poses).all() else Trajectory(poses, PLAN_DT)


@dataclass(frozen=True)
class _Frames:
    """The camera frames of a Scenario up to its present; later ones are not given."""

    scenes: LogScenes
    present: int  # step of the log
    missing: int  # steps before the log's start
    poses: Array  # (history + 1, 3) of the ego at the frames, the present last

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) of `camera` at `step` of the scenario's clock; before the log's start, its first frame. Raises DataError after the present."""
        last = len(self.poses) - 1
        if not 0 <= step <= last:
            raise DataError(f"log {self.scenes.log.log_id}: camera frames exist at steps 0 to {last}, not at {step}")
        return self.scenes.image(camera, max(self.present - last + step, 0), self.poses[step] if step < self.missing else None)


def _agents(tracks: Tracks | BoxTracks, start: int, stop: int, missing: int) -> Tracks:
    """The agents seen in steps start..stop-1, absent in the `missing` steps in front."""
    cut = tracks.steps(start, stop)
    cut = cut.subset(np.flatnonzero(cut.valid.any(axis=1)))
    if not missing:
        return cut
    front = [(0, 0), (missing, 0)]
    poses, velocity = (np.pad(values, [*front, (0, 0)]) for values in (cut.poses_world, cut.velocity_world))
    return Tracks(cut.ids, cut.types, cut.size, poses, velocity, np.pad(cut.valid, front))


def prolonged(ego: EgoTrack, start: int, stop: int, missing: int, dt: float) -> EgoTrack:
    """Steps start..stop-1 with `missing` steps in front, driven at the first one's speed and yaw rate."""
    cut = slice(start, stop)
    poses, velocity = ego.poses_world[cut], ego.velocity_ego[cut]
    back = []
    pose = poses[0]
    for _ in range(missing):
        turn = -ego.yaw_rate[start] * dt
        pose = compose(pose, np.array([-velocity[0, 0] * dt * np.cos(turn / 2), -velocity[0, 0] * dt * np.sin(turn / 2), turn]))
        pose[2] = wrap_angle(pose[2])
        back.insert(0, pose)

    def held(values: Array) -> Array:
        return np.concatenate([np.repeat(values[:1], missing, axis=0), values])

    whole = np.concatenate([np.reshape(back, (missing, 3)), poses])
    return EgoTrack(whole, held(velocity), held(ego.acceleration_ego[cut]), held(ego.yaw_rate[cut]))
