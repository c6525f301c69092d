import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_cases import partial_result, row
from toy_scenes import toy_scenario

from drive.benchmarks.results import Result
from drive.core.errors import ConfigError, DataError
from drive.core.runs import RunFolder
from drive.core.types import PlanStatus
from drive.report.html import write_report
from drive.report.plans import add_evaluation, extremes, stored_picture
from drive.report.tables import read_results

EVIL = "</figcaption><script>alert('x')</script><img src=http://evil.example/x.png onerror=alert(1)>"


class Collector(HTMLParser):
    """Tags, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if self.open and self.open[-1] == tag else self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster")]
        if tag not in ("meta", "img", "br", "line", "circle", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def evaluated(run, result, scenarios):
    """The report of a run with this evaluation alone."""
    (run.path / "results.json").unlink(missing_ok=True)
    add_evaluation(run.path, result, run.config, "digest", scenarios)
    return write_report(run)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path, "sft", {"stage": {"name": "sft", "note": EVIL}}, ["drive", "train", f"name={EVIL}"])
    for step in range(1, 60):
        folder.log(step, {"action_loss": 1.0 / step, EVIL: 1.0, "think_rate": 0.5})
    folder.log(60, {"val/pdms_v1_1": 71.25})
    folder.record_data({"train": "feedc0de"})
    return folder


def result_of(scenarios):
    rows = [row(i, i / 10, scenario_id=s.id, kind=s.kind, reasoning=EVIL, mode="slow") for i, s in enumerate(scenarios)]
    rows[0] = row(0, 0.0, PlanStatus.UNDECODABLE, kind=EVIL)
    return Result("vla", rows, len(rows))


def check_alone(text):
    """Well-formed, and nothing in it can load or run anything."""
    page = Collector(text)
    assert not page.open
    assert all(load.startswith("data:image/") for load in page.loads)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert not any(name.startswith("on") for name in page.attributes)
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    return page


def test_report_of_a_run_without_evaluation(run):
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    check_alone(text)
    assert path == run.path / "report.html" and "Evaluation" not in text
    for word in ("running", "feedc0de", "action_loss", "val/pdms_v1_1", "71.2", "versions"):
        assert word in text
    assert text.count("<svg") == 4  # loss, pdms, the evil one, think rate


def test_report_draws_plans_and_escapes_what_the_model_said(run):
    scenarios = [toy_scenario(i) for i in range(5)]
    text = evaluated(run, result_of(scenarios), scenarios).read_text(encoding="utf-8")
    page = check_alone(text)
    assert page.tags.count("img") == 5 and "evil.example" in text and "PARTIAL 80.0 %" in text
    assert "no plan: undecodable" in text and "Best plans" in text and "Worst plans" in text
    again = write_report(RunFolder.open(run.path)).read_text(encoding="utf-8")
    assert again == text  # a refresh finds the stored evaluation and its pictures


def test_pictures_of_other_results_are_not_shown(run):
    scenarios = [toy_scenario(i) for i in range(3)]
    evaluated(run, result_of(scenarios), scenarios)
    text = evaluated(run, partial_result(), None).read_text(encoding="utf-8")
    assert "<img" not in text and "PARTIAL 50.0 %" in text and "log-3: truncated" in text


def test_scenarios_of_another_set_are_refused(run):
    with pytest.raises(DataError, match="not among the scenarios"):
        evaluated(run, result_of([toy_scenario(i) for i in range(3)]), [toy_scenario(i) for i in (1, 1, 1)])


def test_report_of_a_run_that_logged_nothing(tmp_path):
    text = write_report(RunFolder.create(tmp_path, "sft", {}, ["drive"])).read_text(encoding="utf-8")
    check_alone(text)
    assert "No metric was logged." in text


def test_curves_are_inline_and_named(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert re.search(r'<svg viewBox="0 0 \d+ \d+" role="img" aria-label="loss: action_loss over steps">', text)


def test_extremes_take_turns_between_kinds_only_among_equals():
    given = [(1.0, "a"), (1.0, "a"), (1.0, "b"), (0.2, "a"), (0.1, "a"), (0.9, "c")]
    rows = [row(i, score, kind=kind) for i, (score, kind) in enumerate(given)]
    best, worst = extremes(rows, count=2)
    assert best == [0, 2] and worst == [4, 3]
    assert extremes(rows[:1], count=2) == ([], [0]) and extremes([], count=2) == ([], [])


def test_extremes_show_a_log_once_while_there_are_others():
    rows = [row(i, 0.1 * (i // 2), log_id=f"log-{i // 2}") for i in range(8)]
    best, worst = extremes(rows, count=3)
    assert worst == [0, 2, 4] and best == [6, 5, 3]
    assert extremes(rows, count=4)[1] == [0, 2, 4, 6] and extremes(rows[:4], count=2) == ([3, 1], [0, 2])


def test_evaluations_of_several_planners_share_a_folder(tmp_path, capsys):
    scenes = [toy_scenario(i) for i in range(3)]
    config = {"dataset": {"name": "embedded"}, "split": "test"}
    for name in ("a", "b"):
        add_evaluation(tmp_path, replace(result_of(scenes), planner=name), config, "d", scenes)
    assert [r.planner for r in read_results(tmp_path).results] == ["b", "a"] and not capsys.readouterr().err
    add_evaluation(tmp_path, replace(result_of(scenes), planner="a"), config, "d", scenes)
    assert [r.planner for r in read_results(tmp_path).results] == ["a", "b"] and "of a is replaced" in capsys.readouterr().err
    for fingerprint, settings in (("other data", config), ("d", {**config, "max_scenes": 2})):
        with pytest.raises(DataError, match="name another folder"):
            add_evaluation(tmp_path, replace(result_of(scenes), planner="c"), settings, fingerprint, scenes)
    assert [r.planner for r in read_results(tmp_path).results] == ["a", "b"]  # nothing is lost
    assert stored_picture(tmp_path, 0) is not None
    (tmp_path / "results.json").write_text('{"format": 0}')  # of an older drive
    add_evaluation(tmp_path, replace(result_of(scenes), planner="c"), config, "d", scenes)
    assert [r.planner for r in read_results(tmp_path).results] == ["c"] and "is replaced" in capsys.readouterr().err


def test_verb_writes_the_report(run, capsys):
    from drive.cli.report import run as verb

    assert verb([str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "report.html")
    with pytest.raises(ConfigError, match="one run folder or evaluation"):
        verb([])
    with pytest.raises(DataError, match="not a run folder"):
        verb([str(run.path.parent)])


def test_verb_takes_the_folder_of_an_evaluation(tmp_path, capsys):
    from drive.cli.report import run as verb

    scenes = [toy_scenario(i) for i in range(3)]
    result = replace(result_of(scenes), expected=6, faults=["scene: torn", "scene: torn", "other"])
    add_evaluation(tmp_path, result, {"dataset": {"name": "embedded"}, "note": EVIL}, "digest", scenes)
    assert verb([str(tmp_path)]) == 0 and capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = check_alone(text)
    assert page.tags.count("img") == 3 and "pdms_v1_1" in text and "Best plans" in text and "embedded" in text
    assert text.count("scene: torn") == 1 and "scene: torn (2 times)" in text and "not read: other<" in text
    assert read_results(tmp_path).results[0].faults == result.faults  # the file keeps them all
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DataError, match=r"results\.json"):
        verb([str(tmp_path)])
