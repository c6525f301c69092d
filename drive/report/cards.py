"""Model cards: the README.md of a checkpoint, as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

import drive

LIMITS = "For research in simulation and on logged data. It must not control a vehicle on a public road."


def model_card(
    name: str,
    policy_config: Mapping[str, Any],
    what: str,
    command: str,
    data_fingerprint: str,
    metrics: Mapping[str, float | str],
    licence: str = "Apache-2.0",
    limits: str = "",
) -> str:
    """README.md with YAML front matter.

    policy_config: plain values of the model's settings; what: one paragraph on what the checkpoint is; command: reproduces it;
    metrics: name (with benchmark version and unit) to value; limits: what it must not be used for.
    """
    front = {
        "license": licence.lower(),
        "library_name": "drive-vla",
        "pipeline_tag": "robotics",
        "tags": ["autonomous-driving", "vision-language-action", "trajectory-planning"],
    }
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in metrics.items()]
    table = ["| metric | value |", "| --- | ---: |", *rows] if rows else ["None was measured."]
    made = f"With drive {drive.__version__}, on data with fingerprint `{data_fingerprint}`:\n\n```sh\n{command.strip()}\n```"
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\n{what.strip()}",
        "## Results\n\n" + "\n".join(table),
        f"## How it was made\n\n{made}",
        f"## Settings\n\n```yaml\n{yaml.safe_dump(dict(policy_config), sort_keys=False)}```",
        "## Limits\n\n" + (limits.strip() or LIMITS),
        f"## Licence\n\n{licence}",
    ]
    return "\n\n".join(sections) + "\n"


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
