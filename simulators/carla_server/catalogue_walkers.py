"""The 52 pedestrians of CARLA 0.9.16; boxes as CARLA serves them, with the actor's origin in the middle."""

from __future__ import annotations

from drive.simulators.carla_server.blueprints import BOOL, FLOAT, INT, STRING, Attribute, Blueprint, fixed, role
from drive.simulators.carla_server.layouts import Kind

ADULT, SMALL, GIRL = (0.188, 0.188, 0.93), (0.188, 0.188, 0.65), (0.25, 0.25, 0.55)  # m, half of the boxes
CHILDREN = {9: GIRL, 10: GIRL, 11: GIRL, 12: SMALL, 13: SMALL, 14: SMALL, 48: GIRL, 49: GIRL}
# As CARLA's pedestrian catalogue groups them into persons in several clothes. It shows their sexes in pictures only: sure are the first
# four groups; after them every other person is taken for a woman.
PEOPLE = (
    *((1, 5, 6, 7, 8), (2, 3, 4), (9, 10, 11), (12, 13, 14), (15, 19), (16, 17), (18, 26), (20, 21), (22, 23), (24, 25), (27, 28, 29)),
    *((31, 33, 40, 41), (34, 38), (35, 36, 37), (39,), (42, 43, 44), (46, 47), (48,), (49,), (30,), (32,), (45,), (50,), (51,), (52,)),
)
WOMEN = {number for person in PEOPLE[::2] for number in person}
WHEELCHAIR = (1, 5, 6, 7, 8)  # may sit in one


def walkers() -> list[Blueprint]:
    """All of them, by number."""
    return [_walker(number) for number in range(1, 53)]


def _walker(number: int) -> Blueprint:
    attributes = [
        role("pedestrian"),
        Attribute("is_invincible", BOOL, "true"),
        Attribute("speed", FLOAT, "1.4", ("0.0", "1.4", "2.8")),  # standing, walking, running
        fixed("gender", STRING, "female" if number in WOMEN else "male"),
        fixed("age", STRING, "child" if number in CHILDREN else "adult"),
        fixed("generation", INT, "2" if number > 14 else "1"),
        fixed("can_use_wheelchair", BOOL, "true" if number in WHEELCHAIR else "false"),
    ]
    if number in WHEELCHAIR:
        attributes.append(Attribute("use_wheelchair", BOOL, "false"))
    extent = CHILDREN.get(number, ADULT)
    return Blueprint(f"walker.pedestrian.{number:04d}", Kind.WALKER, tuple(attributes), extent, (0.0, 0.0, 0.0), (12,))
