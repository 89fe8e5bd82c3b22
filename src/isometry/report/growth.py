"""The section on a run that grew: its stages as a table, and its time compared with that of the full-size model."""

from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.drawing.charts import Bar
from isometry.report.records.data import Row
from isometry.report.tables import Column, Grid, figure, grid


def growth_section(stages: Sequence[Row]) -> dict[str, Any] | None:
    """The section by its names in the template, from rows of `ReportData.stages`; None for a run that did not grow."""
    if not stages:
        return None
    return {"sentence": growth_sentence(stages), "grid": growth_grid(stages), "bars": _bars(stages)}


def growth_sentence(stages: Sequence[Row]) -> str:
    """The run's measured time compared with Σ full_seconds, what all epochs would have taken at full size; a sentence
    that says so where a stage was not timed."""
    times = [stage.get(key) for stage in stages for key in ("seconds", "full_seconds")]
    if not all(formats.is_number(time) and time > 0 for time in times):
        return "Not every stage was timed, so the run is not compared with the full-size model."
    keys = ("seconds", "full_seconds", "epochs")
    spent, full, epochs = (sum(stage[key] for stage in stages) for key in keys)
    ratio = f"{formats.times(max(full / spent, spent / full))} {'faster' if full > spent else 'slower'} than"
    return (
        f"Measured over the whole run, training took {formats.duration(spent)}: "
        f"{'as fast as' if formats.times(full / spent) == formats.times(1) else ratio} the {formats.duration(full)} "
        f"that the full-size model would have taken for all {epochs} epochs, estimated from the measured epochs of the "
        "last stage of this run."
    )


def growth_grid(stages: Sequence[Row]) -> Grid:
    """A row for each stage; without scores where no growth was validated."""
    total = sum(stage["epochs"] for stage in stages) or 1
    columns = [
        figure("stage", "stage", str),
        figure("model", "model", str),
        Column("by", "made by", lambda stage: stage["by"] or formats.MISSING),
        Column("epochs", "epochs", _epochs),
        figure("epochs", "share", lambda epochs: formats.percent(100 * epochs / total, 0)),
        figure("params", "params", formats.params),
        figure("macs", "MACs", formats.macs),
        Column("stage", "time", lambda stage: formats.duration(stage["seconds"])),
        Column("stage", "at full size", lambda stage: formats.duration(stage["full_seconds"])),
    ]
    if scores := [stage["score"] for stage in stages if _is_scored(stage)]:
        columns.append(Column("stage", f"{scores[0]} before → after", _scores))
    return grid(columns, stages)


def _bars(stages: Sequence[Row]) -> list[Bar]:
    times = [
        (f"{stage['stage']} · {stage['model']}" if key == "seconds" else "", stage[key], colour)
        for stage in stages
        for key, colour in (("seconds", "series-1"), ("full_seconds", "muted"))
    ]
    longest = max((time for _, time, _ in times if formats.is_number(time)), default=1)
    return [
        Bar(label, time / longest if formats.is_number(time) else 0, formats.duration(time), colour)
        for label, time, colour in times
    ]


def _epochs(stage: Row) -> str:
    first, last = stage["first_epoch"] + 1, stage["first_epoch"] + stage["epochs"]
    if last < first:
        return formats.MISSING
    return str(first) if first == last else f"{first}–{last}"


def _is_scored(stage: Row) -> bool:
    return formats.is_number(stage["before"]) or formats.is_number(stage["after"])


def _scores(stage: Row) -> str:
    write = formats.percent if stage["score"] == "top-1" else formats.number
    return f"{write(stage['before'])} → {write(stage['after'])}" if _is_scored(stage) else formats.MISSING
