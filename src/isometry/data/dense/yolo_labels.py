"""YOLO's label files: a line for each object of a picture.

A line is ``class x y width height``, or ``class x1 y1 x2 y2 x3 y3 ...`` for the polygon around an object, of which the
box is taken; all in shares of the upright picture's width and height, with x, y the middle of the box. Of a pose, the
numbers of key points follow those of its box.
"""

import math
import os
from collections.abc import Sequence

from isometry.data.class_map import MOST_CLASSES
from isometry.data.dense.findings import Findings
from isometry.errors import reason
from isometry.files import check_regular

MOST_BEYOND = 0.5
"""Share of a picture's side by which coordinates may reach out of it; numbers beyond are pixels, or mistakes."""
NO_CLASS = "lines left out (they don't begin with the number of a class)"
NO_BOX = "lines left out (neither the four numbers of a box nor the points of a polygon)"
NO_SHARES = "lines left out (coordinates that are not from 0 to 1, such as pixels)"
POLYGONS = "polygons (the box around each is used)"
KEY_POINTS = "lines with key points (the box before them is used)"

BOX = 5
"""Words of a class and its box."""
Line = tuple[float, float, float, float, float]
"""Class, left, top, right and bottom."""


def read_labels(
    path: str, names: Sequence[str] | None, findings: Findings, key_points: int | None = None
) -> tuple[list[list[float]], list[int], list[str]]:
    """Corners in shares, classes, and where each stands; ``key_points`` numbers may follow a box, then no polygon."""
    try:
        check_regular(os.stat(path))
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        findings.add("label files that can't be read", f"{path} ({reason(error)})")
        return [], [], []
    found: dict[Line, str] = {}
    for number, line in enumerate(lines, start=1):
        where, words = f"line {number} of {path}", line.split()
        if not words:
            continue
        parsed = _parsed(words, key_points)
        if isinstance(parsed, str):
            findings.add(parsed, where)
        elif names is not None and parsed[0] >= len(names):
            findings.add("lines left out (a class without a name)", f"{where} (class {parsed[0]:.0f})")
        elif parsed in found:
            findings.add("lines left out (written twice)", where)
        else:
            found[parsed] = f"line {number}"
            if len(words) > len(parsed):
                findings.add(POLYGONS if key_points is None else KEY_POINTS, where)
    return [list(each[1:]) for each in found], [int(each[0]) for each in found], list(found.values())


def _parsed(words: Sequence[str], key_points: int | None) -> Line | str:
    """Class and corners of a line, or what is wrong with it."""
    of_pose = key_points is not None and len(words) == BOX + key_points
    label, *numbers = map(_number, words[:BOX] if of_pose else words)
    if not (0 <= label < MOST_CLASSES and label == math.floor(label)):
        return NO_CLASS
    of_polygon = key_points is None and len(numbers) >= 6 and len(numbers) % 2 == 0
    if not (len(numbers) == 4 or of_polygon) or any(map(math.isnan, numbers)):
        return NO_BOX
    if not all(-MOST_BEYOND <= number <= 1 + MOST_BEYOND for number in numbers):
        return NO_SHARES
    if of_polygon:
        return label, min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    x, y, width, height = numbers
    return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _number(word: str) -> float:
    """NaN for a word that is no number."""
    try:
        return float(word)
    except ValueError:
        return math.nan
