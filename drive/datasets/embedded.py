"""Scene sets of the embedded world as Scenarios."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import overload

from drive.core.errors import ConfigError, DataError
from drive.core.protocols import PrivilegedPlanner
from drive.core.types import Scenario
from drive.datasets.card import CARD, Card
from drive.datasets.episode import EpisodeConfig
from drive.datasets.episode_file import EpisodeFile, episode_name
from drive.datasets.generate import generate
from drive.datasets.logged import Inspection
from drive.datasets.select import Selected

EPISODES_KEPT = 256  # in memory, about 0.2 MB each
TEACHER = "drive.planners.pdm:PdmExpert"


class EmbeddedDataset(Sequence[Scenario]):
    """The scenes of a generated folder, in order; the first `scenes` of them if given."""

    def __init__(self, folder: Path | str, scenes: int | None = None) -> None:
        """Raises DataError where `folder` is no generated set."""
        self.folder = Path(folder)
        self.card = Card.read(self.folder)
        self.records = self.card.records(scenes)
        self._kept: OrderedDict[int, EpisodeFile] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        """sha256 of the content, as it stands in the card."""
        return self.card.fingerprint(len(self.records))

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Scenario: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scenario]: ...
    def __getitem__(self, index: int | slice) -> Scenario | list[Scenario]:
        """Scene `index`. Raises DataError, naming file and record, where it is broken."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        episode, number = self.records[index]
        found = self._episode(episode)
        if number >= len(found):
            raise DataError(f"{found.path} holds {len(found)} scenes, the card says more: generate the set again")
        return found.scenario(number)

    def _episode(self, index: int) -> EpisodeFile:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        episode = EpisodeFile.read(self.folder / episode_name(index))
        self._kept[index] = episode
        if len(self._kept) > EPISODES_KEPT:
            self._kept.popitem(last=False)
        return episode


def load_teacher(name: str) -> PrivilegedPlanner:
    """The planner named "module:Class", made without arguments. Raises ConfigError where there is none.

    By name, as planners stand above datasets and are not imported from here.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"there is no teacher {name!r} ({error}): name one as module:Class, for example {TEACHER}") from error


def ensure_embedded(
    root: Path | str, split: str, scenes: int, seed: int = 0, workers: int = 1, progress: bool = True, teacher: str = TEACHER
) -> Selected:
    """The first `scenes` scenes of `split`, in the folder `root`/`split`; generated where they are not there, whole, of this seed.

    A larger set is used in part, a smaller one is continued, broken episodes are made again. `teacher` is for `load_teacher`.
    Raises DataError where the folder holds a set of another seed.
    """
    folder = Path(root) / split
    config = EpisodeConfig(split, seed)
    card = Card.read(folder) if (folder / CARD).exists() else None
    if card is None or card.config != config.plain() or card.scenes < scenes or card.damaged(folder):
        wanted = scenes if card is None else max(scenes, card.scenes)
        generate(folder, config, wanted, partial(load_teacher, teacher), workers, progress)
    data = EmbeddedDataset(folder, scenes)
    return Selected(data, data.fingerprint, scenes)


def inspect(path: Path) -> Inspection:
    """Counts of one split's folder; every episode is compared with the card."""
    card = Card.read(path)
    faults = tuple(f"{path / episode_name(index)} is missing or not what the card says: generate the set again" for index in card.damaged(path))
    counts = {"scenes": card.scenes, "episodes": len(card.episodes), "seed": card.config["seed"], "split": card.config["split"]}
    return Inspection("scenes of the embedded world", path, counts, faults)
