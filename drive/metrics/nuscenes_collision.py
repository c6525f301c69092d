"""nuScenes' open-loop collision rates of ST-P3, UniAD and VAD: the planned box on a grid of what really stood there.

All: 200 x 200 cells of 0.5 m, an ego box of 4.084 x 1.85 m that is never turned and lies 0.5 m ahead of the waypoint; a step at
which the log's own box touches an obstacle is no collision, and stays in the denominator. Two kinds: "box" (obj_box_col, what papers
print) and "point" (obj_col, the waypoint alone). Neither asks whether anything was hit before.

| | ST-P3 6b11e13 | UniAD 532fc33 | VAD 0a20dc7 |
| --- | --- | --- | --- |
| obstacles | vehicles, bicycles, pedestrians that were seen in one of the three input frames | vehicles and bicycles annotated at the step | vehicles, bicycles, pedestrians of the present with a lidar point, within 15 m to the sides and 30 m ahead and behind |
| drawn | in each step's ego frame, then warped (nearest cell) to the present | in the present lidar's frame | in the present lidar's frame |
| rate at k s | mean over the steps up to k | at the step | mean over the steps up to k |
| future unknown | not in its set | no collision | not in its set |

ST-P3's grid is centred on the rear axle (its comment says the lidar) while its waypoints are the lidar's: the car stands 0.94 m too far
back. Its warp takes the other frame's position without turning it. Both are part of its numbers, and kept. Sources: ST-P3 metrics.py,
NuscenesData.py, utils/geometry.py; UniAD planning_metrics.py, occflow_label.py. Boxes are flat here: no roll, no pitch.

VAD's grid counts its rows from the front, so that a box between two cells takes the one ahead where the others take the one behind. Its
"point" halves the grid's offset (`-bx / 2 - y`), and so looks up the cell 25.25 m ahead and 25.25 m to the left of the waypoint: kept, and
good for nothing. It follows an obstacle by its annotations, not by time: one that is missing in a key frame is a step ahead from then on. It
chooses classes by their index in category.json (2-8, 14-23), which means people and vehicles in the order that nuScenes-lidarseg brought,
and the ten detection classes of them; here by name. Sources: VAD metric_stp3.py, VAD.py, vad_nuscenes_converter.py, transform_3d.py.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.core.geometry import Array, box_corners, relative
from drive.metrics.bev_raster import fill_polygons
from drive.metrics.nuscenes_l2 import SECONDS, STEPS

CELL, CELLS = 0.5, 200  # m, and cells to a side
HALF = CELL * CELLS / 2.0  # m
FIRST = -HALF + CELL / 2.0  # m, middle of the first cell
VAD_ASIDE, VAD_AHEAD = 15.0, 30.0  # m from the lidar, within which VAD keeps obstacles
EGO_ROWS, EGO_COLUMNS = np.arange(97, 105), np.arange(98, 102)  # cells whose middle lies in the ego box at the origin
Grids = NDArray[np.bool_]


def uniad_occupancy(boxes_ego: Array, size: Array, valid: NDArray[np.bool_], lidar_from_ego: Array) -> Grids:
    """Grids (6, 200, 200), rows ahead, columns to the right of the present's lidar.

    boxes_ego (A, 6, 3) are box centres in the present ego frame at the six steps, size (A, 2+) length and width, valid (A, 6).
    """
    corners = box_corners(boxes_ego, size[:, None, 0], size[:, None, 1])  # (A, 6, 4, 2)
    right_ahead = corners @ lidar_from_ego[:2, :2].T + lidar_from_ego[:2, 3]
    return _drawn(right_ahead, valid)


def stp3_occupancy(boxes_world: Array, size: Array, valid: NDArray[np.bool_], ego_world: Array, present_world: Array) -> Grids:
    """Grids (6, 200, 200), rows ahead, columns to the left of the present's rear axle.

    boxes_world (A, 6, 3) are box centres at the six steps, ego_world (6, 3) and present_world (3,) rear axles.
    """
    there = relative(ego_world[None], boxes_world)  # each step in its own ego frame
    corners = box_corners(there, size[:, None, 0], size[:, None, 1])[..., ::-1]
    drawn = _drawn(corners, valid)
    return _warped(drawn, relative(present_world, ego_world))


def vad_occupancy(boxes_ego: Array, size: Array, valid: NDArray[np.bool_], lidar_from_ego: Array) -> Grids:
    """Grids (6, 200, 200), rows from the front to the back, columns to the right of the present's lidar; arrays as `uniad_occupancy` takes them."""
    corners = box_corners(boxes_ego, size[:, None, 0], size[:, None, 1])
    right_ahead = corners @ lidar_from_ego[:2, :2].T + lidar_from_ego[:2, 3]
    return _drawn(right_ahead * [1.0, -1.0], valid)


def vad_range(boxes_ego: Array, lidar_from_ego: Array) -> NDArray[np.bool_]:
    """Whether (A,) the centres of boxes (A, 3) in the present ego frame lie within VAD's range of the lidar."""
    right, ahead = (boxes_ego[:, :2] @ lidar_from_ego[:2, :2].T + lidar_from_ego[:2, 3]).T
    return (np.abs(right) < VAD_ASIDE) & (np.abs(ahead) < VAD_AHEAD)


def next_annotations(boxes: Array, valid: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Boxes (A, 6, 3) and validity (A, 6) of the next six annotations, whenever they are, of (A, S, 3) and (A, S) after the present."""
    missing = max(STEPS - valid.shape[1], 0)
    boxes, valid = np.pad(boxes, [(0, 0), (0, missing), (0, 0)]), np.pad(valid, [(0, 0), (0, missing)])
    order = np.argsort(~valid, axis=1, kind="stable")[:, :STEPS]
    return np.take_along_axis(boxes, order[..., None], axis=1), np.take_along_axis(valid, order, axis=1)


def _drawn(across_ahead: Array, valid: NDArray[np.bool_]) -> Grids:
    """Grids of corners (A, 6, 4, 2), metres across and ahead; a corner goes to the nearest line between cells, as upstream rounds it."""
    agents, steps = np.nonzero(valid)
    corners = np.round((across_ahead[agents, steps] + HALF) / CELL).astype(np.int64)
    return fill_polygons(corners, steps, STEPS, CELLS)


def _warped(grids: Grids, poses: Array) -> Grids:
    """Grids (6, 200, 200) drawn in the ego frames at `poses` (6, 3) (in the present's), as ST-P3 shows them in the present's: see the module's note."""
    out = np.empty_like(grids)
    middle = (np.arange(CELLS) + 0.5) / CELLS * 2.0 - 1.0  # -1..1, as grid_sample has it
    _warp(np.ascontiguousarray(grids), np.cos(poses[:, 2]), np.sin(poses[:, 2]), poses[:, :2] / HALF, middle, out)
    return out


@njit(cache=True)
def _cell(normalised):
    return int(np.rint(((normalised + 1.0) * CELLS - 1.0) / 2.0))


@njit(cache=True)
def _warp(grids, cos, sin, place, middle, out):
    """The nearest cell of each grid for every cell of `out`; nothing from beyond the border."""
    for t in range(len(grids)):
        c, s = cos[t], sin[t]
        for i, ahead in enumerate(middle):
            for j, left in enumerate(middle):
                row = _cell(s * left + c * ahead - place[t, 0])
                column = _cell(c * left - s * ahead + place[t, 1])
                inside = 0 <= row < CELLS and 0 <= column < CELLS
                out[t, i, j] = inside and grids[t, row, column]


def _hits(waypoints: Array, grids: Grids) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether box and point (..., 6) of waypoints (..., 6, 2), metres across and ahead, lie on a cell of grids (6, 200, 200).

    Box cells beyond the border count as the border's; a point beyond it hits nothing.
    """
    across, ahead = waypoints[..., 0], waypoints[..., 1]
    box = _box_hits(EGO_ROWS + ahead[..., None] / CELL, EGO_COLUMNS + across[..., None] / CELL, grids)
    return box, _point_hits((ahead - FIRST) / CELL, (across - FIRST) / CELL, grids)


def _vad_hits(waypoints: Array, grids: Grids) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The same on VAD's grids, whose rows begin at the front; its point with its halved offset."""
    across, ahead = waypoints[..., 0], waypoints[..., 1]
    box = _box_hits(CELLS - (EGO_ROWS + ahead[..., None] / CELL), EGO_COLUMNS + across[..., None] / CELL, grids)
    return box, _point_hits((-FIRST / 2.0 - ahead) / CELL, (-FIRST / 2.0 + across) / CELL, grids)


def _box_hits(rows: Array, columns: Array, grids: Grids) -> NDArray[np.bool_]:
    """Whether (..., 6) any of the cells rows (..., 6, R) by columns (..., 6, C), cut to whole ones, is taken."""
    row, column = (np.clip(np.trunc(cells), 0, CELLS - 1).astype(np.int64) for cells in (rows, columns))
    return np.asarray(grids[np.arange(STEPS)[:, None, None], row[..., :, None], column[..., None, :]].any(axis=(-2, -1)))


def _point_hits(rows: Array, columns: Array, grids: Grids) -> NDArray[np.bool_]:
    """Whether (..., 6) the cell of rows and columns (..., 6), cut to a whole one, is taken."""
    row, column = np.trunc(rows), np.trunc(columns)
    inside = (row >= 0) & (row < CELLS) & (column >= 0) & (column < CELLS)
    at = np.where(inside, row, 0).astype(np.int64), np.where(inside, column, 0).astype(np.int64)
    return inside & grids[(np.arange(STEPS), *at)]


def collisions(
    plans: Array, truth: Array, known: NDArray[np.bool_], grids: Grids, columns_to_left: bool = False
) -> dict[str, NDArray[np.bool_]]:
    """Which steps collide, "box" and "point" (..., 6), of lidar positions (..., 6, 2) right and ahead, as `drive.metrics.nuscenes_l2` has them.

    truth (6, 2) is the log's, `known` (6,) where it has a future; columns_to_left: ST-P3's grids. Raises DataError on other shapes, and on
    NaN.
    """
    plans, truth = _checked(plans, truth, known, grids)
    side = np.array([-1.0, 1.0]) if columns_to_left else np.ones(2)
    counted = known & ~_hits(truth * side, grids)[0]
    box, point = _hits(plans * side, grids)
    return {"box": box & counted, "point": point & counted}


def vad_collisions(plans: Array, truth: Array, grids: Grids) -> dict[str, NDArray[np.bool_]]:
    """The same on `vad_occupancy`'s grids, of a log that goes on for all six steps. Raises as `collisions` does."""
    plans, truth = _checked(plans, truth, np.ones(STEPS, bool), grids)
    counted = ~_vad_hits(truth, grids)[0]
    box, point = _vad_hits(plans, grids)
    return {"box": box & counted, "point": point & counted}


def _checked(plans: Array, truth: Array, known: NDArray[np.bool_], grids: Grids) -> tuple[Array, Array]:
    plans, truth = np.asarray(plans, np.float64), np.asarray(truth, np.float64)
    if plans.shape[-2:] != (STEPS, 2) or truth.shape != (STEPS, 2) or known.shape != (STEPS,) or grids.shape != (STEPS, CELLS, CELLS):
        raise DataError(f"collisions take plans (…, {STEPS}, 2), truth, known and grids of {STEPS} steps, got {plans.shape}, {truth.shape}, {grids.shape}")
    truth = np.where(known[:, None], truth, 0.0)
    if not (np.isfinite(plans).all() and np.isfinite(truth).all()):
        raise DataError("collisions take finite plans and known truth, got NaN or infinity")
    return plans, truth


def at_seconds(steps: NDArray[np.bool_]) -> Array:
    """UniAD's: 0 or 1 (..., 3) at 1, 2 and 3 s of `collisions` (..., 6)."""
    return np.asarray(steps, np.float64)[..., [2 * second - 1 for second in SECONDS]]


def up_to_seconds(steps: NDArray[np.bool_]) -> Array:
    """ST-P3's and VAD's: share (..., 3) of the steps up to 1, 2 and 3 s of `collisions` (..., 6)."""
    values = np.asarray(steps, np.float64)
    return np.stack([values[..., : 2 * second].mean(axis=-1) for second in SECONDS], axis=-1)
