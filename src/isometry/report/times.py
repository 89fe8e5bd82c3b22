"""The section on the time of training, by the phases of a step: as text, as a table and as bars."""

import math
from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.drawing.charts import Bar
from isometry.report.records.data import REST, Row
from isometry.report.tables import Grid

NAMES = {"student": "student forward", "terms": "losses", REST: "other"}
"""Of phases whose key is not clear by itself."""

BOTTLENECK = 10
"""Percent of the time of training from which on waiting for images is worth a sentence."""


def times_section(
    rows: Sequence[Row], epochs: Sequence[Row], waiting: str = "", run_seconds: Any = None
) -> dict[str, Any] | None:
    """The section by its names in the template; None where no step was timed.

    ``waiting`` is what :func:`waiting_sentence` returned, ``run_seconds`` the time of all epochs. Keys
    read: those of `ReportData.times`, and "step" of `epochs`, the number of optimizer steps taken so far.
    """
    if not _was_timed(rows):
        return None
    shares = _shares(rows)
    longest = max(shares.values())
    bars = [
        Bar(name, share / longest, formats.percent(share, 0), "muted" if name == NAMES[REST] else "series-1")
        for name, share in shares.items()
    ]
    text = " ".join(part for part in (_text(rows, epochs, run_seconds), waiting) if part)
    return {"text": text, "grid": times_grid(rows), "bars": bars}


def times_sentence(rows: Sequence[Row]) -> str:
    """Each phase's share, the largest first; empty where no step was timed."""
    shares = sorted(_shares(rows).items(), key=lambda item: -item[1]) if _was_timed(rows) else []
    return ", ".join(f"{name} {formats.percent(share, 0)}" for name, share in shares)


def waiting_sentence(rows: Sequence[Row], workers: int, cores: int, decodes_in_full: bool = False) -> str:
    """How long training waited for images, and how many workers would do; empty where it hardly waited.

    ``workers`` loaded the data, on ``cores`` cores, of which training takes one. With W workers that are always busy, T
    seconds of training of which D were spent waiting need W·T/(T−D) workers; without workers, the training process
    itself loads for D seconds. The first epoch, in which the workers start, is left out where there is another.
    """
    later = _was_timed(rows[1:])
    timed = rows[1:] if later else rows
    if not _was_timed(timed):
        return ""
    whole, waited = sum(_seconds(timed).values()), _seconds(timed).get("data", 0.0)
    if not 0 < whole < math.inf or not BOTTLENECK * whole <= 100 * waited <= 100 * whole:
        return ""
    share, after = formats.percent(100 * waited / whole, 0), "After the first epoch training" * later
    text = f"{after or 'Training'} waited for images {share} of the time: loading them is the bottleneck."
    busy = whole - waited
    free = max(1, cores - 1)
    needed = math.ceil((workers * whole if workers else waited) / busy) if busy > 0 else free + 1
    if needed <= free:
        some = "1 worker" if needed == 1 else f"{needed} workers"
        text += f" About {some} would keep up (--workers {needed}; it was {workers})"
        return text + (", and --decode scaled needs fewer." if decodes_in_full else ".")
    helps = [f"--workers {free} (it was {workers})"] * (workers < free) + [
        "--decode scaled"
    ] * decodes_in_full
    helps += ["smaller images", "less augmentation"]
    has = "1 core" if cores == 1 else f"{cores} cores"
    return (
        f"{text} Keeping up takes more workers than the {has} that each process has here, one of them for training. "
        f"What helps: {', '.join(helps[:-1])} or {helps[-1]}."
    )


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


def _text(rows: Sequence[Row], epochs: Sequence[Row], run_seconds: Any) -> str:
    seconds, steps, shares = _seconds(rows), _steps(rows), _shares(rows)
    whole, largest = sum(seconds.values()), max(shares, key=lambda name: shares[name])
    text = (
        f"In the main process {steps:,} optimizer steps took {formats.duration(whole)}, "
        f"{formats.milliseconds(whole / steps)} ms each; the largest phase is “{largest}” with "
        f"{formats.percent(shares[largest], 0)}. Validation and checkpoints between epochs are not counted"
    )
    taken = epochs[-1].get("step", steps) if epochs else steps
    if formats.is_number(run_seconds) and run_seconds >= whole and taken <= steps:
        text += f": the run took {formats.duration(run_seconds)}, so they took"
        text += f" {formats.percent(100 * (1 - whole / run_seconds), 0)} of it"
    text += "."
    if NAMES[REST] in seconds:
        text += (
            " “Other” is normalisation and mixing of images, logging, checkpoints within an epoch and the training loop"
            " itself."
        )
    if taken > steps:
        text += f" Of the run's {taken:,} steps {steps:,} were timed: those of an epoch before it was resumed were not."
    return text


def _was_timed(rows: Sequence[Row]) -> bool:
    return _steps(rows) > 0 and bool(_seconds(rows))


def _steps(rows: Sequence[Row]) -> int:
    return sum(row["steps"] for row in rows)


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    """Over all epochs, by phase; phases that took no time are left out."""
    phases = [key for key in (rows[0] if rows else ()) if key not in ("epoch", "steps")]
    seconds = {NAMES.get(phase, phase): sum(row.get(phase, 0.0) for row in rows) for phase in phases}
    return {name: spent for name, spent in seconds.items() if spent > 0}


def _shares(rows: Sequence[Row]) -> dict[str, float]:
    """Percent of all phases together, by phase."""
    seconds = _seconds(rows)
    return {name: 100 * spent / sum(seconds.values()) for name, spent in seconds.items()}
