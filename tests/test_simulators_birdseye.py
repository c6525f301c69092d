"""Where things lie from above, and where plans are drawn."""

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.core.geometry import compose
from drive.core.roadmap import Layer, Polygons, RoadMap
from drive.core.types import AgentType, Camera
from drive.simulators.birdseye import AGENT_COLOURS, EGO_COLOUR, BirdsEye, Channel, draw_plan_birdseye, draw_plan_camera

NOBODY = (np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int))
SIZE, METRES = 128, 64.0  # 2 px per metre
PLAN = np.array([(2.0 * step, 0.0, 0.0) for step in range(1, 11)])
PINK = (255, 0, 255)


@pytest.fixture(scope="module")
def above() -> BirdsEye:
    ring = np.array([(-100.0, -4.0), (100.0, -4.0), (100.0, 4.0), (-100.0, 4.0)])
    return BirdsEye(RoadMap("band", {}, Polygons.from_rings([("area", Layer.DRIVABLE_AREA, ring)])))


def centre_of(mask: np.ndarray) -> tuple[float, float]:
    """(row, column) of a mask's centre."""
    rows, columns = np.nonzero(mask)
    return float(rows.mean() + 0.5), float(columns.mean() + 0.5)


@pytest.mark.parametrize("ego", [(0.0, 0.0, 0.0), (40.0, -7.0, 0.5 * np.pi), (664_430.0, 3_997_650.0, 2.1)])
@pytest.mark.parametrize(("ahead", "left"), [(10.0, 0.0), (-5.0, 12.0)])
def test_an_agent_lies_where_its_place_in_the_ego_frame_says(above, ego, ahead, left):
    ego = np.array(ego)
    pose = compose(ego, np.array([[ahead, left, 0.0]]))
    planes = above.channels(ego, pose, np.array([[4.0, 2.0, 1.5]]), np.array([AgentType.VEHICLE]), SIZE, METRES)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    row, column = 64 - int(2 * ahead), 64 - int(2 * left)
    expected[row - 4 : row + 4, column - 2 : column + 2] = 1  # 4 m along the heading, 2 m across
    assert (planes[Channel.VEHICLE] != expected).sum() <= 2  # borders fall on pixel edges
    assert not planes[[Channel.ROUTE, Channel.VULNERABLE, Channel.STATIC]].any()


def test_the_road_is_drawn_to_scale_and_turns_with_the_ego(above):
    east = above.channels(np.zeros(3), *NOBODY, SIZE, METRES)[Channel.DRIVABLE]
    assert east.sum() == pytest.approx(8.0 * METRES * 4, rel=1e-6) and east[:, 56:72].all()
    north = above.channels(np.array([0.0, 0.0, np.pi / 2]), *NOBODY, SIZE, METRES)[Channel.DRIVABLE]
    assert np.array_equal(north, east.T)


def test_each_class_has_its_plane(above):
    poses = np.array([[8.0, -2.0, 0.0], [12.0, 0.0, 0.0], [16.0, 2.0, 0.0], [20.0, 0.0, 0.0]])
    types = np.array([AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.BICYCLE, AgentType.BARRIER])
    planes = above.channels(np.zeros(3), poses, np.full((4, 3), 2.0), types, SIZE, METRES, route_path=poses[:, :2])
    assert planes.dtype == np.uint8 and set(np.unique(planes)) == {0, 1}
    for plane, rows in ((Channel.VEHICLE, [48]), (Channel.VULNERABLE, [40, 32]), (Channel.STATIC, [24])):
        assert planes[plane].sum() == pytest.approx(16 * len(rows), abs=2)
        assert all(planes[plane, row].any() for row in rows)
    assert planes[Channel.DRIVABLE, 48, 68] and planes[Channel.ROUTE, 40, 64]  # planes overlap


def test_the_picture_shows_the_ego_in_the_middle_and_the_front_of_agents(above):
    pose = np.array([[15.0, 0.0, np.pi]])
    image = above.raster(np.zeros(3), pose, np.array([[4.8, 2.0, 1.5]]), np.array([0]), 2 * SIZE, METRES).astype(int)
    ego = (np.abs(image - EGO_COLOUR) < 8).all(-1)
    row, column = centre_of(ego)
    assert column == pytest.approx(128.0, abs=0.6) and 120 < row < 128
    body = (np.abs(image - AGENT_COLOURS[AgentType.VEHICLE]) < 8).all(-1)
    nose = (image[:128] > 235).all(-1)
    assert centre_of(nose)[0] > centre_of(body)[0]  # an oncoming car has its front towards the ego, at the lower rows


def test_two_rasters_are_equal_to_the_byte(above):
    agents = (np.array([[9.0, 1.0, 0.3]]), np.array([[4.0, 2.0, 1.5]]), np.zeros(1, int))
    assert above.raster(np.zeros(3), *agents).tobytes() == above.raster(np.zeros(3), *agents).tobytes()


def test_a_plan_from_above_runs_from_the_middle_to_its_end():
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    image = draw_plan_birdseye(blank, METRES, PLAN, PINK)
    assert not blank.any()  # a copy
    rows, columns = np.nonzero(image[..., 0] > 60)
    assert rows.max() == pytest.approx(64, abs=1) and rows.min() == pytest.approx(64 - 2 * 20, abs=1)
    assert abs(columns + 0.5 - 64.0).max() < 2.0
    assert (image[..., 1] == 0).all()


def test_a_plan_that_turns_left_is_drawn_to_the_left():
    turn = np.array([(0.8 * step, 0.06 * step**2, 0.15 * step) for step in range(1, 11)])
    drawn = draw_plan_birdseye(np.zeros((SIZE, SIZE, 3), np.uint8), METRES, turn, PINK)[..., 0] > 60
    assert centre_of(drawn)[1] < 62.0


def test_a_plan_on_a_camera_lies_on_the_ground_ahead():
    camera = Camera.front(200, 200)
    image = draw_plan_camera(np.zeros((200, 200, 3), np.uint8), camera, PLAN, 1.0, PINK)
    k, pose = camera.intrinsics, camera.ego_from_camera
    for x, half in ((11.0, 0.5), (14.0, 0.7)):  # between two poses the band, at a pose its bar
        local = (np.array([(x, half, 0.0), (x, -half, 0.0)]) - pose[:3, 3]) @ pose[:3, :3]
        u, v = k[:2, :2] @ (local[:, :2] / local[:, 2:]).T + k[:2, 2:]
        drawn = np.flatnonzero(image[int(v[0]), :, 0] > 70)
        assert (drawn.min(), drawn.max() + 1) == pytest.approx((u[0], u[1]), abs=1.5)
    assert not image[:85].any()  # nothing above the horizon


def test_a_plan_that_stands_still_leaves_the_picture_whole():
    image = np.full((112, 112, 3), 90, np.uint8)
    assert np.array_equal(draw_plan_camera(image, Camera.front(), np.zeros((10, 3))), image)


def test_images_and_arrays_that_do_not_fit_are_refused(above):
    with pytest.raises(DataError, match="112 x 112"):
        draw_plan_camera(np.zeros((100, 112, 3), np.uint8), Camera.front(), PLAN)
    with pytest.raises(DataError, match="S, S, 3"):
        draw_plan_birdseye(np.zeros((100, 112, 3), np.uint8), METRES, PLAN)
    with pytest.raises(DataError, match="one per agent"):
        above.raster(np.zeros(3), np.zeros((1, 3)), np.zeros((0, 3)), np.zeros(1, int))
