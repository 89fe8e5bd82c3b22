"""Extra places for the metrics: TensorBoard and Weights & Biases, for those who have them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from isometry.config import RunConfig
from isometry.errors import UserError

Logger = Callable[[Mapping[str, Any] | None], None]
"""Called with each epoch's row of metrics, and with None at the end."""


def open_loggers(config: RunConfig) -> list[Logger]:
    """The loggers that the config asks for.

    Raises:
        UserError: the library is not installed.
    """
    loggers: list[Logger] = []
    if config.log_tensorboard:
        loggers.append(_tensorboard(config))
    if config.log_wandb:
        loggers.append(_wandb(config))
    return loggers


def _tensorboard(config: RunConfig) -> Logger:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--log-tensorboard: not installed; pip install 'isometry[tensorboard]'") from error
    writer = SummaryWriter(f"{config.out}/tensorboard")

    def log(row: Mapping[str, Any] | None) -> None:
        if row is None:
            writer.close()
            return
        for name, value in row.items():
            writer.add_scalar(name, value, row["step"])

    return log


def _wandb(config: RunConfig) -> Logger:
    try:
        import wandb
    except ImportError as error:
        raise UserError("--log-wandb: not installed; pip install 'isometry[wandb]'") from error
    run = wandb.init(project="isometry", config=asdict(config), dir=config.out)

    def log(row: Mapping[str, Any] | None) -> None:
        if row is None:
            run.finish()
        else:
            run.log(dict(row), step=row["step"])

    return log
