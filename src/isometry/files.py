"""Files: written whole, never through a link; regular ones; free space, SHA-256, sizes."""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

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


def check_regular(status: os.stat_result) -> None:
    """Raises ValueError for anything but a regular file: a pipe would wait for ever, and a device may never end."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file, but a folder, a pipe, a socket or a device")


def refuse_link(path: Path) -> Path:
    """A path of a file or folder of ours, which is returned; what a link there points to is somebody else's.

    Raises:
        UserError: it is a link.
    """
    if os.path.islink(path):
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


def permit_as_umask(path: Path) -> None:
    """Gives a file the permissions of any new one; safetensors makes its own for their owner alone."""
    # Only setting the umask tells it. What another thread makes at this moment is its owner's alone.
    umask = os.umask(0o077)
    os.umask(umask)
    # Some drives have no permissions.
    with suppress(OSError):
        path.chmod(0o666 & ~umask)


NO_ROOM = "make room, or name another place"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file; a reader sees the old content or the new, never a part of it.

    Raises:
        UserError: the disk is full, the folder can't be written, or the file is a link.
    """
    with disk_errors(path, NO_ROOM):
        _replace(path, content)


def _replace(path: Path, content: str | bytes) -> None:
    new = write_new(path, content)
    try:
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


OUTPUTS = ".isometry-outputs.json"
"""Beside the files that :func:`write_output` wrote: by name the SHA-256 of each, and before it of the one it replaced.

It is written first, so that a process that is killed between the two leaves a file that the record knows.
"""


def write_output(path: Path, content: str | bytes) -> None:
    """:func:`write_atomically` for a file whose folder may be the user's: what isometry did not write stays.

    Raises:
        UserError: as :func:`check_replaceable`, or the file can't be written.
    """
    content = content.encode() if isinstance(content, str) else content
    with disk_errors(path, NO_ROOM), _alone(path.parent):
        known = _outputs(path.parent)
        known[path.name] = [*_replaceable(path, known), sha256_of([content])]
        there = {path.name, *os.listdir(path.parent)}
        kept = {name: digests for name, digests in known.items() if name in there}
        _replace(path.parent / OUTPUTS, json.dumps(kept, indent=1))
        _replace(path, content)


def check_replaceable(path: Path) -> None:
    """Checks that a file, if there is one, is as isometry wrote it.

    The record beside it tells, and nothing else: a file that it does not list may have been edited, however much it
    looks like one of isometry's.

    Raises:
        UserError: it is the user's, or was changed, or is a link or a folder; the record is damaged.
    """
    _replaceable(path, _outputs(path.parent))


def _replaceable(path: Path, known: dict[str, list[str]]) -> list[str]:
    """SHA-256 of the file that is to be replaced, if there is one."""
    try:
        mode = refuse_link(path).lstat().st_mode
        digest = sha256_of(path) if stat.S_ISREG(mode) else ""
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path}: can't be written ({reason(error)}); give another --out") from error
    if stat.S_ISDIR(mode):
        raise UserError(
            f"{path}: is a folder, and a file would be written there; move it elsewhere, or give another --out"
        )
    if path.name not in known:
        raise UserError(
            f"{path}: isometry has no record of writing this file, and would replace it; move it elsewhere or delete "
            "it, or give another --out"
        )
    if digest not in known[path.name]:
        raise UserError(
            f"{path}: was changed since isometry wrote it, and would be replaced; move it elsewhere"
        )
    return [digest]


def _outputs(folder: Path) -> dict[str, list[str]]:
    path = refuse_link(folder / OUTPUTS)
    if not os.path.lexists(path):
        return {}
    try:
        check_regular(path.stat())
        found = json.loads(path.read_bytes()).items()
        # Older versions have the last one alone.
        known = {name: [digests] if isinstance(digests, str) else digests for name, digests in found}
        if not all(isinstance(each, list) for each in known.values()):
            raise ValueError("not a list of checksums for each name")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: is not the record of what isometry wrote here, and would be replaced ({reason(error)}); move it "
            "elsewhere, or give another --out"
        ) from error
    return known


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other threads and processes that write outputs to the folder wait until the block has ended."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some drives have no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # A process that was forked meanwhile has the lock too, until it is given back.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


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
