"""Command lines in timm's style -> configurations; :mod:`isometry.recipes` checks the values."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any

from isometry.cli.help import Option, option_groups
from isometry.config import ON_COMMAND_LINE_ONLY, canonical
from isometry.config.paths import expand_path
from isometry.errors import UserError
from isometry.recipes import Config, config_of, find_recipe, parse_value, read_recipe, with_typed

OPTION = re.compile(r"--?[A-Za-z]")
"""How an option begins; a negative number is a value."""


def parse(kind: type[Config], arguments: Sequence[str]) -> Config:
    """The configuration of class ``kind`` (a dataclass) that a command line asks for.

    Options override the YAML file that ``--config`` names, which overrides the defaults.

    Raises:
        UserError: an unknown option or key of the recipe (near names are given), or a value of another type; the
            permission to start programs without the option that names them.
    """
    return parse_given(kind, arguments)[0]


def parse_given(kind: type[Config], arguments: Sequence[str]) -> tuple[Config, frozenset[str]]:
    """:func:`parse`, and the options that are given, on the command line or by the recipe: names of fields."""
    words = list(_by_option(arguments))
    recipe = recipe_named(arguments)
    recipe_values = read_recipe(recipe, pipe=True) if recipe else {}
    config = config_of(kind, recipe_values, recipe) if recipe else kind()
    values, changed = asdict(config), set()  # type: ignore[call-overload]
    for word, texts in words:
        if word != "--config":
            for path, value in _assignments(kind, word, texts):
                _put(values, path, value)
                changed.add(path[0])
    for permission, named in ON_COMMAND_LINE_ONLY.items():
        if permission in changed and named not in changed:
            # Else the permission would hold for what a recipe says.
            option, place = (f"--{name.replace('_', '-')}" for name in (permission, named))
            raise UserError(f"{option}: is for a {place} on the command line; give that there too")
    typed = with_typed(config, {name: values[name] for name in changed})
    return typed, frozenset(changed | recipe_values.keys())


def leading(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest: ``DIR NAME --threads 1``."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:first], words[first:]


def recipe_named(arguments: Sequence[str]) -> str:
    """The file that ``--config`` names; an empty string without that option."""
    named = [texts for word, texts in _by_option(arguments) if word == "--config"]
    if named and len(named[-1]) != 1:
        raise UserError("--config: give one file")
    return find_recipe(expand_path(named[-1][0])) if named else ""


def as_typed(message: str, arguments: Sequence[str]) -> str:
    """A message in which options have the names that were typed: ``--student`` instead of ``--model``."""
    words = [argument.partition("=")[0] for argument in arguments if OPTION.match(argument)]
    typed = {f"--{canonical(word.lstrip('-'))}".replace("_", "-"): word for word in words}
    # Names that are suggested are those of a list, and stay as they are.
    said, suggests, names = message.partition("did you mean")
    said = re.sub(r"(?<![\w-])--[\w.-]*\w", lambda found: typed.get(found[0], found[0]), said)
    return said + suggests + names


def _by_option(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words up to the next one."""
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if OPTION.match(argument):
            word, equals, text = argument.partition("=")
            found.append((word, [text] if equals else []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise UserError(f"{argument}: expected an option's name here, such as --epochs")
    yield from found


def _assignments(kind: type, word: str, texts: list[str]) -> Iterator[tuple[list[str], Any]]:
    """The fields that an option sets, as paths of keys, with their values."""
    option, keys = _find(kind, word)
    path = [*option.name.split("."), *keys]
    if option.hint is bool and not texts:
        texts = ["true"]
    if not texts:
        raise UserError(f"{word}: no value given")
    if dict in option.types and not keys and (len(texts) > 1 or "=" in texts[0]):
        for text in texts:
            key, equals, item = text.partition("=")
            if not equals:
                raise UserError(f"{word} {text}: give key=value pairs, e.g. {word} depth=6")
            yield from _assignments(kind, f"{word}.{key}", [item])
    elif list in option.types and str not in option.types:
        yield path, f"[{','.join(texts).strip('[]')}]"
    elif len(texts) > 1:
        raise UserError(f"{word}: takes one value, and {len(texts)} were given ({' '.join(texts)})")
    else:
        yield path, parse_value(texts[0]) if len(keys) > 1 else texts[0]


def _find(kind: type, word: str) -> tuple[Option, list[str]]:
    """The option that a word names, and the keys within its value: ``random`` and ``k`` of ``--losses.random.k``."""
    options = {option.name: option for _, group in option_groups(kind) for option in group}
    name = canonical(word.lstrip("-"))
    head, *keys = name.split(".")
    if head in options and (not keys or dict in options[head].types):
        return options[head], keys
    if (name := name.replace("-", "_")) in options:
        return options[name], []
    spelled = [each for option in options.values() for each in option.spelled]
    inside = [each for each in spelled if each.startswith(f"{word}.")]
    shorter = [each for each in spelled if word.startswith(f"{each}-")]
    near = inside or dict.fromkeys(get_close_matches(word.replace("_", "-"), spelled, n=2) + shorter)
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists them all"
    raise UserError(f"{word}: no such option; {hint}")


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            # A value without a key is a loss's weight.
            values[key] = {} if inner is None else {"weight": inner}
        values = values[key]
    values[path[-1]] = value
