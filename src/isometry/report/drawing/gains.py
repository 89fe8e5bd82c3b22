"""The picture of `isometry compare`: every variant's seeds, mean and interval, and its paired gains."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from isometry.errors import UserError
from isometry.files import write_whole
from isometry.report import formats
from isometry.report.drawing.charts import plain_style
from isometry.report.records.data import Row

INK, MUTED, RULE, PAPER = "#1f2328", "#6b7078", "#e3e5e8", "#ffffff"
GAIN, LOSS, UNDECIDED = "#0f6e84", "#b4532a", "#7d838c"
ROW_HEIGHT, WIDTH = 0.44, 9.6
"""Inches."""

Spread = tuple[float, float | None, float | None]
"""Mean, and low and high of its interval."""


def comparison_picture(path: Path, rows: Sequence[Row], title: str, baseline: str) -> None:
    """Draw rows of `isometry.report.comparison_row` to `path`: PNG, or SVG if the name ends so.

    Left: each seed's top-1 as a dot, the mean as a stroke, its 95 % interval as a bar. Right: each seed's
    gain over `baseline`, their mean and its interval, with zero marked. A variant whose gain's interval holds
    zero is grey.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise UserError(f"cannot draw to {path}: give a name that ends in .png or .svg")
    undated = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    with plain_style(title):
        _figure(rows, title, baseline).savefig(buffer, format=kind, dpi=200, metadata=undated)
    write_whole(path, buffer.getvalue())


def _figure(rows: Sequence[Row], title: str, baseline: str) -> Figure:
    # Inches: a title band, one band a row, an axis band.
    top, bottom = 0.95, 0.62
    height = top + bottom + ROW_HEIGHT * len(rows)
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
    figure.text(0.3 / WIDTH, 1 - 0.32 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
    told = "one dot a seed · stroke and bar: mean and its 95 % interval · grey: no gain or loss can be told"
    figure.text(0.3 / WIDTH, 1 - 0.6 / height, told, fontsize=9.5, color=MUTED, va="center")
    share, floor = 1 - (top + bottom) / height, bottom / height
    values = _axes(figure, (2.3 / WIDTH, floor, 2.9 / WIDTH, share), len(rows), "top-1 accuracy, %")
    over = f"gain over {_shortened(baseline)}, points"
    gains = _axes(figure, (6.1 / WIDTH, floor, 2.3 / WIDTH, share), len(rows), over)
    gains.axvline(0, color=INK, lw=1, zorder=1)
    for place, row in enumerate(rows):
        named = row["name"] == baseline
        _name(values, place, row["name"], bold=named)
        colour = INK if named else _colour(row)
        spread = (row["mean"], row["low"], row["high"])
        _draw(values, place, row["values"], spread, colour)
        _write(values, place, _figures(*spread, formats.percent))
        if row.get("gains"):
            spread = (row["gain_mean"], row["gain_low"], row["gain_high"])
            _draw(gains, place, row["gains"], spread, colour)
            _write(gains, place, _figures(*spread, formats.signed))
        else:
            _write(gains, place, "baseline" if named else formats.MISSING)
    return figure


def _colour(row: Row) -> str:
    low, high = row.get("gain_low"), row.get("gain_high")
    if formats.is_number(low) and low > 0:
        return GAIN
    return LOSS if formats.is_number(high) and high < 0 else UNDECIDED


def _axes(figure: Figure, box: tuple[float, float, float, float], rows: int, label: str) -> Axes:
    axes = figure.add_axes(box, facecolor="none")
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(axis="x", color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED, pad=4)
    axes.set_xlabel(label, fontsize=9.5, color=INK, labelpad=6)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", formats.MINUS)))
    return axes


def _draw(axes: Axes, place: int, values: Sequence[float], spread: Spread, colour: str) -> None:
    mean, low, high = spread
    finite = [value for value in values if formats.is_number(value)]
    if formats.is_number(low) and formats.is_number(high):
        axes.plot([low, high], [place, place], color=colour, lw=7, alpha=0.25, solid_capstyle="butt")
    axes.plot(finite, [place] * len(finite), "o", color=colour, ms=5, alpha=0.75, mec=PAPER, mew=0.6)
    if formats.is_number(mean):
        axes.plot([mean, mean], [place - 0.27, place + 0.27], color=colour, lw=2.2)


def _name(axes: Axes, place: int, name: str, bold: bool) -> None:
    weight = "bold" if bold else "normal"
    axes.annotate(
        _shortened(name), (0.3 / WIDTH, place), xycoords=("figure fraction", "data"),
        va="center", fontsize=10.5, color=INK, fontweight=weight,
    )  # fmt: skip


def _write(axes: Axes, place: int, text: str) -> None:
    axes.annotate(
        text, (1, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=9.5, color=INK,
    )  # fmt: skip


def _figures(mean: float, low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    return write(mean).removesuffix(" %") + formats.half_width(low, high)


def _shortened(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
