"""What one closed-loop route of CARLA's leaderboard ended with, and the events that decide it.

Source of names, message forms and rounding: carla-simulator/leaderboard statistics_manager.py, scenario_runner atomic_criteria.py, and
Bench2Drive's copies of both. A record keeps what the official results.json holds of a route, so that official tools can read what
is written here, and the other way round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from drive.core.errors import DataError

OUTSIDE = re.compile(r"about (-?[\d.]+(?:e-?\d+)?) meters \((-?[\d.]+(?:e-?\d+)?)%")
SPEED = re.compile(r"(?<![\d.])(\d+\.?\d*)%")
SCORES = ("score_route", "score_penalty", "score_composed")
LENGTHS = ("route_length", "duration_game", "duration_system")
TEXTS = ("scenario_name", "weather_id", "save_name", "town_name")  # Bench2Drive alone


class Infraction(str, Enum):
    """Kinds of event, by their keys in results.json."""

    PEDESTRIAN = "collisions_pedestrian"
    VEHICLE = "collisions_vehicle"
    STATIC = "collisions_layout"
    RED_LIGHT = "red_light"
    STOP_SIGN = "stop_infraction"
    OUTSIDE_LANES = "outside_route_lanes"
    MIN_SPEED = "min_speed_infractions"
    YIELD = "yield_emergency_vehicle_infractions"
    SCENARIO_TIMEOUT = "scenario_timeouts"
    DEVIATION = "route_dev"
    BLOCKED = "vehicle_blocked"
    ROUTE_TIMEOUT = "route_timeout"


class Failure(str, Enum):
    """Why a route that was not completed ended, in the words of its status."""

    DEVIATION = "Agent deviated from the route"
    BLOCKED = "Agent got blocked"
    ROUTE_TIMEOUT = "Agent timed out"
    TICKS = "TickRuntime"  # Bench2Drive's limit of 4000 ticks
    SIMULATION = "Simulation crashed"
    SENSORS = "Agent's sensors were invalid"
    AGENT_SETUP = "Agent couldn't be set up"
    AGENT = "Agent crashed"


@dataclass(frozen=True)
class Event:
    """One infraction of a roll-out."""

    kind: Infraction
    tick: int  # index into the roll-out
    message: str
    percentage: float = math.nan  # of OUTSIDE_LANES (share of the way) and MIN_SPEED (of the traffic's speed), unrounded where it was


@dataclass(frozen=True)
class RouteRecord:
    """One route's entry under `_checkpoint.records` of results.json."""

    route_id: str  # RouteScenario_<id>_rep<n>
    status: str  # "Perfect", "Completed", "Failed", "Failed - <why>", or "Started" while it runs
    score_route: float  # route completion, 0..100
    score_penalty: float  # infraction penalty, 0..1
    score_composed: float  # driving score of the route, 0..100
    infractions: Mapping[str, tuple[str, ...]]  # messages by key; keys as in the file
    route_length: float = 0.0  # m
    duration_game: float = 0.0  # s
    duration_system: float = 0.0  # s
    index: int | None = None  # position on the benchmark's list; Bench2Drive's merged files drop it
    texts: Mapping[str, str] = field(default_factory=dict)  # Bench2Drive's scenario_name, weather_id, save_name, town_name

    @property
    def route(self) -> str:
        """The id of the route in its XML file."""
        parts = self.route_id.split("_")
        return parts[1] if len(parts) > 1 else self.route_id

    @property
    def scenario(self) -> str:
        """Type of a Bench2Drive route's one scenario; empty where the record does not say."""
        return re.sub(r"_\d+$", "", self.texts.get("scenario_name", ""))

    @property
    def reached(self) -> bool:
        """Whether the end of the route was reached."""
        return self.status in ("Completed", "Perfect")

    def events(self, kind: Infraction) -> tuple[str, ...]:
        """The messages of one kind."""
        return tuple(self.infractions.get(kind.value, ()))

    def count(self) -> int:
        """Messages of all kinds, num_infractions of the file."""
        return sum(len(messages) for messages in self.infractions.values())

    @property
    def outside(self) -> tuple[float, float]:
        """(m, percent of the way) outside the route's lanes; the file has one such entry at most."""
        found = [OUTSIDE.search(message) for message in self.events(Infraction.OUTSIDE_LANES)]
        values = [(float(m[1]), float(m[2])) for m in found if m]
        if len(values) != len(found):
            raise DataError(f"record {self.route_id}: an outside_route_lanes message without metres and percent")
        return sum(m for m, _ in values), sum(p for _, p in values)

    @property
    def speeds(self) -> tuple[float, ...]:
        """Percent of the surrounding traffic's speed at each checkpoint that has an event."""
        found = [SPEED.search(message) for message in self.events(Infraction.MIN_SPEED)]
        if not all(found):
            raise DataError(f"record {self.route_id}: a min_speed_infractions message without a percentage")
        return tuple(float(m[1]) for m in found if m)

    def to_json(self) -> dict[str, Any]:
        """The record as results.json has it."""
        return {
            **({} if self.index is None else {"index": self.index}),
            "route_id": self.route_id,
            **self.texts,
            "status": self.status,
            "num_infractions": self.count(),
            "infractions": {key: list(messages) for key, messages in self.infractions.items()},
            "scores": {name: getattr(self, name) for name in SCORES},
            "meta": {name: getattr(self, name) for name in LENGTHS},
        }


def record_from_json(data: Any, where: str) -> RouteRecord:
    """The record of a parsed JSON object; `where` (file and number) stands in front of faults. Raises DataError on another layout."""
    if not isinstance(data, dict) or not isinstance(data.get("route_id"), str) or not data["route_id"]:
        raise DataError(f"{where} is no route record: it has no route_id")
    where = f"{where} ({data['route_id']})"
    status, infractions, index = data.get("status"), data.get("infractions"), data.get("index")
    if not isinstance(status, str):
        raise DataError(f"{where}: no status")
    if not isinstance(infractions, dict) or not all(
        isinstance(v, list) and all(isinstance(message, str) for message in v) for v in infractions.values()
    ):
        raise DataError(f"{where}: infractions must hold a list of messages for each kind")
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise DataError(f"{where}: index {index!r} is no whole number")
    lists = {key: tuple(messages) for key, messages in infractions.items()}
    meta = data.get("meta") or {}  # a route that never started may have none
    numbers = {name: _number(data.get("scores"), name, "scores", where) for name in SCORES}
    numbers |= {name: _number(meta, name, "meta", where) for name in LENGTHS if name in meta}
    texts = {name: str(data[name]) for name in TEXTS if data.get(name) is not None}
    record = RouteRecord(data["route_id"], status, infractions=lists, index=index, texts=texts, **numbers)
    told = data.get("num_infractions", record.count())
    if told != record.count():
        raise DataError(f"{where}: num_infractions is {told}, its lists hold {record.count()}: the record is damaged")
    return record


def _number(group: Any, name: str, of: str, where: str) -> float:
    value = group.get(name) if isinstance(group, dict) else None
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {of}.{name} is {str(value)[:40]!r}, no finite number")
    return number
