"""Extra places for a run's figures and pictures: TensorBoard and Weights & Biases, for those who have them."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from isometry.config import RunConfig
from isometry.errors import UserError

Figures = Mapping[str, float]
Pictures = Mapping[str, NDArray[np.uint8]]
"""By name, (H, W, 3)."""


class Place(Protocol):
    """Where figures and pictures go."""

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch's row of metrics, at its "step"."""

    def end(self, figures: Figures, pictures: Pictures, step: int) -> None:
        """What is known when the run has ended, after ``step`` steps."""


class Log:
    """All places that a run was asked to show itself in, as one."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places

    def __call__(self, row: Mapping[str, Any]) -> None:
        """See :meth:`Place.row`."""
        for place in self.places:
            place.row(row)

    def end(self, figures: Figures, pictures: Pictures, step: int) -> None:
        """See :meth:`Place.end`."""
        for place in self.places:
            place.end(figures, pictures, step)


@contextmanager
def open_loggers(config: RunConfig, step: int) -> Iterator[Log]:
    """The places that the config asks for, closed at the end, however it comes; opened again they go on.

    Args:
        config: the run.
        step: the last that is behind it; what was logged of later ones, before it was killed, will come again.

    Raises:
        UserError: the library is not installed.
    """
    with ExitStack() as stack:
        places: list[Place] = []
        if "tensorboard" in config.log:
            places.append(_TensorBoard(config, stack, step))
        if "wandb" in config.log:
            places.append(_WeightsAndBiases(config, stack))
        yield Log(places)


class _TensorBoard:
    def __init__(self, config: RunConfig, stack: ExitStack, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--log tensorboard: not installed; pip install 'isometry[tensorboard]'"
            ) from error
        self._writer = stack.enter_context(SummaryWriter(f"{config.out}/tensorboard", purge_step=step + 1))

    def row(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, row["step"])

    def end(self, figures: Figures, pictures: Pictures, step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")


class _WeightsAndBiases:
    def __init__(self, config: RunConfig, stack: ExitStack) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("--log wandb: not installed; pip install 'isometry[wandb]'") from error
        self._image = wandb.Image
        # The id makes a run that is resumed, or opened again at its end, go on as the same one there.
        opened = wandb.init(
            project="isometry",
            name=Path(config.out).name,
            id=_identity(Path(config.out) / "wandb-id"),
            resume="allow",
            config=asdict(config),
            dir=config.out,
        )
        self._run = stack.enter_context(opened)

    def row(self, row: Mapping[str, Any]) -> None:
        self._run.log(dict(row), step=row["step"])

    def end(self, figures: Figures, pictures: Pictures, step: int) -> None:
        self._run.summary.update(dict(figures))
        # Without a step: one that the run has had already would not be taken when it is opened again.
        self._run.log({name: self._image(picture) for name, picture in pictures.items()})


def _identity(path: Path) -> str:
    """The name of this run among all others, kept in its folder."""
    if not path.is_file():
        path.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8")
