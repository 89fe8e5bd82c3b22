"""Tables as text, and how the terminal (rich) and Markdown show them; the page has a template for them."""

import html
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from isometry.report import formats
from isometry.report.columns import Column, comparison_columns, figure, model_columns
from isometry.report.records.data import Row, common_part


class Grid(NamedTuple):
    """A table as text: the first column holds names, all others figures."""

    header: list[str]
    rows: list[list[str]]


def grid(columns: Sequence[Column], rows: Sequence[Row]) -> Grid:
    """The columns that any row fills."""
    filled = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    return Grid(
        [column.heading for column in filled], [[column.text(row) for column in filled] for row in rows]
    )


def models_grid(rows: Sequence[Row]) -> Grid:
    """The table of models; a key that is not among `model_columns` is a column under its own name."""
    columns = model_columns(common_part(rows))
    known = {column.key for column in columns} | {"role", "top1_part"}
    others = dict.fromkeys(key for row in rows for key in row if key not in known)
    return grid([*columns, *(figure(key, key, _any_value) for key in others)], rows)


def comparison_grid(rows: Sequence[Row]) -> Grid:
    """The table of `isometry compare` from rows of `comparison_row` (the baseline's gains are None), which may have
    `comparison_times` too."""
    without_gains = [str(row["name"]) for row in rows if row.get("gains") is None]
    return grid(comparison_columns(without_gains[0] if len(without_gains) == 1 else "the baseline"), rows)


def comparison_table(rows: Sequence[Row]) -> Table:
    """`comparison_grid` for the terminal, without the gain of each seed, for which there is no room."""
    header, cells = comparison_grid(rows)
    return rich_table(Grid(header[:-1], [line[:-1] for line in cells]))


def rich_table(table: Grid) -> Table:
    """Any table for the terminal."""
    shown = Table(header_style="bold")
    # The end of a path tells it from others.
    shown.add_column(Text(table.header[0]), overflow="fold")
    for index, heading in enumerate(table.header[1:], 1):
        # In a narrow terminal names and headings are wrapped; a figure is not.
        widest = max((len(row[index]) for row in table.rows), default=0)
        shown.add_column(Text(heading), justify="right", min_width=widest)
    for row in table.rows:
        # As `Text`, so that a name such as "[red]" is not markup.
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def markdown_table(table: Grid) -> str:
    """Any table in Markdown."""
    lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
    return "".join(f"| {' | '.join(_markdown_cell(cell) for cell in line)} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())


def _any_value(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else formats.number(value)  # type: ignore[arg-type]
