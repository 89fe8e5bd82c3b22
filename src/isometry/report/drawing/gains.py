"""The picture of `isometry compare`: every variant's seeds, mean and interval, and its paired gains."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isometry.errors import printable
from isometry.report import formats
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row

GAIN, LOSS, UNDECIDED = LIGHT.series[0], LIGHT.series[1], LIGHT.series[7]
WIDTH, ROW_HEIGHT = 760, 32
TOP, BOTTOM = 68, 45
"""CSS pixels above the first rows, and below any."""
BETWEEN = 16
"""CSS pixels between what belongs to two panels."""
VALUES, GAINS = (200, 340), (512, 92)
"""CSS pixels free to the left and to the right of each pair of axes."""
LONGEST_NAME = 26
KEY = "dot: one seed · line and bar: mean and its 95 % interval · grey: the gain's interval contains 0"


class Panel(NamedTuple):
    """Rows of `comparison_row` below others, and what their values are."""

    rows: Sequence[Row]
    label: str


def comparison_picture(
    path: Path, rows: Sequence[Row], title: str, baseline: str, more: Sequence[Panel] = ()
) -> None:
    """Draws rows of `comparison_row` to `path`: PNG, or SVG if the name ends so.

    Left: each seed's top-1 as a dot, the mean as a line, its 95 % interval as a bar. Right: each seed's gain over
    `baseline`, their mean and its interval. A variant whose gain's interval contains 0 is grey. Each of `more` is drawn
    below in the same way.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    with canvas.plain_style(title):
        first = [Panel(rows, "top-1 accuracy, %")] if rows else []
        canvas.save_figure(path, _figure([*first, *more], title, baseline), title)


def _figure(panels: Sequence[Panel], title: str, baseline: str) -> Figure:
    heights = [ROW_HEIGHT * len(panel.rows) + BOTTOM for panel in panels]
    height = TOP + sum(heights) + BETWEEN * (len(panels) - 1)
    figure = canvas.new_figure((WIDTH, height))
    figure.text(22 / WIDTH, 1 - 23 / height, title, fontsize=14, color=LIGHT.text, va="center")
    figure.text(22 / WIDTH, 1 - 44 / height, KEY, fontsize=9.5, color=LIGHT.muted, va="center")
    top = TOP
    for panel, taken in zip(panels, heights, strict=True):
        _draw_panel(figure, panel, baseline, (top, height - top - taken + BOTTOM))
        top += taken + BETWEEN
    return figure


def _draw_panel(figure: Figure, panel: Panel, baseline: str, ends: tuple[int, int]) -> None:
    """Draws a panel that has so many CSS pixels above and below its axes."""
    rows = panel.rows
    values = _axes(figure, VALUES, ends, len(rows), _shortened(printable(panel.label)))
    gains = _axes(figure, GAINS, ends, len(rows), f"gain over {_shortened(printable(baseline))}, points")
    gains.axvline(0, color=LIGHT.text, lw=1, zorder=1)
    for index, row in enumerate(rows):
        is_baseline = row["name"] == baseline
        colour = LIGHT.text if is_baseline else _colour(row)
        weight = "bold" if is_baseline else "normal"
        name, place = _shortened(printable(row["name"])), ("figure points", "data")
        canvas.write(values, name, (22, index), place, colour=LIGHT.text, va="center", fontweight=weight)
        _draw(values, index, row, ("values", ""), colour, formats.fixed)
        if row.get("gains"):
            _draw(gains, index, row, ("gains", "gain_"), colour, formats.signed)
        else:
            _write_beside(gains, index, "baseline" if is_baseline else formats.MISSING)


def _colour(row: Row) -> str:
    low, high = row.get("gain_low"), row.get("gain_high")
    if formats.is_number(low) and low > 0:
        return GAIN
    return LOSS if formats.is_number(high) and high < 0 else UNDECIDED


def _axes(figure: Figure, sides: tuple[int, int], ends: tuple[int, int], rows: int, label: str) -> Axes:
    axes = canvas.add_axes(figure, *sides, *ends, grid="x")
    axes.spines["bottom"].set_visible(False)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel(label, color=LIGHT.text, labelpad=6)
    canvas.number_ticks(axes.xaxis, 7)
    return axes


def _draw(
    axes: Axes, index: int, row: Row, keys: tuple[str, str], colour: str, text: Callable[[float], str]
) -> None:
    """Draws the values of ``keys[0]``, and their mean and interval, whose keys begin with ``keys[1]``."""
    mean, low, high = (row[f"{keys[1]}{end}"] for end in ("mean", "low", "high"))
    finite = [value for value in row[keys[0]] if formats.is_number(value)]
    if formats.is_number(low) and formats.is_number(high):
        axes.plot([low, high], [index, index], color=colour, lw=7, alpha=0.25, solid_capstyle="butt")
    axes.plot(
        finite, [index] * len(finite), "o", color=colour, ms=5, alpha=0.75, mec=LIGHT.background, mew=0.6
    )
    if formats.is_number(mean):
        axes.plot([mean, mean], [index - 0.27, index + 0.27], color=colour, lw=2.2)
    _write_beside(axes, index, text(mean) + formats.margin(low, high))


def _write_beside(axes: Axes, index: int, text: str) -> None:
    canvas.write(axes, text, (1, index), ("axes fraction", "data"), (8, 0), LIGHT.text, va="center")


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
