"""Recipes and saved configs, YAML files of a configuration: found, read, validated, written and compared."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import jsonargparse
import yaml

from isometry.config import (
    ALIASES,
    FORMER_DEFAULTS,
    FREE_ON_RESUME,
    NOT_KEPT_ON_RESUME,
    ON_COMMAND_LINE_ONLY,
    RunConfig,
    canonical,
    out_of_range,
)
from isometry.config.option_errors import option_error
from isometry.config.paths import STORED, absolute_paths, expand_path, expand_paths
from isometry.errors import UserError, did_you_mean
from isometry.parsing import YAML_ERRORS, YamlLoader, read_yaml, validate

Config = TypeVar("Config")

# --- finding

PACKAGE = Path(__file__).parent


def recipes_folder() -> Path:
    """The folder of the recipes: in an installed package, or beside ``src/`` in the repository."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Every recipe by its name, its path in that folder: ``digits/demo.yaml``."""
    folder = recipes_folder()
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> str:
    """The file that ``--config`` names: a path if it exists; otherwise the shipped recipe of that name, with or without
    ``recipes/`` before it, so that the commands of the documentation work in any folder; otherwise ``name`` itself."""
    if Path(name).exists():
        return name
    return str(shipped_recipes().get(name.removeprefix("recipes/"), name))


def recipe_path(path: str, beside: str | Path) -> Path:
    """A recipe named in another one: relative to that one's folder."""
    path = expand_path(path)
    return Path(path) if Path(path).is_absolute() else Path(beside).parent / path


# --- validating recipes and options


def read_recipe(path: str | Path, *, pipe: bool = False) -> dict[str, Any]:
    """The options in a recipe, by their names in the configuration's class; ``pipe`` as in :func:`read_yaml`.

    Raises:
        UserError: as :func:`read_yaml`, or an option that only a command line may have.
    """
    values = _canonical(read_yaml(Path(path), f"--config {path}", pipe=pipe))
    _refuse_permission(values, f"--config {path}: ")
    return values


def read_config(kind: type[Config], path: str | Path, *, pipe: bool = False) -> Config:
    """The configuration of class ``kind`` (a dataclass) in a YAML file; options that it lacks have their defaults.
    ``pipe`` is for a path that the user typed: a shell's ``<(command)`` is one.

    Raises:
        UserError: no such file, a recipe for another command, an unknown key (near names are given), or a value of
            another type.
    """
    return config_of(kind, read_recipe(path, pipe=pipe), path)


def config_of(kind: type[Config], values: dict[str, Any], path: str | Path) -> Config:
    """:func:`read_config` of the options that :func:`read_recipe` found at ``path``."""
    command = _other_command(kind, values)
    if command:
        raise UserError(
            f"--config {path}: is a recipe for isometry {command}; run isometry {command} --config {path}"
        )
    return _build(kind, values, f"--config {path}: ")


def with_overrides(config: Config, overrides: Mapping[str, Any], where: str) -> Config:
    """``config`` with some options replaced, validated as a recipe's keys are.

    Raises:
        UserError: an unknown key or a value of another type; the message begins with ``where``.
    """
    _refuse_permission(_canonical(overrides), f"{where}: ")
    return with_typed(config, overrides, f"{where}: ")


def with_typed(config: Config, options: Mapping[str, Any], where: str = "") -> Config:
    """:func:`with_overrides` for options of the command line itself."""
    current = asdict(config)  # type: ignore[call-overload]
    return _build(type(config), {**current, **_canonical(options)}, where)


def _refuse_permission(values: Mapping[str, Any], where: str) -> None:
    for permission in ON_COMMAND_LINE_ONLY:
        if values.get(permission, False) is not False:
            raise UserError(f"{where}{permission}: is for the command line alone; take it out")


SWITCHES = {"log_tensorboard": ("log", "tensorboard"), "log_wandb": ("log", "wandb")}
"""Former switches, each of which is now an entry of a list: the option and the entry."""


def _canonical(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Options by name, those of a group inside it: ``keep-rate: 0.6`` -> ``prune: {keep_rate: 0.6}``."""
    found = {canonical(str(key)): value for key, value in values.items()}
    for name in [alias for alias in ALIASES.values() if "." in alias and alias in found]:
        group, _, part = name.partition(".")
        if isinstance(found.get(group, {}), dict):
            found[group] = {**found.get(group, {}), part: found.pop(name)}
    for name, (option, entry) in SWITCHES.items():
        if found.pop(name, False) and isinstance(found.setdefault(option, []), list):
            found[option] = [*found[option], entry]
    return found


def _other_command(kind: type[Any], values: Mapping[str, Any]) -> str:
    """The command whose recipe this is, if its keys are none of ``kind``; else an empty string."""
    foreign = values.keys() - get_type_hints(kind).keys()
    if {"base", "variants"} & foreign:
        return "compare"
    if not foreign or values.keys() - get_type_hints(RunConfig).keys():
        return ""
    if group := [name for name in ("prune", "grow") if values.get(name)]:
        return group[0]
    losses = values.get("losses")
    teaching = isinstance(losses, dict) and losses.keys() - {"ce"}
    return "distill" if values.get("teacher") or teaching else "train"


def _build(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    _check_keys(kind, values, where)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False)
    try:
        parsed = parser.parse_object(values).as_dict()
    except (jsonargparse.ArgumentError, *YAML_ERRORS) as error:
        # It reads text as YAML, and lets some of PyYAML's errors through.
        raise UserError(f"{where}{option_error(kind, str(error), values)}") from error
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            parsed[name] = hint(**parsed[name])  # type: ignore[operator]
    config = kind(**parsed)
    if fault := out_of_range(config):
        raise UserError(f"{where}{fault}")
    return expand_paths(config)


def parse_value(text: str) -> Any:
    """The value of a text inside an option's value, as in a recipe; the text itself if it is not YAML."""
    try:
        YamlLoader(text).get_single_node()
        return jsonargparse.get_loader("yaml")(text)
    except YAML_ERRORS:
        return text


def _check_keys(kind: type[Any], values: dict[str, Any], where: str) -> None:
    known = get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}{key}: no such key{_hint(key, [*known, *ALIASES])}")
        _check_given(known[key], value, f"{where}{key}")
        if not is_dataclass(known[key]):
            continue
        parts = get_type_hints(known[key])
        if not isinstance(value, dict):
            raise UserError(f"{where}{key}: must hold {' and '.join(parts)}, not {value!r}")
        for part in value.keys() - parts.keys():
            raise UserError(f"{where}{key}.{part}: no such key{_hint(str(part), parts)}")
        for part, inner in value.items():
            _check_given(parts[part], inner, f"{where}{key}.{part}")


def _check_given(hint: Any, value: Any, where: str) -> None:
    """Refuses a key without a value, which jsonargparse takes for any type."""
    if value is None and hint is not Any and type(None) not in get_args(hint):
        raise UserError(f"{where}: has no value; give one, or take the line out")


def _hint(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, known, "")
    return f"; {hint}" if hint else ""


# --- saved configs


def saved_options(config: RunConfig) -> dict[str, Any]:
    """All options of a run that are saved, by name: no permission to run what others name."""
    return {name: value for name, value in asdict(config).items() if name not in ON_COMMAND_LINE_ONLY}


def config_to_yaml(config: RunConfig) -> str:
    """All options of a run as YAML, which :func:`read_saved` and ``--config`` read."""
    return yaml.safe_dump(saved_options(config), sort_keys=False, allow_unicode=True)


def read_saved(path: Path) -> tuple[RunConfig, list[str]]:
    """The configuration that :func:`config_to_yaml` wrote to a file, as :func:`saved_config`.

    Raises:
        UserError: it can't be read, or :func:`saved_config` refuses it.
    """
    return saved_config(read_yaml(path, str(path)), str(path))


def saved_config(values: Mapping[Any, Any], where: str) -> tuple[RunConfig, list[str]]:
    """A saved configuration, also of an older version, from the values of its YAML.

    Returns:
        The configuration, with former defaults for options that were added since; and a note that names them, if any.

    Raises:
        UserError: an option that no longer exists, or a value of another type; the message begins with ``where``.
    """
    try:
        options = _canonical(validate(values, dict[str, Any]))
        _refuse_permission(options, "")
        _check_keys(RunConfig, options, "")
        config: RunConfig = validate({**FORMER_DEFAULTS, **options}, RunConfig)
    except (UserError, ValueError) as error:
        raise UserError(
            f"{where}: {error}; another version of isometry wrote it, or it was changed: correct the file"
        ) from error
    groups = {name: group for name, group in options.items() if isinstance(group, dict)}
    saved = {*options, *(f"{name}.{part}" for name, group in groups.items() for part in group)}
    lacking = [
        f"{name} ({value!r})"
        for name, value in flat_options(config).items()
        if name not in FREE_ON_RESUME | saved
    ]
    note = f"{where}: lacks options that were added since: {', '.join(lacking)}; these values are used, as before"
    return config, [note] if lacking else []


def changed_options(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """(name, old, new) of every option that differs and affects what the run computes.

    Without those that :func:`with_former_defaults` takes over.
    """
    now = flat_options(absolute_paths(with_former_defaults(new, old)))
    # Older versions saved relative paths.
    before = flat_options(absolute_paths(old))
    return [
        (name, before[name], now[name])
        for name in now
        if name not in FREE_ON_RESUME and before[name] != now[name]
    ]


def with_former_defaults(config: RunConfig, saved: RunConfig) -> RunConfig:
    """``config`` of a run that an earlier version began as ``saved``, with the defaults of then."""
    default = RunConfig()
    kept: dict[str, Any] = {
        name: former
        for name, former in FORMER_DEFAULTS.items()
        if getattr(saved, name) == former and getattr(config, name) == getattr(default, name)
    }
    return replace(config, **kept)


def as_resumed(saved: RunConfig, now: RunConfig) -> tuple[RunConfig, list[str]]:
    """The configuration of a run that was begun as ``saved``, with what may differ on resume as it is ``now``: where
    its data and networks are, and options that do not change what it computes. And what differs: ``--workers 0``.
    """
    kept: dict[str, Any] = {name: getattr(now, name) for name in STORED | FREE_ON_RESUME - NOT_KEPT_ON_RESUME}
    changed = [name for name in flat_options(saved) if name in kept and kept[name] != getattr(saved, name)]
    return replace(saved, **kept), [f"--{name.replace('_', '-')} {kept[name]}" for name in changed]


def flat_options(config: RunConfig) -> dict[str, Any]:
    """Options by name, those in groups as ``grow.depth``."""
    flat: dict[str, Any] = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            flat |= {f"{name}.{part}": inner for part, inner in vars(value).items()}
        else:
            flat[name] = value
    return flat
