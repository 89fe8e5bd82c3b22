"""Sections of a page of several runs: their scores of boxes or masks, and their dense figures."""

from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.dense import dense_section, on_data
from isometry.report.records.data import PARTS, Row
from isometry.report.records.groups import Group
from isometry.report.records.intervals import comparison_row, interval
from isometry.report.tables import TASK_FIGURES, Grid

MAIN_SCORES = ("ap", "miou")
"""Those that a sentence names."""
TRAINED = "trained"
"""The network of a run, in its dense figures."""


def scores_grid(groups: Sequence[Group]) -> Grid | None:
    """A line for each group that finds boxes or masks: of one run each score and its interval over pictures, of several
    the mean over seeds ± half the width of its interval; None if there is none."""
    keys = [key for key in TASK_FIGURES if any(group.values(key) for group in groups)]
    lines = [
        [group.name, str(len(group.runs)), _part(group), *(_score(group, key) for key in keys)]
        for group in groups
        if any(group.values(key) for key in keys)
    ]
    return (
        Grid(["variant", "seeds", "part", *(f"{TASK_FIGURES[key]}, %" for key in keys)], lines)
        if lines
        else None
    )


def main_score(groups: Sequence[Group]) -> tuple[list[Row], str, str | None]:
    """Rows of `comparison_row` for the first of AP and mIoU that a group has, its name, and the part of the data that
    all are of; no rows without either."""
    for key in MAIN_SCORES:
        scored = [group for group in groups if group.values(key)]
        if scored:
            parts = {row.get("part") for group in scored for row in group.students()}
            rows: list[Row] = [comparison_row(group.name, group.values(key)) for group in scored]
            return rows, TASK_FIGURES[key], parts.pop() if len(parts) == 1 else None
    return [], "", None


def _part(group: Group) -> str:
    parts = dict.fromkeys(str(row["part"]) for row in group.students() if row.get("part"))
    return ", ".join(PARTS.get(part, part) for part in parts) or formats.MISSING


def _score(group: Group, key: str) -> str:
    values = group.values(key)
    if not values:
        return formats.MISSING
    mean, low, high = interval(values)
    if len(values) > 1:
        return formats.fixed(mean) + formats.margin(low, high)
    (row,) = group.students()
    ends = [row.get(f"{key}_{end}") for end in ("low", "high")]
    over = f" ({'–'.join(map(formats.fixed, ends))})" if all(map(formats.is_number, ends)) else ""
    return formats.fixed(mean) + over


def compared_dense(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The section on dense features of the groups whose runs were all measured; None if there is none.

    The figures of one run have their intervals over images, means of several those over seeds.
    """
    measured = [group for group in groups if all(run.dense.get("figures") for run in group.runs)]
    rows = [row for group in measured for row in _dense_rows(group)]
    chances: dict[str, set[float | None]] = {}
    for row in rows:
        chances.setdefault(row["figure"], set()).add(row["chance"])
    # Of other images or other numbers of neighbours, chance is another.
    rows = [row if len(chances[row["figure"]]) == 1 else {**row, "chance": None} for row in rows]
    images = dict.fromkeys(on_data(run.dense) for group in measured for run in group.runs)
    notes = []
    if len(images) > 1:
        notes.append("The runs were measured on different images, so their figures are not of one kind")
    partly = [
        group.name for group in groups if group not in measured and any(run.dense for run in group.runs)
    ]
    if partly:
        notes.append(f"Not all runs of {', '.join(partly)} were measured, so they are left out")
    section = dense_section({"figures": rows, "notes": notes})
    if section is None:
        return None
    several = any(len(group.runs) > 1 for group in measured)
    over = "over images, or over seeds where a variant has several runs" if several else section["over"]
    return {**section, "over": over, "data": next(iter(images)) if len(images) == 1 else ""}


def _dense_rows(group: Group) -> list[Row]:
    """A row for each figure that all runs of the group have of their network."""
    found = [
        {row["figure"]: row for row in run.dense["figures"] if row["of"] == TRAINED} for run in group.runs
    ]
    rows: list[Row] = []
    for figure, first in found[0].items():
        same = [each[figure] for each in found if figure in each]
        if len(same) < len(found):
            continue
        row = {**first, "of": group.name, "chance": first.get("chance")}
        if len(same) > 1:
            mean, low, high = interval([each["value"] for each in same])
            row |= {"value": mean, "low": low, "high": high}
        rows.append(row)
    return rows
