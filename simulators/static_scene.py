"""The still ground of a map: drivable surface, pavement and lane paint, sorted for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from drive.core.roadmap import Layer, RoadMap
from drive.simulators.lane_paint import has_width, lane_paint
from drive.simulators.raster import QuadSet
from drive.simulators.scene_geometry import Paint, Semantic, area_quads, quad_set

PAVEMENT = 2.2  # m beside the road
SURFACE_LAYERS = (Layer.LANE, Layer.LANE_CONNECTOR, Layer.ROADBLOCK, Layer.INTERSECTION, Layer.CARPARK, Layer.DRIVABLE_AREA)


def drivable_surface(road_map: RoadMap) -> BaseGeometry:
    """Union of the drivable polygons and the lanes' own areas, world m, with cracks under 20 cm closed."""
    polygons = road_map.polygons
    rings = [polygons.ring(int(i)) for i in np.flatnonzero(np.isin(polygons.layers, SURFACE_LAYERS))]
    rings += [np.concatenate([lane.left, lane.right[::-1]]) for lane in road_map.lanes.values() if has_width(lane)]
    parts = [shapely.Polygon(ring) for ring in rings if len(ring) >= 3]
    whole = shapely.union_all(shapely.buffer(shapely.make_valid(parts), 0.1, quad_segs=1, join_style="mitre", mitre_limit=2.0))
    return shapely.simplify(shapely.buffer(whole, -0.1, quad_segs=1, join_style="mitre", mitre_limit=2.0), 0.03)


@dataclass(frozen=True)
class StaticScene:
    """What a map looks like, sorted for drawing."""

    surface: BaseGeometry  # drivable area, world m
    ground: QuadSet  # pavement, road, paint: in this order


_SCENES: WeakKeyDictionary[RoadMap, StaticScene] = WeakKeyDictionary()


def static_scene(road_map: RoadMap) -> StaticScene:
    """The ground of a map; worked out once per RoadMap object, as the camera and the bird's-eye view share it."""
    if road_map not in _SCENES:
        surface = drivable_surface(road_map)
        pavement = shapely.simplify(shapely.buffer(surface, PAVEMENT, quad_segs=2), 0.1)
        layers = [
            Paint.flat(area_quads(pavement), (158, 156, 150), Semantic.SIDEWALK),
            Paint.flat(area_quads(surface), (84, 86, 91), Semantic.ROAD),
            *lane_paint(road_map),
        ]
        _SCENES[road_map] = StaticScene(surface, quad_set(layers))
    return _SCENES[road_map]
