"""Benchmark pdms_v1_1: NAVSIM's PDM score, version 1.1, of one plan per scenario.

Mean over all scenarios of the set; NAVSIM itself leaves failed tokens out of its mean, here they score 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from drive.benchmarks.evaluate import Scored, evaluate
from drive.benchmarks.results import Result, SceneRow, Style
from drive.core.protocols import Planner, PrivilegedPlanner
from drive.core.types import Scenario, Trajectory
from drive.metrics.pdms import PdmScene, score_pdms

PARTS = ("nc", "dac", "ttc", "comfort", "ep", "ddc")
SECONDS = 4.0  # simulated
STYLE = Style("pdms_v1_1", PARTS, shown=PARTS[:-1])  # ddc has weight 0 in this version


def has_horizon(scenario: Scenario) -> bool:
    """Whether there are 4 s to judge a plan against: NAVSIM's set holds no others."""
    future = (len(scenario.ego.poses_world) - 1 - scenario.present) * scenario.dt
    return scenario.reference_world is not None or future >= SECONDS - 1e-6


class Pdms:
    """The benchmark; `pdm_scenes` gives the PdmScene of scenario i of the set, where the caller keeps them."""

    style = STYLE
    needs_map = True

    def __init__(self, pdm_scenes: Callable[[int], PdmScene] | None = None) -> None:
        self.pdm_scenes = pdm_scenes

    def accepts(self, scenario: Scenario) -> bool:
        """Scenarios whose log goes on for the 4 s that are simulated."""
        return has_horizon(scenario)

    def score(self, scenario: Scenario, trajectory: Trajectory, index: int) -> Scored:
        """PDMS and its parts. Raises DataError on a plan that cannot be simulated."""
        scene = self.pdm_scenes(index) if self.pdm_scenes else PdmScene.from_scenario(scenario)
        found = score_pdms([scene], [trajectory.poses[None]], trajectory.dt)[0]
        return Scored(float(found.score[0]), {name: float(getattr(found, name)[0]) for name in PARTS})

    def finish(self, rows: list[SceneRow], scored: Sequence[Scored | None], scenarios: Sequence[Scenario]) -> list[SceneRow]:
        """The rows as they are: every scenario counts by itself."""
        return rows


def evaluate_pdms(
    scenarios: Sequence[Scenario] | Iterable[Scenario],
    planner: Planner | PrivilegedPlanner,
    batch: int = 16,
    expected: int | None = None,
    faults: Sequence[str] = (),
    pdm_scenes: Callable[[int], PdmScene] | None = None,
    progress: bool = False,
) -> Result:
    """Score `planner` on `scenarios` as `evaluate` does; pdm_scenes as `Pdms` takes it."""
    return evaluate(Pdms(pdm_scenes), scenarios, planner, batch, expected, faults, progress)
