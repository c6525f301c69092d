"""What this server can spawn: vehicles, walkers and things from their own tables, and the sensors. Ids and attributes are CARLA's."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import FLOAT, INT, Attribute, Blueprint, role
from drive.simulators.carla_server.catalogue_props import props
from drive.simulators.carla_server.catalogue_vehicles import vehicles
from drive.simulators.carla_server.catalogue_walkers import walkers
from drive.simulators.carla_server.layouts import Kind

CAMERA = (
    Attribute("image_size_x", INT, "800"),
    Attribute("image_size_y", INT, "600"),
    Attribute("fov", FLOAT, "90.0"),
    Attribute("sensor_tick", FLOAT, "0.0"),
)
TICK = Attribute("sensor_tick", FLOAT, "0.0")


def _sensor(type_id: str, *attributes: Attribute) -> Blueprint:
    return Blueprint(type_id, Kind.SENSOR, (role("front", "back", "left", "right"), *attributes))


def blueprints() -> tuple[Blueprint, ...]:
    """All of them; the number of one is its place."""
    found = [*vehicles(), *walkers(), *props()]
    found += [
        _sensor("sensor.camera.rgb", *CAMERA),
        _sensor("sensor.camera.depth", *CAMERA),
        _sensor("sensor.camera.semantic_segmentation", *CAMERA),
        _sensor("sensor.camera.instance_segmentation", *CAMERA),
        _sensor("sensor.other.collision"),
        _sensor("sensor.other.lane_invasion"),
        _sensor("sensor.other.gnss", TICK),
        _sensor("sensor.other.imu", TICK),
        Blueprint("spectator", Kind.OTHER),
        Blueprint("controller.ai.walker", Kind.OTHER, (role("walker"),)),
    ]
    return tuple(found)
