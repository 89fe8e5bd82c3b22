"""Checkpoints that survive a kill at any moment: tensors as safetensors, the loop's state as readable JSON.

A checkpoint folder holds ``checkpoint.json``, which names the tensor files that belong to it. New tensor files are
written under new names first; replacing ``checkpoint.json`` is the one atomic step that makes them count; what it no
longer names is deleted last. No pickle is written or read.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isometry.errors import UserError

Tensors = dict[str, Tensor]


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, name in names.items():
            fresh = folder / f"{name}.new"
            save_file({k: v.detach().to("cpu", copy=True).contiguous() for k, v in parts[part].items()}, fresh)
            _flush(fresh)
            fresh.replace(folder / name)
        write_atomically(folder / "checkpoint.json", json.dumps({"files": names, **state}, indent=1))
        for path in folder.iterdir():
            if path.name not in (*names.values(), "checkpoint.json"):
                path.unlink()
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: could not save ({_reason(error)}); the checkpoint that was there before is intact: "
            "make room and go on with --resume"
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The tensors by part and the state of a checkpoint.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        state = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        parts = {part: load_file(folder / name) for part, name in state.pop("files").items()}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: the checkpoint can't be read ({_reason(error)})") from error
    return parts, state


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds a whole checkpoint."""
    return (folder / "checkpoint.json").is_file()


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old or the new one, never a part."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    _flush(fresh)
    fresh.replace(path)


def split_optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors by ``index/name``, and the rest, which JSON can hold."""
    state = optimizer.state_dict()
    tensors, values = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                values[f"{index}/{name}"] = value
    return tensors, {"values": values, "param_groups": state["param_groups"]}


def join_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Tensors, rest: dict[str, Any]) -> None:
    """Loads what :func:`split_optimizer_state` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["values"]}.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__
