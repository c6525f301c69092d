"""The expert's figures: time per plan, closed-loop drives in the towns, and the PDM score of its plans on driven futures.

    python bench/bench_expert.py --seeds 20 --seconds 15
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from time import perf_counter

import numpy as np
from harness import Row

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, EgoTrack, Privileged, Tracks
from drive.metrics.pdms import score_pdms
from drive.metrics.pdms_scene import PdmScene
from drive.planners.pdm import PdmExpert
from drive.simulators.opendrive import load_town, town_names
from drive.simulators.scenarios import possible_kinds
from drive.simulators.world import World

INTERVAL = 5  # steps between plans
HORIZON = 51  # frames of a scored future


def drive(world: World, planner, seconds: float) -> list[tuple[int, Privileged, np.ndarray, str]]:
    """(step, scene, poses of the plan, reasoning) of a closed-loop drive."""
    plans = []
    while world.step < seconds * 10 and not world.over:
        tracks, scene = world.tracks(), world.privileged()
        present = tracks.valid[:, world.step]
        scene = replace(scene, agent_acceleration=tracks.acceleration(world.step, scene.dt)[present])
        plan = planner.plan_privileged([scene])[0]
        plans.append((world.step, scene, plan.trajectory.poses, plan.reasoning))
        world.drive(plan.trajectory, INTERVAL)
    return plans


def logged_score(scene: Privileged, poses: np.ndarray, ego: EgoTrack, tracks: Tracks, step: int) -> np.ndarray | None:
    """(PDMS, NC, DAC, EP, TTC, C) of a plan among the agents as they really moved, against the ego's own drive; None where the drive ends too early."""
    future = tracks.steps(step, step + HORIZON)
    if future.valid.shape[1] < HORIZON:
        return None
    now = replace(scene, agents=future, agent_acceleration=None)
    view = PdmScene.from_privileged(now, future.poses_world, future.velocity_world, future.valid, ego.poses_world[step : step + HORIZON])
    s = score_pdms([view], [poses[None]], 0.1, against="reference")[0]
    return np.array([s.score[0], s.nc[0], s.dac[0], s.ep[0], s.ttc[0], s.comfort[0]])


def time_per_plan(scene: Privileged, count: int = 20, repeats: int = 30) -> tuple[float, float]:
    """(median, 90th percentile) ms of a plan with `count` agents near the ego."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(-np.pi, np.pi, count), rng.uniform(10.0, 50.0, count)
    pose = np.column_stack([scene.ego.pose_world[0] + radius * np.cos(angle), scene.ego.pose_world[1] + radius * np.sin(angle), angle])
    velocity = 5.0 * np.column_stack([np.cos(angle), np.sin(angle)])
    agents = Tracks(
        tuple(map(str, range(count))), np.full(count, int(AgentType.VEHICLE), np.int64), np.tile([4.6, 1.9, 1.6], (count, 1)),
        pose[:, None], velocity[:, None], np.ones((count, 1), bool),
    )  # fmt: skip
    planner, crowded = PdmExpert(), replace(scene, agents=agents, agent_acceleration=None)
    planner.plan_privileged([crowded])
    took = []
    for _ in range(repeats):
        start = perf_counter()
        planner.plan_privileged([crowded])
        took.append(1e3 * (perf_counter() - start))
    return float(np.median(took)), float(np.percentile(took, 90))


def drive_and_score(maps: dict[str, RoadMap], kind: str, seeds: int, seconds: float, show: bool) -> tuple[Counter, list[np.ndarray]]:
    """(events, scores of plans) of one drive per seed, in turn in the towns that have a place for `kind`."""
    planner, events, scores = PdmExpert(), Counter(), []
    able = [town for town, road_map in maps.items() if kind in possible_kinds(road_map)]
    for seed in range(seeds):
        town = able[seed % len(able)]
        try:
            world = World(maps[town], town, kind, seed)
        except DataError:
            events["no place"] += 1
            continue
        plans = drive(world, planner, seconds)
        ego, tracks = world.ego_track(), world.tracks()
        events.update(["drives", *(text.split()[0] for _, text in world.events)])
        found = [logged_score(scene, poses, ego, tracks, step) for step, scene, poses, _ in plans[::2]]
        scores += [s for s in found if s is not None]
        if show and any(not text.startswith("route_end") for _, text in world.events):
            print(town, kind, seed, world.events, "|", plans[-1][3])
    return events, scores


def measure(seeds: int = 5, seconds: float = 15.0, kinds: list[str] | None = None, show: bool = False) -> list[Row]:
    """Milliseconds per plan, then per kind of scenario the mean PDMS of its plans and what befell the drives."""
    maps = {town: load_town(town) for town in town_names()}
    first = next(iter(maps))
    median, slow = time_per_plan(World(maps[first], first, "free", 0).privileged())
    rows = [Row("plan with 20 agents", median, "ms", f"90th percentile {slow:.1f} ms")]
    everything: list[np.ndarray] = []
    for kind in kinds or sorted({k for road_map in maps.values() for k in possible_kinds(road_map)}):
        events, scores = drive_and_score(maps, kind, seeds, seconds, show)
        everything += scores
        rows.append(Row(f"PDMS {kind}", _mean(scores)[0], "1/100", f"{dict(events)}  {_parts(scores)}"))
    rows.append(Row("PDMS of all plans", _mean(everything)[0], "1/100", _parts(everything)))
    return rows


def _mean(scores: list[np.ndarray]) -> np.ndarray:
    return 100.0 * np.mean(scores, axis=0) if scores else np.full(6, np.nan)


def _parts(scores: list[np.ndarray]) -> str:
    return "  ".join(f"{n} {v:.1f}" for n, v in zip(("NC", "DAC", "EP", "TTC", "C"), _mean(scores)[1:])) + f"  over {len(scores)} plans"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--show", action="store_true", help="print the drives that ended in an event")
    options = parser.parse_args()
    for row in measure(options.seeds, options.seconds, options.kinds, options.show):
        print(f"{row.what:26s} {row.value:6.1f} {row.unit:6s} {row.note}")
