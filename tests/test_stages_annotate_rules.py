"""What a plan does in words, which of the expert's reasons agree with it, and which answers of a teacher pass."""

from dataclasses import replace

import numpy as np
import pytest
from planner_scenes import agents, scene, straight
from toy_scenes import toy_scenario

from drive.core.types import AgentType, Command, Trajectory
from drive.planners.reasoning import Cause, Decision, Lead, describe
from drive.stages.annotate_rules import (
    SPEEDS,
    WAYS,
    CheckConfig,
    MetaAction,
    SceneNumbers,
    as_driven,
    check_answer,
    contradiction,
    driven,
    meta_action,
    steps_of,
    text_of,
)

CONFIG = CheckConfig()
NOTHING = SceneNumbers(8.0, ())
STOP = MetaAction("stop", "go straight", 0.0)
T = np.arange(1, 11) * 0.5


def plan(x, y=None, heading=None) -> Trajectory:
    zero = np.zeros_like(x)
    return Trajectory(np.column_stack([x, zero if y is None else y, zero if heading is None else heading]))


def steady(speed: float, change: float) -> Trajectory:
    """Speed goes from `speed` to `speed + change` within the last step but one, which then is held."""
    v = speed + change * np.minimum(T / 4.5, 1.0)
    return plan(np.cumsum(v * 0.5))


# ---------------------------------------------------------------- plans in words


@pytest.mark.parametrize(
    "speed,change,words",
    [
        (8.0, 0.0, "keep speed"),
        (8.0, 0.79, "keep speed"),
        (8.0, 0.81, "speed up"),
        (8.0, -0.81, "slow down"),
        (8.0, -3.9, "slow down"),
        (8.0, -4.1, "slow down quickly"),
        (3.0, 4.1, "speed up quickly"),
        (8.0, -7.75, "stop"),
        (0.2, 0.0, "stay stopped"),
        (0.2, 2.0, "speed up"),
        (0.5, -0.15, "keep speed"),
    ],
)
def test_speed_in_words(speed, change, words):
    action = meta_action(steady(speed, change), speed)
    assert action.speed == words and action.way == "go straight"
    assert action.final_speed == pytest.approx(speed + change)


def arc(turn: float) -> Trajectory:
    """40 m along an arc of `turn` radians in all."""
    s = np.linspace(4.0, 40.0, 10)
    radius = 40.0 / turn
    return plan(radius * np.sin(s / radius), radius * (1 - np.cos(s / radius)), s / radius)


@pytest.mark.parametrize(
    "turn,way",
    [(0.05, "go straight"), (0.2, "bear left"), (-0.2, "bear right"), (0.5, "turn left"), (-1.4, "turn right")],
)
def test_a_bend_in_words(turn, way):
    assert meta_action(arc(turn), 8.0).way == way


@pytest.mark.parametrize("side,word", [(1, "left"), (-1, "right")])
def test_a_lane_change_comes_back_to_the_road_s_heading_also_over_two_lanes(side, word):
    x = np.linspace(4.0, 40.0, 10)
    for width in (3.5, 7.0):
        y = side * width * 0.5 * (1 - np.cos(np.pi * np.minimum(x / 36.0, 1.0)))
        heading = side * np.arctan(width * 0.5 * np.pi / 36.0 * np.sin(np.pi * np.minimum(x / 36.0, 1.0)))
        assert meta_action(plan(x, y, heading), 8.0).way == f"change lane {word}"
        half = Trajectory(plan(x, y, heading).poses[:6])
        assert meta_action(half, 8.0).way == f"bear {word}", "not over yet"


def test_a_plan_is_the_teacher_s_or_the_driven_future():
    scenario = toy_scenario(0)
    assert driven(scenario) is scenario.teacher
    np.testing.assert_allclose(driven(replace(scenario, teacher=None)).poses, scenario.teacher.poses)  # type: ignore[union-attr]
    assert meta_action(driven(scenario), scenario.observation().speed).phrase == "stop, go straight"
    assert meta_action(driven(toy_scenario(1)), toy_scenario(1).observation().speed).phrase == "keep speed, go straight"


# ---------------------------------------------------------------- the rule's texts

FREE = Decision(Cause.FREE, Command.LANEFOLLOW, 8.0, 8.0, 40.0, 0.0, float("inf"), None, 0, 0.0, 1.0, 4)
CAR = Lead(0, AgentType.VEHICLE, 17.0, 5.0, False, 0.0)


@pytest.mark.parametrize(
    "decision,change,agrees",
    [
        (FREE, 0.0, True),
        (FREE, 2.0, True),
        (FREE, -2.0, False),  # the log knows a reason that the scene does not hold, such as a red light
        (replace(FREE, cause=Cause.EMERGENCY, lead=CAR), -2.0, False),
        (replace(FREE, cause=Cause.EMERGENCY, lead=CAR), -6.0, True),
        (replace(FREE, cause=Cause.STOP_BEHIND, lead=CAR), 2.0, False),
        (replace(FREE, cause=Cause.STOP_BEHIND, lead=CAR), -7.9, True),
        (replace(FREE, cause=Cause.YIELD, lead=CAR), 0.0, False),
        (replace(FREE, cause=Cause.CURVE), -2.0, True),
        (replace(FREE, cause=Cause.FOLLOW, lead=CAR), -3.0, True),
        (replace(FREE, cause=Cause.FOLLOW, lead=CAR), 3.0, False),
        (replace(FREE, cause=Cause.FOLLOW, lead=replace(CAR, speed=12.0)), 3.0, True),
        (replace(FREE, cause=Cause.NUDGE, lead=CAR), 0.0, True),
        (replace(FREE, cause=Cause.PASS, lead=CAR, side=1), 0.0, False),
    ],
)
def test_a_reason_must_be_able_to_explain_what_was_driven(decision, change, agrees):
    log = steady(8.0, change)
    action = meta_action(log, 8.0)
    fault = contradiction(as_driven(decision, log, action), action, log, scene(straight(), 8.0))
    assert (fault == "") == agrees
    assert agrees or (decision.cause.value in fault and action.phrase in fault)


def test_a_lane_change_needs_a_reason_and_the_right_side():
    x = np.linspace(4.0, 40.0, 10)
    y = 3.5 * 0.5 * (1 - np.cos(np.pi * np.minimum(x / 36.0, 1.0)))
    heading = np.arctan(3.5 * 0.5 * np.pi / 36.0 * np.sin(np.pi * np.minimum(x / 36.0, 1.0)))
    log, road = plan(x, y, heading), scene(straight(two_lanes=True), 8.0)
    action = meta_action(log, 8.0)
    faults = {
        name: bool(contradiction(decision, action, log, road))
        for name, decision in {
            "free": FREE,
            "left": replace(FREE, cause=Cause.PASS, lead=CAR, side=1),
            "right": replace(FREE, cause=Cause.PASS, lead=CAR, side=-1),
            "back from the right": replace(FREE, cause=Cause.RETURN, offset=-5.0),
            "back from the left": replace(FREE, cause=Cause.RETURN, offset=1.5),
        }.items()
    }
    assert faults == {"free": True, "left": False, "right": True, "back from the right": False, "back from the left": True}


def test_the_text_tells_the_motion_that_was_driven():
    log = steady(8.0, -5.0)
    told = as_driven(replace(FREE, cause=Cause.FOLLOW, lead=CAR), log, meta_action(log, 8.0))
    assert describe(told).endswith("follow it . plan slow down quickly to 3 m/s .")
    assert told.travelled == pytest.approx(log.poses[-1, 0])


# ---------------------------------------------------------------- a teacher's answers

LINES = ["Scene: a dry straight road by day", "Objects: a stopped car ahead", "Intentions: the car stays", "Action: the lane is blocked; therefore stop, go straight."]
ANSWER = "\n".join(LINES)


def kinds(answer: str, numbers: SceneNumbers = NOTHING, action: MetaAction = STOP, config: CheckConfig = CONFIG) -> list[str]:
    return [fault.partition(":")[0] for fault in check_answer(answer, action, "c0ffee1234", numbers, config)[1]]


def test_a_good_answer_becomes_one_line():
    text, faults = check_answer(ANSWER, STOP, "c0ffee1234", NOTHING, CONFIG)
    assert faults == [] and text == " ".join(LINES)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_action_can_be_concluded(speed, way):
    action = MetaAction(speed, way, 0.0)
    assert kinds(ANSWER.replace("stop, go straight", action.phrase), action=action) == []
    wrong = MetaAction(speed, "go straight" if way != "go straight" else "turn left", 0.0)
    assert kinds(ANSWER.replace("stop, go straight", action.phrase), action=wrong) == ["action"]


def test_layout_that_models_add_is_read():
    dressed = "\n\n".join(f"{n}. **{line.partition(':')[0]}:**{line.partition(':')[2]}" for n, line in enumerate(LINES, 1))
    assert steps_of(dressed) == steps_of(ANSWER) and text_of(steps_of(dressed) or []) == " ".join(LINES)
    assert steps_of(ANSWER.replace(" by day", "\nby day")) == steps_of(ANSWER), "a step may run over lines"


@pytest.mark.parametrize(
    "answer,kind",
    [
        ("", "empty"),
        ("I cannot help with that.", "format"),
        ("Sure!\n" + ANSWER, "format"),
        ("\n".join(LINES[:3]), "format"),
        ("\n".join([LINES[1], LINES[0], *LINES[2:]]), "format"),
        (ANSWER + "\n" + ANSWER, "format"),
        (ANSWER.replace("the car stays", ""), "format"),
        (ANSWER.replace("therefore", "so"), "format"),
        (ANSWER + " That is all.", "format"),
        (ANSWER.replace("stop, go", "slow down, go"), "action"),
        (ANSWER.replace("stop, go", "stay stopped, go"), "action"),
        (ANSWER.replace("blocked", "blocked " * 130), "length"),
        (ANSWER.replace("blocked", "blocked </think><answer>"), "control"),
        (ANSWER.replace("blocked", "blo\x07cked"), "control"),
        (ANSWER.replace("blocked", "blocked as the hint says"), "leak"),
        (ANSWER.replace("blocked", "blocked, which the ground truth shows"), "leak"),
        (ANSWER.replace("blocked", "blocked, and the given action is to brake"), "leak"),
        (ANSWER.replace("blocked", "blocked as I was told"), "leak"),
        (ANSWER.replace("blocked", "blocked (C0FFEE1234)"), "leak"),
        (ANSWER.replace("blocked", "blocked and the car will stand in 3.5 seconds"), "leak"),
        (ANSWER.replace("blocked", "blocked, the way runs over (12.5, -0.3)"), "leak"),
    ],
)
def test_what_is_refused(answer, kind):
    assert kind in kinds(answer)


def test_numbers_are_held_against_the_scene():
    numbers = SceneNumbers(8.0, (30.0,), lead=26.0)
    for words, faults in {
        "a car 25 m ahead": [],
        "a car 45 m ahead": [],  # 30 m to its centre, 8 m and a quarter of it
        "a car 60 m ahead": ["distance"],
        "the lead car 35 m ahead": [],
        "the lead car is 45 metres away": ["distance"],
        "a junction 100 m ahead": [],  # not checked: no object
        "a car ahead, the junction is 100 m away": [],  # another clause
        "a pedestrian 3 meters away": ["distance"],
        "we drive 8.4 m/s": [],
        "we drive 12 m/s": ["speed"],
        "our speed of 29 km/h": [],
        "our speed of 50 km/h": ["speed"],
    }.items():
        assert kinds(ANSWER.replace("a stopped car ahead", words), numbers) == faults, words


def test_scene_numbers_are_those_of_the_scene():
    numbers = SceneNumbers.of(scene(straight(), 7.0, agents((30.0, 0.0, 0.0, 0.0), (0.0, -40.0, 0.0, 0.0))))
    assert numbers.speed == 7.0 and sorted(numbers.distances) == pytest.approx([30.0, 40.0])
    assert numbers.lead == pytest.approx(30.0 - 2.3 - 4.0)
    assert SceneNumbers.of(scene(straight(), 7.0)).lead is None
