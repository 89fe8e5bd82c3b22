"""Checkpoints that survive a kill at any moment and find damage: safetensors, and the loop's state as readable JSON.

A checkpoint folder holds ``checkpoint.json``, which names the tensor files that belong to it with their
SHA-256 (FIPS 180-4) and ends in that of its own text; and ``before.json``, the same of the save before. New
tensor files are written under new names first; replacing ``checkpoint.json`` is the one atomic step that makes
them count; what neither names is deleted last. No pickle is written or read.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isometry.errors import UserError, reason
from isometry.files import _flush, _fresh, _write_text, disk_trouble, free_bytes
from isometry.training.checkpoint.index import CHANGED, SUFFIX, DamagedError, blamed_on, read_index, sealed

Tensors = dict[str, Tensor]

INDEX, BEFORE = "checkpoint.json", "before.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded: tensors by part, the state, and the tag that it was saved under.

    ``note`` says what was damaged, where this is the checkpoint before; else it is empty.
    """

    parts: dict[str, Tensors]
    state: dict[str, Any]
    tag: str
    note: str = ""


def save_checkpoint(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], tag: str) -> None:
    """Writes a checkpoint and keeps the one before; whatever happens on the way, the folder holds a whole one.

    Args:
        folder: the checkpoint's folder, e.g. ``last/``.
        parts: tensors by name, one file a part (empty parts are left out).
        state: anything that JSON can hold.
        tag: what file names and messages call it, e.g. the step.

    Raises:
        UserError: the disk is full (it says how much is needed and how much is free), or the folder can't be
            written.
    """
    parts = {part: tensors for part, tensors in parts.items() if tensors}
    kept = "the checkpoint that was there before is intact: make room and go on with --resume"
    advice = kept if has_checkpoint(folder) else "make room"
    try:
        _save(folder, parts, state, tag)
    except (OSError, SafetensorError) as error:
        # What is half written would fill the disk for whoever makes room on it.
        with suppress(OSError, DamagedError):
            _tidy(folder)
        needed = sum(tensor.nbytes for tensors in parts.values() for tensor in tensors.values())
        room = f"needs {needed / 1e6:,.1f} MB, {free_bytes(folder) / 1e6:,.1f} MB free"
        raise UserError(f"{folder}: could not save ({reason(error)}; {room}); {advice}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """A folder's checkpoint, every byte of it checked; the one before where it is damaged, with a note.

    Raises:
        UserError: neither is whole.
    """
    damages: list[str] = []
    for index in (INDEX, BEFORE):
        try:
            found = _load(folder, index)
        except DamagedError as damage:
            damages.append(str(damage))
        else:
            said = f"{folder}: damaged ({damages[0]}); " if damages else ""
            return replace(found, note=said and f"{said}the checkpoint before it is used ({found.tag})")
    before = f"nor the one before it ({damages[1]})"
    if not (folder / BEFORE).is_file():
        before = "and there is none before it"
    raise UserError(
        f"{folder}: the checkpoint can't be read ({damages[0]}), {before}; "
        "put back a copy, or start in a new --out"
    )


def has_checkpoint(folder: Path) -> bool:
    """Whether something was saved in the folder: a checkpoint, or one before it."""
    return any((folder / name).is_file() for name in (INDEX, BEFORE))


def tidy_checkpoint(folder: Path) -> None:
    """Deletes what a save that was cut short left: every file that neither checkpoint names.

    Raises:
        UserError: one can't be read, so that what belongs to it is not known; or the disk refuses.
    """
    try:
        with disk_trouble(folder, "see who may write there"):
            _tidy(folder)
    except DamagedError as damage:
        raise UserError(f"{folder}: the checkpoint can't be read ({damage})") from damage


def go_back(folder: Path) -> None:
    """Puts the checkpoint before in the damaged one's place, so that the next save keeps it and not the damage.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    with disk_trouble(folder, "make room and go on with --resume"):
        text = (folder / BEFORE).read_text(encoding="utf-8")
        _write_text(folder / INDEX, text).replace(folder / INDEX)
        _flush(folder)


def _save(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], tag: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(folder, list(parts), tag)
    sums = {name: _write_tensors(folder / name, parts[part]) for part, name in names.items()}
    fresh = _write_text(folder / INDEX, sealed({"tag": tag, "files": names, "sha256": sums, **state}))
    # Written before anything counts: a disk that fills up here costs neither checkpoint.
    older = None
    with suppress(DamagedError):
        older = _write_text(folder / BEFORE, sealed(read_index(folder / INDEX)))
    _flush(folder)
    fresh.replace(folder / INDEX)
    # After it, so that at no moment both name the same files.
    if older is not None:
        older.replace(folder / BEFORE)
    _flush(folder)
    _tidy(folder)


def _names(folder: Path, parts: list[str], tag: str) -> dict[str, str]:
    """A file name for each part that no checkpoint here has: a step can be saved twice, e.g. at an epoch's end."""
    taken: set[str] = set()
    for index in (INDEX, BEFORE):
        with suppress(DamagedError):
            taken |= _named(folder, index)
    free = {part: [f"{part}-{tag}{again}{SUFFIX}" for again in ("", "-2", "-3")] for part in parts}
    return {part: next(name for name in names if name not in taken) for part, names in free.items()}


def _named(folder: Path, index: str) -> set[str]:
    """All files of a checkpoint."""
    return {index, *read_index(folder / index)["files"].values()}


def _tidy(folder: Path) -> None:
    names = _named(folder, INDEX) if (folder / INDEX).exists() else set()
    with suppress(DamagedError):
        names |= _named(folder, BEFORE)
    for path in folder.iterdir():
        if path.name not in names and (path.is_file() or path.is_symlink()):
            path.unlink()


def _load(folder: Path, index: str) -> Checkpoint:
    state = read_index(folder / index)
    sums, parts = state.pop("sha256"), {}
    for part, name in state.pop("files").items():
        with blamed_on(folder / name) as path:
            if _digest(path) != sums[name]:
                raise DamagedError(f"{name}: {CHANGED}")
            parts[part] = load_file(path)
    return Checkpoint(parts, state, state.pop("tag"))


def _write_tensors(path: Path, tensors: Tensors) -> str:
    """Writes a part; returns its SHA-256."""
    fresh = _fresh(path)
    save_file({k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}, fresh)
    _flush(fresh)
    found = _digest(fresh)
    fresh.replace(path)
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
