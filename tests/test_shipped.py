# pyright: reportOptionalMemberAccess=false
"""The checkpoints that come with drive: they load strictly, they are small, and they cannot answer an undecodable plan."""

import pytest
import torch
from toy_scenes import toy_scenario

from drive.cli.train import checkpoint_folder
from drive.core.errors import CheckpointError
from drive.core.seeds import torch_rng
from drive.core.types import PlanStatus
from drive.planners.vla.checkpoint import load_policy
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.shipped import NAMES, WEIGHTS, shipped

pytestmark = pytest.mark.skipif(not (WEIGHTS / "tiny-drive").is_dir(), reason="the shipped checkpoints are not in this copy")


@pytest.fixture(scope="module", params=NAMES)
def policy(request):
    return load_policy(shipped(request.param))


def test_all_together_are_small_and_have_cards():
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 15e6
    for name in ("tiny-base", *NAMES):
        card = (WEIGHTS / name / "README.md").read_text()
        assert "drive train" in card and "license: apache-2.0" in card
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_base_knows_no_action():
    from drive.planners.vla.processor import ImageTextProcessor

    vocabulary = ImageTextProcessor.load(WEIGHTS / "tiny-base").tokenizer.get_vocab()
    assert not [token for token in vocabulary if token.startswith("<action_")]


def test_every_token_of_the_shipped_codebook_is_feasible(policy):
    from drive.tokenizers.feasibility import feasible

    codebook = policy.codebook
    assert feasible(codebook.codebook, codebook.dt, codebook.bounds).all() and codebook.vocab_size == 2048


def test_plans_in_every_mode(policy):
    observations = [toy_scenario(i).observation() for i in range(4)]
    for mode in ("fast", "slow", "adaptive"):
        plans = VlaPlanner(policy, mode).plan(observations)
        assert all(plan.status is PlanStatus.OK for plan in plans)


def undecodable(policy, count: int) -> int:
    prompts = policy.encode([toy_scenario(i).observation() for i in range(20)])
    with torch.no_grad():
        prefix = policy.prefix(prompts)
    bad = 0
    for start in range(0, count, 500):
        answers = policy.sample(prefix, 25, "adaptive", 1.5, torch_rng(0, "hot", start))
        bad += sum(item.poses_ego is None for item in policy.decode(answers))
    return bad


def test_no_undecodable_plan_in_a_thousand_hot_samples(policy):
    assert undecodable(policy, 1000) == 0


@pytest.mark.slow
def test_no_undecodable_plan_in_ten_thousand_hot_samples(policy):
    assert undecodable(policy, 10_000) == 0


def test_the_closed_loop_one_drives_by_its_state():
    policy = load_policy(checkpoint_folder("tiny-carla"))
    observations = [toy_scenario(i).observation() for i in range(4)]
    plans = VlaPlanner(policy, "fast", past=False, blur=0.2, path="state").plan(observations)
    assert all(plan.status is PlanStatus.OK and plan.trajectory.poses.shape == (10, 3) for plan in plans)
    with pytest.raises(CheckpointError, match="tiny-drive and tiny-carla are the shipped ones"):
        checkpoint_folder("tiny-boat")
