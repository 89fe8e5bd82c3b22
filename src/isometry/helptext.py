"""What ``isometry COMMAND --help`` prints: the options, with the words under their fields in the source."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from isometry.config import ALIASES

WIDTH = 100
INDENT = 28


def help_text(kind: type[Any], command: str, about: str, examples: Sequence[str]) -> str:
    """Examples, then options of a configuration class, by the classes that it inherits from, with their meanings."""
    lines = [about, "", *(f"  {example}" for example in examples), ""]
    lines += [f"usage: isometry {command} [--config RECIPE.yaml] [OPTIONS]"]
    lines += [
        "",
        "The command line beats the recipe, which beats the defaults; a recipe's keys are these options.",
    ]
    own, *bases = [part for part in kind.__mro__ if dataclasses.is_dataclass(part)]
    for part in (*bases, own):
        lines += ["", inspect.getdoc(part) or part.__name__]
        lines += _options(part)
    return "\n".join(lines)


def field_words(part: type[Any]) -> dict[str, str]:
    """The string under each field of a dataclass, which Python itself throws away."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
    assert isinstance(definition, ast.ClassDef)
    words = {}
    for field, under in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant)
            words[field.target.id] = inspect.cleandoc(str(under.value.value)) if is_text else ""  # type: ignore[attr-defined]
    return words


def _options(part: type[Any], prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(part)
    fields = {field.name: field for field in dataclasses.fields(part)}
    for name, words in field_words(part).items():
        if dataclasses.is_dataclass(hints[name]):
            yield from _options(hints[name], f"{prefix}{name}.")
            continue
        others = [alias for alias, meant in ALIASES.items() if meant == prefix + name]
        spelled = [
            f"--{prefix}{name}",
            *(f"-{alias}" if len(alias) == 1 else f"--{alias}" for alias in others),
        ]
        option = ", ".join(spelled).replace("_", "-")
        default = _default(fields[name])
        text = textwrap.fill(words + default, WIDTH - INDENT).splitlines() or [""]
        if len(option) + 4 > INDENT:
            yield f"  {option}"
            option = ""
        yield f"  {option}".ljust(INDENT) + text[0]
        yield from (" " * INDENT + line for line in text[1:])


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    return "" if value in (None, "", False, {}) else f" [{value}]"
