"""Whether agreement with the teacher predicts the score at a task: rank correlations, and their picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from isometry.cli.compare_geometry import Geometry
from isometry.cli.compare_results import AGREEMENT, KEPT, TaskResults
from isometry.report.drawing.agreement import Panel, Points, agreement_picture
from isometry.report.records.correlation import rank_correlation

Row = dict[str, Any]


def agreements(geometry: Geometry, tasks: Sequence[TaskResults]) -> dict[str, Row]:
    """For each task ``figure`` and ``score``, which are compared, and their
    :func:`isometry.report.records.correlation.rank_correlation` over all ``students`` and over the means of the
    ``variants``; without tasks that no student has both figures of."""
    found = {}
    for task in tasks:
        if points := _points(geometry, task):
            means = [[fmean(each) for each in zip(*pairs, strict=True)] for pairs in points.values()]
            found[task.name] = {
                "figure": KEPT,
                "score": task.score,
                "students": _correlation([pair for pairs in points.values() for pair in pairs]),
                "variants": _correlation(means),
            }
    return found


def draw_agreement(
    out: Path, geometry: Geometry, tasks: Sequence[TaskResults], found: Mapping[str, Row]
) -> None:
    """Writes ``agreement.png``, with a panel for each of :func:`agreements`, if there are any."""
    panels = [
        Panel(f"{task.name}: {task.score}, %", _points(geometry, task), found[task.name]["students"])
        for task in tasks
        if task.name in found
    ]
    if panels:
        agreement_picture(out / AGREEMENT, panels, f"{KEPT}, %")


def _points(geometry: Geometry, task: TaskResults) -> Points:
    """Of each variant, the students that have both figures; the teacher keeps no neighbours of its own."""
    found = {}
    for name, runs in task.figures.items():
        pairs = zip(geometry.figures.get(name, []), runs, strict=False)
        if points := [(features[KEPT], run[task.key]) for features, run in pairs if KEPT in features]:
            found[name] = points
    return found


def _correlation(pairs: Sequence[Sequence[float]]) -> Row:
    return rank_correlation([pair[0] for pair in pairs], [pair[1] for pair in pairs])
