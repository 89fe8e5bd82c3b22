"""`isometry compare`: variants of a run trained with the same seeds, compared with confidence intervals."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from isometry.cli.compare_agreement import agreements, draw_agreement
from isometry.cli.compare_folder import claim
from isometry.cli.compare_geometry import compare_geometry
from isometry.cli.compare_plan import START, TASKS, TEACHER, CompareConfig, Plan, make_plan, takes_teacher
from isometry.cli.compare_results import (
    AGREEMENT,
    CORRELATED,
    Comparison,
    TaskResults,
    draw_geometry,
    summarise,
    write,
)
from isometry.cli.compare_runs import check_tasks, result, task_result, train_teacher, untrained_result
from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.files import inside
from isometry.report.records.intervals import mean_row
from isometry.report.tables import comparison_table, correlations_grid, figures_grid, models_grid, rich_table
from isometry.report.terminal import print_notes, say

Row = dict[str, Any]


def compare(config: CompareConfig, recipe: str, console: Console) -> list[Row]:
    """Trains all variants, prints the tables, writes them with CSV and figures, and returns the rows.

    Finished runs are kept and stopped ones resumed, so the same command continues a comparison.

    Raises:
        UserError: as :func:`isometry.training.run.execute`, or a comparison without variants.
    """
    plan, out = make_plan(config, recipe), Path(config.out)
    check_tasks(plan)
    claim(out, plan, config, console)
    teacher = train_teacher(plan, out, console)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    runs = _Runs(plan, out, seeds, None if teacher is None else teacher.network, console)
    for seed in seeds:
        runs.of_seed(seed)
    rows = summarise(runs.figures, config.baseline)
    models = [] if teacher is None else [teacher.row]
    models += [mean_row(name, found) for name, found in runs.figures.items()]
    tasks = [TaskResults(name, plan.tasks[name].task, found) for name, found in runs.tasks.items()]
    found = Comparison(rows, models, runs.figures, seeds, config.baseline, _untrained(plan, config), tasks)
    if teacher is not None and tasks:
        folders_of_seeds = {name: [runs.folder(name, seed) for seed in seeds] for name in runs.figures}
        geometry = compare_geometry(plan.base, teacher.network, folders_of_seeds, console)
        found = replace(found, geometry=geometry, agreements=agreements(geometry, tasks))
        draw_agreement(out, geometry, tasks, found.agreements)
    write(out, found)
    if teacher is not None:
        folders = {name: runs.folder(name, config.first_seed) / "student" for name in runs.figures}
        draw_geometry(out, plan.base, models, {TEACHER: teacher.network, **folders})
    _show(found, console)
    _print_paths(console, out, list(plan.variants)[-1])
    return rows


def _untrained(plan: Plan, config: CompareConfig) -> str:
    """The untrained variant that gains are also measured against; empty without one."""
    return next((name for name in plan.variants if name in plan.untrained - {config.baseline}), "")


def _show(found: Comparison, console: Console) -> None:
    console.print(rich_table(models_grid(found.models)))
    if found.rows and (len(found.seeds) > 1 or found.baseline):
        console.print(comparison_table(found.rows))
    for task in found.tasks:
        say(console, task.name)
        console.print(comparison_table(found.of_tasks[task.name], task.score))
    if found.of_features:
        say(console, "Dense features, % (means; their intervals and gains are in comparison.md)")
        console.print(rich_table(figures_grid(found.of_features, short=True)))
    if found.agreements:
        say(console, CORRELATED)
        console.print(rich_table(correlations_grid(found.agreements)))
    if found.geometry is not None:
        print_notes(console, found.geometry.notes)


class _Runs:
    """The runs of all variants, seed by seed, and their rows: ``figures`` by variant, ``tasks`` by task and variant."""

    def __init__(
        self, plan: Plan, out: Path, seeds: Collection[int], teacher: Path | None, console: Console
    ) -> None:
        self.plan, self.out, self.teacher, self.console = plan, out, teacher, console
        self.several = len(seeds) > 1
        self.starting = {} if plan.start is None else {START: plan.start}
        self.figures: dict[str, list[Row]] = {name: [] for name in self.starting | plan.variants}
        self.tasks: dict[str, dict[str, list[Row]]] = {name: {} for name in plan.tasks}

    def folder(self, name: str, seed: int) -> Path:
        """Of the run of a variant."""
        return inside(self.out, name, f"seed-{seed}")

    def of_seed(self, seed: int) -> None:
        """Runs every variant with a seed, and transfers its network to the tasks."""
        beside: list[Row] = []
        for name, plan in (self.starting | self.plan.variants).items():
            run = self._placed(name, plan, seed)
            if name in self.plan.untrained:
                row = untrained_result(run)
            else:
                row = result(run, self.console, self._label(name, seed), beside)
                self._check_measured(row, run)
            beside.append({**row, "model": name, "role": "companion"})
            self.figures[name].append(row)
            self._transfer(name, Path(run.out) / "student", seed)
        if self.teacher is not None:
            self._transfer(TEACHER, self.teacher, seed)

    def _placed(self, name: str, plan: RunConfig, seed: int) -> RunConfig:
        """A variant's run with its seed, its folder, and the networks that it begins with."""
        run = replace(plan, seed=seed, out=str(self.folder(name, seed)))
        if self.starting and name != START:
            run = replace(run, model=f"local-dir:{self.folder(START, seed) / 'student'}")
        if self.teacher is not None and _need_teacher(plan.losses):
            run = replace(run, teacher=f"local-dir:{self.teacher}")
        return run

    def _transfer(self, name: str, network: Path, seed: int) -> None:
        for task, run in self.plan.tasks.items():
            folder = inside(self.out, TASKS, task, name, f"seed-{seed}")
            label = self._label(f"{name} · {task}", seed)
            row = task_result(run, network, folder, seed, self.console, label)
            self.tasks[task].setdefault(name, []).append(row)

    def _label(self, name: str, seed: int) -> str:
        return f"{name} · seed {seed}" if self.several else name

    def _check_measured(self, row: Row, run: RunConfig) -> None:
        if "top1" not in row and not self.plan.tasks:
            raise UserError(
                f"{run.out}: has no accuracy to compare; the data needs labels and a validation split"
            )


def _need_teacher(losses: Collection[str]) -> bool:
    # The default losses do.
    return not losses or any(map(takes_teacher, losses))


def _print_paths(console: Console, out: Path, last: str) -> None:
    report = min((out / last).glob("seed-*/report.html"), default=out / "report.html")
    pictures = [out / name for name in ("comparison.png", "geometry.png", AGREEMENT)]
    for name, path in [
        ("Folder", out),
        *zip(("Pictures", "", ""), pictures, strict=True),
        ("Report", report),
    ]:
        if path.exists():
            say(console, f"{name:<9} {path}")
