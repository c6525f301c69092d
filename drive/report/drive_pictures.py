"""Pictures of a closed-loop drive: camera and bird's-eye view with the plan in force, and a bar with speed, command and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from drive.core.geometry import arc_length, relative
from drive.core.roadmap import RoadMap
from drive.core.types import Array, Camera, Command, Rollout
from drive.report.pictures import ALARM, INK, PAPER, RGB, Instant, Ribbon, ScenePainter, font, painter
from drive.report.word_bar import MODE_COLOUR, VIEW, command_badge, word_bar

METRES = 80.0  # across the bird's-eye view
HOLD_S = 1.5  # s that the last picture stands


@dataclass(frozen=True)
class Drive:
    """A closed-loop drive with what is needed to draw it."""

    rollout: Rollout
    planner: str
    road_map: RoadMap
    route_path: Array  # (N, 3) world
    commands: tuple[Command, ...]  # one per plan
    start: int  # step at which the planner took over
    end: str  # why it ended, as written on the last picture
    fault: bool  # whether that is the planner's fault

    @property
    def distance(self) -> float:
        """m driven by the planner."""
        return float(arc_length(self.rollout.ego.poses_world[self.start :])[-1])

    @property
    def steps(self) -> range:
        """Steps to draw: from the planner's first to the first event, or to the end of the drive."""
        last = min((step for step, _ in self.rollout.events), default=len(self.rollout.ego.poses_world) - 1)
        return range(min(self.start, last), last + 1)


def drive_pictures(drive: Drive) -> Iterator[RGB]:
    """Pictures (VIEW + BAR, 2 * VIEW, 3), one per step; the last one says why the drive ended, and stands for HOLD_S."""
    for step in drive.steps:
        yield drive_picture(drive, step)
    last = _banner(drive_picture(drive, drive.steps[-1]), drive.end, ALARM if drive.fault else PAPER)
    for _ in range(round(HOLD_S / drive.rollout.dt)):
        yield last


def drive_picture(drive: Drive, step: int) -> RGB:
    """The drive at one step, (VIEW + BAR, 2 * VIEW, 3)."""
    rollout, pose = drive.rollout, drive.rollout.ego.poses_world[step]
    scene: ScenePainter = painter(drive.road_map, True)
    seen = rollout.agents.valid[:, step]
    agents = rollout.agents.poses_world[seen, step], rollout.agents.size[seen], rollout.agents.types[seen]
    now = Instant(pose, *agents, drive.route_path)
    at = max((k for k, (start, _) in enumerate(rollout.plans) if start <= step), default=None)
    ribbons = [] if at is None else _ribbons(drive, at, pose)
    front = scene.camera(Camera.front(VIEW, VIEW), now, ribbons)
    above = scene.above(now, ribbons, VIEW, METRES)
    return np.vstack([np.hstack([front, above]), _bar(drive, step, at)])


def busiest_step(drive: Drive) -> int:
    """The step with most to see: other road users within 40 m ahead while the car moves; a plan is fresh there."""
    rollout = drive.rollout

    def sights(step: int) -> tuple[int, float]:
        seen = rollout.agents.valid[:, step]
        place = relative(rollout.ego.poses_world[step], rollout.agents.poses_world[seen, step])
        ahead = (place[:, 0] > 4.0) & (place[:, 0] < 40.0) & (np.abs(place[:, 1]) < 15.0)
        speed = float(rollout.ego.velocity_ego[step, 0])
        return (int(ahead.sum()) if speed > 3.0 else -1), speed

    fresh = [step for step, _ in rollout.plans if step in drive.steps]
    return max(fresh, key=sights, default=drive.steps[0])


def _ribbons(drive: Drive, at: int, pose: Array) -> list[Ribbon]:
    """What is left of plan `at`, a pose every 0.5 s, for the ego at `pose` (3,)."""
    start, plan = drive.rollout.plans[at]
    if plan.trajectory is None:
        return []
    every = max(round(0.5 / plan.trajectory.dt), 1)
    world = plan.trajectory.to_world(drive.rollout.ego.poses_world[start]).poses[every - 1 :: every]
    left = relative(pose, world)
    left = left[left[:, 0] > 0.5]
    return [Ribbon(left)] if len(left) else []


def _banner(picture: RGB, text: str, colour: tuple[int, int, int]) -> RGB:
    canvas, face, middle = Image.fromarray(picture), font(22, bold=True), picture.shape[1] // 2
    draw, half = ImageDraw.Draw(canvas), round(face.getlength(text)) // 2 + 22
    draw.rounded_rectangle((middle - half, 22, middle + half, 66), 10, colour)
    draw.text((middle, 44), text, INK, face, anchor="mm")
    return np.asarray(canvas)


def _bar(drive: Drive, step: int, at: int | None) -> RGB:
    """(BAR, 2 * VIEW, 3): speed at `step`, and command, mode and reasoning of plan number `at`."""
    speed = float(np.hypot(*drive.rollout.ego.velocity_ego[step]))
    facts = f"{drive.planner}   {drive.road_map.name}   {(step - drive.start) * drive.rollout.dt:4.1f} s"
    if at is None:
        return word_bar(speed, facts, (), "")
    plan = drive.rollout.plans[at][1]
    badges = [command_badge(drive.commands[at])] + ([(f"{plan.mode}, {plan.generated_tokens} tokens", MODE_COLOUR)] if plan.mode else [])
    return word_bar(speed, facts, [*badges, (f"{1e3 * plan.latency_s:.0f} ms", (58, 64, 76))], plan.reasoning)
