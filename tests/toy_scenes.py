# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""A straight road with a few situations, small enough to train on in a test."""

from functools import lru_cache

import numpy as np

from drive.core.geometry import relative
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Camera, Command, EgoTrack, Scenario, Tracks, Trajectory
from drive.tokenizers.kdisk import KDiskTokenizer

STEPS = 66  # 1.5 s before the present, 5 s after it, 10 Hz
PRESENT = 15


@lru_cache(maxsize=1)
def straight_road() -> RoadMap:
    """Two lanes of 3.5 m, 300 m long, along x; the ego's lane is "0"."""
    x = np.arange(-50.0, 251.0)
    lanes, rings = {}, []
    for name, y in (("0", 0.0), ("1", 3.5)):
        line = np.column_stack([x, np.full_like(x, y), np.zeros_like(x)])
        left, right = line[:, :2] + [0.0, 1.75], line[:, :2] - [0.0, 1.75]
        lanes[name] = Lane(name, line, left, right, 14.0, left_neighbor="1" if name == "0" else "", right_neighbor="" if name == "0" else "0")
        rings.append((name, Layer.LANE, np.concatenate([left[[0, -1]], right[[-1, 0]]])))
    rings.append(("road", Layer.DRIVABLE_AREA, np.array([[-50.0, -1.8], [250.0, -1.8], [250.0, 5.3], [-50.0, 5.3]])))
    return RoadMap("toy", lanes, Polygons.from_rings(rings))


class FlatImages:
    """Frames of one grey level: the speed can be read from them."""

    def __init__(self, level: float) -> None:
        self.level = level

    def image(self, camera: int, step: int) -> np.ndarray:
        frame = np.full((112, 112, 3), int(np.clip(self.level, 0, 255)), np.uint8)
        frame[: step + 1, :, 1] = 200
        return frame


def toy_scenario(index: int, reasoning: bool = True) -> Scenario:
    """The ego at constant speed; every third scene has a stopped car ahead, and its teacher brakes."""
    rng = np.random.default_rng(index)
    speed, dt = rng.uniform(6.0, 11.0), 0.1
    blocked = index % 3 == 0
    t = dt * (np.arange(STEPS) - PRESENT)
    stop_after = 4.0
    s = speed * t
    if blocked:
        after = np.clip(t, 0.0, stop_after)
        s = np.where(t > 0, speed * after - 0.5 * speed / stop_after * after**2, s)
    poses = np.column_stack([s, np.zeros(STEPS), np.zeros(STEPS)])
    velocity = np.column_stack([np.gradient(s, dt), np.zeros(STEPS)])
    velocity[: PRESENT + 1, 0] = speed
    agents = Tracks.empty(STEPS)
    if blocked:
        gap = speed * stop_after / 2 + 8.0
        pose = np.tile([gap, 0.0, 0.0], (1, STEPS, 1))
        agents = Tracks(("car",), np.array([AgentType.VEHICLE]), np.array([[4.6, 1.9, 1.6]]), pose, np.zeros((1, STEPS, 2)), np.ones((1, STEPS), bool))
    road = straight_road()
    return Scenario(
        id=f"toy-{index}",
        source="toy",
        split="train",
        log_id=f"log-{index}",
        kind="stopped_car" if blocked else "free",
        dt=dt,
        present=PRESENT,
        road_map=road,
        route_lane_ids=("0",),
        centerline_world=road.lanes["0"].centerline,
        command=Command.LANEFOLLOW,
        ego=EgoTrack(poses, velocity, np.zeros((STEPS, 2)), np.zeros(STEPS)),
        agents=agents,
        cameras=(Camera.front(),),
        image_source=FlatImages(40.0 + 150.0 * blocked),
        frame_steps=(-15, -10, -5, 0),
        teacher=Trajectory(relative(poses[PRESENT], poses[PRESENT + 5 :: 5])),
        reference_world=poses[PRESENT:],
        reasoning=("car ahead . brake and stop" if blocked else "road free . keep speed") if reasoning else "",
        notes={"complex": blocked},
    )


def toy_codebook(k: int = 64) -> KDiskTokenizer:
    """A codebook of straight motions with a little turning."""
    rng = np.random.default_rng(0)
    speed, curvature = rng.uniform(0.0, 12.0, 4000), rng.normal(0.0, 0.01, 4000)
    length = 0.5 * speed
    return KDiskTokenizer.fit(np.column_stack([length, 0.5 * curvature * length**2, curvature * length]), k=k, tolerance=0.1)


CORPUS = ["speed 8.4 accel -0.3 turn 2 command lanefollow plan", "car ahead . brake and stop", "road free . keep speed", "describe the scene"] * 20
