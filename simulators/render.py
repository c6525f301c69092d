"""Front cameras over the vector scene: RGB, depth, semantics and instances from the map and the agents' boxes.

The world is flat at z = 0. Colours come from 2 x 2 samples per pixel, labels and depth from the pixel's centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.roadmap import RoadMap
from drive.core.types import Camera
from drive.simulators.agent_shapes import LIGHT, SHADOW, SHADOW_MARGIN, agent_solids, footprints, shape_kinds
from drive.simulators.raster import Buffers, QuadSet, View, labels, rasterise, shade
from drive.simulators.scene_geometry import Semantic, join, ribbon_set
from drive.simulators.scenery import scenery_solids
from drive.simulators.static_scene import static_scene

Array = NDArray[np.float64]
FAR = 110.0  # m along the optical axis beyond which nothing but terrain and sky is drawn
HAZE = 260.0  # m at which the haze has taken half of a colour
SAMPLES = 2  # per pixel along each image axis
PALETTE = np.array([(206, 217, 226), (112, 160, 214), (118, 140, 92)], np.float32)  # horizon, zenith, terrain
ROUTE_WIDTH, ROUTE_COLOUR = 0.5, (64, 190, 120)


@dataclass(frozen=True)
class CameraFrame:
    """One camera's pixels."""

    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth: NDArray[np.float32]  # (H, W) m along the optical axis, inf in the sky
    semantic: NDArray[np.uint8]  # (H, W) Semantic
    instance: NDArray[np.int32]  # (H, W) row of the agent + 1, 0 elsewhere


def camera_view(camera: Camera, ego_pose_world: Array, samples: int = 1) -> View:
    """The camera in the world, with `samples` x `samples` samples per pixel. Raises DataError if it is not above the ground."""
    x, y, heading = (float(value) for value in ego_pose_world)
    c, s = np.cos(heading), np.sin(heading)
    world_from_ego = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    pose, k = camera.ego_from_camera, camera.intrinsics
    position = world_from_ego @ pose[:3, 3] + (x, y, 0.0)
    if position[2] <= 0.0:
        raise DataError(
            f"camera {camera.name} is {position[2]:.2f} m above the ground: give ego_from_camera with z up and positive"
        )
    rotation = np.ascontiguousarray((world_from_ego @ pose[:3, :3]).T)
    focal = (float(k[0, 0]) * samples, float(k[1, 1]) * samples)
    centre = (float(k[0, 2]) * samples, float(k[1, 2]) * samples)
    return View(rotation, position, *focal, *centre, camera.width * samples, camera.height * samples)


class SceneRenderer:
    """Renders one map's scenes; the map's quads are made once, here."""

    def __init__(self, road_map: RoadMap, scenery: bool = True) -> None:
        """`scenery` puts made-up houses and trees beside the road; leave it out for logs, where real things stand there."""
        self.road_map = road_map
        still = static_scene(road_map)
        self._ground = still.ground
        self._solids = scenery_solids(road_map, still.surface, scenery)

    def render(
        self,
        camera: Camera,
        ego_pose_world: Array,
        agents_pose_world: Array,
        agents_size: Array,
        agents_type: NDArray,
        route_path: Array | None = None,
        lights_world: Array | None = None,
    ) -> CameraFrame:
        """All channels of one camera.

        ego_pose_world (3,) rear axle; agents_pose_world (A, 3) box centres; agents_size (A, 3) length, width, height, m;
        agents_type (A,) AgentType; route_path (N, 2 or 3) drawn as a green line; lights_world (L, 4): x, y, heading of a lane's
        end, and its signal, 0 red, 1 yellow, 2 green. Raises DataError on arrays that do not fit together.
        """
        ground, solids = self._moving(agents_pose_world, agents_size, agents_type, route_path, lights_world)
        depth, semantic, instance = labels(self._raster(camera_view(camera, ego_pose_world), ground, solids))
        return CameraFrame(self._colours(camera, ego_pose_world, ground, solids), depth, semantic, instance)

    def render_rgb(
        self,
        camera: Camera,
        ego_pose_world: Array,
        agents_pose_world: Array,
        agents_size: Array,
        agents_type: NDArray,
        route_path: Array | None = None,
        lights_world: Array | None = None,
    ) -> NDArray[np.uint8]:
        """The colours alone (H, W, 3), the same as `render` gives, in a fraction of its time; arguments as there."""
        ground, solids = self._moving(agents_pose_world, agents_size, agents_type, route_path, lights_world)
        return self._colours(camera, ego_pose_world, ground, solids)

    def render_labels(self, camera: Camera, ego_pose_world: Array, *scene: Any) -> tuple[NDArray, NDArray, NDArray]:
        """Depth, semantic and instance alone, as in CameraFrame; arguments as for `render`."""
        return labels(self._raster(camera_view(camera, ego_pose_world), *self._moving(*scene)))

    def samples(self, camera: Camera, ego_pose_world: Array, *scene: Any) -> tuple[View, Buffers]:
        """SAMPLES x SAMPLES samples per pixel before they have colours, and their view; arguments as for `render`."""
        view = camera_view(camera, ego_pose_world, SAMPLES)
        return view, self._raster(view, *self._moving(*scene))

    def _raster(self, view: View, ground: QuadSet, solids: QuadSet) -> Buffers:
        return rasterise(view, FAR, self._ground, self._solids, ground, solids, Semantic.TERRAIN.value)

    def _colours(self, camera: Camera, ego_pose_world: Array, ground: QuadSet, solids: QuadSet) -> NDArray[np.uint8]:
        view = camera_view(camera, ego_pose_world, SAMPLES)
        return shade(self._raster(view, ground, solids), view, SAMPLES, PALETTE, HAZE)

    def _moving(self, poses, sizes, types, route_path=None, lights=None) -> tuple[QuadSet, QuadSet]:
        """Ground and solid quads that change from frame to frame."""
        poses = np.ascontiguousarray(poses, np.float64).reshape(-1, 3)
        sizes = np.ascontiguousarray(sizes, np.float64).reshape(-1, 3)
        n = len(poses)
        if len(sizes) != n or len(types) != n:
            raise DataError(
                f"agents_pose_world, agents_size and agents_type have {n}, {len(sizes)} and {len(types)} rows: give one per agent"
            )
        kinds, owners = shape_kinds(types, sizes), np.arange(1, n + 1)
        shadows = footprints(
            poses, sizes, SHADOW_MARGIN, np.tile(np.array(SHADOW, np.float32), (n, 1)), np.full(n, Semantic.ROAD, np.uint8)
        )
        if route_path is not None:
            shadows = join(ribbon_set(route_path, ROUTE_WIDTH, ROUTE_COLOUR, Semantic.ROAD), shadows)
        if lights is not None and len(lights):
            lights = np.asarray(lights, float)
            kinds = np.concatenate([kinds, LIGHT + lights[:, 3].astype(np.int64)])
            poses, sizes = np.concatenate([poses, lights[:, :3]]), np.concatenate([sizes, np.ones((len(lights), 3))])
            owners = np.concatenate([owners, np.zeros(len(lights), np.int64)])
        return shadows, agent_solids(kinds, poses, sizes, owners)
