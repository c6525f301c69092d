# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""Plans along the route that a model's state tells, and motions chosen by all that is near them."""

import shutil

import numpy as np
import pytest
import torch
from toy_scenes import CORPUS, toy_codebook, toy_scenario

from drive.core.errors import CheckpointError, ConfigError
from drive.core.runs import RunFolder
from drive.core.types import Command
from drive.datasets.captions import VIEW_RANGE
from drive.datasets.ground import ROUTE_AT
from drive.planners.idm import FRONT
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.checkpoint import load_policy, save_policy
from drive.planners.vla.decode import BARRED
from drive.planners.vla.planner import VlaPlanner, check_settings
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.route_head import ACROSS, GAP_M, PASSING, RouteHead, drive_along, route_path
from drive.planners.vla.tiny import build_tiny
from drive.rewards.pdms import RewardConfig
from drive.stages.grpo import GrpoConfig, train_grpo
from drive.stages.loop import OptimConfig
from drive.stages.sft import SftConfig, train_sft

AT, DT = np.array(ROUTE_AT, float), 0.5
FREE = (np.inf, np.inf, np.inf)


def steady(speed: float) -> np.ndarray:
    return np.full(10, speed * DT)


def test_on_the_middle_of_a_straight_road_nothing_changes():
    path = route_path(AT, np.zeros(len(AT)), 8.0)
    np.testing.assert_allclose(path[:, 1:], 0.0, atol=1e-9)
    out = drive_along(path, steady(8.0), FREE, 8.0, DT)
    np.testing.assert_allclose(out[:, 0], 4.0 * np.arange(1, 11), atol=1e-9)


@pytest.mark.parametrize("beside", [-1.5, 0.4, 1.5])
def test_a_car_beside_its_route_comes_back_to_it(beside):
    """From its own place and heading, without a jump, and for good."""
    path = route_path(AT, np.full(len(AT), beside), 6.0)
    assert np.hypot(*path[0, :2]) < 1e-9 and abs(path[0, 2]) < 0.3
    np.testing.assert_allclose(path[8:, 1], beside, atol=1e-6)
    assert (np.diff(path[:, 1]) * np.sign(beside) > -1e-9).all()


def test_a_bend_is_followed_and_slowed_down_for():
    radius = 20.0
    offsets = radius * (1.0 - np.cos(np.minimum(AT / radius, np.pi / 2))) + np.maximum(AT - radius * np.pi / 2, 0.0)
    path = route_path(AT, offsets, 5.0)
    middle = np.array([0.0, radius])
    on = path[(path[:, 0] > 2.0) & (path[:, 2] < 1.2)]
    assert len(on) > 8 and np.abs(np.hypot(*(on[:, :2] - middle).T) - radius).max() < 0.35
    fast = drive_along(path, steady(14.0), FREE, 14.0, DT)
    steps = np.hypot(*np.diff(fast[:, :2], axis=0).T) / DT
    assert steps[1:5].max() < 1.25 * np.sqrt(ACROSS * radius)
    slow = drive_along(path, steady(3.0), FREE, 3.0, DT)
    assert np.hypot(*slow[0, :2]) == pytest.approx(1.5, abs=0.02), "who is slow enough is not slowed down"


def test_nobody_drives_into_what_stands_there():
    path = route_path(AT, np.zeros(len(AT)), 8.0)
    for free in ((np.inf, np.inf, 12.0), (0.0, np.inf, np.inf), (np.inf, np.inf, -2.0)):
        out = drive_along(path, steady(8.0), free, 0.0, DT)
        assert out[-1, 0] <= max(min(free), 0.0) + 1e-9 and (np.diff(out[:, 0]) >= 0.0).all(), free
    past = drive_along(path, steady(8.0), (np.inf, 16.0, np.inf), 8.0, DT)
    pace = np.diff(past[:, 0], prepend=0.0) / DT
    assert past[-1, 0] > 20.0 and pace[0] == 8.0 and pace.min() == PASSING, "people are passed slowly, and not waited for"
    moving = drive_along(path, steady(8.0), (6.0, np.inf, np.inf), 8.0, DT)
    assert 6.0 < moving[-1, 0] < 40.0, "a vehicle ahead is taken to move on"
    stands = np.zeros(10)
    np.testing.assert_allclose(drive_along(path, stands, FREE, 5.0, DT), 0.0, atol=1e-9)


def head_of(hidden: int = 8) -> RouteHead:
    torch.manual_seed(0)
    layers = torch.nn.Linear(hidden, 16), torch.nn.Embedding(len(Command), 16), torch.nn.Linear(16, len(ROUTE_AT)), torch.nn.Linear(16, 3)
    return RouteHead(*layers, torch.tensor(ROUTE_AT), 4.0, VIEW_RANGE)


def test_what_is_near_is_kept_away_from_and_small_words_are_none():
    head, plan = head_of(), np.column_stack([np.arange(1.0, 11.0) * 4.0, np.zeros(10), np.zeros(10)])
    zeros = np.zeros(len(ROUTE_AT))
    at_20_m = head.follow(plan, zeros, np.array([0.0, 0.0, 1.0 - 20.0 / VIEW_RANGE]), 8.0, DT)
    assert at_20_m[-1, 0] == pytest.approx(20.0 - FRONT - GAP_M, abs=0.7)
    np.testing.assert_allclose(head.follow(plan, zeros, np.array([0.05, 0.0, 0.05]), 8.0, DT), plan, atol=1e-9)


def test_a_head_reads_alike_after_it_was_stored():
    head, states = head_of(), torch.randn(3, 8)
    commands = [Command.LEFT, Command.STRAIGHT, Command.LANEFOLLOW]
    told, again = head.read(states, commands), RouteHead.from_state(head.state_dict()).read(states, commands)
    assert told.offsets.shape == (3, len(ROUTE_AT)) and told.nearness.shape == (3, 3)
    for a, b in zip(told, again):
        np.testing.assert_array_equal(a, b)
    other = head.read(states, [Command.RIGHT] * 3)
    assert not np.allclose(other.offsets, told.offsets)


@pytest.fixture(scope="module")
def scenes():
    return [toy_scenario(i) for i in range(16)]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """Run and policy of a short SFT with dense questions."""
    model, processor = build_tiny(CORPUS, seed=0, vocab_size=320)
    policy = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=12))
    run = RunFolder.create(tmp_path_factory.mktemp("run"), "sft", {}, ["drive", "train"], "sft")
    config = SftConfig(steps=40, batch=8, micro_batch=8, dense_weight=1.0, validate_scenes=0, checkpoint_every=40, optim=OptimConfig(2e-3, warmup_steps=2))
    train_sft(run, policy, scenes, None, config)
    return run, policy


def test_a_checkpoint_brings_its_head_and_a_planner_drives_by_it(trained, scenes):
    run, policy = trained
    loaded = load_policy(run.checkpoints()[40])
    assert loaded.route_head is not None
    for key, value in policy.route_head.state_dict().items():
        torch.testing.assert_close(loaded.route_head.state_dict()[key], value)
    observations = [scene.observation() for scene in scenes[:4]]
    by_tokens, by_state = (VlaPlanner(loaded, "fast", path=path).plan(observations) for path in ("tokens", "state"))
    head = loaded.route_head
    with torch.no_grad():
        states = loaded.prefix(loaded.encode(observations), state=True).state
    told = head.read(states, [o.command for o in observations])
    for k, (a, b) in enumerate(zip(by_tokens, by_state)):
        wanted = head.follow(a.trajectory.poses, told.offsets[k], told.nearness[k], observations[k].speed, 0.5)
        np.testing.assert_allclose(b.trajectory.poses, wanted, atol=1e-6)
        assert b.generated_tokens == a.generated_tokens and b.mode == a.mode
    assert np.abs(told.offsets).mean() < 1.5, "the toy road is straight"


def test_half_precision_keeps_the_head(trained, tmp_path):
    _, policy = trained
    save_policy(policy, tmp_path, torch.float16)
    state, loaded = policy.route_head.state_dict(), load_policy(tmp_path)
    for key, value in loaded.route_head.state_dict().items():
        torch.testing.assert_close(value, state[key], atol=2e-3, rtol=2e-3)


def test_without_a_head_it_is_said(trained, tmp_path):
    run, _ = trained
    bare = tmp_path / "bare"
    shutil.copytree(run.checkpoints()[40], bare)
    (bare / "route_head.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"route_head\.safetensors"):
        load_policy(bare)
    (bare / "route_head.safetensors").unlink()
    policy = load_policy(bare)
    assert policy.route_head is None and VlaPlanner(policy, "fast").plan([toy_scenario(0).observation()])[0].trajectory is not None
    with pytest.raises(ConfigError, match="route head"):
        VlaPlanner(policy, path="state")
    with pytest.raises(ConfigError, match=r"planner\.path=map"):
        check_settings("fast", 0.0, 0.0, "map")


def test_training_that_does_not_ask_drops_the_head(trained, scenes, tmp_path):
    """The states move on; the head would read them as they were."""
    run, _ = trained
    policy = load_policy(run.checkpoints()[40])
    new = RunFolder.create(tmp_path, "sft", {}, ["drive", "train"], "sft")
    train_sft(new, policy, scenes, None, SftConfig(steps=1, batch=4, micro_batch=4, validate_scenes=0))
    assert policy.route_head is None and load_policy(new.checkpoints()[1]).route_head is None
    policy = load_policy(run.checkpoints()[40])
    grpo = RunFolder.create(tmp_path, "grpo", {}, ["drive", "train"], "grpo")
    train_grpo(grpo, policy, scenes, None, GrpoConfig(steps=1, scenes=2, group=2, micro_batch=2, validate_scenes=0, average=False), RewardConfig())
    assert policy.route_head is None


def test_blur_takes_the_motion_with_the_most_about_it(trained, scenes):
    """Three neighbours with 0.2 each outweigh a single one with 0.3."""
    from drive.planners.vla.decode import _choose

    kernel = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.9, 0.5], [0.0, 0.9, 1.0, 0.9], [0.0, 0.5, 0.9, 1.0]])
    logits = torch.log(torch.tensor([[0.4, 0.2, 0.2, 0.2]]))
    assert _choose(logits, 0.0, None)[0].item() == 0
    choice, log_prob = _choose(logits, 0.0, None, kernel=kernel)
    assert choice.item() == 2 and log_prob.item() == pytest.approx(np.log(0.2))
    allowed = torch.tensor([[True, True, False, True]])
    barred, _ = _choose(logits, 0.0, None, allowed, kernel)
    assert barred.item() != 2 and BARRED < 0.0
    _, policy = trained
    observations = [scene.observation() for scene in scenes[:4]]
    sharp, fine, wide = (VlaPlanner(policy, "fast", blur=blur).plan(observations) for blur in (0.0, 1e-3, 0.5))
    assert all(np.array_equal(a.trajectory.poses, b.trajectory.poses) for a, b in zip(sharp, fine))
    assert any(not np.array_equal(a.trajectory.poses, b.trajectory.poses) for a, b in zip(sharp, wide))
    for wrong in ({"blur": -1.0}, {"blur": 0.2, "temperature": 1.0}):
        with pytest.raises(ConfigError, match=r"planner\.blur"):
            VlaPlanner(policy, "fast", **wrong)
