# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""SFT and GRPO: their maths by hand, proof of learning on a small task, and resuming."""

import numpy as np
import pytest
import torch
from toy_scenes import CORPUS, toy_codebook, toy_scenario

from drive.core.runs import RunFolder
from drive.core.seeds import torch_rng
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.checkpoint import load_policy, read_state
from drive.planners.vla.grammar import Kind
from drive.planners.vla.policy import SftTerms, VlaPolicy
from drive.planners.vla.tiny import build_tiny
from drive.rewards.pdms import RewardBatch, RewardConfig
from drive.stages.grpo import (
    GrpoConfig,
    Reference,
    clipped_objective,
    group_advantages,
    grpo_loss,
    kl_k3,
    roll_out,
    train_grpo,
    update,
)
from drive.stages.loop import OptimConfig, batch_indices, learning_rate, optimizer_at
from drive.stages.scenes import SceneStore, TeacherStore
from drive.stages.sft import SftConfig, sft_loss, train_sft, validate


def new_policy(seed: int = 0) -> VlaPolicy:
    model, processor = build_tiny(CORPUS, seed=seed, vocab_size=320)
    return VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=12))


@pytest.fixture(scope="module")
def scenes():
    return [toy_scenario(i) for i in range(24)]


def new_run(path, stage) -> RunFolder:
    return RunFolder.create(path, stage, {}, ["drive", "train"], stage)


# ---------------------------------------------------------------- maths


def test_sft_loss_is_the_weighted_mean_of_the_paper_and_the_choice_of_mode():
    terms = SftTerms(torch.tensor([0.2, 0.6]), torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.zeros(2))
    config = SftConfig(reasoning_weight=40.0, action_weight=0.5)
    loss = sft_loss(terms, torch.tensor([True, False]), config, 41.0, 2)
    assert float(loss) == pytest.approx((40.0 * (1.0 + 1.5) + (2.0 + 2.0)) / 41.0 + 0.4)
    parts = [SftTerms(*(value[i : i + 1] for value in (terms.mode, terms.language, terms.action, terms.accuracy))) for i in range(2)]
    apart = [sft_loss(part, torch.tensor([slow]), config, 41.0, 2) for part, slow in zip(parts, (True, False))]
    assert float(sum(apart)) == pytest.approx(float(loss)), "gradient accumulation gives the same loss"


def test_the_choice_of_mode_weighs_the_same_in_a_slow_and_in_a_fast_answer(scenes):
    policy = new_policy()
    store = TeacherStore(scenes[:1], policy)
    prompt = [store.prompt(0)]
    fast, slow = (policy.sft_terms(prompt, policy.target_ids(prompt, store.actions[:1], [text])) for text in (None, "car ahead . brake and stop"))
    with torch.no_grad():
        log_probs = torch.log_softmax(policy.prefix(prompt).logits, -1)[0]
    torch.testing.assert_close(fast.mode[0], -log_probs[policy.grammar.answer], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(slow.mode[0], -log_probs[policy.grammar.think], atol=1e-4, rtol=1e-4)


def test_sft_terms_do_not_depend_on_what_else_is_in_the_batch(scenes):
    policy = new_policy()
    store = TeacherStore(scenes[:4], policy)
    texts = [None, "car ahead . brake and stop", None, "road free"]
    prompts = [store.prompt(i) for i in range(4)]
    together = policy.sft_terms(prompts, policy.target_ids(prompts, store.actions, texts))
    for i in range(4):
        alone = policy.sft_terms(prompts[i : i + 1], policy.target_ids(prompts[i : i + 1], store.actions[i : i + 1], texts[i : i + 1]))
        torch.testing.assert_close(together.action[i], alone.action[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.language[i], alone.language[0], atol=1e-4, rtol=1e-4)


def test_sft_counts_ten_actions_and_no_padding(scenes):
    """A fresh model knows nothing: its action loss is near log(vocabulary), on exactly ten tokens, whatever the padding behind them."""
    policy = new_policy()
    store = TeacherStore(scenes[:1], policy)
    ids = policy.target_ids([store.prompt(0)], store.actions[:1], [None])
    padded = torch.nn.functional.pad(ids, (0, 7), value=policy.grammar.pad)
    short, long = policy.sft_terms([store.prompt(0)], ids), policy.sft_terms([store.prompt(0)], padded)
    for one, other in zip((short.action, short.language, short.mode), (long.action, long.language, long.mode)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert abs(float(short.action[0].detach()) - np.log(len(policy.tokenizer))) < 1.0
    assert int((policy.grammar.kinds(padded) == int(Kind.ACTION)).sum()) == 10


def test_soft_labels_peak_at_the_token_and_sum_to_one():
    policy = new_policy()
    labels = policy._soft_labels(torch.tensor([3, 7]), 0.2)
    assert labels.argmax(1).tolist() == [3, 7]
    torch.testing.assert_close(labels.sum(1), torch.ones(2))


def test_advantages_are_normalised_in_the_group_and_flat_groups_are_left_out():
    advantages, keep = group_advantages(np.array([[0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))
    assert keep.tolist() == [True, False]
    np.testing.assert_allclose(advantages[0], [-1, 1, -1, 1], atol=1e-3)
    small, _ = group_advantages(np.array([[0.0, 0.01]]))
    np.testing.assert_allclose(small, [[-0.1, 0.1]])  # a fee alone pushes gently
    plain, _ = group_advantages(np.array([[0.0, 1.0]]), normalise_std=False)
    np.testing.assert_allclose(plain, [[-0.5, 0.5]])


def test_clip_stops_the_ratio_on_the_side_that_the_advantage_pushes_to():
    old = torch.zeros(1, 1)
    up = torch.log(torch.tensor([[1.5]]))
    assert float(clipped_objective(up, old, torch.tensor([1.0]), 0.2)) == pytest.approx(1.2)
    assert float(clipped_objective(up, old, torch.tensor([-1.0]), 0.2)) == pytest.approx(-1.5)
    down = torch.log(torch.tensor([[0.5]]))
    assert float(clipped_objective(down, old, torch.tensor([-1.0]), 0.2)) == pytest.approx(-0.8)


def test_k3_estimates_the_divergence_without_bias():
    p, q = torch.tensor([0.7, 0.3]), torch.tensor([0.4, 0.6])
    exact = (p * (p / q).log()).sum()
    estimate = (p * kl_k3(p.log(), q.log())).sum()
    torch.testing.assert_close(estimate, exact)
    assert (kl_k3(p.log(), q.log()) >= 0).all()


def test_grpo_loss_ignores_forced_and_padded_tokens():
    kinds = torch.tensor([[int(Kind.MODE), int(Kind.ACTION), int(Kind.FORCED), int(Kind.PAD)]])
    values = torch.tensor([[0.0, 0.0, 5.0, 9.0]])
    loss, _ = grpo_loss(values, torch.zeros(1, 4), torch.zeros(1, 4), kinds, torch.tensor([2.0]), 12, GrpoConfig(kl=0.0))
    assert float(loss) == pytest.approx(-2.0 * 2 / 12)


def test_small_parts_of_a_roll_out_add_up_to_the_gradient_of_the_whole(scenes):
    moved = []
    for micro_batch in (6, 4, 1):
        policy = new_policy()
        config = GrpoConfig(scenes=6, group=4, micro_batch=micro_batch, optim=OptimConfig(1e-3, 0.0, 0))
        optimizer, _ = optimizer_at(policy.model, config.optim, None)
        rollouts = roll_out(policy, SceneStore(scenes, policy), np.arange(6), config, RewardConfig(), 0)
        logs = update(policy, Reference(policy), rollouts, optimizer, config)
        moved.append((logs, torch.cat([p.detach().flatten() for p in policy.parameters()])))
    for logs, weights in moved[1:]:
        assert logs == pytest.approx(moved[0][0], rel=1e-3, abs=1e-5)
        assert float((weights - moved[0][1]).abs().max()) < 2e-4 < float((weights - torch.cat([p.detach().flatten() for p in new_policy().parameters()])).abs().max())


def test_reward_total_is_the_sum_of_its_logged_parts():
    batch = RewardBatch({"a": np.array([[1.0, 2.0]]), "b": np.array([[-0.5, 0.25]])}, {"nc": np.ones((1, 2))})
    np.testing.assert_allclose(batch.total, [[0.5, 2.25]])


def test_batches_are_epochs_and_a_function_of_the_step():
    seen = np.concatenate([batch_indices(10, 4, step, 0) for step in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10)) and sorted(seen[10:].tolist()) == list(range(10))
    np.testing.assert_array_equal(batch_indices(10, 4, 3, 0), batch_indices(10, 4, 3, 0))
    assert not np.array_equal(batch_indices(100, 8, 0, 0), batch_indices(100, 8, 0, 1))


def test_schedule_warms_up_and_decays():
    config = OptimConfig(learning_rate=1.0, warmup_steps=10, final_lr_share=0.1)
    assert learning_rate(config, 0, 100) == pytest.approx(0.1) and learning_rate(config, 9, 100) == pytest.approx(1.0)
    assert learning_rate(config, 99, 100) == pytest.approx(0.1, abs=1e-2)


# ---------------------------------------------------------------- roll-outs


def test_rollouts_differ_between_steps_and_repeat_for_one_step(scenes):
    policy = new_policy()
    store, config = SceneStore(scenes, policy), GrpoConfig(group=4)
    a, b = (roll_out(policy, store, np.arange(2), config, RewardConfig(), 5) for _ in range(2))
    other = roll_out(policy, store, np.arange(2), config, RewardConfig(), 6)
    assert torch.equal(a.answers.ids, b.answers.ids)
    assert a.answers.ids.shape != other.answers.ids.shape or not torch.equal(a.answers.ids, other.answers.ids)
    assert len({tuple(row) for row in a.answers.ids.tolist()}) > 4, "the samples of a group are distinct"


def test_rollouts_run_without_dropout_and_count_the_fee_in_tokens(scenes):
    policy = new_policy()
    policy.model.train()
    reward = RewardConfig(fee_per_token=0.01)
    rollouts = roll_out(policy, SceneStore(scenes, policy), np.arange(2), GrpoConfig(group=6), reward, 0)
    assert not policy.model.training
    thought = rollouts.answers.lengths - policy.grammar.fast_length
    np.testing.assert_allclose(rollouts.reward.parts["thinking_fee"].reshape(-1), -0.01 * thought.numpy())
    assert rollouts.undecodable == 0


def test_reference_is_the_start_and_stays_there(scenes):
    policy = new_policy()
    reference = Reference(policy)
    store = SceneStore(scenes, policy)
    prompts = [store.prompt(0)]
    answers = policy.sample(policy.prefix(prompts), 4, "fast", 1.0, torch_rng(0))
    before, _ = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, 4)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch_rng(1)))
    moved, _ = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, 4)
    with reference.active():
        kept, _ = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, 4)
    torch.testing.assert_close(kept, before)
    assert float((moved - before).detach().abs().max()) > 1e-3


# ---------------------------------------------------------------- learning and resuming


SFT = SftConfig(
    steps=80,
    batch=12,
    micro_batch=12,
    reasoning_weight=2.0,
    slow_share_complex=0.3,
    slow_share_simple=0.3,
    validate_every=1000,
    validate_scenes=0,
    checkpoint_every=40,
    optim=OptimConfig(4e-3, warmup_steps=5),
)


def numbers(run: RunFolder) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scenes):
    run = new_run(tmp_path_factory.mktemp("sft"), "sft")
    return run, train_sft(run, new_policy(), scenes, None, SFT)


def test_sft_learns_the_teacher(trained, scenes):
    run, policy = trained
    lines = run.metrics()
    assert lines[-1]["action_loss"] < 0.6 * lines[0]["action_loss"]
    result = validate(policy, TeacherStore(scenes[:12], policy))
    fresh = validate(new_policy(), TeacherStore(scenes[:12], new_policy()))
    assert result["action_accuracy"] > 0.3 > fresh["action_accuracy"]
    assert result["rollout_ade_m"] < 0.5 * fresh["rollout_ade_m"]


def test_sft_resumed_equals_sft_unbroken(trained, scenes, tmp_path):
    run, policy = trained
    first = run.checkpoints()[40]
    again = new_run(tmp_path, "sft")
    again.log(40, {})
    resumed = train_sft(again, load_policy(first), scenes, None, SFT, resume_from=(40, first))
    tail = [line for line in numbers(run) if line["step"] > 40]
    assert tail and [line for line in numbers(again) if line["step"] > 40] == tail
    for a, b in zip(policy.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)


def test_grpo_raises_the_reward_and_resumes_to_the_same_weights(trained, scenes, tmp_path):
    run, _ = trained
    start = run.latest_checkpoint()[1]
    config = GrpoConfig(steps=24, scenes=6, group=6, log_every=1, validate_scenes=0, checkpoint_every=12, optim=OptimConfig(1e-3, 0.0, 2))
    reward = RewardConfig(fee_per_token=0.01)
    unbroken = new_run(tmp_path, "grpo")
    policy = train_grpo(unbroken, load_policy(start), scenes, None, config, reward)
    lines = unbroken.metrics()
    early, late = (np.mean([line["reward"] for line in part]) for part in (lines[:6], lines[-6:]))
    assert late > early + 0.05
    for line in lines:
        parts = line["reward/pdms_v1_1"] + line["reward/thinking_fee"]
        assert line["reward"] == pytest.approx(parts) and line["undecodable"] == 0
        assert {"kl", "entropy", "think_rate", "zero_variance", "tokens"} <= set(line) or line["zero_variance"] == 1.0
    middle = unbroken.checkpoints()[12]
    live = read_state(middle / "average.safetensors")
    assert any(not torch.equal(p, live[f"live.{i}"]) for i, p in enumerate(load_policy(middle).parameters()))  # the mean was kept
    assert all(torch.equal(p, live[f"mean.{i}"]) for i, p in enumerate(load_policy(middle).parameters()))
    again = new_run(tmp_path, "grpo")
    resumed = train_grpo(again, load_policy(middle), scenes, None, config, reward, lambda: load_policy(start), (12, middle))
    assert numbers(again) == [line for line in numbers(unbroken) if line["step"] > 12]
    for a, b in zip(policy.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)
