"""A connection to a CARLA server, Unreal's or ours: the one module that imports the carla client."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from typing import Any

from drive.core.errors import DriveError
from drive.simulators.carla_process import wait_for_port

KNOWN = {("0.9.16", "0.9.16"), ("0.9.15", "0.9.15")}  # (client, server) that speak with each other
TIMEOUT_S = 20.0


def carla_module() -> Any:
    """The official client. Raises DriveError where its wheel is not installed."""
    if not os.environ.get("HOME"):  # the import crashes without
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        import carla
    except ImportError as error:
        raise DriveError(
            "driving in CARLA needs the carla wheel (`pip install carla==0.9.16`: Linux x86-64 or Windows, Python below 3.13)"
        ) from error
    return carla


def client_version() -> str:
    """Of the installed wheel."""
    return importlib.metadata.version("carla")


class Session:
    """One client with its world in synchronous mode; `close` gives the world back as it was and removes what was spawned."""

    def __init__(self, host: str, port: int, dt: float = 0.05, timeout_s: float = TIMEOUT_S) -> None:
        """Raises DriveError where nobody listens, nobody answers, or the versions do not fit."""
        self.carla = carla_module()
        wait_for_port(host, port, timeout_s)
        self.client = self.carla.Client(host, port)
        self.client.set_timeout(timeout_s)
        try:
            server = self.client.get_server_version()
        except RuntimeError as error:
            raise DriveError(f"{host}:{port} does not answer like a CARLA server ({error})") from error
        if (client_version(), server) not in KNOWN:
            raise DriveError(
                f"client {client_version()} and server {server} are not a pair that drive knows: the messages differ between versions, and a "
                f"wrong pair may crash; install carla=={server} or start a server {client_version()}"
            )
        self.server, self.dt = server, dt
        self.world = self.client.get_world()
        self._before = self.world.get_settings()
        self._mine: list[Any] = []
        self.synchronise()

    def synchronise(self) -> None:
        """Synchronous mode with `dt` s per tick."""
        settings = self.world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, self.dt
        self.world.apply_settings(settings)

    def load(self, town: str) -> None:
        """Begin anew in `town`. Raises DriveError where the server does not have it."""
        self._mine = []
        try:
            self.world = self.client.load_world(town, reset_settings=False)
        except RuntimeError as error:
            raise DriveError(f"the server cannot load {town} ({error})") from error
        self.synchronise()

    def towns(self) -> list[str]:
        """Names of the maps that the server has."""
        return sorted(path.rsplit("/", 1)[-1] for path in self.client.get_available_maps())

    def keep(self, actor: Any) -> Any:
        """Remember an actor as ours, to be removed at the end."""
        self._mine.append(actor)
        return actor

    def clear(self) -> None:
        """Remove our actors, sensors first."""
        mine, self._mine = self._mine, []
        sensors = [a for a in mine if a.type_id.startswith("sensor.")]
        for sensor in sensors:
            if sensor.is_listening:
                sensor.stop()
        order = [*sensors, *(a for a in reversed(mine) if not a.type_id.startswith("sensor."))]
        self.batch([self.carla.command.DestroyActor(a.id) for a in order])

    def batch(self, commands: list[Any]) -> None:
        """Carry out `commands` and tick. The client's own `do_tick` may hang: it waits for the tick with Python's lock held, and callbacks wait for that."""
        self.client.apply_batch_sync(commands, False)
        self.world.tick()

    def close(self) -> None:
        """Leave the server as it was; a server that has gone is not waited for."""
        try:
            self.clear()
            self.world.apply_settings(self._before)
        except RuntimeError:
            self._mine = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
