"""The section on the time of training, by the phases of a step: as text, as a table and as bars."""

from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.drawing.charts import Bar
from isometry.report.records.data import REST, Row
from isometry.report.tables import Grid

NAMES = {"student": "student forward", "terms": "losses", REST: "other"}
"""Of phases whose key is not clear by itself."""


def times_section(rows: Sequence[Row], epochs: Sequence[Row]) -> dict[str, Any] | None:
    """The section by its names in the template; None where no step was timed.

    Keys read: those of `ReportData.times`, and "step" of `epochs`, the number of optimizer steps taken so far.
    """
    if not _steps(rows):
        return None
    shares = _shares(rows)
    longest = max(shares.values())
    bars = [
        Bar(name, share / longest, formats.percent(share, 0), "muted" if name == NAMES[REST] else "series-1")
        for name, share in shares.items()
    ]
    return {"text": _text(rows, epochs), "grid": times_grid(rows), "bars": bars}


def times_sentence(rows: Sequence[Row]) -> str:
    """Each phase's share, the largest first; empty where no step was timed."""
    shares = sorted(_shares(rows).items(), key=lambda item: -item[1]) if _steps(rows) else []
    return ", ".join(f"{name} {formats.percent(share, 0)}" for name, share in shares)


def times_grid(rows: Sequence[Row]) -> Grid:
    """A row for each phase: its time in the whole run, in an optimizer step, and its share; then their sum."""
    seconds, steps = _seconds(rows), _steps(rows)
    whole = sum(seconds.values())
    cells = [
        [
            name,
            formats.duration(spent),
            formats.milliseconds(spent / steps),
            formats.percent(100 * spent / whole),
        ]
        for name, spent in (*seconds.items(), ("together", whole))
    ]
    return Grid(["phase", "whole run", "ms per step", "share"], cells)


def _text(rows: Sequence[Row], epochs: Sequence[Row]) -> str:
    seconds, steps, shares = _seconds(rows), _steps(rows), _shares(rows)
    whole, largest = sum(seconds.values()), max(shares, key=lambda name: shares[name])
    text = (
        f"In the main process {steps:,} optimizer steps took {formats.duration(whole)}, "
        f"{formats.milliseconds(whole / steps)} ms each; the largest phase is “{largest}” with "
        f"{formats.percent(shares[largest], 0)}. Validation and checkpoints between epochs are not counted."
    )
    if NAMES[REST] in seconds:
        text += " “Other” is logging, checkpoints within an epoch and the training loop itself."
    taken = epochs[-1].get("step", steps) if epochs else steps
    if taken > steps:
        text += f" Of the run's {taken:,} steps {steps:,} were timed: those of an epoch before it was resumed were not."
    return text


def _steps(rows: Sequence[Row]) -> int:
    return sum(row["steps"] for row in rows)


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    """Over all epochs, by phase; phases that took no time are left out."""
    phases = [key for key in rows[0] if key not in ("epoch", "steps")]
    seconds = {NAMES.get(phase, phase): sum(row[phase] for row in rows) for phase in phases}
    return {name: spent for name, spent in seconds.items() if spent > 0}


def _shares(rows: Sequence[Row]) -> dict[str, float]:
    """Percent of all phases together, by phase."""
    seconds = _seconds(rows)
    return {name: 100 * spent / sum(seconds.values()) for name, spent in seconds.items()}
