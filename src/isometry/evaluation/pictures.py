"""Confusion matrix and reliability diagram as one SVG file, for light and dark."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from isometry.errors import printable
from isometry.evaluation.scores import Row, frequent_confusions
from isometry.report.drawing.canvas import FONT_SIZE, new_figure, plain_style, svg_file
from isometry.report.drawing.colours import COLOUR_MAP, LIGHT

SIDE = 400
"""CSS pixels of either panel, without labels."""
ABOVE, BETWEEN, RIGHT = 76, 86, 36
"""CSS pixels around the panels."""
MOST_COUNTED = 12
"""Most classes for which cells show counts."""
MOST_NAMED = 30
"""Most class names on an axis."""
LONGEST_NAME = 16


def evaluation_svg(found: Row, title: str) -> str:
    """The confusion matrix and the reliability diagram side by side, as a self-contained SVG file.

    Its colours follow the light or dark colour scheme, and :func:`description` is its text alternative. ``found`` is a
    result of :func:`isometry.evaluation.scores.scores`.
    """
    names = [_shortened(printable(row["name"])) for row in found["classes"]]
    # Names are to the left of the matrix and, rotated, below it.
    beside = 44 + 7 * max(map(len, names))
    width, height = beside + SIDE + BETWEEN + SIDE + RIGHT, ABOVE + SIDE + max(beside, 60)
    with plain_style(title):
        figure = new_figure((width, height))
        lefts = beside, beside + SIDE + BETWEEN
        places = [(left / width, 1 - (ABOVE + SIDE) / height, SIDE / width, SIDE / height) for left in lefts]
        confusions, reliability = (_bare(figure.add_axes(place)) for place in places)
        figure.text(20 / width, 1 - 24 / height, printable(title), fontsize=14, color=LIGHT.text, va="center")
        _draw_confusions(confusions, np.asarray(found["confusion"]), names)
        _draw_reliability(reliability, found["calibration"])
        return svg_file(figure, description(found))


def description(found: Row) -> str:
    """The picture's text alternative."""
    names = [row["name"] for row in found["classes"]]
    wrong = frequent_confusions(np.asarray(found["confusion"]), 3)
    confused = ", ".join(f"{names[i]} predicted as {names[j]} ({images} times)" for i, j, images in wrong)
    top1, ece = found["top1"], found["calibration"]["ece"]
    by_class = (
        f"mean of the classes {found['top1_by_class']['value']:.1f} %; " if "top1_by_class" in found else ""
    )
    return (
        f"Confusion matrix of {len(names)} classes, {top1['value']:.1f} % of {top1['images']:,} images right; "
        f"{by_class}"
        f"most frequent confusions: {confused or 'none'}. "
        f"Reliability: accuracy by confidence, expected calibration error {ece:.1f} %."
    )


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _bare(axes: Axes) -> Axes:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=FONT_SIZE, labelcolor=LIGHT.muted, pad=5)
    return axes


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, color=LIGHT.text, loc="left", fontsize=FONT_SIZE + 1)
    axes.set_xlabel(x, color=LIGHT.muted)
    axes.set_ylabel(y, color=LIGHT.muted)


def _draw_confusions(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Colours show the share of a class's images, from dark to light."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto", interpolation="none")
    step = -(-len(names) // MOST_NAMED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(list(range(0, len(names), step)), names[::step])
    if max(map(len, names)) > 3:
        axes.tick_params(axis="x", rotation=90)
    if len(names) <= MOST_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, str(count) if count else "", color=colour, ha="center", va="center")
    _label(axes, "Confusions, as shares of a class", "predicted as", "class")


def _draw_reliability(axes: Axes, calibration: Row) -> None:
    filled = [row for row in calibration["bins"] if row["images"]]
    lefts = [100 * row["low"] for row in filled]
    # Slightly narrower than a bin, to separate neighbours.
    widths = [96 * (row["high"] - row["low"]) for row in filled]
    accuracies = [row["accuracy"] for row in filled]
    axes.grid(axis="y", color=LIGHT.line, lw=0.7)
    axes.set_axisbelow(True)
    axes.bar(lefts, accuracies, width=widths, align="edge", color=LIGHT.series[0])
    axes.plot([0, 100], [0, 100], color=LIGHT.muted, lw=1.2, dashes=(4, 3))
    confidences = [row["confidence"] for row in filled]
    axes.plot(confidences, accuracies, "o", color=LIGHT.series[1], ms=5, clip_on=False)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    title = f"Reliability, calibration error {calibration['ece']:.1f} %"
    _label(axes, title, "confidence (dot: mean of a bin)", "right")
