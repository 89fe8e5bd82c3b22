"""Relation maps of several models side by side, as one picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from isometry.report.drawing import canvas
from isometry.report.drawing.colours import COLOUR_MAP, LIGHT
from isometry.report.records.data import Matrix

SIDE = 200
"""CSS pixels of a map."""


def maps_picture(path: Path, maps: Mapping[str, Matrix], captions: Mapping[str, str], title: str) -> None:
    """Writes square relation maps in a row, on one colour scale, each under its name, as PNG or SVG.

    Args:
        path: the file to write.
        maps: cosine maps (N, N) by name.
        captions: text below each map, by name.
        title: the picture's heading.
    """
    low = min(float(np.percentile(values, 1)) for values in maps.values())
    width, height = 12 + (SIDE + 10) * len(maps), SIDE + 100
    with canvas.plain_style(title):
        figure = canvas.new_figure((width, height))
        figure.text(12 / width, 1 - 20 / height, title, fontsize=13, color=LIGHT.text, va="center")
        for place, (name, values) in enumerate(maps.items()):
            box = ((12 + place * (SIDE + 10)) / width, 42 / height, SIDE / width, SIDE / height)
            axes = figure.add_axes(box)
            axes.imshow(values, cmap=COLOUR_MAP, vmin=low, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(name, fontsize=11.5, loc="left", color=LIGHT.text)
            axes.text(0, -0.03, captions.get(name, ""), transform=axes.transAxes, va="top", color=LIGHT.muted)
        canvas.save_figure(path, figure, f"{title}: {', '.join(maps)}")
