"""What is in a ScenarioNet pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from drive.core.errors import DataError
from drive.datasets.logged import Inspection
from drive.datasets.unpickle import load_plain_pickle

PARTS = ("tracks", "map_features", "metadata")


def inspect(path: Path) -> Inspection:
    """Counts of one log: steps, tracks (the ego among them), map features by kind; tracks without usable states are faults.

    Raises DataError where the pickle is no ScenarioNet record.
    """
    record = load_plain_pickle(path)
    if not isinstance(record, Mapping) or not all(isinstance(record.get(part), Mapping) for part in PARTS):
        raise DataError(f"{path}: no ScenarioNet record, it lacks {', '.join(PARTS)}")
    tracks, meta = record["tracks"], record["metadata"]
    kinds: Counter[str] = Counter()
    features: Counter[str] = Counter()
    lengths: set[int] = set()
    faults = []
    for key, track in tracks.items():
        try:
            positions = np.asarray(track["state"]["position"], np.float64)
            valid = np.asarray(track["state"]["valid"]) > 0
            kind = str(track["type"])
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{path}: track {key} has no usable state ({error!r})")
            continue
        kinds[kind.lower()] += 1
        lengths.add(len(positions))
        if len(valid) != len(positions) or not np.isfinite(positions[valid]).all():
            faults.append(f"{path}: track {key} has NaN or infinity where it is valid, or flags of another length")
    for feature in record["map_features"].values():
        features[str(feature.get("type", "no type") if isinstance(feature, Mapping) else "no type").lower()] += 1
    if len(lengths) > 1:
        faults.append(f"{path}: tracks are of {len(lengths)} lengths, {min(lengths)} to {max(lengths)} steps")
    counts: dict[str, int | float | str] = {
        "log": str(meta.get("scenario_id") or record.get("id") or path.stem),
        "source": str(meta.get("dataset", "unknown")),
        "steps": max(lengths, default=0),
        "tracks": len(tracks),
        "map features": len(record["map_features"]),
        "lights": len(record.get("dynamic_map_states") or ()),
        **kinds,
        **features,
    }
    return Inspection("ScenarioNet log", path, counts, tuple(faults))
