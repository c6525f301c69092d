"""usage: drive serve carla [--map NAME] [--port N] [--host ADDRESS] [--maps FOLDER] [--synchronous] [--seed N] [--gnss 0.9.16|0.9.15]

A server that the official carla client talks to as if it were CARLA 0.9.16, without Unreal, over the embedded world. Ctrl-C stops it.

examples:
  drive serve carla                                   test_c on ports 2000 and 2001 of this machine
  drive serve carla --map Town01 --maps ~/carla_maps  a town of a folder of .xodr or .xodr.gz files
  drive serve carla --port 3000 --synchronous         the clock waits for a client's tick from the start: two runs are equal to the bit

The protocol has no passwords: with --host other than 127.0.0.1, everybody who reaches the port may drive.
"""

import argparse
import logging
from pathlib import Path

HELP = "run a server for carla clients, where no CARLA is installed"


def run(argv: list[str]) -> int:
    """Serve until interrupted."""
    from drive.core.errors import ConfigError
    from drive.simulators.carla_server.server import ServerConfig, serve

    parser = argparse.ArgumentParser("drive serve", add_help=False, exit_on_error=False)
    parser.add_argument("what", choices=("carla",))
    parser.add_argument("--map", default=ServerConfig.map)
    parser.add_argument("--port", type=int, default=ServerConfig.port)
    parser.add_argument("--host", default=ServerConfig.host)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--synchronous", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gnss", choices=("0.9.16", "0.9.15"), default="0.9.16")
    try:
        given, rest = parser.parse_known_args(argv)
    except (argparse.ArgumentError, SystemExit) as error:
        raise ConfigError(f"drive serve: {error}; `drive serve --help` has examples") from error
    if rest:
        raise ConfigError(f"drive serve does not know {' '.join(rest)}; `drive serve --help` has examples")
    if not 0 <= given.port < 65535:
        raise ConfigError(f"--port is between 0 and 65534 (0 takes a free one), got {given.port}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = ServerConfig(given.map, given.port, given.host, given.maps, given.synchronous, given.seed, gnss=given.gnss)
    serve(config, started=lambda s: print(f"map {s.episode.town.name}, carla.Client({config.host!r}, {s.port}); Ctrl-C stops", flush=True))
    return 0
