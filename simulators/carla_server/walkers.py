"""The walkers of an episode: where their control takes them, what cars do to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import WALKER, Actor, numbers
from drive.simulators.carla_server.vehicles import Ground

Array = NDArray[np.float64]
MASS, INERTIA = 80.0, 10.0  # kg, kg m^2 about z
RECOVERY = 6.0  # m/s^2 by which a walker who was pushed, or slides on the ground, comes to rest
FALLS = 2.0  # m/s of a push by which a walker who is not invincible falls
LYING = 0.25  # m above the ground
TABLES = ("records", "half", "knock", "fallen", "solid", "heavy", "mortal")


class Walkers:
    """N walkers; row i of every array is the i-th walker."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.row: dict[int, int] = {}
        self.records = np.zeros(0, WALKER)
        self.half = np.zeros((0, 3))  # m, half of the boxes
        self.knock = np.zeros((0, 2))  # m/s, world, that pushes have left
        self.fallen = np.zeros(0, bool)  # lies, and heeds no control
        self.solid = np.zeros(0, bool)  # collides
        self.heavy = np.zeros(0, bool)  # stands on the ground
        self.mortal = np.zeros(0, bool)  # not invincible

    def __len__(self) -> int:
        return len(self.records)

    def add(self, actor: Actor, pose: Array) -> None:
        """Put `actor` at `pose` (6,), standing."""
        self.row[actor.id] = len(self)
        record = np.zeros(1, WALKER)
        record["id"], record["state"], record["pose"][0] = actor.id, 1, pose
        mortal = actor.values.get("is_invincible", "true").lower() == "false"
        self.records = np.concatenate([self.records, record])
        self.half = np.concatenate([self.half, [actor.extent]])
        self.knock = np.concatenate([self.knock, np.zeros((1, 2))])
        for name, value in (("fallen", False), ("solid", True), ("heavy", True), ("mortal", mortal)):
            setattr(self, name, np.append(getattr(self, name), value))

    def remove(self, actor_id: int) -> None:
        """Take a walker out."""
        i = self.row.pop(actor_id)
        for name in TABLES:
            setattr(self, name, np.delete(getattr(self, name), i, axis=0))
        self.row = {k: r - (r > i) for k, r in self.row.items()}

    def control(self, actor_id: int, value: list) -> None:
        """carla.WalkerControl, in force until the next one. Raises ServerError where it is not finite."""
        record = self.records[self.row[actor_id]]
        direction, speed = numbers(value[0], 3), numbers(value[1:], 1)[0]
        record["direction"], record["speed"], record["jump"] = direction, speed, bool(value[2])

    def set_velocity(self, actor_id: int, velocity: list[float]) -> None:
        """A push that leaves the walker with the velocity (3,) m/s, world, of which the height is lost."""
        i = self.row[actor_id]
        self.knock[i] = np.array(velocity[:2]) - self._wanted()[i, :2]

    def _wanted(self) -> Array:
        """(N, 3) m/s that the controls ask for."""
        direction, speed = self.records["direction"].astype(float), self.records["speed"].astype(float)
        length = np.maximum(np.linalg.norm(direction, axis=1), 1e-6)
        return direction * np.where(self.fallen, 0.0, speed / length)[:, None]

    def step(self, dt: float) -> None:
        """Advance by `dt` s and write the records."""
        if not len(self):
            return
        wanted = self._wanted()
        velocity = wanted.copy()
        velocity[:, :2] += self.knock
        velocity[:, 2] = 0.0
        pose = self.records["pose"]
        pose[:, :2] += velocity[:, :2] * dt
        moving = np.hypot(wanted[:, 0], wanted[:, 1]) > 0.01
        pose[moving, 4] = np.degrees(np.arctan2(wanted[moving, 1], wanted[moving, 0]))
        heavy = self.heavy
        height = np.where(self.fallen, LYING, self.half[:, 2])
        pose[heavy, 2] = self._ground(pose[heavy, 0], pose[heavy, 1], pose[heavy, 2]) + height[heavy]
        self.records["velocity"] = velocity
        size = np.hypot(self.knock[:, 0], self.knock[:, 1])
        self.knock *= (np.maximum(size - RECOVERY * dt, 0.0) / np.maximum(size, 1e-9))[:, None]

    def hit(self, rows: NDArray[np.int64], change: Array) -> None:
        """Walkers of `rows` (K,) were pushed by cars: `change` (K, 2) m/s. Who is not invincible falls, and lies where he comes to rest."""
        self.knock[rows] += change
        down = rows[self.mortal[rows] & (np.hypot(change[:, 0], change[:, 1]) > FALLS)]
        self.fallen[down], self.solid[down] = True, False
        self.records["pose"][down, 3] = 90.0
