"""What a kind of scenario is: a part that is placed, begins, acts tick by tick and is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drive.simulators.carla_scenario_stage import Stage
from drive.simulators.carla_scenario_ways import Ways
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route


@dataclass(frozen=True)
class ScenarioSpec:
    """One scenario on a route."""

    name: str
    type: str  # a benchmark's, or one of our kinds
    trigger_s: float  # m along the route of its trigger point
    values: Mapping[str, str] = field(default_factory=dict)  # by tag, or "tag.attribute"

    def number(self, name: str, default: float) -> float:
        """A parameter of the file; `default` where it has none that is a number."""
        try:
            return float(self.values.get(name, default))
        except ValueError:
            return default


class Part:
    """Base of the kinds. All metres along the route are of the ego's rear axle."""

    noise = (0.0, 0.0)  # on the ego's throttle and, to the left, its wheel, this tick
    emergency: int | None = None  # row of a vehicle that the ego has to let past

    def __init__(self, spec: ScenarioSpec, stage: Stage) -> None:
        self.spec, self.stage = spec, stage
        self.dt = stage.session.dt
        self.seconds = 0.0  # since it began

    def number(self, name: str, default: float) -> float:
        """As ScenarioSpec's."""
        return self.spec.number(name, default)

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """Why the lanes along `route` leave no room for it, None where they do; others may still stand in its way."""
        return None

    def place(self, ego: EgoView) -> str | None:
        """Put the actors in place; why that cannot be done, None where it was."""
        raise NotImplementedError

    def begin(self, ego: EgoView) -> str | None:
        """The ego is at the trigger point; why it cannot be played after all, None where it can."""
        return None

    def before_step(self, ego: EgoView, running: bool) -> list[Any]:
        """Orders and commands of this tick, before the traffic's step."""
        self.seconds += self.dt if running else 0.0
        return []

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """Move what the traffic does not."""
        return []

    def over(self, ego: EgoView) -> bool:
        """Whether it has ended; asked while it runs."""
        raise NotImplementedError

    def close(self) -> list[Any]:
        """Undo what is not an actor of the stage."""
        return []
