import math

import numpy as np
import pytest

from drive.report.plots import Series, chart, metric_groups, metric_series, number, smooth, ticks


def test_series_skip_what_is_no_finite_number():
    lines = [{"step": 1, "a": 1.0, "note": "x", "flag": True}, {"step": 2, "a": math.nan, "b": 3}, {"step": 3, "a": 2.0}]
    found = metric_series(lines)
    assert list(found) == ["a", "b"]
    assert (found["a"].steps, found["a"].values) == ([1.0, 3.0], [1.0, 2.0])


def test_related_metrics_share_a_chart_and_timings_come_last():
    names = ["time/rollout_s", "learning_rate", "kl", "reward/fee", "reward", "action_loss", "language_loss"]
    names += ["val/think_rate", "think_rate", "odd"]
    groups = metric_groups({name: Series(name, [1.0], [1.0]) for name in names})
    assert list(groups) == ["loss", "reward", "kl", "think_rate", "odd", "learning_rate", "time/rollout_s"]
    assert [curve.name for curve in groups["think_rate"]] == ["val/think_rate", "think_rate"]
    assert len(groups["reward"]) == len(groups["loss"]) == 2


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-3.0, 12.0, [0, 5, 10]), (5.0, 5.0, [5.0]), (0.0, 2e-4, None)],
)
def test_ticks_are_round_and_inside(low, high, wanted):
    found = ticks(low, high)
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in found)
    assert wanted is None or np.allclose(found, wanted)
    assert 1 <= len(found) <= 11


def test_smoothing_keeps_a_constant_and_does_not_lag():
    assert np.allclose(smooth([2.0] * 50, 3.0), 2.0)
    line = smooth(list(range(101)), 2.0)
    assert line[50] == pytest.approx(50.0) and np.all(np.diff(line) > 0)


def test_numbers_are_short():
    given = (0.0, 0.12345, 1234.5, 1e-5, -2.5, 3e7)
    assert [number(value) for value in given] == ["0", "0.123", "1,234", "1.00e-5", "-2.5", "3.00e7"]


def test_chart_draws_inside_its_frame_and_escapes_names():
    values = [1e6 if k == 50 else float(k) for k in range(100)]
    curve = Series("<script>alert(1)</script>", [float(k) for k in range(100)], values)
    text = chart("t & t", [curve, Series("one point", [3.0], [2.0])])
    assert "<script>" not in text and "t &amp; t" in text
    path = text.split('class="raw c0" d="M')[1].split('"')[0]
    points = np.array([[float(v) for v in pair.split()] for pair in path.split("L")])
    assert len(points) == 100
    assert points[:, 0].min() >= 0 and points[:, 0].max() <= 460 and points[:, 1].min() >= 0 and points[:, 1].max() <= 230
    assert text.count("<circle") == 1  # a short curve shows its points
    assert points[10, 1] > points[40, 1]  # upward is up


def test_chart_of_one_value_does_not_divide_by_zero():
    assert "nan" not in chart("flat", [Series("flat", [5.0], [0.0])])
