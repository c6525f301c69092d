"""Routes through the embedded towns: every one has room for its scenario, as far as the lanes tell."""

import math
from collections import Counter

import numpy as np
import pytest

from drive.simulators.carla_embedded_routes import FREE_M, PASSED_BESIDE, SCENARIOS, embedded_routes
from drive.simulators.carla_route_plan import plan_route
from drive.simulators.carla_scenario_part import ScenarioSpec
from drive.simulators.carla_scenario_ways import SHORTEST_M, Ways, lane_half
from drive.simulators.carla_scenarios import KINDS, kind_of, specs_on_route
from drive.simulators.routes import route_along
from drive.simulators.towns import load_town
from drive.simulators.traffic_graph import build_graph

LEFT = ("12_0_1", "32_0_-1", "9_0_-1", "51_0_-1")


def ways_of(town):
    road_map = load_town(town)
    return Ways(road_map, *build_graph(road_map))


def test_every_route_of_the_test_split_has_room_for_its_scenario():
    routes = embedded_routes("test").routes
    assert [r.scenarios[0].type if r.scenarios else "" for r in routes] == [SCENARIOS[k % len(SCENARIOS)] for k in range(24)]
    ways = ways_of("test_c")
    for one in routes:
        path = plan_route(ways.road_map, one.keypoints, one.yaw)
        assert 290.0 < path.length < 620.0 and not path.is_connector[path.s < FREE_M - 2.0].any()
        specs, off = specs_on_route(path, one.scenarios)
        assert not off and len(specs) == len(one.scenarios)
        for spec in specs:
            assert KINDS[kind_of(spec.type) or ""].fits(spec, path, ways) is None
            assert 0.2 < spec.trigger_s / path.length < 0.65
            if spec.type in PASSED_BESIDE:
                lane = ways.lane_at(path, spec.trigger_s + 40.0)
                assert lane is not None and lane[0].left_neighbor


def test_towns_without_a_second_lane_get_another_scenario():
    types = Counter(s.type for r in embedded_routes("val", 12).routes for s in r.scenarios)
    assert sum(types.values()) == 9 and types["HardBreakRoute"] >= 1


def test_one_seed_is_one_split():
    first, again, other = embedded_routes("test", 6), embedded_routes("test", 6), embedded_routes("test", 6, seed=1)
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(first.routes, again.routes))
    assert not np.array_equal(first.routes[0].keypoints, other.routes[0].keypoints)


def test_ways_of_a_left_turn_at_lights():
    ways, route = ways_of("urban_a"), route_along(load_town("urban_a"), LEFT)
    begin = float(route.s[np.flatnonzero(route.lane_index == 1)[0]])
    found = ways.crossed(route, begin - 40.0)
    assert found is not None and found[0].id == "32_0_-1" and abs(found[1] - begin) < 1.5
    facing = ways.facing(found[0])
    assert facing and all(lane.turn == "straight" for lane in facing)
    way = ways.through(facing[0])
    assert way is not None and way.approach_m >= SHORTEST_M and ways.index[facing[0].id] in way.lanes
    left = ways.behind_junction(route, begin - 40.0)
    assert left is not None and left - begin == pytest.approx(found[0].length, abs=2.0)
    last = float(route.s[np.flatnonzero(route.lane_index == 3)[0]])
    assert ways.behind_junction(route, last - 40.0) is None  # the route ends in the junction


def test_the_lane_of_the_other_direction_lies_left():
    ways, route = ways_of("urban_a"), route_along(load_town("urban_a"), LEFT)
    found = ways.oncoming(route, 40.0)
    assert found is not None
    lane, s = found
    x, y, heading = ways.pose(route, 40.0)
    there = [float(np.interp(s, lane.s, lane.centerline[:, k])) for k in (0, 1)]
    aside = -math.sin(heading) * (there[0] - x) + math.cos(heading) * (there[1] - y)
    assert aside == pytest.approx(2.0 * lane_half(lane), abs=0.5)
    assert math.cos(float(np.interp(s, lane.s, np.unwrap(lane.centerline[:, 2]))) - heading) < -0.8
    assert ways_of("highway_a").oncoming(route_along(load_town("urban_a"), LEFT), -3.0) is None


def test_plain_road_is_outside_junctions():
    ways, route = ways_of("urban_a"), route_along(load_town("urban_a"), LEFT)
    first = float(route.s[np.flatnonzero(route.is_connector)[0]])
    assert ways.plain(route, first - 30.0, 20.0, (0.0,)) == first - 30.0
    assert ways.plain(route, first - 10.0, 20.0, (0.0,)) is None
    assert ways.plain(route, first - 10.0, 20.0, (0.0, -20.0)) == first - 30.0
    assert ways.plain(route, route.length - 10.0, 8.0, (0.0,)) is None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_kind_fits_behind_the_end_of_a_route(kind):
    ways, route = ways_of("urban_a"), route_along(load_town("urban_a"), LEFT[:3])
    spec = ScenarioSpec("x", kind, route.length - 1.0)
    assert isinstance(KINDS[kind].fits(spec, route, ways), str)
