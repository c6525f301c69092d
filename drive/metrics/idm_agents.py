"""Reactive background traffic: vehicles that follow their lane by the Intelligent Driver Model, as NAVSIM v2.2's two-stage script runs them.

Source: NAVSIM v2.2, navsim_IDM_traffic_agents.py, navsim_idm_agents.py and its builder and manager; nuPlan v1.2, idm_agent.py and
idm_policy.py. Quirks that are part of the published numbers:
- a vehicle never leaves the lane that it starts on: lights are not passed on, so no route is planned, and the end of the lane, one vertex
  short, is a standing obstacle, whatever the light shows;
- vehicles heed each other and the ego alone: people, objects and parked cars are in nobody's way;
- the ego's box has its centre where the rear axle is, and the ego's state is that of the step before;
- a vehicle beyond 3 m of its lane's centreline stands still for good, a parked one off the lanes too, in the steps where it touches nobody;
  one whose place on the lane is taken, or that is more than 100 m from the ego, is gone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from drive.core.geometry import arc_length, box_corners
from drive.core.roadmap import Lane, Layer, RoadMap
from drive.core.types import AgentType, Scenario
from drive.core.vehicle import PACIFICA
from drive.metrics.pdms_contacts import DT, PackedAgents, pack_agents
from drive.metrics.pdms_scene import HORIZON, PdmScene

Array = NDArray[np.float64]
TARGET_SPEED = 10.0  # m/s, on a lane without a limit
EXPONENT = 4
RADIUS = 100.0  # m around the ego, beyond which a vehicle is dropped
SNAP = 3.0  # m from the centreline, up to which a vehicle follows it
PARKED_SPEED = 0.1  # m/s
HEADING_REACH = 0.5  # m along a centreline that give its heading
SEGMENTS = 16  # of a quarter circle in buffers, shapely's own choice


class Traffic(str, Enum):
    """What a plan's surroundings do."""

    LOG_REPLAY = "log_replay"  # NAVSIM's one-stage script
    IDM = "idm"  # its two-stage script, in both stages


class IdmModel(NamedTuple):
    """The Intelligent Driver Model's parameters; NAVSIM's are the defaults."""

    min_gap: float = 1.0  # m
    headway: float = 1.5  # s
    acceleration: float = 1.0  # m/s^2, at most
    deceleration: float = 2.0  # m/s^2, at most


MODEL = IdmModel()


def idm_acceleration(speed: float, gap: float, lead_speed: float, target: float, model: IdmModel = MODEL) -> float:
    """m/s^2 at `speed`, with a lead `gap` m ahead at `lead_speed`, within the model's bounds (nuPlan, idm_policy.py)."""
    wanted = model.min_gap + speed * model.headway + speed * (speed - lead_speed) / (2.0 * math.sqrt(model.acceleration * model.deceleration))
    free = model.acceleration * (1.0 - (speed / target) ** EXPONENT - (wanted / max(gap, model.min_gap)) ** 2)
    return min(max(free, -model.deceleration), model.acceleration)


def box_area(pose: Array, length: float, width: float) -> BaseGeometry:
    """The area of a box whose centre is at `pose` (3+,)."""
    c, n = math.cos(pose[2]), math.sin(pose[2])
    corners = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]) * (length / 2.0, width / 2.0) @ np.array([[c, n], [-n, c]]) + pose[:2]
    return shapely.Polygon(corners)


@dataclass(frozen=True, eq=False)
class Rail:
    """A vehicle at the present, put on the centreline of the lane that it is on."""

    row: int  # of the scene's agents
    points: Array  # (N >= 2, 3) of the centreline, headings unwrapped
    s: Array  # (N,) arc length
    progress: float  # m
    speed: float  # m/s
    target: float  # m/s
    length: float
    width: float

    @cached_property
    def bounded(self) -> float:
        """Progress within the path."""
        return min(max(self.progress, 0.0), float(self.s[-1]))

    @cached_property
    def pose(self) -> Array:
        """(3,) of the box."""
        return self._at(self.bounded, 3)

    @cached_property
    def box(self) -> BaseGeometry:
        """The vehicle's area."""
        return box_area(self.pose, self.length, self.width)

    def ahead(self) -> BaseGeometry:
        """The area that the vehicle will sweep up to the end of its path."""
        return self._swept(self.bounded, float(self.s[-1]))

    def footprint(self) -> BaseGeometry:
        """The vehicle's area and what it will sweep within its time headway."""
        last = float(self.s[-1])
        start, end = self.progress - self.length / 2.0, self.progress + self.length / 2.0 + self.speed * MODEL.headway
        return shapely.union(self._swept(min(max(start, 0.0), last), min(max(end, 0.0), last)), self.box)

    def _at(self, s: float, columns: int) -> Array:
        """(columns,) of the path at arc length `s` within it."""
        i = min(max(int(np.searchsorted(self.s, s, side="right")) - 1, 0), len(self.s) - 2)
        share = (s - self.s[i]) / (self.s[i + 1] - self.s[i])
        return self.points[i, :columns] + share * (self.points[i + 1, :columns] - self.points[i, :columns])

    def _swept(self, start: float, end: float) -> BaseGeometry:
        first, last = np.searchsorted(self.s, start, side="right"), np.searchsorted(self.s, end, side="left")
        line = np.concatenate([self._at(start, 2)[None], self.points[first:last, :2], self._at(end, 2)[None]])
        if end - start <= 0.0:  # nuPlan takes the path's last segment, or its first
            line = self.points[-2:, :2] if start > 0.0 else self.points[:2, :2]
        return shapely.buffer(shapely.LineString(line), self.width / 2.0, quad_segs=SEGMENTS, cap_style="flat")

    def moved(self, gap: float, lead_speed: float) -> Rail:
        """One step of 0.1 s later, by forward Euler; the speed is never negative."""
        change = DT * idm_acceleration(self.speed, gap, lead_speed, self.target)
        return replace(self, progress=self.progress + DT * self.speed, speed=max(self.speed + change, 0.0))


@dataclass(frozen=True, eq=False)
class IdmTraffic:
    """The agents of one scene at the present, vehicles ready to react, world frame."""

    pdm: PdmScene
    present: NDArray[np.bool_]  # (A,) seen at the present
    rails: tuple[Rail, ...]
    parked: tuple[int, ...]  # rows of vehicles that stand still

    @staticmethod
    def of(scenario: Scenario, pdm: PdmScene) -> IdmTraffic:
        """The traffic of a scenario and of the PdmScene that was made from it. Vehicles that appear later in the log never do here."""
        present = scenario.agents.valid[:, scenario.present]
        rows = np.flatnonzero(present & (pdm.agent_types == AgentType.VEHICLE))
        taken: list[BaseGeometry] = [shapely.Polygon(box_corners(pdm.initial[:3], PACIFICA.length, PACIFICA.width, PACIFICA.rear_to_center))]
        areas = _LaneAreas(scenario.road_map, pdm.agent_pose[rows, 0, :2])
        rails, parked = [], []
        for row, pose in zip(rows.tolist(), pdm.agent_pose[rows, 0]):
            lane, on_road = areas.under(pose)
            speed = float(np.hypot(*pdm.agent_velocity[row, 0]))
            if lane is None:
                if not on_road and speed < PARKED_SPEED:
                    parked.append(row)
                continue
            snapped = nearest_pose(lane.centerline, pose[:2])
            if np.hypot(*(snapped[:2] - pose[:2])) > SNAP:
                parked.append(row)
                continue
            length, width = map(float, pdm.agent_size[row, :2])
            rail = _rail(row, lane, pose[:2], speed, length, width)
            if len(rail.points) < 2:  # of a lane of one segment, or whose vertices repeat: there is no way along it
                continue
            box = box_area(snapped, length, width)
            if not shapely.intersects(taken, box).any():
                taken.append(box)
                rails.append(rail)
        return IdmTraffic(pdm, present, tuple(rails), tuple(parked))

    def react(self, states: Array) -> PackedAgents:
        """The agents over 41 frames around an ego that drives `states` (41, 11) at 0.1 s, see drive.core.vehicle.

        Vehicles at the present are where the log has them; people and objects replay the log throughout.
        """
        pdm, frames = self.pdm, HORIZON + 1
        poses, valid = pdm.agent_pose[:, :frames].copy(), pdm.agent_valid[:, :frames].copy()
        valid[:, 0] &= self.present
        valid[pdm.agent_types == AgentType.VEHICLE, 1:] = False
        rails = list(self.rails)
        prints = [rail.box for rail in rails]
        for step in range(1, frames):
            rails, prints = _advanced(rails, prints, states[step - 1])
            for rail in rails:
                poses[rail.row, step], valid[rail.row, step] = rail.pose, True
            standing = self._standing([rail.box for rail in rails]) if self.parked else []
            poses[standing, step], valid[standing, step] = poses[standing, 0], True
        return pack_agents(poses, pdm.agent_velocity[:, :frames], valid, pdm.agent_size, pdm.agent_types)

    def _standing(self, boxes: list[BaseGeometry]) -> list[int]:
        """Rows of the parked vehicles that touch none of `boxes`, and none of those before them."""
        rows = []
        for row in self.parked:
            box = box_area(self.pdm.agent_pose[row, 0], *map(float, self.pdm.agent_size[row, :2]))
            if not shapely.intersects(boxes, box).any():
                boxes.append(box)
                rows.append(row)
        return rows


def _advanced(rails: list[Rail], prints: list[BaseGeometry], ego: Array) -> tuple[list[Rail], list[BaseGeometry]]:
    """Rails and footprints one step later, one vehicle after the other; an ego state (11,) of the step before."""
    near = [i for i, rail in enumerate(rails) if np.hypot(*(rail.pose[:2] - ego[:2])) <= RADIUS]
    rails = [rails[i] for i in near]
    around = np.array([*(prints[i] for i in near), box_area(ego, PACIFICA.length, PACIFICA.width)])
    for i, rail in enumerate(rails):
        lead, gap = _lead(rail.ahead(), around, i)
        if lead is None:
            rails[i] = rail.moved(float(rail.s[-1]) - rail.progress - rail.length / 2.0, 0.0)
        else:
            speed, heading = (float(np.hypot(ego[3], ego[4])), ego[2]) if lead == len(rails) else (rails[lead].speed, rails[lead].pose[2])
            rails[i] = rail.moved(gap, speed * float(np.cos(heading - rail.pose[2])))
        around[i] = rails[i].footprint()
    return rails, list(around[:-1])


def _lead(ahead: BaseGeometry, around: NDArray, own: int) -> tuple[int | None, float]:
    """Index of what stands in the area `ahead` nearest to the footprint around[own], and its distance in m; None on a free road."""
    there = np.flatnonzero(shapely.intersects(around, ahead))
    there = there[there != own]
    if not len(there):
        return None, np.inf
    gaps = shapely.distance(around[there], around[own])
    nearest = int(np.argmin(gaps))
    if (gaps == gaps[nearest]).sum() > 1:  # several touch: nuPlan takes the one that its tree of them finds first
        found = shapely.STRtree(around).query(ahead, predicate="intersects")
        there = found[found != own]
        nearest, gaps = int(shapely.STRtree(around[there]).nearest(around[own])), shapely.distance(around[there], around[own])
    return int(there[nearest]), float(gaps[nearest])


class _LaneAreas:
    """Which lanes lie under a point."""

    def __init__(self, road_map: RoadMap, places: Array) -> None:
        """`places` (V, 2): where it will be asked."""
        polygons, self.lanes = road_map.polygons, road_map.lanes
        low, high = (places.min(axis=0), places.max(axis=0)) if len(places) else (np.zeros(2), np.zeros(2))
        bounds = polygons.bounds
        near = (bounds[:, :2] <= high).all(axis=1) & (bounds[:, 2:] >= low).all(axis=1)
        self.parts = {}
        for layer in (Layer.LANE, Layer.INTERSECTION, Layer.LANE_CONNECTOR):
            rows = np.flatnonzero(near & (polygons.layers == layer))
            shapes = np.array([shapely.Polygon(polygons.ring(int(row))) for row in rows], object)
            shapely.prepare(shapes)
            self.parts[layer] = shapes, [polygons.tokens[int(row)] for row in rows]

    def under(self, pose: Array) -> tuple[Lane | None, bool]:
        """The lane under `pose` (3,) with the nearest heading, a connector within junctions alone; and whether there is a lane or junction.

        Headings are compared without wrapping, as nuPlan does it.
        """
        layer = Layer.LANE if self._holding(Layer.LANE, pose) else Layer.LANE_CONNECTOR
        if layer is Layer.LANE_CONNECTOR and not self._holding(Layer.INTERSECTION, pose):
            return None, False
        lanes = [self.lanes[token] for token in self._holding(layer, pose) if token in self.lanes]
        gaps = [abs(nearest_pose(lane.centerline, pose[:2])[2] - pose[2]) for lane in lanes]
        return (lanes[int(np.argmin(gaps))] if lanes else None), True

    def _holding(self, layer: Layer, pose: Array) -> list[str]:
        shapes, tokens = self.parts[layer]
        return [tokens[i] for i in np.flatnonzero(shapely.contains_xy(shapes, pose[0], pose[1]))]


def nearest_pose(centerline: Array, xy: Array) -> Array:
    """(3,) the point of a centreline (N, 2+) nearest to `xy` (2,), with the heading of the 0.5 m after it, or at the end before it."""
    line = shapely.LineString(centerline[:, :2])
    at = shapely.line_locate_point(line, shapely.Point(xy[0], xy[1]))
    here, after = (shapely.get_coordinates(shapely.line_interpolate_point(line, s))[0] for s in (at, at + HEADING_REACH))
    if (here == after).all():
        step = here - shapely.get_coordinates(shapely.line_interpolate_point(line, at - HEADING_REACH))[0]
    else:
        step = after - here
    return np.array([*here, np.arctan2(step[1], step[0])])


def _rail(row: int, lane: Lane, xy: Array, speed: float, length: float, width: float) -> Rail:
    """A vehicle on its lane; the path lacks the lane's last vertex, as nuPlan's does."""
    progress = shapely.line_locate_point(shapely.LineString(lane.centerline[:, :2]), shapely.Point(xy[0], xy[1]))
    points = lane.centerline[:-1][np.diff(arc_length(lane.centerline)) > 1e-8]
    points[:, 2] = np.unwrap(points[:, 2])
    target = lane.speed_limit if lane.speed_limit > 0.0 else TARGET_SPEED
    return Rail(row, points, arc_length(points), float(progress), speed, target, length, width)
