"""Accuracy against latency, as `isometry bench` measured them: a line for each network, with a mark for each runtime.

The marks of a network lie on a level line, and its name stands at the right end. Networks without an accuracy follow
below.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from isometry.errors import printable
from isometry.report import formats
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row, common_part, on_part
from isometry.report.tables import labelled_forms

WIDTH, TOP, BOTTOM, LEFT, GAP = 820, 64, 48, 56, 34
"""CSS pixels: the picture's width, its margins, and the distance from networks without an accuracy to the others."""
LEAST_HEIGHT = 200
"""CSS pixels of the axis of accuracies."""
LABEL_HEIGHT = 19
"""CSS pixels from one name to the next below it."""
LONGEST_LABEL = 34
"""Characters; the beginning of a longer name is left out, since folders differ at the end."""
EDGE = ("axes fraction", "data")
BLANK = {"fc": LIGHT.background, "ec": "none", "pad": 2}
MARKS = {"eager": ("o", "eager"), "compiled": ("^", "torch.compile"), "onnx": ("s", "ONNX Runtime")}
OTHER_MARK = "D"
"""Of a runtime that is none of these."""


Form = tuple[str, Row]
"""A form of a network with its name."""


def latency_picture(path: Path, networks: Sequence[Row]) -> None:
    """Draws networks, as `isometry bench` writes them, to ``path``: SVG or PNG.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    with canvas.plain_style("latency"):
        canvas.save_figure(path, _figure(_forms(networks)), latency_description(networks))


def latency_description(networks: Sequence[Row]) -> str:
    """The figures of the picture as text: each network's accuracy, and its latency under each runtime."""
    found = []
    for name, form in _forms(networks):
        rows = [f"{formats.number(row['speeds'][0]['ms'])} ms {row['runtime']}" for row in form["runtimes"]]
        top1 = f"top-1 {formats.top1(form)}" if _scored(form) else "no accuracy"
        found.append(f"{name}: {top1}, {', '.join(rows)}")
    return f"Top-1 accuracy against the time of one image. {'; '.join(found)}."


def _forms(networks: Sequence[Row]) -> list[Form]:
    """Those with an accuracy first."""
    return sorted(labelled_forms(networks), key=lambda each: not _scored(each[1]))


def _scored(form: Row) -> bool:
    return formats.is_number(form.get("top1"))


def _label(name: str, form: Row) -> str:
    name = printable(name)
    short = name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"
    return f"{short}  {formats.percent(form['top1'])}" if _scored(form) else short


def _figure(forms: Sequence[Form]) -> Figure:
    tops = [form["top1"] for _, form in forms if _scored(form)]
    unscored = len(forms) - len(tops)
    # Heights above the lower end of the axes, in CSS pixels.
    floor = LABEL_HEIGHT * (unscored + 1) + (GAP if tops else 0) if unscored else 0
    ceiling = floor + (max(LEAST_HEIGHT, LABEL_HEIGHT * (len(tops) + 2)) if tops else 0)
    figure = canvas.new_figure((WIDTH, TOP + ceiling + BOTTOM))
    labels = [_label(name, form) for name, form in forms]
    right = 42 + round(canvas.CHARACTER_WIDTH * 1.04 * max(map(len, labels)))
    axes = canvas.add_axes(figure, LEFT, right, TOP, BOTTOM, grid="both")
    axes.set(ylim=(0, ceiling), yticks=[])
    _draw_times(axes, [row["speeds"][0] for _, form in forms for row in form["runtimes"]])
    levels = [LABEL_HEIGHT * (row - 0.25) for row in range(unscored, 0, -1)]
    heights = levels
    if tops:
        title = f"top-1{on_part(common_part([form for _, form in forms]))}, %"
        levels = _draw_accuracies(axes, tops, floor, ceiling, title) + levels
        heights = separated(levels[: len(tops)], floor, ceiling) + heights
    if unscored:
        above = LABEL_HEIGHT * (unscored + 1)
        canvas.write(axes, "without an accuracy", (0, above), EDGE, (-40, 2), va="bottom", bbox=BLANK)
    places = zip(forms, labels, levels, heights, cycle(LIGHT.series), strict=False)
    for (_, form), label, level, height, colour in places:
        _draw(axes, form["runtimes"], level, height, colour)
        canvas.write(axes, label, (1, height), EDGE, (30, 0), LIGHT.text, va="center")
    _draw_header(figure, {row["runtime"] for _, form in forms for row in form["runtimes"]})
    return figure


def _draw_times(axes: Axes, speeds: Sequence[Row]) -> None:
    shortest, longest = min(speed["ms_low"] for speed in speeds), max(speed["ms_high"] for speed in speeds)
    margin = max(1.15, (longest / shortest) ** 0.06)
    axes.set_xscale("log")
    axes.set_xlim(shortest / margin, longest * margin)
    ratio = longest / shortest * margin**2
    steps = (1.0,) if ratio > 300 else (1.0, 2.0, 5.0) if ratio >= 4 else tuple(np.arange(1, 10, 0.5))
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_minor_formatter("")
    axes.xaxis.set_major_formatter(lambda value, _: formats.number(value))
    axes.set_xlabel("one image takes, ms", color=LIGHT.muted, labelpad=6)


def _draw_accuracies(
    axes: Axes, tops: Sequence[float], floor: float, ceiling: float, title: str
) -> list[float]:
    """Ticks and title of the axis from ``floor`` to ``ceiling``; returns the height of each accuracy."""
    margin = max(0.12 * (max(tops) - min(tops)), 0.5)
    low, high = min(tops) - margin, max(tops) + margin
    locator = MaxNLocator(5, steps=canvas.ROUND_STEPS)
    ticks = [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]

    def height(values: Sequence[float]) -> list[float]:
        return [floor + (value - low) / (high - low) * (ceiling - floor) for value in values]

    axes.set_yticks(height(ticks), [f"{tick:g}" for tick in ticks])
    axes.axhline(floor, color=LIGHT.line, lw=0.8)
    canvas.write(axes, title, (0, 1), "axes fraction", (-40, 6), va="bottom")
    return height(tops)


def _draw(axes: Axes, runtimes: Sequence[Row], level: float, label_height: float, colour: str) -> None:
    times = [row["speeds"][0]["ms"] for row in runtimes]
    axes.plot([min(times), max(times)], [level, level], color=colour, lw=1.2, alpha=0.55)
    # From the slowest mark to the name, by way of the right edge.
    pixel = 1 / axes.bbox.width
    beyond: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": colour, "clip_on": False}
    dotted: dict[str, Any] = {"color": colour, "lw": 0.8, "alpha": 0.7, "dashes": (1, 2)}
    axes.plot([max(times), axes.get_xlim()[1]], [level, level], **dotted)
    axes.plot([1, 1 + 14 * pixel], [level, label_height], **dotted | beyond)
    axes.plot([1 + 14 * pixel, 1 + 24 * pixel], [label_height, label_height], lw=4, **beyond)
    for row in runtimes:
        first, (mark, _) = row["speeds"][0], _mark(row["runtime"])
        axes.plot([first["ms_low"], first["ms_high"]], [level, level], color=colour, lw=5, alpha=0.35)
        axes.plot(first["ms"], level, mark, color=colour, mec=LIGHT.background, ms=9, zorder=3, clip_on=False)


def _mark(runtime: str) -> tuple[str, str]:
    """The mark of a runtime, and its name in the legend."""
    return MARKS.get(runtime, (OTHER_MARK, runtime))


def separated(heights: Sequence[float], floor: float, ceiling: float) -> list[float]:
    """Heights at least :data:`LABEL_HEIGHT` apart, in the same order, between ``floor`` and ``ceiling`` where there is
    room for all; those that are far enough from others stay."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = list(heights)
    limit = floor
    for index in order:
        moved[index] = max(moved[index], limit)
        limit = moved[index] + LABEL_HEIGHT
    limit = ceiling
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - LABEL_HEIGHT
    return moved


def _draw_header(figure: Figure, used: set[str]) -> None:
    middle = 1 - 20 / (figure.get_size_inches()[1] * 72)
    figure.text(16 / WIDTH, middle, "Accuracy against latency", color=LIGHT.text, fontsize=15, va="center")
    marks = [
        Line2D([], [], marker=mark, color=LIGHT.muted, ms=7, lw=0, label=printable(name))
        for mark, name in map(_mark, sorted(used, key=[*MARKS, *sorted(used)].index))
    ]
    figure.legend(
        handles=marks, loc="center right", bbox_to_anchor=(1, middle), ncols=len(marks), frameon=False,
        labelcolor=LIGHT.muted, handletextpad=0, columnspacing=1,
    )  # fmt: skip
