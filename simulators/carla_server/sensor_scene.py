"""What cameras and ray casters can see of an episode at one frame.

The town is flat to sensors, as it is to the renderer: heights count from the ground below each thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drive.core.types import AgentType
from drive.simulators.carla_server.layouts import Actor

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

Array = NDArray[np.float64]
NARROW = 1.0  # m: a vehicle of less width has two wheels
CLOSE = 0.5  # m round its own vehicle within which a camera does not see it
AWAY = 20.0  # m off the ground: actors that clients have put out of the way, as scenario_runner does at z - 500
DYNAMIC = 21  # label of a thing that has none
PROPS = (("cone", AgentType.TRAFFIC_CONE), ("barrier", AgentType.BARRIER))  # part of the id: how a prop is drawn


@dataclass(frozen=True)
class Scene:
    """N bodies: vehicles, walkers, props; CARLA's frame."""

    ids: NDArray[np.uint32]  # (N,)
    boxes: Array  # (N, 7) x, y, z m of the middles, z above the ground below, yaw rad, half length, width, height m
    velocity: Array  # (N, 3) m/s
    types: NDArray[np.int64]  # (N,) AgentType, how they are drawn
    tags: NDArray[np.uint8]  # (N,) CARLA's semantic labels
    dynamic: NDArray[np.bool_]  # (N,) no props
    lamps: NDArray[np.uint32]  # (N,) carla.VehicleLightState
    lights: Array | None = None  # (L, 4) of the traffic lights, as the renderer takes them

    @staticmethod
    def of(episode: Episode) -> Scene:
        """The episode as it is now."""
        vehicles = episode.vehicles
        n = len(vehicles)
        others = [episode.actors[int(k)] for k in episode.walkers["id"]]
        walkers = len(others)
        others += [actor for actor in episode.props() if actor.extent[0] > 0.0]
        ids = np.array([*vehicles.records["id"], *(actor.id for actor in others)], np.uint32)
        poses = np.array([episode.pose(actor.id) for actor in others]).reshape(-1, 6)
        half = np.concatenate([vehicles.half, np.array([actor.extent for actor in others]).reshape(-1, 3)])
        boxes = np.empty((len(ids), 7))
        centres = vehicles.centres()
        boxes[:n, :2], boxes[:n, 3] = centres[:, :2], centres[:, 2]
        boxes[:n, 2] = vehicles.records["pose"][:, 2] + vehicles.offset[:, 2]
        boxes[n:, :2], boxes[n:, 3] = poses[:, :2], np.radians(poses[:, 4])
        boxes[n:, 2] = poses[:, 2] + np.array([actor.centre[2] for actor in others])
        boxes[:, 2] -= episode.town.ground(boxes[:, 0], boxes[:, 1], boxes[:, 2])
        boxes[:, 4:] = half
        velocity = np.zeros((len(ids), 3))
        velocity[:n], velocity[n : n + walkers] = vehicles.records["velocity"], episode.walkers["velocity"]
        types = np.full(len(ids), int(AgentType.PEDESTRIAN))
        types[:n] = np.where(2.0 * vehicles.half[:, 1] < NARROW, int(AgentType.BICYCLE), int(AgentType.VEHICLE))
        types[n + walkers :] = [_prop_type(actor.type_id) for actor in others[walkers:]]
        tags = np.array([(episode.actors[int(k)].tags or bytes([DYNAMIC]))[0] for k in ids], np.uint8)
        lamps = np.array([episode.lamps.get(int(k), 0) for k in ids], np.uint32)
        here = np.abs(boxes[:, 2]) < AWAY
        dynamic = np.arange(len(ids)) < n + walkers
        return Scene(ids[here], boxes[here], velocity[here], types[here], tags[here], dynamic[here], lamps[here], episode.lights.drawn())

    def seen_by(self, viewer: Actor, parent: Actor | None) -> NDArray[np.int64]:
        """Rows that a camera sees: all but the vehicle in or right on which it is mounted, as that would fill the image."""
        if parent is None or viewer.relative is None:
            return np.arange(len(self.ids))
        inside = np.abs(viewer.relative[:3] - parent.centre) <= np.array(parent.extent) + CLOSE
        return np.flatnonzero(self.ids != parent.id) if inside.all() else np.arange(len(self.ids))

    def drawn(self, rows: NDArray[np.int64]) -> tuple[Array, Array, NDArray[np.int64], None, Array | None]:
        """What the renderer takes, right-handed: poses (A, 3), sizes (A, 3), types (A,), no route, traffic lights."""
        boxes = self.boxes[rows]
        poses = np.stack([boxes[:, 0], -boxes[:, 1], -boxes[:, 3]], axis=1)
        return poses, 2.0 * boxes[:, 4:], self.types[rows], None, self.lights


def _prop_type(type_id: str) -> int:
    return next((int(kind) for word, kind in PROPS if word in type_id), int(AgentType.GENERIC_OBJECT))
