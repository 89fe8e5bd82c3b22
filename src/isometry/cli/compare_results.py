"""Tables, files and pictures of a comparison."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from isometry.config import RunConfig
from isometry.errors import csv_cell
from isometry.evaluation.representations import last_block_maps
from isometry.files import write_output
from isometry.report import formats
from isometry.report.drawing.gains import Panel, comparison_picture
from isometry.report.drawing.matrices import maps_picture
from isometry.report.records.intervals import comparison_classes, comparison_row, comparison_times
from isometry.report.tables import (
    TASK_FIGURES,
    Grid,
    comparison_grid,
    markdown_table,
    model_columns,
    models_grid,
)

Row = dict[str, Any]
Figures = Mapping[str, Sequence[Row]]
"""The rows of a variant's networks, one a seed, by its name."""

TABLES = ("comparison.csv", "comparison.md", "comparison.json")
OUTPUTS = (*TABLES, "comparison.png", "geometry.png")
"""Files that are written, beside ``plan.yaml``."""

SCORES = {"classify": ("top1", "top-1"), "detect": ("ap", "AP"), "segment": ("miou", "mIoU")}
"""The key and the name of the score that stands for a task."""


@dataclass(frozen=True)
class TaskResults:
    """What the networks of a comparison reach at one task.

    Attributes:
        name: of the task in the recipe.
        task: ``classify``, ``detect`` or ``segment``.
        figures: of each variant, and of the teacher.
    """

    name: str
    task: str
    figures: Figures

    @property
    def key(self) -> str:
        """Of the score in a row of ``figures``."""
        return SCORES[self.task][0]

    @property
    def score(self) -> str:
        """Its name."""
        return SCORES[self.task][1]

    def rows(self, baseline: str) -> list[Row]:
        """A row per variant: mean and 95 % interval of the score, gains paired by seed, and the mean of AP50."""
        return [
            row
            | {key: fmean(run[key] for run in runs) for key in ("ap50",) if all(key in run for run in runs)}
            for row, runs in zip(
                score_rows(self.figures, baseline, self.key), self.figures.values(), strict=True
            )
        ]

    def grid(self, baseline: str) -> Grid:
        """:meth:`rows` as a table."""
        return comparison_grid(self.rows(baseline), self.score)


def score_rows(figures: Figures, baseline: str, key: str) -> list[Row]:
    """A row of `comparison_row` per variant: mean and 95 % interval of ``key``, gains paired by seed."""
    values = {name: [row[key] for row in rows] for name, rows in figures.items()}
    base = values.get(baseline)
    return [comparison_row(name, each, None if name == baseline else base) for name, each in values.items()]


def summarise(figures: Figures, baseline: str) -> list[Row]:
    """:func:`score_rows` of top-1, with the speed-up of training over the baseline for each seed; without variants that
    have no top-1."""
    scored = {name: rows for name, rows in figures.items() if all("top1" in row for row in rows)}
    seconds = {name: [row["seconds"] for row in rows] for name, rows in scored.items()}
    return [
        row
        | comparison_classes(scored[row["name"]])
        | comparison_times(seconds[row["name"]], None if row["name"] == baseline else seconds.get(baseline))
        for row in score_rows(scored, baseline, "top1")
    ]


def write(
    out: Path,
    rows: list[Row],
    models: list[Row],
    figures: Figures,
    seeds: Sequence[int],
    baseline: str,
    tasks: Sequence[TaskResults] = (),
) -> None:
    """Writes ``comparison.csv`` (one line per variant and seed), ``.md``, ``.json`` and ``.png``."""
    tables = [
        markdown_table(each) for each in ([comparison_grid(rows)] if rows else []) + [models_grid(models)]
    ]
    tables += [f"**{each.name}**\n\n{markdown_table(each.grid(baseline))}" for each in tasks]
    found: Row = {"rows": rows, "models": models}
    if tasks:
        found["tasks"] = {
            each.name: {"task": each.task, "score": each.key, "rows": each.rows(baseline)} for each in tasks
        }
    texts = (_csv(rows, figures, seeds, baseline, tasks), "\n".join(tables), json.dumps(found, indent=1))
    for name, text in zip(TABLES, texts, strict=True):
        write_output(out / name, text)
    title = "Top-1 and tasks by variant" if tasks else "Top-1 by variant"
    panels = [Panel(each.rows(baseline), f"{each.name}: {each.score}, %") for each in tasks]
    comparison_picture(out / "comparison.png", rows, title, baseline, panels)


def _csv(
    rows: Sequence[Row],
    figures: Figures,
    seeds: Sequence[int],
    baseline: str,
    tasks: Sequence[TaskResults],
) -> str:
    others = [column.key for column in model_columns() if column.key not in ("model", "top1", "seconds")]
    of_tasks = [
        (each, key)
        for each in tasks
        for key in ("top1", *TASK_FIGURES)
        if any(key in run for runs in each.figures.values() for run in runs)
    ]
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    header = ["variant", "seed", "top1", "gain", "seconds", "speed_up", *others]
    header += [csv_cell(f"{each.name} {key}") for each, key in of_tasks]
    writer.writerow([*header, *(csv_cell(f"{each.name} gain") for each in tasks)])
    of_top1 = {row["name"]: row for row in rows}
    gains = [{row["name"]: row["gains"] for row in each.rows(baseline)} for each in tasks]
    everyone = dict.fromkeys([*figures, *(name for each in tasks for name in each.figures)])
    for name in everyone:
        row, runs = of_top1.get(name, {}), figures.get(name) or [{}] * len(seeds)
        for place, (seed, run) in enumerate(zip(seeds, runs, strict=True)):
            cells = [run.get("top1", ""), _at(row.get("gains"), place)]
            cells += [run.get("seconds", ""), _at(row.get("speed_ups"), place)]
            cells += [run.get(key, "") for key in others]
            cells += [
                each.figures[name][place].get(key, "") if name in each.figures else ""
                for each, key in of_tasks
            ]
            writer.writerow([csv_cell(name), seed, *cells, *(_at(each.get(name), place) for each in gains)])
    return lines.getvalue()


def _at(values: Sequence[float] | None, place: int) -> float | str:
    return values[place] if values else ""


def draw_geometry(out: Path, base: RunConfig, models: list[Row], folders: Mapping[str, Path]) -> None:
    """Writes ``geometry.png``: the relation map of each model's last block, on the same validation images.

    The first of ``models`` is the teacher; the gap of the others is to its map. ``folders`` are those of their
    networks, by name.
    """
    maps = last_block_maps({row["model"]: folders[row["model"]] for row in models}, base)
    first = next(iter(maps.values()))
    captions = {
        row["model"]: f"{formats.top1(row)} · {row['params'] / 1e3:,.0f} k parameters"
        + ("" if maps[row["model"]] is first else f"\ngap {np.mean((maps[row['model']] - first) ** 2):.4f}")
        for row in models
    }
    title = "Relations between patches of the same images, last block"
    maps_picture(out / "geometry.png", maps, captions, title)
