"""Clients of the CARLA-compatible server for tests: the official wheel in a process of its own, and bare sockets."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

from drive.simulators.carla_process import ServerProcess

REPOSITORY = Path(__file__).resolve().parents[1]
PRELUDE = """
import sys, time, math
import carla
client = carla.Client("127.0.0.1", int(sys.argv[1]))
client.set_timeout(60.0)
world = client.get_world()
library = world.get_blueprint_library()
points = world.get_map().get_spawn_points()

def synchronous(on=True, delta=0.05):
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = on, delta if on else None
    world.apply_settings(settings)

def car(k=5, name="vehicle.lincoln.mkz_2020"):
    return world.spawn_actor(library.find(name), points[k])

def fails(call, word):
    try:
        call()
    except RuntimeError as error:
        assert word in str(error), error
    else:
        raise AssertionError(f"no error of {word}")
"""


def run_client(script: str, port: int, *more: object, timeout: float = 240.0) -> str:
    """What `script`, after PRELUDE, prints: a fault of the protocol may end the whole process of the client."""
    command = [sys.executable, "-c", PRELUDE + script, str(port), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        pytest.fail(f"the client ended with {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    warned = [line for line in (done.stderr + done.stdout).splitlines() if "WARNING" in line and "InMemoryMap" not in line]
    assert not warned, warned  # but for the Traffic Manager's, which finds its map in no file
    return done.stdout.rsplit("... \n", 1)[-1]


def free_port() -> int:
    """A port of which the next one is free too."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
                return port
            except (OSError, OverflowError):
                continue
    pytest.skip("no two free ports")


def run_pair(server: str, client: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The end of the script `client`, run with a port of the script `server`, which prints "up" when it listens there and one above."""
    port, environment = str(free_port()), {**os.environ, "CARLA_CACHE_DIR": str(folder)}
    with subprocess.Popen([sys.executable, "-c", server, port], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None and process.stdout.readline().strip() == "up"
            return subprocess.run([sys.executable, "-c", client, port], capture_output=True, text=True, timeout=300, env=environment, check=False)
        finally:
            process.kill()


class Raw:
    """A socket that speaks the protocol, or anything else."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=0)
        self._number = 0

    def send(self, name: str, *arguments: Any) -> int:
        """A request; its number."""
        self._number += 1
        self.socket.sendall(bytes(msgpack.packb([0, self._number, name, [[False], *arguments]]) or b""))
        return self._number

    def receive(self) -> list:
        """The next response: [1, number, error, result]."""
        while True:
            for message in self._unpacker:
                return message
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._unpacker.feed(data)

    def ask(self, name: str, *arguments: Any) -> tuple[Any, Any]:
        """(error, result) of a request."""
        number = self.send(name, *arguments)
        kind, answered, error, result = self.receive()
        assert (kind, answered) == (1, number)
        return error, result

    def call(self, name: str, *arguments: Any) -> Any:
        """The value of a request that is granted."""
        error, result = self.ask(name, *arguments)
        assert error is None, f"{name}: {error}"
        assert result[0][0] == 1 or result == [[False]], f"{name}: {result}"
        return result[0][1] if len(result[0]) > 1 else None

    def refused(self, name: str, *arguments: Any) -> str:
        """The text of a request that is refused."""
        error, result = self.ask(name, *arguments)
        assert error is None and result[0][0] == 0, f"{name}: {error or result}"
        return result[0][1][0]

    def vanish(self) -> None:
        """Reset the connection, as a process does that is killed with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def process_of(server: ServerProcess) -> Path:
    """/proc of a server."""
    assert server._process is not None and server._process.poll() is None, "the server is dead"
    return Path(f"/proc/{server._process.pid}")


def memory(server: ServerProcess, what: str = "VmRSS") -> float:
    """MB that a server holds (VmRSS) or held at most (VmHWM)."""
    status = (process_of(server) / "status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(what)).split()[1]) / 1024.0


def holdings(server: ServerProcess) -> tuple[int, int]:
    """(open files, threads) of a server."""
    place = process_of(server)
    return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))


def said(server: ServerProcess) -> str:
    """The server's log."""
    return server._log.read_text(errors="replace")
