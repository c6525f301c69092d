"""Traffic lights and signs of an OpenDRIVE map: where they stand, which lanes they rule, and which lights take turns.

carla.Map tells which signals there are and where, as the client sees them too. The boxes in which a sign rules follow CARLA's
server (UTrafficLightComponent::InitializeSign): 3 m long, half as wide as the lane, their middle 3 m before the signal, and on the
lane before the junction where the signal is attached to a connecting road.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import wrap_angle
from drive.core.roadmap import Lane, RoadMap
from drive.simulators.carla_server.lane_grid import LaneGrid

Array = NDArray[np.float64]
LIGHT, STOP, YIELD, SPEED_LIMIT = "traffic.traffic_light", "traffic.stop", "traffic.yield", "traffic.speed_limit."
SPEED = "274"
LIGHT_TYPES = frozenset({*(str(1000000 + k) for k in (1, 2, *range(7, 21))), "F", "W", "A"})  # carla::road::SignalType
BOX_BEFORE, BOX_HALF, BOX_SHARE, BOX_HEIGHT = 3.0, 1.5, 0.25, 1.0  # m; m; of the lane's width; m, half
MOST_LANES = 99  # on a side of a road
LONGEST_WALK = 8  # lanes back from a signal in a junction to the lane before it


@dataclass(frozen=True)
class Sign:
    """One light or sign; CARLA's frame."""

    id: str  # OpenDRIVE's
    type_id: str
    pose: Array  # (6,) x, y, z m, pitch, yaw, roll deg, as CARLA's server puts the actor: a quarter turn from the traffic
    boxes: Array  # (K, 6) x, y, z m, yaw rad, half length and half width m, of the places in which it rules
    stops: Array  # (K, 4) x, y, z m, yaw rad, where its lanes have to stop
    lanes: tuple[tuple[str, float], ...] = ()  # of the RoadMap, before the sign; m along them

    def trigger(self) -> tuple[tuple[float, float, float], tuple[float, float, float], float]:
        """Middle and half extent, m, in the actor's frame, and turn, deg, of the box round all boxes: x across the lanes."""
        if not len(self.boxes):
            return (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0
        across = self.boxes[0, 3] + math.pi / 2.0
        offsets = np.array([(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)])[:, None] * self.boxes[None, :, 4:6]
        c, s = np.cos(self.boxes[:, 3]), np.sin(self.boxes[:, 3])
        x = self.boxes[:, 0] + c * offsets[..., 0] - s * offsets[..., 1]
        y = self.boxes[:, 1] + s * offsets[..., 0] + c * offsets[..., 1]
        u, v = math.cos(across) * x + math.sin(across) * y, -math.sin(across) * x + math.cos(across) * y
        mu, mv = (u.min() + u.max()) / 2.0, (v.min() + v.max()) / 2.0
        dx = math.cos(across) * mu - math.sin(across) * mv - self.pose[0]
        dy = math.sin(across) * mu + math.cos(across) * mv - self.pose[1]
        yaw = math.radians(self.pose[4])
        middle = (
            math.cos(yaw) * dx + math.sin(yaw) * dy,
            -math.sin(yaw) * dx + math.cos(yaw) * dy,
            float(self.boxes[:, 2].mean() - self.pose[2]),
        )
        turn = math.degrees(float(wrap_angle(across - yaw)))
        return middle, (float(np.ptp(u)) / 2.0, float(np.ptp(v)) / 2.0, BOX_HEIGHT), turn


@dataclass(frozen=True)
class Signals:
    """All of a town."""

    lights: tuple[Sign, ...] = ()
    signs: tuple[Sign, ...] = ()  # stop, yield, speed limits
    groups: tuple[tuple[tuple[int, ...], ...], ...] = ()  # of each junction: of each controller, in turn: its lights
    skipped: dict[str, int] = field(default_factory=dict)  # OpenDRIVE's type: signals that are none of the above


def has_signals(opendrive: str) -> bool:
    """Whether there is anything to read; objects named so are signs too, to carla.Map."""
    return any(word in opendrive for word in ("<signal ", "<signal>", "Speed_", "Stencil_STOP"))


def read_signals(world: Any, root: ElementTree.Element, road_map: RoadMap, grid: LaneGrid) -> Signals:
    """Of carla.Map `world`, which was made from the OpenDRIVE `root`."""
    found: dict[str, list[Any]] = {}
    for landmark in sorted(world.get_all_landmarks(), key=lambda mark: (mark.id, mark.road_id, mark.s)):
        found.setdefault(landmark.id, []).append(landmark)
    number = {key: k for k, key in enumerate(road_map.lanes)}
    signs: dict[str, Sign] = {}
    skipped: Counter[str] = Counter()
    for sign_id in sorted(found, key=lambda key: (len(key), key)):
        landmarks = found[sign_id]
        type_id = _type_id(landmarks[0])
        if not type_id:
            skipped[landmarks[0].type] += 1
            continue
        boxes, stops, lanes = _places(world, road_map, grid, number, landmarks)
        signs[sign_id] = Sign(sign_id, type_id, _pose(landmarks[0].transform), boxes, stops, lanes)
    lights = tuple(sign for sign in signs.values() if sign.type_id == LIGHT)
    others = tuple(sign for sign in signs.values() if sign.type_id != LIGHT)
    return Signals(lights, others, _groups(root, lights), dict(skipped))


def signed_limits(road_map: RoadMap, signs: tuple[Sign, ...]) -> dict[str, list[tuple[float, float]]]:
    """Of each lane that a speed sign reaches: from how many metres on which limit, km/h.

    A sign holds until the next one, or until a road states another limit than the sign's own road does; where ways meet, the
    nearest sign counts.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for sign in signs:
        if sign.type_id.startswith(SPEED_LIMIT):
            for key, along in sign.lanes:
                found.setdefault(key, []).append((along, float(sign.type_id[len(SPEED_LIMIT) :])))
    signed, queue = frozenset(found), []
    for key in found:
        found[key].sort()
        along, limit = found[key][-1]
        queue.append((road_map.lanes[key].length - along, key, limit))
    heapq.heapify(queue)
    reached: set[str] = set()
    while queue:
        walked, key, limit = heapq.heappop(queue)
        lane = road_map.lanes[key]
        for after in lane.successors:
            if after in reached or road_map.lanes[after].speed_limit != lane.speed_limit:
                continue
            reached.add(after)
            found[after] = [(0.0, limit), *found.get(after, [])]
            if after not in signed:
                heapq.heappush(queue, (walked + road_map.lanes[after].length, after, limit))
    return found


def _type_id(landmark: Any) -> str:
    if landmark.type in LIGHT_TYPES:
        return LIGHT
    if landmark.type == SPEED and landmark.value > 0.0:
        return f"{SPEED_LIMIT}{round(landmark.value)}"  # km/h, whatever unit is said: "mph" of CARLA's towns means nothing
    return {"205": YIELD, "206": STOP}.get(landmark.type, "")


def _pose(transform: Any) -> Array:
    at, turn = transform.location, transform.rotation
    yaw = math.degrees(float(wrap_angle(math.radians(turn.yaw + 90.0))))
    return np.array([at.x, at.y, at.z, 0.0, round(yaw, 4), 0.0])


def _places(world: Any, road_map: RoadMap, grid: LaneGrid, number: dict[str, int], landmarks: list) -> tuple[Array, Array, tuple]:
    """Boxes (K, 6), stops (K, 4) and lanes of one sign, one for each lane before it."""
    places: dict[str, tuple[list[float], list[float], float]] = {}
    for landmark in landmarks:
        for first, last in landmark.get_lane_validities():
            for lane_id in range(max(min(first, last), -MOST_LANES), min(max(first, last), MOST_LANES) + 1):
                waypoint = world.get_waypoint_xodr(landmark.road_id, lane_id, landmark.s) if lane_id else None
                key = f"{landmark.road_id}_{waypoint.section_id}_{lane_id}" if waypoint else ""
                if waypoint is None or key not in road_map.lanes:
                    continue  # not a lane to drive on
                at = waypoint.transform.location
                key, along = _before_junction(road_map, key, at.x, -at.y)
                if key not in places:
                    lane = road_map.lanes[key]
                    before = _at(grid, number[key], lane, max(along - BOX_BEFORE, 0.0))
                    width = float(np.hypot(*(lane.left[_row(lane, along)] - lane.right[_row(lane, along)])))
                    places[key] = [*before, BOX_HALF, max(BOX_SHARE * width, 0.01)], _at(grid, number[key], lane, along), along
    boxes, stops = [place[0] for place in places.values()], [place[1] for place in places.values()]
    lanes = tuple((key, place[2]) for key, place in places.items())
    return np.array(boxes).reshape(-1, 6), np.array(stops).reshape(-1, 4), lanes


def _before_junction(road_map: RoadMap, key: str, x: float, y: float) -> tuple[str, float]:
    """The lane on which cars wait for a signal that is at x, y of lane `key`, and where, m along it."""
    here, walked = key, 0
    while road_map.lanes[here].is_connector and len(road_map.lanes[here].predecessors) == 1 and walked < LONGEST_WALK:
        here, walked = road_map.lanes[here].predecessors[0], walked + 1
    if walked and not road_map.lanes[here].is_connector:
        return here, road_map.lanes[here].length
    lane = road_map.lanes[key]
    i = int(np.argmin(np.hypot(lane.centerline[:, 0] - x, lane.centerline[:, 1] - y)))
    cx, cy, heading = lane.centerline[i].tolist()
    along = float(lane.s[i]) + (x - cx) * math.cos(heading) + (y - cy) * math.sin(heading)
    return key, round(min(max(along, 0.0), lane.length), 3)


def _row(lane: Lane, along: float) -> int:
    return min(int(np.searchsorted(lane.s, along - 0.5)), len(lane.s) - 1)


def _at(grid: LaneGrid, number: int, lane: Lane, along: float) -> list[float]:
    """x, y, z, yaw of CARLA's frame at `along` m of a lane."""
    x, y = (float(np.interp(along, lane.s, lane.centerline[:, k])) for k in (0, 1))
    return [x, -y, grid.height_on(number, x, -y), -float(lane.centerline[_row(lane, along), 2])]


def _groups(root: ElementTree.Element, lights: tuple[Sign, ...]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Lights of a junction by its controllers, in the order of their sequence; a light that no junction controls is alone."""
    left = {light.id: k for k, light in enumerate(lights)}
    members = {c.get("id", ""): [k.get("signalId", "") for k in c.findall("control")] for c in root.findall("controller")}
    groups = []
    for junction in root.findall("junction"):
        controllers = sorted(junction.findall("controller"), key=lambda c: _sequence(c.get("sequence")))
        group = []
        for controller in controllers:
            ids = dict.fromkeys(members.get(controller.get("id", ""), ()))
            taken = tuple(left.pop(k) for k in ids if k in left)
            group += [taken] if taken else []
        groups += [tuple(group)] if group else []
    return (*groups, *(((k,),) for k in left.values()))


def _sequence(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0
