"""The server: two ports, one clock, one thread."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from drive.core.errors import DriveError
from drive.simulators.carla_server.episode import SETTINGS, Counters, Episode
from drive.simulators.carla_server.layouts import ServerError, numbers
from drive.simulators.carla_server.methods import table
from drive.simulators.carla_server.recorder import Recorder
from drive.simulators.carla_server.rpc import RpcConnection
from drive.simulators.carla_server.streams import StreamConnection, Streams
from drive.simulators.carla_server.town import Atlas
from drive.simulators.carla_server.warm import warm_up

LOG = logging.getLogger("drive.carla_server")
LONGEST, SHORTEST, PACE = 0.5, 1e-3, 0.05  # s of a tick at most and at least; s between ticks of a server that runs by itself
FINEST = 1e-4  # s of a tick that a client asks for


@dataclass(frozen=True)
class ServerConfig:
    """How a server is started."""

    map: str = "test_c"
    port: int = 2000  # the streams are one above; 0 takes two that are free
    host: str = "127.0.0.1"  # another address lets anybody in: the protocol has no passwords
    maps: Path | None = None  # a folder of .xodr or .xodr.gz files, beside the shipped towns
    synchronous: bool = False  # whether the clock waits for clients from the start; a client may change it
    seed: int = 0
    recordings: Path = Path("carla_recordings")
    gnss: str = "0.9.16"  # whose projection: "0.9.15" negates y, as the leaderboard's routes still do


class CarlaServer:
    """Serves one episode at a time to any number of clients."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises DriveError where the map is unknown or cannot be read."""
        self.config = config
        self.atlas, self.recorder = Atlas(config.maps), Recorder(config.recordings)
        self.streams, self._counters = Streams(), Counters()
        try:
            self.episode = self._episode(config.map)
        except ServerError as error:
            raise DriveError(str(error)) from error
        self.episode.settings[0] = config.synchronous
        self.episode.settings[2] = [True, PACE] if config.synchronous else [False]
        self.port = self.stream_port = 0
        self._unknown: set[str] = set()
        self._fault = ""  # of the last tick that failed without a client
        self._clients: set[RpcConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._last = time.monotonic()
        self.methods = table(self)

    def _episode(self, name: str) -> Episode:
        return Episode(self.atlas.town(name), self.streams, self._counters, self.config.seed, self.config.gnss, self.recorder)

    def load(self, name: str, reset_settings: bool) -> None:
        """Begin a new episode. Raises ServerError where there is no such map."""
        settings = self.episode.settings
        episode = self._episode(name)
        episode.settings = list(SETTINGS) if reset_settings else settings
        self.episode = episode

    def set_settings(self, value: list) -> int:
        """New settings of the episode; the present frame. Raises ServerError where they make no sense."""
        self.episode.settings = checked_settings(value)
        return self.episode.frame

    def tick(self) -> int:
        """One frame; its number."""
        now = time.monotonic()
        took, self._last = now - self._last, now
        return self.episode.tick(self.episode.fixed_delta or min(max(took, SHORTEST), LONGEST))

    async def start(self) -> None:
        """Open both ports. Raises DriveError where one of them is in use."""
        loop, methods = asyncio.get_running_loop(), self.methods
        config = self.config
        try:
            rpc = await loop.create_server(
                lambda: RpcConnection(methods, self.streams.ready, self._unknown, self._clients), config.host, config.port
            )
            self._servers.append(rpc)
            self.port = rpc.sockets[0].getsockname()[1]
            stream = await loop.create_server(
                lambda: StreamConnection(self.streams), config.host, config.port + 1 if config.port else 0
            )
        except OSError as error:
            self.close()
            raise DriveError(
                f"cannot listen on {config.host}:{config.port} and the port above it ({os.strerror(error.errno or 0)}): "
                "choose another port, or stop what uses it"
            ) from error
        self._servers.append(stream)
        self.stream_port = stream.sockets[0].getsockname()[1]
        if not ipaddress.ip_address(self._servers[0].sockets[0].getsockname()[0]).is_loopback:
            LOG.warning("listening on %s: everybody who reaches this address may drive, as the protocol has no passwords", config.host)

    async def run(self) -> None:
        """Serve until cancelled; a world that is not synchronous ticks by itself."""
        try:
            while True:
                await asyncio.sleep(self.episode.fixed_delta or PACE)
                if not self.episode.synchronous and self.streams.ready():
                    self._tick_alone()
        finally:
            self.close()

    def _tick_alone(self) -> None:
        """One frame of a world that no client waits for; a fault in it is told once and does not end the server."""
        try:
            self.tick()
        except Exception as error:
            if str(error) != self._fault:
                self._fault = str(error)
                LOG.exception("a tick failed")

    def close(self) -> None:
        """Close both ports and send everybody away."""
        for server in self._servers:
            server.close()
        self.recorder.stop()
        for client in tuple(self._clients):
            client.close()
        self.streams.close()
        self._servers = []


def checked_settings(value: list) -> list:
    """EpisodeSettings as they are told to all clients. Raises ServerError where they make no sense."""
    settings: list = []
    for given, usual in zip([*value, *SETTINGS[len(value) :]], SETTINGS):
        if isinstance(usual, list):
            wanted = numbers(given[1:], 1)[0] if given[0] else 0.0
            if wanted and not FINEST <= wanted <= LONGEST:
                raise ServerError(f"fixed_delta_seconds is between {FINEST:g} and {LONGEST:g} s, or 0 for none; got {wanted:g}")
            settings.append([True, wanted] if wanted else [False])
        elif isinstance(usual, bool):
            if not isinstance(given, bool):
                raise ServerError(f"an episode setting must be true or false, and is {str(given)[:80]}")
            settings.append(given)
        else:
            settings.append(type(usual)(numbers([given], 1)[0]))
    return settings


def serve(config: ServerConfig, started=None) -> None:
    """Serve until interrupted; `started(server)` is called when both ports are open."""

    async def main() -> None:
        server = CarlaServer(config)
        warm_up(server.episode.town)
        await server.start()
        if started is not None:
            started(server)
        await server.run()

    asyncio.run(main())
