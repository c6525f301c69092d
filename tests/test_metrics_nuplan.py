"""nuPlan's metrics: hand-made cases, and the expected values of nuPlan's own test scenes that need no nuPlan map."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.core.types import AgentType, Tracks
from drive.core.vehicle import PACIFICA
from drive.metrics.nuplan_comfort import comfort_signals, comfortable, mean_speed, within_bounds
from drive.metrics.nuplan_open_loop import expert_errors, open_loop_errors
from drive.metrics.nuplan_safety import Contact, collision_score, find_collisions, times_to_collision, ttc_score

FOLDER = Path(__file__).resolve().parents[2] / "shared/data/real/motional__nuplan-devkit/nuplan/planning/metrics/evaluation_metrics"
FOLDER = FOLDER / "common/test/json"
real = pytest.mark.skipif(not FOLDER.exists(), reason="nuPlan's test scenes are not at hand")
TYPES = {
    "vehicles": AgentType.VEHICLE,
    "bicycles": AgentType.BICYCLE,
    "pedestrians": AgentType.PEDESTRIAN,
    "genericobjects": AgentType.GENERIC_OBJECT,
}


def scene(name):
    return json.loads((FOLDER / name).read_text())


def ego_states(content):
    """(states (T, 11), s between them) of a scene's ego."""
    records = [content["ego"], *content.get("ego_future_states", [])]
    states = np.zeros((len(records), 11))
    states[:, :7] = [[*r["pose"], *r["velocity"], *r["acceleration"]] for r in records]
    times = [r["time_us"] * 1e-6 for r in records]
    return states, float(np.diff(times).mean()) if len(times) > 1 else 1.0


def tracks_of(content):
    """Tracks over the scene's steps; sizes there are width, length."""
    worlds = [content["world"], *content.get("world_future_states", [])]
    found = {}
    for step, world in enumerate(worlds):
        for kind, agent_type in TYPES.items():
            for item in world.get(kind, []):
                found.setdefault((kind, item["id"]), (agent_type, []))[1].append((step, item))
    count, steps = len(found), len(worlds)
    poses, velocity, valid, size = np.zeros((count, steps, 3)), np.zeros((count, steps, 2)), np.zeros((count, steps), bool), np.ones((count, 3))
    for a, (_, seen) in enumerate(found.values()):
        for step, item in seen:
            width, length = item["box"]["size"]
            x, y, heading = item["box"]["pose"]
            poses[a, step], valid[a, step], size[a, :2] = (x, y, heading), True, (length, width)
            velocity[a, step] = item["speed"] * np.array([math.cos(heading), math.sin(heading)])
    return Tracks(tuple(f"{k}{i}" for k, i in found), np.array([t for t, _ in found.values()], np.int64), size, poses, velocity, valid)


def statistics(content):
    expected = content["expected"]
    expected = expected[0] if isinstance(expected, list) else expected
    return [value for _, value in expected["statistics"]], expected.get("time_series")


@real
@pytest.mark.parametrize(
    ("name", "key", "bounded"),
    [
        ("ego_acceleration", "acceleration", False),
        ("ego_jerk", "jerk", True),
        ("ego_lon_acceleration", "lon_acceleration", True),
        ("ego_lat_acceleration", "lat_acceleration", True),
        ("ego_lon_jerk", "lon_jerk", True),
        ("ego_yaw_rate", "yaw_rate", False),  # the scene turns at 2.4 rad/s and its test allows that; nuPlan's configuration does not
    ],
)
def test_comfort_equals_nuplan(name, key, bounded):
    content = scene(f"{name}/{name}.json")
    values, series = statistics(content)
    signals = comfort_signals(*ego_states(content))
    signal = signals[key]
    np.testing.assert_allclose([signal.max, signal.min, signal.mean, signal.p90], values[:4], rtol=1e-5, atol=1e-2)
    np.testing.assert_array_equal(np.round(signal.values, 2), series["values"])
    if bounded:
        assert within_bounds(signals)[key] is values[4]


@real
def test_mean_speed_equals_nuplan():
    content = scene("ego_mean_speed/ego_mean_speed.json")
    assert mean_speed(ego_states(content)[0]) == pytest.approx(statistics(content)[0][0], abs=1e-2)


@real
@pytest.mark.parametrize("name", ["active_front", "active_rear", "no", "stopped_ego", "stopped_track"])
def test_collisions_equal_nuplan(name):
    content = scene(f"no_ego_at_fault_collision/{name}_collision.json")
    values, _ = statistics(content)
    states, _ = ego_states(content)
    found = find_collisions(states, tracks_of(content), np.zeros(len(states), bool))
    fault = [c for c in found if c.at_fault]
    counts = [sum(c.group == group for c in fault) for group in ("vru", "vehicle", "object")]
    assert [not fault, len(fault), *counts] == values[:5]
    if fault:
        lost = [c.delta_v for c in fault]
        np.testing.assert_allclose(np.array([max(lost), min(lost), np.mean(lost)]), values[5:], rtol=1e-5, atol=1e-2)
    if name != "no":
        wanted = {"active_front": Contact.FRONT, "active_rear": Contact.REAR, "stopped_ego": Contact.STOPPED_EGO}
        assert wanted.get(name, Contact.STOPPED_TRACK) in {c.contact for c in found}


@real
@pytest.mark.parametrize("name", ["no_relevant_tracks", "ego_stopped", "no_collisions"])
def test_time_to_collision_equals_nuplan(name):
    content = scene(f"time_to_collision_within_bound/{name}.json")
    values, series = statistics(content)
    states, _ = ego_states(content)
    tracks, none = tracks_of(content), np.zeros(len(states), bool)
    times = times_to_collision(states, tracks, find_collisions(states, tracks, none), none, none, horizon=content["metric_parameters"]["time_horizon"])
    assert times.min() == values[0]
    assert bool(ttc_score(times)) is values[1]
    np.testing.assert_array_equal(times, series["values"])


def straight_plans(content):
    """Box centres (F, 8, 3) at 1 Hz of the planner of nuPlan's tests: straight on, braking for ever once above 5 m/s."""
    plans = []
    for record in [content["ego"], *content["ego_future_states"]]:
        (x, y, heading), (speed, side), brake, poses = record["pose"], record["velocity"], 0.0, []
        for _ in range(8):
            total = math.hypot(speed, side)
            brake = 5.0 - total if total > 5.0 else brake
            x, y = x + speed * math.cos(heading), y + speed * math.sin(heading)
            speed, side = speed + brake, 0.0
            poses.append((x, y, heading))
        plans.append(poses)
    return centres(np.array(plans))


def centres(poses):
    forward = PACIFICA.rear_to_center * np.stack([np.cos(poses[..., 2]), np.sin(poses[..., 2])], axis=-1)
    return np.concatenate([poses[..., :2] + forward, poses[..., 2:]], axis=-1)


def open_loop(name):
    content = scene(name)
    plans = straight_plans(content)
    driven = np.array([r["pose"] for r in content["expert_ego_states"]])
    expert = np.stack([driven[i + 1 : i + 9] for i in range(len(plans))])
    return open_loop_errors(plans, centres(expert)), statistics(content)[0]


@real
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("planner_expert_average_l2_error_within_bound/high_average_l2_error", "ade"),
        ("planner_expert_average_heading_error_within_bound/low_average_heading_error", "ahe"),
        ("planner_expert_final_heading_error_within_bound/low_final_heading_error", "fhe"),
    ],
)
def test_open_loop_errors_equal_nuplan(name, key):
    errors, values = open_loop(name + ".json")
    found = getattr(errors, key)
    np.testing.assert_allclose([*found.mean(axis=1), found.mean()], [*values[:3], values[4]], rtol=1e-5, atol=1e-2)
    limit = 8.0 if key == "ade" else 0.8
    assert bool(found.mean() <= limit) is values[3]


@real
def test_miss_rate_equals_nuplan():
    errors, values = open_loop("planner_miss_rate_within_bound/high_miss_rate.json")
    np.testing.assert_allclose(errors.miss_rate, values[:3])
    assert bool(errors.parts["miss_rate"]) is values[3]
    assert errors.score == 0.0


@real
@pytest.mark.parametrize(("name", "weight"), [("ego_expert_l2_error", 0.0), ("ego_expert_l2_error_with_yaw", 2.5)])
def test_expert_errors_equal_nuplan(name, weight):
    content = scene(f"{name}/{name}.json")
    (largest, mean, p90), _ = statistics(content)
    driven = np.array([r["pose"] for r in [content["ego"], *content["ego_future_states"]]])
    expert = np.array([r["pose"] for r in content["expert_ego_states"]])
    found = expert_errors(centres(driven), centres(expert), weight)
    got = [found.max(), found.mean(), np.percentile(found, 90, method="nearest")]
    np.testing.assert_allclose(got, [largest, mean, p90], rtol=1e-5, atol=1e-2)


def history(speeds, dt=0.1):
    """States of a straight drive along x."""
    states = np.zeros((len(speeds), 11))
    states[:, 3] = speeds
    states[1:, 0] = np.cumsum(np.asarray(speeds)[:-1] * dt)
    return states


def one_track(x, y=0.0, heading=0.0, speed=0.0, steps=30, kind=AgentType.VEHICLE, dt=0.1):
    poses = np.tile([x, y, heading], (1, steps, 1)).astype(float)
    poses[0, :, 0] += speed * math.cos(heading) * dt * np.arange(steps)
    velocity = np.tile(speed * np.array([math.cos(heading), math.sin(heading)]), (1, steps, 1))
    return Tracks(("a",), np.array([kind]), np.array([[4.0, 2.0, 1.5]]), poses, velocity, np.ones((1, steps), bool))


def test_a_standing_car_is_run_into_once():
    states, tracks, none = history(np.full(30, 10.0)), one_track(15.0), np.zeros(30, bool)
    found = find_collisions(states, tracks, none)
    assert [(c.step, c.contact, c.at_fault, c.group) for c in found] == [(9, Contact.STOPPED_TRACK, True, "vehicle")]
    assert found[0].delta_v == pytest.approx(5.0)
    assert collision_score(found) == 0.0
    times = times_to_collision(states, tracks, found, none, none)
    assert times[9] == 0.0
    # at the start 15 - 2 - 4.049 = 8.951 m are left, 0.9 s at 10 m/s
    np.testing.assert_allclose(times[:9], 0.9 - 0.1 * np.arange(9), atol=1e-9)
    assert np.isinf(times[10:]).all()
    assert ttc_score(times) == 0.0


def test_one_object_halves_the_score_and_two_take_it():
    states, none = history(np.full(30, 10.0)), np.zeros(30, bool)
    found = find_collisions(states, one_track(15.0, kind=AgentType.TRAFFIC_CONE), none)
    assert found[0].group == "object"
    assert collision_score(found) == 0.5
    assert collision_score(found * 2) == 0.0


def test_a_lateral_contact_is_a_fault_only_outside_one_lane():
    states, tracks = history(np.full(30, 10.0)), one_track(1.0, y=2.0, speed=10.0)
    for outside in (False, True):
        found = find_collisions(states, tracks, np.full(30, outside))
        assert [(c.contact, c.at_fault) for c in found] == [(Contact.LATERAL, outside)]


def test_tracks_beside_the_ego_matter_outside_one_lane_or_in_an_intersection():
    states, tracks = history(np.full(30, 10.0)), one_track(3.0, y=4.0, heading=-math.pi / 2, speed=3.0)
    tracks.poses_world[0, :, 1] -= 0.3 * np.arange(30)
    none, all_of = np.zeros(30, bool), np.ones(30, bool)
    first = slice(0, 1)
    cut = (states[first], tracks.steps(0, 1), [])
    assert np.isinf(times_to_collision(*cut, none[first], none[first]))
    for flags in ((all_of, none), (none, all_of)):
        assert times_to_collision(*cut, flags[0][first], flags[1][first]) < 0.95


def test_comfort_of_a_steady_and_of_a_braking_drive():
    steady = history(np.full(40, 8.0))
    braking = history(np.maximum(8.0 - 6.0 * 0.1 * np.arange(40), 0.0))
    braking[:, 5] = -6.0
    assert (comfortable(steady, 0.1), comfortable(braking, 0.1)) == (1.0, 0.0)
    assert within_bounds(comfort_signals(braking, 0.1))["lon_acceleration"] is False


def test_open_loop_score_by_hand():
    expert = np.zeros((4, 8, 3))
    expert[..., 0] = 5.0 * np.arange(1, 9)
    plans = expert.copy()
    plans[..., 1] = 2.0
    plans[..., 2] = 0.2
    errors = open_loop_errors(plans, expert)
    assert errors.parts == pytest.approx({"ade": 0.75, "fde": 0.75, "ahe": 0.75, "fhe": 0.75, "miss_rate": 1.0})
    assert errors.score == pytest.approx(0.75)
    plans[:2, -1, 1] = 20.0  # two of four frames miss at 8 s
    assert open_loop_errors(plans, expert).score == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: open_loop_errors(np.zeros((2, 7, 3)), np.zeros((2, 7, 3))),
        lambda: open_loop_errors(np.full((2, 8, 3), np.nan), np.zeros((2, 8, 3))),
        lambda: expert_errors(np.zeros((2, 3)), np.zeros((3, 3))),
        lambda: comfort_signals(np.zeros((3, 11)), 0.1),
        lambda: comfort_signals(np.zeros((30, 7)), 0.1),
        lambda: find_collisions(np.zeros((4, 11)), one_track(0.0), np.zeros(4, bool)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(DataError):
        call()
