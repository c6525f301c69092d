"""Vision-language models by name, and the action tokens added to their vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from drive.core.checks import at_least, refuse, share
from drive.core.errors import CheckpointError, ConfigError
from drive.core.seeds import torch_rng
from drive.planners.vla.grammar import ANSWER, THINK, THINK_END
from drive.planners.vla.shipped import shipped
from drive.tokenizers.interface import PlanTokenizer

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how much of it is trained."""

    name: str = "tiny"
    weights: str = ""  # hub name or local folder; empty: the shipped base of the tiny model
    family: str = "qwen"  # qwen (2, 2.5, 3 VL) or smolvlm: which processor it takes
    dtype: str = "float32"  # one of DTYPES
    lora_rank: int = 0  # 0 trains all weights
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    freeze_vision: bool = False
    max_reasoning: int = 64  # tokens
    max_pixels: int = 112 * 112  # pixels of one frame as the model sees it
    system: str = ""  # system prompt, empty for none

    def __post_init__(self) -> None:
        named = [] if self.dtype in DTYPES else [f"dtype={self.dtype} is none of {', '.join(DTYPES)}"]
        sizes = at_least(0, self, "lora_rank") + at_least(1, self, "lora_alpha", "max_reasoning") + at_least(784, self, "max_pixels")
        refuse(named + sizes + share(self, "lora_dropout"))


def load_backbone(config: ModelConfig):
    """(model, processor) from a hub name, a local folder, or the shipped tiny-base. Raises CheckpointError with the way out."""
    from drive.planners.vla.processor import load_processor

    source = config.weights or str(shipped("tiny-base"))
    processor = load_processor(source, config.family, config.max_pixels)
    return read_model(source, getattr(torch, config.dtype)), processor


def read_model(source: str | Path, dtype: torch.dtype):
    """The model of a transformers folder or hub name, every weight from there. Raises CheckpointError where one is missing or damaged."""
    from transformers import AutoModelForImageTextToText

    try:
        model, told = AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"no model at {source}: give a local folder or a hub name that can be reached ({error})") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise CheckpointError(f"{source}: tensor {missing[0]} is missing ({len(missing)} in all): copy the model again")
    return model


def motion_features(deltas: NDArray[np.float64], dim: int) -> torch.Tensor:
    """(K, dim) random Fourier features of SE(2) motions (K, 3): motions that are close have close features, unit variance."""
    rng = torch_rng(0, "motion features")
    scale = torch.tensor([1.0, 4.0, 8.0], dtype=torch.float64)  # 1 m ahead, 25 cm sideways and 7 degrees count alike
    frequency = torch.randn(3, dim // 2, generator=rng, dtype=torch.float64) * torch.logspace(-1.3, 0.9, dim // 2, dtype=torch.float64)
    phase = torch.from_numpy(deltas) * scale @ frequency
    return (torch.cat([phase.sin(), phase.cos()], dim=1) * 2**0.5).float()


def add_tokens_of(model, processor, codebook: PlanTokenizer) -> list[int]:
    """Add the grammar's tokens and those of the action tokenizer that the model has not got already; ids of all new tokens."""
    return add_action_tokens(model, processor, [] if codebook.in_text else codebook.token_names, codebook.token_places)


def add_action_tokens(model, processor, names: list[str], deltas: NDArray[np.float64] | None) -> list[int]:
    """Add the grammar's tokens and one token per action; ids of all new tokens.

    names (K,), deltas (K, 3) the motion of each. New rows start at the mean of the old ones plus a smooth function of the
    motion, so that neighbouring actions start as neighbours; deltas None: plus noise. Raises CheckpointError if some are there already.
    """
    tokenizer = processor.tokenizer
    present = [name for name in names if name in tokenizer.get_vocab()]
    if present:
        raise CheckpointError(f"the tokenizer has {present[0]} already: start from a model without action tokens, or load it as a checkpoint")
    old_size = len(tokenizer)
    # Not special to the tokenizer: Qwen3's own <think> is an ordinary added token as well.
    tokenizer.add_tokens([THINK, THINK_END, ANSWER, *names])
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new_ids = list(range(old_size, len(tokenizer)))
    action_ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    with torch.no_grad():
        for matrix in {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            old = matrix[:old_size].float()
            matrix[new_ids] = old.mean(0).to(matrix.dtype)
            std = old.std(0).mean()
            if deltas is not None:
                matrix[action_ids] += (std * motion_features(deltas, matrix.shape[1])).to(matrix.dtype)
            elif names:
                rows = torch.randn(len(names), matrix.shape[1], generator=torch_rng(0, "action rows"))
                matrix[action_ids] += (std * rows).to(matrix.dtype)
            for row, name in enumerate((THINK, THINK_END, ANSWER)):
                noise = torch.randn(matrix.shape[1], generator=torch_rng(row, name))
                matrix[tokenizer.convert_tokens_to_ids(name)] += (std * noise).to(matrix.dtype)
    return new_ids


def add_lora(model, config: ModelConfig, new_ids: list[int]):
    """The model with LoRA on its attention, and the rows of the new tokens trained."""
    from peft import LoraConfig, get_peft_model

    rows = {"embed_tokens": new_ids}
    if not model.config.tie_word_embeddings:
        rows["lm_head"] = new_ids
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=r".*(language_model|text_model).*\.(q_proj|k_proj|v_proj|o_proj)",
        trainable_token_indices=rows,
    )
    return get_peft_model(model, lora)


def freeze_vision(model) -> None:
    """Train no weight of the vision tower."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    tower = getattr(inner.model, "visual", None) or getattr(inner.model, "vision_model", None)
    if tower is None:
        raise ConfigError(f"{type(inner).__name__} has no vision tower to freeze: set model.freeze_vision=false")
    tower.requires_grad_(False)
