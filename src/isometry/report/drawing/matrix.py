"""A matrix of similarities, drawn as inline SVG for the page and as pixels for a log."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isometry.report.drawing import canvas
from isometry.report.drawing.colours import COLOUR_MAP, LIGHT
from isometry.report.records.data import Matrix, Picture

LOG_DPI = 144
SIDE = 420
"""CSS pixels of the matrix without its labels: its width, and the most of its height."""


def matrix_svg(matrix: Matrix, rows: Sequence[str], columns: Sequence[str], name: str) -> Markup:
    """A matrix of similarities in [0, 1], rows from the top; a ring marks each row's maximum."""
    with canvas.plain_style(name):
        return canvas.inline_svg(_draw(matrix, rows, columns), name)


def matrix_picture(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Picture:
    """The same on white, uint8 (H, W, 3)."""
    with canvas.plain_style("matrix"):
        figure = _draw(matrix, rows, columns)
        figure.set(dpi=LOG_DPI, facecolor="white")
        pixels = FigureCanvasAgg(figure)
        pixels.draw()
        return np.asarray(pixels.buffer_rgba())[:, :, :3].copy()


def _draw(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    height = round(min(max(SIDE * len(rows) / max(len(columns), 1), 90), SIDE))
    # About eight pixels a character of the longest label, and thirty for the name of the axis.
    left, bottom = (30 + 8 * max(2, *map(len, labels)) for labels in (rows, columns))
    figure = canvas.new_figure((SIDE + 22 + left, height + 8 + bottom))
    axes = canvas.add_axes(figure, left=left, right=12, top=8, bottom=bottom, grid="")
    axes.imshow(matrix, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.spines["bottom"].set_visible(False)
    _mark_maxima(axes, matrix)
    canvas.name_ticks(axes.xaxis, columns, most=12)
    canvas.name_ticks(axes.yaxis, rows, most=12)
    if max(map(len, columns)) > 3:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("teacher block", color=LIGHT.muted)
    axes.set_ylabel("student block", color=LIGHT.muted)
    return figure


def _mark_maxima(axes: Axes, matrix: Matrix) -> None:
    for row, values in enumerate(matrix):
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            ring = "black" if values[best] > 0.6 else "white"
            axes.plot(best, row, "o", mfc="none", mec=ring, mew=1.2, ms=6)
