"""Extra places for the metrics: TensorBoard and Weights & Biases, for those who have them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from isometry.config import RunConfig
from isometry.errors import UserError

Logger = Callable[[Mapping[str, Any]], None]
"""Called with each epoch's row of metrics."""


@contextmanager
def open_loggers(config: RunConfig) -> Iterator[Logger]:
    """The loggers that the config asks for, as one; closed at the end, however it comes.

    Raises:
        UserError: the library is not installed.
    """
    with ExitStack() as stack:
        loggers = []
        if config.log_tensorboard:
            loggers.append(_tensorboard(config, stack))
        if config.log_wandb:
            loggers.append(_wandb(config, stack))

        def log(row: Mapping[str, Any]) -> None:
            for logger in loggers:
                logger(row)

        yield log


def _tensorboard(config: RunConfig, stack: ExitStack) -> Logger:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--log-tensorboard: not installed; pip install 'isometry[tensorboard]'") from error
    writer = stack.enter_context(SummaryWriter(f"{config.out}/tensorboard"))

    def log(row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, row["step"])

    return log


def _wandb(config: RunConfig, stack: ExitStack) -> Logger:
    try:
        import wandb
    except ImportError as error:
        raise UserError("--log-wandb: not installed; pip install 'isometry[wandb]'") from error
    run = stack.enter_context(wandb.init(project="isometry", config=asdict(config), dir=config.out))

    def log(row: Mapping[str, Any]) -> None:
        run.log(dict(row), step=row["step"])

    return log
