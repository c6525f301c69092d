"""DriveLM's questions and answers about nuScenes key frames (Sima et al. 2023), by scene and sample token.

A file maps scene tokens to `key_frames`, these sample tokens to `QA`: lists of {"Q", "A"} by topic (perception, prediction,
planning, behavior). The challenge's answer files are lists of {"id", "question", "gt_answer", "answer"}. Format: DriveLM 1de72a7,
challenge/.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drive.core.errors import DataError
from drive.core.types import Question
from drive.datasets.logged import Inspection

ANSWER = ("id", "question", "answer")


def _load(path: Path) -> Any:
    if path.is_dir():
        raise DataError(f"{path} is a folder: name DriveLM's file itself, such as v1_1_train_nus.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): fetch it again") from error


def _frames(path: Path, content: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(scene token, sample token, key frame) of a file of questions."""
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} is no DriveLM file: it maps no scene to key frames")
    for scene, record in content.items():
        frames = record.get("key_frames") if isinstance(record, dict) else None
        if not isinstance(frames, dict):
            raise DataError(f"{path}: scene {scene} has no key_frames")
        for sample, frame in frames.items():
            if not isinstance(frame, dict) or not isinstance(frame.get("QA"), dict):
                raise DataError(f"{path}: key frame {sample} of scene {scene} has no QA")
            yield scene, sample, frame


def read_questions(path: str | Path) -> dict[tuple[str, str], tuple[Question, ...]]:
    """The questions by (scene token, sample token), in the file's order. Raises DataError, naming file and key frame, on a faulty one."""
    path, out = Path(path), {}
    for scene, sample, frame in _frames(path, _load(path)):
        questions = []
        for topic, records in frame["QA"].items():
            for number, record in enumerate(records if isinstance(records, list) else [None]):
                if not isinstance(record, dict) or not isinstance(record.get("Q"), str) or not isinstance(record.get("A"), str):
                    raise DataError(f"{path}: key frame {sample} of scene {scene}: record {number} of {topic} has no Q and A")
                questions.append(Question(record["Q"], record["A"], str(topic)))
        out[scene, sample] = tuple(questions)
    return out


def inspect(path: Path) -> Inspection:
    """Counts of a file of questions, or of a file of a model's answers. Raises DataError on any other."""
    content = _load(path)
    if isinstance(content, list):
        bad = [k for k, record in enumerate(content) if not isinstance(record, dict) or not set(ANSWER) <= record.keys()]
        faults = tuple(f"{path}: record {k} lacks {', '.join(ANSWER)}" for k in bad)
        if len(bad) == len(content):
            raise DataError(f"{path} is no DriveLM file: no record has {', '.join(ANSWER)}")
        good = [record for record in content if isinstance(record, dict) and set(ANSWER) <= record.keys()]
        return Inspection("DriveLM answers", path, {"answers": len(good), "with a reference": sum("gt_answer" in record for record in good)}, faults)
    found = read_questions(path)
    topics = Counter(question.topic for questions in found.values() for question in questions)
    counts: dict[str, int | float | str] = {"scenes": len({scene for scene, _ in found}), "key frames": len(found), "questions": topics.total(), **topics}
    return Inspection("DriveLM questions", path, counts)
