"""A CARLA server without its ports, for tests of what its sensors measure."""

import numpy as np

from drive.simulators.carla_server.layouts import Actor
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.server import CarlaServer, ServerConfig

CAR = "vehicle.lincoln.mkz_2020"


class World:
    """One episode, and sensors that are read after a tick."""

    def __init__(self, town: str = "test_c", **config):
        self.server = CarlaServer(ServerConfig(map=town, synchronous=True, **config))
        self.start = self.episode.town.spawn_points[5]

    @property
    def episode(self):
        return self.server.episode

    def at(self, ahead: float, right: float = 0.0, turn: float = 0.0, up: float = 0.0) -> np.ndarray:
        """A pose on the ground in the frame of the fifth spawn point."""
        yaw = np.radians(self.start[4])
        x = self.start[0] + ahead * np.cos(yaw) - right * np.sin(yaw)
        y = self.start[1] + ahead * np.sin(yaw) + right * np.cos(yaw)
        return np.array([x, y, up, 0.0, self.start[4] + turn, 0.0])

    def spawn(self, type_id: str, pose, parent: Actor | None = None, **attributes) -> Actor:
        given = [[name, 4, str(value)] for name, value in attributes.items()]
        return self.episode.spawn(type_id, given, np.asarray(pose, float), parent.id if parent else 0)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.server.tick()

    def payloads(self, sensor: Actor) -> list[bytes]:
        return list(self.episode.sensors[sensor.id].measure())

    def image(self, camera: Actor) -> np.ndarray:
        """(H, W, 4) BGRA."""
        (payload,) = self.payloads(camera)
        width, height = np.frombuffer(payload[:8], "<u4")
        return np.frombuffer(payload[12:], np.uint8).reshape(height, width, 4)

    def depth(self, camera: Actor) -> np.ndarray:
        """(H, W) m, as CARLA's documentation decodes it."""
        b, g, r = (self.image(camera)[..., k].astype(float) for k in range(3))
        return (r + 256.0 * g + 65536.0 * b) / (256.0**3 - 1.0) * 1000.0


def corners(world: World, actor: Actor) -> np.ndarray:
    """(8, 3) of an actor's box in the world, as carla.BoundingBox.get_world_vertices gives them."""
    signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], float)
    local = np.array(actor.centre) + signs * np.array(actor.extent)
    m = matrix(world.episode.pose(actor.id))
    return local @ m[:3, :3].T + m[:3, 3]


def project(world: World, camera: Actor, points: np.ndarray, size: int, fov: float) -> np.ndarray:
    """(N, 3) u, v in pixels and depth in m, by the formula of CARLA's bounding box tutorial."""
    inverse = np.linalg.inv(matrix(world.episode.pose(camera.id)))
    p = points @ inverse[:3, :3].T + inverse[:3, 3]
    focal = size / (2.0 * np.tan(np.radians(fov) / 2.0))
    return np.column_stack([focal * p[:, 1] / p[:, 0] + size / 2.0, -focal * p[:, 2] / p[:, 0] + size / 2.0, p[:, 0]])
