"""Relation maps of several models side by side, as one picture."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from isometry.files import write_whole
from isometry.report.drawing.charts import COLOUR_MAP, plain_style
from isometry.report.records.data import Matrix


def maps_picture(path: Path, maps: Mapping[str, Matrix], captions: Mapping[str, str], title: str) -> None:
    """Writes a PNG of square relation maps in a row, on one colour scale, each under its name.

    Args:
        path: the file to write.
        maps: cosine maps (N, N) by name; the first is the one that the others should look like.
        captions: a line under each map, by name.
        title: the picture's heading.
    """
    low = min(float(np.percentile(values, 1)) for values in maps.values())
    with plain_style(title):
        figure = Figure(figsize=(2.9 * len(maps) + 0.4, 4.1), dpi=160, facecolor="white")
        figure.text(0.02, 0.93, title, fontsize=13, fontweight="bold", color="#1a1a1a")
        for place, (name, values) in enumerate(maps.items()):
            axes = figure.add_axes((0.02 + place * 0.97 / len(maps), 0.14, 0.93 / len(maps), 0.66))
            axes.imshow(values, cmap=COLOUR_MAP, vmin=low, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(name, fontsize=11.5, loc="left", color="#1a1a1a")
            axes.text(0, -0.05, captions.get(name, ""), transform=axes.transAxes, va="top", color="#555555")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_whole(path, buffer.getvalue())
