"""Pretraining of the tiny base model on pictures, captions and questions of the embedded world; no actions.

What Qwen2.5-VL's own pretraining is to the big model, this is to the tiny one: SFT starts from it. Next-token prediction on the
answers (Qwen2.5-VL, arXiv 2502.13923, stage 1 to 3, in one).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from drive.core.runs import RunFolder
from drive.core.seeds import numpy_rng
from drive.core.types import Scenario
from drive.datasets.captions import caption, questions
from drive.planners.vla.encode import EncodedPrompt, PromptEncoder, append_answers
from drive.planners.vla.prompt import frames, plan_request
from drive.planners.vla.tiny import build_tiny
from drive.stages.loop import LoopConfig, OptimConfig, apply_gradients, batch_indices, load_optimizer, make_optimizer, run_loop

CAPTION_REQUEST = "describe the scene"


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of pretraining."""

    steps: int = 2000
    batch: int = 32
    vocabulary: int = 448  # text tokens of the tokenizer
    seed: int = 0
    log_every: int = 10
    validate_every: int = 250
    validate_scenes: int = 64
    checkpoint_every: int = 500
    max_scenes: int = 0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=2e-3, warmup_steps=100))


@dataclass(frozen=True)
class Sample:
    """A question about the frames of one scene."""

    scene: int
    request: str
    answer: str


def collect(dataset: Sequence[Scenario], count: int, seed: int) -> tuple[list[Sample], list[str]]:
    """Captions and questions of `count` scenes, and the words of the planning prompt and of the expert's reasoning.

    The second list only trains the text tokenizer, so that prompts are short; no action is among them.
    """
    samples, corpus = [], []
    for i in tqdm(range(count), desc="captions", dynamic_ncols=True):
        scenario = dataset[i]
        truth = scenario.privileged()
        samples.append(Sample(i, CAPTION_REQUEST, caption(truth)))
        samples.extend(Sample(i, q, a) for q, a in questions(truth, numpy_rng(seed, "questions", i)))
        corpus.extend([plan_request(scenario.observation()), scenario.reasoning])
    return samples, corpus


class CaptionTrainer:
    """The model in training, and its prompts."""

    def __init__(self, model, processor, dataset: Sequence[Scenario]) -> None:
        self.model, self.processor, self.dataset = model, processor, dataset
        self.encoder = PromptEncoder(processor)
        self._frames: dict[int, EncodedPrompt] = {}

    def _prompt(self, sample: Sample) -> EncodedPrompt:
        if sample.scene not in self._frames:
            self._frames[sample.scene] = self.encoder.encode(frames(self.dataset[sample.scene].observation()), CAPTION_REQUEST)
        return self.encoder.encode(self._frames[sample.scene].images, sample.request)

    def terms(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean cross-entropy of answer tokens, share of answers predicted right to the last token)."""
        tokenizer = self.processor.tokenizer
        rows = [[*tokenizer(s.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for s in samples]
        ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        inputs = append_answers(self.encoder.collate([self._prompt(s) for s in samples]), ids, tokenizer.pad_token_id)
        logits = self.model(**inputs, logits_to_keep=ids.shape[1]).logits
        real = ids != tokenizer.pad_token_id
        loss = torch.nn.functional.cross_entropy(logits[real].float(), ids[real])
        right = ((logits.argmax(-1) == ids) | ~real).all(1).float().mean()
        return loss, right

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Loss and share of exact answers, teacher-forced, on held-out scenes; captions and questions apart."""
        self.model.eval()
        out = {}
        for name, wanted in (("caption", True), ("question", False)):
            part = [s for s in samples if (s.request == CAPTION_REQUEST) == wanted]
            with torch.no_grad():
                pairs = [self.terms(part[at : at + 32]) for at in range(0, len(part), 32)]
            out[f"{name}_loss"] = float(torch.stack([p[0] for p in pairs]).mean())
            out[f"{name}_exact"] = float(torch.stack([p[1] for p in pairs]).mean())
        return out

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """A transformers folder: weights, config, processor."""
        state = {k: v.to(dtype or v.dtype) for k, v in self.model.state_dict().items()}
        self.model.save_pretrained(folder, state_dict=state)
        self.processor.save_pretrained(folder)


def train_base(
    run: RunFolder,
    train: Sequence[Scenario],
    val: Sequence[Scenario],
    config: PretrainConfig,
    resume_from: tuple[int, Path] | None = None,
) -> CaptionTrainer:
    """Train the tiny base model from fresh weights."""
    count = min(len(train), config.max_scenes or len(train))
    samples, corpus = collect(train, count, config.seed)
    model, processor = build_tiny([t for s in samples for t in (s.request, s.answer)] + corpus, config.seed, config.vocabulary)
    trainer, held_out = CaptionTrainer(model, processor, train), CaptionTrainer(model, processor, val)
    val_samples, _ = collect(val, min(len(val), config.validate_scenes), config.seed)
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, config.optim)
    start = 0
    if resume_from is not None:
        start, folder = resume_from
        from transformers import AutoModelForImageTextToText

        model.load_state_dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())
        load_optimizer(optimizer, folder)

    def step_fn(step: int) -> dict[str, float]:
        clock = time.perf_counter()
        model.train()
        picked = [samples[i] for i in batch_indices(len(samples), config.batch, step, config.seed)]
        loss, right = trainer.terms(picked)
        loss.backward()
        norm = apply_gradients(parameters, optimizer, config.optim.clip_norm)
        return {"loss": float(loss), "exact": float(right), "gradient_norm": norm, "time/samples_per_s": len(picked) / (time.perf_counter() - clock)}

    loop = LoopConfig(config.steps, config.seed, config.log_every, config.validate_every, config.checkpoint_every)
    run_loop(run, trainer.save, optimizer, config.optim, loop, start, step_fn, lambda: held_out.validate(val_samples))
    return trainer
