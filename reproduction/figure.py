"""The picture beside the paper's Figure 4: accuracy on validation while the student trains."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isometry.files import write_whole
from isometry.report.drawing.charts import plain_style
from isometry.report.drawing.gains import INK, MUTED, PAPER, RULE
from reproduction.published import PublishedFigure

COLOURS = ("#7d838c", "#b4532a", "#0f6e84")
STYLES = ("-", "--", "-")
"""Told apart without colours too."""


def draw(path: Path, figure: PublishedFigure, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Each curve's mean over seeds as a line, all its seeds as thin ones; PNG.

    Raises:
        UserError: it cannot be written.
    """
    buffer = io.BytesIO()
    with plain_style(figure.title):
        sheet = Figure(figsize=(9, 4.6), facecolor=PAPER)
        axes = sheet.add_axes((0.08, 0.13, 0.9, 0.78))
        for (name, label), colour, style in zip(figure.curves.items(), COLOURS, STYLES, strict=True):
            curves_SE = np.array(runs[name]["curves"])
            epochs = np.arange(1, curves_SE.shape[1] + 1)
            for curve in curves_SE:
                axes.plot(epochs, curve, color=colour, lw=0.6, alpha=0.4)
            mean = curves_SE.mean(0)
            axes.plot(epochs, mean, style, color=colour, lw=2.2, marker="o", ms=3, label=label)
        axes.set_xlabel("epoch", color=INK)
        axes.set_ylabel("top-1 on validation, %", color=INK)
        axes.set_title(
            f"{figure.title[0].upper()}{figure.title[1:]}: thick the mean, thin each seed",
            color=INK,
            loc="left",
            fontsize=11,
        )
        axes.grid(color=RULE, lw=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.tick_params(colors=MUTED)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)
        sheet.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
