"""A planner drives a town in closed loop, and is filmed."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from drive.core.files import atomic_write_bytes
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.types import Camera, Command, Plan, PlanStatus, Rollout, RolloutStatus
from drive.report.drive_pictures import Drive, busiest_step, drive_picture, drive_pictures
from drive.report.pictures import RGB
from drive.report.video import write_mp4
from drive.simulators.towns import load_town
from drive.simulators.traffic import DT
from drive.simulators.world import World

RUN_UP = 15  # steps driven before the planner takes over, so that its frames and its history are real ones
STEPS_PER_PLAN = 5  # 0.5 s
STATUS_OF = {PlanStatus.UNDECODABLE: RolloutStatus.UNDECODABLE, PlanStatus.FAILED: RolloutStatus.PLANNER_FAILED}
ENDS = {"off_road": "OFF THE ROAD", "stuck": "STUCK", "route_end": "END OF THE ROUTE"}
TIME_IS_UP = "TIME IS UP"


def closed_loop(planner: Planner | PrivilegedPlanner, town: str, kind: str, seed: int, seconds: float) -> Drive:
    """Let `planner` drive a shipped town for `seconds` s, with a new plan every 0.5 s, or until something happens.

    The status is UNDECODABLE or PLANNER_FAILED where there was no plan to drive, TIMED_OUT where the car got stuck, COMPLETED
    otherwise: the events say whether it hit something or left the road. Raises DataError where the town has no place for `kind`.
    """
    world = World(load_town(town), town, kind, seed)
    world.coast(RUN_UP)
    planner.reset()
    plans: list[tuple[int, Plan]] = []
    commands: list[Command] = []
    status = RolloutStatus.COMPLETED
    while not world.over and (world.step - RUN_UP + STEPS_PER_PLAN) * DT <= seconds + 1e-6:
        plan = _plan(planner, world)
        plans.append((world.step, plan))
        commands.append(world.command)
        if plan.trajectory is None:
            status = STATUS_OF[plan.status]
            break
        world.drive(plan.trajectory, STEPS_PER_PLAN)
    if "stuck" in [text for _, text in world.events]:
        status = RolloutStatus.TIMED_OUT
    rollout = Rollout(f"{town}-{kind}-{seed}", world.ego_track(), world.tracks(), tuple(plans), world.events, status, DT)
    end = _end(rollout)
    harmless = end in (TIME_IS_UP, ENDS["route_end"])
    return Drive(rollout, planner.name, world.road_map, world.route.path, tuple(commands), RUN_UP, end, not harmless)


def _plan(planner: Planner | PrivilegedPlanner, world: World) -> Plan:
    if isinstance(planner, PrivilegedPlanner):
        return planner.plan_privileged([world.privileged()])[0]
    return planner.plan([world.observation((Camera.front(),))])[0]


def _end(rollout: Rollout) -> str:
    """Why the drive ended, in words for the last picture."""
    if rollout.plans and rollout.plans[-1][1].trajectory is None:
        return f"PLAN {rollout.plans[-1][1].status.value.upper()}"
    if not rollout.events:
        return TIME_IS_UP
    first = min(step for step, _ in rollout.events)
    return ", ".join(ENDS.get(text, text.upper().replace("-", " ")) for step, text in rollout.events if step == first)


def drive_town(
    planner: Planner | PrivilegedPlanner, town: str = "test_c", kind: str = "free", seed: int = 0, seconds: float = 20.0
) -> tuple[Rollout, Iterator[RGB]]:
    """Drive as `closed_loop` does; the Rollout, and its pictures (576, 960, 3) at 10 per second, drawn as they are asked for."""
    drive = closed_loop(planner, town, kind, seed, seconds)
    return drive.rollout, drive_pictures(drive)


def make_video(
    planner: Planner | PrivilegedPlanner,
    path: Path | str,
    town: str = "test_c",
    kind: str = "free",
    seed: int = 0,
    seconds: float = 20.0,
) -> Path:
    """Drive, write an mp4 to `path` and, with the suffix .png beside it, the moment with most to see; the mp4's path."""
    path, drive = Path(path), closed_loop(planner, town, kind, seed, seconds)
    still = BytesIO()
    Image.fromarray(drive_picture(drive, busiest_step(drive))).save(still, "png", optimize=True)
    atomic_write_bytes(path.with_suffix(".png"), still.getvalue())
    return write_mp4(drive_pictures(drive), path, 1.0 / DT)
