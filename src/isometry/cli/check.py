"""`isometry check`: what a run would do, before it does anything."""

import os
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from isometry.config import RunConfig
from isometry.distributed import World, join_world
from isometry.errors import UserError, first_line
from isometry.files import format_bytes, nearest
from isometry.functional.gates import number_kept
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import image_spec, label_names
from isometry.models.weights import WeightSource
from isometry.prune.cost import use_of
from isometry.prune.gates import gated_convs
from isometry.report import formats
from isometry.training.assemble import Run, enter_stage
from isometry.training.batch_size import assemble_shared
from isometry.training.checkpoint.run_folder import RunFolder
from isometry.training.communication import traffic_words
from isometry.training.objective import Objective
from isometry.training.optim import build_optimizer, build_schedule
from isometry.training.step_memory import StepMemory, step_memory
from isometry.training.student import stage_networks


def check(config: RunConfig, console: Console) -> None:
    """Prints what the run would tap, align, cost and load; trains and writes nothing.

    Raises:
        UserError: what would go wrong, as the run itself would say it.
    """
    world = join_world(config.device)
    run = assemble_shared(config, world)
    if run.schedule.grows:
        # What it grows to is what it needs.
        run = enter_stage(run, run.schedule.stages[-1])
    needed = memory(run, world)
    _say(console, "Data", run.sources.description)
    console.print(_models_table(run))
    _say(console, "Weights of the student", weights_words(run.student_weights))
    if run.teacher_weights is not None:
        _say(console, "Weights of the teacher", weights_words(run.teacher_weights))
    _say(console, "Labels", labels_words(run))
    if run.objective.pairs:
        console.print(_taps_table(run))
    if run.schedule.grows:
        rows = plan_rows(run)
        console.print(_plan_table(rows))
        _say(console, "Growth", growth_words(rows))
    if gated_convs(run.student):
        _say(console, "Pruning", pruning_words(run))
    _say(console, "Terms", terms_words(run))
    _say(console, "Memory of a step", memory_words(needed))
    if traffic := traffic_words(run.config, run.objective):
        _say(console, "Several processes", traffic)
    for warning in warnings(run):
        _say(console, "Mind", warning)
    refuse_folder(run.config)
    console.print("[green]Nothing stands in the way of this run.[/]")


def figures(model: nn.Module, img_size: int | None, counted: int = 0) -> dict[str, Any]:
    """Parameters and MACs of a model at its input size; ``counted`` are the MACs, where they are known already."""
    size = image_spec(model, img_size).input_size
    return {"params": parameter_count(model), "macs": counted or macs(model, size), "input": size}


def weights_words(source: WeightSource) -> str:
    """Where a model's weights come from, with their hash."""
    return f"{source.words} (SHA-256 {source.sha256})" if source.sha256 else source.words


def labels_words(run: Run) -> str:
    """Whether the label spaces of data, student and teacher agree."""
    if not run.sources.labelled:
        return f"the images have none; the student gets {run.config.num_classes} classes"
    data = f"{run.config.num_classes} classes in data and student"
    if run.teacher is None:
        return data
    if run.teacher.num_classes != run.config.num_classes:
        return f"{data}, {run.teacher.num_classes} in the teacher: its logits are not used, its tokens are"
    names = label_names(run.teacher)
    if names and run.sources.class_names:
        same = names == run.sources.class_names
        return f"{data}, as many in the teacher, {'with the same names' if same else 'with OTHER names'}"
    return f"{data}, as many in the teacher (its weights carry no names: their order is taken on trust)"


def terms_words(run: Run) -> str:
    """The loss as a formula, and how it is reduced."""
    formula = " + ".join(f"{term.weight:g} {term.name}" for term in run.objective.terms)
    over = "mean over entries and blocks" if run.config.reduction == "mean" else "sums, as in the paper"
    asked = (
        ""
        if run.objective.needs_teacher or run.teacher is None
        else "; no term needs the teacher: it is not run"
    )
    return f"loss = {formula} ({over}{asked})"


def memory(run: Run, world: World) -> StepMemory:
    """What a step would hold on this run's device; refuses an optimizer or a schedule as the run would."""
    config = run.config
    run.objective.to(world.device)
    steps_an_epoch = max(
        1, len(run.sources.train) // (config.batch_size * world.size * config.grad_accum_steps)
    )
    build_schedule(config, build_optimizer(config, run.objective), steps_an_epoch)
    return step_memory(
        run.objective,
        run.spec.input_size,
        config.batch_size,
        moments=optimizer_moments(config),
        moving_average=config.model_ema,
        amp_dtype=getattr(torch, config.amp_dtype) if config.amp else None,
        recomputes=config.grad_checkpointing,
    )


def optimizer_moments(config: RunConfig) -> float:
    """Numbers that the optimizer keeps a parameter, counted after a step on a layer (AdamW: 2, SGD: 0 or 1).

    Raises:
        UserError: the optimizer is unknown, or its step fails.
    """
    width = 64
    probe = Objective(nn.Linear(width, width, bias=False), {"ce": 1.0})
    optimizer = build_optimizer(config, probe)
    probe(torch.ones(2, width), torch.zeros(2, dtype=torch.long))["loss"].backward()
    try:
        optimizer.step()
    except (TypeError, RuntimeError) as error:
        raise UserError(f"--opt {config.opt}: its first step fails ({first_line(error)})") from error
    states = [value for state in optimizer.state.values() for value in state.values()]
    # Step counters are scalars.
    return sum(value.numel() for value in states if isinstance(value, Tensor) and value.dim()) / width**2


def plan_rows(run: Run) -> list[dict[str, Any]]:
    """The stages of growth: ``model``, ``by``, ``epochs``, ``share`` of them, ``params``, ``macs``, and ``cost``: the
    multiply-accumulates of training on one image, 3 forward passes of the student and 1 of a teacher that is run."""
    asked = 0 if run.objective.teacher is None else run.teacher_macs
    networks = stage_networks(run.config, run.schedule, run.spec.input_size)
    return [
        {
            **network,
            "epochs": f"{stage.first_epoch + 1}-{stage.first_epoch + stage.epochs}",
            "share": stage.epochs / run.config.epochs,
            "cost": 3 * network["macs"] + asked,
        }
        for stage, network in zip(run.schedule.stages, networks, strict=True)
    ]


def growth_words(rows: list[dict[str, Any]]) -> str:
    """The ideal speed-up of a plan: full-size cost over the stages' mean cost."""
    mean = sum(row["share"] * row["cost"] for row in rows)
    return (
        f"{rows[-1]['cost'] / mean:.2f} times faster than full size throughout, if time went with "
        "multiply-accumulates; the run measures what it really is"
    )


def pruning_words(run: Run) -> str:
    """How many gates there are, and what an image would cost that keeps the asked share of every layer."""
    network, keep_rate, size = run.student.eval(), run.config.prune.keep_rate, run.spec.input_size
    assert keep_rate is not None
    convs = gated_convs(network).values()
    gates = [conv.gate.excite.out_features for conv in convs]
    kept = [number_kept(count, keep_rate) * conv.group for count, conv in zip(gates, convs, strict=True)]
    spent = int(use_of(network, torch.tensor([kept]), size).macs)
    return (
        f"{sum(gates):,} gates on {len(gates)} convolutions; an image that keeps {100 * keep_rate:g} % of each takes "
        f"{formats.macs(spent)} MACs of {formats.macs(macs(network, size))}, gates included; isometry bench measures "
        "the time"
    )


def memory_words(found: StepMemory) -> str:
    """``1.9 GiB: activations 1.7 GiB, teacher 179 MiB, ...``."""
    parts = {
        "activations": found.activations,
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "EMA": found.moving_average,
        "teacher": found.teacher,
    }
    shown = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    return f"{format_bytes(found.total)}: {shown}"


def warnings(run: Run) -> list[str]:
    """What works, but perhaps not as meant."""
    found = list(run.notes)
    if not run.config.out:
        found.append("no --out is given, and a run needs a folder")
    steps = len(run.sources.train) // run.config.batch_size
    if steps < 10:
        found.append(f"an epoch has only {max(1, steps)} steps at -b {run.config.batch_size}")
    if run.sources.val is None:
        found.append("no validation part: the last epoch counts as the best")
    if run.teacher is not None and parameter_count(run.teacher) < parameter_count(run.student):
        found.append("the teacher is smaller than the student")
    return found


def refuse_folder(config: RunConfig) -> None:
    """Raises UserError where the run would refuse its folder; makes none."""
    if not config.out:
        return
    folder = RunFolder(config)
    there = nearest(folder.path)
    if not there.is_dir():
        raise UserError(f"--out {folder.path}: can't be written ({there} is not a folder)")
    if not os.access(there, os.W_OK):
        raise UserError(f"--out {folder.path}: can't be written ({there} is read-only for you)")
    holds = sorted(path.name for path in folder.path.iterdir()) if there == folder.path else []
    if config.resume and not folder.config.is_file():
        raise UserError(f"--resume: there is no run in {folder.path}")
    if holds and not config.resume:
        raise UserError(
            f"--out {folder.path}: is not empty (it holds {holds[0]}); choose another folder, "
            "or add --resume to go on with the run in it"
        )


def _models_table(run: Run) -> Table:
    table = Table("", "model", "input", "parameters", "MACs", box=None, pad_edge=False, header_style="dim")
    sides = [("student", run.config.model, figures(run.student, run.config.img_size))]
    if run.teacher is not None:
        sides.append(("teacher", run.config.teacher, figures(run.teacher, None, run.teacher_macs)))
    for side, name, found in sides:
        table.add_row(
            f"[bold]{side}[/]",
            escape(name),
            "×".join(map(str, found["input"])),
            formats.params(found["params"]),
            formats.macs(found["macs"]),
        )
    return table


def _plan_table(rows: list[dict[str, Any]]) -> Table:
    heads = ("stage", "network", "made by", "epochs", "share", "parameters", "MACs")
    table = Table(*heads, box=None, header_style="dim")
    for number, row in enumerate(rows, start=1):
        table.add_row(
            str(number),
            row["model"],
            row["by"] or "new",
            row["epochs"],
            f"{100 * row['share']:.0f} %",
            formats.params(row["params"]),
            formats.macs(row["macs"]),
        )
    return table


def _taps_table(run: Run) -> Table:
    table = Table(
        "student block",
        "grid",
        "width",
        "teacher block",
        "grid",
        "width",
        "aligned",
        box=None,
        header_style="dim",
    )
    for pair in run.objective.pairs:
        student, teacher = pair.student, pair.teacher
        table.add_row(
            str(student.block),
            f"{student.grid[0]}×{student.grid[1]}",
            str(student.width),
            str(teacher.block),
            f"{teacher.grid[0]}×{teacher.grid[1]}",
            str(teacher.width),
            pair.alignment,
        )
    return table


def _say(console: Console, head: str, words: str) -> None:
    # What a person named may hold square brackets, which are no markup.
    console.print(f"[bold]{head}[/]  {escape(words)}", highlight=False, soft_wrap=True)
