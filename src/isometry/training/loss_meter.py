"""Losses of an epoch: kept on the device, read once per logging interval; an error if not finite."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from isometry.distributed import World
from isometry.errors import UserError
from isometry.files import write_atomically
from isometry.models.finite import all_finite
from isometry.training.checkpoint.run_state import LoopState


class NotFiniteError(Exception):
    """A loss is not finite: at ``step``, in ``terms``, in ``processes``.

    ``images`` are the step's training images, a list for each process.
    """

    def __init__(self, step: int, terms: list[str], processes: list[int], images: list[list[int]]) -> None:
        super().__init__(f"step {step}: {', '.join(terms)}")
        self.step, self.terms, self.processes, self.images = step, terms, processes, images


class LossMeter:
    """Sums of the terms ``names`` over an epoch's images, averaged over the processes.

    ``sums`` has the steps that were read so far: each step's terms times its images over all processes.
    """

    def __init__(self, names: Sequence[str], world: World) -> None:
        self.names, self.world = list(names), world
        self.sums = [0.0] * len(self.names)
        self._unread: list[tuple[int, Tensor, list[int]]] = []

    def add(self, step: int, values_T: Tensor, images: list[int]) -> None:
        """Adds the terms (T,) of a step on some images, without waiting for the device."""
        self._unread.append((step, values_T, images))

    def mean(self, results: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """The terms (T,) of an objective's results, averaged over batches of a step."""
        rows = [torch.stack([result[name].detach().float() for name in self.names]) for result in results]
        return torch.stack(rows).div(len(rows)).sum(0)

    def means(self, images: int) -> dict[str, float]:
        """The terms averaged over so many images, for a row of metrics."""
        return {f"train/{name}": total / images for name, total in zip(self.names, self.sums, strict=True)}

    def read(self, flag: bool = False) -> tuple[dict[str, float], bool]:
        """The terms of the latest step, and whether ``flag`` is set in any process; synchronizes at most once.

        Raises:
            NotFiniteError: in every process. The steps before are in the sums.
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
                bad_processes = self.world.gather([int(not own_T.isfinite().all())])
                processes = [number for number, (is_bad,) in enumerate(bad_processes) if is_bad]
                raise NotFiniteError(step, bad, processes, self.world.gather(images))
            weight = len(images) * self.world.size
            self.sums = [total + weight * value for total, value in zip(self.sums, row, strict=True)]
        return dict(zip(self.names, rows[-1], strict=False)), rows[-1][-1] > 0


ADVICE = "try a smaller --lr or --clip-grad 1 in a new --out"


def check_weights(module: nn.Module, step: int) -> None:
    """Raises UserError if a parameter or buffer is not finite after ``step`` steps with finite losses."""
    if not all_finite(module):
        raise UserError(
            f"step {step}: the weights are not finite, though the losses were; the previous save is kept; {ADVICE}"
        )


def record_path(out: str | Path) -> Path:
    """The file with the batch of a loss that is not finite."""
    return Path(out) / "not_finite.json"


def not_finite(
    error: NotFiniteError, state: LoopState, out: str | Path, writes: bool, kept: str
) -> UserError:
    """The error for the user; one process writes the step, the terms and the images of each process to a file.

    ``kept`` says which save is left.
    """
    content = {
        "step": error.step,
        "epoch": state.epoch + 1,
        "images_of_the_epoch_before": state.seen,
        "terms": error.terms,
        "processes": error.processes,
        "images": error.images,
    }
    if writes:
        write_atomically(record_path(out), json.dumps(content, indent=1))
    terms = ", ".join(f"losses.{name}" for name in error.terms if name != "loss") or "the sum of losses"
    several = len(error.images) > 1
    where = f" in process {', '.join(map(str, error.processes))}" if several else ""
    images = [image for process in error.processes for image in error.images[process]]
    return UserError(
        f"step {error.step} (epoch {state.epoch + 1}): {terms} is not finite{where}, on the training images {images}; "
        f"{kept}, the batch in {record_path(out)}; --resume repeats it, {ADVICE}"
    )
