"""The expert's figures: time per plan, closed-loop drives in the towns, and the PDM score of its plans on driven futures.

    python bench/bench_expert.py --seeds 20 --seconds 15
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import replace
from time import perf_counter

import numpy as np

from drive.core.errors import DataError
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


def main() -> None:
    """Drive, score and print one line per kind of scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--towns", nargs="*", default=town_names())
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--show", action="store_true", help="print the drives that ended in an event")
    args = parser.parse_args()
    planner, total, timing = PdmExpert(), defaultdict(Counter), None
    scores, travelled = defaultdict(list), defaultdict(list)
    maps = {town: load_town(town) for town in args.towns}
    for seed in range(args.seeds):
        for kind in sorted({k for m in maps.values() for k in possible_kinds(m)} if args.kinds is None else args.kinds):
            able = [t for t in args.towns if kind in possible_kinds(maps[t])]
            town = able[seed % len(able)]
            try:
                world = World(maps[town], town, kind, seed)
            except DataError:
                total[kind]["no place"] += 1
                continue
            plans = drive(world, planner, args.seconds)
            ego, tracks = world.ego_track(), world.tracks()
            timing = timing or time_per_plan(plans[0][1])
            total[kind]["drives"] += 1
            total[kind].update(text.split()[0] for _, text in world.events)
            travelled[kind].append(float(np.hypot(*np.diff(ego.poses_world[:, :2], axis=0).T).sum()) / max(world.step * 0.1, 0.1))
            found = [logged_score(scene, poses, ego, tracks, step) for step, scene, poses, _ in plans[::2]]
            scores[kind] += [s for s in found if s is not None]
            if args.show and any(not text.startswith("route_end") for _, text in world.events):
                print(town, kind, seed, world.events, "|", plans[-1][3])
    print(f"ms per plan with 20 agents: median {timing[0]:.1f}, 90th percentile {timing[1]:.1f}" if timing else "no drive")
    for kind, counts in total.items():
        print(f"{kind:20s} {dict(counts)}  {np.mean(travelled[kind]):.1f} m/s  {_line(scores[kind])}")
    everything = [s for part in scores.values() for s in part]
    print(f"all: {_line(everything)}")


def _line(scores: list[np.ndarray]) -> str:
    names = ("PDMS", "NC", "DAC", "EP", "TTC", "C")
    means = 100.0 * np.mean(scores, axis=0) if scores else np.full(len(names), np.nan)
    return "  ".join(f"{name} {value:.1f}" for name, value in zip(names, means)) + f"  over {len(scores)} plans"


if __name__ == "__main__":
    main()
