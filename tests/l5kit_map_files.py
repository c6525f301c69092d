"""A semantic map around the scenes of `l5kit_files`: a road of two lanes, a junction from which it goes on straight or to the left, a crosswalk.

Places are given in the scenes' world, by metres along the drive and to its left, and written as differences in cm from an origin on the globe.
"""

import json

import numpy as np
from l5kit_files import HEADING, at
from waymo_files import pack

LATITUDE, LONGITUDE = 37.4274928, -122.1700000  # of the frame's origin, which is the world's here
WIDTH, LIMIT = 3.6, 11.2
SEGMENT, JUNCTION, LANE, CONTROL = 1, 5, 3, 4
MEMBERS = {"lane": LANE, "segment": SEGMENT, "junction": JUNCTION, "control": CONTROL}


def world_to_ecef():
    """The world is east, north, up of the origin, seen from the Earth's centre (road_network.proto, written out again)."""
    lat, lon = np.radians(LATITUDE), np.radians(LONGITUDE)
    up = np.array([np.cos(lon) * np.cos(lat), np.sin(lon) * np.cos(lat), np.sin(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.cross(up, east)
    a, b = 6378137.0, 6356752.314245179
    n = a**2 / np.sqrt((a * np.cos(lat)) ** 2 + (b * np.sin(lat)) ** 2)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([east, north, up])
    matrix[:3, 3] = [n * up[0], n * up[1], (b / a) ** 2 * n * up[2]]
    return matrix


def zigzag(values):
    values = np.asarray(values, np.int64)
    return (values << 1) ^ (values >> 63)


def deltas(points, fields=(1, 2, 3)):
    """Fields of the differences of points (N, 2) in m."""
    cm = np.round(np.asarray(points) * 100.0).astype(np.int64)
    steps = np.diff(cm, axis=0, prepend=np.zeros((1, 2), np.int64))
    return [(fields[0], zigzag(steps[:, 0])), (fields[1], zigzag(steps[:, 1])), (fields[2], zigzag(np.zeros(len(cm))))]


def frame(lat=LATITUDE, lon=LONGITUDE):
    return [(1, [(1, _sfixed(lat)), (2, _sfixed(lon))])]


def _sfixed(degrees):
    return np.array([round(degrees * 1e7)], "<i4").view(np.float32)[0]  # the same four bytes


def name(text):
    return [(1, text)]


def line(*places):
    """Points of (along, left)."""
    return [at(s, left) for s, left in places]


def lane(left, right, parent, ahead=(), beside=("", ""), controls=(), turn=0, orientation=1, access=1):
    out = [(1, name(parent)), (2, frame()), (3, deltas(left)), (4, deltas(right)), *((5, name(i)) for i in ahead)]
    out += [(6 + k, name(other)) for k, other in enumerate(beside) if other]
    return [*out, *((8, name(i)) for i in controls), (11, [(1, access)]), (12, orientation), (13, turn)]


def elements():
    """Name: (kind, message). The drive goes along lane `near`, then `ahead`, then `far`."""
    half = WIDTH / 2
    arc = np.linspace(0.0, np.pi / 2, 12)
    turn = [line(*((30 + r * np.sin(a), half * 2 + 10 - half * 2 - r * np.cos(a)) for a in arc)) for r in (10 - half, 10 + half)]
    return {
        "road": ("segment", [(9, np.float32(LIMIT)), (10, np.float32(5.0))]),
        "on": ("segment", []),
        "cross": ("junction", [(3, name("ahead")), (3, name("left"))]),
        "near": ("lane", lane(line((-20, half), (30, half)), line((-20, -half), (0, -half), (30, -half)), ahead=("ahead", "left"), beside=("beside", ""),
                              controls=("red", "green", "sign"), parent="road")),
        "beside": ("lane", lane(line((-20, 3 * half), (30, 3 * half)), line((-20, half), (30, half)), beside=("oncoming", "near"), parent="road")),
        # against its segment: its points run along the segment, its left is the driver's
        "oncoming": ("lane", lane(line((-20, 3 * half), (30, 3 * half)), line((-20, 5 * half), (30, 5 * half)), orientation=3, parent="road")),
        "bike": ("lane", lane(line((-20, -half), (30, -half)), line((-20, -2 * half), (30, -2 * half)), access=4, parent="road")),
        "ahead": ("lane", lane(line((30, half), (45, half)), line((30, -half), (45, -half)), "cross", ("far",), turn=1)),
        "left": ("lane", lane(turn[0], turn[1], "cross", ("gone",))),
        "far": ("lane", lane(line((45, half), (120, half)), line((45, -half), (120, -half)), "on")),
        "away": ("lane", lane(line((5000, half), (5050, half)), line((5000, -half), (5050, -half)), "on")),
        "red": ("control", [(2, frame()), (11, [])]),
        "green": ("control", [(2, frame()), (31, [])]),
        "sign": ("control", [(2, frame()), (7, [])]),
        "zebra": ("control", [(2, frame()), (16, []), *deltas(line((28, -4), (30, -4), (30, 4), (28, 4)), (3, 4, 5))]),
        "parking": ("control", [(2, frame()), (35, []), *deltas(line((0, -8), (20, -8), (20, -3), (0, -3)), (3, 4, 5))]),
    }  # fmt: skip


def fragment(content=None):
    return pack([(1, "toy"), *((2, [(1, name(key)), (2, [(MEMBERS[kind], body)])]) for key, (kind, body) in (content or elements()).items())])


def write(folder, content=None, key="world_to_ecef"):
    (folder / "semantic_map").mkdir(parents=True, exist_ok=True)
    (folder / "semantic_map" / "semantic_map.pb").write_bytes(fragment(content))
    (folder / "meta.json").write_text(json.dumps({key: world_to_ecef().tolist()}))
    return folder


__all__ = ["HEADING", "LIMIT", "WIDTH", "elements", "fragment", "world_to_ecef", "write"]
