"""GeoPackage layers near a drive, without GDAL: SQLite tables whose geometries are WKB behind a short header (OGC 12-128r18, 2.1.3).

nuPlan's maps are in degrees (EPSG:4326) and are carried over to the metres of `projectedCoordSystem` in their table `meta`, as
nuplan-devkit does (maps_db/gpkg_mapsdb.py). A city is large: a geometry is decoded only where the box in its header comes near.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.errors import DataError
from drive.datasets.nuplan_db import select

Array = NDArray[np.float64]
DEGREES = 4326  # EPSG code of longitude and latitude
ENVELOPES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}  # bytes, by the header's code


def decode(blob: object) -> tuple[int, tuple[float, ...], bytes]:
    """(EPSG code, box (xmin, xmax, ymin, ymax) or (), WKB) of a GeoPackage geometry. Raises ValueError on a broken header."""
    if not isinstance(blob, bytes) or len(blob) < 8 or blob[:2] != b"GP":
        raise ValueError("its geometry has no GeoPackage header")
    flags = blob[3]
    size = ENVELOPES.get((flags >> 1) & 7)
    if size is None or len(blob) < 8 + size:
        raise ValueError("the header of its geometry is damaged")
    order = "<" if flags & 1 else ">"
    (code,) = struct.unpack_from(f"{order}i", blob, 4)
    return code, struct.unpack_from(f"{order}4d", blob, 8) if size else (), blob[8 + size :]


def projection(connection: sqlite3.Connection, path: Path) -> str:
    """projectedCoordSystem of the table `meta`, e.g. "epsg:32611". Raises DataError where it is not told."""
    meta = dict(select(connection, path, "meta", ("key", "value")))
    if not isinstance(meta.get("projectedCoordSystem"), str):
        raise DataError(f"{path}: table meta does not tell its projectedCoordSystem: it is no map of nuPlan")
    return meta["projectedCoordSystem"]


def _transformer(source: str, target: str) -> Callable[[Array], Array]:
    try:
        from pyproj import Transformer  # type: ignore[import-not-found]
        from pyproj.exceptions import ProjError  # type: ignore[import-not-found]
    except ImportError:
        raise DataError("nuPlan's maps are in degrees: pip install 'drive-vla[nuplan]'") from None
    try:
        change = Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise DataError(f"no way from {source} to {target}, the map's projectedCoordSystem ({error})") from error

    def apply(points: Array) -> Array:
        return np.column_stack(change.transform(points[:, 0], points[:, 1]))

    return apply


class MapLayers:
    """The layers of one open GeoPackage within `area`, a polygon in its projected metres."""

    def __init__(self, connection: sqlite3.Connection, path: Path, area: BaseGeometry) -> None:
        """Raises DataError where the file tells no projection."""
        self.connection, self.path, self.area = connection, path, area
        self.target = projection(connection, path)
        self.geometry = dict(select(connection, path, "gpkg_geometry_columns", ("table_name", "column_name")))
        self._windows: dict[int, tuple[tuple[float, ...], Callable[[Array], Array] | None]] = {}

    def _window(self, code: int) -> tuple[tuple[float, ...], Callable[[Array], Array] | None]:
        """The box (xmin, ymin, xmax, ymax) of the area in the layer's own system, and the way from that to metres."""
        if code not in self._windows:
            if code != DEGREES and f"epsg:{code}" != self.target.lower():
                raise DataError(
                    f"{self.path}: geometries in EPSG:{code} are not read, only those in {self.target} or EPSG:{DEGREES}"
                )
            if code != DEGREES:
                self._windows[code] = tuple(self.area.bounds), None
            else:
                back = _transformer(self.target, f"epsg:{DEGREES}")
                corners = back(shapely.get_coordinates(shapely.segmentize(shapely.box(*self.area.bounds), 500.0)))
                self._windows[code] = (*corners.min(axis=0), *corners.max(axis=0)), _transformer(f"epsg:{DEGREES}", self.target)
        return self._windows[code]

    def near(
        self, layer: str, columns: Sequence[str], keep: Callable[..., bool] | None = None
    ) -> Iterator[tuple[BaseGeometry, tuple[Any, ...]]]:
        """(geometry in metres, columns) of the records within the area, or of those whose columns `keep` accepts, wherever they lie.

        Raises DataError, naming the record, on a broken geometry.
        """
        if layer not in self.geometry:
            raise DataError(f"{self.path} lacks the layer {layer}")
        for number, (blob, *values) in enumerate(select(self.connection, self.path, layer, (self.geometry[layer], *columns))):
            if keep is not None and not keep(*values):
                continue
            try:
                code, box, wkb = decode(blob)
                window, change = self._window(code)
                if (
                    keep is None
                    and box
                    and (box[0] > window[2] or box[1] < window[0] or box[2] > window[3] or box[3] < window[1])
                ):
                    continue
                with np.errstate(invalid="ignore"):  # NaN is told below
                    shape = shapely.force_2d(shapely.from_wkb(wkb))
                points = shapely.get_coordinates(shape)
                if not np.isfinite(points).all() or not len(points):
                    raise ValueError("its geometry is empty, or has NaN")
            except (ValueError, shapely.errors.ShapelyError) as error:
                raise DataError(f"{self.path}: record {number} of {layer}: {error}") from error
            shape = shape if change is None else shapely.set_coordinates(shape, change(points))
            if keep is not None or shapely.intersects(self.area, shape if shape.is_valid else shape.envelope):
                yield shape, tuple(values)

    def records(self, layer: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The columns of every record, wherever it lies."""
        yield from select(self.connection, self.path, layer, columns)
