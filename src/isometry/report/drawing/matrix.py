"""A matrix of similarities, drawn: as inline SVG for the page, as pixels for a log."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isometry.report.drawing.charts import COLOUR_MAP, MUTED, bare_axes, inline_svg, name_ticks, plain_style
from isometry.report.records.data import Matrix, Picture

DOTS = 144
"""Dots an inch of the pixels: two a CSS pixel."""


def matrix_svg(matrix: Matrix, rows: Sequence[str], columns: Sequence[str], name: str) -> str:
    """A matrix of similarities in [0, 1] as inline SVG, rows from the top; a ring marks each row's best."""
    with plain_style(name):
        return inline_svg(_drawn(matrix, rows, columns), name)


def matrix_picture(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Picture:
    """The same on white, uint8 (H, W, 3)."""
    with plain_style("matrix"):
        figure = _drawn(matrix, rows, columns)
        figure.set_dpi(DOTS)
        figure.set_facecolor("white")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _drawn(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    cell = 420 / max(len(columns), 1)
    height = round(min(max(cell * len(rows), 90), 420))
    # About eight pixels a character beside or below the matrix, thirty for the axis' own name.
    left, bottom = (30 + 8 * max(2, *map(len, labels)) for labels in (rows, columns))
    figure, axes = bare_axes((442 + left, height + 8 + bottom), left=left, right=12, top=8, bottom=bottom)
    axes.imshow(matrix, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    _ring_best(axes, matrix)
    name_ticks(axes.xaxis, columns, most=12)
    name_ticks(axes.yaxis, rows, most=12)
    if max(map(len, columns)) > 3:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("teacher block", color=MUTED)
    axes.set_ylabel("student block", color=MUTED)
    return figure


def _ring_best(axes: Axes, matrix: Matrix) -> None:
    for row, values in enumerate(matrix):
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            ring = "black" if values[best] > 0.6 else "white"
            axes.plot(best, row, "o", mfc="none", mec=ring, mew=1.2, ms=6)
