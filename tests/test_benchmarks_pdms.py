"""The benchmark's contract with any planner, and the intervals beside its numbers."""

import numpy as np
import pytest
from report_cases import row
from toy_scenes import toy_scenario

from drive.benchmarks.pdms import evaluate_pdms
from drive.benchmarks.results import Result
from drive.benchmarks.statistics import bootstrap_interval, paired_interval
from drive.core.geometry import compose
from drive.core.types import Frame, Plan, PlanStatus, Trajectory
from drive.planners.constant_velocity import ConstantVelocity


class Altered(ConstantVelocity):
    """Constant velocity, its answers changed by `change(observations, plans)`."""

    name = "altered"

    def __init__(self, change):
        self.change = change

    def plan(self, observations):
        """Plans as `change` has them."""
        return self.change(observations, super().plan(observations))


@pytest.fixture(scope="module")
def scenes():
    return [toy_scenario(i) for i in range(5)]


@pytest.fixture(scope="module")
def honest(scenes):
    return evaluate_pdms(scenes, ConstantVelocity())


def scores(result):
    return [r.score for r in result.rows]


def test_a_scene_that_makes_the_planner_raise_costs_itself_alone(scenes, honest, capsys):
    alone = []

    def change(observations, plans):
        if len(observations) == 1:
            alone.append(observations[0])
        if len(observations) > 1 or len(alone) == 3:
            raise RuntimeError("no such lane")
        return plans

    result = evaluate_pdms(scenes, Altered(change), batch=5)
    assert [r.status for r in result.rows] == [PlanStatus.FAILED if i == 2 else PlanStatus.OK for i in range(5)]
    assert [s for i, s in enumerate(scores(result)) if i != 2] == [s for i, s in enumerate(scores(honest)) if i != 2]
    assert result.coverage == 0.8 and scenes[2].id in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda o, p: p[:-1], "plans came back"),
        (lambda o, p: [*p, p[0]], "plans came back"),
        (lambda o, p: [None] * len(p), "NoneType"),
        (lambda o, p: [Plan(x.trajectory, PlanStatus.FAILED) for x in p], "its status is ok"),
        (lambda o, p: [Plan(None)] * len(p), "its status is ok"),
        (lambda o, p: [Plan(Trajectory(x.trajectory.poses[:0])) for x in p], "at least one pose"),
        (lambda o, p: [Plan(Trajectory(x.trajectory.poses, t0=0.5)) for x in p], "t0 = 0"),
        (lambda o, p: [Plan(Trajectory(x.trajectory.poses, dt=0.0)) for x in p], "cannot be scored"),
    ],
)
def test_an_answer_that_is_no_plan_scores_zero_and_is_told(scenes, change, said, capsys):
    result = evaluate_pdms(scenes[:3], Altered(change), batch=3)
    assert [r.scenario_id for r in result.rows] == [s.id for s in scenes[:3]]
    assert [r.status for r in result.rows] == [PlanStatus.FAILED] * 3 and result.coverage == 0.0 and result.mean() == 0.0
    assert capsys.readouterr().err.count(said) == 3


def test_a_plan_in_the_world_frame_scores_as_in_the_ego_frame(scenes, honest):
    origins = iter([s.ego.poses_world[s.present] for s in scenes])

    def change(observations, plans):
        return [Plan(Trajectory(compose(next(origins), p.trajectory.poses), p.trajectory.dt, Frame.WORLD)) for p in plans]

    np.testing.assert_allclose(scores(evaluate_pdms(scenes, Altered(change))), scores(honest), atol=1e-9)


def test_the_score_does_not_depend_on_the_batch(scenes, honest):
    assert scores(evaluate_pdms(scenes, ConstantVelocity(), batch=2)) == scores(honest)
    assert min(scores(honest)) < max(scores(honest))  # or the comparisons above would compare nothing


def test_interval_of_independent_values_is_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    reach = 1.96 * values.std() / 20.0
    assert low == pytest.approx(values.mean() - reach, abs=0.03) and high == pytest.approx(values.mean() + reach, abs=0.03)


def test_repeating_every_value_narrows_the_interval_unless_the_repeats_are_one_group():
    values = np.random.default_rng(1).normal(0.0, 1.0, 50)
    repeated, logs = np.repeat(values, 9), np.repeat(np.arange(50), 9)

    def width(interval):
        return interval[1] - interval[0]

    once = width(bootstrap_interval(values))
    assert width(bootstrap_interval(repeated)) == pytest.approx(once / 3.0, rel=0.1)
    assert width(bootstrap_interval(repeated, logs.tolist())) == pytest.approx(once, rel=0.1)


def test_groups_of_unequal_size_weigh_by_their_size():
    low, high = bootstrap_interval(np.array([0.0] + [1.0] * 9), ["a"] + ["b"] * 9)
    assert (low, high) == (0.0, 1.0)  # both groups alone are drawn a quarter of the time each
    assert bootstrap_interval(np.array([2.0, 4.0]), ["a", "a"]) == (2.0, 4.0)  # one group: no group can be left out
    assert bootstrap_interval(np.zeros(0)) == (0.0, 0.0)


def test_pairing_takes_the_spread_of_the_scenes_away():
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 10.0, 100)
    mean, (low, high) = paired_interval(hard + 1.0 + rng.normal(0.0, 0.1, 100), hard)
    assert mean == pytest.approx(1.0, abs=0.05) and 0.95 < low < high < 1.05


def test_scenes_of_one_log_are_resampled_together():
    rows = [row(i, float(i >= 20), log_id=f"log-{i // 10}") for i in range(40)]
    result = Result("p", rows, 40)
    low, high = result.interval()
    assert result.logs == 4 and low == 0.0 and high == 1.0  # four logs, two of them all 0: 1/16 of the draws miss each side
    alone = Result("p", [row(i, float(i >= 20)) for i in range(40)], 40)
    assert alone.interval()[0] > 0.3
    assert Result("p", rows, 42).logs == 6  # unread scenes are their own
