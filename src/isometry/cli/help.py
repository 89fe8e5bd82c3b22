"""What ``isometry COMMAND --help`` prints: examples and options, with the words under their fields in the source."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from isometry.config import ALIASES

WIDTH = 100
INDENT = 28


class Option(NamedTuple):
    """An option of a command line.

    Attributes:
        name: of its field, after that of the group that it is in: ``grow.depth``.
        spelled: as it may be typed: ``--batch-size``, ``-b``.
        words: what it means.
        hint: its type.
        default: as text; empty where it has none that says anything.
    """

    name: str
    spelled: list[str]
    words: str
    hint: Any
    default: str


def help_text(
    kind: type[Any], command: str, about: str, examples: Sequence[str], program: str = "isometry"
) -> str:
    """Examples, then options of a configuration class, by the classes that it inherits from, with their meanings."""
    lines = [about, "", *(f"  {example}" for example in examples), ""]
    if not dataclasses.fields(kind):
        return "\n".join([*lines, f"usage: {program} {command}", "", inspect.getdoc(kind) or ""])
    lines += [f"usage: {program} {command} [--config RECIPE.yaml] [OPTIONS]"]
    lines += [
        "",
        "The command line beats the recipe, which beats the defaults; a recipe's keys are these options.",
    ]
    for title, options in option_groups(kind):
        lines += ["", title]
        for option in options:
            lines += _option_lines(option)
    return "\n".join(lines)


def option_groups(kind: type[Any]) -> Iterator[tuple[str, list[Option]]]:
    """The options of a class, grouped by the classes that it inherits from: the words of each, and its own options."""
    own, *bases = [part for part in kind.__mro__ if dataclasses.is_dataclass(part)]
    for part in (*bases, own):
        yield inspect.getdoc(part) or part.__name__, list(_options(part))


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


def _options(part: type[Any], prefix: str = "") -> Iterator[Option]:
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
        dashed = [option.replace("_", "-") for option in spelled]
        yield Option(prefix + name, dashed, words, hints[name], _default(fields[name]))


def _option_lines(option: Option) -> Iterator[str]:
    spelled = ", ".join(option.spelled)
    default = f" [{option.default}]" if option.default else ""
    text = textwrap.fill(option.words + default, WIDTH - INDENT).splitlines() or [""]
    if len(spelled) + 4 > INDENT:
        yield f"  {spelled}"
        spelled = ""
    yield f"  {spelled}".ljust(INDENT) + text[0]
    yield from (" " * INDENT + line for line in text[1:])


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    return "" if value in (None, "", False, {}, []) else str(value)
