"""The bar of words below the pictures of a drive: speed, facts, badges, and what is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from drive.core.types import Command
from drive.report.pictures import FAINT, INK, PAPER, PLAN_COLOUR, RGB, font, wrap

VIEW, BAR = 480, 96  # pixels of each of the two views above it, and of the bar
WORDS_AT = 190  # pixels from the left
MODE_COLOUR = (104, 78, 176)
Badge = tuple[str, tuple[int, int, int]]


def command_badge(command: Command) -> Badge:
    """A route command in words."""
    return command.value.replace("changelane", "change lane ").replace("lanefollow", "follow lane"), PLAN_COLOUR


def word_bar(speed: float, facts: str, badges: Sequence[Badge], words: str) -> RGB:
    """(BAR, 2 * VIEW, 3); speed in m/s."""
    picture = Image.new("RGB", (2 * VIEW, BAR), PAPER)
    draw, figure = ImageDraw.Draw(picture), f"{3.6 * speed:.0f}"
    draw.text((18, 48), figure, INK, font(46, bold=True), anchor="lm")
    draw.text((26 + font(46, bold=True).getlength(figure), 58), "km/h", FAINT, font(16), anchor="lm")
    draw.text((2 * VIEW - 16, 21), facts, FAINT, font(14), anchor="rm")
    left, face = float(WORDS_AT), font(14, bold=True)
    for word, colour in badges:
        width = face.getlength(word) + 20
        draw.rounded_rectangle((left, 9, left + width, 33), 8, colour)
        draw.text((left + 10, 21), word, INK, face, anchor="lm")
        left += width + 10
    for n, row in enumerate(wrap(words, font(15), 2 * VIEW - WORDS_AT - 16, 2)):
        draw.text((WORDS_AT, 42 + 23 * n), row, INK, font(15))
    return np.asarray(picture)
