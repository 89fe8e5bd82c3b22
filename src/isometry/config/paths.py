"""Options that are paths: which ones, how they are expanded, and what a saved run has of them."""

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from isometry.config.run import RunConfig

Config = TypeVar("Config")

STORED = frozenset(
    {"class_map", "data_dir", "initial_checkpoint", "model", "teacher", "teacher_cache", "teacher_weights"}
)
"""Options of a run that name what it reads; saved with absolute paths, so that they mean the same in any folder."""
PATHS = STORED | {"base", "dense_masks", "out", "start_recipe", "teacher_recipe", "transfer"}
"""All options that are paths, or may be."""
LOCAL = "local-dir:"
FOLDERS = (LOCAL, "transformers:")
"""What stands before a folder, or may stand before one, in the name of a network."""
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""How a URL begins (RFC 3986)."""


def expand_path(path: str) -> str:
    """A path with the home folder for ``~``, also after ``local-dir:``."""
    name = path.removeprefix(LOCAL)
    return path.removesuffix(name) + os.path.expanduser(name)


def expand_paths(config: Config) -> Config:
    """The configuration with ``~`` expanded in all paths, and ``local-dir:PATH`` for networks in folders."""
    found: dict[str, Any] = {}
    for name in PATHS & {field.name for field in fields(config)}:  # type: ignore[arg-type]
        value = getattr(config, name)
        if isinstance(value, str):
            found[name] = expand_path(value)
        elif isinstance(value, list):
            # A step of a teacher may be options instead.
            found[name] = [expand_path(each) if isinstance(each, str) else each for each in value]
    found |= {name: _folder_name(found[name]) for name in ("model", "teacher") if name in found}
    return replace(config, **found)  # type: ignore[type-var]


def absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths of what the run reads, spelled in one way: without ``..``."""
    found: dict[str, Any] = {name: _absolute(name, getattr(config, name)) for name in STORED}
    return replace(config, **found)


def has_moved(name: str, old: Any, new: Any) -> bool:
    """Whether an option that was ``old`` names something that is no longer there, and ``new`` something that is."""
    if name not in STORED or not (isinstance(old, str) and isinstance(new, str)):
        return False
    before, now = (Path(path.removeprefix(LOCAL)) for path in (old, new))
    return before.is_absolute() and now.is_absolute() and now.exists() and not before.exists()


def same_place(name: str, old: Any, new: Any) -> bool:
    """Whether two values of an option name the same file or folder, perhaps through a link."""
    if name not in STORED or not (isinstance(old, str) and isinstance(new, str)):
        return False
    before, now = (Path(path.removeprefix(LOCAL)) for path in (old, new))
    return before.exists() and now.exists() and before.samefile(now)


def _folder_name(name: str) -> str:
    """``local-dir:PATH`` for the path of a run's folder or of its ``student/``; any other name as it is."""
    # Not for any folder: one may have the name of a model.
    for path in (Path(name) / "student", Path(name)):
        if name and os.path.isfile(path / "config.json"):
            return f"{LOCAL}{path}"
    return name


def _absolute(name: str, value: str | None) -> str | None:
    prefix = next((each for each in FOLDERS if (value or "").startswith(each)), "")
    if not value or (name in ("model", "teacher") and not prefix):
        return value
    path = Path(os.path.expanduser(value.removeprefix(prefix)))
    # A class map may be a name in the folder of the images, weights may be "pretrained", and data an address.
    may_be_another = name in ("class_map", "initial_checkpoint", "teacher_weights")
    may_be_another |= bool(ADDRESS.match(value)) and prefix != LOCAL
    if may_be_another and not path.exists():
        return value
    return f"{prefix}{_normalised(path.absolute())}"


def _normalised(path: Path) -> Path:
    """The path without ``..``, which may lead elsewhere after a link."""
    plain = Path(os.path.normpath(path))
    if plain == path or not path.exists():
        return plain
    return plain if plain.exists() and plain.samefile(path) else path.resolve()
