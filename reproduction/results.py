"""Collects the results of finished runs into one JSON file, the input of the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isometry.errors import UserError
from reproduction.pool import MEASURED, Task
from reproduction.published import published

Results = dict[str, Any]

ENVIRONMENT = ("processor", "cores", "device", "threads", "python", "torch", "timm")
"""Keys of ``measured.json`` that describe the machine and the software; the page lists each combination once."""


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
        "measured": _measured([_read(task.folder / MEASURED) for task in everything]),
        "networks": {key: _network(task) for key, task in teachers.items()} | _students(students),
        "runs": {
            name: {
                "top1": [_figures(task)["top1"] for task in tasks],
                "curves": [_curve(task) for task in tasks],
                "seconds": [round(_read(task.folder / MEASURED)["seconds"], 1) for task in tasks],
            }
            for name, tasks in students.items()
        },
    }


def _measured(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    dates = sorted(note["finished"] for note in notes)
    places = {json.dumps({key: note[key] for key in ENVIRONMENT}) for note in notes}
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
    row = next(row for row in _read(task.folder / "summary.json") if row["role"] == "student")
    if row.get("top1_part") != "test":
        raise UserError(f"{task.folder}: has no test accuracy; choose another --out and train again")
    return dict(row)


def _curve(task: Task) -> list[float]:
    lines = (task.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [round(json.loads(line)["val/top1"], 4) for line in lines]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: can't be read; delete its folder and give the same command again"
        ) from error
