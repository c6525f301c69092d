# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""The VLA on every action tokenizer: each plan it can write decodes, probabilities are those of the sampler, checkpoints come back."""

from functools import cache

import numpy as np
import pytest
import torch
from toy_scenes import CORPUS, toy_codebook, toy_scenario

from drive.core.errors import CheckpointError
from drive.core.runs import RunFolder
from drive.core.seeds import torch_rng
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.checkpoint import load_policy, save_policy
from drive.planners.vla.grammar import Grammar, Kind
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.tiny import build_tiny
from drive.rewards.pdms import RewardConfig
from drive.stages.grpo import GrpoConfig, Reference, roll_out, update
from drive.stages.loop import OptimConfig
from drive.stages.scenes import SceneStore
from drive.stages.sft import SftConfig, train_sft
from drive.tokenizers.bev_grid import BevGrid
from drive.tokenizers.fast import Fast
from drive.tokenizers.interface import PlanTokenizer
from drive.tokenizers.text_waypoints import CHARACTERS, TextWaypoints
from drive.tokenizers.unicycle import Unicycle
from drive.tokenizers.uniform_bins import UniformBins

KINDS = ["uniform_bins", "unicycle", "bev_grid", "fast", "text_waypoints"]
WORDS = [*CORPUS, "0.12,-3.45;6.78,9"]  # a corpus in which every character of a waypoint stands


@cache
def plans() -> np.ndarray:
    return np.stack([toy_scenario(i).teacher.poses[:10] for i in range(60)])


@cache
def fitted(kind: str) -> PlanTokenizer:
    return {
        "kdisk": lambda: toy_codebook(),
        "uniform_bins": lambda: UniformBins.fit(plans(), bins=32),
        "unicycle": lambda: Unicycle.fit(plans(), bins=33),
        "bev_grid": lambda: BevGrid.fit(plans(), cells=64),
        "fast": lambda: Fast.fit(plans(), vocab_size=300, scale=20.0),
        "text_waypoints": lambda: TextWaypoints.fit(plans()),
    }[kind]()


def new_policy(kind: str) -> VlaPolicy:
    model, processor = build_tiny(WORDS, seed=0, vocab_size=320)
    return VlaPolicy.from_backbone(model.eval(), processor, fitted(kind), ModelConfig(max_reasoning=8))


@pytest.fixture(scope="module")
def policies() -> dict[str, VlaPolicy]:
    return {kind: new_policy(kind) for kind in KINDS}


def prompts_of(policy: VlaPolicy):
    return policy.encode([toy_scenario(i).observation() for i in range(3)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_sampled_answer_is_a_plan_of_ten_poses(policies, kind):
    policy = policies[kind]
    answers = policy.sample(policy.prefix(prompts_of(policy)), 8, "adaptive", 1.5, torch_rng(1, kind))
    decoded = policy.decode(answers)
    assert [d.poses_ego.shape for d in decoded] == [(10, 3)] * 24
    assert all(np.isfinite(d.poses_ego).all() for d in decoded)
    assert len({len(d.actions) for d in decoded}) == 1 or kind in ("fast", "text_waypoints")
    assert int(answers.lengths.max()) <= policy.grammar.max_length


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_those_of_the_sampler(policies, kind):
    policy = policies[kind]
    prompts = prompts_of(policy)
    with torch.no_grad():
        answers = policy.sample(policy.prefix(prompts), 4, "adaptive", 1.0, torch_rng(2, kind))
        values, entropy = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, 4)
    torch.testing.assert_close(values, answers.log_probs, atol=2e-5, rtol=0)
    action = answers.kinds == int(Kind.ACTION)
    assert torch.isfinite(entropy).all() and float(entropy[action].max()) <= np.log(len(policy.grammar.action_ids)) + 1e-5
    assert float(entropy[action].min()) >= 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_answer_to_imitate_reads_back_as_the_teachers_plan(policies, kind):
    policy = policies[kind]
    prompts, rows = prompts_of(policy), fitted(kind).encode(plans()[:3])
    ids = policy.target_ids(prompts, rows, [None, "road free", None])
    kinds = policy.grammar.kinds(ids)
    for i, row in enumerate(rows):
        actions, _ = policy.grammar.parse(ids[i].tolist())
        assert actions == row.tolist()
        assert int((kinds[i] == int(Kind.ACTION)).sum()) == len(row)
    terms = policy.sft_terms(prompts, ids, label_spread=0.05)
    assert torch.isfinite(terms.action).all() and torch.isfinite(terms.language).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_cut_short_is_undecodable(policies, kind):
    grammar: Grammar = policies[kind].grammar
    row = fitted(kind).encode(plans()[:1])[0].tolist()
    now = [row[0]] * grammar.now_tokens
    assert grammar.parse(grammar.answer_ids(row, None, now))[0] == row
    assert grammar.parse(grammar.answer_ids(row[:-1], None, now))[0] is None
    assert grammar.parse(grammar.answer_ids([*row, row[-1]], None, now))[0] is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_comes_back_with_its_tokenizer(policies, kind, tmp_path):
    policy = policies[kind]
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path)
    loaded.require_codebook(policy.codebook)
    assert type(loaded.codebook) is type(policy.codebook) and loaded.grammar.fast_length == policy.grammar.fast_length
    observation = toy_scenario(1).observation()
    one, other = (VlaPlanner(p, "fast").plan([observation])[0].trajectory.poses for p in (policy, loaded))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(CheckpointError, match="speaks codebook"):
        loaded.require_codebook(fitted("kdisk"))


def test_text_adds_no_token_for_actions(policies):
    policy = policies["text_waypoints"]
    assert "<action_0>" not in policy.tokenizer.get_vocab()
    assert policy.tokenizer.convert_ids_to_tokens(policy.grammar.action_ids.tolist()) == list(CHARACTERS)
    assert bool(policy.grammar.text_mask[policy.grammar.action_ids].all()), "reasoning may hold digits too"


def test_a_model_without_the_characters_cannot_write_waypoints(policies):
    tokenizer = policies["text_waypoints"].tokenizer
    names = [*CHARACTERS[:-1], "<no such character>"]
    with pytest.raises(CheckpointError, match="no token <no such character>"):
        Grammar.from_tokenizer(tokenizer, names, 500, 10, 8, "<|im_end|>", fitted("text_waypoints").automaton(10), 5, True)


@pytest.mark.parametrize("kind", ["unicycle", "fast"])
def test_the_tiny_model_learns_a_scene_with_it(kind, tmp_path):
    """Proof of learning: from random weights to the plan of one scene, free braking before a stopped car."""
    policy, scene = new_policy(kind), toy_scenario(0)
    truth = scene.teacher.poses[:10]

    def error() -> float:
        found = VlaPlanner(policy, "fast").plan([scene.observation()])[0].trajectory.poses
        return float(np.hypot(*(found - truth)[:, :2].T).mean())

    before = error()
    optim = OptimConfig(learning_rate=4e-3, warmup_steps=5)
    config = SftConfig(steps=60, batch=2, validate_scenes=0, slow_share_complex=0.0, slow_share_simple=0.0, optim=optim)
    train_sft(RunFolder.create(tmp_path, "sft", {}, ["drive", "train"], "sft"), policy, [scene], None, config)
    assert before > 1.0 and error() < 0.3


@pytest.mark.parametrize("kind", ["uniform_bins", "fast"])
def test_grpo_pays_for_thought_alone_whatever_the_length_of_a_plan(kind):
    policy, scenes = new_policy(kind), [toy_scenario(i) for i in range(3)]
    config = GrpoConfig(scenes=3, group=6, temperature=1.5, optim=OptimConfig(1e-3, 0.0, 0))
    rollouts = roll_out(policy, SceneStore(scenes, policy), np.arange(3), config, RewardConfig(), 0)
    decoded = policy.decode(rollouts.answers)
    kinds = policy.grammar.kinds(rollouts.answers.ids)
    for answer, row in zip(decoded, kinds):
        before = int((row == int(Kind.ACTION)).nonzero()[0]) - policy.grammar.now_tokens - 1  # tokens ahead of <answer>
        assert answer.thought == before and (answer.mode == "slow") == (before > 0)
    if kind == "fast":
        assert len({answer.tokens - answer.thought for answer in decoded}) > 1, "plans are to differ in length"
    weights = [p.clone() for p in policy.parameters()]
    logs = update(policy, Reference(policy), rollouts, torch.optim.SGD(policy.parameters(), 1.0), config)
    assert logs["gradient_norm"] > 0.0 and any((a != b).any() for a, b in zip(weights, policy.parameters()))
