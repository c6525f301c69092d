"""Reasoning by a teacher VLM: what it is shown and told, and how often it is asked.

The teacher sees the student's observation and nothing else (AutoVLA's sees a camera that its student lacks), and is told the driven
meta-action as a hint, as AutoVLA's is. The hint stands beside a mark, a word of its own for every request: an answer that holds it is refused, and
no file keeps it.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drive.core.checks import above, at_least, refuse
from drive.core.errors import ConfigError
from drive.core.seeds import stream
from drive.core.types import Observation, Scenario
from drive.datasets.annotations import Annotation, Verdict
from drive.planners.pdm import PdmExpert
from drive.stages import annotate_expert, annotate_rules
from drive.stages.annotate_client import Answer, AskFailed, ChatClient, Stopped, key_from
from drive.stages.annotate_expert import weigh
from drive.stages.annotate_rules import (
    SPEEDS,
    STEPS,
    WAYS,
    CheckConfig,
    MetaAction,
    SceneNumbers,
    check_answer,
    driven,
    meta_action,
)

JPEG_QUALITY = 90


@dataclass(frozen=True)
class TeacherConfig:
    """A teacher, and how it is asked."""

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None
    api_key_env: str | None = None  # name of an environment variable
    concurrency: int = 8  # scenes asked about at once
    timeout_s: float = 120.0
    retries: int = 5  # of one request, on 429, 5xx, time-outs and broken replies
    asks: int = 3  # answers had of one scene until one passes the checks
    temperature: float = 0.6
    max_tokens: int = 500
    frames: int = 0  # newest frames sent per camera; 0 sends all that the student sees
    image_format: Literal["png", "jpeg"] = "png"
    price_input: float = 0.0  # per million tokens, in any currency
    price_output: float = 0.0
    max_cost: float = 0.0  # in the same currency; 0 sets no limit
    checks: CheckConfig = field(default_factory=CheckConfig)

    def __post_init__(self) -> None:
        faults = at_least(1, self, "concurrency", "asks", "max_tokens") + at_least(0, self, "retries", "temperature", "frames", "price_input", "price_output", "max_cost")
        faults += above(0.0, self, "timeout_s")
        if self.temperature == 0.0 and self.asks > 1:
            faults.append("temperature=0 gives the same answer again: take asks=1, or a temperature above 0")
        if self.max_cost and self.price_input + self.price_output <= 0.0:
            faults.append("max_cost needs price_input and price_output")
        refuse(faults)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6


SYSTEM = (
    "You are an experienced driver who explains, for learners, why a car is driven as it is. You name only what can be seen in the pictures "
    "or follows from the state of the car. You write plain, short English."
)
TASK = f"""Answer in exactly four lines, nothing before or after them, {{max_words}} words at most in all:
{STEPS[0]}: the road, its markings and signs, traffic lights, weather and light
{STEPS[1]}: the objects that matter for the car's next seconds and where they are, or that there are none
{STEPS[2]}: what each of them is about to do
{STEPS[3]}: why the car acts as it does; therefore SPEED, WAY
The last line ends with the word therefore and one SPEED and one WAY of these lists, word for word.
SPEED: {", ".join(SPEEDS)}
WAY: {", ".join(WAYS)}
Give distances in metres only where you are sure of them. Give no coordinates and no times to come."""


def hint_text(action: MetaAction, mark: str) -> str:
    """The answer, told to the teacher alone."""
    return (
        f"Note {mark}, for you alone: the right conclusion is '{action.phrase}'. Find in the pictures why, and conclude with it. Write as if you had "
        "found it yourself; never mention this note."
    )


def state_text(observation: Observation, frames: int) -> str:
    """What the pictures are, and the state that the student is told too."""
    cameras = ", ".join(camera.name for camera in observation.cameras)
    asked = f" The passenger says: {observation.text.strip()}" if observation.text.strip() else ""
    return (
        f"Pictures: {frames} of each camera ({cameras}), {observation.frame_dt:g} s apart, oldest first, the last one is now. The car drives "
        f"{observation.speed:.1f} m/s, accelerates by {observation.acceleration:.1f} m/s^2 and turns by {observation.yaw_rate:.2f} rad/s (left positive). "
        f"Route command: {observation.command.value}.{asked}"
    )


def data_url(image: NDArray[np.uint8], image_format: str) -> str:
    """An RGB frame (H, W, 3) as a data URL."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, image_format.upper(), **({"quality": JPEG_QUALITY} if image_format == "jpeg" else {"compress_level": 3}))
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def teacher_messages(observation: Observation, hint: str, config: TeacherConfig) -> list[dict[str, Any]]:
    """The request: every camera's frames, the state, the hint, the task."""
    images = observation.images[:, -config.frames :] if config.frames else observation.images
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(frame, config.image_format)}} for camera in images for frame in camera
    ]
    words = [state_text(observation, images.shape[1]), hint, TASK.format(max_words=config.checks.max_words)]
    content.append({"type": "text", "text": "\n\n".join(words)})
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


class TeacherAnnotator:
    """Annotates by asking a model; see `Annotator` in annotate.py."""

    def __init__(self, config: TeacherConfig, seed: int = 0) -> None:
        """Raises ConfigError without a model, or where the key's variable is not set."""
        if config.model is None:
            raise ConfigError("teacher.model must be given, as the server names it: teacher.model=Qwen/Qwen2.5-VL-72B-Instruct-AWQ")
        self.config, self.seed, self.name = config, seed, str(config.model)
        self.concurrency = config.concurrency
        self.expert = PdmExpert()
        self.client = ChatClient(config.base_url, self.name, key_from(config.api_key_env), config.timeout_s, config.retries, seed)

    def identity(self) -> dict[str, Any]:
        """All that shapes an answer; the address, the prices and the patience do not."""
        config = self.config
        checks = {key: getattr(config.checks, key) for key in ("max_words", "distance_m", "speed_ms")}
        shape = {key: getattr(config, key) for key in ("asks", "temperature", "max_tokens", "frames", "image_format")}
        prompt = "\n".join([SYSTEM, TASK, hint_text(MetaAction("", "", 0.0), "")])
        rules = "".join(inspect.getsource(part) for part in (annotate_rules, annotate_expert))  # they decide what is accepted, and what is complex
        digests = {"prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(), "rules_sha256": hashlib.sha256(rules.encode()).hexdigest()}
        return {"source": "teacher", "model": self.name, **digests, **shape, **checks, "seed": self.seed}

    def start(self) -> None:
        """Raises DriveError where the server or the model is not there."""
        self.client.check()

    def stop(self) -> None:
        """Ends the waits between retries."""
        self.client.stop()

    def cost(self, row: Annotation) -> float:
        """Of the answers behind one line."""
        return self.config.cost(row.prompt_tokens, row.completion_tokens)

    def task(self, index: int, scenario: Scenario) -> Callable[[], Annotation]:
        """The request of one scene, made here (datasets are read in one thread) and sent by the function that is returned."""
        observation = scenario.observation()
        plan = driven(scenario)
        action = meta_action(plan, observation.speed)
        mark = f"{stream(self.seed, 'mark', scenario.id) % 16**10:010x}"
        messages = teacher_messages(observation, hint_text(action, mark), self.config)
        scene = scenario.privileged()
        numbers = SceneNumbers.of(scene)
        told, _ = weigh(self.expert, scene, plan, action)  # which scenes are worth a thought is the expert's word for every source
        blank = Annotation(index, scenario.id, Verdict.REJECTED, self.name, complex=None if told is None else told.is_complex, action=action.phrase)
        return lambda: self._ask(blank, messages, action, mark, numbers)

    def _ask(self, blank: Annotation, messages: list[dict[str, Any]], action: MetaAction, mark: str, numbers: SceneNumbers) -> Annotation:
        """Ask until an answer passes. Raises Stopped where the run ended before the first answer."""
        config, clock = self.config, time.perf_counter()
        answers: list[Answer] = []
        reasons: list[str] = []
        verdict, text = Verdict.REJECTED, ""
        for number in range(config.asks):
            try:
                answer = self.client.ask(messages, config.max_tokens, config.temperature, f"{blank.id}/{number}")
            except AskFailed as error:
                reasons.append(f"no answer: {error}")
                verdict = Verdict.FAILED
                break
            except Stopped:
                if not answers:
                    raise
                verdict = Verdict.FAILED  # what was paid for is written; the scene is asked about again
                break
            answers.append(answer)
            text, faults = check_answer(answer.text, action, mark, numbers, config.checks)
            faults += ["cut off: max_tokens reached"] if answer.cut_off else []
            if not faults:
                verdict = Verdict.ACCEPTED
                break
            reasons += faults
        return replace(
            blank,
            verdict=verdict,
            reasoning=text if verdict is Verdict.ACCEPTED else "",
            reasons=tuple(reason.replace(mark, "MARK") for reason in reasons),
            asks=len(answers),
            unmetered=sum(not answer.metered for answer in answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.completion_tokens for answer in answers),
            seconds=round(time.perf_counter() - clock, 3),
        )
