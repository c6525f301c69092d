"""Our CARLA-compatible server as a child process, and the wait for any server's port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from drive.core.errors import DriveError
from drive.core.workers import deaf_to_interrupts

START_S = 300.0  # the first start of an installation compiles kernels, on a busy machine for minutes
POLL_S = 0.05


class ServerProcess:
    """A server of our own on two free ports of this machine; use it as a context."""

    def __init__(self, town: str = "test_c", seed: int = 0, maps: Path | None = None, gnss: str = "0.9.16") -> None:
        self._options = ["--map", town, "--seed", str(seed), "--gnss", gnss, "--port", "0", "--synchronous"]
        self._options += ["--maps", str(maps)] if maps is not None else []
        self._process: subprocess.Popen | None = None
        self._log = Path(os.devnull)
        self.host, self.port = "127.0.0.1", 0

    def start(self) -> None:
        """Start it and wait until it listens. Raises DriveError with what it said where it does not come up."""
        handle, name = tempfile.mkstemp(prefix="drive-carla-", suffix=".log")
        self._log = Path(name)
        # it reads a pipe that ends with us, so that it does not outlive a parent that was killed
        follow = "threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()"
        code = f"import os, sys, threading; {follow}; from drive.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "serve", "carla", *self._options]
        with os.fdopen(handle, "w") as log, deaf_to_interrupts():
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.PIPE)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            said = self._log.read_text(errors="replace")
            if "carla.Client(" in said and said.endswith("stops\n"):
                self.port = int(said.rsplit("carla.Client(", 1)[1].split(",")[1].split(")")[0])
                return
            time.sleep(POLL_S)
        said = self._log.read_text(errors="replace").strip().splitlines()
        self.stop()
        raise DriveError(f"the CARLA-compatible server did not come up: {said[-1] if said else f'no word within {START_S:g} s'}")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it; nothing is left behind."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._log != Path(os.devnull):
            self._log.unlink(missing_ok=True)

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_for_port(host: str, port: int, timeout_s: float) -> None:
    """Return when somebody listens: the carla client itself does not try again. Raises DriveError after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise DriveError(
                    f"nobody listens on {host}:{port} ({error}): start CARLA there, or leave the address out to have our own server started"
                ) from error
            time.sleep(POLL_S)
