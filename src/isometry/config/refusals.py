"""Refusals of jsonargparse in plain words."""

import re
import types
import typing
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


def refusal(kind: type, message: str) -> str:
    """jsonargparse's message on options of class ``kind`` as one line that names the option."""
    found = re.search(r'[Pp]arser key "([^"]+)":\s*(.*)', message, re.DOTALL)
    if not found:
        return " ".join(message.split())
    key, fault = found[1], " ".join(found[2].split())
    head, _, part = key.partition(".")
    hint = get_type_hints(kind).get(head)
    if is_dataclass(hint):
        hint, part = get_type_hints(hint).get(part), ""
    given = re.search(r"(?:Given value|Got value): (.*?)$", fault)
    if given and hint is not None and not part:
        return f"--{key.replace('_', '-')} {given[1]}: expected {_noun_of(hint)}"
    return f"--{key.replace('_', '-')}: {fault}"


def _noun_of(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_noun_of(argument) for argument in arguments if argument is not type(None))
    if origin is list and typing.get_origin(arguments[0]) is typing.Literal:
        return f"any of {', '.join(map(str, typing.get_args(arguments[0])))}"
    return NOUNS.get(origin or hint, str(hint))
