"""Pictures for the page: line charts and matrices as inline SVG that follows the page's colours, maps as PNG.

Matplotlib draws through its object API alone: no global figure, no backend switch. The same input gives the
same bytes: element ids are salted with the picture's own name, and nothing is dated.
"""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape

import numpy as np
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from isometry.report import formats
from isometry.report.drawing.panels import Panel
from isometry.report.records.data import Matrix, Picture, Row

LARGEST_MAP = 224
"""Maps of more tokens are averaged down to this many pixels a side: more would not be seen."""
COLOUR_MAP = LinearSegmentedColormap.from_list(
    "isometry", ["#08131f", "#0d3b54", "#1d7385", "#6fae9f", "#c9d8b4", "#fbf3dc"]
)
"""From low to high, darker to lighter throughout, so that it reads in grey too."""
MAP_COLOURS = 255
"""Colours of a map; the palette's last entry is kept for values that are not finite."""
NOT_FINITE = (128, 128, 128)

# Stand-ins that are replaced by CSS variables, so that one SVG serves light and dark pages.
INK, MUTED, RULE = "#010101", "#020202", "#030303"
SERIES = tuple(f"#010{index}f1" for index in range(1, 9))
CSS_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES, 1)
}
FONT_SIZE = 11.5
CHARACTER_WIDTH = 6.5
"""CSS pixels, on average and rounded up."""
BAND_OPACITY = 0.16
STAGE_HEIGHT = 62
"""CSS pixels of a stage's name and its two bars."""


@contextmanager
def plain_style(salt: str) -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's settings file says, with labels taken literally ("$" is
    no mathematics), SVG text kept as text, and SVG ids that depend on the content and `salt` alone."""
    settings = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": FONT_SIZE,
    }
    with matplotlib_style.context(["default", settings]):
        yield


def curve_svg(
    panel: Panel,
    size: tuple[int, int],
    epochs: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
    reference: tuple[float, str] | None = None,
    name_marks: bool = False,
) -> str:
    """One panel as inline SVG.

    Args:
        panel: the lines.
        size: (width, height) in CSS pixels at scale 1.
        epochs: first and last epoch of the horizontal axis.
        marks: vertical lines at (epoch, label).
        reference: a horizontal dashed line at (value, label).
        name_marks: whether the marks' labels are written, as far as they fit; the small panels show the lines
            alone.
    """
    name = f"{panel.key} {size}"
    with plain_style(name):
        figure, axes = bare_axes(size, left=46, right=12, top=22 if name_marks and marks else 10, bottom=24)
        _draw_lines(axes, panel)
        first, last = epochs
        slack = 0.02 * (last - first) or 0.5
        axes.set_xlim(first - slack, last + slack)
        _draw_marks(axes, marks, name_marks)
        if reference:
            _draw_reference(axes, *reference)
        return inline_svg(figure, f"{panel.title}, by epoch")


def stages_svg(stages: Sequence[Row], width: int) -> str:
    """A pair of bars a stage as inline SVG, `width` CSS pixels wide: "seconds" above "full_seconds"."""
    name = f"stages {width}"
    with plain_style(name):
        figure, axes = bare_axes((width, STAGE_HEIGHT * len(stages)), left=2, right=86, top=0, bottom=0)
        axes.spines["bottom"].set_visible(False)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylim(len(stages), 0)
        for place, stage in enumerate(stages):
            axes.text(0, place + 0.2, f"{stage['stage']} · {stage['model']}", color=INK, va="center")
            for key, depth, colour in (("seconds", 0.48, SERIES[0]), ("full_seconds", 0.74, MUTED)):
                length = stage[key] if formats.is_number(stage[key]) else 0
                axes.barh(place + depth, length, height=0.2, color=colour)
                axes.annotate(
                    formats.duration(stage[key]), (length, place + depth), (6, 0),
                    textcoords="offset points", va="center", color=MUTED,
                )  # fmt: skip
        axes.margins(x=0)
        return inline_svg(figure, "Time of each stage, measured and at full size")


def shares_svg(
    layers: Sequence[str], groups: Sequence[tuple[str, Sequence[float]]], size: tuple[int, int]
) -> str:
    """Shares in [0, 1] by layer as inline SVG, from the left on: a bar for each of the named groups, side by side."""
    name = f"shares {size}"
    below = 12 + 7 * max(map(len, layers))
    with plain_style(name):
        figure, axes = bare_axes((size[0], size[1] + below), left=46, right=4, top=8, bottom=below)
        width = 0.8 / len(groups)
        for place, (_, shares) in enumerate(groups):
            lefts = np.arange(len(layers)) - 0.4 + place * width
            axes.bar(lefts, 100 * np.asarray(shares), width=0.92 * width, align="edge", color=SERIES[place])
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        name_ticks(axes.xaxis, layers, most=size[0] // 20)
        axes.tick_params(axis="x", rotation=90)
        names = " and ".join(group for group, _ in groups)
        return inline_svg(figure, f"Share of channels that {names} kept, by layer")


def picture_png(pixels: Picture) -> str:
    """A picture (H, W, C), C = 1 or 3, as the data URI of a PNG."""
    return _png(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def map_png(values: Matrix, low: float, high: float) -> str:
    """A map as the data URI of a PNG with one pixel an entry (see LARGEST_MAP); entries outside [low, high]
    take the nearest colour, entries that are not finite are grey."""
    image = Image.fromarray(np.asarray(values, dtype=np.float32))
    if max(image.size) > LARGEST_MAP:
        image = image.resize((LARGEST_MAP, LARGEST_MAP), Image.Resampling.BOX)
    pixels = np.asarray(image)
    finite = np.isfinite(pixels)
    share = np.clip((np.where(finite, pixels, low) - low) / max(high - low, 1e-12), 0, 1)
    indices = np.where(finite, np.round(share * (MAP_COLOURS - 1)), MAP_COLOURS).astype(np.uint8)
    return _palette_png(indices)


def scale_png() -> str:
    """The colour scale of maps and matrices, from low to high, as the data URI of a PNG of one row."""
    return _palette_png(np.arange(MAP_COLOURS, dtype=np.uint8)[None])


def colour_range(maps: Sequence[Matrix]) -> tuple[float, float]:
    """The lowest and highest value that the colours of relation maps side by side tell apart."""
    # A few far-off entries must not flatten all others; the top is 1, which the diagonal always has.
    entries = np.concatenate([matrix[np.isfinite(matrix)].ravel() for matrix in maps])
    low = float(np.percentile(entries, 1)) if entries.size else 0.0
    return min(np.floor(low * 10) / 10, 0.9), 1.0


def _palette_png(indices: np.ndarray) -> str:
    colours = COLOUR_MAP(np.linspace(0, 1, MAP_COLOURS), bytes=True)[:, :3]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes() + bytes(NOT_FINITE))
    return _png(image)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def bare_axes(size: tuple[int, int], left: int, right: int, top: int, bottom: int) -> tuple[Figure, Axes]:
    """A transparent figure of `size` CSS pixels with one pair of axes, which leave so much free at its sides."""
    # At 72 dots an inch one point, matplotlib's unit for SVG, is one CSS pixel.
    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(box, facecolor="none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=FONT_SIZE, labelcolor=MUTED, pad=5)
    return figure, axes


def _draw_lines(axes: Axes, panel: Panel) -> None:
    for place, line in zip(panel.places, panel.series, strict=True):
        colour = SERIES[place % len(SERIES)]
        few = len(line.values) <= 12
        style = "--" if place >= len(SERIES) else "-"
        axes.plot(line.epochs, line.values, style, color=colour, lw=1.8, marker="o" if few else None, ms=3.5)
        if line.low:
            axes.fill_between(line.epochs, line.low, line.high, color=colour, alpha=BAND_OPACITY, lw=0)
        if line.last:
            axes.plot(*line.last, "o", color=colour, ms=5, clip_on=False, zorder=4)
    axes.margins(y=0.08)
    if panel.log:
        axes.set_yscale("log")
        # An interval may reach below 0, where a logarithm ends: the lines say how far the axis goes.
        axes.set_ylim(*panel.span)
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        if panel.key.startswith("top"):
            # The interval of a few seeds may leave what a share can be.
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -2), min(high, 102))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _draw_reference(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=MUTED, lw=1.2, dashes=(4, 3))
    axes.annotate(
        label, (1, value), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="right", color=MUTED,
    )  # fmt: skip


def _draw_marks(axes: Axes, marks: Sequence[tuple[float, str]], named: bool) -> None:
    taken = -np.inf
    for epoch, label in sorted(marks):
        axes.axvline(epoch, color=MUTED, lw=1, dashes=(1, 3))
        centre, half = axes.transData.transform((epoch, 0))[0], CHARACTER_WIDTH * len(label) / 2
        # A label that would run into the one before is left out: the page's text names all marks.
        if named and centre - half > taken:
            taken = centre + half
            axes.annotate(
                label, (epoch, 1), (0, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", color=MUTED,
            )  # fmt: skip


def name_ticks(axis: Axis, labels: Sequence[str], most: int) -> None:
    """Names on an axis: all of them, or evenly spaced ones where there are more than ``most``."""
    step = -(-len(labels) // most)
    positions = range(0, len(labels), step)
    axis.set_ticks(list(positions), [labels[i] for i in positions])


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as SVG to stand within HTML, in the page's colours; `label` is its text alternative."""
    buffer = io.StringIO()
    undated = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=undated, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Within HTML the page sets size, strokes and fonts, and gives the namespaces; ids of groups, which
    # nothing refers to, would only repeat from picture to picture.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    view_box, rest = re.findall(r'^<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)$', svg, flags=re.DOTALL)[0]
    svg = f'<svg {view_box} role="img" aria-label="{escape(label)}">{rest}'
    for colour, variable in CSS_VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
