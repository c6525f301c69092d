"""The CARLA-compatible server against what no client should send: garbage on both ports, clients that vanish, clients that do not read."""

import asyncio
import importlib.util
import random
import socket
import struct
import time
from contextlib import suppress

import msgpack
import pytest
from carla_client import REPOSITORY, Raw, holdings, memory, process_of, run_client, said

from drive.simulators.carla_process import ServerProcess
from drive.simulators.carla_server import streams as streams_module
from drive.simulators.carla_server.methods import table
from drive.simulators.carla_server.server import CarlaServer, ServerConfig
from drive.simulators.carla_server.streams import StreamConnection, Streams

MESSAGES, STREAM_MESSAGES = 4500, 500
GROWTH = 150.0  # MB
HOSTILE = (
    *(None, True, False, 0, 1, -1, 2**31, 2**64 - 1, -(2**63), 0.0, -0.0, 1e-320, 1e12, 1e308, -1e308, 1e38),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "1", "nan", "\x00", "../x", "é" * 300, b"", b"\xff" * 24, b"\x00" * 4096),
    *([], [[]], [0], [0, 0, 0], [1e308] * 3, [1e9, 1e9, 0.0], [float("nan")] * 14, [[[[[[[[1]]]]]]]]),
)
HOG = ("copy_opendrive_to_file", "load_new_episode")  # may take a second each when they are granted
NEXT = """
synchronous()
vehicle = car()
for _ in range(20):
    vehicle.apply_control(carla.VehicleControl(throttle=1.0))
    world.tick()
assert vehicle.get_velocity().length() > 1.0
assert vehicle.destroy()
world.tick()
print("done")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("server"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with ServerProcess() as made:
            yield made


def packed(value) -> bytes:
    return bytes(msgpack.packb(value) or b"")


def hostile(rng: random.Random, depth: int = 0):
    if depth > 3 or rng.random() < 0.6:
        return rng.choice(HOSTILE)
    return [hostile(rng, depth + 1) for _ in range(rng.randint(0, 6))]


def pose(rng: random.Random) -> list:
    return [[rng.choice([0.0, 30.0, 1e5, 1e20, 1e300]) for _ in range(3)], [rng.choice([0.0, 90.0, 1e5, 1e300]) for _ in range(3)]]


def request(rng: random.Random, names: list[str], ids: list[int]) -> bytes:
    """A well-formed request of a known method, its arguments of wrong shapes or absurd size."""
    name = rng.choice(names)
    if name in HOG and rng.random() < 0.9:
        name = "tick_cue"
    if name.startswith("spawn_actor") and rng.random() < 0.7:
        kind = rng.choice(["vehicle.tesla.model3", "walker.pedestrian.0001", "sensor.other.imu", "static.prop.trafficcone01"])
        arguments: list = [[1, kind, [] if rng.random() < 0.5 else hostile(rng)], pose(rng), rng.choice(ids), 0, ""]
        arguments = arguments if "parent" in name else arguments[:2]
    elif name == "apply_batch":
        arguments = [[[[rng.randint(0, 24), [rng.choice(ids), hostile(rng), hostile(rng)]]] for _ in range(rng.randint(0, 8))], rng.random() < 0.1]
    else:
        first = [rng.choice(ids)] if rng.random() < 0.7 else []
        arguments = first + [pose(rng) if rng.random() < 0.2 else hostile(rng) for _ in range(rng.randint(0, 5))]
    return packed([0, rng.randint(0, 2**32 - 1), name, [[False], *arguments]])


def garbage(rng: random.Random, names: list[str]) -> bytes:
    """What is no request at all, or the beginning of one."""
    whole = packed([0, 1, rng.choice(names), [[False], 1, [0.0] * 3]])
    choice = rng.randrange(8)
    if choice == 0:
        return rng.randbytes(rng.randint(1, 400))
    if choice == 1:
        return whole[: rng.randint(1, len(whole) - 1)]
    if choice == 2:
        return packed(hostile(rng))
    if choice == 3:
        return b"\x91" * rng.choice([10, 600, 5000])  # arrays in arrays
    if choice == 4:  # announces 4 GB, or 4 billion items, of which none come
        return rng.choice([b"\xc6", b"\xdb", b"\xdd", b"\xdf", b"\xc9"]) + b"\xff" * 4 + rng.randbytes(30)
    if choice == 5:  # a million items in each of a thousand arrays, announced
        return b"\x94\x00\x01\xa1x" + b"\xdd\x00\x0f\xff\xff" * 900
    if choice == 6:
        flipped = bytearray(whole)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return packed([rng.choice([0, 1, 2, 7]), hostile(rng), rng.choice(names), hostile(rng)])


def drain(sock: socket.socket) -> bool:
    """Take what has come; whether the connection still stands."""
    sock.setblocking(False)
    try:
        while data := sock.recv(1 << 20):
            del data
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.setblocking(True)


def test_thousands_of_messages_that_mean_nothing(server):
    rng = random.Random(7)
    names = sorted(table(CarlaServer(ServerConfig())))
    with Raw(server.port) as raw:
        points = raw.call("get_map_info")[1]
        streams = struct.unpack_from("<IH", raw.call("get_sensor_token", 1)[0])[1]
        ids = [raw.call("spawn_actor", [1, kind, []], points[k])[0] for k, kind in ((2, "vehicle.tesla.model3"), (6, "walker.pedestrian.0001"))]
    before, sock = memory(server), None
    for k in range(MESSAGES):
        if sock is None:
            sock = socket.create_connection(("127.0.0.1", server.port), timeout=60.0)
        message = request(rng, names, [*ids, 0, 1, 2, 4_000_000]) if rng.random() < 0.7 else garbage(rng, names)
        try:
            sock.sendall(message)
            alive = drain(sock)
        except OSError:
            alive = False
        if not alive or rng.random() < 0.02:
            sock.close()
            sock = None
        if k % 500 == 499:
            with Raw(server.port) as raw:
                assert raw.call("version") == "0.9.16"
    for _ in range(STREAM_MESSAGES):
        with socket.create_connection(("127.0.0.1", streams), timeout=60.0) as stream:
            stream.sendall(rng.choice([rng.randbytes(rng.randint(0, 40)), b"\x01\x00", struct.pack("<I", rng.randint(0, 40)), b"\x00" * 5000]))
    with Raw(server.port) as raw:
        raw.call("load_new_episode", "test_c", True, 0)
    assert "the server failed" not in said(server) and "Traceback" not in said(server), said(server)[-4000:]
    assert memory(server, "VmHWM") - before < GROWTH
    follow_up(server)


def follow_up(server) -> None:
    """The next client is served."""
    process_of(server)
    if importlib.util.find_spec("carla") is not None:
        assert run_client(NEXT, server.port) == "done\n"
    with Raw(server.port) as raw:
        assert raw.call("version") == "0.9.16"


def test_a_message_of_many_empty_arrays_is_refused(server):
    """128 MB of them would take 8 GB."""
    before = memory(server, "VmHWM")
    with Raw(server.port) as raw:
        message = b"\x94\x00\x01\xa7version\x92\x91\xc2\xdd\x00\x00\x00\x10" + (b"\xdd\x00\x0f\xff\xff" + b"\x90" * 0xFFFFF) * 16
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            raw.socket.sendall(message)
            while raw.socket.recv(1 << 16):
                pass
            raise ConnectionResetError
    assert memory(server, "VmHWM") - before < GROWTH
    assert "no text that is as long" in said(server)
    follow_up(server)


@pytest.mark.parametrize("key", [b"\x90", b"\x80"])
def test_a_map_whose_key_is_a_list_or_a_map_is_refused(server, key):
    """msgpack has such maps, Python has none: the unpacker raises a TypeError."""
    with Raw(server.port) as raw:
        raw.socket.sendall(b"\x94\x00\x01\xa7version\x91\x81" + key + b"\x01")
        with suppress(ConnectionResetError):
            assert raw.socket.recv(1) == b"", "the client is sent away"
    follow_up(server)
    assert "Traceback" not in said(server) and "unhashable" in said(server)


def test_clients_that_vanish(server):
    held = holdings(server)
    for k in range(60):
        raw = Raw(server.port)
        token = raw.call("get_sensor_token", 1)[0]
        stream = socket.create_connection(("127.0.0.1", struct.unpack_from("<IH", token)[1]), timeout=60.0)
        if k % 3 == 0:  # in the middle of a message
            raw.socket.sendall(packed([0, 9, "get_map_data", [[False]]])[:7])
        elif k % 3 == 1:  # in the middle of a tick, and of a subscription that is waited for
            stream.sendall(b"\x01\x00")
            raw.send("tick_cue")
        else:  # while subscribed, with unread frames
            stream.sendall(struct.pack("<I", 1))
            for _ in range(3):
                raw.call("tick_cue")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        raw.vanish()
    follow_up(server)
    until = time.monotonic() + 10.0
    while holdings(server) != held and time.monotonic() < until:
        time.sleep(0.05)
    assert holdings(server) == held
    assert "Traceback" not in said(server)


def test_a_client_that_asks_and_never_reads(server):
    before = memory(server)
    raw = Raw(server.port)
    raw.socket.settimeout(1.0)
    question = packed([0, 1, "get_map_data", [[False]]])
    sent = 0
    with pytest.raises(TimeoutError):  # the server reads no more of it
        for _ in range(200):
            raw.socket.sendall(question * 2000)
            sent += 2000
    assert memory(server) - before < 100.0
    follow_up(server)
    assert raw.receive()[:3] == [1, 1, None]  # it may still read, and go on
    raw.vanish()
    assert sent > 0


def test_backlog_of_a_subscriber_that_never_reads_is_bounded(monkeypatch):
    """Another subscriber of the same stream gets everything."""
    monkeypatch.setattr(streams_module, "BACKLOG", 8 << 20)
    payload, frames = bytes(1 << 20), 60

    async def main() -> tuple[int, int]:
        streams = Streams()
        listening = await asyncio.get_running_loop().create_server(lambda: StreamConnection(streams), "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        deaf = socket.create_connection(("127.0.0.1", port))
        deaf.sendall(struct.pack("<I", 3))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(struct.pack("<I", 3))
        while len(streams.open) < 2 or not all(c.stream for c in streams.open):
            await asyncio.sleep(0.001)
        most, got = 0, 0
        for _ in range(frames):
            streams.send(3, payload)
            head = await reader.readexactly(4)
            got += len(await reader.readexactly(int.from_bytes(head, "little")))
            most = max(most, *(c.transport.get_write_buffer_size() for c in streams.open if c.transport is not None))
        await asyncio.sleep(0.01)
        assert len(streams.open) == 1 and streams.wanted(3)
        deaf.close()
        streams.close()
        listening.close()
        return most, got

    most, got = asyncio.run(main())
    assert 4 << 20 < most <= 10 << 20 and got == frames * len(payload)
