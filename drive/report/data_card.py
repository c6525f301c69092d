"""The card of a split as files: README.md and card.json for reading, card.png for looking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drive.core.errors import DataError
from drive.core.files import atomic_write_text
from drive.core.types import Scenario
from drive.datasets.select import spread

LINES = 400  # driven futures that are drawn
FRAMES = 4  # camera frames that are shown


def write_card(folder: Path, dataset: Mapping[str, Any], split: str, facts: Mapping[str, Any], scenes: Sequence[Scenario]) -> Path:
    """Write README.md, card.json and card.png of a split into `folder`, and return the folder."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    settings = " ".join(f"dataset.{key}={value}" for key, value in dataset.items() if key not in ("name", "root") and value is not None)
    text = f"# {dataset['name']}, {split}\n\n`dataset={dataset['name']} {settings} split={split}`\n\n| | |\n|---|---|\n{rows}\n\n![what the split looks like](card.png)\n"
    atomic_write_text(folder / "README.md", text)
    atomic_write_text(folder / "card.json", json.dumps(dict(facts), indent=1) + "\n")
    draw(scenes, folder / "card.png")
    return folder


def draw(scenes: Sequence[Scenario], path: Path) -> Path:
    """Write a PNG: driven futures, speeds, commands, agents, and a few camera frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 7.0), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 12, height_ratios=(3, 2))
    futures, speed, command, agents = (figure.add_subplot(grid[0, a:b]) for a, b in ((0, 5), (5, 8), (8, 10), (10, 12)))
    shown = [scene for scene in scenes if scene.teacher is not None]
    for scene in shown[:: max(len(shown) // LINES, 1)]:
        assert scene.teacher is not None
        ends = np.concatenate([np.zeros((1, 2)), scene.teacher.poses[:, :2]])
        futures.plot(-ends[:, 1], ends[:, 0], color="#3b6ea5", alpha=0.25, linewidth=1.0)
    futures.set(title=f"driven futures, 5 s ({len(shown)} scenes)", xlabel="right (m)", ylabel="forward (m)")
    futures.set_aspect("equal", adjustable="datalim")
    speed.hist([scene.ego.state(scene.present).speed for scene in scenes], bins=30, color="#3b6ea5")
    speed.set(title="speed (m/s)", ylabel="scenes")
    _bars(command, Counter(scene.command.value for scene in scenes), "command")
    agents.hist([int(scene.agents.valid[:, scene.present].sum()) for scene in scenes], bins=20, color="#3b6ea5")
    agents.set(title="agents now")
    picks = [scenes[k] for k in spread(len(scenes), FRAMES)]
    for k, scene in enumerate(picks):
        axes = figure.add_subplot(grid[1, 3 * k : 3 * k + 3])
        axes.axis("off")
        try:
            axes.imshow(scene.image_source.image(0, scene.present))
            axes.set_title(f"…{scene.id[-24:]}" if len(scene.id) > 25 else scene.id, fontsize=8)
        except DataError as error:
            axes.text(0.5, 0.5, str(error)[:120], wrap=True, ha="center", fontsize=7)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _bars(axes: Any, counts: Counter[str], title: str) -> None:
    names = [name for name, _ in counts.most_common()]
    axes.barh(names, [counts[name] for name in names], color="#3b6ea5")
    axes.invert_yaxis()
    axes.set_title(title)
