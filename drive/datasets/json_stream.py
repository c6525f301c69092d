"""The records of a JSON file that holds one long list, one at a time: a table of gigabytes is read in the memory of a few records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drive.core.errors import DataError

BLOCK = 1 << 20  # characters read at a time
MAX_RECORD = 1 << 24  # characters of one record
SPACE = " \t\n\r"
ENDS = frozenset(SPACE + ",]")  # what may follow a record


def json_records(path: Path) -> Iterator[Any]:
    """The items of the list in `path`. Raises DataError, naming the file, where it cannot be read, is no list, torn, or goes on after its end."""
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8") as file:
            text, at = _filled(file, "", 0)
            if text[at : at + 1] != "[":
                raise DataError(f"{path} holds no list of records: fetch it again")
            at, first = at + 1, True
            while True:
                text, at = _filled(file, text, at)
                if text[at : at + 1] == "]":
                    break
                if not first:
                    if text[at : at + 1] != ",":
                        raise DataError(f"{path} cannot be read as JSON (it ends early, or a comma is missing): fetch it again")
                    text, at = _filled(file, text, at + 1)
                record, text, at = _next(path, decoder, file, text, at)
                yield record
                first = False
            text, at = _filled(file, text, at + 1)
            if at < len(text):
                raise DataError(f"{path} cannot be read as JSON (there is more after its list): fetch it again")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error


def _filled(file: Any, text: str, at: int) -> tuple[str, int]:
    """The text and the place of its next character that is no space, read on where need be; at the end of the text, at the end of the file."""
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if at < len(text):
            return text, at
        more = file.read(BLOCK)
        if not more:
            return text, at
        text, at = more, 0


def _next(path: Path, decoder: json.JSONDecoder, file: Any, text: str, at: int) -> tuple[Any, str, int]:
    while True:
        try:
            record, end = decoder.raw_decode(text, at)
            if text[end : end + 1] in ENDS:  # else a number goes on, or may
                return record, text, end
            problem = "it ends early"
        except (json.JSONDecodeError, RecursionError) as error:
            problem = str(error)  # the error itself would hold on to the text
        more = file.read(BLOCK) if len(text) - at < MAX_RECORD else ""
        if not more:
            raise DataError(f"{path} cannot be read as JSON ({problem}): fetch it again")
        text, at = text[at:] + more, 0
