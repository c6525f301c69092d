"""Checkpoints of the VLA: one folder with weights, processor, codebook and what binds them. Strict in both directions."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from drive.core.errors import CheckpointError
from drive.core.types import Camera, Command, Observation
from drive.planners.vla.backbone import ModelConfig, add_lora, add_tokens_of, freeze_vision, load_backbone
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.processor import load_processor
from drive.planners.vla.prompt import plan_request
from drive.planners.vla.route_head import RouteHead
from drive.tokenizers.interface import PlanTokenizer
from drive.tokenizers.load import load_tokenizer

FORMAT = 1
ROUTE_HEAD = "route_head.safetensors"  # beside the weights, of a model that has one


def prompt_fingerprint(policy: VlaPolicy) -> str:
    """Hash of the prompt of a fixed observation: it changes when training and inference would no longer share one string."""
    images = np.zeros((1, 4, 8, 8, 3), np.uint8)
    fixed = Observation("", images, (Camera.front(8, 8),), 0.5, np.zeros((4, 3)), 8.4, -0.3, 0.02, Command.LEFT)
    return hashlib.sha256(policy.encoder.text(4, plan_request(fixed, ["<past>"])).encode()).hexdigest()


def base_fingerprint(policy: VlaPolicy) -> str:
    """Hash of the first values of every matrix below LoRA's adapters, in bfloat16 so that it is one in either precision; empty without adapters."""
    if not policy.config.lora_rank:
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(policy.model.named_parameters()):
        if name.endswith("base_layer.weight"):
            digest.update(value.detach()[0].cpu().to(torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _tied(model) -> bool:
    return bool(model.config.tie_word_embeddings)


def trainable_state(policy: VlaPolicy) -> dict[str, torch.Tensor]:
    """What a checkpoint holds: all weights, or with LoRA the trained ones alone."""
    if not policy.config.lora_rank:
        return {name: value for name, value in policy.model.state_dict().items() if not (_tied(policy.model) and name == "lm_head.weight")}
    return {name: value.detach() for name, value in policy.model.named_parameters() if value.requires_grad}


def save_policy(policy: VlaPolicy, folder: Path, dtype: torch.dtype | None = None, card: str = "") -> None:
    """Write a checkpoint into the existing empty `folder` (make it atomic with drive.core.files.atomic_folder)."""
    state = {k: v.detach().to("cpu", dtype or v.dtype).contiguous() for k, v in trainable_state(policy).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    policy.encoder.processor.save_pretrained(folder)
    policy.model.config.save_pretrained(folder)
    policy.codebook.save(folder / "codebook")
    if policy.route_head is not None:
        head = policy.route_head.state_dict().items()
        save_file({k: v.detach().to("cpu", dtype or v.dtype).contiguous() for k, v in head}, folder / ROUTE_HEAD)
    meta = {
        "format": FORMAT,
        "model": asdict(policy.config),
        "plan_tokens": policy.grammar.plan_tokens,
        "codebook": policy.codebook.fingerprint,
        "prompt": prompt_fingerprint(policy),
        "vocabulary": len(policy.tokenizer),
        "base": base_fingerprint(policy),
        "trained_on": sorted(policy.trained_on),
    }
    (folder / "drive.json").write_text(json.dumps(meta, indent=1))
    if card:
        (folder / "README.md").write_text(card)


def load_policy(folder: str | Path, config: ModelConfig | None = None) -> VlaPolicy:
    """Read a checkpoint folder. `config` overrides what may change without the weights: dtype, frozen vision, LoRA's dropout, the
    longest reasoning, and where the weights below LoRA's adapters lie.

    Raises CheckpointError when `config` asks for another model, when a file is missing, a tensor is absent, surplus or of another shape, or when the codebook, the
    vocabulary or the prompt differ from what the weights were trained with.
    """
    folder = Path(folder)
    if not (folder / "drive.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint of drive (no drive.json): give a checkpoint folder, or a run's checkpoints/step_… folder")
    try:
        meta = json.loads((folder / "drive.json").read_text())
        saved = ModelConfig(**meta["model"])
        version, _ = meta["format"], (meta["codebook"], meta["prompt"], meta["vocabulary"], meta["plan_tokens"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}/drive.json is damaged or of another drive ({error}): copy the checkpoint again") from error
    if version != FORMAT:
        raise CheckpointError(f"{folder} has checkpoint format {version}, this drive reads {FORMAT}")
    if config is not None:
        saved = _overridden(saved, config, folder)
    codebook = load_tokenizer(folder / "codebook")
    if codebook.fingerprint != meta["codebook"]:
        raise CheckpointError(f"{folder}/codebook is not the one the weights were trained with: take the folder as it was written")
    policy = _with_adapters(folder, saved, codebook, meta) if saved.lora_rank else _whole(folder, saved, codebook, meta)
    _check_vocabulary(policy, folder, meta)
    policy.trained_on = frozenset(meta.get("trained_on", ()))
    if (folder / ROUTE_HEAD).is_file():
        try:
            policy.route_head = RouteHead.from_state(read_state(folder / ROUTE_HEAD))
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{folder / ROUTE_HEAD} is damaged or of another drive ({error}): copy the checkpoint again") from error
    if saved.freeze_vision:
        freeze_vision(policy.model)
    return policy


FREE = ("dtype", "freeze_vision", "lora_dropout", "max_reasoning")  # settings that may change without the weights


def _overridden(saved: ModelConfig, asked: ModelConfig, folder: Path) -> ModelConfig:
    """`saved` with the free settings of `asked`, each change told; CheckpointError where they differ in any other."""
    old, new = asdict(saved), asdict(asked)
    bound = [name for name in old if name not in (*FREE, "weights") and old[name] != new[name]]
    if bound:
        was = ", ".join(f"model.{name}={old[name]}" for name in bound)
        raise CheckpointError(f"{folder} was trained with {was}; the settings ask for {', '.join(str(new[name]) for name in bound)}: give model={saved.name} and the same")
    changed = [f"model.{name}={new[name]} (was {old[name]})" for name in FREE if old[name] != new[name]]
    if changed:
        print(f"{folder} goes on with {', '.join(changed)}", file=sys.stderr)
    below = {"weights": asked.weights} if saved.lora_rank and asked.weights else {}
    return replace(saved, **{name: new[name] for name in FREE}, **below)


def _check_vocabulary(policy: VlaPolicy, folder: Path, meta: dict) -> None:
    if len(policy.tokenizer) != meta["vocabulary"]:
        raise CheckpointError(f"{folder}: the tokenizer has {len(policy.tokenizer)} tokens, the weights were trained with {meta['vocabulary']}")
    if meta.get("base") and base_fingerprint(policy) != meta["base"]:
        raise CheckpointError(f"{folder}: its adapters were trained on other weights than {policy.config.weights or 'the shipped tiny-base'}: give those with model.weights=")
    if prompt_fingerprint(policy) != meta["prompt"]:
        raise CheckpointError(f"{folder}: this drive builds another prompt than the weights were trained with; train again or use that version of drive")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; CheckpointError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): copy the checkpoint again") from error


def _assign(model, state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], where: Path) -> None:
    """Copy `state` into `wanted` tensors of the model; every name and shape must match."""
    missing, surplus = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    other = sorted(k for k in set(wanted) & set(state) if wanted[k].shape != state[k].shape)
    for names, what in ((missing, "is missing"), (surplus, "belongs to another model"), (other, "has another shape (another vocabulary?)")):
        if names:
            raise CheckpointError(f"{where}: tensor {names[0]} {what} ({len(names)} in all)")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])


def _whole(folder: Path, config: ModelConfig, codebook: PlanTokenizer, meta: dict) -> VlaPolicy:
    from transformers import AutoConfig, AutoModelForImageTextToText

    processor = load_processor(str(folder), config.family, config.max_pixels)
    try:
        architecture = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json is missing or damaged ({error}): copy the checkpoint again") from error
    model = AutoModelForImageTextToText.from_config(architecture, dtype=getattr(torch, config.dtype))
    policy = VlaPolicy(model, processor, codebook, config, meta["plan_tokens"])
    _assign(model, read_state(folder / "model.safetensors"), trainable_state(policy), folder)
    model.tie_weights()
    return policy


def _with_adapters(folder: Path, config: ModelConfig, codebook: PlanTokenizer, meta: dict) -> VlaPolicy:
    model, processor = load_backbone(config)
    new_ids = add_tokens_of(model, processor, codebook)
    policy = VlaPolicy(add_lora(model, config, new_ids), processor, codebook, config, meta["plan_tokens"])
    _assign(policy.model, read_state(folder / "model.safetensors"), trainable_state(policy), folder)
    return policy
