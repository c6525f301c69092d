"""Bird's-eye rasters, ego in the middle and heading up, for models and reports; and plans drawn on them and on camera images.

The same rasteriser as the cameras', looking down from so high that perspective vanishes; at the ground the scale is exact.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.roadmap import RoadMap
from drive.core.types import AgentType, Camera
from drive.simulators.agent_shapes import footprints
from drive.simulators.raster import QuadSet, View, labels, rasterise, shade
from drive.simulators.render import camera_view
from drive.simulators.scene_geometry import EMPTY, Semantic, join, ribbon_set
from drive.simulators.static_scene import static_scene

Array = NDArray[np.float64]
Colour = tuple[int, int, int]
ALTITUDE = 5000.0  # m
FAR = 2.0 * ALTITUDE
CLEAR = 1e12  # m: no haze
SAMPLES = 2  # per pixel along each image axis, of pictures
PALETTE = np.array([(206, 217, 226), (112, 160, 214), (118, 140, 92)], np.float32)  # horizon, zenith, terrain
EGO_SIZE, EGO_REAR_TO_CENTRE = (4.8, 2.0, 1.6), 1.4  # m, drawn only
ROUTE_WIDTH = 1.2  # m
EGO_COLOUR, NOSE_COLOUR, ROUTE_COLOUR, PLAN_COLOUR = (30, 200, 220), (245, 245, 240), (96, 170, 118), (40, 120, 255)
AGENT_COLOURS = np.array(
    [(210, 66, 54), (240, 176, 40), (176, 92, 210), (240, 120, 30), (240, 120, 30), (160, 130, 96)], np.float32
)  # by AgentType
NOSE = 0.22  # share of the length that shows the front
AGENT_LABELS = np.array(
    [Semantic.VEHICLE, Semantic.PEDESTRIAN, Semantic.BICYCLE, Semantic.STATIC, Semantic.STATIC, Semantic.STATIC], np.uint8
)  # by AgentType


class Channel(IntEnum):
    """Planes of `BirdsEye.channels`."""

    DRIVABLE = 0
    MARKING = 1
    ROUTE = 2
    VEHICLE = 3
    VULNERABLE = 4  # pedestrians and bicycles
    STATIC = 5


def overhead_view(pose_world: Array, size_px: int, metres: float, samples: int = 1) -> View:
    """A square of `metres` around `pose_world` (3,), heading up; x forward, y left is at row S/2 - x S/m, column S/2 - y S/m."""
    c, s = np.cos(float(pose_world[2])), np.sin(float(pose_world[2]))
    rotation = np.array([[s, -c, 0.0], [-c, -s, 0.0], [0.0, 0.0, -1.0]])
    size = size_px * samples
    focal, middle = size / metres * ALTITUDE, size / 2.0
    position = np.array([float(pose_world[0]), float(pose_world[1]), ALTITUDE])
    return View(rotation, position, focal, focal, middle, middle, size, size)


def _agent_prints(poses: Array, sizes: Array, types: NDArray) -> QuadSet:
    """Footprints by class, each with a light front."""
    noses = np.column_stack([sizes[:, 0] * NOSE, sizes[:, 1] * 0.8, sizes[:, 2]])
    ahead = np.column_stack([sizes[:, 0] * (0.5 - NOSE / 2.0) - 0.1, np.zeros((len(sizes), 2))])
    boxes = footprints(poses, sizes, 0.0, AGENT_COLOURS[types], AGENT_LABELS[types])
    moving = types <= AgentType.BICYCLE
    fronts = np.ascontiguousarray(compose(poses, ahead)[moving])
    light = np.tile(np.array(NOSE_COLOUR, np.float32), (len(fronts), 1))
    return join(boxes, footprints(fronts, noses[moving], 0.0, light, AGENT_LABELS[types[moving]]))


def _ego_print(pose: Array) -> QuadSet:
    """The ego's footprint; `pose` (3,) is the rear axle."""
    size = np.array([EGO_SIZE])
    centre = compose(pose, np.array([[EGO_REAR_TO_CENTRE, 0.0, 0.0]]))
    front = compose(pose, np.array([[EGO_REAR_TO_CENTRE + 1.7, 0.0, 0.0]]))
    label = np.full(1, Semantic.VEHICLE, np.uint8)
    body = footprints(centre, size, 0.0, np.array([EGO_COLOUR], np.float32), label)
    return join(body, footprints(front, size * (NOSE, 0.8, 1.0), 0.0, np.array([NOSE_COLOUR], np.float32), label))


class BirdsEye:
    """Bird's-eye rasters of one map's scenes."""

    def __init__(self, road_map: RoadMap) -> None:
        self._ground = static_scene(road_map).ground

    def raster(
        self,
        ego_pose_world: Array,
        agents_pose_world: Array,
        agents_size: Array,
        agents_type: NDArray,
        size_px: int = 224,
        metres: float = 64.0,
        route_path: Array | None = None,
    ) -> NDArray[np.uint8]:
        """A picture (size_px, size_px, 3) of the square of `metres` around the ego's rear axle, heading up.

        ego_pose_world (3,); agents_pose_world (A, 3) box centres; agents_size (A, 3) m; agents_type (A,) AgentType;
        route_path (N, 2 or 3) world m. Raises DataError on arrays that do not fit together.
        """
        ego = np.asarray(ego_pose_world, float)
        poses, sizes, types = _agents(agents_pose_world, agents_size, agents_type)
        moving = join(_agent_prints(poses, sizes, types), _ego_print(ego))
        if route_path is not None:
            moving = join(ribbon_set(route_path, ROUTE_WIDTH, ROUTE_COLOUR, Semantic.ROAD), moving)
        view = overhead_view(ego, size_px, metres, SAMPLES)
        return shade(
            rasterise(view, FAR, self._ground, EMPTY, moving, EMPTY, Semantic.TERRAIN.value), view, SAMPLES, PALETTE, CLEAR
        )

    def channels(
        self,
        ego_pose_world: Array,
        agents_pose_world: Array,
        agents_size: Array,
        agents_type: NDArray,
        size_px: int = 128,
        metres: float = 64.0,
        route_path: Array | None = None,
    ) -> NDArray[np.uint8]:
        """Planes (len(Channel), size_px, size_px) of 0 and 1, which may overlap; without the ego. Arguments as in `raster`."""
        poses, sizes, types = _agents(agents_pose_world, agents_size, agents_type)
        view = overhead_view(np.asarray(ego_pose_world, float), size_px, metres)
        route = EMPTY if route_path is None else ribbon_set(route_path, ROUTE_WIDTH, ROUTE_COLOUR, Semantic.ROAD)
        still, way, agents = (_labels(view, ground) for ground in (self._ground, route, _agent_prints(poses, sizes, types)))
        planes = np.empty((len(Channel), size_px, size_px), np.uint8)
        planes[Channel.MARKING] = still == Semantic.LANE_MARKING
        planes[Channel.DRIVABLE] = (still == Semantic.ROAD) | (still == Semantic.LANE_MARKING)
        planes[Channel.ROUTE] = way == Semantic.ROAD
        planes[Channel.VEHICLE] = agents == Semantic.VEHICLE
        planes[Channel.VULNERABLE] = (agents == Semantic.PEDESTRIAN) | (agents == Semantic.BICYCLE)
        planes[Channel.STATIC] = agents == Semantic.STATIC
        return planes


def _agents(poses: Array, sizes: Array, types: NDArray) -> tuple[Array, Array, NDArray[np.int64]]:
    """The agents' arrays as the kernels want them; DataError where their rows differ."""
    poses = np.ascontiguousarray(poses, np.float64).reshape(-1, 3)
    sizes = np.ascontiguousarray(sizes, np.float64).reshape(-1, 3)
    types = np.asarray(types, np.int64)
    if not len(poses) == len(sizes) == len(types):
        raise DataError(
            f"agents' poses, sizes and types have {len(poses)}, {len(sizes)} and {len(types)} rows: give one per agent"
        )
    return poses, sizes, types


def _labels(view: View, ground: QuadSet) -> NDArray[np.uint8]:
    """(H, W) labels of one ground set alone."""
    return labels(rasterise(view, FAR, ground, EMPTY, EMPTY, EMPTY, Semantic.TERRAIN.value))[1]


def _curve(poses_ego: Array, pieces: int = 6) -> Array:
    """(N, 2) smooth line from the origin through poses (T, 3): cubic Hermite, tangents along the headings."""
    poses = np.vstack([np.zeros((1, 3)), np.asarray(poses_ego, float)])
    start, end = poses[:-1, None, :2], poses[1:, None, :2]
    chord = np.linalg.norm(end - start, axis=2, keepdims=True)
    tangent = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=1)[:, None]
    t = (np.arange(pieces) / pieces)[None, :, None]
    line = (2 * t**3 - 3 * t**2 + 1) * start + (3 * t**2 - 2 * t**3) * end
    line = line + chord * ((t**3 - 2 * t**2 + t) * tangent[:-1] + (t**3 - t**2) * tangent[1:])
    return np.vstack([line.reshape(-1, 2), poses[-1:, :2]])


def _overlay(rgb: NDArray[np.uint8], view: View, poses_ego: Array, width: float, color: Colour) -> NDArray[np.uint8]:
    """A copy of `rgb` with the plan's band at 55 % and a bar at 95 % for each pose; `view` samples 3 x 3 per pixel, ego frame."""
    poses = np.ascontiguousarray(poses_ego, np.float64)
    bars = np.tile([0.3, width * 1.4, 0.0], (len(poses), 1))
    marks = footprints(poses, bars, 0.0, np.zeros((len(poses), 3), np.float32), np.full(len(poses), 2, np.uint8))
    band = ribbon_set(_curve(poses), width, (0, 0, 0), Semantic.ROAD)
    _, kind, _ = labels(rasterise(view, FAR, join(band, marks), EMPTY, EMPTY, EMPTY, 0))
    weight = np.array([0.0, 0.55, 0.95])[kind].reshape(rgb.shape[0], 3, rgb.shape[1], 3).mean((1, 3))[..., None]
    return np.round(rgb * (1.0 - weight) + np.array(color) * weight).astype(np.uint8)


def draw_plan_camera(
    rgb: NDArray[np.uint8], camera: Camera, poses_ego: Array, width: float = 1.0, color: Colour = PLAN_COLOUR
) -> NDArray[np.uint8]:
    """A copy of a camera's image (H, W, 3) with a plan, poses (T, 3) in the ego frame, as a band of `width` metres on the ground.

    Raises DataError if the image is not of the camera's size.
    """
    if rgb.shape != (camera.height, camera.width, 3):
        raise DataError(f"camera {camera.name} is {camera.height} x {camera.width} pixels, the image is {rgb.shape}")
    return _overlay(rgb, camera_view(camera, np.zeros(3), 3), poses_ego, width, color)


def draw_plan_birdseye(
    rgb: NDArray[np.uint8], metres: float, poses_ego: Array, color: Colour = PLAN_COLOUR, width: float = 0.8
) -> NDArray[np.uint8]:
    """A copy of a square bird's-eye image (S, S, 3) of `metres` with a plan, poses (T, 3) in the ego frame."""
    if rgb.ndim != 3 or rgb.shape[0] != rgb.shape[1] or rgb.shape[2] != 3:
        raise DataError(f"a bird's-eye image is (S, S, 3), got {rgb.shape}")
    return _overlay(rgb, overhead_view(np.zeros(3), rgb.shape[0], metres, 3), poses_ego, width, color)
