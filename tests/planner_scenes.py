"""Hand-made roads and scenes for the planners' tests: everything in metres, the ego on lane "a" at the origin unless said."""

import numpy as np
from shapely.geometry import LineString

from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Command, EgoState, Privileged, Tracks

WIDTH = 3.6


def lane(name: str, line: np.ndarray, **more) -> Lane:
    """A lane of WIDTH around `line` (N, 2)."""
    poses = polyline_with_heading(line)
    normal = np.column_stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])])
    return Lane(name, poses, line + normal * WIDTH / 2, line - normal * WIDTH / 2, more.pop("speed_limit", 12.0), **more)


def road_map(lanes: list[Lane]) -> RoadMap:
    """A map of `lanes`, each its own LANE polygon; one ROADBLOCK under all of them."""
    rings, blocks = [], {}
    for one in lanes:
        rings.append((one.id, Layer.LANE, np.concatenate([one.left, one.right[::-1]])))
        blocks.setdefault(one.roadblock, []).append(LineString(one.centerline[:, :2]).buffer(WIDTH / 2 + 0.05, cap_style="flat"))
    for name, shapes in blocks.items():
        union = shapes[0]
        for shape in shapes[1:]:
            union = union.union(shape)
        rings += [(name, layer, np.array(union.exterior.coords)[:-1]) for layer in (Layer.ROADBLOCK, Layer.DRIVABLE_AREA)]
    return RoadMap("test", {one.id: one for one in lanes}, Polygons.from_rings(rings))


def straight(two_lanes: bool = False, length: float = 400.0) -> RoadMap:
    """Lane "a" along x from -50, and, if asked, lane "b" to its left."""
    x = np.arange(-50.0, length, 1.0)
    lanes = [lane("a", np.column_stack([x, np.zeros_like(x)]), roadblock="r", left_neighbor="b" if two_lanes else "")]
    if two_lanes:
        lanes.append(lane("b", np.column_stack([x, np.full_like(x, WIDTH)]), roadblock="r", right_neighbor="a"))
    return road_map(lanes)


def curve(radius: float = 15.0, before: float = 40.0) -> RoadMap:
    """Straight for `before` metres past the origin, a quarter turn to the left, straight again."""
    x = np.arange(-50.0, before, 1.0)
    turn = np.arange(0.0, np.pi / 2, 1.0 / radius)
    arc = np.column_stack([before + radius * np.sin(turn), radius * (1 - np.cos(turn))])
    y = np.arange(radius, radius + 150.0, 1.0)
    line = np.concatenate([np.column_stack([x, np.zeros_like(x)]), arc, np.column_stack([np.full_like(y, before + radius), y])])
    return road_map([lane("a", line, roadblock="r")])


def crossing() -> RoadMap:
    """`straight` and a one-lane road "c" that crosses it at x = 40 from the right."""
    y = np.arange(-100.0, 100.0, 1.0)
    lanes = list(straight().lanes.values())
    return road_map(lanes + [lane("c", np.column_stack([np.full_like(y, 40.0), y]), roadblock="s")])


def agents(*rows: tuple[float, float, float, float], kind: AgentType = AgentType.VEHICLE, steps: int = 1, dt: float = 0.1) -> Tracks:
    """Cars at rows of (x, y, heading, speed), at constant velocity over `steps` steps."""
    table = np.array(rows, float).reshape(-1, 4)
    velocity = table[:, 3:4] * np.column_stack([np.cos(table[:, 2]), np.sin(table[:, 2])])
    poses = np.repeat(table[:, None, :3], steps, axis=1)
    poses[..., :2] += velocity[:, None] * (dt * np.arange(steps))[None, :, None]
    size = np.array([[0.8, 0.8, 1.7] if kind == AgentType.PEDESTRIAN else [4.6, 1.9, 1.6]] * len(table)).reshape(-1, 3)
    return Tracks(
        tuple(f"agent{i}" for i in range(len(table))), np.full(len(table), int(kind), np.int64), size, poses,
        np.repeat(velocity[:, None], steps, axis=1), np.ones((len(table), steps), bool),
    )  # fmt: skip


def scene(
    town: RoadMap, speed: float, others: Tracks | None = None, pose: tuple[float, float, float] = (0.0, 0.0, 0.0), dt: float = 0.1
) -> Privileged:
    """The ego at `pose` with `speed` m/s on the route of lane "a"."""
    ego = EgoState(np.array(pose), np.array([speed, 0.0]), np.zeros(2))
    others = agents() if others is None else others
    return Privileged(town, ("a",), town.lanes["a"].centerline, ego, others, dt, Command.LANEFOLLOW)
