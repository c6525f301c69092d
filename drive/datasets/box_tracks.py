"""Agents of a long log as a list of boxes: an hour with thousands of agents, each seen for seconds, would not fit as (A, S) arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.types import Tracks

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BoxTracks:
    """What Tracks hold, without the steps at which an agent was not seen; B boxes in order of step, then of agent."""

    ids: tuple[str, ...]  # A
    types: NDArray[np.int64]  # (A,) AgentType
    size: Array  # (A, 3) length, width, height in m
    step: NDArray[np.int64]  # (B,)
    row: NDArray[np.int64]  # (B,) index of the agent
    poses_world: Array  # (B, 3)
    velocity_world: Array  # (B, 2) m/s

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def of(tracks: Tracks) -> BoxTracks:
        """The boxes of `tracks`."""
        step, row = np.nonzero(tracks.valid.T)
        return BoxTracks(tracks.ids, tracks.types, tracks.size, step, row, tracks.poses_world[row, step], tracks.velocity_world[row, step])

    @staticmethod
    def sorted(
        ids: tuple[str, ...], types: NDArray[np.int64], size: Array, step: NDArray[np.int64], row: NDArray[np.int64], poses: Array, velocity: Array
    ) -> BoxTracks:
        """Boxes that come in any order."""
        order = np.lexsort((row, step))
        return BoxTracks(ids, types, size, step[order], row[order], poses[order], velocity[order])

    @staticmethod
    def moving(
        ids: tuple[str, ...], types: NDArray[np.int64], size: Array, step: NDArray[np.int64], row: NDArray[np.int64], poses: Array, dt: float
    ) -> BoxTracks:
        """Boxes in any order, one of an agent at a step, with the velocities of `motion.central_velocity`; steps are `dt` s apart."""
        order = np.lexsort((step, row))
        who, when, places = row[order], step[order], poses[order, :2]
        joined = (np.diff(who) == 0) & (np.diff(when) == 1)
        index = np.arange(len(who))
        low, high = index.copy(), index.copy()
        low[1:] -= joined
        high[:-1] += joined
        velocity = np.zeros((len(who), 2))
        velocity[order] = (places[high] - places[low]) / (np.maximum(when[high] - when[low], 1) * dt)[:, None]
        return BoxTracks.sorted(ids, types, size, step, row, poses, velocity)

    def steps(self, start: int, stop: int) -> Tracks:
        """The agents that are seen in steps start..stop-1, over those steps."""
        first, last = np.searchsorted(self.step, (start, stop))
        cut = slice(int(first), int(last))
        seen, row = np.unique(self.row[cut], return_inverse=True)
        step = self.step[cut] - start
        poses, velocity = np.zeros((len(seen), stop - start, 3)), np.zeros((len(seen), stop - start, 2))
        valid = np.zeros((len(seen), stop - start), bool)
        poses[row, step], velocity[row, step], valid[row, step] = self.poses_world[cut], self.velocity_world[cut], True
        return Tracks(tuple(self.ids[int(k)] for k in seen), self.types[seen], self.size[seen], poses, velocity, valid)
