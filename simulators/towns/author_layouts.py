"""The layouts of the embedded towns. Train, validation and test towns have the same kinds of elements, other geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from drive.simulators.towns.author_builder import Port, TownBuilder

Point = tuple[float, ...]  # x, y and, for a bend, its radius


@dataclass(frozen=True)
class Street:
    """A two-way road between two nodes of a network."""

    a: str
    b: str
    via: tuple[Point, ...] = ()
    lanes: int = 1  # per direction


@dataclass(frozen=True)
class Style:
    """What the streets of a network have in common."""

    speed: float  # km/h
    width: float = 3.5
    setback: float = 7.5  # m from the edge of the crossing road to the mouth of a junction
    spiral: float = 0.0
    edge: tuple[str, float] = ("sidewalk", 2.0)


def streets(town: TownBuilder, nodes: dict[str, Point], network: list[Street], style: Style) -> dict[str, list[Port]]:
    """Builds the roads of a network; the ports at each node. A node (x, y, distance) has its mouths `distance` away."""
    widest = {n: max((s.lanes for s in network if n in (s.a, s.b)), default=1) for n in nodes}
    ports: dict[str, list[Port]] = {name: [] for name in nodes}
    for street in network:
        line: list[Point] = [nodes[street.a][:2], *street.via, nodes[street.b][:2]]
        for name, end, beside in ((street.a, 0, 1), (street.b, -1, -2)):
            node = nodes[name]
            back = node[2] if len(node) > 2 else widest[name] * style.width + style.setback
            line[end] = _toward(line[end], line[beside], back)
        made = town.road(line, (street.lanes, street.lanes), style.speed, style.width, style.spiral, style.edge)
        ports[street.a].append(made[0])
        ports[street.b].append(made[1])
    return ports


def _toward(start: Point, goal: Point, distance: float) -> Point:
    length = math.hypot(goal[0] - start[0], goal[1] - start[1])
    share = distance / length
    return start[0] + share * (goal[0] - start[0]), start[1] + share * (goal[1] - start[1])


def urban_a() -> TownBuilder:
    """Blocks of 75 to 100 m: crossings and T junctions, an avenue of two lanes each way, rounded corners."""
    town = TownBuilder("urban_a")
    xs, ys = (0.0, 85.0, 185.0, 275.0), (0.0, 80.0, 170.0, 260.0)
    nodes = {f"{i}{j}": (xs[i], ys[j]) for i in range(4) for j in range(4)}
    nodes["23"] = (200.0, 260.0)
    corner = 18.0
    network = [
        Street("10", "01", ((0.0, 0.0, corner),)),
        Street("10", "20"),
        Street("20", "31", ((275.0, 0.0, corner),)),
        Street("01", "11"),
        Street("11", "21"),
        Street("21", "31"),
        Street("01", "02"),
        Street("31", "32"),
        Street("02", "12", lanes=2),
        Street("12", "22", lanes=2),
        Street("22", "32", lanes=2),
        Street("02", "13", ((0.0, 260.0, corner),)),
        Street("13", "23"),
        Street("23", "32", ((275.0, 260.0, corner),)),
        Street("10", "11"),
        Street("11", "12"),
        Street("12", "13"),
        Street("20", "21"),
        Street("21", "22"),
        Street("22", "23", ((185.0, 200.0, 40.0), (200.0, 230.0, 40.0))),
    ]
    for met in streets(town, nodes, network, Style(50.0)).values():
        if met:
            town.meet(met)
    return town
