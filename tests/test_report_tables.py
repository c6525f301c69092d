import json

import numpy as np
import pytest
from report_cases import partial_result, row

import drive
from drive.benchmarks.pdms import STYLE
from drive.benchmarks.results import Result
from drive.core.errors import DataError
from drive.core.types import PlanStatus
from drive.report.tables import (
    columns,
    counted,
    coverage_text,
    markdown_table,
    read_results,
    table_cells,
    text_table,
    write_results,
)

COLUMNS = columns(STYLE)


def full_result(name="expert", count=3):
    return Result(name, [row(i) for i in range(count)], count)


def cells(result):
    return dict(zip(COLUMNS, table_cells([result])[0]))


def test_cells_of_a_full_result():
    found = cells(full_result())
    assert found["planner"] == "expert" and found["pdms_v1_1 [95 %]"] == "100.0 [100.0, 100.0]"
    assert found["coverage"] == "100 %" and found["scenes"] == "3" and found["pick"] == "deployable"
    assert found["p50 ms/plan"] == "20.0"  # of 10, 20, 30 ms
    assert found["think"] == found["tokens"] == "-"  # this planner does not speak


def test_failed_and_unread_scenes_count_zero():
    found = cells(partial_result())
    assert found["pdms_v1_1 [95 %]"].startswith("37.5 [")  # (1 + 0.5 + 0 + 0) / 4
    assert found["nc"] == found["ep"] == "37.5"
    assert found["coverage"] == "PARTIAL 50.0 %" and found["scenes"] == found["logs"] == "4"
    assert found["think"] == "33 %" and found["tokens"] == "14.0"


def test_interval_brackets_the_mean():
    text = cells(Result("p", [row(i, float(i % 2)) for i in range(40)], 40))["pdms_v1_1 [95 %]"]
    low, high = (float(part) for part in text.split("[")[1].rstrip("]").split(","))
    assert 30.0 < low < 50.0 < high < 70.0  # 50 +- 1.96 * 50 / sqrt(40) = 34.5, 65.5


def test_coverage_is_never_rounded_up_to_full():
    nearly = Result("p", [row(i) for i in range(9999)], 10000)
    assert coverage_text(nearly) == "PARTIAL 99.9 %"
    assert coverage_text(full_result()) == "100 %"
    assert coverage_text(Result("p", [], 0)) == "PARTIAL 0.0 %"


def test_text_table_is_aligned_and_names_the_benchmark():
    lines = text_table([full_result(), partial_result()], "toy test").splitlines()
    assert lines[0] == f"pdms_v1_1 (0-100, mean over scenes, intervals over logs), drive {drive.__version__}: toy test"
    head, rule, first, second = lines[2:6]
    assert len({len(line) for line in (head, rule, first, second)}) == 1
    assert [i for i, c in enumerate(rule) if c == " "] == [i for i, c in enumerate(rule) if c == " " and first[i] == " "]
    assert lines[6] == "The intervals come from 3 logs: they say little."
    assert lines[7] == "PARTIAL: vla has 2 of 4 scenes scored (1 undecodable, 1 not read); the others count 0 in its means."
    assert len(lines) == 8  # nothing else is said of the full one
    assert len(text_table([full_result(count=5)], "toy").splitlines()) == 5


def test_markdown_table_has_one_cell_per_column_even_with_a_pipe_in_a_name():
    text = markdown_table([full_result("a|b")], "toy")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert all(line.replace("\\|", "").count("|") == len(COLUMNS) + 1 for line in lines)
    assert "a\\|b" in lines[2]


def test_results_round_trip(tmp_path):
    config = {"dataset": {"name": "embedded"}, "split": "test"}
    write_results(tmp_path, [full_result(), partial_result()], config, "digest")
    stored = read_results(tmp_path)
    assert (stored.config, stored.fingerprint, stored.version) == (config, "digest", drive.__version__)
    first, second = stored.results
    assert first.planner == "expert" and second.faults == ["log-3: truncated"] and second.expected == 4
    for found, wanted in zip(second.rows, partial_result().rows):
        assert (found.poses_ego is None) == (wanted.poses_ego is None)
        assert found.poses_ego is None or wanted.poses_ego is None or np.array_equal(found.poses_ego, wanted.poses_ego)
        assert {**vars(found), "poses_ego": 0} == {**vars(wanted), "poses_ego": 0}
    assert second.rows[2].status is PlanStatus.UNDECODABLE
    assert text_table(stored.results, "x") == text_table([full_result(), partial_result()], "x")
    assert "embedded test data digest" in (tmp_path / "table.md").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.json", "table.md"]


def test_results_hold_the_summary(tmp_path):
    write_results(tmp_path, [partial_result()], {}, "digest")
    summary = json.loads((tmp_path / "results.json").read_text())["results"][0]["summary"]
    assert summary["score"] == 0.375 and summary["coverage"] == 0.5 and summary["scenes"] == 4
    assert summary["latency_p50_s"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1}', '{"format": 9, "benchmark": "pdms_v1_1"}', '{"format": 1, "benchmark": "other"}']
)
def test_results_of_another_make_are_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=r"results\.json"):
        read_results(tmp_path)


def test_missing_results_are_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="drive eval out="):
        read_results(tmp_path)


def test_messages_are_told_once_with_their_count():
    assert counted(["b", "a", "b", "b"]) == ["b (3 times)", "a"] and counted([]) == []
