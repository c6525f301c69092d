"""The vehicles of an episode: their state as arrays, stepped and written to the snapshot without a loop over them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_server.ackermann import Ackermann
from drive.simulators.carla_server.layouts import VEHICLE, Actor, ServerError
from drive.simulators.carla_server.physics_control import UP
from drive.simulators.carla_server.vehicle_model import (
    AX,
    AY,
    INERTIA,
    MASS,
    REVERSE,
    STEER,
    VX,
    VY,
    YAW,
    YAW_RATE,
    CarParams,
    X,
    Y,
    step_cars,
)

Array = NDArray[np.float64]
Ground = Callable[[Array, Array, Array], Array]  # x, y (N,) in CARLA's frame and about which z, to z (N,) m
STATES, CONTROLS = 9, 5
FASTEST = 1000.0  # m/s, rad/s: beyond it the drag of one tick would throw a car to infinity
TABLES = ("state", "control", "params", "free", "solid", "heavy", "cruise", "push", "half", "offset", "records")


class Vehicles:
    """N vehicles; row i of every array is the i-th vehicle."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.row: dict[int, int] = {}
        self.state = np.zeros((0, STATES))
        self.control = np.zeros((0, CONTROLS))
        self.params = np.zeros((0, len(CarParams().row())))
        self.cars: dict[int, CarParams] = {}
        self.ackermann: dict[int, Ackermann] = {}  # of vehicles that were ever driven so
        self.free = np.zeros(0, bool)  # simulated, rather than put where a client says
        self.solid = np.zeros(0, bool)  # collides
        self.heavy = np.zeros(0, bool)  # stands on the ground
        self.cruise = np.zeros((0, 3))  # m/s in the body's frame that `enable_constant_velocity` asks for, NaN if none
        self.push = np.zeros((0, 3))  # N along world x and y, N m about z, of the next tick only
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
        self.free, self.solid, self.heavy = np.append(self.free, True), np.append(self.solid, True), np.append(self.heavy, True)
        self.cruise = np.concatenate([self.cruise, np.full((1, 3), np.nan)])
        self.push = np.concatenate([self.push, np.zeros((1, 3))])
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
        self.ackermann.pop(actor_id, None)
        for name in TABLES:
            setattr(self, name, np.delete(getattr(self, name), i, axis=0))
        self.row = {k: r - (r > i) for k, r in self.row.items()}

    def apply(self, actor_id: int, value: list) -> None:
        """carla.VehicleControl, in force until the next one."""
        throttle, steer, brake = float(value[0]), float(value[1]), float(value[2])
        if not math.isfinite(throttle + steer + brake):
            raise ServerError(f"throttle, steer and brake are finite numbers; got {value[:3]}")
        if actor_id in self.ackermann:
            self.ackermann[actor_id].drive(None)
        hand, reverse, manual, gear = bool(value[3]), bool(value[4]), bool(value[5]), int(value[6])
        backwards = reverse or (manual and gear < 0)
        self._set(self.row[actor_id], throttle, steer, brake, hand, backwards)
        record = self.records[self.row[actor_id]]
        record["reverse"], record["manual"] = reverse, manual
        if manual:
            record["gear"] = min(max(gear, -1), len(UP) + 1)

    def _set(self, i: int, throttle: float, steer: float, brake: float, hand: bool, backwards: bool) -> None:
        throttle, steer, brake = min(max(throttle, 0.0), 1.0), min(max(steer, -1.0), 1.0), min(max(brake, 0.0), 1.0)
        self.control[i] = throttle, steer, brake, hand, backwards
        record = self.records[i]
        record["throttle"], record["steer"], record["brake"], record["hand_brake"] = throttle, steer, brake, hand

    def tune(self, actor_id: int, car: CarParams) -> None:
        """Give a vehicle other physics."""
        self.cars[actor_id] = car
        self.params[self.row[actor_id]] = car.row()

    def put(self, actor_id: int, pose: Array) -> None:
        """Set the pose (6,) at once; the velocity stays as the body has it."""
        i = self.row[actor_id]
        self.state[i, [X, Y]], self.state[i, YAW] = pose[:2], np.radians(pose[4])
        self.records["pose"][i] = pose

    def set_free(self, actor_id: int, on: bool) -> None:
        """Whether physics move it; without them it stands still where it is put."""
        i = self.of(actor_id)
        self.free[i] = on
        if not on:
            self.state[i, VX:] = 0.0
            for name in ("velocity", "angular", "acceleration"):
                self.records[name][i] = 0.0

    def set_velocity(self, actor_id: int, velocity: list[float]) -> None:
        """Set the velocity (3,) m/s, world."""
        i = self.row[actor_id]
        c, s = np.cos(self.state[i, YAW]), np.sin(self.state[i, YAW])
        self.state[i, VX] = c * velocity[0] + s * velocity[1]
        self.state[i, VY] = -s * velocity[0] + c * velocity[1]
        self.records["velocity"][i] = velocity

    def spin(self, actor_id: int, degrees: list[float]) -> None:
        """Set the angular velocity (3,) deg/s."""
        self.state[self.row[actor_id], YAW_RATE] = np.radians(degrees[2])

    def kick(self, actor_id: int, impulse: list[float], turn: float = 0.0) -> None:
        """Change the velocity at once: `impulse` (3,) N s at the middle, world, of which the height is lost; `turn` N m s about z."""
        i = self.of(actor_id)
        c, s, mass = np.cos(self.state[i, YAW]), np.sin(self.state[i, YAW]), self.params[i, MASS]
        self.state[i, VX] += (c * impulse[0] + s * impulse[1]) / mass
        self.state[i, VY] += (-s * impulse[0] + c * impulse[1]) / mass
        self.state[i, YAW_RATE] += turn / self.params[i, INERTIA]

    def step(self, dt: float) -> None:
        """Advance by `dt` s and write the records."""
        if not len(self):
            return
        for actor_id, controller in self.ackermann.items():
            if controller.target is not None:
                self._follow(self.row[actor_id], self.cars[actor_id], controller, dt)
        if self.push.any():
            for i in np.flatnonzero(self.push.any(axis=1)):
                self.kick(int(self.records["id"][i]), [*(self.push[i, :2] * dt), 0.0], self.push[i, 2] * dt)
            self.push[:] = 0.0
        held = np.isfinite(self.cruise[:, 0])
        if held.any():
            self.state[held, VX], self.state[held, VY] = self.cruise[held, 0], self.cruise[held, 1]
        np.clip(self.state[:, VX : YAW_RATE + 1], -FASTEST, FASTEST, out=self.state[:, VX : YAW_RATE + 1])
        step_cars(self.state, self.control, self.params, self.free, dt)
        if held.any():
            self.state[held, VX], self.state[held, VY] = self.cruise[held, 0], self.cruise[held, 1]
        self.write()

    def _follow(self, i: int, car: CarParams, controller: Ackermann, dt: float) -> None:
        throttle, steer, brake, backwards = controller.control(float(self.state[i, VX]), float(self.state[i, STEER]), car.max_steer, dt)
        self._set(i, throttle, steer, brake, False, backwards)
        self.records["reverse"][i] = backwards

    def write(self) -> None:
        """The state to the records, at the height of the ground; vehicles that are put by clients stay as they were put."""
        state, records, free = self.state, self.records, self.free
        if not free.any():
            return
        rows = slice(None) if free.all() else np.flatnonzero(free)
        state = state[rows]
        x, y, yaw = state[:, X], state[:, Y], state[:, YAW]
        pose, velocity, acceleration = records["pose"], records["velocity"], records["acceleration"]
        ground = self._ground(x, y, pose[rows, 2])
        heavy = self.heavy[rows]
        pose[rows, 2] = ground if heavy.all() else np.where(heavy, ground, pose[rows, 2])
        pose[rows, 0], pose[rows, 1] = x, y
        pose[rows, 4] = np.degrees((yaw + np.pi) % (2.0 * np.pi) - np.pi)
        c, s, vx, vy = np.cos(yaw), np.sin(yaw), state[:, VX], state[:, VY]
        velocity[rows, 0], velocity[rows, 1], velocity[rows, 2] = c * vx - s * vy, s * vx + c * vy, 0.0
        records["angular"][rows, 2] = np.degrees(state[:, YAW_RATE])
        acceleration[rows, 0], acceleration[rows, 1] = state[:, AX], state[:, AY]
        gear = np.where(self.control[rows, REVERSE] > 0.0, -1, np.searchsorted(UP, vx) + 1)
        records["gear"][rows] = np.where(records["manual"][rows] > 0, records["gear"][rows], gear)

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
