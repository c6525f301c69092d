"""Shapes of CARLA 0.9.16's messages: what goes into msgpack arrays, and the packed records of the streams."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

VERSION = "0.9.16"
SENSOR_HEADER = struct.Struct("<QQd6f")  # type index, frame, seconds of the episode, x, y, z, pitch, yaw, roll of the sensor in the world
SNAPSHOT_HEADER = struct.Struct("<Qdf3iI")  # episode, platform seconds, delta, map origin, flags
IMAGE_HEADER = struct.Struct("<IIf")  # width, height, field of view in degrees
LENGTH = struct.Struct("<I")
TOKEN = struct.Struct("<IHBB16s")  # stream, port, protocol, kind of address, address
TCP, NO_ADDRESS = 1, 0
LARGEST = 1e12  # of any number of a client, in SI units: what is larger overflows somewhere on its way through the physics
FARTHEST = 1e6  # m from the origin of a map, degrees of a turn

COMMON = [
    ("id", "<u4"),
    ("state", "u1"),
    ("pose", "<f4", 6),  # x, y, z m, pitch, yaw, roll deg, left-handed
    ("velocity", "<f4", 3),  # m/s, world
    ("angular", "<f4", 3),  # deg/s
    ("acceleration", "<f4", 3),  # m/s^2, world
]
ACTOR = np.dtype([*COMMON, ("rest", "V54")])
VEHICLE = np.dtype(
    [
        *COMMON,
        ("throttle", "<f4"),
        ("steer", "<f4"),
        ("brake", "<f4"),
        ("hand_brake", "u1"),
        ("reverse", "u1"),
        ("manual", "u1"),
        ("gear", "<i4"),
        ("speed_limit", "<f4"),  # km/h
        ("light", "u1"),
        ("at_light", "u1"),
        ("light_id", "<u4"),
        ("failure", "u1"),
        ("unused", "V24"),
    ]
)
WALKER = np.dtype(
    [
        *COMMON,
        ("direction", "<f4", 3),
        ("speed", "<f4"),
        ("jump", "u1"),
        ("unused", "V37"),
    ]
)
LIGHT = np.dtype(
    [
        *COMMON,
        ("signal", "S32"),
        ("green", "<f4"),
        ("yellow", "<f4"),
        ("red", "<f4"),
        ("elapsed", "<f4"),
        ("pole", "<u4"),
        ("frozen", "u1"),
        ("shows", "u1"),
    ]
)
assert ACTOR.itemsize == VEHICLE.itemsize == WALKER.itemsize == LIGHT.itemsize == 119


class Stream(IntEnum):
    """Type index of a sensor's messages. A wrong one crashes the client."""

    COLLISION = 0
    DEPTH = 1
    GNSS = 4
    IMU = 5
    LANE_INVASION = 6
    OBSTACLE = 7
    RADAR = 9
    SEMANTIC_LIDAR = 10
    LIDAR = 11
    RGB = 13
    SEMANTIC = 14
    INSTANCE = 15
    WORLD = 17


class LightShows(IntEnum):
    """carla.TrafficLightState."""

    RED = 0
    YELLOW = 1
    GREEN = 2
    OFF = 3
    UNKNOWN = 4


class Kind(IntEnum):
    """What an actor is to the server; the client reads it from the type id."""

    VEHICLE = 0
    WALKER = 1
    SENSOR = 2
    LIGHT = 3
    SIGN = 4
    PROP = 5
    OTHER = 6  # the spectator, AI controllers


class ServerError(Exception):
    """What a client asked for cannot be done; the text reaches its Python."""


def transform(pose) -> list:
    """carla.Transform of x, y, z, pitch, yaw, roll."""
    x, y, z, pitch, yaw, roll = (float(value) for value in pose)
    return [[x, y, z], [pitch, yaw, roll]]


def pose_of(value: Any) -> np.ndarray:
    """(6,) x, y, z, pitch, yaw, roll of a carla.Transform. Raises ServerError where it is not one, not finite, or out of every map."""
    return np.array([*numbers(value[0], 3, FARTHEST), *numbers(value[1], 3, FARTHEST)])


def numbers(value: Any, count: int, most: float = LARGEST) -> list[float]:
    """`count` finite floats of a size up to `most`. Raises ServerError otherwise."""
    found = [float(item) for item in value[:count]]
    if len(found) != count or not all(abs(item) <= most for item in found):
        raise ServerError(f"expected {count} finite numbers of at most {most:g} and got {str(value)[:200]}")
    return found


@dataclass
class Actor:
    """One actor of an episode, as it was spawned; what moves stands in the tables of the episode."""

    id: int
    kind: Kind
    uid: int
    type_id: str
    attributes: list[list]  # [id, type, value], as the client sent them
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m, of the box in the actor's frame
    extent: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m, half of the box
    parent: int = 0
    relative: np.ndarray | None = None  # (6,) pose in the parent's frame
    tags: bytes = b""
    stream: int = 0
    box_turn: float = 0.0  # deg, yaw of the box in the actor's frame
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {str(item[0]): str(item[2]) for item in self.attributes}

    def number(self, name: str, default: float) -> float:
        """An attribute as a finite float. Raises ServerError otherwise."""
        try:
            return numbers([self.values.get(name, default)], 1)[0]
        except ValueError:
            raise ServerError(f"{self.type_id}: attribute {name} is {self.values[name]!r}, not a number") from None

    def box(self) -> list:
        """carla.BoundingBox in the actor's frame."""
        return [list(self.centre), list(self.extent), [0.0, self.box_turn, 0.0], self.id]

    def message(self, port: int) -> list:
        """rpc::Actor."""
        token = token_of(self.stream, port) if self.stream else b""
        description = [self.uid, self.type_id, self.attributes]
        return [self.id, self.parent, description, self.box(), self.tags, token]


def token_of(stream: int, port: int) -> bytes:
    """24 bytes that tell a client where a stream is; the host is the one it already talks to."""
    return TOKEN.pack(stream, port, TCP, NO_ADDRESS, bytes(16))
