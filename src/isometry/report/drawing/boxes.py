"""Pictures with boxes or masks, as SVG within the page. No meaning is told by colour alone."""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from isometry.errors import xml
from isometry.report.drawing.colours import LIGHT
from isometry.report.drawing.images import picture_png
from isometry.report.records.data import DrawnBox, Mask, Picture

WIDTH = 300
"""CSS pixels that a picture is drawn for."""
LETTER = 11
"""CSS pixels of the text at a box."""
OPACITY = 0.6
"""Of a class over the picture."""
IGNORED = 255


class Style(NamedTuple):
    """How a box is drawn: its colour, and the dashes of its line, which tell it from others without colour."""

    colour: str
    dashes: str
    sign: str
    """Stands before its text."""


STYLES = {
    "right": Style("series-4", "", "✓ "),
    "found": Style("series-4", "", ""),
    "wrong class": Style("series-2", "6 3", "✗ "),
    "no object": Style("series-5", "2 2", "✗ "),
    "missed": Style("series-2", "6 3", "missed "),
    "crowd": Style("muted", "1 3", "crowd "),
}
"""By verdict."""


def boxes_svg(pixels: Picture, boxes: Sequence[DrawnBox], label: str) -> Markup:
    """A picture with boxes and their texts; ``label`` is its text alternative."""
    width = pixels.shape[1]
    unit = width / WIDTH
    drawn = Markup("").join(_box(box, unit, width) for box in boxes)
    return _svg(pixels, label, drawn)


def mask_svg(pixels: Picture, mask: Mask, label: str) -> Markup:
    """A picture with the classes of its pixels over it, each in its colour; the background, class 0, has none."""
    return _svg(_coloured(pixels, mask), label, Markup(""))


def errors_svg(pixels: Picture, truth: Mask, answer: Mask, label: str) -> Markup:
    """The picture, pale, with the pixels whose answer is wrong striped."""
    grey = pixels.mean(2, keepdims=True) * 0.35 + 255 * 0.65
    wrong = (truth != IGNORED) & (truth != answer)
    rows, columns = np.indices(wrong.shape)
    stripes = wrong & ((rows + columns) // 2 % 2 == 0)
    shown = np.repeat(grey, 3, axis=2)
    shown[wrong] = rgb(LIGHT.series[1])
    shown[stripes] = 0
    return _svg(shown.round().astype(np.uint8), label, Markup(""))


def class_colour(number: int) -> str:
    """The colour of a class in masks: of the palette, and for later classes of other hues, a golden angle apart."""
    if number <= len(LIGHT.series):
        return LIGHT.series[number - 1]
    hue = number * 0.618034 % 1
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, 0.45, 0.65))


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``, 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _coloured(pixels: Picture, mask: Mask) -> Picture:
    shown = np.repeat(pixels, 3, axis=2).astype(np.float64) if pixels.shape[2] == 1 else pixels.astype(float)
    for number in np.unique(mask):
        if number not in (0, IGNORED):
            there = mask == number
            shown[there] = OPACITY * np.array(rgb(class_colour(int(number)))) + (1 - OPACITY) * shown[there]
    return shown.round().astype(np.uint8)


def _box(box: DrawnBox, unit: float, width: int) -> Markup:
    style, (left, top, right, bottom) = STYLES[box.verdict], box.corners
    dashes = " ".join(f"{float(part) * unit:.3g}" for part in style.dashes.split())
    text, size = f"{style.sign}{box.text}", LETTER * unit
    # Above the box, or inside it at the picture's upper edge; never beyond the right one.
    baseline = top - 0.3 * size if top > 1.3 * size else top + size
    start = min(left, max(0.0, width - 0.6 * size * len(text)))
    line = (
        f'<rect x="{left:g}" y="{top:g}" width="{right - left:.4g}" height="{bottom - top:.4g}" fill="none" '
        f'stroke="var(--{style.colour})" stroke-width="{2 * unit:.3g}"'
    )
    letters = (
        f'<text x="{start:.4g}" y="{baseline:.4g}" font-size="{size:.3g}" fill="#fff" stroke="#000" '
        f'stroke-width="{3 * unit:.3g}" paint-order="stroke">{xml(text)}</text>'
    )
    return Markup(line + (f' stroke-dasharray="{dashes}"' if dashes else "") + "/>" + letters)


def _svg(pixels: Picture, label: str, over: Markup) -> Markup:
    height, width = pixels.shape[:2]
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{xml(label)}">'
        f'<image width="{width}" height="{height}" href="{picture_png(pixels)}"/>{over}</svg>'
    )
