"""Waymo records made by hand, with a writer of their own: a straight road along HEADING from START, driven at SPEED.

A message is a list of (field, value): int is a varint, float a double, numpy's float32 a float, str or bytes a string, an array its packed
numbers, and a list a message.
"""

import struct
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

START, HEADING, SPEED, STEPS, PRESENT = np.array([-7785.25, 6683.5]), 0.5, 10.0, 91, 10
REAR = 1.461  # m, box centre ahead of the rear axle
SIZE = (5.286, 2.332, 2.33)
SHAPES = {"SIDE_LEFT": (64, 24), "SIDE_RIGHT": (64, 24), "REAR": (64, 32)}  # width, height of the smaller cameras
CAMERAS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT", "REAR_LEFT", "REAR", "REAR_RIGHT")
YAWS = np.radians([0, 45, -45, 90, -90, 135, 180, -135])
WIDTH, HEIGHT = 64, 40


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def pack(message: list) -> bytes:
    out = []
    for number, value in message:
        if isinstance(value, np.ndarray):
            value = b"".join(varint(int(v)) for v in value) if value.dtype.kind == "i" else value.tobytes()
        elif isinstance(value, list):
            value = pack(value)
        elif isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            out += [varint(number << 3 | 2), varint(len(value)), value]
        elif type(value) is np.float32:
            out += [varint(number << 3 | 5), struct.pack("<f", value)]
        elif isinstance(value, float):
            out += [varint(number << 3 | 1), struct.pack("<d", value)]
        else:
            out += [varint(number << 3), varint(int(value))]
    return b"".join(out)


def _bitwise(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


TABLE = [_bitwise(byte) for byte in range(256)]


def masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def write(path, *records):
    """Write records, lists or bytes, to a file; gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(r if isinstance(r, bytes) else pack(r)) for r in records))
    return path


def damaged(path, at, flip=1):
    """Flip bits of one byte of a file; `at` from its start, or its end where negative."""
    content = bytearray(path.read_bytes())
    content[at] ^= flip
    path.write_bytes(content)


def at(along: ArrayLike, left: ArrayLike = 0.0) -> np.ndarray:
    """World (..., 2) of points `along` and `left` of the road."""
    x, y = np.broadcast_arrays(np.asarray(along, float), np.asarray(left, float))
    c, s = np.cos(HEADING), np.sin(HEADING)
    return START + np.stack([c * x - s * y, s * x + c * y], axis=-1)


def put(message, number, value):
    """The message with field `number` set to `value`, or left out if None."""
    rest = [item for item in message if item[0] != number]
    return rest if value is None else sorted([*rest, (number, value)], key=lambda item: item[0])


def state(xy, heading=HEADING, size=SIZE, valid=True):
    values = [(2, float(xy[0])), (3, float(xy[1])), (4, 0.0)]
    return [*values, *[(5 + k, np.float32(v)) for k, v in enumerate(size)], (8, np.float32(heading)), (11, valid)]


def track(name, kind, along, left=0.0, size=SIZE, heading=HEADING, steps=STEPS, seen=None):
    places = np.broadcast_to(at(along, left), (steps, 2))
    return [(1, name), (2, kind), *[(3, state(places[k], heading, size, seen is None or k in seen)) for k in range(steps)]]


def points(number, xy):
    return [(number, [(1, float(x)), (2, float(y)), (3, 0.0)]) for x, y in xy]


def lane(name, xy, *more, kind=2, mph=45.0):
    return [(1, name), (3, sorted([(1, mph), (2, kind), *points(8, xy), *more], key=lambda item: item[0]))]


def road():
    """Lanes 1 -> 2 -> 4, 3 to the left of 1, 5 across 2 with a light on 2, a bike lane; lines, edges 4 m to the right and 8 m to the left."""
    metres = np.arange(0.0, 100.1, 0.5)
    border = [(1, 0), (2, len(metres) - 1), (3, 11), (4, 1)]
    return [
        lane(1, at(metres - 50.0), (10, np.array([2])), (13, border), (11, [(1, 3), (6, border)])),
        lane(2, at(np.arange(50.0, 70.1, 0.5)), (9, np.array([1])), (10, np.array([4]))),
        lane(3, at(metres - 50.0, 3.2), (14, border), (12, [(1, 1), (6, put(border, 4, 2))]), mph=65.0),
        lane(4, at(np.arange(70.0, 200.1, 0.5)), (9, np.array([2])), mph=0.0),
        lane(5, at(60.0, np.arange(-30.0, 30.1, 0.5)), mph=25.0),
        lane(6, at(metres, -3.0), kind=3),
        [(1, 11), (4, [(1, 1), *points(2, at(metres - 50.0, 1.6))])],
        [(1, 12), (5, [(1, 1), *points(2, at([-60.0, 50.0], -2.5))])],
        [(1, 13), (5, [(1, 2), *points(2, at([-60.0, 50.0], 6.0))])],
        [(1, 14), (8, points(1, at([52.0, 55.0, 55.0, 52.0], [-3.0, -3.0, 3.0, 3.0])))],
        [(1, 15), (10, points(1, at([0.0, 6.0, 6.0, 0.0], [-2.0, -2.0, -9.0, -9.0])))],
        [(1, 16), (7, [(1, 4), (2, [(1, 0.0), (2, 0.0)])])],
    ]


def scenario(name="scene-a", steps=STEPS, driven=None, others=True):
    """A Scenario record; `driven` (steps,) m along the road replaces the ego's drive."""
    clock = np.arange(steps) * 0.1
    own = clock * SPEED if driven is None else np.asarray(driven)
    tracks = [
        track(70, 1, 25.0 + clock * SPEED, size=(4.5, 1.8, 1.5), steps=steps),
        track(71, 2, 20.0, 5.0, (0.8, 0.8, 1.8), steps=steps, seen=range(5, steps)),
        track(72, 3, 15.0 + clock * 4.0, 3.2, (1.8, 0.7, 1.7), steps=steps),
        track(73, 4, 10.0, -6.0, (1.0, 1.0, 1.0), steps=steps),
    ]
    tracks = [*(tracks if others else []), track(99, 1, own + REAR, steps=steps)]
    signals = [(7, [(1, [(1, 2), (2, 4 if k < 30 else 6)]), (1, [(1, 777), (2, 4)])]) for k in range(steps)]
    return [
        *[(1, float(second)) for second in clock],
        *[(2, item) for item in tracks],
        (4, 70),
        (4, 71),
        (5, name),
        (6, len(tracks) - 1),
        *signals,
        *[(8, feature) for feature in road()],
        (10, PRESENT),
        (11, [(1, 0), (2, 2)]),
    ]


def tensor(value):
    """A Feature of floats, ints or a string."""
    if isinstance(value, str):
        return [(1, [(1, value)])]
    array = np.asarray(value)
    return [(3, [(1, array.reshape(-1).astype(np.int64))])] if array.dtype.kind in "ib" else [(2, [(1, array.reshape(-1).astype(np.float32))])]


def example_features(name="scene-x", agents=4):
    """Tensors of a tf.Example: the ego, a car ahead and two empty rows; two lanes in line, one with a light."""
    own, car = at(np.arange(STEPS) * 0.1 * SPEED + REAR), at(np.arange(STEPS) * 0.1 * SPEED + 25.0)
    xy, valid, size = np.full((agents, STEPS, 2), -1.0), np.zeros((agents, STEPS), int), np.full((agents, STEPS, 3), -1.0)
    xy[0], xy[1], valid[:2], size[0], size[1] = car, own, 1, (4.5, 1.8, 1.5), SIZE
    found = {"scenario/id": name, "state/id": np.array([7.0, 9.0, -1.0, -1.0]), "state/type": np.array([1.0, 1.0, -1.0, -1.0])}
    found |= {"state/is_sdc": np.array([0, 1, 0, 0]), "state/tracks_to_predict": np.array([1, 0, 0, 0]), "state/objects_of_interest": np.zeros(agents, int)}
    for part, cut in (("past", slice(0, 10)), ("current", slice(10, 11)), ("future", slice(11, STEPS))):
        length = len(range(STEPS)[cut])
        values = {"x": xy[:, cut, 0], "y": xy[:, cut, 1], "bbox_yaw": np.full((agents, length), HEADING), "valid": valid[:, cut]}
        values |= {key: size[:, cut, k] for k, key in enumerate(("length", "width", "height"))}
        values["timestamp_micros"] = np.broadcast_to(np.arange(STEPS)[cut] * 100000, (agents, length))
        found |= {f"state/{part}/{key}": value for key, value in values.items()}
        lights = {"id": [[2, -1]] * length, "state": [[4, -1]] * length, "valid": [[1, 0]] * length, "timestamp_micros": np.arange(length)}
        found |= {f"traffic_light_state/{part}/{key}": np.asarray(value) for key, value in lights.items()}
    lines = {1: (2, at(np.arange(-50.0, 50.1, 0.5))), 2: (2, at(np.arange(50.0, 150.1, 0.5))), 12: (15, at(np.arange(-50.0, 150.0, 0.5), -2.5)), 18: (18, at([0.0, 1.0]))}
    xyz = np.concatenate([np.column_stack([line, np.zeros(len(line))]) for _, line in lines.values()] + [np.zeros((3, 3))])
    ids = np.concatenate([np.full(len(line), key) for key, (_, line) in lines.items()] + [np.full(3, -1)])
    kinds = np.concatenate([np.full(len(line), kind) for kind, line in lines.values()] + [np.full(3, -1)])
    return found | {"roadgraph_samples/xyz": xyz, "roadgraph_samples/id": ids, "roadgraph_samples/type": kinds, "roadgraph_samples/valid": (ids >= 0).astype(int)}


def example(features=None):
    """A tf.Example record of named tensors."""
    return [(1, [(1, [(1, key), (2, tensor(value))]) for key, value in (features or example_features()).items()])]


def colour(camera, frame=0):
    """RGB of a camera's plain picture: red tells the camera, green the frame."""
    return (30 * CAMERAS.index(camera) + 10, frame % 256, 128)


def jpeg(camera, frame=0, size=None):
    out = BytesIO()
    Image.new("RGB", size or SHAPES.get(camera, (WIDTH, HEIGHT)), colour(camera, frame)).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def calibrations(cameras=CAMERAS):
    out = []
    for name in cameras:
        yaw, (width, height) = YAWS[CAMERAS.index(name)], SHAPES.get(name, (WIDTH, HEIGHT))
        pose = np.eye(4)
        pose[:2, :2], pose[:3, 3] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]], (1.5, 0.0, 2.0)
        lens = [50.0, 50.0, width / 2, height / 2, 0.04, -0.3, 0.001, -0.002, 0.0]
        matrix = [(1, float(v)) for v in pose.reshape(-1)]
        out.append([(1, CAMERAS.index(name) + 1), *[(2, v) for v in lens], (3, matrix), (4, width), (5, height)])
    return out


def images(cameras=CAMERAS, frame=0):
    return [[(1, CAMERAS.index(name) + 1), (2, jpeg(name, frame))] for name in cameras]


def label(name, kind, box):
    """A Label of (x, y, z, length, width, height, heading) in the vehicle frame."""
    x, y, z, length, width, height, heading = map(float, box)
    return [(1, [(1, x), (2, y), (3, z), (4, width), (5, length), (6, height), (7, heading)]), (3, kind), (4, name)]


def frame(step, cameras=CAMERAS[:5], mapped=False, name="segment-1"):
    """A perception Frame: a car 20 m ahead at our speed, a person who stands 5 m left of the road's start, a sign."""
    c, s, (x, y) = np.cos(HEADING), np.sin(HEADING), at(step * 0.1 * SPEED)
    pose = [c, -s, 0.0, x, s, c, 0.0, y, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 1.0]
    boxes = [label("car", 1, (20, 0, 1, 4.5, 1.8, 1.5, 0)), label("man", 2, (30 - step, 5, 1, 0.8, 0.8, 1.8, 0)), label("stop", 3, (9, -4, 3, 0.1, 0.6, 0.6, 0))]
    return [
        (1, [(1, name), *[(2, item) for item in calibrations(cameras)]]),
        (2, 1_553_735_853_000_000 + step * 100_000),
        (3, [(1, float(v)) for v in pose]),
        *[(4, item) for item in images(cameras, step)],
        *[(5, [(1, k + 1)]) for k in range(5)],
        *[(6, item) for item in boxes],
        *[(10, feature) for feature in (road() if mapped else [])],
    ]


def states(times, score=None, speed=SPEED, left=0.0, motion=False):
    """EgoTrajectoryStates at `times` s of a drive straight ahead, `left` m/s drifting."""
    times = np.asarray(times)
    out = [(1, (times * speed).astype(np.float32)), (2, (times * left).astype(np.float32))]
    if motion:
        out += [(4, np.full(len(times), speed, np.float32)), (5, np.zeros(len(times), np.float32))]
        out += [(6, np.full(len(times), 0.5, np.float32)), (7, np.zeros(len(times), np.float32))]
    return out if score is None else [*out, (8, np.float32(score))]


PAST, FUTURE = np.arange(-15, 1) * 0.25, np.arange(1, 21) * 0.25


def e2e(number=50, drive="drive-1", intent=2, cameras=CAMERAS, scores=(), future=True):
    """An E2EDFrame; `scores` of rated trajectories, -1 for none."""
    inner = [(1, [(1, f"{drive}-{number:03d}"), *[(2, item) for item in calibrations(cameras)]]), (2, 0), *[(4, item) for item in images(cameras, number)]]
    rated = [(8, states(FUTURE, score, left=0.1 * k)) for k, score in enumerate(scores)]
    return [(1, inner), *([(5, states(FUTURE))] if future else []), (6, states(PAST, motion=True)), (7, intent), *rated]
