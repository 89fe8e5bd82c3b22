"""Command lines and recipes -> RunConfig. jsonargparse checks values; ``dialect.py`` spells timm's options for it."""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

import jsonargparse

from isometry.config import ALIASES, canonical
from isometry.errors import UserError
from isometry.recipes import (
    UNPARSED,
    Config,
    _build,
    _one_line,
    _parser,
    _read_recipe,
    _with_folders,
    find_recipe,
    members,
)


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


def translate(kind: type, words: list[str]) -> Iterator[str]:
    """timm's way of writing options -> jsonargparse's: names and values in turns.

    Args:
        kind: the configuration's class, a dataclass.
        words: of the command line.

    Raises:
        UserError: an unknown option (near names are given), or too few or too many values for one.
    """
    hints = typing.get_type_hints(kind)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not re.match(r"--?[A-Za-z]", word):
            raise UserError(f"{word}: an option's name was expected here, such as --epochs")
        name = canonical(word.lstrip("-"))
        values = []
        while at < len(words) and not re.match(r"--?[A-Za-z]", words[at]):
            values.append(words[at])
            at += 1
        head = name.partition(".")[0]
        if head not in hints:
            aliases = [alias for alias, meant in ALIASES.items() if meant.partition(".")[0] in hints]
            options = [field.replace("_", "-") for field in [*hints, *aliases]]
            near = get_close_matches(head.replace("_", "-"), options, n=2)
            hint = (
                f"; did you mean {' or '.join('--' + n for n in near)}?"
                if near
                else "; --help lists them all"
            )
            raise UserError(f"{word}: no such option{hint}")
        hint = hints[head]
        if dataclasses.is_dataclass(hint):
            name = name.replace("-", "_")
            parts = {f"{head}.{field}": part for field, part in typing.get_type_hints(hint).items()}
            if name not in parts:
                options = [f"--{part}".replace("_", "-") for part in parts]
                near = get_close_matches(word, options, n=2) or options
                raise UserError(f"{word}: no such option; there is {', '.join(near)}")
            hint = parts[name]
        yield from _spell(name, hint, values, word)


def _spell(name: str, hint: Any, values: list[str], word: str) -> Iterator[str]:
    if hint is bool and not values:
        values = ["true"]
    if not values:
        raise UserError(f"{word}: no value given")
    if _is_dict(hint) and "." not in name:
        if not all("=" in value for value in values) and len(values) == 1:
            yield from (f"--{name}", values[0])
            return
        for value in values:
            key, equals, item = value.partition("=")
            if not equals:
                raise UserError(f"{word} {value}: give key=value pairs, e.g. {word} depth=6")
            yield from (f"--{name}.{key}", item)
        return
    if _is_list(hint):
        joined = ",".join(values).strip("[]")
        yield from (f"--{name}", f"[{joined}]")
        return
    if len(values) > 1:
        raise UserError(f"{word}: takes one value, and {len(values)} were given ({' '.join(values)})")
    yield from (f"--{name}", values[0])


def join_inner(kind: type, words: list[str], base: dict[str, Any]) -> list[str]:
    """``--losses.random.k 384`` -> ``--losses.random {"weight": 0.2, "k": 384}``; jsonargparse would drop the others.

    Args:
        kind: the configuration's class.
        words: names and values in turns, as :func:`translate` gives them.
        base: what the recipe says, which the command line adds to.
    """
    held = {
        name: deepcopy(base[name]) for name, hint in typing.get_type_hints(kind).items() if _is_dict(hint)
    }
    joined = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        head, *path = name.removeprefix("--").split(".")
        if head in held:
            _put(held, [head, *path], _value(value))
        inner = head in held and len(path) > 1
        joined += (
            [f"--{head}.{path[0]}", json.dumps(held[head][path[0]], default=str)] if inner else [name, value]
        )
    return joined


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            # A loss's number is its weight.
            values[key] = {"weight": inner} if isinstance(inner, int | float) else {}
        values = values[key]
    values[path[-1]] = value


def _value(text: str) -> Any:
    reader = jsonargparse.ArgumentParser(exit_on_error=False)
    reader.add_argument("--value", type=Any)
    return reader.parse_args(["--value", text]).as_dict()["value"]


def _is_list(hint: Any) -> bool:
    kinds = members(hint)
    return any(typing.get_origin(kind) is list for kind in kinds) and str not in kinds


def _is_dict(hint: Any) -> bool:
    return any(typing.get_origin(m) is dict for m in members(hint))
