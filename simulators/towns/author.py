"""Rebuilds the shipped towns, byte for byte: `python -m drive.simulators.towns.author` writes every .xodr and .npz anew."""

from __future__ import annotations

from pathlib import Path

from drive.simulators.opendrive import load_map
from drive.simulators.towns import TOWNS, town_names
from drive.simulators.towns import author_layouts as layouts


def build(folder: Path, names: tuple[str, ...] = ()) -> None:
    """Writes the towns `names`, or all, as .xodr and .npz into `folder`."""
    for name in names or town_names():
        path = folder / f"{name}.xodr"
        path.write_bytes(getattr(layouts, name)().xml())
        road_map = load_map(path)
        road_map.save(path.with_suffix(".npz"))
        print(f"{name}: {len(road_map.lanes)} lanes, {sum(lane.length for lane in road_map.lanes.values()):.0f} m")


if __name__ == "__main__":
    build(TOWNS)
