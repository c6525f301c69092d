"""Prompts to tensors: one path for training and inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from drive.core.types import Observation
from drive.planners.vla.processor import ImageTextProcessor
from drive.planners.vla.prompt import frames, messages, past_deltas, plan_request, present_motion, without_motion
from drive.tokenizers.interface import PlanTokenizer


@dataclass
class EncodedPrompt:
    """One prompt, ready to be batched."""

    ids: tuple[int, ...]
    images: NDArray[np.uint8]  # (N, H, W, 3)
    now: tuple[int, ...] = (0,)  # action indexes of the present motion
    features: torch.Tensor | None = None  # (tokens, hidden) of the frames, kept where the vision tower is frozen
    bare: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # ids and present motion of the prompt `without_motion`, where they were asked for

    def forgetful(self) -> EncodedPrompt:
        """The same frames under the prompt that does not tell how the car has moved."""
        assert self.bare is not None
        return replace(self, ids=self.bare[0], now=self.bare[1])


class PromptEncoder:
    """Encodes prompts with one processor; the text is rendered by its chat template and by nothing else."""

    def __init__(self, processor: ImageTextProcessor, system: str = "", codebook: PlanTokenizer | None = None) -> None:
        self.processor = processor
        self.system = system
        self.codebook = codebook  # names the past motions; None in a model without actions
        self._names = codebook.token_names if codebook is not None else []
        self._ids = lru_cache(maxsize=65536)(self._tokenise)

    def text(self, images: int, request: str) -> str:
        """The prompt as one string, each image as one placeholder."""
        return self.processor.apply_chat_template(messages(images, request, self.system), tokenize=False, add_generation_prompt=True)

    def _tokenise(self, request: str, images: int, image_tokens: int) -> tuple[int, ...]:
        text = self.processor.expand_images(self.text(images, request), image_tokens)
        return tuple(self.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def encode(self, images: NDArray[np.uint8], request: str) -> EncodedPrompt:
        """Frames (N, H, W, 3) and a request; the frames are resized here if the model's rule asks for it."""
        images = self.processor.fit(images)
        return EncodedPrompt(self._ids(request, len(images), self.processor.image_tokens(images.shape[1:3])), images)

    def encode_observation(self, observation: Observation, bare: bool = False) -> EncodedPrompt:
        """The planning prompt of an observation; with `bare`, that of it `without_motion` beside it."""
        prompt = self.encode(frames(observation), self.request(observation))
        prompt.now = self._now(observation)
        if bare:
            less = without_motion(observation)
            ids = self._ids(self.request(less), len(prompt.images), self.processor.image_tokens(prompt.images.shape[1:3]))
            prompt.bare = ids, self._now(less)
        return prompt

    def _now(self, observation: Observation) -> tuple[int, ...]:
        if self.codebook is None:
            return (0,)
        return tuple(self.codebook.encode_motions(present_motion(observation, self.codebook.dt)[None])[0].tolist())

    def request(self, observation: Observation) -> str:
        """The planning request, with the past motions in the codebook's words where frames and tokens keep the same time."""
        observation = replace(observation, text=self._spoken(observation.text)) if observation.text else observation
        codebook = self.codebook
        if codebook is None or len(observation.ego_history) < 2 or abs(observation.frame_dt - codebook.dt) > 1e-6:
            return plan_request(observation)
        return plan_request(observation, ["".join(self._names[i] for i in tokens) for tokens in codebook.encode_motions(past_deltas(observation))])

    def _spoken(self, text: str) -> str:
        """`text` without the model's control words: a passenger's sentence can open no turn, hold no image and be no answer."""
        words = sorted(self.processor.tokenizer.get_added_vocab(), key=len, reverse=True)
        while any(word in text for word in words):  # what is left over may close up to another one
            for word in words:
                text = text.replace(word, " ")
        return text

    def collate(self, prompts: Sequence[EncodedPrompt], images: bool = True) -> dict[str, torch.Tensor]:
        """Model inputs of B prompts, left-padded: input_ids, attention_mask (B, L), image tensors and what the model family wants.

        images False leaves the pixels out, for a model whose frames are encoded already.
        """
        longest = max(len(p.ids) for p in prompts)
        pad = self.processor.tokenizer.pad_token_id
        ids = torch.full((len(prompts), longest), pad, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, longest - len(prompt.ids) :] = 1
        return {"input_ids": ids, "attention_mask": mask, **self.processor.image_inputs([p.images for p in prompts], ids, images)}


def append_answers(inputs: dict[str, torch.Tensor], ids: torch.Tensor, pad: int) -> dict[str, torch.Tensor]:
    """Prompt inputs (B, Lp) with right-padded answers `ids` (B, La) behind them, for a plain teacher-forced pass.

    The last answer token is left out: nothing is predicted from it.
    """
    answer = ids[:, :-1]
    out = dict(inputs)
    out["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    out["attention_mask"] = torch.cat([inputs["attention_mask"], (answer != pad).long()], dim=1)
    if "mm_token_type_ids" in inputs:
        out["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], dim=1)
    if "mm_token_type_ids" not in inputs:
        out["position_ids"] = (out["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return out

