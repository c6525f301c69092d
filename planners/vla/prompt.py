"""The prompt. One function builds it, for training and for inference alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drive.core.geometry import relative
from drive.core.types import Observation

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def plan_request(observation: Observation, past: Sequence[str] = ()) -> str:
    """The text of the request: state, command, the passenger's words and the way driven so far. Nothing in it comes from the future.

    Speed in m/s, acceleration in m/s^2 along the heading, yaw rate in 0.01 rad/s counter-clockwise. past: names of the action tokens
    that retrace the frames (AutoVLA, arXiv 2506.13757, section 3.1, lists past actions among the inputs).
    """
    acceleration = round(observation.acceleration, 1) + 0.0  # + 0.0 turns -0.0 into 0.0
    turn = round(100 * observation.yaw_rate) + 0
    words = f" {observation.text.strip()}" if observation.text.strip() else ""
    way = f" past {''.join(past)}" if past else ""
    return f"speed {observation.speed:.1f} accel {acceleration:.1f} turn {turn} command {observation.command.value}{words}{way} plan"


def past_deltas(observation: Observation) -> NDArray[np.float64]:
    """(F - 1, 3) SE(2) motions between consecutive history frames."""
    history = observation.ego_history
    return relative(history[:-1], history[1:])


def without_motion(observation: Observation) -> Observation:
    """All but how the car has moved, of which its speed alone stays (past motion dropout: Bansal et al. 2018, ChauffeurNet, arXiv 1812.03079).

    Who is told how it turns goes on turning so, instead of looking where the road goes.
    """
    return replace(observation, acceleration=0.0, yaw_rate=0.0, ego_history=observation.ego_history[-1:])


def messages(images: int, text: str, system: str = "") -> list[dict]:
    """Chat messages: all frames of all cameras (camera by camera, oldest first), then the text."""
    content: list[dict] = [{"type": "image"} for _ in range(images)]
    content.append({"type": "text", "text": text})
    head = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*head, {"role": "user", "content": content}]


def frames(observation: Observation) -> NDArray[np.uint8]:
    """(C * F, H, W, 3) RGB in the order in which `messages` names them."""
    images = observation.images
    return images.reshape(-1, *images.shape[2:])


def present_motion(observation: Observation, dt: float) -> NDArray[np.float64]:
    """(3,) SE(2) motion of the next `dt` seconds at the present speed and yaw rate: an arc."""
    turn, length = observation.yaw_rate * dt, observation.speed * dt
    chord = length * np.sinc(turn / 2.0 / np.pi)
    return np.array([chord * np.cos(turn / 2.0), chord * np.sin(turn / 2.0), turn])
