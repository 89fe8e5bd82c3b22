"""The runs of a comparison: each begun, resumed, or taken as it is where it has finished."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from isometry.cli.compare_plan import TEACHER, Plan
from isometry.cli.compare_results import SCORES
from isometry.cli.transfer import run_transfer
from isometry.config import RunConfig
from isometry.data import find_sources
from isometry.data.dense.sources import find_dense_sources
from isometry.distributed import join_world
from isometry.errors import UserError
from isometry.evaluation.dense.detection import check_installed
from isometry.files import inside, write_atomically
from isometry.models.cost import macs, parameter_count
from isometry.models.spec import architecture
from isometry.recipes import config_to_yaml
from isometry.report.records.run_folders import read_summary
from isometry.training.assemble import assemble
from isometry.training.results import save_student
from isometry.training.run import execute

Row = dict[str, Any]
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Teacher:
    """The network of a comparison's teacher.

    Attributes:
        row: of the table of models.
        network: its folder.
    """

    row: Row
    network: Path


def check_tasks(plan: Plan) -> None:
    """Opens the data of every transfer, so that none fails after hours of training.

    Raises:
        UserError: no such data, or not of the task; the message begins with where it stands in the recipe.
    """
    tasks = {f"tasks.{name}": run for name, run in plan.tasks.items()}
    steps = {f"teacher_recipe, step {number}": run for number, run in enumerate(plan.teacher, start=1)}
    for where, run in {**tasks, **steps}.items():
        try:
            _check_data(run)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def _check_data(run: RunConfig) -> None:
    if run.task == "detect":
        check_installed()
    if run.task == "classify":
        find_sources(run)
    else:
        find_dense_sources(run, run.task)


def train_teacher(plan: Plan, out: Path, console: Console) -> Teacher | None:
    """The teacher, after all of its steps: in ``OUT/teacher``, or of several ``OUT/teacher/1`` and so on."""
    row: Row = {}
    network: Path | None = None
    for number, step in enumerate(plan.teacher, start=1):
        several = len(plan.teacher) > 1
        folder = inside(out, TEACHER, *([str(number)] if several else []))
        run = replace(step, out=str(folder))
        if network is not None:
            run = replace(run, model=f"local-dir:{network}")
        row = result(run, console, f"{TEACHER} · step {number}" if several else TEACHER)
        network = folder / "student"
    return None if network is None else Teacher({**row, "model": TEACHER}, network)


def result(run: RunConfig, console: Console, label: str, companions: Sequence[Row] = ()) -> Row:
    """The row of a run's network, which is trained unless its folder says that it was.

    Raises:
        UserError: as the run; several processes.
    """
    folder = Path(run.out)
    if not (folder / SUMMARY).is_file():
        run = replace(run, resume=(folder / "config.yaml").is_file())
        if run.task == "classify":
            outcome = execute(run, console, label, companions)
        else:
            outcome = run_transfer(run, console, label)
        if outcome is None:
            raise UserError("isometry compare runs in one process; use torchrun with distill")
    return read_summary(folder).get("student", {})


def untrained_result(run: RunConfig) -> Row:
    """The row of a run's network before its first step, which is saved as that of a run is."""
    folder = Path(run.out)
    if not (folder / SUMMARY).is_file():
        # Channels last is a matter of speed in training, which there is none of.
        parts = assemble(replace(run, channels_last=False), join_world(run.device))
        save_student(parts, folder / "student")
        write_atomically(folder / "config.yaml", config_to_yaml(parts.config))
        row = {
            "model": architecture(parts.student),
            "role": "student",
            "params": parameter_count(parts.student),
            "macs": macs(parts.student, parts.spec.input_size),
        }
        write_atomically(folder / SUMMARY, json.dumps([row], indent=1))
    return read_summary(folder).get("student", {})


def task_result(task: RunConfig, network: Path, out: Path, seed: int, console: Console, label: str) -> Row:
    """The row of a network that is transferred to a task.

    Raises:
        UserError: as the run; it has no score.
    """
    row = result(replace(task, model=f"local-dir:{network}", seed=seed, out=str(out)), console, label)
    key, score = SCORES[task.task]
    if key not in row:
        raise UserError(f"{out}: has no {score} to compare; the data needs a validation or a test part")
    return row
