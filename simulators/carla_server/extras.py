"""The methods that few clients call: the recorder, debug drawing, rays, lamps, and what this server has only the name of."""

from __future__ import annotations

from typing import Any

import numpy as np

from drive.simulators.carla_server.episode import Episode
from drive.simulators.carla_server.layouts import Kind, ServerError, numbers

SILENT = (  # done by nothing here: Unreal's bones, textures, doors and layers
    *("open_vehicle_door", "close_vehicle_door", "set_wheel_pitch_angle", "enable_carsim", "use_carsim_road", "enable_chrono_physics"),
    *("restore_physx_physics", "set_bones_transform", "blend_pose", "get_pose_from_animation", "load_map_layer", "unload_map_layer"),
    *("enable_environment_objects", "set_annotations_traverse_translucency", "apply_color_texture_to_objects"),
    *("apply_float_color_texture_to_objects", "clear_debug_string", "enable_gbuffers", "set_ignored_vehicles", "enable_sensor_for_ros"),
    *("disable_sensor_for_ros", "send", "stop_replayer", "set_replayer_time_factor", "set_replayer_ignore_hero"),
    *("set_replayer_ignore_spectator", "set_wheel_steer_direction", "set_imui_gravity"),
)
ANSWERS: dict[str, Any] = {
    "get_actor_component_names": [],
    "get_actor_bone_names": [],
    "get_actor_socket_names": [],
    "get_actor_bone_world_transforms": [],
    "get_actor_bone_relative_transforms": [],
    "get_actor_socket_world_transforms": [],
    "get_actor_socket_relative_transforms": [],
    "get_vehicle_bone_world_transforms": [],
    "get_names_of_all_objects": [],
    "are_gbuffers_enabled": False,
    "is_sensor_enabled_for_ros": False,
    "get_wheel_pitch_angle": 0.0,
    "get_imui_gravity": 9.81,
    "get_navigation_mesh": b"",
    "get_environment_objects": [],
    "get_bones_transform": [[]],
}
ROAD = 1
LAMPS = 0xFFFFFFFF  # what a carla.VehicleLightState can hold


class Extras:
    """Every public method is one that clients may call."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def _episode(self) -> Episode:
        return self._server.episode

    def start_recorder(self, name: str, additional: bool = False) -> str:
        """Begin to record; the path of the file."""
        return self._server.recorder.start(str(name), self._episode.town.name)

    def stop_recorder(self) -> None:
        """End the recording."""
        self._server.recorder.stop()

    def show_recorder_file_info(self, name: str, everything: bool = False) -> str:
        """What a recording holds."""
        return self._server.recorder.info(str(name), bool(everything))

    def show_recorder_collisions(self, name: str, first: int = 0, second: int = 0) -> str:
        """Who hit whom in a recording."""
        return self._server.recorder.collisions(str(name))

    def show_recorder_actors_blocked(self, name: str, seconds: float = 0.0, distance: float = 0.0) -> str:
        """Not told by this server."""
        raise ServerError("this server's recordings do not tell who was blocked")

    def replay_file(self, name: str, start: float = 0.0, duration: float = 0.0, follow: int = 0, *_: Any) -> str:
        """Not played by this server."""
        raise ServerError("this server does not replay recordings: drive them again with the same seed")

    def get_gbuffer_token(self, actor_id: int, buffer: int) -> bytes:
        """Not drawn by this server."""
        raise ServerError("this server's cameras have no g-buffers")

    def draw_debug_shape(self, shape: list) -> None:
        """To the recording; no camera shows it."""
        if not isinstance(shape, list) or len(shape) < 2:
            raise ServerError("a debug shape is an array")
        self._server.recorder.write("debug", self._episode.frame, shape)

    def clear_debug_shape(self) -> None:
        """None is shown."""

    def project_point(self, location: list, direction: list, distance: float) -> list:
        """[hit, [place, label]] of the ground along a ray."""
        start, way = np.array(numbers(location, 3)), np.array(numbers(direction, 3))
        reach = numbers([distance], 1)[0]
        way = way / max(float(np.linalg.norm(way)), 1e-9)
        height = start[2] - self._episode.height_at(start[0], start[1])
        gone = height / -way[2] if way[2] < -1e-9 else np.inf
        hit = 0.0 <= gone <= reach
        place = start + way * (gone if hit else 0.0)
        return [bool(hit), [[float(v) for v in place], ROAD]]

    def cast_ray(self, start: list, end: list) -> list:
        """Where the segment meets the ground, if it does."""
        a, b = np.array(numbers(start, 3)), np.array(numbers(end, 3))
        hit, point = self.project_point(a.tolist(), (b - a).tolist(), float(np.linalg.norm(b - a)))
        return [point] if hit else []

    def get_all_level_BBs(self, label: int) -> list:
        """Boxes of what the map holds by itself: nothing that the client could not see as an actor."""
        return []

    def get_actor_component_world_transform(self, actor_id: int, name: str) -> list:
        """The actor's own pose: it has no components."""
        pose = self._episode.pose(actor_id)
        return [pose[:3].tolist(), pose[3:].tolist()]

    def get_actor_component_relative_transform(self, actor_id: int, name: str) -> list:
        """No offset: an actor has no components."""
        return [[0.0] * 3, [0.0] * 3]

    def get_vehicle_light_state(self, actor_id: int) -> list:
        """Its lamps."""
        return [self._episode.lamps.get(self._vehicle(actor_id), 0)]

    def set_vehicle_light_state(self, actor_id: int, flags: list) -> None:
        """Switch lamps; cameras show them at night."""
        self._episode.lamps[self._vehicle(actor_id)] = int(flags[0]) & LAMPS

    def get_vehicle_light_states(self) -> list:
        """Lamps of all vehicles."""
        return [[k, self._episode.lamps.get(k, 0)] for k in self._episode.vehicles.row]

    def request_file(self, name: str) -> bytes:
        """No files are required of a client, so none are given."""
        raise ServerError(f"this server has no file {name!r}")

    def _vehicle(self, actor_id: int) -> int:
        if self._episode.actor(actor_id).kind != Kind.VEHICLE:
            raise ServerError(f"actor {actor_id} is not a vehicle")
        return actor_id


def extra_methods(server: Any) -> dict[str, Any]:
    """Method name to handler."""
    extras = Extras(server)
    found: dict[str, Any] = {name: (lambda *_: None) for name in SILENT}
    found.update({name: (lambda *_, value=value: value) for name, value in ANSWERS.items()})
    found.update({name: getattr(extras, name) for name in vars(Extras) if not name.startswith("_")})
    return found
