"""The motion dataset's tf.Example form: 128 agents as tensors, the map as sampled points.

What the points can give: they are ordered along each map feature, 0.5 m apart, so that polylines come back, and with them lanes,
lines and edges. Links between lanes, neighbours, boundaries and speed limits are not in the file: lanes follow each other where their ends touch
(`scenarionet_map`), all are 3.6 m wide, and the speed limit is a filler. The sampling is capped (20,000 or 30,000 points) and drops
the features of the highest ids, wherever they lie: of the public example's 21 lanes with lights 14 are missing, its junction is half empty, and
the corners of the ego's box lie in our drivable area at 75 % (at all steps of the public Scenario record): prefer those records where the
map counts. Feature names and types: waymo.com/open/data/motion/tfexample.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.datasets import waymo_map
from drive.datasets.logs import Log
from drive.datasets.motion import DT
from drive.datasets.waymo_map import LANES, LINES, Features
from drive.datasets.waymo_motion import agent_tracks, check_clock, ego_track, own_size
from drive.datasets.waymo_wire import Message

Array = NDArray[np.float64]
PARTS = ("past", "current", "future")
LIST = {"bytes": 1, "float": 2, "int": 3}  # fields of Feature
POINT_KINDS = {
    **LANES,
    **{6 + i: LINES[1 + i] for i in range(8)},
    15: "ROAD_EDGE",
    16: "ROAD_EDGE",
}  # roadgraph_samples/type; 17 stop sign, 18 crosswalk, 19 speed bump, 20 driveway, whose samples are no outline
MAP_NOTE = "from sampled points: lanes 3.6 m wide, linked where their ends touch; drivable area approximated from lanes and road edges"


class Example:
    """Named tensors of a tf.Example."""

    def __init__(self, message: Message) -> None:
        """Finds the features and reads none."""
        self.where = message.where
        self.found = {item.text(1): item.message(2) for item in message.message(1).messages(1)}

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def _list(self, name: str, kind: str) -> Message:
        if name not in self.found:
            raise DataError(f"{self.where}: tf.Example without the feature {name}")
        number = LIST[kind]
        if self.found[name].kinds and number not in self.found[name].kinds:
            raise DataError(f"{self.where}: feature {name} is no list of {kind}s")
        return self.found[name].message(number)

    def text(self, name: str) -> str:
        """A string, empty if there is none."""
        return self._list(name, "bytes").text(1)

    def reals(self, name: str, *shape: int) -> Array:
        """Floats of a shape."""
        return self._shaped(name, self._list(name, "float").reals(1), shape)

    def integers(self, name: str, *shape: int) -> NDArray[np.int64]:
        """Ints of a shape."""
        return self._shaped(name, self._list(name, "int").integers(1), shape)

    def _shaped(self, name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        try:
            return values.reshape(shape)
        except ValueError:
            raise DataError(f"{self.where}: feature {name} has {values.size} numbers, which do not fill {shape}") from None


def example_id(message: Message) -> str:
    """scenario/id, empty if there is none; nothing else is read."""
    for item in message.message(1).messages(1):
        if item.text(1) == "scenario/id":
            return item.message(2).message(LIST["bytes"]).text(1)
    return ""


def states(example: Example, name: str, agents: int, kind: str = "float") -> Array:
    """(agents, S) of a state over past, current and future, whichever parts there are."""
    read = example.reals if kind == "float" else example.integers
    parts = [read(f"state/{part}/{name}", agents, -1) for part in PARTS if part != "future" or f"state/future/{name}" in example]
    return np.concatenate(parts, axis=1).astype(np.float64)


def features_of(example: Example) -> Features:
    """The map's lanes, lines and edges as polylines, by id, in ScenarioNet's form."""
    key = "roadgraph_samples/"
    count = len(example.integers(f"{key}id", -1))
    ids, kinds, valid = (example.integers(key + name, count) for name in ("id", "type", "valid"))
    points = example.reals(f"{key}xyz", count, 3)[:, :2]
    used = (valid == 1) & np.isin(kinds, list(POINT_KINDS))
    order = np.argsort(ids[used], kind="stable")
    ids, kinds, points = ids[used][order], kinds[used][order], points[used][order]
    cuts = np.flatnonzero(np.diff(ids)) + 1
    starts = np.concatenate([[0], cuts]) if len(ids) else np.zeros(0, np.int64)
    return {
        str(ids[start]): {"type": POINT_KINDS[int(kinds[start])], "polyline": line}
        for start, line in zip(starts, np.split(points, cuts), strict=False)
    }


def lights_of(example: Example) -> list[tuple[int, int, int]]:
    """(step, lane, state) of the traffic lights; states as in TrafficSignalLaneState, -1 where there is none."""
    out, offset = [], 0
    for part in PARTS:
        key = f"traffic_light_state/{part}/"
        if f"{key}timestamp_micros" not in example:
            continue
        steps = len(example.integers(f"{key}timestamp_micros", -1))
        if not steps:
            continue
        ids, shown, valid = (example.integers(key + name, steps, -1) for name in ("id", "state", "valid"))
        out += [(offset + int(s), int(ids[s, k]), int(shown[s, k])) for s, k in zip(*np.nonzero(valid == 1), strict=True)]
        offset += steps
    return out


def example_log(message: Message, path: Path, split: str) -> Log:
    """The Log of a tf.Example of the motion dataset. Raises DataError, naming record and feature, where it is incomplete."""
    example, where = Example(message), message.where
    name = example.text("scenario/id") if "scenario/id" in example else ""
    if not name:
        raise DataError(f"{where}: tf.Example without scenario/id: it is none of the motion dataset")
    own = example.integers("state/is_sdc", -1)
    if (own == 1).sum() != 1:
        raise DataError(f"{where}: {int((own == 1).sum())} agents are Waymo's own car (state/is_sdc), want one")
    count, sdc = len(own), int(np.argmax(own == 1))
    centre = np.stack([states(example, part, count) for part in ("x", "y", "bbox_yaw")], axis=-1)
    size = np.stack([states(example, part, count) for part in ("length", "width", "height")], axis=-1)
    valid = states(example, "valid", count, "int") == 1.0
    times = states(example, "timestamp_micros", count, "int")[sdc] * 1e-6
    present = example.integers("state/past/valid", count, -1).shape[1]
    check_clock(where, times, present)
    ego, origin = ego_track(where, centre[sdc], valid[sdc])
    ids = [f"{value:g}" for value in example.reals("state/id", count)]
    used = valid.any(axis=1) & (np.arange(count) != sdc)  # the rest of the 128 rows is filling
    kinds = example.reals("state/type", count)
    agents, lost = agent_tracks(
        [ids[k] for k in np.flatnonzero(used)], kinds[used].tolist(), centre[used] - np.array([*origin, 0.0]), size[used], valid[used]
    )
    features = features_of(example)
    seen = lights_of(example)
    lights, lost["lights_off_map"] = waymo_map.read_lights(seen, len(times), waymo_map.lane_ids(features))
    wanted = np.flatnonzero(example.integers("state/tracks_to_predict", count) == 1)
    notes: dict[str, Any] = {
        "scenario_id": name,
        "sdc_id": ids[sdc],
        "tracks_to_predict": [ids[k] for k in wanted],
        "difficulties": example.integers("state/difficulty_level", count)[wanted].tolist() if "state/difficulty_level" in example else [],
        "objects_of_interest": [ids[k] for k in np.flatnonzero(example.integers("state/objects_of_interest", count) == 1)],
        **lost,
    }
    has_lanes = bool(waymo_map.lane_ids(features))
    return Log(
        log_id=name,
        source="waymo_motion",
        split=split,
        files=(path,),
        dt=DT,
        ego=ego,
        ego_size=own_size(size[sdc]),
        agents=agents,
        origin=origin,
        make_map=partial(waymo_map.build, name, features, origin, {str(lane) for step, lane, _ in seen if step <= present}) if has_lanes else None,
        times=times,
        lights=lights,
        presents=(present,),
        notes={**notes, "map": MAP_NOTE} if has_lanes else notes,
    )
