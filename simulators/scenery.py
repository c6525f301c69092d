"""Made-up houses and trees beside the road, placed by a seed from the map's name: they show speed and turning to a camera."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.roadmap import RoadMap
from drive.core.seeds import numpy_rng
from drive.simulators.agent_shapes import block
from drive.simulators.raster import QuadSet
from drive.simulators.scene_geometry import Paint, Semantic, quad_set, sunlit

Array = NDArray[np.float64]
HOUSE_SETBACK, TREE_SETBACK = 12.0, 4.2  # m from the drivable surface to the middle
HOUSE_CLEAR, TREE_CLEAR = 4.0, 2.6  # m that must stay free between the surface and a house's wall, a tree's stem
FLOOR = 3.1  # m
STEM_HALF = 0.16  # m
WALLS = [(196, 176, 150), (172, 140, 122), (206, 202, 192), (160, 164, 172), (188, 158, 116), (150, 122, 110)]
WINDOW, ROOF, STEM = (74, 86, 104), (128, 112, 104), (92, 72, 54)
CROWNS = [(62, 104, 52), (76, 116, 56), (54, 92, 58)]


def _walk(surface: BaseGeometry, setback: float, low: float, high: float, rng: np.random.Generator) -> Array:
    """(N, 3) x, y, heading of places along the surface's outline, `setback` metres off it, low..high metres apart."""
    places = [np.zeros((0, 3))]
    for ring in shapely.get_rings(shapely.get_parts(shapely.buffer(surface, setback, quad_segs=3))):
        at = np.cumsum(rng.uniform(low, high, int(ring.length / low) + 1))
        at = at[at < ring.length - low / 2.0]
        points = shapely.get_coordinates(shapely.line_interpolate_point(ring, at))
        ahead = shapely.get_coordinates(shapely.line_interpolate_point(ring, np.minimum(at + 0.5, ring.length)))
        step = ahead - points
        places.append(np.column_stack([points, np.arctan2(step[:, 1], step[:, 0])]))
    return np.concatenate(places)


def _turned(vertices: Array, place: Array) -> Array:
    """Faces (F, 4, 3) in metres moved to `place` (3,) x, y, heading."""
    c, s = np.cos(place[2]), np.sin(place[2])
    x, y = vertices[..., 0], vertices[..., 1]
    return np.stack([place[0] + c * x - s * y, place[1] + s * x + c * y, vertices[..., 2]], axis=-1)


def _house(length: float, depth: float, floors: int, wall: tuple) -> list:
    """Walls, roof and one band of windows per floor and side."""
    a, b, height = length / 2.0, depth / 2.0, floors * FLOOR + 0.6
    faces = block((-a, a), (-b, b), (0.0, height), wall, roof=ROOF)
    for floor in range(floors):
        z = (floor * FLOOR + 1.1, floor * FLOOR + 2.5)
        for half, end in ((a, b + 0.05), (b, a + 0.05)):
            for begin in np.arange(-half + 0.8, half - 2.0, 2.6):
                for side in (-1.0, 1.0):
                    p, q = (begin, begin + 1.6) if side < 0 else (begin + 1.6, begin)
                    low = [(p, side * end), (q, side * end)] if half == a else [(side * end, q), (side * end, p)]
                    (x0, y0), (x1, y1) = low
                    faces.append((np.array([(x0, y0, z[0]), (x1, y1, z[0]), (x1, y1, z[1]), (x0, y0, z[1])]), WINDOW, False))
    return faces


def _tree(height: float, reach: float, crown: tuple) -> list:
    """A stem and a crown of two tapered blocks."""
    low, mid, r = 0.3 * height, 0.58 * height, reach
    stem = block((-STEM_HALF, STEM_HALF), (-STEM_HALF, STEM_HALF), (0.0, low), STEM)[1:]
    lower = block((-0.6 * r, 0.6 * r), (-0.6 * r, 0.6 * r), (low, mid), crown, (-r, r, -r, r))[1:]
    return [*stem, *lower, *block((-r, r), (-r, r), (mid, height), crown, (-0.35 * r, 0.35 * r, -0.35 * r, 0.35 * r))]


def _paint(objects: list[tuple[list, Array]], semantic: Semantic) -> Paint:
    """One Paint of many objects, each (faces, place)."""
    vertices = [np.zeros((0, 4, 3))] + [_turned(np.stack([f[0] for f in faces]), place) for faces, place in objects]
    rgb = [np.zeros((0, 3))] + [np.array([f[1] for f in faces], float) for faces, _ in objects]
    joined = np.concatenate(vertices)
    return Paint(joined, sunlit(joined, np.concatenate(rgb)), semantic)


class House(NamedTuple):
    """One house."""

    faces: list
    place: Array  # (3,) x, y, heading of its middle
    footprint: shapely.Polygon
    size: tuple[float, float]  # m along and across


def _houses(surface: BaseGeometry, rng: np.random.Generator) -> list[House]:
    """Houses that keep clear of the surface and of one another."""
    found: list[House] = []
    taken = np.zeros((0, 3))
    for place in _walk(surface, HOUSE_SETBACK, 15.0, 30.0, rng):
        length, depth, floors = rng.uniform(9.0, 17.0), rng.uniform(8.0, 12.0), int(rng.integers(1, 5))
        wall = WALLS[int(rng.integers(len(WALLS)))]
        corners = np.array([(-length, -depth), (length, -depth), (length, depth), (-length, depth)]) / 2.0
        footprint = shapely.Polygon(_turned(np.column_stack([corners, np.zeros(4)]), place)[:, :2])
        radius = float(np.hypot(length, depth)) / 2.0
        if (np.hypot(*(taken[:, :2] - place[:2]).T) < taken[:, 2] + radius).any() or shapely.dwithin(
            surface, footprint, HOUSE_CLEAR
        ):
            continue
        taken = np.vstack([taken, [*place[:2], radius]])
        found.append(House(_house(length, depth, floors, wall), place, footprint, (length, depth)))
    return found


def _placed(road_map: RoadMap, surface: BaseGeometry) -> tuple[list[House], list[tuple[list, Array]]]:
    """Houses and (faces, place) of trees beside the drivable `surface`, none of them on it."""
    if surface.is_empty:
        return [], []
    rng = numpy_rng(0, "scenery", road_map.name, len(road_map.lanes))
    shapely.prepare(surface)
    houses = _houses(surface, rng)
    walls = shapely.union_all([house.footprint for house in houses])
    trees = []
    for place in _walk(surface, TREE_SETBACK, 8.0, 22.0, rng):
        height, reach, crown = rng.uniform(4.0, 7.5), rng.uniform(1.1, 1.7), CROWNS[int(rng.integers(len(CROWNS)))]
        stem = shapely.Point(place[:2])
        if not shapely.dwithin(surface, stem, TREE_CLEAR) and not shapely.dwithin(walls, stem, 2.5):
            trees.append((_tree(height, reach, crown), place))
    return houses, trees


def scenery_solids(road_map: RoadMap, surface: BaseGeometry, wanted: bool = True) -> QuadSet:
    """Houses and trees beside the drivable `surface` (world m), none of them on it; an empty set where not wanted."""
    houses, trees = _placed(road_map, surface) if wanted else ([], [])
    return quad_set(
        [
            _paint([(house.faces, house.place) for house in houses], Semantic.BUILDING),
            _paint(trees, Semantic.VEGETATION),
        ]
    )


def scenery_boxes(road_map: RoadMap, surface: BaseGeometry) -> tuple[Array, NDArray[np.int64]]:
    """What a car can hit: boxes (N, 5) x, y, heading, half length, half width, world m, and their Semantic labels (N,)."""
    houses, trees = _placed(road_map, surface)
    walls = [(*house.place, house.size[0] / 2.0, house.size[1] / 2.0) for house in houses]
    stems = [(*place, STEM_HALF, STEM_HALF) for _, place in trees]
    labels = [int(Semantic.BUILDING)] * len(walls) + [int(Semantic.VEGETATION)] * len(stems)
    return np.array([*walls, *stems]).reshape(-1, 5), np.array(labels, np.int64)


def scenery_solid_boxes(road_map: RoadMap, surface: BaseGeometry) -> tuple[Array, NDArray[np.int64]]:
    """What a ray can hit: boxes (N, 7) x, y, heading, half length, half width, lower and upper end, world m, and labels (N,).

    A tree is two boxes, its stem and its crown, the latter as wide as the crown is at its widest.
    """
    houses, trees = _placed(road_map, surface)
    rows = [(*house.place, house.size[0] / 2.0, house.size[1] / 2.0, 0.0, _top(house.faces)) for house in houses]
    for faces, place in trees:
        reach = max(float(face[0][:, 0].max()) for face in faces)
        low = float(faces[0][0][:, 2].max())  # a stem's side comes first
        rows += [(*place, STEM_HALF, STEM_HALF, 0.0, low), (*place, reach, reach, low, _top(faces))]
    kinds = [int(Semantic.BUILDING)] * len(houses) + [int(Semantic.VEGETATION)] * (2 * len(trees))
    return np.array(rows).reshape(-1, 7), np.array(kinds, np.int64)


def _top(faces: list) -> float:
    """m of the highest corner."""
    return max(float(face[0][:, 2].max()) for face in faces)
