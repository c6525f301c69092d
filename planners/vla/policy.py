"""The trainable VLA: prompts in, answers out, with log-probabilities and the supervised loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drive.core.errors import CheckpointError, ConfigError, TokenizerError
from drive.core.types import PLAN_STEPS, Observation
from drive.planners.vla.backbone import ModelConfig, add_lora, add_tokens_of, freeze_vision
from drive.planners.vla.decode import Answers, Prefix, answer_logits, prefill, sample, token_log_probs
from drive.planners.vla.encode import EncodedPrompt, PromptEncoder, append_answers
from drive.planners.vla.features import feature_inputs, keep_features, takes_features
from drive.planners.vla.grammar import Grammar, Kind
from drive.planners.vla.prompt import without_motion
from drive.planners.vla.route_head import RouteHead
from drive.tokenizers.interface import PlanTokenizer


@dataclass(frozen=True)
class Decoded:
    """One answer, read back."""

    poses_ego: NDArray[np.float64] | None  # (T, 3), None if undecodable
    actions: list[int] | None
    reasoning: str
    mode: str
    tokens: int
    thought: int  # tokens before the answer proper: 0 in a fast one


@dataclass(frozen=True)
class SftTerms:
    """The parts of the supervised loss of one batch, each (B,), plus the share of action tokens predicted right."""

    mode: torch.Tensor  # cross-entropy of the first token: think, or answer at once
    language: torch.Tensor  # mean cross-entropy of reasoning, </think>, <answer>, end
    action: torch.Tensor  # mean cross-entropy of the action tokens
    accuracy: torch.Tensor
    state: torch.Tensor | None = None  # (B, hidden) of the prompt's end, from which the answer is spoken


class VlaPolicy:
    """A vision-language model with action tokens, its processor, its action tokenizer (the codebook) and its grammar."""

    def __init__(self, model, processor, codebook: PlanTokenizer, config: ModelConfig, plan_tokens: int = PLAN_STEPS) -> None:
        self.model = model
        self.codebook = codebook
        self.config = config
        self.encoder = PromptEncoder(processor, config.system, codebook)
        tokenizer = processor.tokenizer
        rows = model.get_output_embeddings().weight.shape[0]
        rules = (codebook.automaton(plan_tokens), codebook.motion_tokens, codebook.in_text)
        self.grammar = Grammar.from_tokenizer(tokenizer, codebook.token_names, rows, plan_tokens, config.max_reasoning, tokenizer.eos_token, *rules)
        self.trained_on: frozenset[str] = frozenset()  # real drives, which evaluation has to leave out
        self.route_head: RouteHead | None = None  # of a model that was asked dense questions in SFT
        self._distance: torch.Tensor | None = None
        self._kernels: dict[float, torch.Tensor] = {}
        self._frames: dict[bytes, torch.Tensor] = {}  # features of single frames
        self._takes_features = takes_features(model)

    @staticmethod
    def from_backbone(model, processor, codebook: PlanTokenizer, config: ModelConfig, plan_tokens: int = PLAN_STEPS) -> VlaPolicy:
        """Add the codebook's tokens to a plain vision-language model, and adapters if the config asks for them."""
        new_ids = add_tokens_of(model, processor, codebook)
        if config.lora_rank:
            model = add_lora(model, config, new_ids)
        if config.freeze_vision:
            freeze_vision(model)
        return VlaPolicy(model, processor, codebook, config, plan_tokens)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def tokenizer(self):
        """The text tokenizer."""
        return self.encoder.processor.tokenizer

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def encode(self, observations: Sequence[Observation], past: bool = True) -> list[EncodedPrompt]:
        """Prompts of observations; without `past` they do not tell how the car has moved (see `without_motion`)."""
        return [self.encoder.encode_observation(o if past else without_motion(o)) for o in observations]

    def inputs(self, prompts: Sequence[EncodedPrompt]) -> dict[str, Any]:
        """Model inputs of B prompts, on the model's device. A frozen vision tower sees every prompt's frames once."""
        if not self.see(prompts):
            return {k: v.to(self.device) for k, v in self.encoder.collate(prompts).items()}
        return feature_inputs(self.encoder, prompts, self.device)

    def see(self, prompts: Sequence[EncodedPrompt]) -> bool:
        """Let a frozen vision tower see the frames of `prompts`, once for good; False where it has to see them each time."""
        if not (self._keeps_features and all(len(p.images) for p in prompts)):
            return False
        keep_features(self.model, self.encoder, prompts, self._frames)
        return True

    @property
    def _keeps_features(self) -> bool:
        """Whether frames may be encoded once: the tower does not learn, and the model takes what it gave."""
        return self.config.freeze_vision and not self.config.lora_rank and self._takes_features

    def prefix(self, prompts: Sequence[EncodedPrompt], state: bool = False) -> Prefix:
        """The prompts' shared cache, with `state` their last states too; differentiable outside torch.no_grad."""
        now = self.grammar.action_ids[torch.tensor([p.now for p in prompts])].to(self.device)
        return prefill(self.model, self.inputs(prompts), now, state)

    def sample(
        self, prefix: Prefix, group: int = 1, mode: str = "adaptive", temperature: float = 1.0, generator: torch.Generator | None = None, blur: float = 0.0
    ) -> Answers:
        """`group` answers for each prompt, in one batched call; row i * group + j is sample j of prompt i.

        blur: metres; above 0 a greedy action is the one with the most probability about it (exp(-distance^2 / 2 blur^2)), not the single most
        probable token: in a fine codebook what is meant is spread over many, and more finely off the straight line than on it.
        Raises ConfigError where a token is no motion.
        """
        rows = torch.arange(len(prefix.logits), device=self.device).repeat_interleave(group)
        return sample(self.model, self.grammar, prefix.rows(rows), mode, temperature, generator, self._kernel(blur) if blur else None)

    def _kernel(self, blur: float) -> torch.Tensor:
        """(K, K) nearness of the codebook's motions."""
        if blur not in self._kernels:
            self._kernels[blur] = torch.exp(-(self._distances() ** 2) / (2 * blur**2))
        return self._kernels[blur]

    def log_probs(
        self, prefix: Prefix, ids: torch.Tensor, kinds: torch.Tensor, group: int, temperature: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probability, entropy), each (N, L), of N = B * group answers under the constrained distribution; differentiable.

        Fast and slow answers run apart, so that no short answer is padded to the length of a long one.
        """
        rows = torch.arange(len(prefix.logits), device=self.device).repeat_interleave(group)
        lengths = (kinds != int(Kind.PAD)).sum(1)
        log_probs = torch.zeros(ids.shape, device=self.device)
        entropy = torch.zeros(ids.shape, device=self.device)
        fast = ids[:, 0] == self.grammar.answer
        for part in (fast, ~fast):
            index = part.nonzero().squeeze(1)
            if not len(index):
                continue
            length = int(lengths[index].max())
            cut, cut_kinds = ids[index, :length], kinds[index, :length]
            logits = answer_logits(self.model, prefix.rows(rows[index]), cut, cut_kinds)
            values, spread = token_log_probs(logits, cut, cut_kinds, self.grammar, temperature)
            pad = (0, ids.shape[1] - length)
            log_probs = log_probs.index_copy(0, index, torch.nn.functional.pad(values, pad))
            entropy = entropy.index_copy(0, index, torch.nn.functional.pad(spread, pad))
        return log_probs, entropy

    def target_ids(self, prompts: Sequence[EncodedPrompt], plans: NDArray[Any], reasonings: Sequence[str | None]) -> torch.Tensor:
        """(B, L) right-padded answers to imitate for B prompts and the B rows of their plans' tokens; reasoning None gives the fast form."""
        thoughts = [None if text is None else self.tokenizer(text, add_special_tokens=False).input_ids for text in reasonings]
        rows = [self.grammar.answer_ids(plan.tolist(), thought, p.now) for p, plan, thought in zip(prompts, plans, thoughts)]
        ids = torch.full((len(rows), max(map(len, rows))), self.grammar.pad, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids.to(self.device)

    def sft_terms(self, prompts: Sequence[EncodedPrompt], ids: torch.Tensor, label_spread: float = 0.0, state: bool = False) -> SftTerms:
        """Teacher-forced losses of answers `ids` (B, L) over the whole vocabulary (AutoVLA, section 3.3).

        label_spread: metres; above 0 an action's target is spread over the codebook by exp(-distance^2 / 2 spread^2), where a token is a motion.
        state: give the model's last state of the prompt too.
        """
        inputs = append_answers(self.inputs(prompts), ids, self.grammar.pad)
        out = self.model(**inputs, logits_to_keep=ids.shape[1], output_hidden_states=state)
        logits = out.logits.float()
        kinds = self.grammar.kinds(ids)
        action = kinds == int(Kind.ACTION)
        spoken = (kinds != int(Kind.PAD)) & (kinds != int(Kind.MODE)) & ~action & ~self._given(ids)
        log_probs = torch.log_softmax(logits, dim=-1)
        loss = -log_probs.gather(2, ids[..., None]).squeeze(2)
        chosen = log_probs[action][:, self.grammar.action_ids.to(self.device)]
        target = self.grammar.action_index(self.device)[ids[action]]
        soft = label_spread > 0 and self.codebook.token_motions is not None
        action_loss = -(self._soft_labels(target, label_spread) * chosen).sum(-1) if soft else loss[action]
        per_action = torch.zeros_like(loss).masked_scatter(action, action_loss)
        right = torch.zeros_like(loss).masked_scatter(action, (chosen.argmax(-1) == target).float())
        count = action.sum(1).clamp(min=1)
        language = (loss * spoken).sum(1) / spoken.sum(1).clamp(min=1)
        last = out.hidden_states[-1][:, -ids.shape[1]] if state else None
        return SftTerms(loss[:, 0], language, per_action.sum(1) / count, right.sum(1) / count, last)

    def _given(self, ids: torch.Tensor) -> torch.Tensor:
        """(B, L) bool, where a token is of the given present motion: it follows <answer>, and nobody has to predict it."""
        given, follows = torch.zeros_like(ids, dtype=torch.bool), ids == self.grammar.answer
        for _ in range(self.grammar.now_tokens):
            follows = torch.nn.functional.pad(follows[:, :-1], (1, 0))
            given = given | follows
        return given

    def _soft_labels(self, target: torch.Tensor, spread: float) -> torch.Tensor:
        """(n, K) target distributions of action indexes (n,)."""
        return torch.softmax(-(self._distances()[target] ** 2) / (2 * spread**2), dim=-1)

    def _distances(self) -> torch.Tensor:
        """(K, K) metres between the codebook's motions. Raises ConfigError where its tokens are none."""
        if self._distance is None:
            if self.codebook.token_motions is None:
                raise ConfigError(f"the tokens of {self.codebook.name} are no motions: there is no distance between them to blur by")
            moved = torch.from_numpy(self.codebook.token_motions).float() * torch.tensor([1.0, 1.0, 2.0])  # a corner lies about 2 m out
            self._distance = torch.cdist(moved, moved).to(self.device)
        return self._distance

    def decode(self, answers: Answers) -> list[Decoded]:
        """Answers read back into plans; an answer that breaks the grammar is undecodable, never a default motion."""
        out = []
        for ids, length in zip(answers.ids.tolist(), answers.lengths.tolist()):
            actions, reasoning = self.grammar.parse(ids)
            mode = "slow" if ids[0] == self.grammar.think else "fast"
            text = self.tokenizer.decode(reasoning).strip() if reasoning else ""
            thought = ids.index(self.grammar.answer) if self.grammar.answer in ids[:length] else length
            out.append(Decoded(None, actions, text, mode, length, thought))
        good = [i for i, d in enumerate(out) if d.actions is not None]
        if good:
            for i, poses in zip(good, self.codebook.decode_each([np.array(out[i].actions) for i in good])):
                if not isinstance(poses, TokenizerError):
                    out[i] = replace(out[i], poses_ego=poses)
        return out

    def require_codebook(self, codebook: PlanTokenizer) -> None:
        """Raise CheckpointError unless `codebook` is the one this policy speaks."""
        if codebook.fingerprint != self.codebook.fingerprint:
            raise CheckpointError(
                f"the checkpoint speaks codebook {self.codebook.fingerprint[:12]}, the data was tokenised with {codebook.fingerprint[:12]}: "
                "use the codebook stored beside the checkpoint"
            )
