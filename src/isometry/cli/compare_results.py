"""Tables, files and pictures of a comparison."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from isometry.cli.compare_geometry import Geometry
from isometry.config import RunConfig
from isometry.errors import csv_cell
from isometry.evaluation.representations import last_block_maps
from isometry.files import write_output
from isometry.report import formats
from isometry.report.drawing.gains import Panel, comparison_picture
from isometry.report.drawing.matrices import maps_picture
from isometry.report.records.intervals import (
    comparison_classes,
    comparison_row,
    comparison_times,
    gains_over_untrained,
)
from isometry.report.tables import (
    TASK_FIGURES,
    comparison_grid,
    correlations_grid,
    figures_grid,
    markdown_table,
    model_columns,
    models_grid,
)

Row = dict[str, Any]
Figures = Mapping[str, Sequence[Row]]
"""The rows of a variant's networks, one a seed, by its name."""

TABLES = ("comparison.csv", "comparison.md", "comparison.json")
AGREEMENT = "agreement.png"
OUTPUTS = (*TABLES, "comparison.png", "geometry.png", AGREEMENT)
"""Files that are written, beside ``plan.yaml``."""

KEPT = "kept neighbours, all patches"
"""The figure whose rank correlation with scores is computed."""
CORRELATED = f"Rank correlation of {KEPT}, with scores"

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

    def rows(self, baseline: str, untrained: str = "") -> list[Row]:
        """:func:`score_rows` of the score, with the mean of AP50."""
        return [
            row
            | {key: fmean(run[key] for run in runs) for key in ("ap50",) if all(key in run for run in runs)}
            for row, runs in zip(
                score_rows(self.figures, baseline, self.key, untrained), self.figures.values(), strict=True
            )
        ]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        rows: of top-1, by :func:`summarise`.
        models: of the table of models.
        figures: of each variant's networks.
        seeds: of the rows in ``figures`` and in those of ``tasks``.
        baseline, untrained: variants that gains are measured against; empty without one.
        tasks: what the networks reach at each.
        geometry: the dense figures, if there are any.
        agreements: by :func:`isometry.cli.compare_agreement.agreements`.
    """

    rows: list[Row]
    models: list[Row]
    figures: Figures
    seeds: Sequence[int]
    baseline: str
    untrained: str = ""
    tasks: Sequence[TaskResults] = ()
    geometry: Geometry | None = None
    agreements: Mapping[str, Row] = field(default_factory=dict)

    @cached_property
    def of_tasks(self) -> dict[str, list[Row]]:
        """The rows of each task."""
        return {each.name: each.rows(self.baseline, self.untrained) for each in self.tasks}

    @cached_property
    def of_features(self) -> dict[str, list[Row]]:
        """The rows of each dense figure, of the networks that have it for every seed."""
        if self.geometry is None:
            return {}
        return {
            name: score_rows(self.geometry.having(name), self.baseline, name, self.untrained)
            for name in self.geometry.names
        }


def score_rows(figures: Figures, baseline: str, key: str, untrained: str = "") -> list[Row]:
    """A row of `comparison_row` per variant: mean and 95 % interval of ``key``, gains paired by seed over the baseline
    and, where there is one, over a variant that is not trained."""
    values = {name: [row[key] for row in rows] for name, rows in figures.items()}
    base, begun = values.get(baseline), values.get(untrained)
    return [
        comparison_row(name, each, None if name == baseline else base)
        | ({} if begun is None else gains_over_untrained(each, None if name == untrained else begun))
        for name, each in values.items()
    ]


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


def write(out: Path, found: Comparison) -> None:
    """Writes ``comparison.csv`` (one line per variant and seed), ``.md``, ``.json`` and ``.png``."""
    for name, text in zip(TABLES, (_csv(found), _markdown(found), _json(found)), strict=True):
        write_output(out / name, text)
    title = "Top-1 and tasks by variant" if found.tasks else "Top-1 by variant"
    panels = [Panel(found.of_tasks[each.name], f"{each.name}: {each.score}, %") for each in found.tasks]
    comparison_picture(out / "comparison.png", found.rows, title, found.baseline, panels)


def _markdown(found: Comparison) -> str:
    tables = [("", comparison_grid(found.rows))] if found.rows else []
    tables.append(("", models_grid(found.models)))
    tables += [(each.name, comparison_grid(found.of_tasks[each.name], each.score)) for each in found.tasks]
    if found.of_features:
        tables.append(("Dense features", figures_grid(found.of_features)))
    tables += [(name, comparison_grid(rows, name)) for name, rows in found.of_features.items()]
    if found.agreements:
        tables.append((CORRELATED, correlations_grid(found.agreements)))
    return "\n".join((f"**{name}**\n\n" if name else "") + markdown_table(table) for name, table in tables)


def _json(found: Comparison) -> str:
    content: Row = {"rows": found.rows, "models": found.models}
    if found.tasks:
        content["tasks"] = {
            each.name: {"task": each.task, "score": each.key, "rows": found.of_tasks[each.name]}
            for each in found.tasks
        }
    if found.geometry is not None:
        content["dense"] = {"figures": found.of_features, "notes": found.geometry.notes}
        content["agreement"] = found.agreements
    return json.dumps(content, indent=1)


def _csv(found: Comparison) -> str:
    others = [column.key for column in model_columns() if column.key not in ("model", "top1", "seconds")]
    more = dict(_series(found))
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(
        [
            "variant",
            "seed",
            "top1",
            "gain",
            "seconds",
            "speed_up",
            *others,
            *(csv_cell(name) for name in more),
        ]
    )
    of_top1 = {row["name"]: row for row in found.rows}
    tables: list[Mapping[str, Any]] = [found.figures, *more.values()]
    for name in dict.fromkeys(name for table in tables for name in table):
        row, runs = of_top1.get(name, {}), found.figures.get(name) or [{}] * len(found.seeds)
        for place, (seed, run) in enumerate(zip(found.seeds, runs, strict=True)):
            cells = [run.get("top1", ""), _at(row.get("gains"), place)]
            cells += [run.get("seconds", ""), _at(row.get("speed_ups"), place)]
            cells += [run.get(key, "") for key in others]
            writer.writerow(
                [csv_cell(name), seed, *cells, *(_at(each.get(name), place) for each in more.values())]
            )
    return lines.getvalue()


def _series(found: Comparison) -> Iterator[tuple[str, Mapping[str, Sequence[Any] | None]]]:
    """Columns of the CSV file: the values of each variant, one a seed."""
    for each in found.tasks:
        for key in ("top1", *TASK_FIGURES):
            if any(key in run for runs in each.figures.values() for run in runs):
                yield (
                    f"{each.name} {key}",
                    {name: [run.get(key, "") for run in runs] for name, runs in each.figures.items()},
                )
    for name, rows in found.of_tasks.items():
        yield from _gains(name, rows)
    for name, rows in found.of_features.items():
        yield f"dense {name}", {row["name"]: row["values"] for row in rows}
        yield from _gains(f"dense {name}", rows)


def _gains(what: str, rows: Sequence[Row]) -> Iterator[tuple[str, Mapping[str, Sequence[float] | None]]]:
    yield f"{what} gain", {row["name"]: row["gains"] for row in rows}
    if any("untrained_gains" in row for row in rows):
        yield f"{what} gain over untrained", {row["name"]: row["untrained_gains"] for row in rows}


def _at(values: Sequence[Any] | None, place: int) -> Any:
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
