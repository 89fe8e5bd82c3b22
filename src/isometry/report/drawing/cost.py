"""Accuracy against the cost of a model: its size, its speed, its latency; a point for each model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FixedLocator

from isometry.report import formats
from isometry.report.drawing import canvas
from isometry.report.drawing.charts import SERIES, Chart
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row, on_part
from isometry.report.records.groups import Group
from isometry.report.records.intervals import interval
from isometry.report.tables import labelled_forms

SIZE = (344, 260)
"""CSS pixels."""
DOT_DISTANCE = 11
"""CSS pixels between dots of the same cost."""
SAME_COST = 0.01
"""Costs that differ by less, as a share, are drawn as the same."""
LEAST_MARGIN = 1.35
"""Least factor by which the axis of costs extends beyond the least and the largest of them."""


@dataclass(frozen=True)
class Point:
    """A model: its ``cost`` and its ``top1`` (percent), with the ends of its interval where it is a mean."""

    name: str
    cost: float
    top1: float
    low: float | None = None
    high: float | None = None


class Cost(NamedTuple):
    """A horizontal axis: its key in a table, its title and its number format."""

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
    """The rows of the table of models that have both figures, with top-1 of the same part of the data as the last."""
    part = models[-1].get("top1_part") if models else None
    return [
        Point(str(row["model"]), row[key], row["top1"])
        for row in models
        if row.get("top1_part") == part and _positive(row.get(key)) and formats.is_number(row.get("top1"))
    ]


def group_points(groups: Sequence[Group], key: str) -> list[Point]:
    """A point for each group: means over its seeds, and the 95 % interval of top-1."""
    figures = [(group.name, group.values(key), group.values("top1")) for group in groups]
    return [
        Point(name, fmean(costs), *interval(tops))
        for name, costs, tops in figures
        if costs and tops and all(map(_positive, costs))
    ]


def bench_points(networks: Sequence[Row]) -> list[Point]:
    """Every form of every network of `isometry bench` under every runtime, at batch 1; those that have an accuracy."""
    return [
        Point(f"{name}, {row['runtime']}", first["ms"], form["top1"])
        for name, form in labelled_forms(networks)
        for row in form["runtimes"]
        if (first := row["speeds"][0])["batch_size"] == 1
        and _positive(first["ms"])
        and formats.is_number(form.get("top1"))
    ]


def cost_charts(points: Sequence[tuple[Cost, Sequence[Point]]], part: str | None) -> list[Chart]:
    """A chart for each cost that at least two models were measured at, from the models' points; ``part`` is the part of
    the data that top-1 is of, None where it is not known."""
    label = f"Top-1{on_part(part)}, %"
    return [
        Chart(
            cost.title,
            [(place, point.name, cost.write(point.cost)) for place, point in enumerate(found)],
            cost_svg(found, cost, label),
        )
        for cost, found in points
        if len(found) > 1
    ]


def cost_svg(points: Sequence[Point], cost: Cost, label: str) -> Markup:
    """Models as dots, in the order of the colours: the cost on a logarithmic axis, top-1 upwards with its interval."""
    with canvas.plain_style(cost.title):
        figure = canvas.new_figure(SIZE)
        axes = canvas.add_axes(figure, left=46, right=12, top=24, bottom=42)
        axes.set_xscale("log")
        costs = [point.cost for point in points]
        margin = max(LEAST_MARGIN, (max(costs) / min(costs)) ** 0.12)
        low, high = min(costs) / margin, max(costs) * margin
        axes.set_xlim(low, high)
        positions = side_by_side(costs, DOT_DISTANCE * np.log10(high / low) / SIZE[0])
        for index, (point, position) in enumerate(zip(points, positions, strict=True)):
            colour = SERIES[index % len(SERIES)]
            if formats.is_number(point.low) and formats.is_number(point.high):
                axes.plot([position] * 2, [point.low, point.high], color=colour, lw=2.5, alpha=0.5)
            axes.plot(position, point.top1, "o", color=colour, ms=7)
        axes.margins(y=0.1)
        axes.set_xlabel(cost.title, color=LIGHT.muted, labelpad=6)
        canvas.write(axes, label, (4, SIZE[1] - 4), "figure points", va="top")
        canvas.number_ticks(axes.yaxis)
        ticks = np.geomspace(low, high, 5)[1:-1]
        axes.xaxis.set_major_locator(FixedLocator(sorted({float(f"{tick:.2g}") for tick in ticks})))
        axes.xaxis.set_major_formatter(lambda value, _: cost.write(value))
        axes.minorticks_off()
        figures = "; ".join(
            f"{point.name} {formats.percent(point.top1)} at {cost.write(point.cost)}" for point in points
        )
        return canvas.inline_svg(figure, f"Top-1 against {cost.title.lower()}: {figures}")


def side_by_side(costs: Sequence[float], step: float) -> list[float]:
    """Positions at which dots of the same cost do not cover each other: ``step`` apart in log10, around their cost."""
    positions = []
    for index, cost in enumerate(costs):
        same = [other for other, near in enumerate(costs) if abs(near / cost - 1) < SAME_COST]
        positions.append(cost * 10 ** (step * (same.index(index) - (len(same) - 1) / 2)))
    return positions


def _positive(value: object) -> bool:
    return formats.is_number(value) and value > 0
