"""SmolVLM's processor for images and text only: one token block per frame, no tiling, no video branch, no num2words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from drive.core.errors import CheckpointError


class SmolProcessor(ProcessorMixin):
    """The interface of `processor.ImageTextProcessor` over SmolVLM's image processor."""

    attributes: ClassVar = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, image_seq_len: int = 64, **kwargs):
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def image_tokens(self, shape: Sequence[int]) -> int:
        """Tokens of one frame: SmolVLM gives every frame the same number."""
        return self.image_seq_len

    def expand_images(self, text: str, tokens: int) -> str:
        """Every image placeholder as the block SmolVLM was trained with for an untiled image."""
        fence = "<fake_token_around_image>"
        return text.replace(self.image_token, f"{fence}<global-img>{self.image_token * tokens}{fence}")

    def fit(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Frames (N, H, W, 3) as they are: the image processor resizes them when the batch is made."""
        return images

    def image_inputs(self, images: list[NDArray[np.uint8]], ids: torch.Tensor, pixels: bool = True) -> dict[str, torch.Tensor]:
        """pixel_values (B, N, 3, H, W) and pixel_attention_mask of a batch of frames; `ids` is not needed by this family."""
        if not pixels or not any(len(frames) for frames in images):
            return {}
        return dict(self.image_processor([list(frames) for frames in images], do_image_splitting=False, return_tensors="pt"))

    @classmethod
    def load(cls, source: str | Path) -> SmolProcessor:
        """From a folder or a hub name; the tokens per frame come from the model's own config."""
        from transformers import AutoConfig, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            image_processor = SmolVLMImageProcessorPil.from_pretrained(source)
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"no processor at {source}: give a local folder or a hub name that can be reached ({error})") from error
        side = image_processor.max_image_size["longest_edge"] // config.vision_config.patch_size
        return cls(image_processor, tokenizer, tokenizer.chat_template, image_seq_len=(side // config.scale_factor) ** 2)
