"""Accuracy against what a model costs: its size, its speed, its latency, a point a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from isometry.report import formats
from isometry.report.bench_tables import measured
from isometry.report.drawing.charts import MUTED, SERIES, bare_axes, inline_svg, plain_style
from isometry.report.records.data import Row
from isometry.report.records.groups import Group
from isometry.report.records.intervals import interval
from isometry.report.tables import PARTS

BESIDE = 11
"""CSS pixels between dots of the same cost."""
ALIKE = 0.01
"""Costs that differ by less, as a share, stand at the same place."""
ROOM = 1.35
"""Least factor that the axis of costs goes on beyond the least and the largest of them."""


@dataclass(frozen=True)
class Point:
    """A model: its ``cost`` and its ``top1`` (percent), with the ends of its interval where it is a mean."""

    name: str
    cost: float
    top1: float
    low: float | None = None
    high: float | None = None


class CostChart(NamedTuple):
    """One picture, for a wide and a narrow page."""

    title: str
    models: list[tuple[str, str]]
    """(name, cost) of each dot, in the order of the page's colours."""
    svg: Markup
    narrow_svg: Markup


class Cost(NamedTuple):
    """What is on the horizontal axis, and how it is read."""

    key: str
    title: str
    write: Callable[[float | None], str]


COSTS = (
    Cost("params", "Parameters", formats.params),
    Cost("images_per_s", "Images a second", formats.rate),
)
"""Keys of the table of models."""
LATENCY = Cost("ms", "Latency of one image, ms", formats.number)
"""What `isometry bench` measures at batch 1."""


def model_points(models: Sequence[Row], key: str) -> list[Point]:
    """The rows of the table of models that have both figures; top-1 of one part of the data, that of the last row."""
    part = models[-1].get("top1_part") if models else None
    return [
        Point(str(row["model"]), row[key], row["top1"])
        for row in models
        if row.get("top1_part") == part and _positive(row.get(key)) and formats.is_number(row.get("top1"))
    ]


def group_points(groups: Sequence[Group], key: str) -> list[Point]:
    """A point a group: means over its seeds, and the 95 % interval of top-1."""
    points = []
    for group in groups:
        costs, tops = group.values(key), group.values("top1")
        if costs and tops and all(map(_positive, costs)):
            points.append(Point(group.name, fmean(costs), *interval(tops)))
    return points


def bench_points(networks: Sequence[Row]) -> list[Point]:
    """Every form of every network of `isometry bench` under every runtime, at batch 1; those that have an accuracy."""
    return [
        Point(f"{row.network}, {row.runtime}", row.first["ms"], row.form["top1"])
        for row in measured(networks)
        if row.first["batch_size"] == 1
        and _positive(row.first["ms"])
        and formats.is_number(row.form.get("top1"))
    ]


def cost_charts(
    points: Sequence[tuple[Cost, Sequence[Point]]],
    part: str | None,
    size: tuple[int, int],
    narrow: tuple[int, int],
) -> list[CostChart]:
    """A picture for each cost that at least two models were measured at.

    Args:
        points: costs and the models' points.
        part: of the data that top-1 is of, "test" or "val"; None where it is not known.
        size: (width, height) in CSS pixels on a wide page.
        narrow: on a narrow one.
    """
    label = "Top-1" + (f" on {PARTS.get(part, part)}" if part else "") + ", %"
    return [
        CostChart(
            cost.title,
            [(point.name, cost.write(point.cost)) for point in found],
            *(Markup(cost_svg(found, cost, label, each)) for each in (size, narrow)),
        )
        for cost, found in points
        if len(found) > 1
    ]


def cost_svg(points: Sequence[Point], cost: Cost, label: str, size: tuple[int, int]) -> str:
    """Models as dots as inline SVG, in the order of the page's colours: the cost to the right on a logarithmic axis,
    top-1 upwards with its interval."""
    with plain_style(f"{cost.title} {size}"):
        figure, axes = bare_axes(size, left=46, right=12, top=24, bottom=42)
        axes.set_xscale("log")
        costs = [point.cost for point in points]
        room = max(ROOM, (max(costs) / min(costs)) ** 0.12)
        low, high = min(costs) / room, max(costs) * room
        axes.set_xlim(low, high)
        step = BESIDE * np.log10(high / low) / size[0]
        for index, (point, place) in enumerate(zip(points, dodged(costs, step), strict=True)):
            colour = SERIES[index % len(SERIES)]
            if formats.is_number(point.low) and formats.is_number(point.high):
                axes.plot([place] * 2, [point.low, point.high], color=colour, lw=2.5, alpha=0.5)
            axes.plot(place, point.top1, "o", color=colour, ms=7)
        axes.margins(y=0.1)
        axes.set_xlabel(cost.title, color=MUTED, labelpad=6)
        axes.annotate(label, (4, size[1] - 4), xycoords="figure pixels", va="top", color=MUTED)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high, size[0] // 110)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.write(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        told = "; ".join(
            f"{point.name} {formats.percent(point.top1)} at {cost.write(point.cost)}" for point in points
        )
        return inline_svg(figure, f"Top-1 against {cost.title.lower()}: {told}")


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers, evenly spaced on a logarithmic axis."""
    inside = np.geomspace(low, high, count + 2)[1:-1]
    return sorted({float(f"{cost:.2g}") for cost in inside})


def dodged(costs: Sequence[float], step: float) -> list[float]:
    """Where the points stand, so that those of one cost do not cover each other: side by side, ``step`` apart in log10,
    around their cost."""
    places = []
    for index, cost in enumerate(costs):
        alike = [other for other, near in enumerate(costs) if abs(near / cost - 1) < ALIKE]
        places.append(cost * 10 ** (step * (alike.index(index) - (len(alike) - 1) / 2)))
    return places


def spaced(heights: Sequence[float], apart: float, top: float) -> list[float]:
    """The heights of labels, moved as little as a sweep from below needs for all to be ``apart``; none ends above
    ``top``, where there is room for all below it."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for below, place in pairwise(order):
        moved[place] = max(moved[place], moved[below] + apart)
    limit = top
    for place in reversed(order):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - apart
    return moved


def _positive(value: object) -> bool:
    return formats.is_number(value) and value > 0
