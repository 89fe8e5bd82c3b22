"""Files: atomic writing, free space, SHA-256, sizes as text, and JSON that is validated when it is read."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file; a reader sees the old content or the new, never a part of it.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    with disk_errors(path, "make room, or name another place"):
        write_new(path, content).replace(path)


def write_new(path: Path, content: str | bytes) -> Path:
    """Writes the content that is to replace ``path`` to the disk, at :func:`new_path`, which is returned.

    Raises:
        OSError: it can't be written; nothing is left.
    """
    new = new_path(path)
    try:
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        flush(new)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    return new


def new_path(path: Path) -> Path:
    """Path beside ``path`` for its new content, ``NAME.new``."""
    new = path.with_name(path.name + ".new")
    # Writing would follow a link out of the folder.
    if new.is_symlink():
        new.unlink()
    return new


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder, which replaces ``folder`` when the block ends, and is removed if the block fails."""
    new = new_path(folder)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Turns errors of the disk inside the block into a UserError that gives ``path``, the cause and ``advice``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: could not save ({reason(error)}); {advice}") from error


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
    """Value read from a file as an instance of ``kind``, by pydantic: a dataclass, TypedDict, or other annotation.

    Args:
        value: nested lists, mappings, text, numbers and None.
        kind: its type.
        context: ``info.context`` of the validators that ``kind`` has.

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


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
