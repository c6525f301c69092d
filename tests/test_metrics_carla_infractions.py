"""The leaderboard's criteria on small roll-outs of known answer: a straight road along x, a car, and one thing that goes wrong."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from world_maps import WIDTH, crossing, lane, straight

from drive.core.errors import DataError
from drive.core.geometry import wrap_angle
from drive.metrics import carla_progress
from drive.metrics.carla_contacts import Contact, Others, box_contacts, collisions, kind_of
from drive.metrics.carla_infractions import RollOut, Surroundings, judge
from drive.metrics.carla_lanes import LaneIndex, outside_lanes, wrong_lane
from drive.metrics.carla_progress import Blocked, Ending, RouteTimeout, completion, slow_checkpoints, way_outside
from drive.metrics.carla_records import Failure, Infraction
from drive.metrics.carla_scores import Rule, record_of
from drive.metrics.carla_signs import StopSign, TrafficLight, not_yielded, red_lights, stop_lines, stop_signs
from drive.simulators.opendrive import load_map

K = Infraction
DT = 0.05


def road(length):
    """(length + 1, 3) path along x, 1 m apart."""
    return np.column_stack([np.arange(length + 1.0), np.zeros(length + 1), np.zeros(length + 1)])


def drive(start, end, speed, y=0.0):
    """(T, 3) poses along x at 20 Hz."""
    x = np.arange(start, end, speed * DT)
    return np.column_stack([x, np.full(len(x), y), np.zeros(len(x))])


def clock(ticks):
    """(ticks,) s"""
    return np.linspace(0.0, DT * (ticks - 1), ticks)


def two_way(length=200):
    """Lane `east` along x, `west` beside it on the left against it."""
    east = lane("1_0_-1", straight((0, 0), (length, 0)))
    return [east, lane("1_0_1", straight((length, WIDTH), (0, WIDTH)))]


def rollout(poses, speed=10.0, **more):
    count = len(poses)
    velocities = speed * np.column_stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])])
    fields = {"speed_limits": np.full(count, 10.0), "traffic": np.full(count, np.nan)}
    return RollOut(clock(count), poses, velocities, 2.4, **{**fields, **more})


AROUND = Surroundings(LaneIndex(two_way()))


def kinds(verdict):
    return [event.kind for event in verdict.events]


def test_completion():
    path = road(100)
    done = completion(path, drive(0.0, 120.0, 10.0))
    assert done[0] == 0.0 and np.all(np.diff(done) >= 0.0)
    assert done[np.flatnonzero(drive(0.0, 120.0, 10.0)[:, 0] == 50.5)[0]] == 50.0
    first = np.flatnonzero(done == 100.0)[0]
    assert 99.9 < drive(0.0, 120.0, 10.0)[first, 0] < 100.6  # beyond 99 %: the point at 100 m has been passed
    assert completion(road(1000), drive(0.0, 992.0, 10.0))[-1] == 100.0  # 99.1 % and 8 m before the end
    assert completion(road(1000), drive(0.0, 990.7, 10.0))[-1] == 99.0  # not beyond
    assert completion(path, np.array([[60.0, 0.0]]))[-1] == 2.0  # a leap: two points a tick
    assert completion(path, np.array([[-5.0, 0.0]]))[-1] == 0.0
    beside = drive(0.0, 120.0, 10.0, y=12.0)  # passes all points, is never near the end, but shows 100 by rounding
    assert completion(path, beside)[-1] == 100.0
    with pytest.raises(DataError, match="two finite poses"):
        carla_progress.Path(np.zeros((1, 3)))


def test_route_deviation():
    path = road(400)
    away = drive(0.0, 50.0, 10.0)
    away = np.vstack([away, np.column_stack([np.full(80, 50.0), 0.5 * np.arange(80), np.zeros(80)])])
    verdict = judge(rollout(away), path, AROUND, Rule.LEADERBOARD_2_0)
    assert verdict.ending is Ending.DEVIATION and K.DEVIATION in kinds(verdict)
    hit = next(e for e in verdict.events if e.kind is K.DEVIATION)
    assert away[hit.tick, 1] == 30.0 and hit.message == "Agent deviated from the route at (x=50.0, y=-30.0, z=0.0)"
    assert verdict.ticks == hit.tick + 1
    # 20 m beside the route: allowed for 30 % of its length
    beside = judge(rollout(drive(0.0, 400.0, 10.0, y=20.0)), path, AROUND, Rule.LEADERBOARD_2_0)
    assert beside.ending is Ending.DEVIATION and beside.ticks * 0.5 == pytest.approx(0.3 * 400.0, abs=3.0)
    near = judge(rollout(drive(0.0, 400.0, 10.0, y=14.0)), path, AROUND, Rule.LEADERBOARD_2_0)
    assert near.ending is None and K.DEVIATION not in kinds(near)


def test_blocked():
    still = Blocked(60.0)
    assert next(t for t in range(200) if still.step(float(t), 0.0)) == 61
    once = Blocked(60.0)
    assert not any(once.step(float(t), 0.09 if t != 50 else 0.1) for t in range(111))
    assert once.step(111.0, 0.0)
    waiting = Blocked(60.0)
    assert not any(waiting.step(float(t), 0.0, watched=t >= 100) for t in range(160))
    assert waiting.step(161.0, 0.0)
    still = np.tile([[5.0, 0.0, 0.0]], (20 * 190, 1))
    for rule, limit in ((Rule.BENCH2DRIVE, 60.0), (Rule.LEADERBOARD_2_1, 180.0)):
        verdict = judge(rollout(still, speed=0.0), road(100), AROUND, rule)
        assert verdict.ending is Ending.BLOCKED and verdict.ticks * DT == pytest.approx(limit, abs=0.2)
        assert kinds(verdict) == [K.BLOCKED] and "x=5.0, y=-0.0" in verdict.events[0].message
    off = rollout(still, speed=0.0, blocking_watched=np.zeros(len(still), bool))
    assert judge(off, road(100), AROUND, Rule.BENCH2DRIVE).ending is None


def test_tick_limit_is_bench2drives_alone():
    creeping = drive(0.0, 60.0, 0.25)[:4100]
    verdict = judge(rollout(creeping, 0.25), road(100), AROUND, Rule.BENCH2DRIVE)
    assert verdict.ending is Ending.TICKS and verdict.ticks == 4000 and verdict.failure is Failure.TICKS
    assert record_of("RouteScenario_1_rep0", verdict.events, verdict.completion, Rule.BENCH2DRIVE, failure=verdict.failure).status == (
        "Failed - TickRuntime"
    )
    other = judge(rollout(creeping, 0.25), road(100), AROUND, Rule.LEADERBOARD_2_0)
    assert other.ending is None and other.ticks == 4100 and other.failure is None


def test_route_timeout():
    """300 s, and a second for each metre at a limit of 10 m/s."""
    half = RouteTimeout(carla_progress.Path(road(100)))
    assert not any(half.step(float(t), min(0.5 * t, 50.25), 0.0, 10.0) for t in range(351))
    assert half.step(351.0, 50.25, 0.0, 10.0)
    slow = RouteTimeout(carla_progress.Path(road(100)))
    assert not slow.step(7.0, 0.0, 0.0, 10.0) and not slow.step(307.0, 0.0, 0.0, 10.0) and slow.step(307.1, 0.0, 0.0, 10.0)
    times = np.arange(400.0)
    creeping = RollOut(
        times, np.column_stack([0.1 * times, np.zeros(400), np.zeros(400)]), np.full((400, 2), 0.1), 2.0, np.full(400, 10.0), np.full(400, np.nan)
    )
    verdict = judge(creeping, road(100), AROUND, Rule.LEADERBOARD_2_0)
    assert verdict.ending is Ending.ROUTE_TIMEOUT and kinds(verdict) == [K.ROUTE_TIMEOUT] and 330 < verdict.ticks < 340


@pytest.mark.parametrize(
    ("type_id", "kind"),
    [
        ("vehicle.audi.tt", K.VEHICLE),
        ("walker.pedestrian.0004", K.PEDESTRIAN),
        ("static.prop.streetbarrier", K.STATIC),
        ("static.road", K.STATIC),
        ("traffic.traffic_light", K.STATIC),
        ("static.sidewalk", None),
        ("controller.ai.walker", K.PEDESTRIAN),
        ("spectator", None),
    ],
)
def test_kinds_of_collision(type_id, kind):
    assert kind_of(type_id) is kind
    times, poses = clock(10), drive(0.0, 5.0, 10.0)
    events = collisions(times, poses, np.full(10, 10.0), [Contact(4, 7, type_id)])
    assert [e.kind for e in events] == ([] if kind is None else [kind])
    if kind:
        assert events[0].message == f"Agent collided against object with type={type_id} and id=7 at (x=2.0, y=-0.0, z=0.0)"


def test_which_contacts_count():
    times, car = np.arange(20.0), "vehicle.audi.tt"

    def ticks(positions, contacts, speeds=None):
        rows = np.column_stack([positions, np.zeros(20), np.zeros(20)])
        return [e.tick for e in collisions(times, rows, np.full(20, 3.0) if speeds is None else speeds, contacts)]

    here, moving = np.zeros(20), 3.0 * np.arange(20)
    assert ticks(here, [Contact(t, t + 1, car) for t in range(20)]) == [0]  # all within 5 m of the first
    assert ticks(moving, [Contact(t, t + 1, car) for t in range(20)]) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]  # 6 m on, other actors
    assert ticks(moving, [Contact(t, 9, car) for t in range(20)]) == [0, 6, 12, 18]  # the same actor: more than 5 s later
    assert ticks(moving, [Contact(t, 0, "static.road") for t in range(5)]) == [0, 2, 4]  # the town has id 0 and is never the same
    stands = np.where(np.arange(20) < 3, 0.09, 0.1)
    assert ticks(here, [Contact(t, 9, car) for t in range(20)], stands) == [3]  # not its fault while it stands
    away = np.zeros(20)
    away[5:8] = 6.0
    assert ticks(away, [Contact(0, 1, car), Contact(10, 2, car)]) == [0, 10]  # having been away, the place is new
    assert ticks(here, [Contact(0, 1, "static.sidewalk"), Contact(1, 2, car)]) == []  # hides what follows
    assert ticks(here, []) == []


def test_contacts_of_boxes():
    poses = drive(0.0, 20.0, 10.0)
    count = len(poses)
    fixed = np.tile([[[10.0, 1.9, np.pi / 2], [10.0, -3.0, 0.0], [np.nan] * 3]], (count, 1, 1))
    others = Others((4, 5, 6), ("vehicle.a", "walker.b", "static.c"), fixed, np.array([[1.0, 2.0], [0.5, 0.5], [1.0, 1.0]]))
    found = box_contacts(poses, (2.0, 1.0), others)
    assert {c.actor_id for c in found} == {4}  # the walker is 1.5 m off, the third is absent
    assert [poses[c.tick, 0] for c in (found[0], found[-1])] == [6.0, 14.0]  # 2 m half length against 2 m half width, turned
    corner = np.tile([[[10.0, 3.3, np.pi / 4]]], (count, 1, 1))  # its corner would reach, its side does not
    tilted = Others((4,), ("vehicle.a",), corner, np.array([[2.0, 1.0]]))
    touched = [poses[c.tick, 0] for c in box_contacts(poses, (2.0, 1.0), tilted)]
    assert not touched  # sqrt(2)/2 * 3 = 2.12 m down from 3.3 m is above the side at 1 m
    lower = replace(tilted, poses=corner - [0.0, 0.2, 0.0])
    assert box_contacts(poses, (2.0, 1.0), lower) and all(7.0 < poses[c.tick, 0] < 12.0 for c in box_contacts(poses, (2.0, 1.0), lower))
    with pytest.raises(DataError, match="1 actors"):
        Others((4,), (), corner, np.zeros((1, 2)))


LIGHT = TrafficLight(21, np.array([60.0, 8.0]), np.array([48.0, 0.0]), np.array([[50.0, 0.0, 0.0]]))


def test_red_light():
    index, poses = LaneIndex(two_way()), drive(30.0, 80.0, 10.0)
    red = np.ones((len(poses), 1), bool)
    events = red_lights(poses, 2.4, (LIGHT,), red, index)
    assert [e.kind for e in events] == [K.RED_LIGHT] and events[0].message == "Agent ran a red light 21 at (x=60.0, y=-8.0, z=0.0)"
    # the tail begins 0.8 * 2.4 m behind the centre
    assert poses[events[0].tick, 0] - 0.8 * 2.4 >= 50.0 > poses[events[0].tick - 1, 0] - 0.8 * 2.4
    assert not red_lights(poses, 2.4, (LIGHT,), ~red, index)
    late = poses[:, 0] > 50.0 + 2.4 + 1.01  # red only when the whole tail is across
    assert not red_lights(poses, 2.4, (LIGHT,), late[:, None], index)
    assert len(red_lights(poses, 2.4, (LIGHT,), (poses[:, 0] > 52.5)[:, None], index)) == 1  # still within the tail
    assert not red_lights(poses + [0.0, WIDTH, 0.0], 2.4, (LIGHT,), red, index)  # the other lane
    assert not red_lights(poses[::-1] + [0.0, 0.0, np.pi], 2.4, (LIGHT,), red, index)  # against the line
    assert not red_lights(poses, 2.4, (replace(LIGHT, trigger=np.array([30.0, 0.0])),), red, index)  # its box is 15 m away
    edge = red_lights(poses + [0.0, 0.55 * WIDTH, 0.0], 2.4, (LIGHT,), red, LaneIndex(two_way()[:1]))
    assert len(edge) == 1  # 0.6 of the width to each side
    assert not red_lights(poses + [0.0, 0.65 * WIDTH, 0.0], 2.4, (LIGHT,), red, LaneIndex(two_way()[:1]))
    with pytest.raises(DataError, match="1 lights"):
        red_lights(poses, 2.4, (LIGHT,), red[:-1], index)


def test_the_same_red_light_counts_again_only_after_another():
    index, poses = LaneIndex(two_way()), drive(30.0, 80.0, 10.0)
    twice = np.vstack([poses, poses])
    other = TrafficLight(22, np.array([70.0, 8.0]), np.array([65.0, 0.0]), np.array([[66.0, 0.0, 0.0]]))
    assert len(red_lights(twice, 2.4, (LIGHT,), np.ones((len(twice), 1), bool), index)) == 1
    both = red_lights(twice, 2.4, (LIGHT, other), np.ones((len(twice), 2), bool), index)
    assert [e.message.split()[5] for e in both] == ["21", "22", "21", "22"]


def test_stop_lines_of_a_light():
    """A trigger volume across both lanes of a street, 10 m before their ends: one stop line for each, at its junction."""
    near = lane("1_0_-1", straight((0, 0), (40, 0)), successors=("1_1_-1",))
    last = lane("1_1_-1", straight((40, 0), (60, 0)), successors=("9_0_-1",))
    through = lane("9_0_-1", straight((60, 0), (80, 0)), is_connector=True)
    side = lane("1_0_-2", straight((0, -WIDTH), (60, -WIDTH)))
    index = LaneIndex([near, last, through, side])
    stops = stop_lines(np.array([30.0, -WIDTH / 2.0]), np.pi / 2.0, 3.0, index)
    np.testing.assert_allclose(stops, [[60.0, -WIDTH, 0.0], [60.0, 0.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(stop_lines(np.array([70.2, 0.0]), np.pi / 2.0, 0.5, index), [[70.2, 0.0, 0.0]], atol=1e-6)
    assert stop_lines(np.array([30.0, 0.0]), 0.0, 0.0, index).shape == (0, 3)


SIGN = StopSign(5, np.array([50.0, -4.0]), np.array([50.0, 0.0]), np.array([1.0, 1.0]))


def test_stop_sign():
    index, poses = LaneIndex(two_way()), drive(30.0, 80.0, 10.0)
    fast = np.tile([10.0, 0.0], (len(poses), 1))
    events = stop_signs(poses, fast, (SIGN,), index)
    assert [e.kind for e in events] == [K.STOP_SIGN] and events[0].message == "Agent ran a stop with id=5 at (x=50.0, y=4.0, z=0.0)"
    assert 51.2 <= poses[events[0].tick, 0] <= 51.7  # behind 1.2 times the half extent
    stops = np.where(np.isclose(poses[:, :1], 49.0), 0.0, fast)
    assert not stop_signs(poses, stops, (SIGN,), index)
    early = np.where(np.isclose(poses[:, :1], 45.0), 0.0, fast)  # 5 m before its centre: not in its reach
    assert len(stop_signs(poses, early, (SIGN,), index)) == 1
    assert len(stop_signs(np.vstack([poses, poses]), np.vstack([fast, fast]), (SIGN,), index)) == 1  # once in a row
    assert not stop_signs(poses, -fast, (SIGN,), index)  # backwards
    assert not stop_signs(poses + [0.0, 0.0, np.pi], -fast, (SIGN,), index)  # against its lane
    assert not stop_signs(poses + [0.0, WIDTH, 0.0], fast, (SIGN,), index)  # the other lane
    assert not stop_signs(poses[:35], fast[:35], (SIGN,), index)  # still before it
    assert stop_signs(poses, fast, (), index) == []


def test_outside_lanes():
    driving = LaneIndex(two_way())
    y = np.array([0.0, -WIDTH / 2 - 0.49, -WIDTH / 2 - 0.51, WIDTH, 1.5 * WIDTH + 0.49, 1.5 * WIDTH + 0.51])
    places = np.column_stack([np.full(6, 77.3), y, np.zeros(6)])
    assert outside_lanes(places, driving, None).tolist() == [False, False, True, False, False, True]
    parking = LaneIndex([lane("p", straight((60, -WIDTH), (90, -WIDTH)))])
    assert outside_lanes(places, driving, parking).tolist() == [False, False, False, False, False, True]
    with pytest.raises(DataError, match="at least one lane"):
        LaneIndex([])


def test_wrong_lane():
    driving = LaneIndex(two_way())
    path = drive(0.0, 100.0, 10.0)
    path[60:120, 1] = WIDTH
    assert np.flatnonzero(wrong_lane(path, driving)).tolist() == list(range(60, 120))  # over and back
    assert not wrong_lane(drive(0.0, 100.0, 10.0, y=WIDTH), driving).any()  # from the start: nobody notices
    # out of a junction into the lane that leads into it
    road_map = crossing()
    index = LaneIndex(road_map.lanes.values())
    through = road_map.lanes["c02"].centerline
    end, angle = road_map.lanes["in2"].centerline[::-1], np.array([0.0, 0.0, np.pi])
    wrong = wrong_lane(np.vstack([through, (end + angle)[:30]]), index)
    assert not wrong[: len(through)].any() and wrong[len(through) + 1 :].all()
    right = np.vstack([through, road_map.lanes["out2"].centerline[1:30]])
    assert not wrong_lane(right, index).any()


def test_way_outside():
    path, poses = road(100), drive(0.0, 100.6, 10.0)
    outside = (poses[:, 0] > 20.2) & (poses[:, 0] < 45.2)
    event = way_outside(path, poses, outside)
    assert event is not None and event.percentage == pytest.approx(25.0) and poses[event.tick, 0] == 44.5
    assert event.message == "Agent went outside its route lanes for about 25.0 meters (25.0% of the completed route)"
    half = way_outside(path, poses[:102], outside[:102])  # 50 m driven
    assert half is not None and half.percentage == pytest.approx(50.0)
    assert way_outside(path, poses, np.zeros(len(poses), bool)) is None
    verdict = judge(rollout(drive(0.0, 101.0, 10.0, y=-WIDTH)), path, AROUND, Rule.BENCH2DRIVE)
    assert [(e.kind, e.percentage) for e in verdict.events if e.kind is K.OUTSIDE_LANES] == [(K.OUTSIDE_LANES, 100.0)]


def test_driving_on_the_other_side_counts_unless_a_scenario_asks_for_it():
    poses = drive(0.0, 101.0, 10.0)
    poses[80:120, 1] = WIDTH  # 20 m
    for watched, percent in ((None, [20.0]), (np.zeros(len(poses), bool), [])):
        verdict = judge(rollout(poses, side_watched=watched), road(100), AROUND, Rule.LEADERBOARD_2_0)
        assert [round(e.percentage) for e in verdict.events] == percent and verdict.ending is Ending.COMPLETED


def test_speed_among_traffic():
    path, poses = road(100), drive(0.0, 101.0, 10.0)
    speeds, traffic = np.full(len(poses), 10.0), np.full(len(poses), 20.0)
    slow = slow_checkpoints(path, poses, speeds, traffic, Rule.LEADERBOARD_2_0)
    assert [e.percentage for e in slow] == [50.0] * 4
    assert slow[0].message == "Average speed is 50.0% of the surrounding traffic's one" and slow[0].kind is K.MIN_SPEED
    assert poses[slow[0].tick, 0] == pytest.approx(26.0, abs=0.6)  # more than 25 m have been passed
    assert slow_checkpoints(path, poses, speeds, traffic / 2.0, Rule.LEADERBOARD_2_1) == []  # 100 % is no event there
    always = slow_checkpoints(path, poses, speeds, traffic / 4.0, Rule.BENCH2DRIVE)
    assert {e.percentage for e in always} == {200.0} and 15 <= len(always) <= 20
    alone = slow_checkpoints(path, poses, speeds, np.full(len(poses), np.nan), Rule.BENCH2DRIVE)
    assert {e.percentage for e in alone} == {100.0}
    assert slow_checkpoints(path, poses, speeds, 0.0 * traffic, Rule.LEADERBOARD_2_0) == []
    some = np.where(np.arange(len(poses)) % 2, traffic, np.nan)  # ticks without traffic are not counted
    assert [e.percentage for e in slow_checkpoints(path, poses, speeds, some, Rule.LEADERBOARD_2_0)] == [50.0] * 4
    assert len(slow_checkpoints(path, poses[:185], speeds, traffic, Rule.LEADERBOARD_2_0)) == 3  # at 92 m the last does not count
    assert slow_checkpoints(path, poses, speeds, traffic, Rule.LEADERBOARD_1_0) == []


def test_yielding():
    positions = drive(0.0, 50.0, 10.0)
    behind, past = positions - [8.0, 0.0, 0.0], positions + [3.0, WIDTH, 0.0]
    event = not_yielded(positions, behind, 60)
    assert event is not None and (event.kind, event.tick) == (K.YIELD, 60)
    assert not_yielded(positions, past, 60) is None
    comes_past = np.where(np.arange(len(positions))[:, None] < 50, behind, past)
    assert not_yielded(positions, comes_past, 40) is not None and not_yielded(positions, comes_past, 60) is None
    gone = np.where(np.arange(len(positions))[:, None] < 50, behind, np.nan)
    assert not_yielded(positions, gone, 60) is not None  # its last known place counts
    assert not_yielded(positions, np.full_like(positions, np.nan), 60) is None


def test_a_clean_drive_is_perfect_and_nothing_counts_behind_its_end():
    poses = drive(0.0, 150.0, 10.0)
    ends = int(np.flatnonzero(completion(road(100), poses) == 100.0)[0])
    contacts = [Contact(ends + 5, 3, "vehicle.audi.tt")]
    run = rollout(poses, contacts=contacts, scenario_timeouts=(ends + 1,), red=np.zeros((len(poses), 1), bool))
    around = replace(AROUND, lights=(LIGHT,))
    verdict = judge(run, road(100), around, Rule.LEADERBOARD_2_1)
    assert (verdict.ending, verdict.completion, verdict.events, verdict.ticks) == (Ending.COMPLETED, 100.0, (), ends + 1)
    assert record_of("RouteScenario_1_rep0", verdict.events, verdict.completion, Rule.LEADERBOARD_2_1).status == "Perfect"


def test_everything_together():
    poses = drive(0.0, 101.0, 10.0)
    count = len(poses)
    run = rollout(
        poses, contacts=[Contact(40, 3, "walker.pedestrian.0001")], red=np.ones((count, 1), bool), scenario_timeouts=(150,),
        emergencies=((poses - [9.0, 0.0, 0.0], 180),), traffic=np.full(count, 20.0),
    )  # fmt: skip
    verdict = judge(run, road(100), replace(AROUND, lights=(LIGHT,), signs=(replace(SIGN, trigger=np.array([80.0, 0.0])),)), Rule.LEADERBOARD_2_1)
    found = [k for k in kinds(verdict) if k is not K.MIN_SPEED]
    assert found == [K.PEDESTRIAN, K.RED_LIGHT, K.SCENARIO_TIMEOUT, K.STOP_SIGN, K.YIELD] and kinds(verdict).count(K.MIN_SPEED) == 4
    record = record_of("RouteScenario_1_rep0", verdict.events, verdict.completion, Rule.LEADERBOARD_2_1)
    assert record.status == "Completed" and record.score_penalty == round(1.0 / (1.0 + 1.0 + 0.4 + 0.4 + 0.25 + 0.4 + 4 * 0.2), 6)


def test_what_cannot_be_judged_is_told():
    good = rollout(drive(0.0, 10.0, 10.0))
    with pytest.raises(DataError, match="criteria of leaderboard 2"):
        judge(good, road(100), AROUND, Rule.LEADERBOARD_1_0)
    for field, value in (("velocities", np.zeros((3, 2))), ("traffic", np.zeros(3)), ("poses", np.full_like(good.poses, np.nan))):
        with pytest.raises(DataError, match="roll-out"):
            replace(good, **{field: value})
    with pytest.raises(DataError, match=r"speed limit at 0 s is 0\.0"):
        judge(replace(good, speed_limits=np.zeros(len(good.times))), road(100), AROUND, Rule.LEADERBOARD_2_0)
    with pytest.raises(DataError, match="nothing to judge"):
        rollout(np.zeros((0, 3)))


def test_nearest_lanes_are_those_of_carlas_map():
    """The same road and lane as carla.Map.get_waypoint says, and the same distance, all over a town."""
    carla = pytest.importorskip("carla")
    path = Path(__file__).resolve().parents[1].parent / "shared/data/real/autonomousvision__py123d/src/py123d/parser/opendrive/carla_maps"
    if not (path / "Town02.xodr.gz").is_file():
        pytest.skip("CARLA's towns are not at hand")
    lanes = load_map(path / "Town02.xodr.gz").lanes
    index, town = LaneIndex(lanes.values()), carla.Map("Town02", gzip.decompress((path / "Town02.xodr.gz").read_bytes()).decode())
    rng = np.random.default_rng(3)
    centres = np.concatenate([v.centerline for v in lanes.values()])
    points = centres[rng.integers(len(centres), size=400), :2] + rng.normal(0.0, 2.0, (400, 2))
    near, same, gaps = index.nearest(points), 0, []
    for i, (x, y) in enumerate(points.tolist()):
        waypoint = town.get_waypoint(carla.Location(x, -y, 0.0))
        at = waypoint.transform.location
        gaps.append(np.hypot(at.x - x, -at.y - y) - near.distance[i])
        road, _, number = index.lanes[near.lane[i]].id.split("_")
        if (int(road), int(number)) == (waypoint.road_id, waypoint.lane_id):
            same += 1
            assert near.width[i] == pytest.approx(waypoint.lane_width, abs=0.02)
            assert abs(wrap_angle(near.heading[i] + np.radians(waypoint.transform.rotation.yaw))) < 0.1
            assert near.is_junction[i] == waypoint.is_junction
    assert same > 370  # where connectors lie over each other, either is the nearest
    assert np.median(np.abs(gaps)) < 0.001 and min(gaps) > -0.02 and max(gaps) < 0.3  # carla's own search is not quite the nearest in curves
