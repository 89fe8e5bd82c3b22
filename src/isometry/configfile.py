"""A run's configuration as a file, and what has changed since it was written."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from isometry.config import ALIASES, FREE_ON_RESUME, RunConfig, canonical
from isometry.errors import UserError, reason
from isometry.safe_yaml import FAILURES, LONGEST, RefusedError, load


def config_to_yaml(config: RunConfig) -> str:
    """The whole run as YAML, which ``--config`` reads back."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping, its keys in the option's own spelling (aliases and dashes resolved).

    Raises:
        UserError: no such file, no YAML, no mapping, or more than :mod:`isometry.safe_yaml` takes.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            content = load(file.read(LONGEST + 1))
    except OSError as error:
        raise UserError(f"--config {path}: can't be read ({error.strerror})") from error
    except RefusedError as error:
        raise UserError(f"--config {path}: {error}") from error
    except FAILURES as error:
        told = str(error) if isinstance(error, yaml.YAMLError) else reason(error)
        raise UserError(f"--config {path}: is not YAML ({' '.join(told.split())})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"--config {path}: must hold keys and values, one run option a key")
    return spelled(content)


def spelled(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Options in their own spelling, those of a group inside it: ``keep-rate: 0.6`` is ``prune: {keep_rate: 0.6}``."""
    found = {canonical(str(key)): value for key, value in values.items()}
    for name in [alias for alias in ALIASES.values() if "." in alias and alias in found]:
        group, _, part = name.partition(".")
        if isinstance(found.get(group, {}), dict):
            found[group] = {**found.get(group, {}), part: found.pop(name)}
    return found


def read_saved(path: Path) -> dict[str, Any]:
    """The fields of a RunConfig that :func:`config_to_yaml` wrote.

    Raises:
        UserError: the file can't be read, or was written by another version.
    """
    values = read_yaml(path)
    hints = get_type_hints(RunConfig).items()
    groups = {name: kind for name, kind in hints if isinstance(kind, type) and is_dataclass(kind)}
    known = set(values) == {field.name for field in fields(RunConfig)}
    if not known or not all(isinstance(values[name], dict) for name in groups):
        raise UserError(f"{path}: was written by another version of isometry; start a new --out")
    try:
        return values | {name: kind(**values[name]) for name, kind in groups.items()}
    except TypeError as error:
        raise UserError(f"{path}: was written by another version of isometry; start a new --out") from error


def changed_options(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """(name, old, new) of every option that differs and matters to what the run computes."""
    before, now = _flat(old), _flat(new)
    return [
        (name, before[name], now[name])
        for name in now
        if name not in FREE_ON_RESUME and before[name] != now[name]
    ]


def _flat(config: RunConfig) -> dict[str, Any]:
    """Options by name, those in groups as ``grow.depth``."""
    flat: dict[str, Any] = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            flat |= {f"{name}.{part}": inner for part, inner in vars(value).items()}
        else:
            flat[name] = value
    return flat
