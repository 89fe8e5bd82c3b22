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
LETTER = 9
"""CSS pixels of the text at a box."""
CHARACTER = 0.6
"""Width of a character of it, in letters."""
LINE = 1.15
"""Height of it, in letters."""
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
    height, width = pixels.shape[:2]
    unit = width / WIDTH
    # Texts lie over all lines.
    drawn = [_line(box, unit) for box in boxes]
    drawn += [
        _letters(_text(box), place, unit)
        for box, place in zip(boxes, text_places(boxes, width, height), strict=True)
    ]
    return _svg(pixels, label, Markup("").join(drawn))


def text_places(boxes: Sequence[DrawnBox], width: int, height: int) -> list[tuple[float, ...]]:
    """Where the texts of the boxes lie on a picture, (left, top, right, bottom) in its pixels.

    Each is above its box, inside it or below, at its left or its right side: the first place that is inside the picture
    and where no earlier text is, or else the one that hides least of these.
    """
    size = LETTER * width / WIDTH
    taken: list[tuple[float, ...]] = []
    for box in boxes:
        wide, high = CHARACTER * size * len(_text(box)), LINE * size
        left, top, right, bottom = box.corners
        lefts = [max(0.0, min(start, width - wide)) for start in (left, right - wide)]
        tops = [y for y in (top - high, top, bottom - high, bottom) if 0 <= y <= height - high] or [0.0]
        places = [(x, y, x + wide, y + high) for y in tops for x in lefts]
        taken.append(min(places, key=lambda place: sum(_shared(place, other) for other in taken)))
    return taken


def _shared(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two rectangles share."""
    sides = [min(one[2 + axis], other[2 + axis]) - max(one[axis], other[axis]) for axis in range(2)]
    return max(0.0, sides[0]) * max(0.0, sides[1])


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


def _text(box: DrawnBox) -> str:
    return f"{STYLES[box.verdict].sign}{box.text}"


def _line(box: DrawnBox, unit: float) -> Markup:
    style, (left, top, right, bottom) = STYLES[box.verdict], box.corners
    dashes = " ".join(f"{float(part) * unit:.3g}" for part in style.dashes.split())
    line = (
        f'<rect x="{left:g}" y="{top:g}" width="{right - left:.4g}" height="{bottom - top:.4g}" fill="none" '
        f'stroke="var(--{style.colour})" stroke-width="{2 * unit:.3g}"'
    )
    return Markup(line + (f' stroke-dasharray="{dashes}"' if dashes else "") + "/>")


def _letters(text: str, place: tuple[float, ...], unit: float) -> Markup:
    size = LETTER * unit
    return Markup(
        f'<text x="{place[0]:.4g}" y="{place[1] + 0.9 * size:.4g}" font-size="{size:.3g}" fill="#fff" stroke="#000" '
        f'stroke-width="{2.5 * unit:.3g}" paint-order="stroke">{xml(text)}</text>'
    )


def _svg(pixels: Picture, label: str, over: Markup) -> Markup:
    height, width = pixels.shape[:2]
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{xml(label)}">'
        f'<image width="{width}" height="{height}" href="{picture_png(pixels)}"/>{over}</svg>'
    )
