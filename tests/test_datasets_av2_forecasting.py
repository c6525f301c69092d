# pyright: reportOptionalMemberAccess=false
"""Argoverse 2 forecasting scenarios: a hand-made one, damaged ones, and the real one where it is at hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from av2_files import HEADING, SPEED, at
from av2_forecasting_files import STEPS, rows, write

from drive.benchmarks.pdms import evaluate_pdms
from drive.core.errors import DataError
from drive.core.roadmap import Layer
from drive.core.types import AgentType, Command
from drive.datasets.av2_forecasting import OTHER_SIZE, PRESENT, SIZES, Av2ForecastingReader, inspect
from drive.datasets.av2_map import read_map
from drive.datasets.logged import LogDataset
from drive.planners.pdm import PdmExpert

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

ROOT = Path(__file__).resolve().parents[2] / "shared/data/real/argoverse__av2-api/tests/unit/test_data/forecasting_scenarios"
real = pytest.mark.skipif(not ROOT.is_dir(), reason="the real forecasting scenario is not at hand")
NAN = float("nan")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("av2f")
    write(root / "val" / "scene-a")
    return root


@pytest.fixture(scope="module")
def scene(root):
    (scene,) = LogDataset(Av2ForecastingReader(), root, "val")
    return scene


def test_one_scenario_stands_at_the_last_observed_step(scene):
    assert (scene.id, scene.source, scene.log_id, scene.split) == ("scene-a-0049", "av2_forecasting", "scene-a", "val")
    assert scene.time_s == pytest.approx(4.9) and scene.command is Command.LANEFOLLOW and scene.lights is None
    origin = np.array(scene.notes["origin_world"])
    np.testing.assert_allclose(scene.ego.poses_world[scene.present], [*(np.array(at(SPEED * 4.9)) - origin), HEADING], atol=1e-6)
    np.testing.assert_allclose(scene.teacher.poses[:, 0], SPEED * 0.5 * np.arange(1, 11), atol=1e-6)
    assert scene.ego.state(scene.present).speed == pytest.approx(SPEED)
    assert scene.observation().images.shape == (1, 4, 112, 112, 3)


def test_tracks_types_sizes_and_notes(scene):
    assert set(scene.agents.ids) == {"7", "8", "9"}  # the ego is none of them
    types = dict(zip(scene.agents.ids, scene.agents.types.tolist()))
    assert types == {"7": AgentType.VEHICLE, "8": AgentType.PEDESTRIAN, "9": AgentType.GENERIC_OBJECT}
    sizes = dict(zip(scene.agents.ids, map(tuple, scene.agents.size.tolist())))
    assert sizes == {"7": SIZES["vehicle"], "8": SIZES["pedestrian"], "9": OTHER_SIZE}
    car, thing = scene.agents.ids.index("7"), scene.agents.ids.index("9")
    np.testing.assert_allclose(np.hypot(*scene.agents.velocity_world[car, scene.present]), SPEED, atol=1e-6)
    assert scene.agents.valid[thing].sum() == 60 - (PRESENT - 15)  # gone after its last sighting
    assert scene.notes["focal_track"] == "7" and scene.notes["scored_tracks"] == ["8"] and scene.notes["city"] == "austin"


def test_the_map_is_argoverses_and_the_expert_is_scored_on_it(scene):
    assert set(scene.road_map.lanes) == {"1", "2", "3", "4"} and scene.route_lane_ids == ("1", "2", "4")
    result = evaluate_pdms([scene], PdmExpert())
    assert result.coverage == 1.0 and result.mean("dac") == 1.0


def test_a_scenario_without_a_future_is_of_no_use_to_training(tmp_path):
    write(tmp_path / "train" / "whole")
    write(tmp_path / "train" / "observed", rows(50))  # as the official test split has them
    data = LogDataset(Av2ForecastingReader(), tmp_path, "train")
    assert [s.log_id for s in data] == ["whole"] and data.faults == []
    write(tmp_path / "test" / "observed-2", rows(50))
    (only,) = LogDataset(Av2ForecastingReader(), tmp_path, "test", short_futures=True)
    assert only.teacher is None and only.observation().images.shape[1] == 4


def _rewrite(folder, change):
    import pyarrow as pa
    from pyarrow import parquet

    (path,) = folder.glob("scenario_*.parquet")
    records = parquet.read_table(path).to_pylist()
    change(records)
    parquet.write_table(pa.Table.from_pylist(records), path)


def _file(folder):
    return next(folder.glob("scenario_*.parquet"))


def _map(folder):
    return next(folder.glob("log_map_archive_*.json"))


DAMAGE = {
    "truncated": (lambda d: _file(d).write_bytes(_file(d).read_bytes()[:900]), ["scenario_log-b.parquet", "cannot be read"]),
    "empty": (lambda d: _file(d).write_bytes(b""), ["scenario_log-b.parquet", "cannot be read"]),
    "no rows": (lambda d: _rewrite(d, lambda r: r.__delitem__(slice(None))), ["scenario_log-b.parquet"]),
    "a column short": (lambda d: _rewrite(d, lambda r: [x.pop("heading") for x in r]), ["lacks the columns heading"]),
    "text for numbers": (lambda d: _rewrite(d, lambda r: [x.update(position_x="1") for x in r]), ["position_x is of type string"]),
    "NaN in a pose": (lambda d: _rewrite(d, lambda r: r[7].update(position_y=NAN)), ["position_y of row 7"]),
    "no ego": (lambda d: _rewrite(d, lambda r: [x.update(track_id="5") for x in r if x["track_id"] == "AV"]), ["AV", "absent"]),
    "a gap in the ego": (lambda d: _rewrite(d, lambda r: r.__delitem__(60)), ["AV", "lacks step 60"]),
    "a step twice": (lambda d: _rewrite(d, lambda r: r[120].update(timestep=0)), ["twice at one timestep"]),
    "a step beyond the end": (lambda d: _rewrite(d, lambda r: r[3].update(timestep=200)), ["timesteps 0 to 200 of 110"]),
    "another rate": (lambda d: _rewrite(d, lambda r: [x.update(end_timestamp=x["start_timestamp"] + 2e9) for x in r]), ["not 10 Hz"]),
    "no map": (lambda d: _map(d).unlink(), ["holds 0 files log_map_archive"]),
    "a torn map": (lambda d: _map(d).write_text(_map(d).read_text()[:300]), ["log_map_archive", "JSON"]),
    "a lane without borders": (
        lambda d: _map(d).write_text(json.dumps({**(m := json.loads(_map(d).read_text())), "lane_segments": {"1": {"id": m["lane_segments"]["1"]["id"]}}})),
        ["record 1", "left_lane_boundary"],
    ),
}


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_a_scenario_at_fault_is_left_out_told_and_counted(tmp_path, case):
    damage, words = case
    for name in ("log-a", "log-b"):
        write(tmp_path / "val" / name)
    damage(tmp_path / "val" / "log-b")
    data = LogDataset(Av2ForecastingReader(), tmp_path, "val")
    assert len(data) == 1 and data.expected == 2 and data[0].log_id == "log-a"
    (fault,) = data.faults
    assert "log-b" in fault and all(word in fault for word in words), fault


def test_the_future_changes_no_byte_of_the_observation(scene, tmp_path):
    def swerve(records):
        for record in records:
            if record["timestep"] > PRESENT:
                record["position_x"] += 2.0
                record["heading"] += 0.2

    write(tmp_path / "val" / "scene-a")
    _rewrite(tmp_path / "val" / "scene-a", swerve)
    (changed,) = LogDataset(Av2ForecastingReader(), tmp_path, "val")
    plain, other = scene.observation(), changed.observation()
    np.testing.assert_array_equal(plain.images, other.images)
    np.testing.assert_array_equal(plain.ego_history, other.ego_history)
    assert (plain.speed, plain.acceleration, plain.yaw_rate, plain.command) == (other.speed, other.acceleration, other.yaw_rate, other.command)
    assert np.abs(scene.teacher.poses - changed.teacher.poses).max() > 1.0


def test_other_folders_are_told(tmp_path):
    with pytest.raises(DataError, match="no log of av2_forecasting is there"):
        LogDataset(Av2ForecastingReader(), tmp_path, "test")
    with pytest.raises(DataError, match="cannot be read"):
        inspect(tmp_path / "scenario_absent.parquet")


@real
def test_the_real_scenario_holds_what_is_known_of_it():
    (path,) = ROOT.rglob("scenario_*.parquet")
    found = inspect(path)
    assert (found.counts["steps"], found.counts["tracks"], found.counts["lane segments"], found.counts["drivable areas"]) == (STEPS, 58, 71, 2)
    (scene,) = LogDataset(Av2ForecastingReader(), ROOT, "test")
    assert scene.notes["focal_track"] == "138951" and scene.notes["scored_tracks"] == ["139344"]
    polygons = scene.road_map.polygons
    area = shapely.union_all([shapely.Polygon(polygons.ring(i)) for i, layer in enumerate(polygons.layers) if layer == Layer.DRIVABLE_AREA])
    assert shapely.contains_xy(area, scene.ego.poses_world[:, :2]).all()


@real
def test_the_real_centrelines_are_the_middles_of_their_borders():
    (path,) = ROOT.rglob("log_map_archive_*.json")
    (scene,) = LogDataset(Av2ForecastingReader(), ROOT, "test")
    gaps = []
    for record in read_map(path)["lane_segments"].values():
        if str(record["id"]) in scene.road_map.lanes:
            made = shapely.LineString(scene.road_map.lanes[str(record["id"])].centerline[:, :2] + scene.notes["origin_world"])
            gaps.append(max(shapely.distance(made, shapely.points([[p["x"], p["y"]] for p in record["centerline"]]))))
    assert len(gaps) == len(scene.road_map.lanes) and max(gaps) < 0.05
