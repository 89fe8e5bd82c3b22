"""What a finished run leaves: the student as a timm folder, its figures, and the report."""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isometry.data import make_loaders
from isometry.evaluation.accuracy import accuracy
from isometry.evaluation.channel_usage import pruning_report
from isometry.evaluation.representations import block_features, compare_representations, compared_images
from isometry.evaluation.timing import images_per_second
from isometry.evaluation.unpruned import before_pruning
from isometry.evaluation.variants import DENSE, EvaluationImages, measure_variants, variants_of
from isometry.files import write_atomically
from isometry.models.build import save_model
from isometry.models.cost import macs, parameter_count
from isometry.models.sharding import is_sharded
from isometry.models.spec import architecture, image_spec
from isometry.prune.saving import save_network
from isometry.prune.unused_channels import compact
from isometry.recipes import config_to_yaml
from isometry.report import PruningData, ReportData, write_record, write_report
from isometry.report.log_panels import logged_figures, logged_pictures
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.checkpoint.run_state import load_aloud
from isometry.training.loggers import open_loggers
from isometry.training.loop import Trainer
from isometry.training.provenance import provenance
from isometry.training.student import build_student, stage_networks

Row = dict[str, Any]

BATCH_SIZES = (1, 8, 64)
"""That the forms of a pruned network are timed at."""
SECONDS_TIMED = 0.5
"""About how long, each form at each batch size."""


@dataclass(frozen=True)
class RunResult:
    """Where a run's results are, and its table."""

    folder: Path
    report: Path
    rows: list[Row]
    stages: list[Row] = field(default_factory=list)
    """Those of growth, with their times; none in a run that did not grow."""
    times: list[Row] = field(default_factory=list)
    """Seconds by phase, a row an epoch."""

    @property
    def student(self) -> Row:
        """The row of the model that was trained."""
        return next(row for row in self.rows if row["role"] == "student")


def finish(trainer: Trainer, folder: RunFolder, companions: Sequence[Row] = ()) -> RunResult:
    """Exports the best student, measures it and the teacher, writes ``summary.json`` and the report with its record.

    ``companions`` are rows of other runs that the report's table shows beside this one's.
    """
    run = trainer.run
    best = load_aloud(folder.best, run, trainer.console)
    run.student.load_state_dict(best.parts["model"])
    run.student.to(trainer.world.device).eval()
    if run.config.grad_checkpointing:
        run.student.set_grad_checkpointing(False)  # type: ignore[operator]
    if run.config.prune.compact:
        _compact(trainer)
    spec = run.spec
    data_config = {
        "input_size": spec.input_size,
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": trainer.config.crop_pct or spec.crop_pct,
    }
    save = save_network if run.config.prune.wanted else save_model
    save(run.student, folder.path / "student", run.sources.class_names, data_config)
    forms, pruning = _measure_forms(trainer, folder.path / "student")
    rows = measure(trainer, forms)
    write_atomically(folder.path / "summary.json", json.dumps(rows, indent=1))
    stages = stage_rows(trainer) if run.schedule.grows else []
    if stages:
        write_atomically(folder.path / "stages.json", json.dumps(stages, indent=1))
    report = folder.path / "report.html"
    data = report_data(trainer, folder, [*rows[:-1], *companions, rows[-1]], stages, pruning)
    write_record(folder.path, data)
    write_report(report, data)
    with open_loggers(trainer.config, trainer.state.step) as log:
        if log.places:
            log.end(logged_figures(data), logged_pictures(data), trainer.state.step)
    return RunResult(folder.path, report, rows, stages, folder.times.rows())


def measure(trainer: Trainer, forms: Sequence[Row] = ()) -> list[Row]:
    """Rows of the table: teacher (if it was loaded), the network before pruning (if it was trained), and student.

    Accuracy is on the test part, where there is one. ``forms`` are those of a pruned student, measured already.
    """
    run = trainer.run
    rows = []
    if run.teacher is not None:
        teacher = run.teacher.to(trainer.world.device).eval()
        rows.append(
            {
                "model": f"teacher {architecture(teacher)}",
                "role": "teacher",
                **(run.gathered_teacher.figures if run.gathered_teacher else figures_of(trainer, teacher)),
            }
        )
    if forms and not run.config.prune.from_scratch:
        rows.append({"model": "as it was", "role": "start", **_figures_of(forms[0])})
    name = architecture(run.student)
    rows.append(
        {
            "model": f"student {name}" if run.teacher is not None else name,
            "role": "student",
            **(_figures_of(forms[-1]) if forms else figures_of(trainer, run.student)),
            "seconds": trainer.state.seconds,
        }
    )
    return rows


def _compact(trainer: Trainer) -> None:
    """Cuts the channels that no training image uses, augmentation aside, and notes what that came to."""
    run = trainer.run
    # All of them, where an epoch leaves out what is no whole batch, and a process what is the others'.
    everything = replace(run.sources, val=run.sources.train)
    loaders = make_loaders(everything, trainer.config, run.spec, seed=trainer.config.seed)

    class Calibration:
        def __iter__(self) -> Iterator[Tensor]:
            assert loaders.val is not None
            for batch in trainer.feed.noting_unreadable(loaders.val):
                yield trainer.preprocess.normalise(batch)[0]

    run.student, found = compact(run.student, Calibration())
    loaders.close()
    run.notes.append(
        f"--compact: cut {sum(found.cut.values())} channels that no training image uses, "
        f"{found.parameters_before:,} to {found.parameters_after:,} parameters"
    )


def figures_of(trainer: Trainer, model: nn.Module) -> Row:
    """A model's part of its row in the table; of a sharded teacher by all processes together, else by this one."""
    run = trainer.run
    is_teacher = model is run.teacher
    view = trainer.objective.teacher_view if is_teacher else None
    size = image_spec(model).input_size if is_teacher else run.spec.input_size
    sharded, seed = is_sharded(model), trainer.config.seed
    # Where they are not needed the other processes have left by now, and this one reads every image.
    world = trainer.world if sharded else replace(trainer.world, rank=0, size=1)
    loaders = make_loaders(
        run.sources, trainer.config, run.spec, seed=seed, rank=world.rank, world_size=world.size
    )
    part, name = loaders.judged
    figures: Row = {
        "params": parameter_count(model),
        "macs": run.teacher_macs if is_teacher else macs(model, size),
        # So many passes, not so many seconds, where all must make equally many.
        "images_per_s": images_per_second(model, size, seconds=0 if sharded else SECONDS_TIMED),
    }
    comparable = model.num_classes == trainer.config.num_classes and (view is not None or not is_teacher)
    if part is not None and run.sources.labelled and comparable:
        batches = trainer.feed.noting_unreadable(part)
        # What is narrower than float32 computes in its own type.
        autocast = nullcontext if view is not None and view.dtype is not None else trainer.autocast
        found = accuracy(model, batches, trainer.preprocess, world, autocast, view)
        figures |= {"top1": found["top1"], "top1_part": name}
    loaders.close()
    return figures


def _figures_of(form: Row) -> Row:
    kept = {key: form[key] for key in ("params", "macs", "top1", "top1_part") if key in form}
    return kept | {"images_per_s": form["speeds"][-1]["images_per_s"]}


def _measure_forms(trainer: Trainer, student: Path) -> tuple[list[Row], PruningData | None]:
    """The forms of a pruned student side by side, dense first, and what the report shows of them; or nothing."""
    run, device = trainer.run, trainer.world.device
    before = before_pruning(run.student, student, run.config) if run.config.prune.wanted else None
    if before is None:
        return [], None
    loaders = make_loaders(run.sources, trainer.config, run.spec, seed=trainer.config.seed)
    part, name = loaders.judged
    if part is None:
        loaders.close()
        return [], None
    batches = partial(trainer.feed.noting_unreadable, part)
    material = EvaluationImages(batches, trainer.preprocess, run.spec, name, run.sources.labelled)
    forms = variants_of(run.student, before.network.to(device))
    untrained = [DENSE] if before.note else []
    rows = measure_variants(forms, material, BATCH_SIZES, SECONDS_TIMED, untrained)
    pruning = pruning_report(run.student, material, rows)
    loaders.close()
    return rows, pruning


def report_data(
    trainer: Trainer, folder: RunFolder, rows: list[Row], stages: list[Row], pruning: PruningData | None
) -> ReportData:
    """Everything that the report shows."""
    run, config = trainer.run, trainer.config
    where = config.dataset or Path(config.data_dir or "").name
    taught = " ◄ ".join(architecture(model) for model in (run.student, run.teacher) if model is not None)
    geometry = _geometry(trainer) if run.objective.pairs else {}
    notes = [*run.notes, *skipped_images(trainer)]
    return ReportData(
        title=f"{taught} on {where}",
        subtitle=run.sources.description,
        facts=provenance(trainer),
        epochs=folder.metrics.rows(),
        models=rows,
        notes=notes,
        config_yaml=config_to_yaml(replace(config, resume=False)),
        marks=[(float(stage.first_epoch), stage.label) for stage in run.schedule.stages[1:]],
        stages=stages,
        pruning=pruning,
        times=folder.times.rows(),
        **geometry,
    )


def stage_rows(trainer: Trainer) -> list[Row]:
    """What each stage of growth was, and took; at full size from the measured epochs of the last one."""
    run, state = trainer.run, trainer.state
    begun = [0.0, *(growth["seconds"] for growth in state.growths)]
    ended = [*begun[1:], state.seconds]
    full_epoch = (ended[-1] - begun[-1]) / run.schedule.stages[-1].epochs
    networks = stage_networks(run.config, run.schedule, run.spec.input_size)
    score, key = ("top-1", "val/top1") if run.sources.labelled else ("loss", "val/loss")
    growths: list[Row] = [{"before": {}, "after": {}}, *state.growths]
    return [
        {
            "stage": stage.number + 1,
            **network,
            "first_epoch": stage.first_epoch,
            "epochs": stage.epochs,
            "seconds": end - begin,
            "full_seconds": full_epoch * stage.epochs,
            "before": growth["before"].get(key),
            "after": growth["after"].get(key),
            "score": score,
        }
        for stage, network, begin, end, growth in zip(
            run.schedule.stages, networks, begun, ended, growths, strict=True
        )
    ]


def skipped_images(trainer: Trainer, most: int = 20) -> list[str]:
    """A sentence that counts and names the unreadable images, if there were any."""
    names = sorted(set(trainer.feed.unreadable))
    if not names:
        return []
    more = ", ..." if len(names) > most else ""
    images = "image was" if len(names) == 1 else "images were"
    return [f"{len(names)} unreadable {images} skipped: {', '.join(names[:most])}{more}"]


def _geometry(trainer: Trainer) -> dict[str, Any]:
    objective = trainer.objective
    assert objective.teacher is not None
    assert objective.teacher_view is not None
    seen, images = trainer.run.gathered_teacher, compared_images(trainer.loaders, trainer.preprocess)
    teacher = seen.features if seen else block_features(objective.teacher, objective.teacher_view(images))
    untrained, _ = build_student(trainer.config)
    return compare_representations(objective.pairs, untrained, trainer.run.student, teacher, images)
