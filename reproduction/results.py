"""Collects the results of finished runs into one JSON file, the input of the page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from isometry.errors import UserError, reason
from isometry.parsing import read_json
from isometry.report.records.run_folders import read_summary
from isometry.training.checkpoint.run_folder import Metrics
from reproduction.pool import MEASURED, Task
from reproduction.published import published

Results = dict[str, Any]


class Environment(TypedDict):
    """Keys of ``measured.json`` for the machine and the software; the page lists each combination once."""

    processor: str
    cores: int
    device: str
    threads: str
    python: str
    torch: str
    timm: str


class Measured(Environment):
    """``measured.json``: date, seconds, and the load of the machine when the run began."""

    finished: str
    seconds: float
    cpu_seconds: float
    load: float


def gather(
    teachers: Mapping[str, Task], students: Mapping[str, Sequence[Task]], settings: Mapping[str, Any]
) -> Results:
    """Results of finished runs.

    Args:
        teachers: by key.
        students: by run name, one task per seed.
        settings: ``command``, ``tables``, ``seeds``, ``overrides``, ``processes``, ``student``; copied to the results.

    Returns:
        ``paper``, the settings, ``measured`` (when, where, how long), ``networks`` by key (params, MACs, and test
        top-1 of the teachers), and ``runs`` by name: test ``top1`` and validation ``curves`` in percent, and
        ``seconds``, each with one entry per seed.

    Raises:
        UserError: a run has no test accuracy, or one of its files can't be read.
    """
    everything = [*teachers.values(), *(task for tasks in students.values() for task in tasks)]
    return {
        "paper": published().version,
        **settings,
        "measured": _measured([_measured_of(task) for task in everything]),
        "networks": {key: _network(task) for key, task in teachers.items()} | _students(students),
        "runs": {
            name: {
                "top1": [_figures(task)["top1"] for task in tasks],
                "curves": [_curve(task) for task in tasks],
                "seconds": [round(_measured_of(task)["seconds"], 1) for task in tasks],
            }
            for name, tasks in students.items()
        },
    }


def _measured(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    dates = sorted(note["finished"] for note in notes)
    places = {json.dumps({key: note[key] for key in Environment.__annotations__}) for note in notes}
    return {
        "first": dates[0],
        "last": dates[-1],
        "places": [json.loads(place) for place in sorted(places)],
        "runs": len(notes),
        "seconds": round(sum(note["seconds"] for note in notes)),
        "cpu_seconds": round(sum(note["cpu_seconds"] for note in notes)),
        "mean_load": round(sum(note["load"] for note in notes) / len(notes), 1),
    }


def _students(students: Mapping[str, Sequence[Task]]) -> dict[str, Any]:
    """The students of the paper's Table 1, read from runs that every table contains."""
    named = {"tiny": "manifold-s24-tiny", "small": "manifold-s24-small"}
    return {key: _network(students[run][0], accuracy=False) for key, run in named.items() if run in students}


def _network(task: Task, accuracy: bool = True) -> dict[str, Any]:
    figures = _figures(task)
    keys = ("params", "macs", "top1") if accuracy else ("params", "macs")
    return {key: figures[key] for key in keys} | {"options": task.config.model_kwargs}


def _figures(task: Task) -> dict[str, Any]:
    row = read_summary(task.folder).get("student", {})
    if row.get("top1_part") != "test":
        raise UserError(f"{task.folder}: has no test accuracy; choose another --out and train again")
    return row


def _curve(task: Task) -> list[float]:
    return [round(row["val/top1"], 4) for row in Metrics(task.folder).rows()]


def _measured_of(task: Task) -> dict[str, Any]:
    path = task.folder / MEASURED
    try:
        measured: dict[str, Any] = read_json(path, Measured)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: can't be read ({reason(error)}); delete its folder and give the same command again"
        ) from error
    return measured
