"""Frames encoded once, where the vision tower does not learn."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPooling

from drive.planners.vla.encode import EncodedPrompt, PromptEncoder


def takes_features(model) -> bool:
    """Whether the model runs on features instead of pixels. Qwen3-VL also wants those of inner layers, SmolVLM packs its frames otherwise."""
    return model.config.model_type in ("qwen2_vl", "qwen2_5_vl") and "mm_encoder_outputs" in inspect.signature(model.forward).parameters


FRAMES_BYTES = 1 << 30  # of features of single frames; beyond it the oldest are encoded again where they come again


@torch.no_grad()
def keep_features(model, encoder: PromptEncoder, prompts: Sequence[EncodedPrompt], seen: dict[bytes, torch.Tensor], at_once: int = 128) -> None:
    """Fill in the features of the prompts that have none. `seen` holds those of single frames: prompts half a second apart share three of four."""
    waiting = [p for p in prompts if p.features is None]
    keys = [[_key(frame) for frame in p.images] for p in waiting]
    new = {key: frame for p, row in zip(waiting, keys) for key, frame in zip(row, p.images) if key not in seen}
    for start in range(0, len(new), at_once):
        part = list(new)[start : start + at_once]
        images = encoder.processor.image_inputs([new[key][None] for key in part], torch.zeros(1, 1, dtype=torch.long))
        with torch.autocast(model.device.type, enabled=False):  # what is kept serves passes of any precision
            out = model.get_image_features(images["pixel_values"].to(model.device), images["image_grid_thw"].to(model.device))
        seen.update(zip(part, out.pooler_output))
    for prompt, row in zip(waiting, keys):
        prompt.features = torch.cat([seen[key] for key in row])
    if new:
        most = max(FRAMES_BYTES // max(tensor.nbytes for tensor in out.pooler_output), 1)
        for key in list(seen)[: max(len(seen) - most, 0)]:
            del seen[key]


def _key(frame: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frame), digest_size=16).digest() + repr(frame.shape).encode()


def feature_inputs(encoder: PromptEncoder, prompts: Sequence[EncodedPrompt], device: torch.device) -> dict[str, Any]:
    """Model inputs of B prompts whose features are kept."""
    inputs: dict[str, Any] = {k: v.to(device) for k, v in encoder.collate(prompts, images=False).items()}
    kept = tuple(p.features for p in prompts)
    return {**inputs, "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=kept)}}  # type: ignore[arg-type]
