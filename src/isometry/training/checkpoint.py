"""Checkpoints that survive a kill at any moment: tensors as safetensors, the loop's state as readable JSON.

A checkpoint folder holds ``checkpoint.json``, which names the tensor files that belong to it. New tensor
files are written under new names first; replacing ``checkpoint.json`` is the one atomic step that makes them
count; what it no longer names is deleted last. No pickle is written or read.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isometry.errors import UserError

Tensors = dict[str, Tensor]

INDEX = "checkpoint.json"


def save_checkpoint(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], tag: str) -> None:
    """Writes a checkpoint; whatever happens on the way, the folder holds a whole one, the old or the new.

    Args:
        folder: the checkpoint's folder, e.g. ``last/``.
        parts: tensors by name, one file a part (empty parts are left out).
        state: anything that JSON can hold.
        tag: makes the file names new, e.g. the step.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    names = {part: f"{part}-{tag}.safetensors" for part, tensors in parts.items() if tensors}
    index = json.dumps({"files": names, **state}, indent=1)
    had_one = has_checkpoint(folder)
    kept = "the checkpoint that was there before is intact: make room and go on with --resume"
    try:
        with disk_trouble(folder, kept if had_one else "make room"):
            folder.mkdir(parents=True, exist_ok=True)
            for part, name in names.items():
                fresh = folder / f"{name}.new"
                save_file(
                    {k: v.detach().to("cpu", copy=True).contiguous() for k, v in parts[part].items()}, fresh
                )
                _flush(fresh)
                fresh.replace(folder / name)
            _replace_text(folder / INDEX, index)
            tidy_checkpoint(folder)
    except UserError:
        # What is half written would fill the disk for whoever makes room on it.
        with suppress(OSError, UserError):
            tidy_checkpoint(folder)
        raise


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The tensors by part and the state of a checkpoint.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        state = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        parts = {part: load_file(folder / name) for part, name in state.pop("files").items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: the checkpoint can't be read ({reason(error)})") from error
    return parts, state


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds a whole checkpoint."""
    return (folder / INDEX).is_file()


def tidy_checkpoint(folder: Path) -> None:
    """Deletes what a save that was cut short left: every file that the checkpoint does not name."""
    names = set()
    if has_checkpoint(folder):
        names = {INDEX, *json.loads((folder / INDEX).read_text(encoding="utf-8"))["files"].values()}
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old or the new one, never a part.

    Raises:
        UserError: the disk is full, or the folder can't be written.
    """
    with disk_trouble(path, "make room"):
        _replace_text(path, text)


@contextmanager
def disk_trouble(where: Path, advice: str) -> Iterator[None]:
    """What the disk refuses inside becomes a UserError of one line: where, why, and ``advice``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{where}: could not save ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """Why something failed, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def split_optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors by ``state/index/name`` or ``param_groups/index/name``, and the rest
    for JSON.

    Raises:
        UserError: it keeps something that is neither a tensor nor fit for JSON.
    """
    whole = optimizer.state_dict()
    tensors: Tensors = {}
    rest: dict[str, Any] = {}
    for section, numbered in (
        ("state", whole["state"]),
        ("param_groups", dict(enumerate(whole["param_groups"]))),
    ):
        rest[section] = {str(index): {} for index in numbered}
        for index, entries in numbered.items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{section}/{index}/{name}"] = value
                else:
                    rest[section][str(index)][name] = value
    try:
        json.dumps(rest)
    except TypeError as error:
        raise UserError(
            f"--opt: {type(optimizer).__name__} keeps a state that needs a pickle to save ({error}); "
            "take another, e.g. adamw"
        ) from error
    return tensors, rest


def join_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Tensors, rest: dict[str, Any]) -> None:
    """Loads what :func:`split_optimizer_state` took apart."""
    whole: dict[str, dict[int, dict[str, Any]]] = {
        section: {int(index): dict(entries) for index, entries in numbered.items()}
        for section, numbered in rest.items()
    }
    for key, value in tensors.items():
        section, index, name = key.split("/", 2)
        whole[section][int(index)][name] = value
    optimizer.load_state_dict({"state": whole["state"], "param_groups": list(whole["param_groups"].values())})


def _replace_text(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    _flush(fresh)
    fresh.replace(path)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
