"""All criteria of CARLA's leaderboard 2.x and of Bench2Drive on one recorded roll-out: from arrays to a route's record.

What a recording cannot tell is given: whether a scenario timed out, when its emergency vehicle had to be past, when a scenario
switches the tests of blocking and of driving on the wrong side off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.metrics.carla_contacts import Contact, collisions
from drive.metrics.carla_lanes import LaneIndex, outside_lanes, wrong_lane
from drive.metrics.carla_progress import Ending, EndWatch, slow_checkpoints, way_outside
from drive.metrics.carla_records import Event, Failure, Infraction
from drive.metrics.carla_scores import Rule
from drive.metrics.carla_signs import StopSign, TrafficLight, not_yielded, red_lights, stop_signs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RollOut:
    """One driven route, T ticks (20 Hz), in one right-handed flat frame; the car's place is that of CARLA's actor, its box centre."""

    times: Array  # (T,) s
    poses: Array  # (T, 3) x, y, heading
    velocities: Array  # (T, 2) m/s
    half_length: float  # m
    speed_limits: Array  # (T,) m/s, at the car's place
    traffic: Array  # (T,) m/s, mean speed of the background vehicles; NaN without any
    contacts: Sequence[Contact] = ()  # of the collision sensor, or of `box_contacts`
    red: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))  # (T, L) of the lights of the surroundings
    blocking_watched: NDArray[np.bool_] | None = None  # (T,) off while a scenario makes the car wait; None: always on
    side_watched: NDArray[np.bool_] | None = None  # (T,) off while a scenario sends the car to the other side; None: always on
    emergencies: tuple[tuple[Array, int], ...] = ()  # (poses (T, 3), last tick of its scenario) of each emergency vehicle
    scenario_timeouts: tuple[int, ...] = ()  # ticks at which a scenario timed out

    def __post_init__(self) -> None:
        count = len(self.times)
        shapes = {"poses": (count, 3), "velocities": (count, 2), "speed_limits": (count,), "traffic": (count,)}
        wrong = [f"{name} {getattr(self, name).shape}" for name, shape in shapes.items() if getattr(self, name).shape != shape]
        if wrong or not count:
            raise DataError(f"a roll-out of {count} ticks has {', '.join(wrong) or 'nothing to judge'}")
        if not all(np.isfinite(values).all() for values in (self.times, self.poses, self.velocities)):
            raise DataError("a roll-out takes finite times, poses and velocities, got NaN or infinity")


@dataclass(frozen=True)
class Surroundings:
    """What of the town the criteria look at, in the frame of the roll-out."""

    driving: LaneIndex
    parking: LaneIndex | None = None
    lights: tuple[TrafficLight, ...] = ()
    signs: tuple[StopSign, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a route came to."""

    completion: float  # %
    ending: Ending | None  # None where the recording stops before anything ended the route
    ticks: int  # judged; what was recorded behind the ending does not count
    events: tuple[Event, ...]  # by tick

    @property
    def failure(self) -> Failure | None:
        """What `record_of` has to be told: all other failures follow from their events."""
        return Failure.TICKS if self.ending is Ending.TICKS else None


def judge(rollout: RollOut, path: Array, around: Surroundings, rule: Rule) -> Verdict:
    """Completion, ending and infractions of a roll-out along the route's dense path (N, 3); `rule` sets limits and checkpoints.

    Leaderboard 1.0 had other thresholds for most criteria: it is refused, as a number under its name would not be one.
    """
    if rule is Rule.LEADERBOARD_1_0:
        raise DataError("infractions are found by the criteria of leaderboard 2.x and Bench2Drive; those of 1.0 were others")
    speeds = np.hypot(*rollout.velocities.T)
    watch, ending, end = EndWatch(path, rule), None, 0
    for end in range(len(rollout.times)):
        x, y, _ = rollout.poses[end].tolist()
        watched = rollout.blocking_watched is None or bool(rollout.blocking_watched[end])
        ending = watch.step(float(rollout.times[end]), x, y, float(speeds[end]), float(rollout.speed_limits[end]), watched)
        if ending is not None:
            break
    n = end + 1
    poses, velocities, speeds = rollout.poses[:n], rollout.velocities[:n], speeds[:n]
    sided = np.ones(n, bool) if rollout.side_watched is None else rollout.side_watched[:n]
    outside = outside_lanes(poses, around.driving, around.parking) | (wrong_lane(poses, around.driving) & sided)
    events = [
        *watch.events,
        *collisions(rollout.times[:n], poses, speeds, [c for c in rollout.contacts if c.tick < n]),
        *(red_lights(poses, rollout.half_length, around.lights, rollout.red[:n], around.driving) if around.lights else ()),
        *stop_signs(poses, velocities, around.signs, around.driving),
        *slow_checkpoints(path, poses, speeds, rollout.traffic[:n], rule),
        *(Event(Infraction.SCENARIO_TIMEOUT, tick, "Agent timed out a scenario") for tick in rollout.scenario_timeouts if tick < n),
    ]
    late = [way_outside(path, poses, outside), *(not_yielded(poses, other, min(last, end)) for other, last in rollout.emergencies)]
    events += [event for event in late if event is not None]
    return Verdict(watch.percent, ending, n, tuple(sorted(events, key=lambda event: event.tick)))
