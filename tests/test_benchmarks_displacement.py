# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
"""ADE, FDE, miss and their best of k by hand; who picked a plan stands beside every best of several; rfs on hand-made ratings."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toy_scenes import toy_scenario

from drive.benchmarks.displacement import AdeAv2, WaymoMotion
from drive.benchmarks.evaluate import Scored, evaluate
from drive.benchmarks.named import make_benchmark, style_of
from drive.benchmarks.pdms import Pdms
from drive.benchmarks.rater_feedback import Rfs
from drive.benchmarks.results import Pick, Style
from drive.core.errors import DataError
from drive.core.types import Plan, PlanStatus, Trajectory
from drive.planners.constant_velocity import ConstantVelocity
from drive.planners.pdm import PdmExpert
from drive.report.plans import add_evaluation, parts_text
from drive.report.tables import columns, markdown_table, read_results, table_cells, text_table

FREE = [i for i in range(6) if i % 3]  # the log keeps its speed


@pytest.fixture(scope="module")
def scenes():
    return [toy_scenario(i) for i in FREE]


class Aside(ConstantVelocity):
    """Constant velocity `offsets[0]` m to the left, with alternatives at the other offsets; steps `cut`."""

    name = "aside"

    def __init__(self, *offsets, fails=(), cut=10):
        self.offsets, self.fails, self.cut = offsets, fails, cut

    def plan(self, observations):
        """A plan with its alternatives."""
        out = []
        for observation, plan in zip(observations, super().plan(observations)):
            moved = [Trajectory(plan.trajectory.poses[: self.cut] + [0.0, offset, 0.0]) for offset in self.offsets]
            failed = observation.id in self.fails
            out.append(Plan(None, PlanStatus.FAILED) if failed else Plan(moved[0], alternatives=tuple(moved[1:])))
        return out


def cells(result, style):
    return dict(zip(columns(style), table_cells([result], style)[0]))


@pytest.mark.parametrize("make", [AdeAv2, WaymoMotion])
def test_an_offset_is_measured_and_the_best_of_several_is_an_oracles(scenes, make):
    benchmark = make()
    alone = evaluate(benchmark, scenes, Aside(3.0))
    assert alone.mean() == pytest.approx(3.0, abs=1e-6) and alone.coverage == 1.0
    several = evaluate(benchmark, scenes, Aside(3.0, 4.0, -0.5))
    assert several.mean() == pytest.approx(3.0, abs=1e-6)  # the planner's own choice: alternatives change nothing
    best = next(name for name in benchmark.style.shown if name.startswith("minADE"))
    assert several.mean(best) == pytest.approx(0.5, abs=1e-6)
    assert cells(several, benchmark.style)[best] == "0.50 (oracle, best of 3)"
    assert cells(alone, benchmark.style)[best] == "3.00 (deployable)"
    assert {row.candidates for row in several.rows} == {3}


def test_a_short_alternative_costs_the_plan_nothing(scenes):
    class Cut(Aside):
        def plan(self, observations):
            return [replace(p, alternatives=tuple(Trajectory(t.poses[:4]) for t in p.alternatives)) for p in super().plan(observations)]

    alone, cut = (evaluate(AdeAv2(), scenes, planner) for planner in (Aside(3.0), Cut(3.0, 0.0)))
    assert cut.coverage == 1.0 and cut.mean() == alone.mean()


def test_av2_misses_beyond_two_metres(scenes):
    for offset, missed in ((1.99, 0.0), (2.01, 100.0)):
        result = evaluate(AdeAv2(), scenes, Aside(offset))
        assert result.mean("miss %") == result.mean("miss_k %") == missed and result.mean("fde") == pytest.approx(offset, abs=1e-6)
    assert evaluate(AdeAv2(), scenes, Aside(9.0, 1.0)).mean("miss_k %") == 0.0
    assert evaluate(AdeAv2(), scenes, Aside(*[9.0] * 6, 0.0)).mean("minFDE") == pytest.approx(9.0)  # six candidates at most, in the planner's order


def test_waymo_measures_at_three_and_five_seconds_and_at_eight_only_where_there_are_eight(scenes):
    result = evaluate(WaymoMotion(), scenes, Aside(1.5))
    assert result.mean("ade 3 s") == result.mean("fde 5 s") == pytest.approx(1.5, abs=1e-6)
    assert math.isnan(result.mean("ade 8 s")) and math.isnan(result.mean("miss_k 8 s %"))
    speeds = [scene.ego.state(scene.present).speed for scene in scenes]
    scale = [0.5 + 0.5 * (speed - 1.4) / 9.6 for speed in speeds]  # 1.5 m sideways against 1.8 m times it at 5 s
    assert result.mean("miss 5 s %") == pytest.approx(100.0 * np.mean([1.8 * factor < 1.5 for factor in scale]))


def test_safety_stands_beside_it(scenes):
    blocked = [toy_scenario(0), toy_scenario(3)]
    result = evaluate(AdeAv2(), blocked, ConstantVelocity())
    assert result.mean("overlap %") == 100.0 and result.mean("off-road %") == 0.0  # into the stopped car
    assert evaluate(AdeAv2(), blocked, Aside(-1.0)).mean("off-road %") == 100.0
    nowhere = [replace(scene, notes={"map": "corridor"}) for scene in blocked]
    result = evaluate(AdeAv2(), nowhere, Aside(0.0, fails=(nowhere[0].id,)), expected=3)
    assert math.isnan(result.mean("off-road %")) and result.mean("overlap %") == 100.0
    assert cells(result, AdeAv2.style)["off-road %"] == "-"


def test_failures_cost_and_show(scenes, capsys):
    result = evaluate(AdeAv2(), scenes, Aside(0.0, fails=(scenes[0].id,)))
    assert result.mean() == pytest.approx(50.0 / len(scenes), abs=1e-6) and result.mean("miss_k %") == 100.0 / len(scenes)
    assert "count 50 in its means, 100 in miss %, miss_k %, uncomfortable % and 2 more" in text_table([result], "x", AdeAv2.style)
    assert evaluate(AdeAv2(), scenes, Aside(0.0, cut=9)).coverage == 0.0
    assert "5 s" in capsys.readouterr().err


def test_the_label_stands_in_every_output(scenes, tmp_path):
    result = evaluate(AdeAv2(), scenes, Aside(3.0, 0.5))
    for text in (text_table([result], "x", AdeAv2.style), markdown_table([result], "x", AdeAv2.style), parts_text(result.rows[0], AdeAv2.style)):
        assert text.count("oracle, best of 2") == 3  # minADE, minFDE, miss_k
    add_evaluation(tmp_path, result, {}, "digest", scenes, AdeAv2.style)
    summary = json.loads((tmp_path / "results.json").read_text())["results"][0]["summary"]
    assert summary["picked"]["minADE"] == "oracle, best of 2" and summary["picked"]["score"] == summary["picked"]["fde"] == "deployable"
    back = read_results(tmp_path).results[0]
    assert back.pick is Pick.DEPLOYABLE and back.rows[0].candidates == 2 and back.worst_parts == result.worst_parts
    assert table_cells([back], AdeAv2.style) == table_cells([result], AdeAv2.style)


def test_a_teacher_is_no_contestant(scenes):
    assert cells(evaluate(Pdms(), scenes[:1], PdmExpert()), Pdms.style)["pick"] == "privileged"
    assert cells(evaluate(Pdms(), scenes[:1], ConstantVelocity()), Pdms.style)["pick"] == "deployable"


class Forgetful(Pdms):
    """Picks the best of several and does not say so."""

    most_candidates = 6

    def best_of(self, scenario, candidates, index):
        """A part of its own."""
        return {"ep": 1.0}


class Smuggler(AdeAv2):
    """Hides a best of several behind another name."""

    def best_of(self, scenario, candidates, index):
        """The right values under a deployable part's name."""
        return {**super().best_of(scenario, candidates, index), "fde": 0.0}


class Silent:
    """Names oracle parts and has none."""

    style = Style("silent", ("a",), ("a",), oracle=("a",))
    needs_map = False

    def accepts(self, scenario):
        """Everything."""
        return True

    def score(self, scenario, trajectory, index):
        """One."""
        return Scored(1.0, {"a": 1.0})

    def finish(self, rows, scored, scenarios):
        """As they are."""
        return rows


@pytest.mark.parametrize("benchmark", [Forgetful(), Smuggler(), Silent()])
def test_a_benchmark_cannot_forget_the_label(scenes, benchmark):
    with pytest.raises(TypeError, match=r"best_of|ground truth"):
        evaluate(benchmark, scenes, Aside(0.0, 1.0))


def test_styles_name_their_own_parts_alone():
    with pytest.raises(ValueError, match="has no parts"):
        Style("x", ("a",), ("a",), oracle=("b",))
    for name in ("ade_av2_5s", "waymo_motion", "rfs", "l2_uniad", "l2_stp3", "pdms_v1_1", "epdms_v2_2"):
        assert make_benchmark(name).style is style_of(name) and style_of(name).name == name


def ratings(scene, *scored):
    """The scene with rated paths: (metres to the left of the log's, score)."""
    times = 0.25 * np.arange(1, 21)
    speed = scene.ego.state(scene.present).speed
    records = [{"poses": np.column_stack([speed * times, np.full(20, offset)]).tolist(), "score": score} for offset, score in scored]
    return replace(scene, notes={**scene.notes, "rater_trajectories": records})


def test_rfs_of_a_rated_path_is_its_rating(scenes):
    rated = [ratings(scenes[0], (0.0, 9.0), (4.0, 2.0)), ratings(scenes[1], (0.0, 7.0))]
    result = evaluate(Rfs(), [*rated, scenes[2], ratings(scenes[3], (0.0, -1.0))], ConstantVelocity())
    assert result.expected == 2 and result.mean() == pytest.approx(8.0) and result.mean("ade 5 s") == pytest.approx(0.0, abs=1e-6)
    assert evaluate(Rfs(), rated, Aside(30.0)).mean() == pytest.approx(4.0)  # nobody's path
    # from the best rated one, 4 m off but for the first quarter second, half-way between the origin and the plan
    assert evaluate(Rfs(), rated, Aside(4.0)).mean("ade 3 s") == pytest.approx(4.0 - 2.0 / 12.0)
    failed = evaluate(Rfs(), rated, Aside(0.0, fails=(rated[0].id,)))
    assert failed.mean() == pytest.approx(3.5) and failed.mean("ade 3 s") == pytest.approx(25.0)


def test_rfs_refuses_data_without_ratings_and_torn_ones(scenes):
    with pytest.raises(DataError, match="none of the 4 scenes belongs to the set of rfs \\(frames that people rated"):
        evaluate(Rfs(), scenes, ConstantVelocity())
    for torn in ([{"poses": [[0.0, 0.0]]}], [{"poses": [1.0, 2.0], "score": 3.0}], 7):
        with pytest.raises(DataError, match="rater_trajectories are no list"):
            evaluate(Rfs(), [replace(scenes[0], notes={"rater_trajectories": torn})], ConstantVelocity())
