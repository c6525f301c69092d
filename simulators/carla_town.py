"""What a client knows of the town it drives in: lanes, heights, lights and stop signs. Right-handed from here on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.roadmap import RoadMap
from drive.simulators.opendrive import road_map_from_opendrive
from drive.simulators.towns import TOWNS, town_names

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """One traffic light."""

    actor: Any
    position: Array  # (2,)
    trigger: Array  # (2,) middle of the trigger volume
    heading: float  # rad, of the actor
    half_extent: float  # m of the trigger volume along it
    lanes: tuple[str, ...]  # that end at its stop line
    stops: Array  # (K, 3) x, y, heading at the end of those lanes


@dataclass(frozen=True)
class Sign:
    """One stop sign."""

    id: int
    position: Array  # (2,)
    trigger: Array  # (2,)
    half_size: Array  # (2,) m along the world's axes


@lru_cache(maxsize=4)
def road_map_of(name: str, opendrive: str) -> RoadMap:
    """The lanes of an OpenDRIVE text: those of a shipped town where it is one, so that the client needs to sample nothing."""
    if name in town_names() and (TOWNS / f"{name}.xodr").read_text(encoding="utf-8") == opendrive:
        return RoadMap.load(TOWNS / f"{name}.npz")
    return road_map_from_opendrive(opendrive, name)


class ClientTown:
    """The town of a world, as the client reads it."""

    def __init__(self, world: Any) -> None:
        self.carla_map = world.get_map()
        self.name = self.carla_map.name.rsplit("/", 1)[-1]
        self.road_map = road_map_of(self.name, self.carla_map.to_opendrive())
        actors = world.get_actors()
        self.lights = tuple(_light(actor) for actor in sorted(actors.filter("traffic.traffic_light*"), key=lambda a: a.id))
        self.signs = tuple(_sign(actor) for actor in sorted(actors.filter("traffic.stop*"), key=lambda a: a.id))

    def height(self, x: float, y: float, carla: Any) -> float:
        """z m of the road nearest to a place of drive's frame."""
        waypoint = self.carla_map.get_waypoint(carla.Location(x, -y, 0.0))
        return float(waypoint.transform.location.z) if waypoint else 0.0


def _flat(location: Any) -> Array:
    return np.array([location.x, -location.y])


def _light(actor: Any) -> Light:
    transform, box = actor.get_transform(), actor.trigger_volume
    middle = transform.transform(box.location)
    waypoints = actor.get_stop_waypoints()
    stops = [(w.transform.location.x, -w.transform.location.y, -math.radians(w.transform.rotation.yaw)) for w in waypoints]
    lanes = tuple(f"{w.road_id}_{w.section_id}_{w.lane_id}" for w in waypoints)
    heading = -math.radians(transform.rotation.yaw + box.rotation.yaw)
    return Light(actor, _flat(transform.location), _flat(middle), heading, max(box.extent.x, box.extent.y), lanes, np.array(stops).reshape(-1, 3))


def _sign(actor: Any) -> Sign:
    transform, box = actor.get_transform(), actor.trigger_volume
    middle = transform.transform(box.location)
    return Sign(actor.id, _flat(transform.location), _flat(middle), np.array([box.extent.x, box.extent.y]))
