"""The answer grammar: `[<think> reasoning </think>] <answer> now, exactly T action tokens, <end>`.

Fast thinking opens with <answer>, slow thinking with <think>; so the choice of mode is one token with two values. `now` is not
generated: it is the action token of the ego's present motion, given by the observation, so that the first action continues a motion
as all the others do (a small model that had to look its speed up in the prompt took most of its training to learn that). The
grammar knows tokens by name only: their ids are looked up in whatever tokenizer is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from drive.core.errors import CheckpointError

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
    """Token ids of one tokenizer, and the number of action tokens of a plan."""

    think: int
    think_end: int
    answer: int
    end: int
    pad: int
    action_ids: torch.Tensor  # (K,) long, ascending by action index
    text_mask: torch.Tensor  # (V,) bool: ids that may stand in reasoning
    plan_tokens: int = 10
    max_reasoning: int = 64  # tokens of reasoning, </think> not counted

    @staticmethod
    def from_tokenizer(tokenizer, action_names: list[str], vocab_rows: int, plan_tokens: int, max_reasoning: int, end: str) -> Grammar:
        """Look every token up by name.

        vocab_rows: rows of the model's output matrix (>= len(tokenizer)). Raises CheckpointError when a name is missing or is
        not one single token ("action tokens never produced" starts there).
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
        special = set(tokenizer.all_special_ids) | {vocab[name] for name in names}
        text = torch.zeros(vocab_rows, dtype=torch.bool)
        text[[i for i in vocab.values() if i < vocab_rows and i not in special]] = True
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else vocab[end]
        action_ids = torch.tensor([vocab[name] for name in action_names], dtype=torch.long)
        return Grammar(vocab[THINK], vocab[THINK_END], vocab[ANSWER], vocab[end], pad, action_ids, text, plan_tokens, max_reasoning)

    @property
    def fast_length(self) -> int:
        """Tokens of a fast answer: <answer>, now, T actions, end."""
        return self.plan_tokens + 3

    @property
    def max_length(self) -> int:
        """Tokens of the longest slow answer."""
        return self.fast_length + self.max_reasoning + 2

    def action_index(self, device: torch.device) -> torch.Tensor:
        """(V,) action index of every token id, -1 where it is no action."""
        index = torch.full((len(self.text_mask),), -1, dtype=torch.long, device=device)
        index[self.action_ids.to(device)] = torch.arange(len(self.action_ids), device=device)
        return index

    def answer_ids(self, actions: list[int], reasoning_ids: list[int] | None, now: int = 0) -> list[int]:
        """Token ids of an answer; `reasoning_ids` None gives the fast form. Reasoning is cut at `max_reasoning`.

        now: action index of the present motion.
        """
        plan = [self.answer, *self.action_ids[[now, *actions]].tolist(), self.end]
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
        position = after.long().cumsum(1) - 1  # 0 is now, 1..T are actions, T + 1 is the end
        kinds = torch.full_like(ids, int(Kind.PAD))
        kinds[slow & ~closed] = int(Kind.TEXT)
        kinds[is_answer & slow] = int(Kind.FORCED)
        kinds[after & (position >= 1) & (position <= self.plan_tokens)] = int(Kind.ACTION)
        kinds[after & ((position == 0) | (position == self.plan_tokens + 1))] = int(Kind.FORCED)
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
        if len(ids) < self.fast_length or ids[0] != self.answer or ids[self.plan_tokens + 2] != self.end:
            return None, reasoning
        index = {int(token): i for i, token in enumerate(self.action_ids.tolist())}
        actions = [index.get(token, -1) for token in ids[2 : self.plan_tokens + 2]]
        return (None if -1 in actions else actions), reasoning
