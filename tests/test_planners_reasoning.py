"""The expert's words: structure, vocabulary, numbers."""

from dataclasses import replace

import pytest

from drive.core.types import AgentType, Command
from drive.planners.reasoning import VOCABULARY, Cause, Decision, Lead, describe

FREE = Decision(Cause.FREE, Command.LANEFOLLOW, 10.0, 10.2, 50.0, 0.0, float("inf"), None, 0, 0.0, 1.0, 4)
CAR = Lead(0, AgentType.VEHICLE, 17.0, 2.6, False, 0.0)


def test_free_road():
    assert describe(FREE) == "road straight . command lanefollow . no object in the way . free road , keep lane . plan keep 10 m/s ."
    assert not FREE.is_complex


def test_lead_is_named_with_its_distance_and_speed():
    text = describe(replace(FREE, cause=Cause.FOLLOW, lead=CAR, road_turn=0.5, final_speed=2.7))
    assert text == (
        "road curve left . command lanefollow . lead car 15 m ahead at 3 m/s , slower . follow it . plan slow down quickly to 3 m/s ."
    )


def test_crossing_person_from_the_right():
    person = Lead(0, AgentType.PEDESTRIAN, 12.0, 1.4, True, -0.6)
    text = describe(replace(FREE, cause=Cause.YIELD, lead=person, final_speed=0.1))
    assert "person from right 10 m away at 1 m/s , will cross . yield to it . plan stop ." in text


@pytest.mark.parametrize("final,action", [(0.2, "stop"), (9.5, "keep 10 m/s"), (8.0, "slow down to 8 m/s"), (15.0, "speed up quickly to 15 m/s")])
def test_meta_actions(final, action):
    assert describe(replace(FREE, final_speed=final)).endswith(f"plan {action} .")
    assert describe(replace(FREE, speed=0.1, final_speed=0.1)).endswith("plan stay stopped .")


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("command", list(Command))
@pytest.mark.parametrize("lead", [None, CAR, replace(CAR, speed=0.0), replace(CAR, crossing=True, type=AgentType.BARRIER)])
def test_words_stay_in_the_vocabulary_and_few(cause, command, lead):
    decision = replace(FREE, cause=cause, command=command, lead=lead, side=1, road_turn=-1.0, junction_distance=22.0, final_speed=3.0)
    words = describe(decision).split()
    assert {w for w in words if not w.isdigit()} <= VOCABULARY
    assert 10 <= sum(w not in ".," for w in words) <= 34
    assert len(VOCABULARY) < 150


def test_complex_is_anything_but_a_free_road_at_steady_speed():
    assert replace(FREE, cause=Cause.YIELD).is_complex and replace(FREE, cause=Cause.PASS).is_complex
    behind = replace(FREE, cause=Cause.FOLLOW)
    assert replace(behind, final_speed=behind.speed - 2.0).is_complex and not replace(behind, final_speed=behind.speed + 2.0).is_complex
    assert not replace(FREE, cause=Cause.CURVE, final_speed=7.0).is_complex
