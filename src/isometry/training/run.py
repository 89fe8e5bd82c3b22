"""Runs a config to its end: for `train`, `distill`, `prune` and `compare`."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from isometry.config import RunConfig
from isometry.data.inventory import take_inventory
from isometry.data.shared_memory import small_shared_memory
from isometry.data.worker_failures import worker_deaths
from isometry.distributed import join_world, local_processes, lost_processes
from isometry.evaluation.representations import block_features, compared_images
from isometry.files import disk_errors
from isometry.models.sharding import GatheredTeacher, is_sharded
from isometry.report.terminal import print_notes
from isometry.training.assemble import Run, assemble
from isometry.training.checkpoint.files import has_checkpoint
from isometry.training.checkpoint.run_folder import RunFolder, last_checkpoint
from isometry.training.data_changes import check_classes
from isometry.training.loop import Trainer
from isometry.training.moving_average import slow_average
from isometry.training.out_of_memory import memory_advice
from isometry.training.results import Row, RunResult, closing_notes, figures_of, finish
from isometry.training.signals import sigterm_interrupts


def execute(
    config: RunConfig, console: Console, label: str = "", companions: Sequence[Row] = ()
) -> RunResult | None:
    """Runs a config to its end and writes its folder; None in processes that are not the main one.

    ``label`` is the run's name on the progress bar, by default its folder's; ``companions`` are rows of other runs for
    the report's table.

    Raises:
        UserError: bad input, a loss that is not finite, or a loading process that was killed.
        Interrupted: stopped by a signal.
    """
    world = join_world(config.device)
    advice = partial(save_advice, config.out)
    with closing(world), sigterm_interrupts(advice), worker_deaths(advice), lost_processes(world, advice):
        if not world.main:
            run = assemble(config, world)
            _take_inventory(run)
            trainer = Trainer(run, None, world, None, label)
            with memory_advice(trainer, advice):
                trainer.fit()
                gather_teacher(trainer)
            return None
        with RunFolder(config) as folder:
            run = assemble(config, world)
            _take_inventory(run)
            run.notes += folder.begin(run.config)
            trainer = Trainer(run, folder, world, console, label or Path(run.config.out).name)
            run.notes += small_shared_memory(
                run.config, run.spec, run.sources.val is not None, local_processes()
            )
            run.notes += slow_average(run.config, run.schedule.stages[-1], trainer.steps_per_epoch)
            print_notes(console, run.notes)
            with memory_advice(trainer, advice):
                trainer.fit()
                gather_teacher(trainer)
                with disk_errors(folder.path, "make room and go on with --resume"):
                    result = finish(trainer, folder, companions)
            trainer.loaders.close()
            print_notes(console, closing_notes(trainer, folder))
            return result


def _take_inventory(run: Run) -> None:
    """Lists the run's data, and checks that a run that resumes has its classes."""
    run.inventory = take_inventory(run.sources, run.config.data_dir)
    if run.config.resume:
        check_classes(run.config.out, run.inventory)


def save_advice(out: str) -> str:
    """What to do after a run in ``out`` was stopped."""
    if has_checkpoint(last_checkpoint(out)):
        return "the last save is kept: go on with --resume"
    return "nothing was saved yet: start again"


def gather_teacher(trainer: Trainer) -> None:
    """Fills ``trainer.run.gathered_teacher`` if the teacher is sharded; all processes must call it."""
    run, world, teacher = trainer.run, trainer.world, trainer.objective.teacher
    if run.teacher is None or not is_sharded(run.teacher):
        return
    figures, features = figures_of(trainer, run.teacher, trainer.loaders), list[Tensor]()
    if trainer.objective.pairs and teacher is not None:
        # The other processes only provide their shards.
        images = (
            run.objective.student_images(compared_images(trainer.loaders, trainer.preprocess))
            if world.main
            else teacher.adapter.blank(world.device)
        )
        features = block_features(run.teacher, teacher.adapter(images))
    run.gathered_teacher = GatheredTeacher(figures, features)
