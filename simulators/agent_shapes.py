"""What agents look like: a few boxes per kind in unit coordinates, stretched to each agent's size and placed by numba.

Unit coordinates: x -0.5..0.5 along the length (front positive), y -0.5..0.5 along the width (left positive), z 0..1 up.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.types import AgentType
from drive.simulators.raster import QuadSet
from drive.simulators.scene_geometry import AMBIENT, DIFFUSE, SUN, Semantic

Colour = tuple[int, int, int]
Face = tuple[np.ndarray, Colour | None, bool]  # (4, 3) corners, colour (None: the agent's own paint), whether it glows

TRUCK_LENGTH = 6.5  # m from which a vehicle is drawn as a lorry
PROUD = 0.006  # unit lengths by which a lamp stands out of its panel
TRUCK, LIGHT = len(AgentType), len(AgentType) + 1  # kinds beyond the agent types; LIGHT + state 0 red, 1 yellow, 2 green
DARK, GLASS, TYRE, SKIN = (44, 45, 49), (52, 66, 82), (24, 24, 26), (214, 170, 140)
ORANGE, WHITE, RED = (236, 112, 30), (236, 234, 228), (205, 42, 38)
BODY = np.array(
    [(186, 38, 38), (38, 84, 166), (226, 226, 222), (60, 62, 68), (150, 156, 162), (222, 176, 46), (42, 122, 82), (116, 60, 132)],
    np.float32,
)
SHADOW: Colour = (50, 51, 55)
SHADOW_MARGIN = 0.15  # m


class Shapes(NamedTuple):
    """Faces of every kind, one after another."""

    corners: NDArray[np.float64]  # (F, 4, 3) unit coordinates, counter-clockwise from outside
    rgb: NDArray[np.float32]  # (F, 3) 0..255; ignored where painted
    painted: NDArray[np.bool_]  # (F,) takes the agent's own colour
    glows: NDArray[np.bool_]  # (F,) is not shaded
    start: NDArray[np.int64]  # (K + 1,) kind k has faces start[k]:start[k + 1]
    semantic: NDArray[np.uint8]  # (K,)


def block(
    x: tuple, y: tuple, z: tuple, colour: Colour | None, top: tuple | None = None, roof: Colour | str | None = "same"
) -> list[Face]:
    """Top and sides of a box x0..x1, y0..y1, z0..z1; `top` = (x0, x1, y0, y1) tapers it, `roof` colours the top face apart."""
    tx0, tx1, ty0, ty1 = top or (*x, *y)
    low = [(x[0], y[0], z[0]), (x[1], y[0], z[0]), (x[1], y[1], z[0]), (x[0], y[1], z[0])]
    high = [(tx0, ty0, z[1]), (tx1, ty0, z[1]), (tx1, ty1, z[1]), (tx0, ty1, z[1])]
    sides = [np.array([low[i], low[(i + 1) % 4], high[(i + 1) % 4], high[i]], float) for i in range(4)]
    lid = colour if isinstance(roof, str) else roof
    return [(np.array(high, float), lid, False), *((side, colour, False) for side in sides)]


def panel(x: float, y: tuple, z: tuple, colour: Colour, glows: bool = True) -> Face:
    """A panel across the length at `x`, seen from the front if x > 0, else from the rear."""
    a, b = (y[0], y[1]) if x > 0 else (y[1], y[0])
    return np.array([(x, a, z[0]), (x, b, z[0]), (x, b, z[1]), (x, a, z[1])], float), colour, glows


def _lamps(height: tuple, width: float) -> list[Face]:
    """Head and tail lamps at both corners; they show which way a vehicle faces."""
    faces = []
    for inner, outer in ((0.49 - width, 0.49), (-0.49, width - 0.49)):
        faces.append(panel(0.5 + PROUD, (inner, outer), height, (255, 246, 205)))
        faces.append(panel(-0.5 - PROUD, (inner, outer), height, (232, 24, 24)))
    return faces


def _wheels(places: tuple, height: float) -> list[Face]:
    """Dark hexagons low on both sides."""
    faces: list[Face] = []
    for x in places:
        for side in (-1.0, 1.0):
            y, wide, narrow, middle = side * (0.5 + PROUD), side * 0.075, side * 0.04, height / 2.0
            lower = [(x + narrow, y, 0.0), (x - narrow, y, 0.0), (x - wide, y, middle), (x + wide, y, middle)]
            upper = [(x + wide, y, middle), (x - wide, y, middle), (x - narrow, y, height), (x + narrow, y, height)]
            faces += [(np.array(half), TYRE, False) for half in (lower, upper)]
    return faces


def _car() -> list[Face]:
    cabin = block((-0.47, 0.22), (-0.45, 0.45), (0.57, 1.0), GLASS, (-0.36, 0.06, -0.38, 0.38), roof=None)
    body = block((-0.5, 0.5), (-0.5, 0.5), (0.17, 0.57), None)
    return [
        *block((-0.5, 0.5), (-0.5, 0.5), (0.0, 0.17), DARK),
        *body,
        *cabin,
        *_lamps((0.33, 0.53), 0.28),
        *_wheels((-0.3, 0.3), 0.36),
    ]


def _truck() -> list[Face]:
    box = block((-0.5, 0.26), (-0.5, 0.5), (0.14, 1.0), (206, 206, 200))
    cab = block((0.28, 0.5), (-0.48, 0.48), (0.14, 0.78), None)
    glass = panel(0.5 + PROUD, (-0.44, 0.44), (0.46, 0.72), GLASS, glows=False)
    return [
        *block((-0.5, 0.5), (-0.5, 0.5), (0.0, 0.14), DARK),
        *box,
        *cab,
        glass,
        *_lamps((0.16, 0.28), 0.24),
        *_wheels((-0.32, 0.34), 0.24),
    ]


def _pedestrian() -> list[Face]:
    legs = block((-0.3, 0.3), (-0.4, 0.4), (0.0, 0.47), (46, 50, 72))
    return [
        *legs,
        *block((-0.42, 0.42), (-0.5, 0.5), (0.47, 0.84), None),
        *block((-0.28, 0.28), (-0.26, 0.26), (0.84, 1.0), SKIN),
    ]


def _bicycle() -> list[Face]:
    wheels = [*block((-0.5, -0.12), (-0.12, 0.12), (0.0, 0.38), TYRE), *block((0.12, 0.5), (-0.12, 0.12), (0.0, 0.38), TYRE)]
    legs = block((-0.16, 0.14), (-0.3, 0.3), (0.14, 0.46), (46, 50, 72))
    torso = block((-0.2, 0.06), (-0.45, 0.45), (0.46, 0.85), None, (-0.02, 0.2, -0.45, 0.45))
    return [*wheels, *legs, *torso, *block((0.0, 0.17), (-0.22, 0.22), (0.85, 1.0), SKIN)]


def _cone() -> list[Face]:
    faces, reach = block((-0.5, 0.5), (-0.5, 0.5), (0.0, 0.07), ORANGE), (0.4, 0.26, 0.16, 0.06)
    for i, colour in enumerate((ORANGE, WHITE, ORANGE)):
        r, t = reach[i], reach[i + 1]
        faces += block((-r, r), (-r, r), (0.07 + 0.31 * i, 0.38 + 0.31 * i), colour, (-t, t, -t, t))
    return faces


def _barrier() -> list[Face]:
    bands = ((0.0, 0.34, RED), (0.34, 0.67, WHITE), (0.67, 1.0, RED))
    return [face for low, high, colour in bands for face in block((-0.5, 0.5), (-0.5, 0.5), (low, high), colour)]


def _light(state: int) -> list[Face]:
    """Metres: a signal head that hangs 6 m beyond the stop line; its lamps look back at the traffic it rules."""
    lit = ((255, 40, 30), (255, 200, 40), (50, 240, 90))
    unlit = ((70, 26, 24), (72, 58, 22), (22, 60, 32))
    faces = [
        *block((6.0, 6.3), (-0.5, 0.5), (3.6, 6.0), (22, 22, 24)),
        panel(-0.5, (-0.5, 0.5), (3.6, 6.0), (22, 22, 24), glows=False),
    ]
    faces[-1][0][:, 0] = 5.99
    for lamp in range(3):
        lamp_face = panel(-0.5, (-0.36, 0.36), (5.24 - 0.78 * lamp, 5.94 - 0.78 * lamp), (lit if lamp == state else unlit)[lamp])
        lamp_face[0][:, 0] = 5.95
        faces.append(lamp_face)
    return faces


def _build() -> Shapes:
    generic = block((-0.5, 0.5), (-0.5, 0.5), (0.0, 1.0), (150, 116, 78))
    kinds = [_car(), _pedestrian(), _bicycle(), _cone(), _barrier(), generic, _truck(), _light(0), _light(1), _light(2)]
    tags = [
        Semantic.VEHICLE,
        Semantic.PEDESTRIAN,
        Semantic.BICYCLE,
        *[Semantic.STATIC] * 3,
        Semantic.VEHICLE,
        *[Semantic.TRAFFIC_LIGHT] * 3,
    ]
    faces = [face for kind in kinds for face in kind]
    return Shapes(
        np.stack([corners for corners, _, _ in faces]),
        np.array([colour or (0, 0, 0) for _, colour, _ in faces], np.float32),
        np.array([colour is None for _, colour, _ in faces]),
        np.array([glows for _, _, glows in faces]),
        np.concatenate([[0], np.cumsum([len(kind) for kind in kinds])]).astype(np.int64),
        np.array(tags, np.uint8),
    )


SHAPES = _build()


@njit(cache=True)
def _light_on(corners, sun):
    """Share of a face's colour under the sun, faces (4, 3)."""
    d0, d1 = corners[2] - corners[0], corners[3] - corners[1]
    nx = d0[1] * d1[2] - d0[2] * d1[1]
    ny = d0[2] * d1[0] - d0[0] * d1[2]
    nz = d0[0] * d1[1] - d0[1] * d1[0]
    cosine = (nx * sun[0] + ny * sun[1] + nz * sun[2]) / max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    return AMBIENT + DIFFUSE * max(cosine, 0.0)


@njit(cache=True)
def place(shapes, kinds, poses, sizes, owners, body, sun):
    """QuadSet of N agents: kinds (N,), poses (N, 3) in the world, sizes (N, 3) m, owners (N,) instance ids, 0 for none."""
    n = len(kinds)
    start = np.zeros(n + 1, np.int64)
    for a in range(n):
        start[a + 1] = start[a] + shapes.start[kinds[a] + 1] - shapes.start[kinds[a]]
    total = start[n]
    vertices, rgb = np.empty((total, 4, 3)), np.empty((total, 3), np.float32)
    semantic, instance = np.empty(total, np.uint8), np.empty(total, np.int32)
    centre, radius = np.empty((n, 3)), np.empty(n)
    for a in range(n):
        c, s = math.cos(poses[a, 2]), math.sin(poses[a, 2])
        own = body[((owners[a] * 2654435761) >> 7) % len(body)]
        reach = 0.0
        for k in range(start[a + 1] - start[a]):
            q, face = start[a] + k, shapes.start[kinds[a]] + k
            for i in range(4):
                x, y, z = (
                    shapes.corners[face, i, 0] * sizes[a, 0],
                    shapes.corners[face, i, 1] * sizes[a, 1],
                    shapes.corners[face, i, 2],
                )
                vertices[q, i, 0] = poses[a, 0] + c * x - s * y
                vertices[q, i, 1] = poses[a, 1] + s * x + c * y
                vertices[q, i, 2] = z * sizes[a, 2]
                reach = max(reach, x * x + y * y + (z * sizes[a, 2]) ** 2)
            light = 1.0 if shapes.glows[face] else _light_on(vertices[q], sun)
            for k3 in range(3):
                rgb[q, k3] = min(light * (own[k3] if shapes.painted[face] else shapes.rgb[face, k3]), 255.0)
            semantic[q], instance[q] = shapes.semantic[kinds[a]], owners[a]
        centre[a, 0], centre[a, 1], centre[a, 2], radius[a] = poses[a, 0], poses[a, 1], 0.0, math.sqrt(reach)
    return QuadSet(vertices, rgb, semantic, instance, start, centre, radius)


@njit(cache=True)
def footprints(poses, sizes, margin, rgb, semantic):
    """QuadSet of the ground under N boxes, `margin` metres wider on every side; rgb (N, 3)."""
    n = len(poses)
    vertices, radius, centre = np.zeros((n, 4, 3)), np.empty(n), np.zeros((n, 3))
    for a in range(n):
        c, s = math.cos(poses[a, 2]), math.sin(poses[a, 2])
        half_l, half_w = sizes[a, 0] / 2.0 + margin, sizes[a, 1] / 2.0 + margin
        for i in range(4):
            x, y = half_l if i == 1 or i == 2 else -half_l, half_w if i >= 2 else -half_w
            vertices[a, i, 0], vertices[a, i, 1] = poses[a, 0] + c * x - s * y, poses[a, 1] + s * x + c * y
        centre[a, 0], centre[a, 1], radius[a] = poses[a, 0], poses[a, 1], math.sqrt(half_l**2 + half_w**2)
    return QuadSet(vertices, rgb, semantic, np.zeros(n, np.int32), np.arange(n + 1), centre, radius)


def shape_kinds(types: NDArray, sizes: NDArray) -> NDArray[np.int64]:
    """(A,) kind of shape of each agent, from its AgentType (A,) and size (A, 3) in metres."""
    kinds = np.asarray(types, np.int64)
    return np.where((kinds == AgentType.VEHICLE) & (np.asarray(sizes)[:, 0] >= TRUCK_LENGTH), TRUCK, kinds)


def agent_solids(kinds: NDArray, poses: NDArray, sizes: NDArray, owners: NDArray) -> QuadSet:
    """The agents' quads; arguments as in `place`."""
    return place(SHAPES, kinds, poses, sizes, owners, BODY, SUN)
