"""drive: a research toolkit for vision-language-action driving."""

from pathlib import Path as _Path

__version__ = "0.1.0"

_ROOMS = ("tokenizers", "planners", "simulators", "configs")
_missing = [room for room in _ROOMS if not (_Path(__file__).parent / room).is_dir()]
if _missing:
    raise ImportError(
        f"drive/{', drive/'.join(_missing)} are git symlinks that this copy lost (a ZIP download, or Windows without "
        "symlinks): clone with `git clone -c core.symlinks=true`, or install the wheel."
    )
