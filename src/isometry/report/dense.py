"""The section on dense features: what `isometry evaluate --dense` measured, as a table and as bars."""

from collections.abc import Sequence
from typing import Any

from isometry.report import formats
from isometry.report.drawing.dense import dense_chart
from isometry.report.records.data import PARTS, Row
from isometry.report.tables import Grid


def dense_section(dense: Row) -> dict[str, Any] | None:
    """What the template shows of the "dense" of ``evaluation.json``; None where nothing was measured."""
    rows = dense.get("figures")
    if not rows:
        return None
    names = networks(rows)
    return {
        "grid": dense_grid(rows),
        "chart": dense_chart(rows, names),
        "legend": [(f"series-{place % 8 + 1}", name) for place, name in enumerate(names)],
        "data": on_data(dense),
        "over": "over images",
        "teacher": dense.get("teacher", ""),
        "notes": dense.get("notes", []),
    }


def on_data(dense: Row) -> str:
    """The images that were looked at; empty in files of older versions."""
    part = dense.get("part")
    return f" on the {PARTS.get(part, part)} part of {dense['data']}" if part and dense.get("data") else ""


def networks(rows: Sequence[Row]) -> list[str]:
    """The networks that have figures, in their order."""
    return list(dict.fromkeys(row["of"] for row in rows))


def dense_grid(rows: Sequence[Row]) -> Grid:
    """A line for each figure: every network's value with its 95 % interval, and chance."""
    names = networks(rows)
    by_figure: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_figure.setdefault(row["figure"], {})[row["of"]] = row
    lines = []
    for figure, found in by_figure.items():
        first = next(iter(found.values()))
        title = f"{figure} (k = {first['k']})" if "k" in first else figure
        lines.append([title, *(_cell(found.get(name)) for name in names), _chance(first)])
    return Grid(["%, with 95 % interval", *names, "chance"], lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return formats.MISSING
    return f"{formats.fixed(row['value'])} ({formats.fixed(row['low'])}–{formats.fixed(row['high'])})"


def _chance(row: Row) -> str:
    return formats.fixed(row.get("chance"))
