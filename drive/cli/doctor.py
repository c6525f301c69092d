"""usage: drive doctor [compile | carla]

Prints what this installation has, and exits with 1 where something is broken: each fault comes with its cure.

examples:
  drive doctor
  drive doctor compile      compile the numeric kernels now, a minute or so, rather than in the first command that needs them
  drive doctor carla        closed loop: the client, what it needs, the ports, and whether a server of our own starts and answers
"""

import importlib
import importlib.util
import os
import platform
import socket
import tempfile
import time
from importlib import metadata
from pathlib import Path

import drive
from drive.core.errors import DriveError

HELP = "check this installation and say what is missing or broken"
AGENT = Path(__file__).parent / "leaderboard" / "drive_agent.py"
PORTS = (2000, 2001, 2002, 8000)  # a server's calls, streams and further GPUs; the client's Traffic Manager
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "shapely", "hydra-core", "stable-baselines3")


def run(argv: list[str]) -> int:
    """Print the findings; 1 where one of them is a fault."""
    if argv == ["compile"]:
        print(f"numeric kernels compiled in {compile_kernels():.0f} s")
        return 0
    if argv == ["carla"]:
        return _closed_loop()
    if argv:
        raise DriveError(f"drive doctor takes no argument but compile or carla, and got: {' '.join(argv)}")
    print(f"drive         {drive.__version__}")
    print(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    for name in PACKAGES:
        print(f"{name:<13} {_version(name)}")
    print(f"carla         {_carla()}")
    print(f"device        {_device()}")
    fault = torchvision_fault()
    print(f"torchvision   {fault or 'not in the way'}")
    return 1 if fault else 0


def compile_kernels() -> float:
    """Seconds it took to generate, plan and score scenes, so that every kernel of that is in numba's cache on disk."""
    from drive.benchmarks.pdms import evaluate_pdms
    from drive.datasets.select import select
    from drive.planners.idm import IdmPlanner
    from drive.planners.pdm import PdmExpert
    from drive.stages.codebook import CodebookConfig, ego_plans, fit_codebook

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as root:
        config = {"name": "embedded", "root": root, "test_scenes": 8, "seed": 0, "workers": 1}
        scenes = select(config, "test", progress=False).scenarios
        evaluate_pdms(scenes, IdmPlanner())
        evaluate_pdms(scenes, PdmExpert())
        codebook = fit_codebook(scenes, CodebookConfig(), "none")
        codebook.encode(ego_plans(scenes, 10, codebook.dt))
    if all(importlib.util.find_spec(name) for name in ("carla", "msgpack")):
        _drive_a_little()
    return time.perf_counter() - start


def _drive_a_little() -> None:
    """One short route of the closed loop with its traffic, and a camera's frames, so that neither compiles in a user's first evaluation."""
    from drive.benchmarks.carla_company import company
    from drive.benchmarks.carla_drive import DriveConfig, drive_route
    from drive.planners.constant_velocity import ConstantVelocity
    from drive.planners.pdm import PdmExpert
    from drive.simulators.carla_embedded_routes import embedded_routes
    from drive.simulators.carla_process import ServerProcess
    from drive.simulators.carla_routes import CarlaRoute
    from drive.simulators.carla_session import Session

    known = embedded_routes("test", 1).routes[0]
    short = CarlaRoute(known.id, known.town, known.keypoints[:2], None, (), ())
    with ServerProcess(short.town) as server, Session(server.host, server.port, timeout_s=60.0) as session:
        drive_route(session, short, PdmExpert(), DriveConfig(), company)
        drive_route(session, short, ConstantVelocity(), DriveConfig(run_up=60.0, vehicles=0, walkers=0), company)


def _closed_loop() -> int:
    """Print what driving through the carla client finds here; 1 where our own server cannot be driven in."""
    from drive.simulators.carla_server.town import py123d_maps

    maps, home = py123d_maps(), home_fault()  # asked before the client is imported, as drive mends it for itself
    print(f"carla         {_carla()}")
    print(f"msgpack       {_version('msgpack')}")
    print(f"home          {home or 'set, or CARLA_CACHE_DIR is'}")
    for port in PORTS:
        print(f"port {port:<8} {'free' if port_is_free(port) else 'in use, perhaps by CARLA: choose another one for a server of your own'}")
    print(f"maps          {f'the towns of drive, and those of py123d in {maps}' if maps else 'the towns of drive; maps= takes a folder of .xodr files'}")
    print(f"agent         {AGENT} (for --agent of CARLA's evaluators, docs/carla.md)")
    print(f"evaluators    {'leaderboard is on PYTHONPATH' if importlib.util.find_spec('leaderboard') else 'not on PYTHONPATH; drive eval needs none'}")
    fault = server_fault()
    print(f"server        {fault or 'a server of our own starts, answers and ticks'}")
    return 1 if fault else 0


def home_fault() -> str | None:
    """What is wrong with the environment for a script that imports carla, or None."""
    if os.environ.get("HOME") or os.environ.get("CARLA_CACHE_DIR"):
        return None
    return "neither HOME nor CARLA_CACHE_DIR is set: importing carla outside of drive ends the process; set one to a folder that can be written"


def port_is_free(port: int) -> bool:
    """Whether a server could listen there on this machine."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def server_fault() -> str | None:
    """Start our server on free ports and drive one tick through the client; what is wrong, or None."""
    from drive.simulators.carla_process import ServerProcess
    from drive.simulators.carla_session import Session

    try:
        with ServerProcess() as server, Session(server.host, server.port) as session:
            before = session.world.get_snapshot().frame
            if session.world.tick() != before + 1:
                return "BROKEN: a tick does not make one frame"
    except (DriveError, RuntimeError) as error:
        return f"BROKEN ({error})"
    return None


def torchvision_fault() -> str | None:
    """What is wrong with an installed torchvision, or None.

    A build for another torch is found by transformers and breaks every model class on import, so it is imported for real here.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return None
    except (ImportError, RuntimeError, OSError) as error:
        return f"BROKEN ({str(error).splitlines()[0]}); drive does not need it: pip uninstall torchvision"
    return None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _carla() -> str:
    from drive.simulators.carla_session import carla_module

    try:
        carla_module()
    except DriveError:
        return "not installed: no wheel for this platform, or left out; only OpenDRIVE maps of your own need it: the towns of drive come read"
    return f"{_version('carla')} (client and map reader; no server is needed for them)"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else f"cpu ({torch.get_num_threads()} threads)"
