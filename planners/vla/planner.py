"""The VLA as a Planner: fast, slow, or as the model chooses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from drive.core.errors import ConfigError
from drive.core.seeds import torch_rng
from drive.core.types import Observation, Plan, PlanStatus, Trajectory
from drive.planners.vla.decode import Prefix
from drive.planners.vla.policy import Decoded, VlaPolicy

MODES = ("fast", "slow", "adaptive")
PATHS = ("tokens", "state")  # who says where the car drives


def check_settings(mode: str, temperature: float, blur: float = 0.0, path: str = "tokens") -> None:
    """Raises ConfigError that tells all that is wrong with a planner's settings."""
    faults = [] if mode in MODES else [f"planner.mode={mode} is none of {', '.join(MODES)}"]
    if not temperature >= 0.0:
        faults.append(f"planner.temperature={temperature}: give 0 (greedy) or more")
    if path not in PATHS:
        faults.append(f"planner.path={path} is none of {', '.join(PATHS)}")
    if not blur >= 0.0:
        faults.append(f"planner.blur={blur}: give metres, 0 or more")
    if blur > 0.0 and temperature > 0.0:
        faults.append("planner.blur chooses greedily: set planner.temperature=0")
    if faults:
        raise ConfigError("; ".join(faults))


class VlaPlanner:
    """Plans with a VlaPolicy; greedy unless a temperature is given. Latency is the batch's wall clock over its size.

    past False hides from the model how the car has moved, all but its speed: for models trained with `stage.past_dropout`. blur: see `VlaPolicy.sample`.
    path "state": the tokens say how far the car goes, the model's state where; see route_head.py.
    """

    def __init__(self, policy: VlaPolicy, mode: str = "adaptive", temperature: float = 0.0, seed: int = 0, past: bool = True, blur: float = 0.0, path: str = "tokens") -> None:
        check_settings(mode, temperature, blur, path)
        if path == "state" and policy.route_head is None:
            raise ConfigError("planner.path=state needs a checkpoint with a route head: one of SFT with stage.dense_weight above 0")
        self.policy, self.mode, self.temperature, self.seed, self.past, self.blur, self.path = policy, mode, temperature, seed, past, blur, path
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
        prefix = self.policy.prefix(self.policy.encode(observations, self.past), state=self.path == "state")
        answers = self.policy.sample(prefix, 1, self.mode, self.temperature, generator, self.blur)
        decoded = self.policy.decode(answers)
        if self.path == "state":
            decoded = self._along_route(decoded, prefix, observations)
        latency = (time.perf_counter() - start) / len(observations)
        log_probs = answers.log_probs.sum(1).tolist()
        plans = []
        for item, log_prob in zip(decoded, log_probs):
            trajectory = None if item.poses_ego is None else Trajectory(item.poses_ego, self.policy.codebook.dt)
            status = PlanStatus.OK if trajectory else PlanStatus.UNDECODABLE
            plans.append(Plan(trajectory, status, item.reasoning, item.mode, item.tokens, log_prob, latency_s=latency))
        return plans

    def _along_route(self, decoded: Sequence[Decoded], prefix: Prefix, observations: Sequence[Observation]) -> list[Decoded]:
        head = self.policy.route_head
        assert head is not None and prefix.state is not None
        told = head.read(prefix.state, [o.command for o in observations])
        rows = zip(decoded, *told, observations)
        return [
            item if item.poses_ego is None else replace(item, poses_ego=head.follow(item.poses_ego, offsets, nearness, o.speed, self.policy.codebook.dt))
            for item, offsets, nearness, o in rows
        ]
