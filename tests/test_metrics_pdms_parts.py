"""The kernels of the PDM score against SciPy and Shapely, and each bound of comfort from both sides."""

import numpy as np
import pytest
import shapely
from scipy.signal import savgol_filter

from drive.core.geometry import box_corners
from drive.core.roadmap import Layer, Polygons
from drive.core.seeds import numpy_rng
from drive.metrics.pdms_areas import DRIVABLE, INTERSECTION, in_any, pack_areas
from drive.metrics.pdms_comfort import HIGH, LOW, NAMES, comfort_components, comfort_signals
from drive.metrics.pdms_contacts import _bearing, _is_ahead, _is_behind, boxes_meet
from drive.metrics.pdms_judge import project

TIME = 0.1 * np.arange(41)


def states(ax=0.0, ay=0.0, heading=0.0):
    """(1, 41, 11) states of which comfort reads the accelerations and the heading."""
    out = np.zeros((1, 41, 11))
    out[0, :, 5], out[0, :, 6], out[0, :, 2] = ax, ay, heading
    return out


def signal(name, value):
    """States whose signal `name` is `value` throughout, and which are at rest otherwise as far as that can be."""
    if name == "lon_acceleration":
        return states(ax=value)
    if name == "lat_acceleration":
        return states(ay=value)
    if name == "jerk":
        return states(ay=40.0 + value * TIME)
    if name == "lon_jerk":
        return states(ax=value * TIME)
    if name == "yaw_rate":
        return states(heading=(value * TIME + np.pi) % (2 * np.pi) - np.pi)
    return states(heading=0.5 * value * TIME**2)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("bound", [LOW, HIGH])
def test_each_bound_of_comfort_is_strict(index, bound):
    name, limit = NAMES[index], bound[index]
    found = comfort_signals(signal(name, limit))[0, index]
    extreme = (
        found[np.abs(found).argmax()] / limit
    )  # 1 but for jerk, where an even window shifts all but the edges by half a sample
    assert extreme == pytest.approx(1.0507 if "jerk" in name else 1.0, abs=1e-4)
    assert comfort_components(signal(name, 0.999 * limit / extreme))[0, index]
    assert not comfort_components(signal(name, 1.001 * limit / extreme))[0, index]
    if name.endswith("_acceleration") and name != "yaw_acceleration":
        assert not comfort_components(signal(name, limit))[0, index], "the bound itself is out"


def test_filters_equal_scipy_with_its_edges_and_even_windows():
    rng = numpy_rng(0, "comfort")
    ax, ay, heading = rng.normal(0.0, 1.0, (3, 41))
    got = comfort_signals(states(ax, ay, heading))[0]

    def smooth(values, window, order, derivative=0):
        return np.asarray(savgol_filter(values, window, order, deriv=derivative, delta=0.1), float)

    def jerk(acceleration):
        return smooth(np.round(smooth(acceleration, 8, 2), 8), 41, 2, 1)

    want = [
        smooth(ax, 41, 2),
        smooth(ay, 41, 2),
        jerk(np.hypot(ax, ay)),
        jerk(ax),
        smooth(np.unwrap(heading), 5, 3, 2),
        smooth(np.unwrap(heading), 5, 2, 1),
    ]
    np.testing.assert_allclose(got, np.stack(want), atol=1.1e-8)


def test_boxes_meet_as_shapely_says():
    rng = numpy_rng(1, "boxes")
    pose = np.column_stack([rng.uniform(-4, 4, (2000, 2)), rng.uniform(-np.pi, np.pi, 2000)])
    size, heading = rng.uniform(0.1, 5.0, (2000, 2)), rng.uniform(-np.pi, np.pi, 2000)
    first = shapely.polygons(box_corners(np.column_stack([np.zeros((2000, 2)), heading]), 5.0, 2.0))
    second = shapely.polygons(box_corners(pose, size[:, 0], size[:, 1]))
    got = [
        boxes_meet(x, y, np.cos(h), np.sin(h), 2.5, 1.0, np.cos(o), np.sin(o), a / 2, b / 2)
        for (x, y, o), h, (a, b) in zip(pose, heading, size)
    ]
    want = shapely.intersects(first, second)
    assert 0.2 < want.mean() < 0.8
    np.testing.assert_array_equal(got, want)


def star(rng, count):
    """A ring (count, 2) around a random place, with spikes."""
    angle = np.sort(rng.uniform(0.0, 2 * np.pi, count))
    radius = rng.uniform(1.0, 10.0, count)
    return rng.uniform(-3, 3, 2) + (radius * np.array([np.cos(angle), np.sin(angle)])).T * rng.uniform(0.2, 3.0, 2)


def test_points_lie_in_polygons_as_shapely_says():
    rng = numpy_rng(2, "polygons")
    for count in (3, 8, 60):
        ring = star(rng, count)
        areas = pack_areas(Polygons.from_rings([("a", Layer.INTERSECTION, ring)]), np.zeros(1, bool))
        points = np.concatenate([rng.uniform(-15, 15, (500, 2)), ring, ring[:, ::-1]])
        points[:60, 1] = ring[rng.integers(0, count, 60), 1]
        got = [in_any(areas, INTERSECTION, x, y) for x, y in points]
        np.testing.assert_array_equal(got, shapely.contains_xy(shapely.Polygon(ring), points))


def test_borders_and_corners_are_outside():
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [2.0, 1.0], [0.0, 2.0]])
    areas = pack_areas(Polygons.from_rings([("a", Layer.ROADBLOCK, square)]), np.zeros(1, bool))
    on_border = [(2.0, 0.0), (0.0, 1.0), (4.0, 1.0), (3.0, 1.5), *square]
    assert not any(in_any(areas, DRIVABLE, x, y) for x, y in on_border)
    assert in_any(areas, DRIVABLE, 2.0, 0.5)
    assert in_any(areas, DRIVABLE, 1.0, 1.0), "beside the notch, at the height of its vertex"
    assert not in_any(areas, INTERSECTION, 2.0, 0.5)


@pytest.mark.parametrize(
    ("degrees", "ahead", "behind"),
    [(0, True, False), (29, True, False), (31, False, False), (149, False, False), (151, False, True)],
)
def test_ahead_and_behind_are_thirty_degrees_wide(degrees, ahead, behind):
    for sign in (1.0, -1.0):
        angle = np.radians(sign * degrees)
        bearing = _bearing(3.0, 4.0, 1.0, 0.0, 3.0 + 7.0 * np.cos(angle), 4.0 + 7.0 * np.sin(angle))
        assert (_is_ahead(bearing), _is_behind(bearing)) == (ahead, behind)


def test_bearing_beyond_one_is_neither_ahead_nor_behind():
    assert not _is_ahead(np.nextafter(1.0, 2.0))
    assert not _is_behind(np.nextafter(-1.0, -2.0))
    nowhere = _bearing(1.0, 1.0, 1.0, 0.0, 1.0, 1.0)
    assert not (_is_ahead(nowhere) or _is_behind(nowhere))


@pytest.mark.parametrize(
    ("xy", "want"), [((-3.0, 1.0), 0.0), ((4.0, 2.0), 4.0), ((12.0, 3.0), 13.0), ((12.0, 99.0), 20.0), ((5.0, 5.0), 5.0)]
)
def test_arc_length_of_the_nearest_point(xy, want):
    line = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    assert project(line, *xy)[0] == pytest.approx(want)
    assert shapely.LineString(line).project(shapely.Point(xy)) == pytest.approx(want)
