"""A driven route on its map, seen from above, north up: the route, the way driven, and where each infraction happened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from drive.benchmarks.carla_drive import DrivenRoute
from drive.benchmarks.carla_film import RouteLog
from drive.benchmarks.carla_routes import plain
from drive.core.files import atomic_write_bytes
from drive.core.types import Array
from drive.report.closed_loop_films import fault_words
from drive.report.pictures import ALARM, FAINT, INK, PAPER, RGB, font, wrap
from drive.simulators.birdseye import CLEAR, FAR, PALETTE, SAMPLES, overhead_view
from drive.simulators.raster import rasterise, shade
from drive.simulators.scene_geometry import EMPTY, Semantic
from drive.simulators.static_scene import static_scene

PICTURES = "pictures"
SIDE, MARGIN_M, LEAST_M = 760, 35.0, 160.0  # pixels and least m of the longer side; m about the route
ROUTE_COLOUR, DRIVEN_COLOUR, END_COLOUR = (250, 214, 92), (40, 120, 255), (30, 200, 120)
ROWS = 12  # infractions told in words
COLOURS = 160  # of the palette that the file is written with


def picture_path(out: Path, route: str) -> Path:
    """Where a route's picture lies."""
    return out / PICTURES / f"{plain(route)}.png"


def write_map(out: Path, route: str, driven: DrivenRoute) -> Path:
    """The picture of a driven route."""
    buffer = io.BytesIO()
    Image.fromarray(route_map(route, driven)).quantize(COLOURS, Image.Quantize.MEDIANCUT).save(buffer, "png", optimize=True)
    return atomic_write_bytes(picture_path(out, route), buffer.getvalue())


def route_map(route: str, driven: DrivenRoute) -> RGB:
    """(H, W, 3): map and, below, the route's status and its infractions by number."""
    log, record = driven.log, driven.record
    assert log is not None
    faults = fault_words(log.events, log.times)
    places = [log.poses[event] for event in (int(np.searchsorted(log.times, at - 1e-6)) for at, _, _ in faults)]
    ground, pixels = _ground(log)
    picture = _drawn(ground, log, pixels, places)
    lines = [f"{n + 1} · {at:.1f} s · {name}: {message}" for n, (at, name, message) in enumerate(faults[:ROWS])]
    lines += [f"and {len(faults) - ROWS} more"] if len(faults) > ROWS else []
    title = f"route {route}, {record.texts.get('town_name', '')}"
    numbers = f"score {record.score_composed:.1f} · completion {record.score_route:.1f} % · penalty {record.score_penalty:.3f} · {record.duration_game:.1f} s"
    under = " · ".join(text for text in (record.status, record.scenario, numbers) if text)
    return np.vstack([picture, _words(picture.shape[1], title, [under, *lines])])


def _ground(log: RouteLog):
    """The map's part about the route and the way driven, and the function from world (N, 2) to its pixels."""
    points = np.vstack([log.route.path[:, :2], log.poses[:, :2]])
    low, high = points.min(0) - MARGIN_M, points.max(0) + MARGIN_M
    middle, extent = (low + high) / 2.0, np.maximum(high - low, 0.4 * LEAST_M)
    metres = max(float(extent.max()), LEAST_M)
    view = overhead_view(np.array([*middle, np.pi / 2.0]), SIDE, metres, SAMPLES)
    ground = rasterise(view, FAR, static_scene(log.road_map).ground, EMPTY, EMPTY, EMPTY, Semantic.TERRAIN.value)
    picture = shade(ground, view, SAMPLES, PALETTE, CLEAR)
    scale = SIDE / metres
    height = min(round(extent[1] * scale / 2.0) * 2, SIDE)
    top = (SIDE - height) // 2

    def pixels(world: Array) -> Array:
        return np.column_stack([SIDE / 2.0 + scale * (world[:, 0] - middle[0]), SIDE / 2.0 - top - scale * (world[:, 1] - middle[1])])

    return picture[top : top + height], pixels


def _drawn(ground: RGB, log: RouteLog, pixels, places: Sequence[Array]) -> RGB:
    """Everything on top of the map, drawn at twice its size."""
    canvas = Image.fromarray(ground).resize((2 * ground.shape[1], 2 * ground.shape[0]), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas)

    def line(points: Array, colour: tuple[int, int, int], width: int) -> None:
        draw.line([tuple(p) for p in 2.0 * pixels(points)], fill=colour, width=width, joint="curve")

    def dot(place: Array, colour: tuple[int, int, int], radius: float, text: str = "") -> None:
        ((x, y),) = 2.0 * pixels(place[None, :2])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=INK, width=3)
        draw.text((x, y), text, INK, font(20, bold=True), anchor="mm")

    line(log.route.path[:, :2], ROUTE_COLOUR, 16)
    line(log.poses[:, :2], DRIVEN_COLOUR, 7)
    dot(log.route.path[0], DRIVEN_COLOUR, 13)
    dot(log.route.path[-1], END_COLOUR, 13)
    for n in reversed(range(len(places))):  # the first on top
        dot(places[n], ALARM, 17, str(n + 1))
    return np.asarray(canvas.reduce(2))


def _words(width: int, title: str, lines: Sequence[str]) -> RGB:
    small, bold = font(13), font(15, bold=True)
    rows = [row for line in lines for row in wrap(line, small, width - 24, 2)]
    picture = Image.new("RGB", (width, 38 + 19 * len(rows) + 8), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((12, 10), wrap(title, bold, width - 300, 1)[0], INK, bold)
    left = width - 12
    for name, colour in (("end", END_COLOUR), ("infraction", ALARM), ("driven", DRIVEN_COLOUR), ("route", ROUTE_COLOUR)):
        left -= round(small.getlength(name))
        draw.text((left, 11), name, FAINT, small)
        draw.rectangle((left - 20, 15, left - 6, 23), colour)
        left -= 32
    for n, row in enumerate(rows):
        draw.text((12, 36 + 19 * n), row, FAINT, small)
    return np.asarray(picture)
