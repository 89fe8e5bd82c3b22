"""Checkpoints that survive a kill at any moment and detect damage: safetensors, and the loop's state as JSON.

A checkpoint folder holds ``checkpoint.json``, which names the tensor files that belong to it with their SHA-256 and
ends in that of its own text, and ``before.json``, the index of the previous checkpoint. Tensor files are written first,
under new names; replacing ``checkpoint.json`` is the one atomic step that makes them count; files of such names that
neither index has are deleted last, and no others. No pickle is written or read.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isometry.errors import UserError, reason
from isometry.files import (
    disk_errors,
    flush,
    free_bytes,
    new_path,
    permit_as_umask,
    refuse_link,
    refuse_removed,
    sha256_of,
    write_new,
)
from isometry.training.checkpoint.index import CHANGED, SUFFIX, DamagedError, damage_of, read_index, seal

Tensors = dict[str, Tensor]

INDEX, PREVIOUS = "checkpoint.json", "before.json"
OURS = re.compile(
    r"(checkpoint\.json|before\.json|[a-z]+-(step|epoch)\d+(-[23])?\.safetensors)((\.[0-9a-f]{16})?\.new)?"
)
"""Names of files that are written here; any other file in the folder is somebody else's."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: tensors by part, the state, and the tag that it was saved under.

    ``note`` describes the damage if this is the previous checkpoint because the last one is damaged; else it is empty.
    """

    parts: dict[str, Tensors]
    state: dict[str, Any]
    tag: str
    note: str = ""


def snapshot(parts: dict[str, Tensors]) -> dict[str, Tensors]:
    """Copies of all tensors as :func:`save_checkpoint` takes them, which the training does not change as it goes on."""
    return {
        part: {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        for part, tensors in parts.items()
    }


def save_checkpoint(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], tag: str) -> None:
    """Writes a checkpoint and keeps the previous one; at any moment the folder holds a complete checkpoint.

    Args:
        folder: the checkpoint's folder, e.g. ``last/``.
        parts: tensors by name, one file per part (empty parts are left out). They are on the CPU and contiguous, and
            those of a part share no memory, see :func:`snapshot`.
        state: anything that JSON can represent.
        tag: part of file names and messages, e.g. the step.

    Raises:
        UserError: the disk is full (the message gives the required and the free space), or the folder can't be
            written, or is a link.
    """
    refuse_link(folder)
    parts = {part: tensors for part, tensors in parts.items() if tensors}
    kept = "the checkpoint that was there before is intact: make room and go on with --resume"
    advice = kept if has_checkpoint(folder) else "make room"
    try:
        _save(folder, parts, state, tag)
    except (OSError, SafetensorError) as error:
        refuse_removed(folder)
        # Partial files would use up the space that is freed.
        with suppress(OSError, DamagedError):
            _tidy(folder)
        needed = sum(tensor.nbytes for tensors in parts.values() for tensor in tensors.values())
        room = f"needs {needed / 1e6:,.1f} MB, {free_bytes(folder) / 1e6:,.1f} MB free"
        raise UserError(f"{folder}: could not save ({reason(error)}; {room}); {advice}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Loads a folder's checkpoint after checking every byte; the previous one, with a note, if it is damaged.

    Raises:
        UserError: both are damaged.
    """
    damages: list[str] = []
    for index in (INDEX, PREVIOUS):
        try:
            found = _load(folder, index)
        except DamagedError as damage:
            damages.append(str(damage))
        else:
            damaged = f"{folder}: damaged ({damages[0]}); " if damages else ""
            return replace(found, note=damaged and f"{damaged}the checkpoint before it is used ({found.tag})")
    before = f"nor the one before it ({damages[1]})"
    if not (folder / PREVIOUS).is_file():
        before = "and there is none before it"
    raise UserError(
        f"{folder}: the checkpoint can't be read ({damages[0]}), {before}; "
        "put back a copy, or start in a new --out"
    )


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder has a checkpoint or a previous one."""
    return any((folder / name).is_file() for name in (INDEX, PREVIOUS))


def tidy_checkpoint(folder: Path) -> None:
    """Deletes what an interrupted save left: every file of ours that neither index names.

    Raises:
        UserError: the index can't be read, so that its files are unknown; the disk fails; or the folder is a link.
    """
    refuse_link(folder)
    try:
        with disk_errors(folder, "check its permissions"):
            _tidy(folder)
    except DamagedError as damage:
        raise UserError(f"{folder}: the checkpoint can't be read ({damage})") from damage


def remove_checkpoint(folder: Path) -> None:
    """Deletes the files that :func:`save_checkpoint` wrote, and the folder if nothing else is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        _delete_ours(path)
    with suppress(OSError):
        folder.rmdir()


def restore_previous(folder: Path) -> None:
    """Replaces a damaged checkpoint by the previous one, so that the next save keeps that and not the damage.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    with disk_errors(folder, "make room and go on with --resume"):
        if (folder / INDEX).is_symlink():
            (folder / INDEX).unlink()
        write_new(folder / INDEX, (folder / PREVIOUS).read_bytes()).replace(folder / INDEX)
        flush(folder)


def _save(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], tag: str) -> None:
    # Without its parents: a run's folder that was removed meanwhile is not made anew, without all else that it had.
    folder.mkdir(exist_ok=True)
    names = _names(folder, list(parts), tag)
    sums = {name: _write_tensors(folder / name, parts[part]) for part, name in names.items()}
    new = write_new(folder / INDEX, seal({"tag": tag, "files": names, "sha256": sums, **state}))
    # Written before anything counts: if the disk is full here, both checkpoints are intact.
    older = None
    with suppress(DamagedError):
        older = write_new(folder / PREVIOUS, seal(read_index(folder / INDEX)))
    flush(folder)
    new.replace(folder / INDEX)
    # Afterwards, so that the two never name the same files.
    if older is not None:
        older.replace(folder / PREVIOUS)
    flush(folder)
    _tidy(folder)


def _names(folder: Path, parts: list[str], tag: str) -> dict[str, str]:
    """A file name for each part that neither index has: a step can be saved twice, e.g. at an epoch's end."""
    taken: set[str] = set()
    for index in (INDEX, PREVIOUS):
        with suppress(DamagedError):
            taken |= _files_of(folder, index)
    free = {part: [f"{part}-{tag}{again}{SUFFIX}" for again in ("", "-2", "-3")] for part in parts}
    return {part: next(name for name in names if name not in taken) for part, names in free.items()}


def _files_of(folder: Path, index: str) -> set[str]:
    return {index, *read_index(folder / index)["files"].values()}


def _tidy(folder: Path) -> None:
    names = _files_of(folder, INDEX) if (folder / INDEX).exists() else set()
    with suppress(DamagedError):
        names |= _files_of(folder, PREVIOUS)
    for path in folder.iterdir():
        if path.name not in names:
            _delete_ours(path)


def _delete_ours(path: Path) -> None:
    if OURS.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
        path.unlink()


def _load(folder: Path, index: str) -> Checkpoint:
    state = read_index(folder / index)
    sums, parts = state.pop("sha256"), {}
    for part, name in state.pop("files").items():
        with damage_of(folder / name) as path:
            if sha256_of(path) != sums[name]:
                raise ValueError(CHANGED)
            parts[part] = load_file(path)
    return Checkpoint(parts, state, state.pop("tag"))


def _write_tensors(path: Path, tensors: Tensors) -> str:
    """Writes a part; returns its SHA-256."""
    new = new_path(path)
    save_file(tensors, new)
    permit_as_umask(new)
    flush(new)
    digest = sha256_of(new)
    new.replace(path)
    return digest
