"""The columns of the results tables, which the terminal, Markdown files, CSV files and the report share.

A new column is one more entry in a list here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from isometry.report import formats
from isometry.report.records.data import PARTS, Row, on_part


class Column(NamedTuple):
    """A column of a table; it is left out where no row has its ``key``."""

    key: str
    """Of the figure in a row of ``summary.json``."""
    heading: str
    text: Callable[[Row], str]
    """The cell of a row."""
    measure: Callable[[Any], float] | None = None
    """Computes the figure of a trained network, and of its teacher, at the end of a run; None for a figure that the run
    measures itself."""


def figure(
    key: str, heading: str, write: Callable[[Any], str], measure: Callable[[Any], float] | None = None
) -> Column:
    """A column that shows the value of ``key`` as ``write`` formats it, and a dash in rows without it."""

    def text(row: Row) -> str:
        return formats.MISSING if row.get(key) is None else write(row[key])

    return Column(key, heading, text, measure)


def model_columns(part: str | None = None) -> list[Column]:
    """The table of models, whose rows are those of `ReportData.models`, from left to right. ``part`` is the part of the
    data that all accuracies are of; None where they differ in it, and each cell names its own."""

    def top1(row: Row) -> str:
        named = not part and formats.is_number(row.get("top1")) and row.get("top1_part")
        return formats.percent(row.get("top1")) + (f" ({PARTS.get(named, named)})" if named else "")

    return [
        figure("model", "model", str),
        Column("top1", f"top-1{on_part(part)}", top1),
        figure("params", "params", formats.params),
        figure("macs", "MACs", formats.macs),
        figure("images_per_s", "images/s", formats.rate),
        figure("seconds", "training", formats.duration),
    ]


def comparison_columns(baseline: str) -> list[Column]:
    """The table of `isometry compare`, whose rows are those of `comparison_row`, from left to right; gains and
    speed-ups are over ``baseline``."""
    return [
        figure("name", "variant", str),
        Column("values", "seeds", lambda row: str(len(row["values"]))),
        Column("values", "top-1, %", _mean("", formats.fixed)),
        Column("values", f"gain over {baseline}", _mean("gain_", formats.signed)),
        Column("seconds", "training", lambda row: formats.duration(row.get("seconds_mean"))),
        Column("seconds", f"speed-up over {baseline}", _mean("speed_up_", formats.times, 2)),
        Column("values", "gain of each seed", lambda row: _joined(row.get("gains") or [])),
    ]


def measured_figures(network: Any) -> dict[str, float]:
    """The figures of the columns that have a ``measure``, by key."""
    return {column.key: column.measure(network) for column in model_columns() if column.measure}


def _mean(prefix: str, write: Callable[[Any], str], decimals: int = 1) -> Callable[[Row], str]:
    """The cell of a mean and half the width of its interval."""

    def text(row: Row) -> str:
        mean, low, high = (row.get(f"{prefix}{key}") for key in ("mean", "low", "high"))
        return write(mean) + formats.margin(low, high, decimals)

    return text


def _joined(gains: Sequence[float]) -> str:
    return "  ".join(map(formats.signed, gains)) or formats.MISSING
