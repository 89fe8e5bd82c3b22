"""Where on a disk a folder is, or will be."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from isometry.errors import UserError, reason


def nearest(path: Path) -> Path:
    """The path itself where it is there, else the nearest of the folders around it that is."""
    return next(there for there in (path, *path.absolute().parents) if there.exists())


def free_bytes(folder: Path) -> int:
    """What is free on the disk that holds a folder, or will."""
    return shutil.disk_usage(nearest(folder)).free


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`; what was there before stays until the new file is complete.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {path}: {why}; free some space or name another place") from error


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old or the new one, never a part.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    with disk_trouble(path, "make room"):
        _write_text(path, text).replace(path)


@contextmanager
def disk_trouble(where: Path, advice: str) -> Iterator[None]:
    """What the disk refuses inside becomes a UserError of one line: where, why, and ``advice``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{where}: could not save ({reason(error)}); {advice}") from error


def _write_text(path: Path, text: str) -> Path:
    """Writes a text to the disk beside the file that it is to replace; returns where."""
    fresh = _fresh(path)
    fresh.write_text(text, encoding="utf-8")
    _flush(fresh)
    return fresh


def _fresh(path: Path) -> Path:
    fresh = path.with_name(path.name + ".new")
    # Writing would follow it, out of the folder.
    if fresh.is_symlink():
        fresh.unlink()
    return fresh


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def format_bytes(size: float) -> str:
    """A number of bytes, to three digits: 11,141,120 -> "10.6 MiB"."""
    for unit, scale in UNITS:
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
