"""A run's configuration as a file, and what has changed since it was written."""

import dataclasses
import math
import re
import types
import typing
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import jsonargparse
import yaml

from isometry.config import ALIASES, FREE_ON_RESUME, RunConfig, canonical
from isometry.errors import UserError, reason


def config_to_yaml(config: RunConfig) -> str:
    """The whole run as YAML, which ``--config`` reads back."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping, its keys in the option's own spelling (aliases and dashes resolved).

    Raises:
        UserError: no such file, no YAML, no mapping, or more than :mod:`isometry.recipes` takes.
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


def members(hint: Any) -> tuple[Any, ...]:
    """The types that a type's annotation allows: those of a union, else itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


LONGEST = 2**18
"""Characters of a text that is read; recipes have a few thousand."""
MOST_VALUES = 10_000
"""Values that a text may stand for, with every alias written out."""


class RefusedError(Exception):
    """YAML that is not taken; why, in words."""


FAILURES = (
    yaml.YAMLError,
    RefusedError,
    # what PyYAML's constructors make of a value that does not fit its tag
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading YAML raises."""


Config = TypeVar("Config")

UNPARSED = (jsonargparse.ArgumentError, *FAILURES)
"""What jsonargparse raises, which reads the text of an option as YAML and lets some of PyYAML's errors through."""

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "values one after another",
    dict: "names with values of the right kind",
}
"""Types in words."""


def with_overrides(config: RunConfig, overrides: dict[str, Any], where: str) -> RunConfig:
    """``config`` with some options replaced, checked as a recipe's keys are.

    Raises:
        UserError: an unknown key or a value of another type; ``where`` says whose.
    """
    values = spelled(overrides)
    _check_keys(RunConfig, values, where)
    parser = _parser(RunConfig)
    try:
        return _with_folders(_build(RunConfig, parser.parse_object({**dataclasses.asdict(config), **values})))
    except UNPARSED as error:
        raise UserError(f"{where}: {_one_line(RunConfig, str(error))}") from error


def read_config(kind: type[Config], path: str | Path) -> Config:
    """The configuration of class ``kind`` (a dataclass) in a YAML file, over its defaults.

    Raises:
        UserError: no such file, an unknown key (near names are given), or a value of another type.
    """
    parser = _parser(kind)
    return _with_folders(_build(kind, _read_recipe(kind, parser, str(path))))


def _parser(kind: type[Any]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False)
    return parser


def _read_recipe(kind: type[Any], parser: jsonargparse.ArgumentParser, recipe: str) -> jsonargparse.Namespace:
    values = read_yaml(recipe)
    _check_keys(kind, values, f"--config {recipe}")
    try:
        return parser.parse_object(values)
    except UNPARSED as error:
        raise UserError(f"--config {recipe}: {_one_line(kind, str(error))}") from error


def _build(kind: type[Config], parsed: jsonargparse.Namespace) -> Config:
    values = parsed.as_dict()
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            values[name] = hint(**values[name])
    return kind(**values)


def _with_folders(config: Config) -> Config:
    """A model that is the path of a run's folder, or of its ``student/``, under timm's name for it."""
    if not isinstance(config, RunConfig):
        return config
    config.model, config.teacher = _folder_name(config.model), _folder_name(config.teacher)
    return config


def _folder_name(name: str) -> str:
    # Not any folder: one may be called as a model is.
    for path in (Path(name) / "student", Path(name)):
        if name and (path / "config.json").is_file():
            return f"local-dir:{path}"
    return name


def _check_keys(kind: type[Any], values: dict[str, Any], where: str) -> None:
    known = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: {key}: no such key{_near(key, [*known, *ALIASES])}")
        if not dataclasses.is_dataclass(known[key]):
            continue
        parts = typing.get_type_hints(known[key])
        if not isinstance(value, dict):
            raise UserError(f"{where}: {key}: must hold {' and '.join(parts)}, not {value!r}")
        for part in value.keys() - parts.keys():
            raise UserError(f"{where}: {key}.{part}: no such key{_near(str(part), parts)}")


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _one_line(kind: type, message: str) -> str:
    """jsonargparse's paragraphs as one line that names the option."""
    found = re.search(r'[Pp]arser key "([^"]+)":\s*(.*)', message, re.DOTALL)
    if not found:
        return " ".join(message.split())
    key, told = found[1], " ".join(found[2].split())
    head, _, part = key.partition(".")
    hint = typing.get_type_hints(kind).get(head)
    if dataclasses.is_dataclass(hint):
        hint, part = typing.get_type_hints(hint).get(part), ""
    given = re.search(r"(?:Given value|Got value): (.*?)$", told)
    if given and hint is not None and not part:
        return f"--{key.replace('_', '-')} {given[1]}: expected {_words_for(hint)}"
    return f"--{key.replace('_', '-')}: {told}"


def _words_for(hint: Any) -> str:
    words = []
    for member in members(hint):
        inner = typing.get_args(member)[:1] if typing.get_origin(member) is list else ()
        if typing.get_origin(member) is typing.Literal:
            words += [str(choice) for choice in typing.get_args(member)]
        elif inner and typing.get_origin(inner[0]) is typing.Literal:
            words.append(f"any of {', '.join(map(str, typing.get_args(inner[0])))}")
        elif member is not type(None):
            words.append(WORDS.get(typing.get_origin(member) or member, str(member)))
    return " or ".join(words)


def recipe_path(path: str, beside: str | Path) -> Path:
    """A recipe named inside another one: relative to that one's folder."""
    return Path(path) if Path(path).is_absolute() else Path(beside).parent / path


def load(text: str) -> Any:
    """The values in a YAML text: mappings, lists, text, numbers, dates; a tag that asks for anything else is an error.

    Raises:
        FAILURES: no YAML, more than ``LONGEST`` characters or ``MOST_VALUES`` values, or control characters in one,
            which a terminal would obey and a file name can't hold.
    """
    if len(text) > LONGEST:
        raise RefusedError(f"is longer than {LONGEST:,} characters, so it is no recipe")
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _values_in(node, {}) > MOST_VALUES:
        raise RefusedError(f"stands for more than {MOST_VALUES:,} values, aliases written out; write fewer")
    return loader.construct_document(node)


def _values_in(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """Values that a node stands for; infinitely many where an anchor holds an alias of itself."""
    if node not in known:
        known[node] = math.inf
        known[node] = 1 + sum(_values_in(child, known) for child in _children(node))
    return known[node]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        _check_characters(node)
        return _inside_text(node.value)
    return list(chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value)


def _inside_text(text: str) -> list[yaml.Node]:
    """What text stands for with whoever reads it as YAML once more: options that take more than text are read so."""
    if "*" not in text:
        return []
    try:
        node = yaml.SafeLoader(text).get_single_node()
    except FAILURES:
        return []
    return [] if node is None or node.value == text else [node]


def _check_characters(node: yaml.ScalarNode) -> None:
    for character in node.value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            line = node.start_mark.line + 1
            raise RefusedError(f"has a control character ({character!a}) in line {line}; take it out")


PACKAGE = Path(__file__).parent


def recipes_folder() -> Path:
    """Where they are: inside an installed package, or beside ``src/`` in the repository (an editable install)."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parents[1] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Every recipe by its name, which is its path in that folder: ``digits/demo.yaml``."""
    folder = recipes_folder()
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str) -> str:
    """The file that ``--config`` names: it itself where it is there, else the shipped recipe of that name.

    Args:
        name: a path, or a name of :func:`shipped_recipes`, with or without ``recipes/`` before it, so that a command
            that was copied from the repository's pages works elsewhere too.

    Returns:
        A path; ``name`` where there is neither, for whoever opens it to complain of.
    """
    if Path(name).exists():
        return name
    return str(shipped_recipes().get(name.removeprefix("recipes/"), name))
