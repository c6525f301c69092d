"""Lights and signs of the authored towns, written as CARLA's own towns have them.

A sign stands on the right of the road whose lanes it rules, and its validity names these lanes. As in CARLA's files a sign for
traffic along the reference line has orientation "-" and no heading offset, one for traffic against it "+" and a half turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

from drive.simulators.towns.author_geometry import Port

LIGHT, YIELD, STOP, SPEED = "1000001", "205", "206", "274"  # OpenDRIVE's types, the numbers of German traffic signs
NAMES = {LIGHT: "Signal_3Light_Post01", YIELD: "Sign_Yield", STOP: "Sign_Stop", SPEED: "Sign_Speed"}
HEIGHTS = {LIGHT: 0.0, YIELD: 2.2, STOP: 2.2, SPEED: 2.2}  # m above the road
FIRST_SIGN, FIRST_CONTROLLER = 2000, 3000
BESIDE, STOP_LINE = 0.9, 0.3  # m from the outermost lane's border; m before the end of the lanes


@dataclass(frozen=True)
class Sign:
    """One signal element."""

    id: int
    type: str
    road: int
    along: bool  # it rules traffic along the reference line
    from_end: bool  # `distance` counts from the road's end
    distance: float  # m
    aside: float  # m to the right of the traffic, from the reference line
    lanes: tuple[int, int]  # OpenDRIVE ids, lowest first
    value: float

    def element(self, length: float) -> ElementTree.Element:
        """XML, on a road of `length` m."""
        attributes = {
            "name": NAMES[self.type],
            "id": str(self.id),
            "s": repr(round(length - self.distance if self.from_end else self.distance, 6)),
            "t": repr(round(-self.aside if self.along else self.aside, 6)),
            "zOffset": repr(HEIGHTS[self.type]),
            "hOffset": repr(0.0 if self.along else round(math.pi, 9)),
            "roll": "0.0",
            "pitch": "0.0",
            "orientation": "-" if self.along else "+",
            "dynamic": "yes" if self.type == LIGHT else "no",
            "country": "OpenDRIVE",
            "type": self.type,
            "subtype": "-1",
            "value": repr(self.value),
            "text": "",
            "height": "1.0",
            "width": "0.6",
        }
        if self.type == SPEED:
            attributes["unit"] = "km/h"
        found = ElementTree.Element("signal", attributes)
        ElementTree.SubElement(found, "validity", {"fromLane": str(self.lanes[0]), "toLane": str(self.lanes[1])})
        return found


class SignBook:
    """Collects signs and controllers; `write` puts them into the OpenDRIVE."""

    def __init__(self) -> None:
        self._signs: list[Sign] = []
        self._controllers: list[tuple[int, list[int]]] = []  # junction, its signs that are green together

    def entry(self, port: Port, kind: str) -> int:
        """A light or a sign before the junction at `port`, for the lanes that enter it; its id."""
        return self._add(port, kind, port.at_end, STOP_LINE, port.lanes_in, -1.0)

    def speed(self, port: Port, distance: float) -> int:
        """The speed limit of the road at `port`, `distance` m behind the junction, for the lanes that leave it."""
        return self._add(port, SPEED, not port.at_end, distance, port.lanes_out, float(port.speed))

    def control(self, junction: int, groups: list[list[int]]) -> None:
        """Lights (ids) of a junction: those of one group are green together, one group after another."""
        self._controllers += [(junction, group) for group in groups]

    def _add(self, port: Port, kind: str, along: bool, distance: float, lanes: int, value: float) -> int:
        number = FIRST_SIGN + len(self._signs)
        ids = (-lanes, -1) if along else (1, lanes)
        aside = lanes * port.width + BESIDE
        self._signs.append(Sign(number, kind, port.road, along, port.at_end, distance, aside, ids, value))
        return number

    def write(self, root: ElementTree.Element) -> None:
        """Add all elements: signals to their roads, controllers before the junctions and in them."""
        roads = {int(road.get("id", "")): road for road in root.findall("road")}
        for sign in self._signs:
            road = roads[sign.road]
            signals = road.find("signals")
            if signals is None:
                signals = ElementTree.SubElement(road, "signals")
            signals.append(sign.element(float(road.get("length", ""))))
        junctions = {int(junction.get("id", "")): junction for junction in root.findall("junction")}
        before = list(root).index(root.findall("junction")[0]) if junctions else len(root)
        turn: dict[int, int] = {}
        for k, (junction, signs) in enumerate(self._controllers):
            number, turn[junction] = str(FIRST_CONTROLLER + k), turn.get(junction, -1) + 1
            controller = ElementTree.Element(
                "controller", {"name": f"ctrl{number}", "id": number, "sequence": str(turn[junction])}
            )
            for sign in signs:
                ElementTree.SubElement(controller, "control", {"signalId": str(sign), "type": ""})
            root.insert(before + k, controller)
            reference = {"id": number, "type": "", "sequence": str(turn[junction])}
            ElementTree.SubElement(junctions[junction], "controller", reference)
