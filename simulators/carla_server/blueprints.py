"""The blueprint library: what can be spawned, its measures and its attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

from drive.simulators.carla_server.layouts import Kind
from drive.simulators.carla_server.vehicle_model import CarParams

BOOL, INT, FLOAT, STRING, COLOUR = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Attribute:
    """One attribute of a blueprint."""

    name: str
    type: int
    value: str
    recommended: tuple[str, ...] = ()
    modifiable: bool = True
    restricted: bool = False

    def message(self) -> list:
        """ActorAttribute of the definition."""
        return [self.name, self.type, self.value, list(self.recommended), self.modifiable, self.restricted]


@dataclass(frozen=True)
class Blueprint:
    """One definition."""

    id: str
    kind: Kind
    attributes: tuple[Attribute, ...] = ()
    extent: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m, half of the box
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tags: tuple[int, ...] = ()
    car: CarParams = field(default_factory=CarParams)

    def message(self, uid: int) -> list:
        """ActorDefinition."""
        return [uid, self.id, self.id.replace(".", ","), [a.message() for a in self.attributes]]


def fixed(name: str, type_: int, value: str) -> Attribute:
    """An attribute that nobody may change."""
    return Attribute(name, type_, value, (), False)


def role(*names: str) -> Attribute:
    """Who the actor is for."""
    return Attribute("role_name", STRING, names[0], names)
