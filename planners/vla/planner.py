"""The VLA as a Planner: fast, slow, or as the model chooses."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from drive.core.errors import ConfigError
from drive.core.seeds import torch_rng
from drive.core.types import Observation, Plan, PlanStatus, Trajectory
from drive.planners.vla.policy import VlaPolicy

MODES = ("fast", "slow", "adaptive")


def check_settings(mode: str, temperature: float) -> None:
    """Raises ConfigError that tells all that is wrong with a planner's settings."""
    faults = [] if mode in MODES else [f"planner.mode={mode} is none of {', '.join(MODES)}"]
    if not temperature >= 0.0:
        faults.append(f"planner.temperature={temperature}: give 0 (greedy) or more")
    if faults:
        raise ConfigError("; ".join(faults))


class VlaPlanner:
    """Plans with a VlaPolicy; greedy unless a temperature is given. Latency is the batch's wall clock over its size.

    past False hides from the model how the car has moved, all but its speed: for models trained with `stage.past_dropout`.
    """

    def __init__(self, policy: VlaPolicy, mode: str = "adaptive", temperature: float = 0.0, seed: int = 0, past: bool = True) -> None:
        check_settings(mode, temperature)
        self.policy, self.mode, self.temperature, self.seed, self.past = policy, mode, temperature, seed, past
        self.name = "vla" if mode == "adaptive" else f"vla_{mode}"
        self._calls = 0

    def reset(self) -> None:
        """Start the random stream anew."""
        self._calls = 0

    @torch.no_grad()
    def plan(self, observations: Sequence[Observation]) -> list[Plan]:
        """One Plan per Observation, batched."""
        self.policy.model.eval()
        start = time.perf_counter()
        generator = torch_rng(self.seed, "plan", self._calls, device=str(self.policy.device)) if self.temperature else None
        self._calls += 1
        prefix = self.policy.prefix(self.policy.encode(observations, self.past))
        answers = self.policy.sample(prefix, 1, self.mode, self.temperature, generator)
        decoded = self.policy.decode(answers)
        latency = (time.perf_counter() - start) / len(observations)
        log_probs = answers.log_probs.sum(1).tolist()
        plans = []
        for item, log_prob in zip(decoded, log_probs):
            trajectory = None if item.poses_ego is None else Trajectory(item.poses_ego, self.policy.codebook.dt)
            status = PlanStatus.OK if trajectory else PlanStatus.UNDECODABLE
            plans.append(Plan(trajectory, status, item.reasoning, item.mode, item.tokens, log_prob, latency_s=latency))
        return plans
