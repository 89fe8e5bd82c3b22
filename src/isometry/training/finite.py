"""Numbers that are no longer finite: found, and written down so that the batch can be looked at."""

import json
from pathlib import Path

import torch
from torch import nn

from isometry.errors import UserError
from isometry.training.checkpoint import write_atomically
from isometry.training.runfolder import RunFolder
from isometry.training.saves import LoopState
from isometry.training.tally import NotFiniteError

CALMER = "try a smaller --lr or --clip-grad 1 in a new --out"


def all_finite(module: nn.Module) -> bool:
    """Whether all weights and statistics of a module are; waits for the device."""
    tensors = (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def record_path(out: str | Path) -> Path:
    """Where the batch of a loss that is not finite is written down."""
    return Path(out) / "not_finite.json"


def record(error: NotFiniteError, folder: RunFolder | None, state: LoopState) -> None:
    """Writes down the batch of a loss that is not finite: the step, the terms, and each process's training images.

    Nothing without a folder, in processes that write none.
    """
    if folder is None:
        return
    told = {
        "step": error.step,
        "epoch": state.epoch + 1,
        "images_of_the_epoch_before": state.seen,
        "terms": error.terms,
        "processes": error.processes,
        "images": error.images,
    }
    write_atomically(record_path(folder.path), json.dumps(told, indent=1))


def explain(error: NotFiniteError, out: str | Path, state: LoopState, kept: str) -> UserError:
    """One line for the person: what is not finite, on which images, what is kept, and what to do."""
    blamed = ", ".join(f"losses.{name}" for name in error.terms if name != "loss") or "the sum of losses"
    several = len(error.images) > 1
    where = f" in process {', '.join(map(str, error.processes))}" if several else ""
    images = [image for process in error.processes for image in error.images[process]]
    return UserError(
        f"step {error.step} (epoch {state.epoch + 1}): {blamed} is not finite{where}, on the training images {images}; "
        f"{kept}, the batch in {record_path(out)}; --resume repeats it, {CALMER}"
    )
