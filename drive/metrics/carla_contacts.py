"""Collisions of a roll-out: contacts of boxes, and which of them count.

Source: scenario_runner atomic_criteria.py, CollisionTest, as leaderboard 2.x and Bench2Drive use it. CARLA's collision sensor reports
contacts of its physics; `box_contacts` finds those of flat boxes in a recording. A contact counts unless it follows within 5 m of the
last one counted, or is with the same actor within 5 s, or the ego stands still (below 0.1 m/s: not its fault).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive.core.errors import DataError
from drive.metrics.carla_progress import STILL, place
from drive.metrics.carla_records import Event, Infraction

Array = NDArray[np.float64]
SAME_PLACE, SAME_ACTOR = 5.0, 5.0  # m, s


@dataclass(frozen=True)
class Others:
    """A actors over T ticks, in one flat frame."""

    ids: tuple[int, ...]  # (A,) 0 for parts of the town, as CARLA has them
    types: tuple[str, ...]  # (A,) CARLA's type_id: vehicle.*, walker.*, static.*, traffic.*
    poses: Array  # (T, A, 3) x, y, heading of the box centres; NaN where absent
    half_sizes: Array  # (A, 2) half length, half width, m

    def __post_init__(self) -> None:
        count = len(self.ids)
        if len(self.types) != count or self.poses.ndim != 3 or self.poses.shape[1:] != (count, 3) or self.half_sizes.shape != (count, 2):
            raise DataError(f"{count} actors take as many types, poses (T, {count}, 3) and half sizes ({count}, 2)")


@dataclass(frozen=True)
class Contact:
    """The ego touches an actor in a tick."""

    tick: int
    actor_id: int
    type_id: str


def box_contacts(poses: Array, half_size: tuple[float, float], others: Others) -> list[Contact]:
    """Contacts in every tick, of the ego's box at poses (T, 3) (box centres; half length and width in m) with those of others."""
    gap = others.poses[..., :2] - poses[:, None, :2]
    turn = others.poses[..., 2] - poses[:, None, 2]
    along, across = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    length, width = others.half_sizes.T
    reach = (
        half_size[0] + length * along + width * across,
        half_size[1] + length * across + width * along,
        length + half_size[0] * along + half_size[1] * across,
        width + half_size[0] * across + half_size[1] * along,
    )
    meets = np.ones(turn.shape, bool)
    for heading, (ahead, aside) in ((poses[:, None, 2], reach[:2]), (others.poses[..., 2], reach[2:])):
        c, s = np.cos(heading), np.sin(heading)
        meets &= (np.abs(gap[..., 0] * c + gap[..., 1] * s) <= ahead) & (np.abs(gap[..., 1] * c - gap[..., 0] * s) <= aside)
    return [Contact(t, others.ids[a], others.types[a]) for t, a in np.argwhere(meets).tolist()]


def kind_of(type_id: str) -> Infraction | None:
    """What a contact with an actor of this type is; None for what counts as nothing, such as a sidewalk."""
    if ("static" in type_id or "traffic" in type_id) and "sidewalk" not in type_id:
        return Infraction.STATIC
    if "vehicle" in type_id:
        return Infraction.VEHICLE
    return Infraction.PEDESTRIAN if "walker" in type_id else None


def collisions(times: Array, positions: Array, speeds: Array, contacts: Sequence[Contact]) -> list[Event]:
    """The contacts that count: times (T,) s, positions (T, 2 or more), speeds (T,) m/s of the ego; contacts by tick.

    A contact with what counts as nothing still hides those after it for 5 m, as upstream.
    """
    events: list[Event] = []
    where, who, since, tick = None, 0, 0.0, 0  # of the last contact counted: place, actor, time
    for contact in sorted(contacts, key=lambda c: c.tick):
        for t in range(tick, contact.tick + 1):  # both memories fade tick by tick: leaving the place and coming back counts anew
            if where is not None and np.hypot(*(positions[t, :2] - where)) > SAME_PLACE:
                where = None
        tick = contact.tick
        if who and times[tick] - since > SAME_ACTOR:
            who = 0
        if (who and who == contact.actor_id) or where is not None or speeds[tick] < STILL:
            continue
        where, since = positions[tick, :2], times[tick]
        who = contact.actor_id or who
        kind = kind_of(contact.type_id)
        if kind is not None:
            at = place(*positions[tick, :2])
            told = f"Agent collided against object with type={contact.type_id} and id={contact.actor_id} at {at}"
            events.append(Event(kind, tick, told))
    return events
