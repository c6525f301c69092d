"""Displacement metrics on cases worked out by hand."""

import numpy as np
import pytest

from drive.core.errors import DataError
from drive.metrics.displacement import ade, displacement, fde, heading_error, min_ade, min_fde, missed

TRUTH = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
LEFT = TRUTH + np.array([[0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 3.0, 0.0]])
NEAR = TRUTH + np.array([[3.0, 4.0, 0.1], [0.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
CANDIDATES = np.stack([LEFT, NEAR])


def test_ade_is_the_mean_and_fde_the_last():
    np.testing.assert_allclose(displacement(NEAR, TRUTH), [5.0, 0.0, 1.0])
    np.testing.assert_allclose(ade(CANDIDATES, TRUTH), [2.0, 2.0])
    np.testing.assert_allclose(fde(CANDIDATES, TRUTH), [3.0, 1.0])


def test_best_of_k_counts_the_first_k_alone():
    assert min_fde(CANDIDATES, TRUTH, 1) == 3.0
    assert min_fde(CANDIDATES, TRUTH, 2) == 1.0
    worse = np.stack([LEFT, LEFT + 1.0])
    np.testing.assert_allclose(min_ade(np.stack([CANDIDATES, worse]), np.stack([TRUTH, TRUTH]), 2), [2.0, 2.0])


def test_miss_needs_every_candidate_beyond_two_metres():
    assert missed(CANDIDATES, TRUTH, 1)
    assert not missed(CANDIDATES, TRUTH, 2)
    assert not missed(TRUTH[None] + np.array([2.0, 0.0, 0.0]), TRUTH, 1), "at the threshold is no miss"


def test_heading_error_goes_the_short_way_round():
    turned = TRUTH + np.array([0.0, 0.0, 2 * np.pi - 0.2])
    assert heading_error(turned, TRUTH) == pytest.approx(0.2)
    assert heading_error(NEAR, TRUTH) == pytest.approx(0.1)


def test_axes_broadcast():
    many = np.broadcast_to(CANDIDATES, (4, 2, 3, 3))
    assert ade(many, TRUTH).shape == (4, 2)
    assert missed(many, np.broadcast_to(TRUTH, (4, 3, 3)), 2).shape == (4,)


@pytest.mark.parametrize("poses", [np.zeros((2, 3)), np.full((3, 3), np.nan), np.zeros(3)])
def test_what_cannot_be_compared_is_refused(poses):
    with pytest.raises(DataError):
        ade(poses, TRUTH)


def test_more_candidates_than_there_are_is_refused():
    with pytest.raises(DataError, match="best of 6"):
        min_ade(CANDIDATES, TRUTH, 6)
    with pytest.raises(DataError, match="heading"):
        heading_error(TRUTH[:, :2], TRUTH[:, :2])
