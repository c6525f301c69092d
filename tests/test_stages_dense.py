"""Dense questions beside the words of SFT."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_scenes import CORPUS, toy_codebook, toy_scenario

from drive.core.errors import ConfigError
from drive.core.runs import RunFolder
from drive.core.types import EgoTrack, Trajectory
from drive.planners.vla.backbone import ModelConfig
from drive.planners.vla.checkpoint import load_policy
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.tiny import build_tiny
from drive.stages.dense import DenseHead, dense_head
from drive.stages.loop import OptimConfig, make_optimizer
from drive.stages.scenes import TeacherStore
from drive.stages.sft import SftConfig, train_sft
from drive.stages.sight import GroundData

CONFIG = SftConfig(
    steps=12,
    batch=8,
    micro_batch=8,
    dense_weight=1.0,
    log_every=1,
    validate_scenes=0,
    checkpoint_every=6,
    optim=OptimConfig(2e-3, warmup_steps=2),
)


def new_policy(frozen: bool = False) -> VlaPolicy:
    model, processor = build_tiny(CORPUS, seed=0, vocab_size=320)
    return VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=12, freeze_vision=frozen))


@pytest.fixture(scope="module")
def scenes():
    return [toy_scenario(i) for i in range(16)]


def new_run(path) -> RunFolder:
    return RunFolder.create(path, "sft", {}, ["drive", "train"], "sft")


def numbers(run: RunFolder) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in run.metrics()]


def test_the_state_is_the_prompts_and_knows_nothing_of_the_answer(scenes):
    policy = new_policy()
    store = TeacherStore(scenes[:2], policy)
    prompts = [store.prompt(i) for i in range(2)]
    fast = policy.sft_terms(prompts, policy.target_ids(prompts, store.actions, [None, None]), state=True)
    other = policy.sft_terms(prompts, policy.target_ids(prompts, store.actions[::-1], ["road free", "brake"]), state=True)
    assert fast.state is not None and other.state is not None and fast.state.shape == (2, policy.model.config.text_config.hidden_size)
    torch.testing.assert_close(fast.state, other.state, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(fast.state[0], fast.state[1], atol=1e-3)
    logits = policy.model.get_output_embeddings()(fast.state)
    torch.testing.assert_close(-torch.log_softmax(logits, -1)[:, policy.grammar.answer], fast.mode, atol=1e-4, rtol=1e-4)


def test_questions_are_about_the_scene_itself(scenes):
    policy = new_policy()
    store = TeacherStore(scenes, policy)
    head, ground = dense_head(policy.model, store.poses.shape[1]), GroundData(scenes, len(scenes))
    assert len(ground) == len(scenes)
    states = torch.randn(4, policy.model.config.text_config.hidden_size)
    index = np.array([3, 1, 2, 0])
    whole = head.terms(states, ground, store.poses, index)
    parts = [head.terms(states[k : k + 1], ground, store.poses, index[k : k + 1]) for k in range(4)]
    assert float(whole.loss.detach()) == pytest.approx(float(sum(p.loss for p in parts).detach()) / 4, rel=1e-4), "gradient accumulation gives the same loss"
    last = head.plan[2]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():  # a plan told right has no error
        last.weight.zero_()
        last.bias.copy_(torch.from_numpy(store.poses[3, :, :2].ravel()).float() / 10.0)
    assert float(head.terms(states[:1], ground, store.poses, index[:1]).plan_error) < 1e-4


def test_the_questions_alone_teach_a_tower_that_learns(scenes):
    policy = new_policy()
    store = TeacherStore(scenes[:4], policy)
    head, ground = dense_head(policy.model, store.poses.shape[1]), GroundData(scenes[:4], 4)
    prompts = [store.prompt(i) for i in range(4)]
    terms = policy.sft_terms(prompts, policy.target_ids(prompts, store.actions, [None] * 4), state=True)
    assert terms.state is not None
    head.terms(terms.state, ground, store.poses, np.arange(4)).loss.backward()
    tower = policy.model.model.visual.patch_embed.proj.weight.grad
    assert tower is not None and float(tower.norm()) > 0.0
    assert policy.model.model.language_model.layers[0].mlp.up_proj.weight.grad is not None


def test_the_answers_to_them_get_better(scenes, tmp_path):
    run = new_run(tmp_path)
    train_sft(run, new_policy(), scenes, None, CONFIG)
    lines = run.metrics()
    assert lines[-1]["plan_error_m"] < 0.7 * lines[0]["plan_error_m"]
    plain = new_run(tmp_path / "plain")
    train_sft(plain, new_policy(), scenes, None, replace(CONFIG, dense_weight=0.0, steps=1))
    assert "plan_error_m" not in plain.metrics()[0]


@pytest.mark.parametrize("rank", [0, 4])
def test_a_head_beside_the_model_changes_no_rate_of_the_models_weights(rank):
    """With adapters the rows of new tokens belong to no Embedding: they are still an embedding's, without decay and at its rate."""
    model, processor = build_tiny(CORPUS, seed=0, vocab_size=320)
    policy = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=12, lora_rank=rank))
    head, names = DenseHead(8, 10), {id(p): name for name, p in policy.model.named_parameters()}

    def groups(beside):
        made = make_optimizer(policy.model, OptimConfig(embedding_lr_share=0.1), beside).param_groups
        return [(g["share"], g["weight_decay"], sorted(names[id(p)] for p in g["params"] if id(p) in names)) for g in made], made[-1]

    alone, _ = groups(None)
    joined, last = groups(head)
    assert joined[:-1] == alone and joined[-1] == (1.0, 0.0, []) and len(last["params"]) == len(list(head.parameters()))
    rows = next(named for share, decay, named in alone if share == 0.1)
    assert rows and all("embed_tokens" in name for name in rows)


def test_maps_of_one_name_in_frames_of_their_own_are_told_apart(scenes):
    """Recordings of one town are shifted to their first place: what lies before a scene does not depend on who else is in the set."""
    scene = scenes[0]
    other = replace(scene, road_map=scene.road_map.shifted(np.array([40.0, -25.0])))
    both, alone = GroundData([scene, other], 2), GroundData([other], 1)
    assert both.planes[1].equal(alone.planes[0]) and not both.planes[1].equal(both.planes[0])


def test_a_resumed_run_goes_on_with_its_head(scenes, tmp_path):
    run, again = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    policy = train_sft(run, new_policy(frozen=True), scenes, None, CONFIG)
    first = run.checkpoints()[6]
    again.log(6, {})
    resumed = train_sft(again, load_policy(first), scenes, None, CONFIG, resume_from=(6, first))
    assert [line for line in numbers(again) if line["step"] > 6] == [line for line in numbers(run) if line["step"] > 6]
    for a, b in zip(policy.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)


def test_a_weight_below_zero_is_refused():
    with pytest.raises(ValueError, match="dense_weight"):
        SftConfig(dense_weight=-1.0)


def test_starts_from_standing_come_more_often(scenes, monkeypatch, tmp_path):
    """Of 16 scenes two set off: with starts=5 an epoch has 24, in which each of those comes five times."""
    still = EgoTrack(np.zeros_like(scenes[0].ego.poses_world), *(np.zeros_like(v) for v in (scenes[0].ego.velocity_ego, scenes[0].ego.acceleration_ego, scenes[0].ego.yaw_rate)))
    stands = np.zeros((10, 3))
    goes = np.column_stack([np.linspace(0.2, 9.0, 10), np.zeros((10, 2))])
    mixed = [replace(s, ego=still, teacher=Trajectory(goes if k < 2 else stands, 0.5)) if k < 4 else s for k, s in enumerate(scenes)]
    policy = new_policy(frozen=True)
    store = TeacherStore(mixed, policy)
    assert store.setting_off.tolist() == [True, True, *[False] * 14]
    seen: list[int] = []
    prompt = TeacherStore.prompt
    monkeypatch.setattr(TeacherStore, "prompt", lambda self, i: (seen.append(i), prompt(self, i))[1])
    train_sft(new_run(tmp_path), policy, mixed, None, replace(CONFIG, dense_weight=0.0, steps=3, starts=5, checkpoint_every=3))
    counts = np.bincount(seen[len(mixed) :], minlength=16)  # after the store has read them all
    assert counts.tolist() == [5, 5, *[1] * 14]


SIGHT = replace(CONFIG, steps=10, sight_steps=6, sight_batch=8, checkpoint_every=3)


def tower_of(policy: VlaPolicy) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in policy.model.model.visual.state_dict().items()}


def test_a_frozen_tower_learns_to_see_before_the_words_and_not_after(scenes, tmp_path):
    policy, run = new_policy(frozen=True), new_run(tmp_path)
    before, spoke = tower_of(policy), policy.model.model.language_model.layers[0].mlp.up_proj.weight.clone()
    train_sft(run, policy, scenes, scenes[:4], replace(SIGHT, validate_scenes=4, validate_every=6))
    lines = run.metrics()
    seeing = [line for line in lines if line["step"] <= 6]
    assert all("action_loss" not in line for line in seeing) and seeing[0]["hazard_error"] > 0.0
    assert {"val/vehicle_error", "val/person_error", "val/barrier_error"} <= {k for line in seeing for k in line}
    assert all("action_loss" in line or "val/pdms_v1_1" in line for line in lines if line["step"] > 6)
    assert any(not torch.equal(v, before[k]) for k, v in tower_of(policy).items())
    assert not torch.equal(policy.model.model.language_model.layers[0].mlp.up_proj.weight, spoke)
    assert not any(p.requires_grad for p in policy.model.model.visual.parameters())
    seen = tower_of(load_policy(run.checkpoints()[9]))  # the newest two are kept
    assert all(torch.equal(v, seen[k]) for k, v in tower_of(policy).items())


@pytest.mark.parametrize("at", [3, 6, 9])
def test_a_run_killed_in_either_part_goes_on_the_same(scenes, tmp_path, monkeypatch, at):
    monkeypatch.setattr("drive.stages.loop.KEPT", 10)
    run, again = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    policy = train_sft(run, new_policy(frozen=True), scenes, None, SIGHT)
    folder = run.checkpoints()[at]
    again.log(at, {})
    resumed = train_sft(again, load_policy(folder), scenes, None, SIGHT, resume_from=(at, folder))
    assert [line for line in numbers(again) if line["step"] > at] == [line for line in numbers(run) if line["step"] > at]
    for a, b in zip(policy.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)


def test_what_cannot_learn_to_see_is_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match="must exceed sight_steps"):
        SftConfig(steps=5, sight_steps=5)
    model, processor = build_tiny(CORPUS, seed=0, vocab_size=320)
    adapted = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=12, lora_rank=4))
    with pytest.raises(ConfigError, match="lora_rank=0"):
        train_sft(new_run(tmp_path), adapted, scenes, None, SIGHT)


def test_in_mixed_precision_the_weights_stay_whole_and_the_numbers_near(scenes, tmp_path):
    whole, half = new_run(tmp_path / "whole"), new_run(tmp_path / "half")
    train_sft(whole, new_policy(), scenes, None, SIGHT)
    policy = train_sft(half, new_policy(), scenes, None, replace(SIGHT, mixed_precision="bf16"))
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert policy.model.config._attn_implementation == new_policy().model.config._attn_implementation
    one, other = numbers(whole), numbers(half)
    for part, key in ((0, "planes_loss"), (6, "action_loss")):  # the first step of each part: later ones drift apart
        assert other[part][key] == pytest.approx(one[part][key], rel=0.01) and other[part][key] != one[part][key]
    with pytest.raises(ValueError, match="mixed_precision=fp8"):
        SftConfig(mixed_precision="fp8")


def test_frames_whose_features_are_kept_make_room_for_others(scenes, monkeypatch):
    policy = new_policy(frozen=True)
    frames = TeacherStore(scenes[:1], policy).prompt(0).images.nbytes
    monkeypatch.setattr("drive.stages.scenes.CACHE_BYTES", 2 * frames)
    store = TeacherStore(scenes[:6], policy)
    assert len(store._prompts) == 2, "the others are read again"
    whole = new_policy().prefix([store.prompt(i) for i in range(6)]).logits
    with torch.no_grad():
        first = policy.prefix([store.prompt(i) for i in range(6)]).logits
        again = policy.prefix([store.prompt(i) for i in range(6)]).logits
    assert torch.equal(first, again) and len(store._prompts) > 2
    torch.testing.assert_close(first, whole, atol=1e-5, rtol=1e-5)
    kept = [p for p in store._prompts.values() if p.features is not None and not any(p.images.strides)]
    assert len(kept) >= 2 and store._bytes <= 2 * frames + frames


def test_some_prompts_do_not_tell_how_the_car_has_moved(scenes, monkeypatch, tmp_path):
    """Half of them: speed and command stay, and so do the frames; a resumed run forgets in the same places."""
    policy, told = new_policy(frozen=True), []
    plain = policy.sft_terms
    monkeypatch.setattr(policy, "sft_terms", lambda prompts, *args, **more: told.extend(prompts) or plain(prompts, *args, **more))
    train_sft(new_run(tmp_path), policy, scenes, None, replace(CONFIG, past_dropout=0.5, dense_weight=0.0))
    said = [policy.tokenizer.decode(p.ids) for p in told]
    less = [text for text in said if " past " not in text]
    assert 0.25 * len(said) < len(less) < 0.75 * len(said)
    assert all("turn 0 command" in text and "accel 0.0" in text and "speed" in text for text in less)
    assert all(p.features is not None for p in told)
    store = TeacherStore(scenes[:1], policy, bare=True)
    one = scenes[0].observation()
    turning = policy.encoder.encode_observation(replace(one, yaw_rate=0.4, acceleration=-2.0), bare=True)
    assert turning.forgetful().ids == store.prompt(0).forgetful().ids and turning.forgetful().now == store.prompt(0).forgetful().now
    assert policy.encode([replace(one, yaw_rate=0.4, acceleration=-2.0)], past=False)[0].ids == turning.forgetful().ids
    with pytest.raises(ValueError, match="past_dropout"):
        SftConfig(past_dropout=1.5)
