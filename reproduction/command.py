"""`python -m reproduction tables`: trains the missing runs, several in parallel, and writes the page."""

import json
import time
from collections.abc import Sequence
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
from isometry.report.records.run_folders import read_summary
from isometry.training.signals import Interrupted
from reproduction.experiments import experiments
from reproduction.figure import draw
from reproduction.page import AS_PRINTED, PICTURE, has_figure, page
from reproduction.pool import Pool, Task
from reproduction.published import published
from reproduction.results import Results, gather

PAPER_METHOD = "manifold-s24-tiny"
"""The paper's method; each other row differs from it in one respect."""
PAGE, RESULTS, PLAN = "reproduction.md", "reproduction.json", "plan.yaml"


@dataclass
class ReproduceConfig:
    """Runs of the paper's tables."""

    out: str = "runs/tables"
    """Folder for the runs and the page; finished runs in it are not repeated."""
    tables: list[int] = field(default_factory=lambda: [2, 3, 4, 5, 6, 7])
    """Tables of the paper, 2 to 7; Table 2 includes Figure 4."""
    seeds: int = 5
    """Number of seeds; every row uses the same ones."""
    processes: int = 2
    """Number of parallel runs, each with one thread; best is the number of free cores."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Options for every run, for tests; the page is marked as a test run. E.g. `--overrides epochs=1`."""


def reproduce(config: ReproduceConfig, console: Console) -> Results:
    """Trains the runs that are missing, then writes ``reproduction.json``, the page and its picture.

    Raises:
        UserError: an option is out of range, the folder has runs with other settings, or a run failed.
        Interrupted: by Ctrl-C or SIGTERM; finished runs are kept, and unfinished ones have saved a checkpoint.
    """
    _check(config)
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
    # Seed by seed: after an interruption every row has the same number of seeds, or one less.
    runs = [students[name][seed] for seed in range(config.seeds) for name in names]
    _run(list(teachers.values()), runs, config.processes, console)
    settings = {
        "command": command_line(config),
        "tables": sorted(set(config.tables)),
        "seeds": list(range(config.seeds)),
        "overrides": config.overrides,
        "processes": config.processes,
        "student": _student(known.plan(PAPER_METHOD, 0, out, config.overrides)),
    }
    results = gather(teachers, students, settings)
    write(out, results)
    _list_files(console, out)
    return results


def wanted_runs(tables: Sequence[int]) -> list[str]:
    """Names of the runs in the tables, without duplicates, in order; Table 2 adds Figure 4 and the sums as printed."""
    paper = published()
    names = [run for number in sorted(set(tables)) for run in paper.tables[number].runs]
    names += (*paper.figure.runs, AS_PRINTED) if 2 in tables else ()
    return list(dict.fromkeys(names))


def write(out: Path, results: Results) -> None:
    """Writes ``reproduction.json``, and from it ``reproduction.md`` and the picture.

    Raises:
        UserError: a file can't be written.
    """
    # Without indentation: otherwise every number would have a line of its own.
    write_atomically(out / RESULTS, json.dumps(results, ensure_ascii=False) + "\n")
    if has_figure(results):
        draw(out / PICTURE, published().figure, results["runs"])
    write_atomically(out / PAGE, page(results))


def command_line(config: ReproduceConfig) -> str:
    """The command that makes the results, without options that do not affect them (``out``, ``processes``)."""
    words = ["python -m reproduction tables"]
    if sorted(set(config.tables)) != sorted(published().tables):
        words += ["--tables", *map(str, sorted(set(config.tables)))]
    words += ["--seeds", str(config.seeds)]
    if config.overrides:
        words += ["--overrides", *(f"{key}={value}" for key, value in config.overrides.items())]
    return " ".join(words)


def _student(run: RunConfig) -> dict[str, Any]:
    """Settings of the students for the page."""
    kept = {key: getattr(run, key) for key in ("img_size", "batch_size", "losses")}
    return kept | {"patch_size": run.model_kwargs["patch_size"]}


def _check(config: ReproduceConfig) -> None:
    known = sorted(published().tables)
    unknown = [number for number in config.tables if number not in known]
    if unknown or not config.tables:
        raise UserError(
            f"--tables {' '.join(map(str, config.tables))}: choose from {' '.join(map(str, known))}"
        )
    for option, value in (("seeds", config.seeds), ("processes", config.processes)):
        if value < 1:
            raise UserError(f"--{option} {value}: must be at least 1")
    if not config.out:
        raise UserError("--out: no folder given, e.g. --out runs/tables")


def _claim(out: Path, config: ReproduceConfig) -> None:
    """Records the settings of all runs in the folder, and refuses a folder with others.

    Tables and seeds may be added later.
    """
    known = experiments()
    teachers = known.teacher_plans(Path(), known.runs, config.overrides)
    students = {name: known.plan(name, 0, Path(), config.overrides) for name in known.runs}
    plan = yaml.safe_dump({name: _chosen(run) for name, run in (teachers | students).items()})
    path = out / PLAN
    if path.is_file() and path.read_text(encoding="utf-8") != plan:
        raise UserError(
            f"--out {out}: has runs with other settings (see {PLAN} there); choose another folder"
        )
    with disk_errors(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, plan)


def _chosen(run: RunConfig) -> dict[str, Any]:
    """Options that differ from their defaults, so that a new option does not invalidate older folders."""
    usual = asdict(RunConfig())
    return {key: value for key, value in asdict(run).items() if value != usual[key]}


def _run(teachers: Sequence[Task], students: Sequence[Task], processes: int, console: Console) -> None:
    """Trains the unfinished teachers, then the unfinished students."""
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
            "stopped; finished runs are kept and unfinished ones saved: give the same command again to continue",
            number,
            saved=True,
        ) from stop


class _Progress:
    """A line for each finished run, with the estimated time left; on a terminal also a progress bar."""

    def __init__(self, console: Console, tasks: Sequence[Task]) -> None:
        self._console, self._runs, self._ended = console, len(tasks), 0
        self._steps_left, self._steps_done = sum(map(_steps, tasks)), 0.0
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
        """Reports the end of a run."""
        self._ended += 1
        self._steps_left, self._steps_done = self._steps_left - _steps(task), self._steps_done + _steps(task)
        spent = time.monotonic() - self._started
        # Rounded, as a sum of fractions need not end at exactly 0.
        left = f"about {formats.duration(max(0, round(spent / self._steps_done * self._steps_left)))} left"
        self._bar.update(self._task, completed=self._ended, description=left)
        line = f"{self._ended}/{self._runs} · {task.label} · {_top1(task)} · {left}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _steps(task: Task) -> float:
    """The number of steps of a run, up to a constant factor; its duration is about proportional to it."""
    return task.config.epochs / task.config.batch_size


def _top1(task: Task) -> str:
    return formats.percent(read_summary(task.folder).get("student", {}).get("top1"))


def _list_files(console: Console, out: Path) -> None:
    for name, file in (("Page", PAGE), ("Picture", PICTURE), ("Results", RESULTS)):
        if (out / file).is_file():
            console.print(f"{name:<9} {out / file}", highlight=False, markup=False, soft_wrap=True)
