"""What goes with its parent: the poses of all of it in one compiled call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import Actor, Kind

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]


@njit(cache=True)
def _rotation(pose, out):
    """(3, 3) of pitch, yaw, roll degrees of a pose (6,), as in `poses.matrix`, into `out`."""
    p, y, r = math.radians(pose[3]), math.radians(pose[4]), math.radians(pose[5])
    cp, sp, cy, sy, cr, sr = math.cos(p), math.sin(p), math.cos(y), math.sin(y), math.cos(r), math.sin(r)
    out[0, 0], out[0, 1], out[0, 2] = cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr
    out[1, 0], out[1, 1], out[1, 2] = cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr
    out[2, 0], out[2, 1], out[2, 2] = sp, -cp * sr, cp * cr


@njit(cache=True)
def compose_all(parents, relative, out):
    """(K, 6) world poses of `relative` (K, 6) in the frames of `parents` (K, 6), into `out`."""
    a, b, m = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for k in range(len(parents)):
        _rotation(parents[k], a)
        _rotation(relative[k], b)
        for i in range(3):
            out[k, i] = parents[k, i]
            for j in range(3):
                out[k, i] += a[i, j] * relative[k, j]
                m[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]
        out[k, 3] = math.degrees(math.asin(min(max(m[2, 0], -1.0), 1.0)))
        out[k, 4] = math.degrees(math.atan2(m[1, 0], m[0, 0]))
        out[k, 5] = math.degrees(math.atan2(-m[2, 1], m[2, 2]))


class Attachments:
    """Actors with parents, level by level: who hangs on something attached comes after it."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._levels: list[list[Actor]] = []
        self.stale = False  # whether something was attached or went away

    def step(self) -> None:
        """Put all where their parents are now, with their velocities."""
        if self.stale:
            self._sort()
        for level in self._levels:
            self._carry(level)

    def _sort(self) -> None:
        actors, depth = self._episode.actors, {0: 0}
        levels: dict[int, list[Actor]] = {}
        for actor in actors.values():  # parents stand before their children
            if actor.relative is not None and actor.parent in actors:
                depth[actor.id] = depth.get(actor.parent, 0) + 1
                levels.setdefault(depth[actor.id], []).append(actor)
        self._levels = [levels[key] for key in sorted(levels)]
        self.stale = False

    def _carry(self, level: list[Actor]) -> None:
        episode = self._episode
        records = [episode.record(actor.parent) for actor in level]
        parents = np.array([record["pose"] for record in records], float)
        out = np.empty_like(parents)
        compose_all(parents, np.array([actor.relative for actor in level], float), out)
        for actor, record, pose in zip(level, records, out):
            if actor.kind == Kind.VEHICLE:
                episode.vehicles.put(actor.id, pose)
            mine = episode.record(actor.id)
            mine["pose"], mine["velocity"] = pose, record["velocity"]
