"""Bounds of settings, collected and told as one ValueError; a config section turns it into one clear ConfigError."""

from __future__ import annotations

from typing import Any


def at_least(low: float, settings: Any, *names: str) -> list[str]:
    """A fault for every attribute of `settings` among `names` below `low`."""
    return [f"{name}={getattr(settings, name)} must be at least {low:g}" for name in names if getattr(settings, name) < low]


def above(low: float, settings: Any, *names: str) -> list[str]:
    """A fault for every attribute of `settings` among `names` that is not above `low`."""
    return [f"{name}={getattr(settings, name)} must be above {low:g}" for name in names if not getattr(settings, name) > low]


def share(settings: Any, *names: str) -> list[str]:
    """A fault for every attribute of `settings` among `names` outside 0..1."""
    return [f"{name}={getattr(settings, name)} must lie between 0 and 1" for name in names if not 0.0 <= getattr(settings, name) <= 1.0]


def refuse(faults: list[str]) -> None:
    """Raise one ValueError that lists `faults`, if there are any."""
    if faults:
        raise ValueError("; ".join(faults))
