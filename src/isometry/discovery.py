"""Extension points: classes that are found by the names of their files."""

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from isometry.errors import UserError, did_you_mean, reason

T = TypeVar("T")


def discover(base: type[T]) -> dict[str, type[T]]:
    """The subclasses of ``base`` in the files beside its own, by file name.

    Raises:
        UserError: a file cannot be imported, or does not define exactly one, with all abstract methods of ``base``.
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
    file = "/".join(module_name.split(".")[1:]) + ".py"
    module = _import(module_name, file)
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module_name
    ]
    if len(own) != 1:
        raise UserError(f"{file}: must define exactly one {base.__name__}, and defines {len(own)}")
    if missing := sorted(getattr(own[0], "__abstractmethods__", ())):
        raise UserError(f"{file}: {own[0].__name__} must define {', '.join(missing)}")
    return own[0]


def _import(module_name: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [at.lineno for at in frames if Path(at.filename).as_posix().endswith(f"/{file}")]
        where = f"{file}, line {lines[-1]}" if lines else file
        # A syntax error's own text ends with the file and the line.
        raise UserError(f"{where}: {error if isinstance(error, UserError) else reason(error)}") from error
