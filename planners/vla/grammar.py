"""The answer grammar: `[<think> reasoning </think>] <answer> now, the action tokens of one plan, <end>`.

Fast thinking opens with <answer>, slow thinking with <think>; so the choice of mode is one token with two values. `now` is not
generated: it is the ego's present motion in action tokens, given by the observation, so that the first action continues a motion
as all the others do (a small model that had to look its speed up in the prompt took most of its training to learn that). Which action
tokens make a plan is the action tokenizer's automaton: one token a pose for the K-disk codebook, a number that varies for text. The
grammar knows tokens by name only: their ids are looked up in whatever tokenizer is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch

from drive.core.errors import CheckpointError
from drive.tokenizers.automaton import Automaton

THINK, THINK_END, ANSWER = "<think>", "</think>", "<answer>"


class Kind(IntEnum):
    """What a token of an answer is. A token's log-probability is normalised over the tokens that its kind allows."""

    PAD = 0  # outside the answer
    MODE = 1  # <think> or <answer>
    TEXT = 2  # reasoning text or </think>
    ACTION = 3
    FORCED = 4  # the grammar leaves no choice: log-probability 0


@dataclass(frozen=True)
class Grammar:
    """Token ids of one tokenizer, and which action tokens make a plan."""

    think: int
    think_end: int
    answer: int
    end: int
    pad: int
    action_ids: torch.Tensor  # (K,) long, ascending by action index
    text_mask: torch.Tensor  # (V,) bool: ids that may stand in reasoning
    automaton: Automaton
    plan_tokens: int = 10  # poses of a plan
    max_reasoning: int = 64  # tokens of reasoning, </think> not counted
    now_tokens: int = 1  # action tokens that say the present motion

    @staticmethod
    def from_tokenizer(
        tokenizer,
        action_names: list[str],
        vocab_rows: int,
        plan_tokens: int,
        max_reasoning: int,
        end: str,
        automaton: Automaton | None = None,
        now_tokens: int = 1,
        in_text: bool = False,
    ) -> Grammar:
        """Look every token up by name.

        vocab_rows: rows of the model's output matrix (>= len(tokenizer)). automaton None: any `plan_tokens` tokens. in_text: the action
        names are words of the text as well, and may stand in reasoning. Raises CheckpointError when a name is missing or is not one single
        token ("action tokens never produced" starts there).
        """
        vocab = tokenizer.get_vocab()
        names = [THINK, THINK_END, ANSWER, end, *action_names]
        missing = [name for name in names if name not in vocab]
        if missing:
            raise CheckpointError(
                f"the tokenizer has no token {missing[0]} ({len(missing)} of {len(names)} missing): "
                "it belongs to another codebook, or its action tokens were never added"
            )
        broken = [name for name in names[:4] + action_names[:1] + action_names[-1:] if tokenizer(name, add_special_tokens=False).input_ids != [vocab[name]]]
        if broken:
            raise CheckpointError(f"the tokenizer splits {broken[0]} into pieces: add it as one token")
        special = set(tokenizer.all_special_ids) | {vocab[name] for name in (names[:4] if in_text else names)}
        text = torch.zeros(vocab_rows, dtype=torch.bool)
        text[[i for i in vocab.values() if i < vocab_rows and i not in special]] = True
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else vocab[end]
        action_ids = torch.tensor([vocab[name] for name in action_names], dtype=torch.long)
        automaton = automaton or Automaton.free(plan_tokens, len(action_names))
        control = (vocab[THINK], vocab[THINK_END], vocab[ANSWER], vocab[end], pad)
        return Grammar(*control, action_ids, text, automaton, plan_tokens, max_reasoning, now_tokens)

    @property
    def fast_length(self) -> int:
        """Tokens of a fast answer: <answer>, now, the actions, end; of the longest one where their number varies."""
        return self.automaton.longest + self.now_tokens + 2

    @property
    def max_length(self) -> int:
        """Tokens of the longest slow answer."""
        return self.fast_length + self.max_reasoning + 2

    def action_index(self, device: torch.device) -> torch.Tensor:
        """(V,) action index of every token id, -1 where it is no action."""
        index = torch.full((len(self.text_mask),), -1, dtype=torch.long, device=device)
        index[self.action_ids.to(device)] = torch.arange(len(self.action_ids), device=device)
        return index

    def table(self, device: torch.device) -> torch.Tensor:
        """(S, K) the automaton's table."""
        return torch.from_numpy(self.automaton.table).to(device)

    def allowed(self, ids: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor | None:
        """(n, K) which actions might have stood at each of the n action tokens of answers `ids` (N, L); None where all might at all."""
        if self.automaton.unconstrained:
            return None
        table, index = self.table(ids.device), self.action_index(ids.device)[ids].clamp(min=0)
        place, places = torch.zeros(len(ids), dtype=torch.long, device=ids.device), []
        for step in range(ids.shape[1]):
            places.append(place)
            place = torch.where(kinds[:, step] == int(Kind.ACTION), table[place, index[:, step]].clamp(min=0), place)
        return table[torch.stack(places, dim=1)[kinds == int(Kind.ACTION)]] >= 0

    def answer_ids(self, actions: list[int], reasoning_ids: list[int] | None, now: int | Sequence[int] = 0) -> list[int]:
        """Token ids of an answer; `reasoning_ids` None gives the fast form. Reasoning is cut at `max_reasoning`.

        now: action indexes of the present motion.
        """
        present = [now] if isinstance(now, int) else list(now)
        plan = [self.answer, *self.action_ids[[*present, *actions]].tolist(), self.end]
        if reasoning_ids is None:
            return plan
        return [self.think, *reasoning_ids[: self.max_reasoning], self.think_end, *plan]

    def kinds(self, ids: torch.Tensor) -> torch.Tensor:
        """(N, L) Kind of every token of answers `ids` (N, L), right-padded with `pad`."""
        first = torch.zeros_like(ids, dtype=torch.bool)
        first[:, 0] = True
        is_answer = ids == self.answer
        slow = (ids[:, :1] == self.think).expand_as(ids)
        closed = is_answer.cumsum(1) > 0  # from <answer> on
        after = closed & ~is_answer
        position = after.long().cumsum(1) - 1  # from 0 on the present motion, then the actions, then the end
        acting = after & (position >= self.now_tokens)
        end = acting & (ids == self.end)
        ends = end.long().cumsum(1)  # 0 before the end, 1 from it on
        kinds = torch.full_like(ids, int(Kind.PAD))
        kinds[slow & ~closed] = int(Kind.TEXT)
        kinds[is_answer & slow] = int(Kind.FORCED)
        kinds[acting & (ends == 0)] = int(Kind.ACTION)
        kinds[(after & ~acting) | (end & (ends == 1))] = int(Kind.FORCED)
        kinds[first] = int(Kind.MODE)
        # A thought that reached its longest length is closed by the grammar, not by the model.
        thought = (kinds == int(Kind.TEXT)).long().cumsum(1)
        kinds[(kinds == int(Kind.TEXT)) & (thought == self.max_reasoning + 1)] = int(Kind.FORCED)
        return kinds

    def parse(self, ids: list[int]) -> tuple[list[int] | None, list[int]]:
        """(action indexes or None if the answer breaks the grammar, reasoning token ids)."""
        ids = list(ids)
        reasoning: list[int] = []
        if ids and ids[0] == self.think:
            if self.think_end not in ids:
                return None, ids[1:]
            close = ids.index(self.think_end)
            reasoning, ids = ids[1:close], ids[close + 1 :]
        written = ids[1 + self.now_tokens :]
        if not ids or ids[0] != self.answer or self.end not in written:
            return None, reasoning
        index = {int(token): i for i, token in enumerate(self.action_ids.tolist())}
        actions = [index.get(token, -1) for token in written[: written.index(self.end)]]
        return (actions if self.automaton.accepts(actions) else None), reasoning
