"""The benchmarks by name: the one place that knows them all."""

from __future__ import annotations

from drive.benchmarks import epdms, pdms
from drive.benchmarks.evaluate import Benchmark
from drive.benchmarks.results import Style
from drive.core.errors import ConfigError

_MADE = {pdms.STYLE.name: pdms.Pdms, epdms.STYLE.name: epdms.Epdms}


def make_benchmark(name: str) -> Benchmark:
    """The benchmark of a config's benchmark.name. Raises ConfigError where there is none."""
    if name not in _MADE:
        raise ConfigError(f"no benchmark is named {name!r}: {', '.join(_MADE)}")
    return _MADE[name]()


def style_of(name: str) -> Style | None:
    """The style of a benchmark that results are of, None where it is unknown."""
    return _MADE[name].style if name in _MADE else None
