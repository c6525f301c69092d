"""The layouts of the embedded towns. Train, validation and test towns have the same kinds of elements, other geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from drive.simulators.towns.author_builder import TownBuilder
from drive.simulators.towns.author_geometry import Port
from drive.simulators.towns.author_signals import YIELD

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


def merge_ports(ports: dict[str, list[Port]], more: dict[str, list[Port]]) -> None:
    """Adds the ports of another network on the same nodes."""
    for node, found in more.items():
        ports[node] += found


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


def rural_a() -> TownBuilder:
    """Two-lane country roads in a closed web: bends of 40 to 200 m with clothoids, a roundabout and a T junction."""
    town = TownBuilder("rural_a")
    nodes: dict[str, Point] = {"R": (0.0, 0.0, 32.0), "T": (430.0, 0.0, 14.0)}
    south_east = Street("R", "T", ((115.0, 0.0, 60.0), (165.0, 75.0, 45.0), (265.0, 85.0, 50.0), (310.0, 0.0, 60.0)))
    north = Street(
        "T", "R", ((430.0, 150.0, 160.0), (320.0, 280.0, 90.0), (185.0, 200.0, 65.0), (60.0, 280.0, 55.0), (-75.0, 129.9, 50.0))
    )
    south = Street("R", "T", ((-70.0, -121.2, 40.0), (50.0, -250.0, 60.0), (170.0, -170.0, 70.0), (430.0, -240.0, 100.0)))
    ports = streets(town, nodes, [south_east], Style(60.0, spiral=12.0, edge=("shoulder", 1.0)))
    merge_ports(ports, streets(town, nodes, [north], Style(80.0, spiral=20.0, edge=("shoulder", 1.0))))
    merge_ports(ports, streets(town, nodes, [south], Style(70.0, spiral=15.0, edge=("shoulder", 1.0))))
    town.roundabout((0.0, 0.0), 18.0, ports["R"], 40.0)
    town.meet(ports["T"])
    return town


def val_b() -> TownBuilder:
    """A small mixed town: one block of other proportions, T junctions, a roundabout and two winding ways round it."""
    town = TownBuilder("val_b")
    nodes: dict[str, Point] = {
        "a": (0.0, 0.0),
        "b": (120.0, 0.0),
        "c": (120.0, 105.0),
        "d": (0.0, 105.0),
        "R": (275.0, 12.0, 30.0),
    }
    block = [
        Street("a", "b"),
        Street("b", "c", lanes=2),
        Street("c", "d"),
        Street("d", "a"),
        Street("b", "R", ((180.0, 0.0, 50.0), (215.0, 12.0, 50.0))),
        Street("c", "R", ((275.0, 105.0, 35.0),)),
    ]
    north = Street(
        "d", "R", ((0.0, 200.0, 45.0), (140.0, 165.0, 75.0), (230.0, 210.0, 55.0), (370.0, 160.0, 65.0), (370.0, 12.0, 45.0))
    )
    south = Street("a", "R", ((0.0, -85.0, 40.0), (120.0, -60.0, 90.0), (275.0, -110.0, 38.0)))
    ports = streets(town, nodes, block, Style(50.0, width=3.4, setback=8.0))
    for node in "abcd":
        nodes[node] = (*nodes[node], 3.4 * (2 if node in "bc" else 1) + 8.0)
    merge_ports(ports, streets(town, nodes, [north, south], Style(65.0, width=3.4, spiral=12.0)))
    town.roundabout((275.0, 12.0), 16.5, ports.pop("R"), 35.0)
    for met in ports.values():
        town.meet(met)
    return town


def test_c() -> TownBuilder:
    """A mixed town kept for tests: blocks, a winding road, a roundabout, and a dual road that a one-way ramp merges into."""
    town = TownBuilder("test_c")
    nodes: dict[str, Point] = {
        "B": (100.0, 0.0, 11.0),
        "C": (190.0, 0.0, 14.5),
        "D": (0.0, 92.0, 11.0),
        "E": (100.0, 92.0, 11.0),
        "F": (190.0, 92.0, 11.0),
        "G": (725.0, -25.0, 14.5),
        "R": (540.0, 150.0, 34.0),
    }
    blocks = [
        Street("D", "B", ((0.0, 0.0, 20.0),)),
        Street("B", "C"),
        Street("D", "E"),
        Street("E", "F"),
        Street("B", "E"),
        Street("C", "F"),
    ]
    ports = streets(town, nodes, blocks, Style(50.0))
    winding = [
        Street(
            "D", "R", ((0.0, 185.0, 50.0), (115.0, 235.0, 60.0), (225.0, 170.0, 65.0), (350.0, 265.0, 80.0), (540.0, 265.0, 55.0))
        ),
        Street("F", "R", ((300.0, 92.0, 60.0), (380.0, 150.0, 70.0))),
        Street("R", "G", ((725.0, 150.0, 60.0),)),
        Street(
            "G",
            "C",
            ((725.0, -145.0, 55.0), (570.0, -165.0, 80.0), (450.0, -100.0, 100.0), (320.0, -150.0, 90.0), (190.0, -115.0, 48.0)),
        ),
    ]
    merge_ports(ports, streets(town, nodes, winding, Style(70.0, spiral=14.0, edge=("shoulder", 1.0))))
    _dual_road(town, ports)
    town.roundabout((540.0, 150.0), 20.0, ports.pop("R"), 40.0)
    for met in ports.values():
        town.meet(met)
    return town


def _dual_road(town: TownBuilder, ports: dict[str, list[Port]]) -> None:
    """Two lanes each way from C to G; a ramp from the roundabout R joins the westbound side in a lane that then ends."""
    edge = ("shoulder", 1.5)
    near = town.road([(204.5, 0.0), (260.0, 0.0)], (2, 2), 70.0, edge=edge)
    wide = town.road([(315.0, 0.0), (435.0, 0.0)], (2, 3), 70.0, edge=edge)
    far = town.road([(490.0, 0.0), (570.0, 0.0, 180.0), (650.0, -25.0, 180.0), (710.5, -25.0)], (2, 2), 70.0, edge=edge)
    ramp = town.road([(540.0, 116.0), (540.0, 17.0, 35.0), (490.0, 12.0)], (1, 0), 50.0, edge=edge)
    ports["C"].append(near[0])
    ports["G"].append(far[1])
    ports["R"].append(ramp[0])
    lane_end, merge = town.junction(), town.junction()
    for k in (1, 2):
        town.connect(lane_end, near[1], k, wide[0], k)
        town.connect(lane_end, wide[0], k, near[1], k)
        town.connect(merge, wide[1], k, far[0], k)
        town.connect(merge, far[0], k, wide[1], k)
    town.connect(lane_end, wide[0], 3, near[1], 2)
    town.connect(merge, ramp[1], 1, wide[1], 3)
    town.signs.entry(ramp[1], YIELD)


def highway_a() -> TownBuilder:
    """A ring of two carriageways of three lanes; each has an exit to a one-lane side road that merges in again elsewhere."""
    town = TownBuilder("highway_a")
    w, h, r, o = 700.0, 360.0, 150.0, 1.5  # the median: width, height, corner radius; offset of each carriageway's left edge
    _carriageway(
        town,
        before_exit=[(250.0, -o), (380.0, -o)],
        to_merge=[(445.0, -o), (w + o, -o, r + o), (w + o, h + o, r + o), (510.0, h + o)],
        after_merge=[(445.0, h + o), (310.0, h + o)],
        to_exit=[(240.0, h + o), (-o, h + o, r + o), (-o, -o, r + o), (180.0, -o)],
        ramp=[
            (445.0, -17.0),
            (525.0, -26.6, 150.0),
            (800.0, -62.0, 90.0),
            (765.0, 190.0, 120.0),
            (800.0, 412.0, 85.0),
            (510.0, 377.5),
        ],
    )
    _carriageway(
        town,
        before_exit=[(250.0, h - o), (380.0, h - o)],
        to_merge=[(445.0, h - o), (w - o, h - o, r - o), (w - o, o, r - o), (460.0, o)],
        after_merge=[(395.0, o), (265.0, o)],
        to_exit=[(195.0, o), (o, o, r - o), (o, h - o, r - o), (180.0, h - o)],
        ramp=[(445.0, 343.0), (525.0, 333.4, 80.0), (600.0, 180.0, 120.0), (545.0, 27.2, 60.0), (460.0, 17.0)],
    )
    return town


def _carriageway(
    town: TownBuilder,
    before_exit: list[Point],
    to_merge: list[Point],
    after_merge: list[Point],
    to_exit: list[Point],
    ramp: list[Point],
) -> None:
    """Three lanes one way round; a fourth one, before the exit and after the merge, opens from and closes into the third."""
    edge = ("shoulder", 2.5)
    exit_lane = town.road(before_exit, (4, 0), 90.0, edge=edge)
    first = town.road(to_merge, (3, 0), 90.0, edge=edge)
    merge_lane = town.road(after_merge, (4, 0), 90.0, edge=edge)
    second = town.road(to_exit, (3, 0), 90.0, edge=edge)
    side = town.road(ramp, (1, 0), 60.0, spiral=20.0, edge=("shoulder", 1.5))
    opening, leaving, merging, closing = (town.junction() for _ in range(4))
    for k in (1, 2, 3):
        town.connect(opening, second[1], k, exit_lane[0], k)
        town.connect(leaving, exit_lane[1], k, first[0], k)
        town.connect(merging, first[1], k, merge_lane[0], k)
        town.connect(closing, merge_lane[1], k, second[0], k)
    town.connect(opening, second[1], 3, exit_lane[0], 4)
    town.connect(leaving, exit_lane[1], 4, side[0], 1)
    town.connect(merging, side[1], 1, merge_lane[0], 4)
    town.connect(closing, merge_lane[1], 4, second[0], 3)
