"""nuScenes' relational tables: the JSON files of one version folder, checked while they are read.

Schema: nuScenes v1.0 (Caesar et al. 2020), https://www.nuscenes.org/nuscenes#data-format. Key frames alone are kept: 2 Hz,
annotated. Poses are flat here: yaw of the quaternion, x and y of the translation. The three long tables (sample_data, ego_pose,
sample_annotation: gigabytes in v1.0-trainval) are read record by record, and what the wanted scenes need is kept of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, transform
from drive.core.types import AgentType
from drive.datasets import sanity
from drive.datasets.json_stream import json_records

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


@dataclass(frozen=True, slots=True)
class Box:
    """An annotation."""

    token: str
    instance: str
    values: Array | str  # (6,) x, y, heading, length, width, height; world, m and rad; or what is wrong with it
    hidden: bool  # of the lowest visibility, 0 to 40 %; False where the tables do not tell


@dataclass(frozen=True)
class SceneRecords:
    """One scene's records, key frame by key frame."""

    name: str
    location: str
    samples: tuple[Mapping[str, Any], ...]
    data: tuple[Mapping[str, Mapping[str, Any]], ...]  # of each sample: channel to sample_data; empty for channels that were not asked for
    annotations: tuple[tuple[Box, ...], ...]  # of each sample


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
        self._tables = {name: {record["token"]: record for record in self.records(name)} for name in FIELDS if name not in LONG}
        self._tables["ego_pose"] = {}
        self._data: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._boxes: dict[str, list[Box]] = defaultdict(list)

    def records(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a table, one at a time, checked for their fields."""
        path, fields = self.folder / f"{name}.json", frozenset(FIELDS[name])
        for number, record in enumerate(json_records(path)):
            if not isinstance(record, dict) or not fields <= record.keys():
                lacking = [field for field in FIELDS[name] if not isinstance(record, dict) or field not in record]
                raise DataError(f"{path}: record {number} lacks {', '.join(lacking)}")
            yield record

    def load(self, scenes: Iterable[str], channels: Iterable[str] = ()) -> None:
        """Reads the long tables for these scene tokens: lidar and `channels`, ego poses of the lidar, boxes. Raises DataError on a faulty table."""
        wanted, kept = set(scenes), {LIDAR, *channels}
        samples = {token for token, sample in self._tables["sample"].items() if sample["scene_token"] in wanted}
        channel_of = {key: self.get("sensor", calibrated["sensor_token"])["channel"] for key, calibrated in self._tables["calibrated_sensor"].items()}
        poses = set()
        for record in self.records("sample_data"):
            channel = channel_of.get(record["calibrated_sensor_token"])
            if not record["is_key_frame"] or record["sample_token"] not in samples or channel is None:
                continue
            self._data[record["sample_token"]][channel] = {field: record[field] for field in FIELDS["sample_data"]} if channel in kept else {}
            if channel == LIDAR:
                poses.add(record["ego_pose_token"])
        self._tables["ego_pose"] |= {
            record["token"]: {field: record[field] for field in FIELDS["ego_pose"]} for record in self.records("ego_pose") if record["token"] in poses
        }
        names = {token: token for token in self._tables["instance"]}  # one text for each, not one a box
        for record in self.records("sample_annotation"):
            if record["sample_token"] in samples:
                hidden = str(record.get("visibility_token", "")) == "1"
                box = Box(record["token"], names.get(record["instance_token"], record["instance_token"]), self._box(record), hidden)
                self._boxes[record["sample_token"]].append(box)

    def _box(self, record: Mapping[str, Any]) -> Array | str:
        try:
            (x, y, z), (w, i, j, k) = map(float, record["translation"]), map(float, record["rotation"])
            # the way that x points, as `heading` has it, of a quaternion of any length
            pose = (x, y, math.atan2(2.0 * (i * j + w * k), w * w + i * i - j * j - k * k))
            if not math.isfinite(x + y + z + w + i + j + k) or not (w or i or j or k):
                raise ValueError("NaN, infinity or no direction")
        except (TypeError, ValueError) as error:
            return f"{self.folder}/sample_annotation.json: record {record['token']} holds no pose ({error})"
        try:
            width, length, height = map(float, record["size"])
        except (TypeError, ValueError):
            width = length = height = 0.0
        if not all(0.0 < side < math.inf for side in (width, length, height)):
            return f"{self.folder}/sample_annotation.json: instance {record['instance_token']} has a box without a size"
        return np.array([*pose, length, width, height])

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
        """One loaded scene. Raises DataError, naming the record, where its chain of samples is broken or a sample has no lidar frame."""
        scene = self.get("scene", token)
        if not isinstance(scene["nbr_samples"], int) or scene["nbr_samples"] < 1:
            raise DataError(f"{self.folder}/scene.json: scene {scene['name']} has {scene['nbr_samples']!r} samples")
        samples, at = [], scene["first_sample_token"]
        while at:
            sample = self.get("sample", at)
            samples.append(sample)
            if len(samples) > scene["nbr_samples"]:
                break
            at = sample["next"]
        if len(samples) != scene["nbr_samples"]:
            raise DataError(f"{self.folder}/sample.json: scene {scene['name']} has {scene['nbr_samples']} samples, its chain has {len(samples)}")
        stamps = [sample["timestamp"] for sample in samples]
        if not all(isinstance(stamp, int) for stamp in stamps) or any(b <= a for a, b in pairwise(stamps)):
            raise DataError(f"{self.folder}/sample.json: the timestamps of scene {scene['name']} do not ascend")
        for sample in samples:
            if LIDAR not in self._data.get(sample["token"], {}):
                raise DataError(f"{self.folder}/sample_data.json: sample {sample['token']} of {scene['name']} has no key frame of {LIDAR}")
        return SceneRecords(
            name=scene["name"],
            location=self.get("log", scene["log_token"])["location"],
            samples=tuple(samples),
            data=tuple(self._data[sample["token"]] for sample in samples),
            annotations=tuple(tuple(self._boxes.get(sample["token"], ())) for sample in samples),
        )

    def pose(self, table: str, record: Mapping[str, Any]) -> Array:
        """(4, 4) of a record's rotation and translation. Raises DataError, naming table and token, on NaN and what is no pose."""
        try:
            turn, place = np.array(record["rotation"], np.float64), np.array(record["translation"], np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.folder / table}.json: record {record['token']} holds no pose ({error})") from error
        if turn.shape != (4,) or place.shape != (3,):
            raise DataError(f"{self.folder / table}.json: record {record['token']} holds no pose: rotation {turn.shape}, translation {place.shape}")
        if not (np.isfinite(turn).all() and np.isfinite(place).all()) or not turn.any():
            raise DataError(f"{self.folder / table}.json: record {record['token']} has NaN, infinity or no direction in its pose")
        if sanity.not_unit(turn) >= 0:
            raise DataError(f"{self.folder / table}.json: record {record['token']} has a quaternion that is not of length 1: the file is damaged, fetch it again")
        return transform(turn, place)

    def flat_pose(self, table: str, record: Mapping[str, Any]) -> Array:
        """(3,) x, y, heading, world, of a record; raises as `pose` does."""
        matrix = self.pose(table, record)
        return np.array([*matrix[:2, 3], heading(matrix)])
