"""Scenarios from Argoverse 2 motion-forecasting data (Wilson et al. 2021): `scenario_<id>.parquet` beside `log_map_archive_<id>.json`.

110 steps at 10 Hz, of which the first 50 are observed: the one present is step 49. Schema: av2-api,
motion_forecasting/data_schema. The track `AV` is the ego. Which point of the car it follows is not published; in the scenario
that av2-api ships it moves sideways by -0.33 +- 0.03 m for every radian of turn, close to Argoverse's vehicle frame (-0.06 to
-0.11 m in two sensor logs that turn), whose origin is the rear axle, and far from the middle of the car, 1.4 m: it is taken for
the rear axle as it is. Boxes have no size here: SIZES stand in, and `notes` say so. The split (train, val, test) is that of a
folder above, test where none is named so.
"""

from __future__ import annotations

from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Tracks
from drive.datasets.av2 import EGO_SIZE, arrays_of
from drive.datasets.av2_map import build_road_map, read_map
from drive.datasets.logged import Entry, Inspection, split_of_path, walk
from drive.datasets.logs import Log
from drive.datasets.motion import DT, central_velocity, driven, ego_motion

Array = NDArray[np.float64]
FILES = "scenario_*.parquet"
EGO = "AV"
PRESENT = 49  # the last observed step
SCORED, FOCAL = 2, 3  # of object_category
TEXTS = ("track_id", "object_type", "scenario_id", "focal_track_id", "city")
NUMBERS = ("object_category", "timestep", "position_x", "position_y", "heading", "num_timestamps", "start_timestamp", "end_timestamp")
MAX_STEPS = 10_000
KINDS = {
    **dict.fromkeys(("vehicle", "bus"), AgentType.VEHICLE),
    "pedestrian": AgentType.PEDESTRIAN,
    **dict.fromkeys(("cyclist", "motorcyclist", "riderless_bicycle"), AgentType.BICYCLE),
    **dict.fromkeys(("static", "background", "construction", "unknown"), AgentType.GENERIC_OBJECT),
}  # all ten
# length, width, height in m: medians of the boxes of such objects in the three sensor logs of av2-api, a metre for what has no class there
SIZES = {
    "vehicle": (4.22, 1.89, 1.68),
    "bus": (11.58, 2.94, 3.0),
    "pedestrian": (0.67, 0.71, 1.79),
    "cyclist": (1.62, 0.55, 1.6),
    "motorcyclist": (1.8, 0.59, 1.6),
    "riderless_bicycle": (1.62, 0.55, 1.2),
    "construction": (0.37, 0.3, 0.97),
}
OTHER_SIZE = (1.0, 1.0, 1.0)


def _columns(path: Path) -> dict[str, Any]:
    """The columns of a scenario. Raises DataError, naming file and row, where it cannot be read, lacks one, or has NaN."""
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("Argoverse 2 scenarios are Parquet files: pip install 'drive-vla[av2]'") from None
    wanted = (*TEXTS, *NUMBERS)
    table, found = arrays_of(path, wanted, lambda: parquet.ParquetFile(path, page_checksum_verification=True).read(columns=list(wanted)), ArrowException)
    for name, values in found.items():
        if (name in TEXTS) != (values.dtype.kind == "O"):
            raise DataError(f"{path}: column {name} is of type {table.schema.field(name).type}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{path}: {name} of row {int(np.flatnonzero(~np.isfinite(values))[0])} is NaN or infinite")
    if not len(found["timestep"]):
        raise DataError(f"{path} holds no row")
    return found


def read_log(path: Path, split: str) -> Log:
    """The scenario in one file, with the map beside it. Raises DataError, naming file and row, where one of them is at fault."""
    rows = _columns(path)
    steps = int(rows["num_timestamps"][0])
    at = np.asarray(rows["timestep"], np.int64)
    if not 2 <= steps <= MAX_STEPS or (at < 0).any() or (at >= steps).any():
        raise DataError(f"{path}: timesteps {at.min()} to {at.max()} of {steps}")
    seconds = (float(rows["end_timestamp"][0]) - float(rows["start_timestamp"][0])) * 1e-9
    if abs(seconds / (steps - 1) - DT) > 0.01:
        raise DataError(f"{path}: {steps} steps in {seconds:.1f} s are not 10 Hz")
    tokens, row = np.unique(np.asarray(rows["track_id"], str), return_inverse=True)
    if len(np.unique(row * steps + at)) != len(at):
        raise DataError(f"{path}: a track stands twice at one timestep")
    poses, valid = np.zeros((len(tokens), steps, 3)), np.zeros((len(tokens), steps), bool)
    poses[row, at] = np.column_stack([rows["position_x"], rows["position_y"], rows["heading"]])
    valid[row, at] = True
    ego = np.flatnonzero(tokens == EGO)
    if not len(ego) or not valid[ego[0]].all():
        raise DataError(f"{path}: the track {EGO} of the ego " + (f"lacks step {int((~valid[ego[0]]).argmax())}" if len(ego) else "is absent"))
    origin = np.floor(poses[ego[0], 0, :2])
    poses[valid, :2] -= origin
    archive = _map_file(path)
    first = np.unique(row, return_index=True)[1]
    kinds, category = np.asarray(rows["object_type"], str)[first], np.asarray(rows["object_category"], np.int64)[first]
    others = np.flatnonzero(tokens != EGO)
    if strange := set(kinds.tolist()) - KINDS.keys():
        raise DataError(f"{path}: {min(strange)!r} is no object_type of Argoverse 2: the file is damaged, fetch it again")
    if str(rows["scenario_id"][0]) != path.stem.removeprefix("scenario_"):
        raise DataError(f"{path} holds the scenario {str(rows['scenario_id'][0])!r}, not the one that it is named after: it is damaged or misnamed")
    return Log(
        log_id=str(rows["scenario_id"][0]),
        source="av2_forecasting",
        split=split,
        files=(path, archive),
        dt=DT,
        ego=ego_motion(poses[ego[0]]),
        ego_size=EGO_SIZE,
        agents=_agents(tokens[others], kinds[others], poses[others], valid[others]),
        origin=origin,
        make_map=partial(_map, path.stem, archive, origin),
        presents=(PRESENT,),
        notes={
            "focal_track": str(rows["focal_track_id"][0]),
            "scored_tracks": [str(t) for t in tokens[category == SCORED]],
            "city": str(rows["city"][0]),
            "agent_sizes": "typical of their class: none are recorded",
        },
    )


def _map(name: str, archive: Path, origin: Array) -> RoadMap:
    return build_road_map(name, read_map(archive), origin, archive)


def _agents(tokens: NDArray[Any], kinds: NDArray[Any], poses: Array, valid: NDArray[np.bool_]) -> Tracks:
    types = np.array([KINDS[str(kind)] for kind in kinds], np.int64)
    size = np.array([SIZES.get(str(kind), OTHER_SIZE) for kind in kinds], np.float64).reshape(-1, 3)
    return Tracks(tuple(str(t) for t in tokens), types, size, poses, central_velocity(poses[..., :2], valid), valid)


def _map_file(path: Path) -> Path:
    found = sorted(path.parent.glob("log_map_archive_*.json"))
    if len(found) != 1:
        raise DataError(f"{path.parent} holds {len(found)} files log_map_archive_*.json, want one")
    return found[0]


class Av2ForecastingReader:
    """Motion-forecasting scenarios below a folder. A `Reader`."""

    name = "av2_forecasting"

    def find(self, root: Path) -> list[Entry]:
        """The scenarios, in order of path; the split is that of the folder above, test where none is named so."""
        found = walk(root, lambda name: fnmatch(name, FILES))
        return [Entry(path.stem.removeprefix("scenario_"), path, split_of_path(path.parent, "test")) for path in found]

    def read(self, entry: Entry) -> Log:
        """One scenario with its map. Raises DataError, naming file and row."""
        return read_log(entry.path, entry.split)


def inspect(path: Path) -> Inspection:
    """Counts of one scenario's file. Raises DataError, naming file and row."""
    log = read_log(path, split_of_path(path.parent, "test"))
    layers = {name.replace("_", " "): len(records) for name, records in read_map(log.files[1]).items()}
    counts = {"steps": log.steps, "tracks": len(log.agents) + 1, "scored tracks": len(log.notes["scored_tracks"]), "driven (m)": driven(log.ego), **layers}
    return Inspection("Argoverse 2 motion-forecasting scenario", path, counts)
