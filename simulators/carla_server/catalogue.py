"""What this server can spawn: vehicles, walkers and things from their own tables, and the sensors. Ids and attributes are CARLA's."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import Blueprint, role
from drive.simulators.carla_server.catalogue_props import props
from drive.simulators.carla_server.catalogue_vehicles import vehicles
from drive.simulators.carla_server.catalogue_walkers import walkers
from drive.simulators.carla_server.layouts import Kind
from drive.simulators.carla_server.sensor_catalogue import sensors


def blueprints() -> tuple[Blueprint, ...]:
    """All of them; the number of one is its place."""
    found = [*vehicles(), *walkers(), *props()]
    found += [
        *sensors(),
        Blueprint("spectator", Kind.OTHER),
        Blueprint("controller.ai.walker", Kind.OTHER, (role("walker"),)),
    ]
    return tuple(found)
