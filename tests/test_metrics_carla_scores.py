"""Penalties, driving scores and Bench2Drive's numbers: cases of known answer, and the published results of PDM-Lite exactly."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.metrics.carla_bench2drive import (
    ABILITIES,
    Version,
    ability_score,
    bench2drive_score,
    comfortness,
    efficiency,
    succeeded,
)
from drive.metrics.carla_records import Event, Failure, Infraction, RouteRecord, record_from_json
from drive.metrics.carla_scores import Rule, infraction_penalty, leaderboard_score, record_of

PLANT2 = Path(__file__).resolve().parents[1].parent / "shared/data/real/autonomousvision__plant2/Bench2Drive/pdm_lite_b2d_traj"
K = Infraction


def event(kind, percentage=math.nan):
    return Event(kind, 0, "told", percentage)


def record(number, completion=100.0, events=(), rule=Rule.BENCH2DRIVE, scenario="ParkingExit", **more):
    texts = {"scenario_name": f"{scenario}_1"}
    return record_of(f"RouteScenario_{number}_rep0", events, completion, rule, texts=texts, **more)


@pytest.mark.parametrize(
    ("kind", "lb1", "lb2", "lb21"),
    [
        (K.PEDESTRIAN, 0.5, 0.5, 1.0),
        (K.VEHICLE, 0.6, 0.6, 0.7),
        (K.STATIC, 0.65, 0.65, 0.6),
        (K.RED_LIGHT, 0.7, 0.7, 0.4),
        (K.STOP_SIGN, 0.8, 0.8, 0.25),
        (K.SCENARIO_TIMEOUT, 1.0, 0.7, 0.4),
        (K.YIELD, 1.0, 0.7, 0.4),
        (K.DEVIATION, 1.0, 1.0, 0.0),
        (K.BLOCKED, 1.0, 1.0, 0.0),
        (K.ROUTE_TIMEOUT, 1.0, 1.0, 0.0),
    ],
)
def test_penalty_of_each_kind(kind, lb1, lb2, lb21):
    for count in (1, 2):
        events = [event(kind)] * count
        assert infraction_penalty(events, Rule.LEADERBOARD_1_0) == pytest.approx(lb1**count)
        assert infraction_penalty(events, Rule.LEADERBOARD_2_0) == pytest.approx(lb2**count)
        assert infraction_penalty(events, Rule.BENCH2DRIVE) == pytest.approx(lb2**count)
        assert infraction_penalty(events, Rule.LEADERBOARD_2_1) == pytest.approx(1.0 / (1.0 + count * lb21))


def test_penalties_of_share():
    slow, outside = event(K.MIN_SPEED, 40.0), event(K.OUTSIDE_LANES, 25.0)
    assert infraction_penalty([slow], Rule.LEADERBOARD_2_0) == pytest.approx(1.0 - 0.3 * 0.6)
    assert infraction_penalty([slow], Rule.LEADERBOARD_2_1) == pytest.approx(1.0 / (1.0 + 0.4 * 0.6))
    assert infraction_penalty([slow], Rule.BENCH2DRIVE) == 1.0
    assert all(infraction_penalty([outside], rule) == pytest.approx(0.75) for rule in Rule)
    both = [event(K.VEHICLE), event(K.RED_LIGHT), outside]
    assert infraction_penalty(both, Rule.LEADERBOARD_2_1) == pytest.approx(0.75 / 2.1)
    assert infraction_penalty(both, Rule.LEADERBOARD_2_0) == pytest.approx(0.75 * 0.42)
    with pytest.raises(DataError, match="no percentage"):
        infraction_penalty([event(K.OUTSIDE_LANES)], Rule.LEADERBOARD_2_0)


def test_record_of_a_route():
    clean = record(1)
    assert (clean.status, clean.score_composed, clean.count(), clean.route, clean.scenario) == ("Perfect", 100.0, 0, "1", "ParkingExit")
    hit = record(2, 60.0, [event(K.VEHICLE), event(K.RED_LIGHT)], Rule.LEADERBOARD_2_1, route_length=99.12345)
    assert hit.status == "Failed" and hit.score_penalty == 0.47619 and hit.score_composed == 28.571429 and hit.route_length == 99.123
    assert record(3, 100.0, [event(K.VEHICLE)]).status == "Completed"
    assert record(4, 20.0, [event(K.BLOCKED)]).status == "Failed - Agent got blocked"
    assert record(5, 20.0, [event(K.DEVIATION)], failure=Failure.TICKS).status == "Failed - Agent deviated from the route"
    assert record(6, 20.0, failure=Failure.TICKS).status == "Failed - TickRuntime"
    assert set(record(7).infractions) == {kind.value for kind in Infraction}
    assert len(record(7, rule=Rule.LEADERBOARD_1_0).infractions) == 9
    with pytest.raises(DataError, match="knows no min_speed"):
        record(7, 1.0, [event(K.MIN_SPEED, 50.0)], Rule.LEADERBOARD_1_0)
    with pytest.raises(DataError, match="completion"):
        record(8, 100.5)


def test_driving_score_is_the_mean_over_all_scheduled_routes():
    """Not mean completion times mean penalty, and a missing route counts 0."""
    records = [record(1, 100.0, [event(K.PEDESTRIAN)], route_length=1000.0), record(2, 50.0, route_length=2000.0)]
    score = leaderboard_score(records, 2)
    assert (score.driving_score, score.route_completion, score.infraction_penalty, score.coverage) == (50.0, 75.0, 0.75, 1.0)
    assert score.deviations["score_route"] == pytest.approx(35.355) and score.deviations["score_composed"] == 0.0
    assert score.km == pytest.approx(2.0) and score.per_km["collisions_pedestrian"] == 0.5
    more = leaderboard_score(records, 4)
    assert more.driving_score == 25.0 and more.coverage == 0.5
    nothing = leaderboard_score([], 3)
    assert nothing.driving_score == 0.0 and nothing.km == 0.001
    assert leaderboard_score(records[:1], 1).deviations["score_route"] == 0.0


def test_metres_outside_lanes_are_not_divided():
    message = "Agent went outside its route lanes for about 1500.0 meters (3.1% of the completed route)"
    outside = record(1, 100.0, [Event(K.OUTSIDE_LANES, 0, message, 3.1)], route_length=4000.0)
    assert outside.outside == (1500.0, 3.1)
    assert leaderboard_score([outside, record(2)], 2).per_km["outside_route_lanes"] == 1.5
    with pytest.raises(DataError, match="without metres"):
        _ = record(1, 100.0, [event(K.OUTSIDE_LANES, 3.1)]).outside


def test_mixed_runs_are_refused():
    with pytest.raises(DataError, match="two records"):
        leaderboard_score([record(1), record(1)], 5)
    with pytest.raises(DataError, match="2 records of 1"):
        bench2drive_score([record(1), record(2)], 1)
    with pytest.raises(DataError, match="0 records of 0"):
        leaderboard_score([], 0)


def test_success_and_efficiency():
    speeds = [Event(K.MIN_SPEED, 0, f"Average speed is {v}% of the surrounding traffic's one", v) for v in (100, 50.5, 1000.0, 1000.01)]
    driven = record(1, 100.0, speeds)
    assert driven.status == "Completed" and succeeded(driven) and driven.speeds == (100.0, 50.5, 1000.0, 1000.01)
    assert efficiency(driven) == pytest.approx((100.0 + 50.5 + 1000.0) / 3.0)
    assert efficiency(record(2)) is None and efficiency(record(2, 9.0, speeds[3:])) is None
    fails = [record(3, 99.0), record(4, 100.0, [event(K.SCENARIO_TIMEOUT)]), record(5, 100.0, [event(K.OUTSIDE_LANES, 1.0)])]
    assert not any(map(succeeded, fails))
    score = bench2drive_score([driven, record(2), *fails], 10)
    assert score.success_rate == 0.2 and score.coverage == 0.5 and score.efficiency == efficiency(driven)
    assert math.isnan(bench2drive_score([record(2)]).efficiency)


def test_comfort():
    n = 60
    forward, right, still = np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, -1.0], (n, 1)), np.zeros(n)
    calm = np.zeros((n, 2))
    assert comfortness(calm, still, forward, right) == 1.0
    for axis, value, fine in ((0, 2.3, True), (0, 2.5, False), (0, -4.0, True), (0, -4.1, False), (1, 4.8, True), (1, 4.95, False)):
        pushed = calm.copy()
        pushed[20:40, axis] = value  # the whole second segment: no jerk inside it
        assert comfortness(pushed, still, forward, right) == pytest.approx(1.0 if fine else 2.0 / 3.0), (axis, value)
    turning = np.where(np.arange(n) < 20, 0.94, 0.96)  # deg/s against a bound in rad/s; 1.93 never matters
    assert comfortness(calm, turning, forward, right) == pytest.approx(1.0 / 3.0)
    for slope, fine in ((4.1, 1.0), (4.2, 0.0), (-4.1, 1.0), (-4.2, 0.0)):  # jerk, by steps of 0.1 s
        ramp = np.zeros((10, 2))
        ramp[:, 0] = -0.9 + 0.1 * slope * (np.arange(10) - 4.5)
        assert comfortness(ramp, still[:10], forward[:10], right[:10]) == fine, slope
    assert comfortness(np.vstack([calm[:20], np.full((19, 2), 9.0)]), still[:39], forward[:39], right[:39]) == 1.0  # a rest is dropped
    assert comfortness(np.full((10, 2), 9.0), still[:10], forward[:10], right[:10]) == 0.0  # a short route is one segment
    with pytest.raises(DataError, match="three samples"):
        comfortness(calm[:2], still[:2], forward[:2], right[:2])
    with pytest.raises(DataError, match="one length"):
        comfortness(calm, still[:-1], forward, right)


def test_spinning_fast_looks_calm_after_the_unwrapping():
    """A quirk to keep: rates in deg/s are unwrapped as angles, so that a jump by 2 pi vanishes."""
    spin = np.where(np.arange(20) < 10, 0.0, 2.0 * np.pi)
    forward, right = np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (20, 1))
    assert comfortness(np.zeros((20, 2)), spin, forward, right) == 1.0


def test_abilities():
    assert {k: len(v) for k, v in ABILITIES.items()} == {
        "Overtaking": 9, "Merging": 16, "Emergency_Brake": 12, "Give_Way": 2, "Traffic_Signs": 19
    }  # fmt: skip
    records = [
        record(1, scenario="Accident"),
        record(2, 50.0, scenario="T_Junction"),  # fails, but passed its junction
        record(3, 100.0, [event(K.RED_LIGHT)], scenario="T_Junction"),
        record(4, 20.0, scenario="T_Junction"),
        record(5, scenario="PedestrianCrossing"),  # of two abilities
        record(6, 100.0, [event(K.VEHICLE)], scenario="InvadingTurn"),
    ]
    shares = {"2": 0.4, "4": 0.4}
    old = ability_score(records, shares, Version.V0_0_3)
    assert old.counts == {"Overtaking": (1, 1), "Merging": (0, 0), "Emergency_Brake": (1, 1), "Give_Way": (0, 1), "Traffic_Signs": (3, 8)}
    assert ability_score(records, shares, Version.V0_0_4).counts["Traffic_Signs"] == (2, 4)
    assert math.isnan(old.mean) and old.rate("Traffic_Signs") == 3 / 8
    assert ability_score(records, {**shares, "2": 0.5}, Version.V0_0_4).counts["Traffic_Signs"] == (1, 4)  # strictly beyond
    with pytest.raises(DataError, match=r"RouteScenario_2_rep0 .*first junction"):
        ability_score(records, {}, Version.V0_0_3)


@pytest.fixture(scope="module")
def published():
    if not (PLANT2 / "merged.json").is_file():
        pytest.skip("the published result file is not at hand")
    merged, abilities = (json.loads((PLANT2 / name).read_text()) for name in ("merged.json", "merged_ability.json"))
    records = [record_from_json(r, f"record {i}") for i, r in enumerate(merged["_checkpoint"]["records"])]
    return merged, abilities, records


def test_published_score_exactly(published):
    merged, abilities, records = published
    score = bench2drive_score(records)
    assert score.driving_score == merged["driving score"] == 97.01579642272726
    assert score.success_rate == merged["success rate"] == 203 / 220
    assert score.records == merged["eval num"] == 220
    assert score.efficiency == abilities["Driving Efficiency"] == 250.03924965239113


def test_published_abilities_exactly(published):
    """One route of Traffic_Signs failed behind its junction, on a town that is at hand: its share is that of the planned route."""
    _, abilities, records = published
    shares = {"27018": 0.4875, "11755": 0.5}  # 11755 has completion 0
    score = ability_score(records, shares, Version.V0_0_3)
    assert {name: score.rate(name) for name in ABILITIES} == {name: abilities[name] for name in ABILITIES}
    assert score.mean == abilities["mean"] == 0.9282017543859649
    assert [counted for _, counted in score.counts.values()] == [45, 80, 60, 10, 190]


def test_published_penalties_follow_from_their_events(published):
    """Event by event; shares outside lanes are rounded to 0.01 % in the messages, so the penalty is known to 5e-5."""
    _, _, records = published
    for old in records:
        events = [Event(K.OUTSIDE_LANES, 0, message, old.outside[1]) for message in old.events(K.OUTSIDE_LANES)]
        events += [event(kind) for kind in Infraction if kind not in (K.OUTSIDE_LANES, K.MIN_SPEED) for _ in old.events(kind)]
        penalty = infraction_penalty(events, Rule.BENCH2DRIVE)
        if old.score_route > 0.0:  # a route that never advanced has penalty 0 upstream
            assert penalty == pytest.approx(old.score_penalty, abs=5.1e-5)
        assert old.score_composed == pytest.approx(old.score_route * old.score_penalty, abs=5.1e-5)


def test_record_round_trip(published):
    merged, _, records = published
    assert [r.to_json() for r in records] == merged["_checkpoint"]["records"]
    assert isinstance(records[0], RouteRecord) and records[0].route == "4937" and records[0].scenario == "SignalizedJunctionRightTurn"
    assert {r.scenario for r in records if r.scenario.startswith("T")} == {"T_Junction"}
    assert replace(records[0], index=3).to_json()["index"] == 3
