"""The expert: propose, simulate, score; the teacher of supervised fine-tuning.

After PDM-Closed (Dauner et al. 2023, "Parting with Misconceptions about Learning-based Vehicle Motion Planning"). Deviations: vehicles are forecast
along their lanes; there are paths into same-direction neighbour lanes, proposals that wait for crossing agents, and hard stops; the speed is bounded
by the road's curvature; ties and near-ties are broken towards the route lane's centre. As there, the plan is the motion that the tracker is given: the
simulated one, tracked again by whoever drives or scores it, would carry the tracker's lag twice (97.2 against 86.1 of 100 points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.geometry import relative
from drive.core.types import Frame, Plan, Privileged, Trajectory
from drive.metrics.pdms import PdmScores, score_pdms
from drive.metrics.pdms_scene import PdmScene
from drive.planners.decision import decide
from drive.planners.forecast import Forecast, forecast, present_agents
from drive.planners.idm import HORIZON, STEP_S, IdmConfig
from drive.planners.lane_index import lane_index
from drive.planners.pdm_proposals import BRAKE, ProposalConfig, Proposals, propose
from drive.planners.reasoning import Decision, describe
from drive.planners.route_frame import RouteFrame, route_frame

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PdmConfig:
    """Everything that shapes the expert's choice."""

    idm: IdmConfig = field(default_factory=lambda: IdmConfig(min_gap=3.5))
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    agent_radius: float = 80.0  # m; agents farther away are not seen
    offset_fee: float = 0.02  # score per metre from the route lane's centre, on the way and at the end
    change_fee: float = 0.02  # score that a path into another lane must gain
    cut_up_fee: float = 0.3  # score of a lane change that presses somebody behind
    squeeze_fee: float = 0.3  # score of a motion that hits or just misses somebody in the forecast; above brake_fee
    brake_fee: float = 0.2  # score that a stop which heeds nothing must gain over driving with foresight
    jerk_fee: float = 0.002  # score per m/s^2 of the hardest braking
    impact_fee: float = 0.01  # score per m/s at which the ego hits something
    soft_weight: float = 0.1  # of the score without its drivable-area factor, which leads a car that is off the road back to it


class PdmExpert:
    """Plans from the ground truth of the present alone; never reads the log's future."""

    name = "pdm_expert"

    def __init__(self, config: PdmConfig | None = None) -> None:
        self.config = config or PdmConfig()
        self.last_decisions: list[Decision] = []  # why, one per scene of the last call

    def reset(self) -> None:
        """Forget the last decisions."""
        self.last_decisions = []

    def plan_privileged(self, scenes: Sequence[Privileged]) -> list[Plan]:
        """One Plan of 50 poses, 0.1 s apart, scored by simulation, with its reasoning, per scene."""
        planned = [self._plan(scene) for scene in scenes]
        self.last_decisions = [decision for _, decision in planned]
        return [plan for plan, _ in planned]

    def _plan(self, scene: Privileged) -> tuple[Plan, Decision]:
        start = perf_counter()
        config = self.config
        index = lane_index(scene.road_map)
        frame = route_frame(scene, index)
        agents, acceleration = present_agents(scene, config.agent_radius)
        future = forecast(agents, acceleration, index, HORIZON + 1, STEP_S)
        proposals = propose(frame, scene.ego.speed, future, agents.size, config.proposals, config.idm)
        # progress along the samples of the frame: the whole route may cross itself
        local = replace(scene, agents=agents, agent_acceleration=acceleration, centerline_world=frame.points)
        scores = _score(local, future, proposals)
        best = int(np.argmax(utility(scores, proposals, frame, config)))
        decision = decide(scene, frame, agents, proposals, scores.states[best], best, float(scores.score[best]))
        trajectory = Trajectory(relative(scene.ego.pose_world, proposals.rollouts.poses_world[best, 1:]), STEP_S, Frame.EGO)
        return Plan(trajectory, reasoning=describe(decision), latency_s=perf_counter() - start), decision


def _score(scene: Privileged, future: Forecast, proposals: Proposals) -> PdmScores:
    """PDM scores of the proposals, simulated from the ego's true state among the forecast agents."""
    heading = future.poses_world[..., 2]
    velocity = future.speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    present = np.ones(heading.shape, bool)
    view = PdmScene.from_privileged(scene, future.poses_world, velocity, present)
    return score_pdms([view], [relative(scene.ego.pose_world, proposals.rollouts.poses_world[:, 1:])], STEP_S, against="group")[0]


def utility(scores: PdmScores, proposals: Proposals, frame: RouteFrame, config: PdmConfig) -> Array:
    """(N,) what the expert maximises: PDMS, less small fees that break near-ties.

    Where every proposal scores 0 it falls back on what still differs: progress without the drivable-area factor, then the speed of the impact.
    """
    progress = scores.progress_raw / max(float(scores.progress_raw.max()), 5.0)
    soft = scores.nc * (5.0 * progress + 5.0 * scores.ttc + 2.0 * scores.comfort) / 12.0
    away = _mean_offset(frame.points, proposals.rollouts.poses_world)
    changes = (proposals.side != 0) & (np.abs(frame.ego_d - proposals.target) > 1.0)
    braking = np.maximum(-np.diff(proposals.rollouts.speed, axis=1).min(axis=1) / STEP_S, 0.0)
    fee = 0.5 * config.offset_fee * (away + np.abs(proposals.target)) + changes * (config.change_fee + config.cut_up_fee * proposals.rollouts.pressed) + config.jerk_fee * braking
    fee = fee + config.brake_fee * (proposals.family == BRAKE) + config.squeeze_fee * proposals.rollouts.squeezed
    hit = np.minimum(np.round(scores.collision_time / STEP_S), scores.states.shape[1] - 1).astype(int)
    impact = scores.states[np.arange(len(hit)), hit, 3]
    return scores.score + config.soft_weight * soft - np.where(scores.nc < 1.0, config.impact_fee * (1.0 + impact), fee)


@njit(cache=True)
def _mean_offset(route: Array, poses: Array) -> Array:
    """(N,) mean distance in m of poses (N, T, 3) from the route (S, 3); every fifth pose is looked at."""
    out = np.empty(len(poses))
    for n in range(len(poses)):
        total, count, at = 0.0, 0, 0
        for k in range(0, poses.shape[1], 5):
            x, y = poses[n, k, 0], poses[n, k, 1]
            best = np.inf
            for i in range(at, len(route)):  # poses never go back
                square = (route[i, 0] - x) ** 2 + (route[i, 1] - y) ** 2
                if square < best:
                    best, at = square, i
            total += abs(-np.sin(route[at, 2]) * (x - route[at, 0]) + np.cos(route[at, 2]) * (y - route[at, 1]))
            count += 1
        out[n] = total / count
    return out
