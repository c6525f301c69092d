"""Constrained decoding with a shared prompt cache.

The prompt of a scene is run once; its keys and values serve every sample of the group (roll-outs), every plan (inference)
and, with autograd through the copy, the log-probabilities of GRPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from drive.planners.vla.grammar import Grammar, Kind

_MODE, _TEXT, _ANSWER, _NOW, _ACTION = range(5)  # what a row's next token is


@dataclass
class Prefix:
    """B prompts after one forward pass."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]  # keys, values (B, heads, L, head_dim) of every layer
    mask: torch.Tensor  # (B, L) 1 where the prompt is, 0 on its left padding
    next_position: torch.Tensor  # (B,) rotary position of the first answer token
    logits: torch.Tensor  # (B, V) for the first answer token
    now: torch.Tensor  # (B, M) action tokens of the present motion
    state: torch.Tensor | None = None  # (B, hidden) of the prompt's end, where it was asked for

    def rows(self, index: torch.Tensor) -> Prefix:
        """The prompts of `index` (N,), repeated or left out as it says; differentiable."""
        layers = [(k[index], v[index]) for k, v in self.layers]
        return Prefix(layers, self.mask[index], self.next_position[index], self.logits[index], self.now[index])

    def cache(self) -> DynamicCache:
        """A cache that starts from this prefix and grows by concatenation, so that the prefix itself stays as it is."""
        return DynamicCache(self.layers)


@dataclass
class Answers:
    """N sampled answers."""

    ids: torch.Tensor  # (N, L) right-padded
    log_probs: torch.Tensor  # (N, L) of the sampling distribution; 0 on forced and padded tokens
    kinds: torch.Tensor  # (N, L) Kind

    @property
    def lengths(self) -> torch.Tensor:
        """(N,) tokens of every answer."""
        return (self.kinds != int(Kind.PAD)).sum(1)


def _inner(model):
    """The transformers model below adapters."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def prefill(model, inputs: dict[str, Any], now: torch.Tensor, state: bool = False) -> Prefix:
    """Run B left-padded prompts once; now (B, M) holds the action tokens of each one's present motion. `state` keeps the last state too."""
    mask = inputs["attention_mask"]
    if "mm_token_type_ids" not in inputs:  # Qwen counts for itself; other families would count the padding in
        inputs = {**inputs, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    out = model(**inputs, use_cache=True, logits_to_keep=1, output_hidden_states=state)
    position = mask.sum(1)
    deltas = getattr(_inner(model).model, "rope_deltas", None)  # Qwen counts an image by its side, not by its tokens
    if deltas is not None:
        position = position + deltas.view(-1).to(position)
    layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
    return Prefix(layers, mask, position, out.logits[:, -1], now, out.hidden_states[-1][:, -1] if state else None)


BARRED = -1e9  # logit of what the grammar bars: finite, so that 0 times its logarithm stays 0


def _choose(
    logits: torch.Tensor,
    temperature: float,
    generator: torch.Generator | None,
    allowed: torch.Tensor | None = None,
    kernel: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(choice (n,), log-probability (n,)) from logits (n, m) where `allowed` (n, m) holds; greedy at temperature 0 (log-probability at
    temperature 1), with `kernel` (m, m) by the probability of all that is near a choice."""
    scaled = logits.float() / (temperature or 1.0)
    log_probs = torch.log_softmax(scaled if allowed is None else scaled.masked_fill(~allowed, BARRED), dim=-1)
    if temperature == 0.0:
        worth = log_probs if kernel is None else log_probs.exp() @ kernel
        choice = (worth if allowed is None else worth.masked_fill(~allowed, BARRED)).argmax(-1)
    else:
        choice = torch.multinomial(log_probs.exp(), 1, generator=generator).squeeze(1)
    return choice, log_probs.gather(1, choice[:, None]).squeeze(1)


class _Rows:
    """The rows still being written, and what the grammar lets each write next."""

    def __init__(self, grammar: Grammar, now: torch.Tensor, kernel: torch.Tensor | None) -> None:
        self.kernel = kernel
        self.grammar, self.now, count, device = grammar, now, len(now), now.device
        self.state = torch.full((count,), _MODE, device=device)
        self.thought = torch.zeros(count, dtype=torch.long, device=device)
        self.said = torch.zeros(count, dtype=torch.long, device=device)  # tokens of the present motion
        self.place = torch.zeros(count, dtype=torch.long, device=device)  # state of the plan's automaton
        self.table, self.index = grammar.table(device), grammar.action_index(device)
        self.action_ids = grammar.action_ids.to(device)
        self.text_ids = torch.cat([grammar.text_mask.nonzero().squeeze(1), torch.tensor([grammar.think_end])]).to(device)
        self.mode_ids = torch.tensor([grammar.think, grammar.answer], device=device)

    def next(self, logits: torch.Tensor, mode: str, temperature: float, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(token (n,), log-probability (n,)) for logits (n, V)."""
        present = self.now.gather(1, self.said.clamp(max=self.now.shape[1] - 1)[:, None]).squeeze(1)
        token = torch.where(self.state == _NOW, present, self.grammar.answer)
        log_prob = torch.zeros(len(token), device=logits.device)
        allowed = {_TEXT: self.text_ids, _ACTION: self.action_ids}
        if mode == "adaptive":
            allowed[_MODE] = self.mode_ids
        else:
            token[self.state == _MODE] = self.grammar.think if mode == "slow" else self.grammar.answer
        for state, ids in allowed.items():
            at = (self.state == state).nonzero().squeeze(1)
            if len(at):
                free = state != _ACTION or self.grammar.automaton.unconstrained
                allows = None if free else self.table[self.place[at]] >= 0
                choice, log_prob[at] = _choose(logits[at][:, ids], temperature, generator, allows, self.kernel if state == _ACTION else None)
                token[at] = ids[choice]
        full = (self.state == _TEXT) & (self.thought >= self.grammar.max_reasoning)
        token[full], log_prob[full] = self.grammar.think_end, 0.0
        return token, log_prob

    def advance(self, token: torch.Tensor) -> torch.Tensor:
        """Move every row past its new token; (n,) bool, True where all actions are written."""
        self.thought += self.state == _TEXT
        self.said += self.state == _NOW
        self.place = torch.where(self.state == _ACTION, self.table[self.place, self.index[token].clamp(min=0)], self.place)
        state = torch.where(token == self.grammar.think, _TEXT, self.state)
        state = torch.where(token == self.grammar.think_end, _ANSWER, state)
        state = torch.where((self.state == _NOW) & (self.said == self.grammar.now_tokens), _ACTION, state)
        self.state = torch.where(token == self.grammar.answer, _NOW, state)
        return self.place == len(self.table) - 1

    def keep(self, index: torch.Tensor) -> None:
        """Drop the rows that are not in `index`."""
        self.state, self.thought = self.state[index], self.thought[index]
        self.place, self.said, self.now = self.place[index], self.said[index], self.now[index]


@torch.no_grad()
def sample(
    model,
    grammar: Grammar,
    prefix: Prefix,
    mode: str | Sequence[str] = "adaptive",
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    kernel: torch.Tensor | None = None,
) -> Answers:
    """One answer for each row of `prefix`; mode "fast", "slow" or "adaptive" (the model chooses).

    kernel: (K, K) nearness of actions, by which greedy ones are chosen.

    Every answer obeys the grammar. The log-probability of a token is normalised over the tokens that the grammar allows there.
    """
    count, device = len(prefix.logits), prefix.logits.device
    ids = torch.full((count, grammar.max_length), grammar.pad, dtype=torch.long, device=device)
    log_probs = torch.zeros(count, grammar.max_length, device=device)
    rows, alive = _Rows(grammar, prefix.now, kernel), torch.arange(count, device=device)
    cache, logits, position = prefix.cache(), prefix.logits, prefix.next_position
    padded = bool((prefix.mask == 0).any())
    mask = prefix.mask
    for step in range(grammar.max_length):
        token, log_prob = rows.next(logits, mode, temperature, generator)
        ids[alive, step], log_probs[alive, step] = token, log_prob
        done = rows.advance(token)
        if done.any():
            ids[alive[done], step + 1] = grammar.end
            left = (~done).nonzero().squeeze(1)
            if not len(left):
                break
            cache.batch_select_indices(left)
            rows.keep(left)
            alive, token, position, mask = alive[left], token[left], position[left], mask[left]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = model(
            input_ids=token[:, None],
            position_ids=position[:, None],
            attention_mask=mask if padded else None,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, position = out.logits[:, -1], position + 1
    longest = int((ids != grammar.pad).any(0).nonzero().max()) + 1
    ids, log_probs = ids[:, :longest], log_probs[:, :longest]
    return Answers(ids, log_probs, grammar.kinds(ids))


def answer_logits(model, prefix: Prefix, ids: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """(N, L, V) logits that predict every token of answers `ids` (N, L), given N prefixes; differentiable."""
    written = (kinds[:, :-1] != int(Kind.PAD)).long()
    position = prefix.next_position[:, None] + torch.arange(ids.shape[1] - 1, device=ids.device)
    mask = torch.cat([prefix.mask, written], dim=1)
    out = model(
        input_ids=ids[:, :-1],
        position_ids=position,
        attention_mask=mask if bool((mask == 0).any()) else None,
        past_key_values=prefix.cache(),
        use_cache=True,
    )
    return torch.cat([prefix.logits[:, None], out.logits], dim=1)


def token_log_probs(
    logits: torch.Tensor, ids: torch.Tensor, kinds: torch.Tensor, grammar: Grammar, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probability (N, L), entropy (N, L) in nats) of answers under the constrained distribution that `sample` draws from."""
    device = ids.device
    log_probs = torch.zeros(ids.shape, device=device)
    entropy = torch.zeros(ids.shape, device=device)
    text = torch.cat([grammar.text_mask.nonzero().squeeze(1), torch.tensor([grammar.think_end])]).to(device)
    allowed = {Kind.MODE: torch.tensor([grammar.think, grammar.answer], device=device), Kind.TEXT: text, Kind.ACTION: grammar.action_ids.to(device)}
    for kind, columns in allowed.items():
        at = kinds == int(kind)
        if not at.any():
            continue
        lookup = torch.zeros(logits.shape[-1], dtype=torch.long, device=device)
        lookup[columns] = torch.arange(len(columns), device=device)
        scaled = logits[at][:, columns].float() / temperature
        free = grammar.allowed(ids, kinds) if kind is Kind.ACTION else None
        chosen = torch.log_softmax(scaled if free is None else scaled.masked_fill(~free, BARRED), dim=-1)
        log_probs = log_probs.masked_scatter(at, chosen.gather(1, lookup[ids[at]][:, None]).squeeze(1))
        entropy = entropy.masked_scatter(at, -(chosen.exp() * chosen).sum(-1))
    return log_probs, entropy
