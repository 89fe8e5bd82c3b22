"""Folder of a saved network: only files that were written there before, and that nobody changed, are replaced.

``.isometry.json`` in the folder has the SHA-256 of each file that was written, by name. Whatever else is in the folder
belongs to the user and stays, also if the process is killed at any moment.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typing_extensions import TypedDict

from isometry.errors import UserError
from isometry.files import NEW, new_path, random_path, refuse_link, sha256_of, write_atomically
from isometry.parsing import closed, read_json

MANIFEST = ".isometry.json"


@closed
class Manifest(TypedDict):
    """Content of the manifest; a folder that is not ``complete`` is still being written, and holds nothing else."""

    complete: bool
    files: dict[str, str]


def is_written(folder: Path) -> bool:
    """Whether :func:`replace_folder` wrote the folder."""
    return _manifest(folder)["complete"]


def check_unchanged(folder: Path) -> None:
    """Raises UserError if a file that was written there was changed since, or if the folder is a link."""
    refuse_link(folder)
    for name, digest in _manifest(folder)["files"].items():
        path = refuse_link(folder / name)
        if path.exists() and (not path.is_file() or sha256_of(path) != digest):
            raise UserError(
                f"{path}: was changed since isometry wrote it, and would be replaced; move it elsewhere"
            )


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder. When the block ends, its files replace those that were written to ``folder`` before; if
    the block fails, it is removed.

    Raises:
        UserError: as :func:`check_unchanged`, or a new file has the name of one that is the user's.
    """
    check_unchanged(folder)
    new = _begin(folder)
    try:
        yield new
        _complete(new, folder)
    finally:
        _clear(new, folder)


def _manifest(folder: Path) -> Manifest:
    try:
        found: Manifest = read_json(folder / MANIFEST, Manifest)
    except (OSError, ValueError):
        return {"complete": False, "files": {}}
    # Only plain names, so that nothing outside the folder is meant.
    files = {name: digest for name, digest in found["files"].items() if name == Path(name).name}
    return {"complete": found["complete"], "files": files}


def _begin(folder: Path) -> Path:
    """An empty folder beside ``folder``, in place of one that a killed process left."""
    new = folder.with_name(folder.name + NEW)
    _clear(new, folder)
    if new.is_symlink() or new.exists():
        # Somebody else's.
        new = random_path(folder)
    new.mkdir(parents=True)
    write_atomically(new / MANIFEST, json.dumps({"complete": False, "files": {}}))
    return new


def _complete(new: Path, folder: Path) -> None:
    """Puts ``new`` in the place of ``folder``, with what is the user's there."""
    files = {path.name: sha256_of(path) for path in sorted(new.iterdir()) if path.name != MANIFEST}
    ours = {MANIFEST, *_manifest(folder)["files"]}
    for name, digest in files.items():
        path = refuse_link(folder / name)
        if name not in ours and path.exists() and not (path.is_file() and sha256_of(path) == digest):
            raise UserError(
                f"{path}: isometry did not write this file, and would replace it; move it elsewhere"
            )
    write_atomically(new / MANIFEST, json.dumps({"complete": True, "files": files}, indent=1))
    if folder.exists():
        # The manifest last: without it the others would not be known for ours after a kill.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
            if path.name in ours | files.keys():
                path.unlink()
            else:
                path.rename(new / path.name)
        folder.rmdir()
    new.rename(folder)


def _clear(new: Path, folder: Path) -> None:
    """Removes what a process that was killed or failed left at ``new``; what is the user's goes back to ``folder``."""
    if new.is_symlink() or not new.is_dir():
        return
    if not (new / MANIFEST).is_file():
        # Without other files if it was killed before it wrote the manifest; else somebody else's.
        new_path(new / MANIFEST)
        with suppress(OSError):
            new.rmdir()
        return
    manifest = _manifest(new)
    if not manifest["complete"]:
        shutil.rmtree(new, ignore_errors=True)
        return
    for path in list(new.iterdir()):
        if path.name not in {MANIFEST, *manifest["files"]}:
            folder.mkdir(exist_ok=True)
            path.rename(folder / path.name)
    shutil.rmtree(new, ignore_errors=True)
