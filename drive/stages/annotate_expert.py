"""Reasoning by rule: the expert says from the privileged scene why, the log says what was done, and where they disagree there is no text."""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any

from drive.core.types import Privileged, Scenario, Trajectory
from drive.datasets.annotations import Annotation, Verdict
from drive.planners import decision, pdm, reasoning
from drive.stages import annotate_rules
from drive.stages.annotate_rules import MetaAction, as_driven, contradiction, driven, meta_action


def weigh(expert: pdm.PdmExpert, scene: Privileged, plan: Trajectory, action: MetaAction) -> tuple[reasoning.Decision | None, str]:
    """(the expert's reasons with the motion that was driven, why there are none)."""
    try:
        expert.plan_privileged([scene])
    except Exception as error:  # a scene that the expert cannot plan in has no reasons; it is counted, and the others go on
        return None, f"expert: {type(error).__name__}: {error}"
    return as_driven(expert.last_decisions[0], plan, action), ""


class RuleAnnotator:
    """Annotates with the expert's words; see `Annotator` in annotate.py."""

    name = "rule"
    concurrency = 1

    def __init__(self) -> None:
        self.expert = pdm.PdmExpert()

    def identity(self) -> dict[str, Any]:
        """The words and the rules that choose them."""
        words = "".join(inspect.getsource(part) for part in (reasoning, decision, pdm, annotate_rules, sys.modules[__name__]))
        return {"source": "rule", "rules_sha256": hashlib.sha256(words.encode()).hexdigest()}

    def start(self) -> None:
        """Nothing is to be reached."""

    def stop(self) -> None:
        """Nothing waits."""

    def cost(self, row: Annotation) -> float:
        """Nothing is paid."""
        return 0.0

    def task(self, index: int, scenario: Scenario) -> Callable[[], Annotation]:
        """The annotation of one scene, made by the function that is returned."""
        return lambda: self._annotate(index, scenario)

    def _annotate(self, index: int, scenario: Scenario) -> Annotation:
        clock = time.perf_counter()
        scene, plan = scenario.privileged(), driven(scenario)
        action = meta_action(plan, scene.ego.speed)
        told, fault = weigh(self.expert, scene, plan, action)
        text = ""
        if scenario.notes.get("map") == "corridor":
            told, fault = None, "no map: what else the road holds is not known"
        if told is not None:
            fault, text = contradiction(told, action, plan, scene), reasoning.describe(told)
        return Annotation(
            index=index,
            id=scenario.id,
            verdict=Verdict.REJECTED if fault else Verdict.ACCEPTED,
            source=self.name,
            reasoning="" if fault else text,
            complex=None if told is None else told.is_complex,
            action=action.phrase,
            reasons=(fault,) if fault else (),
            seconds=round(time.perf_counter() - clock, 3),
        )
