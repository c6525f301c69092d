"""The tiny model: Qwen2.5-VL's own classes at about 2 M parameters, with a small text tokenizer of its own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from drive.planners.vla.prompt import CHATML

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
ROLES = ["system", "user", "assistant"]
IMAGE_PIXELS = 112  # 8 x 8 patches of 14 pixels, merged 2 x 2: 16 tokens a frame


def train_text_tokenizer(corpus: Iterable[str], vocab_size: int = 512):
    """A byte-level BPE of `vocab_size` tokens over `corpus`; digits stay single, so that numbers share their tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # Every turn of a chat is headed by its role: spelt in letters it cost more tokens than what is said.
    bpe.train_from_iterator(chain(corpus, ROLES * 1000), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL[1:], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def tiny_config(tokenizer, hidden: int = 160, layers: int = 4, vision_hidden: int = 96, vision_layers: int = 3):
    """A Qwen2_5_VLConfig of about 2 M parameters for `tokenizer`."""
    from transformers import Qwen2_5_VLConfig

    vocab = tokenizer.get_vocab()
    heads = hidden // 40
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 8, 8]},
            "bos_token_id": None,
            "eos_token_id": vocab["<|im_end|>"],
            "pad_token_id": vocab["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": 2 * vision_hidden,
            "num_heads": vision_hidden // 24,
            "out_hidden_size": hidden,
            "window_size": IMAGE_PIXELS,
            "fullatt_block_indexes": list(range(vision_layers)),
        },
        image_token_id=vocab["<|image_pad|>"],
        video_token_id=vocab["<|video_pad|>"],
        vision_start_token_id=vocab["<|vision_start|>"],
        vision_end_token_id=vocab["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_tiny(corpus: Iterable[str], seed: int, vocab_size: int = 512):
    """(model, processor) with fresh weights; text tokenizer trained on `corpus`."""
    import torch
    from transformers import AutoModelForImageTextToText

    from drive.core.seeds import stream
    from drive.planners.vla.processor import ImageTextProcessor, qwen_image_processor

    tokenizer = train_text_tokenizer(corpus, vocab_size)
    torch.manual_seed(stream(seed, "init"))
    model = AutoModelForImageTextToText.from_config(tiny_config(tokenizer))
    return model, ImageTextProcessor(image_processor=qwen_image_processor(IMAGE_PIXELS), tokenizer=tokenizer, chat_template=CHATML)
