"""Charts of the page: curves by epoch, and shares of channels by layer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from isometry.errors import printable
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.drawing.panels import PERCENT, Panel

SERIES = LIGHT.series
CHART_SIZE = (344, 210)
"""CSS pixels: a phone's width, and a third of a wide page."""
BAND_OPACITY = 0.16


class Chart(NamedTuple):
    """A chart as the page shows it."""

    title: str
    legend: list[tuple[int, str, str]]
    """(place among the colours, name, figure) of each series."""
    svg: Markup
    note: str = ""


class Bar(NamedTuple):
    """A horizontal bar, which the page's style sheet draws; its length is a share of the longest one's."""

    label: str
    length: float
    figure: str
    colour: str
    """Name of a CSS variable."""


def line_charts(
    panels: Sequence[Panel],
    epochs: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
    reference: tuple[float, str] | None = None,
) -> list[Chart]:
    """Panels, drawn: marks are labelled in the first one, and the reference is a line in the panel of top-1."""
    unlabelled, charts = [(epoch, "") for epoch, _ in marks], []
    for index, panel in enumerate(panels):
        line = reference if panel.metric == "top1" else None
        charts.append(line_chart(panel, epochs, unlabelled if index else marks, line))
    return charts


def line_chart(
    panel: Panel,
    epochs: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
    reference: tuple[float, str] | None = None,
) -> Chart:
    """Curves by epoch, from the first to the last of ``epochs``. Marks are dotted vertical lines at (epoch, label) with
    their labels as far as they fit; the reference is a dashed horizontal line at (value, label)."""
    labelled = any(label for _, label in marks)
    with canvas.plain_style(panel.title):
        figure = canvas.new_figure(CHART_SIZE)
        axes = canvas.add_axes(figure, left=46, right=12, top=22 if labelled else 10, bottom=24)
        _draw_curves(axes, panel)
        first, last = epochs
        margin = 0.02 * (last - first) or 0.5
        axes.set_xlim(first - margin, last + margin)
        if first == last:
            axes.set_xticks([first])
        _draw_marks(axes, marks)
        if reference:
            value, label = reference
            axes.axhline(value, color=LIGHT.muted, lw=1.2, dashes=(4, 3))
            canvas.write(axes, label, (1, value), ("axes fraction", "data"), (0, 4), ha="right")
        svg = canvas.inline_svg(figure, f"{panel.title}, by epoch")
    legend = [(line.colour, line.name, line.last_text) for line in panel.series]
    return Chart(panel.title, legend, svg, panel.note)


def shares_chart(layers: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]]) -> tuple[Markup, int]:
    """Shares in [0, 1] by layer, with a bar for each of the named groups; the SVG and its width in CSS pixels."""
    width, bottom = max(CHART_SIZE[0], 50 + 20 * len(layers)), 12 + 7 * max(map(len, layers))
    with canvas.plain_style("shares"):
        figure = canvas.new_figure((width, CHART_SIZE[1] + bottom))
        axes = canvas.add_axes(figure, left=46, right=4, top=8, bottom=bottom)
        bar = 0.8 / len(groups)
        for index, (_, shares) in enumerate(groups):
            lefts = np.arange(len(layers)) - 0.4 + index * bar
            axes.bar(lefts, 100 * np.asarray(shares), width=0.92 * bar, align="edge", color=SERIES[index])
        axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(0, 100))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.set_xticks(range(len(layers)), list(map(printable, layers)), rotation=90)
        names = " and ".join(name for name, _ in groups)
        return canvas.inline_svg(figure, f"Share of channels that {names} kept, by layer"), width


def _draw_curves(axes: Axes, panel: Panel) -> None:
    for line in panel.series:
        colour = SERIES[line.colour % len(SERIES)]
        style = "--" if line.colour >= len(SERIES) else "-"
        marker = "o" if len(line.values) <= 12 else None
        axes.plot(line.epochs, line.values, style, color=colour, lw=1.8, marker=marker, ms=3.5)
        if line.low:
            axes.fill_between(line.epochs, line.low, line.high, color=colour, alpha=BAND_OPACITY, lw=0)
        if line.last:
            axes.plot(*line.last, "o", color=colour, ms=5, clip_on=False, zorder=4)
    axes.margins(y=0.08)
    points = [value for line in panel.series for value in line.values]
    if len(points) == 1 and points[0] > 0:
        # Around a single point, matplotlib's axis is of a width that means nothing.
        axes.set_ylim(0, 1.25 * points[0])
    if span := panel.log_span:
        # An interval may reach below 0, which a logarithmic axis does not have.
        axes.set(yscale="log", ylim=span)
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    else:
        if panel.metric.startswith(PERCENT):
            # An interval over few seeds may reach outside of 0 to 100 %.
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -2), min(high, 102))
        canvas.number_ticks(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _draw_marks(axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
    taken = -np.inf
    for epoch, label in sorted(marks):
        axes.axvline(epoch, color=LIGHT.muted, lw=1, dashes=(1, 3))
        centre, half_width = axes.transData.transform((epoch, 0))[0], canvas.CHARACTER_WIDTH * len(label) / 2
        # A label that would overlap the one before is left out; the text above the charts names all marks.
        if label and centre - half_width > taken:
            taken = centre + half_width
            canvas.write(axes, label, (epoch, 1), ("data", "axes fraction"), (0, 5), ha="center")
