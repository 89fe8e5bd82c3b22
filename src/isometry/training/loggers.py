"""TensorBoard and Weights & Biases."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isometry.config import RunConfig
from isometry.errors import UserError, printable
from isometry.files import inside, refuse_link, write_atomically

Figures = Mapping[str, float]
Images = Mapping[str, NDArray[np.uint8]]
"""By name, (H, W, 3)."""


class Logger(Protocol):
    """A library that figures and images are logged to."""

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch's row of metrics, at its "step"."""

    def end(self, figures: Figures, images: Images, step: int) -> None:
        """Figures and images of a run that has ended, after ``step`` steps."""


@contextmanager
def open_loggers(config: RunConfig, step: int, main: bool = True) -> Iterator[list[Logger]]:
    """The loggers that the config names, closed at the end; a run that resumes goes on in the same logs.

    Args:
        config: the run.
        step: the last one that is done; TensorBoard drops later ones, which a killed run logged.
        main: whether this is the main process; others log nothing.

    Raises:
        UserError: the library is not installed.
    """
    with ExitStack() as stack:
        loggers: list[Logger] = []
        if main and "tensorboard" in config.log:
            loggers.append(_TensorBoard(config.out, stack, step))
        if main and "wandb" in config.log:
            loggers.append(_WeightsAndBiases(config.out, asdict(config), stack))
        yield loggers


class _TensorBoard:
    def __init__(self, out: str, stack: ExitStack, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--log tensorboard: not installed; pip install 'isometry[tensorboard]'"
            ) from error
        self._writer = stack.enter_context(
            SummaryWriter(str(inside(Path(out), "tensorboard")), purge_step=step + 1)
        )

    def row(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(printable(name), value, row["step"])

    def end(self, figures: Figures, images: Images, step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(printable(name), value, step)
        for name, image in images.items():
            self._writer.add_image(printable(name), image, step, dataformats="HWC")


class _WeightsAndBiases:
    def __init__(self, out: str, options: dict[str, Any], stack: ExitStack) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("--log wandb: not installed; pip install 'isometry[wandb]'") from error
        self._image = wandb.Image
        inside(Path(out), "wandb")
        opened = wandb.init(
            project="isometry",
            name=printable(Path(out).name),
            # With the same id, a run that resumes goes on as the same run there.
            id=_run_id(Path(out) / "wandb-id"),
            resume="allow",
            config=options,
            dir=out,
        )
        self._run = stack.enter_context(opened)

    def row(self, row: Mapping[str, Any]) -> None:
        self._run.log(_printable(row), step=row["step"])

    def end(self, figures: Figures, images: Images, step: int) -> None:
        self._run.summary.update(_printable(figures))
        # Without a step, because W&B rejects a step that was logged before.
        self._run.log({printable(name): self._image(image) for name, image in images.items()})


def _printable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {printable(name): value for name, value in row.items()}


def _run_id(path: Path) -> str:
    """A unique id of the run, stored in its folder."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(8))
    return refuse_link(path).read_text(encoding="utf-8")
