"""The vehicles of an episode: their state as arrays, stepped and written to the snapshot without a loop over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import VEHICLE, Actor, ServerError, numbers
from drive.simulators.carla_server.vehicle_model import AX, AY, VX, VY, YAW, YAW_RATE, CarParams, X, Y, step_cars

Array = NDArray[np.float64]
Ground = Callable[[Array, Array, Array], Array]  # x, y (N,) in CARLA's frame and about which z, to z (N,) m
STATES, CONTROLS = 9, 5


class Vehicles:
    """N vehicles; row i of every array is the i-th vehicle."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.row: dict[int, int] = {}
        self.state = np.zeros((0, STATES))
        self.control = np.zeros((0, CONTROLS))
        self.params = np.zeros((0, len(CarParams().row())))
        self.cars: dict[int, CarParams] = {}
        self.free = np.zeros(0, bool)  # simulated, rather than put where a client says
        self.cruise = np.zeros((0, 3))  # m/s in the body's frame that `enable_constant_velocity` asks for, NaN if none
        self.half = np.zeros((0, 3))  # m, half of the boxes
        self.offset = np.zeros((0, 3))  # m, middle of the box in the actor's frame
        self.records = np.zeros(0, VEHICLE)

    def __len__(self) -> int:
        return len(self.records)

    def add(self, actor: Actor, pose: Array, params: CarParams) -> None:
        """Put `actor` at `pose` (6,), standing still."""
        self.row[actor.id], self.cars[actor.id] = len(self), params
        state = np.zeros((1, STATES))
        state[0, [X, Y]], state[0, YAW] = pose[:2], np.radians(pose[4])
        self.state = np.concatenate([self.state, state])
        self.control = np.concatenate([self.control, np.zeros((1, CONTROLS))])
        self.params = np.concatenate([self.params, params.row()[None]])
        self.free = np.append(self.free, True)
        self.cruise = np.concatenate([self.cruise, np.full((1, 3), np.nan)])
        self.half = np.concatenate([self.half, [actor.extent]])
        self.offset = np.concatenate([self.offset, [actor.centre]])
        record = np.zeros(1, VEHICLE)
        record["id"], record["state"], record["pose"][0] = actor.id, 1, pose
        record["light"], record["speed_limit"], record["gear"] = 2, 30.0, 1
        self.records = np.concatenate([self.records, record])

    def remove(self, actor_id: int) -> None:
        """Take a vehicle out."""
        i = self.row.pop(actor_id)
        del self.cars[actor_id]
        for name in ("state", "control", "params", "free", "cruise", "half", "offset", "records"):
            setattr(self, name, np.delete(getattr(self, name), i, axis=0))
        self.row = {k: r - (r > i) for k, r in self.row.items()}

    def apply(self, actor_id: int, value: list) -> None:
        """carla.VehicleControl, in force until the next one."""
        i = self.row[actor_id]
        throttle, steer, brake = numbers(value, 3)
        hand, reverse, manual = bool(value[3]), bool(value[4]), bool(value[5])
        gear = int(value[6])
        backwards = reverse or (manual and gear < 0)
        throttle, steer, brake = min(max(throttle, 0.0), 1.0), min(max(steer, -1.0), 1.0), min(max(brake, 0.0), 1.0)
        self.control[i] = throttle, steer, brake, hand, backwards
        record = self.records[i]
        record["throttle"], record["steer"], record["brake"] = throttle, steer, brake
        record["hand_brake"], record["reverse"], record["manual"] = hand, reverse, manual
        record["gear"] = gear if manual else -1 if backwards else 1

    def tune(self, actor_id: int, car: CarParams) -> None:
        """Give a vehicle other physics."""
        self.cars[actor_id] = car
        self.params[self.row[actor_id]] = car.row()

    def put(self, actor_id: int, pose: Array) -> None:
        """Set the pose (6,) at once; the velocity stays."""
        i = self.row[actor_id]
        self.state[i, [X, Y]], self.state[i, YAW] = pose[:2], np.radians(pose[4])
        self.records["pose"][i] = pose

    def push(self, actor_id: int, velocity: list[float]) -> None:
        """Set the velocity (3,) m/s, world."""
        i = self.row[actor_id]
        c, s = np.cos(self.state[i, YAW]), np.sin(self.state[i, YAW])
        self.state[i, VX] = c * velocity[0] + s * velocity[1]
        self.state[i, VY] = -s * velocity[0] + c * velocity[1]
        self.records["velocity"][i] = velocity

    def spin(self, actor_id: int, degrees: list[float]) -> None:
        """Set the angular velocity (3,) deg/s."""
        self.state[self.row[actor_id], YAW_RATE] = np.radians(degrees[2])

    def step(self, dt: float) -> None:
        """Advance by `dt` s and write the records."""
        if not len(self):
            return
        held = np.isfinite(self.cruise[:, 0])
        if held.any():
            self.state[held, VX], self.state[held, VY] = self.cruise[held, 0], self.cruise[held, 1]
        step_cars(self.state, self.control, self.params, self.free, dt)
        if held.any():
            self.state[held, VX], self.state[held, VY] = self.cruise[held, 0], self.cruise[held, 1]
        self.write()

    def write(self) -> None:
        """The state to the records, at the height of the ground; vehicles that are put by clients stay as they were put."""
        state, free = self.state, self.free
        records = self.records if free.all() else self.records[free]
        if not free.all():
            state = state[free]
        pose, velocity = records["pose"], records["velocity"]
        pose[:, 0], pose[:, 1], pose[:, 2] = state[:, X], state[:, Y], self._ground(state[:, X], state[:, Y], pose[:, 2])
        pose[:, 4] = np.degrees((state[:, YAW] + np.pi) % (2.0 * np.pi) - np.pi)
        c, s = np.cos(state[:, YAW]), np.sin(state[:, YAW])
        velocity[:, 0], velocity[:, 1] = c * state[:, VX] - s * state[:, VY], s * state[:, VX] + c * state[:, VY]
        velocity[:, 2] = 0.0
        records["angular"][:, 2] = np.degrees(state[:, YAW_RATE])
        records["acceleration"][:, 0], records["acceleration"][:, 1] = state[:, AX], state[:, AY]
        if not free.all():
            self.records[free] = records

    def centres(self) -> Array:
        """(N, 3) x, y, yaw rad of the boxes' middles, CARLA's frame."""
        yaw = self.state[:, YAW]
        c, s = np.cos(yaw), np.sin(yaw)
        x = self.state[:, X] + c * self.offset[:, 0] - s * self.offset[:, 1]
        y = self.state[:, Y] + s * self.offset[:, 0] + c * self.offset[:, 1]
        return np.column_stack([x, y, yaw])

    def of(self, actor_id: int) -> int:
        """The row of a vehicle. Raises ServerError where the actor is none."""
        if actor_id not in self.row:
            raise ServerError(f"actor {actor_id} is not a vehicle of this episode")
        return self.row[actor_id]
