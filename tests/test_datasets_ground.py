"""Dense targets of the vision tower on roads drawn by hand."""

import numpy as np
import pytest
from planner_scenes import agents, curve, scene, straight

from drive.datasets.ground import CELL, CELLS, ROUTE_AT, ground_planes, route_offsets
from drive.simulators.birdseye import BirdsEye


def test_a_vehicle_lies_in_the_cells_where_it_stands():
    one = scene(straight(two_lanes=True), 8.0, agents((21.0, 3.6, 0.0, 5.0)))
    drivable, vehicle = ground_planes(one, BirdsEye(one.road_map))
    assert drivable.shape == (CELLS, CELLS) and drivable.min() >= 0.0 and drivable.max() <= 1.0
    rows, columns = np.nonzero(vehicle > 0.2)
    x, y = CELLS * CELL - (rows + 0.5) * CELL, (CELLS / 2.0 - columns - 0.5) * CELL
    assert x.mean() == pytest.approx(21.0, abs=1.0) and y.mean() == pytest.approx(3.6, abs=1.0)
    assert vehicle.sum() * CELL**2 == pytest.approx(4.6 * 1.9, rel=0.35)
    assert drivable[:, CELLS // 2].mean() > 0.9, "the ego's own lane"
    assert drivable[:, 0].max() == 0.0, "25 m to the left there is no road"


def test_the_route_bends_as_the_road_does():
    ahead = route_offsets(scene(straight(), 5.0, pose=(0.0, 0.5, 0.0)))
    np.testing.assert_allclose(ahead, -0.5, atol=1e-5)
    left = route_offsets(scene(curve(15.0, before=10.0), 5.0))
    assert left.shape == (len(ROUTE_AT),) and abs(left[0]) < 0.1
    assert (np.diff(left[2:6]) > 0.5).all()
    turned = route_offsets(scene(straight(), 5.0, pose=(0.0, 0.0, 0.1)))
    np.testing.assert_allclose(turned, [-at * np.sin(0.1) for at in ROUTE_AT], atol=1e-6)
