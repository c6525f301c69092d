"""nuScenes' relational tables: the JSON files of one version folder, checked while they are read.

Schema: nuScenes v1.0 (Caesar et al. 2020), https://www.nuscenes.org/nuscenes#data-format. Key frames alone are kept: 2 Hz,
annotated. Poses are flat here: yaw of the quaternion, x and y of the translation. The three long tables (sample_data, ego_pose,
sample_annotation: gigabytes in v1.0-trainval) are read record by record, and what the wanted scenes need is kept of them, boxes as
numbers: all of v1.0-trainval takes a few hundred MB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, transform
from drive.core.types import AgentType, Camera
from drive.datasets import sanity
from drive.datasets.json_stream import json_records
from drive.datasets.nuscenes_boxes import Boxes, BoxList

Array = NDArray[np.float64]
FIELDS = {
    "scene": ("token", "name", "log_token", "nbr_samples", "first_sample_token"),
    "sample": ("token", "timestamp", "next", "scene_token"),
    "sample_data": ("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "is_key_frame", "filename", "height", "width"),
    "ego_pose": ("token", "rotation", "translation"),
    "calibrated_sensor": ("token", "sensor_token", "translation", "rotation", "camera_intrinsic"),
    "sensor": ("token", "channel"),
    "sample_annotation": ("token", "sample_token", "instance_token", "translation", "size", "rotation"),
    "instance": ("token", "category_token", "nbr_annotations"),
    "category": ("token", "name"),
    "log": ("token", "logfile", "location"),
}
PLAIN = ("name", "filename", "location", "channel", "next")  # that are texts, beside all tokens
TEXTS = {table: tuple(field for field in fields if field.endswith("token") or field in PLAIN) for table, fields in FIELDS.items()}
LONG = ("sample_data", "ego_pose", "sample_annotation")
TABLES = (*FIELDS, "attribute", "map", "visibility")  # all thirteen
LIDAR = "LIDAR_TOP"
BICYCLES = ("vehicle.bicycle", "vehicle.motorcycle")


def agent_type(category: str) -> AgentType:
    """The class of a nuScenes category name."""
    if category.startswith("human."):
        return AgentType.PEDESTRIAN
    if category in BICYCLES:
        return AgentType.BICYCLE
    if category.startswith("vehicle."):
        return AgentType.VEHICLE
    named = {"movable_object.trafficcone": AgentType.TRAFFIC_CONE, "movable_object.barrier": AgentType.BARRIER}
    return named.get(category, AgentType.GENERIC_OBJECT)


class Frame(NamedTuple):
    """A key frame of one sensor."""

    pose: str  # token
    calibrated: str  # token
    filename: str
    width: int
    height: int


@dataclass(frozen=True)
class SceneRecords:
    """All that the tables hold of one scene, S key frames: nothing in it names a record that is not in it."""

    name: str
    location: str
    samples: tuple[str, ...]  # tokens
    stamps: tuple[int, ...]  # us
    poses: Array  # (S, 3) x, y, heading of the ego at the lidar's frames; world
    lidar: Array  # (4, 4) ego from lidar
    cameras: tuple[Camera, ...]  # those that were asked for
    filenames: tuple[tuple[str, ...], ...]  # of each camera, at each key frame; relative to the root
    boxes: Boxes


def version_folder(root: Path, version: str) -> Path:
    """The folder of a version. Raises DataError, naming those that are there, where it is none."""
    folder = root / version
    if not folder.is_dir():
        found = sorted(path.name for path in root.glob("v1.0-*")) if root.is_dir() else []
        raise DataError(f"{folder} is no folder; versions below {root}: {', '.join(found) or 'none'}")
    return folder


class NuScenesTables:
    """The tables of `root`/`version`. Raises DataError, naming the file, where one is missing, no JSON, or lacks a field."""

    def __init__(self, root: str | Path, version: str) -> None:
        self.root, self.version = Path(root), version
        self.folder = version_folder(self.root, version)
        missing = [f"{name}.json" for name in FIELDS if not (self.folder / f"{name}.json").is_file()]
        if missing:
            raise DataError(f"{self.folder} lacks {', '.join(missing)}: fetch the whole metadata archive of {version}")
        self._tables = {name: self._kept(name) for name in FIELDS if name not in LONG}
        self._tables["ego_pose"] = {}
        self._channels: tuple[str, ...] = ()
        self._data: dict[str, dict[str, Frame | None]] = defaultdict(dict)  # by sample and channel; None where a channel was not asked for
        self._boxes = defaultdict[str, BoxList](partial(BoxList, self.folder / "sample_annotation.json"))  # by scene

    def _kept(self, name: str, wanted: Container[str] | None = None) -> dict[str, dict[str, Any]]:
        """The records of a table by token, those that are wanted or all, with the fields of FIELDS alone."""
        return {r["token"]: {field: r[field] for field in FIELDS[name]} for r in self.records(name) if wanted is None or r["token"] in wanted}

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a table, one at a time, checked for their fields. Raises DataError where one lacks a field, or holds no text where it must."""
        path, fields = self.folder / f"{name}.json", frozenset(FIELDS[name])
        for number, record in enumerate(json_records(path)):
            if not isinstance(record, dict) or not fields <= record.keys():
                lacking = [field for field in FIELDS[name] if not isinstance(record, dict) or field not in record]
                raise DataError(f"{path}: record {number} lacks {', '.join(lacking)}")
            for field in TEXTS[name]:
                if not isinstance(record[field], str):
                    raise DataError(f"{path}: the {field} of record {number} is {str(record[field])[:40]!r}, no text: the file is damaged, fetch it again")
            yield record

    def load(self, scenes: Iterable[str], channels: Sequence[str] = ()) -> None:
        """Reads the long tables for these scene tokens: lidar and `channels`, ego poses of the lidar, boxes. Raises DataError on a faulty table."""
        self._channels = tuple(channels)
        wanted, kept = set(scenes), {LIDAR, *channels}
        samples = {token: sample for token, sample in self._tables["sample"].items() if sample["scene_token"] in wanted}
        channel_of = {key: self.get("sensor", calibrated["sensor_token"])["channel"] for key, calibrated in self._tables["calibrated_sensor"].items()}
        poses = set()
        for record in self.records("sample_data"):
            channel = channel_of.get(record["calibrated_sensor_token"])
            if not record["is_key_frame"] or record["sample_token"] not in samples or channel is None:
                continue
            fields = (record[field] for field in ("ego_pose_token", "calibrated_sensor_token", "filename", "width", "height"))
            self._data[record["sample_token"]][channel] = Frame(*fields) if channel in kept else None
            if channel == LIDAR:
                poses.add(record["ego_pose_token"])
        self._tables["ego_pose"] |= self._kept("ego_pose", poses)
        names: dict[str, str] = {}  # one text for each instance, not one a box
        for record in self.records("sample_annotation"):
            sample = samples.get(record["sample_token"])
            if sample is not None:
                instance = record["instance_token"]
                self._boxes[sample["scene_token"]].add(record, sample["token"], names.setdefault(instance, instance))

    def get(self, table: str, token: str) -> dict[str, Any]:
        """A record. Raises DataError, naming table and token, where it is absent."""
        try:
            return self._tables[table][token]
        except (KeyError, TypeError):
            raise DataError(f"{self.folder / table}.json has no record {token!r} that another table names") from None

    def table(self, name: str) -> Mapping[str, dict[str, Any]]:
        """A table by token; not sample_data and sample_annotation, and what was loaded of ego_pose."""
        return self._tables[name]

    def scene(self, token: str) -> SceneRecords:
        """One loaded scene.

        Raises DataError, naming file and record, where its chain of samples is broken, a sample has no frame of the lidar or of a camera
        that was asked for, a record is missing, and on NaN.
        """
        scene = self.get("scene", token)
        samples = self._chain(scene)
        tokens = tuple(sample["token"] for sample in samples)
        stamps = tuple(sample["timestamp"] for sample in samples)
        if not all(isinstance(stamp, int) for stamp in stamps) or any(b <= a for a, b in pairwise(stamps)):
            raise DataError(f"{self.folder}/sample.json: the timestamps of scene {scene['name']} do not ascend")
        lidar = self._frames(scene["name"], tokens, LIDAR)
        cameras = [self._camera(scene["name"], channel, self._frames(scene["name"], tokens, channel)) for channel in self._channels]
        return SceneRecords(
            name=scene["name"],
            location=self.get("log", scene["log_token"])["location"],
            samples=tokens,
            stamps=stamps,
            poses=np.stack([self._flat_pose("ego_pose", frame.pose) for frame in lidar]),
            lidar=self._pose("calibrated_sensor", lidar[0].calibrated),
            cameras=tuple(camera for camera, _ in cameras),
            filenames=tuple(names for _, names in cameras),
            boxes=self._counted(self._boxes[token].ordered(tokens, self._category), scene["name"]),
        )

    def _counted(self, boxes: Boxes, scene: str) -> Boxes:
        """The boxes, as many of each instance as its table tells. Raises DataError where some are missing."""
        for token, count in zip(boxes.instances, np.bincount(boxes.row).tolist()):
            if count != (told := self.get("instance", token)["nbr_annotations"]):
                raise DataError(f"{self.folder}/sample_annotation.json: instance {token} of {scene} has {count} boxes, instance.json tells {told}")
        return boxes

    def _chain(self, scene: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        if not isinstance(scene["nbr_samples"], int) or scene["nbr_samples"] < 1:
            raise DataError(f"{self.folder}/scene.json: scene {scene['name']} has {scene['nbr_samples']!r} samples")
        samples, at = [], scene["first_sample_token"]
        while at:
            sample = self.get("sample", at)
            if sample["scene_token"] != scene["token"]:
                raise DataError(f"{self.folder}/sample.json: the chain of scene {scene['name']} leads to the sample {at} of another scene")
            samples.append(sample)
            if len(samples) > scene["nbr_samples"]:
                break
            at = sample["next"]
        if len(samples) != scene["nbr_samples"]:
            raise DataError(f"{self.folder}/sample.json: scene {scene['name']} has {scene['nbr_samples']} samples, its chain has {len(samples)}")
        return samples

    def _frames(self, scene: str, samples: Sequence[str], channel: str) -> list[Frame]:
        frames = []
        for token in samples:
            there = self._data.get(token, {})
            frame = there.get(channel)
            if frame is None:
                has = ", ".join(sorted(there)) or "none of any sensor"
                raise DataError(f"{self.folder}/sample_data.json: sample {token} of {scene} has no key frame of {channel}; it has {has}")
            frames.append(frame)
        return frames

    def _camera(self, scene: str, channel: str, frames: Sequence[Frame]) -> tuple[Camera, tuple[str, ...]]:
        first = frames[0]
        if type(first.width) is not int or type(first.height) is not int:  # JSON gives texts and null too
            size = f"{str(first.width)[:40]!r} x {str(first.height)[:40]!r}"
            raise DataError(f"{self.folder}/sample_data.json: the size of {first.filename[:80]} of {scene} is {size}, no pixels: fetch it again")
        pose = self._pose("calibrated_sensor", first.calibrated)
        try:
            intrinsics = np.array(self.get("calibrated_sensor", first.calibrated)["camera_intrinsic"], float).reshape(3, 3)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.folder}/calibrated_sensor.json: record {first.calibrated} has no intrinsics ({error})") from error
        return Camera(channel, first.width, first.height, intrinsics, pose), tuple(frame.filename for frame in frames)

    def _category(self, instance: str) -> str:
        return self.get("category", self.get("instance", instance)["category_token"])["name"]

    def _pose(self, table: str, token: str) -> Array:
        """(4, 4) of a record's rotation and translation. Raises DataError, naming table and token, on NaN and what is no pose."""
        record = self.get(table, token)
        try:
            turn, place = np.array(record["rotation"], np.float64), np.array(record["translation"], np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.folder / table}.json: record {record['token']} holds no pose ({error})") from error
        if turn.shape != (4,) or place.shape != (3,):
            raise DataError(f"{self.folder / table}.json: record {record['token']} holds no pose: rotation {turn.shape}, translation {place.shape}")
        if not (np.isfinite(turn).all() and np.isfinite(place).all()) or not turn.any():
            raise DataError(f"{self.folder / table}.json: record {record['token']} has NaN, infinity or no direction in its pose")
        if sanity.not_unit(turn) >= 0:
            raise DataError(f"{self.folder / table}.json: record {record['token']} has a quaternion that is not of length 1: the file is damaged, fetch it again")
        return transform(turn, place)

    def _flat_pose(self, table: str, token: str) -> Array:
        """(3,) x, y, heading, world, of a record; raises as `_pose` does."""
        matrix = self._pose(table, token)
        return np.array([*matrix[:2, 3], heading(matrix)])
