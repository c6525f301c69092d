"""Bicycles: at the edge of the ego's lane, and in a row across its way. Figures of scenario_runner's route_obstacles.py and cross_bicycle_flow.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive.simulators.carla_scenario_part import Part, ScenarioSpec
from drive.simulators.carla_scenario_ways import AHEAD_M, Ways, lane_half
from drive.simulators.carla_traffic import EgoView
from drive.simulators.routes import Route

Array = NDArray[np.float64]
COUNT, APART_M = 2, 9.0  # of a hazard at the side; m
DISTANCE, RIDE_M, RIDE_KMH = 40.0, 50.0, 10.0  # defaults of the file's parameters
EDGE = 0.55  # of half the lane's width to the right of its middle
PASSED_M = 12.0  # m ahead of the first one at which the ego has passed them
FLOW_MPS, FLOW_GAP = 4.0, (15.0, 28.0)  # m/s, m between those of a flow, where the file says nothing
HALF_M = 30.0  # m to each side of the ego's way that a flow comes from and goes to, where the file says nothing
MOST, LONGEST_S = 6, 60.0  # bicycles of a flow at a time; s after which no more come


class SideHazard(Part):
    """Bicycles ride slowly at the right edge of the ego's lane for a while, then stand."""

    @classmethod
    def spot(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> float | None:
        """m along the route of the last of them."""
        first = spec.trigger_s + spec.number("distance", DISTANCE)
        return ways.plain(route, first, APART_M * COUNT, (0.0, 8.0, -8.0, 16.0, 24.0))

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        return "no stretch of road without a junction behind the trigger" if cls.spot(spec, route, ways) is None else None

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        at, kinds = self.spot(self.spec, ego.route, self.stage.ways), self.stage.kinds("base_type", "bicycle")
        if at is None or not kinds:
            return self.fits(self.spec, ego.route, self.stage.ways) or "this server's library has no bicycles"
        self.stage.clear_way(ego, at + APART_M * COUNT)
        found = self.stage.lane_at(ego, at)
        assert found is not None
        self.edge = EDGE * lane_half(found[0])
        self.speed = self.number("bicycle_speed", RIDE_KMH) / 3.6
        self.rest = min(self.number("bicycle_drive_distance", RIDE_M), self._room(ego, at))
        self.at: dict[int, float] = {}
        for k in range(COUNT):
            s = at + APART_M * k
            row = self.stage.glider(kinds[int(self.stage.rng.integers(len(kinds)))], *self._pose(ego, s))
            if row is None:
                return "another actor stands where the bicycles would"
            self.at[row] = s
        return None

    def _room(self, ego: EgoView, at: float) -> float:
        """m that the first can ride before a junction or the route's end."""
        route, first = ego.route, at + APART_M * (COUNT - 1)
        ahead = np.flatnonzero(route.is_connector & (route.s > first))
        return max((float(route.s[ahead[0]]) if len(ahead) else route.length) - 15.0 - first, 0.0)

    def _pose(self, ego: EgoView, s: float) -> tuple[float, float, float]:
        x, y, heading = self.stage.pose(ego, s).tolist()
        return x + self.edge * math.sin(heading), y - self.edge * math.cos(heading), heading

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        if running:
            step = min(self.speed * self.dt, self.rest)
            self.rest -= step
            for row in self.at:
                self.at[row] += step
                self.stage.glide(row, *self._pose(ego, self.at[row]), step / self.dt)
        return []

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > max(self.at.values()) + PASSED_M


class BicycleFlow(Part):
    """Bicycles in a row, straight across the ego's way, until the ego has passed. They heed nobody."""

    @classmethod
    def fits(cls, spec: ScenarioSpec, route: Route, ways: Ways) -> str | None:
        """See Part."""
        if _line(spec) is None and ways.behind_junction(route, spec.trigger_s) is None:
            return f"no junction within {AHEAD_M:g} m behind the trigger, and the file does not say where the flow is"
        return None

    def place(self, ego: EgoView) -> str | None:
        """See Part."""
        self.kinds = self.stage.kinds("base_type", "bicycle")
        why, line = self.fits(self.spec, ego.route, self.stage.ways), _line(self.spec)
        if why is not None or not self.kinds:
            return why or "this server's library has no bicycles"
        if line is None:
            left = self.stage.ways.behind_junction(ego.route, self.spec.trigger_s)
            assert left is not None
            x, y, heading = self.stage.pose(ego, left + 2.0).tolist()
            side = HALF_M * np.array([math.sin(heading), -math.cos(heading)])
            line = np.array([[x, y] + side, [x, y] - side])
        self.line, self.length = line, float(np.hypot(*(line[1] - line[0])))
        gap = ego.route.path[:, None, :2] - (line[0] + np.linspace(0.0, 1.0, 50)[:, None] * (line[1] - line[0]))
        behind = ego.route.s > self.spec.trigger_s
        self.passed_s = float(ego.route.s[behind][int(np.argmin(np.hypot(gap[..., 0], gap[..., 1]).min(1)[behind]))]) + 8.0
        low, high = (float(self.spec.values.get(f"source_dist_interval.{k}", d)) for k, d in zip(("from", "to"), FLOW_GAP))
        self.gaps, self.speed = (min(low, high), max(low, high)), self.number("flow_speed", FLOW_MPS)
        self.at: dict[int, float] = {}
        at = self.length * 0.6
        while at > 0.0 and len(self.at) < MOST:
            self._add(at)
            at -= max(float(self.stage.rng.uniform(*self.gaps)), 0.5)
        self.next_gap = float(self.stage.rng.uniform(*self.gaps))
        return None if self.at else "another actor stands where the bicycles would"

    def _pose(self, at: float) -> tuple[float, float, float]:
        way = self.line[1] - self.line[0]
        x, y = (self.line[0] + way * (at / self.length)).tolist()
        return x, y, math.atan2(way[1], way[0])

    def _add(self, at: float) -> None:
        row = self.stage.glider(self.kinds[int(self.stage.rng.integers(len(self.kinds)))], *self._pose(at))
        if row is not None:
            self.at[row] = at

    def after_step(self, ego: EgoView, running: bool) -> list[Any]:
        """See Part."""
        if not running:
            return []
        commands = []
        for row in list(self.at):
            self.at[row] += self.speed * self.dt
            if self.at[row] >= self.length:
                commands += self.stage.remove(row)
                del self.at[row]
            else:
                self.stage.glide(row, *self._pose(self.at[row]), self.speed)
        last = min(self.at.values(), default=math.inf)
        if last > self.next_gap and len(self.at) < MOST and self.seconds < LONGEST_S:
            self._add(0.0)
            self.next_gap = float(self.stage.rng.uniform(*self.gaps))
        return commands

    def over(self, ego: EgoView) -> bool:
        """See Part."""
        return ego.route_s > self.passed_s


def _line(spec: ScenarioSpec) -> Array | None:
    """(2, 2) from where to where the file lets the flow ride, right-handed; None where it does not say."""
    names = [f"{end}_actor_flow.{axis}" for end in ("start", "end") for axis in "xy"]
    if any(name not in spec.values for name in names):
        return None
    a, b, c, d = (spec.number(name, math.nan) for name in names)
    line = np.array([[a, -b], [c, -d]])
    return line if np.isfinite(line).all() and np.hypot(*(line[1] - line[0])) > 1.0 else None
