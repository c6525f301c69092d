"""Where the route runs and what stands on it, read off the language model's state, and plans that follow it.

A plan in tokens says path and speed at once, and steers as finely as its last token was guessed. Path and speed told apart drive better
(TransFuser++, arXiv 2306.07957, section 4): the tokens say how far the car goes, the state where, and what it must not run into
(affordances, arXiv 1806.06498).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from drive.core.types import Command
from drive.planners.idm import FRONT

Array = NDArray[np.float64]
SPACING = 1.0  # m between points of the path
ACROSS, BRAKING = 2.0, 3.0  # m/s^2 that a bend may ask for, and with which the car slows down for it
MERGE_S, MERGE_M = 0.4, 3.0  # s and at least m over which the car comes back from its own place and heading to the route
NEAR_M, FAR_M = 4.0, 8.0  # m up to which the fitted start of the route holds, and from which on the points themselves do
FITTED = 5  # points that tell where the car is beside the route
GAP_M, HARD = 1.5, 5.0  # m kept from what stands, and m/s^2 with which it is stopped for
MOVES = 0.25  # share of the car's own speed that a vehicle ahead is taken to drive at: its speed is not told
PASSING, GENTLE = 2.5, 2.0  # m/s at which people beside the lane are passed, who may step onto it, and m/s^2 with which the car slows down for them
SURE = 0.1  # nearness below which nothing is said to stand there


class Told(NamedTuple):
    """What a state says of the way ahead."""

    offsets: Array  # (B, len(at)) m to the left of the ego's axis of the route, at each of `at`
    nearness: Array  # (B, 3) of the next vehicle, person and barrier on the route: 1 at the rear axle, 0 at `reach` m


class RouteHead(torch.nn.Module):
    """Reads states (B, hidden) under commands: the part of SFT's dense questions that a planner uses."""

    def __init__(self, tokens: torch.nn.Linear, command: torch.nn.Embedding, route: torch.nn.Linear, hazards: torch.nn.Linear, at: torch.Tensor, scale: float, reach: float) -> None:
        """The layers of a trained head; `at` (N,) m along the route, `scale` m by which the answers about it are multiplied, `reach` m of nearness 0."""
        super().__init__()
        self.tokens, self.command, self.route, self.hazards = tokens, command, route, hazards
        self.register_buffer("at", at.detach().clone().float())
        self.register_buffer("scale", torch.tensor([scale, reach]))

    @staticmethod
    def from_state(state: dict[str, torch.Tensor]) -> RouteHead:
        """From the tensors that `state_dict` gave. Raises KeyError, ValueError or RuntimeError where they are none of it."""
        width, hidden = state["tokens.weight"].shape
        layers = (
            torch.nn.Linear(hidden, width),
            torch.nn.Embedding(len(Command), width),
            torch.nn.Linear(width, len(state["at"])),
            torch.nn.Linear(width, len(state["hazards.bias"])),
        )
        head = RouteHead(*layers, state["at"], *state["scale"].tolist())
        head.load_state_dict({k: v.float() for k, v in state.items()})
        return head.eval()

    @torch.no_grad()
    def read(self, states: torch.Tensor, commands: list[Command]) -> Told:
        """What `states` (B, hidden) tell under `commands`."""
        index = torch.tensor([list(Command).index(command) for command in commands], device=states.device)
        hidden = functional.gelu(self.tokens(states.float()) + self.command(index))
        return Told((self.scale[0] * self.route(hidden)).cpu().double().numpy(), self.hazards(hidden).cpu().double().numpy())

    def follow(self, poses: Array, offsets: Array, nearness: Array, speed: float, dt: float) -> Array:
        """(T, 3) the plan `poses`, ego frame, along the route that one state tells: as far as it goes, but no faster than bends and what stands there allow."""
        path = route_path(self.at.cpu().double().numpy(), offsets, speed)
        steps = np.hypot(*np.diff(np.vstack([np.zeros(3), poses])[:, :2], axis=0).T)
        reach = float(self.scale[1])
        free = np.array([reach * (1.0 - near) - FRONT - GAP_M if near > SURE else np.inf for near in nearness])
        return drive_along(path, steps, (free[0], free[1], free[2]), speed, dt)


def route_path(at: Array, offsets: Array, speed: float) -> Array:
    """(M, 3) path from the car, ego frame, SPACING m apart, onto the route that lies `offsets` (N,) m to the left at `at` (N,) m."""
    curve, slope, beside = np.polyfit(at[:FITTED], offsets[:FITTED], 2)
    s = np.arange(0.0, at[-1] + SPACING, SPACING)
    sure = np.clip((s - NEAR_M) / (FAR_M - NEAR_M), 0.0, 1.0)
    y = (1.0 - sure) * (curve * s**2 + slope * s + beside) + sure * np.interp(s, at, offsets)
    u = np.clip(s / max(MERGE_M, MERGE_S * speed), 0.0, 1.0)
    y -= (beside + slope * s * np.exp(-s / NEAR_M)) * (1.0 - u**2 * (3.0 - 2.0 * u))
    x = np.concatenate([[0.0], np.cumsum(np.sqrt(np.maximum(SPACING**2 - np.diff(y) ** 2, 0.05)))])
    heading = np.arctan2(np.gradient(y), np.gradient(x))
    heading[0] = 0.0
    return np.column_stack([x, y, heading])


def drive_along(path: Array, steps: Array, free: tuple[float, float, float], speed: float, dt: float) -> Array:
    """(T, 3) poses on `path` (M, 3), `steps` (T,) m apart where bends allow, and not past the m that are `free` to the next vehicle and barrier.

    free: m to the next vehicle, person and barrier; a person is passed slowly.
    """
    s = SPACING * np.arange(len(path))
    bend = np.convolve(np.pad(np.abs(np.gradient(np.unwrap(path[:, 2]), SPACING)), 2, mode="edge"), np.ones(5) / 5.0, "valid")
    limit = np.sqrt(ACROSS / np.maximum(bend, 1e-3))
    for i in range(len(limit) - 2, -1, -1):
        limit[i] = min(limit[i], np.sqrt(limit[i + 1] ** 2 + 2.0 * BRAKING * SPACING))
    way, out = 0.0, []
    for k, step in enumerate(steps):
        vehicle = free[0] + MOVES * speed * dt * (k + 1) - way
        barrier = free[2] - way
        beside = max(PASSING, np.sqrt(2.0 * GENTLE * max(free[1] - way, 0.0)))
        most = min(max(float(np.interp(way, s, limit)), 1.0), beside, np.sqrt(2.0 * HARD * max(barrier, 0.0))) * dt
        way += max(min(float(step), most, vehicle, barrier), 0.0)
        out.append(min(way, s[-1]))
    return np.column_stack([np.interp(out, s, path[:, i]) for i in range(3)])
