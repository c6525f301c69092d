"""Pictures of plans: the front camera with the plan as a ribbon, the scene from above beside it, and words below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import CubicHermiteSpline

from drive.core.geometry import arc_length, box_corners, relative
from drive.core.roadmap import RoadMap
from drive.core.types import Array, Camera, Scenario
from drive.simulators.birdseye import BirdsEye
from drive.simulators.render import SceneRenderer
from drive.simulators.world import map_renderer

RGB = NDArray[np.uint8]  # (H, W, 3)
Colour = tuple[int, int, int]
PLAN_COLOUR, TEACHER_COLOUR = (40, 120, 255), (214, 60, 190)
PAPER, INK, FAINT, ALARM = (22, 25, 31), (236, 239, 244), (150, 160, 175), (214, 48, 49)
RIBBON_WIDTH = 1.0  # m
BAND, BAR = 130, 242  # opacity, of 255
NEAR = 0.5  # m in front of the camera from which a ribbon is drawn
EGO_AT = 0.72  # share of the bird's-eye panel's height at which the ego stands
ROUTE_BEHIND, ROUTE_AHEAD = 30.0, 130.0  # m of route drawn


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file), size)


@dataclass(frozen=True)
class Instant:
    """A scene at one instant, in the world frame."""

    ego_pose: Array  # (3,) rear axle
    agents_pose: Array  # (A, 3) box centres
    agents_size: Array  # (A, 3) length, width, height in m
    agents_type: NDArray[np.int64]  # (A,) AgentType
    route_path: Array  # (N, 3)


@dataclass(frozen=True)
class Ribbon:
    """A plan to draw."""

    poses_ego: Array  # (T, 3)
    colour: Colour = PLAN_COLOUR
    bars: bool = True  # across the band, one for each tenth of the plan; a band without bars is narrow


class ScenePainter:
    """Both views of one map's scenes, with plans on them; the map's quads are made once, here."""

    def __init__(self, road_map: RoadMap, scenery: bool = True) -> None:
        """`scenery`: made-up houses and trees beside the road, as embedded worlds have and logs do not."""
        self._renderer = map_renderer(road_map) if scenery else SceneRenderer(road_map, scenery=False)
        self._above = BirdsEye(road_map)

    def camera(self, camera: Camera, now: Instant, plans: Sequence[Ribbon]) -> RGB:
        """(height, width, 3) of `camera`; plans are drawn in order."""
        rgb = self._renderer.render_rgb(camera, now.ego_pose, now.agents_pose, now.agents_size, now.agents_type)
        return draw_on_camera(rgb, camera, plans)

    def above(self, now: Instant, plans: Sequence[Ribbon], size: int, metres: float) -> RGB:
        """(size, size, 3) of a square of `metres`, heading up, with the ego below its middle."""
        reach = 2.0 * EGO_AT  # the raster has the ego in its middle: make it larger and cut the panel out
        square = 2 * round(size * reach / 2)
        route = route_ahead(now.route_path, now.ego_pose)
        agents = now.agents_pose, now.agents_size, now.agents_type
        picture = self._above.raster(now.ego_pose, *agents, square, metres * square / size, route)
        left = (square - size) // 2
        scale, centre = size / metres, np.array([size / 2.0, square / 2.0])
        panel = picture[:size, left : left + size]

        def project(points: Array) -> tuple[Array, NDArray[np.bool_]]:
            return centre - scale * points[:, ::-1], np.ones(len(points), bool)

        for plan in plans:
            panel = _drawn(panel, project, plan)
        return panel


def draw_on_camera(rgb: RGB, camera: Camera, plans: Sequence[Ribbon]) -> RGB:
    """A copy of the camera's image with plans as ribbons on the flat ground."""
    camera_from_ego = np.linalg.inv(camera.ego_from_camera)

    def project(points: Array) -> tuple[Array, NDArray[np.bool_]]:
        optical = np.column_stack([points, np.zeros(len(points)), np.ones(len(points))]) @ camera_from_ego.T
        pixels = optical[:, :3] @ camera.intrinsics.T
        ahead = pixels[:, 2] > NEAR
        return pixels[:, :2] / np.where(ahead, pixels[:, 2], 1.0)[:, None], ahead

    for plan in plans:
        rgb = _drawn(rgb, project, plan)
    return rgb


def smooth_path(poses_ego: Array, pieces: int = 10) -> Array:
    """(T * pieces + 1, 3) poses from the origin through `poses_ego` (T, 3): cubic Hermite, tangents along the headings."""
    poses = np.vstack([np.zeros((1, 3)), poses_ego])
    heading = np.unwrap(poses[:, 2])
    chord = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    pace = (np.append(chord, chord[-1]) + np.append(chord[:1], chord)) / 2.0
    slope = pace[:, None] * np.column_stack([np.cos(heading), np.sin(heading)])
    at, fine = np.arange(len(poses)), np.linspace(0, len(poses) - 1, (len(poses) - 1) * pieces + 1)
    return np.column_stack([CubicHermiteSpline(at, poses[:, :2], slope)(fine), np.interp(fine, at, heading)])


def route_ahead(path: Array, pose: Array) -> Array | None:
    """The piece of `path` (N, 3) about `pose` (3,), both world, without its later returns; None where it is too short."""
    if len(path) < 2:
        return None
    here = relative(pose, path)
    s = arc_length(path)
    s = s - s[np.argmin(np.hypot(here[:, 0], here[:, 1]) + 5.0 * np.abs(here[:, 2]))]
    near = (s > -ROUTE_BEHIND) & (s < ROUTE_AHEAD)
    return path[near] if near.sum() > 1 else None


# points (N, 2) ego frame to pixels (N, 2) x, y, and which are in view
Projection = Callable[[Array], tuple[Array, NDArray[np.bool_]]]


def _drawn(rgb: RGB, project: Projection, plan: Ribbon) -> RGB:
    """A copy of `rgb` with a plan on it, smooth at its edges."""
    poses = np.asarray(plan.poses_ego, float)
    if not len(poses):
        return rgb
    width = RIBBON_WIDTH if plan.bars else 0.25 * RIBBON_WIDTH
    mask = Image.new("L", (2 * rgb.shape[1], 2 * rgb.shape[0]), 0)
    draw = ImageDraw.Draw(mask)
    path = smooth_path(poses)
    (left, left_seen), (right, right_seen) = (project(_beside(path, side * width / 2.0)) for side in (1.0, -1.0))
    seen = left_seen & right_seen
    if seen.sum() > 1:
        _fill(draw, np.vstack([left[seen], right[seen][::-1]]), BAND if plan.bars else BAR)
    for pose in _bars(poses) if plan.bars else ():
        pixels, ahead = project(box_corners(pose, 0.5, 1.4 * width))
        if ahead.all():
            _fill(draw, pixels, BAR)
    return _blend(rgb, np.asarray(mask.reduce(2), np.float32)[..., None] / 255.0, plan.colour)


def _bars(poses: Array) -> list[Array]:
    """The last pose of each tenth of a plan (T, 3), but none within 0.8 m of the one before, as where the car stops."""
    every, kept = max(len(poses) // 10, 1), [np.zeros(3)]
    for pose in poses[every - 1 :: every]:
        if np.hypot(*(pose - kept[-1])[:2]) > 0.8:
            kept.append(pose)
    return kept[1:]


def _blend(rgb: RGB, weight: NDArray[np.float32], colour: Colour) -> RGB:
    """A copy of `rgb` (H, W, 3) with `colour` at `weight` (H, W, 1); only rows that change are computed."""
    out = rgb.copy()
    rows = np.flatnonzero(weight.any(axis=(1, 2)))
    if len(rows):
        part = slice(rows[0], rows[-1] + 1)
        out[part] = np.round(rgb[part] * (1.0 - weight[part]) + np.array(colour, np.float32) * weight[part])
    return out


def _beside(poses: Array, left: float) -> Array:
    """(N, 2) points `left` metres to the left of poses (N, 3)."""
    return poses[:, :2] + left * np.column_stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])])


def _fill(draw: ImageDraw.ImageDraw, pixels: Array, value: int) -> None:
    """Fill a polygon (N, 2) given in pixels of the picture on the mask of twice its size."""
    draw.polygon([tuple(p) for p in np.clip(2.0 * pixels, -1e5, 1e5)], fill=value)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    out = [""]
    for word in text.split():
        longer = f"{out[-1]} {word}".strip()
        if face.getlength(longer) <= width or not out[-1]:
            out[-1] = longer
        elif len(out) < lines:
            out.append(word)
        else:
            while out[-1] and face.getlength(f"{out[-1]} …") > width:
                out[-1] = out[-1].rpartition(" ")[0]
            out[-1] += " …"
            break
    return out


def resized_camera(camera: Camera, width: int) -> Camera:
    """The same camera with `width` pixels across."""
    scale = width / camera.width
    intrinsics = np.diag([scale, scale, 1.0]) @ camera.intrinsics
    return Camera(camera.name, width, round(camera.height * scale), intrinsics, camera.ego_from_camera)


@lru_cache(maxsize=2)
def painter(road_map: RoadMap, scenery: bool) -> ScenePainter:
    """The painter of a map, made once."""
    return ScenePainter(road_map, scenery)


def instant(scenario: Scenario) -> Instant:
    """The present of a scenario."""
    now, agents = scenario.present, scenario.agents
    seen = agents.valid[:, now]
    visible = agents.poses_world[seen, now], agents.size[seen], agents.types[seen]
    return Instant(scenario.ego.poses_world[now], *visible, scenario.centerline_world)


def teacher_poses(scenario: Scenario) -> Array | None:
    """(T, 3) what the plan is compared with: the teacher's plan, else the 5 s reference, ego frame; None without both."""
    if scenario.teacher is not None:
        return scenario.teacher.poses
    if scenario.reference_world is not None:
        return relative(scenario.ego.poses_world[scenario.present], scenario.reference_world[5::5])
    return None


def plan_picture(scenario: Scenario, poses_ego: Array | None, title: str, lines: Sequence[str] = (), size: int = 448) -> RGB:
    """Camera and bird's-eye view of a scenario's present, (size + caption, 2 * size, 3), with a plan (T, 3), ego frame, if any.

    The camera is drawn anew from the vector scene; where the map has no lanes, the stored frame is enlarged.
    """
    teacher = teacher_poses(scenario)
    plans = [Ribbon(poses_ego)] if poses_ego is not None else []
    plans += [Ribbon(teacher, TEACHER_COLOUR, bars=False)] if teacher is not None else []
    now, camera = instant(scenario), resized_camera(scenario.cameras[0], size)
    scene = painter(scenario.road_map, scenario.source == "embedded")
    if scenario.road_map.lanes:
        front = scene.camera(camera, now, plans)
    else:
        stored = Image.fromarray(scenario.image_source.image(0, scenario.present))
        front = draw_on_camera(np.asarray(stored.resize((camera.width, camera.height))), camera, plans)
    front = front[: front.shape[0] // 2 * 2]
    reach = max([float(np.abs(plan.poses_ego[:, :2]).max()) for plan in plans if len(plan.poses_ego)], default=0.0)
    above = scene.above(now, plans, front.shape[0], float(np.clip(1.5 * reach, 50.0, 120.0)))
    views = np.hstack([front, above])
    legend = [("plan", PLAN_COLOUR)] * (poses_ego is not None) + [("teacher", TEACHER_COLOUR)] * (teacher is not None)
    return np.vstack([views, caption(views.shape[1], title, lines, legend)])


def caption(width: int, title: str, lines: Sequence[str], legend: Sequence[tuple[str, Colour]] = ()) -> RGB:
    """A bar of words (height as needed, width, 3): a bold title with a legend at its right, and wrapped lines."""
    small, bold = font(13), font(15, bold=True)
    rows = [row for line in lines for row in wrap(line, small, width - 24, 3)]
    picture = Image.new("RGB", (width, (34 + 19 * len(rows) + 6) // 2 * 2), PAPER)
    draw = ImageDraw.Draw(picture)
    at = width - 12
    for name, colour in reversed(legend):
        at -= round(small.getlength(name))
        draw.text((at, 10), name, INK, small)
        draw.rectangle((at - 20, 14, at - 6, 22), colour)
        at -= 34
    draw.text((12, 8), wrap(title, bold, at - 24, 1)[0], INK, bold)
    for n, row in enumerate(rows):
        draw.text((12, 32 + 19 * n), row, FAINT, small)
    return np.asarray(picture)
