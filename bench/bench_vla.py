"""The VLA: SFT samples/s, a GRPO step and its parts, latency of fast and slow plans; the peer replicates every prompt, as TRL does."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from harness import Row, timed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from toy_scenes import CORPUS, toy_codebook, toy_scenario  # pyright: ignore[reportMissingImports]

from drive.core.seeds import torch_rng
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.decode import token_log_probs
from drive.planners.vla.encode import append_answers
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.processor import ImageTextProcessor, qwen_image_processor
from drive.planners.vla.prompt import CHATML
from drive.planners.vla.tiny import build_tiny, tiny_config, train_text_tokenizer

SCENES, GROUP = 4, 8


def larger_policy() -> VlaPolicy:
    """A Qwen2.5-VL of 6.6 M parameters: 6 layers of 256, four vision layers."""
    from transformers import AutoModelForImageTextToText

    tokenizer = train_text_tokenizer(CORPUS, 512)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(tiny_config(tokenizer, hidden=240, layers=6, vision_hidden=192, vision_layers=4))
    processor = ImageTextProcessor(qwen_image_processor(112), tokenizer, CHATML)
    return VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig())


def shared_step(policy: VlaPolicy, prompts: list) -> tuple[float, float]:
    """(roll-out seconds, update seconds) of one GRPO step without its reward, the prompt run once for its group."""
    start = time.perf_counter()
    with torch.no_grad():
        answers = policy.sample(policy.prefix(prompts), GROUP, "fast", 1.0, torch_rng(0))
    sampled = time.perf_counter()
    log_probs, _ = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, GROUP)
    log_probs.sum().backward()
    return sampled - start, time.perf_counter() - sampled


def replicated_step(policy: VlaPolicy, prompts: list) -> float:
    """Seconds of the same work with every prompt repeated for each of its samples."""
    start = time.perf_counter()
    repeated = [prompt for prompt in prompts for _ in range(GROUP)]
    with torch.no_grad():
        answers = policy.sample(policy.prefix(repeated), 1, "fast", 1.0, torch_rng(0))
    logits = policy.model(**append_answers(policy.inputs(repeated), answers.ids, policy.grammar.pad), logits_to_keep=answers.ids.shape[1]).logits
    token_log_probs(logits, answers.ids, answers.kinds, policy.grammar)[0].sum().backward()
    return time.perf_counter() - start


def measure() -> list[Row]:
    """All rows; the shared and the replicated step alternate in one process."""
    torch.set_num_threads(2)
    observations = [toy_scenario(i).observation() for i in range(32)]
    rows = []
    large = larger_policy()
    prompts = large.encode(observations[:SCENES])
    for _ in range(2):
        shared_step(large, prompts)
        replicated_step(large, prompts)
    pairs = [(shared_step(large, prompts), replicated_step(large, prompts)) for _ in range(7)]
    size = sum(p.numel() for p in large.model.parameters()) / 1e6
    shape = f"{size:.1f} M parameters, {SCENES} prompts of {len(prompts[0].ids)} tokens x {GROUP} x 12 tokens"
    rollout, update, plain = (float(np.median(x)) for x in ([p[0][0] for p in pairs], [p[0][1] for p in pairs], [p[1] for p in pairs]))
    gain = float(np.median([p[1] / sum(p[0]) for p in pairs]))
    rows.append(Row(f"GRPO step, {shape}", rollout + update, "s", f"roll-out {rollout:.2f} s, log-probs and backward {update:.2f} s"))
    rows.append(Row("the same with replicated prompts", plain, "s", f"{gain:.1f} x ours, median of paired rounds"))

    model, processor = build_tiny(CORPUS, 0, 512)
    tiny = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(freeze_vision=True))
    free = VlaPolicy.from_backbone(*build_tiny(CORPUS, 0, 512), toy_codebook(), ModelConfig())
    for name, policy in (("all weights", free), ("vision frozen, features kept", tiny)):
        batch = policy.encode(observations)
        ids = policy.target_ids(batch, np.zeros((32, 10), np.int64), [None] * 24 + ["car ahead . brake and stop"] * 8)

        def step(policy=policy, batch=batch, ids=ids) -> None:
            terms = policy.sft_terms(batch, ids)
            (terms.language + terms.action).sum().backward()

        rows.append(Row(f"SFT of the tiny model, batch 32, {name}", 32 / timed(step).median, "samples/s"))
    for mode in ("fast", "slow"):
        one, many = VlaPlanner(tiny, mode), VlaPlanner(tiny, mode)
        alone = timed(lambda one=one: one.plan(observations[:1]))
        together = timed(lambda many=many: many.plan(observations))
        rows.append(Row(f"{mode} plan of the tiny model", 1000 * alone.median, "ms", f"{1000 * together.median / 32:.1f} ms a plan in a batch of 32"))
    return rows
