"""Frames per second of processor time of the rasteriser and of whole scenes, one thread.

Medians of five repeats; other load on the machine does not count.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Row

from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera
from drive.simulators.agent_shapes import agent_solids
from drive.simulators.birdseye import BirdsEye
from drive.simulators.raster import rasterise, shade
from drive.simulators.render import FAR, HAZE, PALETTE, SceneRenderer, camera_view
from drive.simulators.scene_geometry import EMPTY, Paint, Semantic, quad_set

TOWN = Path(__file__).parents[1] / "simulators" / "towns" / "urban_a.npz"


def rate(call: Callable[[], object], seconds: float = 0.6) -> float:
    """Calls per second, the median of five repeats after one warm-up."""
    call()
    rates = []
    for _ in range(5):
        count, begin = 0, time.process_time()
        while time.process_time() - begin < seconds:
            call()
            count += 1
        rates.append(count / (time.process_time() - begin))
    return float(np.median(rates))


def thousand_quads() -> Callable[[], object]:
    """400 ground quads and 120 boxes of five faces, all in front of a 224 x 224 camera, one sample per pixel."""
    x, y = np.meshgrid(np.arange(2.0, 82.0, 4.0), np.arange(-40.0, 40.0, 4.0))
    corner = np.stack([x, y], -1).reshape(-1, 1, 2)
    ground = quad_set([Paint.flat(corner + np.array([(0, 0), (4, 0), (4, 4), (0, 4)]), (90, 90, 90), Semantic.ROAD)])
    rng = np.random.default_rng(0)
    poses = np.column_stack([rng.uniform(8, 80, 120), rng.uniform(-25, 25, 120), rng.uniform(-3, 3, 120)])
    boxes = agent_solids(np.full(120, AgentType.GENERIC_OBJECT), poses, np.tile([4.0, 2.0, 1.6], (120, 1)), np.arange(1, 121))
    view = camera_view(Camera.front(224, 224), np.zeros(3))
    return lambda: shade(rasterise(view, FAR, ground, boxes, EMPTY, EMPTY, Semantic.TERRAIN.value), view, 1, PALETTE, HAZE)


def measure() -> list[Row]:
    """Every case, in frames per second of processor time."""
    unit = "frames/s"
    rows = [Row("1,000 quads, 224 x 224, one sample a pixel", rate(thousand_quads()), unit, "goal 400")]
    road_map = RoadMap.load(TOWN)
    renderer, above = SceneRenderer(road_map), BirdsEye(road_map)
    rng = np.random.default_rng(0)
    lane = max(road_map.lanes.values(), key=lambda lane: lane.length)
    ego = lane.centerline[5]
    near = [road_map.lanes[k].centerline for k in road_map.lanes_near(ego[:2], 60.0)]
    poses = np.array([line[rng.integers(len(line))] for line in (near[i % len(near)] for i in range(15))])
    agents = (poses, np.tile([4.6, 1.9, 1.6], (15, 1)), np.zeros(15, np.int64))
    for size in (112, 224, 448):
        camera = Camera.front(size, size)
        colours = rate(lambda c=camera: renderer.render_rgb(c, ego, *agents))
        channels = rate(lambda c=camera: renderer.render(c, ego, *agents))
        rows.append(Row(f"town, 15 vehicles, colours alone, {size} x {size}", colours, unit, "2 x 2 samples a pixel"))
        rows.append(Row(f"town, 15 vehicles, all channels, {size} x {size}", channels, unit))
    rows.append(Row("bird's-eye picture, 112 x 112", rate(lambda: above.raster(ego, *agents, 112)), unit))
    rows.append(Row("bird's-eye channels, 128 x 128", rate(lambda: above.channels(ego, *agents, 128)), unit))
    return rows
