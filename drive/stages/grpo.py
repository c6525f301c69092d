"""GRPO of the VLA on driving scores (AutoVLA, arXiv 2506.13757, section 3.4; GRPO: DeepSeekMath, arXiv 2402.03300, equation 3).

    A_ij = (r_ij - mean_j r_ij) / max(std_j r_ij, 0.05)                  advantages within the group of scene i
    L    = - min(rho A, clip(rho, 1 - eps_c, 1 + eps_c) A) + beta KL(pi || pi_ref)   per token, rho = pi / pi_old

Deviations from the paper, each a setting or stated here: the token losses of an answer are summed and divided by one constant
(the length of a fast answer) rather than by the answer's own length, which would favour long wrong answers (Dr. GRPO,
arXiv 2503.20783); scenes whose G rewards are all equal carry no signal: they are left out and counted; the thinking fee counts
tokens (drive/rewards/pdms.py); probabilities are those of the constrained decoder, normalised over what the grammar allows;
checkpoints hold the mean of the weights over the steps (average.py), roll-outs come from the weights themselves.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from drive.core.checks import above, at_least
from drive.core.runs import RunFolder
from drive.core.seeds import torch_rng
from drive.core.types import Scenario
from drive.planners.vla.checkpoint import save_policy
from drive.planners.vla.decode import Answers
from drive.planners.vla.encode import EncodedPrompt
from drive.planners.vla.grammar import Kind
from drive.planners.vla.policy import VlaPolicy
from drive.rewards.pdms import RewardBatch, RewardConfig, pdms_reward
from drive.stages.average import WeightAverage
from drive.stages.loop import OptimConfig, StageConfig, apply_gradients, batch_indices, optimizer_at, run_loop
from drive.stages.scenes import SceneStore, TeacherStore
from drive.stages.sft import validate


@dataclass(frozen=True)
class GrpoConfig(StageConfig):
    """Settings of GRPO."""

    steps: int = 300
    scenes: int = 16  # prompts of one roll-out
    group: int = 8  # G, answers for each prompt
    updates: int = 1  # optimiser steps on one roll-out
    micro_batch: int = 16  # scenes of one forward pass with gradients; they are accumulated over the roll-out
    temperature: float = 1.0
    clip: float = 0.2  # eps_c
    kl: float = 0.02  # beta
    normalise_std: bool = True  # divide advantages by the group's standard deviation
    average: bool = True  # validate and keep the mean of the weights over the steps, not the last ones
    log_every: int = 5
    validate_every: int = 100
    checkpoint_every: int = 100
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=1e-4, weight_decay=0.0, warmup_steps=10, final_lr_share=1.0))

    def _faults(self) -> list[str]:
        group = at_least(2, self, "group")  # one answer has nothing to be better than
        return super()._faults() + at_least(1, self, "scenes", "updates", "micro_batch") + group + at_least(0, self, "kl") + above(0.0, self, "temperature", "clip")


STD_FLOOR = 0.05  # of a reward of 0-1: a group that differs by its thinking fee alone must not push as hard as one that crashed


def group_advantages(rewards: NDArray[np.float64], normalise_std: bool = True) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(advantages (B, G), keep (B,)) of rewards (B, G); keep is False where all rewards of a scene are equal."""
    centred = rewards - rewards.mean(1, keepdims=True)
    std = rewards.std(1, keepdims=True)
    return (centred / np.maximum(std, STD_FLOOR) if normalise_std else centred), (std[:, 0] > 1e-8)


def clipped_objective(log_probs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float) -> torch.Tensor:
    """(N, L) clipped surrogate to maximise; log_probs, old (N, L), advantages (N,)."""
    ratio = (log_probs - old).exp()
    advantage = advantages[:, None]
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def kl_k3(log_probs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """(N, L) unbiased, non-negative estimate of KL(pi || ref) on tokens drawn from pi: exp(d) - d - 1, d = log ref - log pi."""
    difference = reference - log_probs
    return difference.exp() - difference - 1.0


def grpo_loss(
    log_probs: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, kinds: torch.Tensor, advantages: torch.Tensor, length: int, config: GrpoConfig
) -> tuple[torch.Tensor, dict[str, float]]:
    """Scalar loss of N answers, and sums over their free tokens for the log. `length` is the constant divisor of an answer's token sum."""
    free = (kinds != int(Kind.PAD)) & (kinds != int(Kind.FORCED))
    objective = clipped_objective(log_probs, old, advantages, config.clip)
    divergence = kl_k3(log_probs, reference)
    per_answer = ((config.kl * divergence - objective) * free).sum(1) / length
    clipped = ((log_probs - old).exp() - 1.0).abs() > config.clip
    return per_answer.mean(), {
        "kl": float((divergence.detach() * free).sum()),
        "clip_share": float((clipped & free).sum()),
        "free": int(free.sum()),
    }


class Reference:
    """The policy at the start: a frozen copy of what is trained (adapters), or of the whole model."""

    def __init__(self, policy: VlaPolicy) -> None:
        self.policy = policy
        # Adapters that hold what SFT learnt cannot be switched off: then the start is those adapters, kept as a copy.
        self.frozen = {name: value.detach().clone() for name, value in policy.model.named_parameters() if value.requires_grad} if policy.config.lora_rank else None
        self.copy = None if self.frozen is not None else copy.deepcopy(policy.model).eval().requires_grad_(False)

    @contextmanager
    def active(self):
        """Inside, `policy.model` computes as the reference does."""
        live = self.policy.model
        if self.copy is not None:
            self.policy.model = self.copy
            try:
                yield
            finally:
                self.policy.model = live
            return
        assert self.frozen is not None
        trained = {name: value for name, value in live.named_parameters() if name in self.frozen}
        kept = {name: value.detach().clone() for name, value in trained.items()}
        try:
            with torch.no_grad():
                for name, value in trained.items():
                    value.copy_(self.frozen[name])
            yield
        finally:
            with torch.no_grad():
                for name, value in trained.items():
                    value.copy_(kept[name])


@dataclass(frozen=True)
class Rollouts:
    """G answers for each of B scenes, with their rewards."""

    prompts: list[EncodedPrompt]
    answers: Answers
    reward: RewardBatch
    undecodable: int


@torch.no_grad()
def roll_out(policy: VlaPolicy, store: SceneStore, index: NDArray[np.int64], config: GrpoConfig, reward: RewardConfig, step: int) -> Rollouts:
    """Sample and score; dropout is off, and the random stream is the step's own."""
    policy.model.eval()
    prompts = [store.prompt(int(i)) for i in index]
    generator = torch_rng(config.seed, "rollout", step, device=str(policy.device))
    answers = policy.sample(policy.prefix(prompts), config.group, "adaptive", config.temperature, generator)
    decoded = policy.decode(answers)
    shape = (len(index), config.group)
    good = np.array([d.poses_ego is not None for d in decoded]).reshape(shape)
    still = np.zeros((policy.grammar.plan_tokens, 3))  # stands in for an undecodable plan, whose score is set to 0
    poses = np.stack([d.poses_ego if d.poses_ego is not None else still for d in decoded]).reshape(*shape, -1, 3)
    thought = np.array([d.thought for d in decoded]).reshape(shape)
    scenes = [store.pdm_scene(int(i)) for i in index]
    scored = pdms_reward(scenes, list(poses), good, thought, policy.codebook.dt, reward)
    return Rollouts(prompts, answers, scored, int((~good).sum()))


def update(policy: VlaPolicy, reference: Reference, rollouts: Rollouts, optimizer: torch.optim.Optimizer, config: GrpoConfig) -> dict[str, float]:
    """Optimise on one roll-out; what to log. Scenes without variance are skipped."""
    advantages, keep = group_advantages(rollouts.reward.total, config.normalise_std)
    logs = {"zero_variance": float((~keep).mean())}
    if not keep.any():
        return logs
    kept = np.flatnonzero(keep)
    parts = [_part(policy, rollouts, kept[at : at + config.micro_batch], advantages) for at in range(0, len(kept), config.micro_batch)]
    parameters = policy.parameters()
    with torch.no_grad(), reference.active():
        references = [policy.log_probs(policy.prefix(p.prompts), p.ids, p.kinds, config.group, config.temperature)[0] for p in parts]
    for _ in range(config.updates):
        sums: Counter[str] = Counter()
        for part, ref in zip(parts, references):
            log_probs, entropy = policy.log_probs(policy.prefix(part.prompts), part.ids, part.kinds, config.group, config.temperature)
            loss, terms = grpo_loss(log_probs, part.old, ref, part.kinds, part.advantages, policy.grammar.fast_length, config)
            # Scenes left out still count in the mean: a batch with little signal makes a small step.
            (loss * len(part.prompts) / len(keep)).backward()
            action = part.kinds == int(Kind.ACTION)
            sums.update({**terms, "entropy": float(entropy.detach()[action].sum()), "actions": int(action.sum())})
        logs["gradient_norm"] = apply_gradients(parameters, optimizer, config.optim.clip_norm)
    logs |= {name: sums[name] / max(sums["free"], 1) for name in ("kl", "clip_share")}
    return logs | {"entropy": sums["entropy"] / max(sums["actions"], 1)}


@dataclass(frozen=True)
class Part:
    """What one forward pass with gradients takes of a roll-out."""

    prompts: list[EncodedPrompt]
    ids: torch.Tensor  # (N, L), N = scenes x group
    kinds: torch.Tensor  # (N, L)
    old: torch.Tensor  # (N, L) log-probabilities
    advantages: torch.Tensor  # (N,)


def _part(policy: VlaPolicy, rollouts: Rollouts, scenes: NDArray[np.int64], advantages: NDArray[np.float64]) -> Part:
    group = advantages.shape[1]
    rows = torch.from_numpy((scenes[:, None] * group + np.arange(group)).reshape(-1)).to(policy.device)
    answers = rollouts.answers
    advantage = torch.tensor(advantages[scenes].reshape(-1), dtype=torch.float32, device=policy.device)
    return Part([rollouts.prompts[int(i)] for i in scenes], answers.ids[rows], answers.kinds[rows], answers.log_probs[rows], advantage)


def train_grpo(
    run: RunFolder,
    policy: VlaPolicy,
    train: Sequence[Scenario],
    val: Sequence[Scenario] | None,
    config: GrpoConfig,
    reward: RewardConfig,
    start_policy: Callable[[], VlaPolicy] | None = None,
    resume_from: tuple[int, Path] | None = None,
) -> VlaPolicy:
    """Train `policy` from where it stands, and leave it as the last checkpoint has it.

    start_policy: loads the reference when a resumed policy has left it.
    """
    store = SceneStore(train, policy, config.max_scenes)
    val_store = TeacherStore(val, policy, config.validate_scenes) if val is not None and config.validate_scenes else None
    reference = Reference(start_policy() if start_policy is not None and resume_from is not None else policy)
    reference.policy = policy
    policy.route_head = None  # what it read off the states, they will no longer tell
    optimizer, start = optimizer_at(policy.model, config.optim, resume_from)
    average = WeightAverage(policy.parameters(), resume_from[1] if resume_from is not None else None) if config.average else None

    def kept():
        return average.applied() if average is not None else nullcontext()

    def save(folder: Path) -> None:
        with kept():
            save_policy(policy, folder)
        if average is not None:
            average.save(folder)

    def check() -> dict[str, float]:
        assert val_store is not None
        with kept():
            return validate(policy, val_store)

    def step_fn(step: int) -> dict[str, float]:
        clock = time.perf_counter()
        index = batch_indices(len(store), config.scenes, step, config.seed)
        rollouts = roll_out(policy, store, index, config, reward, step)
        sampled = time.perf_counter()
        logs = update(policy, reference, rollouts, optimizer, config)
        if average is not None:
            average.add(step + 1)
        lengths = rollouts.answers.lengths
        slow = rollouts.answers.ids[:, 0] == policy.grammar.think
        return {
            "reward": float(rollouts.reward.total.mean()),
            **{f"reward/{name}": float(value.mean()) for name, value in rollouts.reward.parts.items()},
            **{f"score/{name}": float(value.mean()) for name, value in rollouts.reward.metrics.items()},
            "think_rate": float(slow.float().mean()),
            "tokens": float(lengths.float().mean()),
            "undecodable": rollouts.undecodable,
            **logs,
        } | {"time/rollout_s": sampled - clock, "time/update_s": time.perf_counter() - sampled, "time/tokens_per_s": float(lengths.sum()) / (time.perf_counter() - clock)}

    run_loop(run, save, optimizer, config, start, step_fn, check if val_store else None)
    if average is not None:
        average.finish()
    return policy
