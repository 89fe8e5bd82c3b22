"""JSON and YAML, validated as they are read."""

import json
import math
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from isometry.errors import UserError, printable, reason
from isometry.files import check_regular


def read_json(path: Path, kind: Any) -> Any:
    """Content of a JSON file as a value of type ``kind``, see :func:`validate`.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no regular file, not JSON, or not of that type.
    """
    check_regular(path.stat())
    return validate(parse_json(path.read_bytes()), kind)


def parse_json(text: str | bytes) -> Any:
    """Value of a JSON text.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def validate(value: Any, kind: Any, context: Any = None) -> Any:
    """Value read from a file (nested lists, mappings, text, numbers and None) as an instance of ``kind``, by pydantic:
    a dataclass, TypedDict, or other annotation, whose validators get ``context``.

    Raises:
        ValueError: the value does not fit; the message gives the place, such as ``models.0.top1``, and the fault.
    """
    try:
        return _adapter(kind).validate_python(value, context=context)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = printable(".".join(map(str, fault["loc"]))[:100])
        message = fault["msg"][:1].lower() + fault["msg"][1:]
        if fault["type"] == "value_error":
            message = str(fault["ctx"]["error"])
        raise ValueError(f"{place}: {message}" if place else message) from error


closed = with_config(ConfigDict(extra="forbid"))
"""Decorator of a dataclass or TypedDict that :func:`validate` takes with no other keys than it declares."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


LONGEST = 2**18
"""Most characters of a text; recipes have a few thousand."""
MOST_VALUES = 10_000
"""Most values in a text, every alias counted as the values that it stands for."""
YAML_ERRORS = (
    yaml.YAMLError,
    # PyYAML's constructors, for a value that does not fit its tag.
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Errors of PyYAML on a text that is not valid YAML."""


class YamlLoader(yaml.SafeLoader):
    """Refuses more than ``MOST_VALUES`` values, and NUL, which no file name can hold."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text
        self._values = 0.0
        self._sizes: dict[yaml.Node | None, float] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        before, alias = self._values, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        # The size of a node that holds an alias of itself is not known yet.
        self._values += self._sizes.get(node, math.inf) if alias else 1 + self._values_in_text(node)
        self._sizes.setdefault(node, self._values - before)
        if self._values > MOST_VALUES:
            raise UserError(f"stands for more than {MOST_VALUES:,} values, aliases written out; write fewer")
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            line = node.start_mark.line + 1
            raise UserError(f"has a control character ('\\x00') in line {line}; take it out")
        return node

    def _values_in_text(self, node: yaml.Node | None) -> float:
        """Values of text that is YAML with aliases itself: jsonargparse reads the text of many options as YAML."""
        if not isinstance(node, yaml.ScalarNode) or "*" not in node.value or node.value == self._text:
            return 0
        inner = YamlLoader(node.value)
        with suppress(*YAML_ERRORS):
            inner.get_single_node()
        return inner._values


class TextLoader(YamlLoader):
    """Leaves plain values as they are written: ``no``, ``010`` and ``1_000`` are text."""


TextLoader.yaml_implicit_resolvers = {"<": YamlLoader.yaml_implicit_resolvers["<"]}


def parse_yaml(text: str, loader: type[YamlLoader] = YamlLoader) -> Any:
    """The values of a YAML text: mappings, lists, text, numbers, dates; any other tag is an error.

    Raises:
        UserError: it is not YAML, too long, stands for too many values, or holds NUL.
    """
    if len(text) > LONGEST:
        raise UserError(f"is longer than {LONGEST:,} characters, so it is no recipe")
    try:
        return loader(text).get_single_data()
    except YAML_ERRORS as error:
        message = str(error) if isinstance(error, yaml.YAMLError) else reason(error)
        raise UserError(f"is not YAML ({' '.join(message.split())})") from error


def read_yaml(
    path: Path, where: str, *, pipe: bool = False, loader: type[YamlLoader] = YamlLoader
) -> dict[Any, Any]:
    """The mapping in a YAML file, or with ``pipe`` in a pipe, which is read once.

    Raises:
        UserError: no such file, not YAML, not a mapping; the message begins with ``where``.
    """
    try:
        status = path.stat()
        if not (pipe and stat.S_ISFIFO(status.st_mode)):
            check_regular(status)
        with path.open(encoding="utf-8") as file:
            values = parse_yaml(file.read(LONGEST + 1), loader)
    except OSError as error:
        raise UserError(f"{where}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not YAML ({error})") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except ValueError as error:
        raise UserError(f"{where}: can't be read ({error})") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{where}: must hold keys and values, one run option a key")
    return values or {}
