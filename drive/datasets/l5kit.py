"""Scenarios from Lyft Level 5 / Woven Planet prediction data as L5Kit stores it (Houston et al. 2020): zarr folders of scenes at 10 Hz.

Fields and units: L5Kit's data format (docs, data_format; labels ACTIVE, INACTIVE, UNKNOWN of a face). A scene is a log. Its map is
a protobuf beside the scenes (`l5kit_map`), which is read where the reader is given its folder, and tells the lanes that lights rule;
without it, privileged planners get a corridor around the driven path and `lights` is None. The faces of lights that are lit stand in the
notes by their id. Boxes of one `track_id` are one agent, whose size and class (the most probable label) are those of its first box: later
ones would carry the future into rendered images. L5Kit draws the ego's box around `ego_translation`, but the recorded point does not
move like the centre of a car: in the 248 frames of L5Kit's sample it moves sideways by -0.6 +- 0.8 m for every radian of turn (steps of
0.1 s; -1.4 +- 0.8 m over 0.5 s), where the rear axle has 0 and the middle of a Ford Fusion, 1.4 m ahead of it, 1.4 m. It is therefore
taken for the rear axle as it is.

The split is that of the file's name (train*.zarr, valid*.zarr, test*.zarr), else that of a folder above, else test.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.quaternion import heading
from drive.core.types import AgentType
from drive.datasets import sanity
from drive.datasets.box_tracks import BoxTracks
from drive.datasets.l5kit_map import SemanticMap, lights, read_map, road_map
from drive.datasets.l5kit_map import counts as map_counts
from drive.datasets.logged import Entry, Inspection, split_of_path, walk
from drive.datasets.logs import Log
from drive.datasets.motion import DT, driven, ego_motion
from drive.datasets.zarr_files import Records, attributes

Array = NDArray[np.float64]
EGO_SIZE = (4.87, 1.85, 1.8)  # m, L5Kit's Ford Fusion with its sensors
TOLERANCE = 0.02  # s, of a step of 0.1 s
FIELDS = {
    "scenes": ("frame_index_interval", "host", "start_time", "end_time"),
    "frames": ("timestamp", "agent_index_interval", "traffic_light_faces_index_interval", "ego_translation", "ego_rotation"),
    "agents": ("centroid", "extent", "yaw", "track_id", "label_probabilities"),
    "traffic_light_faces": ("face_id", "traffic_light_id", "traffic_light_face_status"),
}
ACTIVE = 0  # of a face's status: active, inactive, unknown
SPLITS = {"train": "train", "valid": "val", "test": "test"}
LABELS = (
    "NOT_SET", "UNKNOWN", "DONTCARE", "CAR", "VAN", "TRAM", "BUS", "TRUCK", "EMERGENCY_VEHICLE", "OTHER_VEHICLE", "BICYCLE", "MOTORCYCLE",
    "CYCLIST", "MOTORCYCLIST", "PEDESTRIAN", "ANIMAL", "AVRESEARCH_LABEL_DONTCARE",
)  # fmt: skip
KINDS = {
    **dict.fromkeys(("CAR", "VAN", "TRAM", "BUS", "TRUCK", "EMERGENCY_VEHICLE", "OTHER_VEHICLE"), AgentType.VEHICLE),
    **dict.fromkeys(("BICYCLE", "MOTORCYCLE", "CYCLIST", "MOTORCYCLIST"), AgentType.BICYCLE),
    "PEDESTRIAN": AgentType.PEDESTRIAN,
}


def open_arrays(path: Path) -> dict[str, Records]:
    """The four arrays of a zarr folder. Raises DataError, naming the file, where one is missing or not as L5Kit writes it."""
    return {name: Records(path / name, fields) for name, fields in FIELDS.items()}


def _split(path: Path) -> str:
    named = (split for start, split in SPLITS.items() if path.stem.lower().startswith(start))
    return next(named, split_of_path(path, "test"))


def read_log(path: Path, arrays: dict[str, Records], scene: int, split: str, chart: SemanticMap | None = None) -> Log:
    """Scene number `scene` of the arrays of a zarr folder, on the map `chart`. Raises DataError, naming array and record, where it cannot be read."""
    record = arrays["scenes"].rows(scene, scene + 1)[0]
    first, last = (int(k) for k in record["frame_index_interval"])
    frames = _rows(arrays["frames"], first, last, f"scene {scene}")
    if len(frames) < 2:
        raise DataError(f"{path / 'scenes'}: scene {scene} has {len(frames)} frames")
    steps = np.diff(frames["timestamp"]) * 1e-9
    if (np.abs(steps - DT) > TOLERANCE).any():
        at = int(np.argmax(np.abs(steps - DT)))
        raise DataError(f"{path / 'frames'}: frames are not 0.1 s apart ({steps[at]:.3f} s after record {first + at})")
    poses = np.column_stack([frames["ego_translation"][:, :2], heading(frames["ego_rotation"])])
    if not np.isfinite(frames["ego_translation"]).all() or not np.isfinite(frames["ego_rotation"]).all():
        bad = ~(np.isfinite(frames["ego_translation"]).all(axis=1) & np.isfinite(frames["ego_rotation"]).all(axis=(1, 2)))
        raise DataError(f"{path / 'frames'}: the ego pose of record {first + int(bad.argmax())} has NaN or infinity")
    turns = frames["ego_rotation"]
    skew = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 1e-2
    if skew.any():
        raise DataError(f"{path / 'frames'}: the ego rotation of record {first + int(skew.argmax())} is no rotation: the file is damaged, fetch it again")
    sanity.check_drive(path / "frames", poses, (frames["timestamp"] - frames["timestamp"][0]) * 1e-9)
    origin = np.floor(poses[0, :2])
    name, faces = f"{path.stem}-{scene:05d}", _faces(arrays["traffic_light_faces"], frames)
    made = None if chart is None else road_map(name, chart, poses, origin)
    poses[:, :2] -= origin
    return Log(
        log_id=name,
        source="l5kit",
        split=split,
        files=(path / "scenes" / ".zarray", *_files(arrays, frames, scene, first, last), *(() if chart is None else (chart.meta, chart.path))),
        dt=DT,
        ego=ego_motion(poses),
        ego_size=EGO_SIZE,
        agents=_agents(arrays["agents"], frames, origin, _labels(path)),
        origin=origin,
        make_map=None if made is None else lambda: made,
        lights=None if chart is None or made is None else lights(chart, made.lanes, faces),
        times=(frames["timestamp"] - frames["timestamp"][0]) * 1e-9,
        notes={"host": str(record["host"])},
        step_notes={"active_light_faces": faces},
    )


def _rows(records: Records, start: int, stop: int, whose: str) -> NDArray:
    if not 0 <= start <= stop <= len(records):
        raise DataError(f"{records.folder}: {whose} asks for the records {start} to {stop - 1} of {len(records)}")
    return records.rows(start, stop)


def _files(arrays: dict[str, Records], frames: NDArray, scene: int, first: int, last: int) -> list[Path]:
    """The chunks of a scene."""
    spans = {"scenes": (scene, scene + 1), "frames": (first, last)}
    for name, field in (("agents", "agent_index_interval"), ("traffic_light_faces", "traffic_light_faces_index_interval")):
        spans[name] = int(frames[field][0, 0]), int(frames[field][-1, 1])
    return [arrays[name].folder / str(k) for name, (a, b) in spans.items() for k in range(a // arrays[name].chunk, -(-b // arrays[name].chunk))]


def _inner(records: Records, frames: NDArray, field: str) -> tuple[NDArray, NDArray[np.int64]]:
    """The records that the frames' intervals `field` name, and the frame of each."""
    spans = np.asarray(frames[field], np.int64)
    if (np.diff(spans.ravel()) < 0).any() or (spans[1:, 0] != spans[:-1, 1]).any():
        raise DataError(f"{records.folder}: the intervals {field} of the frames overlap or leave records out")
    rows = _rows(records, int(spans[0, 0]), int(spans[-1, 1]), "a frame")
    return rows, np.repeat(np.arange(len(spans)), spans[:, 1] - spans[:, 0])


def _labels(path: Path) -> tuple[str, ...]:
    named = attributes(path).get("labels", LABELS)
    if not isinstance(named, (list, tuple)):
        raise DataError(f"{path / '.zattrs'}: labels is no list")
    return tuple(str(name).removeprefix("PERCEPTION_LABEL_") for name in named)


def _agents(records: Records, frames: NDArray, origin: Array, labels: tuple[str, ...]) -> BoxTracks:
    rows, step = _inner(records, frames, "agent_index_interval")
    first = int(frames["agent_index_interval"][0, 0])
    for field in ("centroid", "extent", "yaw", "label_probabilities"):
        values = np.asarray(rows[field], np.float64).reshape(len(rows), -1)
        if not np.isfinite(values).all():
            raise DataError(f"{records.folder}: {field} of record {first + int((~np.isfinite(values)).any(axis=1).argmax())} is NaN or infinite")
    odd = ((rows["label_probabilities"] < 0.0) | (rows["label_probabilities"] > 1.0)).any(axis=1)
    if odd.any():
        raise DataError(f"{records.folder}: a label probability of record {first + int(odd.argmax())} is not from 0 to 1: the file is damaged, fetch it again")
    if (rows["extent"] <= 0.0).any():
        raise DataError(f"{records.folder}: record {first + int((rows['extent'] <= 0.0).any(axis=1).argmax())} is a box without a size")
    if rows["label_probabilities"].shape[1] != len(labels):
        raise DataError(f"{records.folder}: {rows['label_probabilities'].shape[1]} label probabilities, .zattrs names {len(labels)} labels")
    tokens, row = np.unique(rows["track_id"], return_inverse=True)
    steps = len(frames)
    if len(np.unique(row * steps + step)) != len(rows):
        raise DataError(f"{records.folder}: a track has two boxes in one frame of the scene that starts at record {first}")
    poses = np.column_stack([rows["centroid"] - origin, rows["yaw"]])
    first_seen = np.unique(row, return_index=True)[1]  # rows are in order of time
    label = rows["label_probabilities"][first_seen].argmax(axis=1)
    types = np.array([KINDS.get(labels[k], AgentType.GENERIC_OBJECT) for k in label], np.int64)
    sizes = np.asarray(rows["extent"][first_seen], np.float64)
    return BoxTracks.moving(tuple(str(t) for t in tokens), types, sizes, step, row, poses, DT)


def _faces(records: Records, frames: NDArray) -> tuple[tuple[str, ...], ...]:
    """Of each frame, the ids of the traffic-light faces that are lit."""
    rows, step = _inner(records, frames, "traffic_light_faces_index_interval")
    lit: list[list[str]] = [[] for _ in frames]
    if len(rows):
        for k in np.flatnonzero(rows["traffic_light_face_status"].argmax(axis=1) == ACTIVE):
            lit[step[k]].append(str(rows["face_id"][k]))
    return tuple(tuple(dict.fromkeys(faces)) for faces in lit)  # some are listed twice


class L5KitReader:
    """Scenes of the zarr folders below a folder. A `Reader`; `find` opens the arrays."""

    name = "l5kit"

    def __init__(self, maps: Path | None = None) -> None:
        """`maps`: folder of L5Kit's data with meta.json and semantic_map/semantic_map.pb; None leaves the scenes without a map."""
        self.maps = maps

    @cached_property
    def _chart(self) -> SemanticMap | None:
        return None if self.maps is None else read_map(self.maps)

    def find(self, root: Path) -> list[Entry]:
        """One log a scene, in order of file and scene; one for a file that cannot be opened, which `read` then tells."""
        _ = self._chart  # read once, and told once where it cannot be
        found = sorted({path.parent for path in walk(root, lambda name: name == ".zgroup") if path.parent.suffix == ".zarr"})
        self._arrays, entries = {}, []
        for path in found:
            with suppress(DataError):
                self._arrays[path] = open_arrays(path)
            count = len(self._arrays[path]["scenes"]) if path in self._arrays else 1
            entries += [Entry(f"{path.stem}-{k:05d}", path, _split(path), str(k)) for k in range(count)]
        return entries

    def read(self, entry: Entry) -> Log:
        """One scene. Raises DataError, naming array and record."""
        return read_log(entry.path, self._arrays.get(entry.path) or open_arrays(entry.path), int(entry.key), entry.split, self._chart)


def inspect(path: Path) -> Inspection:
    """Counts of one zarr folder; scenes that cannot be read are faults. Raises DataError where an array is missing."""
    arrays = open_arrays(path)
    metres, tracks, faults = 0.0, 0, []
    for scene in range(len(arrays["scenes"])):
        try:
            log = read_log(path, arrays, scene, "test")
        except DataError as error:
            faults.append(str(error))
            continue
        metres, tracks = metres + driven(log.ego), tracks + len(log.agents)
    counts: dict[str, int | float | str] = {
        "scenes": len(arrays["scenes"]),
        "frames": len(arrays["frames"]),
        "agent boxes": len(arrays["agents"]),
        "tracks": tracks,
        "traffic-light faces": len(arrays["traffic_light_faces"]),
        "driven (m)": round(metres, 1),
    }
    return Inspection("L5Kit zarr", path, counts, tuple(faults))


def inspect_map(path: Path) -> Inspection:
    """Counts of a semantic_map.pb, whose meta.json lies beside it or in the folder above. Raises DataError, naming file and element."""
    return Inspection("L5Kit semantic map", path, dict(map_counts(read_map(path.parent))))
