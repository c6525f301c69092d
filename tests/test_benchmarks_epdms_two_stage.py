# pyright: reportOptionalMemberAccess=false
"""`drive eval benchmark=epdms_v2_2` on a hand-made navhard: both stages are scored, joined by the mapping, and what is missing is counted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from av2_files import SPEED, write
from navhard_files import seen_in, synthetic, write_split, write_synthetic
from nuplan_files import CITY, av2_log, blocks_of, navsim_frames, write_maps, write_navsim

from drive.benchmarks.epdms import PARTS, Epdms, follow_up_weights
from drive.benchmarks.evaluate import evaluate
from drive.benchmarks.results import Result, SceneRow
from drive.cli import main
from drive.core.types import Plan, PlanStatus, Trajectory
from drive.datasets.navsim import NavsimDataset, NavsimReader
from drive.datasets.navsim_splits import read_scene_filter
from drive.metrics.epdms import EpdmsScene, combine, score_epdms
from drive.metrics.idm_agents import Traffic
from drive.planners.constant_velocity import ConstantVelocity

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
NOW, BEFORE = "log-a-0006", "log-a-0005"
FOLLOWED = {"00000000000000011": (14, 0.0), "00000000000000012": (14, 0.3), "00000000000000013": (14, 2.0)}  # present frame, m to the left
PAIRS = [(token, f"f{token[1:]}") for token in FOLLOWED]


@pytest.fixture(scope="module")
def navhard(tmp_path_factory):
    """A drive at constant speed in logs/test, second-stage scenes 4 s later on its path and beside it, maps, and the split files."""
    root = tmp_path_factory.mktemp("navhard")
    write(root / "av2" / "test" / "log-a")
    log, road_map, route = av2_log(root / "av2" / "test" / "log-a", "test")
    write_maps(root / "maps", road_map, log)
    frames = navsim_frames(log, blocks_of(road_map, (*route, "4")), lights=[(2, 0, 99, "green")])  # on to where the second stage drives
    write_navsim(root / "data" / "test" / "log-a.pkl", frames)
    for now, before in PAIRS:
        at, left = FOLLOWED[now]
        for token, present in ((now, at), (before, at - 1)):
            around = [seen_in(frame) for frame in [*frames[present + 1 :], *frames[-1:] * 8][:8]]
            scene = synthetic(frames[present - 3 : present + 1], token, around, [[(2, "GREEN")]] * 8, left)
            write_synthetic(root / "data" / "navhard_two_stage" / "synthetic_scene_pickles", scene)
    return root, write_split(root / "split", "mini", ["log-a"], [NOW, BEFORE], [(NOW, BEFORE, PAIRS)])


def scenes_of(navhard):
    root, split = navhard
    return NavsimDataset(NavsimReader(root / "maps", scenes=read_scene_filter(split)), root / "data", "test")


class Straight(ConstantVelocity):
    """Keeps its speed, but for scenes that it fails on."""

    name = "straight"

    def __init__(self, fails=()):
        self.fails = fails

    def plan(self, observations):
        found = zip(observations, super().plan(observations))
        return [Plan(None, PlanStatus.FAILED) if any(name in o.id for name in self.fails) else plan for o, plan in found]


def test_both_stages_are_scored_and_put_together(navhard):
    data = scenes_of(navhard)
    scenes = list(data)
    assert (len(scenes), data.expected, data.faults) == (8, 8, [])
    result = evaluate(Epdms(), scenes, Straight(), expected=data.expected)
    rows = {scene.notes["token"]: row for scene, row in zip(scenes, result.rows)}
    assert result.coverage == 1.0 and len(result.rows) == 8 and result.size == 2
    values = []
    for side, token in enumerate((NOW, BEFORE)):
        scene = next(s for s in scenes if s.notes["token"] == token)
        end = scene.ego.poses_world[scene.present, :2] + 4.0 * SPEED * np.array([math.cos(0.3), math.sin(0.3)])
        starts = np.array([s.ego.poses_world[s.present, :2] for pair in PAIRS for s in scenes if s.notes["token"] == pair[side]])
        weights = follow_up_weights(end, starts)
        assert weights[0] == pytest.approx(1.0 / (1.0 + math.exp(-0.09 / 0.2)), abs=1e-3) and weights[2] < 1e-6  # 0, 0.3 and 2 m away
        followed = float(weights @ [rows[pair[side]].score for pair in PAIRS])
        assert rows[token].parts["stage2"] == pytest.approx(followed) and rows[token].score == pytest.approx(rows[token].parts["stage1"] * followed)
        values.append(rows[token].score)
    assert result.mean() == pytest.approx(np.mean(values)) and result.mean("stage1") * result.mean("stage2") == pytest.approx(result.mean(), abs=0.05)
    for row in result.rows:
        assert row.parts["ec"] in (0.0, 1.0) and row.parts["tlc"] == 1.0
        parts = {name: np.array([row.parts[name]]) for name in PARTS}
        own = row.parts["stage1"] if row.among else row.score
        assert own == pytest.approx(combine(parts, parts["ec"])[0])
        assert own > 0.5 if not row.scenario_id.startswith(PAIRS[2]) else row.parts["dac"] == own == 0.0  # 2 m beside the lane there is no road
    assert {row.among for row in result.rows} == {0, 2} and math.isnan(rows[PAIRS[0][0]].parts["stage1"])
    assert rows[PAIRS[2][0]].parts["lk"] == 0.0
    assert result.mean("lk") == 1.0  # of the first stage alone


def test_a_plan_that_fails_and_a_scene_that_is_missing_lower_the_score_and_the_coverage(navhard, capsys):
    scenes = list(scenes_of(navhard))
    whole = evaluate(Epdms(), scenes, Straight(), expected=8)
    for name in ("log-a-0006", PAIRS[0][0], PAIRS[1][1]):
        failed = evaluate(Epdms(), scenes, Straight([name]), expected=8)
        missing = evaluate(Epdms(), [s for s in scenes if not s.id.startswith(name)], Straight(), expected=8)
        assert failed.coverage == missing.coverage == 7 / 8
        assert missing.mean() <= failed.mean() + 1e-12 < whole.mean(), name
        assert len(missing.rows) == 7 and missing.size == 2
        assert "1 of the 8 frames of the two stages are not there" in capsys.readouterr().err
    alone = evaluate(Epdms(), [s for s in scenes if s.notes["stage"] == 2], Straight(), expected=8)
    assert alone.mean() == 0.0 and alone.coverage == 6 / 8 and alone.interval() == (0.0, 0.0)
    first = evaluate(Epdms(), [s for s in scenes if s.notes["stage"] == 1], Straight(), expected=8)
    assert first.mean() == 0.0 and first.mean("stage1") > 0.5 and first.mean("stage2") == 0.0


def test_vehicles_react_in_both_stages_and_replay_in_one(navhard):
    """The log's car stands still beside the plan in one stage; with the mapping it follows its lane."""
    scenes = {scene.notes["token"]: scene for scene in scenes_of(navhard)}
    for stage, scene in ((1, scenes[NOW]), (2, scenes[PAIRS[0][0]])):
        replayed, reacting = (EpdmsScene.from_scenario(replace(scene, reference_world=np.zeros((51, 3))), kind) for kind in Traffic)
        assert replayed.reactive is None and len(reacting.reactive.rails) == 1, stage
        states = score_epdms([reacting], [np.zeros((1, 8, 3))], 0.5, "group")[0].states[0]
        boxes = reacting.reactive.react(states)
        car, cone = scene.agents.ids.index("car"), scene.agents.ids.index("cone")
        assert boxes.valid[:, car].all()
        logged = replayed.pdm.agents.boxes[:41, cone, :2]
        np.testing.assert_allclose(boxes.boxes[boxes.valid[:, cone], cone, :2], logged[boxes.valid[:, cone]])


def test_the_command_prints_one_table_for_both_stages(navhard, tmp_path, capsys):
    root, split = navhard
    data = ["dataset=navsim", f"dataset.root={root / 'data'}", f"dataset.maps={root / 'maps'}", f"dataset.filter={split}", "split=test"]
    assert (root / "maps" / CITY).is_dir()
    assert main(["eval", "benchmark=epdms_v2_2", "planner=constant_velocity", *data, f"out={tmp_path / 'whole'}"]) == 0
    table = capsys.readouterr().out
    assert "or two with reactive vehicles" in table and "stage2" in table and " 100 %" in table
    found = json.loads((tmp_path / "whole" / "results.json").read_text())["results"][0]
    assert len(found["rows"]) == 8 and found["expected"] == 8
    assert found["summary"]["score"] == pytest.approx(np.mean([row["score"] for row in found["rows"] if row["among"]]))
    gone = next((root / "data" / "navhard_two_stage" / "synthetic_scene_pickles").iterdir())
    kept = gone.read_bytes()
    gone.unlink()
    try:
        assert main(["eval", "benchmark=epdms_v2_2", "planner=constant_velocity", *data, f"out={tmp_path / 'part'}"]) == 1
    finally:
        gone.write_bytes(kept)
    told = capsys.readouterr()
    assert "PARTIAL 87.5 %" in told.out and "1 of them second-stage scenes" in told.out and "1 of the 8 frames" in told.err
    part = json.loads((tmp_path / "part" / "results.json").read_text())["results"][0]
    assert part["summary"]["score"] < found["summary"]["score"]


def row(score, among=None, part=0.5):
    return SceneRow("a", "log", "k", PlanStatus.OK, score, {"p": part}, None, "", 0, 0.0, "", among=among)


def test_means_run_over_the_rows_that_count():
    result = Result("x", [row(0.8, 4), row(0.4, 4), row(0.0, 0, 1.0)], expected=9)
    assert result.mean() == pytest.approx(1.2 / 4) and result.mean("p") == pytest.approx(1.0 / 4) and result.coverage == 3 / 9
    assert len(result.values()) == len(result.groups) == 4
    plain = Result("x", [row(0.8), row(0.4)], expected=4)
    assert plain.mean() == pytest.approx(1.2 / 4) and len(plain.values()) == len(plain.groups) == 4
    nothing = Result("x", [row(0.8, 2, math.nan), row(0.8, 0, 1.0)], expected=2)
    assert math.isnan(nothing.mean("p"))


def test_the_end_of_a_plan_is_where_it_is_after_4_s(navhard):
    scenes = [scene for scene in scenes_of(navhard) if scene.notes["stage"] == 1]
    poses = np.column_stack([SPEED * 0.5 * np.arange(1.0, 11.0), np.zeros((10, 2))]).astype(np.float64)
    ends = [Epdms().score(scenes[0], Trajectory(poses[:count], 0.5), 0).detail.end_world for count in (10, 8, 6)]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.hypot(*(ends[0] - ends[2])) == pytest.approx(SPEED)
