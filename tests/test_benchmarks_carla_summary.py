"""Scores, intervals, comfort and abilities of a closed-loop evaluation: hand-made records of known answer."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from drive.benchmarks.carla_drive import DriveConfig
from drive.benchmarks.carla_motion import FIELDS, METRIC_INFO, MotionLog
from drive.benchmarks.carla_results import read_results
from drive.benchmarks.carla_routes import ClosedLoop, Finished, Missing
from drive.benchmarks.carla_summary import MEAN, abilities, release, scores, write_summary
from drive.metrics.carla_bench2drive import Version, comfortness
from drive.metrics.carla_records import Event, Failure, Infraction
from drive.metrics.carla_scores import Rule, record_of
from drive.report.closed_loop import all_tables

CONFIG = DriveConfig(Rule.BENCH2DRIVE)
HIT = Event(Infraction.VEHICLE, 3, "Agent collided against object with type=vehicle.audi.tt and id=4 at (x=1.0, y=2.0, z=0.0)")
RED = Event(Infraction.RED_LIGHT, 3, "Agent ran a red light 7 at (x=1.0, y=2.0, z=0.0)")


def speed(percent: float) -> Event:
    return Event(Infraction.MIN_SPEED, 1, f"Average speed is {percent}% of the surrounding traffic's one", percent)


def finished(route, kind="", events=(), completion=100.0, failure=None, comfort: float | None = 0.5, junction: float | None = 0.4, rule=Rule.BENCH2DRIVE):
    texts = {"scenario_name": f"{kind}_1", "town_name": "Town01"} if kind else {"town_name": "Town01"}
    record = record_of(f"RouteScenario_{route}_rep0", events, completion, rule, failure=failure, route_length=500.0, duration_game=20.0, texts=texts)
    return Finished(record, 0.01, 20.0, 4.0, comfort, junction)


def evaluation():
    """Five scheduled routes: two good, one with a collision, one whose simulation crashed, one without a map."""
    rows = (
        finished("1", "ParkedObstacle", [speed(120.0), speed(80.0)], comfort=1.0),
        finished("2", "SignalizedJunctionLeftTurn", [speed(50.0)], comfort=0.5),
        finished("3", "SignalizedJunctionRightTurn", [HIT], 50.0, Failure.TICKS, comfort=0.0),
        finished("4", "InvadingTurn", (), 0.0, Failure.SIMULATION, comfort=None, junction=None),
    )
    return ClosedLoop("mine", CONFIG, 5, rows, (Missing("5", "Town99", "route 5: the server has no town Town99; it has a, b"),))


def test_scores_count_what_was_not_driven_as_nothing():
    found = scores(evaluation())
    assert found["driving_score"].value == pytest.approx((100.0 + 100.0 + 50.0 * 0.6) / 5) and found["driving_score"].count == 5
    assert found["success_rate"].value == pytest.approx(2 / 5) and found["route_completion"].value == pytest.approx(50.0)
    assert found["efficiency"].value == pytest.approx((100.0 + 50.0) / 2) and found["efficiency"].count == 2
    assert found["comfort"].value == pytest.approx(0.5) and found["comfort"].count == 3
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high and estimate.low < estimate.high
    empty = scores(replace(evaluation(), finished=(finished("4", "", (), 0.0, Failure.SIMULATION, None, None),)))
    assert math.isnan(empty["comfort"].value) and empty["comfort"].to_json() == {"value": None, "low": None, "high": None, "count": 0}


def test_abilities_of_both_releases():
    score, found = abilities(evaluation(), Version.V0_0_3)
    assert score.counts == {"Overtaking": (1, 1), "Merging": (1, 2), "Emergency_Brake": (0, 0), "Give_Way": (0, 1), "Traffic_Signs": (3, 4)}
    assert found["Merging"].value == 0.5 and (found["Merging"].low, found["Merging"].high) == (0.0, 1.0) and found["Merging"].count == 2
    assert found["Traffic_Signs"].value == 0.75 and found["Give_Way"].value == 0.0
    assert math.isnan(found["Emergency_Brake"].value) and math.isnan(found[MEAN].value)  # upstream stops there
    assert abilities(evaluation(), Version.V0_0_4)[1]["Traffic_Signs"].value == 1.0  # passed the junction at 40 %, and 50 % were driven
    beyond = replace(evaluation(), finished=(*evaluation().finished[:2], finished("3", "T_Junction", [RED], 50.0, Failure.TICKS)))
    assert abilities(beyond, Version.V0_0_4)[1]["Traffic_Signs"].value == 0.5  # ran the light
    all_five = replace(evaluation(), finished=(*evaluation().finished, finished("5", "ControlLoss")), missing=())
    assert abilities(all_five, Version.V0_0_4)[1][MEAN].value == pytest.approx((1.0 + 0.5 + 1.0 + 0.0 + 1.0) / 5)
    assert release("data/bench2drive220.xml") is Version.V0_0_3 and release("a/bench2drive_0.0.4_val.xml") is Version.V0_0_4


def test_a_failed_route_without_junction_has_not_passed_one():
    failed = finished("1", "T_Junction", [HIT], 50.0, Failure.TICKS, junction=None)
    assert abilities(ClosedLoop("mine", CONFIG, 1, (failed,)), Version.V0_0_4)[1]["Traffic_Signs"].value == 0.0


def test_tables_say_what_they_leave_out():
    text = "\n\n".join(all_tables(evaluation(), "bench2drive_ds", "title", Version.V0_0_3))
    assert "PARTIAL 60.0 %" in text and "coverage: 3 of 5 routes driven, 1 crashed and 1 not driven (Town99: 1); they count 0" in text
    assert "Simulation crashed: route 4: in each of 3 tries" in text and "not driven: route 5: the server has no town Town99; it has a, b" in text
    head, _, row = text.splitlines()[1:4]
    assert [word for word in ("driving score [95 %]", "success %", "efficiency %", "comfort %", "coverage") if word not in head] == []
    assert "46.0 [" in row and "40.0 [" in row and "75.0 [" in row and "50.0 [" in row
    lines = {line.split()[0]: line for line in text.splitlines() if line and line.split()[0] in "12345"}
    assert len(lines) == 5 and "min_speed" not in text and "1 collisions_vehicle" in lines["3"] and "not driven" in lines["5"]
    ability = next(line for line in text.splitlines() if line.startswith("mine") and " of 1" in line)
    assert "100.0 [100.0, 100.0] of 1" in ability and "75.0 [" in ability
    board = replace(evaluation(), config=DriveConfig(Rule.LEADERBOARD_2_1))
    told = "\n".join(all_tables(board, "leaderboard2_ds", "title", Version.V0_0_3))
    assert "comfort" not in told and "abilities" not in told and "infractions per km" in told and "2 min_speed_infractions" in told
    whole = replace(evaluation(), routes=3, finished=evaluation().finished[:3], missing=())
    assert "coverage:" not in "\n".join(all_tables(whole, "b", "t", Version.V0_0_3))


def test_routes_of_one_missing_town_share_a_line():
    missing = tuple(Missing(str(k), "Town12", f"route {k}: the server has no town Town12; it has a") for k in range(12))
    text = "\n".join(all_tables(ClosedLoop("mine", CONFIG, 13, (finished("20"),), missing), "b", "t", Version.V0_0_3))
    assert "not driven: 12 routes (0, 1, 2, 3, 4, 5, 6, 7, …): the server has no town Town12; it has a" in text and text.count("no town") == 1


def test_the_files_hold_it_all(tmp_path):
    write_summary(tmp_path, evaluation(), "bench2drive220.xml")
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["entry_status"] == "Crashed" and list(read_results(tmp_path / "results.json")) == evaluation().records
    told = data["drive"]
    assert told["crashed"] == ["4"] and told["not_driven"][0]["town"] == "Town99" and told["coverage"] == pytest.approx(0.6)
    assert told["routes"]["2"] == {"comfort": 0.5, "efficiency": 50.0, "success": True}
    assert told["abilities"]["release"] == "0.0.3" and told["abilities"]["Traffic_Signs"]["passed"] == 3
    assert told["abilities"][MEAN]["value"] is None and told["scores"]["efficiency"]["value"] == 75.0
    merged = json.loads((tmp_path / "merged.json").read_text())["_checkpoint"]["records"]
    assert merged[0]["scenario_name"] == "InvadingTurn_1"


def actor(acceleration: float, yaw_rate: float, x: float):
    vector = lambda *v: SimpleNamespace(x=v[0], y=v[1], z=v[2])  # noqa: E731
    turn = SimpleNamespace(roll=0.5, pitch=1.0, yaw=90.0)
    place = SimpleNamespace(location=vector(x, 2.0, 3.0), rotation=turn, get_forward_vector=lambda: vector(0.0, 1.0, 0.0), get_right_vector=lambda: vector(-1.0, 0.0, 0.0))
    return SimpleNamespace(
        get_transform=lambda: place, get_acceleration=lambda: vector(0.0, acceleration, 0.1), get_angular_velocity=lambda: vector(0.0, 0.0, yaw_rate)
    )  # fmt: skip


def test_motion_is_written_as_bench2drive_reads_it(tmp_path):
    log = MotionLog()
    for k in range(60):  # a jerk in the last of three segments
        assert log.comfort() is None or k > 2
        log.note(actor(8.0 if k == 50 else 1.0, 0.2, float(k)))
    assert log.comfort() == pytest.approx(2 / 3)
    data = json.loads(log.write(tmp_path / "save_name").read_text())
    assert (tmp_path / "save_name" / METRIC_INFO).is_file() and list(data) == [str(k) for k in range(60)]
    assert data["7"] == {
        "acceleration": [0.0, 1.0, 0.1], "angular_velocity": [0.0, 0.0, 0.2], "forward_vector": [0.0, 1.0, 0.0], "right_vector": [-1.0, 0.0, 0.0],
        "location": [7.0, 2.0, 3.0], "rotation": [0.5, 1.0, 90.0],
    }  # fmt: skip
    read = {name: np.array([row[name] for row in data.values()]) for name in FIELDS}
    plane = (read["acceleration"][:, :2], read["angular_velocity"][:, 2], read["forward_vector"][:, :2], read["right_vector"][:, :2])
    assert comfortness(*plane) == log.comfort()
    fast = MotionLog()
    for k in range(20):
        fast.note(actor(0.0, 1.0, float(k)))
    assert fast.comfort() == 0.0  # 1 degree per second: the bound of 0.95 is in radians by the text, in degrees by the data
