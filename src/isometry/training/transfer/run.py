"""Runs a config for boxes or masks to its end."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from isometry.config import RunConfig
from isometry.data.dense.summary import summary
from isometry.data.unreadable import skipped
from isometry.data.worker_failures import worker_deaths
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.files import disk_errors
from isometry.report.terminal import print_notes, say_under
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.out_of_memory import is_out_of_memory
from isometry.training.results import RunResult
from isometry.training.run import save_advice
from isometry.training.signals import sigterm_interrupts
from isometry.training.transfer.assemble import assemble_dense
from isometry.training.transfer.dense import DenseTrainer
from isometry.training.transfer.results import finish_dense


def execute_dense(config: RunConfig, console: Console, label: str = "") -> RunResult:
    """Runs a config whose ``task`` is ``detect`` or ``segment`` to its end, and writes its folder.

    ``label`` is the run's name on the progress bar, by default its folder's; without it, what the data hold is printed
    before training.

    Raises:
        UserError: bad input, a loss that is not finite, too little memory, or a loading process that was killed.
        Interrupted: stopped by a signal.
    """
    advice = partial(save_advice, config.out)
    with (
        closing(join_world(config.device)) as world,
        sigterm_interrupts(advice),
        worker_deaths(advice),
        RunFolder(config) as folder,
    ):
        run = assemble_dense(config, world)
        run.notes += folder.begin(run.config)
        trainer = DenseTrainer(run, folder, world, console, label or Path(config.out).name)
        if not label:
            # The runs of a comparison have the same data.
            for head, text in summary(run.sources):
                say_under(console, head, text)
        print_notes(console, run.notes)
        with closing(trainer.loaders), _memory_advice(world.device, advice):
            trainer.fit()
            with disk_errors(folder.path, "make room and go on with --resume"):
                result = finish_dense(trainer)
        print_notes(console, skipped(trainer.state.unreadable))
        return result


@contextmanager
def _memory_advice(device: torch.device, advice: Callable[[], str]) -> Iterator[None]:
    """Turns a lack of memory inside the block into a UserError that says what would help, and ``advice()``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory on {device}; give a smaller --batch-size or --img-size; {advice()}"
        ) from error
