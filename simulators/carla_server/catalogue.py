"""What this server can spawn. Ids, attributes and generations are CARLA's; measures are the manufacturers' published ones."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import BOOL, COLOUR, FLOAT, INT, STRING, Attribute, Blueprint, fixed, role
from drive.simulators.carla_server.layouts import Kind
from drive.simulators.carla_server.sensor_catalogue import sensors
from drive.simulators.carla_server.vehicle_model import CarParams

# id: length, width, height, wheel base m, mass kg, generation, base_type, special_type
CARS = {
    "vehicle.audi.a2": (3.83, 1.67, 1.55, 2.41, 1000.0, 1, "car", ""),
    "vehicle.lincoln.mkz_2020": (4.925, 1.864, 1.476, 2.850, 1700.0, 2, "car", ""),
    "vehicle.tesla.model3": (4.694, 1.849, 1.443, 2.875, 1760.0, 2, "car", "electric"),
}
CYCLES = {
    "vehicle.bh.crossbike": (1.78, 0.62, 1.70, 1.05, 95.0, 1, "bicycle", ""),
    "vehicle.kawasaki.ninja": (2.10, 0.74, 1.60, 1.41, 280.0, 1, "motorcycle", ""),
}


def _vehicle(type_id: str, row: tuple, wheels: int) -> Blueprint:
    length, width, height, base, mass, generation, base_type, special = row
    car = CarParams(mass=mass, front=base / 2.0, rear=base / 2.0, inertia=mass * (length**2 + width**2) / 12.0)
    attributes = (
        Attribute("color", COLOUR, "40,70,120", ("40,70,120", "180,30,30", "230,230,230", "20,20,20")),
        role("autopilot", "scenario", "ego_vehicle"),
        Attribute("sticky_control", BOOL, "true"),
        Attribute("terramechanics", BOOL, "false"),
        fixed("number_of_wheels", INT, str(wheels)),
        fixed("generation", INT, str(generation)),
        fixed("base_type", STRING, base_type),
        fixed("special_type", STRING, special),
        fixed("has_dynamic_doors", BOOL, "false"),
        fixed("has_lights", BOOL, "true" if wheels == 4 else "false"),
        fixed("object_type", STRING, ""),
    )
    tag = {"car": 14, "truck": 15, "bus": 16, "van": 14, "motorcycle": 18, "bicycle": 19}[base_type]
    extent = (length / 2.0, width / 2.0, height / 2.0)
    return Blueprint(type_id, Kind.VEHICLE, attributes, extent, (0.0, 0.0, height / 2.0), (tag,), car)


def _walker(number: int) -> Blueprint:
    attributes = (
        role("pedestrian"),
        Attribute("is_invincible", BOOL, "true"),
        Attribute("speed", FLOAT, "1.4", ("0.0", "1.4", "2.8")),
        fixed("gender", STRING, "female" if number % 2 else "male"),
        fixed("age", STRING, "child" if number in (9, 10, 11, 12, 13, 14) else "adult"),
        fixed("generation", INT, "1"),
        fixed("can_use_wheelchair", BOOL, "false"),
    )
    return Blueprint(f"walker.pedestrian.{number:04d}", Kind.WALKER, attributes, (0.19, 0.19, 0.93), (0.0, 0.0, 0.0), (12,))


def blueprints() -> tuple[Blueprint, ...]:
    """All of them; the number of one is its place."""
    found = [_vehicle(type_id, row, 4) for type_id, row in CARS.items()]
    found += [_vehicle(type_id, row, 2) for type_id, row in CYCLES.items()]
    found += [_walker(number) for number in range(1, 52)]
    found += [
        *sensors(),
        Blueprint("spectator", Kind.OTHER),
        Blueprint("controller.ai.walker", Kind.OTHER, (role("walker"),)),
    ]
    return tuple(found)
