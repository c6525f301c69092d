"""Scenarios from nuScenes' own tables: one for every key frame, at 2 Hz, with whatever future the log still has.

Frame: shifted by the ego's first position, rounded down to whole metres. The ego pose is nuScenes': the rear axle, that of the lidar's
key frame. Motion at a key frame comes from the CAN bus where its files are there (the last message before it), else from the steps before
it (the first of a scene then has none: 0); never from later ones. The first 1.5 s of a scene lack a history: it is prolonged backwards at constant speed, and `notes` tell
how many frames. The tables hold no vector map: the centreline is the driven path, no lane is known, the command is always LANEFOLLOW
(what a route would say cannot be had without reading the future), and privileged planners get a corridor around the driven path
for a road. Cameras are rendered from the boxes unless `camera` names one of nuScenes', whose image files are then read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from drive.core.errors import DataError
from drive.core.geometry import compose, relative, wrap_angle
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import PLAN_DT, PLAN_STEPS, Camera, Command, EgoTrack, Scenario, Tracks, Trajectory
from drive.datasets.nuscenes_tables import LIDAR, NuScenesTables, SceneRecords, agent_type
from drive.datasets.route import find_route
from drive.datasets.scenarionet_log import central_velocity
from drive.datasets.splits import NUSCENES_MINI, choose_logs, fingerprint

Array = NDArray[np.float64]
DT = 0.5  # s between key frames
HISTORY, FUTURE = 3, PLAN_STEPS  # key frames before the present, and at most after it
CORRIDOR = 5.0  # m to either side of the driven path
STOPPED = 0.3  # m/s
LATE = 100_000  # us between a key frame and the last CAN message before it; a scene's first message may come as late


def official_splits(version: str) -> Mapping[str, Sequence[str]]:
    """Scene names of train and test (nuScenes' val, as papers use it). Raises DataError where the devkit with the lists is not installed."""
    if "mini" in version:
        return NUSCENES_MINI
    try:
        from nuscenes.utils.splits import create_splits_scenes  # type: ignore[import-not-found]
    except ImportError:
        raise DataError(f"the splits of {version} stand in nuscenes-devkit: pip install 'drive-vla[nuscenes]'") from None
    splits = create_splits_scenes()
    return {"train": splits["train"], "test": splits["val"]}


@dataclass(frozen=True)
class NuScenesLog:
    """One scene as arrays, in its shifted frame."""

    name: str
    tokens: tuple[str, ...]  # of the S samples
    times: Array  # (S,) s since the first
    ego: EgoTrack  # S steps
    agents: Tracks  # S steps
    lidar_from_ego: Array  # (4, 4)
    files: tuple[str, ...]  # image of each step, empty where the camera is rendered
    camera: Camera
    root: Path

    @cached_property
    def road_map(self) -> RoadMap:
        """A corridor around the driven path, for privileged planners alone; never drawn."""
        path = find_route(RoadMap(self.name, {}, Polygons.from_rings([])), self.ego.poses_world).centerline
        line = shapely.LineString(path[:, :2])
        ring = shapely.get_coordinates(shapely.get_exterior_ring(line.buffer(CORRIDOR).simplify(0.05)))[:-1]
        side = np.stack([-np.sin(path[:, 2]), np.cos(path[:, 2])], axis=-1) * 1.75
        lane = Lane("driven", path, path[:, :2] + side, path[:, :2] - side, 15.0)
        return RoadMap(self.name, {"driven": lane}, Polygons.from_rings([("driven", Layer.LANE, ring), ("corridor", Layer.DRIVABLE_AREA, ring)]))

    @cached_property
    def _renderer(self):
        from drive.simulators.render import SceneRenderer  # compiles its kernels on import: paid only where images are asked for

        return SceneRenderer(RoadMap(self.name, {}, Polygons.from_rings([])), scenery=False)

    def image(self, step: int, ego_pose: Array) -> NDArray[np.uint8]:
        """RGB (H, W, 3) at key frame `step`, seen from `ego_pose` (3,). Raises DataError, naming the file, where it cannot be read."""
        if self.files:
            path = self.root / self.files[step]
            try:
                with Image.open(path) as picture:
                    return np.asarray(picture.convert("RGB"))
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: no image can be read ({error})") from error
        seen = self.agents.valid[:, step]
        return self._renderer.render_rgb(self.camera, ego_pose, self.agents.poses_world[seen, step], self.agents.size[seen], self.agents.types[seen])


@dataclass(frozen=True)
class KeyFrames:
    """The frames of one scenario up to its present, the first one repeated before the scene's start."""

    log: NuScenesLog
    present: int  # step of the log
    poses: Array  # (HISTORY + 1, 3) of the ego at the frames, the present last

    def image(self, camera: int, step: int) -> NDArray[np.uint8]:
        """RGB (H, W, 3) at `step` of the scenario's clock. Raises DataError on a step after the present."""
        if not 0 <= step <= HISTORY or camera:
            raise DataError(f"scene {self.log.name}: one camera at steps 0 to {HISTORY}, not camera {camera} at {step}")
        return self.log.image(max(self.present - HISTORY + step, 0), self.poses[step])


def read_log(tables: NuScenesTables, token: str, camera: str = "") -> NuScenesLog:
    """The scene `token`; `camera` is a channel, or empty for a rendered front camera.

    Raises DataError, naming file and record, on a broken chain, NaN, an annotation without its instance, a missing image.
    """
    scene = tables.scene(token)
    poses = np.stack([tables.flat_pose("ego_pose", tables.get("ego_pose", frame[LIDAR]["ego_pose_token"])) for frame in scene.data])
    stamps = [sample["timestamp"] for sample in scene.samples]
    origin = np.floor(poses[0, :2])
    poses[:, :2] -= origin
    lidar = tables.get("calibrated_sensor", scene.data[0][LIDAR]["calibrated_sensor_token"])
    files, seen_by = _camera(tables, scene, camera)
    return NuScenesLog(
        name=scene.name,
        tokens=tuple(sample["token"] for sample in scene.samples),
        times=(np.array(stamps) - stamps[0]) * 1e-6,
        ego=_ego(tables, scene, poses, stamps),
        agents=_agents(tables, scene, origin),
        lidar_from_ego=np.asarray(np.linalg.inv(tables.pose("calibrated_sensor", lidar)), np.float64),
        files=files,
        camera=seen_by,
        root=tables.root,
    )


def _camera(tables: NuScenesTables, scene: SceneRecords, channel: str) -> tuple[tuple[str, ...], Camera]:
    if not channel:
        return (), Camera.front()
    files = []
    for sample, frame in zip(scene.samples, scene.data):
        if channel not in frame:
            raise DataError(
                f"{tables.folder}/sample_data.json: sample {sample['token']} of {scene.name} has no key frame of {channel}; it has {', '.join(sorted(frame))}"
            )
        files.append(frame[channel]["filename"])
    missing = [file for file in files if not (tables.root / file).is_file()]
    if missing:
        raise DataError(
            f"{tables.root / missing[0]} is missing, and so are {len(missing) - 1} more of the {len(files)} images of {scene.name}: fetch them, or let "
            "dataset.camera='' render"
        )
    record = scene.data[0][channel]
    calibrated = tables.get("calibrated_sensor", record["calibrated_sensor_token"])
    pose = tables.pose("calibrated_sensor", calibrated)
    try:
        intrinsics = np.array(calibrated["camera_intrinsic"], float).reshape(3, 3)
    except (TypeError, ValueError) as error:
        raise DataError(f"{tables.folder}/calibrated_sensor.json: record {calibrated['token']} has no intrinsics ({error})") from error
    return tuple(files), Camera(channel, record["width"], record["height"], intrinsics, pose)


def _ego(tables: NuScenesTables, scene: SceneRecords, poses: Array, stamps: Sequence[int]) -> EgoTrack:
    """Motion from the CAN bus, or from the steps before each key frame."""
    path = tables.root / "can_bus" / f"{scene.name}_pose.json"
    if path.is_file():
        return EgoTrack(poses, *_can_motion(path, stamps))
    step = relative(poses[:-1], poses[1:])
    spans = np.diff(stamps) * 1e-6
    speed = np.concatenate([[0.0], step[:, 0] / spans])
    rate = np.concatenate([[0.0], step[:, 2] / spans])
    gain = np.concatenate([[0.0], np.diff(speed) / spans])
    gain[1:2] = 0.0  # the first key frame has nothing before it: its motion is unknown, and stands as 0
    zero = np.zeros(len(poses))
    return EgoTrack(poses, np.column_stack([speed, zero]), np.column_stack([gain, zero]), rate)


def _can_motion(path: Path, stamps: Sequence[int]) -> tuple[Array, Array, Array]:
    """Velocity (S, 2), acceleration (S, 2) and yaw rate (S,) of the last message before each stamp, in us.

    A scene's first message may come up to LATE after its first key frame, which it then stands for. Raises DataError, naming file
    and key frame, where messages are missing. Accelerations are means over
    the 0.5 s before: single readings shake.
    """
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))
        times = np.array([message["utime"] for message in messages], np.int64)
        values = np.array([[*m["vel"][:2], *m["accel"][:2], m["rotation_rate"][2]] for m in messages], np.float64)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} cannot be read as CAN pose messages ({error!r})") from error
    if not len(times) or not np.isfinite(values).all() or (np.diff(times) < 0).any():
        raise DataError(f"{path} holds no message, NaN, or times that run backwards")
    last = np.maximum(np.searchsorted(times, np.asarray(stamps), side="right") - 1, 0)
    age = np.abs(np.asarray(stamps) - times[last])
    if age.max() > LATE:
        raise DataError(f"{path} has no message within {LATE / 1e6} s of the key frame at {stamps[int(age.argmax())]} us: it is of another scene, or cut")
    first = np.minimum(np.searchsorted(times, np.asarray(stamps) - round(DT * 1e6)), last)
    mean = np.stack([values[a : b + 1, 2:4].mean(axis=0) for a, b in zip(first, last)])
    return values[last, :2], mean, values[last, 4]


def _agents(tables: NuScenesTables, scene: SceneRecords, origin: Array) -> Tracks:
    """The annotated boxes as tracks; sizes are medians, velocities differences over a neighbour to either side where there is one."""
    steps = len(scene.samples)
    rows: dict[str, int] = {}
    poses, valid, sizes, types = [], [], [], []
    for step, records in enumerate(scene.annotations):
        for record in records:
            token = record["instance_token"]
            if token not in rows:
                rows[token] = len(rows)
                category = tables.get("category", tables.get("instance", token)["category_token"])["name"]
                types.append(agent_type(category))
                poses.append(np.zeros((steps, 3)))
                valid.append(np.zeros(steps, bool))
                sizes.append([])
            row = rows[token]
            poses[row][step] = tables.flat_pose("sample_annotation", record) - [*origin, 0.0]
            valid[row][step] = True
            sizes[row].append(record["size"])
    if not rows:
        return Tracks.empty(steps)
    size = np.stack([_size(tables, token, s) for token, s in zip(rows, sizes)])
    pose, mask = np.stack(poses), np.stack(valid)
    return Tracks(tuple(rows), np.array(types, np.int64), size, pose, central_velocity(pose[..., :2], mask, DT), mask)


def _size(tables: NuScenesTables, instance: str, boxes: Sequence[Sequence[float]]) -> Array:
    """(3,) median length, width, height, m, of an instance's boxes, which write the width first."""
    try:
        size = np.median(np.array(boxes, np.float64).reshape(-1, 3), axis=0)[[1, 0, 2]]
    except (TypeError, ValueError):
        size = np.zeros(3)
    if not (np.isfinite(size) & (size > 0.0)).all():
        raise DataError(f"{tables.folder}/sample_annotation.json: instance {instance} has a box without a size")
    return size


def scenario_at(log: NuScenesLog, present: int, split: str) -> Scenario:
    """The Scenario of key frame `present` of a log."""
    stop = min(present + FUTURE, len(log.tokens) - 1) + 1
    start = max(present - HISTORY, 0)
    missing = HISTORY - (present - start)
    ego = _prolonged(log.ego, start, stop, missing)
    agents = log.agents.steps(start, stop)
    seen = np.flatnonzero(agents.valid.any(axis=1))
    pad = [(0, 0), (missing, 0)]
    agents = Tracks(
        agents.ids, agents.types, agents.size,
        np.pad(agents.poses_world, [*pad, (0, 0)]), np.pad(agents.velocity_world, [*pad, (0, 0)]), np.pad(agents.valid, pad),
    ).subset(seen)  # fmt: skip
    future = relative(log.ego.poses_world[present], log.ego.poses_world[present + 1 : stop])
    return Scenario(
        id=f"{log.name}-{present:03d}",
        source="nuscenes",
        split=split,
        log_id=log.name,
        kind="stopped" if log.ego.state(present).speed < STOPPED else "driving",
        dt=DT,
        present=HISTORY,
        road_map=log.road_map,
        route_lane_ids=("driven",),
        centerline_world=log.road_map.lanes["driven"].centerline,
        command=Command.LANEFOLLOW,
        ego=ego,
        agents=agents,
        cameras=(log.camera,),
        image_source=KeyFrames(log, present, ego.poses_world[: HISTORY + 1]),
        frame_steps=tuple(range(-HISTORY, 1)),
        teacher=Trajectory(future, PLAN_DT) if len(future) == PLAN_STEPS else None,
        time_s=float(log.times[present]),
        notes={"sample_token": log.tokens[present], "prolonged_frames": missing, "map": "corridor", "lidar_from_ego": log.lidar_from_ego.tolist()},
    )


def _prolonged(ego: EgoTrack, start: int, stop: int, missing: int) -> EgoTrack:
    """Steps start..stop-1 with `missing` steps in front, driven at the first one's speed and yaw rate."""
    cut = slice(start, stop)
    poses, velocity = ego.poses_world[cut], ego.velocity_ego[cut]
    back = []
    pose = poses[0]
    for _ in range(missing):
        turn = -ego.yaw_rate[start] * DT
        pose = compose(pose, np.array([-velocity[0, 0] * DT * np.cos(turn / 2), -velocity[0, 0] * DT * np.sin(turn / 2), turn]))
        pose[2] = wrap_angle(pose[2])
        back.insert(0, pose)

    def held(values: Array) -> Array:
        return np.concatenate([np.repeat(values[:1], missing, axis=0), values])

    return EgoTrack(np.concatenate([np.reshape(back, (missing, 3)), poses]), held(velocity), held(ego.acceleration_ego[cut]), held(ego.yaw_rate[cut]))


class NuScenesDataset(Sequence[Scenario]):
    """Scenarios of one split, one per key frame, in order of scene and time."""

    def __init__(self, root: str | Path, split: str, version: str = "v1.0-trainval", camera: str = "") -> None:
        """Reads the tables and every scene of `split`; images are made when asked for.

        A scene that cannot be read is kept in `faults`, which name file and record, and its samples count in `expected`.
        Raises DataError on tables that cannot be read, and on a split without a readable scene.
        """
        split = "test" if split == "val" else split  # nuScenes' val is what papers test on
        self.tables, self.split, self.camera = NuScenesTables(root, version), split, camera
        scenes = {record["name"]: token for token, record in self.tables.table("scene").items()}
        chosen = choose_logs(official_splits(version), split, scenes)
        self.logs: list[NuScenesLog] = []
        self.faults: list[str] = []
        self.expected = 0
        short = FUTURE if split == "train" else 0  # training imitates whole plans: key frames with less future are for evaluation alone
        for name in chosen:
            count = self.tables.get("scene", scenes[name])["nbr_samples"]
            self.expected += max(count - short, 0) if isinstance(count, int) else 1
            try:
                self.logs.append(read_log(self.tables, scenes[name], camera))
            except DataError as error:
                self.faults.append(str(error))
        if not self.logs:
            raise DataError(f"{self.tables.folder} has no readable scene of the split {split!r}: {'; '.join(self.faults[:3]) or 'none is there'}")
        self._at = [(log, step) for log in self.logs for step in range(len(log.tokens) - short)]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over split, camera, the version's tables and the CAN files of the split's scenes; images are not read for it."""
        can = [self.tables.root / "can_bus" / f"{log.name}_pose.json" for log in self.logs]
        files = [*self.tables.folder.glob("*.json"), *(path for path in can if path.is_file())]
        return hashlib.sha256(f"{self.split} {self.camera} {fingerprint(self.tables.root, files)}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`."""
        log, step = self._at[index]
        return scenario_at(log, step, self.split)

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))
