# pyright: reportOptionalMemberAccess=false
"""How EPDMS v2.2 puts frames together: hand-made frames, NAVSIM's split files, and a published planner's 12,143 rows."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenarionet_logs
import shapely
from toy_scenes import toy_scenario

from drive.benchmarks.epdms import Epdms, Frame, Place, follow_up_weights, predecessors, score_frame, two_stage
from drive.benchmarks.evaluate import evaluate
from drive.core.errors import DataError
from drive.core.geometry import box_corners
from drive.core.types import Camera, Lights, LightState, Plan, PlanStatus, Trajectory
from drive.core.vehicle import PACIFICA
from drive.datasets.logs import LogScenes
from drive.datasets.navsim_splits import TwoStageGroup, read_scene_filter, read_two_stage_groups
from drive.datasets.scenarionet import log_of
from drive.datasets.scenarionet_log import read_log
from drive.metrics.epdms import EpdmsScene, combine, human_filter, score_epdms
from drive.planners.constant_velocity import ConstantVelocity
from drive.report.tables import read_results, table_cells, text_table, write_results

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "real"
PUBLISHED = REAL / "WZiang__navsim-score-basis-audit/score_files/matched_scope/per_token/two_sided__diffusion_drive.csv"
SPLITS = REAL / "autonomousvision__navsim/navsim/planning/script/config/common/train_test_split"
PERFECT = dict.fromkeys(("nc", "dac", "ddc", "tlc", "ep", "ttc", "lk", "hc"), 1.0)


def frame(token, log="log", time=0.0, end=(0.0, 0.0), **parts):
    """A frame whose plan stands still."""
    return Frame(token, log, time, {**PERFECT, **parts}, np.zeros((41, 11)), np.array(end))


def test_weights_of_the_score():
    assert score_frame(frame("a", ttc=0.0)) == pytest.approx(9 / 14)
    assert score_frame(frame("a", ttc=0.0), ec=1.0) == pytest.approx(11 / 16)
    assert score_frame(frame("a", ep=0.5, lk=0.0), ec=0.0) == pytest.approx((2.5 + 5 + 2) / 16)
    assert score_frame(frame("a", tlc=0.0), ec=1.0) == 0.0
    assert score_frame(frame("a", nc=0.5, ddc=0.5), ec=1.0) == 0.25


def test_a_frame_follows_the_one_half_a_second_before_it_in_its_log():
    places = [Place("c", "log", 1.0), Place("a", "log", 0.0), Place("b", "log", 0.5), Place("far", "log", 1.56), Place("x", "other", 0.4)]
    assert predecessors(places) == {"b": "a", "c": "b"}


class Brakes(ConstantVelocity):
    """Constant velocity, but for one scene that it brakes in and one that it fails on."""

    name = "brakes"

    def __init__(self, fails=""):
        self.fails = fails

    def plan(self, observations):
        """Plans of the three scenes below."""
        out = []
        for observation, plan in zip(observations, super().plan(observations)):
            if observation.id == self.fails:
                out.append(Plan(None, PlanStatus.FAILED))
                continue
            poses = plan.trajectory.poses.copy()
            if observation.id == "toy-1":
                poses[:, 0] *= np.linspace(1.0, 0.6, len(poses))
            out.append(Plan(Trajectory(poses, plan.trajectory.dt)))
        return out


def test_failing_a_frame_never_raises_the_mean():
    scenes = [replace(toy_scenario(i), log_id="log", time_s=0.5 * i) for i in range(3)]
    whole = evaluate(Epdms(), scenes, Brakes())
    for scene in scenes:
        part = evaluate(Epdms(), scenes, Brakes(scene.id))
        assert part.mean() <= whole.mean() + 1e-12
        follower = {"toy-0": "toy-1", "toy-1": "toy-2"}.get(scene.id)
        assert all(row.parts["ec"] == 0.0 for row in part.rows if row.scenario_id == follower)
    assert whole.rows[1].parts["ec"] == 0.0 and whole.rows[1].score > 0.5  # braking after constant speed is not comfortable


def test_follow_ups_near_the_end_of_the_plan_weigh_more():
    sigma = math.sqrt(0.1)
    weights = follow_up_weights(np.zeros(2), np.array([[0.0, 0.0], [sigma, 0.0]]))
    np.testing.assert_allclose(weights, np.array([1.0, math.exp(-0.5)]) / (1.0 + math.exp(-0.5)))
    np.testing.assert_allclose(follow_up_weights(np.zeros(2), np.array([[90.0, 0.0], [0.0, 80.0], [70.0, 0.0]])), 1 / 3)


def groups_and_frames():
    group = TwoStageGroup("now", "prev", (("n1", "p1"), ("n2", "p2")))
    frames = [frame("now", time=0.5, end=(10.0, 0.0)), frame("prev", end=(0.0, 0.0)), frame("n1", "s1", 0.5, ttc=0.0), frame("p1", "s1")]
    frames += [frame("n2", "s2", 0.5), frame("p2", "s2", nc=0.0)]
    starts = {"n1": [10.0, 0.0], "n2": [90.0, 0.0], "p1": [50.0, 0.0], "p2": [60.0, 0.0]}
    return group, {f.token: f for f in frames}, {token: np.array(place) for token, place in starts.items()}


def test_two_stages_multiply_within_a_group():
    group, frames, starts = groups_and_frames()
    result = two_stage([group], frames, starts)
    # now: n1 starts where the plan ends and takes all the weight; previous: both are far off and weigh alike
    assert result.score == pytest.approx((1.0 * 11 / 16 + 1.0 * (1.0 + 0.0) / 2) / 2)
    assert result.second_stage["ttc"] == pytest.approx((0.0 + 1.0) / 2)
    assert result.second_stage["nc"] == pytest.approx((1.0 + 0.5) / 2)
    assert result.parts == dict.fromkeys(result.parts, 1.0)
    assert result.coverage == 1.0


def test_two_stages_count_a_missing_frame_zero():
    group, frames, starts = groups_and_frames()
    del frames["n1"]
    result = two_stage([group], frames, starts)
    # n1 keeps its weight and scores 0; its partner p1 loses its comfort
    assert result.score == pytest.approx((0.0 + (14 / 16 + 0.0) / 2) / 2)
    assert (result.scored, result.expected) == (5, 6)
    del frames["now"]
    assert two_stage([group], frames, starts).score == pytest.approx(14 / 16 * (14 / 16 / 2) / 2)


def test_frames_of_a_pair_that_are_seconds_apart_are_refused():
    group, frames, starts = groups_and_frames()
    with pytest.raises(DataError, match="p1 and n1 are 3 s apart"):
        two_stage([group], {**frames, "n1": frame("n1", "s1", 3.0)}, starts)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published scores are not at hand")
def test_published_rows_combine_exactly():
    with open(PUBLISHED, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        "nc": "no_at_fault_collisions",
        "dac": "drivable_area_compliance",
        "ddc": "driving_direction_compliance",
        "tlc": "traffic_light_compliance",
        "ep": "ego_progress",
        "ttc": "time_to_collision_within_bound",
        "lk": "lane_keeping",
        "hc": "history_comfort",
    }
    parts = {name: np.array([float(row[column]) for row in rows]) for name, column in columns.items()}
    published = np.array([float(row["score"]) for row in rows])
    assert len(rows) == 12143
    np.testing.assert_allclose(combine(parts), published, rtol=0, atol=1e-12)
    assert 100 * combine(parts).mean() == pytest.approx(85.2834, abs=5e-5)


@pytest.mark.skipif(not SPLITS.exists(), reason="NAVSIM's split files are not at hand")
def test_navsim_split_files():
    navtest = read_scene_filter(SPLITS / "scene_filter" / "navtest.yaml")
    assert (len(navtest.tokens), len(navtest.log_names)) == (12146, 136)
    assert (navtest.num_history_frames, navtest.num_future_frames, navtest.has_route) == (4, 10, True)
    navhard = read_scene_filter(SPLITS / "scene_filter" / "navhard_two_stage.yaml")
    assert (len(navhard.tokens), len(navhard.synthetic_tokens)) == (450, 5462)
    groups = read_two_stage_groups(SPLITS / "navhard_two_stage.yaml")
    assert len(groups) == 225
    assert sum(len(group.follow_ups) for group in groups) == 2731
    assert {t for g in groups for t in (g.now, g.previous)} == set(navhard.tokens)
    assert {t for g in groups for pair in g.follow_ups for t in pair} == set(navhard.synthetic_tokens)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "no mapping"),
        ("tokens: [", "cannot be read as YAML"),
        ("num_history_frames: 4\nnum_future_frames: 8\nhas_route: true\nlog_names: [a]\n", "'tokens'"),
        ("num_history_frames: 4\nnum_future_frames: 8\nhas_route: true\nlog_names: [a]\ntokens: ['x', 'x']\n", "twice"),
        ("num_history_frames: 4\nnum_future_frames: 8\nhas_route: true\nlog_names: [a]\ntokens: [12345]\n", "unquoted"),
    ],
)
def test_a_bad_split_file_is_told_by_name(tmp_path, text, told):
    path = tmp_path / "mini.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=told) as error:
        read_scene_filter(path)
    assert str(path) in str(error.value)


def test_a_malformed_group_is_told_by_number(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("reactive_all_mapping:\n- ['a', 'b', [['c', 'd']]]\n- ['a', 'b', [['c']]]\n")
    with pytest.raises(DataError, match="group 1"):
        read_two_stage_groups(path)
    path.write_text("reactive_all_mapping:\n- ['a', 'b', []]\n")
    with pytest.raises(DataError, match=r"group 0.*no follow-ups"):
        read_two_stage_groups(path)
    path.write_text("data_split: test\n")
    with pytest.raises(DataError, match="no two-stage split"):
        read_two_stage_groups(path)


def test_the_benchmark_scores_scenes_and_pairs_frames_of_a_log():
    scenes = [toy_scenario(i) for i in range(3)]
    scenes = [replace(s, log_id="log", time_s=0.5 * i) for i, s in enumerate(scenes)]
    result = evaluate(Epdms(), scenes, ConstantVelocity(), batch=2)
    assert result.coverage == 1.0
    first, *later = result.rows
    assert math.isnan(first.parts["ec"]) and all(row.parts["ec"] in (0.0, 1.0) for row in later)
    for row in result.rows:
        assert math.isnan(row.parts["tlc"])  # the toy scenes hold no lights
        parts = {name: np.array([value]) for name, value in {**row.parts, "tlc": 1.0}.items()}
        assert row.score == pytest.approx(combine(parts, parts["ec"])[0])
    assert result.mean("ec") == pytest.approx(np.mean([row.parts["ec"] for row in later]))
    apart = evaluate(Epdms(), [replace(s, time_s=5.0 * i) for i, s in enumerate(scenes)], ConstantVelocity())
    assert all(math.isnan(row.parts["ec"]) for row in apart.rows) and math.isnan(apart.mean("ec"))
    assert "-" in table_cells([apart], Epdms.style)[0]


def test_the_filter_forgives_what_the_logged_drive_does_too():
    scene = toy_scenario(0)
    lost = replace(scene, route_lane_ids=())  # off the route whatever is driven, and so was the log
    strict = score_epdms([EpdmsScene.from_scenario(lost)], [scene.logged_future(8).poses[None]], 0.5)[0]
    assert strict.ddc[0] == 0.0 and strict.score()[0] == 0.0
    assert human_filter(strict, strict).score()[0] > 0.5
    before = human_filter(strict, strict, fixed=False)
    assert before.ddc[0] == 1.0 and before.score()[0] == 0.0  # the table's columns alone, as published before the fix
    assert evaluate(Epdms(), [lost], ConstantVelocity()).rows[0].parts["ddc"] == 1.0


def test_a_scene_without_a_past_cannot_be_scored(capsys):
    scene = toy_scenario(0)
    result = evaluate(Epdms(), [replace(scene, present=0, frame_steps=(0,))], ConstantVelocity())
    assert result.coverage == 0.0 and result.mean() == 0.0
    assert "no past" in capsys.readouterr().err


def test_results_of_a_benchmark_round_trip_with_parts_that_do_not_apply(tmp_path):
    result = evaluate(Epdms(), [toy_scenario(0)], ConstantVelocity())
    write_results(tmp_path, [result], {}, "digest", Epdms.style)
    stored = read_results(tmp_path)
    assert stored.style is Epdms.style and math.isnan(stored.results[0].rows[0].parts["ec"])
    assert "NaN" not in (tmp_path / "results.json").read_text()
    assert text_table(stored.results, "x", stored.style) == text_table([result], "x", Epdms.style)


def test_traffic_lights_of_the_route_are_judged_and_told_apart_from_none(tmp_path):
    log = log_of(read_log(scenarionet_logs.write(tmp_path / "a.pkl", scenarionet_logs.record())), "test")
    scene = LogScenes(log, (Camera.front(32, 32),)).scenario(58)
    area = shapely.Polygon(scene.road_map.polygons.ring(scene.road_map.polygons.tokens.index("left")))
    boxes = shapely.polygons(box_corners(scene.ego.poses_world, PACIFICA.length, PACIFICA.width, PACIFICA.rear_to_center))
    inside = np.flatnonzero(shapely.intersects(boxes, area))  # steps of the scenario's clock, the present is 15
    assert inside[0] > 20 and inside[-1] < 15 + 40, inside

    plan = scene.logged_future()

    def with_light(lane, first, last):
        states = np.full((1, len(scene.ego.poses_world)), LightState.GREEN)
        states[0, first:last] = LightState.RED
        return replace(scene, lights=Lights((lane,), states))

    cases = {
        "none": (scene, 1.0),
        "red": (with_light("left", 0, 66), 0.0),
        "green": (with_light("left", 0, 0), 1.0),
        "red once it is left": (with_light("left", inside[-1] + 6, 66), 1.0),
        "red before it is reached": (with_light("left", 0, inside[0] - 5), 1.0),
        "red off the route": (with_light("straight", 0, 66), 1.0),
    }
    for name, (case, tlc) in cases.items():
        found = score_epdms([EpdmsScene.from_scenario(case)], [plan.poses[None]], plan.dt)[0]
        assert found.tlc[0] == tlc and (found.score()[0] > 0.0) == (tlc > 0.0), name
    shown = {name: evaluate(Epdms(), [cases[name][0]], Planned(plan)).rows[0] for name in ("none", "red", "green")}
    assert math.isnan(shown["none"].parts["tlc"]) and shown["green"].parts["tlc"] == 1.0
    assert shown["red"].parts["tlc"] == 1.0  # the logged human ran it too: the filter forgives


class Planned:
    """Always the same plan."""

    name = "planned"

    def __init__(self, trajectory):
        self.trajectory = trajectory

    def reset(self):
        pass

    def plan(self, observations):
        return [Plan(self.trajectory) for _ in observations]
