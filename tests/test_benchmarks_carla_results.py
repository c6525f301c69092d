"""results.json: round trips, the official layout, and damaged files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from drive.benchmarks.carla_results import read_results, write_merged, write_results
from drive.core.errors import DataError
from drive.metrics.carla_records import Event, Failure, Infraction
from drive.metrics.carla_scores import Rule, record_of

PLANT2 = Path(__file__).resolve().parents[1].parent / "shared/data/real/autonomousvision__plant2/Bench2Drive/pdm_lite_b2d_traj"
HIT = Event(Infraction.VEHICLE, 3, "Agent collided against object with type=vehicle.audi.tt and id=4 at (x=1.0, y=2.0, z=0.0)")
OUTSIDE = Event(Infraction.OUTSIDE_LANES, 9, "Agent went outside its route lanes for about 12.5 meters (5.0% of the completed route)", 5.0)


def records():
    names = {"scenario_name": "Accident_1", "weather_id": "3", "save_name": "a", "town_name": "Town01"}
    first = record_of("RouteScenario_1_rep0", [HIT, OUTSIDE], 100.0, Rule.BENCH2DRIVE, route_length=500.0, index=0, texts=names)
    second = record_of("RouteScenario_2_rep0", [], 40.0, Rule.BENCH2DRIVE, failure=Failure.TICKS, route_length=250.0, index=1)
    return [first, second]


def test_official_layout_and_round_trip(tmp_path):
    path = write_results(tmp_path / "run" / "results.json", records(), 2, ["carla_camera"])
    assert list(read_results(path)) == records()
    data = json.loads(path.read_text())
    assert set(data) == {"_checkpoint", "entry_status", "eligible", "sensors", "values", "labels"}
    assert (data["entry_status"], data["eligible"], data["sensors"]) == ("Finished", True, ["carla_camera"])
    overall = data["_checkpoint"]["global_record"]
    assert overall["scores_mean"] == {"score_composed": 48.5, "score_route": 70.0, "score_penalty": 0.785}
    assert overall["status"] == "Failed" and overall["meta"]["exceptions"] == [["RouteScenario_2_rep0", 1, "Failed - TickRuntime"]]
    assert overall["meta"]["total_length"] == 750.0 and data["_checkpoint"]["progress"] == [2, 2]
    assert len(data["values"]) == len(data["labels"]) == 15
    told = dict(zip(data["labels"], data["values"]))
    assert told["Avg. driving score"] == "48.5" and told["Collisions with vehicles"] == str(round(1 / 0.6, 3))
    assert told["Off-road infractions"] == str(round(0.0125, 3)) and told["Agent blocked"] == "0.0"
    first = data["_checkpoint"]["records"][0]
    assert first["num_infractions"] == 2 and first["scenario_name"] == "Accident_1" and first["index"] == 0
    assert float(first["infractions"]["outside_route_lanes"][0].split(" ")[8]) == 12.5  # as the official tool reads it


def test_an_unfinished_run_is_not_eligible(tmp_path):
    data = json.loads(write_results(tmp_path / "a.json", records(), 5).read_text())
    assert (data["entry_status"], data["eligible"], data["_checkpoint"]["progress"]) == ("Started", False, [2, 5])
    assert data["_checkpoint"]["global_record"]["scores_mean"]["score_composed"] == 19.4
    crashed = [replace(records()[0], status="Failed - Simulation crashed")]
    assert json.loads(write_results(tmp_path / "b.json", crashed, 1).read_text())["entry_status"] == "Crashed"
    perfect = [record_of("RouteScenario_1_rep0", [], 100.0, Rule.LEADERBOARD_2_0)]
    assert json.loads(write_results(tmp_path / "c.json", perfect, 1).read_text())["_checkpoint"]["global_record"]["status"] == "Perfect"


def test_merged_layout(tmp_path):
    path = write_merged(tmp_path / "merged.json", records(), 4)
    data = json.loads(path.read_text())
    assert set(data) == {"_checkpoint", "driving score", "success rate", "eval num"}
    assert data["driving score"] == pytest.approx(97.0 / 4) and data["success rate"] == 0.0 and data["eval num"] == 2
    assert [r["route_id"] for r in data["_checkpoint"]["records"]] == ["RouteScenario_2_rep0", "RouteScenario_1_rep0"]
    assert all("index" not in r for r in data["_checkpoint"]["records"])
    with pytest.raises(DataError, match="two records"):
        write_merged(tmp_path / "twice.json", [*records(), records()[0]], 4)
    assert not (tmp_path / "twice.json").exists()


def damage(change):
    data = {"_checkpoint": {"records": [r.to_json() for r in records()]}}
    change(data["_checkpoint"]["records"][1])
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot read"),
        ('{"_checkpoint": {"records": [', "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("[]", "no _checkpoint.records"),
        ('{"_checkpoint": {"records": {}}}', "no _checkpoint.records"),
        ('{"_checkpoint": {"records": [3]}}', "record 0 is no route record"),
        (damage(lambda r: r.pop("route_id")), "record 1 is no route record"),
        (damage(lambda r: r.pop("status")), "record 1 .*no status"),
        (damage(lambda r: r.pop("scores")), r"record 1 .*scores\.score_route is 'None'"),
        (damage(lambda r: r["scores"].update(score_penalty=float("nan"))), r"scores\.score_penalty is 'nan'"),
        (damage(lambda r: r["scores"].update(score_route=True)), r"scores\.score_route is 'True'"),
        (damage(lambda r: r["scores"].update(score_route=10**400)), r"scores\.score_route is '10000"),
        (damage(lambda r: r["meta"].update(route_length="far")), r"meta\.route_length is 'far'"),
        (damage(lambda r: r.update(infractions=[])), "infractions must hold"),
        (damage(lambda r: r["infractions"].update(red_light="once")), "infractions must hold"),
        (damage(lambda r: r["infractions"]["red_light"].append("Agent ran a red light")), "num_infractions is 0, its lists hold 1"),
        (damage(lambda r: r.update(index="one")), "index 'one'"),
    ],
)
def test_damaged_files_are_told(tmp_path, text, told):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        read_results(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        read_results(tmp_path / "absent.json")


def test_published_file_survives_a_round_trip(tmp_path):
    if not (PLANT2 / "merged.json").is_file():
        pytest.skip("the published result file is not at hand")
    old = json.loads((PLANT2 / "merged.json").read_text())
    new = json.loads(write_merged(tmp_path / "merged.json", read_results(PLANT2 / "merged.json")).read_text())
    assert new == old
