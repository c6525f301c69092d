"""Any tokenizer from its folder: the one place that knows them all by the format in their card."""

from __future__ import annotations

import json
from pathlib import Path

from drive.core.errors import TokenizerError
from drive.tokenizers import codebook_files
from drive.tokenizers.bev_grid import BevGrid
from drive.tokenizers.fast import Fast
from drive.tokenizers.interface import CARD, CardTokenizer, PlanTokenizer
from drive.tokenizers.text_waypoints import TextWaypoints
from drive.tokenizers.unicycle import Unicycle
from drive.tokenizers.uniform_bins import UniformBins

CARD_TOKENIZERS: dict[str, type[CardTokenizer]] = {
    cls.format(): cls for cls in (BevGrid, Fast, TextWaypoints, Unicycle, UniformBins)
}


def load_tokenizer(folder: str | Path, expect_dt: float | None = None) -> PlanTokenizer:
    """What the `save` of any tokenizer wrote. Raises TokenizerError on missing, changed or foreign files, or a dt other than
    `expect_dt`."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text("utf-8"))
        if not isinstance(card, dict) or card.get("format") not in CARD_TOKENIZERS:
            return codebook_files.load(folder, expect_dt)
        tokenizer = CARD_TOKENIZERS[card["format"]].from_card(card, path)
    except FileNotFoundError as error:
        raise TokenizerError(f"no action tokenizer at {folder}: {CARD} is missing; fit one first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"the action tokenizer at {folder} cannot be read ({error!r}): restore it or fit again") from error
    if expect_dt is not None and abs(tokenizer.dt - expect_dt) > 1e-9:
        raise TokenizerError(f"the tokenizer at {folder} has tokens of {tokenizer.dt:g} s, want {expect_dt:g} s: fit another")
    return tokenizer
