"""Supervised fine-tuning of the VLA (AutoVLA, arXiv 2506.13757, section 3.3).

    L = sum_i w_i (L_LM,i + lambda_a L_action,i) / sum_i w_i + mean_i L_mode,i,   w_i = reasoning_weight for answers with reasoning, 1 for the others

Deviations from the paper: the batch loss is the weighted mean, so that the size of w does not change the learning rate; an
action's target may be spread over neighbouring tokens (`label_spread`, metres); a scene may be answered fast in one epoch and
slowly in another (`slow_share_*`), so that both ways are learnt for every kind of scene; the token that chooses between them is not averaged into L_LM, where a slow answer would dilute it among its forty others and the model
would learn never to think: its loss L_mode is added with weight 1 for either kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.checks import at_least, share
from drive.core.errors import ConfigError
from drive.core.runs import RunFolder
from drive.core.seeds import numpy_rng, stream
from drive.core.types import Scenario
from drive.metrics.displacement import ade
from drive.planners.vla.checkpoint import read_state, save_policy
from drive.planners.vla.features import takes_features
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.policy import SftTerms, VlaPolicy
from drive.stages.dense import dense_head, route_head
from drive.stages.loop import StageConfig, apply_gradients, batch_indices, mixed, optimizer_at, run_loop
from drive.stages.scenes import TeacherStore
from drive.stages.sight import GroundData, SightTrainer, learn_to_see

HEAD = "dense_head.safetensors"  # beside the weights of a checkpoint


@dataclass(frozen=True)
class SftConfig(StageConfig):
    """Settings of SFT; see the module's docstring for the loss."""

    batch: int = 32
    micro_batch: int = 32  # samples of one forward pass; gradients are accumulated over the batch
    reasoning_weight: float = 40.0  # w of an answer with reasoning (the paper's)
    action_weight: float = 1.0  # lambda_a
    label_spread: float = 0.0  # m; 0 takes the matched token alone
    slow_share_complex: float = 0.8  # share of epochs in which a complex scene is answered with reasoning
    slow_share_simple: float = 0.1
    dense_weight: float = 0.0  # of the dense questions (drive/stages/dense.py) beside the loss; 0 asks none
    sight_steps: int = 0  # first steps, of the vision tower alone, on the dense questions from one frame (drive/stages/sight.py); it learns even where freeze_vision holds it later
    sight_batch: int = 64  # frames of such a step
    past_dropout: float = 0.0  # share of the prompts `without_motion`
    starts: int = 1  # times that a scene in which the teacher sets off from standing comes in an epoch: such moments are few, and who misses them stands for ever

    def _faults(self) -> list[str]:
        weights = at_least(0, self, "reasoning_weight", "action_weight", "label_spread", "dense_weight")
        weights += at_least(0, self, "sight_steps") + ([] if self.steps > self.sight_steps else [f"steps={self.steps} must exceed sight_steps={self.sight_steps}"])
        return super()._faults() + at_least(1, self, "batch", "micro_batch", "starts", "sight_batch") + weights + share(self, "slow_share_complex", "slow_share_simple", "past_dropout")


def sft_loss(terms: SftTerms, slow: torch.Tensor, config: SftConfig, total_weight: float, count: int) -> torch.Tensor:
    """The share of these samples in the batch's loss: sum of w_i (L_LM,i + lambda_a L_action,i) / total_weight + sum of L_mode,i / count.

    slow (b,) marks answers with reasoning; total_weight and count are those of the whole batch, of which these may be a part.
    """
    weight = torch.where(slow, config.reasoning_weight, 1.0)
    return (weight * (terms.language + config.action_weight * terms.action)).sum() / total_weight + terms.mode.sum() / count


def validate(policy: VlaPolicy, store: TeacherStore) -> dict[str, float]:
    """Action accuracy (teacher-forced), roll-out ADE (m, against the teacher), pdms_v1_1 (0-100) and think rate of greedy plans."""
    policy.model.eval()
    accuracy = []
    with torch.no_grad():
        for start in range(0, len(store), 32):
            index = range(start, min(start + 32, len(store)))
            prompts = [store.prompt(i) for i in index]
            ids = policy.target_ids(prompts, store.actions[start : start + 32], [None] * len(index))
            accuracy.append(policy.sft_terms(prompts, ids).accuracy)
    result = evaluate_pdms([store.dataset[i] for i in range(len(store))], VlaPlanner(policy), batch=32, pdm_scenes=store.pdm_scene)
    plans = [(i, row.poses_ego) for i, row in enumerate(result.rows)]
    errors = [float(ade(poses[None], store.poses[i][None])[0]) for i, poses in plans if poses is not None]
    return {
        "action_accuracy": float(torch.cat(accuracy).mean()),
        "rollout_ade_m": sum(errors) / max(len(errors), 1),
        "pdms_v1_1": result.mean("score") * 100.0,
        "think_rate": result.think_rate,
        "tokens": result.mean_tokens,
    }


def train_sft(
    run: RunFolder,
    policy: VlaPolicy,
    train: Sequence[Scenario],
    val: Sequence[Scenario] | None,
    config: SftConfig,
    resume_from: tuple[int, Path] | None = None,
) -> VlaPolicy:
    """Train `policy` on the teachers' plans of `train`; metrics and checkpoints go into `run`."""
    store = TeacherStore(train, policy, config.max_scenes, bare=config.past_dropout > 0.0)
    val_store = TeacherStore(val, policy, config.validate_scenes) if val is not None and config.validate_scenes else None
    ground = None
    if config.sight_steps and (resume_from is None or resume_from[0] < config.sight_steps):
        ground = _see(run, policy, store, train, val, config, resume_from)
        resume_from = None
    spoken = resume_from if resume_from is not None and resume_from[0] > config.sight_steps else None
    parameters, dense = policy.parameters(), None
    policy.route_head = None  # what it read off the states, they will no longer tell
    if config.dense_weight:
        torch.manual_seed(stream(config.seed, "dense head"))
        dense = dense_head(policy.model, store.poses.shape[1]), ground or GroundData(train, len(store))
        parameters += list(dense[0].parameters())
        policy.route_head = route_head(dense[0])
        if spoken is not None:
            dense[0].load_state_dict(read_state(spoken[1] / HEAD))
    optimizer, start = optimizer_at(policy.model, config.optim, spoken, dense[0] if dense else None)
    scenes = np.repeat(np.arange(len(store)), np.where(store.setting_off, config.starts, 1))

    def step_fn(step: int) -> dict[str, float]:
        clock = time.perf_counter()
        policy.model.train()
        index = scenes[batch_indices(len(scenes), config.batch, step, config.seed)]
        epoch = step * config.batch // len(scenes)
        texts = [store.reasoning_or_none(int(i), epoch, config.seed, config.slow_share_complex, config.slow_share_simple) for i in index]
        forget = numpy_rng(config.seed, "past", step).random(len(index)) < config.past_dropout
        total_weight = sum(1.0 if text is None else config.reasoning_weight for text in texts)
        sums, errors = torch.zeros(4), np.zeros(2)
        for at in range(0, len(index), config.micro_batch):
            part, part_texts = index[at : at + config.micro_batch], texts[at : at + config.micro_batch]
            prompts = [store.prompt(int(i)) for i in part]
            if config.past_dropout:
                policy.see(prompts)  # what is seen is kept with the whole prompt
                prompts = [p.forgetful() if less else p for p, less in zip(prompts, forget[at : at + config.micro_batch])]
            ids = policy.target_ids(prompts, store.actions[part], part_texts)
            with mixed(policy.model, config):
                terms = policy.sft_terms(prompts, ids, config.label_spread, state=dense is not None)
            slow = torch.tensor([text is not None for text in part_texts], device=policy.device)
            loss = sft_loss(terms, slow, config, total_weight, len(index))
            if dense is not None:
                assert terms.state is not None
                asked = dense[0].terms(terms.state, dense[1], store.poses, part)
                loss = loss + config.dense_weight * asked.loss * len(part) / len(index)
                errors += np.array([float(asked.plan_error), float(asked.hazard_error)]) * len(part) / len(index)
            loss.backward()
            sums += torch.stack([terms.language.sum(), terms.action.sum(), terms.accuracy.sum(), terms.mode.sum()]).detach().cpu()
        norm = apply_gradients(parameters, optimizer, config.optim.clip_norm)
        language, action, accuracy, mode = (sums / len(index)).tolist()
        return {
            "action_loss": action,
            "action_accuracy": accuracy,
            "language_loss": language,
            "mode_loss": mode,
            "slow_share": sum(text is not None for text in texts) / len(texts),
            "gradient_norm": norm,
            **(dict(zip(("plan_error_m", "hazard_error"), errors.tolist())) if dense is not None else {}),
            "time/samples_per_s": len(index) / (time.perf_counter() - clock),
        }

    def save(folder: Path) -> None:
        save_policy(policy, folder)
        if dense is not None:
            save_file(dense[0].state_dict(), folder / HEAD)

    validates = partial(validate, policy, val_store) if val_store else None
    run_loop(run, save, optimizer, config, max(start, config.sight_steps), step_fn, validates, (config.sight_steps, config.steps))
    return policy


def _see(
    run: RunFolder, policy: VlaPolicy, store: TeacherStore, train: Sequence[Scenario], val: Sequence[Scenario] | None, config: SftConfig, resume_from: tuple[int, Path] | None
) -> GroundData:
    """The first steps: the policy's vision tower alone. What was asked about the scenes."""
    if policy.config.lora_rank or not takes_features(policy.model):
        raise ConfigError("stage.sight_steps trains a vision tower of Qwen2.5-VL's kind whole: set model.lora_rank=0, or leave them out")
    data = GroundData(train, len(store))
    present = len(train[0].frame_steps) - 1  # of the first camera's frames
    images = np.stack([store.prompt(i).images[present] for i in range(len(store))])
    torch.manual_seed(stream(config.seed, "sight head"))
    trainer = SightTrainer(policy.model, policy.encoder.processor, images.shape[1:3], hazards=True)
    learn_to_see(run, policy.model, trainer, data, images, val, config, (config.sight_steps, config.sight_batch), partial(save_policy, policy), resume_from)
    return data
