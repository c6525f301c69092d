"""nuScenes' relational tables: the JSON files of one version folder, checked while they are read.

Schema: nuScenes v1.0 (Caesar et al. 2020), https://www.nuscenes.org/nuscenes#data-format. Key frames alone are kept: 2 Hz, annotated.
Poses are flat here: yaw of the quaternion, x and y of the translation.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading, transform
from drive.core.types import AgentType

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


@dataclass(frozen=True)
class SceneRecords:
    """One scene's records, key frame by key frame."""

    name: str
    location: str
    samples: tuple[Mapping[str, Any], ...]
    data: tuple[Mapping[str, Mapping[str, Any]], ...]  # of each sample: channel to sample_data
    annotations: tuple[tuple[Mapping[str, Any], ...], ...]  # of each sample


class NuScenesTables:
    """The tables of `root`/`version`. Raises DataError, naming the file, where one is missing, no JSON, or lacks a field."""

    def __init__(self, root: str | Path, version: str) -> None:
        self.root, self.version = Path(root), version
        self.folder = self.root / version
        if not self.folder.is_dir():
            found = sorted(path.name for path in self.root.glob("v1.0-*")) if self.root.is_dir() else []
            raise DataError(f"{self.folder} is no folder; versions below {self.root}: {', '.join(found) or 'none'}")
        missing = [f"{name}.json" for name in FIELDS if not (self.folder / f"{name}.json").is_file()]
        if missing:
            raise DataError(f"{self.folder} lacks {', '.join(missing)}: fetch the whole metadata archive of {version}")
        self._tables = {name: self._read(name) for name in FIELDS}
        self._channels = {key: self.get("sensor", cal["sensor_token"])["channel"] for key, cal in self._tables["calibrated_sensor"].items()}

    def _read(self, name: str) -> dict[str, dict[str, Any]]:
        path = self.folder / f"{name}.json"
        try:
            records = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
        if not isinstance(records, list):
            raise DataError(f"{path} holds no list of records: fetch it again")
        for number, record in enumerate(records):
            lacking = [field for field in FIELDS[name] if not isinstance(record, dict) or field not in record]
            if lacking:
                raise DataError(f"{path}: record {number} lacks {', '.join(lacking)}")
        if name == "sample_data":
            records = [record for record in records if record["is_key_frame"]]
        return {record["token"]: record for record in records}

    def get(self, table: str, token: str) -> dict[str, Any]:
        """A record. Raises DataError, naming table and token, where it is absent."""
        try:
            return self._tables[table][token]
        except KeyError:
            raise DataError(f"{self.folder / table}.json has no record {token!r} that another table names") from None

    def table(self, name: str) -> Mapping[str, dict[str, Any]]:
        """A table by token."""
        return self._tables[name]

    @cached_property
    def _data_of(self) -> Mapping[str, Mapping[str, dict[str, Any]]]:
        found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for record in self._tables["sample_data"].values():
            channel = self._channels.get(record["calibrated_sensor_token"])
            if channel is not None:
                found[record["sample_token"]][channel] = record
        return found

    @cached_property
    def _annotations_of(self) -> Mapping[str, tuple[dict[str, Any], ...]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in self._tables["sample_annotation"].values():
            found[record["sample_token"]].append(record)
        return {token: tuple(records) for token, records in found.items()}

    def scene(self, token: str) -> SceneRecords:
        """One scene. Raises DataError, naming the record, where its chain of samples is broken or a sample has no lidar frame."""
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
            if LIDAR not in self._data_of.get(sample["token"], {}):
                raise DataError(f"{self.folder}/sample_data.json: sample {sample['token']} of {scene['name']} has no key frame of {LIDAR}")
        return SceneRecords(
            name=scene["name"],
            location=self.get("log", scene["log_token"])["location"],
            samples=tuple(samples),
            data=tuple(self._data_of[sample["token"]] for sample in samples),
            annotations=tuple(self._annotations_of.get(sample["token"], ()) for sample in samples),
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
        return transform(turn, place)

    def flat_pose(self, table: str, record: Mapping[str, Any]) -> Array:
        """(3,) x, y, heading, world, of a record; raises as `pose` does."""
        matrix = self.pose(table, record)
        return np.array([*matrix[:2, 3], heading(matrix)])
