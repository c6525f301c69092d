"""Scenarios from nuScenes' own tables: one for every key frame, at 2 Hz, with whatever future the log still has.

Frame: shifted by the ego's first position, rounded down to whole metres. The ego pose is nuScenes': the rear axle, that of the
lidar's key frame. Motion at a key frame comes from the CAN bus where its files are there (the last message before it), else from
the steps before it (the first of a scene then has none: 0); never from later ones. The map is that of the map expansion
(`maps/expansion/<location>.json`) where it is there; without it the centreline is the driven path, the command is always
LANEFOLLOW (what a route would say cannot be had without reading the future), and privileged planners get a corridor around the
driven path for a road. Cameras are rendered unless `camera` names some of nuScenes', whose image files are then read. Language is
DriveLM's, where its file is given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import relative
from drive.core.types import EgoTrack, Question, Tracks
from drive.datasets.drivelm import read_questions
from drive.datasets.json_stream import json_records
from drive.datasets.logged import Entry, Inspection, LogDataset
from drive.datasets.logs import HISTORY_S, ImageRef, Log
from drive.datasets.motion import central_velocity
from drive.datasets.nuscenes_boxes import Boxes
from drive.datasets.nuscenes_map import expansion_file, map_around
from drive.datasets.nuscenes_tables import TABLES, NuScenesTables, SceneRecords, agent_type
from drive.datasets.sanity import check_drive
from drive.datasets.splits import NUSCENES_MINI, choose_logs

Array = NDArray[np.float64]
DT = 0.5  # s between key frames
HISTORY = round(HISTORY_S / DT)  # key frames before the present
EGO_SIZE = (4.084, 1.730, 1.562)  # m, Renault Zoe, nuScenes' car
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


def channels_of(camera: str) -> tuple[str, ...]:
    """The channels of a comma list. Raises DataError where one is named twice."""
    channels = tuple(name.strip() for name in camera.split(",") if name.strip())
    if len(set(channels)) < len(channels):
        raise DataError(f"dataset.camera={camera} names a camera twice")
    return channels


@dataclass(frozen=True)
class SceneEntry(Entry):
    """A scene with all that the tables and DriveLM hold of it: whoever reads it, a worker process too, needs nothing of the others."""

    root: Path = field(kw_only=True)  # that the tables' file names start from; `path` is the tables' folder
    records: SceneRecords | str = field(kw_only=True, compare=False, repr=False)  # or what is wrong with them
    language: Mapping[int, tuple[Question, ...]] = field(kw_only=True, compare=False, repr=False)  # by key frame


def read_log(scene: SceneRecords, root: Path, folder: Path, split: str, language: Mapping[int, tuple[Question, ...]]) -> Log:
    """The scene whose records come from the tables in `folder` of the dataset `root`; without cameras in them, a front camera is rendered.

    Raises DataError, naming file and record, on a missing image, images of several sizes, and a faulty CAN bus file.
    """
    poses = scene.poses.copy()
    check_drive(f"{folder}/ego_pose.json: {scene.name}", poses, np.array(scene.stamps) * 1e-6)
    origin = np.floor(poses[0, :2])
    place = poses[0, :2].copy()
    poses[:, :2] -= origin
    steps = len(scene.samples)
    images = tuple(_images(root, folder, scene.name, names) for names in scene.filenames)
    if len({(camera.width, camera.height) for camera in scene.cameras}) > 1:
        names = ", ".join(camera.name for camera in scene.cameras)
        raise DataError(f"{folder}/sample_data.json: the images of {names} in {scene.name} are not of one size")
    can, city = root / "can_bus" / f"{scene.name}_pose.json", expansion_file(root, scene.location)
    hidden, unscanned = (_steps_of(scene.boxes, which) for which in (scene.boxes.hidden, scene.boxes.unscanned))
    return Log(
        log_id=scene.name,
        source="nuscenes",
        split=split,
        files=(folder / "sample_data.json", *sorted(folder.glob("*.json")), *(path for path in (can, city) if path.is_file())),
        absent=tuple(path for path in (can, city) if not path.is_file()),
        dt=DT,
        ego=_ego(can, poses, scene.stamps),
        ego_size=EGO_SIZE,
        agents=_agents(scene.boxes, steps, origin),
        origin=origin,
        make_map=partial(map_around, scene.name, city, place, origin) if city.is_file() else None,
        times=(np.array(scene.stamps) - scene.stamps[0]) * 1e-6,
        cameras=scene.cameras,
        images=images,
        language=language,
        presents=tuple(range(steps)),
        notes={"lidar_from_ego": np.linalg.inv(scene.lidar).tolist(), "location": scene.location, "hidden": hidden, "unscanned": unscanned},
        step_notes={"sample_token": scene.samples, "prolonged_frames": [max(HISTORY - step, 0) for step in range(steps)]},
    )


def _steps_of(boxes: Boxes, which: NDArray[np.bool_]) -> dict[str, list[int]]:
    """The key frames at which `which` (B,) holds of an instance's box, by instance."""
    found: dict[str, list[int]] = {}
    for box in np.flatnonzero(which):
        found.setdefault(boxes.instances[boxes.row[box]], []).append(int(boxes.step[box]))
    return found


def _images(root: Path, folder: Path, scene: str, filenames: Sequence[str]) -> tuple[ImageRef, ...]:
    files = [_inside(root, folder, name) for name in filenames]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]} is missing, and so are {len(missing) - 1} more of the {len(files)} images of {scene}: fetch them, or let "
            "dataset.camera='' render"
        )
    return tuple(ImageRef(file) for file in files)


def _inside(root: Path, folder: Path, filename: str) -> Path:
    """The path of a file that a table in `folder` names; it stays below `root`."""
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise DataError(f"{folder}/sample_data.json: the file {filename!r} lies outside of the dataset's folder")
    return root / filename


def _ego(can: Path, poses: Array, stamps: Sequence[int]) -> EgoTrack:
    """Motion from the CAN bus, or from the steps before each key frame."""
    if can.is_file():
        return EgoTrack(poses, *_can_motion(can, stamps))
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
    times, values = _can_messages(path)
    last = np.maximum(np.searchsorted(times, np.asarray(stamps), side="right") - 1, 0)
    age = np.abs(np.asarray(stamps) - times[last])
    if age.max() > LATE:
        raise DataError(f"{path} has no message within {LATE / 1e6} s of the key frame at {stamps[int(age.argmax())]} us: it is of another scene, or cut")
    first = np.minimum(np.searchsorted(times, np.asarray(stamps) - round(DT * 1e6)), last)
    mean = np.stack([values[a : b + 1, 2:4].mean(axis=0) for a, b in zip(first, last)])
    return values[last, :2], mean, values[last, 4]


def _can_messages(path: Path) -> tuple[NDArray[np.int64], Array]:
    """Times (M,) in us, and (M, 5) velocity x, y, acceleration x, y and yaw rate of the body. Raises DataError, naming the file, where it is at fault."""
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))
        times = np.array([message["utime"] for message in messages], np.int64)
        values = np.array([[*m["vel"][:2], *m["accel"][:2], m["rotation_rate"][2]] for m in messages], np.float64)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} cannot be read as CAN pose messages ({type(error).__name__}: {error})") from error
    if not len(times) or not np.isfinite(values).all() or (np.diff(times) < 0).any():
        raise DataError(f"{path} holds no message, NaN, or times that run backwards")
    return times, values


def _agents(boxes: Boxes, steps: int, origin: Array) -> Tracks:
    """The annotated boxes as tracks; sizes are those of the first boxes, velocities differences over a neighbour to either side where there is one."""
    if not boxes.instances:
        return Tracks.empty(steps)
    poses, valid = np.zeros((len(boxes.instances), steps, 3)), np.zeros((len(boxes.instances), steps), bool)
    poses[boxes.row, boxes.step] = boxes.values[:, :3] - [*origin, 0.0]
    valid[boxes.row, boxes.step] = True
    _, first = np.unique(boxes.row, return_index=True)
    types = np.array([agent_type(name) for name in boxes.categories], np.int64)
    return Tracks(boxes.instances, types, boxes.values[first, 3:], poses, central_velocity(poses[..., :2], valid, DT), valid)


class NuScenesReader:
    """Scenes of one version of the tables. A `Reader`; `find` reads the tables into its entries, the reader itself holds nothing of them."""

    name = "nuscenes"

    def __init__(self, version: str = "v1.0-trainval", camera: str = "", drivelm: str | Path = "", split: str = "") -> None:
        """`camera`: channels whose images are read, a comma list; `drivelm`: DriveLM's file; `split`: the one whose scenes are read, all if empty.

        Raises DataError on a camera named twice.
        """
        self.version, self.channels, self.split, self.drivelm = version, channels_of(camera), split, drivelm

    def find(self, root: Path) -> list[Entry]:
        """The scenes of the official splits, by name. Raises DataError on files that cannot be read, and on questions about other samples alone."""
        questions = read_questions(self.drivelm) if self.drivelm else {}
        tables = NuScenesTables(root, self.version)
        names = {record["name"]: token for token, record in tables.table("scene").items()}
        splits = official_splits(self.version)
        wanted = [self.split] if self.split else list(splits)
        scenes = [(name, split) for split in wanted for name in choose_logs(splits, split, names)]
        if names and not scenes:
            there = [split for split in splits if choose_logs(splits, split, names)]
            known = f"they are of {', '.join(there)}: give split={there[0]}" if there else "they are in none of the official lists"
            raise DataError(f"{tables.folder} has {len(names)} scenes, none of the split {self.split!r}; {known}")
        if questions and not any(sample in tables.table("sample") for _, sample in questions):
            raise DataError(f"{self.drivelm}: none of its {len(questions)} key frames is a sample of {tables.folder}")
        tables.load([names[name] for name, _ in scenes], self.channels)
        return [_entry(tables, name, names[name], split, questions) for name, split in scenes]

    def read(self, entry: Entry) -> Log:
        """One scene. Raises DataError, naming file and record."""
        assert isinstance(entry, SceneEntry)  # it is one of `find`
        if isinstance(entry.records, str):
            raise DataError(entry.records)
        log = read_log(entry.records, entry.root, entry.path, entry.split, entry.language)
        return replace(log, absent=(*log.absent, Path(self.drivelm))) if self.drivelm else log


def _entry(tables: NuScenesTables, name: str, token: str, split: str, questions: Mapping[tuple[str, str], tuple[Question, ...]]) -> SceneEntry:
    try:
        records = tables.scene(token)
    except DataError as error:  # of this scene alone
        return SceneEntry(name, tables.folder, split, token, root=tables.root, records=str(error), language={})
    language = {step: questions[token, sample] for step, sample in enumerate(records.samples) if (token, sample) in questions}
    return SceneEntry(name, tables.folder, split, token, root=tables.root, records=records, language=language)


class NuScenesDataset(LogDataset):
    """Scenarios of one split, one per key frame, in order of scene and time; in train those alone with a whole plan after them."""

    def __init__(self, root: str | Path, split: str, version: str = "v1.0-trainval", camera: str = "", drivelm: str | Path = "") -> None:
        """Reads the tables and every scene of `split`, of which val and test both are nuScenes' val; raises and counts as `LogDataset` does."""
        split = "test" if split == "val" else split  # nuScenes' val is what papers test on
        super().__init__(NuScenesReader(version, camera, drivelm, split), root, split, DT, short_futures=True)
        self.camera, self.drivelm = camera, _digest(drivelm)  # after the reader has told a file that is gone

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over split, cameras, questions, ids and the files that it is read from; images are not read for it."""
        return hashlib.sha256(f"{self.camera} {self.drivelm} {super().fingerprint}".encode()).hexdigest()


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""


def inspect(path: Path) -> Inspection:
    """Counts of one version's folder of tables; missing and faulty tables are faults. Raises DataError where no table is there."""
    counts: dict[str, int | float | str] = {}
    faults = []
    there = [name for name in TABLES if (path / f"{name}.json").is_file()]
    if not there:
        raise DataError(f"{path} holds no table of nuScenes")
    missing = [f"{name}.json" for name in TABLES if name not in there]
    if missing:
        faults.append(f"{path} lacks {', '.join(missing)}: {len(missing)} of the {len(TABLES)} tables; fetch the whole metadata archive of {path.name}")
    for name in there:
        try:
            counts[name] = sum(1 for _ in json_records(path / f"{name}.json"))
        except DataError as error:
            faults.append(str(error))
    return Inspection("nuScenes tables", path, counts, tuple(faults))


def inspect_can_bus(path: Path) -> Inspection:
    """Counts of a folder of CAN bus pose messages, `scene-0000_pose.json` each. Raises DataError where there are none."""
    files = sorted(path.glob("scene-*_pose.json"))
    if not files:
        raise DataError(f"{path} holds no scene-*_pose.json")
    counts: dict[str, int | float | str] = {"scenes": 0, "messages": 0}
    rates: list[float] = []
    faults = []
    for file in files:
        try:
            times, _ = _can_messages(file)
        except DataError as error:
            faults.append(str(error))
            continue
        name = file.name.removesuffix("_pose.json")
        counts |= {"scenes": int(counts["scenes"]) + 1, "messages": int(counts["messages"]) + len(times), name: len(times)}
        rates.append((len(times) - 1) / max((times[-1] - times[0]) * 1e-6, 1e-6))
    return Inspection("nuScenes CAN bus", path, {**counts, "rate (Hz)": round(float(np.median(rates)), 1) if rates else 0.0}, tuple(faults))
