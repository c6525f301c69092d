"""Settings: Hydra groups under configs/, and overrides checked all at once before anything heavy is imported or written.

`configs/train.yaml` and its like hold a defaults list of groups (stage, planner, tokenizer, ...), each a folder with one YAML
file per choice. On the command line `stage=grpo` takes a choice of a group and `stage.learning_rate=1e-4` sets a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drive.cli.schema import coerce, hint_of, nearest, report, suggestion, to_dataclass
from drive.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["groups", "load_config", "to_dataclass"]

CONFIGS = Path(__file__).parents[1] / "configs"


class _Override(NamedTuple):
    text: str  # as typed
    key: str
    value: Any  # parsed: int, float, bool, str, None, list or dict
    raw: str  # the value as typed


def groups(folder: Path = CONFIGS) -> dict[str, list[str]]:
    """Group name to the names of its choices, from the YAML files present."""
    found = {sub.name: sorted(file.stem for file in sub.glob("*.yaml")) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    return {name: choices for name, choices in found.items() if choices}


def load_config(config_name: str, overrides: list[str], folder: Path = CONFIGS) -> DictConfig:
    """The config `config_name` with `overrides` (`group=choice`, `key.path=value`) applied, all interpolations resolved.

    `OmegaConf.to_container(config)` gives it as plain values (for RunFolder.create), `to_dataclass(config.stage, ...)` a section.
    Raises ConfigError that lists every fault at once: no such choice, no such key, wrong type, no '=', a key left without a value.
    """
    from hydra import initialize_config_dir

    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if config_name not in names:
        raise ConfigError(f"no config named {config_name}{suggestion(config_name, names)}")
    faults: list[str] = []
    parsed = [override for text in overrides if (override := _parse(text, faults))]
    available = groups(folder)
    with initialize_config_dir(str(folder.resolve()), version_base=None, job_name="drive"):
        config = _with_choices(config_name, parsed, available, faults)
    values = [override for override in parsed if override.key not in available]
    _set_values(config, values, available, faults)
    if not faults:
        _resolve(config, faults)
    report(faults, f"settings of {config_name}")
    return config


def _parse(text: str, faults: list[str]) -> _Override | None:
    """One override, or None where a fault was added."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override, OverrideType
    from hydra.errors import HydraException

    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        faults.append(f"{text}: expected key=value")
        return None
    try:
        override: Override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        faults.append(f"{text}: cannot be read ({str(error).splitlines()[0]}); quote a value that holds signs, such as 'key=\"a, b\"'")
        return None
    if override.type != OverrideType.CHANGE or override.package is not None:
        faults.append(f"{text}: '+', '~' and '@' are not used here; keys that exist are set with key=value")
        return None
    if override.is_sweep_override():
        faults.append(f"{text}: one value at a time, a run for each; where {key} takes a list it is written in brackets, as in {key}=[{raw}]")
        return None
    return _Override(text, override.key_or_group, override.value(), raw)


def _with_choices(name: str, overrides: list[_Override], available: dict[str, list[str]], faults: list[str]) -> DictConfig:
    """The config composed with every group choice among `overrides`; a misspelt choice counts as the nearest one, so that the
    keys beside it are still checked against the right file."""
    pending: dict[str, str] = {}
    for text, key, value, _ in overrides:
        if key not in available:
            continue
        choice: str | None = str(value)
        if choice not in available[key]:
            faults.append(f"{text}: no {key} of that name{suggestion(str(value), available[key])}")
            choice = nearest(str(value), available[key])
        if choice is not None:
            pending[key] = choice
    taken: list[str] = []
    while True:
        config, active = _compose(name, taken)
        ready = {key: choice for key, choice in pending.items() if key in active}  # a choice may bring further groups
        if not ready:
            break
        taken += [f"{active[key]}={choice}" for key, choice in ready.items()]
        pending = {key: choice for key, choice in pending.items() if key not in ready}
    faults += [f"{key}={choice}: {name} has no group {key}; it has: {', '.join(active)}" for key, choice in pending.items()]
    return config


def _compose(name: str, choices: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """The composed config, and the groups that are part of it: name to Hydra's own name, which says the section where it stands."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import open_dict

    try:
        config = compose(name, choices, return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(f"config {name}: {error}") from error
    active = {full.partition("@")[0]: full for full in sorted(config.hydra.runtime.choices) if not full.startswith("hydra/")}
    with open_dict(config):
        del config["hydra"]
    return config, active


def _set_values(config: DictConfig, overrides: list[_Override], available: dict[str, list[str]], faults: list[str]) -> None:
    """Set each key to its value in `config`, after checking that it exists and that the value is of the default's type."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    defaults = _flat(plain)
    settable = [key for key, default in defaults.items() if not (isinstance(default, dict) and default)]
    for text, key, value, raw in overrides:
        if key not in defaults:
            faults.append(f"{text}: no such key{_near_key(key, settable, available)}")
            continue
        default = defaults[key]
        if key not in settable:
            faults.append(f"{text}: {key} is a section; set its keys, such as {next(k for k in settable if k.startswith(key + '.'))}")
            continue
        if isinstance(default, str) and default.startswith("${"):
            default = OmegaConf.select(config, key)
        hint = Any if default == "???" else hint_of(default)
        if hint in (str, str | None) and isinstance(value, int | float):
            value = raw  # `name=007` is a name
        try:
            fitted = coerce(value, hint)
        except ValueError as error:
            faults.append(f"{text}: {error}")
            continue
        OmegaConf.update(config, key, fitted, force_add=True)


def _resolve(config: DictConfig, faults: list[str]) -> None:
    """Resolve every interpolation in place; a key still without a value, or pointing nowhere, is a fault."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    faults += [f"{key}: must be given, as in {key}=VALUE" for key in sorted(OmegaConf.missing_keys(config))]
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        faults.append(str(error).splitlines()[0])


def _flat(section: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key to value of every key in a nested dict, sections included."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{key}."))
    return found


def _near_key(key: str, settable: list[str], available: dict[str, list[str]]) -> str:
    """The nearest key; by its last part where the typed key names no section, so that `learning_rate` finds its section."""
    if "." not in key:
        by_last = {full.rpartition(".")[2]: full for full in reversed(settable)}
        near = nearest(key, [*by_last, *available])
        if near:
            return f"; did you mean {by_last.get(near, near)}?"
    near = nearest(key, settable)
    if near:
        return f"; did you mean {near}?"
    section = key.rpartition(".")[0]
    there = [full for full in settable if section and full.startswith(f"{section}.")]
    return f"; there are: {', '.join(there or settable)}"
