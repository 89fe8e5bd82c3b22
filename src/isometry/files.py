"""Files: written whole, never through a link; free space, SHA-256, sizes; JSON and YAML, validated as they are read."""

import hashlib
import json
import math
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError

from isometry.errors import UserError, reason


def nearest(path: Path) -> Path:
    """The path itself if it exists, otherwise its nearest parent that does."""
    return next(found for found in (path, *path.absolute().parents) if found.exists())


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def format_bytes(size: float) -> str:
    """A number of bytes, to three digits: 11,141,120 -> "10.6 MiB"."""
    for unit, scale in UNITS:
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"


def sha256_of(content: Path | Iterable[bytes | memoryview]) -> str:
    """SHA-256 (FIPS 180-4) of a file, or of consecutive pieces of bytes, in hexadecimal."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return digest.hexdigest()


def refuse_link(path: Path) -> Path:
    """A path of a file or folder of ours, which is returned; what a link there points to is somebody else's.

    Raises:
        UserError: it is a link.
    """
    if path.is_symlink():
        raise UserError(
            f"{path}: is a link, and nothing is written, removed or sent through a link; remove it"
        )
    return path


def inside(folder: Path, *names: str) -> Path:
    """The path of ``names``, one below the other, in a folder. The folder itself may be a link: the user named it.

    Raises:
        UserError: one of the names is a link.
    """
    for name in names:
        folder = refuse_link(folder / name)
    return folder


def open_own(path: Path, mode: str) -> IO[Any]:
    """Opens a file of ours in UTF-8, or in bytes; never through a link.

    Raises:
        UserError: it is a link.
        OSError: it can't be opened.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(refuse_link(path), mode, encoding=encoding, opener=_without_links)


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file; a reader sees the old content or the new, never a part of it.

    Raises:
        UserError: the disk is full, the folder can't be written, or the file is a link.
    """
    with disk_errors(path, "make room, or name another place"):
        new = write_new(path, content)
        try:
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def write_new(path: Path, content: str | bytes) -> Path:
    """Writes the content that is to replace ``path`` to the disk, at :func:`new_path`, which is returned.

    Raises:
        UserError: ``path`` is a link.
        OSError: it can't be written; nothing is left.
    """
    new = new_path(refuse_link(path))
    try:
        with open_own(new, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new


NEW = ".new"
"""Suffix of a file or folder that is to replace the one without it."""


def new_path(path: Path) -> Path:
    """Path for the new content of ``path``, beside it, where nothing is.

    A plain file there was left by a process that was killed, and is deleted. Where anything else has the name, such as
    a link that leads out of the folder, the path has a random one.
    """
    new = path.with_name(path.name + NEW)
    if new.is_symlink() or new.is_dir():
        return random_path(path)
    new.unlink(missing_ok=True)
    return new


def random_path(path: Path) -> Path:
    """Path beside ``path`` with a random part, which no other process and no other file has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{NEW}")


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Turns errors of the disk inside the block into a UserError that gives ``path``, the cause and ``advice``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        refuse_removed(path)
        raise UserError(f"{path}: could not save ({reason(error)}); {advice}") from error


def refuse_removed(path: Path) -> None:
    """Raises UserError if there is no folder to write ``path`` in: the disk may have room, but there is no place."""
    folder = path.absolute().parent
    if not folder.is_dir():
        gone = next(each for each in reversed((folder, *folder.parents)) if not each.is_dir())
        raise UserError(
            f"{path}: could not save: there is no folder {gone} (was it removed, or its disk unmounted?); "
            "give another --out"
        )


def read_json(path: Path, kind: Any) -> Any:
    """Content of a JSON file as a value of type ``kind``, see :func:`validate`.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not JSON, or not of that type.
    """
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
        place = ".".join(map(str, fault["loc"]))[:100]
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
    """Refuses more than ``MOST_VALUES`` values, and control characters, which file names and terminals can't show."""

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
        if isinstance(node, yaml.ScalarNode):
            for character in node.value:
                if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
                    line = node.start_mark.line + 1
                    raise UserError(f"has a control character ({character!a}) in line {line}; take it out")
        return node

    def _values_in_text(self, node: yaml.Node | None) -> float:
        """Values of text that is YAML with aliases itself: jsonargparse reads the text of many options as YAML."""
        if not isinstance(node, yaml.ScalarNode) or "*" not in node.value or node.value == self._text:
            return 0
        inner = YamlLoader(node.value)
        with suppress(*YAML_ERRORS):
            inner.get_single_node()
        return inner._values


def parse_yaml(text: str) -> Any:
    """The values of a YAML text: mappings, lists, text, numbers, dates; any other tag is an error.

    Raises:
        UserError: it is not YAML, too long, stands for too many values, or holds control characters.
    """
    if len(text) > LONGEST:
        raise UserError(f"is longer than {LONGEST:,} characters, so it is no recipe")
    try:
        return YamlLoader(text).get_single_data()
    except YAML_ERRORS as error:
        message = str(error) if isinstance(error, yaml.YAMLError) else reason(error)
        raise UserError(f"is not YAML ({' '.join(message.split())})") from error


def read_yaml(path: Path, where: str) -> dict[Any, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: no such file, not YAML, not a mapping; the message begins with ``where``.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = parse_yaml(file.read(LONGEST + 1))
    except OSError as error:
        raise UserError(f"{where}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not YAML ({error})") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{where}: must hold keys and values, one run option a key")
    return values or {}
