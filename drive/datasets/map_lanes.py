"""What readers of vector maps share: lanes linked within a cut-out, and valid areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.geometry import wrap_angle
from drive.core.roadmap import Lane

SAME_WAY = np.radians(60.0)  # of two neighbours


def linked(lane: Lane, lanes: Mapping[str, Lane]) -> Lane:
    """`lane` with those links alone that lead to lanes of this map, and neighbours that drive the same way."""

    def beside(other: str) -> str:
        if other not in lanes:
            return ""
        ways = [line[len(line) // 2, 2] for line in (lane.centerline, lanes[other].centerline)]
        return other if abs(wrap_angle(ways[0] - ways[1])) < SAME_WAY else ""

    return replace(
        lane,
        successors=tuple(i for i in lane.successors if i in lanes),
        predecessors=tuple(i for i in lane.predecessors if i in lanes),
        left_neighbor=beside(lane.left_neighbor),
        right_neighbor=beside(lane.right_neighbor),
    )


def simple_polygon(ring: NDArray[np.float64]) -> BaseGeometry:
    """The valid polygon of a ring (N, 2); of one that crosses itself, what it encloses."""
    shape = shapely.make_valid(shapely.Polygon(ring)) if len(ring) > 2 else shapely.Polygon()
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return shapely.union_all(parts) if parts else shapely.Polygon()
