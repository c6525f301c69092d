"""Waymo Open Motion's displacement metrics on hand-made futures."""

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.metrics.waymo_motion import min_ade, min_fde, missed, speed_scale, subsample

VALID = np.ones(16, bool)


def straight(speed=10.0, side=0.0, heading=0.0):
    """(16, 3) at 2 Hz from 0.5 s on, `side` m to the left of a line along `heading`."""
    t = 0.5 * np.arange(1, 17)
    c, s = np.cos(heading), np.sin(heading)
    x, y = speed * t, np.full(16, side)
    return np.column_stack([c * x - s * y, s * x + c * y, np.full(16, heading)])


def test_subsampling_takes_every_fifth_sample_from_half_a_second_on():
    track = np.arange(80, dtype=float)[:, None] * 0.1 + 0.1
    np.testing.assert_allclose(subsample(track)[:, 0], 0.5 * np.arange(1, 17))
    with pytest.raises(DataError, match="80 samples"):
        subsample(track[:79])


def test_errors_up_to_each_horizon():
    truth = straight()
    candidates = np.stack([straight(side=3.0), straight(speed=11.0)])[..., :2]
    # the second is 0.5 m further off at each point: 0.5 k m at point k
    assert min_ade(candidates, truth, VALID, 3) == pytest.approx(np.mean(0.5 * np.arange(1, 7)))
    assert min_ade(candidates, truth, VALID, 8) == pytest.approx(3.0)
    assert min_fde(candidates, truth, VALID, 3) == pytest.approx(3.0)
    assert min_fde(candidates, truth, VALID, 8) == pytest.approx(3.0)
    assert min_fde(candidates[1:], truth, VALID, 8) == pytest.approx(8.0)


def test_the_first_k_count_in_the_order_given():
    candidates = np.stack([straight(side=float(9 - i)) for i in range(9)])[..., :2]
    assert min_ade(candidates, straight(), VALID, 8) == pytest.approx(4.0)  # the first six: 9 to 4 m
    assert min_ade(candidates, straight(), VALID, 8, k=9) == pytest.approx(1.0)


def test_invalid_truth_is_left_out_and_told():
    truth, valid = straight(), VALID.copy()
    truth[4:6], valid[4:6] = np.nan, False
    candidate = straight(side=2.0)[None, :, :2]
    assert min_ade(candidate, truth, valid, 3) == pytest.approx(2.0)
    assert np.isnan(min_fde(candidate, truth, valid, 3))
    assert np.isnan(missed(candidate, truth, valid, np.array(10.0), 3))
    assert min_fde(candidate, truth, valid, 5) == pytest.approx(2.0)
    assert np.isnan(min_ade(candidate, truth, np.zeros(16, bool), 8))


@pytest.mark.parametrize("heading", [0.0, 1.0, -2.5])
@pytest.mark.parametrize(("seconds", "lateral", "longitudinal"), [(3, 1.0, 2.0), (5, 1.8, 3.6), (8, 3.0, 6.0)])
def test_misses_are_measured_in_the_true_heading(heading, seconds, lateral, longitudinal):
    truth, speed = straight(20.0, heading=heading), np.array(20.0)

    def moved(along, across):
        c, s = np.cos(heading), np.sin(heading)
        return (truth[:, :2] + [c * along - s * across, s * along + c * across])[None]

    for along, across, expected in ((longitudinal - 0.01, 0, 0), (longitudinal + 0.01, 0, 1), (0, lateral - 0.01, 0), (0, -lateral - 0.01, 1)):
        assert missed(moved(along, across), truth, VALID, speed, seconds) == expected
    both = np.concatenate([moved(0, lateral + 1), moved(0, 0)])
    assert missed(both, truth, VALID, speed, seconds) == 0  # one candidate is enough


def test_slow_objects_miss_sooner():
    np.testing.assert_allclose(speed_scale(np.array([0.0, 1.4, 6.2, 11.0, 40.0])), [0.5, 0.5, 0.75, 1.0, 1.0])
    near = straight(side=0.6)[None, :, :2]
    assert missed(near, straight(), VALID, np.array(11.0), 3) == 0
    assert missed(near, straight(), VALID, np.array(0.0), 3) == 1


def test_batches_and_bad_shapes():
    candidates = np.stack([np.stack([straight(side=1.0)]), np.stack([straight(side=2.0)])])[..., :2]
    truth, valid = np.stack([straight()] * 2), np.ones((2, 16), bool)
    np.testing.assert_allclose(min_ade(candidates, truth, valid, 5), [1.0, 2.0])
    np.testing.assert_array_equal(missed(candidates, truth, valid, np.array([20.0, 20.0]), 5), [0.0, 1.0])
    with pytest.raises(DataError):
        min_ade(candidates[..., :15, :], truth, valid, 3)
    with pytest.raises(DataError, match="heading"):
        missed(candidates, truth[..., :2], valid, np.array([1.0, 1.0]), 3)
    with pytest.raises(DataError, match="speed"):
        missed(candidates, truth, valid, np.array([1.0, np.nan]), 3)
