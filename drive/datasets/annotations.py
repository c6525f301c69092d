"""Reasoning texts kept beside a dataset, one file a split, and the dataset joined with them.

    ROOT/train/annotations.jsonl   one line a scene, only ever appended; the last line of a scene counts
    ROOT/train/card.json           what was annotated, by whom, how much came of it
    ROOT/train/README.md           the same for people

Only the text and whether the scene is complex reach a Scenario. What else stands in a line (the action that the text had to conclude with, the
faults of refused answers) is for whoever checks the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, overload

from drive.core.errors import DataError
from drive.core.files import disk_errors
from drive.core.types import Scenario
from drive.datasets.select import Selected

LINES, CARD = "annotations.jsonl", "card.json"
# settings of a dataset that leave its scenes as they are, or whose content is in the fingerprint
ELSEWHERE = ("root", "workers", "annotations", "codebook_tolerance", "images", "maps", "sensors", "splits", "drivelm", "filter")
logger = logging.getLogger(__name__)


class Verdict(str, Enum):
    """What became of one scene."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"  # no text passed the checks; the scene is answered fast
    FAILED = "failed"  # the teacher could not be asked; tried again by the next run


@dataclass(frozen=True)
class Annotation:
    """One line of an annotation file."""

    index: int  # of the scene in its dataset
    id: str
    verdict: Verdict
    source: str  # "rule", or the teacher's model
    reasoning: str = ""  # empty unless accepted
    complex: bool | None = None  # by the expert's reasons; None leaves the dataset's own word
    action: str = ""  # what the text has to conclude with
    reasons: tuple[str, ...] = ()  # "kind: detail" of every refusal, also those before an answer that was accepted
    asks: int = 0  # answers had of a teacher
    unmetered: int = 0  # of these, answers without a token count
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """One line of JSON, with its end."""
        return json.dumps({**asdict(self), "verdict": self.verdict.value}, ensure_ascii=False) + "\n"

    @staticmethod
    def parse(line: str) -> Annotation:
        """Raises ValueError, KeyError or TypeError on what is no annotation, or a text that would break a student's answer."""
        plain = json.loads(line)
        row = Annotation(**{**plain, "verdict": Verdict(plain["verdict"]), "reasons": tuple(plain["reasons"])})
        if type(row.index) is not int or not isinstance(row.id, str) or not isinstance(row.reasoning, str):
            raise TypeError("index must be a whole number, id and reasoning text")
        if bool(row.reasoning) != (row.verdict is Verdict.ACCEPTED):
            raise ValueError("an accepted scene has a reasoning, and no other has")
        if not is_plain(row.reasoning):
            raise ValueError("the reasoning holds '<', '>' or a control character, which a model's own control words are made of")
        return row


def is_plain(text: str) -> bool:
    """True where `text` is one line of printable characters and can spell no control word such as </think>."""
    return text.isprintable() and not set("<>") & set(text)


def read_annotations(path: Path | str) -> list[Annotation]:
    """All whole lines in order; a last one that a kill tore is left out. Raises DataError on any other bad line."""
    path = Path(path)
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): write it with `drive data annotate`") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Annotation.parse(line.decode("utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: no annotation ({error}): remove that line and annotate again, the others are kept") from error
    return rows


class AnnotationLog:
    """The annotation file of `folder` while it grows. Opening it drops a torn last line, so that its scene is done again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LINES
        self.path.touch()
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        self.rows = read_annotations(self.path)

    def append(self, row: Annotation) -> None:
        """Add a line and fsync it; a line that the disk did not take whole is taken back. Raises DriveError on a full disk."""
        data = row.line().encode()
        with disk_errors(self.path), open(self.path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
        self.rows.append(row)


def latest(rows: Sequence[Annotation]) -> dict[str, Annotation]:
    """Scene id to its last line."""
    return {row.id: row for row in rows}


def read_card(folder: Path | str) -> dict[str, Any]:
    """The card of an annotated split. Raises DataError where there is none."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        card["identity"]["fingerprint"]
        return card
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is missing or no card of annotations ({error}): write it with `drive data annotate`") from error


def data_identity(data: Selected, config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What scenes these are: the files, the settings of the dataset's section that choose scenes and pictures, the split and its size."""
    settings = {f"dataset.{key}": value for key, value in config.items() if key not in ELSEWHERE and not key.endswith("_scenes")}
    return {"fingerprint": data.fingerprint, "scenes": len(data.scenarios), "split": split, **settings}


def differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Where two identities differ, in words; empty where they do not."""
    keys = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
    return "; ".join(f"{key} {str(known.get(key))[:80]}, not {str(wanted.get(key))[:80]}" for key in keys)


class AnnotatedDataset(Sequence[Scenario]):
    """A dataset whose reasoning is replaced by that of an annotation file: scenes without an accepted text have none."""

    def __init__(self, scenarios: Sequence[Scenario], rows: Mapping[str, Annotation]) -> None:
        """`rows` maps scene ids to annotations (`latest`)."""
        self.scenarios, self.rows = scenarios, rows

    @property
    def coverage(self) -> float:
        """Share of the scenes that have a reasoning."""
        return self._count(Verdict.ACCEPTED) / max(len(self), 1)

    @property
    def summary(self) -> str:
        """One line: how many scenes have a reasoning, and why the others have none."""
        done = {verdict: self._count(verdict) for verdict in Verdict}
        without = len(self) - sum(done.values())
        return (
            f"{done[Verdict.ACCEPTED]} of {len(self)} scenes have a reasoning "
            f"({done[Verdict.REJECTED]} rejected, {done[Verdict.FAILED]} failed, {without} not annotated)"
        )

    def _count(self, verdict: Verdict) -> int:
        return sum(row.verdict is verdict for row in self.rows.values())

    def __len__(self) -> int:
        return len(self.scenarios)

    @overload
    def __getitem__(self, index: int) -> Scenario: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scenario]: ...
    def __getitem__(self, index: int | slice) -> Scenario | list[Scenario]:
        """Scene `index` with the annotated reasoning."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        scenario = self.scenarios[index]
        row = self.rows.get(scenario.id)
        if row is None:
            return replace(scenario, reasoning="")
        notes = scenario.notes if row.complex is None else {**scenario.notes, "complex": row.complex}
        return replace(scenario, reasoning=row.reasoning, notes=notes)


def annotated(data: Selected, config: Mapping[str, Any], split: str) -> Selected:
    """`data` with the annotations of its split in the folder config["annotations"]; its fingerprint is of both.

    config: the dataset's section. A split other than train that was not annotated stays as it is, which is told. Raises DataError where the
    annotations are missing, broken or of other data.
    """
    root = Path(config["annotations"])
    folder = root / split
    if not (folder / CARD).exists() and split != "train" and any(root.glob(f"*/{CARD}")):
        logger.warning("%s holds no annotations of the split %s: its scenes are read without", root, split)
        return data
    wanted = data_identity(data, config, split)
    identity = read_card(folder)["identity"]
    other = differences({key: identity.get(key) for key in wanted}, wanted)
    if other:
        raise DataError(f"{folder} annotates other data ({other}): give the dataset as it was annotated, or annotate this one into another folder")
    path = folder / LINES
    joined = AnnotatedDataset(data.scenarios, latest(read_annotations(path)))
    if joined.coverage < 1.0:
        logger.warning("%s: %s", folder, joined.summary)
    digest = hashlib.sha256(f"{data.fingerprint}\n".encode() + path.read_bytes()).hexdigest()
    return replace(data, scenarios=joined, fingerprint=digest)
