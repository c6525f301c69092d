"""Traffic and walkers around an ego in CARLA, met through the official client and a server of our own in a process of its own."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from drive.core.errors import ConfigError
from drive.simulators.carla_traffic import TrafficSettings, way_from
from drive.simulators.carla_walkers import must_wait
from drive.simulators.towns import load_town

HERE = Path(__file__).resolve().parent


@cache
def drives(text: str) -> list[dict]:
    """What carla_drives.py saw."""
    done = subprocess.run([sys.executable, str(HERE / "carla_drives.py"), text], capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


BUSY = json.dumps({"town": "urban_a", "seconds": 60, "vehicles": 20, "walkers": 8, "length": 900.0, "drives": [{"seed": 1}, {"seed": 1}, {"seed": 2}]})


def test_a_minute_of_twenty_cars_without_a_touch_and_nobody_runs_a_red_light():
    for one in drives(BUSY):
        assert one["cars"] == 20 and one["refused"] == 0 and one["walkers"] == 8 and one["lights"] == 22
        assert one["overlaps"] == [] and one["red"] == []
        assert one["passed"] > 10 and one["moved"] > 100.0


def test_the_ego_among_them_is_not_hit():
    for one in drives(BUSY):
        assert one["touched_ego"] == 0 and one["collisions"] == [] and one["ego_s"] > 60.0


def test_one_seed_is_one_drive():
    first, again, other = drives(BUSY)
    assert first["digest"] == again["digest"] != other["digest"]


def test_all_are_gone_afterwards():
    for one in drives(BUSY):
        assert one["left"] == ["vehicle.lincoln.mkz_2020"]


def test_settings_that_cannot_be_are_told():
    with pytest.raises(ConfigError, match="hidden_m < radius_m"):
        TrafficSettings(vehicles=-1)
    with pytest.raises(ConfigError, match="hidden_m < radius_m"):
        TrafficSettings(radius_m=50.0, hidden_m=60.0)


def test_the_way_of_a_route_has_no_lane_changes():
    road_map = load_town("urban_a")
    lane = next(k for k in road_map.lanes.values() if k.right_neighbor and k.successors)
    beside = road_map.lanes[lane.right_neighbor]
    route = [lane.id, beside.id, *beside.successors[:1]]
    assert way_from(road_map, route)[0] == lane.id
    assert way_from(road_map, route[1:]) == route[1:]


NORTH = np.column_stack([np.zeros(12), np.arange(12.0)])  # the way of a walker from the origin over a road along x


@pytest.mark.parametrize(
    ("car", "waits"),
    [
        ((-15.0, 4.0, 0.0, 10.0, 2.3, 0.9), True),  # there at the same time
        ((-60.0, 4.0, 0.0, 5.0, 2.3, 0.9), False),  # late
        ((10.0, 4.0, 0.0, 10.0, 2.3, 0.9), False),  # has passed
        ((0.0, 2.0, 0.0, 0.0, 2.3, 0.9), True),  # stands in the way
        ((-20.0, 4.0, 0.0, 0.0, 2.3, 0.9), False),  # stands elsewhere
        ((-12.0, 0.0, 0.0, 10.0, 2.3, 0.9), False),  # would hit it where it is: on, and off the road
        ((-15.0, -6.0, 0.0, 10.0, 2.3, 0.9), False),  # behind its back
    ],
)
def test_walkers_wait_for_cars_that_are_near(car, waits):
    assert must_wait(np.zeros(2), NORTH[1:], 1.4, np.array([car])) is waits


def test_a_walker_alone_does_not_wait():
    assert must_wait(np.zeros(2), NORTH[1:], 1.4, np.zeros((0, 6))) is False
