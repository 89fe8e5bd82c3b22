"""Tables as text, and how the terminal (rich) and Markdown show them; the page has a template for them.

The terminal, Markdown files, CSV files and the report share the lists of columns: a new column is one more entry in
`model_columns` or `comparison_columns`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from isometry.errors import markdown
from isometry.files import format_bytes
from isometry.report import formats
from isometry.report.records.data import PARTS, Row, common_part, on_part
from isometry.report.terminal import plain


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


TASK_FIGURES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "miou": "mIoU",
}
"""Scores of boxes and masks, percent, with their headings."""
INTERVALS = {f"{key}_{end}" for key in TASK_FIGURES for end in ("low", "high")}
"""Ends of the scores' 95 % intervals over pictures, where they have one."""
HIDDEN = {"role", "top1_part", "task"} | INTERVALS
"""Keys of a row of models that are no columns."""


def model_columns(part: str | None = None) -> list[Column]:
    """The table of models, whose rows are those of `ReportData.models`, from left to right. ``part`` is the part of the
    data that all accuracies are of; None where they differ in it, and each cell names its own."""

    def top1(row: Row) -> str:
        named = not part and formats.is_number(row.get("top1")) and row.get("top1_part")
        return formats.percent(row.get("top1")) + (f" ({PARTS.get(named, named)})" if named else "")

    return [
        figure("model", "model", str),
        Column("top1", f"top-1{on_part(part)}", top1),
        figure("top1_by_class", "mean of classes", formats.percent),
        *(figure(key, heading, formats.percent) for key, heading in TASK_FIGURES.items()),
        figure("part", "part", lambda part: PARTS.get(part, str(part))),
        figure("params", "params", formats.params),
        figure("macs", "MACs", formats.macs),
        figure("images_per_s", "images/s", formats.rate),
        figure("seconds", "training", formats.duration),
    ]


def comparison_columns(baseline: str, score: str = "top-1", untrained: str = "") -> list[Column]:
    """The table of `isometry compare`, whose rows are those of `comparison_row`, from left to right; gains and
    speed-ups are over ``baseline``, others over ``untrained``, and ``score`` is the name of what was measured."""
    return [
        figure("name", "variant", str),
        Column("values", "seeds", lambda row: str(len(row["values"]))),
        Column("values", f"{score}, %", _mean("", formats.fixed)),
        figure("by_class_mean", "mean of classes, %", formats.fixed),
        Column("values", f"gain over {baseline}", _mean("gain_", formats.signed)),
        Column("untrained_gains", f"gain over {untrained}", _mean("untrained_gain_", formats.signed)),
        figure("ap50", f"{TASK_FIGURES['ap50']}, %", formats.fixed),
        Column("seconds", "training", lambda row: formats.duration(row.get("seconds_mean"))),
        Column("seconds", f"speed-up over {baseline}", _mean("speed_up_", formats.times, 2)),
        Column("values", "gain of each seed", lambda row: _joined(row.get("gains") or [])),
    ]


def measured_figures(network: Any) -> dict[str, float]:
    """The figures of the columns that have a ``measure``, by key."""
    return {column.key: column.measure(network) for column in model_columns() if column.measure}


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
    known = {column.key for column in columns} | HIDDEN
    others = dict.fromkeys(key for row in rows for key in row if key not in known)
    return grid([*columns, *(figure(key, key, _any_value) for key in others)], rows)


NARROW = {"model", "top1", "ap", "ap50", "miou", "params", "macs", "seconds"}
"""Columns of the table of models that fit a terminal of 80 columns, by key."""


def models_shown(rows: Sequence[Row], width: int) -> tuple[Table, list[str]]:
    """`models_grid` for a terminal so wide, and lines with the figures that it has no room for, one a row."""
    whole = models_grid(rows)
    if _least_width(whole) <= width:
        return rich_table(whole), []
    columns = model_columns(common_part(rows))
    first = grid([column for column in columns if column.key in NARROW], rows)
    rest = [number for number, heading in enumerate(whole.header) if heading not in first.header]
    lines = [
        f"{line[0]}: {', '.join(f'{whole.header[number]} {line[number]}' for number in rest)}"
        for line in whole.rows
    ]
    return rich_table(first), lines if rest else []


def _least_width(table: Grid) -> int:
    """How wide a table is whose names and figures stay whole, and whose headings are wrapped."""
    words = [max(map(len, heading.split()), default=0) for heading in table.header]
    cells = [max((len(row[number]) for row in table.rows), default=0) for number in range(len(words))]
    return sum(map(max, words, cells)) + 3 * len(words) + 1


def comparison_grid(rows: Sequence[Row], score: str = "top-1") -> Grid:
    """The table of `isometry compare` from rows of `comparison_row` (the baseline's gains are None), which may have
    `comparison_times` and `gains_over_untrained` too; ``score`` is the name of what was measured."""
    baseline, untrained = _without(rows, "gains"), _without(rows, "untrained_gains")
    return grid(comparison_columns(baseline or "the baseline", score, untrained or "untrained"), rows)


def comparison_table(rows: Sequence[Row], score: str = "top-1") -> Table:
    """`comparison_grid` for the terminal, without the gain of each seed, for which there is no room."""
    header, cells = comparison_grid(rows, score)
    return rich_table(Grid(header[:-1], [line[:-1] for line in cells]))


SHORT = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "correspondence": "matched patches",
    "kept neighbours, images": "kept, images",
    "kept neighbours, patches": "kept, patches",
    "kept neighbours, all patches": "kept, all patches",
}
"""Names of figures where there is little room."""


def figures_grid(rows: Mapping[str, Sequence[Row]], short: bool = False) -> Grid:
    """A compact table of several figures (percent): a line for each name and a column for each figure, whose rows of
    `comparison_row` are given; means and half the widths of their intervals, or in ``short`` means alone."""
    cells: dict[str, dict[str, str]] = {}
    for name, found in rows.items():
        for row in found:
            margin = "" if short else formats.margin(row["low"], row["high"])
            cells.setdefault(str(row["name"]), {})[name] = formats.fixed(row["mean"]) + margin
    lines = [[name, *(of.get(figure, formats.MISSING) for figure in rows)] for name, of in cells.items()]
    return Grid(["variant", *(SHORT.get(name, name) if short else f"{name}, %" for name in rows)], lines)


def correlations_grid(rows: Mapping[str, Row]) -> Grid:
    """A table of rank correlations with the scores at tasks: over n students, and over the means of n variants."""
    header = ["score", "ρ, students", "n", "ρ, variants", "n"]
    lines = [
        [
            f"{name}: {row['score']}",
            *(
                cell
                for key in ("students", "variants")
                for cell in (formats.correlation(row[key]), str(row[key]["n"]))
            ),
        ]
        for name, row in rows.items()
    ]
    return Grid(header, lines)


def rich_table(table: Grid) -> Table:
    """Any table for the terminal."""
    shown = Table(header_style="bold")
    # The end of a path tells it from others.
    shown.add_column(plain(table.header[0]), overflow="fold")
    rows = [[plain(cell) for cell in row] for row in table.rows]
    for index, heading in enumerate(table.header[1:], 1):
        # In a narrow terminal names and headings are wrapped; a figure is not.
        widest = max((len(row[index]) for row in rows), default=0)
        shown.add_column(plain(heading), justify="right", min_width=widest)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown_table(table: Grid) -> str:
    """Any table in Markdown."""
    lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
    return "".join(f"| {' | '.join(markdown(cell) for cell in line)} |\n" for line in lines)


def labelled_forms(networks: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Every form of every network under a name that tells it from the others: the network's, where it has one form;
    the form's, where there is one network."""
    for network in networks:
        for form in network["forms"]:
            if len(network["forms"]) == 1:
                yield str(network["name"]), form
            else:
                yield form["form"] if len(networks) == 1 else f"{network['name']}, {form['form']}", form


def networks_grid(networks: Sequence[Row]) -> Grid:
    """Accuracy, parameters and multiply-accumulates of each form of each network."""
    shown = ("top1", "top1_by_class", "top1_part", "params", "macs")
    return models_grid(
        [
            {"model": label, **{key: form[key] for key in shown if key in form}}
            for label, form in labelled_forms(networks)
        ]
    )


def runtimes_grid(networks: Sequence[Row]) -> Grid:
    """A row for each form of a network and runtime: latency at batch 1 (median, quartiles), and at the largest batch
    images a second and peak memory; dashes where a runtime could not run it."""
    forms = list(labelled_forms(networks))
    sizes = [row["speeds"][-1]["batch_size"] for _, form in forms for row in form["runtimes"]]
    header = ["", "runtime", "batch 1, ms", "quartiles", f"batch {max(sizes)}, images/s", "memory"]
    cells = []
    for label, form in forms:
        lines = [[row["runtime"], *_figures(row["speeds"])] for row in form["runtimes"]]
        lines += [[runtime, *[formats.MISSING] * 4] for runtime in form.get("refused", {})]
        cells += [[label if index == 0 else "", *line] for index, line in enumerate(lines)]
    return Grid(header, cells)


def _mean(prefix: str, write: Callable[[Any], str], decimals: int = 1) -> Callable[[Row], str]:
    """The cell of a mean and half the width of its interval."""

    def text(row: Row) -> str:
        mean, low, high = (row.get(f"{prefix}{key}") for key in ("mean", "low", "high"))
        return write(mean) + formats.margin(low, high, decimals)

    return text


def _without(rows: Sequence[Row], key: str) -> str:
    """The name of the one row that lacks a value."""
    names = [str(row["name"]) for row in rows if row.get(key) is None]
    return names[0] if len(names) == 1 else ""


def _joined(gains: Sequence[float]) -> str:
    return "  ".join(map(formats.signed, gains)) or formats.MISSING


def _any_value(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else formats.number(value)  # type: ignore[arg-type]


def _figures(speeds: Sequence[Row]) -> list[str]:
    first, last = speeds[0], speeds[-1]
    peak = last.get("peak_bytes")
    return [
        formats.number(first["ms"]),
        f"{formats.number(first['ms_low'])}–{formats.number(first['ms_high'])}",
        formats.rate(last["images_per_s"]),
        format_bytes(peak) if formats.is_number(peak) else formats.MISSING,
    ]
