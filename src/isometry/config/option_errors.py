"""Errors of jsonargparse in plain words."""

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "values one after another",
    dict: "names with values of the right kind",
}
"""Types as text."""


def option_error(kind: type, message: str, values: Mapping[str, Any]) -> str:
    """jsonargparse's message on ``values``, options of class ``kind``, as one line that names the option."""
    found = re.search(r'[Pp]arser key "([^"]+)":\s*(.*)', message, re.DOTALL)
    if not found:
        return " ".join(message.split())
    key, hint = found[1], None
    value: Any = values
    for place, part in enumerate(key.split(".")):
        if place == 0 or is_dataclass(hint):
            hint = get_type_hints(hint if place else kind).get(part)
        else:
            # The type of a mapping's values.
            hint = next(iter(typing.get_args(hint)[1:]), None)
        value = value.get(part) if isinstance(value, Mapping) else None
    option = f"--{key.replace('_', '-')}"
    if hint is None:
        return f"{option}: {' '.join(found[2].split())}"
    if isinstance(value, Mapping) and float in _parts_of(hint):
        # Numbers by name, one of which is text.
        for part, each in value.items():
            if isinstance(each, str):
                return f"{option}.{part} {_typed(each)}: expected a finite number"
    # Of a mapping, the message has the value that is wrong.
    inner = re.search(r"(?:Given value|Got value): (.+?)$", " ".join(found[2].split()))
    given = inner[1] if inner and isinstance(value, Mapping) else _typed(value)
    if isinstance(value, str) and any(
        typing.get_origin(each) is list for each in (hint, *typing.get_args(hint))
    ):
        # The words of a command line, joined for the parser.
        given = value.strip("[]").replace(",", " ") or given
    return f"{option} {given}: expected {_noun_of(hint)}"


def _parts_of(hint: Any) -> tuple[Any, ...]:
    """The types that the values of a mapping may have."""
    return typing.get_args(next(iter(typing.get_args(hint)[1:]), None))


def _typed(value: Any) -> str:
    """A value as it is written in a recipe and on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def _noun_of(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_noun_of(argument) for argument in arguments if argument is not type(None))
    if origin is list and typing.get_origin(arguments[0]) is typing.Literal:
        return f"any of {', '.join(map(str, typing.get_args(arguments[0])))}"
    return NOUNS.get(origin or hint, str(hint))
