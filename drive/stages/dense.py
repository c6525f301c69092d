"""Dense questions beside the words of SFT: what the language model's state holds at the end of the prompt, just before it answers.

Tokens alone tell a small model little: a plan is ten of two thousand names, and which of them depends on the picture drowns in those that
speed and past give away. So the same state is asked where the ground is drivable, where vehicles are and where the route runs (as in
pretraining; TransFuser, arXiv 2205.15997, section 3.3), how near the next hazards on it are, and for the teacher's plan in metres. The heads
lie beside a run's checkpoints for resuming, and in no export.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from drive.datasets.captions import VIEW_RANGE
from drive.datasets.ground import ROUTE_AT
from drive.planners.vla.route_head import RouteHead
from drive.stages.sight import HEAD_WIDTH, ROUTE_SCALE, GroundData, SightHead, sight_terms

PLAN_SCALE = 10.0  # m; brings the plan to the size of the other outputs


class DenseTerms(NamedTuple):
    """The loss of one batch, and the errors of plan and hazards."""

    loss: torch.Tensor
    plan_error: torch.Tensor  # m, mean over the batch and the steps
    hazard_error: torch.Tensor  # mean over the batch and the kinds, of the nearness from 0 to 1


class DenseHead(torch.nn.Module):
    """Asks states (B, hidden) for the ground, the route and the plan of `steps` poses."""

    def __init__(self, hidden: int, steps: int) -> None:
        super().__init__()
        self.sight = SightHead(hidden, hazards=True)
        self.plan = torch.nn.Sequential(torch.nn.Linear(hidden, HEAD_WIDTH), torch.nn.GELU(), torch.nn.Linear(HEAD_WIDTH, 2 * steps))

    def terms(self, states: torch.Tensor, data: GroundData, poses: NDArray[np.float64], index: NDArray[np.int64]) -> DenseTerms:
        """The loss of the scenes `index`; poses (N, T, 3) are the teachers' plans of all scenes, ego frame."""
        states = states.float()
        seen = sight_terms(self.sight(states, data.commands[index].to(states.device)), data, index)
        wanted = torch.from_numpy(poses[index, :, :2]).float().to(states.device)
        plan = self.plan(states).view(len(wanted), -1, 2) * PLAN_SCALE
        loss = functional.smooth_l1_loss(plan / PLAN_SCALE, wanted / PLAN_SCALE, beta=0.1)
        assert seen.hazard_error is not None
        return DenseTerms(seen.loss + loss, (plan.detach() - wanted).norm(dim=-1).mean(), seen.hazard_error.mean())


def dense_head(model, steps: int) -> DenseHead:
    """A fresh head for `model`'s states and plans of `steps` poses."""
    return DenseHead(model.config.get_text_config().hidden_size, steps).to(model.get_input_embeddings().weight.device)


def route_head(head: DenseHead) -> RouteHead:
    """The part of `head` that a planner uses; it shares the layers, and learns with them."""
    sight = head.sight
    assert sight.hazards is not None
    return RouteHead(sight.tokens, sight.command, sight.route, sight.hazards, torch.tensor(ROUTE_AT), ROUTE_SCALE, VIEW_RANGE)
