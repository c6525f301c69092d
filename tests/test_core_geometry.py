"""Frames and units: what every part of drive relies on."""

import numpy as np
import pytest

from drive.core.geometry import (
    arc_length,
    box_corners,
    compose,
    interpolate_poses,
    points_to_frame,
    polyline_with_heading,
    project,
    relative,
    wrap_angle,
)
from drive.core.seeds import numpy_rng


def test_wrap_angle_is_half_open_at_minus_pi():
    np.testing.assert_allclose(wrap_angle([np.pi, -np.pi, 3 * np.pi, 0.5, -7.0]), [np.pi, np.pi, np.pi, 0.5, 2 * np.pi - 7.0])


def test_compose_turns_then_shifts():
    np.testing.assert_allclose(compose([10.0, 5.0, np.pi / 2], [2.0, 1.0, 0.3]), [9.0, 7.0, np.pi / 2 + 0.3])


def test_relative_undoes_compose():
    rng = numpy_rng(0, "geometry")
    origin, pose = rng.normal(0.0, 50.0, (2, 200, 3))
    back = relative(origin, compose(origin, pose))
    np.testing.assert_allclose(back[:, :2], pose[:, :2], atol=1e-9)
    np.testing.assert_allclose(wrap_angle(back[:, 2] - pose[:, 2]), 0.0, atol=1e-9)
    np.testing.assert_allclose(relative(origin, origin), 0.0, atol=1e-9)


def test_points_to_frame_agrees_with_relative():
    origin = np.array([3.0, -2.0, 0.7])
    points = np.array([[4.0, 1.0], [-1.0, 0.0]])
    poses = np.column_stack([points, [0.0, 0.0]])
    np.testing.assert_allclose(points_to_frame(origin, points), relative(origin, poses)[:, :2])


def test_left_of_the_ego_is_positive_y():
    assert points_to_frame(np.array([0.0, 0.0, np.pi / 2]), np.array([-1.0, 0.0]))[1] == pytest.approx(1.0)


def test_corners_run_front_left_rear_left_rear_right_front_right():
    np.testing.assert_allclose(box_corners([0.0, 0.0, 0.0], 4.0, 2.0), [[2, 1], [-2, 1], [-2, -1], [2, -1]])
    turned = box_corners([10.0, 0.0, np.pi / 2], 4.0, 2.0, rear_to_center=1.0)
    np.testing.assert_allclose(turned, [[9, 3], [9, -1], [11, -1], [11, 3]], atol=1e-12)


def test_corners_of_many_boxes_take_a_size_each():
    corners = box_corners(np.zeros((2, 3)), np.array([4.0, 2.0]), np.array([2.0, 1.0]))
    np.testing.assert_allclose(corners[1], [[1, 0.5], [-1, 0.5], [-1, -0.5], [1, -0.5]])


def test_interpolation_takes_the_short_way_round_and_holds_the_ends():
    poses = np.array([[0.0, 0.0, 3.0], [2.0, 4.0, -3.0]])
    got = interpolate_poses([0.0, 1.0], poses, [-1.0, 0.5, 2.0])
    np.testing.assert_allclose(got[:, :2], [[0, 0], [1, 2], [2, 4]])
    np.testing.assert_allclose(got[:, 2], [3.0, np.pi, -3.0])


def test_polyline_gets_the_heading_of_its_segments():
    line = polyline_with_heading([[0, 0], [1, 0], [1, 2]])
    np.testing.assert_allclose(line[:, 2], [0.0, np.pi / 2, np.pi / 2])
    np.testing.assert_allclose(arc_length(line), [0.0, 1.0, 3.0])


@pytest.mark.parametrize(("xy", "want"), [((4.0, 1.5), (4.0, 1.5)), ((4.0, -2.0), (4.0, -2.0)), ((11.0, 5.0), (15.0, -1.0))])
def test_project_is_left_positive(xy, want):
    assert project([[0, 0], [10, 0], [10, 10]], xy) == pytest.approx(want)
