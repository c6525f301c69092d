"""Bounds of settings, told as ValueError; a config section turns it into one clear ConfigError."""

from __future__ import annotations

from typing import Any


def at_least(low: float, settings: Any, *names: str) -> None:
    """Raise ValueError that lists every attribute of `settings` among `names` below `low`."""
    below = [f"{name}={getattr(settings, name)}" for name in names if getattr(settings, name) < low]
    if below:
        raise ValueError(f"{', '.join(below)}: must be at least {low:g}")


def above(low: float, settings: Any, *names: str) -> None:
    """Raise ValueError that lists every attribute of `settings` among `names` that is not above `low`."""
    below = [f"{name}={getattr(settings, name)}" for name in names if not getattr(settings, name) > low]
    if below:
        raise ValueError(f"{', '.join(below)}: must be above {low:g}")


def share(settings: Any, *names: str) -> None:
    """Raise ValueError that lists every attribute of `settings` among `names` outside 0..1."""
    outside = [f"{name}={getattr(settings, name)}" for name in names if not 0.0 <= getattr(settings, name) <= 1.0]
    if outside:
        raise ValueError(f"{', '.join(outside)}: must lie between 0 and 1")
