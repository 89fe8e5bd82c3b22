"""Commands and their options, as the classes that configure them declare these; and the text of `--help`."""

import argparse
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from docstring_parser import parse_from_object
from rich.console import Console

from isometry.config import ALIASES
from isometry.grow.operators import Operator, available

WIDTH = 100
INDENT = 28
PRECEDENCE = "Options override the recipe, which overrides the defaults; a recipe's keys are these options."


class Invocation(NamedTuple):
    """A command line, parsed."""

    names: list[str]
    """What stands before the options."""
    config: Any
    """The options, of the command's class."""
    recipe: str
    """The file that ``--config`` names, or an empty string."""
    console: Console
    given: frozenset[str] = frozenset()
    """The options that the command line or its recipe gives: names of fields."""


class Command(NamedTuple):
    """A command of the command line: the dataclass of its options, its purpose in one sentence, the function that does
    it, and whole command lines, the simplest first."""

    kind: type
    about: str
    action: Callable[[Invocation], object]
    examples: tuple[str, ...]
    names: str = ""
    """What stands before the options: choices in small letters, such as ``bash|zsh``, or ``DIR``."""


class Option(NamedTuple):
    """An option of a command, with its meaning and its type."""

    name: str
    """Its field, with that of its section: ``grow.depth``."""
    spelled: list[str]
    """The ways to write it: ``--batch-size``, ``-b``."""
    help: str
    hint: Any
    default: str
    """As text; empty for None, False and empty values."""

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that it takes: those of a union, without their arguments."""
        union = typing.get_origin(self.hint) in (typing.Union, types.UnionType)
        members = typing.get_args(self.hint) if union else (self.hint,)
        return tuple(typing.get_origin(member) or member for member in members)

    @property
    def choices(self) -> list[str]:
        """The values to choose from, for one or several of a fixed set; empty for other types."""
        operators = [name for name, found in available(Operator).items() if found.option in self.spelled]
        return operators or _literals(self.hint)


def _literals(hint: Any) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [choice for part in typing.get_args(hint) for choice in _literals(part)]


@cache
def option_groups(kind: type) -> list[tuple[str, list[Option]]]:
    """The options of a class by the class that declares them, with the docstring of each; its own come first."""
    own, *bases = [part for part in kind.__mro__ if dataclasses.is_dataclass(part)]
    first, *sections = _groups(own)
    return [first, *(group for part in bases for group in _groups(part)), *sections]


def _groups(part: type, prefix: str = "") -> list[tuple[str, list[Option]]]:
    """The options of a class, then those of its sections."""
    hints = typing.get_type_hints(part)
    defaults = {field.name: _default(field) for field in dataclasses.fields(part)}
    options, sections = [], []
    # Those of the class itself, without inherited ones.
    for parameter in parse_from_object(part).params:
        name = f"{prefix}{parameter.arg_name}"
        hint, default = hints[parameter.arg_name], defaults[parameter.arg_name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            sections += _groups(hint, f"{name}.")
        else:
            options.append(Option(name, _spelled(name), parameter.description or "", hint, default))
    return [(inspect.getdoc(part) or part.__name__, options), *sections]


def _spelled(name: str) -> list[str]:
    names = [name, *(alias for alias, option in ALIASES.items() if option == name)]
    return [("-" if len(each) == 1 else "--") + each.replace("_", "-") for each in names]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value in (None, "", False, {}) else str(value)


def add_options(parser: argparse.ArgumentParser, kind: type) -> list[tuple[Option, argparse.Action]]:
    """Adds the options of a class to a parser that explains and completes them."""
    added = []
    for title, options in option_groups(kind):
        group = parser.add_argument_group(textwrap.fill(title.rstrip("."), WIDTH - 1))
        for option in options:
            text = escaped(option.help + (f" [{option.default}]" if option.default else ""))
            added.append((option, group.add_argument(*option.spelled, help=text, **_values(option))))
    return added


def _values(option: Option) -> dict[str, Any]:
    if option.hint is bool:
        return {"action": "store_true"}
    return {"choices": option.choices or None, "nargs": "+" if {list, dict} & set(option.types) else None}


def escaped(text: str) -> str:
    """Text for argparse, which reads a percent sign as a format."""
    return text.replace("%", "%%")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=INDENT, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        choices = f" {{{','.join(action.choices)}}}" if action.choices else ""
        return ", ".join(action.option_strings) + choices


def help_text(name: str, command: Command, program: str = "isometry") -> str:
    """What ``isometry NAME --help`` prints: purpose, examples, usage, then the options by class."""
    usage, about = f"{program} {name} {command.names}".rstrip(), inspect.getdoc(command.kind)
    if dataclasses.fields(command.kind):
        usage, about = f"{usage} [--config RECIPE.yaml] [OPTIONS]", PRECEDENCE
    parser = argparse.ArgumentParser(
        usage=usage, description=about, formatter_class=_Formatter, add_help=False
    )
    add_options(parser, command.kind)
    examples = (f"  {example}" for example in command.examples)
    return "\n".join([command.about, "", *examples, "", parser.format_help()])
