"""drive: a research toolkit for vision-language-action driving."""

import hashlib as _hashlib
import os as _os
from pathlib import Path as _Path

__version__ = "0.1.0"

_ROOMS = ("tokenizers", "planners", "simulators", "configs")
_missing = [room for room in _ROOMS if not (_Path(__file__).parent / room).is_dir()]
if _missing:
    raise ImportError(
        f"drive/{', drive/'.join(_missing)} are git symlinks that this copy lost (a ZIP download, or Windows without "
        "symlinks): clone with `git clone -c core.symlinks=true`, or install the wheel."
    )

# Numba's cache looks at a kernel's own file alone and would go on with the old code of kernels that it calls from other files.
_files = sorted(file for room in ("core", "metrics", *_ROOMS) for file in (_Path(__file__).parent / room).rglob("*.py"))
_kernels = b"".join(source for source in (file.read_bytes() for file in _files) if b"njit" in source)
_cache = _Path(__file__).parent / "__pycache__" / f"numba-{_hashlib.sha256(_kernels).hexdigest()[:16]}"
if _Path(_os.environ.get("NUMBA_CACHE_DIR") or _cache).parent == _cache.parent:  # unset, or handed down by another drive process
    _os.environ["NUMBA_CACHE_DIR"] = str(_cache)
