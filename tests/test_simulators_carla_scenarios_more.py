"""Scenarios of bicycles, junction exits, doors, the other direction, emergency vehicles and slippery roads, driven over the official client."""

import json

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from test_simulators_carla_scenarios import LEFT, actor, drives, first_row, one, phases

TOWN = json.dumps(
    {
        "town": "urban_a",
        "seconds": 45,
        "until": "ended",
        "vehicles": 4,
        "drives": [
            one("bicycle", "VehicleTurningRoute", 110.0, lanes=LEFT, seed=1),
            one("cycle flow", "CrossingBicycleFlow", 110.0, lanes=LEFT, seed=1),
            one("hazard", "HazardAtSideLaneTwoWays", 60.0, {"bicycle_speed": "10", "bicycle_drive_distance": "20"}, seed=1, seconds=25),
            one("exit", "BlockedIntersection", 110.0, lanes=LEFT, seed=1, seconds=60),
            one("door", "VehicleOpensDoorTwoWays", 60.0, seed=1, blind=7.0, seconds=25),
            one("invading", "InvadingTurn", 60.0, {"distance": "60", "offset": "0.27"}, seed=1, seconds=25),
            one("loss", "ControlLoss", 60.0, seed=1, seconds=25),
        ],
    }
)
HIGHWAY = json.dumps(
    {
        "town": "highway_a",
        "seconds": 40,
        "until": "ended",
        "vehicles": 0,
        "drives": [
            one("ambulance", "YieldToEmergencyVehicle", 150.0, {"distance": "20"}, seed=3),
            one("crowded out", "YieldToEmergencyVehicle", 150.0, {"distance": "20"}, seed=3, taken=32, until="no room"),
        ],
    }
)


@pytest.mark.parametrize("name", ["bicycle", "cycle flow", "hazard", "exit", "door", "invading", "loss"])
def test_each_is_placed_runs_and_leaves_nothing(name):
    drive = drives(TOWN)[name]
    assert phases(drive)[:2] == ["placed", "running"], drive["events"]
    assert drive["left"] == ["vehicle.lincoln.mkz_2020"] and drive["free_rows"] == 32


def test_a_bicycle_crosses_behind_the_junction():
    moves = actor(drives(TOWN)["bicycle"], first_row(drives(TOWN)["bicycle"]))
    assert moves[0, 6] < -2.0 and moves[0, 3] == 0.0 and moves[:, 6].max() > 0.0 and moves[:, 3].max() == pytest.approx(1.8)


def test_bicycles_in_a_row_cross_the_way():
    drive = drives(TOWN)["cycle flow"]
    moving = {a[0] for t in drive["trace"] if t[1] == "running" for a in t[4] if a[1] > 3.0}
    assert len(moving) > 1


def test_bicycles_ride_at_the_edge_and_then_stand():
    drive = drives(TOWN)["hazard"]
    moves = actor(drive, first_row(drive), "running")
    assert (moves[:, 6] < -0.5).all() and moves[0, 3] == pytest.approx(10 / 3.6, abs=0.1)
    assert moves[-1, 5] - moves[0, 5] < 22.0


def test_a_car_behind_the_junction_goes_after_ten_seconds():
    drive = drives(TOWN)["exit"]
    row = first_row(drive)
    moves = actor(drive, row)
    assert (moves[:, 3] == 0.0).all() and (np.abs(moves[:, 6]) < 0.6).all()
    near = moves[moves[:, 5] - moves[:, 1] < 14.0]
    assert 9.0 < len(near) * 0.05 < 16.0 and drive["collisions"] == [] and phases(drive)[-1] == "ended"


def test_a_door_opens_before_who_does_not_look():
    drive = drives(TOWN)["door"]
    things = [t[5] for t in drive["trace"]]
    assert things[0] == 0 and max(things) == 1
    at = next(t for t in drive["trace"] if t[5])
    car = next(a for a in at[4] if a[0] == first_row(drive))
    assert 5.0 < car[3] - at[2] < 7.0 * 3.0 + 5.0
    assert any(kind.startswith("static.prop") for kind in drive["collisions"])


def test_cars_of_the_other_direction_come_over_the_line():
    drive = drives(TOWN)["invading"]
    asides = [a[4] for t in drive["trace"] if t[1] == "running" for a in t[4]]
    assert len({a[0] for t in drive["trace"] for a in t[4]}) > 1 and max(t[5] for t in drive["trace"]) > 3
    assert 1.6 < np.median(asides) < 2.8  # the middle of the ego's lane is 0, that of theirs 3.5


def test_wheel_and_throttle_go_astray_on_debris():
    noises = np.array(drives(TOWN)["loss"]["noises"])
    assert len(noises) > 5 and (np.abs(noises) > 0.0).all()
    assert 0.03 < np.abs(noises[:, 1]).mean() < 0.08 and np.abs(noises[:, 0]).mean() < 0.06


def test_an_emergency_vehicle_comes_from_behind_and_stays_behind_who_stays():
    drive = drives(HIGHWAY)["ambulance"]
    assert phases(drive)[:3] == ["placed", "running", "ended"] and len(drive["emergencies"]) == 1
    moves = actor(drive, drive["emergencies"][0], "running")
    gap = moves[:, 1] - moves[:, 5]
    assert 10.0 < gap[0] < 50.0 and gap[-1] < gap[0] and gap.min() > 0.0 and gap.max() < 50.0 and drive["collisions"] == []
    assert len(moves) * 0.05 == pytest.approx(12.0, abs=0.3)


def test_an_emergency_vehicle_that_finds_no_room_was_not_played():
    drive = drives(HIGHWAY)["crowded out"]
    assert phases(drive) == ["placed", "no room"] and drive["emergencies"] == []
    assert drive["missing"] == ["crowded out (YieldToEmergencyVehicle): no room: no free place behind the ego for the emergency vehicle"]
    assert drive["left"] == ["vehicle.lincoln.mkz_2020"]
