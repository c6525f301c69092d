"""The embedded towns: OpenDRIVE files of our own, each kept beside its RoadMap so that no carla wheel is needed to drive them."""

from __future__ import annotations

from pathlib import Path

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap

TOWNS = Path(__file__).resolve().parent
TOWN_SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("urban_a", "rural_a", "highway_a"),
    "val": ("val_b",),
    "test": ("test_c",),
}


def town_names(split: str | None = None) -> tuple[str, ...]:
    """Towns of one split, or all of them. Raises DataError on an unknown split."""
    if split is None:
        return tuple(name for names in TOWN_SPLITS.values() for name in names)
    if split not in TOWN_SPLITS:
        raise DataError(f"no town split {split!r}: choose one of {', '.join(TOWN_SPLITS)}")
    return TOWN_SPLITS[split]


def load_town(name: str) -> RoadMap:
    """The RoadMap of a shipped town. Raises DataError on an unknown name."""
    if name not in town_names():
        raise DataError(f"no town {name!r}: choose one of {', '.join(town_names())}, or load a file with opendrive.load_map")
    return RoadMap.load(TOWNS / f"{name}.npz")
