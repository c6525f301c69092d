"""A town as the server has it: its OpenDRIVE, its lanes, where cars may start."""

from __future__ import annotations

import gzip
import math
import re
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.opendrive import road_map_from_opendrive
from drive.simulators.render import SceneRenderer
from drive.simulators.scenery import scenery_boxes
from drive.simulators.static_scene import drivable_surface
from drive.simulators.towns import TOWNS, town_names

Array = NDArray[np.float64]
SPAWN_EVERY, SPAWN_FIRST, SPAWN_HEIGHT = 40.0, 8.0, 0.3  # m
ENDINGS = (".xodr", ".xodr.gz")


class Town:
    """One map. Everything about its geometry is computed when first asked for."""

    def __init__(self, name: str, opendrive: str, road_map: RoadMap | None = None) -> None:
        """Raises DataError where the OpenDRIVE cannot be read."""
        self.name, self.opendrive = name, opendrive
        self.road_map = road_map or road_map_from_opendrive(opendrive, name)

    @property
    def path(self) -> str:
        """As carla.Map.name gives it."""
        return f"Carla/Maps/{self.name}"

    @cached_property
    def renderer(self) -> SceneRenderer:
        """The renderer of its lanes."""
        return SceneRenderer(self.road_map)

    @cached_property
    def scenery(self) -> tuple[Array, NDArray[np.int64]]:
        """Boxes (N, 5) x, y, yaw, half length, half width of what stands beside the road, CARLA's frame, rad; their labels (N,)."""
        boxes, labels = scenery_boxes(self.road_map, drivable_surface(self.road_map))
        return boxes * (1.0, -1.0, -1.0, 1.0, 1.0), labels

    @cached_property
    def spawn_points(self) -> Array:
        """(K, 6) CARLA poses at the middle of driving lanes outside junctions."""
        found = []
        for lane in self.road_map.lanes.values():
            if lane.is_connector or lane.length < 2.0 * SPAWN_FIRST:
                continue
            for s in np.arange(SPAWN_FIRST, lane.length - SPAWN_FIRST + 0.01, SPAWN_EVERY):
                x, y, heading = lane.centerline[int(np.searchsorted(lane.s, s))]
                found.append((x, -y, 0.0, 0.0, -math.degrees(heading), 0.0))
        points = np.array(found).reshape(-1, 6)
        points[:, 2] = self.ground(points[:, 0], points[:, 1]) + SPAWN_HEIGHT
        return points

    def ground(self, x: Array, y: Array) -> Array:
        """z (N,) m of the road at x, y (N,) of CARLA's frame."""
        return np.zeros(np.shape(x))

    @cached_property
    def origin(self) -> tuple[float, float]:
        """Latitude and longitude, degrees, of x = y = 0, from the OpenDRIVE's geoReference; zero where it has none."""
        found = [re.search(rf"\+{key}=([-+\d.eE]+)", self.opendrive[:20000]) for key in ("lat_0", "lon_0")]
        return tuple(float(match[1]) if match else 0.0 for match in found)  # type: ignore[return-value]

    @cached_property
    def _lane_points(self) -> tuple[KDTree, Array, Array]:
        """Tree of the centrelines' points, CARLA's frame; their yaw, rad; their speed limit, km/h."""
        rows = [(p[0], -p[1], -p[2], lane.speed_limit * 3.6) for lane in self.road_map.lanes.values() for p in lane.centerline]
        table = np.array(rows)
        return KDTree(table[:, :2]), table[:, 2], table[:, 3]

    def speed_limit(self, x: Array, y: Array) -> Array:
        """km/h (N,) of the nearest lane."""
        tree, _, limits = self._lane_points
        return limits[tree.query(np.column_stack([x, y]))[1]]


class Atlas:
    """The maps that a server can load: the shipped towns, those of a folder, and what clients upload."""

    def __init__(self, folder: Path | None = None) -> None:
        self._files = {name: TOWNS / f"{name}.xodr" for name in town_names()}
        if folder is not None:
            if not folder.is_dir():
                raise DataError(f"no folder {folder} with OpenDRIVE maps")
            for path in sorted(folder.iterdir()):
                if path.name.endswith(ENDINGS):
                    self._files[path.name.split(".")[0]] = path
        self._loaded: dict[str, Town] = {}

    def names(self) -> list[str]:
        """Of all maps."""
        return sorted(self._files)

    def town(self, name: str) -> Town:
        """The map `name`, or whose path ends with it. Raises ServerError where there is none, or it cannot be read."""
        short = name.rsplit("/", 1)[-1]
        if short not in self._loaded:
            if short not in self._files:
                raise ServerError(f"Map '{name}' not found; this server has {', '.join(self.names())}")
            try:
                self._loaded[short] = _read(self._files[short])
            except DataError as error:
                raise ServerError(str(error)) from error
        return self._loaded[short]

    def upload(self, name: str, opendrive: str) -> Town:
        """A map from its text. Raises ServerError where it cannot be read."""
        try:
            town = Town(name, opendrive)
        except DataError as error:
            raise ServerError(str(error)) from error
        self._files[name], self._loaded[name] = Path(), town
        return town


def _read(path: Path) -> Town:
    name = path.name.split(".")[0]
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the OpenDRIVE file {path} ({error})") from error
    shipped = path.with_suffix(".npz")
    return Town(name, text, RoadMap.load(shipped) if path.parent == TOWNS and shipped.exists() else None)
