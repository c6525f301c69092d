"""Frames encoded once, where the vision tower does not learn."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from drive.planners.vla.encode import EncodedPrompt, PromptEncoder


def takes_features(model) -> bool:
    """Whether the model runs on features instead of pixels. Qwen3-VL also wants those of inner layers, SmolVLM packs its frames otherwise."""
    return model.config.model_type in ("qwen2_vl", "qwen2_5_vl") and "mm_encoder_outputs" in inspect.signature(model.forward).parameters


@torch.no_grad()
def keep_features(model, encoder: PromptEncoder, prompts: Sequence[EncodedPrompt], at_once: int = 32) -> None:
    """Fill in the features of the prompts that have none."""
    waiting = [p for p in prompts if p.features is None]
    for start in range(0, len(waiting), at_once):
        part = waiting[start : start + at_once]
        images = encoder.collate(part)
        with torch.autocast(model.device.type, enabled=False):  # what is kept serves passes of any precision
            out = model.get_image_features(images["pixel_values"].to(model.device), images["image_grid_thw"].to(model.device))
        frames = iter(out.pooler_output)
        for prompt in part:
            prompt.features = torch.cat([next(frames) for _ in range(len(prompt.images))])


def feature_inputs(encoder: PromptEncoder, prompts: Sequence[EncodedPrompt], device: torch.device) -> dict[str, Any]:
    """Model inputs of B prompts whose features are kept."""
    inputs: dict[str, Any] = {k: v.to(device) for k, v in encoder.collate(prompts, images=False).items()}
    kept = tuple(p.features for p in prompts)
    return {**inputs, "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=kept)}}  # type: ignore[arg-type]
