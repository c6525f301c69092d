"""Films of driven routes, filed by infraction: what the planner's camera saw, or the scene drawn, beside the scene from above."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from drive.benchmarks.carla_drive import DrivenRoute
from drive.benchmarks.carla_film import Film, Moment, RouteLog, Thought
from drive.benchmarks.carla_routes import plain
from drive.core.files import atomic_write_bytes
from drive.core.geometry import box_corners, compose, relative
from drive.core.types import Array, Camera
from drive.metrics.carla_records import Event, Infraction
from drive.report.pictures import (
    ALARM,
    EGO_AT,
    FAINT,
    INK,
    PAPER,
    RGB,
    Instant,
    Ribbon,
    ScenePainter,
    draw_on_camera,
    font,
    painter,
    resized_camera,
)
from drive.report.video import write_mp4
from drive.report.word_bar import MODE_COLOUR, VIEW, command_badge, word_bar

VIDEOS, CLEAN = "videos", "clean"
FPS = 10.0
BEFORE_S, AFTER_S, HOLD_S = 8.0, 2.0, 1.0  # s of a film before and after its infraction; s that its last picture stands
METRES = 80.0  # across the view from above
LIGHT_COLOURS = {"Red": (226, 52, 48), "Yellow": (244, 190, 40), "Green": (58, 190, 92)}
STOP_BAR = (0.8, 3.0)  # m along and across the lane
RING_M = 4.0  # m, radius about who is hit
ACTOR = re.compile(r"\bid=(\d+)")
NAMES = {
    Infraction.PEDESTRIAN: "PEDESTRIAN HIT",
    Infraction.VEHICLE: "VEHICLE HIT",
    Infraction.STATIC: "OBJECT HIT",
    Infraction.RED_LIGHT: "RED LIGHT RUN",
    Infraction.STOP_SIGN: "STOP SIGN RUN",
    Infraction.OUTSIDE_LANES: "OUTSIDE ITS LANES",
    Infraction.YIELD: "DID NOT YIELD",
    Infraction.SCENARIO_TIMEOUT: "SCENARIO TIMED OUT",
    Infraction.DEVIATION: "LEFT THE ROUTE",
    Infraction.BLOCKED: "BLOCKED",
    Infraction.ROUTE_TIMEOUT: "ROUTE TIMED OUT",
}  # low speed has no instant to film


@dataclass(frozen=True)
class Scene:
    """One film of a route."""

    folder: str  # under videos/
    at: float  # s of the infraction
    start: float
    end: float
    banner: str  # from `at` on; empty where nothing is wrong
    message: str
    actor: int | None  # who is ringed


def scenes_of(driven: DrivenRoute, clean: bool) -> list[Scene]:
    """The films of a route: one for each infraction, but for those that an earlier film of their kind shows, and for a failure without one.

    `clean`: a route without any is filmed whole.
    """
    log, record = driven.log, driven.record
    assert log is not None
    last, found, seen = float(log.times[-1]), [], dict[Infraction, float]()
    for event in log.events:
        at = float(log.times[event.tick])
        if event.kind in NAMES and at >= seen.get(event.kind, 0.0):
            seen[event.kind] = at + AFTER_S
            found.append(_scene(event.kind.value, at, last, NAMES[event.kind], event))
    why = record.status.partition(" - ")[2]
    if not record.reached and not any(event.kind in NAMES and log.times[event.tick] >= last - AFTER_S for event in log.events):
        found.append(_scene(re.sub(r"\W+", "_", why or "failed").lower(), last, last, (why or "failed").upper(), None))
    if not found and clean:
        found.append(Scene(CLEAN, last, 0.0, last, "", "", None))
    return found


def _scene(folder: str, at: float, last: float, banner: str, event: Event | None) -> Scene:
    message = event.message if event else ""
    who = ACTOR.search(message)
    return Scene(folder, at, max(at - BEFORE_S, 0.0), min(at + AFTER_S, last), banner, message, int(who[1]) if who else None)


def write_films(out: Path, route: str, driven: DrivenRoute, clean: bool) -> list[Path]:
    """out/videos/<kind>/<route>_<s>s.mp4 and, beside each, its moment as .jpg; earlier films of the route go."""
    for old in films_of(out, route):
        old.unlink()
        old.with_suffix(".jpg").unlink(missing_ok=True)
    assert driven.log is not None and driven.log.film is not None
    made = []
    for scene in scenes_of(driven, clean):
        path = out / VIDEOS / scene.folder / f"{plain(route)}_{scene.at:.1f}s.mp4"
        title = f"{driven.record.texts.get('town_name', '')}   route {route}"
        made.append(write_mp4(pictures(driven.log, scene, title), path, FPS))
        still = io.BytesIO()
        Image.fromarray(next(pictures(driven.log, scene, title, still=True))).save(still, "jpeg", quality=85)
        atomic_write_bytes(path.with_suffix(".jpg"), still.getvalue())
    return made


def films_of(out: Path, route: str) -> list[Path]:
    """The films of a route that are there, by their time."""
    name = re.compile(re.escape(plain(route)) + r"_(\d+\.\d)s\.mp4")
    found = [(float(match[1]), path) for path in (out / VIDEOS).glob("*/*.mp4") if (match := name.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def pictures(log: RouteLog, scene: Scene, title: str, still: bool = False) -> Iterator[RGB]:
    """Pictures (VIEW + BAR, 2 * VIEW, 3), FPS a second; `still`: of the infraction's instant alone."""
    film = log.film
    assert film is not None
    inside = [m for m in film.moments if scene.start - 1e-6 <= m.time <= scene.end + 1e-6] or [film.moments[-1]]
    if still:
        inside = [min(inside, key=lambda m: abs(m.time - scene.at))]
    draw = painter(log.road_map, True)
    for moment in inside:
        yield _picture(log, film, draw, moment, scene, title)
    last = _picture(log, film, draw, inside[-1], scene, title)
    for _ in range(0 if still else round(HOLD_S * FPS)):
        yield last


def _picture(log: RouteLog, film: Film, draw: ScenePainter, moment: Moment, scene: Scene, title: str) -> RGB:
    now = Instant(moment.ego, moment.poses, moment.sizes, moment.types, log.route.path)
    thought = next((t for t in reversed(film.thoughts) if t.since <= moment.time + 1e-6), None)
    ribbons = _ribbons(thought, moment.ego)
    above = _marked(draw.above(now, ribbons, VIEW, METRES), log, moment, scene)
    shot = next((shot for shot in reversed(film.shots) if shot[0] <= moment.time + 1e-6), None)
    if film.camera is not None and shot is not None:
        front, label = _seen(film, film.camera, *shot), "the planner's camera"
    else:
        front, label = draw.camera(Camera.front(VIEW, VIEW), now, ribbons), "drawn: the planner reads the ground truth"
    views = np.hstack([_labelled(front, label), above])
    if scene.banner and moment.time >= scene.at - 1e-6:
        views = _banner(views, scene.banner)
    return np.vstack([views, _bar(moment, thought, scene, title)])


def _ribbons(thought: Thought | None, pose: Array) -> list[Ribbon]:
    """What is left of a plan, a pose every 0.5 s, for the ego at `pose` (3,)."""
    if thought is None:
        return []
    every = max(round(0.5 / thought.dt), 1)
    left = relative(pose, thought.poses_world[every - 1 :: every])
    left = left[left[:, 0] > 0.5]
    return [Ribbon(left)] if len(left) else []


def _seen(film: Film, camera: Camera, time: float, jpeg: bytes) -> RGB:
    """The camera's picture enlarged to VIEW, with the plan that was made from it."""
    larger = resized_camera(camera, round(camera.width * VIEW / max(camera.width, camera.height)))
    image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").resize((larger.width, larger.height), Image.Resampling.BICUBIC))
    there = next((m.ego for m in reversed(film.moments) if m.time <= time + 1e-6), None)
    made = next((t for t in film.thoughts if abs(t.made - time) < 1e-6), None)
    if there is not None:
        image = draw_on_camera(image, larger, _ribbons(made, there))
    panel = np.full((VIEW, VIEW, 3), PAPER, np.uint8)
    top, left = (VIEW - image.shape[0]) // 2, (VIEW - image.shape[1]) // 2
    panel[top : top + image.shape[0], left : left + image.shape[1]] = image
    return panel


def _marked(panel: RGB, log: RouteLog, moment: Moment, scene: Scene) -> RGB:
    """The view from above with the lights at their stop lines, and a ring about who is hit."""
    masks: dict[tuple[int, int, int], Image.Image] = {}
    scale = 2.0 * VIEW / METRES

    def on(colour: tuple[int, int, int]) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(masks.setdefault(colour, Image.new("L", (2 * VIEW, 2 * VIEW), 0)))

    def pixels(points_ego: Array) -> list[tuple[float, float]]:
        return [(VIEW - scale * y, 2.0 * VIEW * EGO_AT - scale * x) for x, y in points_ego[:, :2].tolist()]

    for stops, state in zip(log.stops, moment.lights):
        bars = relative(moment.ego, compose(stops, np.array([-0.5 * STOP_BAR[0], 0.0, 0.0]))) if len(stops) else stops
        for bar in bars[np.hypot(bars[:, 0], bars[:, 1]) < METRES] if state in LIGHT_COLOURS else ():
            on(LIGHT_COLOURS[state]).polygon(pixels(box_corners(bar, *STOP_BAR)), fill=235)
    if scene.actor is not None and scene.actor in moment.ids:
        ((x, y),) = pixels(relative(moment.ego, moment.poses[[moment.ids.index(scene.actor)]]))
        reach = scale * RING_M
        on(ALARM).ellipse((x - reach, y - reach, x + reach, y + reach), outline=255, width=6)
    picture = Image.fromarray(panel)
    for colour, mask in masks.items():
        picture.paste(colour, mask=mask.reduce(2))
    return np.asarray(picture)


def _labelled(panel: RGB, text: str) -> RGB:
    picture, face = Image.fromarray(panel), font(12)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((10, VIEW - 30, 26 + face.getlength(text), VIEW - 10), 6, PAPER)
    draw.text((18, VIEW - 20), text, FAINT, face, anchor="lm")
    return np.asarray(picture)


def _banner(views: RGB, text: str) -> RGB:
    canvas, face, middle = Image.fromarray(views), font(22, bold=True), views.shape[1] // 2
    draw, half = ImageDraw.Draw(canvas), round(face.getlength(text)) // 2 + 22
    draw.rounded_rectangle((middle - half, 22, middle + half, 66), 10, ALARM)
    draw.text((middle, 44), text, INK, face, anchor="mm")
    return np.asarray(canvas)


def _bar(moment: Moment, thought: Thought | None, scene: Scene, title: str) -> RGB:
    """(BAR, 2 * VIEW, 3): speed, command, the planner's words and mode, time to the infraction, and what the judge says of it."""
    badges = [command_badge(moment.command)]
    badges += [(thought.mode, MODE_COLOUR)] if thought is not None and thought.mode else []
    if scene.banner and moment.time < scene.at - 1e-6:
        badges.append((f"{scene.banner.lower()} in {scene.at - moment.time:.1f} s", ALARM))
    told = scene.message if scene.message and moment.time >= scene.at - 1e-6 else thought.words if thought is not None else ""
    return word_bar(moment.speed, f"{title}   {moment.time:5.1f} s", badges, told)


def fault_words(events: Sequence[Event], times: Array) -> list[tuple[float, str, str]]:
    """(s, name, message) of the events that have an instant, by time."""
    return [(float(times[event.tick]), NAMES[event.kind].lower(), event.message) for event in events if event.kind in NAMES]
