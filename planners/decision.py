"""From the chosen proposal to its cause: what the expert's roll-outs and scores say decided the plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import points_to_frame, wrap_angle
from drive.core.types import AgentType, Privileged, Tracks
from drive.planners.idm import FRONT
from drive.planners.pdm_proposals import BRAKE, FOLLOW, WAIT, Proposals
from drive.planners.reasoning import STOP_SPEED, Cause, Decision, Lead
from drive.planners.route_frame import RouteFrame

Array = NDArray[np.float64]
LOOK_AHEAD = 40.0  # m of road that the text describes
PULL = 0.25  # m/s^2 by which an agent must hold the car back to be the reason
CROSSING = np.radians(25.0)  # a moving agent more askew to the path than this comes from the side
OFF_LANE = 1.3  # m from a path's target that make getting there a manoeuvre


def decide(
    scene: Privileged, frame: RouteFrame, agents: Tracks, proposals: Proposals, states: Array, best: int, score: float
) -> Decision:
    """The Decision behind proposal `best`; `states` (T, 11) its simulated motion, `agents` those the expert saw (step 0)."""
    speed, final = scene.ego.speed, float(np.hypot(states[-1, 3], states[-1, 4]))
    free = _like(proposals, path=0, family=FOLLOW, fraction=1.0)
    agent, side = _critical(proposals, best, free), int(proposals.side[best])
    lead = _lead(scene, frame, agents, proposals, 0 if side else int(proposals.path[best]), agent) if agent >= 0 else None
    cause = _cause(frame, proposals, best, lead, speed, final)
    if cause in (Cause.FREE, Cause.CURVE, Cause.END, Cause.RETURN, Cause.KEEP_CHANGE) and agent >= 0 and proposals.rollouts.lead[best] != agent:
        lead = None
    return Decision(
        cause=cause,
        command=scene.command,
        speed=speed,
        final_speed=final,
        travelled=float(np.hypot(*np.diff(states[:, :2], axis=0).T).sum()),
        road_turn=_turn(frame),
        junction_distance=_junction(frame),
        lead=lead,
        side=side,
        offset=frame.ego_d,
        score=score,
        proposal=best,
    )


def _like(proposals: Proposals, path: int, family: int, fraction: float) -> int:
    """The proposal of that path, family and fraction of the limit."""
    return int(np.flatnonzero((proposals.path == path) & (proposals.family == family) & (proposals.fraction == fraction))[0])


def _critical(proposals: Proposals, best: int, free: int) -> int:
    """The agent that held back the chosen roll-out, or, where it chose another speed or path, the full-speed one it was preferred to."""
    rollouts = proposals.rollouts
    for n in (best, free, _like(proposals, path=0, family=WAIT, fraction=1.0)):
        chosen_otherwise = proposals.side[best] != 0 or proposals.fraction[best] < 1.0 or proposals.target[best] != 0.0
        if rollouts.lead_pull[n] > PULL and (n == best or chosen_otherwise):
            return int(rollouts.lead[n])
    return -1


def _lead(scene: Privileged, frame: RouteFrame, agents: Tracks, proposals: Proposals, path: int, agent: int) -> Lead:
    """How the ego meets `agent` on `path`."""
    near, pose = proposals.table.near[path, agent], agents.poses_world[agent, 0]
    velocity = agents.velocity_world[agent, 0]
    speed = float(np.hypot(velocity[0], velocity[1]))
    local = points_to_frame(scene.ego.pose_world, pose[:2])
    seen = np.flatnonzero(np.isfinite(near))
    here = float(np.interp(frame.ego_s, frame.s, proposals.paths.along[path]))
    distance = float(np.hypot(*local)) - FRONT
    crossing = False
    if len(seen):
        i = min(int(np.searchsorted(proposals.paths.along[path], near[seen[0]])), len(frame.points) - 1)
        tilt = abs(float(wrap_angle(pose[2] - proposals.paths.points[path, i, 2])))
        crossing = speed > STOP_SPEED and seen[0] > 0 and tilt > CROSSING
        if not crossing:
            distance = float(near[seen[0]]) - here - FRONT
    bearing = float(np.arctan2(local[1], local[0]))
    return Lead(agent, AgentType(int(agents.types[agent])), max(distance, 0.0), speed, crossing, bearing)


def _cause(frame: RouteFrame, proposals: Proposals, best: int, lead: Lead | None, speed: float, final: float) -> Cause:
    side, rollouts = int(proposals.side[best]), proposals.rollouts
    if side:
        return Cause.PASS if lead is not None and abs(frame.ego_d - proposals.target[best]) > OFF_LANE else Cause.KEEP_CHANGE
    if proposals.family[best] == BRAKE and speed > STOP_SPEED and lead is not None:
        return Cause.EMERGENCY
    if lead is not None and (rollouts.lead_pull[best] > PULL or final < speed):
        if lead.crossing:
            return Cause.YIELD
        return Cause.STOP_BEHIND if lead.speed <= STOP_SPEED else Cause.FOLLOW
    if abs(frame.ego_d) > OFF_LANE:
        return Cause.RETURN
    if proposals.target[best] != 0.0 and lead is not None:
        return Cause.NUDGE
    if frame.ends and (len(frame.points) - 1) * frame.step - frame.ego_s < LOOK_AHEAD:
        return Cause.END
    if rollouts.curve_bound[best] and final < speed:
        return Cause.CURVE
    return Cause.FREE


def _window(frame: RouteFrame) -> tuple[int, int]:
    first = int(np.clip(frame.ego_s / frame.step, 0, len(frame.points) - 1))
    return first, min(first + int(LOOK_AHEAD / frame.step), len(frame.points) - 1)


def _turn(frame: RouteFrame) -> float:
    first, last = _window(frame)
    return float(frame.points[last, 2] - frame.points[first, 2])


def _junction(frame: RouteFrame) -> float:
    """m from the front bumper along the route to the next junction, 0 inside, inf where none is within the look-ahead."""
    first, last = _window(frame)
    if frame.junction[first]:
        return 0.0
    inside = np.flatnonzero(frame.junction[first : last + 1])
    return max(float(inside[0]) * frame.step - FRONT, 1.0) if len(inside) else np.inf
