"""Road ends and reference lines of the authored towns: filleted polylines with clothoids, and connectors through junctions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scenariogeneration import xodr

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle

Pose = tuple[float, float, float]
Piece = xodr.Line | xodr.Arc | xodr.Spiral | xodr.ParamPoly3
TINY = 1e-6  # m


@dataclass(frozen=True)
class Port:
    """One end of a road, seen by a car about to enter the junction there."""

    road: int
    at_end: bool  # of the road's reference line
    pose: Pose  # of the reference line, heading into the junction
    lanes_in: int  # driving lanes that enter the junction, counted 1, 2, ... from the middle of the road
    lanes_out: int
    width: float
    speed: float

    @property
    def contact(self) -> xodr.ContactPoint:
        return xodr.ContactPoint.end if self.at_end else xodr.ContactPoint.start

    def lane_in(self, k: int) -> int:
        """OpenDRIVE id of the k-th entering lane."""
        return -k if self.at_end else k

    def lane_out(self, k: int) -> int:
        """OpenDRIVE id of the k-th leaving lane."""
        return k if self.at_end else -k


def offset_right(pose: Pose, distance: float) -> Pose:
    """The pose moved to its right."""
    x, y, heading = pose
    return x + distance * math.sin(heading), y - distance * math.cos(heading), float(wrap_angle(heading))


def filleted_line(points: list[tuple[float, ...]], spiral: float) -> tuple[Pose, list[Piece]]:
    """Start pose and pieces of a polyline of (x, y) or (x, y, radius) whose corners are rounded: clothoid, arc, clothoid.

    spiral is the clothoids' length, 0 for plain arcs; it is shortened where a bend is too slight for it.
    Raises DataError where two bends overlap.
    """
    xy = np.array([p[:2] for p in points], float)
    legs = np.diff(xy, axis=0)
    heading = np.arctan2(legs[:, 1], legs[:, 0])
    left = np.hypot(legs[:, 0], legs[:, 1])  # m of each leg not yet used by bends
    bends = []
    for i in range(1, len(points) - 1):
        tangent, pieces = _bend(float(wrap_angle(heading[i] - heading[i - 1])), points[i][2], spiral)
        left[i - 1 : i + 1] -= tangent
        bends.append(pieces)
    if left.min() < -TINY:
        i = int(left.argmin())
        raise DataError(f"the bends on the leg {tuple(points[i])} to {tuple(points[i + 1])} overlap by {-left[i]:.1f} m")
    pieces = []
    for i, rest in enumerate(left):
        pieces += [xodr.Line(float(rest))] if rest > TINY else []
        pieces += bends[i] if i < len(bends) else []
    return (float(xy[0, 0]), float(xy[0, 1]), float(heading[0])), pieces


def _bend(turn: float, radius: float, spiral: float) -> tuple[float, list[Piece]]:
    """Tangent length and pieces of a bend of `turn` rad; highway engineering's clothoid-arc-clothoid."""
    if abs(turn) < 1e-9:
        return 0.0, []
    spiral = min(spiral, 0.8 * radius * abs(turn))
    curvature, arc = math.copysign(1.0 / radius, turn), radius * abs(turn) - spiral
    if spiral <= TINY:
        return radius * math.tan(abs(turn) / 2.0), [xodr.Arc(curvature, length=arc)]
    nodes, weights = np.polynomial.legendre.leggauss(24)
    at = 0.5 * spiral * (nodes + 1.0)
    angle = at**2 / (2.0 * radius * spiral)
    x = 0.5 * spiral * float(weights @ np.cos(angle))
    y = 0.5 * spiral * float(weights @ np.sin(angle))
    end = spiral / (2.0 * radius)
    shift = y - radius * (1.0 - math.cos(end))
    tangent = (radius + shift) * math.tan(abs(turn) / 2.0) + x - radius * math.sin(end)
    return tangent, [xodr.Spiral(0.0, curvature, spiral), xodr.Arc(curvature, length=arc), xodr.Spiral(curvature, 0.0, spiral)]


def connector_geometry(start: Pose, end: Pose) -> list[Piece]:
    """Pieces from one pose to another: line and arc where the tangents meet ahead, a line if aligned, else a cubic."""
    turn = float(wrap_angle(end[2] - start[2]))
    c, s = math.cos(start[2]), math.sin(start[2])
    dx, dy = end[0] - start[0], end[1] - start[1]
    ahead, aside = c * dx + s * dy, -s * dx + c * dy
    if abs(turn) < 1e-9 and abs(aside) < 1e-6:
        return [xodr.Line(ahead)]
    if abs(turn) > math.radians(15.0):
        after = aside / math.sin(turn)  # from the tangents' crossing to the end
        before = ahead - after * math.cos(turn)
        tangent = min(before, after)
        if tangent > 1.0:
            radius = tangent / math.tan(abs(turn) / 2.0)
            arc = xodr.Arc(math.copysign(1.0 / radius, turn), length=radius * abs(turn))
            lines = [xodr.Line(v - tangent) if v - tangent > TINY else None for v in (before, after)]
            return [piece for piece in (lines[0], arc, lines[1]) if piece is not None]
    return [_cubic(ahead, aside, turn)]


def _cubic(ahead: float, aside: float, turn: float) -> xodr.ParamPoly3:
    """Hermite cubic in the frame of the start pose, tangents as long as the chord."""
    chord = math.hypot(ahead, aside)
    u1, v1 = chord * math.cos(turn), chord * math.sin(turn)
    cu, du = 3.0 * ahead - 2.0 * chord - u1, chord + u1 - 2.0 * ahead
    cv, dv = 3.0 * aside - v1, v1 - 2.0 * aside
    return xodr.ParamPoly3(0.0, chord, cu, du, 0.0, 0.0, cv, dv, prange="normalized")
