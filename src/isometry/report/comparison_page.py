"""Several runs side by side: everything that their page shows, drawn."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from isometry.report import formats
from isometry.report.drawing.cost import (
    COSTS,
    LATENCY,
    Cost,
    CostChart,
    Point,
    bench_points,
    cost_charts,
    group_points,
    model_points,
)
from isometry.report.drawing.panels import Panel, Series, metric_of, rank, title_of
from isometry.report.headline import by_role
from isometry.report.records.data import Row
from isometry.report.records.groups import Group, differences
from isometry.report.records.intervals import comparison_row, comparison_times, interval
from isometry.report.records.run_folders import RunReport, notes_of
from isometry.report.relations import blocks
from isometry.report.sections import HALF, TALL, Chart, charts, details
from isometry.report.tables import PARTS, comparison_grid, models_grid


class RunLine(NamedTuple):
    """One run in the list of all."""

    folder: str
    seed: str
    top1: str
    command: str


class Detail(NamedTuple):
    """What a group shows by itself."""

    name: str
    words: str
    sections: dict[str, Any]
    runs: list[RunLine]


def compared_view(groups: Sequence[Group], baseline: str) -> dict[str, Any]:
    """By name in the template, what the page of several runs shows; ``baseline`` is the name of a group."""
    shown = [(group.name if len(groups) > 1 else "", group.shown.data) for group in groups]
    rows, unpaired = compared_rows(groups, baseline)
    part = common_part(groups)
    return {
        "title": _counted(groups),
        "headline": compared_headline(rows, part),
        "notes": [*unpaired, *notes_of([run for group in groups for run in group.runs])],
        "part": PARTS.get(part, part) if part else "",
        "grid": comparison_grid(rows) if rows else None,
        "models": models_grid(_model_rows(groups)) if _model_rows(groups) else None,
        "charts": _charts(groups),
        "banded": any(len(group.runs) > 1 for group in groups),
        "marks": _marks(groups),
        "costs": _costs(groups, part),
        "blocks": blocks(shown),
        "differences": differences(groups),
        "details": [_detail(group) for group in groups],
    }


def compared_rows(groups: Sequence[Group], baseline: str) -> tuple[list[Row], list[str]]:
    """The rows of `comparison_grid` for all groups with an accuracy, and a sentence for each that can't be paired with
    the baseline seed by seed."""
    scored = [group for group in groups if group.values("top1")]
    base = next((group for group in scored if group.name == baseline), None)
    rows, unpaired = [], []
    for group in scored:
        paired = base if base is not None and group is not base and _paired(group, base) else None
        if base is not None and group is not base and paired is None:
            unpaired.append(
                f"{group.name} has other seeds than {base.name}, or another part of the data, "
                "so its gain over it is not told"
            )
        row = _compared_row(group, paired)
        rows.append(row if group is base or paired else {**row, "gains": []})
    return rows, unpaired


def compared_headline(rows: Sequence[Row], part: str | None) -> str:
    """Which group has the highest mean top-1, and which of the others its interval does not leave behind."""
    on = f" on the {PARTS.get(part, part)} part" if part else ""
    ordered = sorted((row for row in rows if formats.is_number(row["mean"])), key=lambda row: -row["mean"])
    if not ordered:
        return "No accuracy was measured in these runs."
    best, *others = ordered
    reached = f"{formats.percent(best['mean'])}{formats.half_width(best['low'], best['high'])}"
    if not others:
        return f"{best['name']} reaches {reached} top-1{on}."
    told = f"Highest top-1{on}: {best['name']} with {reached}"
    alone = [row["name"] for row in (best, *others) if not formats.is_number(row["low"])]
    if alone:
        return f"{told}; how sure that is can't be told, with one seed of {_listed(alone)}."
    near = [row["name"] for row in others if row["high"] >= best["low"]]
    return (
        f"{told}; its interval overlaps that of {_listed(near)}."
        if near
        else f"{told}, above every other's interval."
    )


def _listed(names: Sequence[str], most: int = 2) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(names)


def common_part(groups: Sequence[Group]) -> str | None:
    """The part of the data that all top-1 are of; None where they are of different ones."""
    parts = {row.get("top1_part") for group in groups for row in group.students()}
    return str(next(iter(parts))) if len(parts) == 1 and None not in parts else None


def _compared_row(group: Group, base: Group | None) -> Row:
    row = comparison_row(group.name, group.values("top1"), base.values("top1") if base else None)
    seconds = group.values("seconds")
    if not seconds:
        return row
    return row | comparison_times(seconds, base.values("seconds") or None if base else None)


def _paired(group: Group, base: Group) -> bool:
    return group.seeds == base.seeds and common_part([group, base]) is not None


def _model_rows(groups: Sequence[Group]) -> list[Row]:
    """The first run's teacher and each group's student, figures being means over its seeds."""
    teacher = _teacher(groups)
    rows = [teacher] if teacher else []
    for group in groups:
        if students := group.students():
            keys = ("top1", "params", "macs", "images_per_s", "seconds")
            means = {key: fmean(group.values(key)) for key in keys if group.values(key)}
            rows.append({"top1_part": students[0].get("top1_part"), **means, "model": group.name})
    return rows


def _charts(groups: Sequence[Group]) -> list[Chart]:
    found = compared_panels(groups)
    epochs = [epoch for panel in found for line in panel.series for epoch in line.epochs]
    return charts(found, (min(epochs), max(epochs)), _marks(groups)) if epochs else []


def _marks(groups: Sequence[Group]) -> list[tuple[float, str]]:
    """Where runs grew; with the group's name where there are several."""
    named = len(groups) > 1
    return [
        (epoch, f"{group.name}: {label}" if named else label)
        for group in groups
        for epoch, label in group.shown.data.marks
    ]


def _costs(groups: Sequence[Group], part: str | None) -> list[CostChart]:
    points = [
        (cost, [*group_points(groups, cost.key), *_teacher_point(groups, cost, part)]) for cost in COSTS
    ]
    benched = bench_points(
        [{**group.shown.bench, "name": group.name} for group in groups if group.shown.bench]
    )
    return cost_charts([*points, (LATENCY, benched)], part, HALF, TALL)


def _teacher_point(groups: Sequence[Group], cost: Cost, part: str | None) -> list[Point]:
    # Last, so that the groups keep the colours of their curves.
    teacher = _teacher(groups)
    same_part = teacher is not None and teacher.get("top1_part") == part
    return model_points([teacher], cost.key) if teacher is not None and same_part else []


def _teacher(groups: Sequence[Group]) -> Row | None:
    """The row of the first run that has a teacher."""
    found = filter(None, (by_role(group.shown.data.models, "teacher") for group in groups))
    return next(({**row, "model": "teacher"} for row in found), None)


def _detail(group: Group) -> Detail:
    count = "1 run" if len(group.runs) == 1 else f"{len(group.runs)} runs"
    words = f"{count}; pictures and figures below are those of {group.shown.folder}."
    return Detail(group.name, words, details(group.shown.data), [_line(run) for run in group.runs])


def _line(run: RunReport) -> RunLine:
    student = by_role(run.data.models, "student") or {}
    return RunLine(
        str(run.folder),
        formats.MISSING if run.seed is None else str(run.seed),
        formats.percent(student.get("top1")),
        dict(run.data.facts).get("Command", ""),
    )


def _counted(groups: Sequence[Group]) -> str:
    runs = sum(len(group.runs) for group in groups)
    return f"{runs} runs" if len(groups) == 1 else f"{len(groups)} variants, {runs} runs"


OF = {"val_ema": ", averaged weights", "train": ", training"}
"""What a heading says of a key's part of the data, where it is not that of the key itself."""


def compared_panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel for each key of metrics.jsonl that is drawn, a line a group; in the order of a single run's panels."""
    keys = dict.fromkeys(
        key for group in groups for run in group.runs for row in run.data.epochs for key in row
    )
    found = []
    for key in sorted((key for key in keys if metric_of(key)), key=lambda key: rank(metric_of(key) or "")):
        lines = tuple(mean_series(group, key, place) for place, group in enumerate(groups))
        lines = tuple(line for line in lines if line.last)
        if lines:
            metric = metric_of(key) or ""
            of = "" if metric == key else OF.get(key.rpartition("/")[0], "")
            found.append(Panel(metric, title_of(metric) + of, lines))
    return found


def mean_series(group: Group, key: str, place: int = 0) -> Series:
    """The group's line: mean ± t(0.975, n − 1)·s/√n over its n runs (see `isometry.report.interval`), at the
    epochs that all of them have behind them; NaN where a run's value was not finite. A single run has no interval."""
    found = [values_by_epoch(run.data.epochs, key) for run in group.runs]
    epochs = sorted(set.intersection(*map(set, found)))
    spreads = [interval([values[epoch] for values in found]) for epoch in epochs]
    means = tuple(mean for mean, _, _ in spreads)
    if len(found) == 1:
        return Series(group.name, tuple(epochs), means, place=place)
    low = tuple(math.nan if low is None else low for _, low, _ in spreads)
    high = tuple(math.nan if high is None else high for _, _, high in spreads)
    return Series(group.name, tuple(epochs), means, low, high, place)


def values_by_epoch(rows: Sequence[Row], key: str) -> dict[float, float]:
    """A key's values by epoch, NaN for one that is there and not finite."""
    return {
        float(row["epoch"]): float(row[key]) if formats.is_number(row[key]) else math.nan
        for row in rows
        if row.get(key) is not None and formats.is_number(row.get("epoch"))
    }
