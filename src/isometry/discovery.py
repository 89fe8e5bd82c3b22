"""Extension points: classes that are found by the names of their files."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import TypeVar

from isometry.errors import UserError, did_you_mean

T = TypeVar("T")


def discover(base: type[T]) -> dict[str, type[T]]:
    """The subclasses of ``base`` in the files beside its own, by file name.

    Raises:
        UserError: a file does not define exactly one.
    """
    package, _, own = base.__module__.rpartition(".")
    names = [found.name for found in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    return {name: _only_class(base, f"{package}.{name}") for name in names if name != own}


def choose(found: Mapping[str, T], name: str, flag: str, kind: str) -> T:
    """``found[name]``.

    Args:
        found: what there is, by name.
        name: from the user.
        flag: what the user set, for the error message.
        kind: what is looked for, as a noun: ``loss``.

    Raises:
        UserError: there is no such name; near names are given.
    """
    if name not in found:
        hint = did_you_mean(name, found, f"there are {', '.join(sorted(found))}")
        raise UserError(f"{flag}: no such {kind}; {hint}")
    return found[name]


def _only_class(base: type[T], module_name: str) -> type[T]:
    module = importlib.import_module(module_name)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module_name
    ]
    if len(own) != 1:
        path = "/".join(module_name.split(".")[1:])
        raise UserError(f"{path}.py: must define exactly one {base.__name__}, and defines {len(own)}")
    return own[0]
