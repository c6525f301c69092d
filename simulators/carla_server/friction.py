"""carla's static.trigger.friction: boxes in which tyres hold less, or more, than on a dry road."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import Actor, ServerError
from drive.simulators.carla_server.physics_control import FRICTION
from drive.simulators.carla_server.vehicle_model import GRIP
from drive.simulators.carla_server.vehicles import Vehicles

TYPE = "static.trigger.friction"
LEAST = 0.01  # grip that is left on ice without any friction: a grip of zero has no slip angle


class FrictionTriggers:
    """The triggers of an episode; a box is along the world's axes, its half sides given in cm, as in CARLA."""

    def __init__(self) -> None:
        self._boxes: dict[int, tuple[NDArray[np.float64], NDArray[np.float64], float]] = {}
        self._set = False  # whether grips may still be those of a trigger that has gone

    def add(self, actor: Actor, pose: NDArray[np.float64]) -> None:
        """Raises ServerError where an attribute is no number, or the friction negative."""
        half = np.array([actor.number(f"extent_{axis}", 100.0) for axis in "xyz"]) / 100.0
        friction = actor.number("friction", FRICTION)
        if friction < 0.0:
            raise ServerError(f"{TYPE}: friction is {friction:g}; give 0 or more")
        self._boxes[actor.id] = pose[:3].copy(), half, friction

    def remove(self, actor_id: int) -> None:
        """Take a trigger away, if it is one."""
        self._boxes.pop(actor_id, None)

    def step(self, vehicles: Vehicles) -> None:
        """Set the grip of every vehicle, by the last trigger that it stands in."""
        if not self._boxes and not self._set:
            return
        place = vehicles.records["pose"][:, :3]
        grip = np.array([vehicles.cars[int(k)].grip for k in vehicles.records["id"]])
        for middle, half, friction in self._boxes.values():
            inside = (np.abs(place - middle) <= half).all(axis=1)
            grip[inside] = max(friction / FRICTION, LEAST)
        vehicles.params[:, GRIP] = grip
        self._set = bool(self._boxes)
