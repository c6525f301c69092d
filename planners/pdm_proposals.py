"""The proposals of the PDM-style expert: paths times speeds, times how agents that cross are met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.planners.forecast import Forecast
from drive.planners.idm import IdmConfig, LeadTable, Rollouts, lead_table, roll_out
from drive.planners.route_frame import Paths, RouteFrame, build_paths, lane_change_offsets

Array = NDArray[np.float64]
FOLLOW, WAIT, BRAKE = 0, 1, 2  # families of proposals


@dataclass(frozen=True)
class ProposalConfig:
    """What is proposed."""

    offsets: tuple[float, ...] = (0.0, 1.0, -1.0)  # m to the left of the route
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the speed limit
    change_fractions: tuple[float, ...] = (0.5, 1.0)  # for paths into a neighbour lane
    blend_s: float = 3.0  # s in which the present offset from the path is taken back
    blend_min: float = 8.0  # m
    change_s: tuple[float, ...] = (2.5, 4.5)  # s that a lane change takes: a brisk one and an easy one
    change_min: tuple[float, ...] = (10.0, 18.0)  # m, likewise
    brakes: tuple[float, ...] = (2.0, 3.5, 6.0)  # m/s^2, stops that heed nothing else


@dataclass(frozen=True)
class Proposals:
    """N proposals over HORIZON + 1 states, the first one the present."""

    rollouts: Rollouts
    table: LeadTable
    paths: Paths
    path: NDArray[np.int64]  # (N,) index into paths
    fraction: Array  # (N,) of the speed limit
    family: NDArray[np.int64]  # (N,) FOLLOW: IDM behind whatever is on the path; WAIT: also for what will cross it; BRAKE

    @property
    def side(self) -> NDArray[np.int64]:
        """(N,) 0 route lane, 1 left neighbour, -1 right neighbour."""
        return self.paths.side[self.path]

    @property
    def target(self) -> Array:
        """(N,) m, offset the proposal's path settles at."""
        return self.paths.target[self.path]


def propose(frame: RouteFrame, speed: float, future: Forecast, size: Array, config: ProposalConfig, idm: IdmConfig) -> Proposals:
    """All proposals of one scene; `speed` m/s of the ego, `future` of the agents with box `size` (A, 3)."""
    paths = build_paths(frame, *_targets(frame, speed, config), idm.lateral_acceleration, idm.curve_braking)
    table = lead_table(frame, paths, speed, future, size)
    rows = []  # (path, fraction, family, brake)
    for p, side in enumerate(paths.side):
        fractions = config.change_fractions if side else config.fractions
        rows += [(p, f, FOLLOW, 0.0) for f in fractions]
        if side or p == 0:
            rows += [(p, f, WAIT, 0.0) for f in fractions]
    rows += [(0, 0.0, BRAKE, b) for b in config.brakes]
    columns = list(zip(*rows))
    path, family = np.array(columns[0], np.int64), np.array(columns[2], np.int64)
    fraction, brake = np.array(columns[1], float), np.array(columns[3], float)
    tables = [table, table.held()]
    rollouts = roll_out(frame, paths, tables, speed, idm, path, fraction, np.where(family == WAIT, 1, 0), brake)
    return Proposals(rollouts, table, paths, path, fraction, family)


def _targets(frame: RouteFrame, speed: float, config: ProposalConfig) -> tuple[list[Array], list[float], list[int]]:
    """(targets, lengths, sides) for build_paths: the route and its offsets, then each neighbour lane at two paces."""
    blend = max(config.blend_min, config.blend_s * speed)
    targets = [np.full(len(frame.points), offset) for offset in config.offsets]
    lengths, sides = [blend] * len(targets), [0] * len(targets)
    for side in (1, -1):
        for seconds, shortest in zip(config.change_s, config.change_min):
            length = max(shortest, seconds * speed)
            offset = lane_change_offsets(frame, side, length)
            if offset is not None:
                targets.append(offset)
                lengths.append(length)
                sides.append(side)
    return targets, lengths, sides
