"""The methods that clients call, under CARLA's names; each takes the arguments as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from drive.simulators.carla_server import physics_control
from drive.simulators.carla_server.batch import run_batch
from drive.simulators.carla_server.episode import LIBRARY, Episode
from drive.simulators.carla_server.extras import extra_methods
from drive.simulators.carla_server.layouts import VERSION, Kind, ServerError, numbers, pose_of, token_of
from drive.simulators.carla_server.rpc import Bare
from drive.simulators.carla_server.streams import WORLD_STREAM, Streams
from drive.simulators.carla_server.traffic_lights import LightMethods, TrafficLights

EMPTY: tuple[tuple[str, Any], ...] = (
    ("get_required_files", []),
    ("query_lights_state", []),
    ("update_lights_state", None),
    ("update_day_night_cycle", None),
    ("set_actor_dead", None),
    ("show_vehicle_debug_telemetry", None),
    ("set_actor_autopilot", None),  # the client's Traffic Manager drives, through controls
    ("set_actor_enable_gravity", None),
    ("set_actor_collisions", None),
)


class Methods(LightMethods):
    """Every public method is one that clients may call."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._managers: dict[int, list] = {}

    @property
    def _episode(self) -> Episode:
        return self._server.episode

    @property
    def _lights(self) -> TrafficLights:
        return self._episode.lights

    @property
    def _streams(self) -> Streams:
        return self._server.streams

    def version(self) -> str:
        """Of the protocol."""
        return VERSION

    def get_episode_info(self) -> list:
        """EpisodeInfo."""
        return [self._episode.id, [token_of(WORLD_STREAM, self._server.stream_port)]]

    def get_sensor_token(self, stream: int) -> list:
        """Where a stream is; its client is awaited from now on."""
        if stream == WORLD_STREAM or any(a.stream == stream for a in self._episode.actors.values()):
            self._streams.expect(int(stream))
        return [token_of(int(stream), self._server.stream_port)]

    def get_episode_settings(self) -> list:
        """EpisodeSettings."""
        return self._episode.settings

    def set_episode_settings(self, value: list) -> int:
        """New settings; the frame from which they hold."""
        return self._server.set_settings(value)

    def get_map_info(self) -> list:
        """MapInfo."""
        town = self._episode.town
        return [town.path, [[list(p[:3]), list(p[3:])] for p in town.spawn_points.tolist()]]

    def get_map_data(self) -> str:
        """OpenDRIVE."""
        return self._episode.town.opendrive

    def get_available_maps(self) -> list[str]:
        """Of this server."""
        return [f"/Game/Carla/Maps/{name}" for name in self._server.atlas.names()]

    def load_new_episode(self, name: str, reset_settings: bool = True, layers: int = 0) -> None:
        """Load a map; an empty name means the present one again."""
        self._server.load(name or self._episode.town.name, bool(reset_settings))

    def copy_opendrive_to_file(self, opendrive: str, parameters: list) -> None:
        """Keep an OpenDRIVE text as the map "OpenDriveMap"."""
        self._server.atlas.upload("OpenDriveMap", str(opendrive))

    def get_actor_definitions(self) -> list:
        """The blueprint library."""
        return [blueprint.message(uid) for uid, blueprint in enumerate(LIBRARY, 1)]

    def spawn_actor(self, description: list, transform: list) -> list:
        """A new actor."""
        actor = self._episode.spawn(str(description[1]), list(description[2]), pose_of(transform))
        return actor.message(self._server.stream_port)

    def spawn_actor_with_parent(self, description: list, transform: list, parent: int, attachment: int = 0, bone: str = "") -> list:
        """A new actor that goes with `parent`; every kind of attachment is rigid."""
        actor = self._episode.spawn(str(description[1]), list(description[2]), pose_of(transform), int(parent))
        return actor.message(self._server.stream_port)

    def get_actors_by_id(self, ids: list) -> list:
        """Those that exist."""
        return [self._episode.actors[k].message(self._server.stream_port) for k in ids if k in self._episode.actors]

    def get_actor_bounding_box(self, actor_id: int) -> list:
        """In the actor's frame; an empty box for an actor that has gone."""
        actor = self._episode.actors.get(actor_id)
        return actor.box() if actor else [[0.0] * 3, [0.0] * 3, [0.0] * 3, 0]

    def get_spectator(self) -> list:
        """The free camera."""
        return self._episode.actors[self._episode.spectator].message(self._server.stream_port)

    def destroy_actor(self, actor_id: int) -> bool:
        """Whether it went."""
        return self._episode.destroy(actor_id)

    def tick_cue(self) -> int:
        """Advance by one frame; its number."""
        return self._server.tick()

    def apply_control_to_vehicle(self, actor_id: int, control: list) -> None:
        """Pedals and wheel."""
        self._episode.vehicles.of(actor_id)
        self._episode.vehicles.apply(actor_id, control)

    def apply_control_to_walker(self, actor_id: int, control: list) -> None:
        """Direction and speed."""
        self._episode.walk(actor_id, control)

    def set_actor_transform(self, actor_id: int, transform: list) -> None:
        """Put an actor somewhere."""
        self._episode.put(actor_id, pose_of(transform))

    def set_actor_location(self, actor_id: int, location: list) -> None:
        """Put an actor somewhere, facing as it does."""
        pose = self._episode.pose(actor_id)
        pose[:3] = numbers(location, 3)
        self._episode.put(actor_id, pose)

    def set_actor_target_velocity(self, actor_id: int, velocity: list) -> None:
        """m/s, world."""
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.push(actor_id, numbers(velocity, 3))

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
        """A vehicle without physics stays where it is put."""
        if self._episode.actor(actor_id).kind == Kind.VEHICLE:
            self._episode.vehicles.free[self._episode.vehicles.of(actor_id)] = bool(on)

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

    def get_weather_parameters(self) -> list[float]:
        """Weather."""
        return self._episode.weather

    def set_weather_parameters(self, weather: list) -> None:
        """Weather."""
        self._episode.weather = numbers(weather, 14)

    def apply_batch(self, commands: list, do_tick: bool) -> Bare:
        """Many commands at once, one answer for each."""
        answers = run_batch(self._server.methods, commands)
        if do_tick:
            self._server.tick()
        return Bare(answers)

    def is_traffic_manager_running(self, port: int) -> bool:
        """Whether a client said that it runs one."""
        return port in self._managers

    def get_traffic_manager_running(self, port: int) -> list:
        """Where it is."""
        return self._managers.get(port, ["", 0])

    def add_traffic_manager_running(self, where: list) -> bool:
        """A client's Traffic Manager listens at [ip, port]."""
        if where[1] in self._managers:
            return False
        if len(self._managers) > 1000:
            raise ServerError("more than 1000 Traffic Managers")
        self._managers[int(where[1])] = [str(where[0]), int(where[1])]
        return True

    def destroy_traffic_manager(self, port: int) -> bool:
        """It has gone."""
        return self._managers.pop(port, None) is not None


def table(server: Any) -> dict[str, Callable[..., Any]]:
    """Method name to handler."""
    methods = Methods(server)
    found: dict[str, Callable[..., Any]] = {name: (lambda *_, value=value: value) for name, value in EMPTY}
    found.update(extra_methods(server))
    found.update({name: getattr(methods, name) for name in dir(Methods) if not name.startswith("_")})
    return found
