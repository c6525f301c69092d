"""The benchmarks by name: the one place that knows them all."""

from __future__ import annotations

from drive.benchmarks.displacement import AdeAv2, WaymoMotion
from drive.benchmarks.epdms import Epdms
from drive.benchmarks.evaluate import Benchmark
from drive.benchmarks.nuplan_cls import NuplanCls
from drive.benchmarks.nuscenes_l2 import L2Stp3, L2Uniad, L2Vad
from drive.benchmarks.pdms import Pdms
from drive.benchmarks.rater_feedback import Rfs
from drive.benchmarks.results import Style
from drive.core.errors import ConfigError

_MADE = {made.style.name: made for made in (Pdms, Epdms, NuplanCls, L2Uniad, L2Stp3, L2Vad, AdeAv2, WaymoMotion, Rfs)}


def make_benchmark(name: str) -> Benchmark:
    """The benchmark of a config's benchmark.name. Raises ConfigError where there is none."""
    if name not in _MADE:
        raise ConfigError(f"no benchmark is named {name!r}: {', '.join(_MADE)}")
    return _MADE[name]()


def style_of(name: str) -> Style | None:
    """The style of a benchmark that results are of, None where it is unknown."""
    return _MADE[name].style if name in _MADE else None
