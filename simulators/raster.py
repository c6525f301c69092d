"""Scan conversion of flat quads in numba: a visibility buffer first (which face, how deep), colours and labels after it.

Two passes. Ground quads all lie in the plane z = 0, so they are painted in layer order over a buffer that already holds that
plane's depth: nothing can fight there, and ground depth is exact. Solids are then tested against the depth buffer.
Pixel (row, column) is sampled at (column + 0.5, row + 0.5): intrinsics count from the outer corner of the first pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEAR = 0.1  # m, faces are cut here
SKY, TERRAIN = 0, 1  # the first two rows of a frame's face table
NOISE_CELL = 1.6  # m, patches of the terrain's texture
NOISE_FAR = 45.0  # m beyond which patches would be smaller than a pixel


class QuadSet(NamedTuple):
    """Q planar convex quads in C cells that are drawn or skipped as one; a triangle repeats its last vertex."""

    vertices: NDArray[np.float64]  # (Q, 4, 3) world m; counter-clockwise seen from outside (solids are culled by it)
    rgb: NDArray[np.float32]  # (Q, 3) 0..255, shading included
    semantic: NDArray[np.uint8]  # (Q,)
    instance: NDArray[np.int32]  # (Q,)
    start: NDArray[np.int64]  # (C + 1,) cell c holds quads start[c]:start[c + 1]
    centre: NDArray[np.float64]  # (C, 3) of the cell's bounding sphere, world m
    radius: NDArray[np.float64]  # (C,) m


class View(NamedTuple):
    """A pinhole camera in the world."""

    rotation: NDArray[np.float64]  # (3, 3) optical frame from world axes
    position: NDArray[np.float64]  # (3,) world m
    focal_x: float  # pixels
    focal_y: float
    centre_x: float
    centre_y: float
    width: int
    height: int


class Buffers(NamedTuple):
    """What the raster passes write: per pixel, and per face drawn."""

    face: NDArray[np.int32]  # (H, W) row of the face table
    inverse_depth: NDArray[np.float32]  # (H, W) 1/m along the optical axis, 0 in the sky
    rgb: NDArray[np.float32]  # (F, 3)
    semantic: NDArray[np.uint8]  # (F,)
    instance: NDArray[np.int32]  # (F,)


@njit(cache=True)
def scan_convert(u, v, n, height, left, right):
    """Spans of a convex polygon of `n` vertices u, v (pixels): fills left, right (H,) and returns the rows [first, stop).

    An edge is always walked from its upper end, so that polygons that share it have one boundary: no cracks, no overlap.
    """
    top, bottom = v[0], v[0]
    for i in range(1, n):
        top, bottom = min(top, v[i]), max(bottom, v[i])
    first = math.ceil(max(top, 0.0) - 0.5)
    stop = math.ceil(min(bottom, float(height)) - 0.5)
    for row in range(first, stop):
        left[row], right[row] = 1e30, -1e30
    for i in range(n):
        a, b = i, i + 1 if i + 1 < n else 0
        if v[a] > v[b]:
            a, b = b, a
        low = max(first, math.ceil(max(v[a], -1.0) - 0.5))
        high = min(stop, math.ceil(min(v[b], height + 1.0) - 0.5))
        if low >= high:
            continue
        slope = (u[b] - u[a]) / (v[b] - v[a])
        for row in range(low, high):
            x = u[a] + (row + 0.5 - v[a]) * slope
            left[row], right[row] = min(left[row], x), max(right[row], x)
    return first, stop


@njit(cache=True)
def span(left, right, width):
    """Columns [first, stop) whose centres lie in [left, right)."""
    first = math.ceil(max(left, 0.0) - 0.5)
    stop = math.ceil(min(right, float(width)) - 0.5)
    return first, stop


@njit(cache=True)
def clip_near(corners, clipped):
    """Cut a quad (4, 3), optical frame, at z = NEAR into `clipped` (5, 3); the number of vertices, 0 if all lies behind."""
    n = 0
    for i in range(4):
        j = (i + 1) % 4
        inside, next_inside = corners[i, 2] >= NEAR, corners[j, 2] >= NEAR
        if inside:
            clipped[n, :] = corners[i, :]
            n += 1
        if inside != next_inside:
            a, b = (i, j) if inside else (j, i)
            t = (NEAR - corners[a, 2]) / (corners[b, 2] - corners[a, 2])
            for k in range(2):
                clipped[n, k] = corners[a, k] + t * (corners[b, k] - corners[a, k])
            clipped[n, 2] = NEAR
            n += 1
    return n


@njit(cache=True)
def _beyond(offset, z, radius, centre, size, focal):
    """Whether a sphere lies beyond the first or the last pixel of one image axis; `offset` and z in the optical frame."""
    low, high = -centre / focal, (size - centre) / focal
    return offset - low * z < -radius * math.sqrt(1.0 + low * low) or offset - high * z > radius * math.sqrt(1.0 + high * high)


@njit(cache=True)
def _outside(centre, radius, view, far):
    """Whether a sphere lies wholly outside one of the view's six planes."""
    dx, dy, dz = centre[0] - view.position[0], centre[1] - view.position[1], centre[2] - view.position[2]
    r = view.rotation
    x = r[0, 0] * dx + r[0, 1] * dy + r[0, 2] * dz
    y = r[1, 0] * dx + r[1, 1] * dy + r[1, 2] * dz
    z = r[2, 0] * dx + r[2, 1] * dy + r[2, 2] * dz
    if z + radius < NEAR or z - radius > far:
        return True
    beside = _beyond(x, z, radius, view.centre_x, view.width, view.focal_x)
    return beside or _beyond(y, z, radius, view.centre_y, view.height, view.focal_y)


@njit(cache=True)
def _paint(buffers, face, first, stop, left, right, width):
    """Give the spans to `face`, whatever was there."""
    for row in range(first, stop):
        begin, end = span(left[row], right[row], width)
        for column in range(begin, end):
            buffers.face[row, column] = face


@njit(cache=True)
def _test_depth(buffers, face, plane, first, stop, left, right, width):
    """Give the spans to `face` where its plane, 1/z = a u + b v + c, is nearer than what was there."""
    for row in range(first, stop):
        begin, end = span(left[row], right[row], width)
        base = plane[1] * (row + 0.5) + plane[2]
        for column in range(begin, end):
            inverse = np.float32(base + plane[0] * (column + 0.5))
            if inverse > buffers.inverse_depth[row, column]:
                buffers.inverse_depth[row, column] = inverse
                buffers.face[row, column] = face


@njit(cache=True)
def _facing_plane(corners, view, plane):
    """Fill `plane` (a, b, c) of 1/z = a u + b v + c; False if the quad (4, 3) turns its back or its edge to the camera."""
    d0, d1 = corners[2] - corners[0], corners[3] - corners[1]
    nx = d0[1] * d1[2] - d0[2] * d1[1]
    ny = d0[2] * d1[0] - d0[0] * d1[2]
    nz = d0[0] * d1[1] - d0[1] * d1[0]
    offset = nx * corners[0, 0] + ny * corners[0, 1] + nz * corners[0, 2]
    if offset >= -1e-9:
        return False
    plane[0] = nx / (view.focal_x * offset)
    plane[1] = ny / (view.focal_y * offset)
    plane[2] = nz / offset - plane[0] * view.centre_x - plane[1] * view.centre_y
    return True


@njit(cache=True)
def draw(quads, view, far, on_ground, buffers, count):
    """Raster every cell of `quads` that the view may see; faces take table rows from `count` on; the next free row."""
    corners, clipped, plane = np.empty((4, 3)), np.empty((5, 3)), np.empty(3)
    u, v = np.empty(5), np.empty(5)
    left, right = np.empty(view.height), np.empty(view.height)
    r, origin = view.rotation, view.position
    for cell in range(len(quads.radius)):
        if _outside(quads.centre[cell], quads.radius[cell], view, far):
            continue
        for q in range(quads.start[cell], quads.start[cell + 1]):
            for i in range(4):
                x, y, z = (
                    quads.vertices[q, i, 0] - origin[0],
                    quads.vertices[q, i, 1] - origin[1],
                    quads.vertices[q, i, 2] - origin[2],
                )
                for k in range(3):
                    corners[i, k] = r[k, 0] * x + r[k, 1] * y + r[k, 2] * z
            if not on_ground and not _facing_plane(corners, view, plane):
                continue
            n = clip_near(corners, clipped)
            for i in range(n):
                u[i] = view.focal_x * clipped[i, 0] / clipped[i, 2] + view.centre_x
                v[i] = view.focal_y * clipped[i, 1] / clipped[i, 2] + view.centre_y
            if n < 3 or u[:n].min() >= view.width or u[:n].max() <= 0.0:
                continue
            first, stop = scan_convert(u, v, n, view.height, left, right)
            if first >= stop:
                continue
            if on_ground:
                _paint(buffers, count, first, stop, left, right, view.width)
            else:
                _test_depth(buffers, count, plane, first, stop, left, right, view.width)
            buffers.rgb[count] = quads.rgb[q]
            buffers.semantic[count] = quads.semantic[q]
            buffers.instance[count] = quads.instance[q]
            count += 1
    return count


@njit(cache=True)
def _background(view, faces):
    """Buffers that hold the sky and the plane z = 0 as terrain, with room for `faces` faces."""
    h, w = view.height, view.width
    buffers = Buffers(
        np.empty((h, w), np.int32),
        np.empty((h, w), np.float32),
        np.empty((faces + 2, 3), np.float32),
        np.zeros(faces + 2, np.uint8),
        np.zeros(faces + 2, np.int32),
    )
    r, altitude = view.rotation, view.position[2]
    a, b = -r[0, 2] / (view.focal_x * altitude), -r[1, 2] / (view.focal_y * altitude)
    c = -r[2, 2] / altitude - a * view.centre_x - b * view.centre_y
    for row in range(h):
        base = b * (row + 0.5) + c
        for column in range(w):
            inverse = base + a * (column + 0.5)
            buffers.face[row, column] = TERRAIN if inverse > 0.0 else SKY
            buffers.inverse_depth[row, column] = max(inverse, 0.0)
    return buffers


@njit(cache=True)
def rasterise(view, far, ground, solids, moving_ground, moving_solids, terrain_label):
    """Visibility buffers of four QuadSets, the two ground sets first and in order. The camera must be above z = 0."""
    faces = len(ground.semantic) + len(solids.semantic) + len(moving_ground.semantic) + len(moving_solids.semantic)
    buffers = _background(view, faces)
    buffers.semantic[TERRAIN] = terrain_label
    count = draw(ground, view, far, True, buffers, 2)
    count = draw(moving_ground, view, far, True, buffers, count)
    count = draw(solids, view, far, False, buffers, count)
    draw(moving_solids, view, far, False, buffers, count)
    return buffers


@njit(cache=True)
def _patch(x, y):
    """A repeatable number in -1..1 for the terrain patch that holds world point x, y."""
    i = np.uint64(np.int64(math.floor(x / NOISE_CELL)))
    j = np.uint64(np.int64(math.floor(y / NOISE_CELL)))
    h = i * np.uint64(0x9E3779B97F4A7C15) ^ j * np.uint64(0xC2B2AE3D27D4EB4F)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return float((h >> np.uint64(40)) & np.uint64(0xFFFF)) / 32768.0 - 1.0


@njit(cache=True)
def _terrain_light(view, x, y, inverse):
    """Share of its colour that the terrain under the optical ray x, y, 1 shows: patches that fade with distance."""
    r = view.rotation
    world_x = view.position[0] + (r[0, 0] * x + r[1, 0] * y + r[2, 0]) / inverse
    world_y = view.position[1] + (r[0, 1] * x + r[1, 1] * y + r[2, 1]) / inverse
    return 1.0 + 0.09 * (1.0 - 1.0 / (inverse * NOISE_FAR)) * _patch(world_x, world_y)


@njit(cache=True)
def shade(buffers, view, scale, palette, haze):
    """RGB (H / scale, W / scale, 3) uint8: the mean of scale x scale samples; haze takes half of a colour at `haze` metres.

    palette (3, 3) float32: horizon, zenith, terrain.
    """
    h, w = view.height // scale, view.width // scale
    image = np.empty((h, w, 3), np.uint8)
    half, one = np.float32(haze), np.float32(1.0)
    fog0, fog1, fog2 = palette[0, 0], palette[0, 1], palette[0, 2]
    share = np.float32(1.0 / (scale * scale))
    metres_x, metres_y = 1.0 / view.focal_x, 1.0 / view.focal_y  # per pixel, one metre ahead
    climb_x, climb_y, climb = view.rotation[0, 2], view.rotation[1, 2], view.rotation[2, 2]
    for row in range(h):
        for column in range(w):
            total0 = total1 = total2 = np.float32(0.5)  # rounds
            for i in range(row * scale, (row + 1) * scale):
                y = (i + 0.5 - view.centre_y) * metres_y
                for j in range(column * scale, (column + 1) * scale):
                    face, inverse = buffers.face[i, j], buffers.inverse_depth[i, j]
                    if face > TERRAIN:
                        keep = half * inverse / (one + half * inverse)
                        c0, c1, c2 = buffers.rgb[face, 0], buffers.rgb[face, 1], buffers.rgb[face, 2]
                    elif face == TERRAIN:
                        keep = half * inverse / (one + half * inverse)
                        light = one
                        if inverse * NOISE_FAR > 1.0:
                            light = np.float32(_terrain_light(view, (j + 0.5 - view.centre_x) * metres_x, y, inverse))
                        c0, c1, c2 = palette[2, 0] * light, palette[2, 1] * light, palette[2, 2] * light
                    else:
                        x = (j + 0.5 - view.centre_x) * metres_x
                        keep = np.float32(min(max(climb_x * x + climb_y * y + climb, 0.0) * 1.6, 1.0))
                        c0, c1, c2 = palette[1, 0], palette[1, 1], palette[1, 2]
                    total0 += share * (fog0 + keep * (c0 - fog0))
                    total1 += share * (fog1 + keep * (c1 - fog1))
                    total2 += share * (fog2 + keep * (c2 - fog2))
            image[row, column, 0] = np.uint8(min(total0, np.float32(255.0)))
            image[row, column, 1] = np.uint8(min(total1, np.float32(255.0)))
            image[row, column, 2] = np.uint8(min(total2, np.float32(255.0)))
    return image


@njit(cache=True)
def labels(buffers):
    """(depth m float32 with inf in the sky, semantic uint8, instance int32), each (H, W)."""
    h, w = buffers.face.shape
    depth, semantic, instance = np.empty((h, w), np.float32), np.empty((h, w), np.uint8), np.empty((h, w), np.int32)
    for row in range(h):
        for column in range(w):
            face, inverse = buffers.face[row, column], buffers.inverse_depth[row, column]
            depth[row, column] = np.float32(1.0) / inverse if face != SKY else np.float32(np.inf)
            semantic[row, column] = buffers.semantic[face]
            instance[row, column] = buffers.instance[face]
    return depth, semantic, instance
