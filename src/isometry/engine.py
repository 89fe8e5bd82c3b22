"""A config in, a finished run out: the one path that `train`, `distill` and `compare` share."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from isometry.assemble import assemble
from isometry.config import RunConfig
from isometry.distributed import join_world
from isometry.outcome import Outcome, Row, finish, skipped_images
from isometry.training.checkpoint import disk_trouble
from isometry.training.loop import Trainer
from isometry.training.runfolder import RunFolder


def execute(
    config: RunConfig, console: Console, label: str = "", companions: Sequence[Row] = ()
) -> Outcome | None:
    """Runs a config to its end and writes its folder; None in processes that are not the main one.

    Args:
        config: the run.
        console: where a person watches.
        label: the run's name on the progress bar; its folder's name if empty.
        companions: rows of other runs for the report's table.

    Raises:
        UserError: bad input, or a loss that is not finite.
        Interrupted: asked to stop; saved.
    """
    world = join_world(config.device)
    try:
        if not world.main:
            Trainer(assemble(config, world), None, world, None, label).fit()
            return None
        with RunFolder(config) as folder:
            run = assemble(config, world)
            folder.begin(run.config)
            trainer = Trainer(run, folder, world, console, label or Path(run.config.out).name)
            for note in run.notes:
                console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
            trainer.fit()
            with disk_trouble(folder.path, "make room and go on with --resume"):
                outcome = finish(trainer, folder, companions)
            trainer.loaders.close()
            for note in skipped_images(trainer):
                console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
            return outcome
    finally:
        world.close()
