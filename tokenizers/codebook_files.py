"""The two files of a K-disk tokenizer: `codebook.safetensors` and `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from drive.core.errors import TokenizerError
from drive.core.files import PARTIAL
from drive.tokenizers.feasibility import Bounds

if TYPE_CHECKING:
    from drive.tokenizers.kdisk import KDiskTokenizer

FORMAT = "drive-kdisk-1"
CODEBOOK, CARD = "codebook.safetensors", "tokenizer.json"


def fingerprint(codebook: NDArray[np.float64], dt: float) -> str:
    """SHA-256 (hex) over dt and the codebook (K, 3), as little-endian float64: equal on every machine."""
    return hashlib.sha256(np.array([dt], "<f8").tobytes() + codebook.astype("<f8").tobytes()).hexdigest()


def save(folder: str | Path, tokenizer: KDiskTokenizer) -> None:
    """Write both files, whole or not at all: neither is replaced before both are on the disk. TokenizerError if it refuses."""
    folder = Path(folder)
    card = {
        "format": FORMAT,
        "dt": tokenizer.dt,
        "vocab_size": tokenizer.vocab_size,
        "tolerance": tokenizer.tolerance,
        "box": asdict(tokenizer.box),
        "bounds": asdict(tokenizer.bounds),
        "record": asdict(tokenizer.record),
        "speed_cap": tokenizer.speed_cap,
        "sha256": tokenizer.fingerprint,
    }
    contents = {
        CODEBOOK: safetensors.save({"codebook": tokenizer.codebook}),
        CARD: json.dumps(card, indent=2).encode() + b"\n",
    }
    temporary = {name: folder / f".{name}.{os.getpid()}{PARTIAL}" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _write(temporary[name], content)
        for name in contents:
            os.replace(temporary[name], folder / name)
    except OSError as error:
        raise TokenizerError(f"the tokenizer was not saved to {folder} ({error}): nothing there was changed") from error
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def load(folder: str | Path, expect_dt: float | None = None) -> KDiskTokenizer:
    """Read both files; TokenizerError where they are missing, changed, of another format, or of a dt other than `expect_dt`."""
    from drive.tokenizers.kdisk import Box, FitRecord, KDiskTokenizer  # the class uses this module, so not at the top

    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        codebook = safetensors.load((folder / CODEBOOK).read_bytes())["codebook"]
        if card["format"] != FORMAT:
            raise TokenizerError(f"{folder / CARD} is of format {card['format']!r}, want {FORMAT!r}: fit the tokenizer again")
        if card["sha256"] != fingerprint(codebook, card["dt"]):
            raise TokenizerError(f"{folder / CODEBOOK} is not the codebook that {CARD} describes: restore both or fit again")
        tokenizer = KDiskTokenizer(
            codebook, card["dt"], card["tolerance"], Box(**card["box"]), Bounds(**card["bounds"]), FitRecord(**card["record"])
        )
    except FileNotFoundError as error:
        raise TokenizerError(f"no action tokenizer at {folder}: {Path(error.filename).name} is missing; fit one first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise TokenizerError(f"the action tokenizer at {folder} cannot be read ({error!r}): restore it or fit again") from error
    if expect_dt is not None and abs(tokenizer.dt - expect_dt) > 1e-9:
        raise TokenizerError(f"the tokenizer at {folder} has tokens of {tokenizer.dt:g} s, want {expect_dt:g} s: fit another")
    return tokenizer


def _write(path: Path, content: bytes) -> None:
    """Write and flush to the disk, so that a full one is noticed here."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
