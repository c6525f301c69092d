"""Dense targets of the vision tower on roads drawn by hand."""

from dataclasses import replace

import numpy as np
import pytest
from planner_scenes import agents, curve, scene, straight

from drive.core.types import AgentType
from drive.datasets.ground import CELL, CELLS, HAZARDS, ROUTE_AT, ground_planes, hazards_ahead, route_offsets
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


def near(*rows, kind: AgentType = AgentType.VEHICLE, size=(4.6, 1.9, 1.6), road=None, pose=(0.0, 0.0, 0.0)) -> dict[str, float]:
    tracks = agents(*rows)
    tracks = replace(tracks, types=np.full(len(tracks), int(kind)), size=np.tile(size, (len(tracks), 1)))
    return dict(zip(HAZARDS, hazards_ahead(scene(road or straight(), 5.0, tracks, pose=pose)).tolist()))


def test_how_near_the_next_car_on_the_route_is():
    assert near((22.3, 0.0, 0.0, 5.0), (40.0, 0.0, 0.0, 5.0)) == pytest.approx({"vehicle": 1.0 - 20.0 / 50.0, "person": 0.0, "barrier": 0.0})
    for place in ((22.3, 3.5, 0.0, 0.0), (-8.0, 0.0, 0.0, 5.0), (70.0, 0.0, 0.0, 5.0)):  # in the next lane, behind, out of sight
        assert near(place)["vehicle"] == 0.0, place
    across = near((22.3, 2.6, np.pi / 2, 0.0))["vehicle"]
    assert across == pytest.approx(1.0 - (22.3 - 0.95) / 50.0), "a car across the road reaches into the lane"


def test_people_beside_the_lane_count_and_cars_beside_it_do_not():
    walker = {"kind": AgentType.PEDESTRIAN, "size": (0.5, 0.5, 1.8)}
    assert near((15.0, 4.0, 0.0, 1.0), **walker)["person"] == pytest.approx(1.0 - 14.75 / 50.0)
    assert near((15.0, 5.0, 0.0, 1.0), **walker)["person"] == 0.0
    assert near((15.0, 4.0, 0.0, 1.0))["vehicle"] == 0.0


def test_hazards_follow_the_bend_of_the_route():
    """After 10 m straight and 60 degrees of a bend of 15 m radius; straight on there would be grass."""
    turned, road = np.pi / 3, curve(15.0, before=10.0)
    bar = {"kind": AgentType.BARRIER, "size": (0.6, 3.2, 1.5), "road": road}
    way = 10.0 + 15.0 * turned
    found = near((10.0 + 15.0 * np.sin(turned), 15.0 * (1.0 - np.cos(turned)), turned, 0.0), **bar)["barrier"]
    assert found == pytest.approx(1.0 - (way - 0.3) / 50.0, abs=0.02)
    assert near((way, 0.0, 0.0, 0.0), **bar)["barrier"] == 0.0


def test_an_empty_road_has_no_hazards():
    assert set(near().values()) == {0.0}
