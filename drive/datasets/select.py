"""A dataset by its config: the one place that knows them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drive.core.errors import ConfigError, DataError
from drive.core.types import Scenario
from drive.datasets.logged import Reader


@dataclass(frozen=True)
class Selected:
    """Scenarios of one split, and what could not be read of it."""

    scenarios: Sequence[Scenario]
    fingerprint: str
    expected: int  # scenarios that the split should hold, unreadable ones counted or estimated
    faults: tuple[str, ...] = ()
    logs: frozenset[str] = frozenset()  # real drives that the scenarios are cut from; towns of the embedded world are apart by name


def select(config: Mapping[str, Any], split: str, progress: bool = True) -> Selected:
    """The dataset of a config section (`configs/dataset/*.yaml`), with its annotations where `annotations` names a folder of them.

    Embedded scenes are generated when they are not there yet.
    """
    data = _read(config, split, progress)
    if not config.get("annotations"):
        return data
    from drive.datasets.annotations import annotated

    return annotated(data, config, split)


def _read(config: Mapping[str, Any], split: str, progress: bool) -> Selected:
    if config["name"] == "embedded":
        from drive.datasets.embedded import ensure_embedded

        key = f"{split}_scenes"
        if key not in config:
            raise ConfigError(f"dataset=embedded has the splits train, val and test, not {split!r}")
        low = [f"dataset.{name}={config[name]}" for name in (key, "workers") if config[name] < 1]
        if low:
            raise ConfigError(f"{', '.join(low)}: must be at least 1")
        return ensure_embedded(config["root"], split, config[key], config["seed"], config["workers"], progress)
    if config["name"] == "nuscenes":
        from drive.datasets.nuscenes import NuScenesDataset

        scenes = NuScenesDataset(config["root"], split, config["version"], config["camera"], config["drivelm"])
        return Selected(scenes, scenes.fingerprint, scenes.expected, tuple(scenes.faults), scenes.drives)
    if config["name"] == "navsim":
        from drive.datasets.navsim import NavsimDataset, NavsimReader, read_filter

        reader = NavsimReader(_folder(config["maps"]), _folder(config["sensors"]), config["cameras"], read_filter(config["filter"]))
        logs = NavsimDataset(reader, config["root"], split, config["stride_s"], _splits(config), _identity(config))
        return Selected(logs, logs.fingerprint, logs.expected, tuple(logs.faults), logs.drives)
    return _logged(make_reader(config), config, split)


def make_reader(config: Mapping[str, Any]) -> Reader:
    """The source of logs that a config section names. Raises ConfigError where there is none."""
    if config["name"] == "scenarionet":
        from drive.datasets.scenarionet import ScenarioNetReader

        return ScenarioNetReader()
    if config["name"] == "av2":
        from drive.datasets.av2 import Av2Reader

        return Av2Reader(config["cameras"])
    if config["name"] == "nuplan":
        from drive.datasets.nuplan import NuPlanReader

        return NuPlanReader(_folder(config["maps"]), _folder(config["sensors"]), config["cameras"])
    if config["name"] == "navsim":
        from drive.datasets.navsim import NavsimReader, read_filter

        return NavsimReader(_folder(config["maps"]), _folder(config["sensors"]), config["cameras"], read_filter(config["filter"]))
    if config["name"] == "av2_forecasting":
        from drive.datasets.av2_forecasting import Av2ForecastingReader

        return Av2ForecastingReader()
    if config["name"] == "l5kit":
        from drive.datasets.l5kit import L5KitReader

        return L5KitReader(_folder(config["maps"]))
    if config["name"] == "py123d":
        from drive.datasets.py123d import Py123dReader

        return Py123dReader(config["cameras"], _folder(config["sensors"]))
    if config["name"] == "nuscenes":
        from drive.datasets.nuscenes import NuScenesReader

        return NuScenesReader(config["version"], config["camera"], config["drivelm"])
    if config["name"] == "waymo_motion":
        from drive.datasets.waymo_motion import WaymoMotionReader

        return WaymoMotionReader()
    if config["name"] == "waymo_e2e":
        from drive.datasets.waymo_e2e import WaymoE2EReader

        return WaymoE2EReader(tuple(config["cameras"]), config["stride_s"])
    if config["name"] == "waymo_perception":
        from drive.datasets.waymo_perception import WaymoPerceptionReader

        return WaymoPerceptionReader(tuple(config["cameras"]))
    if config["name"] == "cache":
        from drive.datasets.convert import CacheReader

        return CacheReader(config["images"])
    raise ConfigError(f"no source of logs is named {config['name']!r}")


SHORT = ("nuscenes", "waymo_e2e")  # sources whose protocols judge scenes with less than 5 s of future as well
OUTSIDE = ("name", "root", "splits", "annotations", "codebook_tolerance", "short_futures", "images")  # that no reader takes


def reader_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config section that decide what a log holds; the scenes' spacing is one to waymo_e2e alone, which reads by it."""
    left_out = OUTSIDE if config["name"] == "waymo_e2e" else (*OUTSIDE, "stride_s")
    return {key: value for key, value in config.items() if key not in left_out}


def _identity(config: Mapping[str, Any]) -> str:
    """The settings for a fingerprint: of folders only whether they are given, as their content is what counts."""
    plain = {key: bool(value) if key in ("maps", "sensors", "drivelm", "filter") else value for key, value in reader_settings(config).items()}
    return json.dumps({"name": config["name"], **plain}, sort_keys=True)


def _logged(reader: Reader, config: Mapping[str, Any], split: str) -> Selected:
    """The logs of `reader` below the config's root."""
    from drive.datasets.logged import LogDataset

    short = config.get("short_futures", False)
    if short is None:
        from drive.datasets.convert import source_of

        short = source_of(Path(config["root"])) in SHORT
    logs = LogDataset(reader, config["root"], split, config["stride_s"], short, _splits(config), _identity(config))
    return Selected(logs, logs.fingerprint, logs.expected, tuple(logs.faults), logs.drives)


def _splits(config: Mapping[str, Any]) -> Mapping[str, Sequence[str]] | None:
    from drive.datasets.splits import load_splits

    return load_splits(config["splits"]) if config.get("splits") else None


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


def spread(total: int, count: int) -> list[int]:
    """`count` indexes evenly spread over `total`, all of them where they are no more: the first scenes alone would be of one log."""
    count = min(count, total)
    return [round(k * (total - 1) / max(count - 1, 1)) for k in range(count)]


def asked_for(count: int, data: Selected) -> int:
    """How many scenarios `count` of those that are there stand for, the unread ones in proportion."""
    return max(round(count * data.expected / len(data.scenarios)), count) if len(data.scenarios) else data.expected


def readable(scenarios: Sequence[Scenario], indexes: Iterable[int]) -> tuple[list[Scenario], list[str]]:
    """The scenarios of `indexes` that can be read, and what is wrong with each of the others, naming file and record."""
    good: list[Scenario] = []
    faults: list[str] = []
    for index in indexes:
        try:
            good.append(scenarios[index])
        except DataError as error:
            faults.append(str(error))
    return good, faults
