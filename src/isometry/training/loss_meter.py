"""The losses of an epoch: kept on the device, read once a logging interval, stopped at when not finite."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from isometry.distributed import World
from isometry.errors import UserError
from isometry.files import write_atomically
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import LoopState


class NotFiniteError(Exception):
    """A loss is not finite: at which ``step``, in which ``terms``, in which ``processes``.

    ``images`` are the step's training images, a list a process.
    """

    def __init__(self, step: int, terms: list[str], processes: list[int], images: list[list[int]]) -> None:
        super().__init__(f"step {step}: {', '.join(terms)}")
        self.step, self.terms, self.processes, self.images = step, terms, processes, images


class LossMeter:
    """Adds up the terms ``names`` over an epoch's images: their means over the processes, so the same in each.

    ``sums`` holds what was read so far, each step's terms times the images of all processes in it.
    """

    def __init__(self, names: Sequence[str], world: World) -> None:
        self.names, self.world = list(names), world
        self.sums = [0.0] * len(self.names)
        self._unread: list[tuple[int, Tensor, list[int]]] = []

    def add(self, step: int, values_T: Tensor, images: list[int]) -> None:
        """Takes the terms (T,) of a step on some images; waits for nothing."""
        self._unread.append((step, values_T, images))

    def read(self, flag: bool = False) -> tuple[dict[str, float], bool]:
        """The terms of the latest step, and whether ``flag`` is up in any process.

        One synchronisation, the flag included; none when nothing was added since the last reading.

        Raises:
            NotFiniteError: in every process alike. What came before that step is in the sums.
        """
        if not self._unread:
            return {}, False
        unread, self._unread = self._unread, []
        table_ST = torch.stack([values_T for _, values_T, _ in unread])
        flags_S1 = torch.full((len(unread), 1), float(flag), device=table_ST.device)
        rows = self.world.mean(torch.cat([table_ST, flags_S1], dim=1)).tolist()
        for (step, own_T, images), (*row, _) in zip(unread, rows, strict=True):
            bad = [name for name, value in zip(self.names, row, strict=True) if not math.isfinite(value)]
            if bad:
                guilty = self.world.gather([int(not own_T.isfinite().all())])
                processes = [number for number, (is_bad,) in enumerate(guilty) if is_bad]
                raise NotFiniteError(step, bad, processes, self.world.gather(images))
            weight = len(images) * self.world.size
            self.sums = [total + weight * value for total, value in zip(self.sums, row, strict=True)]
        return dict(zip(self.names, rows[-1], strict=False)), rows[-1][-1] > 0


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
