"""Command lines and recipes -> RunConfig. jsonargparse checks values; ``dialect.py`` spells timm's options for it."""

import dataclasses
import re
import typing
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse

from isometry.config import ALIASES, RunConfig
from isometry.configfile import read_yaml, spelled
from isometry.dialect import join_inner, members, translate
from isometry.errors import UserError
from isometry.safe_yaml import FAILURES
from isometry.shipped import find_recipe

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


def parse(kind: type[Config], arguments: list[str]) -> Config:
    """The configuration of class ``kind`` (a dataclass) that a command line asks for.

    The command line beats the YAML file that ``--config`` names, which beats the defaults.

    Raises:
        UserError: an unknown option or recipe key (near names are given), or a value of another type.
    """
    parser = _parser(kind)
    words, recipe = _take_config(_split_equals(arguments))
    base = _read_recipe(kind, parser, recipe) if recipe else parser.get_defaults()
    try:
        options = join_inner(kind, list(translate(kind, words)), base.as_dict())
        parsed = parser.parse_args(options, namespace=base)
        return _with_folders(_build(kind, parsed))
    except UNPARSED as error:
        raise UserError(_one_line(kind, str(error))) from error


def leading(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest: ``DIR NAME --threads 1``."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:first], words[first:]


def recipe_named(arguments: list[str]) -> str:
    """The file that ``--config`` names; empty where there is none."""
    return _take_config(_split_equals(arguments))[1] or ""


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


def _split_equals(arguments: list[str]) -> list[str]:
    words = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        words += [name, value] if argument.startswith("--") and equals else [argument]
    return words


def _take_config(words: list[str]) -> tuple[list[str], str | None]:
    if "--config" not in words:
        return words, None
    at = words.index("--config")
    if at + 1 >= len(words):
        raise UserError("--config: no file given")
    return words[:at] + words[at + 2 :], find_recipe(words[at + 1])


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
