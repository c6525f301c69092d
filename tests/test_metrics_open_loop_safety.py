"""Comfort, leaving the road and overlap of plans of known motion."""

import numpy as np
import pytest
from toy_scenes import straight_road, toy_scenario

from drive.core.errors import DataError
from drive.core.vehicle import PACIFICA
from drive.metrics.open_loop_safety import logged_boxes, off_road, overlaps, plan_signals, uncomfortable
from drive.metrics.pdms_areas import pack_areas

TIMES = 0.5 * np.arange(1, 11)


def along(s, curvature=0.0):
    """(1, T, 3) poses `s` metres along a circle."""
    s = np.asarray(s, float)
    heading = curvature * s
    x, y = (s, 0.0 * s) if not curvature else (np.sin(heading) / curvature, (1.0 - np.cos(heading)) / curvature)
    return np.column_stack([x, y, heading])[None]


def accelerating(speed, gain):
    return along(speed * TIMES + 0.5 * gain * TIMES**2)


def areas():
    polygons = straight_road().polygons
    return pack_areas(polygons, np.zeros(len(polygons), bool))


def box(x, y, heading=0.0, steps=10):
    return np.tile([x, y, heading], (1, steps, 1)).astype(float), np.ones((1, steps), bool), np.array([[4.0, 2.0]])


def test_signals_of_known_motions():
    steady = plan_signals(accelerating(8.0, 1.5), 0.5, 8.0)
    np.testing.assert_allclose(steady["lon_acceleration"], 1.5)
    np.testing.assert_allclose(steady["lon_jerk"], 0.0, atol=1e-9)
    bend = plan_signals(along(10.0 * TIMES, 0.02), 0.5, 10.0)
    np.testing.assert_allclose(bend["yaw_rate"], 0.2)
    np.testing.assert_allclose(bend["lat_acceleration"], 2.0, rtol=2e-3)  # v^2 times the curvature, a chord for an arc
    np.testing.assert_allclose(plan_signals(along(-2.0 * TIMES), 0.5, -2.0)["lon_acceleration"], 0.0, atol=1e-9)  # backwards


@pytest.mark.parametrize(
    ("plans", "speed", "wanted"),
    [
        (accelerating(8.0, 2.3), 8.0, False),
        (accelerating(8.0, 2.5), 8.0, True),  # beyond 2.40 m/s^2
        (accelerating(25.0, -4.0), 25.0, False),
        (accelerating(25.0, -4.2), 25.0, True),
        (accelerating(8.0, 0.0), 10.0, True),  # 2 m/s lost at once
        (along(14.0 * TIMES, 0.02), 14.0, False),  # 3.9 m/s^2 sideways
        (along(16.0 * TIMES, 0.02), 16.0, True),  # 5.1
    ],
)
def test_bounds_are_nuplans(plans, speed, wanted):
    assert uncomfortable(plans, 0.5, speed).tolist() == [wanted]


def test_plans_are_judged_one_by_one():
    plans = np.concatenate([accelerating(8.0, 0.0), accelerating(8.0, 3.0)])
    assert uncomfortable(plans, 0.5, 8.0).tolist() == [False, True]


def test_a_corner_beyond_the_border_is_off_the_road():
    half = PACIFICA.width / 2.0  # the road lies between -1.8 and 5.3 m
    inside, outside = along(8.0 * TIMES), along(8.0 * TIMES)
    inside[..., 1], outside[..., 1] = 5.3 - half - 0.01, 5.3 - half + 0.01
    once = inside.copy()
    once[0, 6, 1] += 0.1
    assert off_road(np.concatenate([inside, outside, once]), areas()).tolist() == [False, True, True]


def test_overlap_needs_shared_area_at_the_same_step():
    plan = along(8.0 * TIMES)
    nose = 8.0 * TIMES[4] + PACIFICA.front_length
    boxes, valid, size = box(nose + 2.0, 0.0)
    assert overlaps(plan[:, :5], boxes[:, :5], valid[:, :5], size).tolist() == [False]  # the bumpers touch
    assert overlaps(plan[:, :5], boxes[:, :5] - [0.01, 0.0, 0.0], valid[:, :5], size).tolist() == [True]
    assert overlaps(plan, boxes, valid, size).tolist() == [True]
    early = valid.copy()
    early[:, 5:] = False
    assert overlaps(plan, boxes, early, size).tolist() == [False]  # gone when the ego comes
    aside = np.stack([plan[0], plan[0] + [0.0, 4.0, 0.0]])
    assert overlaps(aside, boxes, valid, size).tolist() == [True, False]
    diagonal, ok, _ = box(20.0, PACIFICA.width / 2.0 + 2.2, np.pi / 4.0)  # its corner reaches 2.12 m down
    assert overlaps(plan, diagonal, ok, size).tolist() == [False]
    assert overlaps(plan, diagonal - [0.0, 0.2, 0.0], ok, size).tolist() == [True]
    assert overlaps(plan, np.zeros((0, 10, 3)), np.zeros((0, 10), bool), np.zeros((0, 3))).tolist() == [False]


def test_agents_count_while_the_log_has_them_and_if_they_are_there_now():
    scene = toy_scenario(0)
    boxes, valid = logged_boxes(scene, 12, 0.5)
    assert boxes.shape == (1, 12, 3) and valid[0].tolist() == [True] * 10 + [False] * 2  # the log ends after 5 s
    scene.agents.valid[0, scene.present] = False
    assert not logged_boxes(scene, 12, 0.5)[1].any()
    with pytest.raises(DataError, match="multiples"):
        logged_boxes(scene, 10, 0.25)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="finite plans"):
        uncomfortable(np.full((1, 10, 3), np.nan), 0.5, 1.0)
    with pytest.raises(DataError, match="finite plans"):
        uncomfortable(np.zeros((1, 2, 3)), 0.5, 1.0)
    with pytest.raises(DataError, match="same steps"):
        overlaps(along(TIMES), np.zeros((1, 9, 3)), np.ones((1, 9), bool), np.ones((1, 3)))
