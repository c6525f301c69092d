"""What lies on the ground ahead of a scene: the dense targets a vision tower learns to see by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import compose, points_to_frame
from drive.core.types import Privileged
from drive.datasets.captions import SPACING, route_ahead
from drive.simulators.birdseye import BirdsEye, Channel

CELLS = 26  # along each side of the square
CELL = 2.0  # m
SUBCELLS = 2  # samples of a cell along each side
PLANES = (Channel.DRIVABLE, Channel.VEHICLE)
ROUTE_AT = tuple(range(4, 52, 4))  # m along the route, whole steps of SPACING


def ground_planes(scene: Privileged, birdseye: BirdsEye) -> NDArray[np.float32]:
    """(2, CELLS, CELLS) share of each cell that is drivable, and that is under a vehicle, at the present.

    The square lies ahead of the rear axle, heading up: x = CELLS * CELL at its upper edge, 0 at its lower one, y = 0 in the middle.
    """
    side = CELLS * CELL
    middle = compose(scene.ego.pose_world, np.array([[side / 2.0, 0.0, 0.0]]))[0]
    now = scene.agents.valid[:, 0]
    agents = scene.agents.poses_world[now, 0], scene.agents.size[now], scene.agents.types[now]
    planes = birdseye.channels(middle, *agents, size_px=CELLS * SUBCELLS, metres=side)[list(PLANES)]
    return planes.reshape(len(PLANES), CELLS, SUBCELLS, CELLS, SUBCELLS).mean((2, 4), dtype=np.float32)


def route_offsets(scene: Privileged) -> NDArray[np.float32]:
    """(len(ROUTE_AT),) m to the left of the ego's axis of the route at each distance along it; its last point stands in beyond its end."""
    line = route_ahead(scene)
    points = line[[min(round(at / SPACING), len(line) - 1) for at in ROUTE_AT], :2]
    return points_to_frame(scene.ego.pose_world, points)[:, 1].astype(np.float32)
