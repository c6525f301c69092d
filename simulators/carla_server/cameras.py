"""Cameras: the scene of the town's renderer, seen from where the sensor is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from drive.core.types import Camera
from drive.simulators.carla_server.layouts import IMAGE_HEADER, Actor, ServerError, Stream
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.sensor import Sensor

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

MAX_SIDE, LOWEST, FAR = 4096, 0.05, 1000.0  # pixels; m above the ground; m that a depth image can tell
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # x right, y down, z forward to x forward, y left, z up
FLIP = np.diag([1.0, -1.0, 1.0])  # between left- and right-handed


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
        pose[2, 3] = max(pose[2, 3] - self.episode.height_at(pose[0, 3], -pose[1, 3]), LOWEST)
        return Camera(self.actor.type_id, self.width, self.height, self._intrinsics, pose)

    def message(self, bgra: NDArray[np.uint8]) -> bytes:
        """Header and pixels."""
        return self._header + bgra.tobytes()


class Rgb(CameraSensor):
    """Colours."""

    stream = Stream.RGB

    def measure(self) -> Iterable[bytes]:
        """One image."""
        scene = self.episode.scene(self.actor)
        rgb = self.episode.town.renderer.render_rgb(self.camera(), np.zeros(3), *scene, lights_world=self.episode.lights.drawn())
        bgra = np.empty((self.height, self.width, 4), np.uint8)
        bgra[..., :3], bgra[..., 3] = rgb[..., ::-1], 255
        yield self.message(bgra)


class Labelled(CameraSensor):
    """Depth, semantic and instance images, which are codes rather than colours."""

    def __init__(self, actor: Actor, episode: Episode) -> None:
        super().__init__(actor, episode)
        self.stream = {"depth": Stream.DEPTH, "semantic_segmentation": Stream.SEMANTIC, "instance_segmentation": Stream.INSTANCE}[
            actor.type_id.rsplit(".", 1)[-1]
        ]

    def measure(self) -> Iterable[bytes]:
        """One image."""
        lights = self.episode.lights.drawn()
        frame = self.episode.town.renderer.render(self.camera(), np.zeros(3), *self.episode.scene(self.actor), lights_world=lights)
        bgra = np.zeros((self.height, self.width, 4), np.uint8)
        bgra[..., 3] = 255
        if self.stream == Stream.DEPTH:
            code = np.rint(np.minimum(frame.depth, FAR) / FAR * ((1 << 24) - 1)).astype(np.uint32)
            bgra[..., 2], bgra[..., 1], bgra[..., 0] = code & 255, code >> 8 & 255, code >> 16
        else:
            bgra[..., 2] = frame.semantic
            if self.stream == Stream.INSTANCE:
                ids = self.episode.scene_ids(self.actor)
                number = np.concatenate([[0], ids]).astype(np.uint32)[frame.instance]
                bgra[..., 1], bgra[..., 0] = number & 255, number >> 8 & 255
        yield self.message(bgra)
