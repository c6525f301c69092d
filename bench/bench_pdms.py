"""PDM score (`pdms_v1_1`) on a synthetic four-way intersection, nuPlan's closed-loop metrics there, and nuScenes' grids, in milliseconds.

The scene has the size of a real one: lanes, connectors, roadblocks, car parks, the crossing box, 30 agents, 10 Hz proposals of
4 s. NAVSIM's own code took 1241 ms for 256 proposals, 135 ms for 16 and 36 ms for 1 on a scene of this size (2 AMD Milan cores,
measured apart). Equality with NAVSIM's outputs is the condition of the comparison; tests/test_metrics_pdms_golden.py holds it.
"""

import numpy as np
from harness import Row, timed

from drive.core.geometry import polyline_with_heading
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.seeds import numpy_rng
from drive.core.types import AgentType, Tracks
from drive.core.vehicle import simulate, targets_from_plan
from drive.metrics.nuplan_map import nuplan_closed_loop
from drive.metrics.nuplan_route import LaneIndex
from drive.metrics.nuscenes_collision import stp3_occupancy, uniad_occupancy, vad_occupancy
from drive.metrics.pdms import score_pdms
from drive.metrics.pdms_areas import pack_areas
from drive.metrics.pdms_comfort import comfort_components
from drive.metrics.pdms_judge import judge
from drive.metrics.pdms_scene import PdmScene

LANE_WIDTH, ARM, LANES = 3.5, 95.0, 3
BOX = 2 * LANES * LANE_WIDTH / 2 + 6.0  # m from the middle to where the arms begin


def strip(points: np.ndarray, width: float) -> np.ndarray:
    """Ring (2N, 2) of the band of `width` m around a polyline (N, 2)."""
    step = np.gradient(points, axis=0)
    normal = np.column_stack([-step[:, 1], step[:, 0]]) / np.hypot(*step.T)[:, None]
    return np.concatenate([points + normal * width / 2, (points - normal * width / 2)[::-1]])


def turned(points: np.ndarray, quarter: int) -> np.ndarray:
    """Points (N, 2) turned by `quarter` right angles about the origin."""
    c, s = np.cos(quarter * np.pi / 2), np.sin(quarter * np.pi / 2)
    return points @ np.array([[c, s], [-s, c]])


def bezier(start: np.ndarray, middle: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) points of the quadratic curve through `start` and `end`."""
    t = np.linspace(0.0, 1.0, count)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def intersection() -> tuple[Polygons, np.ndarray]:
    """Polygons of the crossing, and the flags of the lanes that lead straight through it from west to east."""
    rings: list[tuple[str, Layer, np.ndarray]] = []
    route = set()
    along, near, far = np.linspace(BOX, ARM, 26), np.linspace(BOX, 0.4 * ARM, 20), np.linspace(0.4 * ARM, ARM, 20)
    for arm in range(4):
        for lane in range(LANES):
            offset = (lane + 0.5) * LANE_WIDTH
            for name, side, part in (("out", -1.0, along), ("in", 1.0, near), ("far", 1.0, far)):
                line = np.column_stack([part, np.full(len(part), side * offset)])
                rings.append((f"{name}{arm}{lane}", Layer.LANE, turned(strip(line, LANE_WIDTH), arm)))
                if f"{name}{arm}" in ("in2", "far2", "out0"):
                    route.add(rings[-1][0])
            for turn in (1, 2, 3):
                start, end = np.array([BOX, offset]), turned(np.array([[BOX, -offset]]), turn)[0]
                line = turned(bezier(start, np.array([0.0, offset]) if turn != 2 else (start + end) / 2, end, 26), arm)
                rings.append((f"turn{arm}{lane}{turn}", Layer.LANE_CONNECTOR, strip(line, LANE_WIDTH)))
                if arm == 2 and turn == 2:
                    route.add(rings[-1][0])
        for side in (-1.0, 1.0):
            middle = np.column_stack([along, np.full(26, side * LANES * LANE_WIDTH / 2)])
            rings.append((f"block{arm}{side:g}", Layer.ROADBLOCK, turned(strip(middle, LANES * LANE_WIDTH), arm)))
            park = np.column_stack([along + 3.0, np.full(26, side * (LANES * LANE_WIDTH + 9.0))])
            rings.append((f"park{arm}{side:g}", Layer.CARPARK, turned(strip(park, 12.0), arm)))
    angle = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
    rings.append(("box", Layer.INTERSECTION, 1.45 * BOX * np.column_stack([np.cos(angle), np.sin(angle)])))
    polygons = Polygons.from_rings(rings)
    return polygons, np.array([token in route for token in polygons.tokens])


def traffic(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Poses (count, 3) and speeds (count,) of agents in the lanes; those in the ego's lane are 25 m ahead of it or more."""
    arm, lane = rng.integers(0, 4, count), rng.integers(0, LANES, count)
    inward = rng.random(count) < 0.5
    distance, offset = rng.uniform(BOX, 70.0, count), (lane + 0.5) * LANE_WIDTH
    distance = np.where((arm == 2) & (lane == 1) & inward, BOX, distance)
    local = np.column_stack([distance, np.where(inward, 1.0, -1.0) * offset])
    xy = np.stack([turned(point[None], quarter)[0] for point, quarter in zip(local, arm)])
    heading = arm * np.pi / 2 + np.where(inward, np.pi, 0.0)
    crossing = inward & (arm % 2 == 1)
    speed = np.where(crossing & (rng.random(count) < 0.8), 0.0, rng.uniform(5.0, 11.0, count))
    return np.column_stack([xy, heading]), speed


def scene(seed: int, agents: int = 30) -> PdmScene:
    """The ego comes from the west at 9 m/s, 25 m before the crossing, among agents that keep their speed."""
    rng = numpy_rng(seed, "bench_pdms", "scene")
    polygons, on_route = intersection()
    start, speed = traffic(agents, rng)
    velocity = speed[:, None] * np.column_stack([np.cos(start[:, 2]), np.sin(start[:, 2])])
    pose = np.repeat(start[:, None], 51, axis=1)
    pose[..., :2] += 0.1 * np.arange(51)[None, :, None] * velocity[:, None]
    kinds = rng.choice([AgentType.VEHICLE, AgentType.BICYCLE], agents, p=[0.8, 0.2]).astype(np.int64)
    return PdmScene(
        polygons,
        on_route,
        centerline=np.column_stack([np.arange(-90.0, 95.0), np.full(185, -5.25), np.zeros(185)]),
        initial=np.array([-42.0, -5.25, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        agent_pose=pose,
        agent_velocity=np.repeat(velocity[:, None], 51, axis=1),
        agent_valid=np.ones((agents, 51), np.bool_),
        agent_size=np.array([[4.6, 1.9], [0.7, 0.7], [1.8, 0.7]])[kinds],
        agent_types=kinds,
        reference_poses=np.array([-42.0, -5.25, 0.0]) + np.arange(51.0)[:, None] * np.array([0.9, 0.0, 0.0]),
        id=f"bench{seed}",
    )


def plans(count: int, seed: int) -> np.ndarray:
    """(count, 40, 3) smooth proposals at 10 Hz: constant acceleration and curvature rate."""
    rng = numpy_rng(seed, "bench_pdms", "plans")
    time_s = 0.1 * np.arange(1, 41)
    speed = np.maximum(9.0 + rng.normal(0.0, 1.2, (count, 1)) * time_s, 0.0)
    heading = np.cumsum(0.1 * speed * rng.normal(0.0, 0.012, (count, 1)) * time_s, axis=1)
    x, y = np.cumsum(0.1 * speed * np.cos(heading), axis=1), np.cumsum(0.1 * speed * np.sin(heading), axis=1)
    return np.stack([x, y, heading], axis=-1)


def parts(one: PdmScene, count: int) -> str:
    """Milliseconds of the parts of one call, for the note."""
    poses = plans(count, 0)
    targets, initial = targets_from_plan(poses, 0.1, one.initial[:3], 40), np.repeat(one.initial[None], count, axis=0)
    states = simulate(initial, targets)
    tracked = timed(lambda: simulate(initial, targets)).median
    judged = timed(lambda: judge(states, one.areas, one.agents, one.centerline)).median
    comfort = timed(lambda: comfort_components(states)).median
    return f"simulate {1e3 * tracked:.2f}, map and agents {1e3 * judged:.2f}, comfort {1e3 * comfort:.2f} ms"


def lane_index(polygons: Polygons) -> LaneIndex:
    """What nuPlan's map metrics ask of the crossing; centrelines and borders are read from the strips, nothing follows anything."""
    lanes = {}
    for i in np.flatnonzero(polygons.layers <= Layer.LANE_CONNECTOR):
        left, right = np.split(polygons.ring(int(i)), 2)
        token, line = polygons.tokens[i], polyline_with_heading((left + right[::-1]) / 2.0)
        lanes[token] = Lane(token, line, left, right[::-1], 14.0, bool(polygons.layers[i] == Layer.LANE_CONNECTOR))
    return LaneIndex(RoadMap("crossing", lanes, polygons))


def measure_nuplan(one: PdmScene) -> list[Row]:
    """nuPlan's closed-loop metrics of one drive through the crossing."""
    index = lane_index(one.polygons)
    targets = targets_from_plan(plans(1, 0), 0.1, one.initial[:3], 40)
    states = simulate(one.initial[None], targets)[0]
    cut, names = slice(41), tuple(map(str, range(len(one.agent_types))))
    tracks = Tracks(
        names, one.agent_types, one.agent_size, one.agent_pose[:, cut], one.agent_velocity[:, cut], one.agent_valid[:, cut]
    )
    assert one.reference_poses is not None
    expert = one.reference_poses[cut]
    taken = timed(lambda: nuplan_closed_loop(index, states, tracks, expert, 0.1), repeats=15)
    made = timed(lambda: lane_index(one.polygons), repeats=5)
    return [
        Row("nuplan_closed_loop, 1 drive of 4 s", 1e3 * taken.median, "ms", f"{len(index.lanes)} lanes, {len(tracks)} agents"),
        Row("index the lanes of one map", 1e3 * made.median, "ms", "once per map, then kept"),
    ]


def measure_nuscenes() -> list[Row]:
    """Obstacle grids of one nuScenes sample of 40 boxes under the three protocols."""
    rng = numpy_rng(0, "bench_pdms", "nuscenes")
    boxes = np.concatenate([rng.uniform(-45.0, 45.0, (40, 6, 2)), rng.uniform(-np.pi, np.pi, (40, 6, 1))], axis=-1)
    size, valid, ego = (
        rng.uniform(0.5, 8.0, (40, 2)),
        np.ones((40, 6), np.bool_),
        np.cumsum(np.full((6, 3), [4.0, 0.0, 0.02]), axis=0),
    )
    lidar = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, -0.94], [0.0, 0.0, 1.0, -1.84], [0.0, 0.0, 0.0, 1.0]])
    made = {
        "UniAD": lambda: uniad_occupancy(boxes, size, valid, lidar),
        "ST-P3": lambda: stp3_occupancy(boxes, size, valid, ego, np.zeros(3)),
        "VAD": lambda: vad_occupancy(boxes, size, valid, lidar),
    }
    return [
        Row(f"{name}'s grids of one sample", 1e3 * timed(call, repeats=15).median, "ms", "40 boxes, 6 x 200 x 200 cells")
        for name, call in made.items()
    ]


def measure() -> list[Row]:
    """Milliseconds per call, after a check that the proposals exercise every part of the score."""
    one = scene(0)
    scores = score_pdms([one], [plans(256, 0)], 0.1)[0]
    means = {name: float(getattr(scores, name).mean()) for name in ("nc", "dac", "ddc", "ttc", "comfort")}
    if not all(0.4 < mean < 1.0 for mean in means.values()):
        raise SystemExit(f"the benchmark's proposals no longer exercise the score: {means}")
    size = f"{len(one.polygons)} polygons, {len(one.polygons.vertices)} vertices, {len(one.agent_types)} agents"
    rows = [Row(f"mean {name} of 256 proposals", mean, "1", size) for name, mean in means.items()]
    for count, peer in ((256, 1241), (16, 135), (1, 36)):
        poses = plans(count, 0)
        taken = timed(lambda poses=poses: score_pdms([one], [poses], 0.1), repeats=15)
        rows.append(Row(f"score_pdms, 1 scene x {count}", 1e3 * taken.median, "ms", f"NAVSIM {peer} ms; {parts(one, count)}"))
    many, groups = [scene(seed) for seed in range(16)], [plans(16, seed) for seed in range(16)]
    taken = timed(lambda: score_pdms(many, groups, 0.1), repeats=15)
    rows.append(Row("score_pdms, 16 scenes x 16", 1e3 * taken.median, "ms", "one call"))
    polygons = one.polygons
    taken = timed(lambda: (polygons.near(one.initial[:2], 100.0), pack_areas(polygons, one.on_route)), repeats=15)
    rows.append(Row("cut and pack the map of one scene", 1e3 * taken.median, "ms", "once per scene, then kept"))
    return rows + measure_nuplan(one) + measure_nuscenes()


if __name__ == "__main__":
    for row in measure():
        print(f"{row.what:36s} {row.value:9.3f} {row.unit:3s} {row.note}")
