"""Traffic lights and signs of an episode, and what they say to its vehicles.

The lights of a junction take turns, controller by controller: green, yellow, then red until the next one is green (CARLA's
TrafficLightGroup). Times belong to a controller, freezing to a junction. CARLA's frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drive.simulators.carla_server.layouts import LIGHT, Actor, Kind, LightShows, ServerError, numbers
from drive.simulators.carla_server.signals import Sign, Signals
from drive.simulators.carla_server.vehicles import Vehicles
from drive.simulators.traffic_kernels import boxes_overlap

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[np.float64]
PHASES = (LightShows.GREEN, LightShows.YELLOW, LightShows.RED)
SECONDS = (2.0, 3.0, 10.0)  # of red, yellow, green: CARLA's defaults; red is the time until the next controller's green
ON_TIME = 1e-6  # s by which a phase may end early, so that sums of ticks do not overshoot
LEVEL = 3.0  # m of height between a vehicle and a light that rules it
LAMP_BEYOND, LAMP_HEIGHT, LAMP_HALF = 6.15, 4.8, (0.15, 0.5, 1.2)  # m: where the renderer draws the head, and half its size
LIGHT_TAG, SIGN_TAG = 7, 8


@njit(cache=True)
def lights_at(boxes, owner, centres, half, z):
    """(N,) light whose box a vehicle's box touches, -1 if none: boxes (B, 6), owner (B,), centres (N, 3), half (N, 3), z (N,)."""
    found = np.full(len(centres), -1, np.int64)
    mine, other = np.empty(5), np.empty(5)
    for i in range(len(centres)):
        reach = np.hypot(half[i, 0], half[i, 1])
        for k in range(len(boxes)):
            far = reach + boxes[k, 4] + boxes[k, 5]
            if (
                abs(boxes[k, 0] - centres[i, 0]) > far
                or abs(boxes[k, 1] - centres[i, 1]) > far
                or abs(boxes[k, 2] - z[i]) > LEVEL
            ):
                continue
            mine[:3], mine[3], mine[4] = centres[i], 2.0 * half[i, 0], 2.0 * half[i, 1]
            other[:2], other[2], other[3], other[4] = boxes[k, :2], boxes[k, 3], 2.0 * boxes[k, 4], 2.0 * boxes[k, 5]
            if boxes_overlap(mine, other):
                found[i] = owner[k]
                break
    return found


class TrafficLights:
    """L lights of C controllers in G junctions; row i of `records` is the i-th light."""

    def __init__(self, signals: Signals) -> None:
        lights = signals.lights
        self._lights, self._signs = lights, signals.signs
        self.row: dict[int, int] = {}
        self.records = np.zeros(len(lights), LIGHT)
        self._turns: list[list[int]] = []  # of each junction: its controllers
        self._members: list[NDArray[np.int64]] = []  # of each controller: its lights
        self._group_of, self._controller_of = np.zeros(len(lights), np.int64), np.zeros(len(lights), np.int64)
        for g, group in enumerate(signals.groups):
            self._turns.append(list(range(len(self._members), len(self._members) + len(group))))
            for members in group:
                self._controller_of[list(members)], self._group_of[list(members)] = len(self._members), g
                self._members.append(np.array(members, np.int64))
        count = len(signals.groups)
        self._seconds = np.tile(np.array(SECONDS), (len(self._members), 1))  # (C, 3) by LightShows
        self._turn, self._phase = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._left, self._frozen = np.zeros(count), np.zeros(count, bool)
        self._elapsed, self._moving = np.zeros(len(lights)), np.ones(len(lights))
        self._boxes = np.concatenate([np.zeros((0, 6)), *(light.boxes for light in lights)])
        self._owner = np.repeat(np.arange(len(lights)), [len(light.boxes) for light in lights])
        stops = np.concatenate([np.zeros((0, 4)), *(light.stops for light in lights)])
        self._drawn = np.column_stack([stops[:, 0], -stops[:, 1], -stops[:, 3], np.zeros(len(stops))])
        pole = np.zeros(count, np.int64)
        for i, light in enumerate(lights):
            record, group = self.records[i], self._group_of[i]
            record["state"], record["pose"], record["signal"], record["pole"] = 1, light.pose, light.id.encode()[:32], pole[group]
            pole[group] += 1
        self.reset_all()

    def actors(self, number: Callable[[], int]) -> tuple[list[Actor], list[tuple[Actor, Sign]]]:
        """Actors of the lights, and of the signs with what they are; `number` gives new ids."""
        lights = [_actor(number(), Kind.LIGHT, light, LIGHT_TAG) for light in self._lights]
        self.row = {actor.id: i for i, actor in enumerate(lights)}
        self.records["id"] = list(self.row)
        return lights, [(_actor(number(), Kind.SIGN, sign, SIGN_TAG), sign) for sign in self._signs]

    def step(self, dt: float) -> None:
        """Advance by `dt` s."""
        if not len(self.records):
            return
        self._left[~self._frozen] -= dt
        self._elapsed += dt * self._moving
        if self._left.min() <= ON_TIME:
            for g in np.flatnonzero((self._left <= ON_TIME) & ~self._frozen).tolist():
                if self._phase[g] + 1 < len(PHASES):
                    self._phase[g] += 1
                else:
                    self._phase[g], self._turn[g] = 0, (self._turn[g] + 1) % len(self._turns[g])
                self._begin(g)
        self.records["elapsed"] = self._elapsed

    def _begin(self, group: int) -> None:
        """The present phase of the controller whose turn it is."""
        controller, shows = self._turns[group][self._turn[group]], PHASES[self._phase[group]]
        self._show(self._members[controller], shows)
        self._left[group] = self._seconds[controller, shows]

    def _show(self, rows: NDArray[np.int64], shows: int) -> None:
        self.records["shows"][rows] = shows
        self._elapsed[rows] = 0.0
        self.records["elapsed"][rows] = 0.0
        self.records["red"][rows], self.records["yellow"][rows], self.records["green"][rows] = self._seconds[
            self._controller_of[rows]
        ].T

    def reset_all(self) -> None:
        """Every junction to the beginning of its cycle."""
        for group in range(len(self._turns)):
            self._reset(group)

    def reset_group(self, actor_id: int) -> None:
        """The junction of a light to the beginning of its cycle."""
        self._reset(int(self._group_of[self.of(actor_id)]))

    def _reset(self, group: int) -> None:
        self._show(np.flatnonzero(self._group_of == group), LightShows.RED)
        self._turn[group] = self._phase[group] = 0
        self._begin(group)

    def set_state(self, actor_id: int, state: int) -> None:
        """What a light shows, until its controller changes it."""
        row = self.of(actor_id)
        if state not in tuple(LightShows):
            raise ServerError(f"a traffic light has no state {state!r}")
        self._show(np.array([row]), int(state))

    def set_time(self, actor_id: int, shows: LightShows, seconds: float) -> None:
        """How long the light's controller shows a colour, from its next time on."""
        controller = self._controller_of[self.of(actor_id)]
        seconds = numbers([seconds], 1)[0]
        if seconds < 0.0:
            raise ServerError(f"a traffic light cannot be {shows.name.lower()} for {seconds:g} s")
        self._seconds[controller, shows] = seconds
        self.records[shows.name.lower()][self._members[controller]] = seconds

    def freeze(self, actor_id: int, frozen: bool) -> None:
        """Stop or start the clock of a light's junction."""
        self._freeze(np.flatnonzero(self._group_of == self._group_of[self.of(actor_id)]), frozen)

    def freeze_all(self, frozen: bool) -> None:
        """Stop or start all clocks."""
        self._freeze(np.arange(len(self.records)), frozen)

    def _freeze(self, rows: NDArray[np.int64], frozen: bool) -> None:
        self._frozen[self._group_of[rows]] = self.records["frozen"][rows] = bool(frozen)
        self._moving[rows] = not frozen

    def group(self, actor_id: int) -> list[int]:
        """Actors of all lights of the junction, its own among them."""
        group = self._group_of[self.of(actor_id)]
        return self.records["id"][self._group_of == group].tolist()

    def lamps(self, actor_id: int) -> list[list]:
        """carla.BoundingBox, in the world, of each head that is drawn."""
        boxes = []
        for x, y, z, yaw in self._lights[self.of(actor_id)].stops.tolist():
            centre = [x + LAMP_BEYOND * np.cos(yaw), y + LAMP_BEYOND * np.sin(yaw), z + LAMP_HEIGHT]
            boxes.append([[float(v) for v in centre], list(LAMP_HALF), [0.0, float(np.degrees(yaw)), 0.0], actor_id])
        return boxes

    def drawn(self) -> Array:
        """(K, 4) for the renderer: x, y, heading, right-handed, of each lane's end that is ruled now, and 0 red, 1 yellow, 2 green."""
        shows = self.records["shows"][self._owner]
        self._drawn[:, 3] = shows
        return self._drawn[shows <= LightShows.GREEN]

    def tell(self, vehicles: Vehicles) -> None:
        """Write to the vehicles' records which light rules them."""
        records = vehicles.records
        if not len(records) or not len(self.records):
            return
        at = lights_at(self._boxes, self._owner, vehicles.centres(), vehicles.half, records["pose"][:, 2].astype(float))
        ruled = at >= 0
        records["at_light"] = ruled
        records["light"] = np.where(ruled, self.records["shows"][at], LightShows.GREEN)
        records["light_id"] = np.where(ruled, self.records["id"][at], 0)

    def of(self, actor_id: int) -> int:
        """The row of a light. Raises ServerError where the actor is none."""
        if actor_id not in self.row:
            raise ServerError(f"actor {actor_id} is not a traffic light of this episode")
        return self.row[actor_id]


def _actor(actor_id: int, kind: Kind, sign: Sign, tag: int) -> Actor:
    centre, extent, turn = sign.trigger()
    actor = Actor(actor_id, kind, 0, sign.type_id, [], centre, extent, tags=bytes([tag]))
    actor.box_turn = turn
    return actor


class LightMethods:
    """What clients may call about traffic lights; joined to the other methods."""

    _lights: TrafficLights

    def set_traffic_light_state(self, actor_id: int, state: int) -> None:
        """What it shows now."""
        self._lights.set_state(actor_id, state)

    def set_traffic_light_green_time(self, actor_id: int, seconds: float) -> None:
        """s"""
        self._lights.set_time(actor_id, LightShows.GREEN, seconds)

    def set_traffic_light_yellow_time(self, actor_id: int, seconds: float) -> None:
        """s"""
        self._lights.set_time(actor_id, LightShows.YELLOW, seconds)

    def set_traffic_light_red_time(self, actor_id: int, seconds: float) -> None:
        """s"""
        self._lights.set_time(actor_id, LightShows.RED, seconds)

    def freeze_traffic_light(self, actor_id: int, frozen: bool) -> None:
        """Stop or start its junction."""
        self._lights.freeze(actor_id, frozen)

    def freeze_all_traffic_lights(self, frozen: bool) -> None:
        """Stop or start all junctions."""
        self._lights.freeze_all(frozen)

    def reset_traffic_light_group(self, actor_id: int) -> None:
        """Its junction from the beginning."""
        self._lights.reset_group(actor_id)

    def reset_all_traffic_lights(self) -> None:
        """All junctions from the beginning."""
        self._lights.reset_all()

    def get_group_traffic_lights(self, actor_id: int) -> list[int]:
        """The lights of its junction."""
        return self._lights.group(actor_id)

    def get_light_boxes(self, actor_id: int) -> list:
        """Of its heads."""
        return self._lights.lamps(actor_id)
