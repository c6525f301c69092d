"""Pretraining of the tiny base model on pictures of the embedded world, what lies in them, captions and questions; no actions.

What Qwen2.5-VL's own pretraining is to the big model (arXiv 2502.13923), this is to the tiny one: SFT starts from it. First the
vision tower learns to see (drive/stages/sight.py), then it stands still and the language model learns to answer, by next-token
prediction, from features that are computed once. What the tower was asked is asked of the language model's last state as well: by
answers in words alone it took thousands of steps to begin to look at the picture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from drive.core.checks import at_least
from drive.core.runs import RunFolder
from drive.core.seeds import numpy_rng, stream
from drive.core.types import Scenario
from drive.datasets.captions import caption, questions
from drive.planners.vla.backbone import read_model
from drive.planners.vla.checkpoint import read_state
from drive.planners.vla.encode import EncodedPrompt, PromptEncoder, append_answers
from drive.planners.vla.features import feature_inputs, keep_features
from drive.planners.vla.prompt import frames, plan_request
from drive.planners.vla.tiny import IMAGE_PIXELS, build_tiny
from drive.stages.loop import OptimConfig, StageConfig, apply_gradients, batch_indices, optimizer_at, run_loop
from drive.stages.sight import HEAD, SightData, SightHead, SightTrainer, learn_to_see, sight_terms

CAPTION_REQUEST = "describe the scene"


@dataclass(frozen=True)
class PretrainConfig(StageConfig):
    """Settings of pretraining."""

    steps: int = 2500  # both parts
    sight_steps: int = 1500  # of them, of the vision tower alone
    sight_batch: int = 64  # frames
    batch: int = 32  # conversations
    vocabulary: int = 512  # text tokens of the tokenizer
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=2e-3, warmup_steps=100))

    def _faults(self) -> list[str]:
        parts = [] if self.steps > self.sight_steps else [f"steps={self.steps} must exceed sight_steps={self.sight_steps}"]
        words = at_least(300, self, "vocabulary")  # 256 bytes and the special tokens come first
        return super()._faults() + at_least(1, self, "batch", "sight_batch", "sight_steps") + words + parts


@dataclass(frozen=True)
class Talk:
    """A conversation about the frames of one scene: (request, answer) pairs, the frames before the first."""

    scene: int
    turns: tuple[tuple[str, str], ...]


def collect(dataset: Sequence[Scenario], count: int, seed: int) -> tuple[list[Talk], list[str]]:
    """Three short conversations for each of `count` scenes, and words for the text tokenizer.

    Together they ask everything about a scene, caption included, in an order of its own: an answer that an earlier one gives away
    here comes first elsewhere. The words are those of the planning prompt and of the expert's reasoning, so that both are short; no
    action is among them.
    """
    talks, corpus = [], []
    for i in tqdm(range(count), desc="captions", dynamic_ncols=True):
        scenario = dataset[i]
        truth = scenario.privileged()
        rng = numpy_rng(seed, "questions", i)
        turns = questions(truth, rng)
        turns.insert(int(rng.integers(len(turns) + 1)), (CAPTION_REQUEST, caption(truth)))
        talks += [Talk(i, tuple(turns[part::3])) for part in range(3)]
        corpus.extend([plan_request(scenario.observation()), scenario.reasoning])
    return talks, corpus


class CaptionTrainer:
    """The language model in training, and its prompts; every scene's frames are encoded once."""

    def __init__(self, model, processor, dataset: Sequence[Scenario]) -> None:
        self.model, self.processor, self.dataset = model, processor, dataset
        self.encoder = PromptEncoder(processor)
        self._frames: dict[bytes, torch.Tensor] = {}
        self._seen: dict[int, EncodedPrompt] = {}  # any prompt of a scene: its features serve them all

    def _encode(self, talk: Talk) -> tuple[EncodedPrompt, list[int], list[bool]]:
        """(first prompt, ids of all that follows it, which of them are answers)."""
        tokenizer = self.processor.tokenizer
        known = self._seen.get(talk.scene)
        prompt = self.encoder.encode(known.images if known else frames(self.dataset[talk.scene].observation()), talk.turns[0][0])
        prompt.features = known.features if known else None
        self._seen.setdefault(talk.scene, prompt)
        ids: list[int] = []
        spoken: list[bool] = []
        for turn, (request, answer) in enumerate(talk.turns):
            if turn:
                asked = tokenizer("\n" + self.encoder.text(0, request), add_special_tokens=False).input_ids
                ids, spoken = ids + asked, spoken + [False] * len(asked)
            said = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            ids, spoken = ids + said, spoken + [True] * len(said)
        return prompt, ids, spoken

    def terms(self, talks: Sequence[Talk]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mean cross-entropy of answer tokens, share of them predicted right, (B, hidden) last states of the first requests).

        Teacher-forced. The states are those from which the first answer is spoken: whatever it needs of the picture is in them.
        """
        pad = self.processor.tokenizer.pad_token_id
        encoded = [self._encode(talk) for talk in talks]
        ids = torch.full((len(talks), max(len(row) for _, row, _ in encoded)), pad)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, (_, row, spoken) in enumerate(encoded):
            ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), torch.tensor(spoken)
        device, prompts = self.model.device, [prompt for prompt, _, _ in encoded]
        ids, real = ids.to(device), real.to(device)
        keep_features(self.model, self.encoder, prompts, self._frames)
        for prompt in prompts:  # from here on only their shape is read
            prompt.images = np.broadcast_to(np.uint8(0), prompt.images.shape)
        inputs = append_answers(feature_inputs(self.encoder, prompts, device), ids, pad)
        out = self.model(**inputs, logits_to_keep=ids.shape[1], output_hidden_states=True)
        logits = out.logits[real].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[real])
        return loss, (logits.argmax(-1) == ids[real]).float().mean(), out.hidden_states[-1][:, -ids.shape[1]]

    def validate(self, talks: Sequence[Talk]) -> dict[str, float]:
        """Loss and share of right tokens of conversations about held-out scenes."""
        self.model.eval()
        with torch.no_grad():
            pairs = [self.terms(talks[at : at + 32]) for at in range(0, len(talks), 32)]
        return {"loss": float(torch.stack([p[0] for p in pairs]).mean()), "accuracy": float(torch.stack([p[1] for p in pairs]).mean())}


def save_base(model, processor, folder: Path) -> None:
    """A transformers folder: weights, config, processor."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_base(
    run: RunFolder,
    train: Sequence[Scenario],
    val: Sequence[Scenario] | None,
    config: PretrainConfig,
    device: str = "cpu",
    resume_from: tuple[int, Path] | None = None,
):
    """Train the tiny base model from fresh weights; the model."""
    count = min(len(train), config.max_scenes or len(train))
    talks, corpus = collect(train, count, config.seed)
    said = [text for talk in talks for turn in talk.turns for text in turn]
    model, processor = build_tiny(said + corpus, config.seed, config.vocabulary)
    model.to(device)
    if resume_from is not None:
        model.load_state_dict(read_model(resume_from[1], torch.float32).state_dict())
    held_out = val if val is not None and config.validate_scenes else None
    data = SightData(train, count)
    if resume_from is None or resume_from[0] < config.sight_steps:
        torch.manual_seed(stream(config.seed, "sight head"))
        trainer = SightTrainer(model, processor, (IMAGE_PIXELS, IMAGE_PIXELS))
        learn_to_see(run, model, trainer, data, data.images, held_out, config, (config.sight_steps, config.sight_batch), partial(save_base, model, processor), resume_from)
    data.images = data.images[:0].copy()  # seen enough
    spoken = resume_from if resume_from is not None and resume_from[0] > config.sight_steps else None
    _learn_to_speak(run, model, processor, train, data, held_out, talks, config, spoken)
    return model


def _learn_to_speak(run, model, processor, train, data: SightData, val, talks: list[Talk], config: PretrainConfig, resume_from: tuple[int, Path] | None) -> None:
    """Steps sight_steps..steps-1: all but the vision tower, and a head that asks the language model what the tower was asked."""
    model.model.visual.requires_grad_(False)
    torch.manual_seed(stream(config.seed, "speech head"))
    head = SightHead(model.config.text_config.hidden_size).to(model.device)
    learning = torch.nn.ModuleDict({"model": model, "head": head})
    trainer, validate = CaptionTrainer(model, processor, train), None
    if val is not None:
        val_talks, _ = collect(val, min(len(val), config.validate_scenes), config.seed)
        validate = partial(CaptionTrainer(model, processor, val).validate, val_talks)
    if resume_from is not None:
        head.load_state_dict(read_state(resume_from[1] / HEAD))
    parameters = [p for p in learning.parameters() if p.requires_grad]
    optimizer, start = optimizer_at(learning, config.optim, resume_from)

    def step_fn(step: int) -> dict[str, float]:
        clock = time.perf_counter()
        model.train()
        picked = [talks[i] for i in batch_indices(len(talks), config.batch, step, config.seed)]
        scenes = np.array([talk.scene for talk in picked])
        loss, right, hidden = trainer.terms(picked)
        seen = sight_terms(head(hidden, data.commands[scenes].to(model.device)), data, scenes)
        (loss + seen.loss).backward()
        norm = apply_gradients(parameters, optimizer, config.optim.clip_norm)
        return {"loss": float(loss.detach()), "accuracy": float(right), "route_error_m": float(seen.error.mean()), "gradient_norm": norm, "time/samples_per_s": len(picked) / (time.perf_counter() - clock)}

    def save(folder: Path) -> None:
        save_base(model, processor, folder)
        save_file(head.state_dict(), folder / HEAD)

    run_loop(run, save, optimizer, config, max(start, config.sight_steps), step_fn, validate, (config.sight_steps, config.steps))
