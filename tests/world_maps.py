"""Small hand-made maps for the tests of the embedded world."""

import numpy as np

from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap

WIDTH = 3.5
ARM, HALF = 120.0, 14.0  # m: end of an arm, edge of the junction
LOOP_RADIUS = 12.0


def lane(name, points, speed=12.0, **more):
    """A lane of WIDTH around a polyline (N, 2)."""
    line = polyline_with_heading(np.asarray(points, float))
    line[-1, 2] = line[-2, 2]
    normal = np.column_stack([-np.sin(line[:, 2]), np.cos(line[:, 2])]) * WIDTH / 2.0
    return Lane(name, line, line[:, :2] + normal, line[:, :2] - normal, speed, **more)


def straight(a, b):
    """Points 1 m apart from a to b."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    n = int(np.hypot(*(b - a))) + 1
    return a + np.linspace(0.0, 1.0, n)[:, None] * (b - a)


def turned(points, angle):
    """Points (N, 2) turned about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]])


def bezier(a, heading_a, b, heading_b):
    """A smooth curve from a to b with the given headings."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    reach = 0.55 * np.hypot(*(b - a))
    p = [
        a,
        a + reach * np.array([np.cos(heading_a), np.sin(heading_a)]),
        b - reach * np.array([np.cos(heading_b), np.sin(heading_b)]),
        b,
    ]
    t = np.linspace(0.0, 1.0, max(int(np.hypot(*(b - a)) * 1.2), 4))[:, None]
    return (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]


def loop():
    """A turning loop from (ARM, -WIDTH/2) heading east back to (ARM, WIDTH/2) heading west."""
    side = np.arccos(0.5 + WIDTH / (4.0 * LOOP_RADIUS))
    turn = np.concatenate([np.full(40, -side / 40), np.full(160, (np.pi + 2 * side) / 160), np.full(40, -side / 40)])
    heading = np.cumsum(turn) - turn / 2.0
    step = LOOP_RADIUS * np.abs(turn)
    xy = np.cumsum(np.column_stack([step * np.cos(heading), step * np.sin(heading)]), axis=0)
    return np.vstack([[0.0, 0.0], xy])[::3] + np.array([ARM, -WIDTH / 2.0])


def drivable(lanes):
    """One drivable polygon per lane."""
    return Polygons.from_rings([(k, Layer.DRIVABLE_AREA, np.vstack([v.left, v.right[::-1]])) for k, v in lanes.items()])


def crossing():
    """Four arms around one junction, joined by turning loops at their ends: in0..in3, out0..out3, c<from><to>, loop0..loop3."""
    lanes = {}
    angles = [k * np.pi / 2 for k in range(4)]
    for k, angle in enumerate(angles):
        ins = turned(straight((ARM, WIDTH / 2), (HALF, WIDTH / 2)), angle)
        outs = turned(straight((HALF, -WIDTH / 2), (ARM, -WIDTH / 2)), angle)
        targets = [(k + step) % 4 for step in (1, 2, 3)]
        lanes[f"in{k}"] = lane(f"in{k}", ins, successors=tuple(f"c{k}{t}" for t in targets), predecessors=(f"loop{k}",))
        lanes[f"out{k}"] = lane(f"out{k}", outs, successors=(f"loop{k}",), predecessors=tuple(f"c{t}{k}" for t in targets))
        lanes[f"loop{k}"] = lane(f"loop{k}", turned(loop(), angle), 8.0, successors=(f"in{k}",), predecessors=(f"out{k}",))
        for step, turn in ((1, "left"), (2, "straight"), (3, "right")):
            # an arm one step counter-clockwise lies to the right of who comes in
            turn = {1: "right", 2: "straight", 3: "left"}[step] if turn else turn
            t = (k + step) % 4
            points = bezier(turned((HALF, WIDTH / 2), angle), angle + np.pi, turned((HALF, -WIDTH / 2), angles[t]), angles[t])
            lanes[f"c{k}{t}"] = lane(
                f"c{k}{t}",
                points,
                12.0,
                is_connector=True,
                turn=turn,
                junction="x",
                successors=(f"out{t}",),
                predecessors=(f"in{k}",),
            )
    return RoadMap("crossing", lanes, drivable(lanes))


def oval(radius=60.0, length=200.0, inner_gap=WIDTH):
    """Two lanes side by side around an oval, counter-clockwise: a0..a3 inner, b0..b3 outer."""
    lanes = {}
    arc = np.linspace(-np.pi / 2, np.pi / 2, int(np.pi * radius))
    for name, r in (("a", radius), ("b", radius + inner_gap)):
        right = np.column_stack([length / 2 + r * np.cos(arc), r * np.sin(arc)])
        parts = [straight((-length / 2, -r), (length / 2, -r)), right, straight((length / 2, r), (-length / 2, r)), -right]
        for k, points in enumerate(parts):
            other = {"a": {"right_neighbor": f"b{k}"}, "b": {"left_neighbor": f"a{k}"}}[name]
            lanes[f"{name}{k}"] = lane(
                f"{name}{k}",
                points,
                14.0,
                successors=(f"{name}{(k + 1) % 4}",),
                predecessors=(f"{name}{(k - 1) % 4}",),
                roadblock=f"r{k}",
                **other,
            )
    return RoadMap("oval", lanes, drivable(lanes))
