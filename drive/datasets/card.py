"""The card of a generated set: what is in it, how it was made, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from drive.core.errors import DataError
from drive.core.files import atomic_write_text
from drive.datasets.episode_file import EpisodeFile, episode_name, file_digest

CARD = "card.json"


@dataclass(frozen=True)
class EpisodeEntry:
    """One episode of a set."""

    index: int
    town: str
    kind: str
    disturbed: bool
    presents: tuple[int, ...]  # steps at which its scenes stand
    dropped: tuple[str, ...]  # why each scene that it lacks was not emitted
    sha256: str

    @staticmethod
    def of(episode: EpisodeFile) -> EpisodeEntry:
        """The entry of an episode file."""
        meta = episode.meta
        presents = tuple(scene["present"] for scene in meta["scenes"])
        dropped = tuple(meta["dropped"][k] for k in sorted(meta["dropped"], key=int))
        return EpisodeEntry(
            meta["index"], meta["town"], meta["kind"], meta["disturbed"], presents, dropped, file_digest(episode.path)
        )


@dataclass(frozen=True)
class Card:
    """A set of `scenes` scenes: those of its episodes in order, the last episode cut where the number is reached."""

    scenes: int
    planner: str  # the teacher
    config: dict[str, Any]  # EpisodeConfig.plain()
    episodes: tuple[EpisodeEntry, ...]

    def records(self, scenes: int | None = None) -> list[tuple[int, int]]:
        """(index of the episode, number of the scene in it) of the first `scenes` scenes, or of all."""
        rows = [(entry.index, k) for entry in self.episodes for k in range(len(entry.presents))]
        return rows[: self.scenes if scenes is None else min(scenes, self.scenes)]

    def fingerprint(self, scenes: int | None = None) -> str:
        """sha256 over the digests of the episodes that hold the first `scenes` scenes, and their number."""
        records = self.records(scenes)
        used = sorted({index for index, _ in records})
        digest = {entry.index: entry.sha256 for entry in self.episodes}
        return hashlib.sha256("\n".join([str(len(records)), *(digest[i] for i in used)]).encode()).hexdigest()

    def write(self, folder: Path, command: str) -> None:
        """Write card.json and README.md."""
        entries = {entry.index: entry for entry in self.episodes}
        used = [entries[index] for index, _ in self.records()]
        facts = {
            "scenes": self.scenes,
            "episodes": len(self.episodes),
            "scenes_by_kind": dict(sorted(Counter(entry.kind for entry in used).items())),
            "scenes_by_town": dict(sorted(Counter(entry.town for entry in used).items())),
            "scenes_of_disturbed_drives": sum(entry.disturbed for entry in used),
            "scenes_not_emitted": dict(sorted(Counter(reason for entry in self.episodes for reason in entry.dropped).items())),
            "planner": self.planner,
            "fingerprint": self.fingerprint(),
            "command": command,
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("drive-vla", "numpy", "numba")},
            },
        }
        plain = {
            "facts": facts,
            "scenes": self.scenes,
            "planner": self.planner,
            "config": self.config,
            "episodes": [asdict(e) for e in self.episodes],
        }
        atomic_write_text(folder / "README.md", _readme(facts, self.config))
        atomic_write_text(folder / CARD, json.dumps(plain, indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Card:
        """Raises DataError where `folder` has no whole card."""
        path = Path(folder) / CARD
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            episodes = tuple(
                EpisodeEntry(**{**entry, "presents": tuple(entry["presents"]), "dropped": tuple(entry["dropped"])})
                for entry in plain["episodes"]
            )
            return Card(plain["scenes"], plain["planner"], plain["config"], episodes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is missing or not a card ({error}): generate the set with `drive data generate`") from error

    def damaged(self, folder: Path) -> list[int]:
        """Indexes of the episodes whose file is missing or not what the card says."""
        return [entry.index for entry in self.episodes if file_digest(Path(folder) / episode_name(entry.index)) != entry.sha256]


def _readme(facts: dict[str, Any], config: dict[str, Any]) -> str:
    def table(title: str, counts: dict[str, int]) -> str:
        return "\n".join([f"| {title} | scenes |", "|---|---|", *(f"| {name} | {count} |" for name, count in counts.items())])

    lost = ", ".join(f"{count} after {reason}" for reason, count in facts["scenes_not_emitted"].items()) or "none"
    return f"""# Scenes of the embedded world: {config["split"]}

{facts["scenes"]} scenes of {facts["episodes"]} drives, seed {config["seed"]}, teacher {facts["planner"]}.
{facts["scenes_of_disturbed_drives"]} scenes are of drives that were disturbed on purpose. Not emitted, as the drive was over
before: {lost}.

{table("kind", facts["scenes_by_kind"])}

{table("town", facts["scenes_by_town"])}

Command: `{facts["command"]}`

Versions: {", ".join(f"{name} {version}" for name, version in facts["versions"].items())}

Fingerprint: `{facts["fingerprint"]}`
"""
