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
    stp3_occupancy,
    uniad_occupancy,
    up_to_seconds,
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
    assert (module._warped(grid, np.array(pose)) != wanted).mean() < 1e-3  # ties of half a cell alone


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
