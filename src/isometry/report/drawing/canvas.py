"""Matplotlib figures: style, axes, and how they become SVG and PNG.

Only the object API of matplotlib is used: no global figure, no backend switch. The same input gives the same bytes:
SVG ids are salted with the picture's own name, and files carry no date.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isometry.errors import UserError, printable, xml
from isometry.files import write_output
from isometry.report import formats
from isometry.report.drawing.colours import LIGHT, palette_css

FONT_SIZE = 11.5
CHARACTER_WIDTH = 6.5
"""CSS pixels, on average and rounded up."""
PNG_DPI = 180
"""Figures are laid out at 72 dots an inch, where a point, matplotlib's unit, is a CSS pixel."""

ROUND_STEPS = [1, 2, 2.5, 5, 10]

VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.variables.items() if name != "surface"}
"""White is left alone: rings on maps are white on every page."""


@contextmanager
def plain_style(salt: str) -> Iterator[None]:
    """Matplotlib's defaults, whatever the user's settings file says, with labels taken literally ("$" is no
    mathematics), SVG text kept as text, and SVG ids that depend on the content and `salt` alone."""
    settings = {
        "svg.hashsalt": printable(salt),
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": FONT_SIZE,
        "figure.dpi": 72,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    with matplotlib_style.context(["default", settings]):
        yield


def new_figure(size: tuple[float, float]) -> Figure:
    """A transparent figure of `size` CSS pixels."""
    return Figure(figsize=(size[0] / 72, size[1] / 72))


def add_axes(figure: Figure, left: float, right: float, top: float, bottom: float, grid: str = "y") -> Axes:
    """Plain axes, with so many CSS pixels free at each side of the figure, and grid lines for `grid`."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    for name, side in axes.spines.items():
        side.set(visible=name == "bottom", color=LIGHT.line)
    if grid:
        axes.grid(axis=grid, color=LIGHT.line, lw=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=FONT_SIZE, labelcolor=LIGHT.muted, pad=5)
    return axes


def write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    coords: str | tuple[str, str],
    shift: tuple[float, float] = (0, 0),
    colour: str = LIGHT.muted,
    **style: Any,
) -> None:
    """Text at a position in matplotlib's ``coords``, moved by ``shift`` CSS pixels."""
    style |= {"xycoords": coords, "textcoords": "offset points", "color": colour}
    axes.annotate(printable(text), at, shift, annotation_clip=False, **style)


def number_ticks(axis: Axis, most: int = 5) -> None:
    """Round numbers on a linear axis."""
    axis.set_major_locator(MaxNLocator(most, steps=ROUND_STEPS))
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", formats.MINUS))


def name_ticks(axis: Axis, labels: Sequence[str], most: int) -> None:
    """Names on an axis: all of them, or evenly spaced ones where there are more than ``most``."""
    positions = range(0, len(labels), -(-len(labels) // most))
    axis.set_ticks(list(positions), [printable(labels[i]) for i in positions])


def inline_svg(figure: Figure, label: str) -> Markup:
    """The figure as SVG to stand within the page, in the page's colours; `label` is its text alternative."""
    # The page sets size and strokes, and HTML gives the namespaces.
    svg = re.sub(r"<style.*?</style>", "", _svg(figure), flags=re.DOTALL)
    view_box, rest = re.findall(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)$', svg, flags=re.DOTALL)[0]
    return Markup(f'<svg {view_box} role="img" aria-label="{xml(label)}">{rest}')


def svg_file(figure: Figure, description: str) -> str:
    """The figure as an SVG file of its own, whose colours follow the reader's choice of light or dark;
    `description` is its text alternative."""
    before, rest = _svg(figure).split("<svg", 1)
    attributes, rest = rest.split(">", 1)
    text = xml(description)
    return (
        f'{before}<svg role="img" aria-label="{text}"{attributes}><title>{text}</title><style>{palette_css()} '
        "text { font-family: ui-sans-serif, system-ui, sans-serif; }</style>"
        f'<rect width="100%" height="100%" style="fill: var(--background)"/>{rest}'
    )


def save_figure(path: Path, figure: Figure, description: str) -> None:
    """Writes the figure as SVG or PNG, by the ending of the name, with `description` as its text alternative.

    Raises:
        UserError: the name ends in something else, or the file cannot be written, or would replace one of the user's.
    """
    if path.suffix.lower() == ".svg":
        content = svg_file(figure, description).encode()
    elif path.suffix.lower() == ".png":
        buffer = io.BytesIO()
        metadata = {"Software": None, "Description": printable(description)}
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=LIGHT.background, metadata=metadata)
        content = buffer.getvalue()
    else:
        raise UserError(f"cannot draw to {path}: give a name that ends in .png or .svg")
    write_output(path, content)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # Nothing refers to the ids of groups, which would repeat from picture to picture; style sheets set the font.
    svg = re.sub(r'(?<=<g) id="[^"]*"|(?<=px;) font-family: [^;]*;', "", buffer.getvalue())
    return re.sub(
        r"((?:fill|stroke): )(#[0-9a-f]{6})", lambda found: found[1] + VARIABLES.get(found[2], found[2]), svg
    )
