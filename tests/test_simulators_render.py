"""The rasteriser on hand-made quads, and whole frames of a hand-made road."""

import gc

import numpy as np
import pytest
import shapely

from drive.core.errors import DataError
from drive.core.geometry import box_corners, compose
from drive.core.roadmap import Lane, Layer, Polygons, RoadMap
from drive.core.types import AgentType, Camera
from drive.simulators.raster import NEAR, View, labels, rasterise
from drive.simulators.render import SceneRenderer, camera_view
from drive.simulators.scene_geometry import EMPTY, Paint, Semantic, area_quads, quad_set
from drive.simulators.static_scene import drivable_surface, static_scene

HEIGHT = 1.5  # m of the level test camera
NOBODY = (np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int))
CAR = np.array([[4.6, 1.9, 1.6]])


def make_lane(name: str, y: float, back: bool = False, length: int = 120, shift=(0.0, 0.0), **links) -> Lane:
    """A straight lane along x, 3.5 m wide, with its centre at `y`."""
    x = np.arange(0.0, length + 1.0)
    line = np.column_stack([x + shift[0], np.full(len(x), y + shift[1]), np.zeros(len(x))])
    if back:
        line = line[::-1].copy()
        line[:, 2] = np.pi
    across = np.column_stack([-np.sin(line[:, 2]), np.cos(line[:, 2])]) * 1.75
    return Lane(name, line, line[:, :2] + across, line[:, :2] - across, 13.9, **links)


def make_road(shift=(0.0, 0.0)) -> RoadMap:
    """Two lanes east (right one at y = -5.25), one west at y = 1.75."""
    lanes = [
        make_lane("right", -5.25, shift=shift, left_neighbor="left"),
        make_lane("left", -1.75, shift=shift, right_neighbor="right"),
        make_lane("back", 1.75, True, shift=shift),
    ]
    return RoadMap("straight", {lane.id: lane for lane in lanes}, Polygons.from_rings([]))


def level_camera(size: int = 100, focal: float = 50.0) -> Camera:
    """Looks along +x from HEIGHT above the rear axle, without pitch."""
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([(0.0, -1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)])
    pose[2, 3] = HEIGHT
    return Camera("LEVEL", size, size, np.array([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]]), pose)


def level_view() -> View:
    return camera_view(level_camera(), np.zeros(3))


def wall(x: float, half: float, tag: Semantic = Semantic.STATIC) -> Paint:
    """A square that faces the level camera, `x` metres ahead, centred on its axis."""
    corners = [(x, half, HEIGHT - half), (x, -half, HEIGHT - half), (x, -half, HEIGHT + half), (x, half, HEIGHT + half)]
    return Paint(np.array([corners]), np.full((1, 3), 200.0), tag)


def raster_solids(paints: list[Paint]):
    return labels(rasterise(level_view(), 1e3, EMPTY, quad_set(paints), EMPTY, EMPTY, int(Semantic.TERRAIN)))


def project(camera: Camera, points_ego: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of points (N, 3)."""
    pose = camera.ego_from_camera
    local = (points_ego - pose[:3, 3]) @ pose[:3, :3]
    return (local @ camera.intrinsics.T)[:, :2] / local[:, 2:]


@pytest.fixture(scope="module")
def road() -> RoadMap:
    return make_road()


@pytest.fixture(scope="module")
def renderer(road) -> SceneRenderer:
    return SceneRenderer(road, scenery=False)


EGO = np.array([5.0, -1.75, 0.0])


def test_a_square_covers_the_computed_pixels_at_its_depth():
    depth, semantic, _ = raster_solids([wall(10.0, 1.0)])  # 50 px / 10 m: 10 px wide around pixel 50
    expected = np.zeros((100, 100), bool)
    expected[45:55, 45:55] = True
    assert np.array_equal(semantic == Semantic.STATIC, expected)
    assert depth[expected] == pytest.approx(10.0, rel=1e-6)


def test_depth_of_a_slanted_face_is_perspective_correct():
    slanted = np.array([[(4.0, 2.0, 0.2), (14.0, -6.0, 0.2), (14.0, -6.0, 4.0), (4.0, 2.0, 4.0)]])
    depth, semantic, _ = raster_solids([Paint(slanted, np.full((1, 3), 90.0), Semantic.STATIC)])
    rows, columns = np.nonzero(semantic == Semantic.STATIC)
    ray_y = -(columns + 0.5 - 50.0) / 50.0  # y per metre ahead; the face is x = 4 + (2 - y) * 10 / 8
    assert len(rows) > 500
    assert depth[rows, columns] == pytest.approx(6.5 / (1.0 + 1.25 * ray_y), rel=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_face_wins_whatever_the_order(order):
    walls = [wall(8.0, 0.5, Semantic.VEHICLE), wall(20.0, 4.0, Semantic.BUILDING)]
    depth, semantic, _ = raster_solids([walls[i] for i in order])
    assert semantic[50, 50] == Semantic.VEHICLE and depth[50, 50] == pytest.approx(8.0)
    assert semantic[50, 42] == Semantic.BUILDING and depth[50, 42] == pytest.approx(20.0)


def test_a_face_seen_from_behind_is_not_drawn():
    turned = wall(10.0, 1.0)
    _, semantic, _ = raster_solids([Paint(turned.vertices[:, ::-1], turned.rgb, turned.semantic)])
    assert not (semantic == Semantic.STATIC).any()


def test_ground_that_runs_behind_the_camera_is_cut_at_the_near_plane():
    strip = np.array([[(-60.0, -2.0), (40.0, -2.0), (40.0, 3.0), (-60.0, 3.0)]])
    ground = quad_set([Paint.flat(strip, (80, 80, 80), Semantic.ROAD)])
    _, semantic, _ = labels(rasterise(level_view(), 1e3, ground, EMPTY, EMPTY, EMPTY, int(Semantic.TERRAIN)))
    rows, columns = np.mgrid[0:100, 0:100] + 0.5
    with np.errstate(divide="ignore"):
        ahead = np.where(rows > 50.0, HEIGHT * 50.0 / (rows - 50.0), np.inf)
    aside = -(columns - 50.0) / 50.0 * np.where(np.isfinite(ahead), ahead, 0.0)
    assert np.array_equal(semantic == Semantic.ROAD, (ahead < 40.0) & (ahead > NEAR) & (aside > -2.0) & (aside < 3.0))


def test_faces_wholly_behind_the_camera_leave_no_trace():
    depth, semantic, _ = raster_solids([wall(-5.0, 3.0), wall(NEAR / 2.0, 3.0)])
    assert set(np.unique(semantic)) == {Semantic.NONE, Semantic.TERRAIN}
    assert np.isinf(depth[:50]).all()


def test_two_triangles_cover_exactly_what_their_quad_covers():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0.0, 2.0 * np.pi, 4))
        radius = rng.uniform(0.5, 4.0)
        corners = np.stack([np.full(4, 10.0), -radius * np.cos(angles), HEIGHT + radius * np.sin(angles)], axis=1)
        _, whole, _ = raster_solids([Paint(corners[None], np.ones((1, 3)), Semantic.STATIC)])
        halves = [Paint(corners[None, [0, k, k + 1, k + 1]], np.ones((1, 3)), Semantic.STATIC) for k in (1, 2)]
        parts = [raster_solids([half])[1] == Semantic.STATIC for half in halves]
        assert np.array_equal(parts[0] | parts[1], whole == Semantic.STATIC)
        assert not (parts[0] & parts[1]).any()


def test_ground_depth_is_the_analytic_one_under_a_pitched_camera(renderer):
    camera = Camera.front(64, 48, 90.0)
    frame = renderer.render(camera, EGO, *NOBODY)
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    rays = (
        np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(camera.intrinsics).T @ camera.ego_from_camera[:3, :3].T
    )
    down = rays[..., 2] < 0.0
    assert frame.depth[down] == pytest.approx(-1.7 / rays[..., 2][down], rel=1e-5)
    assert np.isinf(frame.depth[~down]).all() and (frame.semantic[~down] == Semantic.NONE).all()
    assert (frame.semantic == Semantic.ROAD).mean() > 0.2


@pytest.mark.parametrize(("kind", "size"), [(AgentType.BARRIER, (2.0, 2.5, 1.1)), (AgentType.GENERIC_OBJECT, (1.2, 0.8, 2.0))])
def test_box_corners_of_an_agent_bound_its_mask(renderer, kind, size):
    camera, pose = Camera.front(200, 200), np.array([[17.0, -0.5, 0.6]])
    frame = renderer.render(camera, EGO, pose, np.array([size]), np.array([kind]))
    ring = box_corners(pose, size[0], size[1])[0] - EGO[:2]
    corners = np.vstack([np.column_stack([ring, np.full(4, z)]) for z in (0.0, size[2])])
    pixels = project(camera, corners)
    rows, columns = np.nonzero(frame.semantic == Semantic.STATIC)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert found == pytest.approx([*pixels.min(0), *pixels.max(0)], abs=1.0)
    hull = shapely.MultiPoint(pixels).convex_hull
    centres = np.stack(np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5), -1)
    assert np.array_equal(frame.semantic == Semantic.STATIC, shapely.contains_xy(hull, centres[..., 0], centres[..., 1]))


def test_a_car_stands_on_its_lower_corners_and_reaches_its_height(renderer):
    camera, pose = Camera.front(400, 400), np.array([[20.0, -1.75, 0.0]])
    frame = renderer.render(camera, EGO, pose, CAR, np.array([AgentType.VEHICLE]))
    assert np.array_equal(frame.instance == 1, frame.semantic == Semantic.VEHICLE)
    rear = project(camera, np.array([(15.0 - 2.3, 0.95, 0.0), (15.0 - 2.3, -0.95, 0.0)]))
    roof = project(camera, np.array([(15.0 - 0.36 * 4.6, 0.0, 1.6)]))
    rows, columns = np.nonzero(frame.instance == 1)
    assert (columns.min(), columns.max() + 1) == pytest.approx(rear[:, 0], abs=1.0)
    assert rows.max() + 1 == pytest.approx(rear[0, 1], abs=1.0)
    assert rows.min() == pytest.approx(roof[0, 1], abs=1.0)
    tail = np.array([15.0 - 2.3, 0.0, 0.57 * 1.6])  # the boot's edge is nearest
    nearest = (tail - camera.ego_from_camera[:3, 3]) @ camera.ego_from_camera[:3, 2]
    assert frame.depth[frame.instance == 1].min() == pytest.approx(nearest, rel=0.005)


def test_a_nearer_agent_hides_the_one_behind(renderer):
    poses = np.array([[35.0, -1.75, 0.0], [15.0, -1.75, 0.0]])
    sizes = np.array([[4.6, 1.9, 1.6], [9.0, 2.5, 3.4]])
    frame = renderer.render(Camera.front(), EGO, poses, sizes, np.zeros(2, int))
    assert set(np.unique(frame.instance)) == {0, 2}


def red_share(image: np.ndarray) -> float:
    red = image.astype(int)
    return float(((red[..., 0] > 150) & (red[..., 1] < 70) & (red[..., 2] < 70)).mean())


def test_lamps_show_which_way_a_car_faces(renderer):
    away, towards = (
        renderer.render_rgb(Camera.front(), EGO, np.array([[14.0, -1.75, heading]]), CAR, np.zeros(1, int))
        for heading in (0.0, np.pi)
    )
    assert red_share(away) > 0.002 and red_share(towards) == 0.0


@pytest.mark.parametrize(("state", "channel"), [(0, 0), (2, 1)])
def test_a_signal_shows_its_state_to_the_lane_it_rules(renderer, state, channel):
    lights = np.array([[25.0, -1.75, 0.0, state]])
    camera = Camera.front(224, 224)
    frame = renderer.render(camera, EGO, *NOBODY, lights_world=lights)
    head = frame.rgb[frame.semantic == Semantic.TRAFFIC_LIGHT].astype(int)
    glow = head[head[:, channel] > 200]
    assert len(glow) >= 9 and (glow.argmax(1) == channel).all()
    back = renderer.render(camera, EGO, *NOBODY, lights_world=lights + (0.0, 0.0, np.pi, 0.0))
    assert back.rgb[back.semantic == Semantic.TRAFFIC_LIGHT].max() < 200


def test_paint_lies_where_the_lane_borders_are(renderer, road):
    camera = Camera.front(400, 400)
    frame = renderer.render(camera, EGO, *NOBODY)
    columns, rows = (
        project(camera, np.column_stack([np.full(4, 8.0), [1.75 - 0.16, 1.75, -5.25 + 0.16, -3.0], np.zeros(4)])).astype(int).T
    )
    assert list(frame.semantic[rows, columns]) == [Semantic.LANE_MARKING, Semantic.ROAD, Semantic.LANE_MARKING, Semantic.ROAD]
    yellow, white = frame.rgb[rows[0], columns[0]].astype(int), frame.rgb[rows[2], columns[2]].astype(int)
    assert yellow[0] - yellow[2] > 80 and np.ptp(white) < 20


def paint_at(road: RoadMap, x: float, y: float) -> bool:
    ground = static_scene(road).ground
    painted = ground.vertices[ground.semantic == Semantic.LANE_MARKING][..., :2]
    return bool(shapely.intersects(shapely.polygons(painted), shapely.Point(x, y)).any())


def test_lines_are_dashed_where_a_change_is_allowed_and_solid_elsewhere(road):
    x = np.arange(2.0, 114.0, 0.1)
    share = {y: np.mean([paint_at(road, at, y) for at in x]) for y in (-3.5, 0.16, -0.16, 0.0, -6.84, 3.34)}
    assert share[-3.5] == pytest.approx(3.0 / 8.0, abs=0.02)  # 3 m of paint, 5 m of gap
    assert [share[y] for y in (0.16, -0.16, 0.0, -6.84, 3.34)] == [1.0, 1.0, 0.0, 1.0, 1.0]


def make_connector(name: str, start, end, source: str, target: str) -> Lane:
    """A straight connector between two points."""
    step = np.subtract(end, start)
    points = np.array(start) + np.linspace(0.0, 1.0, 21)[:, None] * step
    across = np.array([-step[1], step[0]]) / np.hypot(*step) * 1.75
    line = np.column_stack([points, np.full(21, np.arctan2(step[1], step[0]))])
    links = {"predecessors": (source,), "successors": (target,), "is_connector": True, "junction": "j", "turn": "straight"}
    return Lane(name, line, points + across, points - across, 13.9, **links)


def test_a_stop_bar_is_painted_only_where_paths_cross():
    into, through = (
        make_lane("in", 0.0, successors=("through",)),
        make_connector("through", (120.0, 0.0), (140.0, 0.0), "in", "out"),
    )
    across = make_connector("across", (130.0, -10.0), (130.0, 10.0), "south", "north")
    merging = make_connector("merging", (120.0, -6.0), (140.0, 0.0), "ramp", "out")
    bars = []
    for name, lanes in (("crossing", (into, through, across)), ("alone", (into, through)), ("merge", (into, through, merging))):
        bars.append(paint_at(RoadMap(name, {lane.id: lane for lane in lanes}, Polygons.from_rings([])), 119.8, 0.0))
    assert bars == [True, False, False]


def test_lines_run_on_where_roads_only_part():
    lanes = [make_connector(f"to{y}", (0.0, y), (20.0, y), f"from{y}", f"to{y}") for y in (0.0, 3.5)]
    lanes.append(make_connector("exit", (0.0, 0.0), (20.0, -4.0), "from0.0", "ramp"))
    road = RoadMap("parting", {lane.id: lane for lane in lanes}, Polygons.from_rings([]))
    x = np.arange(0.5, 19.5, 0.1)
    left, middle, right = (np.mean([paint_at(road, at, y) for at in x]) for y in (5.25 - 0.16, 1.75, -1.75 + 0.16))
    assert left == 1.0 and 0.2 < middle < 0.5  # solid outside, dashed between the two
    assert right < 0.2  # the path to the exit crosses it


def test_two_renders_are_equal_to_the_byte_and_the_fast_path_gives_the_same_colours(road):
    agents = (np.array([[20.0, 1.75, 3.1], [16.0, -6.0, 1.0]]), np.array([[4.6, 1.9, 1.6], [0.6, 0.7, 1.75]]), np.array([0, 1]))
    first, second = (SceneRenderer(make_road()).render(Camera.front(), EGO, *agents) for _ in range(2))
    for name in ("rgb", "depth", "semantic", "instance"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert np.array_equal(SceneRenderer(road).render_rgb(Camera.front(), EGO, *agents), first.rgb)


def test_a_map_far_from_the_origin_looks_the_same(renderer):
    shift = np.array([664_430.0, 3_997_650.0])
    far = SceneRenderer(make_road(tuple(shift)), scenery=False).render(Camera.front(), EGO + (*shift, 0.0), *NOBODY)
    near = renderer.render(Camera.front(), EGO, *NOBODY)
    assert (far.semantic == near.semantic).mean() > 0.999


def test_turning_the_ego_turns_the_picture(renderer):
    pose = np.array([15.0, -1.75, 0.0])
    views = [renderer.render(Camera.front(), EGO + (0.0, 0.0, turn), pose[None], CAR, np.zeros(1, int)) for turn in (-0.2, 0.2)]
    columns = [np.nonzero(view.instance == 1)[1].mean() for view in views]
    assert columns[0] < 45.0 and columns[1] > 67.0  # turned right, the car ahead stands to the left


def test_a_map_of_polygons_alone_is_drawn():
    line = np.column_stack([np.arange(60.0), np.zeros(60), np.zeros(60)])
    bare = Lane("bare", line, line[:, :2], line[:, :2], 13.9)  # borders that a log left out
    ring = np.array([(-5.0, -4.0), (70.0, -4.0), (70.0, 4.0), (-5.0, 4.0)])
    road = RoadMap("log", {"bare": bare}, Polygons.from_rings([("area", Layer.DRIVABLE_AREA, ring)]))
    frame = SceneRenderer(road, scenery=False).render(Camera.front(), np.zeros(3), *NOBODY)
    assert drivable_surface(road).area == pytest.approx(75.0 * 8.0, rel=1e-6)
    assert (frame.semantic == Semantic.ROAD).sum() > 2000
    assert not (frame.semantic == Semantic.LANE_MARKING).any()


def test_quads_of_an_area_with_a_hole_cover_it_once():
    area = shapely.Point(3.0, -7.0).buffer(40.0).difference(shapely.box(-12.0, -12.0, 9.0, 5.0))
    quads = np.array([shapely.Polygon(corners) for corners in area_quads(area)])
    assert shapely.area(quads).sum() == pytest.approx(area.area, rel=0.01)
    points = np.array([shapely.Point(xy) for xy in np.random.default_rng(0).uniform(-50.0, 50.0, (2000, 2))])
    covers = np.bincount(shapely.STRtree(list(quads)).query(points, predicate="intersects")[0], minlength=len(points))
    inside, beyond = shapely.contains(area, points), shapely.distance(area, points) > 0.02
    assert (covers[inside] >= 1).all() and (covers[inside] == 1).mean() > 0.99 and (covers[beyond] == 0).all()


def test_an_empty_map_shows_terrain_and_sky():
    empty = RoadMap("empty", {}, Polygons.from_rings([]))
    frame = SceneRenderer(empty).render(Camera.front(), np.zeros(3), *NOBODY)
    assert set(np.unique(frame.semantic)) == {Semantic.NONE, Semantic.TERRAIN}


def test_scenery_stays_off_the_road(road):
    solids = SceneRenderer(road)._solids
    assert {Semantic.BUILDING, Semantic.VEGETATION} <= set(solids.semantic)
    low = solids.vertices[solids.vertices[..., 2].min(1) < 2.5]  # crowns may reach over the pavement
    surface = static_scene(road).surface
    assert min(surface.distance(shapely.Point(corner[:2])) for corner in low.reshape(-1, 3)[::5]) > 1.0


def test_a_route_is_drawn_on_the_road_as_a_line(renderer):
    path = np.column_stack([np.arange(8.0, 40.0), np.full(32, -1.75)])
    camera = Camera.front(200, 200)
    bare, drawn = (renderer.render_rgb(camera, EGO, *NOBODY, route_path=route).astype(int) for route in (None, path))
    column, row = project(camera, np.array([(10.0, 0.0, 0.0)]))[0].astype(int)
    assert drawn[row, column, 1] > drawn[row, column, 0] + 60
    assert (bare != drawn).any(-1).mean() < 0.1


def test_the_ground_of_a_map_is_kept_as_long_as_the_map(renderer):
    from drive.simulators.static_scene import _SCENES

    gc.collect()
    before = len(_SCENES)
    passing = make_road()
    assert static_scene(passing) is static_scene(passing) and len(_SCENES) == before + 1
    del passing
    gc.collect()
    assert len(_SCENES) == before


def test_arrays_that_do_not_fit_are_refused(renderer):
    with pytest.raises(DataError, match="one per agent"):
        renderer.render_rgb(Camera.front(), EGO, np.zeros((2, 3)), np.ones((1, 3)), np.zeros(2, int))
    sunk = level_camera()
    sunk.ego_from_camera[2, 3] = -0.2
    with pytest.raises(DataError, match="above the ground"):
        renderer.render_rgb(sunk, EGO, *NOBODY)


def test_the_world_frame_of_the_view_is_the_ego_pose():
    view = camera_view(level_camera(), np.array([3.0, 4.0, np.pi / 2]))
    ahead = compose(np.array([3.0, 4.0, np.pi / 2]), np.array([7.0, 0.0, 0.0]))
    assert view.rotation @ (np.array([*ahead[:2], HEIGHT]) - view.position) == pytest.approx([0.0, 0.0, 7.0])
