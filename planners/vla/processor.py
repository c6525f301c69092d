"""Image-and-text processors without a video branch.

The stock Qwen-VL and SmolVLM processors build a video processor, which needs torchvision, which breaks on CPU builds of
torch. Frames are sent as images instead, so these subclasses leave the video branch out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.processing_utils import ProcessorMixin

from drive.core.errors import CheckpointError, ConfigError


def qwen_image_processor(pixels: int) -> Qwen2VLImageProcessorPil:
    """Qwen's image processor for square frames of `pixels` x `pixels`, never resized below or above that area."""
    return Qwen2VLImageProcessorPil(size={"shortest_edge": pixels * pixels, "longest_edge": pixels * pixels})


class ImageTextProcessor(ProcessorMixin):
    """Qwen-VL processor (2, 2.5, 3) for images and text only."""

    attributes: ClassVar = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"
    return_mm_token_type_ids = True

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token = "<|image_pad|>"
        self.video_token = "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        """Placeholder text of image `image_idx`: one pad token for each merged patch."""
        return self.image_token * int(image_inputs["image_grid_thw"][image_idx].prod() // self.image_processor.merge_size**2)

    @property
    def model_input_names(self):
        return [*super().model_input_names, "mm_token_type_ids"]

    def image_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of one fitted frame of `shape` (H, W)."""
        side = self.image_processor.patch_size * self.image_processor.merge_size
        return (shape[0] // side) * (shape[1] // side)

    def expand_images(self, text: str, tokens: int) -> str:
        """The prompt with every image placeholder repeated once for each of its `tokens`."""
        return text.replace(self.image_token, self.image_token * tokens)

    def fit(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames (N, H, W, 3) resized by Qwen's rule: sides to multiples of patch * merge, area within the processor's bounds."""
        height, width = fitted_size(images.shape[1:3], self.image_processor)
        if (height, width) == images.shape[1:3]:
            return images
        return np.stack([np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)) for image in images])

    def image_inputs(self, images: list[NDArray[np.uint8]], ids: torch.Tensor, pixels: bool = True) -> dict[str, torch.Tensor]:
        """pixel_values (unless `pixels` is False), image_grid_thw and mm_token_type_ids of fitted frames and token ids (B, L)."""
        stacks = [frames for frames in images if len(frames)]
        if not stacks:
            return {"mm_token_type_ids": torch.zeros_like(ids)}
        p = self.image_processor.patch_size
        grid = torch.tensor([[1, stack.shape[1] // p, stack.shape[2] // p] for stack in stacks for _ in range(len(stack))])
        out = {"image_grid_thw": grid, "mm_token_type_ids": (ids == self.image_token_id).long()}
        return out if not pixels else {"pixel_values": torch.cat([fast_patches(s, self.image_processor) for s in stacks]), **out}

    @classmethod
    def load(cls, source: str | Path) -> ImageTextProcessor:
        """From a folder or a hub name, through the Auto classes of its two parts."""
        from transformers import AutoImageProcessor, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no processor at {source}: give a local folder or a hub name that can be reached ({error})") from error
        template = tokenizer.chat_template
        for name in ("chat_template.jinja", "chat_template.json"):
            file = Path(source) / name
            if template is None and file.is_file():
                template = file.read_text() if name.endswith("jinja") else json.loads(file.read_text())["chat_template"]
        return cls(image_processor=image_processor, tokenizer=tokenizer, chat_template=template)


def fast_patches(images: NDArray[np.uint8], processor: Qwen2VLImageProcessorPil) -> torch.Tensor:
    """What the Qwen image processor gives for frames that need no resizing, in one tensor expression.

    images: (N, H, W, 3) uint8 with H, W multiples of patch * merge. Returns pixel_values (N * H/p * W/p, 3 * t * p * p) float32.
    """
    n, height, width, _ = images.shape
    p, m, t = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    mean = torch.tensor(processor.image_mean)[:, None, None] * 255.0
    std = torch.tensor(processor.image_std)[:, None, None] * 255.0
    # moved about as bytes, and made floats last: four times less memory to move
    patches = torch.from_numpy(np.ascontiguousarray(images)).reshape(n, height // p // m, m, p, width // p // m, m, p, 3)
    patches = patches.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3, 1, p * p)
    pixels = (patches.float() - mean) / std
    return pixels.expand(-1, -1, t, -1).reshape(len(patches), 3 * t * p * p)


def fitted_size(shape: Sequence[int], processor: Qwen2VLImageProcessorPil) -> tuple[int, int]:
    """(H, W) that Qwen's rule gives frames of `shape` (H, W)."""
    size = processor.size
    low, high = (size["shortest_edge"], size["longest_edge"]) if isinstance(size, dict) else (size.shortest_edge, size.longest_edge)
    return smart_resize(shape[0], shape[1], processor.patch_size * processor.merge_size, low, high)


def load_processor(source: str | Path, family: str, max_pixels: int):
    """The processor of a model family from a folder or a hub name, frames at most `max_pixels` large."""
    if family == "smolvlm":
        from drive.planners.vla.smolvlm import SmolProcessor

        return SmolProcessor.load(source)
    if family != "qwen":
        raise ConfigError(f"model.family={family} is neither qwen nor smolvlm")
    processor = ImageTextProcessor.load(source)
    side = processor.image_processor.patch_size * processor.image_processor.merge_size
    processor.image_processor.size = {"shortest_edge": min(side * side, max_pixels), "longest_edge": max_pixels}
    return processor
