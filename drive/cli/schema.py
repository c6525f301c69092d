"""Plain config values checked against types, with every fault told at once and the nearest valid name."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from drive.core.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name closest in spelling or of these initials (lr: learning_rate), or None where none is close."""
    valid = list(valid)
    section, _, last = name.rpartition(".")
    for known in valid:
        other, _, key = known.rpartition(".")
        if section == other and "".join(word[:1] for word in key.split("_")) == last:
            return known
    return next(iter(difflib.get_close_matches(name, valid, n=1, cutoff=0.6)), None)


def suggestion(name: str, valid: Iterable[str]) -> str:
    """'; did you mean x?', or '; there are: a, b' where nothing is close."""
    valid = list(valid)
    near = nearest(name, valid)
    return f"; did you mean {near}?" if near else f"; there are: {', '.join(valid) or 'none'}"


def report(faults: list[str], where: str) -> None:
    """Raise one ConfigError that lists every fault; return where there is none."""
    if len(faults) == 1:
        raise ConfigError(f"{where}: {faults[0]}")
    if faults:
        raise ConfigError(f"{where}: {len(faults)} errors\n" + "\n".join(f"  {fault}" for fault in faults))


def require_at_least(config: Mapping[str, Any], lows: Mapping[str, float], where: str) -> None:
    """Raise one ConfigError that lists every key (dotted) whose value lies below its bound."""
    faults = []
    for key, low in lows.items():
        value: Any = config
        for part in key.split("."):
            value = value[part]
        if value < low:
            faults.append(f"{key}={value}: must be at least {low:g}")
    report(faults, where)


def hint_of(default: Any) -> Any:
    """The type that a default value stands for: null stands for a name or a path, a uniform list for a list of its elements' type."""
    if default is None:
        return str | None
    if isinstance(default, list):
        kinds = {hint_of(item) for item in default if not isinstance(item, dict | list)}
        if kinds == {int, float}:
            return list[float]
        return list[kinds.pop()] if len(kinds) == 1 else list
    return type(default)


def coerce(value: Any, hint: Any) -> Any:
    """`value` as `hint` asks (an int becomes a float, a list a tuple, a string an enum member or a Path).

    Raises ValueError with what was expected; a bool is no number and a number is no bool.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, arguments)
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"expected one of {', '.join(map(str, arguments))}, not {value!r}{_near_choice(value, arguments)}")
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        choices = {member.value: member for member in hint}
        if value in choices:
            return choices[value]
        raise ValueError(f"expected one of {', '.join(map(str, choices))}, not {value!r}{_near_choice(value, choices)}")
    if origin in (list, tuple, dict) or hint in (list, tuple, dict):
        return _coerce_container(value, origin or hint, arguments)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"expected {_name(hint)}, not {_shown(value)}")


def to_dataclass(section: Mapping[str, Any], cls: type[T], where: str = "config") -> T:
    """A config section (OmegaConf or plain) as the frozen dataclass `cls`; nested dataclasses come from nested sections.

    `where` names the section in errors. Raises ConfigError listing every unknown key (with the nearest name), missing key and
    wrong type at once. A ValueError from the class's own `__post_init__` becomes a ConfigError too.
    """
    from omegaconf import DictConfig, OmegaConf

    plain = OmegaConf.to_container(section, resolve=True) if isinstance(section, DictConfig) else section
    faults: list[str] = []
    built = _build(plain, cls, "", faults)
    report(faults, where)
    return typing.cast(T, built)


def _build(values: Any, cls: Any, prefix: str, faults: list[str]) -> Any:
    """The dataclass, or None where a fault was added to `faults`."""
    if not isinstance(values, Mapping):
        faults.append(f"{prefix.rstrip('.') or 'it'}: expected a section of keys, not {_shown(values)}")
        return None
    before = len(faults)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    faults += [f"{prefix}{key}: no such key{suggestion(str(key), fields)}" for key in values if key not in fields]
    ready = {}
    for name, field in fields.items():
        if name not in values:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                faults.append(f"{prefix}{name}: missing; give it a value ({_name(hints[name])})")
            continue
        if dataclasses.is_dataclass(hints[name]):
            ready[name] = _build(values[name], hints[name], f"{prefix}{name}.", faults)
            continue
        try:
            ready[name] = coerce(values[name], hints[name])
        except ValueError as error:
            faults.append(f"{prefix}{name}: {error}")
    if len(faults) > before:
        return None
    try:
        return cls(**ready)
    except ValueError as error:
        faults.append(f"{prefix.rstrip('.')}: {error}" if prefix else str(error))
        return None


def _coerce_union(value: Any, options: tuple[Any, ...]) -> Any:
    exact = [option for option in options if type(value) is option]  # 1 stays an int under `float | int`
    for option in [*exact, *options]:
        with contextlib.suppress(ValueError):
            return coerce(value, option)
    raise ValueError(f"expected {' or '.join(_name(option) for option in options)}, not {_shown(value)}")


def _coerce_container(value: Any, kind: type, arguments: tuple[Any, ...]) -> Any:
    if kind is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a section of keys, not {_shown(value)}")
        of_key, of_value = arguments or (Any, Any)
        return {coerce(key, of_key): coerce(item, of_value) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list such as [1,2], not {_shown(value)}")
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise ValueError(f"expected {len(arguments)} values, not {len(value)}")
        return tuple(coerce(item, argument) for item, argument in zip(value, arguments, strict=True))
    of_item = arguments[0] if arguments else Any
    return kind(coerce(item, of_item) for item in value)


def _near_choice(value: Any, choices: Iterable[Any]) -> str:
    near = nearest(str(value), [str(choice) for choice in choices])
    return f"; did you mean {near}?" if near else ""


def _name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r} ({type(value).__name__})"
