"""What lies on the ground ahead of a scene: the dense targets a vision tower learns to see by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import compose, points_to_frame, relative
from drive.core.types import AgentType, Privileged
from drive.datasets.captions import SPACING, VIEW_RANGE, route_ahead
from drive.simulators.birdseye import BirdsEye, Channel

CELLS = 26  # along each side of the square
CELL = 2.0  # m
SUBCELLS = 2  # samples of a cell along each side
PLANES = (Channel.DRIVABLE, Channel.VEHICLE)
ROUTE_AT = tuple(range(4, 52, 4))  # m along the route, whole steps of SPACING
HAZARDS = {  # what a car may have to stop for: its classes, and m to either side of the route within which it counts
    "vehicle": ((AgentType.VEHICLE, AgentType.BICYCLE), 1.5),
    "person": ((AgentType.PEDESTRIAN,), 4.0),
    "barrier": ((AgentType.TRAFFIC_CONE, AgentType.BARRIER, AgentType.GENERIC_OBJECT), 1.5),  # in CARLA a red light and a stop sign too
}


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


def hazards_ahead(scene: Privileged) -> NDArray[np.float32]:
    """(len(HAZARDS),) how near the nearest of each kind on the route is: 1 at the rear axle, 0 at VIEW_RANGE m or where there is none.

    The affordances of Sauer et al. (arXiv 1806.06498): few numbers on which driving depends, where a raster holds them in a cell or two.
    """
    out = np.zeros(len(HAZARDS), np.float32)
    now, line = scene.agents.valid[:, 0], route_ahead(scene)
    if not now.any() or not len(line):
        return out
    poses, size, types = scene.agents.poses_world[now, 0], scene.agents.size[now], scene.agents.types[now]
    nearest = np.argmin(np.hypot(*(poses[:, None, :2] - line[None, :, :2]).transpose(2, 0, 1)), axis=1)
    local = relative(line[nearest], poses)
    across = np.abs(np.sin(local[:, 2])) * size[:, 0] / 2.0 + np.abs(np.cos(local[:, 2])) * size[:, 1] / 2.0
    along = np.abs(np.cos(local[:, 2])) * size[:, 0] / 2.0 + np.abs(np.sin(local[:, 2])) * size[:, 1] / 2.0
    at = nearest * SPACING + local[:, 0] - along
    beyond = np.where(nearest == 0, local[:, 0] + along < 0.0, np.abs(local[:, 0]) > along + SPACING)  # behind the car, or past the route's end
    for k, (classes, beside) in enumerate(HAZARDS.values()):
        there = np.isin(types, classes) & (np.abs(local[:, 1]) - across < beside) & ~beyond
        if there.any():
            out[k] = np.clip(1.0 - at[there].min() / VIEW_RANGE, 0.0, 1.0)
    return out
