"""`isometry check`: what a run would do, before it does anything."""

from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from isometry.assemble import Run, assemble, label_names
from isometry.config import RunConfig
from isometry.distributed import World, join_world
from isometry.models import WeightSource, image_spec
from isometry.optim import build_optimizer
from isometry.profile import StepMemory, macs, parameter_count, step_memory


def check(config: RunConfig, console: Console) -> None:
    """Prints what the run would tap, align, cost and load; trains and writes nothing.

    Raises:
        UserError: what would go wrong, as the run itself would say it.
    """
    world = join_world(config.device)
    run = assemble(config, world)
    console.print(f"[bold]Data[/]  {run.sources.description}", highlight=False, soft_wrap=True)
    console.print(_models_table(run))
    _print_weights(console, "student", run.student_weights)
    if run.teacher_weights is not None:
        _print_weights(console, "teacher", run.teacher_weights)
    console.print(f"[bold]Labels[/]  {labels_words(run)}", highlight=False, soft_wrap=True)
    if run.objective.pairs:
        console.print(_taps_table(run))
    console.print(f"[bold]Terms[/]  {terms_words(run)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Memory of a step[/]  {memory_words(memory(run, world))}", highlight=False, soft_wrap=True)
    for warning in warnings(run):
        console.print(f"[yellow]Mind[/]  {warning}", highlight=False, soft_wrap=True)
    console.print("[green]Nothing stands in the way of this run.[/]")


def figures(model: nn.Module, img_size: int | None) -> dict[str, Any]:
    """Parameters and MACs of a model at its input size."""
    size = image_spec(model, img_size).input_size
    return {"params": parameter_count(model), "macs": macs(model, size), "input": size}


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
    return f"{data}, as many in the teacher (its weights carry no names to compare: their order is taken on trust)"


def terms_words(run: Run) -> str:
    """The loss as a formula, and how it is reduced."""
    formula = " + ".join(f"{term.weight:g} {term.name}" for term in run.objective.terms)
    over = "mean over entries and blocks" if run.config.reduction == "mean" else "sums, as in the paper"
    asked = "" if run.objective.needs_teacher or run.teacher is None else "; no term needs the teacher: it is not run"
    return f"loss = {formula} ({over}{asked})"


def memory(run: Run, world: World) -> StepMemory:
    """What a step would hold on this run's device."""
    moments = {"sgd": 0, "momentum": 1}.get(run.config.opt, 2)
    run.objective.to(world.device)
    build_optimizer(run.config, run.objective)
    return step_memory(
        run.objective,
        run.spec.input_size,
        run.config.batch_size,
        moments=moments,
        moving_average=run.config.model_ema,
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
    shown = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    return f"{_bytes(found.total)}: {shown}"


def warnings(run: Run) -> list[str]:
    """What works, but perhaps not as meant."""
    found = list(run.notes)
    steps = len(run.sources.train) // run.config.batch_size
    if steps < 10:
        found.append(f"an epoch has only {max(1, steps)} steps at -b {run.config.batch_size}")
    if run.sources.val is None:
        found.append("no validation part: the last epoch counts as the best")
    if run.teacher is not None and parameter_count(run.teacher) < parameter_count(run.student):
        found.append("the teacher is smaller than the student")
    return found


def _models_table(run: Run) -> Table:
    table = Table("", "model", "input", "parameters", "MACs", box=None, pad_edge=False, header_style="dim")
    sides = [("student", run.config.model, run.student)]
    if run.teacher is not None:
        sides.append(("teacher", run.config.teacher, run.teacher))
    for side, name, model in sides:
        found = figures(model, run.config.img_size)
        table.add_row(
            f"[bold]{side}[/]",
            name,
            "×".join(map(str, found["input"])),
            f"{found['params'] / 1e6:.4g} M",
            f"{found['macs'] / 1e9:.4g} G",
        )
    return table


def _taps_table(run: Run) -> Table:
    table = Table(
        "student block", "grid", "width", "teacher block", "grid", "width", "aligned", box=None, header_style="dim"
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


def _print_weights(console: Console, side: str, source: WeightSource) -> None:
    digest = f" (SHA-256 {source.sha256})" if source.sha256 else ""
    console.print(f"[bold]Weights of the {side}[/]  {source.words}{digest}", highlight=False, soft_wrap=True)


def _bytes(size: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 2**10:.3g} KiB"
