"""Accuracy against latency, as `isometry bench` measured them: a line for each network, with a mark for each runtime.

The marks of a network lie on a level line, and its name stands at the right end. Networks without an accuracy follow
below.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from isometry.report import formats
from isometry.report.bench_tables import Measurement, measurements
from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row
from isometry.report.records.rows import common_part, on_part

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


class Network(NamedTuple):
    """A form of a network: its name, its accuracy if it has one, and its measurements."""

    name: str
    top1: float | None
    measurements: list[Measurement]

    @property
    def label(self) -> str:
        """Name and accuracy, as the picture shows them."""
        name = self.name if len(self.name) <= LONGEST_LABEL else f"…{self.name[1 - LONGEST_LABEL :]}"
        return name if self.top1 is None else f"{name}  {formats.percent(self.top1)}"


def latency_picture(path: Path, networks: Sequence[Row]) -> None:
    """Draws networks, as `isometry bench` writes them, to ``path``: SVG or PNG.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    with canvas.plain_style("latency"):
        part = common_part([row.form for row in measurements(networks)])
        canvas.save_figure(path, _figure(_by_form(networks), part), latency_description(networks))


def latency_description(networks: Sequence[Row]) -> str:
    """The figures of the picture as text: each network's accuracy, and its latency under each runtime."""
    found = []
    for network in _by_form(networks):
        rows = network.measurements
        times = ", ".join(f"{formats.number(row.first['ms'])} ms {row.runtime}" for row in rows)
        top1 = "no accuracy" if network.top1 is None else f"top-1 {formats.percent(network.top1)}"
        found.append(f"{network.name}: {top1}, {times}")
    return f"Top-1 accuracy against the time of one image. {'; '.join(found)}."


def _by_form(networks: Sequence[Row]) -> list[Network]:
    found: dict[str, Network] = {}
    for row in measurements(networks):
        top1 = row.form.get("top1")
        top1 = float(top1) if formats.is_number(top1) else None
        found.setdefault(row.network, Network(row.network, top1, [])).measurements.append(row)
    return sorted(found.values(), key=lambda network: network.top1 is None)


def _figure(networks: Sequence[Network], part: str | None) -> Figure:
    tops = [network.top1 for network in networks if network.top1 is not None]
    unscored = len(networks) - len(tops)
    # Heights above the lower end of the axes, in CSS pixels.
    floor = LABEL_HEIGHT * (unscored + 1) + (GAP if tops else 0) if unscored else 0
    ceiling = floor + (max(LEAST_HEIGHT, LABEL_HEIGHT * (len(tops) + 2)) if tops else 0)
    figure = canvas.new_figure((WIDTH, TOP + ceiling + BOTTOM))
    right = 42 + round(canvas.CHARACTER_WIDTH * 1.04 * max(len(network.label) for network in networks))
    axes = canvas.add_axes(figure, LEFT, right, TOP, BOTTOM, grid="both")
    axes.set_ylim(0, ceiling)
    axes.set_yticks([])
    _draw_times(axes, [row for network in networks for row in network.measurements])
    levels = [LABEL_HEIGHT * (row - 0.25) for row in range(unscored, 0, -1)]
    heights = levels
    if tops:
        levels = _draw_accuracies(axes, tops, floor, ceiling, f"top-1{on_part(part)}, %") + levels
        heights = separated(levels[: len(tops)], floor, ceiling) + heights
    if unscored:
        above = LABEL_HEIGHT * (unscored + 1)
        canvas.write(axes, "without an accuracy", (0, above), EDGE, (-40, 2), va="bottom", bbox=BLANK)
    for index, (network, level, height) in enumerate(zip(networks, levels, heights, strict=True)):
        _draw(axes, network, level, height, LIGHT.series[index % len(LIGHT.series)])
    _draw_header(figure, networks)
    return figure


def _draw_times(axes: Axes, rows: Sequence[Measurement]) -> None:
    shortest, longest = min(row.first["ms_low"] for row in rows), max(row.first["ms_high"] for row in rows)
    margin = max(1.15, (longest / shortest) ** 0.06)
    axes.set_xscale("log")
    axes.set_xlim(shortest / margin, longest * margin)
    ratio = longest / shortest * margin**2
    steps = (1.0,) if ratio > 300 else (1.0, 2.0, 5.0) if ratio >= 4 else tuple(np.arange(1, 10, 0.5))
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formats.number(value)))
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


def _draw(axes: Axes, network: Network, level: float, label_height: float, colour: str) -> None:
    times = [row.first["ms"] for row in network.measurements]
    axes.plot([min(times), max(times)], [level, level], color=colour, lw=1.2, alpha=0.55)
    # From the slowest mark to the name, by way of the right edge.
    pixel = 1 / axes.bbox.width
    beyond: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": colour, "clip_on": False}
    dotted: dict[str, Any] = {"color": colour, "lw": 0.8, "alpha": 0.7, "dashes": (1, 2)}
    axes.plot([max(times), axes.get_xlim()[1]], [level, level], **dotted)
    axes.plot([1, 1 + 14 * pixel], [level, label_height], **dotted | beyond)
    axes.plot([1 + 14 * pixel, 1 + 24 * pixel], [label_height, label_height], lw=4, **beyond)
    for row in network.measurements:
        first, (mark, _) = row.first, MARKS[row.runtime]
        axes.plot([first["ms_low"], first["ms_high"]], [level, level], color=colour, lw=5, alpha=0.35)
        axes.plot(first["ms"], level, mark, color=colour, mec=LIGHT.background, ms=9, zorder=3, clip_on=False)
    canvas.write(axes, network.label, (1, label_height), EDGE, (30, 0), LIGHT.text, va="center")


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


def _draw_header(figure: Figure, networks: Sequence[Network]) -> None:
    middle = 1 - 20 / (figure.get_size_inches()[1] * 72)
    figure.text(16 / WIDTH, middle, "Accuracy against latency", color=LIGHT.text, fontsize=15, va="center")
    used = {row.runtime for network in networks for row in network.measurements}
    marks = [
        Line2D([], [], marker=mark, color=LIGHT.muted, ms=7, lw=0, label=name)
        for runtime, (mark, name) in MARKS.items()
        if runtime in used
    ]
    figure.legend(
        handles=marks, loc="center right", bbox_to_anchor=(1, middle), ncols=len(marks), frameon=False,
        labelcolor=LIGHT.muted, handletextpad=0, columnspacing=1,
    )  # fmt: skip
