"""A config in, a finished run out: the one path that `train`, `distill` and `compare` share."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from isometry.assemble import assemble
from isometry.config import RunConfig
from isometry.distributed import World, join_world
from isometry.outcome import Outcome, Row, finish
from isometry.runfolder import RunFolder
from isometry.train import Trainer


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
            return _train_along(config, console, world, label)
        with RunFolder(config) as folder:
            run = assemble(config, world)
            folder.begin(run.config)
            for note in run.notes:
                console.print(f"[yellow]{note}[/]", highlight=False, soft_wrap=True)
            trainer = Trainer(run, folder, world, console, label or Path(run.config.out).name)
            trainer.fit()
            if trainer.state.unreadable:
                names = sorted(set(trainer.state.unreadable))
                console.print(f"{len(names)} unreadable images were skipped: {', '.join(names[:20])}", soft_wrap=True)
            outcome = finish(trainer, folder, companions)
        return outcome
    finally:
        world.close()


def _train_along(config: RunConfig, console: Console, world: World, label: str) -> None:
    run = assemble(config, world)
    trainer = Trainer(run, None, world, None, label)
    trainer.fit()
