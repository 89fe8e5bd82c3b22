"""Results of a finished run: the student as a timm folder, its figures, and the report."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isometry.data import Loaders, make_loaders
from isometry.data.unreadable import skipped
from isometry.distributed import cores_per_process
from isometry.evaluation.accuracy import accuracy, tabled
from isometry.evaluation.channel_usage import pruning_report
from isometry.evaluation.representations import block_features, compare_representations, compared_images
from isometry.evaluation.timing import images_per_second
from isometry.evaluation.variants import (
    DENSE,
    EvaluationImages,
    before_pruning,
    measure_variants,
    variants_of,
)
from isometry.files import write_atomically
from isometry.models.build import save_model
from isometry.models.cost import macs, parameter_count
from isometry.models.image_reading import KEY, reading_of
from isometry.models.sharding import is_sharded
from isometry.models.spec import architecture, image_spec
from isometry.prune.saving import save_network
from isometry.prune.unused_channels import compact
from isometry.recipes import config_to_yaml
from isometry.report.log_panels import logged_figures, logged_pictures
from isometry.report.page import render_report, write_page
from isometry.report.records.data import PruningData, ReportData
from isometry.report.records.record import write_record
from isometry.report.tables import measured_figures
from isometry.report.times import waiting_sentence
from isometry.training.assemble import Run
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import load_with_note
from isometry.training.growth import stage_rows
from isometry.training.loggers import open_loggers
from isometry.training.loop import Trainer
from isometry.training.memory_layout import set_memory_format
from isometry.training.moving_average import delivered
from isometry.training.provenance import provenance
from isometry.training.teacher_figures import in_float32, speed_column, teacher_accuracy

Row = dict[str, Any]

ACCURACIES_AND_COSTS = ("params", "macs", "top1", "top1_by_class", "top1_part")
"""What the row of a pruned network has of its variant."""

BATCH_SIZES = (1, 8, 64)
"""Batch sizes that the variants of a pruned network are timed at."""
SECONDS_TIMED = 0.5
"""Time for each variant at each batch size."""


@dataclass(frozen=True)
class RunResult:
    """Paths and tables of a finished run.

    Attributes:
        folder, report: of the run.
        rows: the models, with their figures.
        stages: of growth, with their times; none in a run that did not grow.
        times: seconds by phase, a row for each epoch.
        waiting: a sentence on the time that training waited for images, where that was the bottleneck.
        network: the folder of the whole network, where the student is its backbone.
    """

    folder: Path
    report: Path
    rows: list[Row]
    stages: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)
    waiting: str = ""
    network: Path | None = None

    @property
    def student(self) -> Row:
        """The row of the trained model."""
        return next(row for row in self.rows if row["role"] == "student")


def finish(trainer: Trainer, folder: RunFolder, companions: Sequence[Row] = ()) -> RunResult:
    """Saves the best student, measures it and the teacher, and writes ``summary.json`` and the report with its record.

    ``companions`` are rows of other runs for the report's table.
    """
    run = trainer.run
    best = load_with_note(folder.best, run, trainer.console)
    run.student.load_state_dict(best.parts["model"])
    run.student.to(trainer.world.device).eval()
    # As other programs load it: what is saved and timed is in torch's usual layout.
    set_memory_format(trainer.objective, torch.contiguous_format)
    if run.config.grad_checkpointing:
        run.student.set_grad_checkpointing(False)  # type: ignore[operator]
    if run.config.prune.compact:
        _compact(trainer)
    save_student(run, folder.path / "student")
    with _whole_splits(trainer) as loaders:
        variants, pruning = _measure_variants(trainer, folder.path / "student", loaders)
        rows = measure(trainer, loaders, variants)
    write_atomically(folder.path / "summary.json", json.dumps(rows, indent=1))
    stages = stage_rows(run, trainer.state) if run.schedule.grows else []
    if stages:
        write_atomically(folder.path / "stages.json", json.dumps(stages, indent=1))
    report = folder.path / "report.html"
    data = report_data(trainer, folder, [*rows[:-1], *companions, rows[-1]], stages, pruning)
    write_record(folder.path, data)
    write_page(report, render_report(data))
    with open_loggers(trainer.config, trainer.state.step) as loggers:
        for logger in loggers:
            logger.end(logged_figures(data), logged_pictures(data), trainer.state.step)
    return RunResult(folder.path, report, rows, stages, data.times, data.waiting)


def measure(trainer: Trainer, loaders: Loaders, variants: Sequence[Row] = ()) -> list[Row]:
    """Rows of the table: teacher, the network before pruning (if it was trained), and student.

    Accuracy is on the test split, if there is one. ``variants`` are those of a pruned student, already measured.
    """
    run = trainer.run
    rows = []
    if run.teacher is not None:
        teacher = run.teacher.to(trainer.world.device).eval()
        gathered = run.gathered_teacher
        figures = gathered.figures if gathered else figures_of(trainer, teacher, loaders)
        rows.append({"model": f"teacher {architecture(teacher)}", "role": "teacher", **figures})
    if variants and not run.config.prune.from_scratch:
        rows.append({"model": "before pruning", "role": "start", **_figures_of_variant(variants[0])})
    name = architecture(run.student)
    rows.append(
        {
            "model": f"student {name}" if run.teacher is not None else name,
            "role": "student",
            **(
                _figures_of_variant(variants[-1]) | measured_figures(run.student)
                if variants
                else figures_of(trainer, run.student, loaders)
            ),
            "seconds": trainer.state.seconds,
        }
    )
    return rows


@contextmanager
def _whole_splits(trainer: Trainer) -> Iterator[Loaders]:
    """Loaders of all images: this process measures alone, the others have ended by now."""
    run = trainer.run
    if trainer.world.size == 1:
        yield trainer.loaders
        return
    with closing(make_loaders(run.sources, run.config, run.spec, seed=run.config.seed)) as loaders:
        yield loaders


def save_student(run: Run, folder: Path) -> None:
    """Writes the student as it is into a timm folder."""
    names = ("input_size", "mean", "std", "interpolation", "crop_mode")
    data_config: dict[str, Any] = {name: getattr(run.spec, name) for name in names}
    data_config["crop_pct"] = run.config.crop_pct or run.spec.crop_pct
    save = save_network if run.config.prune.wanted else save_model
    save(run.student, folder, run.sources.class_names, data_config, {KEY: reading_of(run.config)})


def _compact(trainer: Trainer) -> None:
    """Removes the channels that no training image uses, without augmentation, with a note on the result."""
    run = trainer.run
    # All training images: an epoch leaves out an incomplete batch, and the images of other processes.
    everything = replace(run.sources, val=run.sources.train)
    loaders = make_loaders(everything, run.config, run.spec, seed=run.config.seed)

    class Calibration:
        def __iter__(self) -> Iterator[Tensor]:
            assert loaders.val is not None
            for batch in trainer.batches.read(loaders.val):
                yield trainer.preprocess.normalise(batch)[0]

    before = parameter_count(run.student)
    run.student, removed = compact(run.student, Calibration())
    loaders.close()
    run.notes.append(
        f"--compact: cut {sum(removed.values())} channels that no training image uses, "
        f"{before:,} to {parameter_count(run.student):,} parameters"
    )


def figures_of(trainer: Trainer, model: nn.Module, loaders: Loaders) -> Row:
    """Figures of the student or the teacher; of a sharded teacher by all processes together, else by this one.

    ``loaders`` are those of all images, for the student.
    """
    run, is_teacher, sharded = trainer.run, model is trainer.run.teacher, is_sharded(model)
    size = image_spec(model).input_size if is_teacher else run.spec.input_size
    world = trainer.world if sharded else replace(trainer.world, rank=0, size=1)
    with in_float32(model):
        # Processes that share a model must make equally many passes, so their number is fixed, not their time.
        speed = images_per_second(model, size, seconds=0 if sharded else SECONDS_TIMED)
    figures: Row = {
        "params": parameter_count(model),
        "macs": run.teacher_macs if is_teacher else macs(model, size),
        speed_column(model): speed,
        **measured_figures(model),
    }
    if is_teacher:
        return figures | teacher_accuracy(trainer, world)
    part, name = loaders.evaluation
    if part is not None and run.sources.labelled:
        batches = trainer.batches.read(part)
        found = accuracy(model, batches, trainer.preprocess, world, trainer.autocast)
        figures |= tabled(found, name)
    return figures


def _figures_of_variant(variant: Row) -> Row:
    kept = {key: variant[key] for key in ACCURACIES_AND_COSTS if key in variant}
    return kept | {"images_per_s": variant["speeds"][-1]["images_per_s"]}


def _measure_variants(
    trainer: Trainer, student: Path, loaders: Loaders
) -> tuple[list[Row], PruningData | None]:
    """Rows of the variants of a pruned student, dense first, and the report's data on them; none of other students."""
    run, (part, name) = trainer.run, loaders.evaluation
    dense, note = before_pruning(run.student, student, run.config) if run.config.prune.wanted else (None, "")
    if dense is None or part is None:
        return [], None
    batches = partial(trainer.batches.read, part)
    images = EvaluationImages(batches, trainer.preprocess, run.spec, name, run.sources.labelled)
    variants = variants_of(run.student, dense.to(trainer.world.device))
    untrained = [DENSE] if note else []
    rows = measure_variants(variants, images, BATCH_SIZES, SECONDS_TIMED, untrained)
    return rows, pruning_report(run.student, images, rows)


def report_data(
    trainer: Trainer, folder: RunFolder, rows: list[Row], stages: list[Row], pruning: PruningData | None
) -> ReportData:
    """All data of the report."""
    run, config = trainer.run, trainer.config
    where = config.dataset or Path(config.data_dir or "").name
    models = " ◄ ".join(architecture(model) for model in (run.student, run.teacher) if model is not None)
    notes = [*run.notes, *closing_notes(trainer, folder)]
    times = folder.times.rows()
    return ReportData(
        title=f"{models} on {where}",
        subtitle=run.sources.description,
        facts=provenance(trainer),
        epochs=folder.metrics.rows(),
        models=rows,
        notes=notes,
        config_yaml=config_to_yaml(replace(config, resume=False)),
        marks=[(float(stage.first_epoch), stage.label) for stage in run.schedule.stages[1:]],
        stages=stages,
        pruning=pruning,
        times=times,
        waiting=waiting_sentence(
            times, trainer.loaders.train.workers, cores_per_process(), config.decode == "full"
        ),
        **_representations(trainer),
    )


def closing_notes(trainer: Trainer, folder: RunFolder) -> list[str]:
    """What is known at the end: which weights are delivered, where there are several, and unreadable images."""
    state, notes = trainer.state, []
    if trainer.objective.has_ema() and state.best_epoch is not None:
        row = next(row for row in folder.metrics.rows() if row["epoch"] == state.best_epoch)
        # Older runs always delivered the average.
        notes.append(delivered(row, state.best_is_average is not False))
    return notes + skipped(trainer.batches.unreadable)


def _representations(trainer: Trainer) -> dict[str, Any]:
    run, teacher = trainer.run, trainer.objective.teacher
    if teacher is None or not run.objective.pairs:
        return {}
    gathered = run.gathered_teacher
    images = run.objective.student_images(compared_images(trainer.loaders, trainer.preprocess))
    features = gathered.features if gathered else block_features(teacher.model, teacher.adapter(images))
    untrained, _ = run.plan.build()
    return compare_representations(run.objective.pairs, untrained, run.student, features, images)
