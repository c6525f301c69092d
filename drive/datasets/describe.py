"""The facts of a split: what its scenes hold, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drive.core.types import AgentType, Scenario


def describe(scenes: Sequence[Scenario], expected: int, faults: Sequence[str], fingerprint: str) -> dict[str, Any]:
    """Named facts of `scenes`, in the order in which people ask for them; `expected` scenes should be there, `faults` tell of the others."""
    speeds = np.array([scene.ego.state(scene.present).speed for scene in scenes])
    agents = Counter(AgentType(int(kind)).name.lower() for scene in scenes for kind in scene.agents.types[scene.agents.valid[:, scene.present]])
    cameras = Counter(f"{c.name} {c.width}x{c.height}" for scene in scenes for c in scene.cameras)
    return {
        "scenes": len(scenes),
        "scenes expected": expected,
        "not read": expected - len(scenes),
        "faults": len(faults),
        "logs": len({scene.log_id for scene in scenes}),
        "source": _listed(Counter(scene.source for scene in scenes)),
        "kinds": _listed(Counter(scene.kind for scene in scenes)),
        "commands": _listed(Counter(scene.command.value for scene in scenes)),
        "speed (m/s)": ", ".join(f"{name} {value:.1f}" for name, value in _quartiles(speeds).items()),
        "steps (s)": _listed(Counter(f"{scene.dt:g}" for scene in scenes)),
        "agents per scene": ", ".join(f"{kind} {count / max(len(scenes), 1):.1f}" for kind, count in agents.most_common()) or "none",
        "cameras": _listed(cameras),
        "with a map": _share(scene.notes.get("map") != "corridor" for scene in scenes),
        "with a whole future": _share(scene.teacher is not None for scene in scenes),
        "with traffic lights": _share(scene.lights is not None for scene in scenes),
        "with language": _share(bool(scene.language) for scene in scenes),
        "with reasoning": _share(bool(scene.reasoning) for scene in scenes),
        "history prolonged": _share(bool(scene.notes.get("prolonged_steps") or scene.notes.get("prolonged_frames")) for scene in scenes),
        "fingerprint": fingerprint,
    }


def _quartiles(values: np.ndarray) -> dict[str, float]:
    names = {"least": 0, "quarter": 25, "median": 50, "three quarters": 75, "most": 100}
    return {name: float(np.percentile(values, at)) for name, at in names.items()} if len(values) else {}


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def _share(flags: Any) -> str:
    flags = list(flags)
    return f"{sum(flags)} of {len(flags)}"
