"""Bars of dense figures with their intervals, a group for each figure."""

from collections.abc import Sequence

from markupsafe import Markup

from isometry.report.drawing import canvas
from isometry.report.drawing.colours import LIGHT
from isometry.report.records.data import Row

WIDTH, BAR, TITLE, GAP = 560, 13, 22, 10
"""CSS pixels: of the chart, the height of a bar, of a figure's name, and between figures."""


def dense_chart(rows: Sequence[Row], names: Sequence[str]) -> Markup:
    """For each figure a bar for each network in ``names`` that has it, its 95 % interval as a line, and chance as a
    dashed line; all in percent."""
    figures = list(dict.fromkeys(row["figure"] for row in rows))
    groups = [[row for row in rows if row["figure"] == figure] for figure in figures]
    height = sum(TITLE + BAR * len(group) + GAP for group in groups)
    with canvas.plain_style("dense"):
        figure = canvas.new_figure((WIDTH, height + 30))
        axes = canvas.add_axes(figure, left=14, right=24, top=4, bottom=26, grid="x")
        axes.set(xlim=(0, 100), ylim=(height, 0), yticks=[])
        axes.xaxis.set_major_formatter("{x:g} %")
        top = 0.0
        for title, group in zip(figures, groups, strict=True):
            canvas.write(axes, title, (0, top + TITLE - 6), "data", colour=LIGHT.text)
            top += TITLE
            for place, row in enumerate(group):
                middle, colour = (
                    top + BAR * (place + 0.5),
                    LIGHT.series[names.index(row["of"]) % len(LIGHT.series)],
                )
                axes.barh(middle, row["value"], height=BAR - 3, color=colour)
                axes.plot([row["low"], row["high"]], [middle, middle], color=LIGHT.text, lw=1.4)
            if (chance := group[0].get("chance")) is not None:
                ends = [top, top + BAR * len(group)]
                axes.plot([chance, chance], ends, color=LIGHT.text, lw=1.4, dashes=(2, 1.5))
            top += BAR * len(group) + GAP
        return canvas.inline_svg(figure, description(groups))


def description(groups: Sequence[Sequence[Row]]) -> str:
    """The chart's text alternative."""
    told = []
    for group in groups:
        values = ", ".join(f"{row['of']} {row['value']:.1f} %" for row in group)
        told.append(f"{group[0]['figure']}: {values}")
    return f"Dense figures. {'; '.join(told)}."
