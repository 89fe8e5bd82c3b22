"""The picture of `isometry compare` with tasks: scores against the share of the teacher's neighbours that is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isometry.errors import printable
from isometry.report import formats
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row

COLUMNS, PANEL, MARGIN = 2, (400, 260), 22
"""Most panels side by side; width and height of their axes, and the space around the figure, in CSS pixels."""
LEFT, ABOVE, BELOW, TOP = 48, 54, 50, 64
"""CSS pixels beside, above and below the axes of a panel, and above the first panel without legend."""
LEGEND_ROW, LEGEND_COLUMNS, LONGEST_NAME = 18, 2, 24
"""Height of a line of the legend in CSS pixels, its columns for each column of panels, characters of a name."""
MARKS = ("o", "^", "s", "D", "v", "P")
"""One for each round of colours."""
KEY = "dot: one student · ρ: Spearman’s, with 95 % bootstrap interval over students"

Points = Mapping[str, Sequence[tuple[float, float]]]
"""Of the students of each variant: (kept neighbours, score), percent."""


class Panel(NamedTuple):
    """A task: its name and score, its points, and their
    :func:`isometry.report.records.correlation.rank_correlation`."""

    title: str
    points: Points
    correlation: Row


def agreement_picture(path: Path, panels: Sequence[Panel], label: str) -> None:
    """Draws a panel for each task to ``path``, PNG or SVG by its ending; variants are told apart by colour, ``label``
    is that of the horizontal axis.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    title = "Agreement with the teacher, and tasks"
    with canvas.plain_style(title):
        canvas.save_figure(path, _figure(panels, title, label), title)


def _figure(panels: Sequence[Panel], title: str, label: str) -> Figure:
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    marks = {
        name: (LIGHT.series[place % len(LIGHT.series)], MARKS[place // len(LIGHT.series) % len(MARKS)])
        for place, name in enumerate(names)
    }
    columns = min(COLUMNS, len(panels))
    legend_columns = LEGEND_COLUMNS * columns
    legend = LEGEND_ROW * -(-len(names) // legend_columns)
    cell = LEFT + PANEL[0] + MARGIN, ABOVE + PANEL[1] + BELOW
    width = MARGIN + cell[0] * columns
    height = TOP + legend + cell[1] * -(-len(panels) // columns)
    figure = canvas.new_figure((width, height))
    figure.text(MARGIN / width, 1 - 23 / height, title, fontsize=14, color=LIGHT.text, va="center")
    figure.text(MARGIN / width, 1 - 44 / height, KEY, fontsize=9.5, color=LIGHT.muted, va="center")
    handles = [
        Line2D([], [], marker=mark, color=colour, ms=7, lw=0, label=_shortened(name))
        for name, (colour, mark) in marks.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(MARGIN / width, 1 - 56 / height), ncols=legend_columns,
        frameon=False, labelcolor=LIGHT.text, fontsize=9.5, handletextpad=0, columnspacing=1.4, borderpad=0,
    )  # fmt: skip
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        left, top = MARGIN + LEFT + cell[0] * column, TOP + legend + ABOVE + cell[1] * row
        sides = (left, width - left - PANEL[0], top, height - top - PANEL[1])
        _draw(canvas.add_axes(figure, *sides, grid="both"), panel, marks, label)
    return figure


def _draw(axes: Axes, panel: Panel, marks: Mapping[str, tuple[str, str]], label: str) -> None:
    for name, points in panel.points.items():
        colour, mark = marks[name]
        finite = [pair for pair in points if all(map(formats.is_number, pair))]
        x, y = ([pair[side] for pair in finite] for side in (0, 1))
        axes.plot(x, y, mark, color=colour, ms=7, alpha=0.8, mec=LIGHT.background, mew=0.8)
    axes.margins(0.08)
    for axis in (axes.xaxis, axes.yaxis):
        canvas.number_ticks(axis, 6)
    axes.set_xlabel(printable(label), color=LIGHT.text, labelpad=6)
    above = "axes fraction"
    canvas.write(axes, _shortened(panel.title, 50), (0, 1), above, (-34, 28), LIGHT.text, fontweight="bold")
    told = f"ρ = {formats.correlation(panel.correlation)}, n = {panel.correlation['n']} students"
    canvas.write(axes, told, (0, 1), above, (-34, 11))


def _shortened(name: str, longest: int = LONGEST_NAME) -> str:
    name = printable(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
