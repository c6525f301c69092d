"""The pictures that a closed-loop evaluation leaves, and report.html: its tables, every route on its map, and links to the films."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from html import escape
from pathlib import Path
from string import Template

from drive.benchmarks.carla_drive import DrivenRoute
from drive.benchmarks.carla_routes import ClosedLoop
from drive.core.files import atomic_write_text
from drive.report.closed_loop_films import films_of, write_films
from drive.report.closed_loop_maps import picture_path, write_map
from drive.report.html import PAGE, REPORT
from drive.simulators.carla_routes import CarlaRoute


class Videos(str, Enum):
    """Which routes are filmed."""

    NONE = "none"
    INFRACTIONS = "infractions"  # the seconds about each infraction
    ALL = "all"  # and routes without one as a whole


@dataclass(frozen=True)
class Pictures:
    """Draws a route as soon as it has been driven; see `drive.benchmarks.carla_routes.Show`."""

    out: Path
    videos: Videos

    @property
    def film(self) -> bool:
        """Whether films are wanted."""
        return self.videos is not Videos.NONE

    def draw(self, route: CarlaRoute, driven: DrivenRoute) -> None:
        """pictures/<route>.png and films under videos/."""
        write_map(self.out, route.id, driven)
        if self.film:
            write_films(self.out, route.id, driven, self.videos is Videos.ALL)


def write_page(out: Path, result: ClosedLoop, title: str, tables: Sequence[str]) -> Path:
    """report.html of an evaluation: one file with tables and maps; films are links to the files beside it."""
    head = f"<header><h1>{escape(title)}</h1><div class='under'>{escape(result.planner)}</div></header>"
    words = "".join(f"<pre class='scroll' style='white-space: pre'>{escape(table)}</pre>" for table in tables if table)
    cards = "".join(_card(out, finished.record.route, f"{finished.record.score_composed:.1f}", finished.record.status) for finished in result.finished)
    body = f"{head}<section><h2>Evaluation</h2>{words}</section><section><h2>Routes</h2><div class='plans'>{cards}</div></section>"
    return atomic_write_text(out / REPORT, Template(PAGE.read_text(encoding="utf-8")).substitute(title=escape(title), body=body))


def _card(out: Path, route: str, score: str, status: str) -> str:
    picture = picture_path(out, route)
    image = ""
    if picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        image = f'<img alt="{escape(f"route {route}", quote=True)}" src="data:image/png;base64,{data}">'
    films = [path.relative_to(out).as_posix() for path in films_of(out, route)]
    links = " ".join(f'<a href="{escape(path, quote=True)}">{escape(path.removeprefix("videos/"))}</a>' for path in films)
    said = f"<b>{score}</b> {escape(status)} <code>{escape(route)}</code>"
    return f'<figure class="plan">{image}<figcaption>{said}<span class="words">{links}</span></figcaption></figure>'
