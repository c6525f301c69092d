"""Training data from the closed loop: what a planner meets when it drives itself, with what a teacher would do there.

DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686): teacher and planner take turns at the wheel, so that the set holds the states that
the planner's own mistakes lead to, and the labels are the teacher's at every one of them. Each drive becomes a recorded log (`dataset=cache`).
The bars that stand for red lights and stop signs to the teacher are recorded among the others: a reward that knows boxes knows them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drive.benchmarks.carla_drive import DriveConfig, ask, with_lights
from drive.core.errors import DriveError
from drive.core.geometry import project
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.seeds import numpy_rng
from drive.core.types import Plan, PlanStatus, Trajectory
from drive.datasets.recording import LogRecorder
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_routes import CarlaRoute
from drive.simulators.carla_session import Session
from drive.simulators.carla_simulator import PLAN_S, CarlaSimulator
from drive.simulators.carla_town import ClientTown

TURN_S = (2.0, 5.0)  # s at the wheel
BESIDE, BACK_S = 2.5, 4.0  # m beside the route from which the teacher takes over, and for how many seconds
OFF, STUCK_S, LONGEST_S = 8.0, 45.0, 150.0  # m beside the route, s of standing, and s after which a drive ends
SPEED, SIDEWAYS = (0.6, 1.3), 0.5  # share of the planned speed, and m to either side: a disturbed plan of the teacher
STILL = 0.1  # m/s
WAITED_S, EVERY = 2.0, 12  # s of waiting after which one step in so many is taught: long waits would drown the few moments of setting off


@dataclass(frozen=True)
class Collected:
    """One drive."""

    steps: int
    why: str  # it ended
    completion: float  # share of the route
    unanswered: int  # turns that the student spent on no plan, which the teacher drove


def collect_route(
    session: Session,
    route: CarlaRoute,
    teacher: PrivilegedPlanner,
    student: Planner | None,
    share: float,
    config: DriveConfig,
    add: Callable[..., Any],
    out: Path,
    log_id: str,
    split: str,
) -> Collected:
    """Drive `route` and record it as log `log_id` of the cache `out`; the student, or without one the teacher disturbed, drives `share` of the time.

    A drive ends at the route's end, at a collision, when it is lost or stuck, or after LONGEST_S. `add` as for `drive_route`.
    Raises DriveError where the town is not there, DataError where the route does not fit it or `out` cannot take the log.
    """
    teacher.reset()
    if student is not None:
        student.reset()
    rng = numpy_rng(config.seed, "carla-collect", route.id)
    session.load(route.town)
    town = ClientTown(session.world)
    simulator = CarlaSimulator(session, town.road_map, plan_route(town.road_map, route.keypoints, route.yaw), config.cameras, float(route.keypoints[0, 2]))
    company = add(session, town, simulator, route, config)
    vehicle = simulator.ego.vehicle
    recorder = LogRecorder(out, log_id, "carla", split, PLAN_S, (vehicle.length, vehicle.width, vehicle.height), config.cameras, town.road_map, simulator.route.lane_ids)
    taught, until, still, steps, why, unanswered = True, 0.0, 0.0, 0, "", 0
    try:
        while not why:
            plan = ask(teacher, simulator, town)
            if plan.trajectory is None:
                raise DriveError(f"route {route.id}: the teacher {teacher.name} gave no plan ({plan.reasoning or plan.status.value})")
            seen = simulator.observation()
            decisions = getattr(teacher, "last_decisions", None)
            hard = bool(decisions[-1].is_complex) if decisions else bool(plan.reasoning)
            state = simulator.ego.ego_state(simulator.state, simulator.time_s)
            waits = still > WAITED_S and float(plan.trajectory.poses[-1, 0]) < STILL and steps % EVERY > 0
            there = with_lights(simulator.privileged(), simulator, town).agents
            recorder.add(state, there, seen.command, seen.images[:, -1], None if waits else plan, hard)
            steps += 1
            beside = abs(float(project(simulator.route.path[:, :2], simulator.state[:2])[1]))
            if beside > BESIDE:
                taught, until = True, simulator.time_s + BACK_S
            elif simulator.time_s >= until:
                taught, until = bool(rng.random() >= share), simulator.time_s + rng.uniform(*TURN_S)
            driven = plan if taught else _disturbed(plan.trajectory, float(simulator.state[3]), rng) if student is None else ask(student, simulator, None)
            if driven.status is PlanStatus.FAILED:
                raise DriveError(f"route {route.id}: the planner failed after {simulator.time_s:g} s ({driven.reasoning})")
            unanswered += driven.trajectory is None
            for _ in simulator.follow(plan if driven.trajectory is None else driven):
                company.before_tick()
                simulator.advance()
            simulator.look()
            still = still + PLAN_S if float(simulator.state[3]) < STILL else 0.0
            why = _over(simulator, beside, still)
    finally:
        company.close()
        session.clear()
    if steps > 1:  # a log has at least two
        recorder.close()
    return Collected(steps, why, min(simulator.route_s / simulator.route.length, 1.0), unanswered)


def _over(simulator: CarlaSimulator, beside: float, still: float) -> str:
    """Why the drive ends here, or ""."""
    ends = {
        "route driven": simulator.route_s > simulator.route.length - 5.0,
        "collision": len(simulator.ego.collisions) > 0,
        "lost": beside > OFF,
        "stuck": still > STUCK_S,
        "time is up": simulator.time_s >= LONGEST_S,
    }
    return next((why for why, true in ends.items() if true), "")


def _disturbed(plan: Trajectory, speed: float, rng: np.random.Generator) -> Plan:
    """The plan faster or slower and to one side; a car that hardly moves cannot drift."""
    poses = plan.poses.copy()
    poses[:, :2] *= rng.uniform(*SPEED)
    poses[:, 1] += rng.uniform(-SIDEWAYS, SIDEWAYS) * np.minimum(plan.times / 2.0, 1.0) * min(speed / 4.0, 1.0)
    return Plan(Trajectory(poses, plan.dt))
