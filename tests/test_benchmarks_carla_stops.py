# pyright: reportArgumentType=false
"""What planners that read the ground truth are shown of stop signs, and what scenarios tell the judge."""

from types import SimpleNamespace

import numpy as np
import pytest

from drive.benchmarks.carla_company import Company
from drive.benchmarks.carla_drive import joined, stop_bars
from drive.benchmarks.carla_stops import BAR_M, passes, red_lights, stood, stops_ahead
from drive.core.geometry import relative
from drive.core.types import AgentType
from drive.core.vehicle import VehicleParams
from drive.metrics.carla_infractions import RollOut, Surroundings, judge
from drive.metrics.carla_lanes import LaneIndex
from drive.metrics.carla_records import Infraction
from drive.metrics.carla_scores import Rule
from drive.simulators.carla_scenarios import TIMED, TIMEOUT_S, Emergency, Phase, ScenarioRunner, ScenarioSpec, _Running
from drive.simulators.carla_town import Sign
from drive.simulators.routes import route_along
from drive.simulators.towns import load_town

MIDDLE = 1.4
VEHICLE = VehicleParams(1.85, 3.8, 1.0, 2.85, 1.5)


def states_along(route, places, speeds):
    """States of a car with its rear axle `places` m along a route."""
    rows = []
    for s, v in zip(places, speeds):
        state = np.zeros(11)
        state[:3] = [np.interp(s, route.s, route.path[:, k]) for k in range(3)]
        state[3] = v
        rows.append(state)
    return rows


def on_route(route, at, speed):
    """A simulator with its car's rear axle `at` m along a route."""
    (state,) = states_along(route, [at], [speed])
    index = int(np.argmin(np.hypot(*(route.path[:, :2] - state[:2]).T)))
    return SimpleNamespace(state=state, states=[state], route=route, route_index=index, route_s=at, ego=SimpleNamespace(vehicle=VEHICLE))


def actor_showing(state, left=3.0):
    """A traffic light's actor, yellow for `left` s more."""
    return SimpleNamespace(get_state=lambda: SimpleNamespace(name=state), get_yellow_time=lambda: 3.0, get_elapsed_time=lambda: 3.0 - left)


def approach(places, speeds, shift=0.0):
    """(simulator, town, m along the route of the sign) of a car before the sign at the end of lane 6_0_-1 of test_c."""
    road_map = load_town("test_c")
    route = route_along(road_map, ("6_0_-1", road_map.lanes["6_0_-1"].successors[0]))
    at = road_map.lanes["6_0_-1"].length - 3.3
    trigger = np.array([np.interp(at, route.s, route.path[:, k]) for k in (0, 1)]) + shift
    town = SimpleNamespace(road_map=road_map, signs=(Sign(7, trigger, trigger, np.array([0.9, 1.5])),))
    states = states_along(route, places, speeds)
    index = int(np.argmin(np.hypot(*(route.path[:, :2] - states[-1][:2]).T)))
    simulator = SimpleNamespace(route=route, route_index=index, route_s=places[-1], states=states, ego=SimpleNamespace(vehicle=VEHICLE))
    assert VEHICLE.rear_to_center == pytest.approx(MIDDLE)
    return simulator, town, at


def test_a_bar_stands_behind_the_sign_until_the_car_has_stood_there():
    simulator, town, at = approach([20.0, 25.0], [8.0, 8.0])
    (bar,) = stops_ahead(simulator, town)
    where = np.argmin(np.hypot(*(simulator.route.path[:, :2] - bar[:2]).T))
    assert simulator.route.s[where] == pytest.approx(at + BAR_M, abs=1.0)
    simulator, town, at = approach([20.0, 55.0, 60.0], [8.0, 1.0, 0.3])
    assert len(stops_ahead(simulator, town)) == 1
    simulator, town, at = approach([20.0, 55.0, at - 2.5, at - 2.4], [8.0, 1.0, 0.05, 1.0])
    assert stops_ahead(simulator, town) == []


def test_standing_elsewhere_does_not_count():
    simulator, town, _ = approach([20.0, 40.0, 58.0], [8.0, 0.0, 3.0])
    assert len(stops_ahead(simulator, town)) == 1


def test_signs_behind_and_beside_are_not_meant():
    simulator, town, _ = approach([20.0, 64.0 + 3.3 + 4.0], [8.0, 8.0])
    assert stops_ahead(simulator, town) == []
    simulator, town, _ = approach([20.0, 25.0], [8.0, 8.0], shift=6.0)
    assert stops_ahead(simulator, town) == []


def test_stood_looks_back_no_further_than_the_way_here():
    route = route_along(load_town("test_c"), ("6_0_-1",))
    trigger = route.path[60, :2]
    there = route.s[60] - MIDDLE
    assert stood(states_along(route, [there - 3.0, there], [0.0, 2.0]), MIDDLE, trigger)
    assert not stood(states_along(route, [there, there - 20.0, there], [0.0, 5.0, 2.0]), MIDDLE, trigger)
    assert not stood(states_along(route, [there], [0.5]), MIDDLE, trigger)


def company_of(runner, count=1):
    fleet = SimpleNamespace(x=np.zeros(count), y=np.zeros(count), heading=np.zeros(count))
    return Company(SimpleNamespace(traffic=SimpleNamespace(fleet=fleet)), runner, SimpleNamespace()), fleet  # type: ignore[arg-type]


def verdict(company, x):
    """The judge's on a straight drive with the box at `x` (T,)."""
    road_map = load_town("test_c")
    lane = max((k for k in road_map.lanes.values() if not k.is_connector), key=lambda k: k.length)
    route = route_along(road_map, (lane.id,))
    poses = np.column_stack([np.interp(x, route.s, np.unwrap(route.path[:, 2]) if k == 2 else route.path[:, k]) for k in range(3)])
    n = len(x)
    rollout = RollOut(0.05 * np.arange(n), poses, np.full((n, 2), 3.0), 2.4, np.full(n, 15.0), np.full(n, np.nan), **company.told())
    return judge(rollout, route.path, Surroundings(LaneIndex(road_map.lanes.values())), Rule.LEADERBOARD_2_1), poses


@pytest.mark.parametrize(("ahead", "events"), [(-12.0, 1), (12.0, 0)])
def test_an_emergency_vehicle_that_stays_behind_is_an_infraction(ahead, events):
    runner = ScenarioRunner([], 0)
    company, fleet = company_of(runner)
    x = 2.0 + 0.1 * np.arange(60)
    _, poses = verdict(SimpleNamespace(told=dict), x)
    for t in range(60):
        if t == 10:
            runner.emergencies.append(Emergency(0))
        if t == 40:
            runner.emergencies[0].going = False
        c, s = np.cos(poses[t, 2]), np.sin(poses[t, 2])
        fleet.x[0], fleet.y[0], fleet.heading[0] = poses[t, 0] + ahead * c, poses[t, 1] + ahead * s, poses[t, 2]
        assert company.note()
    ((rows, last),) = company.told()["emergencies"]
    assert last == 39 and np.isnan(rows[:10]).all() and np.isfinite(rows[10:40]).all() and np.isnan(rows[40:]).all()
    found = [e for e in verdict(company, x)[0].events if e.kind is Infraction.YIELD]
    assert len(found) == events and all(e.tick == 39 for e in found)


def test_a_scenario_that_times_out_is_an_infraction_and_blocking_is_not_watched_meanwhile():
    runner = ScenarioRunner([ScenarioSpec("a", "ParkedObstacleTwoWays", 10.0), ScenarioSpec("b", "HardBreakRoute", 20.0)], 0)
    company, _ = company_of(runner)
    first, second = runner._all
    assert company.note()
    first.phase = second.phase = Phase.RUNNING
    assert not company.note()
    first.phase, runner.timeouts = Phase.ENDED, 1
    assert company.note() and company.note()
    told = company.told()
    assert told["blocking_watched"].tolist() == [True, False, True, True] == told["side_watched"].tolist()
    assert told["scenario_timeouts"] == (2,)
    found = [e for e in verdict(company, np.array([2.0, 2.2, 2.4, 2.6]))[0].events if e.kind is Infraction.SCENARIO_TIMEOUT]
    assert [e.tick for e in found] == [2]


class Slow:
    """A part that never ends by itself."""

    emergency, seconds, closed = None, 0.0, 0

    def over(self, ego):
        return False

    def close(self):
        self.closed += 1
        return ["undo"]


def test_the_official_time_of_a_scenario():
    assert TIMEOUT_S == 240.0 and "ParkedObstacle" in TIMED and "BlockedIntersection" in TIMED and "HardBreakRoute" not in TIMED
    for kind, ends in (("BlockedIntersection", True), ("DynamicObjectCrossing", False)):
        runner, part = ScenarioRunner([], 0), Slow()
        item = _Running(ScenarioSpec("a", kind, 1.0), Phase.RUNNING, part, SimpleNamespace(close=lambda: ["away"]))  # type: ignore[arg-type]
        part.seconds = 240.0
        assert runner._end(item, None) == [] and runner.timeouts == 0  # type: ignore[arg-type]
        part.seconds = 240.05
        assert runner._end(item, None) == (["undo", "away"] if ends else [])  # type: ignore[arg-type]
        assert runner.timeouts == ends and part.closed == ends
        assert [e.why for e in runner.events] == (["timed out"] if ends else [])


def two_lanes_before_a_junction():
    """(town's map, route, lane beside the route's first) where two lanes of one direction end at a junction."""
    road_map = load_town("urban_a")
    for lane in road_map.lanes.values():
        beside = road_map.lanes.get(lane.left_neighbor or lane.right_neighbor)
        if beside is not None and lane.length > 40.0 and lane.successors and road_map.lanes[lane.successors[0]].is_connector:
            return road_map, route_along(road_map, (lane.id, lane.successors[0])), lane, beside
    raise AssertionError("no such road")


def test_a_red_light_bars_the_lane_beside_the_route_too():
    """The expert went around a bar in its own lane as around a parked car, and over the stop line beside it."""
    road_map, route, lane, beside = two_lanes_before_a_junction()
    (elsewhere,) = [k for k in road_map.lanes.values() if k.roadblock != lane.roadblock and not k.is_connector and k.length > 40.0][:1]

    def light(state, *lanes):
        stops = np.stack([k.centerline[-1] for k in lanes])
        return SimpleNamespace(actor=actor_showing(state), lanes=tuple(k.id for k in lanes), stops=stops)

    far = on_route(route, lane.length - 35.0, 8.0)
    for one in ((light("Red", lane, beside),), (light("Yellow", lane), light("Red", beside))):
        town = SimpleNamespace(road_map=road_map, lights=(*one, light("Red", elsewhere)))
        np.testing.assert_array_equal(np.stack(red_lights(far, town, route.lane_ids)), [lane.centerline[-1], beside.centerline[-1]])
    town = SimpleNamespace(road_map=road_map, lights=(light("Green", lane), light("Red", beside)))
    np.testing.assert_array_equal(np.stack(red_lights(far, town, route.lane_ids)), [beside.centerline[-1]])


@pytest.mark.parametrize(
    ("ahead", "speed", "left", "stops"),
    [(30.0, 8.0, 3.0, True), (15.0, 8.0, 3.0, True), (14.0, 8.0, 3.0, False), (14.0, 8.0, 1.5, True), (8.0, 7.1, 3.0, False), (0.5, 0.0, 3.0, True), (-1.0, 4.0, 1.0, False), (49.0, 22.0, 3.0, False), (50.0, 22.0, 3.0, True)],
)
def test_a_yellow_light_is_passed_by_who_can_stop_no_more_and_is_over_in_time(ahead, speed, left, stops):
    """8 m/s want 8^2 / (2 * 3) + 4 = 14.7 m; 22 m/s want 91.7 m, and have their tail over the line half a second before the red from 49.2 m."""
    road_map, route, lane, _ = two_lanes_before_a_junction()
    light = SimpleNamespace(actor=actor_showing("Yellow", left), lanes=(lane.id,), stops=lane.centerline[-1:])
    town = SimpleNamespace(road_map=road_map, lights=(light,))
    simulator = on_route(route, lane.length - ahead - VEHICLE.front_length, speed)
    assert len(red_lights(simulator, town, route.lane_ids)) == int(stops)
    light.actor = actor_showing("Red")
    assert len(red_lights(simulator, town, route.lane_ids)) == 1


@pytest.mark.parametrize("speed", [5.0, 8.0, 11.0, 14.0, 17.0, 20.0, 25.0])
def test_who_heeds_a_yellow_light_never_crosses_it_red_for_having_changed_its_mind(speed):
    """Told to stop, it brakes, at 3 m/s^2 or as hard as it must up to 6, and is told so to the end; told to go on, it is over in time."""
    _, route, lane, _ = two_lanes_before_a_junction()
    end = lane.centerline[-1]
    for ahead in np.arange(0.5, min(speed**2 / 4.0 + 10.0, lane.length - 5.0), 0.5):
        gap, v, told = float(ahead), speed, []
        for tick in range(30):
            if gap < 0.0 and not told[-1]:
                break
            told.append(passes(on_route(route, lane.length - gap - VEHICLE.front_length, v), end, 3.0 - 0.1 * tick))
            brake = 0.0 if told[-1] else min(max(v * v / (2.0 * gap), 3.0), 6.0)
            gap, v = gap - max(v * 0.1 - 0.005 * brake, 0.0), max(v - 0.1 * brake, 0.0)
        assert len(set(told)) == 1, (ahead, told)
        assert not told[0] or gap < -VEHICLE.length - 1.0, "its tail is over before the red"


def test_a_stop_sign_bars_the_lane_beside_the_route_too():
    road_map, route, lane, beside = two_lanes_before_a_junction()
    at = lane.length - 3.3
    trigger = np.array([np.interp(at, route.s, route.path[:, k]) for k in (0, 1)])
    states = states_along(route, [at - 30.0], [8.0])
    index = int(np.argmin(np.hypot(*(route.path[:, :2] - states[-1][:2]).T)))
    ego = SimpleNamespace(vehicle=VEHICLE)
    simulator = SimpleNamespace(route=route, route_index=index, route_s=at - 30.0, states=states, ego=ego)
    town = SimpleNamespace(road_map=road_map, signs=(Sign(7, trigger, trigger, np.array([0.9, 1.5])),))
    own, other = stops_ahead(simulator, town)
    gap = np.hypot(*(lane.centerline[-1] - beside.centerline[-1])[:2])
    assert np.hypot(*(own - other)[:2]) == pytest.approx(gap, abs=0.3)
    toward = beside.centerline[-1, :2] - lane.centerline[-1, :2]
    assert float((other - own)[:2] @ toward) > 0.0


def test_a_bar_is_one_box_named_by_its_place():
    """A recorded drive knows it again at the next step, and a line that two lights rule has one."""
    road_map, route, lane, beside = two_lanes_before_a_junction()
    actor = actor_showing("Red")
    both = np.stack([lane.centerline[-1], beside.centerline[-1]])
    twice = tuple(SimpleNamespace(actor=actor, lanes=(lane.id, beside.id), stops=both) for _ in range(2))
    simulator = on_route(route, lane.length - 30.0, 8.0)
    bars = stop_bars(simulator, SimpleNamespace(road_map=road_map, lights=twice, signs=()), route.lane_ids)
    assert len(set(bars.ids)) == len(bars) == 2 and set(bars.types.tolist()) == {int(AgentType.BARRIER)} and bars.valid.all()
    ahead = relative(both[0], bars.poses_world[0, 0])
    assert ahead[0] == pytest.approx(0.6) and ahead[1] == pytest.approx(0.0, abs=1e-9)  # behind the line, so that a car stops before it
    alone = stop_bars(simulator, SimpleNamespace(road_map=road_map, lights=(), signs=()), route.lane_ids)
    assert len(alone) == 0 and len(joined(alone, bars)) == 2 and joined(bars, alone).ids == bars.ids
    later = on_route(route, lane.length - 20.0, 6.0)
    assert stop_bars(later, SimpleNamespace(road_map=road_map, lights=twice[:1], signs=()), route.lane_ids).ids == bars.ids
    names = set()
    for past in (-20.0, -2.0, 0.5, 2.0, 3.5):  # m from the sign's trigger, at which the car never stands
        simulator, town, at = approach([20.0], [8.0])
        seen = on_route(simulator.route, at + past - MIDDLE, 5.0)
        names |= set(stop_bars(seen, SimpleNamespace(road_map=town.road_map, lights=(), signs=town.signs), seen.route.lane_ids).ids)
    assert len(names) == 1
