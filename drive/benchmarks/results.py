"""What an evaluation found: one row per scenario, and the numbers that stand in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from drive.benchmarks.statistics import bootstrap_interval
from drive.core.types import PlanStatus


class Pick(str, Enum):
    """Who chose the plan that a number is of."""

    DEPLOYABLE = "deployable"  # the planner, from what it may see; or it made one plan alone
    PRIVILEGED = "privileged"  # a planner that reads the ground truth: a teacher, no contestant
    ORACLE = "oracle"  # the truth itself, among the planner's alternatives: no car can drive so


@dataclass(frozen=True)
class Style:
    """How a benchmark's numbers are named and shown.

    A benchmark sees a planner's alternatives only where it names parts in `oracle`, and those are labelled in every table
    (`drive.benchmarks.evaluate`): a best of several cannot be printed as if it were driven.
    """

    name: str  # with its version, as it stands in every table
    parts: tuple[str, ...]  # what a row holds beside its score
    shown: tuple[str, ...]  # the parts that are columns of a table
    scale: str = "0-100"  # of what is shown
    factor: float = 100.0  # from stored values to shown ones
    digits: int = 1  # after the point
    less_is_better: bool = False
    worst: float = 0.0  # score and parts of a plan that failed, and of a scenario that could not be read
    note: str = ""  # what a reader of the number must know, in the line over the table
    worst_parts: Mapping[str, float] = field(default_factory=dict)  # of parts where it is another
    oracle: tuple[str, ...] = ()  # parts that take the best of the planner's alternatives by the ground truth

    def __post_init__(self) -> None:
        unknown = {*self.shown, *self.worst_parts, *self.oracle} - set(self.parts)
        if unknown:
            raise ValueError(f"{self.name} has no parts {sorted(unknown)}")


@dataclass(frozen=True)
class SceneRow:
    """One scenario's result, in the benchmark's unit (0-1 for scores); a part that does not apply to the scenario is NaN."""

    scenario_id: str
    log_id: str
    kind: str
    status: PlanStatus
    score: float
    parts: dict[str, float]
    poses_ego: NDArray[np.float64] | None  # (T, 3) the plan, None where there was none
    mode: str
    tokens: int
    latency_s: float
    reasoning: str
    candidates: int = 1  # plans that the parts named in Style.oracle chose among
    among: int | None = None  # how many rows the means run over, where they are not all of the set; 0: this row is in no mean, others hold what it counts


@dataclass(frozen=True)
class Result:
    """All rows of one planner on one set."""

    planner: str
    rows: list[SceneRow]
    expected: int  # scenarios that the set should have, read or not
    faults: list[str] = field(default_factory=list)  # scenarios that could not be read
    worst: float = 0.0  # what an unread scenario counts
    worst_parts: Mapping[str, float] = field(default_factory=dict)  # parts where that is another value
    pick: Pick = Pick.DEPLOYABLE  # of the score, and of the parts that are not in Style.oracle

    @property
    def averaged(self) -> list[SceneRow]:
        """The rows that the means run over."""
        return [row for row in self.rows if row.among != 0]

    @property
    def size(self) -> int:
        """How many values the means run over, those of unread scenarios among them."""
        return max((row.among or 0 for row in self.rows), default=0) or self.expected

    def values(self, name: str = "score") -> NDArray[np.float64]:
        """(size,) values of "score" or a part; unread scenarios are `worst`, NaN is where a part does not apply."""
        read = [row.score if name == "score" else row.parts[name] for row in self.averaged]
        if name != "score" and read and np.isnan(read).all():
            return np.full(self.size, np.nan)  # a part that applies to none of the set does not apply to what was not read
        return np.array(read + [self.worst_parts.get(name, self.worst)] * (self.size - len(read)))

    def picked(self, name: str, style: Style) -> str:
        """Who chose what "score" or a part is of, in words: "deployable", "privileged", or "oracle, best of 6"."""
        most = max((row.candidates for row in self.rows), default=1)
        return f"{Pick.ORACLE.value}, best of {most}" if name in style.oracle and most > 1 else self.pick.value

    def mean(self, name: str = "score") -> float:
        """Mean over the expected scenarios that it applies to; NaN if there are none of them."""
        values = self.values(name)
        known = values[~np.isnan(values)]
        if not self.expected:
            return 0.0
        return float(known.mean()) if len(known) else float("nan")

    @property
    def groups(self) -> list[str | int]:
        """(size,) the log of each value; every unread scenario is its own."""
        return [*(row.log_id for row in self.averaged), *range(self.size - len(self.averaged))]

    @property
    def logs(self) -> int:
        """How many logs the scenarios come from."""
        return len(set(self.groups))

    def interval(self, name: str = "score") -> tuple[float, float]:
        """95 % bootstrap interval of the mean; whole logs are resampled."""
        values, groups = self.values(name), self.groups
        known = np.flatnonzero(~np.isnan(values))
        return bootstrap_interval(values[known], [groups[i] for i in known])

    @property
    def coverage(self) -> float:
        """Share of the expected scenarios that got a plan and a score."""
        return sum(row.status is PlanStatus.OK for row in self.rows) / max(self.expected, 1)

    @property
    def think_rate(self) -> float:
        """Share of plans with reasoning among the plans of a planner that can reason; 0 for the others."""
        return float(np.mean([row.mode == "slow" for row in self.rows])) if self.rows else 0.0

    @property
    def mean_tokens(self) -> float:
        """Generated tokens per plan."""
        return float(np.mean([row.tokens for row in self.rows])) if self.rows else 0.0

    def latency(self, percentile: float) -> float:
        """Latency per plan in seconds at a percentile."""
        return float(np.percentile([row.latency_s for row in self.rows], percentile)) if self.rows else 0.0
