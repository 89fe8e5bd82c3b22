"""A config in, a finished run out: the one path that `train`, `distill` and `compare` share."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from isometry.config import RunConfig
from isometry.data.worker_failures import worker_deaths
from isometry.distributed import join_world, lost_processes
from isometry.evaluation.representations import block_features, compared_images
from isometry.files import disk_errors
from isometry.models.sharding import GatheredTeacher, is_sharded
from isometry.training.batch_size import assemble_shared
from isometry.training.checkpoint.files import has_checkpoint
from isometry.training.checkpoint.run_folder import RunFolder, last_checkpoint
from isometry.training.loop import Trainer
from isometry.training.progress import tell
from isometry.training.results import Row, RunResult, figures_of, finish, skipped_images


def execute(
    config: RunConfig, console: Console, label: str = "", companions: Sequence[Row] = ()
) -> RunResult | None:
    """Runs a config to its end and writes its folder; None in processes that are not the main one.

    Args:
        config: the run.
        console: where a person watches.
        label: the run's name on the progress bar; its folder's name if empty.
        companions: rows of other runs for the report's table.

    Raises:
        UserError: bad input, a loss that is not finite, or a loading process that was killed.
        Interrupted: asked to stop; saved.
    """
    world = join_world(config.device)
    way_on = partial(_way_on, config)
    with closing(world), worker_deaths(way_on), lost_processes(world, way_on):
        if not world.main:
            trainer = Trainer(assemble_shared(config, world), None, world, None, label)
            trainer.fit()
            gather_teacher(trainer)
            return None
        with RunFolder(config) as folder:
            run = assemble_shared(config, world)
            run.notes += folder.begin(run.config)
            trainer = Trainer(run, folder, world, console, label or Path(run.config.out).name)
            tell(console, run.notes)
            trainer.fit()
            gather_teacher(trainer)
            with disk_errors(folder.path, "make room and go on with --resume"):
                outcome = finish(trainer, folder, companions)
            trainer.loaders.close()
            tell(console, skipped_images(trainer))
            return outcome


def _way_on(config: RunConfig) -> str:
    if has_checkpoint(last_checkpoint(config.out)):
        return "what was saved is kept: go on with --resume"
    return "nothing was saved yet: start again"


def gather_teacher(trainer: Trainer) -> None:
    """Fills ``trainer.run.gathered_teacher`` where the teacher is sharded; all processes must come here."""
    run, world, view = trainer.run, trainer.world, trainer.objective.teacher_view
    if run.teacher is None or not is_sharded(run.teacher):
        return
    figures, features = figures_of(trainer, run.teacher), list[Tensor]()
    if trainer.objective.pairs and view is not None:
        if world.main:
            images = compared_images(trainer.loaders, trainer.preprocess)
        else:
            # Any image: this process only lends its pieces.
            images = torch.zeros(1, 1, *view.size, device=world.device)
        features = block_features(run.teacher, view(images))
    run.gathered_teacher = GatheredTeacher(figures, features)
