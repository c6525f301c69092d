"""Recording a drive, in CARLA or in the embedded world, as a log of the Arrow cache: what a simulator shows, a dataset reads (`dataset=cache`).

The recorder takes drive's own words, so the simulator's frame is converted where drive talks to it, and nowhere else. What no log can hold is
refused at the step that brings it, and costs nothing of the drive before it; a teleport of the ego is a break, which no scenario reaches over.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.core.files import atomic_write_bytes, atomic_write_text
from drive.core.geometry import interpolate_poses
from drive.core.roadmap import RoadMap
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, Command, EgoState, EgoTrack, Plan, Tracks
from drive.datasets import arrow_log, sanity
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.convert import CARD, INDEX, LOGS, CacheReader, append, end_line, record_of
from drive.datasets.logs import ImageRef, Log

IMAGES = "images"


class LogRecorder:
    """Collects one drive step by step; `close` writes it into the cache folder `out`, beside those that are there."""

    def __init__(
        self,
        out: str | Path,
        log_id: str,
        source: str,
        split: str,
        dt: float,
        ego_size: tuple[float, float, float],
        cameras: tuple[Camera, ...] = (),
        road_map: RoadMap | None = None,
        route_lane_ids: tuple[str, ...] = (),
    ) -> None:
        """`source` is the simulator ("carla", "embedded"), `dt` the seconds between steps; without `cameras`, readers render a front camera.

        route_lane_ids: the lanes that were to be driven; without them readers take those under the driven poses.

        Raises DataError where `out` holds converted logs of a source, or a log of this name, and on NaN in the map, a camera, or the ego's size.
        """
        if not log_id or Path(log_id).name != log_id or log_id.startswith("."):
            raise DataError(f"a recording's name becomes a folder: {log_id!r} is no name of one")
        if not (dt > 0.0 and all(0.0 < side < np.inf for side in ego_size)):
            raise DataError(f"recording {log_id}: a drive has steps of {dt} s, and an ego of {' x '.join(map(str, ego_size))} m: give sizes above 0")
        for camera in cameras:
            if not (np.isfinite(camera.intrinsics).all() and np.isfinite(camera.ego_from_camera).all()):
                raise DataError(f"recording {log_id}: the calibration of camera {camera.name} has NaN or infinity")
        if road_map is not None:
            sanity.check_map(f"recording {log_id}", road_map, np.zeros((1, 2)), sanity.GIVEN, np.inf)
        self.out, self.log_id, self.source, self.split, self.dt = Path(out), log_id, source, split, dt
        self.ego_size, self.cameras, self.road_map, self.route_lane_ids = ego_size, cameras, road_map, route_lane_ids
        self._egos: list[EgoState] = []
        self._rows: dict[str, int] = {}  # of the agents seen, by id
        self._first: list[tuple[int, NDArray[np.float64]]] = []  # type and size of each, as first seen
        self._boxes: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []  # rows and poses of each step
        self._commands: list[Command] = []
        self._taught: list[tuple[Plan | None, bool]] = []
        self._left_out = 0  # boxes without a place or a size
        self.card = {"format": arrow_log.FORMAT, "source": "recordings", "root": ".", "settings": {}}
        if (self.out / CARD).is_file() and json.loads((self.out / CARD).read_text(encoding="utf-8")) != self.card:
            raise DataError(f"{self.out} holds converted logs: record into another folder")
        known = {entry.log_id for entry in CacheReader().find(self.out)} if (self.out / INDEX).is_file() else set()
        if log_id in known or (self.out / IMAGES / log_id).exists():
            raise DataError(f"{self.out} holds a recording {log_id!r}, or images of one: give this one another name")

    def add(
        self,
        ego: EgoState,
        agents: Tracks,
        command: Command,
        images: NDArray[np.uint8] | None = None,
        teacher: Plan | None = None,
        complex_scene: bool = False,
    ) -> None:
        """One step: the ego, the agents at step 0 of `agents`, the route command, and RGB images (C, H, W, 3) where cameras are recorded.

        `teacher` is what a teacher would do here, with its reasoning: SFT on the recording imitates it, and no longer what was driven.

        Boxes without a size or a finite place are left out, and counted in the log's notes. Raises DataError, and records nothing of the step, on
        an ego that is not finite, a time that is not later than the step before (where any step has one), and another number of images.
        """
        where = f"recording {self.log_id}, step {len(self._egos)}"
        if (images is None) != (not self.cameras) or (images is not None and len(images) != len(self.cameras)):
            raise DataError(f"recording {self.log_id}: {len(self.cameras)} cameras want as many images a step, got {0 if images is None else len(images)}")
        if not np.isfinite([*ego.pose_world, *ego.velocity_ego, *ego.acceleration_ego, ego.yaw_rate, ego.time_s]).all():
            raise DataError(f"{where}: the ego's pose, motion or time is NaN or infinite")
        told = [state.time_s for state in (*self._egos[:2], ego)]  # all at 0: the caller tells no times
        if self._egos and any(told) and (ego.time_s <= self._egos[-1].time_s or (len(self._egos) > 1 and told[0] == told[1])):
            raise DataError(f"{where}: its time of {ego.time_s} s does not follow that of the step before, {self._egos[-1].time_s} s")
        for camera, image in zip(self.cameras, images if images is not None else ()):
            buffer = BytesIO()
            Image.fromarray(image).save(buffer, "PNG", compress_level=1)
            atomic_write_bytes(self._image(camera, len(self._egos)), buffer.getvalue())
        self._egos.append(ego)
        self._taught.append((teacher, complex_scene))
        there = agents.valid[:, 0]
        sound = np.isfinite(agents.poses_world[:, 0]).all(axis=1) & ((agents.size > 0.0) & (agents.size < np.inf)).all(axis=1)
        self._left_out += int((there & ~sound).sum())
        seen = np.flatnonzero(there & sound)
        for k in seen:
            if agents.ids[k] not in self._rows:
                self._rows[agents.ids[k]] = len(self._rows)
                self._first.append((int(agents.types[k]), agents.size[k].copy()))
        self._boxes.append((np.array([self._rows[agents.ids[k]] for k in seen], np.int64), agents.poses_world[seen, 0]))
        self._commands.append(command)

    def _image(self, camera: Camera, step: int) -> Path:
        return self.out / IMAGES / self.log_id / camera.name / f"{step:06d}.png"

    def close(self) -> Path:
        """Write the log, and return its file. Raises DataError on a recording of fewer than two steps."""
        if len(self._egos) < 2:
            raise DataError(f"recording {self.log_id} has {len(self._egos)} steps: a log has at least two")
        log = self._log()
        self.out.mkdir(parents=True, exist_ok=True)
        content = arrow_log.pack(log, self.out)
        name = arrow_log.digest(content)
        path = atomic_write_bytes(self.out / LOGS / f"{name}{arrow_log.SUFFIX}", content)
        record = record_of(log, self.log_id, "", [], name, len(content))
        with (self.out / INDEX).open("ab+") as index:
            end_line(index)
            append(index, record)
        atomic_write_text(self.out / CARD, json.dumps(self.card))
        return path

    def _log(self) -> Log:
        poses = np.stack([ego.pose_world for ego in self._egos])
        origin = np.floor(poses[0, :2])
        poses[:, :2] -= origin
        track = EgoTrack(
            poses,
            np.stack([ego.velocity_ego for ego in self._egos]),
            np.stack([ego.acceleration_ego for ego in self._egos]),
            np.array([ego.yaw_rate for ego in self._egos]),
        )
        times = np.array([ego.time_s for ego in self._egos])
        if not times.any():
            times = self.dt * np.arange(len(poses), dtype=np.float64)
        road_map = None if self.road_map is None else self.road_map.shifted(-origin)
        return Log(
            log_id=self.log_id,
            source=self.source,
            split=self.split,
            files=(self.out / self.log_id,),
            dt=self.dt,
            ego=track,
            ego_size=self.ego_size,
            agents=self._tracks(origin),
            origin=origin,
            make_map=None if road_map is None else lambda: road_map,
            times=times,
            sound=True,  # `add` has looked
            breaks=tuple(sanity.jumps(poses, times).tolist()),
            cameras=self.cameras,
            images=tuple(tuple(ImageRef(self._image(camera, step)) for step in range(len(poses))) for camera in self.cameras),
            commands=tuple(self._commands),
            route_lane_ids=self.route_lane_ids,
            notes={"left_out_boxes": self._left_out} if self._left_out else {},
            **self._teaching(),
        )

    def _teaching(self) -> dict[str, Any]:
        """The teacher's part of the log; nothing where no step had one."""
        if not any(plan for plan, _ in self._taught):
            return {}
        plans = np.full((len(self._taught), PLAN_STEPS, 3), np.nan)
        for k, (plan, _) in enumerate(self._taught):
            if plan is not None and plan.trajectory is not None:
                path = plan.trajectory.to_ego(self._egos[k].pose_world)
                if path.times[-1] < PLAN_DT * PLAN_STEPS - 1e-6:
                    raise DataError(f"recording {self.log_id}: the teacher's plans reach {path.times[-1]:g} s ahead, SFT imitates {PLAN_DT * PLAN_STEPS:g} s")
                poses = np.concatenate([np.zeros((1, 3)), path.poses])
                plans[k] = interpolate_poses(np.concatenate([[0.0], path.times]), poses, PLAN_DT * np.arange(1, PLAN_STEPS + 1))
        notes = {"reasoning": [plan.reasoning if plan else "" for plan, _ in self._taught], "complex": [told for _, told in self._taught]}
        asked = tuple(np.flatnonzero(np.isfinite(plans).all(axis=(1, 2))).tolist())  # from the first step on: it is how a drive begins
        return {"teachers": plans, "step_notes": notes, "presents": asked}

    def _tracks(self, origin: NDArray[np.float64]) -> Tracks | BoxTracks:
        """The agents of all steps, by id; sizes and types as first seen, velocities from positions."""
        if not self._rows:
            return Tracks.empty(len(self._boxes))
        step = np.repeat(np.arange(len(self._boxes)), [len(rows) for rows, _ in self._boxes])
        row, poses = np.concatenate([rows for rows, _ in self._boxes]), np.concatenate([poses for _, poses in self._boxes]) - [*origin, 0.0]
        types, size = np.array([kind for kind, _ in self._first], np.int64), np.stack([size for _, size in self._first])
        return BoxTracks.moving(tuple(self._rows), types, size, step, row, poses, self.dt)
