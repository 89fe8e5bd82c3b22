"""The page of several runs, in groups that differ only in their seed."""

from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.compared_scores import compared_dense, main_score, scores_grid
from isometry.report.drawing.charts import Chart, line_charts
from isometry.report.drawing.cost import COSTS, LATENCY, bench_points, cost_charts, group_points, model_points
from isometry.report.drawing.panels import Panel, Series, drawn_keys, title_of, values_by_epoch
from isometry.report.headline import THE_PART
from isometry.report.page import details, rendered
from isometry.report.records.data import Row, by_role, common_part, on_part
from isometry.report.records.groups import Group, differences
from isometry.report.records.intervals import (
    comparison_classes,
    comparison_row,
    comparison_times,
    interval,
    mean_row,
)
from isometry.report.records.run_folders import RunReport, notes_of
from isometry.report.relations import block_maps
from isometry.report.tables import comparison_grid, models_grid

TITLE_SUFFIXES = {"val_ema": ", averaged weights", "train": ", training"}
"""By split, where the title of a metric does not name it."""


def render_comparison(groups: Sequence[Group], baseline: str, command: str = "") -> str:
    """The page, one HTML file; ``baseline`` is the name of a group, and ``command`` made the page."""
    rows, unpaired = gain_rows(groups, baseline)
    scored, score, scored_part = main_score(groups)
    part, models = _part(groups), _model_rows(groups)
    runs = [run for group in groups for run in group.runs]
    return rendered(
        "compared.html.j2",
        title=f"{len(groups)} variants, {len(runs)} runs" if len(groups) > 1 else f"{len(runs)} runs",
        headline=comparison_headline(rows, part)
        if rows or not scored
        else comparison_headline(scored, scored_part, score),
        notes=[*unpaired, *notes_of(runs)],
        part=on_part(part, THE_PART),
        grid=comparison_grid(rows) if rows else None,
        scores=scores_grid(groups),
        models=models_grid(models) if models else None,
        charts=_charts(groups),
        has_intervals=len(runs) > len(groups),
        marks=_marks(groups),
        costs=_costs(groups, part),
        dense=compared_dense(groups),
        blocks=block_maps([(group.name if len(groups) > 1 else "", group.shown.data) for group in groups]),
        differences=differences(groups),
        details=[_detail(group) for group in groups],
        command=command,
    )


def gain_rows(groups: Sequence[Group], baseline: str) -> tuple[list[Row], list[str]]:
    """The rows of `comparison_grid` for all groups with an accuracy, and a sentence for each that can't be paired with
    the baseline seed by seed."""
    scored = [group for group in groups if group.values("top1")]
    base = next((group for group in scored if group.name == baseline), None)
    rows: list[Row] = []
    unpaired = []
    for group in scored:
        same = base is not None and group.seeds == base.seeds and _part([group, base]) is not None
        pair = base if same and group is not base else None
        row = comparison_row(group.name, group.values("top1"), pair.values("top1") if pair else None)
        row |= comparison_classes(group.students())
        if seconds := group.values("seconds"):
            row |= comparison_times(seconds, pair.values("seconds") or None if pair else None)
        if group is not base and pair is None:
            row["gains"] = []
            if base is not None:
                unpaired.append(
                    f"{group.name} has other seeds than {base.name}, or was measured on another part of the data, "
                    "so its gain is not shown"
                )
        rows.append(row)
    return rows, unpaired


def comparison_headline(rows: Sequence[Row], part: str | None, score: str = "top-1") -> str:
    """The group with the highest mean of ``score``, and the others whose interval overlaps with its own."""
    on = on_part(part, THE_PART)
    ordered = sorted((row for row in rows if formats.is_number(row["mean"])), key=lambda row: -row["mean"])
    if not ordered:
        return "No accuracy was measured in these runs."
    best, *others = ordered
    reached = f"{formats.percent(best['mean'])}{formats.margin(best['low'], best['high'])}"
    if formats.is_number(by_class := best.get("by_class_mean")):
        reached += f" (mean of classes {formats.percent(by_class)})"
    if not others:
        return f"{best['name']} reaches {reached} {score}{on}."
    highest = f"Highest {score}{on}: {best['name']} with {reached}"
    if alone := [row["name"] for row in ordered if not formats.is_number(row["low"])]:
        return f"{highest}; there is no interval over seeds, with one seed of {_listed(alone)}."
    if near := [row["name"] for row in others if row["high"] >= best["low"]]:
        return f"{highest}; its interval overlaps that of {_listed(near)}."
    return f"{highest}, above every other's interval."


def _listed(names: Sequence[str], most: int = 2) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(names)


def _part(groups: Sequence[Group]) -> str | None:
    """The part of the data that all top-1 are of; None where they are of different ones."""
    return common_part([row for group in groups for row in group.students()])


def _model_rows(groups: Sequence[Group]) -> list[Row]:
    """The first teacher's row, and each group's means over its seeds where all runs are finished."""
    teacher = _teacher(groups)
    students: list[Row] = [
        mean_row(group.name, rows) if len(rows) == len(group.runs) else {"model": group.name}
        for group in groups
        if (rows := group.students())
    ]
    return [teacher, *students] if teacher else students


def _charts(groups: Sequence[Group]) -> list[Chart]:
    found = group_panels(groups)
    epochs = [epoch for panel in found for line in panel.series for epoch in line.epochs]
    return line_charts(found, (min(epochs), max(epochs)), _marks(groups)) if epochs else []


def _marks(groups: Sequence[Group]) -> list[tuple[float, str]]:
    """Epochs at which runs grew, labelled with the group's name where there are several."""
    return [
        (epoch, f"{group.name}: {label}" if len(groups) > 1 else label)
        for group in groups
        for epoch, label in group.shown.data.marks
    ]


def _costs(groups: Sequence[Group], part: str | None) -> list[Chart]:
    teacher = _teacher(groups)
    # Last, so that the groups keep the colours of their curves.
    last = [teacher] if teacher and teacher.get("top1_part") == part else []
    points = [(cost, [*group_points(groups, cost.key), *model_points(last, cost.key)]) for cost in COSTS]
    benched = [{**group.shown.bench, "name": group.name} for group in groups if group.shown.bench]
    return cost_charts([*points, (LATENCY, bench_points(benched))], part)


def _teacher(groups: Sequence[Group]) -> Row | None:
    """The row of the first run that has a teacher."""
    found = filter(None, (by_role(group.shown.data.models, "teacher") for group in groups))
    return next(({**row, "model": "teacher"} for row in found), None)


def _detail(group: Group) -> dict[str, Any]:
    count = "1 run" if len(group.runs) == 1 else f"{len(group.runs)} runs"
    return {
        "name": group.name,
        "text": f"{count}; pictures and figures below are those of {group.shown.folder}.",
        "sections": details(group.shown.data),
        "runs": [_run(run) for run in group.runs],
    }


def _run(run: RunReport) -> dict[str, str]:
    student = by_role(run.data.models, "student") or {}
    return {
        "folder": str(run.folder),
        "seed": formats.MISSING if run.seed is None else str(run.seed),
        "top1": formats.top1(student),
        "command": dict(run.data.facts).get("Command", ""),
    }


def group_panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each key of metrics.jsonl that is drawn, a curve a group; in the order of a single run's panels."""
    found = []
    for metric, key in drawn_keys(row for group in groups for run in group.runs for row in run.data.epochs):
        lines = [mean_series(group, key, index) for index, group in enumerate(groups)]
        suffix = "" if metric == key else TITLE_SUFFIXES.get(key.rpartition("/")[0], "")
        found.append(Panel(metric, title_of(metric) + suffix, tuple(line for line in lines if line.last)))
    return [panel for panel in found if panel.series]


def mean_series(group: Group, key: str, colour: int = 0) -> Series:
    """The group's curve: mean ± t(0.975, n − 1)·s/√n over its n runs (see `interval`), at the epochs
    that all of them have reached; NaN where a run's value was not finite. A single run has no interval."""
    found = [values_by_epoch(run.data.epochs, key) for run in group.runs]
    epochs = tuple(sorted(set.intersection(*map(set, found))))
    intervals = [interval([values[epoch] for values in found]) for epoch in epochs]
    means = tuple(mean for mean, _, _ in intervals)
    ends = [(low, high) for _, low, high in intervals if low is not None and high is not None]
    low, high = (tuple(end[side] for end in ends) for side in (0, 1))
    return Series(group.name, epochs, means, low, high, colour)
