"""Traffic before lanes that a light closes, on hand-made maps."""

import numpy as np
import pytest
from world_maps import crossing, lane, straight

from drive.core.roadmap import Polygons, RoadMap
from drive.core.seeds import numpy_rng
from drive.simulators.traffic import DT, Traffic
from drive.simulators.traffic_fleet import EXTERNAL, NO_LANE
from drive.simulators.traffic_graph import build_graph, with_signals
from drive.simulators.traffic_junction import CANNOT_STOP

LINE = 200.0  # m along the road


def signalled_road(speed=14.0):
    """A road with a light at LINE, where nothing conflicts."""
    lanes = {
        "before": lane("before", straight((0.0, 0.0), (LINE, 0.0)), speed, successors=("at",)),
        "at": lane("at", straight((LINE, 0.0), (LINE + 20.0, 0.0)), speed, is_connector=True, turn="straight", successors=("after",)),
        "after": lane("after", straight((LINE + 20.0, 0.0), (900.0, 0.0)), speed),
    }
    road_map = RoadMap("lit", lanes, Polygons.from_rings([]))
    graph, index = build_graph(road_map)
    lit = with_signals(graph, np.array([index["at"]]))
    return Traffic(road_map, 0, 8, (lit, index)), index["at"]


def front(traffic, i=0):
    return traffic.fleet.x[i] + traffic.fleet.length[i] / 2.0


def run(traffic, seconds, dt=0.05):
    for _ in range(round(seconds / dt)):
        traffic.step(dt)


def test_red_stops_where_nothing_conflicts_and_green_lets_go():
    traffic, at = signalled_road()
    traffic.add(0, 20.0, 12.0)
    traffic.add(0, 5.0, 10.0)
    traffic.graph.closed[at] = True
    run(traffic, 60.0)
    assert traffic.fleet.speed[0] < 0.05 and LINE - 2.5 < front(traffic) < LINE
    assert traffic.fleet.speed[1] < 0.05 and 1.0 < traffic.fleet.x[0] - traffic.fleet.x[1] - 4.6 < 4.0
    traffic.graph.closed[at] = False
    run(traffic, 15.0)
    assert min(front(traffic), front(traffic, 1)) > LINE + 20.0


def test_an_open_light_costs_no_speed():
    traffic, _ = signalled_road()
    traffic.add(0, 20.0, 13.5)
    slowest = 20.0
    while traffic.fleet.x[0] < LINE + 50.0:
        traffic.step(0.05)
        slowest = min(slowest, traffic.fleet.speed[0])
    assert slowest > 13.0


@pytest.mark.parametrize(("spare", "goes"), [(-2.0, True), (0.7, False)])
def test_at_yellow_who_cannot_stop_goes_on_and_who_can_stops(spare, goes):
    """The line is `spare` m further than the way to stop at CANNOT_STOP."""
    traffic, at = signalled_road()
    speed = 13.0
    s = LINE - 2.3 - speed**2 / (2.0 * CANNOT_STOP) - spare
    traffic.add(0, s, speed)
    traffic.graph.closed[at] = True
    run(traffic, 10.0)
    if goes:
        assert front(traffic) > LINE + 20.0
    else:
        assert front(traffic) < LINE and traffic.fleet.speed[0] < 0.05


def test_a_grant_is_given_back_when_the_light_turns():
    traffic, at = signalled_road()
    i = traffic.add(0, 140.0, 12.0)
    run(traffic, 0.2)
    assert traffic.fleet.granted[i] == at
    traffic.graph.closed[at] = True
    run(traffic, 0.05)
    assert traffic.fleet.granted[i] == NO_LANE and np.isinf(traffic.fleet.asked[i])
    run(traffic, 20.0)
    assert front(traffic) < LINE


def crossing_with_lights():
    road_map = crossing()
    graph, index = build_graph(road_map)
    signalled = np.array([i for name, i in index.items() if name.startswith("c")])
    return road_map, with_signals(graph, signalled), index


def test_who_waits_at_red_does_not_hold_up_who_has_green():
    road_map, graph, index = crossing_with_lights()
    traffic = Traffic(road_map, 0, 4, (graph, index))
    waits, goes = traffic.add(index["in1"], 60.0, 8.0), traffic.add(index["in0"], 10.0, 8.0)
    traffic.set_plan(waits, [index[k] for k in ("in1", "c13", "out3")])
    traffic.set_plan(goes, [index[k] for k in ("in0", "c02", "out2")])
    graph.closed[[i for name, i in index.items() if name.startswith("c1")]] = True
    for _ in range(600):
        traffic.step(0.05)
        if traffic.fleet.plan[goes, 0] == index["out2"]:
            break
    assert traffic.fleet.plan[goes, 0] == index["out2"] and traffic.tick < 500
    assert traffic.fleet.plan[waits, 0] == index["in1"]


@pytest.mark.parametrize("seed", [0, 1])
def test_lights_that_take_turns_let_all_through_and_nobody_enters_at_red(seed):
    """Each arm is green for 8 s, then yellow for 3 s; a front may pass the line only while green, or where it could not stop."""
    road_map, graph, index = crossing_with_lights()
    traffic = Traffic(road_map, seed, 24, (graph, index))
    count = traffic.populate(14, numpy_rng(seed, "test"))
    arm = np.array([int(name[1]) if name.startswith("c") else -1 for name in index])
    through = 0
    fresh = np.zeros(4)  # s since an arm was closed
    for step in range(2400):
        now = step * 0.05
        green = int(now // 11.0) % 4 if now % 11.0 < 8.0 else -1
        fresh = np.where(np.arange(4) == green, 0.0, fresh + 0.05)
        graph.closed[arm >= 0] = arm[arm >= 0] != green
        held = traffic.fleet.need[:count].copy()
        near = traffic.fleet.need_ahead[:count].copy()
        traffic.step(0.05)
        for i in np.flatnonzero((held != NO_LANE) & (traffic.fleet.need[:count] != held) & (near < 1.5)):
            through += 1
            assert fresh[arm[held[i]]] < 3.0, f"vehicle {i} entered {fresh[arm[held[i]]]:.1f} s after yellow"
        assert not len(traffic.overlaps())
    assert count == 14 and through > 15


def test_nothing_closed_is_the_traffic_without_lights_to_the_bit():
    """Every connector of the crossing conflicts, so that lights add no stop line."""
    road_map, graph, index = crossing_with_lights()
    conflicting = np.array([i for i in range(len(graph.length)) if graph.stop[i] == 0.0 and graph.conf_first[i + 1] > graph.conf_first[i]])
    plain, _ = build_graph(road_map)
    runs = []
    for used in (plain, with_signals(plain, conflicting)):
        traffic = Traffic(road_map, 2, 24, (used, index))
        traffic.populate(14, numpy_rng(2, "test"))
        trace = []
        for _ in range(400):
            traffic.step()
            trace.append(np.concatenate([traffic.boxes().ravel(), traffic.fleet.accel]))
        runs.append(np.array(trace))
    assert (runs[0] == runs[1]).all() and not plain.closed.any()


def test_an_ego_that_can_stop_does_not_hold_a_closed_lane():
    road_map, graph, index = crossing_with_lights()
    traffic = Traffic(road_map, 0, 4, (graph, index))
    ego = traffic.add(index["in1"], 95.0, 8.0, mode=EXTERNAL)
    traffic.set_plan(ego, [index[k] for k in ("in1", "c13", "out3")])
    other = traffic.add(index["in0"], 60.0, 10.0)
    traffic.set_plan(other, [index[k] for k in ("in0", "c02", "out2")])
    graph.closed[index["c13"]] = True
    traffic.fleet.speed[ego] = 2.0
    run(traffic, 10.0, DT)
    assert traffic.fleet.granted[ego] == NO_LANE
    assert traffic.fleet.plan[other, 0] == index["out2"]


def test_a_red_light_is_no_reason_to_change_lanes():
    lanes = {
        "a": lane("a", straight((0.0, 0.0), (LINE, 0.0)), 14.0, left_neighbor="b", successors=("ca",)),
        "b": lane("b", straight((0.0, 3.5), (LINE, 3.5)), 14.0, right_neighbor="a", successors=("cb",)),
        "ca": lane("ca", straight((LINE, 0.0), (LINE + 20.0, 0.0)), 14.0, is_connector=True, successors=("oa",)),
        "cb": lane("cb", straight((LINE, 3.5), (LINE + 20.0, 3.5)), 14.0, is_connector=True, successors=("ob",)),
        "oa": lane("oa", straight((LINE + 20.0, 0.0), (600.0, 0.0)), 14.0),
        "ob": lane("ob", straight((LINE + 20.0, 3.5), (600.0, 3.5)), 14.0),
    }
    road_map = RoadMap("two", lanes, Polygons.from_rings([]))
    graph, index = build_graph(road_map)
    lit = with_signals(graph, np.array([index["ca"], index["cb"]]))
    lit.closed[[index["ca"], index["cb"]]] = True
    traffic = Traffic(road_map, 0, 2, (lit, index))
    traffic.add(index["a"], 60.0, 13.0)
    run(traffic, 30.0)
    assert traffic.fleet.plan[0, 0] == index["a"] and front(traffic) < LINE and traffic.fleet.speed[0] < 0.05


def test_a_vehicle_moved_elsewhere_begins_anew():
    traffic, at = signalled_road()
    i = traffic.add(0, 150.0, 12.0, size=(5.0, 2.0))
    traffic.graph.closed[at] = True
    run(traffic, 20.0)
    traffic.move(i, 2, 30.0, 10.0)
    fleet = traffic.fleet
    assert fleet.plan[i, 0] == 2 and fleet.x[i] == pytest.approx(LINE + 50.0) and fleet.length[i] == 5.0
    assert fleet.still[i] == 0.0 and fleet.granted[i] == NO_LANE and fleet.active[i]
