# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOptionalSubscript=false
"""The real loading, LoRA and checkpoint code on small random models of every family's own classes."""

import json

import pytest
import torch
from toy_scenes import CORPUS, toy_codebook, toy_scenario
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from drive.core.errors import CheckpointError
from drive.core.seeds import torch_rng
from drive.core.types import PlanStatus
from drive.planners.vla.backbone import ModelConfig, load_backbone
from drive.planners.vla.checkpoint import load_policy, save_policy
from drive.planners.vla.planner import VlaPlanner
from drive.planners.vla.policy import VlaPolicy
from drive.planners.vla.processor import ImageTextProcessor, qwen_image_processor
from drive.planners.vla.prompt import CHATML
from drive.planners.vla.tiny import tiny_config, train_text_tokenizer

SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}: {% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def qwen25(folder):
    tokenizer = train_text_tokenizer(CORPUS, 320)
    config = tiny_config(tokenizer, hidden=80, layers=2, vision_hidden=48, vision_layers=2)
    config.tie_word_embeddings = False  # as the 7B is; the 3B ties
    config.text_config.tie_word_embeddings = False
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    ImageTextProcessor(qwen_image_processor(112), tokenizer, CHATML).save_pretrained(folder)
    return ModelConfig("qwen2_5_vl_3b", str(folder), "qwen", lora_rank=4, max_reasoning=8)


def qwen3(folder):
    tokenizer = train_text_tokenizer(CORPUS, 320)
    vocab = tokenizer.get_vocab()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 2,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_heads": 4,
        "patch_size": 16,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **{k: vocab[v] for k, v in ids.items()})
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    images = qwen_image_processor(128)
    images.patch_size = 16
    ImageTextProcessor(images, tokenizer, CHATML).save_pretrained(folder)
    return ModelConfig("qwen3_vl_4b", str(folder), "qwen", lora_rank=4, max_reasoning=8, max_pixels=128 * 128)


def smolvlm(folder):
    base = train_text_tokenizer(CORPUS, 320)
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer, eos_token="<end_of_utterance>", pad_token="<|im_end|>", additional_special_tokens=special
    )
    tokenizer.chat_template = SMOL_TEMPLATE
    tokenizer.save_pretrained(folder)
    SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 64}).save_pretrained(folder)
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    return ModelConfig("smolvlm_256m", str(folder), "smolvlm", lora_rank=4, max_reasoning=8)


@pytest.fixture(scope="module", params=[qwen25, qwen3, smolvlm], ids=lambda f: f.__name__)
def config(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="module")
def policy(config):
    torch.manual_seed(0)
    model, processor = load_backbone(config)
    return VlaPolicy.from_backbone(model, processor, toy_codebook(), config)


@pytest.fixture(scope="module")
def observations():
    return [toy_scenario(i).observation() for i in range(3)]


def test_plans_in_every_mode(policy, observations):
    for mode in ("fast", "slow", "adaptive"):
        plans = VlaPlanner(policy, mode, temperature=1.0).plan(observations)
        assert all(p.status is PlanStatus.OK and p.trajectory.poses.shape == (10, 3) and p.latency_s > 0 for p in plans)


def test_shared_prefix_gives_the_samplers_log_probs(policy, observations):
    policy.model.eval()
    prompts = policy.encode(observations)
    answers = policy.sample(policy.prefix(prompts), 3, "adaptive", 1.0, torch_rng(0))
    log_probs, _ = policy.log_probs(policy.prefix(prompts), answers.ids, answers.kinds, 3)
    torch.testing.assert_close(log_probs, answers.log_probs, atol=2e-5, rtol=0)


def test_lora_trains_adapters_and_new_rows_alone(policy, observations):
    names = [n for n, p in policy.model.named_parameters() if p.requires_grad]
    assert any("lora_A" in n for n in names) and any("trainable_tokens_delta" in n for n in names)
    assert all("lora_" in n or "trainable_tokens" in n for n in names)
    assert not any("visual" in n or "vision_model" in n for n in names)
    prompts = policy.encode(observations)
    ids = policy.target_ids(prompts, policy.codebook.encode(toy_scenario(1).teacher.poses[None]).repeat(3, 0), [None, "road free", None])
    terms = policy.sft_terms(prompts, ids)
    (terms.language + terms.action).sum().backward()
    moved = [n for n, p in policy.model.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0]
    assert any("lora_B" in n for n in moved) and any("trainable_tokens_delta" in n for n in moved)
    policy.model.zero_grad()


def test_checkpoint_round_trip(policy, observations, tmp_path):
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch_rng(3)))
    save_policy(policy, tmp_path)
    again = load_policy(tmp_path)
    a, b = (VlaPlanner(p, "slow").plan(observations) for p in (policy, again))
    for x, y in zip(a, b):
        assert x.reasoning == y.reasoning and (x.trajectory.poses == y.trajectory.poses).all()


@pytest.fixture
def whole(tmp_path):
    from drive.planners.vla.tiny import build_tiny

    model, processor = build_tiny(CORPUS, 0, 320)
    policy = VlaPolicy.from_backbone(model, processor, toy_codebook(), ModelConfig(max_reasoning=8))
    save_policy(policy, tmp_path)
    return tmp_path


def test_whole_checkpoint_round_trip_in_half_precision(whole, tmp_path):
    policy = load_policy(whole)
    (tmp_path / "half").mkdir()
    save_policy(policy, tmp_path / "half", dtype=torch.float16, card="# a card\n")
    half = load_policy(tmp_path / "half")
    assert half.model.dtype == torch.float32 and (tmp_path / "half" / "README.md").read_text().startswith("# a card")
    for a, b in zip(policy.model.state_dict().values(), half.model.state_dict().values()):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"no drive\.json"):
        load_policy(tmp_path)


def test_checkpoint_with_a_missing_tensor_is_refused(whole):
    from safetensors.torch import load_file, save_file

    state = load_file(whole / "model.safetensors")
    state.pop(next(iter(state)))
    save_file(state, whole / "model.safetensors")
    with pytest.raises(CheckpointError, match="is missing"):
        load_policy(whole)


def test_truncated_weights_are_refused(whole):
    data = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_policy(whole)


def test_checkpoint_of_another_vocabulary_is_refused(whole):
    toy_codebook(k=32).save(whole / "codebook")
    with pytest.raises(CheckpointError, match="codebook is not the one"):
        load_policy(whole)
    meta = json.loads((whole / "drive.json").read_text())
    meta["codebook"] = toy_codebook(k=32).fingerprint
    meta["vocabulary"] += 1
    (whole / "drive.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="tokens"):
        load_policy(whole)


def test_another_prompt_than_the_trained_one_is_refused(whole):
    meta = json.loads((whole / "drive.json").read_text())
    meta["prompt"] = "0" * 64
    (whole / "drive.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="another prompt"):
        load_policy(whole)


def test_settings_of_another_model_are_refused_and_free_ones_taken(whole):
    with pytest.raises(CheckpointError, match=r"trained with model\.max_pixels=12544; the settings ask for 3136"):
        load_policy(whole, ModelConfig(max_pixels=56 * 56))
    assert load_policy(whole, ModelConfig(max_reasoning=12)).grammar.max_reasoning == 12


def test_a_checkpoint_without_its_architecture_is_refused(whole):
    (whole / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing or damaged"):
        load_policy(whole)


def test_damaged_weights_of_a_base_are_refused(tmp_path):
    from shutil import copytree

    from drive.planners.vla.shipped import shipped

    copytree(shipped("tiny-base"), tmp_path / "base")
    data = (tmp_path / "base" / "model.safetensors").read_bytes()
    (tmp_path / "base" / "model.safetensors").write_bytes(data[:1000])
    with pytest.raises(CheckpointError, match="no model at"):
        load_backbone(ModelConfig(weights=str(tmp_path / "base")))


def test_adapters_on_the_shipped_base_name_no_place_of_this_machine(tmp_path):
    config = ModelConfig(lora_rank=2, max_reasoning=8)
    save_policy(VlaPolicy.from_backbone(*load_backbone(config), toy_codebook(), config), tmp_path)
    assert json.loads((tmp_path / "drive.json").read_text())["model"]["weights"] == ""
    assert load_policy(tmp_path).config.lora_rank == 2


def test_unreachable_weights_name_the_way_out():
    with pytest.raises(CheckpointError, match="local folder or a hub name"):
        load_backbone(ModelConfig(weights="/nowhere/at/all"))


def test_fast_patches_equal_the_image_processor():
    """What SFT and GRPO feed is what Qwen's own processor makes."""
    import numpy as np

    from drive.planners.vla.processor import fast_patches

    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    processor = qwen_image_processor(112)
    ours = fast_patches(images, processor)
    theirs = processor(list(images), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_kept_features_give_the_logits_of_the_whole_model(whole):
    from dataclasses import replace

    live = load_policy(whole)
    frozen = VlaPolicy(live.model, live.encoder.processor, live.codebook, replace(live.config, freeze_vision=True))
    observations = [toy_scenario(i).observation() for i in range(3)]
    prompts = frozen.encode(observations)
    with torch.no_grad():
        a, b = live.prefix(live.encode(observations)), frozen.prefix(prompts)
        again = frozen.prefix(prompts[:1])
    torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.logits[:1], again.logits, atol=1e-5, rtol=1e-5)
    assert all(p.features is not None for p in prompts)


def test_a_frame_is_encoded_once_whatever_prompt_it_comes_in(whole, monkeypatch):
    """Driving on, three of four frames were seen before; what is kept of them stays within its bounds."""
    from dataclasses import replace

    import numpy as np

    from drive.planners.vla import features

    live = load_policy(whole)
    frozen = VlaPolicy(live.model, live.encoder.processor, live.codebook, replace(live.config, freeze_vision=True))
    frames, one = np.random.default_rng(0).integers(0, 256, (9, 112, 112, 3), dtype=np.uint8), toy_scenario(0).observation()
    drive = [replace(one, images=frames[None, k : k + 4]) for k in range(6)]
    encoded, plain = [], frozen.model.get_image_features

    def counted(pixels, grid):
        encoded.append(len(grid))
        return plain(pixels, grid)

    monkeypatch.setattr(frozen.model, "get_image_features", counted)
    kept = [frozen.prefix(frozen.encode([observation])).logits for observation in drive]
    assert encoded == [4, 1, 1, 1, 1, 1]
    whole_again = live.prefix(live.encode(drive)).logits
    torch.testing.assert_close(torch.cat(kept), whole_again, atol=1e-5, rtol=1e-5)
    assert len(frozen._frames) == 9
    monkeypatch.setattr(features, "FRAMES_BYTES", 5 * next(iter(frozen._frames.values())).nbytes)
    frozen.prefix(frozen.encode([replace(one, images=255 - frames[None, :4])]))
    assert len(frozen._frames) == 5
    frozen.prefix(frozen.encode([drive[0]]))
    assert encoded[-1] == 4, "what was dropped is encoded again"
