"""Which token may follow which: the rules of a tokenizer's plans as one table, for decoding that can only give plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Automaton:
    """A finite automaton without loops: state 0 begins a plan, the last state ends it. Every row of tokens that it accepts decodes.

    table (S, K): the state after each token, always a higher one, or -1 where the token may not stand; the last row is all -1.
    """

    table: NDArray[np.int64]

    @staticmethod
    def free(tokens: int, vocab_size: int) -> Automaton:
        """Any `tokens` tokens."""
        return Automaton.by_place([np.ones(vocab_size, bool)] * tokens)

    @staticmethod
    def by_place(allowed: list[NDArray[np.bool_]]) -> Automaton:
        """Plans of one length; allowed[i] (K,) says which tokens may stand at place i."""
        rows = [np.where(mask, i + 1, -1) for i, mask in enumerate(allowed)]
        return Automaton(np.stack([*rows, np.full(len(allowed[0]), -1)]))

    @cached_property
    def _lengths(self) -> tuple[int, int]:
        """(shortest, longest) plan in tokens."""
        last = len(self.table) - 1
        low, high = np.zeros(last + 1, np.int64), np.zeros(last + 1, np.int64)
        for state in range(last - 1, -1, -1):
            after = np.unique(self.table[state][self.table[state] >= 0])
            low[state], high[state] = 1 + low[after].min(), 1 + high[after].max()
        return int(low[0]), int(high[0])

    @property
    def shortest(self) -> int:
        """Tokens of the shortest plan."""
        return self._lengths[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest plan."""
        return self._lengths[1]

    @cached_property
    def unconstrained(self) -> bool:
        """Whether every token may stand at every place."""
        return bool((self.table[:-1] >= 0).all())

    def accepts(self, row: Iterable[int]) -> bool:
        """Whether the row of tokens is a plan."""
        state = 0
        for token in row:
            state = int(self.table[state, token]) if 0 <= token < self.table.shape[1] else -1
            if state < 0:
                return False
        return state == len(self.table) - 1
