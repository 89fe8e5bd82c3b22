"""`python -m reproduction tables`: trains what is not there yet, several runs at a time, and writes the page."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from isometry.config import RunConfig
from isometry.errors import UserError
from isometry.files import disk_errors, write_atomically
from isometry.report import formats
from isometry.training.signals import Interrupted
from reproduction.experiments import experiments
from reproduction.figure import draw
from reproduction.page import AS_PRINTED, PICTURE, has_figure, page
from reproduction.pool import Pool, Task
from reproduction.published import published
from reproduction.results import Results, gather

PAPERS_OWN = "manifold-s24-tiny"
"""The paper's own method, which the other rows differ from in one thing each."""
PAGE, RESULTS, PLAN = "reproduction.md", "reproduction.json", "plan.yaml"


@dataclass
class ReproduceConfig:
    """What is reproduced."""

    out: str = "runs/tables"
    """Folder of all runs and of the page; what is finished there is not run again."""
    tables: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 7])
    """Tables of the paper; its Figure 4 comes with Table 2."""
    seeds: int = 5
    """Seeds a row, the same for every row."""
    processes: int = 2
    """Runs at a time, each with one thread: as many as there are cores that are free."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options changed in every run, for trying things out; the page says so. E.g. `--overrides epochs=1`."""


def reproduce(what: Sequence[str], config: ReproduceConfig, console: Console) -> Results:
    """Runs what is not finished, then writes ``reproduction.json``, the page and the picture from what is.

    Raises:
        UserError: something other than ``tables`` was asked for, an option is off, the folder holds runs of another
            plan, or a run failed.
        Interrupted: asked to stop; what is finished is kept, and the runs on the way have saved.
    """
    _check(what, config)
    out, known = Path(config.out), experiments()
    names = wanted_runs(config.tables)
    _claim(out, config)
    teachers = {
        key: Task(f"teacher {key}", plan)
        for key, plan in known.teacher_plans(out, names, config.overrides).items()
    }
    students = {
        name: [
            Task(f"{name} · seed {seed}", known.plan(name, seed, out, config.overrides))
            for seed in range(config.seeds)
        ]
        for name in names
    }
    # Seed by seed, so that what is stopped early has some seeds of every row.
    runs = [students[name][seed] for seed in range(config.seeds) for name in names]
    _run(list(teachers.values()), runs, config.processes, console)
    settings = {
        "command": command_line(config),
        "tables": sorted(set(config.tables)),
        "seeds": list(range(config.seeds)),
        "overrides": config.overrides,
        "processes": config.processes,
        "student": _student(known.plan(PAPERS_OWN, 0, out, config.overrides)),
    }
    results = gather(teachers, students, settings)
    write(out, results)
    _say_where(console, out)
    return results


def wanted_runs(tables: Sequence[int]) -> list[str]:
    """Names of the runs that the tables need, each once, in their order; Figure 4 and the sums as printed come with
    Table 2.
    """
    paper = published()
    names = [run for number in sorted(set(tables)) for run in paper.tables[number].runs]
    names += (*paper.figure.runs, AS_PRINTED) if 2 in tables else ()
    return list(dict.fromkeys(names))


def write(out: Path, results: Results) -> None:
    """``reproduction.json``, and from it ``reproduction.md`` and the picture.

    Raises:
        UserError: one cannot be written.
    """
    # One line for each list of figures would be thousands of lines.
    write_atomically(out / RESULTS, json.dumps(results, ensure_ascii=False) + "\n")
    if has_figure(results):
        draw(out / PICTURE, published().figure, results["runs"])
    write_atomically(out / PAGE, page(results))


def command_line(config: ReproduceConfig) -> str:
    """The command that made the results; without the folder and the number of processes, which change none."""
    words = ["python -m reproduction tables"]
    if sorted(set(config.tables)) != sorted(published().tables):
        words += ["--tables", *map(str, sorted(set(config.tables)))]
    words += ["--seeds", str(config.seeds)]
    if config.overrides:
        words += ["--overrides", *(f"{key}={value}" for key, value in config.overrides.items())]
    return " ".join(words)


def _student(run: RunConfig) -> dict[str, Any]:
    """What the page says of the students' training."""
    kept = {key: getattr(run, key) for key in ("img_size", "batch_size", "losses")}
    return kept | {"patch_size": run.model_kwargs["patch_size"]}


def _check(what: Sequence[str], config: ReproduceConfig) -> None:
    if list(what) != ["tables"]:
        raise UserError(
            f"reproduce {' '.join(what)}: there is only reproduce tables, e.g. python -m reproduction tables --seeds 5"
        )
    known = sorted(published().tables)
    unknown = [number for number in config.tables if number not in known]
    if unknown or not config.tables:
        raise UserError(
            f"--tables {' '.join(map(str, config.tables))}: give some of {' '.join(map(str, known))}"
        )
    for option, value in (("seeds", config.seeds), ("processes", config.processes)):
        if value < 1:
            raise UserError(f"--{option} {value}: must be at least 1")
    if not config.out:
        raise UserError("--out: no folder given, e.g. --out runs/tables")


def _claim(out: Path, config: ReproduceConfig) -> None:
    """Finished runs are kept, so a folder belongs to one plan; tables and seeds may be added to it."""
    known = experiments()
    teachers = known.teacher_plans(Path(), known.runs, config.overrides)
    students = {name: known.plan(name, 0, Path(), config.overrides) for name in known.runs}
    plan = yaml.safe_dump({name: _chosen(run) for name, run in (teachers | students).items()})
    path = out / PLAN
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise UserError(f"--out {out}: holds runs of another plan (see {PLAN} there); choose another folder")
    with disk_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, plan)


def _chosen(run: RunConfig) -> dict[str, Any]:
    """The options that are not at their defaults: one that comes new, at its default, makes no other plan."""
    usual = asdict(RunConfig())
    return {key: value for key, value in asdict(run).items() if value != usual[key]}


def _run(teachers: Sequence[Task], students: Sequence[Task], processes: int, console: Console) -> None:
    """Teachers first; only what is not finished."""
    phases = [[task for task in tasks if not task.finished] for tasks in (teachers, students)]
    missing = sum(map(len, phases))
    total = len(teachers) + len(students)
    console.print(f"{total} runs, {total - missing} finished already", highlight=False)
    if not missing:
        return
    try:
        with Pool(min(processes, missing)) as pool, _Progress(console, [*phases[0], *phases[1]]) as progress:
            for tasks in phases:
                for task in pool.each(tasks):
                    progress.ended(task)
    except (KeyboardInterrupt, Interrupted) as stop:
        number = stop.signal_number if isinstance(stop, Interrupted) else 2
        raise Interrupted(
            "stopped; what is finished is kept, and runs on the way have saved: give the same command again to go on",
            number,
            saved=True,
        ) from stop


class _Progress:
    """A line a finished run with the time left; on a terminal a bar under them."""

    def __init__(self, console: Console, tasks: Sequence[Task]) -> None:
        self._console, self._runs, self._ended = console, len(tasks), 0
        self._ahead, self._behind = sum(map(_steps, tasks)), 0.0
        self._started = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=console, expand=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("teachers first, then students", total=len(tasks))

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def ended(self, task: Task) -> None:
        """A run has ended."""
        self._ended += 1
        self._ahead, self._behind = self._ahead - _steps(task), self._behind + _steps(task)
        spent = time.monotonic() - self._started
        # Whole seconds: what is left of a sum of fractions may be a hair from 0.
        left = f"about {formats.duration(max(0, round(spent / self._behind * self._ahead)))} left"
        self._bar.update(self._task, completed=self._ended, description=left)
        line = f"{self._ended}/{self._runs} · {task.label} · {_top1(task)} · {left}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _steps(task: Task) -> float:
    """In proportion to the steps of a run, which is about how long it takes."""
    return task.config.epochs / task.config.batch_size


def _top1(task: Task) -> str:
    rows: list[Mapping[str, Any]] = json.loads((task.folder / "summary.json").read_text(encoding="utf-8"))
    return formats.percent(next(row.get("top1") for row in rows if row["role"] == "student"))


def _say_where(console: Console, out: Path) -> None:
    for name, file in (("Page", PAGE), ("Picture", PICTURE), ("Results", RESULTS)):
        if (out / file).is_file():
            console.print(f"{name:<9} {out / file}", highlight=False, markup=False, soft_wrap=True)
