"""`isometry check`: what a run would do and need, without training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from isometry.cli.check_data import classes_text
from isometry.config import RunConfig
from isometry.data.inventory import take_inventory
from isometry.data.shared_memory import small_shared_memory
from isometry.distributed import join_world, local_processes
from isometry.errors import counted
from isometry.files import format_bytes
from isometry.functional.gates import number_kept
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import image_spec, label_names
from isometry.models.taps import BlockShape
from isometry.models.weights import WeightSource
from isometry.parsing import validate
from isometry.prune.cost import use_of
from isometry.prune.gates import gated_convs
from isometry.report import formats
from isometry.report.terminal import plain, say, say_under, shortened
from isometry.training.assemble import Run, assemble, enter_stage
from isometry.training.checkpoint.files import has_checkpoint, load_checkpoint
from isometry.training.checkpoint.run_folder import RunFolder, folder_to_resume
from isometry.training.checkpoint.run_state import SavedState, fitting
from isometry.training.data_changes import check_classes, check_images
from isometry.training.grids import grid_advice
from isometry.training.moving_average import slow_average
from isometry.training.optim import build_optimizer, build_schedule
from isometry.training.run_memory import memory
from isometry.training.step_memory import StepMemory
from isometry.training.teacher import scaling_warnings


@dataclass
class CheckConfig(RunConfig):
    """Run that would be started, all of whose options are checked."""

    data: bool = False
    """Report on the images alone: classes, sizes, formats, unreadable ones, duplicates; no model is needed."""


def check(config: RunConfig, console: Console) -> None:
    """Prints the models, taps, losses, costs and memory of a run; trains and writes nothing.

    Raises:
        UserError: an error that the run would meet, with its message.
    """
    world = join_world(config.device)
    run = assemble(config, world)
    if run.schedule.grows:
        # The full size needs the most.
        run = enter_stage(run, run.schedule.stages[-1])
    _refuse_schedule(run)
    needed = memory(run, world)
    say_under(console, "Data", run.sources.description)
    if classes := classes_text(run.sources.train_counts):
        say_under(console, "Classes", classes)
    say_under(console, "Images", run.sample.described(run.config))
    console.print(_models_table(run))
    say_under(console, "Weights of the student", weights_text(run.student_weights))
    if run.teacher_weights is not None:
        say_under(console, "Weights of the teacher", weights_text(run.teacher_weights))
    say_under(console, "Labels", labels_text(run))
    if run.objective.pairs:
        console.print(_taps_table(run))
    if run.schedule.grows:
        rows = plan_rows(run)
        console.print(_plan_table(rows))
        say_under(console, "Growth", growth_text(rows))
    if gated_convs(run.student):
        say_under(console, "Pruning", pruning_text(run))
    say_under(console, "Loss", loss_text(run))
    say_under(console, "Memory of a step", memory_text(needed))
    for warning in warnings(run):
        say_under(console, "Warning", shortened(warning))
    folder = folder_to_resume(run.config)
    for note in _refuse_resume(run, folder) if folder else []:
        say_under(console, "Warning", note)
    say_startable(config, console)


def say_startable(config: RunConfig, console: Console) -> None:
    """The last line of a check that found nothing in the way."""
    folder = "" if config.out else " once --out names its folder, e.g. --out runs/first"
    say(console, f"This run can start{folder}.", "green")


def figures(model: nn.Module, img_size: int | None, counted: int = 0) -> dict[str, Any]:
    """Parameters and MACs of a model at its input size; ``counted`` are the MACs if they are known already."""
    size = image_spec(model, img_size).input_size
    return {"params": parameter_count(model), "macs": counted or macs(model, size), "input": size}


def weights_text(source: WeightSource) -> str:
    """The source of a model's weights, with their hash."""
    return f"{source.description} (SHA-256 {source.sha256})" if source.sha256 else source.description


def labels_text(run: Run) -> str:
    """The classes of data, student and teacher, and whether they agree."""
    data = counted(run.config.num_classes or 0, "class", "classes")
    if not run.sources.labelled:
        return f"none; the student gets {data}"
    if run.teacher is None:
        return data
    if run.teacher.num_classes != run.config.num_classes:
        return f"{data}; the teacher has {run.teacher.num_classes}, so its tokens are used and its logits are not"
    names = label_names(run.teacher)
    if names and run.sources.class_names:
        same = names == run.sources.class_names
        return f"{data}; the teacher has as many, with {'the same' if same else 'other'} names"
    return f"{data}; the teacher has as many (without names to compare, so make sure that their order is the same)"


def loss_text(run: Run) -> str:
    """The loss as a formula, and how it is reduced."""
    formula = " + ".join(f"{term.weight:g} {term.name}" for term in run.objective.terms)
    reduction = "mean over entries and blocks" if run.config.reduction == "mean" else "sums, as in the paper"
    idle = run.teacher is not None and not run.objective.needs_teacher
    return f"loss = {formula} ({reduction}{'; no term needs the teacher: it is not run' if idle else ''})"


def plan_rows(run: Run) -> list[dict[str, Any]]:
    """The stages of growth: ``model``, ``by``, ``epochs``, ``share`` of all epochs, ``params``, ``macs`` and ``cost``.

    The cost is in MACs per training image: 3 forward passes of the student, and 1 of a teacher that is run.
    """
    teacher_cost = 0 if run.objective.teacher is None else run.teacher_macs
    networks = run.plan.costs(run.spec.input_size)
    return [
        {
            **network,
            "epochs": f"{stage.first_epoch + 1}-{stage.first_epoch + stage.epochs}",
            "share": stage.epochs / run.config.epochs,
            "cost": 3 * network["macs"] + teacher_cost,
        }
        for stage, network in zip(run.schedule.stages, networks, strict=True)
    ]


def growth_text(rows: list[dict[str, Any]]) -> str:
    """The ideal speed-up of a schedule: full-size cost over the mean cost of the stages."""
    mean = sum(row["share"] * row["cost"] for row in rows)
    return (
        f"{rows[-1]['cost'] / mean:.2f} times faster than full size throughout, if time is proportional to MACs; "
        "the run measures its real speed-up"
    )


def pruning_text(run: Run) -> str:
    """The number of gates, and the MACs of an image that keeps ``keep_rate`` of every layer's channels."""
    network, keep_rate, size = run.student.eval(), run.config.prune.keep_rate, run.spec.input_size
    assert keep_rate is not None
    convs = gated_convs(network).values()
    gates = [conv.gate.excite.out_features for conv in convs]
    kept = [number_kept(count, keep_rate) * conv.group for count, conv in zip(gates, convs, strict=True)]
    spent = int(use_of(network, torch.tensor([kept]), size).macs)
    return (
        f"{sum(gates):,} gates on {len(gates)} convolutions; an image that keeps {100 * keep_rate:g} % of each takes "
        f"{formats.macs(spent)} MACs of {formats.macs(macs(network, size))}, gates included"
    )


def memory_text(memory: StepMemory) -> str:
    """``1.9 GiB: activations 1.7 GiB, teacher 179 MiB, ...``, the largest first."""
    parts = sorted(asdict(memory).items(), key=lambda part: -part[1])
    shown = ", ".join(f"{name.replace('_', ' ')} {format_bytes(size)}" for name, size in parts if size)
    return f"{format_bytes(memory.total)}: {shown}"


def warnings(run: Run) -> list[str]:
    """Settings that work, but are perhaps not intended."""
    found = [*run.notes, *short_epochs(len(run.sources.train), run.config.batch_size)]
    found += small_shared_memory(run.config, run.spec, run.sources.val is not None, local_processes())
    found += slow_average(run.config, run.schedule.stages[-1], _steps_per_epoch(run))
    if run.sources.val is None:
        found.append("no validation split: the last epoch counts as the best")
    if run.teacher is not None and parameter_count(run.teacher) < parameter_count(run.student):
        found.append("the teacher is smaller than the student")
    if run.teacher is not None:
        found += scaling_warnings(run.spec, image_spec(run.teacher), run.config.teacher_pixels)
        found += grid_advice(run)
    return found


def short_epochs(images: int, batch: int) -> list[str]:
    """A note on epochs of few steps."""
    if images < batch:
        return [f"an epoch has only 1 step: the {images} training images are fewer than --batch-size {batch}"]
    if images < 10 * batch:
        steps = "1 step" if images < 2 * batch else f"{images // batch} steps"
        return [f"an epoch has only {steps} at --batch-size {batch}; a smaller batch gives more"]
    return []


def _refuse_schedule(run: Run) -> None:
    """Raises the UserError of a run whose optimizer or schedule can't be built."""
    build_schedule(run.config, build_optimizer(run.config, run.objective), _steps_per_epoch(run))


def _steps_per_epoch(run: Run) -> int:
    config = run.config
    images = (config.global_batch_size or config.batch_size) * config.grad_accum_steps
    return max(1, len(run.sources.train) // images)


def _refuse_resume(run: Run, folder: RunFolder) -> list[str]:
    """Raises the UserError of a run that can't go on from its folder's last save; the notes of one that can."""
    now, out = take_inventory(run.sources, run.config.data_dir), run.config.out
    check_classes(out, now)
    notes = folder.refuse_other_options(_as_trained(run.config))
    if has_checkpoint(folder.last):
        with fitting(folder.last):
            state: SavedState = validate(load_checkpoint(folder.last).state, SavedState)
        begun, ended = state["loop"].seen > 0, state["loop"].epoch >= run.config.epochs
        notes += check_images(out, now, begun=begun, ended=ended, allowed=run.config.data_changed)[1]
    return notes


def _as_trained(config: RunConfig) -> RunConfig:
    """Without the options of `isometry check` alone, which no saved run has."""
    return RunConfig(**{each.name: getattr(config, each.name) for each in fields(RunConfig)})


def _models_table(run: Run) -> Table:
    models = [("student", run.config.model, figures(run.student, run.config.img_size))]
    if run.teacher is not None:
        models.append(("teacher", run.config.teacher, figures(run.teacher, None, run.teacher_macs)))
    return table(
        ("", "model", "input", "parameters", "MACs"),
        [
            (side, name, sides(found["input"]), formats.params(found["params"]), formats.macs(found["macs"]))
            for side, name, found in models
        ],
    )


def _plan_table(rows: list[dict[str, Any]]) -> Table:
    return table(
        ("stage", "network", "made by", "epochs", "share", "parameters", "MACs"),
        [
            (
                str(number),
                row["model"],
                row["by"] or "new",
                row["epochs"],
                f"{100 * row['share']:.0f} %",
                formats.params(row["params"]),
                formats.macs(row["macs"]),
            )
            for number, row in enumerate(rows, start=1)
        ],
    )


def _taps_table(run: Run) -> Table:
    return table(
        ("student block", "grid", "width", "teacher block", "grid", "width", "aligned"),
        [(*_shape(pair.student), *_shape(pair.teacher), pair.alignment) for pair in run.objective.pairs],
    )


def _shape(block: BlockShape) -> tuple[str, str, str]:
    return str(block.block), sides(block.grid), str(block.width)


def sides(sizes: Sequence[int]) -> str:
    """Sizes as text: ``3×224×224``."""
    return "×".join(map(str, sizes))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows below faint headings."""
    shown = Table(*heads, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        shown.add_row(*map(plain, row))
    return shown
