"""What `isometry check` says of a run for boxes or masks, and `isometry check --data` of its data."""

from collections.abc import Set

from rich.console import Console
from rich.table import Table

from isometry.cli.check import (
    CheckConfig,
    say_startable,
    short_epochs,
    sides,
    table,
    weights_text,
)
from isometry.cli.check_data import classes_table, duplicates_text
from isometry.cli.transfer import planned_transfer
from isometry.config import RunConfig
from isometry.config.paths import absolute_paths
from isometry.data.dense.annotations import Task
from isometry.data.dense.duplicates import equal_pictures
from isometry.data.dense.inventory import dense_inventory
from isometry.data.dense.sources import DenseSources, dense_survey, find_dense_sources
from isometry.data.dense.splitting import SPLITS
from isometry.data.dense.summary import class_counts, summary
from isometry.data.survey import Survey
from isometry.distributed import join_world
from isometry.errors import counted
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import architecture
from isometry.report import formats
from isometry.report.terminal import plain, say_under, shortened
from isometry.training.checkpoint.files import has_checkpoint, load_checkpoint
from isometry.training.checkpoint.run_folder import RunFolder, folder_to_resume
from isometry.training.checkpoint.run_state import fitting
from isometry.training.data_changes import check_images
from isometry.training.optim import build_optimizer, build_schedule
from isometry.training.transfer.assemble import DenseRun, assemble_dense
from isometry.training.transfer.changes import saved_state
from isometry.training.transfer.dense import Trained
from isometry.training.transfer.results import network_row

OF_CHECK = {"data", "model"}
"""Options that `isometry check` has and `isometry transfer` has not."""
COUNTED = {"detect": "boxes", "segment": "pixels"}
"""What is counted by class."""


def check_transfer(config: CheckConfig, given: Set[str], console: Console) -> None:
    """Prints the data, the network, the costs and the faults of the run that `isometry transfer` would start with these
    options; trains and writes nothing. Options that are not ``given`` have the defaults of `isometry transfer`.

    Raises:
        UserError: an error that the run would meet, with its message.
    """
    options = {name: getattr(config, name) for name in given - OF_CHECK}
    planned = planned_transfer(config.model, options, {})
    run = assemble_dense(planned, join_world(planned.device))
    batch, images = run.config.batch_size, len(run.sources.train)
    steps = max(1, images // batch)
    build_schedule(run.config, build_optimizer(run.config, Trained(run.network)), steps)
    _say_data(run.sources, run.sample, run.config, console)
    console.print(_networks_table(run))
    say_under(console, "Weights of the backbone", weights_text(run.weights) + ", frozen" * run.config.freeze)
    say_under(
        console,
        "Training",
        f"{counted(run.config.epochs, 'epoch')} of {counted(steps, 'step')} at --batch-size {batch}, learning rate "
        f"{run.config.lr:g}",
    )
    folder = folder_to_resume(run.config)
    notes = [*run.notes, *short_epochs(images, batch), *(_refuse_resume(run, folder) if folder else [])]
    for note in notes:
        say_under(console, "Warning", shortened(note))
    say_startable(run.config, console)


def check_dense_data(config: CheckConfig, console: Console) -> None:
    """Prints a report on images with boxes or masks alone; no model is needed.

    Raises:
        UserError: data that can't be used.
    """
    task: Task = "detect" if config.task == "detect" else "segment"
    sources = find_dense_sources(absolute_paths(config), task)
    sample = dense_survey(sources)
    _say_data(sources, sample, config, console)
    for note in [*sources.notes, *sample.notes(config.pixel_range)]:
        say_under(console, "Warning", note)
    if not sources.notes:
        say_under(console, "Left out", "nothing")


def _say_data(sources: DenseSources, sample: Survey, config: RunConfig, console: Console) -> None:
    for head, text in summary(sources):
        say_under(console, head, text)
    parts = {
        split: images
        for split, images in zip(SPLITS, (sources.train, sources.val, sources.test), strict=True)
        if images is not None
    }
    found = {split: class_counts(images) for split, images in parts.items()}
    shown = classes_table(sources.class_names, {split: counts for split, (counts, _) in found.items()})
    shown.columns[0].header = plain(f"{COUNTED[sources.task]} of class")
    console.print(shown)
    say_under(console, "Images", sample.described(config))
    width, height = sample.size
    if sample.size != (0, 0):
        say_under(
            console, "Pixels", f"median {width}×{height} of {counted(sample.looked, 'image')} looked at"
        )
    if (surveyed := equal_pictures(parts)).files:
        text = duplicates_text(surveyed, {"split": "in several splits"})
        say_under(console, "Duplicates", text)
    if unreadable := sum(count for _, count in found.values()):
        say_under(console, "Unreadable", counted(unreadable, "image or its mask", "images or their masks"))


def _networks_table(run: DenseRun) -> Table:
    backbone, whole = run.network.backbone, network_row(run.network, run.spec)
    rows = [
        ("backbone", parameter_count(backbone), macs(backbone, run.spec.input_size)),
        ("with pyramid and head", whole["params"], whole["macs"]),
    ]
    name, size = architecture(backbone), sides(run.spec.input_size)
    return table(
        ("", "model", "input", "parameters", "MACs"),
        [(what, name, size, formats.params(params), formats.macs(cost)) for what, params, cost in rows],
    )


def _refuse_resume(run: DenseRun, folder: RunFolder) -> list[str]:
    """Raises the UserError of a run that can't go on from its folder's last save; the notes of one that can."""
    notes = folder.refuse_other_options(run.config)
    if has_checkpoint(folder.last):
        with fitting(folder.last):
            state = saved_state(load_checkpoint(folder.last), run.sources, folder.path)
        now = dense_inventory(run.sources, run.config.data_dir)
        begun, ended = state["loop"].seen > 0, state["loop"].epoch >= run.config.epochs
        notes += check_images(run.config.out, now, begun=begun, ended=ended, allowed=True)[1]
    return notes
