"""Accuracy against latency, as `isometry bench` measured them: a line a network, a mark on it a runtime.

A network is as accurate under one runtime as under the other, so its marks lie on a level line, and its name stands to
the right of all. Networks without an accuracy have lines of their own below.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Affine2D

from isometry.errors import UserError
from isometry.files import write_whole
from isometry.report import formats
from isometry.report.bench_tables import Measured, labelled_forms, measured
from isometry.report.drawing.charts import CHARACTER_WIDTH, FONT_SIZE, plain_style
from isometry.report.drawing.colours import LIGHT, following
from isometry.report.records.data import Row
from isometry.report.tables import PARTS

WIDTH = 820
"""CSS pixels."""
LABEL_HEIGHT = 19
"""CSS pixels from one name to the next below it."""
LONGEST_LABEL = 34
"""Characters; of a longer name the beginning is left out, since it is the end that tells folders apart."""
MARKS = {"eager": "o", "compiled": "^", "onnx": "s"}
WORDS = {"eager": "eager", "compiled": "torch.compile", "onnx": "ONNX Runtime"}


class Track(NamedTuple):
    """A form of a network: its name, its accuracy if it has one, and what it was measured in."""

    label: str
    top1: float | None
    rows: list[Measured]


def latency_picture(path: Path, networks: Sequence[Row]) -> None:
    """Draws networks, as `isometry.evaluation.benchmark` writes them, to ``path``: SVG that follows the reader's choice of light or
    dark, or PNG on paper of its own. Either carries :func:`latency_words` as its text alternative.

    Raises:
        UserError: the name ends in something else, or the file cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise UserError(f"cannot draw to {path}: give a name that ends in .png or .svg")
    words = latency_words(networks)
    buffer = io.BytesIO()
    with plain_style("latency"):
        figure = _figure(_tracks(networks), _part(networks))
        if kind == "png":
            about = {"Software": None, "Description": words}
            figure.savefig(buffer, format="png", dpi=144, facecolor=LIGHT.paper, metadata=about)
            content = buffer.getvalue()
        else:
            undated = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(buffer, format="svg", transparent=True, metadata=undated)
            content = following(buffer.getvalue().decode(), words).encode()
    write_whole(path, content)


def latency_words(networks: Sequence[Row]) -> str:
    """What the picture shows, in words: each network's accuracy, and its latency under each runtime."""
    told = []
    for track in _tracks(networks):
        times = ", ".join(f"{formats.number(row.first['ms'])} ms {row.runtime}" for row in track.rows)
        top1 = "no accuracy" if track.top1 is None else f"top-1 {formats.percent(track.top1)}"
        told.append(f"{track.label}: {top1}, {times}")
    return f"Top-1 accuracy against the time of one image. {'; '.join(told)}."


def _tracks(networks: Sequence[Row]) -> list[Track]:
    by_label: dict[str, list[Measured]] = {}
    for row in measured(networks):
        by_label.setdefault(row.network, []).append(row)
    tops = {label: form.get("top1") for label, form in labelled_forms(networks)}
    return [
        Track(label, tops[label] if formats.is_number(tops[label]) else None, rows)
        for label, rows in by_label.items()
    ]


def _part(networks: Sequence[Row]) -> str:
    parts = {form.get("top1_part") for _, form in labelled_forms(networks)} - {None}
    return f" on {PARTS.get(part, part)}" if len(parts) == 1 and (part := parts.pop()) else ""


def _figure(tracks: Sequence[Track], part: str) -> Figure:
    judged = [track for track in tracks if track.top1 is not None]
    others = [track for track in tracks if track.top1 is None]
    longest = max(len(_label(track)) for track in tracks)
    right = 42 + round(CHARACTER_WIDTH * 1.04 * longest)
    above = 64
    upper = max(200, LABEL_HEIGHT * (len(judged) + 2)) if judged else 0
    between = 34 if judged and others else 0
    lower = LABEL_HEIGHT * (len(others) + 1) if others else 0
    below = 48
    height = above + upper + between + lower + below
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, facecolor="none")
    left, width = 56 / WIDTH, 1 - (56 + right) / WIDTH
    span = _span(tracks)
    _legend(figure, tracks, height)
    if judged:
        floor = below + lower + between
        axes = _axes(figure, (left, floor / height, width, upper / height), span, bare=bool(others))
        _accuracies(axes, judged, part)
        levels = [float(track.top1) for track in judged if track.top1 is not None]
        heights = [float(axes.transData.transform((1, level))[1]) for level in levels]
        places = moved_apart(heights, floor, floor + upper)
        _draw(axes, judged, levels, places, list(range(len(judged))))
    if others:
        axes = _axes(figure, (left, below / height, width, lower / height), span, bare=False)
        axes.set_ylim(-0.5, len(others) + 0.5)
        axes.set_yticks([])
        levels = [float(len(others) - place) - 0.25 for place in range(len(others))]
        places = [axes.transData.transform((1, level))[1] for level in levels]
        colours = list(range(len(judged), len(tracks)))
        axes.annotate(
            "without an accuracy", (0, 1), (-40, 2), xycoords="axes fraction", textcoords="offset points",
            color=LIGHT.muted, va="bottom",
        )  # fmt: skip
        _draw(axes, others, levels, places, colours)
    return figure


def _span(tracks: Sequence[Track]) -> tuple[float, float]:
    """From under the shortest time to over the longest, on a logarithmic axis."""
    lows = [row.first["ms_low"] for track in tracks for row in track.rows]
    highs = [row.first["ms_high"] for track in tracks for row in track.rows]
    slack = max(1.15, (max(highs) / min(lows)) ** 0.06)
    return min(lows) / slack, max(highs) * slack


def _axes(
    figure: Figure, box: tuple[float, float, float, float], span: tuple[float, float], *, bare: bool
) -> Axes:
    axes = figure.add_axes(box, facecolor="none")
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(LIGHT.rule)
    axes.set_xscale("log")
    axes.set_xlim(*span)
    axes.grid(color=LIGHT.rule, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=FONT_SIZE, labelcolor=LIGHT.muted, pad=5)
    low, high = span
    fine = tuple(np.arange(1, 10, 0.5)) if high / low < 4 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else fine, numticks=8))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "" if bare else formats.number(value)))
    if not bare:
        axes.set_xlabel("one image takes, ms", color=LIGHT.muted, labelpad=6)
    return axes


def _accuracies(axes: Axes, tracks: Sequence[Track], part: str) -> None:
    tops = [track.top1 for track in tracks if track.top1 is not None]
    slack = max(0.12 * (max(tops) - min(tops)), 0.5)
    axes.set_ylim(min(tops) - slack, max(tops) + slack)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.annotate(
        f"top-1{part}, %", (0, 1), (-40, 6), xycoords="axes fraction", textcoords="offset points",
        color=LIGHT.muted, va="bottom",
    )  # fmt: skip


def _draw(
    axes: Axes,
    tracks: Sequence[Track],
    levels: Sequence[float],
    places: Sequence[float],
    colours: Sequence[int],
) -> None:
    # The figure is laid out at 72 dots an inch, in points, and may be saved at more.
    points = Affine2D().scale(1 / 72) + axes.figure.dpi_scale_trans
    edge = axes.transAxes.transform((1, 0))[0]
    for track, level, place, number in zip(tracks, levels, places, colours, strict=True):
        colour = LIGHT.series[number % len(LIGHT.series)]
        times = [row.first["ms"] for row in track.rows]
        axes.plot([min(times), max(times)], [level, level], color=colour, lw=1.2, alpha=0.55)
        # From the slowest mark to the name, by way of the edge where names are moved apart.
        begin = axes.transData.transform((max(times), level))
        axes.add_line(
            Line2D(
                [begin[0] + 8, edge, edge + 14], [begin[1], begin[1], place],
                transform=points, color=colour, lw=0.8, alpha=0.7, clip_on=False, dashes=(1, 2),
            )
        )  # fmt: skip
        axes.add_line(
            Line2D(
                [edge + 14, edge + 24], [place, place], transform=points, color=colour, lw=4, clip_on=False
            )
        )
        for row in track.rows:
            first = row.first
            axes.plot([first["ms_low"], first["ms_high"]], [level, level], color=colour, lw=5, alpha=0.35)
            axes.plot(
                first["ms"], level, MARKS[row.runtime], color=colour, mec=LIGHT.paper, mew=1, ms=9, zorder=3,
                clip_on=False,
            )  # fmt: skip
        axes.annotate(
            _label(track), (edge + 30, place), xycoords="figure points", va="center", color=LIGHT.ink,
            annotation_clip=False,
        )  # fmt: skip


def moved_apart(heights: Sequence[float], floor: float, ceiling: float) -> list[float]:
    """Heights at least :data:`LABEL_HEIGHT` apart, in the same order, between ``floor`` and ``ceiling`` where all have
    room there; those that are far enough from others stay."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    limit = floor
    for place in order:
        moved[place] = max(moved[place], limit)
        limit = moved[place] + LABEL_HEIGHT
    limit = ceiling
    for place in reversed(order):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - LABEL_HEIGHT
    return moved


def _legend(figure: Figure, tracks: Sequence[Track], height: float) -> None:
    figure.text(
        16 / WIDTH, 1 - 20 / height, "Accuracy against latency", color=LIGHT.ink, fontsize=15, va="center"
    )
    used = [name for name in MARKS if any(row.runtime == name for track in tracks for row in track.rows)]
    x = WIDTH - 16.0
    for name in reversed(used):
        x -= CHARACTER_WIDTH * len(WORDS[name])
        figure.text(x / WIDTH, 1 - 20 / height, WORDS[name], color=LIGHT.muted, va="center")
        x -= 12
        figure.add_artist(
            Line2D([x / WIDTH], [1 - 20 / height], marker=MARKS[name], color=LIGHT.muted, ms=7, lw=0)
        )
        x -= 18


def _label(track: Track) -> str:
    name = track.label if len(track.label) <= LONGEST_LABEL else f"…{track.label[1 - LONGEST_LABEL :]}"
    return name if track.top1 is None else f"{name}  {formats.percent(track.top1)}"
