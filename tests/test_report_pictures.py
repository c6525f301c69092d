import numpy as np
import pytest
from toy_scenes import straight_road, toy_scenario

from drive.core.types import Camera
from drive.report.pictures import (
    PLAN_COLOUR,
    Ribbon,
    draw_on_camera,
    font,
    instant,
    painter,
    plan_picture,
    resized_camera,
    route_ahead,
    smooth_path,
    wrap,
)

STRAIGHT = np.column_stack([np.arange(2.0, 22.0, 2.0), np.zeros(10), np.zeros(10)])


def blueness(picture):
    """(H, W) how much a pixel leans to the plan's colour."""
    return picture[..., 2].astype(int) - picture[..., 0].astype(int)


def test_ribbon_covers_the_ground_where_the_camera_projects_it():
    camera = Camera.front(200, 200)
    grey = np.full((200, 200, 3), 120, np.uint8)
    blue = blueness(draw_on_camera(grey, camera, [Ribbon(STRAIGHT)])) > 20
    for x, y, inside in ((8.0, 0.0, True), (8.0, 0.35, True), (8.0, 1.5, False), (30.0, 0.0, False), (15.0, -0.3, True)):
        optical = np.linalg.inv(camera.ego_from_camera) @ (x, y, 0.0, 1.0)
        u, v, w = camera.intrinsics @ optical[:3]
        assert blue[int(v / w), int(u / w)] == inside, (x, y)
    assert not blue[:85].any()  # the sky stays free
    assert (grey == 120).all()  # the given image is not written into


def test_nothing_is_drawn_of_a_plan_behind_the_camera():
    grey = np.full((64, 64, 3), 120, np.uint8)
    behind = np.column_stack([-np.arange(1.0, 11.0), np.zeros(10), np.full(10, np.pi)])
    assert np.array_equal(draw_on_camera(grey, Camera.front(64, 64), [Ribbon(behind)]), grey)
    assert np.array_equal(draw_on_camera(grey, Camera.front(64, 64), [Ribbon(np.zeros((0, 3)))]), grey)


def test_standing_still_has_no_bars():
    grey = np.full((300, 300, 3), 120, np.uint8)
    picture = draw_on_camera(grey, Camera.front(300, 300), [Ribbon(STRAIGHT * [0.001, 1, 1])])
    assert np.array_equal(picture, grey)


def test_birdseye_puts_the_plan_ahead_of_the_ego_at_scale():
    scenario = toy_scenario(1)
    scene, now = painter(straight_road(), False), instant(scenario)
    bare, drawn = (scene.above(now, plans, 300, 60.0) for plans in ([], [Ribbon(STRAIGHT)]))
    rows, columns = np.nonzero((bare != drawn).any(axis=2))
    ego_row = 0.72 * 300
    assert rows.max() == pytest.approx(ego_row, abs=2) and rows.min() == pytest.approx(ego_row - 20.0 * 5, abs=3)  # 5 pixels/m
    assert columns.mean() == pytest.approx(149.5, abs=0.6)
    left = scene.above(now, [Ribbon(STRAIGHT + [0.0, 3.0, 0.0])], 300, 60.0)
    assert np.nonzero((bare != left).any(axis=2))[1].min() < 135  # y left is left in the picture


def test_smooth_path_of_an_arc_stays_on_it():
    angle = np.linspace(0.0, np.pi / 2, 6)[1:]
    arc = np.column_stack([10 * np.sin(angle), 10 - 10 * np.cos(angle), angle])
    path = smooth_path(arc)
    assert path.shape == (51, 3) and np.allclose(path[0], 0.0) and np.allclose(path[::10][1:], arc)
    assert np.allclose(np.hypot(path[:, 0], path[:, 1] - 10), 10.0, atol=0.02)


def test_route_that_comes_back_is_drawn_once():
    out = np.column_stack([np.arange(100.0), np.zeros(100), np.zeros(100)])
    back = np.column_stack([np.arange(99.0, -1.0, -1.0), np.full(100, 3.5), np.full(100, np.pi)])
    piece = route_ahead(np.vstack([out, back]), np.array([40.0, 0.0, 0.0]))
    assert piece is not None and piece[0, 0] == 11.0  # 30 m behind, exclusive
    assert len(piece) < 160 and (np.hypot(*np.diff(piece[:, :2], axis=0).T) < 4.0).all()
    assert route_ahead(out[:1], np.zeros(3)) is None


def test_plan_picture_has_both_views_and_a_caption():
    scenario = toy_scenario(0)
    bare = plan_picture(scenario, None, "title", size=160)
    drawn = plan_picture(scenario, STRAIGHT, "title", ["a line", "word " * 200], size=160)
    assert bare.shape[1] == drawn.shape[1] == 320 and drawn.dtype == np.uint8
    assert bare.shape[0] % 2 == 0 and drawn.shape[0] > bare.shape[0] > 160
    assert (blueness(drawn[100:160, :160]) > 60).sum() > (blueness(bare[100:160, :160]) > 60).sum() + 300


def test_wrap_keeps_to_its_width_and_marks_what_is_cut():
    face = font(13)
    rows = wrap("word " * 100, face, 150, 2)
    assert len(rows) == 2 and rows[1].endswith(" …") and all(face.getlength(row) <= 150 for row in rows)
    assert wrap("short", face, 150, 2) == ["short"] and wrap("", face, 150, 2) == [""]


def test_resized_camera_sees_the_same():
    small, large = Camera.front(112, 112), resized_camera(Camera.front(112, 112), 448)
    assert (large.width, large.height) == (448, 448)
    point = np.array([1.0, 0.5, 8.0])
    near, far = (k @ point / point[2] for k in (small.intrinsics, large.intrinsics))
    assert np.allclose(far[:2], 4 * near[:2])


def test_colours_of_plan_and_ribbon_agree():
    assert Ribbon(STRAIGHT).colour == PLAN_COLOUR
