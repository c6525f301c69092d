"""The methods that clients call, under CARLA's names; each takes the arguments as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drive.simulators.carla_server.batch import run_batch
from drive.simulators.carla_server.bodies_methods import BodyMethods
from drive.simulators.carla_server.episode import LIBRARY, Episode
from drive.simulators.carla_server.extras import extra_methods
from drive.simulators.carla_server.layouts import VERSION, ServerError, numbers, pose_of, token_of
from drive.simulators.carla_server.rpc import Bare
from drive.simulators.carla_server.streams import WORLD_STREAM, Streams
from drive.simulators.carla_server.traffic_lights import LightMethods, TrafficLights

MOST_ATTRIBUTES, LONGEST_ATTRIBUTE = 200, 1000
EMPTY: tuple[tuple[str, Any], ...] = (
    ("get_required_files", []),
    ("query_lights_state", []),
    ("update_lights_state", None),
    ("update_day_night_cycle", None),
    ("set_actor_dead", None),
    ("show_vehicle_debug_telemetry", None),
    ("set_actor_autopilot", None),  # the client's Traffic Manager drives, through controls
)


class Methods(LightMethods, BodyMethods):
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
        if not isinstance(stream, int) or not 0 <= stream <= 0xFFFFFFFF:
            raise ServerError(f"a stream has a number of 32 bits, not {str(stream)[:80]}")
        if stream == WORLD_STREAM or any(a.stream == stream for a in self._episode.actors.values()):
            self._streams.expect(stream)
        return [token_of(stream, self._server.stream_port)]

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
        actor = self._episode.spawn(str(description[1]), attributes_of(description[2]), pose_of(transform))
        return actor.message(self._server.stream_port)

    def spawn_actor_with_parent(self, description: list, transform: list, parent: int, attachment: int = 0, bone: str = "") -> list:
        """A new actor that goes with `parent`; every kind of attachment is rigid."""
        actor = self._episode.spawn(str(description[1]), attributes_of(description[2]), pose_of(transform), int(parent))
        return actor.message(self._server.stream_port)

    def get_actors_by_id(self, ids: list) -> list:
        """Those that exist."""
        return [self._episode.actors[k].message(self._server.stream_port) for k in dict.fromkeys(ids) if k in self._episode.actors]

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

    def get_weather_parameters(self) -> list[float]:
        """Weather."""
        return self._episode.weather

    def set_weather_parameters(self, weather: list) -> None:
        """Weather."""
        self._episode.weather = numbers(weather, 14)

    def apply_batch(self, commands: list, do_tick: bool) -> Bare:
        """Many commands at once, one answer for each."""
        answers = run_batch(self._server.methods, commands, self._episode)
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
        address, port = str(where[0])[:256], int(where[1])
        if not 0 <= port <= 65535:
            raise ServerError(f"{port} is not a port")
        if port in self._managers:
            return False
        self._managers[port] = [address, port]
        return True

    def destroy_traffic_manager(self, port: int) -> bool:
        """It has gone."""
        return self._managers.pop(port, None) is not None


def attributes_of(value: list) -> list[list]:
    """[name, type, value] of each attribute of a description, as they go to all clients. Raises ServerError on more or longer ones than any blueprint's."""
    found = [[str(name), int(kind), str(text)] for name, kind, text in value[: MOST_ATTRIBUTES + 1]]
    if len(found) > MOST_ATTRIBUTES or any(len(name) + len(text) > LONGEST_ATTRIBUTE or not 0 <= kind <= 255 for name, kind, text in found):
        raise ServerError(f"at most {MOST_ATTRIBUTES} attributes, of {LONGEST_ATTRIBUTE} letters each, make a blueprint")
    return found


def table(server: Any) -> dict[str, Callable[..., Any]]:
    """Method name to handler."""
    methods = Methods(server)
    found: dict[str, Callable[..., Any]] = {name: (lambda *_, value=value: value) for name, value in EMPTY}
    found.update(extra_methods(server))
    found.update({name: getattr(methods, name) for name in dir(Methods) if not name.startswith("_")})
    return found
