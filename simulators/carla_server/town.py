"""A town as the server has it: its OpenDRIVE, its lanes, where cars may start."""

from __future__ import annotations

import gzip
import importlib.util
import logging
import math
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from drive.core.errors import DataError, DriveError
from drive.core.geometry import wrap_angle
from drive.core.roadmap import RoadMap
from drive.simulators.carla_server.lane_grid import LIMIT, flat_grid, hilly_grid
from drive.simulators.carla_server.layouts import ServerError
from drive.simulators.carla_server.signals import Signals, has_signals, read_signals, signed_limits
from drive.simulators.opendrive import carla_map, road_map_from_opendrive
from drive.simulators.render import SceneRenderer
from drive.simulators.scenery import scenery_boxes
from drive.simulators.static_scene import drivable_surface
from drive.simulators.towns import TOWNS, town_names

Array = NDArray[np.float64]
LOG = logging.getLogger("drive.carla_server")
SPAWN_EVERY, SPAWN_FIRST, SPAWN_HEIGHT = 15.0, 8.0, 0.3  # m
SPAWN_WIDTH, SPAWN_APART = 2.5, 7.0  # m: of a lane, at least; between cars, at least, but for those side by side
UNREADABLE = (ElementTree.ParseError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, OverflowError)
PROBE = (
    "import sys, carla; m = carla.Map('', sys.stdin.read()); m.get_all_landmarks(); m.generate_waypoints(5.0); m.get_topology()"
)
LONGEST_PROBE = 120.0  # s
ENDINGS = (".xodr", ".xodr.gz")


class Town:
    """One map. What of its geometry is dear is computed when first asked for."""

    def __init__(self, name: str, opendrive: str, road_map: RoadMap | None = None) -> None:
        """`road_map` where it is known, of a town whose OpenDRIVE is trusted.

        Raises DataError where the OpenDRIVE cannot be read, DriveError where that needs a wheel that is missing.
        """
        if "<!DOCTYPE" in opendrive:
            raise DataError(f"map {name} has a document type, which OpenDRIVE does not need: remove it")
        self.name, self.opendrive = name, opendrive
        if road_map is None:
            _probe(name, opendrive)
        try:
            self.road_map = road_map or road_map_from_opendrive(opendrive, name)
            root = ElementTree.fromstring(opendrive)
            hilly = _has_heights(root)
            signalled = has_signals(opendrive)
            world = carla_map(opendrive, name) if hilly or signalled else None
            self.grid = hilly_grid(world, self.road_map) if hilly else flat_grid(self.road_map)
            self.signals = read_signals(world, root, self.road_map, self.grid) if signalled else Signals()
        except UNREADABLE as error:
            raise DataError(
                f"map {name} cannot be read ({' '.join(str(error).split())}): check it with an OpenDRIVE validator"
            ) from error
        limits = signed_limits(self.road_map, self.signals.signs)
        for number, (key, lane) in enumerate(self.road_map.lanes.items()):
            if key in limits:
                self.grid.limit(number, lane.centerline[:, :2] * (1.0, -1.0), lane.s, limits[key])
        for kind, count in self.signals.skipped.items():
            LOG.info(
                "map %s: %d signals of type %s are neither lights, stop, yield nor speed signs, and left out", name, count, kind
            )

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
        """(K, 6) CARLA poses in the middle of driving lanes outside junctions, none within a car's length of another."""
        found: list[tuple[float, ...]] = []
        for number, lane in enumerate(self.road_map.lanes.values()):
            if lane.is_connector or lane.length < 2.0 * SPAWN_FIRST:
                continue
            for s in np.arange(SPAWN_FIRST, lane.length - SPAWN_FIRST + 0.01, SPAWN_EVERY):
                i = int(np.searchsorted(lane.s, s))
                x, y, heading = lane.centerline[i]
                if np.hypot(*(lane.left[i] - lane.right[i])) >= SPAWN_WIDTH:
                    z = self.grid.height_on(number, x, -y) + SPAWN_HEIGHT
                    found.append((x, -y, z, 0.0, math.degrees(wrap_angle(-heading)), 0.0))
        points = np.array(found).reshape(-1, 6)
        return points[_apart(points)]

    def ground(self, x: Array, y: Array, z: Array | None = None) -> Array:
        """z (N,) m of the road at x, y (N,) of CARLA's frame; the level nearest to `z` (N,) where one road passes over another."""
        return self.grid.height(np.asarray(x, float), np.asarray(y, float), z)

    def speed_limit(self, x: Array, y: Array, z: Array | None = None) -> Array:
        """km/h (N,) of the nearest lane."""
        return self.grid.points[self.grid.nearest(np.asarray(x, float), np.asarray(y, float), z), LIMIT]

    @cached_property
    def origin(self) -> tuple[float, float]:
        """Latitude and longitude, degrees, of x = y = 0, from the OpenDRIVE's geoReference; zero where it has none."""
        found = [re.search(rf"\+{key}=([-+\d.eE]+)", self.opendrive[:20000]) for key in ("lat_0", "lon_0")]
        return tuple(float(match[1]) if match else 0.0 for match in found)  # type: ignore[return-value]


def _probe(name: str, opendrive: str) -> None:
    """Raises DataError where carla.Map does not survive the text: a reference to nothing, for one, ends its whole process."""
    if importlib.util.find_spec("carla") is None:
        return  # carla_map will say so
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], input=opendrive.encode(), capture_output=True, timeout=LONGEST_PROBE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"map {name}: carla.Map takes longer than {LONGEST_PROBE:g} s to read this OpenDRIVE") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1] or f"its process ends with {done.returncode}"
        raise DataError(
            f"map {name}: carla.Map cannot read this OpenDRIVE ({why}): check its references with an OpenDRIVE validator"
        )


def _apart(points: Array) -> NDArray[np.int64]:
    """Rows of the points (K, 6) that keep their distance from all kept before; lanes side by side may hold cars side by side."""
    near = KDTree(points[:, :3]).query_pairs(SPAWN_APART, output_type="ndarray") if len(points) else np.zeros((0, 2), np.int64)
    yaw, middle = np.radians(points[:, 4]), points[:, :2]
    apart = middle[near[:, 1]] - middle[near[:, 0]]
    aside = np.abs(apart[:, 1] * np.cos(yaw[near[:, 0]]) - apart[:, 0] * np.sin(yaw[near[:, 0]]))
    parallel = np.abs(np.sin(yaw[near[:, 1]] - yaw[near[:, 0]])) < 0.2
    keep = np.ones(len(points), bool)
    for first, second in sorted(near[~parallel | (aside < SPAWN_WIDTH)].tolist()):
        keep[second] &= not keep[first]
    return np.flatnonzero(keep)


def _has_heights(root: ElementTree.Element) -> bool:
    """Whether any road rises, or leans."""
    tags = ("elevation", "superelevation", "crossfall", "shape", "height")
    return any(
        float(node.get(key, 0.0)) for tag in tags for node in root.iter(tag) for key in ("a", "b", "c", "d", "inner", "outer")
    )


class Atlas:
    """The maps that a server can load: the shipped towns, those of an installed py123d and of a folder, and what clients upload."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises DataError where there is no such folder."""
        if folder is not None and not folder.is_dir():
            raise DataError(f"no folder {folder} with OpenDRIVE maps")
        self._files = {name: TOWNS / f"{name}.xodr" for name in town_names()}
        for place in (py123d_maps(), folder):  # what the user names comes last, and counts
            for path in sorted(place.iterdir()) if place is not None else ():
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
            except DriveError as error:
                raise ServerError(str(error)) from error
        return self._loaded[short]

    def upload(self, name: str, opendrive: str) -> Town:
        """A map from its text. Raises ServerError where it cannot be read."""
        if not opendrive.lstrip("\ufeff \t\r\n").startswith(
            "<"
        ):  # road_map_from_opendrive would take it for a file of this machine
            raise ServerError(f"map {name} is not OpenDRIVE: the text does not begin with an XML element")
        try:
            town = Town(name, opendrive)
        except DriveError as error:
            raise ServerError(str(error)) from error
        self._files[name], self._loaded[name] = Path(), town
        return town


def py123d_maps() -> Path | None:
    """The folder of CARLA's OpenDRIVE files in an installed py123d, found without importing it."""
    found = importlib.util.find_spec("py123d")
    for place in (found.submodule_search_locations or ()) if found else ():
        folder = Path(place) / "parser" / "opendrive" / "carla_maps"
        if folder.is_dir():
            return folder
    return None


def _read(path: Path) -> Town:
    name = path.name.split(".")[0]
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the OpenDRIVE file {path} ({error})") from error
    shipped = path.with_suffix(".npz")
    return Town(name, text, RoadMap.load(shipped) if path.parent == TOWNS and shipped.exists() else None)
