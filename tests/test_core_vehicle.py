"""The tracker and the bicycle: cases of known answer, and the banded solves against the dense ones they stand for."""

import numpy as np
import pytest

from drive.core import tracker
from drive.core.errors import DataError
from drive.core.geometry import compose, wrap_angle
from drive.core.seeds import numpy_rng
from drive.core.types import EgoState
from drive.core.vehicle import PACIFICA, sample_times_us, simulate, state_array, targets_from_plan

DT = 0.1


def start(speed=0.0, acceleration=0.0, steering=0.0):
    state = np.zeros((1, 11))
    state[0, 3], state[0, 5], state[0, 7] = speed, acceleration, steering
    return state


def straight(speed, steps=40):
    return np.column_stack([speed * DT * np.arange(steps + 1), np.zeros(steps + 1), np.zeros(steps + 1)])[None]


def circle(speed, radius, steps=40):
    heading = speed * DT * np.arange(steps + 1) / radius
    return np.column_stack([radius * np.sin(heading), radius * (1 - np.cos(heading)), heading])[None]


def rough_targets(rng, count=20, steps=40):
    speed = np.maximum(rng.uniform(0, 12, (count, 1)) + np.cumsum(rng.normal(0, 0.4, (count, steps)), axis=1), 0.0)
    heading = np.cumsum(rng.normal(0, 0.02, (count, steps + 1)), axis=1)
    x = np.cumsum(DT * speed * np.cos(heading[:, :-1]), axis=1)
    y = np.cumsum(DT * speed * np.sin(heading[:, :-1]), axis=1)
    xy = np.concatenate([np.zeros((count, 1, 2)), np.stack([x, y], axis=-1)], axis=1)
    return np.concatenate([xy, heading[..., None]], axis=-1)


def test_measures_are_consistent():
    assert PACIFICA.length == pytest.approx(5.176)
    assert PACIFICA.rear_to_center == pytest.approx(1.461)


def test_constant_speed_is_kept():
    states = simulate(start(10.0), straight(10.0))
    np.testing.assert_allclose(states[0, :, 0], np.arange(41.0), atol=1e-9)
    np.testing.assert_allclose(states[0, :, [1, 2, 5, 7]], 0.0, atol=1e-9)


def test_first_step_is_the_lqr_gain_behind_the_actuator_lag():
    first = simulate(start(5.0), straight(10.0))[0, 1]
    acceleration = (10.0 / 11.0) * 5.0 / 3.0
    assert first[5] == pytest.approx(acceleration)
    assert first[3] == pytest.approx(5.0 + DT * acceleration)
    assert first[0] == pytest.approx(0.5), "Euler steps use the old speed"


def test_stopping_controller_takes_over_at_a_crawl():
    first = simulate(start(0.1, steering=0.2), np.zeros((1, 41, 3)))[0, 1]
    assert first[5] == pytest.approx(-0.5 * 0.1 / 3.0)
    assert first[7] == 0.2
    assert first[8] == 0.0


def test_steering_goes_two_thirds_of_the_way_and_is_limited():
    targets = straight(10.0)
    targets[0, :, 1] = 1.0
    states = simulate(start(10.0), targets)[0]
    assert states[1, 7] > 0.0, "a path to the left is steered to the left"
    assert states[1, 8] == pytest.approx(states[1, 7] / DT)
    wild = straight(10.0)
    wild[0, :, 2] = np.linspace(0.0, 40.0, 41)
    assert np.abs(simulate(start(10.0), wild)[..., 7]).max() == pytest.approx(PACIFICA.max_steering)


@pytest.mark.parametrize("radius", [20.0, -35.0])
def test_circle_is_followed(radius):
    states = simulate(start(6.0, steering=np.arctan(PACIFICA.wheel_base / radius)), circle(6.0, radius, 60))[0]
    assert states[-1, 9] == pytest.approx(6.0 / radius, rel=0.02)
    gap = np.hypot(*(states[:, :2] - circle(6.0, radius, 60)[0, :, :2]).T)
    assert gap.max() < 0.3
    assert (states[:, 4] == 0.0).all(), "no lateral speed in a kinematic bicycle"


def test_batch_equals_singles_bit_for_bit():
    targets = rough_targets(numpy_rng(1, "vehicle"))
    initial = np.repeat(start(5.0), len(targets), axis=0)
    batch = simulate(initial, targets)
    for n in range(len(targets)):
        np.testing.assert_array_equal(batch[n], simulate(initial[n : n + 1], targets[n : n + 1])[0])


def test_motion_does_not_depend_on_the_frame():
    targets, frame = rough_targets(numpy_rng(2, "vehicle"), steps=50), np.array([800.0, -300.0, 2.5])
    initial = np.repeat(start(5.0, 1.0, 0.05), len(targets), axis=0)
    moved = initial.copy()
    moved[:, :3] = compose(frame, initial[:, :3])
    here, there = simulate(initial, targets), simulate(moved, compose(frame, targets))
    np.testing.assert_allclose(there[..., 3:], here[..., 3:], atol=1e-8)
    gap = there[..., :3] - compose(frame, here[..., :3])
    np.testing.assert_allclose(gap[..., :2], 0.0, atol=1e-8)
    np.testing.assert_allclose(wrap_angle(gap[..., 2]), 0.0, atol=1e-8)


def dense_profiles(targets):
    """Speed and curvature (M,) by pseudo-inverse over an initial value and increments, as the controller is defined."""
    size = len(targets) - 1
    sums = np.tril(np.full((size, size), DT))
    sums[:, 0] = 1.0
    heading, step = targets[:-1, 2], np.diff(targets[:, :2], axis=0)
    travelled = np.cos(heading) * step[:, 0] + np.sin(heading) * step[:, 1]
    rough = np.zeros((size - 2, size))
    rough[:, 1:-1] = -np.eye(size - 2)
    rough[-1, -1] = 1.0
    fit = DT * sums
    speed = sums @ (np.linalg.pinv(fit.T @ fit + 1e-4 * rough.T @ rough) @ fit.T @ travelled)
    fit = DT * speed[:, None] * sums
    penalty = np.diag([1e-10] + [1e-2] * (size - 1))
    return speed, sums @ (np.linalg.pinv(fit.T @ fit + penalty) @ fit.T @ wrap_angle(np.diff(targets[:, 2])))


def fitted_profiles(targets):
    size = len(targets) - 1
    speed, curvature, scratch = np.empty(size), np.empty(size), np.empty(size)
    tracker._fit_speed(targets, *tracker.factor_speed_system(size), speed)
    tracker._fit_curvature(targets, speed, scratch, curvature)
    return speed, curvature


@pytest.mark.parametrize("steps", [10, 40, 50])
def test_banded_profiles_equal_pseudo_inverse(steps):
    for targets in rough_targets(numpy_rng(3, "vehicle", steps), steps=steps):
        for got, want in zip(fitted_profiles(targets), dense_profiles(targets)):
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_profiles_at_a_standstill_are_finite_and_small():
    still = np.zeros((41, 3))
    np.testing.assert_array_equal(fitted_profiles(still)[1], 0.0)
    turning = still.copy()
    turning[:, 2] = 0.01 * np.arange(41)
    creeping = still.copy()
    creeping[:, 0] = 1e-6 * np.arange(41)
    for targets in (turning, creeping):
        for got, want in zip(fitted_profiles(targets), dense_profiles(targets)):
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_plan_is_sampled_between_its_poses_and_held_after_its_end():
    plan = np.array([[[2.0, 0.0, 0.0], [4.0, 2.0, 0.4]]])
    targets = targets_from_plan(plan, 0.5, np.array([0.0, 0.0, 0.0]), 20)
    assert targets.shape == (1, 21, 3)
    np.testing.assert_allclose(targets[0, [0, 1, 5, 6, 10, 20]][:, 0], [0.0, 0.4, 2.0, 2.4, 4.0, 4.0], atol=1e-4)
    np.testing.assert_allclose(targets[0, 6], [2.4, 0.4, 0.08], atol=1e-4)
    np.testing.assert_array_equal(targets[0, 10], targets[0, 20])


def test_plan_starts_at_the_ego_pose_and_turns_the_short_way():
    ego = np.array([100.0, 50.0, 3.1])
    targets = targets_from_plan(np.array([[[0.0, 0.0, 0.2]]]), 0.5, ego, 5)
    np.testing.assert_allclose(targets[0, 0], ego)
    turned = wrap_angle(targets[0, :, 2] - 3.1)
    np.testing.assert_allclose(turned, 0.04 * np.arange(6), atol=1e-6)


def test_clock_cuts_sample_times_to_microseconds():
    clock = 315971918459735
    late = sample_times_us(40, clock) - clock - 100_000 * np.arange(41)
    assert set(late) <= {-1, 0}
    assert -1 in late
    plan = np.array([[[5.0 * k, 0.0, 0.0] for k in range(1, 9)]])
    gap = targets_from_plan(plan, 0.5, np.zeros(3), 40, clock) - targets_from_plan(plan, 0.5, np.zeros(3), 40)
    assert 0.0 < np.abs(gap).max() < 3e-5


def test_state_array_follows_the_named_fields():
    ego = EgoState(np.array([1.0, 2.0, 0.3]), np.array([4.0, 0.1]), np.array([0.5, 0.2]), yaw_rate=0.7, steering_angle=0.6)
    np.testing.assert_array_equal(state_array(ego), [1.0, 2.0, 0.3, 4.0, 0.1, 0.5, 0.2, 0.6, 0.0, 0.7, 0.0])


@pytest.mark.parametrize(
    ("initial", "targets", "word"),
    [
        (np.zeros((1, 11)), np.zeros((1, 10, 3)), "M >= 10"),
        (np.zeros((2, 11)), np.zeros((1, 41, 3)), "initial states"),
        (np.full((1, 11), np.nan), np.zeros((1, 41, 3)), "NaN"),
    ],
)
def test_simulate_refuses_what_does_not_fit(initial, targets, word):
    with pytest.raises(DataError, match=word):
        simulate(initial, targets)


@pytest.mark.parametrize(("plan", "dt"), [(np.zeros((2, 3)), 0.5), (np.full((1, 8, 3), np.inf), 0.5), (np.zeros((1, 8, 3)), 0.0)])
def test_targets_refuse_what_does_not_fit(plan, dt):
    with pytest.raises(DataError):
        targets_from_plan(plan, dt, np.zeros(3), 40)
