"""The state of the vehicles of one world as arrays that the traffic kernels change in place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PLAN = 12  # lanes a vehicle knows ahead, the current one first
DRIVEN, EXTERNAL, PARKED = 0, 1, 2  # moved by the traffic; by its owner (the ego); never
NOBODY = -1
NO_LANE = -1
UNSET = np.nan


class Fleet(NamedTuple):
    """N vehicles; poses are of box centres in the world frame."""

    mode: Ints  # (N,) DRIVEN, EXTERNAL or PARKED
    active: NDArray[np.bool_]  # (N,) False once it has left the map
    x: Array  # (N,) m
    y: Array
    heading: Array  # rad
    course: Array  # rad, direction in which the centre moves
    speed: Array  # m/s
    accel: Array  # m/s^2
    wish: Array  # m/s^2 that the traffic's driver would choose, also for an EXTERNAL vehicle
    length: Array  # m
    width: Array
    plan: Ints  # (N, PLAN) lanes ahead, NO_LANE after the end of the map
    before: Ints  # (N,) the lane left last, on which the tail may still be
    s: Array  # m along plan[:, 0]
    offset: Array  # m left of the lane's centre when the lane change began (or for ever, if PARKED)
    change: Array  # (N,) 0..1, part of the lane change done; 1 when none is on
    change_length: Array  # m over which a lane change is driven
    cooldown: Array  # s until the next lane change may begin
    eager: Array  # speed wished / speed allowed
    headway: Array  # s, of the IDM
    push: Array  # m/s^2, greatest acceleration of the IDM
    brake: Array  # m/s^2, comfortable braking of the IDM
    order: Array  # m/s^2 that a script asks for, NaN if none; never more than the IDM allows
    want: Ints  # (N,) lane change that a script asks for: 1 left, -1 right, 0 none
    granted: Ints  # (N,) conflicting lane it may enter, NO_LANE if none
    granted_at: Array  # s
    need: Ints  # (N,) next conflicting lane on its path, NO_LANE if none
    need_ahead: Array  # m from its front to that lane's stop line
    asked: Array  # s at which it asked for `need`, infinity if it has not
    still: Array  # s it has stood still
    gap: Array  # m to the vehicle ahead on its path, infinity if none
    ahead: Ints  # (N,) that vehicle or NOBODY
    random: NDArray[np.uint64]  # (N,) state of its random choices


def new_fleet(n: int) -> Fleet:
    """N inactive vehicles."""

    def full(value: float) -> Array:
        return np.full(n, value)

    def ints(value: int) -> Ints:
        return np.full(n, value, np.int64)

    return Fleet(
        mode=ints(DRIVEN),
        active=np.zeros(n, bool),
        x=full(0.0),
        y=full(0.0),
        heading=full(0.0),
        course=full(0.0),
        speed=full(0.0),
        accel=full(0.0),
        wish=full(0.0),
        length=full(4.6),
        width=full(1.9),
        plan=np.full((n, PLAN), NO_LANE, np.int64),
        before=ints(NO_LANE),
        s=full(0.0),
        offset=full(0.0),
        change=full(1.0),
        change_length=full(1.0),
        cooldown=full(0.0),
        eager=full(1.0),
        headway=full(1.3),
        push=full(1.5),
        brake=full(2.0),
        order=full(UNSET),
        want=ints(0),
        granted=ints(NO_LANE),
        granted_at=full(0.0),
        need=ints(NO_LANE),
        need_ahead=full(np.inf),
        asked=full(np.inf),
        still=full(0.0),
        gap=full(np.inf),
        ahead=ints(NOBODY),
        random=np.zeros(n, np.uint64),
    )
