"""Annotation by a teacher, against a local server that speaks its protocol, and by rule; killed, resumed, within a budget; joined by SFT."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai_server import MODEL, Reply, TeacherServer, completion, error, four_steps, good, hinted, mark, pictures, prompt
from toy_scenes import CORPUS, toy_codebook, toy_scenario

from drive.core.errors import ConfigError, DataError, DriveError
from drive.core.roadmap import Polygons, RoadMap
from drive.datasets.annotations import AnnotatedDataset, Verdict, annotated, latest, read_annotations, read_card
from drive.datasets.select import Selected
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.prompt import plan_request
from drive.planners.vla.tiny import build_tiny
from drive.stages import annotate_client
from drive.stages.annotate import annotate
from drive.stages.annotate_expert import RuleAnnotator
from drive.stages.annotate_teacher import TeacherAnnotator, TeacherConfig
from drive.stages.scenes import TeacherStore

SCENES = [toy_scenario(i, reasoning=False) for i in range(6)]
DATA = Selected(SCENES, "f" * 64, 6)
TOY = {"name": "toy", "root": "here", "stride": 5}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(annotate_client, "FIRST_WAIT", 0.01)


def teacher(server: TeacherServer, seed: int = 0, **settings: Any) -> TeacherAnnotator:
    return TeacherAnnotator(TeacherConfig(**{"base_url": server.url, "model": MODEL, "concurrency": 2, **settings}), seed)


def run(server: TeacherServer, folder: Path, data: Selected = DATA, max_cost: float = 0.0, **settings: Any) -> dict:
    indexes = range(len(data.scenarios))
    return annotate(data, TOY, "train", teacher(server, max_cost=max_cost, **settings), folder, indexes, "the command", max_cost, progress=False)["facts"]


def rows(folder: Path):
    return latest(read_annotations(folder / "annotations.jsonl"))


def test_scenes_of_an_earlier_run_are_kept_and_told_apart(tmp_path):
    with TeacherServer() as server:
        asked = annotate(DATA, TOY, "train", teacher(server), tmp_path / "a", [0, 1, 2], "the command", 0.0, progress=False)["facts"]
        facts = annotate(DATA, TOY, "train", teacher(server), tmp_path / "a", [2, 3], "the command", 0.0, progress=False)["facts"]
    assert (asked["scenes_done"], asked["accepted"], asked["scenes_of_other_runs"]) == (3, 3, 0)
    assert (facts["scenes_done"], facts["accepted"], facts["scenes_of_other_runs"], len(rows(tmp_path / "a"))) == (2, 2, 2, 4)


# ---------------------------------------------------------------- what is asked


def test_every_scene_gets_the_text_that_its_driven_action_asks_for(tmp_path):
    with TeacherServer() as server:
        facts = run(server, tmp_path / "a")
    assert facts["accepted"] == facts["scenes_done"] == 6 and facts["rejected"] == facts["failed"] == facts["unread"] == 0
    assert (facts["answers"], facts["prompt_tokens"], facts["completion_tokens"]) == (6, 6000, 600)
    assert facts["accepted_by_action"] == {"keep speed, go straight": 4, "stop, go straight": 2}
    found = rows(tmp_path / "a")
    for i, scenario in enumerate(SCENES):
        row = found[scenario.id]
        assert row.index == i and row.source == MODEL and row.seconds > 0.0
        assert row.complex == (i % 3 == 0), "a stopped car ahead is worth a thought, a free road is not"
        assert row.reasoning.startswith("Scene: a straight") and row.reasoning.endswith(f"therefore {row.action}.")
    card = read_card(tmp_path / "a")
    assert card["command"] == "the command" and card["identity"]["fingerprint"] == DATA.fingerprint
    assert "6 texts accepted" in (tmp_path / "a" / "README.md").read_text()


@pytest.mark.parametrize("settings,frames", [({}, 4), ({"frames": 1}, 1)])
def test_the_teacher_is_shown_the_student_s_frames_and_nothing_else(tmp_path, settings, frames):
    with TeacherServer() as server:
        run(server, tmp_path / "a", **settings)
    for body in server.requests:
        scenario = next(s for s in SCENES if f"{s.observation().speed:.1f} m/s" in prompt(body))
        seen = scenario.observation().images[:, -frames:]
        sent = pictures(body)
        assert [media for media, _ in sent] == ["image/png"] * frames
        np.testing.assert_array_equal(np.stack([image for _, image in sent]), seen.reshape(-1, *seen.shape[2:]))
        assert body["model"] == MODEL and body["max_tokens"] == 500 and "command: lanefollow" in prompt(body)


def test_photographs_may_be_sent_as_jpeg(tmp_path):
    with TeacherServer() as server:
        run(server, tmp_path / "a", image_format="jpeg")
    media, image = pictures(server.requests[0])[-1]
    assert media == "image/jpeg" and image.shape == (112, 112, 3)


def test_as_many_requests_at_once_as_configured(tmp_path):
    def slow(body, number):
        return Reply(body=completion(four_steps(hinted(body))), delay=0.4)

    for concurrency in (1, 3):
        with TeacherServer(slow) as server:
            run(server, tmp_path / str(concurrency), concurrency=concurrency)
        assert server.busiest == concurrency


# ---------------------------------------------------------------- what goes wrong at the server


@pytest.mark.parametrize(
    "bad",
    [
        error(429, "slow down"),
        error(500, "oops"),
        error(503, "loading"),
        Reply(body=b"{not json"),
        Reply(body={"object": "chat.completion", "choices": []}),
        Reply(body=b""),
        Reply(body=b"[]"),
    ],
)
def test_a_passing_fault_is_tried_again(tmp_path, bad):
    with TeacherServer(lambda body, number: bad if number <= 3 else good(body, number)) as server:
        facts = run(server, tmp_path / "a", retries=3, concurrency=1)
    assert facts["accepted"] == 6 and len(server.requests) == 9 and facts["answers"] == 6


def test_retry_after_is_heeded_as_seconds_and_as_a_date(tmp_path):
    arrivals: list[float] = []

    def busy(body, number):
        arrivals.append(time.monotonic())
        if number == 1:
            return error(429, "busy", Retry_After="1")
        if number == 2:
            return error(503, "busy", Retry_After=format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2)))
        return good(body, number)

    with TeacherServer(busy) as server:
        facts = run(server, tmp_path / "a", Selected(SCENES[:1], "f" * 64, 1))
    assert facts["accepted"] == 1 and arrivals[1] - arrivals[0] >= 1.0 and arrivals[2] - arrivals[1] >= 0.9
    with TeacherServer(lambda body, number: error(429, "come tomorrow", Retry_After="86400")) as server:
        facts = run(server, tmp_path / "b", Selected(SCENES[:1], "f" * 64, 1))
    assert facts["failed"] == 1 and len(server.requests) == 1


def test_a_time_out_is_tried_again_and_then_counted(tmp_path):
    def late(body, number):
        return Reply(body=completion(four_steps(hinted(body))), delay=0.0 if "stop" in hinted(body) else 3.0)

    with TeacherServer(late) as server:
        facts = run(server, tmp_path / "a", timeout_s=1.0, retries=1, concurrency=3)
    assert facts["accepted"] == 2 and facts["failed"] == 4 and len(server.requests) == 2 + 2 * 4
    reasons = [row.reasons for row in rows(tmp_path / "a").values() if row.verdict is Verdict.FAILED]
    assert all("timed out (2 tries)" in reason for (reason,) in reasons)
    with TeacherServer() as server:  # a failed scene is asked about again, an accepted one is not
        facts = run(server, tmp_path / "a", timeout_s=30.0)
    assert facts["accepted"] == 6 and facts["failed"] == 0 and len(server.requests) == 4


def test_one_refused_request_does_not_end_the_run_but_many_in_a_row_do(tmp_path):
    with TeacherServer(lambda body, number: error(400, "prompt too long") if number == 2 else good(body, number)) as server:
        facts = run(server, tmp_path / "a", concurrency=1)
    assert facts["accepted"] == 5 and facts["failed"] == 1
    many = Selected([toy_scenario(i) for i in range(12)], "e" * 64, 12)
    told = pytest.raises(DriveError, match=r"9 scenes in a row .*status 400: prompt too long")
    with TeacherServer(lambda body, number: error(400, "prompt too long")) as server, told:
        run(server, tmp_path / "b", many, concurrency=1)
    assert len(server.requests) in (9, 10) and read_card(tmp_path / "b")["facts"]["failed"] in (9, 10)


@pytest.mark.parametrize(
    "reply,words",
    [
        (error(401, "bad key"), "refuses the key.*bad key"),
        (error(403, "not you"), "refuses the key.*not you"),
        (error(404, "The model does not exist"), "status 404: The model does not exist"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:9/v1/chat/completions"}), "points elsewhere"),
    ],
)
def test_what_no_request_survives_ends_the_run_with_one_line(tmp_path, reply, words):
    with TeacherServer(lambda body, number: reply) as server, pytest.raises(DriveError, match=words) as caught:
        run(server, tmp_path / "a", concurrency=1)
    assert "\n" not in str(caught.value) and len(server.requests) <= 2


def test_server_and_model_are_looked_at_before_anything_is_written(tmp_path):
    with TeacherServer() as server:
        with pytest.raises(DriveError, match=f"does not serve teacher.model=other; it serves: {MODEL}"):
            run(server, tmp_path / "a", model="other")
        url = server.url
    with pytest.raises(DriveError, match=r"no server answers at .*vllm serve"):
        annotate(DATA, TOY, "train", TeacherAnnotator(TeacherConfig(base_url=url, model=MODEL)), tmp_path / "a", [0], "c", progress=False)
    assert not (tmp_path / "a").exists()
    with TeacherServer(models=error(404, "no list here")) as server:
        assert run(server, tmp_path / "b")["accepted"] == 6


def test_settings_that_cannot_work_are_refused():
    for url in ("ftp://host/v1", "127.0.0.1:8000", "file:///etc/passwd", "http://"):
        with pytest.raises(ConfigError, match="give an address"):
            TeacherAnnotator(TeacherConfig(base_url=url, model=MODEL))
    with pytest.raises(ConfigError, match="no user, password or query") as caught:
        TeacherAnnotator(TeacherConfig(base_url="http://me:secret@host/v1", model=MODEL))
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"teacher\.model must be given"):
        TeacherAnnotator(TeacherConfig())
    with pytest.raises(ConfigError, match="NO_SUCH_KEY: no such variable"):
        TeacherAnnotator(TeacherConfig(model=MODEL, api_key_env="NO_SUCH_KEY"))
    with pytest.raises(ConfigError, match="not the key itself") as caught:
        TeacherAnnotator(TeacherConfig(model=MODEL, api_key_env="sk-12345"))
    assert "12345" not in str(caught.value)
    faults: list[dict[str, Any]] = [{"asks": 0}, {"concurrency": 0}, {"timeout_s": 0.0}, {"temperature": 0.0}, {"max_cost": 1.0}]
    for faulty in faults:
        with pytest.raises(ValueError, match=next(iter(faulty))):
            TeacherConfig(**faulty)


# ---------------------------------------------------------------- what goes wrong in the answers


def test_a_refused_answer_is_asked_again_with_another_seed_and_then_rejected(tmp_path):
    def stubborn(body, number):
        action = hinted(body) if "stop" in hinted(body) else "speed up quickly, turn left"
        return Reply(body=completion(four_steps(action)))

    with TeacherServer(stubborn) as server:
        facts = run(server, tmp_path / "a", asks=3)
    assert facts["accepted"] == 2 and facts["rejected"] == 4 and facts["failed"] == 0
    assert facts["refusals"] == {"action": 12} and facts["answers"] == 2 + 3 * 4 == len(server.requests)
    assert facts["prompt_tokens"] == 14_000 and facts["rejected_by_action"] == {"keep speed, go straight": 4}
    assert len({(prompt(body), body["seed"]) for body in server.requests}) == 14
    row = next(row for row in rows(tmp_path / "a").values() if row.verdict is Verdict.REJECTED)
    assert row.reasoning == "" and row.reasons == ("action: speed up quickly, turn left instead of keep speed, go straight",) * 3


@pytest.mark.parametrize("text,finish,kind", [(None, "stop", "empty"), ("", "length", "empty"), (four_steps("ACTION"), "length", "cut off")])
def test_empty_and_cut_answers_are_refused_once_and_accepted_when_mended(tmp_path, text, finish, kind):
    def first_bad(body, number):
        return Reply(body=completion(text and text.replace("ACTION", hinted(body)), finish=finish)) if number == 1 else good(body, number)

    with TeacherServer(first_bad) as server:
        facts = run(server, tmp_path / "a", concurrency=1)
    assert facts["accepted"] == 6 and facts["refusals"][kind] == 1 and facts["answers"] == 7


def test_answers_without_usage_are_counted_and_break_no_budget_in_silence(tmp_path):
    def unmetered(body, number):
        return Reply(body=completion(four_steps(hinted(body)), usage=False))

    with TeacherServer(unmetered) as server:
        facts = run(server, tmp_path / "a")
        assert facts["accepted"] == facts["answers_without_usage"] == 6 and facts["prompt_tokens"] == 0
        with pytest.raises(DriveError, match="no token usage, so max_cost cannot be kept"):
            run(server, tmp_path / "b", price_input=1.0, max_cost=10.0, concurrency=1)
        assert len(server.requests) <= 6 + 2


# ---------------------------------------------------------------- budget, resuming, identity


def test_the_budget_ends_a_run_before_it_is_overdrawn_and_more_money_goes_on(tmp_path):
    price: dict[str, Any] = {"price_input": 1000.0, "price_output": 1000.0}  # 1.1 per answer
    with TeacherServer() as server:
        facts = run(server, tmp_path / "a", max_cost=3.5, concurrency=1, **price)
        assert facts["stopped_by_budget"] and facts["accepted"] == 3 and facts["cost"] == pytest.approx(3.3) and len(server.requests) == 3
        facts = run(server, tmp_path / "a", max_cost=3.5, concurrency=1, **price)
        assert facts["stopped_by_budget"] and len(server.requests) == 3, "what was spent before counts"
        facts = run(server, tmp_path / "a", max_cost=100.0, concurrency=2, **price)
    assert not facts["stopped_by_budget"] and facts["accepted"] == 6 and len(server.requests) == 6 and facts["cost"] == pytest.approx(6.6)


def test_a_finished_folder_asks_nothing_and_a_torn_line_is_done_again(tmp_path):
    with TeacherServer() as server:
        run(server, tmp_path / "a")
        path = tmp_path / "a" / "annotations.jsonl"
        whole = path.read_bytes()
        run(server, tmp_path / "a")
        assert len(server.requests) == 6 and path.read_bytes() == whole
        path.write_bytes(whole[:-20])
        facts = run(server, tmp_path / "a")
    assert len(server.requests) == 7 and facts["accepted"] == 6
    assert [row.id for row in read_annotations(path)] == [json.loads(line)["id"] for line in whole.splitlines()]


def test_a_folder_made_otherwise_is_refused_and_left_as_it_is(tmp_path):
    with TeacherServer() as server:
        run(server, tmp_path / "a")
        before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
        others: list[tuple[dict[str, Any], str]] = [
            ({"data": Selected(SCENES, "0" * 64, 6)}, "fingerprint ffff.* not 0000"),
            ({"temperature": 1.0}, "temperature 0.6, not 1.0"),
            ({"frames": 2}, "frames 0, not 2"),
        ]
        for other, words in others:
            with pytest.raises(DataError, match=words):
                run(server, tmp_path / "a", **other)
        with pytest.raises(DataError, match=r"dataset\.stride 5, not 10"):  # other scenes would stand at the same indexes
            annotate(DATA, {**TOY, "stride": 10}, "train", teacher(server), tmp_path / "a", range(6), "c", progress=False)
        with pytest.raises(DataError, match="source teacher, not rule"):
            annotate(DATA, TOY, "train", RuleAnnotator(), tmp_path / "a", range(6), "c", progress=False)
        run(server, tmp_path / "a", retries=1, concurrency=1, timeout_s=9.0)  # how patiently it asks is no part of it
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}.keys() == before.keys()
    assert (tmp_path / "a" / "annotations.jsonl").read_bytes() == before["annotations.jsonl"]
    (tmp_path / "a" / "card.json").unlink()
    with pytest.raises(DataError, match="without a card"):
        annotate(DATA, TOY, "train", RuleAnnotator(), tmp_path / "a", range(6), "c", progress=False)


CHILD = """
import signal
import sys
from pathlib import Path
from typing import Any
from toy_scenes import toy_scenario
from drive.datasets.select import Selected
from drive.stages.annotate import annotate
from drive.stages.annotate_teacher import TeacherAnnotator, TeacherConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
scenes = [toy_scenario(i) for i in range(30)]
teacher = TeacherAnnotator(TeacherConfig(base_url=sys.argv[1], model=sys.argv[2], concurrency=4))
annotate(Selected(scenes, "f" * 64, 30), {"name": "toy", "stride": 5}, "train", teacher, Path(sys.argv[3]), range(30), "c", progress=False)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_loses_the_requests_in_flight_and_nothing_else(tmp_path, kill):
    reached, killed = threading.Event(), threading.Event()

    def slow(body, number):
        if number >= 12:
            reached.set()  # from here on the run cannot end before it is killed, however busy the machine is
        return Reply(body=completion(four_steps(hinted(body))), delay=3.0 if reached.is_set() and not killed.is_set() else 0.1)

    with TeacherServer(slow) as server:
        command = [sys.executable, "-c", CHILD, server.url, MODEL, str(tmp_path / "a")]
        child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}, stderr=subprocess.PIPE)
        assert reached.wait(120)
        child.send_signal(kill)
        stderr = child.communicate(timeout=60)[1]
        killed.set()
        assert child.returncode != 0, stderr
        time.sleep(1.0)
        asked = len(server.requests)
        kept = read_annotations(tmp_path / "a" / "annotations.jsonl")
        assert asked < 30 and asked - 4 <= len(kept) <= asked
        if kill == signal.SIGINT:
            assert len(kept) == asked, "Ctrl-C waits for what was asked"
            assert read_card(tmp_path / "a")["facts"]["accepted"] == asked
        data = Selected([toy_scenario(i) for i in range(30)], "f" * 64, 30)
        facts = run(server, tmp_path / "a", data, concurrency=4)
    assert facts["accepted"] == 30 and len(server.requests) == asked + 30 - len(kept)
    assert len(read_annotations(tmp_path / "a" / "annotations.jsonl")) == 30


class Interrupted(list):
    """Ctrl-C arrives while scene 10 is read, in a callback of compiled code that takes every exception for a no."""

    def __getitem__(self, index):
        if index == 10:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return super().__getitem__(index)


@pytest.mark.parametrize("source", ["teacher", "rule"])
def test_a_ctrl_c_that_compiled_code_would_drop_ends_the_run(tmp_path, source):
    data = Selected(Interrupted(toy_scenario(i) for i in range(30)), "f" * 64, 30)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with TeacherServer() as server, pytest.raises(KeyboardInterrupt):
            annotate(data, TOY, "train", teacher(server) if source == "teacher" else RuleAnnotator(), tmp_path / "a", range(30), "c", progress=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    done = len(server.requests) if source == "teacher" else 10
    assert 8 <= done <= 10 and {row.index for row in rows(tmp_path / "a").values()} == set(range(done))
    assert read_card(tmp_path / "a")["facts"]["scenes_done"] == done


# ---------------------------------------------------------------- what must not get out


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    with TeacherServer(lambda body, number: error(400, "key sk-very-secret cannot do that") if number == 1 else good(body, number)) as server:
        run(server, tmp_path / "a", api_key_env="TEACHER_KEY", concurrency=1)
    assert set(server.keys) == {"Bearer sk-very-secret"} and server.paths[0] == "/v1/models"
    files = [file for file in (tmp_path / "a").rglob("*") if file.is_file()]
    assert len(files) == 3 and not [file for file in files if b"very-secret" in file.read_bytes()]
    assert "key *** cannot" in (tmp_path / "a" / "annotations.jsonl").read_text()
    refused = error(401, "no such key: sk-very-secret")
    with TeacherServer(lambda body, number: refused) as server, pytest.raises(DriveError, match="refuses the key") as caught:
        run(server, tmp_path / "b", api_key_env="TEACHER_KEY")
    assert "very-secret" not in str(caught.value) + "".join(capsys.readouterr())


def test_the_hint_never_reaches_the_student(tmp_path):
    """The word beside the hint is looked for in all that a student is given: also where the teacher repeats it."""

    def talkative(body, number):
        told = (
            f"the note {mark(body)} says so",
            f"see {mark(body).upper()}",
            "the hint says so",
            "this is the right conclusion as given",
            "the road asks for it",
        )
        return Reply(body=completion(four_steps(hinted(body), told[number % 5])))

    with TeacherServer(talkative) as server:
        facts = run(server, tmp_path / "train", asks=5, concurrency=1)
    marks = {mark(body) for body in server.requests}
    assert len(marks) == 6 and facts["accepted"] == 6 and facts["refusals"]["leak"] >= 12
    data = annotated(DATA, {**TOY, "annotations": tmp_path}, "train")
    model, processor = build_tiny([*CORPUS, *marks], seed=0, vocab_size=320)
    policy = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=400))
    store = TeacherStore(data.scenarios, policy)
    prompts = [store.prompt(i) for i in range(6)]
    targets = policy.target_ids(prompts, store.actions, store.reasoning)
    student = [policy.tokenizer.decode(p.ids) for p in prompts] + [policy.tokenizer.decode(row) for row in targets]
    student += [plan_request(scenario.observation()) for scenario in data.scenarios] + store.reasoning
    everything = " ".join(student).lower() + (tmp_path / "train" / "annotations.jsonl").read_text() + (tmp_path / "train" / "card.json").read_text()
    assert "therefore keep speed, go straight" in everything, "the texts are there"
    packed = re.sub(r"\s", "", everything)
    assert not [word for word in marks if word in packed]
    assert not re.search(r"hint|note \w|right conclusion", " ".join(store.reasoning))


# ---------------------------------------------------------------- by rule


def test_the_rule_describes_what_the_log_does(tmp_path):
    facts = annotate(DATA, TOY, "train", RuleAnnotator(), tmp_path / "train", range(6), "c", progress=False)["facts"]
    assert facts["accepted"] == 6 and facts["cost"] == 0.0 and facts["answers"] == 0
    found = rows(tmp_path / "train")
    assert found["toy-0"].complex and "stopped car" in found["toy-0"].reasoning and found["toy-0"].reasoning.endswith("stop behind it . plan stop .")
    assert found["toy-1"].reasoning.endswith("free road , keep lane . plan keep 9 m/s .") and not found["toy-1"].complex


def test_a_log_that_does_the_opposite_has_no_text(tmp_path):
    blocked, free = toy_scenario(0), toy_scenario(1)
    swapped = [replace(blocked, teacher=free.teacher), replace(free, teacher=blocked.teacher)]
    facts = annotate(Selected(swapped, "d" * 64, 2), TOY, "train", RuleAnnotator(), tmp_path / "train", range(2), "c", progress=False)["facts"]
    assert facts["accepted"] == 0 and facts["rejected"] == 2 and facts["refusals"] == {"contradiction": 2}
    data = annotated(Selected(swapped, "d" * 64, 2), {**TOY, "annotations": tmp_path}, "train")
    assert [scenario.reasoning for scenario in data.scenarios] == ["", ""]


class Broken(AnnotatedDataset):
    """Scene 1 cannot be read."""

    def __getitem__(self, index):
        if index == 1:
            raise DataError("file x, record 1: torn")
        return super().__getitem__(index)


def test_an_unreadable_scene_and_a_failing_expert_are_counted(tmp_path):
    nowhere = replace(SCENES[2], road_map=RoadMap("empty", {}, Polygons.from_rings([])), route_lane_ids=())
    data = Selected(Broken([SCENES[0], SCENES[1], nowhere], {}), "c" * 64, 3)
    card = annotate(data, TOY, "train", RuleAnnotator(), tmp_path / "train", range(3), "c", progress=False)
    assert card["facts"]["unread"] == 1 and card["unread"] == ["file x, record 1: torn"] and card["facts"]["scenes_done"] == 2
    assert card["facts"]["rejected"] == 1 and card["facts"]["refusals"] == {"expert": 1}
