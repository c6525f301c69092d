"""Pretraining of the tiny base model on pictures, captions and questions of the embedded world; no actions.

What Qwen2.5-VL's own pretraining is to the big model, this is to the tiny one: SFT starts from it. Next-token prediction on the
answers (Qwen2.5-VL, arXiv 2502.13923, stage 1 to 3, in one).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from drive.core.checks import at_least
from drive.core.runs import RunFolder
from drive.core.seeds import numpy_rng
from drive.core.types import Scenario
from drive.datasets.captions import caption, questions
from drive.planners.vla.encode import EncodedPrompt, PromptEncoder, append_answers
from drive.planners.vla.prompt import frames, plan_request
from drive.planners.vla.tiny import build_tiny
from drive.stages.loop import OptimConfig, StageConfig, apply_gradients, batch_indices, optimizer_at, run_loop

CAPTION_REQUEST = "describe the scene"


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """Settings of pretraining."""

    steps: int = 2200
    batch: int = 16  # conversations
    vocabulary: int = 512  # text tokens of the tokenizer
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=2e-3, warmup_steps=100))

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "batch")
        at_least(300, self, "vocabulary")  # 256 bytes and the special tokens come first


@dataclass(frozen=True)
class Talk:
    """A conversation about the frames of one scene: (request, answer) pairs, the frames before the first."""

    scene: int
    turns: tuple[tuple[str, str], ...]


def collect(dataset: Sequence[Scenario], count: int, seed: int) -> tuple[list[Talk], list[str]]:
    """Two conversations for each of `count` scenes, and words for the text tokenizer.

    A conversation asks everything about a scene, caption included, in an order of its own: frames are what costs, and an answer
    that an earlier one gives away here comes first elsewhere. The words are those of the planning prompt and of the expert's
    reasoning, so that both are short; no action is among them.
    """
    talks, corpus = [], []
    for i in tqdm(range(count), desc="captions", dynamic_ncols=True):
        scenario = dataset[i]
        truth = scenario.privileged()
        for order in range(2):
            rng = numpy_rng(seed, "questions", i, order)
            turns = questions(truth, rng)
            turns.insert(int(rng.integers(len(turns) + 1)), (CAPTION_REQUEST, caption(truth)))
            talks.append(Talk(i, tuple(turns)))
        corpus.extend([plan_request(scenario.observation()), scenario.reasoning])
    return talks, corpus


class CaptionTrainer:
    """The model in training, and its prompts."""

    def __init__(self, model, processor, dataset: Sequence[Scenario]) -> None:
        self.model, self.processor, self.dataset = model, processor, dataset
        self.encoder = PromptEncoder(processor)
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def _encode(self, talk: Talk) -> tuple[EncodedPrompt, list[int], list[bool]]:
        """(first prompt, ids of all that follows it, which of them are answers)."""
        if talk.scene not in self._frames:
            self._frames[talk.scene] = frames(self.dataset[talk.scene].observation())
        tokenizer = self.processor.tokenizer
        prompt = self.encoder.encode(self._frames[talk.scene], talk.turns[0][0])
        ids: list[int] = []
        spoken: list[bool] = []
        for turn, (request, answer) in enumerate(talk.turns):
            if turn:
                asked = tokenizer("\n" + self.encoder.text(0, request), add_special_tokens=False).input_ids
                ids, spoken = ids + asked, spoken + [False] * len(asked)
            said = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            ids, spoken = ids + said, spoken + [True] * len(said)
        return prompt, ids, spoken

    def terms(self, talks: Sequence[Talk]) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean cross-entropy of answer tokens, share of them predicted right), teacher-forced."""
        pad = self.processor.tokenizer.pad_token_id
        encoded = [self._encode(talk) for talk in talks]
        ids = torch.full((len(talks), max(len(row) for _, row, _ in encoded)), pad)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, (_, row, spoken) in enumerate(encoded):
            ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), torch.tensor(spoken)
        inputs = append_answers(self.encoder.collate([prompt for prompt, _, _ in encoded]), ids, pad)
        device = self.model.device
        inputs, ids, real = {k: v.to(device) for k, v in inputs.items()}, ids.to(device), real.to(device)
        logits = self.model(**inputs, logits_to_keep=ids.shape[1]).logits[real].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[real])
        return loss, (logits.argmax(-1) == ids[real]).float().mean()

    def validate(self, talks: Sequence[Talk]) -> dict[str, float]:
        """Loss and share of right tokens of conversations about held-out scenes."""
        self.model.eval()
        with torch.no_grad():
            pairs = [self.terms(talks[at : at + 32]) for at in range(0, len(talks), 32)]
        return {"loss": float(torch.stack([p[0] for p in pairs]).mean()), "accuracy": float(torch.stack([p[1] for p in pairs]).mean())}

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """A transformers folder: weights, config, processor."""
        state = {k: v.to(dtype or v.dtype) for k, v in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)


def train_base(
    run: RunFolder,
    train: Sequence[Scenario],
    val: Sequence[Scenario] | None,
    config: PretrainConfig,
    device: str = "cpu",
    resume_from: tuple[int, Path] | None = None,
) -> CaptionTrainer:
    """Train the tiny base model from fresh weights."""
    count = min(len(train), config.max_scenes or len(train))
    talks, corpus = collect(train, count, config.seed)
    said = [text for talk in talks for turn in talk.turns for text in turn]
    model, processor = build_tiny(said + corpus, config.seed, config.vocabulary)
    model.to(device)
    trainer = CaptionTrainer(model, processor, train)
    validate = None
    if val is not None and config.validate_scenes:
        held_out = CaptionTrainer(model, processor, val)
        val_talks, _ = collect(val, min(len(val), config.validate_scenes), config.seed)
        validate = partial(held_out.validate, val_talks)
    parameters = list(model.parameters())
    if resume_from is not None:
        from transformers import AutoModelForImageTextToText

        model.load_state_dict(AutoModelForImageTextToText.from_pretrained(resume_from[1], use_safetensors=True).state_dict())
    optimizer, start = optimizer_at(model, config.optim, resume_from)

    def step_fn(step: int) -> dict[str, float]:
        clock = time.perf_counter()
        model.train()
        picked = [talks[i] for i in batch_indices(len(talks), config.batch, step, config.seed)]
        loss, right = trainer.terms(picked)
        loss.backward()
        norm = apply_gradients(parameters, optimizer, config.optim.clip_norm)
        return {"loss": float(loss), "accuracy": float(right), "gradient_norm": norm, "time/samples_per_s": len(picked) / (time.perf_counter() - clock)}

    run_loop(run, trainer.save, optimizer, config, start, step_fn, validate)
    return trainer
