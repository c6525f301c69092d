"""Cameras: the scene of the town's renderer, seen from where the sensor is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.types import Camera
from drive.simulators.carla_server.layouts import IMAGE_HEADER, Actor, ServerError, Stream
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.sensor import Sensor
from drive.simulators.carla_server.weather import look_of
from drive.simulators.carla_server.weather_lamps import lamps_of
from drive.simulators.carla_server.weather_shade import weathered

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

MAX_SIDE, LOWEST, FAR = 4096, 0.05, 1000.0  # pixels; m above the ground; m that a depth image can tell
SKY = 11  # CARLA's label; the renderer has none
EGO = np.zeros(3)  # cameras are given in the world
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # x right, y down, z forward to x forward, y left, z up
FLIP = np.diag([1.0, -1.0, 1.0])  # between left- and right-handed


@njit(cache=True)
def bgra_of(rgb):
    """(H, W, 4) uint8 of (H, W, 3), opaque: in one pass, as there are few ticks without an image."""
    h, w = rgb.shape[:2]
    bgra = np.empty((h, w, 4), np.uint8)
    for row in range(h):
        for column in range(w):
            for k in range(3):
                bgra[row, column, 2 - k] = rgb[row, column, k]
            bgra[row, column, 3] = 255
    return bgra


class CameraSensor(Sensor):
    """What RGB, depth and segmentation share."""

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        width, height, self.fov = actor.number("image_size_x", 800), actor.number("image_size_y", 600), actor.number("fov", 90.0)
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and 1.0 <= self.fov < 179.0):
            raise ServerError(f"a camera has 1 to {MAX_SIDE} pixels a side and a field of view of 1 to 179 degrees")
        self.width, self.height = int(width), int(height)
        focal = self.width / 2.0 / math.tan(math.radians(self.fov) / 2.0)
        self._intrinsics = np.array([[focal, 0.0, self.width / 2.0], [0.0, focal, self.height / 2.0], [0.0, 0.0, 1.0]])
        self._header = IMAGE_HEADER.pack(self.width, self.height, self.fov)

    def camera(self) -> Camera:
        """The pinhole in the world, right-handed."""
        m = matrix(self.episode.pose(self.actor.id))
        pose = np.eye(4)
        pose[:3, :3] = FLIP @ m[:3, :3] @ FLIP @ OPTICAL
        pose[:3, 3] = FLIP @ m[:3, 3]
        pose[2, 3] = max(pose[2, 3] - self.episode.height_at(pose[0, 3], -pose[1, 3], pose[2, 3]), LOWEST)
        return Camera(self.actor.type_id, self.width, self.height, self._intrinsics, pose)

    def visible(self) -> NDArray[np.int64]:
        """Rows of the scene that it can see."""
        return self.episode.scene.seen_by(self.actor, self.episode.actors.get(self.actor.parent))

    def message(self, bgra: NDArray[np.uint8]) -> bytes:
        """Header and pixels."""
        return b"".join((self._header, bgra.data))


class Rgb(CameraSensor):
    """Colours, in the weather of the episode."""

    stream = Stream.RGB

    def measure(self) -> Iterable[bytes]:
        """One image."""
        episode = self.episode
        rows = self.visible()
        scene, renderer = episode.scene.drawn(rows), episode.town.renderer
        look = look_of(tuple(episode.weather))
        if look is None:
            rgb = renderer.render_rgb(self.camera(), EGO, *scene)
        else:
            view, buffers = renderer.samples(self.camera(), EGO, *scene)
            lamps = lamps_of(episode.scene, rows, episode.town.road_map, look, view)
            rgb = weathered(buffers, view, look, lamps, episode.frame)
        yield self.message(bgra_of(rgb))


class Labelled(CameraSensor):
    """Depth, semantic and instance images, which are codes rather than colours."""

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self.stream = {"depth": Stream.DEPTH, "semantic_segmentation": Stream.SEMANTIC, "instance_segmentation": Stream.INSTANCE}[
            actor.type_id.rsplit(".", 1)[-1]
        ]

    def measure(self) -> Iterable[bytes]:
        """One image."""
        rows, scene = self.visible(), self.episode.scene
        depth, semantic, instance = self.episode.town.renderer.render_labels(self.camera(), EGO, *scene.drawn(rows))
        bgra = np.zeros((self.height, self.width, 4), np.uint8)
        bgra[..., 3] = 255
        if self.stream == Stream.DEPTH:
            code = np.rint(np.minimum(depth, FAR) / FAR * ((1 << 24) - 1)).astype(np.uint32)
            bgra[..., 2], bgra[..., 1], bgra[..., 0] = code & 255, code >> 8 & 255, code >> 16
        else:
            named = np.concatenate([np.zeros(1, np.uint8), scene.tags[rows]])[instance]
            bgra[..., 2] = np.where(instance > 0, named, np.where(np.isinf(depth), SKY, semantic))
            if self.stream == Stream.INSTANCE:
                number = np.concatenate([np.zeros(1, np.uint32), scene.ids[rows]])[instance]
                bgra[..., 1], bgra[..., 0] = number & 255, number >> 8 & 255
        yield self.message(bgra)
