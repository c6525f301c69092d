"""Scenarios on routes in CARLA: each kind met through the official client and a server of our own in a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("carla")
pytest.importorskip("msgpack")

from drive.simulators.carla_scenario_flows import run_s
from drive.simulators.carla_scenarios import (
    KINDS,
    NO_ACTORS,
    NOT_PLAYED,
    Phase,
    ScenarioRunner,
    ScenarioSpec,
    kind_of,
    specs_on_route,
)
from drive.simulators.routes import route_along
from drive.simulators.towns import load_town

HERE = Path(__file__).resolve().parent
REAL = Path(__file__).resolve().parents[2] / "shared/data/real"
LEFT = ["12_0_1", "32_0_-1", "9_0_-1", "51_0_-1"]  # of urban_a: a left turn at lights, with a road straight on from the opposite side


@cache
def drives(text: str) -> dict[str, dict]:
    """What carla_drives.py saw, by the first scenario's name."""
    done = subprocess.run([sys.executable, str(HERE / "carla_drives.py"), text], capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {one["events"][0][1]: one for one in json.loads(done.stdout)}


def one(name, kind, at=80.0, values=None, **more):
    return {"scenarios": [[name, kind, at, values or {}]], **more}


URBAN = json.dumps(
    {
        "town": "urban_a",
        "seconds": 55,
        "until": "ended",
        "vehicles": 8,
        "drives": [
            one("brake", "HardBreakRoute", seed=1),
            one("kerb", "ParkingCutIn", seed=0),
            one("walker", "DynamicObjectCrossing", seed=2),
            one("walker again", "DynamicObjectCrossing", seed=2, blind=9.0),
            one("behind a junction", "VehicleTurningRoutePedestrian", 110.0, lanes=LEFT, seed=1),
            one("parked", "ParkedObstacle", seed=1, blind=8.0, seconds=25),
            one("accident", "AccidentTwoWays", seed=1, seconds=20),
            one("left", "SignalizedJunctionLeftTurn", 110.0, lanes=LEFT, seed=1, vehicles=12),
            one("runner", "OppositeVehicleRunningRedLight", seed=0, blind=8.0),
            one("works", "ConstructionObstacle", seed=1, seconds=20),
            one("merge", "EnterActorFlow", seed=0),
            one("odd", "ParkingExit", seed=0, seconds=1),
            one("plain", "T_Junction", seed=0, seconds=1),
        ],
    }
)
HIGHWAY = json.dumps({"town": "highway_a", "seconds": 30, "vehicles": 6, "drives": [one("beside", "HighwayCutIn", 100.0, seed=3)]})


def phases(drive):
    return [event[3] for event in drive["events"]]


def actor(drive, row, phase=None):
    """(T, 7) tick, ego s, ego speed, speed, acceleration, s, and m left of the route of one actor."""
    found = [[t[0], t[2], t[3], *a[1:]] for t in drive["trace"] for a in t[4] if a[0] == row and phase in (None, t[1])]
    return np.array(found).reshape(-1, 7)


def first_row(drive):
    return next(a[0] for t in drive["trace"] for a in t[4])


@pytest.mark.parametrize("name", ["brake", "kerb", "walker", "walker again", "behind a junction", "parked", "left", "runner", "merge"])
def test_each_is_placed_acts_and_leaves_nothing(name):
    drive = drives(URBAN)[name]
    assert phases(drive)[:2] == ["placed", "running"] and drive["left"] == ["vehicle.lincoln.mkz_2020"]
    placed, running = drive["events"][:2]
    assert placed[0] < running[0] and drive["free_rows"] == 32
    assert drive["overlaps"] == []  # none of the actors touches the traffic
    begun = next(t for t in drive["trace"] if t[1] == "running")
    trigger = 110.0 if name in ("behind a junction", "left") else 80.0
    assert 0.0 <= begun[2] - trigger + 2.5 < 3.0


def test_the_car_ahead_brakes_hard_stands_and_goes_on():
    drive = drives(URBAN)["brake"]
    last = next(t for t in drive["trace"] if t[1] == "running")[4][-1][0]
    moves = actor(drive, last, "running")
    assert moves[:, 4].min() < -6.0 and (moves[:, 3] < 0.1).sum() * 0.05 > 3.0
    stood = int(np.flatnonzero(moves[:, 3] < 0.1)[-1])
    assert moves[stood:, 3].max() > 1.0 and drive["touched_ego"] == 0
    before = actor(drive, last, "placed")
    assert 4.0 < (before[-1, 5] - before[-1, 1]) < 45.0  # it drove before the ego


def test_a_car_pulls_out_from_the_kerb():
    drive = drives(URBAN)["kerb"]
    moves = actor(drive, first_row(drive))
    assert moves[0, 6] < -2.0 and moves[0, 3] == 0.0 and np.abs(moves[:, 6]).min() < 0.2 and moves[-1, 3] > 1.0
    went = moves[np.flatnonzero(moves[:, 3] > 0.0)[0]]
    assert went[1] > 78.0 and 0.0 < went[5] - went[1] < 35.0


@pytest.mark.parametrize("name", ["walker", "walker again"])
def test_a_walker_crosses_before_the_ego(name):
    drive = drives(URBAN)[name]
    moves = actor(drive, first_row(drive))
    assert moves[0, 6] < -2.0 and moves[0, 3] == 0.0 and moves[:, 6].max() > 0.0
    if name == "walker again":  # an ego that does not care meets it
        assert any("walker" in kind for kind in drive["collisions"])
    else:
        assert drive["collisions"] == []


def test_a_walker_waits_behind_the_junction_for_who_turns():
    moves = actor(drives(URBAN)["behind a junction"], first_row(drives(URBAN)["behind a junction"]))
    assert moves[0, 5] > 145.0 and moves[:, 6].max() > 0.0


def test_parked_cars_stand_in_the_lane_and_nobody_waits_behind_them():
    drive = drives(URBAN)["parked"]
    moves = actor(drive, first_row(drive))
    assert (moves[:, 3] == 0.0).all() and (np.abs(moves[:, 6]) < 0.8).all()
    assert drive["collisions"] and all(kind.startswith("vehicle.") for kind in drive["collisions"])
    accident = drives(URBAN)["accident"]
    assert len(accident["trace"][-1][4]) == 2 and accident["collisions"] == []


def test_a_flow_comes_against_who_turns_left():
    drive = drives(URBAN)["left"]
    rows = {a[0] for t in drive["trace"] for a in t[4]}
    assert len(rows) > 4
    fastest = max(a[1] for t in drive["trace"] for a in t[4])
    assert 7.5 < fastest < 8.1
    gone = [row for row in rows if actor(drive, row)[-1, 0] < drive["ticks"] - 1]
    assert len(gone) > 2 and drive["collisions"] == []  # they passed while the ego waited


def test_a_runner_meets_an_ego_that_does_not_look():
    drive = drives(URBAN)["runner"]
    moves = actor(drive, first_row(drive))
    assert moves[0, 3] == 0.0 and moves[:, 3].max() > 4.5
    nearest = min(np.hypot(a[3] - t[2] - 2.0, a[4]) for t in drive["trace"] for a in t[4])
    assert drive["collisions"] or nearest < 8.0


def test_a_runner_starts_the_earlier_the_slower_it_starts():
    full = 60.0 / 3.6
    assert run_s(2.0 * full, full) == pytest.approx(2.0)
    assert run_s(16.0, 0.0) == pytest.approx(4.0)  # 2 m/s^2 all the way
    assert run_s(full**2 / 4.0 + full, 0.0) == pytest.approx(full / 2.0 + 1.0)  # to 60 km/h, and a second of it
    assert run_s(36.0, 10.0) == pytest.approx((244.0**0.5 - 10.0) / 2.0)


def test_works_of_cones_close_the_lane():
    drive = drives(URBAN)["works"]
    assert phases(drive)[:2] == ["placed", "running"] and drive["trace"][-1][5] > 8


def test_a_flow_fills_the_lane_into_which_the_ego_merges():
    drive = drives(URBAN)["merge"]
    assert len({a[0] for t in drive["trace"] for a in t[4]}) > 2
    on_route = [a for t in drive["trace"] for a in t[4] if abs(a[4]) < 0.5 and a[3] > t[2]]
    assert on_route  # before the ego, in its lane


def test_a_car_cuts_in_from_the_next_lane():
    drive = drives(HIGHWAY)["beside"]
    row = first_row(drive)
    before, moves = actor(drive, row, "placed"), actor(drive, row, "running")
    assert abs(before[-1, 6]) > 2.5 and np.abs(moves[:200, 6]).min() < 0.5  # within 10 s
    assert 5.0 < before[-1, 5] - before[-1, 1] < 40.0


def test_what_cannot_be_played_is_told_by_name():
    seen = drives(URBAN)
    assert seen["odd"]["missing"] == [
        "odd (ParkingExit): unknown: the car would have to start on a parking lane, and drive's maps have driving lanes only"
    ]
    assert phases(seen["plain"]) == ["no actors"] and seen["plain"]["missing"] == []


def test_one_seed_is_one_scenario():
    """Traffic, ego and actors, to the bit."""
    text = json.loads(HIGHWAY)
    text["drives"] = [text["drives"][0]] * 2
    text["seconds"] = 20
    done = subprocess.run([sys.executable, str(HERE / "carla_drives.py"), json.dumps(text)], capture_output=True, text=True, timeout=300, check=True)
    first, again = json.loads(done.stdout)
    assert first["trace"] == again["trace"] and first["digest"] == again["digest"]


@dataclass
class Listed:
    name: str
    type: str
    trigger: np.ndarray
    parameters: list = field(default_factory=list)


def test_triggers_of_a_file_become_places_on_the_route():
    route = route_along(load_town("urban_a"), tuple(LEFT))
    x, y, heading = route.path[100]
    trigger = np.array([x, -y, 0.0, -np.degrees(heading)])
    here = Listed("a", "ParkedObstacle", trigger, [("distance", {"value": "40"}), ("source", {"from": "15", "to": "25"})])
    against = Listed("b", "ParkedObstacle", trigger + (0.0, 0.0, 0.0, 0.0))
    off = Listed("c", "ParkedObstacle", trigger + (500.0, 0.0, 0.0, 0.0))
    specs, missed = specs_on_route(route, [here, against, off])
    assert [s.name for s in specs] == ["a", "b"] and missed == ["c"]
    assert abs(specs[0].trigger_s - route.s[100]) < 1.0
    assert specs[0].values == {"distance": "40", "source.from": "15", "source.to": "25"}


def test_every_kind_goes_by_its_own_name():
    assert all(kind_of(kind) == kind for kind in KINDS) and kind_of("ParkingExit") is None
    runner = ScenarioRunner([ScenarioSpec("x", "merging", 10.0)], 0)
    assert runner.phases == {"x": Phase.WAITING} and runner.missing() == []


def test_of_the_published_types_only_one_is_not_played():
    files = [f for f in sorted(REAL.rglob("*.xml")) if "route" in f.name or "bench2drive" in f.name] if REAL.is_dir() else []
    if not files:
        pytest.skip("no route files")
    found = {f.name: Counter(s.get("type", "") for s in ElementTree.parse(f).getroot().iter("scenario")) for f in files}
    unknown = {name: {k: n for k, n in types.items() if not kind_of(k) and k not in NO_ACTORS} for name, types in found.items()}
    assert sum(found["bench2drive220.xml"].values()) == 220 and unknown["bench2drive220.xml"] == {"ParkingExit": 5}
    assert all(set(types) <= set(NOT_PLAYED) for types in unknown.values())
