"""The floor of a tick: the same bytes to and fro over two sockets of this machine, and no work at all.

Run as a script it is the other end: `python socket_floor.py CONTROL ANSWER FRAME`, sizes in bytes as in `floor`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

REQUEST = 16  # bytes that ask for a tick
ROUNDS = 2000


def floor(control: int, answer: int, frame: int) -> float:
    """Ticks per second where `control` bytes and a request go out, and `frame` bytes and an answer of `answer` bytes come back."""
    command = [sys.executable, str(Path(__file__)), str(control), str(answer), str(frame)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as calls, socket.create_connection(("127.0.0.1", port)) as stream:
            calls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for k in range(ROUNDS + 100):
                if k == 100:
                    start = time.perf_counter()
                calls.sendall(bytes(control))
                calls.sendall(bytes(REQUEST))
                _take(stream, frame)
                _take(calls, answer)
            took = time.perf_counter() - start
    return ROUNDS / took


def _take(source: socket.socket, count: int) -> bool:
    """Read `count` bytes; whether there were as many."""
    while count:
        data = source.recv(min(count, 1 << 20))
        if not data:
            return False
        count -= len(data)
    return True


def _serve(control: int, answer: int, frame: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        calls, _ = listener.accept()
        stream, _ = listener.accept()
    with calls, stream:
        calls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while _take(calls, control + REQUEST):
            stream.sendall(bytes(frame))
            calls.sendall(bytes(answer))


if __name__ == "__main__":
    _serve(*(int(size) for size in sys.argv[1:]))
