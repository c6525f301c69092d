# pyright: reportArgumentType=false
"""Rasters against OpenCV and scikit-image where they are installed, ST-P3's warp against torch, and collision rates of hand-made streets."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from drive.core.errors import DataError
from drive.metrics import nuscenes_collision as module
from drive.metrics.bev_raster import fill_polygons
from drive.metrics.nuscenes_collision import (
    CELLS,
    EGO_COLUMNS,
    EGO_ROWS,
    at_seconds,
    collisions,
    next_annotations,
    stp3_occupancy,
    uniad_occupancy,
    up_to_seconds,
    vad_collisions,
    vad_occupancy,
    vad_range,
)

KNOWN = np.ones(6, bool)
LIDAR = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, -0.94], [0.0, 0.0, 1.0, -1.84], [0.0, 0.0, 0.0, 1.0]])  # right, ahead of a lidar 0.94 m ahead
STANDING = np.zeros((6, 3))


def standing_box(x, y, heading=0.0, size=(4.0, 2.0), steps=KNOWN):
    """A box that stands still in the present ego frame, (1, 6, 3), with its size and validity."""
    return np.tile([x, y, heading], (1, 6, 1)).astype(float), np.array([size]), np.asarray(steps)[None]


def far():
    return np.full((6, 2), 40.0)


def random_boxes(count, reach):
    rng = np.random.default_rng(0)
    for _ in range(count):
        length, width, heading = rng.uniform(0.3, 14.0), rng.uniform(0.3, 3.0), rng.uniform(-math.pi, math.pi)
        turn = np.array([[math.cos(heading), math.sin(heading)], [-math.sin(heading), math.cos(heading)]])
        box = np.array([[length, width], [length, -width], [-length, -width], [-length, width]]) / 2.0 @ turn
        yield np.round((box + rng.uniform(-reach, reach, 2) + 50.0) / 0.5).astype(np.int32)


def test_a_square_covers_its_borders_and_a_line_is_drawn():
    grids = fill_polygons(np.array([[[2, 3], [5, 3], [5, 6], [2, 6]], [[0, 0], [3, 3], [0, 0], [3, 3]]]), np.array([0, 1]), 2, 10)
    wanted = np.zeros((2, 10, 10), bool)
    wanted[0, 3:7, 2:6] = True
    wanted[1, range(4), range(4)] = True
    np.testing.assert_array_equal(grids, wanted)


def test_polygons_outside_the_grid_paint_nothing_and_bad_shapes_are_refused():
    assert not fill_polygons(np.array([[[20, 20], [30, 20], [25, 30]], [[-9, -9], [-2, -9], [-2, -2]]]), np.zeros(2, int), 1, 10).any()
    assert fill_polygons(np.zeros((0, 4, 2), int), np.zeros(0, int), 3, 10).shape == (3, 10, 10)
    for corners, layer in ((np.zeros((1, 1, 2), int), [0]), (np.zeros((1, 4, 3), int), [0]), (np.zeros((1, 4, 2), int), [2])):
        with pytest.raises(DataError, match="polygons have corners"):
            fill_polygons(corners, np.array(layer), 2, 10)


def test_boxes_are_painted_as_opencv_paints_them():
    cv2 = pytest.importorskip("cv2")
    version = tuple(int(part) for part in cv2.__version__.split(".")[:2])
    if (4, 8) <= version <= (4, 10):
        pytest.skip("OpenCV 4.8 to 4.10 round half cells up")
    for corners in random_boxes(3000, 40.0):
        wanted = np.zeros((CELLS, CELLS))
        cv2.fillPoly(wanted, [corners], 1.0)
        np.testing.assert_array_equal(fill_polygons(corners[None], np.zeros(1, int), 1, CELLS)[0], wanted > 0)


def test_the_ego_box_covers_the_cells_of_scikit_image():
    draw = pytest.importorskip("skimage.draw")
    ahead = (np.array([-4.084 / 2 + 0.5, 4.084 / 2 + 0.5, 4.084 / 2 + 0.5, -4.084 / 2 + 0.5]) + 49.75) / 0.5
    across = (np.array([1.85, 1.85, -1.85, -1.85]) / 2 + 49.75) / 0.5
    found = set(zip(*(part.tolist() for part in draw.polygon(ahead, across))))
    assert found == {(row, column) for row in EGO_ROWS.tolist() for column in EGO_COLUMNS.tolist()}


def test_the_ego_cells_lie_in_the_box():
    middle_ahead, middle_across = -49.75 + 0.5 * EGO_ROWS, -49.75 + 0.5 * EGO_COLUMNS
    assert middle_ahead.min() - 0.5 < -4.084 / 2 + 0.5 < middle_ahead.min() and middle_ahead.max() < 4.084 / 2 + 0.5 < middle_ahead.max() + 0.5
    assert middle_across.min() - 0.5 < -0.925 < middle_across.min() and np.allclose(middle_across, -middle_across[::-1])


@pytest.mark.parametrize("pose", [(3.0, 0.0, 0.0), (8.0, -4.0, -0.9), (2.0, 0.3, 0.25)])
def test_the_warp_is_torchs_grid_sample_of_stp3s_matrix(pose):
    grid = np.random.default_rng(1).random((CELLS, CELLS)) > 0.7
    c, s = math.cos(pose[2]), math.sin(pose[2])
    matrix = torch.tensor([[[c, -s, pose[1] / 50.0], [s, c, -pose[0] / 50.0]]], dtype=torch.float64)
    places = functional.affine_grid(matrix, [1, 1, CELLS, CELLS], align_corners=False)
    wanted = functional.grid_sample(torch.tensor(grid)[None, None].double(), places, mode="nearest", align_corners=False)[0, 0].numpy() > 0
    assert (module._warped(grid[None], np.array([pose]))[0] != wanted).mean() < 1e-3  # ties of half a cell alone


def test_a_straight_drive_leaves_a_standing_obstacle_where_it_is():
    boxes, size, valid = standing_box(15.0, 3.0)
    ego = np.column_stack([2.0 * np.arange(1, 7), np.zeros(6), np.zeros(6)])
    moved = stp3_occupancy(boxes, size, valid, ego, np.zeros(3))
    still = stp3_occupancy(boxes, size, valid, STANDING, np.zeros(3))
    assert moved.any(axis=(1, 2)).all() and (moved == still).all()  # 2 m are four whole cells
    rows, columns = np.nonzero(still[0])
    assert (rows.min(), rows.max()) == (126, 134) and (columns.min(), columns.max()) == (104, 108)  # 13..17 m ahead, 2..4 m to the left


def test_the_lidars_grid_has_the_right_hand_on_high_columns():
    rows, columns = np.nonzero(uniad_occupancy(*standing_box(10.94, -5.0), LIDAR)[3])
    assert (rows.min(), rows.max()) == (116, 124) and (columns.min(), columns.max()) == (108, 112)


def test_a_plan_into_a_standing_car_collides_from_when_it_reaches_it():
    grids = uniad_occupancy(*standing_box(12.0, 0.0), LIDAR)  # rear bumper 10 m ahead of the axle, 9.06 m of the lidar
    plan = np.column_stack([np.zeros(6), 2.0 * np.arange(1, 7)])  # nose 2.54 m ahead of the waypoint: 6.54, 8.54, 10.54 m
    hits = collisions(plan, far(), KNOWN, grids)
    assert hits["box"].tolist() == [False, False, False, True, True, True]
    assert hits["point"].tolist() == [False, False, False, False, True, True]
    np.testing.assert_array_equal(at_seconds(hits["box"]), [0.0, 1.0, 1.0])
    np.testing.assert_allclose(up_to_seconds(hits["box"]), [0.0, 0.25, 0.5])
    beside = plan + [3.5, 0.0]
    assert not collisions(beside, far(), KNOWN, grids)["box"].any()
    both = collisions(np.stack([plan, beside]), far(), KNOWN, grids)  # proposals are batched
    assert both["box"].sum(axis=-1).tolist() == [3, 0]


def test_where_the_log_itself_collides_or_ends_nothing_is_counted():
    grids = uniad_occupancy(*standing_box(2.0, 0.0), LIDAR)
    plan = np.zeros((6, 2))
    truth = far()
    truth[:2] = 0.0
    assert collisions(plan, truth, KNOWN, grids)["box"].tolist() == [False, False, True, True, True, True]
    known = np.array([True, True, True, False, False, False])
    truth[3:] = np.nan
    assert collisions(plan, truth, known, grids)["box"].tolist() == [False, False, True, False, False, False]


def test_stp3_mirrors_and_stands_on_the_rear_axle():
    left = stp3_occupancy(*standing_box(5.0, 3.5), STANDING, np.zeros(3))
    plan = np.tile([-3.5, 5.0], (6, 1))  # right, ahead of the lidar
    assert collisions(plan, far(), KNOWN, left, columns_to_left=True)["point"].all()
    assert not collisions(plan * [-1, 1], far(), KNOWN, left, columns_to_left=True)["box"].any()
    ahead = stp3_occupancy(*standing_box(5.2, 0.0), STANDING, np.zeros(3))  # rear bumper 3.2 m ahead of the axle
    nose = np.tile([0.0, 0.8], (6, 1))  # the real nose is 4.28 m ahead of the axle, ST-P3's 3.34 m less what cells round
    assert not collisions(nose, far(), KNOWN, ahead, columns_to_left=True)["box"].any()
    assert collisions(nose, far(), KNOWN, uniad_occupancy(*standing_box(5.2, 0.0), LIDAR))["box"].all()


def test_a_wild_plan_is_clipped_and_bad_input_is_refused():
    grids = uniad_occupancy(*standing_box(49.5, 0.0), LIDAR)
    wild = np.tile([0.0, 500.0], (6, 1))
    hits = collisions(wild, np.zeros((6, 2)), KNOWN, grids)
    assert hits["box"].all() and not hits["point"].any()  # box cells beyond the border become the border's, as upstream does it
    with pytest.raises(DataError, match="finite"):
        collisions(np.full((6, 2), np.nan), far(), KNOWN, grids)
    with pytest.raises(DataError, match="6 steps"):
        collisions(np.zeros((5, 2)), far(), KNOWN, grids)


def test_vads_rows_begin_at_the_front_and_its_box_takes_the_cell_ahead():
    boxes = standing_box(12.0, -3.0)  # 9.06 to 13.06 m ahead of the lidar, 2 to 4 m to the right
    grids = vad_occupancy(*boxes, LIDAR)
    rows, columns = np.nonzero(grids[0])
    assert (rows.min(), rows.max()) == (74, 82) and (columns.min(), columns.max()) == (104, 108)  # the line y = 0 is row 100
    np.testing.assert_array_equal(grids[:, ::-1][:, :-1], uniad_occupancy(*boxes, LIDAR)[:, 1:])  # the same lines as UniAD's, turned over
    waypoint = np.tile([3.0, 6.9], (6, 1))  # half cells: 6.9 m are 13.8, so the nose stands at 8.5 m for UniAD, at 9 m for VAD
    assert not collisions(waypoint, far(), KNOWN, uniad_occupancy(*boxes, LIDAR))["box"].any()
    assert vad_collisions(waypoint, far(), grids)["box"].all()
    whole = np.tile([3.0, 6.5], (6, 1))
    assert not vad_collisions(whole, far(), grids)["box"].any()


def test_vads_point_is_looked_up_where_its_halved_offset_falls():
    at = standing_box(5.94, 0.0)  # 5 m ahead of the lidar
    waypoint = np.tile([0.0, 5.0], (6, 1))
    hits = vad_collisions(waypoint, far(), vad_occupancy(*at, LIDAR))
    assert hits["box"].all() and not hits["point"].any()
    there = standing_box(5.94 + 25.25, 25.25)
    hits = vad_collisions(waypoint, far(), vad_occupancy(*there, LIDAR))
    assert hits["point"].all() and not hits["box"].any()
    assert not vad_collisions(np.tile([0.0, 30.0], (6, 1)), far(), vad_occupancy(*there, LIDAR))["point"].any()  # beyond the border


def test_vad_counts_nothing_where_the_log_collides():
    grids = vad_occupancy(*standing_box(2.0, 0.0), LIDAR)
    truth = far()
    truth[:2] = 0.0
    assert vad_collisions(np.zeros((6, 2)), truth, grids)["box"].tolist() == [False, False, True, True, True, True]
    with pytest.raises(DataError, match="finite"):
        vad_collisions(np.zeros((6, 2)), np.full((6, 2), np.nan), grids)


def test_vads_range_is_about_the_lidar_and_open():
    boxes = np.array([[0.0, 14.9, 0.0], [0.0, -15.0, 0.0], [30.93, 0.0, 0.0], [30.95, 0.0, 0.0], [-29.05, 0.0, 0.0], [-29.07, 0.0, 0.0]])
    assert vad_range(boxes, LIDAR).tolist() == [True, False, True, False, True, False]


def test_annotations_close_up_over_gaps():
    boxes = np.arange(2 * 8 * 3, dtype=float).reshape(2, 8, 3)
    valid = np.array([[1, 0, 1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0]], bool)
    found, known = next_annotations(boxes, valid)
    np.testing.assert_array_equal(found[0], boxes[0, [0, 2, 3, 5, 6, 7]])
    assert known.tolist() == [[True] * 6, [True] + [False] * 5]
    np.testing.assert_array_equal(found[1, 0], boxes[1, 6])
    found, known = next_annotations(boxes[:, :2], valid[:, :2])
    assert found.shape == (2, 6, 3) and known.sum() == 1
    assert next_annotations(np.zeros((0, 8, 3)), np.zeros((0, 8), bool))[0].shape == (0, 6, 3)


def test_vads_grid_is_what_opencv_paints_of_its_corners():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(3)
    count = 40
    boxes = np.concatenate([rng.uniform(-28.0, 28.0, (count, 6, 2)), rng.uniform(-math.pi, math.pi, (count, 6, 1))], axis=-1)
    size, valid = rng.uniform(0.4, 9.0, (count, 2)), rng.random((count, 6)) > 0.3
    wanted = np.zeros((6, CELLS, CELLS))
    for a, t in zip(*np.nonzero(valid)):  # x to the right of the lidar, y ahead, heading from x
        x, y, heading = -boxes[a, t, 1], boxes[a, t, 0] - 0.94, boxes[a, t, 2] + math.pi / 2
        c, s = math.cos(heading), math.sin(heading)
        ring = [(x + c * i - s * j, -(y + s * i + c * j)) for i, j in np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * size[a] / 2]
        cv2.fillPoly(wanted[t], [np.round((np.array(ring) + 50.0) / 0.5).astype(np.int32)], 1.0)
    np.testing.assert_array_equal(vad_occupancy(boxes, size, valid, LIDAR), wanted > 0)
