"""Traffic on hand-made maps and in the shipped towns."""

import numpy as np
import pytest
from world_maps import crossing, lane, oval, straight

from drive.core.errors import DataError
from drive.core.roadmap import Polygons, RoadMap
from drive.core.seeds import numpy_rng
from drive.simulators.towns import load_town, town_names
from drive.simulators.traffic import DT, Traffic
from drive.simulators.traffic_fleet import EXTERNAL, PARKED
from drive.simulators.traffic_graph import build_graph
from drive.simulators.traffic_kernels import boxes_overlap


def run(traffic, seconds):
    """Step and return the trace of speeds (T, N)."""
    speeds = []
    for _ in range(round(seconds / DT)):
        traffic.step()
        speeds.append(traffic.fleet.speed[: traffic.count].copy())
    return np.array(speeds)


def one_road(length=400.0, speed=15.0):
    return RoadMap("road", {"a": lane("a", straight((0.0, 0.0), (length, 0.0)), speed)}, Polygons.from_rings([]))


def test_a_free_vehicle_reaches_the_limit_and_no_more():
    traffic = Traffic(one_road(1500.0), 0)
    traffic.add(0, 5.0, 0.0)
    speeds = run(traffic, 60.0)[:, 0]
    assert abs(speeds[-1] - 15.0) < 0.3 and speeds.max() < 15.05


def test_a_follower_stops_behind_a_parked_car():
    traffic = Traffic(one_road(), 0)
    traffic.add(0, 10.0, 12.0)
    traffic.add(0, 150.0, 0.0, mode=PARKED)
    run(traffic, 40.0)
    gap = traffic.fleet.x[1] - traffic.fleet.x[0] - 4.6
    assert traffic.fleet.speed[0] < 0.05 and 1.0 < gap < 4.0


def test_a_follower_keeps_the_idm_distance_at_speed():
    """At equilibrium gap = (s0 + v T) / sqrt(1 - (v / v0)^4)."""
    traffic = Traffic(one_road(3000.0), 0)
    slow, fast = traffic.add(0, 60.0, 8.0), traffic.add(0, 10.0, 8.0)
    traffic.fleet.eager[slow] = 8.0 / 15.0
    run(traffic, 90.0)
    v = traffic.fleet.speed[fast]
    expected = (2.0 + v * traffic.fleet.headway[fast]) / np.sqrt(1.0 - (v / 15.0) ** 4)
    assert v == pytest.approx(8.0, abs=0.15)
    assert traffic.fleet.gap[fast] == pytest.approx(expected, abs=0.5)


def test_the_car_behind_brakes_for_the_ego():
    traffic = Traffic(one_road(), 0)
    traffic.add(0, 100.0, 0.0, mode=EXTERNAL)
    traffic.add(0, 20.0, 12.0)
    run(traffic, 30.0)
    assert traffic.fleet.x[1] < traffic.fleet.x[0] - 5.0 and traffic.fleet.speed[1] < 0.05


def test_a_curve_is_taken_at_comfortable_lateral_acceleration():
    traffic = Traffic(oval(radius=30.0), 0)
    traffic.add(traffic.lane_index["a0"], 20.0, 10.0)
    traffic.fleet.cooldown[0] = 1e9  # stays on the inner lane
    in_curve = []
    for _ in range(600):
        traffic.step()
        if traffic.fleet.plan[0, 0] == traffic.lane_index["a1"]:
            in_curve.append(traffic.fleet.speed[0])
    assert max(in_curve) ** 2 / 30.0 < 3.2 and max(in_curve[30:]) ** 2 / 30.0 < 2.7


def test_vehicles_move_as_cars_do():
    """The rear axle, 0.28 lengths behind the centre, has no speed across the heading."""
    traffic = Traffic(crossing(), 1, 32)
    traffic.populate(10, numpy_rng(1, "test"))
    worst = 0.0
    rear = None
    for _ in range(300):
        traffic.step()
        f, n = traffic.fleet, traffic.count
        now = np.column_stack(
            [f.x[:n] - 0.28 * f.length[:n] * np.cos(f.heading[:n]), f.y[:n] - 0.28 * f.length[:n] * np.sin(f.heading[:n])]
        )
        if rear is not None:
            step = now - rear
            worst = max(worst, np.abs(-np.sin(f.heading[:n]) * step[:, 0] + np.cos(f.heading[:n]) * step[:, 1]).max())
        rear = now
    assert worst < 0.06


def test_lane_change_round_a_parked_car_is_smooth():
    traffic = Traffic(oval(), 0)
    traffic.add(traffic.lane_index["a0"], 10.0, 12.0)
    traffic.add(traffic.lane_index["a0"], 150.0, 0.0, mode=PARKED)
    headings, hit = [], False
    for _ in range(150):
        traffic.step()
        headings.append(traffic.fleet.heading[0])
        hit = hit or len(traffic.overlaps()) > 0
    assert traffic.fleet.plan[0, 0] in (traffic.lane_index["b0"], traffic.lane_index["b1"])
    assert not hit and np.abs(np.diff(headings)).max() < 0.05


def test_an_ending_lane_is_left_before_its_end():
    lanes = {
        "go": lane("go", straight((0.0, 0.0), (300.0, 0.0)), 12.0, left_neighbor="end", successors=("loop",)),
        "end": lane("end", straight((0.0, 3.5), (300.0, 3.5)), 12.0, right_neighbor="go"),
        "loop": lane("loop", straight((300.0, 0.0), (600.0, 0.0)), 12.0, successors=("go",)),
    }
    traffic = Traffic(RoadMap("drop", lanes, Polygons.from_rings([])), 0)
    traffic.add(traffic.lane_index["end"], 20.0, 10.0)
    run(traffic, 22.0)
    assert traffic.fleet.plan[0, 0] == traffic.lane_index["go"] and traffic.fleet.active[0]


def test_a_dead_end_is_the_end_of_the_map():
    traffic = Traffic(one_road(100.0), 0)
    traffic.add(0, 60.0, 15.0)
    run(traffic, 5.0)
    assert not traffic.fleet.active[0]


def test_conflicts_of_a_crossing():
    """Crossing and merging paths conflict; paths from one lane, and right turns opposite each other, do not."""
    graph, index = build_graph(crossing())
    pairs = {
        (a, int(graph.conf_lane[c]))
        for a in range(len(graph.length))
        for c in range(graph.conf_first[a], graph.conf_first[a + 1])
    }

    def conflict(a, b):
        assert ((index[a], index[b]) in pairs) == ((index[b], index[a]) in pairs)
        return (index[a], index[b]) in pairs

    assert conflict("c02", "c13") and conflict("c02", "c32") and conflict("c03", "c13")
    assert not conflict("c02", "c01") and not conflict("c02", "c20") and not conflict("c01", "c23")
    assert np.isinf(graph.stop[index["in0"]]) and graph.stop[index["c02"]] == 0.0


def test_who_comes_from_the_right_goes_first_and_nobody_hits():
    """Arm 1 lies to the right of who comes in by arm 0 (heading west, right is north)."""
    traffic = Traffic(crossing(), 0)
    entered = {}
    for name, way in (("in0", "c02"), ("in1", "c13")):
        i = traffic.add(traffic.lane_index[name], 40.0, 10.0)
        traffic.set_plan(i, [traffic.lane_index[k] for k in (name, way, "out" + way[-1])])
    for step in range(300):
        traffic.step()
        for i in range(2):
            if traffic.graph.connector[traffic.fleet.plan[i, 0]]:
                entered.setdefault(i, step)
        assert len(traffic.overlaps()) == 0
    assert entered[1] < entered[0]


def test_traffic_waits_for_an_ego_that_stands_in_the_junction():
    traffic = Traffic(crossing(), 0)
    ego = traffic.add(traffic.lane_index["c02"], 14.0, 0.0, mode=EXTERNAL)
    other = traffic.add(traffic.lane_index["in1"], 30.0, 10.0)
    traffic.set_plan(other, [traffic.lane_index[k] for k in ("in1", "c13", "out3")])
    run(traffic, 20.0)
    assert traffic.fleet.plan[other, 0] == traffic.lane_index["in1"] and traffic.fleet.speed[other] < 0.1
    traffic.fleet.active[ego] = False
    run(traffic, 10.0)
    assert traffic.fleet.plan[other, 0] != traffic.lane_index["in1"]


def test_a_full_crossing_never_locks_up():
    traffic = Traffic(crossing(), 3, 32)
    count = traffic.populate(16, numpy_rng(3, "test"))
    assert count == 16
    still = 0.0
    for _ in range(1200):
        traffic.step()
        still = max(still, traffic.fleet.still[:count].max())
        assert len(traffic.overlaps()) == 0
    assert still < 40.0


@pytest.mark.parametrize("town", town_names())
def test_two_minutes_in_town_without_a_touch(town):
    traffic = Traffic(load_town(town), 7, 40)
    count = traffic.populate(24, numpy_rng(7, "test"))
    touches, moved = 0, 0.0
    for _ in range(1200):
        traffic.step()
        touches += len(traffic.overlaps())
        moved += traffic.fleet.speed[:count].mean() * DT
    assert count == 24 and touches == 0
    assert traffic.fleet.active[:count].all() and moved > 500.0


def test_one_seed_is_one_traffic():
    def positions(seed):
        traffic = Traffic(load_town("urban_a"), seed, 24)
        traffic.populate(20, numpy_rng(0, "test"))
        run(traffic, 20.0)
        return traffic.boxes()

    assert (positions(1) == positions(1)).all() and (positions(1) != positions(2)).any()


def test_capacity_is_told():
    traffic = Traffic(one_road(), 0, capacity=1)
    traffic.add(0, 10.0, 0.0)
    with pytest.raises(DataError, match="at most 1"):
        traffic.add(0, 50.0, 0.0)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [
        ((4.5, 0.0, 0.0), True),
        ((5.1, 0.0, 0.0), False),
        ((0.0, 2.1, 0.0), False),
        ((3.0, 0.0, np.pi / 2), True),
        ((4.9, 2.6, np.pi / 4), False),
    ],
)
def test_box_overlap(other, overlap):
    first, second = np.array([0.0, 0.0, 0.0, 5.0, 2.0]), np.array([*other, 5.0, 2.0])
    assert boxes_overlap(first, second) == overlap == boxes_overlap(second, first)
