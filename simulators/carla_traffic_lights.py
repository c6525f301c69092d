"""Traffic lights of a CARLA world as the traffic sees them: which lanes each one rules, and which of them are closed now."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.roadmap import RoadMap
from drive.simulators.carla_session import Session
from drive.simulators.traffic_graph import Graph

Ints = NDArray[np.int64]
LONGEST_WALK = 3  # lanes from a light to the connectors that it rules


def lane_of(waypoint: Any) -> str:
    """The RoadMap's id of the lane of a carla.Waypoint."""
    return f"{waypoint.road_id}_{waypoint.section_id}_{waypoint.lane_id}"


class TrafficLights:
    """The lights of the present world, told by the client from the map and the last snapshot."""

    def __init__(self, session: Session, road_map: RoadMap, lane_index: dict[str, int]) -> None:
        self._states = session.carla.TrafficLightState
        actors = sorted(session.world.get_actors().filter("traffic.traffic_light*"), key=lambda a: a.id)
        found = [(light, ruled_lanes(light, road_map)) for light in actors]
        self.lights = [light for light, _ in found]
        self.lanes = [np.array([lane_index[k] for k in lanes], np.int64) for _, lanes in found]
        self._held: dict[int, Any] = {}

    @property
    def signalled(self) -> Ints:
        """(K,) lanes that some light rules."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self.lanes]))

    def update(self, graph: Graph) -> None:
        """Close the lanes whose light is red or yellow; the others are open."""
        graph.closed[:] = False
        shut = (self._states.Red, self._states.Yellow)
        for light, lanes in zip(self.lights, self.lanes):
            if light.get_state() in shut:
                graph.closed[lanes] = True

    def hold(self, green: Ints) -> bool:
        """Freeze the junction that rules the lanes `green` (K,): these are green, its others red. False where no light rules them."""
        mine = [k for k, lanes in enumerate(self.lanes) if np.isin(lanes, green).any()]
        if not mine:
            return False
        group = {a.id for a in self.lights[mine[0]].get_group_traffic_lights()} | {self.lights[k].id for k in mine}
        for k, light in enumerate(self.lights):
            if light.id in group:
                light.set_state(self._states.Green if k in mine else self._states.Red)
                light.freeze(True)
                self._held[light.id] = light
        return True

    def release(self) -> None:
        """Let the frozen junctions go on."""
        for light in self._held.values():
            light.freeze(False)
        self._held.clear()


def ruled_lanes(light: Any, road_map: RoadMap) -> list[str]:
    """Ids of the connectors that a carla.TrafficLight opens and closes.

    They carry its landmark, or follow the lane that carries it; where the landmark has no lanes of the map, they follow the lanes
    on which its trigger box makes cars stop.
    """
    for waypoints in (light.get_affected_lane_waypoints, light.get_stop_waypoints):
        found = {connector for waypoint in waypoints() for connector in _connectors(road_map, lane_of(waypoint))}
        if found:
            return sorted(found)
    return []


def _connectors(road_map: RoadMap, lane_id: str) -> set[str]:
    """The lane itself in a junction, else the first connectors after it; empty off the map."""
    ahead = {lane_id} & set(road_map.lanes)
    found: set[str] = set()
    for _ in range(LONGEST_WALK):
        found |= {k for k in ahead if road_map.lanes[k].is_connector}
        ahead = {n for k in ahead - found for n in road_map.lanes[k].successors if n in road_map.lanes}
    return found
