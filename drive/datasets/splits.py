"""Splits by log, the guard that keeps training off them, and the fingerprint of a folder of data.

Scenarios cut from one log show the same street and the same cars: a split is a partition of logs, never of scenarios.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from drive.core.errors import DataError
from drive.core.seeds import numpy_rng

EVALUATION_SPLITS = ("val", "test")
MEGABYTE, SAMPLED_ABOVE, SAMPLES = 1 << 20, 1 << 28, 64  # of a fingerprint

# The ten nuScenes-mini scenes that ScenarioNet ships seven of. Test is nuScenes' own mini_val (one town each, both moving
# throughout, one with a U-shaped turn); the parked scene 0553 is in train.
NUSCENES_MINI: Mapping[str, tuple[str, ...]] = {
    "train": ("scene-0061", "scene-0553", "scene-0655", "scene-0757", "scene-0796", "scene-1077", "scene-1094", "scene-1100"),
    "test": ("scene-0103", "scene-0916"),
}


def split_by_log(splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The split of each log. Raises DataError if a log is named twice, in two splits or in one."""
    found: dict[str, str] = {}
    for name, logs in splits.items():
        for log in logs:
            if log in found:
                raise DataError(f"log {log} is in the splits {found[log]} and {name}: keep it in one, its scenarios are not independent")
            found[log] = name
    return found


def load_splits(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Named splits from a YAML file: `train: [log, …]`, `val: …`, `test: …`. Raises DataError, naming it, on anything else or an overlap."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not content or set(content) - {"train", *EVALUATION_SPLITS}:
        raise DataError(f"{path}: a file of splits maps train, val and test to lists of log ids")
    if not all(isinstance(logs, list) and all(isinstance(log, str) for log in logs) for logs in content.values()):
        raise DataError(f"{path}: a split is a list of log ids, in quotes where they look like numbers")
    splits = {name: tuple(logs) for name, logs in content.items()}
    split_by_log(splits)
    return splits


def split_logs(log_ids: Iterable[str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Log ids dealt to named splits at random: {"train": 0.8, "test": 0.2}. Depends on the set of ids and the seed alone.

    Sizes are rounded by largest remainder, and no split is left empty. Raises DataError on repeated ids, on fractions that do not
    sum to 1, and on fewer logs than splits.
    """
    logs = sorted(log_ids)
    split_by_log({"given": logs})
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1.0) > 1e-6:
        raise DataError(f"split fractions must be positive and sum to 1, got {dict(fractions)}")
    if len(logs) < len(fractions):
        raise DataError(
            f"{len(logs)} logs cannot fill {len(fractions)} splits ({', '.join(fractions)}): give more logs or fewer splits"
        )
    shares = {name: fraction * len(logs) for name, fraction in fractions.items()}
    sizes = {name: max(int(share), 1) for name, share in shares.items()}
    while sum(sizes.values()) != len(logs):
        short = sum(sizes.values()) < len(logs)
        gaps = {name: shares[name] - size for name, size in sizes.items() if short or size > 1}
        name = max(gaps, key=lambda n: gaps[n]) if short else min(gaps, key=lambda n: gaps[n])
        sizes[name] += 1 if short else -1
    order = [logs[i] for i in numpy_rng(seed, "split_logs").permutation(len(logs))]
    out, at = {}, 0
    for name, size in sizes.items():
        out[name] = tuple(sorted(order[at : at + size]))
        at += size
    return out


def choose_logs(splits: Mapping[str, Sequence[str]], split: str, available: Iterable[str]) -> tuple[str, ...]:
    """The available logs of one split, sorted. Raises DataError on an unknown split, an overlap, or logs that no split names."""
    split_by_log(splits)
    if split not in splits:
        raise DataError(f"there is no split {split!r}: choose from {', '.join(splits)}")
    available = sorted(available)
    named = {log for logs in splits.values() for log in logs}
    stray = [log for log in available if log not in named]
    if stray:
        raise DataError(
            f"{len(stray)} logs belong to no split ({', '.join(stray[:3])}{', ...' if len(stray) > 3 else ''}): "
            "give splits that name every log, for example split_logs(log_ids, {'train': 0.8, 'test': 0.2})"
        )
    return tuple(log for log in available if log in set(splits[split]))


def refuse_evaluation_split(split: str, force: bool = False, can_force: bool = True) -> None:
    """Raises DataError when a training stage is given an evaluation split, unless forced."""
    if split != "train" and not force:
        kind = "an evaluation split" if split in EVALUATION_SPLITS else "not the training split"
        raise DataError(
            f"split {split!r} is {kind}: scores on it would mean nothing after training. Train on 'train'"
            + (", or force it knowingly with force=true" if can_force else "")
        )


def fingerprint(root: str | Path, files: Iterable[str | Path]) -> str:
    """sha256 over names (relative to `root`), sizes and contents of `files`, in order of name. DataError on a missing file.

    Of a file above SAMPLED_ABOVE bytes, SAMPLES evenly spread megabytes stand for the content: hashing a terabyte would take an hour.
    """
    root = Path(root)
    total = hashlib.sha256()
    for path in sorted({Path(f) for f in files}, key=lambda p: _name(root, p)):
        try:
            content = hashlib.sha256()
            size = path.stat().st_size
            with path.open("rb") as file:
                if size > SAMPLED_ABOVE:
                    for k in range(SAMPLES):
                        file.seek(k * (size - MEGABYTE) // (SAMPLES - 1))
                        content.update(file.read(MEGABYTE))
                else:
                    while block := file.read(MEGABYTE):
                        content.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read for the fingerprint ({error.strerror or error})") from error
        total.update(f"{_name(root, path)}\0{size}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
