"""The methods that move bodies: physics, velocities, pushes, and what a vehicle tells of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from drive.simulators.carla_server import physics_control
from drive.simulators.carla_server.ackermann import GAINS, Ackermann
from drive.simulators.carla_server.layouts import Kind, ServerError, numbers, pose_of
from drive.simulators.carla_server.poses import matrix
from drive.simulators.carla_server.walkers import MASS as WALKER_MASS

if TYPE_CHECKING:
    from drive.simulators.carla_server.episode import Episode

DEGREES = 1e-4 * math.pi / 180.0  # N m s of an angular impulse in Unreal's kg cm^2 deg/s, in which CARLA hands it on


class BodyMethods:
    """Every public method is one that clients may call. Sensors and things do not move by themselves: pushes at them do nothing."""

    @property
    def _episode(self) -> Episode:
        raise NotImplementedError

    def set_actor_target_velocity(self, actor_id: int, velocity: list) -> None:
        """m/s, world; a walker soon walks again as its control says."""
        kind, value = self._episode.actor(actor_id).kind, numbers(velocity, 3)
        if kind == Kind.VEHICLE:
            self._episode.vehicles.set_velocity(actor_id, value)
        elif kind == Kind.WALKER:
            self._episode.people.set_velocity(actor_id, value)

    def set_actor_target_angular_velocity(self, actor_id: int, velocity: list) -> None:
        """deg/s."""
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.spin(actor_id, numbers(velocity, 3))

    def enable_actor_constant_velocity(self, actor_id: int, velocity: list) -> None:
        """m/s in the actor's frame, until disabled."""
        self._episode.vehicles.cruise[self._episode.vehicles.of(actor_id)] = numbers(velocity, 3)

    def disable_actor_constant_velocity(self, actor_id: int) -> None:
        """Back to pedals."""
        self._episode.vehicles.cruise[self._episode.vehicles.of(actor_id)] = np.nan

    def set_actor_simulate_physics(self, actor_id: int, on: bool) -> None:
        """A body without physics stays where it is put, in the air as well; a walker still goes as its control says."""
        kind = self._episode.actor(actor_id).kind
        if kind == Kind.VEHICLE:
            self._episode.vehicles.set_free(actor_id, bool(on))
        elif kind == Kind.WALKER:
            people = self._episode.people
            people.heavy[people.row[actor_id]] = bool(on)

    def set_actor_collisions(self, actor_id: int, on: bool) -> None:
        """Whether others can touch it."""
        kind, episode = self._episode.actor(actor_id).kind, self._episode
        if kind == Kind.VEHICLE:
            episode.vehicles.solid[episode.vehicles.of(actor_id)] = bool(on)
        elif kind == Kind.WALKER:
            episode.people.solid[episode.people.row[actor_id]] = bool(on)
        elif kind == Kind.PROP:
            (episode.collisions.ghosts.discard if on else episode.collisions.ghosts.add)(actor_id)
            episode.collisions.stale = True

    def set_actor_enable_gravity(self, actor_id: int, on: bool) -> None:
        """A body without gravity keeps its height."""
        kind, episode = self._episode.actor(actor_id).kind, self._episode
        if kind == Kind.VEHICLE:
            episode.vehicles.heavy[episode.vehicles.of(actor_id)] = bool(on)
        elif kind == Kind.WALKER:
            episode.people.heavy[episode.people.row[actor_id]] = bool(on)

    def add_actor_impulse(self, actor_id: int, impulse: list) -> None:
        """N s at the middle, world."""
        kind, value = self._episode.actor(actor_id).kind, numbers(impulse, 3)
        if kind == Kind.VEHICLE:
            self._episode.vehicles.kick(actor_id, value)
        elif kind == Kind.WALKER:
            people = self._episode.people
            people.knock[people.row[actor_id]] += np.array(value[:2]) / WALKER_MASS

    def add_actor_force(self, actor_id: int, force: list) -> None:
        """N at the middle, world, during the next tick."""
        value = numbers(force, 3)
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.push[self._episode.vehicles.of(actor_id), :2] += value[:2]

    def add_actor_angular_impulse(self, actor_id: int, impulse: list) -> None:
        """About the axes through the middle, kg cm^2 deg/s; only what turns about z has an effect."""
        value = numbers(impulse, 3)
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.kick(actor_id, [0.0, 0.0, 0.0], DEGREES * value[2])

    def add_actor_torque(self, actor_id: int, torque: list) -> None:
        """About the axes through the middle, kg cm^2 deg/s^2, during the next tick; only what turns about z has an effect."""
        value = numbers(torque, 3)
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.push[self._episode.vehicles.of(actor_id), 2] += DEGREES * value[2]

    def add_actor_impulse_at_location(self, actor_id: int, impulse: list, location: list) -> None:
        """N s at a place, world."""
        value, arm = numbers(impulse, 3), self._arm(actor_id, location)
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.kick(actor_id, value, float(arm[0] * value[1] - arm[1] * value[0]))

    def add_actor_force_at_location(self, actor_id: int, force: list, location: list) -> None:
        """N at a place, world, during the next tick."""
        value, arm = numbers(force, 3), self._arm(actor_id, location)
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            turn = float(arm[0] * value[1] - arm[1] * value[0])
            self._episode.vehicles.push[self._episode.vehicles.of(actor_id)] += (*value[:2], turn)

    def _arm(self, actor_id: int, location: list) -> np.ndarray:
        return np.array(numbers(location, 3)) - self._episode.pose(actor_id)[:3]

    def set_walker_state(self, actor_id: int, transform: list, speed: float) -> None:
        """Put a walker somewhere, from where it goes ahead at `speed` m/s."""
        pose = pose_of(transform)
        ahead = matrix(pose)[:3, 0].tolist()
        self._episode.walk(actor_id, [ahead, speed, False])
        self._episode.put(actor_id, pose)

    def apply_ackermann_control_to_vehicle(self, actor_id: int, target: list) -> None:
        """Follow a steering angle, speed and acceleration, until the next carla.VehicleControl."""
        self._ackermann(actor_id).drive(target)

    def get_ackermann_controller_settings(self, actor_id: int) -> list[float]:
        """Gains."""
        self._episode.vehicles.of(actor_id)
        found = self._episode.vehicles.ackermann.get(actor_id)
        return list(found.gains if found else GAINS)

    def apply_ackermann_controller_settings(self, actor_id: int, gains: list) -> None:
        """Gains."""
        self._ackermann(actor_id).tune(gains)

    def _ackermann(self, actor_id: int) -> Ackermann:
        self._episode.vehicles.of(actor_id)
        return self._episode.vehicles.ackermann.setdefault(actor_id, Ackermann())

    def get_physics_control(self, actor_id: int) -> list:
        """VehiclePhysicsControl."""
        vehicles = self._episode.vehicles
        row = vehicles.of(actor_id)
        return physics_control.message(vehicles.cars[actor_id], self._episode.pose(actor_id), 2.0 * vehicles.half[row, 1])

    def apply_physics_control(self, actor_id: int, value: list) -> None:
        """Other physics, as far as our cars have them."""
        vehicles = self._episode.vehicles
        vehicles.of(actor_id)
        vehicles.tune(actor_id, physics_control.heeded(vehicles.cars[actor_id], value))

    def get_wheel_steer_angle(self, actor_id: int, wheel: int) -> float:
        """Degrees, positive to the right. Raises ServerError where there is no such wheel."""
        vehicles = self._episode.vehicles
        row, car = vehicles.of(actor_id), self._episode.vehicles.cars[actor_id]
        if not 0 <= int(wheel) < (2 if car.two_wheels else 4):
            raise ServerError(f"vehicle {actor_id} has no wheel {wheel}")
        return physics_control.wheel_angle(car, vehicles.state[row], int(wheel))

    def get_telemetry_data(self, actor_id: int) -> list:
        """VehicleTelemetryData."""
        vehicles = self._episode.vehicles
        row = vehicles.of(actor_id)
        return physics_control.telemetry(vehicles.cars[actor_id], vehicles.state[row], vehicles.records[row])
