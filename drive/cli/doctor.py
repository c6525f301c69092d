"""usage: drive doctor [compile]

Prints what this installation has, and exits with 1 where something is broken: each fault comes with its cure.

examples:
  drive doctor
  drive doctor compile      compile the numeric kernels now, a minute or so, rather than in the first command that needs them
"""

import importlib
import os
import platform
import tempfile
import time
from importlib import metadata

import drive
from drive.core.errors import DriveError

HELP = "check this installation and say what is missing or broken"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "numba", "shapely", "hydra-core", "stable-baselines3")


def run(argv: list[str]) -> int:
    """Print the findings; 1 where one of them is a fault."""
    if argv == ["compile"]:
        print(f"numeric kernels compiled in {compile_kernels():.0f} s")
        return 0
    if argv:
        raise DriveError(f"drive doctor takes no argument but compile, and got: {' '.join(argv)}")
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
    return time.perf_counter() - start


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
    try:
        importlib.import_module("carla")
    except ImportError:
        return "not installed: no wheel for this platform, or left out; only OpenDRIVE maps of your own need it: the towns of drive come read"
    return f"{_version('carla')} (client and map reader; no server is needed for them)"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else f"cpu ({torch.get_num_threads()} threads)"
