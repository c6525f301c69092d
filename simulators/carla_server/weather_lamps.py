"""Lamps at night: where street lamps and vehicles' lamps stand, what they light on the ground, and which glow in a picture."""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.roadmap import RoadMap
from drive.simulators.carla_server.sensor_scene import Scene
from drive.simulators.carla_server.weather import Look
from drive.simulators.raster import View

Array = NDArray[np.float64]
POSITION, LOW, HIGH, BRAKE = 1, 2, 4, 8  # carla.VehicleLightState
LIT = POSITION | LOW | HIGH
STREET_EVERY, STREET_ASIDE, STREET_HEIGHT, STREET_APART, STREET_REACH = 30.0, 1.2, 6.5, 18.0, 17.0  # m
SIDE, CELL, AHEAD = 160, 0.6, 34.0  # cells of the lit ground, m of each, m from the camera to its middle
FAR = 150.0  # m beyond which no lamp is looked at
WARM, WHITE, RED = (255.0, 206.0, 140.0), (255.0, 246.0, 220.0), (255.0, 40.0, 30.0)


class Lamps(NamedTuple):
    """What the shader needs of them; right-handed world."""

    glows: Array  # (G, 7) x, y, z m, colour 0..255, radius m
    ground: NDArray[np.float32]  # (SIDE, SIDE) light on the ground, 1 for daylight; rows along y
    left: float  # m, x and y of its first corner
    low: float
    heads: NDArray[np.bool_]  # (A + 1,) whether the lamps in front of an instance are on; row 0 is no instance
    tails: NDArray[np.bool_]


_STREET: WeakKeyDictionary[RoadMap, Array] = WeakKeyDictionary()


def street_lamps(road_map: RoadMap) -> Array:
    """(K, 2) places of street lamps, right of the rightmost lanes outside junctions, world m."""
    if road_map not in _STREET:
        found: list[tuple[float, float]] = []
        for lane in road_map.lanes.values():
            if lane.is_connector or lane.right_neighbor or len(lane.right) != len(lane.s):
                continue
            for s in np.arange(STREET_EVERY / 2.0, lane.length, STREET_EVERY):
                i = int(np.searchsorted(lane.s, s))
                heading = lane.centerline[i, 2]
                x, y = lane.right[i] + STREET_ASIDE * np.array([math.sin(heading), -math.cos(heading)])
                if all((x - a) ** 2 + (y - b) ** 2 > STREET_APART**2 for a, b in found):
                    found.append((float(x), float(y)))
        _STREET[road_map] = np.array(found).reshape(-1, 2)
    return _STREET[road_map]


@njit(cache=True)
def _cells(at, low, high, corner):
    """[first, stop) of the cells along one axis that reach from `low` to `high` m round a lamp at `at`; the lit ground begins at `corner`."""
    return max(int((at + low - corner) / CELL), 0), min(int((at + high - corner) / CELL) + 1, SIDE)


@njit(cache=True, error_model="numpy")
def light_ground(left, low, street, beams):
    """(SIDE, SIDE) light of lamps at street (K, 2) and of beams (B, 4): x, y, heading, reach m.

    The inner loops choose by arithmetic rather than by branches, so that the compiler takes several cells at once.
    """
    ground = np.zeros((SIDE, SIDE), np.float32)
    middles = (np.arange(SIDE) + 0.5) * CELL
    dark, furthest = np.float32(0.0), STREET_REACH * STREET_REACH
    for k in range(len(street)):
        x, y = street[k]
        first, last = _cells(x, -STREET_REACH, STREET_REACH, left)
        top, bottom = _cells(y, -STREET_REACH, STREET_REACH, low)
        across = middles[first:last]
        for row in range(top, bottom):
            dy, cells = low + middles[row] - y, ground[row, first:last]
            for i in range(len(cells)):
                dx = left + across[i] - x
                away = dx * dx + dy * dy
                fade = 1.0 - away / furthest
                light = np.float32(0.62 * fade * fade / (1.0 + away / 40.0))
                cells[i] += light if away < furthest else dark
    for k in range(len(beams)):
        x, y, heading, reach = beams[k]
        c, s, aside = math.cos(heading), math.sin(heading), 0.9 + 0.34 * reach
        first, last = _cells(x, min(0.0, c * reach) - abs(s) * aside, max(0.0, c * reach) + abs(s) * aside, left)
        top, bottom = _cells(y, min(0.0, s * reach) - abs(c) * aside, max(0.0, s * reach) + abs(c) * aside, low)
        furthest = reach * reach
        across = middles[first:last]
        for row in range(top, bottom):
            dy, cells = low + middles[row] - y, ground[row, first:last]
            for i in range(len(cells)):
                dx = left + across[i] - x
                away = dx * dx + dy * dy
                along = c * dx + s * dy
                spread = abs(-s * dx + c * dy) / (0.9 + 0.34 * along)
                light = np.float32(0.85 * (1.0 - away / furthest) * (1.0 - spread * spread) * min(along / 2.0, 1.0))
                cells[i] += light if (away < furthest) & (along > 0.3) & (spread < 1.0) else dark
    return ground


def lamps_of(scene: Scene, rows: NDArray[np.int64], road_map: RoadMap, look: Look, view: View) -> Lamps:
    """Lamps round a camera; `rows` of the scene are visible to it, but all of it gives light."""
    flags = scene.lamps
    heads, tails = np.zeros(len(rows) + 1, bool), np.zeros(len(rows) + 1, bool)
    heads[1:], tails[1:] = flags[rows] & LIT, flags[rows] & (LIT | BRAKE)
    eye, ahead = view.position[:2], view.rotation[2, :2]
    middle = eye + AHEAD * ahead / max(float(np.hypot(*ahead)), 1e-6)
    left, low = middle - SIDE * CELL / 2.0
    if look.dark <= 0.0:
        return Lamps(np.zeros((0, 7)), np.zeros((SIDE, SIDE), np.float32), float(left), float(low), heads, tails)
    street = street_lamps(road_map)
    street = street[np.hypot(*(street - eye).T) < FAR]
    pose = np.column_stack([scene.boxes[:, 0], -scene.boxes[:, 1], -scene.boxes[:, 3]])
    length, width, height = scene.boxes[:, 4], scene.boxes[:, 5], 2.0 * scene.boxes[:, 6]
    shining = np.flatnonzero((flags & (LOW | HIGH)) > 0)
    way = np.column_stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])])
    front = pose[shining, :2] + length[shining, None] * way[shining]
    beams = np.column_stack([front, pose[shining, 2], np.where(flags[shining] & HIGH, 60.0, 36.0)])
    glows = [np.column_stack([street, np.full(len(street), STREET_HEIGHT), np.tile((*WARM, 0.55), (len(street), 1))])]
    for end, mask, colour in ((1.0, heads, WHITE), (-1.0, tails, RED)):
        shown = rows[mask[1:]]
        facing = end * ((eye - pose[shown, :2] - end * length[shown, None] * way[shown]) * way[shown]).sum(1) > 0.0
        shown = shown[facing]
        aside = np.column_stack([-way[shown, 1], way[shown, 0]]) * 0.7 * width[shown, None]
        for side in (-1.0, 1.0):
            place = pose[shown, :2] + end * (length[shown, None] + 0.1) * way[shown] + side * aside
            rest = np.tile((*colour, 0.35 if end > 0.0 else 0.22), (len(shown), 1))
            glows.append(np.column_stack([place, 0.43 * height[shown], rest]))
    return Lamps(
        np.concatenate(glows), light_ground(left, low, street, beams.reshape(-1, 4)), float(left), float(low), heads, tails
    )
