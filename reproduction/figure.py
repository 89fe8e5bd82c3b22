"""The counterpart of the paper's Figure 4: validation accuracy during training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from isometry.report.drawing.canvas import add_axes, new_figure, plain_style, save_figure
from isometry.report.drawing.colours import LIGHT
from reproduction.published import PublishedFigure

COLOURS = (LIGHT.series[7], LIGHT.series[1], LIGHT.series[0])
STYLES = ("-", "--", "-")
"""The middle curve is dashed, to distinguish the curves without colour."""


def draw(path: Path, figure: PublishedFigure, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws each curve's mean over seeds as a thick line and its seeds as thin lines, as PNG.

    Raises:
        UserError: the file can't be written.
    """
    with plain_style(figure.title):
        sheet = new_figure((648, 331))
        axes = add_axes(sheet, left=52, right=13, top=30, bottom=43, grid="both")
        for (name, label), colour, style in zip(figure.curves.items(), COLOURS, STYLES, strict=True):
            curves_SE = np.array(runs[name]["curves"])
            epochs = np.arange(1, curves_SE.shape[1] + 1)
            for curve in curves_SE:
                axes.plot(epochs, curve, color=colour, lw=0.6, alpha=0.4)
            mean = curves_SE.mean(0)
            axes.plot(epochs, mean, style, color=colour, lw=2.2, marker="o", ms=3, label=label)
        axes.set_xlabel("epoch", color=LIGHT.text)
        axes.set_ylabel("top-1 on validation, %", color=LIGHT.text)
        title = f"{figure.title[0].upper()}{figure.title[1:]}: thick lines are means, thin ones seeds"
        axes.set_title(title, color=LIGHT.text, loc="left", fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.legend(loc="lower right", frameon=False, labelcolor=LIGHT.text)
        save_figure(path, sheet, title)
