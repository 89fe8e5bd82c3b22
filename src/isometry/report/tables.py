"""Tables for the terminal (rich), the README (markdown) and the page: the same figures, written alike."""

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from isometry.report import formats
from isometry.report.records.data import Row

PARTS = {"test": "test", "val": "validation"}


class Grid(NamedTuple):
    """A table as text: the first column holds names, all others figures."""

    header: list[str]
    rows: list[list[str]]


def models_grid(rows: Sequence[Row]) -> Grid:
    """The table of models, without the columns that no row fills.

    Keys read: "model", "top1", "top1_part", "params", "macs", "images_per_s", "seconds"; "role" is not shown,
    and any other key is a column under its own name.
    """
    parts = {row.get("top1_part") for row in rows if formats.is_number(row.get("top1"))}
    one_part = parts.pop() if len(parts) == 1 else None
    top1 = "top-1" + (f" on {PARTS.get(one_part, one_part)}" if one_part else "")
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("top1", top1, formats.percent),
        ("params", "params", formats.params),
        ("macs", "MACs", formats.macs),
        ("images_per_s", "images/s", formats.rate),
        ("seconds", "training", formats.duration),
    ]
    known = {key for key, _, _ in columns} | {"model", "role", "top1_part"}
    others = dict.fromkeys(key for row in rows for key in row if key not in known)
    columns += [(key, key, _any_figure) for key in others]
    columns = [column for column in columns if any(row.get(column[0]) is not None for row in rows)]
    cells = []
    for row in rows:
        figures = [write(row.get(key)) for key, _, write in columns]
        if one_part is None and formats.is_number(row.get("top1")) and row.get("top1_part"):
            figures[0] += f" ({PARTS.get(row['top1_part'], row['top1_part'])})"
        cells.append([str(row["model"]), *figures])
    return Grid(["model", *(header for _, header, _ in columns)], cells)


def comparison_grid(rows: Sequence[Row]) -> Grid:
    """The table of `isometry compare` from rows of `comparison_row`: mean ± half of the 95 % interval, the
    paired gain over the baseline (the row whose gains are None) likewise, and each seed's gain. Where the rows have
    `comparison_times` too, the mean training time and the paired speed-up over the baseline."""
    without = [str(row["name"]) for row in rows if row.get("gains") is None]
    over = without[0] if len(without) == 1 else "the baseline"
    timed = any("seconds" in row for row in rows)
    header = ["variant", "seeds", "top-1, %", f"gain over {over}"]
    header += ["training", f"speed-up over {over}"] if timed else []
    cells = [
        [*_accuracy_cells(row), *(_time_cells(row) if timed else []), _gain_of_each_seed(row)] for row in rows
    ]
    return Grid([*header, "gain of each seed"], cells)


def _accuracy_cells(row: Row) -> list[str]:
    gain = formats.signed(row.get("gain_mean")) + formats.half_width(
        row.get("gain_low"), row.get("gain_high")
    )
    top1 = formats.percent(row["mean"]).removesuffix(" %") + formats.half_width(row["low"], row["high"])
    return [str(row["name"]), str(len(row["values"])), top1, gain]


def _time_cells(row: Row) -> list[str]:
    spread = formats.half_width(row.get("speed_up_low"), row.get("speed_up_high"), 2)
    return [formats.duration(row.get("seconds_mean")), formats.times(row.get("speed_up_mean")) + spread]


def _gain_of_each_seed(row: Row) -> str:
    return "  ".join(formats.signed(gain) for gain in row.get("gains") or []) or formats.MISSING


def models_table(rows: Sequence[Row]) -> Table:
    """`models_grid` for the terminal."""
    return rich_table(models_grid(rows))


def comparison_table(rows: Sequence[Row]) -> Table:
    """`comparison_grid` for the terminal, which has no room for its last column, each seed's gain."""
    header, cells = comparison_grid(rows)
    return rich_table(Grid(header[:-1], [line[:-1] for line in cells]))


def models_markdown(rows: Sequence[Row]) -> str:
    """`models_grid` as a markdown table."""
    return _markdown(models_grid(rows))


def comparison_markdown(rows: Sequence[Row]) -> str:
    """`comparison_grid` as a markdown table."""
    return _markdown(comparison_grid(rows))


def rich_table(grid: Grid) -> Table:
    """Any grid for the terminal."""
    table = Table(header_style="bold")
    table.add_column(Text(grid.header[0]))
    for index, header in enumerate(grid.header[1:], 1):
        # Where it gets narrow, names and headers take a second line; a figure stays whole.
        widest = max((len(row[index]) for row in grid.rows), default=0)
        table.add_column(Text(header), justify="right", min_width=widest)
    for row in grid.rows:
        # Text, so that a name such as "[red]" is shown and not obeyed.
        table.add_row(*(Text(cell) for cell in row))
    return table


def _markdown(grid: Grid) -> str:
    lines = [grid.header, ["---", *["---:"] * (len(grid.header) - 1)], *grid.rows]
    return "".join(f"| {' | '.join(_markdown_cell(cell) for cell in line)} |\n" for line in lines)


def _markdown_cell(text: str) -> str:
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())


def _any_figure(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else formats.number(value)  # type: ignore[arg-type]
