"""NAVSIM and OpenScene logs (Dauner et al. 2024): pickles of frames at 2 Hz cut from nuPlan, read without running what they say.

What the keys mean is read from OpenScene's create_openscene_metadata.py: boxes in the ego frame, velocities in the lidar's, and
`sensor2lidar_*` of a camera holding, for all its name, nuPlan's camera pose in the ego frame. A traffic light is recorded as red or not red;
the latter counts as green, as NAVSIM itself takes it. The recorded command is left, forward, right or unknown, from the route 20 m ahead.

Scenarios stay at 2 Hz: the PDM score interpolates agents and reference to 10 Hz as NAVSIM's metric cache does. NAVSIM's map query knows no
generic_drivable_areas, so they are left out.

A filter with second-stage scenes (navhard) reads those too, one at a time, where its mapping file is at hand: their agents go on after the ego's
last pose, so that `Scenario.agents` and `Scenario.lights` have more steps than `Scenario.ego`, whose last is the present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.core.quaternion import heading, rotation_matrix
from drive.core.roadmap import RoadMap
from drive.core.types import Camera, Command, EgoTrack, Lights, LightState, Scenario, Tracks
from drive.datasets import sanity
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.logged import Entry, Inspection, LogDataset, split_of_path, walk
from drive.datasets.logs import HISTORY_S, ImageRef, Log, Outline
from drive.datasets.motion import driven
from drive.datasets.navsim_splits import SceneFilter, read_scene_filter
from drive.datasets.navsim_synthetic import FOLDER, SENSORS, SyntheticScene, planned_lanes, read_synthetic
from drive.datasets.nuplan import EGO_SIZE, blob_path, breaks_of, make_tracks, refuse_unknown
from drive.datasets.nuplan_map import map_file, read_road_map, route_lanes
from drive.datasets.unpickle import load_plain_pickle

Array = NDArray[np.float64]
STEP_S = 0.5
SECOND_STAGE = "second stage"  # key of the Entry of such a scene
UNUSED = "openscene_meta_datas"  # folder beside the second-stage scenes that no script of NAVSIM reads for their score
MAP_SLACK = 40.0  # m from a drive within which its map, read 150 m around it, still holds the 100 m that a score looks at
IMAGE_SIZE = (1920, 1080)  # pixels, of every camera of nuPlan; the pickles do not tell it
COMMANDS = (Command.LEFT, Command.STRAIGHT, Command.RIGHT, Command.LANEFOLLOW)  # of the one-hot; the last is "unknown"
ANGULAR_RATE_Z = 15  # in can_bus
FRAME_KEYS = (
    "token",
    "timestamp",
    "log_name",
    "map_location",
    "roadblock_ids",
    "ego2global_translation",
    "ego2global_rotation",
    "ego_dynamic_state",
    "driving_command",
)
BOX_KEYS = ("gt_boxes", "gt_names", "gt_velocity_3d", "track_tokens")


def read_frames(path: Path) -> list[Mapping[str, Any]]:
    """The frames of a log pickle, in order of time. Raises DataError, naming the frame, where it is refused, or lacks a key of a frame."""
    content = load_plain_pickle(path)
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} is no NAVSIM log: want a list of frames")
    for index, frame in enumerate(content):
        missing = [key for key in FRAME_KEYS if key not in frame] if isinstance(frame, dict) else list(FRAME_KEYS)
        if missing:
            raise DataError(f"{path}: frame {index} lacks {', '.join(missing)}: it is no log of NAVSIM")
    stamps = _array(path, content, "timestamp", ())
    if (np.diff(stamps) <= 0).any():
        raise DataError(f"{path}: frame {int(np.argmax(np.diff(stamps) <= 0)) + 1} is not later than the one before")
    return content


def _array(path: Path, frames: Sequence[Mapping[str, Any]], key: str, shape: tuple[int, ...]) -> Array:
    """(S, *shape) of one key. Raises DataError, naming the frame, on another shape and on NaN."""
    out = np.zeros((len(frames), *shape))
    for index, frame in enumerate(frames):
        try:
            value = np.asarray(frame[key], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: {key} of frame {index} is not there, or no numbers ({error})") from error
        if value.shape != shape or not np.isfinite(value).all():
            raise DataError(f"{path}: {key} of frame {index} has shape {value.shape}, want {shape}, all finite")
        out[index] = value
    return out


def _ego(path: Path, frames: Sequence[Mapping[str, Any]], turns: Array, places: Array) -> EgoTrack:
    """The recorded motion; the yaw rate is that of can_bus, or where a file has none that of the step before."""
    motion = _array(path, frames, "ego_dynamic_state", (4,))
    poses = np.column_stack([places[:, :2], heading(turns)])
    if all("can_bus" in frame for frame in frames):
        yaw_rate = _array(path, frames, "can_bus", (18,))[:, ANGULAR_RATE_Z]
    else:
        stamps = _array(path, frames, "timestamp", ()) * 1e-6
        yaw_rate = np.concatenate([[0.0], wrap_angle(np.diff(poses[:, 2])) / np.diff(stamps)])
    return EgoTrack(poses, motion[:, :2], motion[:, 2:], yaw_rate)


def _agents(path: Path, frames: Sequence[Mapping[str, Any]], turns: Array, places: Array, origin: Array) -> Tracks | BoxTracks:
    """The annotated boxes in the shifted frame; none where a split keeps its annotations back."""
    tokens: dict[str, int] = {}
    names, row, step, box, speed = [], [], [], [], []
    for k, frame in enumerate(frames):
        found = frame.get("anns")
        if found is None:
            continue
        boxes, velocity, tracks, kinds = _boxes(path, k, found)
        lidar = rotation_matrix(np.asarray(frame.get("lidar2ego_rotation", (1.0, 0.0, 0.0, 0.0)), np.float64))
        centre = boxes[:, :3] @ turns[k].T + places[k]
        facing = wrap_angle(boxes[:, 6] + heading(turns[k]))
        for track, kind in zip(tracks, kinds):
            if track not in tokens:
                tokens[track] = len(tokens)
                names.append(kind)
        row += [tokens[track] for track in tracks]
        step += [k] * len(tracks)
        box.append(np.column_stack([centre[:, :2] - origin, facing, boxes[:, 3:6]]))
        speed.append((velocity @ (turns[k] @ lidar).T)[:, :2])
    if not row:
        return Tracks.empty(len(frames))
    return make_tracks(
        tuple(tokens), names, np.array(row), np.array(step), np.concatenate(box), np.concatenate(speed), len(frames), STEP_S
    )


def _boxes(path: Path, k: int, found: Any) -> tuple[Array, Array, list[str], list[str]]:
    """Boxes (N, 7), velocities (N, 3), track tokens and categories of frame `k`."""
    try:
        boxes = np.asarray(found["gt_boxes"], np.float64).reshape(-1, 7)
        velocity = np.asarray(found["gt_velocity_3d"], np.float64).reshape(-1, 3)
        tracks, kinds = ([str(value) for value in found[key]] for key in ("track_tokens", "gt_names"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: anns of frame {k} want {', '.join(BOX_KEYS)} ({error!r})") from error
    if not len(boxes) == len(velocity) == len(tracks) == len(kinds):
        raise DataError(
            f"{path}: anns of frame {k} hold {len(boxes)} boxes, {len(velocity)} velocities, {len(tracks)} tracks and {len(kinds)} names"
        )
    refuse_unknown(path, kinds)
    if not np.isfinite(boxes).all() or (boxes[:, 3:6] <= 0.0).any():
        bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 3:6] <= 0.0).any(axis=1)
        raise DataError(f"{path}: box {int(bad.argmax())} of frame {k} has NaN, or no size")
    return boxes, velocity, tracks, kinds


def _lights(path: Path, frames: Sequence[Mapping[str, Any]]) -> Lights:
    found: list[tuple[str, int, LightState]] = []
    for k, frame in enumerate(frames):
        try:
            found += [
                (str(lane), k, LightState.RED if red else LightState.GREEN) for lane, red in frame.get("traffic_lights", ())
            ]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{path}: traffic_lights of frame {k} want pairs of lane connector and whether it is red ({error})"
            ) from error
    lanes = {lane: index for index, lane in enumerate(sorted({lane for lane, _, _ in found}))}
    states = np.zeros((len(lanes), len(frames)), np.int64)
    for lane, step, state in found:
        states[lanes[lane], step] = state
    return Lights(tuple(lanes), states)


def _cameras(
    path: Path, frames: Sequence[Mapping[str, Any]], sensors: Path, channels: Sequence[str]
) -> tuple[tuple[Camera, ...], tuple[tuple[ImageRef | None, ...], ...], dict[str, list[float]]]:
    """The chosen cameras as the first frame that has them tells, their images, and their lens distortion, which is not undone."""
    cameras, images, distortion = [], [], {}
    for channel in channels:
        records = [frame.get("cams", {}).get(channel) for frame in frames]
        first = next((record for record in records if record is not None), None)
        if first is None:
            there = sorted({name for frame in frames for name in frame.get("cams", {})})
            raise DataError(f"{path}: no camera {channel}; it has {', '.join(there) or 'none'}")
        pose = np.eye(4)
        pose[:3, :3] = _array(path, [first], "sensor2lidar_rotation", (3, 3))[0]
        pose[:3, 3] = _array(path, [first], "sensor2lidar_translation", (3,))[0]
        cameras.append(Camera(channel, *IMAGE_SIZE, _array(path, [first], "cam_intrinsic", (3, 3))[0], pose))
        images.append(
            tuple(None if record is None else ImageRef(blob_path(sensors, record.get("data_path"), path)) for record in records)
        )
        distortion[channel] = np.asarray(first.get("distortion", ()), np.float64).ravel().tolist()
    return tuple(cameras), tuple(images), distortion


def _commands(path: Path, frames: Sequence[Mapping[str, Any]]) -> tuple[Command, ...]:
    found = _array(path, frames, "driving_command", (4,))
    if ((found.sum(axis=1) != 1.0) | (found.max(axis=1) != 1.0)).any():
        raise DataError(
            f"{path}: driving_command of frame {int(np.argmax((found.sum(axis=1) != 1.0) | (found.max(axis=1) != 1.0)))} is not one of four"
        )
    return tuple(COMMANDS[int(index)] for index in found.argmax(axis=1))


class NavsimReader:
    """Log pickles below a folder. A `Reader`."""

    name = "navsim"

    def __init__(
        self,
        maps: Path | None = None,
        sensors: Path | None = None,
        cameras: Sequence[str] = (),
        scenes: SceneFilter | None = None,
    ) -> None:
        """`maps`: nuPlan's folder of maps, None for none. `sensors`: the folder that the pickles' image paths start from, for the channels `cameras`.

        `scenes` keeps its logs and tokens alone. A log is of the split that a folder above it is
        named after, of train in a folder trainval, else of test. Raises DataError on cameras without their folder.
        """
        if sensors is not None and not cameras:
            raise DataError(f"sensors={sensors} is read where cameras are named, as in dataset.cameras=[CAM_F0]: name some, or leave sensors out")
        if cameras and (sensors is None or not sensors.is_dir()):
            raise DataError(
                f"cameras {', '.join(cameras)} need the folder of sensor data, sensor_blobs/SPLIT: {sensors or 'none is given'}"
            )
        self.maps, self.sensors, self.cameras, self.scenes = maps, sensors, tuple(cameras), scenes
        self._drives: dict[str, tuple[Array, RoadMap, Path, Array]] = {}  # poses, map, its file and zero of drives that second-stage scenes share

    def find(self, root: Path) -> list[Entry]:
        """The logs of the filter, or all, in order of path."""
        wanted = None if self.scenes is None else set(self.scenes.log_names)
        paths = [path for path in _pickles(root) if path.parent.name != FOLDER and (wanted is None or path.stem in wanted)]
        return [Entry(path.stem, path, split_of_path(path, "test")) for path in paths]

    def find_second_stage(self, root: Path) -> list[Entry]:
        """The second-stage scenes of the filter, by their token; none where its mapping is not at hand."""
        if self.scenes is None or self.scenes.mapping is None:
            return []
        tokens = set(self.scenes.synthetic_tokens)
        found = (_second_stage(path) for path in _pickles(root) if path.parent.name == FOLDER)
        return [entry for entry in found if entry.outline is None or entry.log_id in tokens]

    def read(self, entry: Entry) -> Log:
        """One log, with its map where there are maps. Raises DataError, naming file and frame."""
        if entry.key == SECOND_STAGE:
            scene = read_synthetic(entry.path)
            return self._log(entry, scene.frames, scene)
        return self._log(entry, read_frames(entry.path), None)

    def _log(self, entry: Entry, frames: Sequence[Mapping[str, Any]], scene: SyntheticScene | None) -> Log:
        """The Log of frames with the keys of a log pickle, and of what stands around after them in a second-stage `scene`."""
        path = entry.path
        quaternions = _array(path, frames, "ego2global_rotation", (4,))
        if (still := ~quaternions.any(axis=1)).any():
            raise DataError(f"{path}: ego2global_rotation of frame {int(still.argmax())} is 0")
        if (at := sanity.not_unit(quaternions)) >= 0:
            raise DataError(f"{path}: ego2global_rotation of frame {at} is not of length 1: the file is damaged, fetch it again")
        turns, places = rotation_matrix(quaternions), _array(path, frames, "ego2global_translation", (3,))
        whole = _ego(path, frames, turns, places)
        drive = frames[0]["log_name"] if scene else entry.log_id
        city = str(frames[0]["map_location"])
        road_map, archive, origin = self._map(str(drive), city, whole.poses_world)
        ego = EgoTrack(whole.poses_world - [*origin, 0.0], whole.velocity_ego, whole.acceleration_ego, whole.yaw_rate)
        stamps = np.array([int(frame["timestamp"]) for frame in frames], np.int64)
        zero = np.int64(0) if scene else stamps[0]  # second-stage scenes of one drive have one clock
        cameras, images, distortion = (), (), {}
        if self.cameras and self.sensors is not None:
            sensors = self.sensors if scene is None else _beside(path, self.sensors)
            cameras, images, distortion = _cameras(path, frames, sensors, self.cameras)
        later = scene.later if scene else ()
        beyond = [len(frames) - 1] * len(later)
        all_turns, all_places = np.concatenate([turns, turns[beyond]]), np.concatenate([places, places[beyond]])
        present = frames[scene.history - 1 :][:1] if scene else frames
        blocks = list(dict.fromkeys(str(block) for frame in present for block in frame["roadblock_ids"]))
        lanes: tuple[str, ...] = ()
        if road_map is not None:
            lanes = planned_lanes(road_map, blocks, ego.poses_world[scene.history - 1]) if scene else route_lanes(road_map, blocks, ego.poses_world)
        return Log(
            log_id=entry.log_id,
            source=self.name,
            split=entry.split,
            files=(path,) if archive is None else (path, archive),
            dt=STEP_S,
            ego=ego,
            ego_size=EGO_SIZE,
            agents=_agents(path, [*frames, *later], all_turns, all_places, origin),
            origin=origin,
            make_map=None if road_map is None else lambda: road_map,
            times=(stamps - zero).astype(np.float64) * 1e-6,
            lights=_lights(path, [*frames, *later]),
            cameras=cameras,
            images=images,
            commands=_commands(path, frames),
            route_lane_ids=lanes,
            presents=(scene.history - 1,) if scene else None if self.scenes is None else self._presents(frames, self.scenes),
            breaks=breaks_of(stamps, STEP_S),
            group=scene.log_name if scene else "",
            notes={
                "map_name": city, "start_us": int(stamps[0]), "route_roadblocks": blocks,
                **({"camera_distortion": distortion} if distortion else {}),
                **({"two_stage_split": str(self.scenes.mapping), "stage": 2 if scene else 1} if self.scenes and self.scenes.mapping else {}),
                **({"original_token": scene.original, "later_steps": len(later)} if scene else {}),
            },
            step_notes={"token": [str(frame["token"]) for frame in frames], "scene_token": [str(frame.get("scene_token", "")) for frame in frames]},
        )  # fmt: skip

    def _presents(self, frames: Sequence[Mapping[str, Any]], scenes: SceneFilter) -> tuple[int, ...]:
        """The frames that the filter's tokens name."""
        tokens = set(scenes.tokens)
        first, last = scenes.num_history_frames - 1, len(frames) - scenes.num_future_frames
        if first < round(HISTORY_S / STEP_S):
            raise DataError(f"scene filter {scenes.name} has {first + 1} history frames: four are read")
        named = (k for k in range(first, last) if str(frames[k]["token"]) in tokens)
        return tuple(k for k in named if len(frames[k]["roadblock_ids"]) or not scenes.has_route)

    def _map(self, drive: str, city: str, poses: Array) -> tuple[RoadMap | None, Path | None, Array]:
        """The map around the poses (S, 3) of a drive, its file, and where its zero lies; one that was read for the same drive serves all of it."""
        known = self._drives.get(drive)
        if known is not None and self.maps is not None:
            driven_before, road_map, archive, origin = known
            gaps = np.hypot(*(poses[:, None, :2] - driven_before[None, :, :2]).T)
            if (gaps.min(axis=0) < MAP_SLACK).all():
                return road_map, archive, origin
        origin = np.floor(poses[0, :2])
        if self.maps is None:
            return None, None, origin
        archive = map_file(self.maps, city)
        road_map = read_road_map(drive, archive, poses, origin, generic_areas=False)
        if self.scenes is not None and self.scenes.mapping is not None:
            self._drives.setdefault(drive, (poses, road_map, archive, origin))
        return road_map, archive, origin


class _BothStages:
    """A reader that finds second-stage scenes beside the logs: a `Reader`. Only NavsimDataset knows that they have no ego after the present."""

    def __init__(self, reader: NavsimReader) -> None:
        self.name, self._reader = reader.name, reader

    def find(self, root: Path) -> list[Entry]:
        """The logs, then the second-stage scenes."""
        return self._reader.find(root) + self._reader.find_second_stage(root)

    def read(self, entry: Entry) -> Log:
        """As the reader's."""
        return self._reader.read(entry)


def _pickles(root: Path) -> list[Path]:
    return [path for path in walk(root, lambda name: name.endswith(".pkl")) if UNUSED not in path.relative_to(root).parts]


def _second_stage(path: Path) -> Entry:
    """A second-stage scene by its token, which the file alone tells; one that cannot be read by its file's name, as any log at fault."""
    split = split_of_path(path, "test")
    try:
        scene = read_synthetic(path)
    except DataError:
        return Entry(path.stem, path, split, SECOND_STAGE)
    outline = Outline(len(scene.frames), STEP_S, (scene.history - 1,), breaks_of(np.array([frame["timestamp"] for frame in scene.frames]), STEP_S))
    return Entry(scene.token, path, split, SECOND_STAGE, outline, scene.digest, scene.log_name)


def _beside(path: Path, sensors: Path) -> Path:
    """The sensor folder of a second-stage scene: the one beside its folder, or else that of the logs."""
    return next((folder for name in SENSORS if (folder := path.parent.parent / name).is_dir()), sensors)


class NavsimDataset(LogDataset):
    """Scenarios of NAVSIM logs. With a filter, `expected` is the number of its tokens; those that are not given make one line of `faults`."""

    def __init__(
        self, reader: NavsimReader, root: str | Path, split: str, stride_s: float = STEP_S, splits: Mapping[str, Sequence[str]] | None = None, settings: str = ""
    ) -> None:
        """As LogDataset; scenes of a filter may have less than 5 s of future, as NAVSIM's own have 4 or 5."""
        super().__init__(_BothStages(reader), root, split, stride_s, reader.scenes is not None, splits, settings)
        scenes = reader.scenes
        if scenes is not None:
            given = {log_id if isinstance(log := self._logs[log_id], Entry) else log.log.step_notes["token"][step] for log_id, step in self._at}
            missing = [token for token in (*scenes.tokens, *scenes.synthetic_tokens) if token not in given]
            self.expected = len(scenes.tokens) + len(scenes.synthetic_tokens)
            if missing:
                count = len(set(missing) & set(scenes.synthetic_tokens))
                hint = "" if scenes.mapping else f": they are read where {scenes.name}.yaml with reactive_all_mapping stands in the folder above the filter's"
                synthetic = f", {count} of them second-stage scenes{hint}" if count else ""
                self.faults.append(
                    f"{self.root}: {len(missing)} of the {self.expected} scenes of {scenes.name} are missing{synthetic} (the first: {missing[0]})"
                )

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        """The Scenario at `index`, with what stands around a second-stage scene's ego later on. Raises DataError where its log cannot be read."""
        scenario = super().__getitem__(index)
        steps = scenario.notes.get("later_steps", 0)
        if not steps:
            return scenario
        log, start = self.log(self._at[index][0]).log, scenario.notes["log_step"] - scenario.present
        agents = log.agents.steps(start, log.steps + steps)
        lights = log.lights.steps(start, log.steps + steps) if log.lights else None
        return replace(scenario, agents=agents.subset(np.flatnonzero(agents.valid.any(axis=1))), lights=lights)


def read_filter(path: str) -> SceneFilter | None:
    """The scene filter of the setting `filter`; None where that is empty."""
    return read_scene_filter(path) if path else None


def inspect(path: Path) -> Inspection:
    """Counts of one log pickle, or of one second-stage scene. Raises DataError, naming file and frame."""
    if path.parent.name == FOLDER:
        scene = read_synthetic(path)
        found: dict[str, int | float | str] = {
            "token": scene.token, "log": scene.log_name, "map": scene.city, "frames": len(scene.frames), "later steps": len(scene.later),
            "boxes": sum(len(frame["anns"]["gt_names"]) for frame in scene.frames), "later boxes": sum(len(step["anns"]["gt_names"]) for step in scene.later),
        }  # fmt: skip
        return Inspection("NAVSIM second-stage scene", path, found)
    log = NavsimReader().read(Entry(path.stem, path, "test"))
    frames = read_frames(path)
    cameras = sorted({name for frame in frames for name in frame.get("cams", {})})
    counts: dict[str, int | float | str] = {
        "frames": log.steps, "tracks": len(log.agents), "boxes": sum(len(frame["anns"]["gt_names"]) for frame in frames if frame.get("anns")), "driven (m)": driven(log.ego),
        "traffic lights": len(log.lights.lane_ids) if log.lights else 0, "cameras": len(cameras), "map": log.notes["map_name"],
    }  # fmt: skip
    return Inspection("NAVSIM log", path, counts)
