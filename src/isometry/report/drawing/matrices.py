"""Matrices of similarities: CKA between blocks, and relation maps of several models side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isometry.errors import printable
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import COLOUR_MAP, LIGHT
from isometry.report.records.data import Matrix, Picture

LOG_DPI = 144
SIDE = 420
"""CSS pixels of the CKA matrix without its labels: its width, and the most of its height."""
MAP_SIDE = 200
"""CSS pixels of a relation map."""


def matrix_svg(matrix: Matrix, rows: Sequence[str], columns: Sequence[str], name: str) -> Markup:
    """A matrix of similarities in [0, 1], rows from the top; a ring marks each row's maximum."""
    with canvas.plain_style(name):
        return canvas.inline_svg(_figure(matrix, rows, columns), name)


def matrix_picture(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Picture:
    """The same on white, uint8 (H, W, 3)."""
    with canvas.plain_style("matrix"):
        figure = _figure(matrix, rows, columns)
        figure.set(dpi=LOG_DPI, facecolor="white")
        pixels = FigureCanvasAgg(figure)
        pixels.draw()
        return np.asarray(pixels.buffer_rgba())[:, :, :3].copy()


def maps_picture(path: Path, maps: Mapping[str, Matrix], captions: Mapping[str, str], title: str) -> None:
    """Writes relation maps (N, N) side by side on one colour scale, each with its name and caption, as PNG or SVG."""
    low = min(float(np.percentile(values, 1)) for values in maps.values())
    step = MAP_SIDE + 10
    width, height = 12 + step * len(maps), MAP_SIDE + 100
    with canvas.plain_style(title):
        figure = canvas.new_figure((width, height))
        figure.text(12 / width, 1 - 20 / height, title, fontsize=13, color=LIGHT.text, va="center")
        for place, (name, values) in enumerate(maps.items()):
            box = ((12 + place * step) / width, 42 / height, MAP_SIDE / width, MAP_SIDE / height)
            axes = figure.add_axes(box)
            axes.imshow(values, cmap=COLOUR_MAP, vmin=low, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(printable(name), fontsize=11.5, loc="left", color=LIGHT.text)
            axes.text(0, -0.03, captions.get(name, ""), transform=axes.transAxes, va="top", color=LIGHT.muted)
        canvas.save_figure(path, figure, f"{title}: {', '.join(maps)}")


def _figure(matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    height = round(min(max(SIDE * len(rows) / max(len(columns), 1), 90), SIDE))
    # About eight pixels a character of the longest label, and thirty for the name of the axis.
    left, bottom = (30 + 8 * max(2, *map(len, labels)) for labels in (rows, columns))
    figure = canvas.new_figure((SIDE + 22 + left, height + 8 + bottom))
    axes = canvas.add_axes(figure, left=left, right=12, top=8, bottom=bottom, grid="")
    axes.imshow(matrix, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.spines["bottom"].set_visible(False)
    for row, values in enumerate(matrix):
        if np.isfinite(values).any():
            best = int(np.nanargmax(values))
            ring = "black" if values[best] > 0.6 else "white"
            axes.plot(best, row, "o", mfc="none", mec=ring, mew=1.2, ms=6)
    canvas.name_ticks(axes.xaxis, columns, most=12)
    canvas.name_ticks(axes.yaxis, rows, most=12)
    if max(map(len, columns)) > 3:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("teacher block", color=LIGHT.muted)
    axes.set_ylabel("student block", color=LIGHT.muted)
    return figure
