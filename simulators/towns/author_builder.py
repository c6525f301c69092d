"""Town builder: roads, junctions and roundabouts as OpenDRIVE, through scenariogeneration, which nothing else imports.

Every road runs from one junction to another, so that traffic never meets a dead end. Distances in metres, angles in radians,
speeds in km/h; right-hand traffic.
"""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
from scenariogeneration import xodr

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.simulators.towns.author_geometry import Port, connector_geometry, filleted_line, offset_right
from drive.simulators.towns.author_signals import LIGHT, STOP, YIELD, SignBook

HEADER_DATE = "2026-01-01T00:00:00"  # fixed: a rebuild gives the same bytes
MEDIAN_EDGE = 1.0  # m, the widest strip left of a one-way road
FAST = 60.0  # km/h from which side roads have to stop
SPEED_SIGN_AT, SPEED_SIGN_FROM = 25.0, 120.0  # m behind a junction; m of road from which there is one


class TownBuilder:
    """Collects roads and junctions; `xml` writes them."""

    def __init__(self, name: str) -> None:
        self._odr = xodr.OpenDrive(name, geo_reference="+proj=tmerc +lat_0=0 +lon_0=0")
        self._roads: dict[int, xodr.Road] = {}
        self._junctions: dict[int, xodr.Junction] = {}
        self.signs = SignBook()

    def road(
        self,
        points: list[tuple[float, ...]],
        lanes: tuple[int, int],
        speed: float,
        width: float = 3.5,
        spiral: float = 0.0,
        edge: tuple[str, float] = ("sidewalk", 2.0),
    ) -> tuple[Port, Port]:
        """A road along a polyline of (x, y) or (x, y, fillet radius) with `lanes` (along, against) it; its start and end ports.

        spiral is the length of the clothoids before and after each bend; edge the type and width of the outermost strips.
        """
        start, pieces = filleted_line(points, spiral)
        plan = xodr.PlanView()
        plan.set_start_point(*start)
        for piece in pieces:
            plan.add_geometry(piece)
        plan.adjust_geometries()
        section = xodr.LaneSection(0, _center_lane(two_way=lanes[1] > 0))
        for count, add in ((lanes[0], section.add_right_lane), (lanes[1], section.add_left_lane)):
            for k in range(count):
                add(_driving_lane(width, outermost=k == count - 1))
            add(xodr.Lane(getattr(xodr.LaneType, edge[0]), a=edge[1] if count else min(edge[1], MEDIAN_EDGE)))
        road = self._add_road(plan, section, speed)
        x, y, heading = (float(v or 0.0) for v in plan.get_end_point())
        x0, y0, heading0 = start
        ports = (
            Port(road.id, False, (x0, y0, float(wrap_angle(heading0 + math.pi))), lanes[1], lanes[0], width, speed),
            Port(road.id, True, (x, y, float(wrap_angle(heading))), lanes[0], lanes[1], width, speed),
        )
        for port in ports:
            if port.lanes_out and plan.get_total_length() >= SPEED_SIGN_FROM:
                self.signs.speed(port, SPEED_SIGN_AT)
        return ports

    def junction(self) -> int:
        """A new junction without connections."""
        number = 1000 + len(self._junctions)
        self._junctions[number] = xodr.Junction(f"junction_{number}", number)
        return number

    def connect(self, junction: int, source: Port, lane_in: int, target: Port, lane_out: int, speed: float | None = None) -> None:
        """A one-lane connecting road from an entering lane of `source` to a leaving lane of `target`."""
        if not (1 <= lane_in <= source.lanes_in and 1 <= lane_out <= target.lanes_out):
            raise DataError(
                f"junction {junction}: no lane {lane_in} into it from road {source.road} or {lane_out} to {target.road}"
            )
        x, y, heading = target.pose
        start = offset_right(source.pose, (lane_in - 1) * source.width)
        end = offset_right((x, y, heading + math.pi), (lane_out - 1) * target.width)
        plan = xodr.PlanView()
        plan.set_start_point(*start)
        for piece in connector_geometry(start, end):
            plan.add_geometry(piece)
        plan.adjust_geometries()
        lane = xodr.Lane(a=source.width, b=(target.width - source.width) / plan.get_total_length())
        lane.add_roadmark(xodr.RoadMark(xodr.RoadMarkType.none, laneChange=xodr.LaneChange.none))
        lane.add_link("predecessor", source.lane_in(lane_in))
        lane.add_link("successor", target.lane_out(lane_out))
        section = xodr.LaneSection(0, xodr.Lane())
        section.add_right_lane(lane)
        road = self._add_road(plan, section, speed or min(source.speed, target.speed), junction)
        road.add_predecessor(xodr.ElementType.road, source.road, source.contact)
        road.add_successor(xodr.ElementType.road, target.road, target.contact)
        connection = xodr.Connection(source.road, road.id, xodr.ContactPoint.start)
        connection.add_lanelink(source.lane_in(lane_in), -1)
        self._junctions[junction].add_connection(connection)
        for port in (source, target):
            self._attach(port, junction)

    def meet(self, ports: list[Port]) -> int:
        """A crossing of all ports: straight on lane by lane, left from the innermost lane, right from the outermost."""
        junction = self.junction()
        for source in ports:
            for target in ports:
                if source is target or not source.lanes_in or not target.lanes_out:
                    continue
                turn = float(wrap_angle(target.pose[2] + math.pi - source.pose[2]))
                if _straight_on(source, target):
                    for k in range(1, min(source.lanes_in, target.lanes_out) + 1):
                        self.connect(junction, source, k, target, k)
                elif turn > 0.0:
                    self.connect(junction, source, 1, target, 1)
                else:
                    self.connect(junction, source, source.lanes_in, target, target.lanes_out)
        self._regulate(junction, ports)
        return junction

    def _regulate(self, junction: int, ports: list[Port]) -> None:
        """Lights where four roads meet or one has two lanes; else those that do not go straight on yield, or stop at a fast road."""
        entering = [port for port in ports if port.lanes_in]
        opposite = {i: [j for j, other in enumerate(entering) if _straight_on(port, other)] for i, port in enumerate(entering)}
        if len(ports) < 3:
            return
        if len(ports) > 3 or max(port.lanes_in for port in entering) > 1:
            lights = [self.signs.entry(port, LIGHT) for port in entering]
            groups: dict[int, list[int]] = {}
            for i, light in enumerate(lights):
                groups.setdefault(min([i, *opposite[i]]), []).append(light)
            self.signs.control(junction, list(groups.values()))
            return
        kind = STOP if max(port.speed for port in entering) >= FAST else YIELD
        for i, port in enumerate(entering):
            if not opposite[i]:
                self.signs.entry(port, kind)

    def roundabout(
        self, center: tuple[float, float], radius: float, arms: list[Port], speed: float, half_angle: float = 0.61
    ) -> None:
        """A one-lane ring, counter-clockwise, lane centre at `radius`; one small junction per arm, +- `half_angle` around it.

        The arms head for the centre and have one lane each way; one of them may be an exit only.
        """
        width = arms[0].width
        order = sorted(arms, key=lambda p: (p.pose[2] + math.pi) % (2.0 * math.pi))
        angles = [(p.pose[2] + math.pi) % (2.0 * math.pi) for p in order]
        inner = radius - width / 2.0
        ring = []
        for angle, after in zip(angles, angles[1:] + [angles[0] + 2.0 * math.pi]):
            first, span = angle + half_angle, after - angle - 2.0 * half_angle
            if span * inner < 2.0:
                raise DataError(f"roundabout at {center}: two arms are too close for a ring road between them")
            ring.append(self._ring_road(center, inner, first, span, width, speed))
        for i, arm in enumerate(order):
            junction = self.junction()
            incoming, outgoing = ring[i - 1][1], ring[i][0]
            self.connect(junction, incoming, 1, outgoing, 1)
            self.connect(junction, incoming, 1, arm, 1, speed)
            if arm.lanes_in:
                self.connect(junction, arm, 1, outgoing, 1, speed)
                self.signs.entry(arm, YIELD)

    def xml(self) -> bytes:
        """The OpenDRIVE file; numbers rounded to 1e-9, so that rounding noise of a machine does not show."""
        for road in self._roads.values():
            self._odr.add_road(road)
        for junction in self._junctions.values():
            self._odr.add_junction(junction)
        root = self._odr.get_element()
        for element in root.iter():
            for key, value in element.attrib.items():
                if "." in value and key not in ("name", "version"):
                    element.set(key, _rounded(value))
        header = root.find("header")
        assert header is not None
        header.set("date", HEADER_DATE)
        self.signs.write(root)
        ElementTree.indent(root, " ")
        return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"

    def _ring_road(self, center, radius: float, first: float, span: float, width: float, speed: float) -> tuple[Port, Port]:
        x, y = center[0] + radius * math.cos(first), center[1] + radius * math.sin(first)
        plan = xodr.PlanView()
        plan.set_start_point(x, y, first + math.pi / 2.0)
        plan.add_geometry(xodr.Arc(1.0 / radius, length=span * radius))
        plan.adjust_geometries()
        section = xodr.LaneSection(0, _center_lane(two_way=False))
        section.add_right_lane(_driving_lane(width, outermost=True))
        road = self._add_road(plan, section, speed)
        x1, y1 = center[0] + radius * math.cos(first + span), center[1] + radius * math.sin(first + span)
        return (
            Port(road.id, False, (x, y, first - math.pi / 2.0), 0, 1, width, speed),
            Port(road.id, True, (x1, y1, first + span + math.pi / 2.0), 1, 0, width, speed),
        )

    def _add_road(self, plan: xodr.PlanView, section: xodr.LaneSection, speed: float, junction: int = -1) -> xodr.Road:
        lanes = xodr.Lanes()
        lanes.add_lanesection(section)
        road = xodr.Road(len(self._roads) + 1, plan, lanes, road_type=junction)
        road.add_type(xodr.RoadType.town if speed <= 50 else xodr.RoadType.rural, speed=float(speed), speed_unit="km/h")
        self._roads[road.id] = road
        return road

    def _attach(self, port: Port, junction: int) -> None:
        road = self._roads[port.road]
        known = road.successor if port.at_end else road.predecessor
        if known is None:
            (road.add_successor if port.at_end else road.add_predecessor)(xodr.ElementType.junction, junction)
        elif known.element_id != junction:
            raise DataError(f"road {port.road} would end in junctions {known.element_id} and {junction}")


def _straight_on(source: Port, target: Port) -> bool:
    """Whether one goes straight from `source` to `target` through their junction."""
    return source is not target and abs(float(wrap_angle(target.pose[2] + math.pi - source.pose[2]))) < math.pi / 4.0


def _center_lane(two_way: bool) -> xodr.Lane:
    kind = xodr.RoadMarkType.solid_solid if two_way else xodr.RoadMarkType.solid
    lane = xodr.Lane()
    lane.add_roadmark(xodr.RoadMark(kind, 0.15, color=xodr.RoadMarkColor.yellow, laneChange=xodr.LaneChange.none))
    return lane


def _driving_lane(width: float, outermost: bool) -> xodr.Lane:
    lane = xodr.Lane(a=width)
    kind = xodr.RoadMarkType.solid if outermost else xodr.RoadMarkType.broken
    change = xodr.LaneChange.none if outermost else xodr.LaneChange.both
    lane.add_roadmark(xodr.RoadMark(kind, 0.15, laneChange=change))
    return lane


def _rounded(text: str) -> str:
    try:
        return repr(float(np.round(float(text), 9)) + 0.0)
    except ValueError:
        return text
