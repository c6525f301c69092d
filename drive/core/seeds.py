"""All randomness comes from a seed in the config, through these generators."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # readers and their workers need no torch: 200 MB and two seconds of each process
    import torch


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for a named stream, so that two uses of one config seed never share numbers.

    `stream(0, "grpo", 12)` gives the same value on every machine and Python version.
    """
    text = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator of the named stream."""
    return np.random.default_rng(stream(seed, *names))


def torch_rng(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """A torch generator of the named stream, on `device`."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(stream(seed, *names))
    return generator
